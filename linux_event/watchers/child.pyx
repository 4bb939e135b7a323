"""Child watchers: how a child process has ended.

The ring only notices the end: IORING_OP_WAITID with WNOWAIT, which leaves the child as it is. Right before the callback it is
reaped by a waitid(2) that does not block. So a watcher that is stopped, destroyed, or cancelled too late takes no status away
from anybody, and a child that nobody watches is never reaped. Where the kernel has no such operation, or sees the child stopped
by a tracer, a poll of a pidfd notices the end.
"""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.object cimport PyObject
from libc.errno cimport ECHILD, EINTR, ESRCH
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t
from linux_event.arguments cimport integer_within
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_NOT_IN_HEAP, LE_OP_ABI, LE_OP_AGAIN, LE_OP_END, LE_WATCHER_ABI, LE_WATCHER_ACTIVE, LE_WATCHER_OBJECT,
    le_chain, le_clock_after, le_clock_ns, le_heap_add, le_index_add, le_index_first, le_index_remove, le_loop, le_op,
    le_op_class, le_op_verdict, le_watcher, le_watcher_class, le_watcher_collect, le_watcher_function, le_watcher_is,
)
from linux_event.errors cimport check, check_errno, check_memory
from linux_event.liburing cimport io_uring_sqe
from linux_event.linux cimport POLLIN, close
from linux_event.loop cimport add_method
from linux_event.requests cimport op_start, op_stop
from linux_event.ring cimport ask_operations
from linux_event.watcher cimport Watcher, decorator, watcher_begin, watcher_deactivate, watcher_leave, watcher_options

import sys

cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <sys/wait.h>
    #include <unistd.h>
    #include "le_compat.h"

    #define LE_P_PIDFD 3 /* P_PIDFD, which older headers lack */
    #ifndef SYS_pidfd_open
    #define SYS_pidfd_open 434
    #endif

    enum le_child_state { LE_CHILD_RUNS, LE_CHILD_TRACED, LE_CHILD_ENDED, LE_CHILD_GONE };

    /* Ask without waiting; options: WNOWAIT, or 0 to reap the child if it has ended. Through a pidfd, if there is one, no
     * process is ever taken for another. Returns an enum le_child_state or a negative errno. */
    static int le_child_ask(int pidfd, int pid, int options, int *returncode)
    {
        siginfo_t info;
        memset(&info, 0, sizeof info);
        options |= WEXITED | WNOHANG;
        if (pidfd >= 0 ? waitid((idtype_t)LE_P_PIDFD, (id_t)pidfd, &info, options) : waitid(P_PID, (id_t)pid, &info, options))
            return errno == ECHILD ? LE_CHILD_GONE : -errno;
        if (!info.si_pid)
            return LE_CHILD_RUNS;
        if (info.si_code != CLD_EXITED && info.si_code != CLD_KILLED && info.si_code != CLD_DUMPED)
            return LE_CHILD_TRACED; /* by this process: then its stops are told, wanted or not */
        *returncode = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
        return LE_CHILD_ENDED;
    }

    static int le_process_exists(int pid)
    {
        return kill(pid, 0) == 0 || errno != ESRCH;
    }

    static int le_pidfd_open(int pid)
    {
        return (int)syscall(SYS_pidfd_open, pid, 0);
    }
    """
    enum le_child_state:
        LE_CHILD_RUNS
        LE_CHILD_TRACED
        LE_CHILD_ENDED
        LE_CHILD_GONE
    enum:
        IORING_OP_NOP
        LE_URING_WAITID
        P_PID
        WEXITED
        WNOWAIT
    int le_child_ask(int pidfd, int pid, int options, int *returncode)
    bint le_process_exists(int pid)
    int le_pidfd_open(int pid)
    void le_prep_waitid(io_uring_sqe *sqe, int idtype, int id, int options) nogil
    void io_uring_prep_poll_add(io_uring_sqe *sqe, int fd, unsigned mask) nogil
    void io_uring_prep_nop(io_uring_sqe *sqe) nogil

cdef enum:
    KEYS = 256  # of the index of a loop: the pid modulo this
    PAUSE_FIRST_NS = 1_000_000
    PAUSE_LAST_NS = 64_000_000

cdef enum child_bit:
    CHILD_WAITID = 1  # what the request is; none of them: nothing, the next iteration is waited for
    CHILD_POLL = 2
    CHILD_GONE = 4  # the kernel has no such child any more
    CHILD_REFUSED = 8  # the kernel does not do the request
    CHILD_KNOWN = 16  # Child.code is final: this watcher or another one of the loop has reaped the child

cdef int knows_waitid = -1  # whether the kernel does; -1: not asked yet


@cython.final
cdef class Child(Watcher):
    """Child(loop, pid, callback, *, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher, pid, returncode)`` once, when a child process has ended, and reaps it. ``loop.child(pid, callback)``.

