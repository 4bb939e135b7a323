"""Programs that the stubs must accept, and the types that they must find in them. Checked, never run."""

import pathlib
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from typing import Any, assert_type

import linux_event
from linux_event import (
    Child,
    Datagram,
    DestroyedError,
    Events,
    Idle,
    IOWatcher,
    Listener,
    Loop,
    LoopClosedError,
    MountWatcher,
    Operation,
    PathWatcher,
    Periodic,
    Process,
    Signal,
    Statistics,
    Stream,
    Timer,
    UringUnavailableError,
    Wakeup,
    Watcher,
    WrongThreadError,
)
from linux_event.views import LiveView
from linux_event.watchers.happening import PathEvent
from linux_event.watchers.mount import MountEvent


class Object:
    """Has fileno(), and methods that serve as callbacks."""

    def fileno(self) -> int:
        return 0

    def on_events(self, watcher: IOWatcher, events: Events) -> bool:
        return bool(events & Events.READ)

    def on_signal(self, watcher: Signal, signum: int) -> None: ...

    def on_any(self, watcher: Watcher) -> None: ...


def on_io(watcher: IOWatcher, events: Events) -> None: ...
def on_io_with_default(watcher: IOWatcher, events: Events, extra: int = 0) -> str:
    return str(events)


def on_anything(*args: object, **kwargs: object) -> None: ...
def on_error(source: object, exception: BaseException) -> None: ...
def add(a: int, b: int) -> int:
    return a + b


def loops() -> None:
    loop = Loop()
    loop = Loop(entries=8, cq_entries=64, sqpoll=True, busy_poll=1, idle_wait=0.5, max_events=1, debug=True)
    assert_type(loop.run(), None)
    assert_type(loop.run(timeout=1), None)
    assert_type(loop.run_once(0.5), int)
    assert_type(loop.run_once(None), int)
    assert_type(loop.stop(), None)
    assert_type(loop.stop_threadsafe(), None)
    assert_type(loop.is_running(), bool)
    assert_type(loop.is_closed(), bool)
    assert_type(loop.time(), float)
    assert_type(loop.fileno(), int)
    assert_type(loop.debug, bool)
    assert_type(loop.close(), None)
    assert_type(loop.defer(add, 1, 2), None)
    assert_type(loop.post(on_anything, 1, "two", None), None)
    loop.post(loop.stop)
    loop.defer(lambda: loop.timer(1, on_anything))
    loop.on_error = on_error
    loop.on_error = None
    with loop as entered:
        assert_type(entered, Loop)


class OwnLoop(Loop):
    def serve(self) -> None: ...


def subclasses() -> None:
    with OwnLoop(entries=16) as loop:
        assert_type(loop, OwnLoop)
        loop.serve()
        assert_type(loop.idle(on_anything), Idle)


def views(loop: Loop) -> None:
    assert_type(loop.watchers, LiveView[Watcher])
    assert_type(loop.watchers[1], Watcher)
    assert_type(loop.io_watchers[0], tuple[IOWatcher, ...])
    assert_type(loop.signals.get(signal.SIGINT), tuple[Signal, ...] | None)
    for number, watchers in loop.signals.items():
        assert_type(number, int)
        assert_type(watchers, tuple[Signal, ...])
    for watcher in loop.watchers.values():
        watcher.destroy()
    copy: dict[int, Watcher] = dict(loop.watchers)
    assert_type(len(copy) + len(loop.watchers), int)


def statistics(loop: Loop) -> None:
    statistics = loop.statistics()
    assert_type(statistics, Statistics)
    assert_type(statistics.iterations, int)
    assert_type(statistics.requests_in_flight, int)
    assert_type(statistics._asdict(), dict[str, Any])


def io_watchers(loop: Loop, sock: socket.socket) -> None:
    assert_type(IOWatcher(loop, 0, "r", on_io), IOWatcher)
    assert_type(loop.io(sock, "rw", on_io), IOWatcher)
    assert_type(loop.io(Object(), Events.READ | Events.PRIORITY, Object().on_events, edge=True), IOWatcher)
    assert_type(
        loop.io(0, poll="w", callback=on_io_with_default, data=1, priority=2, ref=False, start=False), IOWatcher
    )
    watcher = loop.io(sock, "r", lambda watcher, events: watcher.stop() if events & Events.HANGUP else None)
    watcher.poll = "rw"
    watcher.poll = Events.WRITE
    assert_type(watcher.poll, Events)
    assert_type(watcher.fd, int)
    assert_type(watcher.edge, bool)
    assert_type(watcher.callback, Callable[[IOWatcher, Events], object] | None)
    watcher.callback = on_io

    @loop.io(sock, "r")
    def readable(watcher: IOWatcher, events: Events) -> None:
        assert_type(str(events), str)

    assert_type(readable, IOWatcher)
    readable.stop()

    @loop.io(sock, "r", edge=True, priority=-2, data="x", ref=False, start=False)
    def on_edge(watcher: IOWatcher, events: Events) -> bool:
        return True

    assert_type(on_edge, IOWatcher)


