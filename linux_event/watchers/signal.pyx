"""Signal watchers: a C handler writes to the hubs of the loops, in whatever thread the kernel runs it.

Any number of watchers, loops and threads may watch the same signal: all are called. No signal mask is changed, so children
inherit none. The former disposition comes back when the last watcher of the signal stops.

A loop with ``signals="signalfd"`` reads its signals through a signalfd instead, see le_signalfd.h.
"""

cimport cython
from cpython.bool cimport PyBool_Check
from cpython.object cimport PyObject
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, uint32_t, uint64_t
from linux_event.arguments cimport integer_within
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_OP_ABI, LE_OP_AGAIN, LE_OP_END, LE_OP_EVERY_READ, LE_SIGNAL_MAX, LE_WATCHER_ABI, le_index_add,
    le_index_remove, le_link_leave, le_list_init, le_list_is_empty, le_list_push, le_loop, le_op, le_op_class,
    le_op_verdict, le_signal_hub, le_signal_hub_add, le_signal_hub_collect, le_signal_hub_init, le_signal_hub_remove,
    le_signal_queue_free, le_signal_queue_pop, le_signal_queue_reserve, le_signal_record, le_signalfd, le_waker_prep,
    le_watcher_class, le_watcher_collect, le_watcher_function,
)
from linux_event.engine cimport Engine
from linux_event.errors cimport check, check_errno, check_memory
from linux_event.liburing cimport io_uring_sqe
from linux_event.linux cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd
from linux_event.loop cimport add_method
from linux_event.requests cimport op_start, op_stop, owns
from linux_event.watcher cimport Watcher, decorator, watcher_begin, watcher_leave, watcher_options

import os
import signal as signal_module
from collections import namedtuple

