from collections.abc import Callable, Iterable, Mapping, Sequence
from os import stat_result
from socket import AddressFamily, SocketKind, socket
from ssl import SSLContext
from subprocess import Popen
from types import TracebackType
from typing import IO, Any, Literal, Self, SupportsIndex, TypeAlias, TypeVarTuple, overload

from _typeshed import FileDescriptorLike, ReadableBuffer, StrOrBytesPath, WriteableBuffer

from .chain import Chain
from .engine import Engine
from .events import Events
from .net.datagram import Datagram
from .net.listener import Listener
from .net.process import Process
from .net.stream import Stream
from .operation import Operation, _Both, _Failure, _Success
from .pool import BufferPool
from .statistics import Statistics
from .uring import Ring
from .views import LiveView
from .watcher import Watcher
from .watchers.child import Child
from .watchers.happening import PathEvent
from .watchers.idle import Idle
from .watchers.io import IOWatcher
from .watchers.mount import MountEvent, MountWatcher
from .watchers.path import PathWatcher
from .watchers.signal import Signal
from .watchers.timer import Periodic, Timer
from .watchers.wakeup import Wakeup

_Args = TypeVarTuple("_Args")
_Int: TypeAlias = SupportsIndex
_Seconds: TypeAlias = float | SupportsIndex | None
_Address: TypeAlias = tuple[Any, ...] | StrOrBytesPath
_Accepted: TypeAlias = tuple[socket, Any]
_From: TypeAlias = tuple[bytes, Any]
_Port: TypeAlias = _Int | str | bytes | None
_Addresses: TypeAlias = list[tuple[AddressFamily, SocketKind, int, str, tuple[Any, ...]]]
_File: TypeAlias = FileDescriptorLike | IO[Any] | None
_Message: TypeAlias = tuple[bytes, list[tuple[int, int, bytes]], int, Any]