``returncode`` is that of ``subprocess``: the exit status, or the negative number of the signal that has ended the child. It is
None where somebody else has reaped the child and taken the status: another loop that watches the same pid, a ``waitpid(-1)``,
or the kernel itself, if SIGCHLD is ignored. All watchers of one loop get the same.

Before the call the watcher becomes inactive. A child that had ended before the start is told of in the next iteration. What is
never watched, or whose watcher was stopped in time, is never reaped. Children that are stopped, continued or traced have not
ended. No handler of SIGCHLD is needed or set, and the loop may run in any thread.

:param loop: the Loop.
:param pid: the pid of a child of this process, an int of 1 or more, or its ``subprocess.Popen``. Of a Popen the ``returncode``
    is filled in, and it is taken from there, if the Popen has reaped its child itself; so each start after that tells the same
    again. It is kept alive until the watcher is destroyed. Give the Popen, not its pid, wherever there is one: a Popen
    that was dropped is reaped by ``subprocess`` at a moment of its own choice.
:param callback: called with the watcher, the pid and the return code.
:param data, priority, ref, start: as for ``Timer``.
:raises ProcessLookupError: there is no such process, or it has been reaped. By ``start()`` too, as the next one.
:raises ChildProcessError: the process is not a child of this one.
:raises ValueError: ``pid`` or ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises OSError: a pidfd is needed, and no fd is left (EMFILE, ENFILE).
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on IORING_OP_WAITID (Linux 6.7), before that on IORING_OP_POLL_ADD and pidfd_open(2), and on waitid(2).
"""

    def __cinit__(self):
        self.request.op.fd = -1

    def __init__(self, loop, pid, callback, *, data=None, priority=0, ref=True, start=True):
        cdef object process = pid if is_popen(pid) else None
        cdef int number = pid_argument(pid if process is None else getattr(pid, "pid", None))
        watcher_begin(self, &child_class, loop, callback)
        self.request.op.cls = &child_op_class
        self.request.pid = number
        self.process = process
        if start is False:
            try:
                find_child(self)
            except BaseException:
                self.destroy()
                raise
        watcher_options(self, data, priority, ref, start)

    def __dealloc__(self):
        watcher_leave(self)

    @property
    def pid(self):
        """The pid of the child: an int of 1 or more."""
        return self.request.pid

    @property
    def returncode(self):
        """How the child has ended, an int as in ``subprocess``; None: not yet since the last start, or nobody knows."""
        return self.code

    def describe(self):
        """What the watcher watches, for ``repr``."""
        return f"pid={self.request.pid}" + ("" if self.code is None else f" returncode={self.code}")


cdef bint is_popen(object value) except -1:
    """Whether it is a subprocess.Popen. That module is not imported: without it there is none."""
    if type(value) is int:
        return False
    kind = getattr(sys.modules.get("subprocess"), "Popen", None)
    return isinstance(kind, type) and isinstance(value, kind)


cdef int pid_argument(object value) except -1:
    if not PyBool_Check(value):
        try:
            return integer_within(value, "pid", 1, INT32_MAX)
        except TypeError:
            pass
    raise TypeError(f"pid must be an int or a subprocess.Popen, not {type(value).__name__} ({value!r})") from None


cdef int find_child(Child self) except -1:
    """What there is to wait for: CHILD_WAITID, CHILD_POLL, or 0 if nothing has to be asked of the kernel. Raises OSError."""
    cdef int status = 0, state
    cdef object process = self.process
    if process is not None and process.returncode is not None:
        return 0
    state = check(le_child_ask(-1, self.request.pid, WNOWAIT, &status))
    if state != LE_CHILD_GONE:
        return CHILD_WAITID if state != LE_CHILD_TRACED and kernel_waits(self) else CHILD_POLL
    if process is not None:
        # Another thread may be in the middle of reaping it: between waitpid() and the assignment, with the lock in its hands.
        lock = getattr(process, "_waitpid_lock", None)
        if (lock is not None and lock.locked()) or process.returncode is not None:
            return 0
    if le_process_exists(self.request.pid):
        raise OSError(ECHILD, f"process {self.request.pid} is not a child of this process")
    raise OSError(ESRCH, f"there is no process {self.request.pid}: it has ended and been reaped, or never was")


cdef bint kernel_waits(Child self) except -1:
    global knows_waitid
    cdef uint8_t supported[256]
    if knows_waitid < 0:
        ask_operations(&self.owner.core.ring, supported)
        if not supported[IORING_OP_NOP]:
            return False  # there was no answer: asked again the next time
        knows_waitid = supported[LE_URING_WAITID]
    return knows_waitid


def pretend(*operations):
    """For tests: let operations, by the kernel's names, be lacking from now on; without a name: ask the kernel again."""
    global knows_waitid
    knows_waitid = 0 if "WAITID" in operations else -1