def timers(loop: Loop) -> None:
    assert_type(Timer(loop, 1, on_anything), Timer)
    timer = loop.timer(0.5, lambda timer: timer.start(), data={}, priority=1)
    assert_type(timer, Timer)
    assert_type(timer.after, float)
    timer.after = 2
    assert_type(timer.remaining, float)
    timer.callback = Object().on_any

    @loop.timer(5)
    def fired(watcher: Timer) -> None: ...

    assert_type(fired, Timer)

    assert_type(Periodic(loop, 1, on_anything, offset=0), Periodic)
    periodic = loop.periodic(1, on_anything, offset=None)
    assert_type(periodic.interval, float)
    assert_type(periodic.missed, int)

    @loop.periodic(1, offset=0.5)
    def ticked(watcher: Periodic) -> None: ...

    assert_type(ticked, Periodic)


def signals(loop: Loop) -> None:
    assert_type(Signal(loop, signal.SIGINT, on_anything), Signal)
    loop.signal(2, Object().on_signal)
    watcher = loop.signal("INT", lambda watcher, signum: watcher.loop.stop())
    assert_type(watcher.signum, int)
    info = watcher.info
    if info is not None:
        assert_type(info.pid, int | None)

    @loop.signal("SIGTERM")
    def terminated(watcher: Signal, signum: int) -> None: ...

    assert_type(terminated, Signal)


def idles(loop: Loop) -> None:
    assert_type(Idle(loop, on_anything), Idle)
    assert_type(loop.idle(Object().on_any), Idle)

    @loop.idle()
    def idle(watcher: Idle) -> None: ...

    assert_type(idle, Idle)


def wakeups(loop: Loop) -> None:
    assert_type(Wakeup(loop, on_anything), Wakeup)
    watcher = loop.wakeup(lambda watcher, count: print(count + 1), ref=False)
    watcher.notify()

    @loop.wakeup
    def woken(watcher: Wakeup, count: int) -> None: ...

    assert_type(woken, Wakeup)


def children(loop: Loop, process: subprocess.Popen[bytes]) -> None:
    assert_type(Child(loop, 7, on_anything), Child)
    assert_type(loop.child(process, on_anything, start=False), Child)

    def told(watcher: Child, pid: int, returncode: int | None) -> None: ...

    watcher = loop.child(process.pid, told, priority=1)
    assert_type(watcher.pid, int)
    assert_type(watcher.returncode, int | None)

    @loop.child(process)
    def ended(watcher: Child, pid: int, returncode: int | None) -> None: ...

    assert_type(ended, Child)


def paths(loop: Loop, path: pathlib.Path) -> None:
    assert_type(PathWatcher(loop, b"/", "all", on_anything, recursive=True), PathWatcher)
    assert_type(loop.watch(path, {"create", "delete"}, on_anything, start=False).events, frozenset[str])

    @loop.watch("/tmp", ("modify",), recursive=True)
    def changed(watcher: PathWatcher, event: PathEvent) -> None:
        assert_type(event.names, frozenset[str])
        assert_type(event.cookie, int)

    assert_type(changed, PathWatcher)


def mounts(loop: Loop, path: pathlib.Path) -> None:
    assert_type(MountWatcher(loop, b"/", "all", on_anything), MountWatcher)

    def told(watcher: MountWatcher, event: MountEvent) -> None:
        assert_type(event.names, frozenset[str])
        assert_type(event.pid, int)

    watcher = loop.fswatch(path, {"open", "close_write"}, told, own=False, ref=False)
    assert_type(watcher.events, frozenset[str])
    assert_type(watcher.path, str | bytes)

    @loop.fswatch("/", ["open"])
    def opened(watcher: MountWatcher, event: MountEvent) -> None: ...

    assert_type(opened, MountWatcher)


