"""Connections that a program asks for: addresses of a name, attempts, and the stream of the one that succeeds first.

A Connecting is the operation that the user has. Each attempt is an operation of its own, with the socket and the memory that
the kernel works on: so the losers can be cancelled, and their sockets closed, when the winner has been handed over long ago.
"""

cimport cython
from cpython.ref cimport Py_DECREF
from libc.errno cimport EACCES, EAFNOSUPPORT, ECONNREFUSED, ECONNRESET, EPERM, ETIMEDOUT, errno
from libc.stdint cimport int64_t
from linux_event.address cimport address_to_sockaddr
from linux_event.arguments cimport seconds_to_ns
from linux_event.core cimport (
    LE_LOOP_OPEN, LE_NS_NEVER, LE_OP_IDLE, LE_OPERATION_CANCELLED, LE_OPERATION_DONE, LE_OPERATION_ENDED, LE_OPERATION_RAISED,
    le_clock_after, le_clock_ns, le_heap_add, le_heap_remove, le_operation_end, le_operation_leave, le_retry, le_retry_init,
    le_retry_on_cqe, le_watcher_function, le_watcher_unpend,
)
from linux_event.engine cimport loop_changed
from linux_event.liburing cimport io_uring_prep_connect
from linux_event.linux cimport (
    AF_INET, AF_INET6, AF_UNIX, ECANCELED, IPPROTO_IP, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET,
    SO_REUSEADDR, TCP_NODELAY, bind, close, setsockopt, sockaddr, sockaddr_storage, socket,
)
from linux_event.loop cimport add_method
from linux_event.net.receiving cimport stream_begin
from linux_event.net.stream cimport Stream, stream_new
from linux_event.net.tls cimport tls_begin, tls_check
from linux_event.net.transport cimport Transport, stream_end
from linux_event.operation cimport Operation, kind_begin, operation_begin, operation_kind, operation_start
from linux_event.promise cimport Promise, promise_fail, promise_kind_begin, promise_start
from linux_event.requests cimport op_stop

import os

cdef extern from "<netinet/in.h>":
    enum: IP_BIND_ADDRESS_NO_PORT

cdef enum:
    HANDSHAKE_NS = 60_000_000_000  # where there is no timeout for all of it
    STAGGER_NS = 250_000_000  # an attempt has this time for itself before the next one begins: RFC 8305, section 5
    OVER = LE_OPERATION_ENDED | LE_OPERATION_DONE | LE_OPERATION_CANCELLED

ctypedef int (*operation_function)(void *operation) except -1

cdef operation_kind connect_kind, attempt_kind
cdef operation_function operation_dispatch, operation_stop  # what these do for all operations


cdef int begin_kinds() except -1:
    global operation_dispatch, operation_stop
    promise_kind_begin(&connect_kind, "connect_stream")
    operation_dispatch = <operation_function>connect_kind.dispatch.on_dispatch
    operation_stop = <operation_function>connect_kind.dispatch.on_stop
    connect_kind.dispatch.on_dispatch = <le_watcher_function>dispatch
    connect_kind.dispatch.on_stop = <le_watcher_function>stop
    connect_kind.result = result_stream
    connect_kind.dispose = dispose
    connect_kind.abort = abort
    kind_begin(&attempt_kind, "connect_stream")
    attempt_kind.is_composite = True
    attempt_kind.request.on_cqe = le_retry_on_cqe
    attempt_kind.dispatch.on_dispatch = <le_watcher_function>attempt_dispatch
    return 0


begin_kinds()


@cython.final
cdef class Connecting(Promise):
    """The operation that ``connect_stream`` returns: it ends with a stream, or with the error that tells most."""
    cdef list candidates       # what is to be tried, in order: (family, address)
    cdef Py_ssize_t tried      # so many of them were begun
    cdef list running          # attempts in flight
    cdef list failures         # of those that have failed: (address, OSError)
    cdef Operation lookup      # of the name, while it is being asked for
    cdef object local_address  # or None
    cdef int64_t timeout_ns, next_ns  # the moments when it has taken too long, and when the next attempt is due
    cdef int fd                # of the attempt that has succeeded; -1: there is none
    cdef object context        # an ssl.SSLContext, or None
    cdef object server_hostname
    cdef Stream stream         # for TLS: of the attempt that has succeeded

    def __cinit__(self):
        self.fd = -1
        self.timeout_ns = self.next_ns = LE_NS_NEVER

    def __dealloc__(self):
        close_fd(&self.fd)


