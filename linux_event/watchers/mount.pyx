"""Mount watchers: who does what with the files of a mount, told by fanotify(7).

The kernel opens an fd for each event, by which the path is found. See le_mount.h for who closes it.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.errno cimport EACCES, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC, ENOSYS, EPERM
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint64_t
from linux_event.arguments cimport flag_argument
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_OP_ABI, LE_OP_EVERY_READ, LE_WATCHER_ABI, le_clock_after, le_clock_ns, le_heap_add, le_link,
    le_list_init, le_list_is_empty, le_list_push, le_loop, le_op_class, le_reader, le_reader_left, le_watcher,
    le_watcher_class, le_watcher_collect, le_watcher_function,
)
from linux_event.errors cimport check_memory
from linux_event.linux cimport close
from linux_event.loop cimport add_method
from linux_event.requests cimport op_start, op_stop
from linux_event.watcher cimport Watcher, decorator, watcher_begin, watcher_deactivate, watcher_leave, watcher_options

import os

cdef extern from "Python.h":
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)

cdef enum:
    PAUSE_FIRST_NS = 1_000_000
    PAUSE_LAST_NS = 1_024_000_000
    REFUSED_NS = 128_000_000  # a read that is refused for so long will always be

cdef dict BITS = {
    "access": FAN_ACCESS, "modify": FAN_MODIFY, "close_write": FAN_CLOSE_WRITE, "close_nowrite": FAN_CLOSE_NOWRITE,
    "open": FAN_OPEN, "open_exec": FAN_OPEN_EXEC,
}
cdef str KNOWN = ", ".join([f'"{name}"' for name in BITS])
cdef tuple OF_NAMES = ("attrib", "moved_from", "moved_to", "create", "delete", "delete_self", "move_self")

cdef dict names_by_mask = {}
cdef dict names_of_folders = {}
cdef bint knows_errors = True  # whether the kernel may do: older ones are found out
cdef le_link mounts  # all that may have fds
le_list_init(&mounts)


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class MountEvent:
    """What a process has done with a file.

    ``path``: where the file is, absolute, a str or bytes as the path that is watched. ``names``: what was done, a frozenset of
    ``"access" "modify" "close_write" "close_nowrite" "open" "open_exec"``, and ``"isdir"`` if it is a directory; or of
    ``"overflow"`` alone. ``pid``: the process, 0 for one that is not in the pid namespace of this one. See fanotify(7).
    """

    def __init__(self, *args, **kwargs):
        raise TypeError("MountEvent cannot be created: a MountWatcher makes them")

    def __repr__(self):
        return f"<MountEvent {' '.join(sorted(self.names))} pid={self.pid} {self.path!r}>"


@cython.final
cdef class MountWatcher(Watcher):
    """MountWatcher(loop, path, events, callback, *, own=True, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher, event)`` whenever any process uses a file of the mount that ``path`` is on.
``loop.fswatch(path, events, callback)``.

The whole mount is watched, however deep, and nothing outside of it: of the same file system only what is reached through this
mount. ``path`` may be any file or directory of it; whoever is interested in one folder looks at ``event.path``. What ``event``
has: ``path``, absolute and of the type of ``path``; ``names``, a frozenset of the names below and ``"isdir"``; ``pid``. The
kernel merges events of one process about one file that nobody has taken yet, so there may be several names. A file whose name
has been removed meanwhile has the name that it had. If more happens than is taken, the kernel drops events and says so: one event
with ``names == {"overflow"}``, whose path is the one given.

What this process does is told as well. A callback that uses files of the mount, be it by a print into a file, causes events
for which it is called again, for ever: give ``own=False`` then.

An event whose file cannot be opened, because no fd is left (EMFILE, ENFILE) or for other reasons, is lost: ``loop.on_error``
gets the OSError, and the watcher goes on, after a pause if fds are short. (Kernels before 6.13 do not tell of each.) Events that
have not been taken keep the mount busy: stop the watcher before ``umount``, after which nothing more comes. What is done without
opening a file, such as ``stat`` or ``truncate`` by a path, is not told. To stop the watcher takes the kernel some milliseconds.

:param loop: the Loop.
:param path: str, bytes or os.PathLike; looked up at each start, symbolic links are followed.
:param events: an iterable of ``"access"``, ``"modify"``, ``"close_write"``, ``"close_nowrite"``, ``"open"``, ``"open_exec"``
    (a program is executed), or ``"all"`` for all of these. What is done to names, such as ``"create"`` or ``"delete"``, a mount
    does not tell: ``loop.watch`` does.
