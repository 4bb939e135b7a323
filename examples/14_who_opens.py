"""Who opens what under a folder, live: pid and name of the process, what it does, and the path.

    sudo python examples/14_who_opens.py /etc                          # needs the capability CAP_SYS_ADMIN
    sudo python examples/14_who_opens.py /var/log --events modify,close_write

The kernel tells of the whole mount that the folder is on; what is elsewhere on it is left out here. File systems that are
mounted inside of the folder are not seen. A process that has ended by the time that its name is asked for is called "?".
Ctrl-C ends it, and prints who was the busiest.
"""

import argparse
import collections
import os
import sys

from linux_event import Loop


def name_of(pid):
    """The name of a process, as `ps` shows it, or "?"."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"


def shown(text):
    """Fit for a terminal, which a name of a file may be not."""
    return text if text.isprintable() else repr(text)[1:-1]


class Observer:
    def __init__(self, loop, folder, events):
        self.folder = folder
        self.below = folder.rstrip("/") + "/"
        self.count = collections.Counter()
        # Without its own: the output may go to a file on the same mount, and each line would bring the next one.
        loop.fswatch(folder, events, self.on_event, own=False)

    def on_event(self, watcher, event):
        if "overflow" in event.names:
            print("more has happened than could be told", flush=True)
        elif event.path == self.folder or event.path.startswith(self.below):
            name = name_of(event.pid)
            what = "+".join(sorted(event.names - {"isdir"}))
            path = event.path + "/" * ("isdir" in event.names and event.path != "/")
            print(f"{event.pid:>7} {shown(name):<15} {what:<11} {shown(path)}", flush=True)
            self.count[event.pid, name] += 1


def main():
    parser = argparse.ArgumentParser(description="Show who opens files under a folder.")
    parser.add_argument("folder")
    parser.add_argument("--events", default="open", help='"all", or names with commas between; default: open')
    arguments = parser.parse_args()
    events = arguments.events if arguments.events == "all" else arguments.events.split(",")
    folder = os.path.realpath(arguments.folder)
    with Loop() as loop:
        try:
            observer = Observer(loop, folder, events)
        except ValueError as error:
            parser.error(str(error))
        except OSError as error:
            print(f"{folder}: {error.strerror}", file=sys.stderr)
            return 1
        for name in ("INT", "TERM"):
            loop.signal(name, lambda watcher, signum: loop.stop())
        print(f"watching {shown(folder)}, process {os.getpid()}", flush=True)
        loop.run()
    print(f"{observer.count.total()} events")
    for (pid, name), count in observer.count.most_common(3):
        print(f"{count:>7} of process {pid}, {shown(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