cdef extern from *:
    """
    #include <sched.h>
    #include <sys/eventfd.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #include "le_signalfd.h"

    /* What handlers need is static, because a handler is given nothing. All but the handler runs under the GIL. */
    static struct le_signal_hub *le_hubs;
    static int le_handlers_inside;
    static struct sigaction le_previous[LE_SIGNAL_MAX + 1];
    static uint32_t le_signal_users[LE_SIGNAL_MAX + 1];

    static void le_signal_handler(int signum, siginfo_t *info, void *context)
    {
        int saved_errno = errno;
        (void)context;
        /* A fault of this thread's own cannot be put off: the instruction would fault for ever. It meets its old fate. */
        if (info->si_code > 0 && (signum == SIGSEGV || signum == SIGBUS || signum == SIGFPE || signum == SIGILL)) {
            sigaction(signum, &le_previous[signum], NULL);
            return;
        }
        struct le_signal_record record = {signum, info->si_code, 0, 0, info->si_status, info->si_value.sival_int};
        if (le_signal_has_sender(signum, info->si_code)) {
            record.pid = info->si_pid;
            record.uid = info->si_uid;
        }
        __atomic_fetch_add(&le_handlers_inside, 1, __ATOMIC_SEQ_CST);
        for (struct le_signal_hub *hub = __atomic_load_n(&le_hubs, __ATOMIC_SEQ_CST); hub; hub = hub->next)
            if (le_signal_hub_push(hub, &record))
                (void)!eventfd_write(hub->fd, 1);
        __atomic_fetch_sub(&le_handlers_inside, 1, __ATOMIC_SEQ_CST);
        errno = saved_errno;
    }

    static int le_signal_is_ours(int signum)
    {
        struct sigaction now;
        return sigaction(signum, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == le_signal_handler;
    }

    /* Count a watcher of the signal. The first one takes the disposition over, as does one that finds it changed by somebody
     * else. Returns 0 or -1 with errno. */
    static int le_signal_take(int signum)
    {
        struct sigaction action;
        if (!le_signal_users[signum] || !le_signal_is_ours(signum)) {
            memset(&action, 0, sizeof action);
            action.sa_sigaction = le_signal_handler;
            action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
            sigemptyset(&action.sa_mask);
            if (sigaction(signum, &action, &le_previous[signum]) < 0)
                return -1;
        }
        le_signal_users[signum]++;
        return 0;
    }

    /* The last one gives the disposition back, unless somebody else has changed it meanwhile. */
    static void le_signal_give_back(int signum)
    {
        if (le_signal_users[signum] && !--le_signal_users[signum] && le_signal_is_ours(signum))
            sigaction(signum, &le_previous[signum], NULL);
    }

    static void le_signal_enlist(struct le_signal_hub *hub)
    {
        hub->next = le_hubs;
        __atomic_store_n(&le_hubs, hub, __ATOMIC_SEQ_CST);
    }

    /* Afterwards no handler, in whatever thread, has the hub in its hands. */
    static void le_signal_delist(struct le_signal_hub *hub)
    {
        struct le_signal_hub **place = &le_hubs;
        while (*place && *place != hub)
            place = &(*place)->next;
        if (*place)
            __atomic_store_n(place, hub->next, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&le_handlers_inside, __ATOMIC_SEQ_CST))
            sched_yield();
    }

    static pthread_key_t le_signal_key; /* to the struct le_signal_thread of each thread */

    /* What loops that were dropped elsewhere have left blocked here. What is pending goes to the handler, and not to the
     * disposition that they have given back. */
    static int le_signal_catch_up(void *thread)
    {
        struct le_signal_thread *here = pthread_getspecific(le_signal_key);
        (void)thread;
        if (!here || !here->late)
            return 0;
        uint64_t late = here->late, taken = 0;
        here->late = 0;
        for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++)
            if (late & (UINT64_C(1) << (signum - 1)) && le_signal_take(signum) == 0)
                taken |= UINT64_C(1) << (signum - 1);
        le_signal_mask(late, SIG_UNBLOCK);
        for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++)
            if (taken & (UINT64_C(1) << (signum - 1)))
                le_signal_give_back(signum);
        return 0;
    }

    static struct le_signal_thread *le_signal_thread_here(void)
    {
        struct le_signal_thread *here = pthread_getspecific(le_signal_key);
        if (!here && (here = calloc(1, sizeof *here))) {
            here->references = 1;
            here->is_main = syscall(SYS_gettid) == getpid();
            if (pthread_setspecific(le_signal_key, here)) {
                free(here);
                here = NULL;
            }
        }
        le_signal_catch_up(NULL);
        return here;
    }

    static void le_signalfd_unblock(struct le_signalfd *self, uint64_t which)
    {
        if (!self->thread)
            return;
        uint64_t over = le_signalfd_let_go(self, which);
        if (self->thread == pthread_getspecific(le_signal_key)) {
            le_signal_mask(over, SIG_UNBLOCK);
        } else {
            self->thread->late |= over;
            if (over && self->thread->is_main)
                (void)Py_AddPendingCall(le_signal_catch_up, NULL);
        }
        if (!self->blocked) {
            le_signal_thread_release(self->thread);
            self->thread = NULL;
        }
    }

    static void le_signalfd_prep(struct le_op *op, struct io_uring_sqe *sqe)
    {
        le_signalfd_block(LE_CONTAINER(op, struct le_signalfd, reader.op), le_signal_thread_here());
        le_reader_prep(op, sqe);
    }

    /* Whoever reads a signal hands it to all loops that watch it, as a handler does. */
    static void le_signalfd_on_records(struct le_loop *loop, struct le_reader *reader)
    {
        struct le_signalfd *self = LE_CONTAINER(reader, struct le_signalfd, reader);
        for (; le_reader_left(reader) >= sizeof *self->records; reader->taken += sizeof *self->records) {
            struct le_signal_record record =
                le_signalfd_record((const struct signalfd_siginfo *)(const void *)(reader->buffer + reader->taken));
            for (struct le_signal_hub *hub = le_hubs; hub; hub = hub->next)
                if (le_signal_hub_push(hub, &record) && hub != self->hub)
                    (void)!eventfd_write(hub->fd, 1);
            le_signal_hub_collect(loop, self->hub, self->members);
        }
        reader->taken = reader->filled;
        if (reader->error) /* nobody reads any more: let the handler have them */
            le_signalfd_unblock(self, UINT64_MAX);
    }

    static void le_signalfd_init(struct le_signalfd *self)
    {
        self->reader.buffer = (char *)self->records;
        self->reader.size = sizeof self->records;
        self->reader.on_records = le_signalfd_on_records;
    }

    static enum le_op_verdict le_signalfd_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
    {
        enum le_op_verdict verdict = le_reader_on_cqe(loop, op, result, flags);
        /* All has been handed over already. */
        return result > 0 && op->state == LE_OP_IN_FLIGHT ? LE_OP_AGAIN : verdict;
    }

    /* In a forked child the loops are dead: every signal means again what it meant before. */
    static void le_signal_forget(void)
    {
        for (struct le_signal_hub *hub = le_hubs; hub; hub = hub->next)
            le_signal_hub_close(hub);
        le_hubs = NULL;
        le_handlers_inside = 0;
        for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++) {
            if (le_signal_users[signum] && le_signal_is_ours(signum))
                sigaction(signum, &le_previous[signum], NULL);
            le_signal_users[signum] = 0;
        }
        /* Nothing is pending in a child. */
        struct le_signal_thread *here = pthread_getspecific(le_signal_key);
        if (here) {
            le_signal_mask(le_signal_thread_blocked(here) | here->late, SIG_UNBLOCK);
            memset(here->blockers, 0, sizeof here->blockers);
            here->late = 0;
            here->is_main = 1;
        }
    }
    """
    int le_signal_take(int signum)
    void le_signal_give_back(int signum)
    void le_signal_enlist(le_signal_hub *hub)
    void le_signal_delist(le_signal_hub *hub)
    void le_signal_forget()
    ctypedef unsigned pthread_key_t
    pthread_key_t le_signal_key
    int pthread_key_create(pthread_key_t *key, void (*destructor)(void *) noexcept nogil)
    void le_signal_thread_release(void *thread) noexcept nogil
    void *le_signal_thread_here()
    void le_signalfd_block(le_signalfd *self, void *here)
    void le_signalfd_unblock(le_signalfd *self, uint64_t which)
    uint64_t le_signals_lift(void *here)
    void le_signals_lower(void *here, uint64_t bits)
    void le_signalfd_prep(le_op *op, io_uring_sqe *sqe) nogil
    le_op_verdict le_signalfd_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) nogil
    void le_signalfd_init(le_signalfd *self)
    void le_signal_hub_close(le_signal_hub *hub)
    enum: SIGCHLD, SI_QUEUE, SI_TIMER, SI_MESGQ
    int le_signalfd_open(int fd, uint64_t bits)