:param callback: called with the watcher and the event.
:param own: whether events that this process causes are told.
:param data, priority, ref, start: as for ``Timer``.
:raises PermissionError: the process lacks the capability CAP_SYS_ADMIN of the initial user namespace (EPERM), or may not read
    ``path`` (EACCES). The message says what to do. As the next one, it is raised by ``start()`` too.
:raises OSError: there is no such path; the kernel has no fanotify, or a seccomp filter says so (ENOSYS); too many groups
    (EMFILE) or marks (ENOSPC).
:raises ValueError: ``events`` is empty or has other names; ``path`` has a NUL; ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on IORING_OP_READ, fanotify_init(2), fanotify_mark(2) with FAN_MARK_MOUNT, and readlink(2) of ``/proc/thread-self/fd``. See
fanotify(7), capabilities(7).
"""

    def __cinit__(self):
        le_mount_init(&self.mount, &mount_op_class, mount_on_records)

    def __init__(self, loop, path, events, callback, *, own=True, data=None, priority=0, ref=True, start=True):
        cdef object given = path_argument(path)
        cdef uint64_t mask = events_argument(events)
        cdef bint is_own = flag_argument(own, "own")
        watcher_begin(self, &mount_class, loop, callback)
        self.given = given
        self.encoded = os.fsencode(given)
        self.mask = mask
        self.mount.skips_own = not is_own
        if start is False:
            try:
                close(open_group(self, 0))
            except BaseException:
                self.destroy()
                raise
        watcher_options(self, data, priority, ref, start)

    def __dealloc__(self):
        watcher_leave(self)
        le_mount_abandon(&self.mount)

    @property
    def path(self):
        """The path as it was given, a str or bytes."""
        return self.given

    @property
    def events(self):
        """The names of what is watched: a frozenset of str."""
        return names_of(self.mask, False)

    @property
    def own(self):
        """Whether events that this process causes are told: a bool."""
        return not self.mount.skips_own

    def describe(self):
        """What the watcher watches, for ``repr``."""
        return f"path={self.given!r} events={','.join(sorted(names_of(self.mask, False)))}"


cdef object path_argument(object value):
    """The path as a str or bytes, and of no class derived from these."""
    try:
        path = os.fspath(value)
    except TypeError:
        raise TypeError(f"path must be str, bytes or os.PathLike, not {type(value).__name__} ({value!r})") from None
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"path must not contain a NUL, not {value!r}")
    return os.fsdecode(encoded) if isinstance(path, str) else encoded


cdef uint64_t events_argument(object value) except 0:
    cdef uint64_t mask = 0
    if isinstance(value, str):
        if value != "all":
            raise ValueError(f'events must be "all" or an iterable of {KNOWN}, such as ["open"], not {value!r}')
        value = BITS
    try:
        names = list(value)
    except TypeError:
        raise TypeError(f'events must be "all" or an iterable of names, not {type(value).__name__} ({value!r})') from None
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"events must be names, str, not {type(name).__name__} ({name!r})")
        if name in OF_NAMES:
            raise ValueError(f'events: a mount does not tell of "{name}", which is about names: use loop.watch for a folder')
        if name not in BITS:
            raise ValueError(f"events must be of {KNOWN}, not {name!r}")
        mask |= <uint64_t>BITS[name]
    if not mask:
        raise ValueError(f"events must have one name at least, of {KNOWN}, not {value!r}")
    return mask


cdef frozenset names_of(uint64_t mask, bint is_folder):
    cdef dict known = names_of_folders if is_folder else names_by_mask
    names = known.get(mask)
    if names is None:
        if mask & FAN_Q_OVERFLOW:
            names = frozenset(("overflow",))
        else:
            names = frozenset([name for name, bit in BITS.items() if mask & <uint64_t>bit] + (["isdir"] if is_folder else []))
        known[mask] = names
    return names


# -- The group of the kernel -------------------------------------------------------------------------------------------

cdef int open_group(MountWatcher self, uint64_t mask) except -1:
    """A group that gets the events of the mount: an fd. Raises OSError."""
    global knows_errors
    cdef int at_mark = 0
    cdef int group = le_mount_open(self.encoded, mask, FAN_REPORT_FD_ERROR if knows_errors else 0, &at_mark)
    if group == -EINVAL and not at_mark and knows_errors:
        group = le_mount_open(self.encoded, mask, 0, &at_mark)
        knows_errors = group < 0
    if group < 0:
        raise OSError(-group, refusal(-group, at_mark), self.given)
    return group


cdef str refusal(int error, bint at_mark):
    """What the kernel has refused, in words that name the cause and the remedy."""
    from linux_event.diagnosis import Host
    text = os.strerror(error)
    if error == EPERM or error == ENOSYS:
        host = Host()
        filtered = "a seccomp filter (container runtimes: a profile that allows fanotify_init and fanotify_mark)"
        if error == ENOSYS:
            return f"{text}: this kernel has no fanotify (CONFIG_FANOTIFY), unless it is {filtered} that says so"
        if not host.capabilities >> 21 & 1:
            return (f"{text}: watching a mount needs the capability CAP_SYS_ADMIN, which this process lacks: run it as root, "
                    "or give it that (systemd: AmbientCapabilities=CAP_SYS_ADMIN; containers: --cap-add=SYS_ADMIN; or setcap "
                    "cap_sys_admin+ep on a copy of the Python that runs it)")
        return (f"{text}: watching a mount needs the capability CAP_SYS_ADMIN of the initial user namespace, and that of this "
                f"process is of another, as in rootless containers, or what refuses it is {filtered} or a security module")
    if error == EACCES:
        return f"{text}: the path has to be readable, or the process has to have the capability CAP_DAC_READ_SEARCH"
    if error == EMFILE and not at_mark:
        return f"{text}: fds of this process (ulimit -n), or groups of this user (sysctl fs.fanotify.max_user_groups)"
    if error == ENOSPC:
        return f"{text}: this user watches too much (sysctl fs.fanotify.max_user_marks)"
    if error == EINVAL and at_mark:
        return f"{text}: the file system of this path cannot be watched by fanotify"
    return text


def pretend(*abilities):
    """For tests: let abilities, by the kernel's names, be lacking from now on; without a name: find out again."""
    global knows_errors
    knows_errors = "FD_ERROR" not in abilities