@cython.final
cdef class _Attempt(Operation):
    """A socket that is being connected to one address. It is the business of a Connecting; nobody else gets to see it."""
    cdef Connecting connecting  # None: nobody waits for it any more
    cdef object address
    cdef int fd
    cdef sockaddr_storage storage
    cdef le_retry retry

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        close_fd(&self.fd)


@cython.final
cdef class _Lookup:
    """What is called when the addresses of a name are known."""
    cdef Connecting connecting

    def __call__(self, found, error):
        cdef Connecting connecting = self.connecting
        self.connecting = None
        connecting.owner.core.callbacks -= 1
        connecting.lookup = None
        if connecting.core.flags & OVER:
            return
        if error is not None:
            promise_fail(connecting, error)
            return
        connecting.candidates = candidates_of(found, connecting.where)
        try_next(connecting)


cdef void close_fd(int *fd) noexcept:
    if fd[0] >= 0:
        close(fd[0])
    fd[0] = -1


# -- Addresses ---------------------------------------------------------------------------------------------------------

cdef object numeric(tuple address):
    """What an address in numbers is to be tried as, [(family, address)]; None: somebody has to be asked for the host."""
    cdef sockaddr_storage storage
    cdef object host = address[0]
    cdef int family = AF_INET
    if type(address[1]) is not int or not host or not isinstance(host, (str, bytes)):
        return None
    if (":" if isinstance(host, str) else b":") in host:
        family = AF_INET6
    candidates = None  # a name, or what the resolver knows how to refuse
    try:
        address_to_sockaddr(address, family, &storage)
        candidates = [(family, address)]
    except (TypeError, ValueError, OSError):
        pass
    return candidates


cdef list candidates_of(list found, tuple address):
    """What the resolver has found, the families in turn: one that does not work delays the other by one attempt at most."""
    cdef list first = [], second = [], both = []
    for family, _, _, _, target in found:
        if family == AF_INET6 and len(address) > 2:
            target = target[:2] + address[2:]
        (first if family == found[0][0] else second).append((int(family), target))
    for place in range(max(len(first), len(second))):
        both += first[place:place + 1] + second[place:place + 1]
    return both


cdef tuple host_address(object address, str name):
    if not isinstance(address, (tuple, list)) or not 2 <= len(address) <= 4:
        raise TypeError(f"{name} must be (host, port) or the path of a Unix socket, not {address!r}")
    return tuple(address)


cdef object local_in(object local, int family):
    """The local address as sockets of a family have it; None: it is of another one."""
    if family == AF_UNIX:
        return local
    host = local[0]
    if host is None or host in ("", b""):
        return ("::" if family == AF_INET6 else "0.0.0.0", local[1])
    if host in ("localhost", b"localhost"):
        return ("::1" if family == AF_INET6 else "127.0.0.1", local[1])
    if family == AF_INET and (len(local) > 2 or (":" if isinstance(host, str) else b":") in host):
        return None
    if family == AF_INET6 and (":" if isinstance(host, str) else b":") not in host:
        return None
    return local


cdef object local_argument(object local, bint is_path):
    cdef sockaddr_storage storage
    if local is None:
        return None
    if is_path:
        address_to_sockaddr(local, AF_UNIX, &storage)
        return local
    local = host_address(local, "local_address")
    if local[0] is not None and not isinstance(local[0], (str, bytes)):
        raise TypeError(f"host of local_address must be a str or None, not {type(local[0]).__name__} ({local[0]!r})")
    targets = [(family, local_in(local, family)) for family in (AF_INET, AF_INET6)]
    if targets[0][1] is targets[1][1]:
        raise TypeError(f"local_address must be (host, port), not {local!r}")
    for family, target in targets:
        if target is None:
            continue
        try:
            address_to_sockaddr(target, family, &storage)
        except ValueError as error:
            if "host of" in str(error):
                raise ValueError("host of local_address must be a numeric address, '' or 'localhost', "
                                 f"not {local[0]!r}") from None
            raise
    return local


# -- Attempts ----------------------------------------------------------------------------------------------------------

cdef int try_next(Connecting self) except -1:
    """Begin the next attempt that can be begun. Without one, and nothing in flight, all is in vain."""
    try:
        self.next_ns = LE_NS_NEVER
        while self.tried < len(self.candidates):
            family, address = self.candidates[self.tried]
            self.tried += 1
            if attempt(self, family, address):
                if self.tried < len(self.candidates):
                    self.next_ns = le_clock_after(le_clock_ns(), STAGGER_NS)
                break
        if not self.running:
            promise_fail(self, failure_of(self))
        else:
            set_timer(self)
    except Exception as error:  # MemoryError
        give_up(self, error)
    return 0