# -- Watching ----------------------------------------------------------------------------------------------------------

cdef int child_start(void *watcher) except -1:
    cdef Child self = <Child>watcher
    cdef int way = find_child(self)
    if le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
        return 0  # a Popen with a mind of its own has started the watcher meanwhile
    if way == CHILD_POLL:
        self.request.op.fd = check_errno(le_pidfd_open(self.request.pid))
    if le_index_add(&self.owner.core.by_child, self.request.pid % KEYS, &self.request.chain, &self.head):
        close_pidfd(self)
        raise MemoryError
    self.request.op.bits = way
    self.pause_ns = PAUSE_FIRST_NS
    self.code = None
    op_start(self.owner, &self.request.op)
    return 0


cdef int child_stop(void *watcher) except -1:
    cdef Child self = <Child>watcher
    op_stop(self.owner, &self.request.op)
    le_index_remove(&self.owner.core.by_child, self.request.pid % KEYS, &self.request.chain)
    close_pidfd(self)
    return 0


cdef int child_dispatch(void *watcher) except -1:
    cdef Child self = <Child>watcher
    cdef tuple args = None
    try:
        if learn(self):
            args = (self, self.request.pid, self.code)
    except MemoryError:
        wait_for_memory(self)
        raise
    except BaseException:
        end(self)
        raise
    # A Popen with a mind of its own may have stopped the watcher.
    if args is not None and le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
        end(self)
        self.function(*args)
    return 0


cdef int child_destroy(void *watcher) noexcept:
    cdef Child self = <Child>watcher
    le_index_remove(&self.owner.core.by_child, self.request.pid % KEYS, &self.request.chain)
    close_pidfd(self)
    return 0


cdef int child_release(void *watcher) except -1:
    (<Child>watcher).process = None
    return 0


cdef int end(Child self) except -1:
    if le_watcher_is(&self.head, LE_WATCHER_ACTIVE):
        child_stop(<PyObject *>self)
        watcher_deactivate(self)
    return 0


cdef void close_pidfd(Child self) noexcept:
    if self.request.op.fd >= 0:
        close(self.request.op.fd)
    self.request.op.fd = -1


# -- How it ended ------------------------------------------------------------------------------------------------------

cdef bint learn(Child self) except -1:
    """Find out how the child has ended, and reap it; false: it has not, or that is not to be known yet."""
    cdef int status = 0, state
    cdef object process = self.process, code = self.code, seen = None, lock
    if self.request.op.bits & CHILD_KNOWN:
        if process is not None and process.returncode is None:
            process.returncode = code
        return True
    if process is None:
        process = process_beside(self)
    # Whoever has the lock may be reaping the child. It takes but a moment, and is not waited for.
    lock = getattr(process, "_waitpid_lock", None)
    if lock is not None and not lock.acquire(False):
        return try_later(self)
    try:
        code = None if process is None else process.returncode
        if code is None and not self.request.op.bits & CHILD_GONE:
            state = check(le_child_ask(self.request.op.fd, self.request.pid, WNOWAIT, &status))
            if state == LE_CHILD_ENDED:
                seen = status  # before the child is reaped: there may be no memory for it
                state = check(le_child_ask(self.request.op.fd, self.request.pid, 0, &status))
            if state == LE_CHILD_RUNS or state == LE_CHILD_TRACED:
                return go_on(self, state)
            if state == LE_CHILD_ENDED:
                code = seen
        if code is not None:
            self.code = code
            self.request.op.bits |= CHILD_KNOWN  # what follows may fail, and is tried again then
            tell_others(self, code)
            if process is not None and process.returncode is None:
                process.returncode = code
    finally:
        if lock is not None:
            lock.release()
    self.code = code
    return True


cdef le_chain *next_beside(Child self, le_chain *link) noexcept:
    """Of the loop's watchers of the same child, this one among them, the first in a chain."""
    while link != NULL and (<Child>LE_WATCHER_OBJECT(link.watcher)).request.pid != self.request.pid:
        link = link.next
    return link


cdef object process_beside(Child self):
    """The Popen of the child, if another watcher of the loop has it."""
    cdef le_chain *link = next_beside(self, le_index_first(&self.owner.core.by_child, self.request.pid % KEYS))
    while link != NULL:
        if (<Child>LE_WATCHER_OBJECT(link.watcher)).process is not None:
            return (<Child>LE_WATCHER_OBJECT(link.watcher)).process
        link = next_beside(self, link.next)
    return None