# -- Watching ----------------------------------------------------------------------------------------------------------

cdef int mount_start(void *watcher) except -1:
    cdef MountWatcher self = <MountWatcher>watcher
    self.mount.reader.op.fd = open_group(self, self.mask)
    if self.mount.link.next == NULL:
        le_list_push(&mounts, &self.mount.link)
    self.pause_ns = PAUSE_FIRST_NS
    self.is_short = False
    op_start(self.owner, &self.mount.reader.op)
    return 0


cdef int mount_stop(void *watcher) except -1:
    cdef MountWatcher self = <MountWatcher>watcher
    op_stop(self.owner, &self.mount.reader.op)
    le_mount_drop(&self.mount)
    le_mount_leave_group(&self.mount)
    return 0


cdef int mount_dispatch(void *watcher) except -1:
    cdef MountWatcher self = <MountWatcher>watcher
    cdef fanotify_event_metadata *record
    cdef char path[LE_MOUNT_PATH_MAX]
    cdef int is_folder = False
    cdef Py_ssize_t length
    if self.mount.reader.error:
        read_failed(self)
    record = le_mount_next(&self.mount)
    if record == NULL:  # the end of a pause
        op_start(self.owner, &self.mount.reader.op)
        return 0
    # First of all, the fd is closed.
    length = record.fd if record.fd < 0 else le_mount_path(record.fd, path, &is_folder)
    if record.fd == -EMFILE or record.fd == -ENFILE:
        self.is_short = True
    if le_reader_left(&self.mount.reader):
        le_watcher_collect(&self.owner.core, &self.head, LE_LANE_COMPLETIONS)
    elif self.is_short:
        read_later(self)
    else:
        self.pause_ns = PAUSE_FIRST_NS
        op_start(self.owner, &self.mount.reader.op)
    # The record stays where it is as long as no callback has run.
    event = event_of(self, record, path, length, is_folder)
    self.function(self, event)
    return 0


cdef MountEvent event_of(MountWatcher self, const fanotify_event_metadata *record, const char *path, Py_ssize_t length,
                         bint is_folder):
    """What the callback gets; length: of the path, or a negative errno."""
    cdef MountEvent event = MountEvent.__new__(MountEvent)
    event.pid = record.pid
    event.names = names_of(record.mask, is_folder)
    if record.mask & FAN_Q_OVERFLOW:
        event.path = self.given
    elif length < 0:
        names = " ".join(sorted(event.names))
        raise OSError(-length, f"{os.strerror(-length)}: an event of process {event.pid} ({names}) on the mount of this path "
                      f"is lost, because its file could not be {'opened' if record.fd < 0 else 'named'}", self.given)
    elif type(self.given) is str:
        event.path = PyUnicode_DecodeFSDefaultAndSize(path, length)
    else:
        event.path = PyBytes_FromStringAndSize(path, length)
    return event