cdef bint attempt(Connecting self, int family, object address) except -1:
    """Begin an attempt; false if the address was passed over, or has failed at once."""
    cdef _Attempt attempt
    cdef int length = -1
    local = None
    if self.local_address is not None:
        local = local_in(self.local_address, family)
        if local is None:
            return False
    attempt = _Attempt.__new__(_Attempt)
    operation_begin(attempt, &attempt_kind, self.owner, None, None, None, address)
    attempt.address = address
    try:
        attempt.fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
        if attempt.fd < 0:
            raise OSError(errno, os.strerror(errno), self.where)
        if local is not None:
            bind_local(self, attempt.fd, family, local)
        length = address_to_sockaddr(address, family, &attempt.storage)
    except OSError as error:
        self.failures.append((address, error))
    if length < 0:
        return False
    if family != AF_UNIX:
        set_option(attempt.fd, IPPROTO_TCP, TCP_NODELAY)
    io_uring_prep_connect(&attempt.core.sqe, attempt.fd, <sockaddr *>&attempt.storage, length)
    if family == AF_UNIX:
        le_retry_init(&attempt.core, &attempt.retry, False)  # the queue of the listener may be full
    operation_start(attempt, None)
    self.running.append(attempt)
    attempt.connecting = self
    return True


cdef int bind_local(Connecting self, int fd, int family, object local) except -1:
    cdef sockaddr_storage storage
    cdef int length = address_to_sockaddr(local, family, &storage)
    if family != AF_UNIX:
        if local[1]:
            set_option(fd, SOL_SOCKET, SO_REUSEADDR)
        else:
            set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT)  # the port is chosen when the other end is known
    if bind(fd, <sockaddr *>&storage, length) < 0:
        raise OSError(errno, f"{os.strerror(errno)}: local_address {self.local_address!r}", self.where)
    return 0


cdef void set_option(int fd, int level, int name) noexcept:
    cdef int value = 1
    setsockopt(fd, level, name, &value, sizeof(value))


cdef int attempt_dispatch(void *operation) except -1:
    """The kernel has let go of an attempt."""
    cdef _Attempt self = <_Attempt>operation
    cdef Connecting connecting = self.connecting
    self.connecting = None
    self.owner.core.callbacks -= 1
    le_operation_leave(&self.owner.core, &self.core)
    Py_DECREF(self)  # the loop's
    if connecting is None:
        close_fd(&self.fd)
        return 0
    connecting.running.remove(self)
    if self.core.result >= 0:
        connecting.fd, self.fd = self.fd, -1
        return succeeded(connecting)
    close_fd(&self.fd)
    number = <int>-self.core.result
    try:
        connecting.failures.append((self.address, OSError(number, os.strerror(number), connecting.where)))
    except MemoryError as error:
        give_up(connecting, error)
    if not connecting.core.flags & LE_OPERATION_ENDED:
        try_next(connecting)
    return 0


cdef int drop_attempts(Connecting self) except -1:
    """They are cancelled, and close their sockets when the kernel has let go of these."""
    cdef _Attempt attempt
    while self.running:
        attempt = self.running.pop()
        attempt.connecting = None
        attempt.core.flags |= LE_OPERATION_CANCELLED
        op_stop(self.owner, &attempt.core.op)
        if attempt.core.op.state == LE_OP_IDLE and not attempt.core.flags & LE_OPERATION_ENDED:
            le_operation_end(&self.owner.core, &attempt.core, -ECANCELED)
    return 0


# -- The end -----------------------------------------------------------------------------------------------------------

cdef int succeeded(Connecting self) except -1:
    """There is a connection, on `fd`."""
    cdef Stream stream
    drop_attempts(self)
    if self.context is None:
        le_operation_end(&self.owner.core, &self.core, 0)
        return 0
    try:
        self.next_ns = LE_NS_NEVER
        set_timer(self)
        stream = stream_new(self.owner, self.fd, 0)
        self.fd = -1
        self.stream = stream
        # The deadline of all of it is that of the handshake, too.
        tls_begin(stream, self.context, False, self.server_hostname, 0 if self.timeout_ns != LE_NS_NEVER else HANDSHAKE_NS,
                  shaken, self)
        stream_begin(stream)
    except Exception as error:  # MemoryError, or the context was changed meanwhile
        drop_stream(self)
        promise_fail(self, error)
    return 0


