"""A random program on the public API, with arguments that no reasonable program passes. Run in a child by test_fuzz.

Every step calls something with good, bad or hostile arguments: objects whose methods raise, close the loop, destroy the
watcher that is being used, or call the loop again. Only exceptions of the contract may come out, and the books of the
loop must balance after each step.
"""

import contextlib
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings

from _fuzz_operations import OperationSteps
from _fuzz_paths import PathSteps

import linux_event
from linux_event import Child, Events, Idle, IOWatcher, Loop, MountWatcher, PathWatcher, Periodic, Signal, Timer, Wakeup


class HostileError(Exception):
    """Raised by a hostile object; it may come out of any call that used the object."""


class HostileExit(BaseException):
    """The same, as an exception that leaves run()."""


ALLOWED = (TypeError, ValueError, OSError, RuntimeError, LookupError, HostileError, HostileExit)
REFUSED = (UnicodeError, NotImplementedError)


class Program(OperationSteps, PathSteps):
    """One random program: its loop, its watchers, its fds, and the source of all chance."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.loops, self.watchers, self.fds = [], [], []
        self.children = [subprocess.Popen(["sleep", "0"])]
        self.trail, self.swallowed, self.depth = [], [], 0
        self.steps = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("step_")]
        self.effects = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("effect_")]
        self.made = self.running = 0

    # -- Choices

    def chance(self, part):
        return self.random.random() < part

    def loop(self):
        return self.random.choice(self.loops)

    def watcher(self, kind=None):
        fitting = [watcher for watcher in self.watchers if kind is None or type(watcher) is kind]
        return self.random.choice(fitting) if fitting else self.make(kind)

    def hostile(self, value=None):
        kind = self.random.choice([Hostile, HostileInt, HostileFloat, HostileStr])
        return kind.make(self, self.random.choice(self.effects), value)

    def junk(self):
        """A value that fits nowhere in particular."""
        return self.random.choice(JUNK)() if self.chance(0.7) else self.hostile(self.random.choice(JUNK)())

    def pick(self, *good):
        """Mostly one of the good values, now and then junk, or a good value behind a hostile object."""
        number = self.random.random()
        if number < 0.8:
            return self.random.choice(good)
        return self.junk() if number < 0.92 else self.hostile(self.random.choice(good))

    def seconds(self):
        return self.pick(0, 0.0001, 0.001, 5, 3600, 1e300, 2**80, 1e-12, True)

    def fd(self):
        return self.pick(*self.fds, 0, 1, 2, 9999, 2**31, 2**64, -1, open(os.devnull), *self.loops)

    def callback(self):
        number = self.random.random()
        if number < 0.5:
            return ignore
        if number < 0.9:
            return Hostile.make(self, self.random.choice(self.effects), None)
        return self.junk()

    def options(self):
        options = {}
        for name, value in (
            ("data", self.junk),
            ("priority", lambda: self.pick(-2, -1, 0, 1, 2, 3, -3, 2**70)),
            ("ref", lambda: self.pick(True, False)),
            ("start", lambda: self.pick(True, False)),
            ("nonsense", lambda: 1),
        ):
            if self.chance(0.03 if name == "nonsense" else 0.3):
                options[name] = value()
        return options

    # -- Steps

    def arguments(self, kind):
        if kind is IOWatcher:
            polls = ("r", "w", "rw", "p", "", "x", "r\0", Events.READ, Events.WRITE, Events(31), Events(0), 1, 2**40)
            return [self.fd(), self.pick(*polls)]
        if kind is Timer:
            return [self.seconds()]
        if kind is Periodic:
            return [self.seconds()]
        if kind is Signal:
            return [
                self.pick("USR1", "SIGUSR2", 10, 12, signal.SIGHUP, "KILL", 9, 0, 65, -1, 2**70, "\0", "\udc80", 34)
            ]
        if kind is Child:
            child = self.child()
            return [self.pick(child, child.pid, 1, 0, -1, os.getpid(), 2**40)]
        if kind is MountWatcher:
            events = (["open"], "all", ("modify", "close_write"), "open", [], ["create"], ["open", 1], {"open_exec"})
            return [self.pick("/dev/shm", b"/proc", "/dev/shm\0", "/nowhere", ""), self.pick(*events)]
        if kind is PathWatcher:
            return self.path_arguments()
        return []

    def child(self):
        """A child process, most often one that ends soon; a Popen."""
        if len(self.children) < 30 and self.chance(0.3):
            self.children.append(subprocess.Popen(["sleep", self.random.choice(["0", "0", "60"])]))
        return self.random.choice(self.children)

    def make(self, kind=None):
        kind = kind or self.random.choice(KINDS)
        arguments = self.arguments(kind)
        options = self.options()
        if kind is Periodic and self.chance(0.3):
            options["offset"] = self.seconds()
        if kind is IOWatcher and self.chance(0.3):
            options["edge"] = self.pick(True, False)
        if kind is PathWatcher:
            options |= self.path_options()
        watcher = None
        with self.contract(kind.__name__, arguments, options):
            loop = self.loop()
            if self.chance(0.2):
                watcher = kind(self.pick(loop), *arguments, self.callback(), **options)
            elif self.chance(0.3):
                watcher = getattr(loop, FACTORIES[kind])(*arguments, **options)(self.callback())
            else:
                watcher = getattr(loop, FACTORIES[kind])(*arguments, self.callback(), **options)
        # An Ellipsis for a callback stands for none: what comes back is the decorator.
        if not isinstance(watcher, linux_event.Watcher):
            watcher = None
        if watcher is not None:
            self.watchers.append(watcher)
            self.made += 1
        if len(self.watchers) > 60:
            del self.watchers[: self.random.randrange(60)]
        return watcher or self.spare_watcher()

    def spare_watcher(self):
        """A watcher of a loop that is open and belongs to no other thread."""
        for loop in self.loops:
            with contextlib.suppress(RuntimeError):
                return Timer(loop, 1, ignore)
        self.loops.append(Loop(entries=8))
        return Timer(self.loops[-1], 1, ignore)

    def step_make(self):
        self.make()

    def step_make_more(self):
        self.make()

    def step_loop(self):
        options = {}
        for name, good in (
            ("entries", (1, 8, 256, 0, -1, 32769, 2**70)),
            ("cq_entries", (None, 8, 512, 1, 2**40)),
            ("busy_poll", (0, 0.0001)),
            ("idle_wait", (0, 0.001, -1, float("nan"))),
            ("max_events", (1, 256, 0, 2**70)),
            ("debug", (True, False)),
        ):
            if self.chance(0.3):
                options[name] = self.pick(*good)
        with self.contract("Loop", [], options):
            self.loops.append(Loop(**options))
        if len(self.loops) > 3:
            old = self.loops.pop(0)
            with self.contract("close", [], {}):
                old.close()

    def step_run(self):
        loop = self.loop()
        timeout = self.seconds()
        method = self.random.choice(["run", "run_once"])
        if threading.current_thread() is not threading.main_thread():
            timeout = 0
        # stop() makes it short. A hostile timeout may run the loop itself, which takes the stop: then the alarm does.
        with self.contract(method, [timeout], {}):
            self.running += 1
            try:
                loop.stop()
                getattr(loop, method)(timeout)
            finally:
                self.running -= 1

    def step_run_often(self):
        for loop in list(self.loops):
            with self.contract("run_once", [0], {}):
                loop.run_once(0)

    def step_write(self):
        for fd in self.fds[1::2]:
            with contextlib.suppress(OSError):
                os.write(fd, b"x")

    def step_read(self):
        for fd in self.fds[::2]:
            with contextlib.suppress(OSError):
                os.read(fd, 100)

    def step_raise_signal(self):
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            watchers = [watcher for loop in self.loops for watcher in loop.signals.get(number, ())]
            if any(watcher.is_active() for watcher in watchers):
                signal.raise_signal(number)

    def step_notify(self):
        wakeups = [watcher for watcher in self.watchers if isinstance(watcher, Wakeup)]
        for watcher in wakeups[:2]:
            with self.contract("notify", [], {}):
                watcher.notify()

    def step_method(self):
        watcher = self.watcher()
        name = self.random.choice(["start", "stop", "destroy", "is_active", "is_destroyed", "__enter__", "__repr__"])
        with self.contract(name, [], {}):
            getattr(watcher, name)()

    def step_exit(self):
        with self.contract("__exit__", [], {}):
            self.watcher().__exit__(self.junk(), self.junk(), self.junk())

    def step_set(self):
        watcher = self.watcher()
        name = self.random.choice(["callback", "data", "priority", "ref", "poll", "after", "interval", "id", "loop"])
        good = {"poll": ("r", "w", "rw"), "after": (0, 1), "interval": (0.001, 1), "priority": (0, 1), "ref": (True,)}
        with self.contract(f"set {name}", [], {}), contextlib.suppress(AttributeError):
            setattr(watcher, name, self.pick(*good.get(name, (ignore,))))

    def step_delete(self):
        name = self.random.choice(["callback", "data", "priority", "ref", "poll", "after", "interval", "on_error"])
        # Cython's way to say that a property cannot be deleted.
        with self.contract(f"del {name}", [], {}), contextlib.suppress(AttributeError, NotImplementedError):
            delattr(self.random.choice([self.watcher(), self.loop()]), name)

    def step_get(self):
        thing = self.random.choice([self.watcher(), self.loop()])
        for name in dir(thing):
            if not name.startswith("__"):
                with self.contract(f"get {name}", [], {}), contextlib.suppress(AttributeError):
                    getattr(thing, name)
        repr(thing)

    def step_call(self):
        loop = self.loop()
        name = self.random.choice(["defer", "post"])
        arguments = [self.callback(), *(self.junk() for _ in range(self.random.randrange(3)))]
        with self.contract(name, arguments, {}):
            getattr(loop, name)(*arguments)

    def step_on_error(self):
        handler = self.pick(None, ignore, Hostile.make(self, self.random.choice(self.effects), None))
        # A class is callable, and fails when it is called so: that would be told to sys.unraisablehook, as it should.
        if not isinstance(handler, type):
            with self.contract("on_error", [], {}):
                self.loop().on_error = handler

    def step_view(self):
        view = getattr(self.loop(), self.random.choice(["watchers", "io_watchers", "signals"]))
        key = self.junk()
        for use in (
            lambda: view[key],
            lambda: key in view,
            lambda: view.get(key),
            lambda: view == key,
            lambda: repr(view),
        ):
            with self.contract("view", [key], {}):
                use()
        with self.contract("iterate", [], {}):
            for _ in view.items():
                if self.chance(0.1):
                    self.random.choice(self.effects)()

    def step_surplus(self):
        """Calls with arguments of a wrong number or name."""
        loop, watcher = self.loop(), self.watcher()
        method = self.random.choice([loop.is_running, loop.is_closed, loop.time, loop.stop, loop.statistics])
        method = self.random.choice([method, watcher.start, watcher.destroy, loop.defer])
        with self.contract("surplus", [], {}):
            method(*(self.junk() for _ in range(self.random.randrange(3))), **self.random.choice([{}, {"x": 1}]))

    def step_subscribe(self):
        """Use of the types as what they are not."""
        kind = self.random.choice([*KINDS, linux_event.Watcher, Loop])
        with self.contract("new", [], {}):
            self.random.choice([kind.__new__, object.__new__])(kind)
        with self.contract("init", [], {}):
            kind.__init__(self.random.choice([self.watcher(), self.loop(), None]), self.junk())

    def step_thread(self):
        """The same in a thread that owns nothing."""
        step = self.random.choice([self.step_method, self.step_call, self.step_set, self.step_get])

        def body():
            try:
                with self.contract("thread", [], {}):
                    step()
            except BaseException as error:
                self.swallowed.append(f"{error!r} in a thread")

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()

    def step_drop(self):
        if self.watchers:
            del self.watchers[self.random.randrange(len(self.watchers))]
        gc.collect(self.random.randrange(3))

    def step_fds(self):
        """Close a pair of fds that may be watched, and open another in its place."""
        position = self.random.randrange(len(self.fds) // 2) * 2
        for fd in self.fds[position : position + 2]:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds[position : position + 2] = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # -- What hostile objects do when they are used

    def effect_raise(self):
        raise HostileError("hostile")

    def effect_leave(self):
        raise HostileExit("hostile")

    def alarm(self, signum, frame):
        """Leave a run that takes too long."""
        if self.running:
            raise HostileExit("alarm")

    def effect_nothing(self):
        pass

    def effect_destroy(self):
        for watcher in self.random.sample(self.watchers, min(3, len(self.watchers))):
            with self.contract("destroy", [], {}):
                watcher.destroy()

    def effect_destroy_all(self):
        for loop in list(self.loops):
            for watcher in list(loop.watchers.values()):
                with self.contract("destroy", [], {}):
                    watcher.destroy()

    def effect_close(self):
        with self.contract("close", [], {}):
            self.loop().close()

    def effect_step(self):
        self.step()

    def effect_collect(self):
        self.watchers.clear()
        gc.collect()

    def effect_stop(self):
        with self.contract("stop", [], {}):
            self.loop().stop()

    # -- One step

    @contextlib.contextmanager
    def contract(self, name, arguments, options):
        """Only what the contract names may come out of the block."""
        kinds = ", ".join([type(argument).__name__ for argument in arguments] + [f"{key}=" for key in options])
        self.trail.append(f"{'  ' * self.depth}{name}({kinds})")
        del self.trail[:-60]
        try:
            yield
        except ALLOWED as error:
            if isinstance(error, REFUSED):
                raise AssertionError(f"{name} raised {error!r}") from error
        except AttributeError as error:
            if (
                "read-only" not in str(error)
                and "not writable" not in str(error)
                and "object has no attribute" not in str(error)
            ):
                raise

    def step(self):
        if self.depth > 4:
            return
        self.depth += 1
        try:
            self.random.choice(self.steps)()
        finally:
            self.depth -= 1

    def check(self):
        """The loops' own figures agree with what can be seen of the watchers."""
        for loop in self.loops:
            statistics = loop.statistics()
            watchers = list(loop.watchers.values())
            assert statistics.watchers == len(watchers), (statistics, watchers)
            assert statistics.active_watchers == sum(watcher.is_active() for watcher in watchers), (
                statistics,
                watchers,
            )
            assert not any(watcher.is_destroyed() for watcher in watchers)
            assert statistics.requests_in_flight >= 0
            if loop.is_closed():
                assert not watchers
                assert statistics.requests_in_flight == 0
        self.check_operations()

    def note_swallowed(self, unraisable):
        if not isinstance(unraisable.exc_value, (HostileError, HostileExit)):
            self.swallowed.append(f"{unraisable.exc_value!r} in {unraisable.err_msg}")

    def run(self, count):
        for _ in range(8):
            self.fds += os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.loops.append(Loop(entries=8))
        try:
            for _ in range(count):
                self.spare_watcher()
                self.step()
                self.check()
                assert not self.swallowed, self.swallowed
        except BaseException:
            print("\n".join(self.trail), file=sys.stderr)
            raise
        for loop in self.loops:
            with self.contract("close", [], {}):
                loop.close()
        self.effects = [self.effect_nothing]
        for loop in self.loops:
            loop.close()
        for child in self.children:
            child.kill()
            child.wait()
        self.end_operations()
        self.end_paths()
        self.check()
        assert not self.swallowed, self.swallowed
        # A random program of a few hundred steps may do little of either.
        assert self.made > count / 50 - 5, self.made
        assert self.started > count / 50 - 5, self.started