cdef int read_failed(MountWatcher self) except -1:
    """The event that came next is lost, if it was its file that could not be opened. Always raises."""
    cdef int error = -self.mount.reader.error
    self.mount.reader.error = 0
    if self.pause_ns < REFUSED_NS or error == EMFILE or error == ENFILE or error == ENOMEM:
        text = "an event on the mount of this path is lost, because its file could not be opened"
        read_later(self)
    else:
        text = "the kernel refuses to tell of the mount of this path: the watcher was stopped"
        mount_stop(<PyObject *>self)
        watcher_deactivate(self)
    raise OSError(error, f"{os.strerror(error)}: {text}", self.given)


cdef int read_later(MountWatcher self) except -1:
    """Read on after a pause. The kernel keeps what happens meanwhile, and others may give fds back."""
    check_memory(le_heap_add(&self.owner.core.heap, &self.head, le_clock_after(le_clock_ns(), self.pause_ns)))
    self.pause_ns = min(2 * self.pause_ns, <int64_t>PAUSE_LAST_NS)
    self.is_short = False
    return 0


cdef le_watcher_class mount_class
mount_class.abi = LE_WATCHER_ABI
mount_class.name = "mount"
mount_class.on_start = <le_watcher_function>mount_start
mount_class.on_stop = <le_watcher_function>mount_stop
mount_class.on_dispatch = <le_watcher_function>mount_dispatch


# -- The request, without Python ---------------------------------------------------------------------------------------

cdef void mount_on_records(le_loop *loop, le_reader *reader) noexcept nogil:
    le_mount_sift(<le_mount *>reader)
    if le_reader_left(reader) or reader.error:
        le_watcher_collect(loop, <le_watcher *>(<char *>reader - mount_offset), LE_LANE_COMPLETIONS)


cdef ptrdiff_t mount_offset  # from the le_watcher of a MountWatcher to its le_mount
cdef le_op_class mount_op_class
mount_op_class.abi = LE_OP_ABI
mount_op_class.name = "mount"
mount_op_class.prep = le_mount_prep
mount_op_class.on_cqe = le_mount_on_cqe
mount_op_class.interest = LE_OP_EVERY_READ


cdef measure():
    """Find out where in a MountWatcher its request is; it never moves, and all are laid out alike."""
    global mount_offset
    cdef MountWatcher sample = MountWatcher.__new__(MountWatcher)
    mount_offset = <char *>&sample.mount - <char *>&sample.head
    mount_op_class.owner_offset = <char *>&sample.mount - <char *><PyObject *>sample


measure()


def _forget_in_child():
    """After a fork, in the child: close its copies of the groups and of the files of events."""
    while not le_list_is_empty(&mounts):
        le_mount_abandon(LE_MOUNT_OF_LINK(mounts.next))


os.register_at_fork(after_in_child=_forget_in_child)


# -- Factory -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _fswatch(self, path, events, callback=..., *, own=True, data=None, priority=0, ref=True, start=True):
    """Create a ``MountWatcher``: ``callback(watcher, event)`` whenever any process uses a file of a mount.

    :param path: any path on the mount: str, bytes or os.PathLike.
    :param events: an iterable of ``"access"``, ``"modify"``, ``"close_write"``, ``"close_nowrite"``, ``"open"``,
        ``"open_exec"``, or ``"all"``.
    :param callback: left out, the call is a decorator. Its ``event`` has ``path``, ``names`` and ``pid``.
    :param own: whether events that this process causes are told.
    :returns: the MountWatcher; as a decorator, what takes the function and returns it.
    :raises PermissionError: the process lacks the capability CAP_SYS_ADMIN.
    :raises OSError, ValueError, TypeError, LoopClosedError, WrongThreadError: as ``MountWatcher`` does, which tells of the
        other arguments.
    """
    if callback is ...:
        return decorator(MountWatcher, self, (path, events), data, priority, ref, start, {"own": own})
    return MountWatcher(self, path, events, callback, own=own, data=data, priority=priority, ref=ref, start=start)


add_method("fswatch", _fswatch)