SignalInfo = namedtuple("SignalInfo", ("pid", "uid", "code", "status", "value"), defaults=(None, None))
SignalInfo.__doc__ = """Where a signal came from, as the kernel says; see sigaction(2).

``pid`` and ``uid`` are those of the sending process, or None where the kernel made the signal itself or it was merged with
others; ``code`` is ``si_code``, 0 for kill(2). ``status`` is that of the child, for SIGCHLD: its exit code, or the signal that
has ended, stopped or continued it, as ``code`` tells; else None. ``value`` is the int that came with the signal by sigqueue(3),
from a timer or a message queue of POSIX; else None.
"""


@cython.final
cdef class unblocked:
    """unblocked()
--

A context manager: in its block the signals that loops with ``signals="signalfd"`` have blocked in this thread are not blocked.

For starting programs, which inherit the mask: ``with unblocked(): subprocess.Popen(...)``. A signal that comes meanwhile is
caught by a handler: watchers are told of it all the same.

Stands on pthread_sigmask(3).
"""
    cdef uint64_t bits

    def __enter__(self):
        self.bits = signals_lift()

    def __exit__(self, *exception):
        signals_lower(self.bits)


cdef uint64_t signals_lift() noexcept:
    return le_signals_lift(le_signal_thread_here())


cdef void signals_lower(uint64_t bits) noexcept:
    le_signals_lower(le_signal_thread_here(), bits)