class Hostile:
    """An object that does something terrible whenever it is used, and then gives the value it stands for."""

    program = effect = value = None

    @classmethod
    def make(cls, program, effect, value):
        hostile = cls()
        hostile.program, hostile.effect, hostile.value = program, effect, value
        return hostile

    def act(self, *_, **__):
        if self.effect is None or self.program.depth > 6:
            return self.value
        self.program.depth += 1
        try:
            self.effect()
        finally:
            self.program.depth -= 1
        return self.value

    fileno = __index__ = __float__ = __int__ = __bool__ = __len__ = __iter__ = __call__ = __fspath__ = act
    __str__ = __eq__ = __or__ = __and__ = __contains__ = __getitem__ = __format__ = __repr__ = act

    def __hash__(self):
        self.act()
        return 1


def hostile_subclass(name, base, methods):
    """A subclass of a builtin type whose methods act as those of Hostile do."""
    body = dict.fromkeys(methods, Hostile.act)
    body |= {
        "make": classmethod(Hostile.make.__func__),
        "act": Hostile.act,
        "effect": None,
        "program": None,
        "value": None,
    }
    body["__hash__"] = Hostile.__hash__
    return type(name, (base,), body)


HostileInt = hostile_subclass(
    "HostileInt", int, ["__index__", "__int__", "__eq__", "__repr__", "__bool__", "__lt__", "fileno"]
)
HostileFloat = hostile_subclass(
    "HostileFloat", float, ["__float__", "__eq__", "__repr__", "__bool__", "__lt__", "__gt__"]
)
HostileStr = hostile_subclass("HostileStr", str, ["__str__", "__eq__", "__repr__", "__len__", "__iter__", "upper"])