cdef int shaken(object owner, Transport stream, object error) except -1:
    """The TLS handshake is over."""
    cdef Connecting self = owner
    if self.core.flags & OVER:
        return 0
    if error is not None:
        self.stream = None
        try:
            from linux_event.cancellation import CancelledError
            if isinstance(error, CancelledError):
                le_operation_end(&self.owner.core, &self.core, -ECANCELED)
                return 0
            error.add_note(f"in the TLS handshake with {self.where!r}")
        except MemoryError:
            pass
        promise_fail(self, error)
        return 0
    le_operation_end(&self.owner.core, &self.core, 0)
    # Now, and not when it is its turn: what comes of the stream from here on is for its user.
    le_watcher_unpend(&self.owner.core, &self.core.head)
    return self.owner.call(&self.core.head)


cdef int drop_stream(Connecting self) except -1:
    """Nobody gets to see it."""
    stream, self.stream = self.stream, None
    if stream is not None:
        stream_end(stream, None)
    return 0


cdef int give_up(Connecting self, object error) except -1:
    drop_attempts(self)
    promise_fail(self, error)
    return 0


cdef object failure_of(Connecting self):
    """Of all failures the first that an address at the other end is to blame for, else the first; the others are its notes."""
    cdef list failures = self.failures
    if not failures:  # all were passed over
        return OSError(EAFNOSUPPORT, f"local_address {self.local_address!r} is of another family", self.where)
    chosen = failures[0][1]
    for _, error in failures:
        if error.errno in (ECONNREFUSED, ECONNRESET, ETIMEDOUT, EACCES, EPERM):
            chosen = error
            break
    if len(failures) > 1 or failures[0][0] != self.where:
        for address, error in failures:
            chosen.add_note(f"{address!r}: [Errno {error.errno}] {error.strerror}")
    return chosen


cdef object result_stream(Operation operation):
    cdef Connecting self = <Connecting>operation
    cdef Stream stream = self.stream
    if stream is None:
        stream = stream_new(self.owner, self.fd, 0)
        self.fd = -1
    self.stream = None
    return stream


cdef int dispose(Operation operation) except -1:
    close_fd(&(<Connecting>operation).fd)
    return drop_stream(<Connecting>operation)


cdef int abort(Operation operation) except -1:
    cdef Connecting self = <Connecting>operation
    lookup, self.lookup = self.lookup, None
    le_operation_end(&self.owner.core, &self.core, -ECANCELED)
    drop_attempts(self)
    drop_stream(self)
    if lookup is not None and self.owner.core.state == LE_LOOP_OPEN:  # a loop that is being closed cancels it by itself
        lookup.cancel()
    return 0


cdef int stop(void *operation) except -1:
    """The loop is being closed: a connection that nobody was told of has no loop to be a stream of."""
    cdef Connecting self = <Connecting>operation
    if self.core.flags & LE_OPERATION_ENDED and self.fd >= 0:
        self.core.flags |= LE_OPERATION_CANCELLED
    return operation_stop(operation)


# -- Dispatch ----------------------------------------------------------------------------------------------------------

cdef int set_timer(Connecting self) except -1:
    cdef int64_t at_ns = min(self.timeout_ns, self.next_ns)
    le_heap_remove(&self.owner.core.heap, &self.core.head)
    if at_ns != LE_NS_NEVER and le_heap_add(&self.owner.core.heap, &self.core.head, at_ns):
        raise MemoryError
    return 0


cdef int dispatch(void *operation) except -1:
    cdef Connecting self = <Connecting>operation
    cdef Stream stream
    if not self.core.flags & LE_OPERATION_ENDED:
        if le_clock_ns() >= self.timeout_ns:
            return operation_dispatch(operation)  # which ends it
        self.owner.core.callbacks -= 1
        return try_next(self)
    self.candidates = self.failures = self.local_address = self.context = None
    try:
        operation_dispatch(operation)
    finally:
        stream = self.outcome
        if stream is not None:
            # Where the callback has raised nobody will look after it.
            if self.core.flags & LE_OPERATION_RAISED:
                stream_end(stream, None)
            else:
                stream_begin(stream)
    return 0


# -- loop.connect_stream -----------------------------------------------------------------------------------------------