@cython.final
cdef class Signal(Watcher):
    """Signal(loop, signal, callback, *, data=None, priority=0, ref=True, start=True)
--

Calls ``callback(watcher, signum)`` for every signal caught, in the thread of the loop. ``loop.signal(signal, callback)``.

Any number of watchers, in any number of loops and threads, may watch one signal: all are called. While one is active it
takes the place of handlers set by ``signal.signal``, those of Python for SIGINT included; the former disposition comes
back when the last one stops.

:param loop: the Loop.
:param signal: a number, a ``signal.Signals``, or a name: ``2``, ``signal.SIGINT``, ``"INT"``, ``"SIGINT"``.
:param callback: called with the watcher and the number of the signal.
:param data, priority, ref, start: as for ``Timer``.
:raises ValueError: there is no such signal, or it cannot be caught (KILL, STOP); ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.
:raises OSError: no fd is left for the loop's eventfd.

Stands on sigaction(2) and a multishot poll of an eventfd(2); in a loop with ``signals="signalfd"`` on signalfd(2) and
IORING_OP_READ. See signal(7).
"""

    def __init__(self, loop, signal, callback, *, data=None, priority=0, ref=True, start=True):
        cdef int number = signal_argument(signal)
        watcher_begin(self, &signal_class, loop, callback)
        self.member.signum = number
        self.member.watcher = &self.head
        try:
            check_memory(le_index_add(&self.owner.core.by_signal, number, &self.chain, &self.head))
        except MemoryError:
            self.destroy()
            raise
        watcher_options(self, data, priority, ref, start)

    def __dealloc__(self):
        watcher_leave(self)
        le_signal_queue_free(&self.member.queue)

    @property
    def signum(self):
        """The number of the signal."""
        return self.member.signum

    @property
    def info(self):
        """In the callback: a ``SignalInfo`` with ``pid``, ``uid``, ``code``, ``status`` and ``value``; elsewhere None."""
        return self.told

    def describe(self):
        """What the watcher watches, for ``repr``."""
        return f"signal={signal_name(self.member.signum)}"


@cython.final
cdef class SignalHub:
    """The hub of one loop. Not for users."""

    def __cinit__(self):
        le_signal_hub_init(&self.hub)
        le_list_init(&self.members)
        self.hub.fd = self.hub.reader_fd = -1
        self.request.cls = &hub_op_class

    def __dealloc__(self):
        if self.is_listed:
            le_signal_delist(&self.hub)
        le_signal_hub_close(&self.hub)


@cython.final
cdef class SignalReader:
    """Reads the signals of one loop through a signalfd. Not for users."""

    def __cinit__(self, SignalHub hub):
        self.hub = hub
        self.core.hub = &hub.hub
        self.core.members = &hub.members
        self.core.reader.op.cls = &reader_class
        le_signalfd_init(&self.core)


cdef int reader_watch(Engine loop, SignalHub hub, int signum) except -1:
    """Read this signal, too."""
    cdef SignalReader reader = hub.reader
    cdef uint64_t bit = <uint64_t>1 << (signum - 1)
    if reader is None:
        reader = SignalReader(hub)
    hub.hub.reader_fd = check_errno(le_signalfd_open(hub.hub.reader_fd, reader.core.watched | bit))
    reader.core.watched |= bit
    if hub.reader is None:
        hub.reader = reader
        reader.core.reader.op.fd = hub.hub.reader_fd
        op_start(loop, &reader.core.reader.op)
    if loop.owner:  # else when the thread that will run the loop hands the request over
        le_signalfd_block(&reader.core, le_signal_thread_here())
    return 0


