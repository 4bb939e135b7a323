"""Fork in the middle of run, where the child returns into it: in a callback, a signal handler, a destructor."""

import _fault
import pytest


@pytest.mark.parametrize("kind", ["timer", "deferred", "io", "idle", "signal", "batch"])
def test_child_that_returns_into_run(kind):
    """The child's copy of the stack unwinds through the dead loop: run raises there, and calls nobody else."""
    result = _fault.run_script(
        """
        import os, signal, sys
        import _fault
        from linux_event import Loop

        kind, parent, called = sys.argv[1], os.getpid(), []
        loop = Loop()
        children = []

        def fork(*_):
            called.append("fork")
            if len(called) == 1:
                children.append(os.fork())

        def other(*_):
            called.append("other")

        if kind == "timer":
            loop.timer(0, fork)
        elif kind == "deferred":
            loop.defer(fork)
            loop.defer(other)
        elif kind == "io":
            loop.io(os.eventfd(1), "r", lambda watcher, events: (watcher.stop(), fork()))
        elif kind == "idle":
            loop.idle(lambda watcher: (watcher.stop(), fork()))
        elif kind == "signal":
            loop.signal("USR1", lambda watcher, signum: (watcher.stop(), fork()))
            os.kill(parent, signal.SIGUSR1)
        elif kind == "batch":
            loop.timer(0, fork, priority=2)
            loop.timer(0, other)
            loop.io(os.eventfd(1), "r", lambda watcher, events: (watcher.stop(), other()))
        try:
            loop.run(timeout=50)
        except RuntimeError as error:
            assert os.getpid() != parent
            assert "fork" in str(error), error
            assert called == ["fork"], called
            assert not loop.is_running()
            sys.exit(7)
        assert os.getpid() == parent
        assert called.count("fork") == 1
        assert called.count("other") == {"deferred": 1, "batch": 2}.get(kind, 0), called
        assert _fault.wait_child(children[0]) == 7
        loop.close()
        print("parent done")
        """,
        kind,
    )
    result.check("parent done")


@pytest.mark.parametrize("when", ["asleep", "spinning", "never asleep", "a destructor", "the last destructor"])
def test_child_of_a_handler_that_returns_into_run(when):
    """Handlers of Python run in the middle of the wait, and so may destructors: run raises in the child there as well."""
    result = _fault.run_script(
        """
        import os, signal, sys
        import _fault
        from linux_event import Loop

        when, parent, children = sys.argv[1], os.getpid(), []
        loop = Loop(busy_poll=0.01 if when == "spinning" else 0)
        read_end, write_end = os.pipe()

        def fork(*_):
            children.append(os.fork())
            if children[0]:
                loop.stop_threadsafe()

        class Destructor:
            def __del__(self):
                fork()

        watched = loop.io(read_end, "r", print, data=Destructor() if "destructor" in when else None)
        if when == "never asleep":
            # A built-in function: no bytecode runs the handler.
            loop.io(write_end, "w", {}.setdefault)
        loop.run_once(0)
        if "destructor" in when:
            if when == "a destructor":
                loop.timer(3600, print)
            loop.timer(0, lambda watcher: loop.watchers[1].destroy())
            del watched
        else:
            signal.signal(signal.SIGALRM, fork)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            loop.run(timeout=50)
        except RuntimeError as error:
            assert os.getpid() != parent
            assert "fork" in str(error), error
            sys.exit(7)
        assert os.getpid() == parent
        assert _fault.wait_child(children[0]) == 7
        loop.close()
        print("parent done")
        """,
        when,
    )
    result.check("parent done")


def test_child_that_returns_into_close():
    """A destructor forks while close() lets the kernel finish: the child's copy of close() raises, the parent's goes on."""
    result = _fault.run_script(
        """
        import os, sys
        import _fault
        from linux_event import Loop

        class Destructor:
            def __del__(self):
                children.append(os.fork())

        children, parent = [], os.getpid()
        loop = Loop()
        read_end, write_end = os.pipe()
        for _ in range(10):
            loop.io(read_end, "r", print)
        loop.io(read_end, "r", print, data=Destructor())
        loop.run_once(0)
        try:
            loop.close()
        except RuntimeError as error:
            assert os.getpid() != parent
            assert "fork" in str(error), error
            loop.close()
            assert loop.is_closed()
            sys.exit(7)
        assert os.getpid() == parent
        assert _fault.wait_child(children[0]) == 7
        assert loop.is_closed()
        print("parent done")
        """
    )
    result.check("parent done")


def test_child_of_a_callback_makes_a_loop_and_leaves_through_run():
    result = _fault.run_script(
        """
        import os, sys
        import _fault
        from _traffic import make_a_loop
        from linux_event import Loop

        children = []

        def fork(watcher):
            pid = os.fork()
            if pid:
                children.append(pid)
            else:
                make_a_loop(loop)
                sys.exit(9)

        loop = Loop()
        loop.timer(0, fork)
        loop.run()
        assert _fault.wait_child(children[0]) == 9
        print("parent done")
        """
    )
    result.check("parent done")