@cython.binding(True)
def _connect_stream(self, address, callback=None, *, tls=None, server_hostname=None, timeout=None, local_address=None,
                    on_success=None, on_error=None):
    """Connect to a server, and hand the connection over as a ``Stream``.

    :param address: ``(host, port)``, where the host is a name, a numeric address, or None: this host; the port is an int,
        0 .. 65535, or the name of a service, a str. Or the path of a Unix socket, a str, bytes or path object; a name in the
        abstract namespace begins with a NUL.
    :param callback: ``callback(stream, error)``, called once; one of the two is None. Assign the callbacks of the stream in it:
        the stream receives when it has returned. Where it raises, the stream is closed. Never called within this method.
    :param tls: an ``ssl.SSLContext``: the stream speaks TLS, and is handed over when the handshake is done. None: it does not.
    :param server_hostname: for ``tls``: the name, a str, for which the certificate has to be. None: the host of ``address``.
    :param timeout: seconds, int or float, 0 or more, for all of it: the name, every attempt, the handshake of TLS. It
        fails with TimeoutError then. None: when the kernel says; the handshake has 60 seconds.
    :param local_address: the address to connect from: ``(host, port)`` with a numeric host, "localhost", "" or None for any,
        and port 0 for one that is free; addresses of another family are not tried. For a Unix socket a path, whose file is
        yours to remove. None: the kernel chooses.
    :param on_success: ``on_success(stream)``, and
    :param on_error: ``on_error(error)``: the other form. A failure that nobody is told of goes to the loop's ``on_error``.
    :returns: the ``Operation``; its result is the stream. ``cancel`` ends all attempts.
    :raises ValueError: a number out of range, a NUL in a path or host, a host of ``local_address`` that is not numeric,
        ``server_hostname`` without ``tls``; or a chain is being made (``link``).
    :raises OSError: a path is too long (ENAMETOOLONG).
    :raises TypeError: an argument has a wrong type, or both forms of callbacks were given.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Names are asked for as by ``resolve``. Of several addresses, IPv6 and IPv4 in turn, the next one is tried when the one before
    has failed, or a quarter of a second later: the first to connect wins, the others are cancelled (RFC 8305). It fails with
    ``socket.gaierror`` where the name is not known, else with an OSError whose ``filename`` is ``address``. Of several failures
    that is the first with which the other end, or a filter on the way, has answered (ECONNREFUSED, ECONNRESET, ETIMEDOUT, EACCES,
    EPERM), or else the first of all; its ``__notes__`` tell of each address that was tried. Sockets of TCP have TCP_NODELAY.

    Stands on IORING_OP_CONNECT, socket(2), bind(2). See connect(2), ip(7), unix(7).
    """
    cdef Connecting op = Connecting.__new__(Connecting)
    cdef _Lookup lookup
    cdef sockaddr_storage storage
    cdef int64_t timeout_ns = -1
    # Not of a tuple with PathLike in it: Cython does not look whether that raises.
    cdef bint is_path = isinstance(address, (str, bytes)) or isinstance(address, os.PathLike)
    operation_begin(op, &connect_kind, self, callback, on_success, on_error, address)
    if tls is None and server_hostname is not None:
        raise ValueError(f"server_hostname is for tls alone, which is None: {server_hostname!r}")
    if timeout is not None:
        timeout_ns = seconds_to_ns(timeout, "timeout")
    if is_path:
        if not os.fspath(address):
            raise ValueError("address: the path is empty")
        address_to_sockaddr(address, AF_UNIX, &storage)
        op.candidates = [(AF_UNIX, address)]
    else:
        op.where = host_address(address, "address")
        op.candidates = numeric(op.where)
    op.local_address = local_argument(local_address, is_path)
    if tls is not None:
        if server_hostname is None and not is_path:
            server_hostname = op.where[0] if isinstance(op.where[0], str) or op.where[0] is None else os.fsdecode(op.where[0])
        tls_check(tls, False, server_hostname)
        op.context, op.server_hostname = tls, server_hostname
    op.running, op.failures = [], []
    if op.candidates is None:
        lookup = _Lookup.__new__(_Lookup)
        lookup.connecting = op
        op.lookup = self.resolve(op.where[0], op.where[1], lookup, type=SOCK_STREAM)
    promise_start(op, None)
    if timeout_ns >= 0:
        op.timeout_ns = le_clock_after(le_clock_ns(), timeout_ns)
    if op.lookup is None:
        try_next(op)
    else:
        try:
            set_timer(op)
        except MemoryError as error:
            promise_fail(op, error)
    loop_changed(self)
    return op


add_method("connect_stream", _connect_stream)