class Loop(Engine):
    def __init__(
        self,
        *,
        entries: int = 256,
        cq_entries: int | None = None,
        sqpoll: bool = False,
        busy_poll: float | SupportsIndex = 0.0,
        idle_wait: float | SupportsIndex = 0.001,
        max_events: int = 256,
        debug: bool = False,
        signals: Literal["handler", "signalfd"] = "handler",
    ) -> None: ...
    def run(self, timeout: float | SupportsIndex | None = None) -> None: ...
    def run_once(self, timeout: float | SupportsIndex | None = None) -> int: ...
    def stop(self) -> None: ...
    def stop_threadsafe(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def defer(self, callback: Callable[[*_Args], object], *args: *_Args) -> None: ...
    def post(self, callback: Callable[[*_Args], object], *args: *_Args) -> None: ...
    def time(self) -> float: ...
    def fileno(self) -> int: ...
    def statistics(self) -> Statistics: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    @property
    def ring(self) -> Ring: ...
    @property
    def debug(self) -> bool: ...
    @property
    def watchers(self) -> LiveView[Watcher]: ...
    @property
    def io_watchers(self) -> LiveView[tuple[IOWatcher, ...]]: ...
    @property
    def signals(self) -> LiveView[tuple[Signal, ...]]: ...
    @property
    def on_error(self) -> Callable[[Any, Exception], object] | None: ...
    @on_error.setter
    def on_error(self, on_error: Callable[[Any, Exception], object] | None) -> None: ...

    # With a callback a factory returns the watcher; without, a decorator that turns the callback into the watcher.
    @overload
    def io(
        self,
        fd: FileDescriptorLike,
        poll: str | Events,
        callback: Callable[[IOWatcher, Events], object],
        *,
        edge: bool = False,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> IOWatcher: ...
    @overload
    def io(
        self,
        fd: FileDescriptorLike,
        poll: str | Events,
        *,
        edge: bool = False,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> Callable[[Callable[[IOWatcher, Events], object]], IOWatcher]: ...
    @overload
    def timer(
        self,
        after: float | SupportsIndex,
        callback: Callable[[Timer], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> Timer: ...
    @overload
    def timer(
        self,
        after: float | SupportsIndex,
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> Callable[[Callable[[Timer], object]], Timer]: ...
    @overload
    def periodic(
        self,
        interval: float | SupportsIndex,
        callback: Callable[[Periodic], object],
        *,
        offset: float | SupportsIndex | None = None,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> Periodic: ...
    @overload
    def periodic(
        self,
        interval: float | SupportsIndex,
        *,
        offset: float | SupportsIndex | None = None,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> Callable[[Callable[[Periodic], object]], Periodic]: ...
    @overload
    def signal(
        self,
        signal: int | str,
        callback: Callable[[Signal, int], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> Signal: ...
    @overload
    def signal(
        self, signal: int | str, *, data: Any = None, priority: int = 0, ref: bool = True, start: bool = True
    ) -> Callable[[Callable[[Signal, int], object]], Signal]: ...
    @overload
    def idle(
        self,
        callback: Callable[[Idle], object],
        *,
        data: Any = None,
        priority: int = 0,
        ref: bool = True,
        start: bool = True,
    ) -> Idle: ...
    @overload
    def idle(
        self, *, data: Any = None, priority: int = 0, ref: bool = True, start: bool = True
    ) -> Callable[[Callable[[Idle], object]], Idle]: ...

    # Operations: a line for the arguments, one for the callbacks.
    # fmt: off
    @overload
    def wakeup(self, callback: Callable[[Wakeup, int], object], *,
               data: Any = None, priority: int = 0, ref: bool = True, start: bool = True) -> Wakeup: ...
    @overload
    def wakeup(self, *, data: Any = None, priority: int = 0, ref: bool = True,
               start: bool = True) -> Callable[[Callable[[Wakeup, int], object]], Wakeup]: ...
    @overload
    def child(self, pid: _Int | Popen[Any], callback: Callable[[Child, int, int | None], object], *,
              data: Any = None, priority: int = 0, ref: bool = True, start: bool = True) -> Child: ...
    @overload
    def child(self, pid: _Int | Popen[Any], *, data: Any = None, priority: int = 0, ref: bool = True,
              start: bool = True) -> Callable[[Callable[[Child, int, int | None], object]], Child]: ...
    @overload
    def fswatch(self, path: StrOrBytesPath, events: Iterable[str], callback: Callable[[MountWatcher, MountEvent], object], *,
                own: bool = True, data: Any = None, priority: int = 0, ref: bool = True, start: bool = True) -> MountWatcher: ...
    @overload
    def fswatch(self, path: StrOrBytesPath, events: Iterable[str], *,
                own: bool = True, data: Any = None, priority: int = 0, ref: bool = True, start: bool = True,
                ) -> Callable[[Callable[[MountWatcher, MountEvent], object]], MountWatcher]: ...
    @overload
    def watch(self, path: StrOrBytesPath, events: Iterable[str], callback: Callable[[PathWatcher, PathEvent], object], *,
              recursive: bool = False, follow_symlinks: bool = False,
              data: Any = None, priority: int = 0, ref: bool = True, start: bool = True) -> PathWatcher: ...
    @overload
    def watch(self, path: StrOrBytesPath, events: Iterable[str], *, recursive: bool = False, follow_symlinks: bool = False,
              data: Any = None, priority: int = 0, ref: bool = True,
              start: bool = True) -> Callable[[Callable[[PathWatcher, PathEvent], object]], PathWatcher]: ...
    @overload
    def close(self) -> None: ...
    @overload
    def close(self, fd: FileDescriptorLike, callback: _Both[None] = None, *,
              on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    @overload
    def link(self, *, hard: bool = False) -> Chain: ...
    @overload
    def link(self, source: StrOrBytesPath, target: StrOrBytesPath, callback: _Both[None] = None, *,
             src_dir_fd: FileDescriptorLike | None = None, dst_dir_fd: FileDescriptorLike | None = None,
             follow_symlinks: bool = True,
             on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def open(self, path: StrOrBytesPath, flags: _Int, mode: _Int = 0o666, callback: _Both[int] = None, *,
             dir_fd: FileDescriptorLike | None = None,
             on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def read(self, fd: FileDescriptorLike, size: _Int, offset: _Int = -1, callback: _Both[bytes] = None, *,
             on_success: _Success[bytes] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[bytes]: ...
    def readinto(self, fd: FileDescriptorLike, buffer: WriteableBuffer, offset: _Int = -1, callback: _Both[int] = None, *,
                 on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def write(self, fd: FileDescriptorLike, data: ReadableBuffer, offset: _Int = -1, callback: _Both[int] = None, *,
              on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def fsync(self, fd: FileDescriptorLike, callback: _Both[None] = None, *, datasync: bool = False,
              on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def accept_many(self, sock: FileDescriptorLike, callback: _Both[tuple[socket, Any]] = None, *,
                    on_success: _Success[tuple[socket, Any]] = None, on_error: _Failure = None,
                    timeout: _Seconds = None) -> Operation[None]: ...
    def recv_many(self, sock: FileDescriptorLike, callback: _Both[bytes] = None, *, pool: BufferPool | None = None,
                  on_success: _Success[bytes] = None, on_error: _Failure = None,
                  timeout: _Seconds = None) -> Operation[bytes]: ...
    def read_file(self, path: StrOrBytesPath, callback: _Both[bytes] = None, *, on_success: _Success[bytes] = None,
                  on_error: _Failure = None, timeout: _Seconds = None) -> Operation[bytes]: ...
    def write_file(self, path: StrOrBytesPath, data: ReadableBuffer, callback: _Both[int] = None, *,
                   mode: _Int = 0o666, append: bool = False, sync: bool = False, atomic: bool = False,
                   on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def fallocate(self, fd: FileDescriptorLike, mode: _Int, offset: _Int, length: _Int, callback: _Both[None] = None, *,
                  on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def stat(self, path_or_fd: StrOrBytesPath | FileDescriptorLike, callback: _Both[stat_result] = None, *,
             follow_symlinks: bool = True, dir_fd: FileDescriptorLike | None = None, on_success: _Success[stat_result] = None,
             on_error: _Failure = None, timeout: _Seconds = None) -> Operation[stat_result]: ...
    def truncate(self, path_or_fd: StrOrBytesPath | FileDescriptorLike, length: _Int, callback: _Both[None] = None, *,
                 on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def rename(self, source: StrOrBytesPath, target: StrOrBytesPath, callback: _Both[None] = None, *,
               src_dir_fd: FileDescriptorLike | None = None, dst_dir_fd: FileDescriptorLike | None = None,
               on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def unlink(self, path: StrOrBytesPath, callback: _Both[None] = None, *, dir_fd: FileDescriptorLike | None = None,
               on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def rmdir(self, path: StrOrBytesPath, callback: _Both[None] = None, *, dir_fd: FileDescriptorLike | None = None,
              on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def mkdir(self, path: StrOrBytesPath, mode: _Int = 0o777, callback: _Both[None] = None, *,
              dir_fd: FileDescriptorLike | None = None,
              on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def symlink(self, source: StrOrBytesPath, target: StrOrBytesPath, callback: _Both[None] = None, *,
                dir_fd: FileDescriptorLike | None = None,
                on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def splice(self, fd_in: FileDescriptorLike, fd_out: FileDescriptorLike, count: _Int, callback: _Both[int] = None, *,
               offset_in: _Int = -1, offset_out: _Int = -1,
               on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def sendfile(self, sock: FileDescriptorLike, file: FileDescriptorLike, offset: _Int = 0, count: _Int | None = None,
                 callback: _Both[int] = None, *,
                 on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def copy_file(self, source: StrOrBytesPath, target: StrOrBytesPath, callback: _Both[int] = None, *,
                  on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def accept(self, sock: FileDescriptorLike, callback: _Both[_Accepted] = None, *, on_success: _Success[_Accepted] = None,
               on_error: _Failure = None, timeout: _Seconds = None) -> Operation[_Accepted]: ...
    def connect(self, sock: FileDescriptorLike, address: _Address, callback: _Both[None] = None, *,
                on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    def recv(self, sock: FileDescriptorLike, size: _Int, callback: _Both[bytes] = None, *,
             on_success: _Success[bytes] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[bytes]: ...
    def recv_into(self, sock: FileDescriptorLike, buffer: WriteableBuffer, callback: _Both[int] = None, *,
                  on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def send(self, sock: FileDescriptorLike, data: ReadableBuffer, callback: _Both[int] = None, *, zero_copy: bool = False,
             on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def recvfrom(self, sock: FileDescriptorLike, size: _Int, callback: _Both[_From] = None, *,
                 on_success: _Success[_From] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[_From]: ...
    def sendto(self, sock: FileDescriptorLike, data: ReadableBuffer, address: _Address, callback: _Both[int] = None, *,
               on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def sendmsg(self, sock: FileDescriptorLike, buffers: Iterable[ReadableBuffer],
                ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (), flags: _Int = 0, address: _Address | None = None,
                callback: _Both[int] = None, *,
                on_success: _Success[int] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[int]: ...
    def recvmsg(self, sock: FileDescriptorLike, size: _Int, ancsize: _Int = 0, callback: _Both[_Message] = None, *,
                on_success: _Success[_Message] = None, on_error: _Failure = None,
                timeout: _Seconds = None) -> Operation[_Message]: ...
    @overload
    def resolve(self, host: str | bytes | None, port: _Port = 0, callback: _Both[_Addresses] = None, *,
                family: _Int = 0, type: _Int = 0, proto: _Int = 0, flags: _Int = 0, on_success: _Success[_Addresses] = None,
                on_error: _Failure = None, timeout: _Seconds = None) -> Operation[_Addresses]: ...
    @overload
    def resolve(self, host: str | bytes | None, port: Callable[[_Addresses | None, Exception | None], object], *,
                family: _Int = 0, type: _Int = 0, proto: _Int = 0, flags: _Int = 0,
                timeout: _Seconds = None) -> Operation[_Addresses]: ...
    def shutdown(self, sock: FileDescriptorLike, how: _Int, callback: _Both[None] = None, *,
                 on_success: _Success[None] = None, on_error: _Failure = None, timeout: _Seconds = None) -> Operation[None]: ...
    @overload
    def listen(self, address: _Address | FileDescriptorLike, on_connect: Callable[[Stream], object], *, backlog: _Int = 4096,
               reuse_port: bool = False, tls: SSLContext | None = None, limit: _Int | None = None,
               handshake_timeout: _Seconds = 60.0) -> Listener: ...
    @overload
    def listen(self, address: _Address | FileDescriptorLike, on_connect: None = None, *, backlog: _Int = 4096,
               reuse_port: bool = False, tls: SSLContext | None = None, limit: _Int | None = None,
               handshake_timeout: _Seconds = 60.0) -> Callable[[Callable[[Stream], object]], Listener]: ...
    def connect_stream(self, address: _Address, callback: _Both[Stream] = None, *,
                       tls: SSLContext | None = None, server_hostname: str | None = None, timeout: _Seconds = None,
                       local_address: _Address | None = None, on_success: _Success[Stream] = None,
                       on_error: _Failure = None) -> Operation[Stream]: ...
    def spawn(self, args: StrOrBytesPath | Sequence[StrOrBytesPath], *, stdin: _File = None, stdout: _File = None,
              stderr: _File = None, cwd: StrOrBytesPath | None = None,
              env: Mapping[str, StrOrBytesPath] | Mapping[bytes, StrOrBytesPath] | None = None,
              on_exit: Callable[[Process, int | None], object] | None = None, executable: StrOrBytesPath | None = ...,
              shell: bool = ..., close_fds: bool = ..., pass_fds: Iterable[int] = ...,
              preexec_fn: Callable[[], object] | None = ..., restore_signals: bool = ..., start_new_session: bool = ...,
              process_group: int | None = ..., user: str | int | None = ..., group: str | int | None = ...,
              extra_groups: Iterable[str | int] | None = ..., umask: int = ..., pipesize: int = ...) -> Process: ...
    def datagram(self, local_address: _Address | FileDescriptorLike | None = None, remote_address: _Address | None = None, *,
                 reuse_port: bool = False, broadcast: bool = False) -> Datagram: ...
    # fmt: on