KINDS = [IOWatcher, Timer, Periodic, Signal, Idle, Child, Wakeup, MountWatcher, PathWatcher]
NAMES = ("io", "timer", "periodic", "signal", "idle", "child", "wakeup", "fswatch", "watch")
FACTORIES = dict(zip(KINDS, NAMES, strict=True))
JUNK = [
    lambda: None,
    lambda: 0,
    lambda: -1,
    lambda: 2**31,
    lambda: 2**63,
    lambda: 2**64,
    lambda: -(2**63) - 1,
    lambda: 2**5000,
    lambda: True,
    lambda: 1.5,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: float("-inf"),
    lambda: 1e308,
    lambda: 5e-324,
    lambda: -0.0,
    lambda: 1j,
    lambda: "",
    lambda: "r\0w",
    lambda: "\udc80",
    lambda: "x" * 100_000,
    lambda: b"r",
    lambda: bytearray(b"r"),
    lambda: memoryview(b"r"),
    lambda: (),
    lambda: [1, 2],
    dict,
    lambda: {1},
    lambda: object(),
    lambda: object,
    lambda: Events,
    lambda: Events.READ,
    lambda: Loop,
    lambda: Timer,
    lambda: print,
    lambda: NotImplemented,
    lambda: ...,
    lambda: slice(1),
    lambda: range(3),
    lambda: (number for number in ()),
    lambda: ValueError("as a value"),
    lambda: sys,
]


def ignore(*_):
    pass


def main(seed, count):
    """Run the random program of a seed and end; the exit status tells."""
    logging.disable()
    warnings.simplefilter("ignore")
    program = Program(seed)
    sys.unraisablehook = program.note_swallowed
    signal.signal(signal.SIGALRM, program.alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    program.run(count)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("made", program.made)