cdef int reader_leave(SignalHub hub, int signum) except -1:
    """Nobody watches this signal any more."""
    cdef SignalReader reader = hub.reader
    cdef uint64_t bit = <uint64_t>1 << (signum - 1)
    if reader is not None and reader.core.watched & bit:
        reader.core.watched &= ~bit
        if hub.hub.reader_fd >= 0:
            le_signalfd_open(hub.hub.reader_fd, reader.core.watched)
        # What is pending is delivered now, to the handler: other loops may watch it.
        le_signalfd_unblock(&reader.core, bit)
    return 0


cdef str signal_name(int number):
    cdef str name = None
    try:
        name = signal_module.Signals(number).name
    except ValueError:
        pass
    return str(number) if name is None else name


cdef frozenset known_signals


cdef frozenset valid_signals():
    """The signals that may be watched. Python makes the set anew at each call, which takes longer than all the rest."""
    global known_signals
    if known_signals is None:
        known_signals = frozenset(signal_module.valid_signals())
    return known_signals


cdef int signal_argument(object value) except -1:
    cdef int number
    if isinstance(value, str):
        name = value if value.startswith("SIG") else f"SIG{value}"
        try:
            number = signal_module.Signals[name].value
        except KeyError:
            raise ValueError(f"signal must be the name of a signal, such as 'INT' or 'SIGINT', not {value!r}") from None
    elif PyBool_Check(value):
        raise TypeError(f"signal must be an int or a str, not {value!r}")
    else:
        try:
            number = integer_within(value, "signal", 1, LE_SIGNAL_MAX)
        except TypeError:
            raise TypeError(f"signal must be an int or a str, not {type(value).__name__} ({value!r})") from None
    if number not in valid_signals():
        raise ValueError(f"signal {value!r} is used by the C library itself and cannot be watched")
    if number == signal_module.SIGKILL or number == signal_module.SIGSTOP:
        raise ValueError(f"signal {value!r} cannot be caught: the kernel does not allow it for KILL and STOP")
    return number


cdef int signal_start(void *watcher) except -1:
    cdef Signal self = <Signal>watcher
    check_memory(le_signal_queue_reserve(&self.member.queue))
    cdef SignalHub hub = self.owner.signal_hub
    if hub is None:
        hub = SignalHub()
        hub.hub.fd = check_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
        hub.request.fd = hub.hub.fd
    check_errno(le_signal_take(self.member.signum))
    if self.owner.has_signalfd and not hub.hub.users[self.member.signum]:
        try:
            reader_watch(self.owner, hub, self.member.signum)
        except BaseException:
            le_signal_give_back(self.member.signum)
            raise
    if not hub.is_listed:
        self.owner.signal_hub = hub
        le_signal_enlist(&hub.hub)
        hub.is_listed = True
        op_start(self.owner, &hub.request)
    le_signal_hub_add(&hub.hub, self.member.signum)
    le_list_push(&hub.members, &self.member.link)
    self.hub = hub
    return 0


cdef int signal_stop(void *watcher) except -1:
    cdef Signal self = <Signal>watcher
    cdef SignalHub hub = self.hub
    self.hub = None
    self.member.queue.count = 0
    le_link_leave(&self.member.link)
    le_signal_hub_remove(&hub.hub, self.member.signum)
    if not hub.hub.users[self.member.signum]:
        reader_leave(hub, self.member.signum)
    if hub.hub.fd >= 0:  # else it was the parent's: the child has forgotten its signals
        le_signal_give_back(self.member.signum)
    if le_list_is_empty(&hub.members):
        le_signal_delist(&hub.hub)
        hub.is_listed = False
        self.owner.signal_hub = None
        op_stop(self.owner, &hub.request)
        if hub.reader is not None:
            op_stop(self.owner, &(<SignalReader>hub.reader).core.reader.op)
            hub.reader = None
        if not owns(self.owner):
            le_signal_hub_close(&hub.hub)  # a reader that nobody can wait for is never freed, nor is its hub
    return 0


