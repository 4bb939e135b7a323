"""A tour of timers and periodics. It takes about two seconds and prints what happens when.

python examples/03_timers.py
"""

import time

from linux_event import Loop


def main():
    with Loop() as loop:
        begin = loop.time()

        def say(text):
            print(f"{loop.time() - begin:5.2f} s  {text}", flush=True)

        # A timer fires once, never before its time.
        loop.timer(0.3, lambda timer: say("a timer of 0.3 s fired"))

        # Every factory is a decorator too, if the callback is left out. `again` is the timer then.
        @loop.timer(0.2, data=3)
        def again(timer):
            timer.data -= 1
            say(f"a timer that starts itself again: {timer.data} to go")
            if timer.data:
                timer.start()

        # The usual use of a timer is one that does not fire: a time limit that is met.
        limit = loop.timer(0.5, lambda timer: say("never printed: the limit was met"))
        loop.timer(0.4, lambda timer: say(f"stopped a limit with {limit.stop().after - 0.4:.1f} s to go"))

        # What is due at the same moment runs by priority, the highest first.
        for priority in (-2, 0, 2):
            loop.timer(0.7, lambda timer: say(f"due together, priority {timer.priority}"), priority=priority)

        # A periodic stays on its grid: 0.25, 0.5, 0.75 s, ... after its start, however late its callbacks run.
        @loop.periodic(0.25, data=0)
        def tick(periodic):
            periodic.data += 1 + periodic.missed
            say(f"tick {periodic.data} of a periodic of 0.25 s" + f", {periodic.missed} merged" * (periodic.missed > 0))
            if periodic.data == 4:
                # A callback that takes too long makes the loop miss ticks. They are merged into one call and counted.
                time.sleep(0.6)
            if periodic.data >= 8:
                periodic.destroy()

        # `offset` moves the grid: the first tick comes after 0.1 s, the next ones every 0.5 s.
        @loop.periodic(0.5, offset=0.1, data=0)
        def shifted(periodic):
            periodic.data += 1
            if periodic.data == 2:
                periodic.destroy()
            say(f"shifted tick {periodic.data}")

        # A watcher with ref=False does not keep the loop going: this one would fire after a minute.
        loop.timer(60, lambda timer: say("never printed: the loop ended before"), ref=False)

        loop.run()
        say("nothing is left to do, so run() has returned")


if __name__ == "__main__":
    main()