cdef int tell_others(Child self, object code) except -1:
    """The child is reaped: the other watchers of the loop would find nothing any more."""
    cdef le_chain *link = next_beside(self, le_index_first(&self.owner.core.by_child, self.request.pid % KEYS))
    cdef Child other
    while link != NULL:
        other = <Child>LE_WATCHER_OBJECT(link.watcher)
        if other is not self:
            other.code = code
            other.request.op.bits |= CHILD_KNOWN
            le_watcher_collect(&self.owner.core, &other.head, LE_LANE_COMPLETIONS)
        link = next_beside(self, link.next)
    return 0


cdef bint go_on(Child self, int state) except -1:
    """The child has not ended after all, or nobody may know it yet: wait on."""
    # A pidfd tells of the end as soon as a tracer is told, which has to let go of the child before it can be reaped.
    if self.request.op.bits & CHILD_POLL:
        return try_later(self)
    if state == LE_CHILD_TRACED or self.request.op.bits & CHILD_REFUSED:
        self.request.op.fd = le_pidfd_open(self.request.pid)
        if self.request.op.fd < 0:
            return try_later(self)
        self.request.op.bits = CHILD_POLL
    else:
        self.request.op.bits = CHILD_WAITID
    op_start(self.owner, &self.request.op)
    return False


cdef bint try_later(Child self) except -1:
    """Ask again after a pause, in the place of a request."""
    check_memory(le_heap_add(&self.owner.core.heap, &self.head, le_clock_after(le_clock_ns(), self.pause_ns)))
    self.pause_ns = min(2 * self.pause_ns, <int64_t>PAUSE_LAST_NS)
    return False


cdef void wait_for_memory(Child self) noexcept:
    """What there was no memory for is tried again; a pause lets others free some."""
    cdef int64_t at_ns = le_clock_after(le_clock_ns(), self.pause_ns)
    if not le_watcher_is(&self.head, LE_WATCHER_ACTIVE) or self.head.heap_slot != LE_NOT_IN_HEAP:
        return
    if le_heap_add(&self.owner.core.heap, &self.head, at_ns):
        le_watcher_collect(&self.owner.core, &self.head, LE_LANE_COMPLETIONS)
    self.pause_ns = min(2 * self.pause_ns, <int64_t>PAUSE_LAST_NS)


cdef le_watcher_class child_class
child_class.abi = LE_WATCHER_ABI
child_class.name = "child"
child_class.on_start = <le_watcher_function>child_start
child_class.on_stop = <le_watcher_function>child_stop
child_class.on_dispatch = <le_watcher_function>child_dispatch
child_class.on_destroy = child_destroy
child_class.on_release = <le_watcher_function>child_release


# -- The request, without Python ---------------------------------------------------------------------------------------

cdef void child_prep(le_op *op, io_uring_sqe *sqe) noexcept nogil:
    if op.bits & CHILD_WAITID:
        le_prep_waitid(sqe, P_PID, (<child_request *>op).pid, WEXITED | WNOWAIT)
    elif op.bits & CHILD_POLL:
        io_uring_prep_poll_add(sqe, op.fd, POLLIN)
    else:
        io_uring_prep_nop(sqe)


cdef le_op_verdict child_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    if result == -EINTR:
        return LE_OP_AGAIN
    if result == -ECHILD:
        op.bits |= CHILD_GONE
    elif result < 0:
        op.bits |= CHILD_REFUSED
    le_watcher_collect(loop, <le_watcher *>(<char *>op - request_offset), LE_LANE_COMPLETIONS)
    return LE_OP_END


cdef ptrdiff_t request_offset  # from the le_watcher of a Child to its request
cdef le_op_class child_op_class
child_op_class.abi = LE_OP_ABI
child_op_class.name = "child"
child_op_class.prep = child_prep
child_op_class.on_cqe = child_on_cqe


cdef measure():
    """Find out where in a Child its request is; it never moves, and all are laid out alike."""
    global request_offset
    cdef Child sample = Child.__new__(Child)
    request_offset = <char *>&sample.request - <char *>&sample.head
    child_op_class.owner_offset = <char *>&sample.request - <char *><PyObject *>sample


measure()


# -- Factory -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _child(self, pid, callback=..., *, data=None, priority=0, ref=True, start=True):
    """Create a ``Child``: ``callback(watcher, pid, returncode)`` when a child process has ended, which is then reaped.

    :param pid: the pid of a child of this process, or its ``subprocess.Popen``, whose ``returncode`` is filled in.
    :param callback: left out, the call is a decorator. Its ``returncode`` is that of ``subprocess``: negative for a signal; None
        where somebody else has reaped the child.
    :returns: the Child; as a decorator, what takes the function and returns it.
    :raises ProcessLookupError, ChildProcessError, OSError, ValueError, TypeError, LoopClosedError, WrongThreadError: as
        ``Child`` does, which tells of the other arguments.
    """
    if callback is ...:
        return decorator(Child, self, (pid,), data, priority, ref, start, {})
    return Child(self, pid, callback, data=data, priority=priority, ref=ref, start=start)


add_method("child", _child)
