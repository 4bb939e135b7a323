"""Mistakes that the stubs must find. Checked, never run.

Each wrong line says which error mypy has to report there, and pyright has to report one too: an ignore comment that one of
them does not need fails the check.
"""

import signal

from linux_event import Events, Idle, IOWatcher, Loop, Periodic, Signal, Stream, Timer, Watcher


def on_io(watcher: IOWatcher, events: Events) -> None: ...
def on_timer(watcher: Timer) -> None: ...
def on_periodic(watcher: Periodic) -> None: ...
def on_signal(watcher: Signal, signum: int) -> None: ...
def on_signal_text(watcher: Signal, name: str) -> None: ...
def on_idle(watcher: Idle) -> None: ...
def add(a: int, b: int) -> int:
    return a + b


def loops(loop: Loop) -> None:
    Loop(8)  # type: ignore[call-arg]
    Loop(size=8)  # type: ignore[call-arg]
    Loop(entries="8")  # type: ignore[arg-type]
    loop.run("1")  # type: ignore[arg-type]
    loop.run_once(object())  # type: ignore[arg-type]
    loop.defer()  # type: ignore[call-arg]
    loop.defer(None)  # type: ignore[arg-type]
    loop.defer(add, 1)  # type: ignore[arg-type]
    loop.post(add, 1, "2")  # type: ignore[arg-type]
    loop.on_error = add  # type: ignore[assignment]
    loop.ring = None  # type: ignore[misc, assignment]
    loop.watchers[1] = None  # type: ignore[index]
    del loop.signals[2]  # type: ignore[attr-defined]
    loop.statistics().callbacks = 0  # type: ignore[misc]
    loop.watchers = {}  # type: ignore[misc, assignment]


def tls(loop: Loop, stream: Stream) -> None:
    loop.listen(("", 443), print, tls="context")  # type: ignore[call-overload]
    loop.listen("socket", print).drain(True)  # type: ignore[call-arg]
    loop.listen("socket", print).drain(take_queue="yes")  # type: ignore[arg-type]
    stream.start_tls()  # type: ignore[call-arg]
    stream.start_tls(None)  # type: ignore[arg-type]
    stream.ssl_object = None  # type: ignore[misc]


def connections(loop: Loop) -> None:
    loop.connect_stream(80, print)  # type: ignore[arg-type]
    loop.connect_stream("/x", on_timer)  # type: ignore[arg-type]
    loop.connect_stream("/x", print, timeout="1")  # type: ignore[arg-type]


def processes(loop: Loop) -> None:
    process = loop.spawn(["true"])
    loop.spawn(["true"], text=True)  # type: ignore[call-arg]
    loop.spawn(["true"], on_exit=on_timer)  # type: ignore[arg-type]
    process.pid = 1  # type: ignore[misc]
    process.send_signal("TERM")  # type: ignore[arg-type]


def io_watchers(loop: Loop) -> None:
    IOWatcher(0, "r", on_io)  # type: ignore[call-arg, arg-type]
    IOWatcher(loop, 0, "r")  # type: ignore[call-arg]
    IOWatcher(loop, "0", "r", on_io)  # type: ignore[arg-type]
    loop.io(0, 1, on_io)  # type: ignore[call-overload]
    loop.io(0, "r", None)  # type: ignore[call-overload]
    loop.io(0, "r", on_timer)  # type: ignore[arg-type]
    loop.io(0, "r", on_signal)  # type: ignore[arg-type]
    loop.io(0, "r", on_io, True)  # type: ignore[call-overload]
    loop.io(0, "r", on_io, repeat=1)  # type: ignore[call-overload]
    loop.io("r", on_io)  # type: ignore[call-overload]

    @loop.io(0, "r")  # type: ignore[arg-type]
    def readable(watcher: IOWatcher) -> None: ...

    watcher = loop.io(0, "r", on_io)
    watcher.fd = 1  # type: ignore[misc]
    watcher.poll = 1  # type: ignore[assignment]
    watcher.callback = None  # type: ignore[assignment]
    watcher.callback = on_idle  # type: ignore[assignment]


def timers(loop: Loop) -> None:
    Timer(loop, 1)  # type: ignore[call-arg]
    loop.timer("1", on_timer)  # type: ignore[call-overload]
    loop.timer(1, on_io)  # type: ignore[arg-type]
    loop.timer(1, on_timer, offset=1)  # type: ignore[call-overload]
    loop.periodic(1, on_timer)  # type: ignore[arg-type]
    loop.periodic(1, on_periodic, 0)  # type: ignore[call-overload]
    loop.timer(1, on_timer).remaining = 2  # type: ignore[misc]
    loop.periodic(1, on_periodic).missed = 0  # type: ignore[misc]


def signals_and_idles(loop: Loop) -> None:
    loop.signal(signal.SIGINT, on_signal_text)  # type: ignore[arg-type]
    loop.signal(None, on_signal)  # type: ignore[call-overload]
    loop.signal("INT", on_idle)  # type: ignore[arg-type]
    loop.idle(on_signal)  # type: ignore[arg-type]
    loop.idle(on_idle, priority="high")  # type: ignore[call-overload]


def wakeups(loop: Loop) -> None:
    loop.wakeup(on_idle)  # type: ignore[arg-type]
    loop.wakeup(print).notify(1)  # type: ignore[call-arg]


def children(loop: Loop) -> None:
    loop.child("1", on_io)  # type: ignore[call-overload]
    loop.child(1, on_io)  # type: ignore[arg-type]
    loop.child(1, print).pid = 2  # type: ignore[misc]


def paths(loop: Loop) -> None:
    loop.watch(1, "all", print)  # type: ignore[call-overload]
    loop.watch("/", "all", on_io)  # type: ignore[arg-type]
    loop.watch("/", "all", print).path = "/tmp"  # type: ignore[misc]


def mounts(loop: Loop) -> None:
    loop.fswatch(5, "all", on_io)  # type: ignore[call-overload]
    loop.fswatch("/", [5], print)  # type: ignore[list-item]
    loop.fswatch("/", "all", print).path = "/"  # type: ignore[misc]


def datagrams(loop: Loop) -> None:
    loop.datagram(1.5)  # type: ignore[arg-type]
    loop.datagram().send("text")  # type: ignore[arg-type]
    loop.datagram().on_datagram = on_io  # type: ignore[assignment]


def every_watcher(loop: Loop, watcher: Watcher) -> None:
    watcher.id = 3  # type: ignore[misc]
    watcher.loop = loop  # type: ignore[misc]
    watcher.priority = "high"  # type: ignore[assignment]
    watcher.close()  # type: ignore[attr-defined]


class OwnTimer(Timer):  # type: ignore[misc]
    pass