cdef int signal_dispatch(void *watcher) except -1:
    cdef Signal self = <Signal>watcher
    cdef le_signal_record record = le_signal_queue_pop(&self.member.queue)
    if self.member.queue.count:
        le_watcher_collect(&self.owner.core, &self.head, LE_LANE_COMPLETIONS)
    sender = record.pid or None
    status = record.status if record.signum == SIGCHLD and record.code > 0 else None
    value = record.value if record.code in (SI_QUEUE, SI_TIMER, SI_MESGQ) else None
    self.told = SignalInfo(sender, None if sender is None else record.uid, record.code, status, value)
    try:
        self.function(self, self.member.signum)
    finally:
        self.told = None
    return 0


cdef int signal_destroy(void *watcher) noexcept:
    cdef Signal self = <Signal>watcher
    le_index_remove(&self.owner.core.by_signal, self.member.signum, &self.chain)
    return 0


cdef le_watcher_class signal_class
signal_class.abi = LE_WATCHER_ABI
signal_class.name = "signal"
signal_class.on_start = <le_watcher_function>signal_start
signal_class.on_stop = <le_watcher_function>signal_stop
signal_class.on_dispatch = <le_watcher_function>signal_dispatch
signal_class.on_destroy = signal_destroy


# -- The request of the hub --------------------------------------------------------------------------------------------

cdef le_op_verdict hub_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    # The eventfd is never read: a multishot poll reports every write.
    cdef char *request = <char *>op
    le_signal_hub_collect(loop, <le_signal_hub *>(request + hub_offset), <le_link *>(request + members_offset))
    return LE_OP_AGAIN if result >= 0 else LE_OP_END


cdef ptrdiff_t hub_offset  # from the request of a SignalHub to its other parts
cdef ptrdiff_t members_offset
cdef le_op_class hub_op_class
hub_op_class.abi = LE_OP_ABI
hub_op_class.name = "signals"
hub_op_class.prep = le_waker_prep
hub_op_class.on_cqe = hub_on_cqe


cdef measure():
    """Find out where in a SignalHub its parts are; it never moves, and all are laid out alike."""
    global hub_offset, members_offset
    cdef SignalHub sample = SignalHub()
    hub_offset = <char *>&sample.hub - <char *>&sample.request
    members_offset = <char *>&sample.members - <char *>&sample.request
    hub_op_class.owner_offset = <char *>&sample.request - <char *><PyObject *>sample
    cdef SignalReader reader = SignalReader(sample)
    reader_class.owner_offset = <char *>&reader.core.reader.op - <char *><PyObject *>reader


cdef le_op_class reader_class
reader_class.abi = LE_OP_ABI
reader_class.name = "signalfd"
reader_class.prep = le_signalfd_prep
reader_class.on_cqe = le_signalfd_on_cqe
reader_class.interest = LE_OP_EVERY_READ


measure()
check(-pthread_key_create(&le_signal_key, le_signal_thread_release))


def _forget_in_child():
    """After a fork, in the child: the loops are dead, and signals mean again what they meant before."""
    le_signal_forget()


os.register_at_fork(after_in_child=_forget_in_child)


# -- Factory -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _signal(self, signal, callback=..., *, data=None, priority=0, ref=True, start=True):
    """Create a ``Signal``: ``callback(watcher, signum)`` for every signal caught.

    :param signal: a number, a ``signal.Signals``, or a name, such as ``"INT"`` or ``"SIGINT"``.
    :param callback: left out, the call is a decorator.
    :returns: the Signal; as a decorator, what takes the function and returns it.
    :raises ValueError, TypeError, LoopClosedError, WrongThreadError: as ``Signal`` does, which tells of the other arguments.
    """
    if callback is ...:
        return decorator(Signal, self, (signal,), data, priority, ref, start, {})
    return Signal(self, signal, callback, data=data, priority=priority, ref=ref, start=start)


add_method("signal", _signal)