def every_watcher(watcher: Watcher, timer: Timer) -> None:
    assert_type(watcher.start(), Watcher)
    assert_type(timer.start().stop(), Timer)
    assert_type(watcher.destroy(), None)
    assert_type(watcher.is_active(), bool)
    assert_type(watcher.is_destroyed(), bool)
    assert_type(watcher.id, int)
    assert_type(watcher.loop, Loop)
    assert_type(watcher.data, Any)
    assert_type(watcher.priority, int)
    assert_type(watcher.ref, bool)
    watcher.data = "anything"
    watcher.priority = -2
    watcher.ref = False
    with timer as entered:
        assert_type(entered, Timer)


def whole_files(loop: Loop) -> None:
    assert_type(loop.read_file("/etc/hostname"), Operation[bytes])
    family, kind, _, name, _ = loop.resolve("localhost", "http", type=1, timeout=5).result()[0]
    assert_type(family, socket.AddressFamily)
    assert_type(kind, socket.SocketKind)
    assert_type(name, str)
    loop.resolve("::1", lambda found, error: print(found and found[0][0], error))
    loop.resolve(None, 80, callback=lambda found, error: print(found), family=2, flags=1)
    loop.resolve(b"localhost", on_success=lambda found: print(len(found)), on_error=lambda error: print(error.args))
    assert_type(
        loop.read_file(b"/etc/hostname", lambda data, error: print(data and data.decode()), timeout=1), Operation[bytes]
    )
    assert_type(loop.write_file("file", bytearray(3), mode=0o600, append=True, sync=True), Operation[int])
    loop.write_file("file", b"", atomic=True, on_success=lambda count: print(count + 1), on_error=lambda error: None)


def tls(loop: Loop, context: ssl.SSLContext) -> None:
    def connected(stream: Stream) -> None:
        assert_type(stream.ssl_object, ssl.SSLObject | None)
        stream.on_data = lambda stream, data: print(stream.write(data))

    assert_type(loop.listen(("", 443), connected, tls=context, handshake_timeout=None), Listener)
    assert_type(loop.listen("socket", tls=context)(connected), Listener)
    listener = loop.listen("socket", connected)
    listener.on_close = lambda listener, error: print(listener.connections, error and error.args)
    listener.on_close = None
    listener.drain(take_queue=True)
    stream = Stream()
    stream.start_tls(context, lambda stream, error: print(stream.peername, error), server_hostname="localhost")
    stream.start_tls(context, server_side=True, handshake_timeout=2.5, initial_data=b"x")


def connections(loop: Loop) -> None:
    assert_type(loop.connect_stream(("localhost", 80), lambda stream, error: print(stream, error)), Operation[Stream])
    loop.connect_stream("/run/socket", timeout=1.5, local_address=b"mine", on_success=lambda stream: stream.close())
    loop.connect_stream(("localhost", "http"), local_address=("", 0), on_error=lambda error: print(error.args))


def processes(loop: Loop) -> None:
    process = loop.spawn(
        ["cat"], stdin=subprocess.PIPE, stdout=1, on_exit=lambda process, code: print(process.pid, code)
    )
    assert_type(process, Process)
    assert_type(process.returncode, int | None)
    if process.stdin is not None:
        process.stdin.write(b"x")
    process.on_exit = lambda process, code: process.kill()
    process.send_signal(signal.SIGTERM)
    loop.spawn("true; false", shell=True, cwd=pathlib.Path("/"), env={"A": "b"}, pass_fds=[1], umask=0o22)


def on_datagram(datagram: Datagram, data: bytes, address: object) -> None:
    assert_type(datagram.send(data, ("127.0.0.1", 9)), bool)


def datagrams(loop: Loop, sock: socket.socket) -> None:
    with loop.datagram(("127.0.0.1", 0), broadcast=True) as datagram:
        datagram.on_datagram = on_datagram
        datagram.on_error = lambda datagram, error: print(error.args, datagram.write_buffer_size + 1)
        datagram.on_close = datagram.on_drain = None
        datagram.set_write_limits(high=5, low=0)
        assert_type(datagram.write_limits, tuple[int, int])
    loop.datagram(sock).send(bytearray(3))
    loop.datagram(None, b"/run/socket").send(memoryview(b""), "/run/other")


def events_and_errors(events: Events) -> None:
    assert_type(events | Events.WRITE, Events)
    assert_type(~events, Events)
    assert_type(f"{events}", str)
    errors: list[type[RuntimeError]] = [LoopClosedError, WrongThreadError, DestroyedError]
    refused: type[OSError] = UringUnavailableError
    assert_type(linux_event.get_include(), str)
    assert_type(linux_event.__version__, str)
    print(errors, refused)
