"""Loop.resolve: from names to addresses. Numbers are answered here, by libc; net/resolver.py sees to names."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check
from cpython.object cimport PyCallable_Check
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport INT32_MAX, INT32_MIN
from linux_event.arguments cimport integer_within
from linux_event.engine cimport Engine
from linux_event.loop cimport add_method
from linux_event.operation cimport operation_begin, operation_kind
from linux_event.promise cimport Promise, promise_fail, promise_kind_begin, promise_settle, promise_start

cdef extern from "<netdb.h>":
    enum: AI_NUMERICHOST
    enum: AI_NUMERICSERV
    enum: AI_PASSIVE
    enum: EAI_NONAME
cdef extern from "<sys/socket.h>":
    enum: AF_INET
    enum: AF_UNSPEC
    enum: SOCK_DGRAM
    enum: SOCK_STREAM
cdef extern from "<arpa/inet.h>":
    int inet_pton(int family, const char *text, void *address)

cdef enum:
    PORT_MAX = 65535

cdef operation_kind resolve_kind
promise_kind_begin(&resolve_kind, "resolve")

# Imported with the first call: they bring the module socket along.
cdef object as_enums, of_all_types, of_ipv4, getaddrinfo, gaierror
cdef object Question = None


cdef int import_answers() except -1:
    global as_enums, of_all_types, of_ipv4, getaddrinfo, gaierror, Question
    from linux_event.net import answers
    as_enums, of_all_types, of_ipv4 = answers.as_enums, answers.of_all_types, answers.of_ipv4
    getaddrinfo, gaierror = answers.getaddrinfo, answers.gaierror
    Question = answers.Question
    return 0


cdef object driver_for(Engine loop, bytes name, int flags):
    if loop.resolver is None:
        from linux_event.net.resolver import Resolver
        loop.resolver = Resolver(loop)
    return loop.resolver.driver(name, flags)


cdef object host_argument(object host):
    """A str of ASCII alone as bytes, anything else as it is: libc's view of it comes later, by IDNA."""
    if host is None:
        return None
    if PyUnicode_Check(host):
        if "\0" in <str>host:
            raise ValueError(f"host must not have a NUL in it: {host!r}")
        return (<str>host).encode() if (<str>host).isascii() else host
    if not PyBytes_Check(host):
        raise TypeError(f"host must be a str, bytes or None, not {type(host).__name__} ({host!r})")
    if b"\0" in <bytes>host:
        raise ValueError(f"host must not have a NUL in it: {host!r}")
    return host


cdef object port_argument(object port):
    if port is None:
        return None
    if PyUnicode_Check(port):
        if not (<str>port).isascii():
            raise ValueError(f"port must be a number, or the name of a service in ASCII, not {port!r}")
        port = (<str>port).encode()
    if not PyBytes_Check(port):
        return integer_within(port, "port", 0, PORT_MAX)
    if b"\0" in <bytes>port:
        raise ValueError(f"port must not have a NUL in it: {port!r}")
    if (<bytes>port).isdigit():
        integer_within(int(port), "port", 0, PORT_MAX)
    return port


cdef object numeric(object host, object port, int family, int kind, int proto, int flags):
    """The addresses that need nobody to be asked, or None."""
    cdef bint is_plain = type(port) is int and kind == 0 and proto == 0 and flags & ~(AI_NUMERICHOST | AI_PASSIVE) == 0
    cdef char address[16]
    if proto == 0 and flags == 0 and type(port) is int and PyBytes_Check(host) and family in (AF_UNSPEC, AF_INET):
        # In this form it is what libc would say, too.
        if kind in (0, SOCK_STREAM, SOCK_DGRAM) and inet_pton(AF_INET, PyBytes_AS_STRING(host), address) == 1:
            return of_ipv4((<bytes>host).decode(), port, kind)
    try:
        if is_plain and host is not None:
            # One address of all types: libc would ask the kernel for its source once for each, to sort them.
            found = getaddrinfo(host, port, family, SOCK_STREAM, 0, flags | AI_NUMERICHOST)
            if len(found) == 1:
                return of_all_types(found[0])
        return as_enums(getaddrinfo(host, port, family, kind, proto, flags | AI_NUMERICHOST))
    except gaierror as error:
        if error.errno != EAI_NONAME or not host or flags & AI_NUMERICHOST or (b":" if PyBytes_Check(host) else ":") in host:
            raise
        if flags & AI_NUMERICSERV and type(port) is bytes and not port.isdigit():
            raise  # it is the port that is no number
    return None


@cython.binding(True)
def _resolve(self, host, port=0, callback=None, *, family=0, type=0, proto=0, flags=0, on_success=None, on_error=None,
             timeout=None):
    """Find the addresses of a host, as ``socket.getaddrinfo`` does, without blocking the loop.

    :param host: a str, bytes or None: a name, or an address in numbers. A str that is not ASCII goes by IDNA. None is this
        host: its loopback addresses, or with ``AI_PASSIVE`` those to listen on.
    :param port: an int, 0 .. 65535; the name of a service, a str or bytes such as "http"; or None, which is 0. It may be left
        out: ``loop.resolve(host, callback)``.
    :param callback: ``callback(result, error)``, called once; one of the two is None. Never called within this method.
    :param family: an int: ``socket.AF_INET`` or ``socket.AF_INET6``, for addresses of this family alone; 0: of both.
    :param type: an int: ``socket.SOCK_STREAM`` or another type of sockets; 0: an entry for each type.
    :param proto: an int, a protocol such as ``socket.IPPROTO_TCP``; 0: any.
    :param flags: an int, of ``socket.AI_CANONNAME``, ``socket.AI_PASSIVE`` and others.
    :param on_success: ``on_success(result)``, and
    :param on_error: ``on_error(error)``: the other form. A failure that nobody is told of goes to the loop's ``on_error``.
    :param timeout: seconds, int or float, 0 or more, after which the operation is ended and fails with TimeoutError; None: when
        the configuration of the resolver says.
    :returns: the ``Operation``; its result is a list of tuples (family, type, proto, canonname, address), best first. It fails
        with ``socket.gaierror``, an OSError: ``errno`` is one of ``socket.EAI_*``, ``filename`` the host.
    :raises ValueError: a NUL in ``host`` or ``port``, a number out of its range, a name that IDNA refuses (UnicodeError),
        ``timeout`` is negative, or a chain is being made (``link``).
    :raises TypeError: an argument has a wrong type, or both forms of callbacks were given.
    :raises LoopClosedError, WrongThreadError: as told by their names.

    Addresses in numbers, in all forms that libc knows, are answered at once: no thread, no query. Names are asked for by
    c-ares, whose sockets the loop watches, where the module ``pycares`` is installed (``pip install linux-event[dns]``), else
    by getaddrinfo in a few threads: names that no server answers leave room for others there. Both honour /etc/hosts,
    /etc/resolv.conf (servers, search domains, ndots, timeout, attempts) and changes of these. What only libc knows goes to the
    threads in any case: ``flags``, "localhost", and a configuration beyond files and DNS (nsswitch.conf, gai.conf). c-ares
    keeps answers for as long as they say. The environment variable LINUX_EVENT_RESOLVER, "cares" or "threads", decides
    otherwise.

    See getaddrinfo(3), resolv.conf(5), hosts(5).
    """
    cdef Promise op = Promise.__new__(Promise)
    cdef int family_value, kind, proto_value, flags_value
    if PyCallable_Check(port) and callback is None:
        callback, port = port, 0
    operation_begin(op, &resolve_kind, self, callback, on_success, on_error, host)
    if Question is None:
        import_answers()
    name = host_argument(host)
    port = port_argument(port)
    family_value = integer_within(family, "family", INT32_MIN, INT32_MAX)
    kind = integer_within(type, "type", INT32_MIN, INT32_MAX)
    proto_value = integer_within(proto, "proto", INT32_MIN, INT32_MAX)
    flags_value = integer_within(flags, "flags", INT32_MIN, INT32_MAX)
    found = failure = driver = None
    try:
        found = numeric(name, port, family_value, kind, proto_value, flags_value)
    except gaierror as error:
        failure = gaierror(*error.args) if host is None else gaierror(error.errno, error.strerror, host)
    if found is None and failure is None:
        name = host if PyBytes_Check(host) else host.encode("idna")
        driver = driver_for(self, name, flags_value)
    promise_start(op, timeout)
    if found is not None:
        promise_settle(op, found)
    elif failure is not None:
        promise_fail(op, failure)
    else:
        try:
            driver(op, Question(host, name, port, family_value, kind, proto_value, flags_value))
        except Exception as error:
            promise_fail(op, error)
    return op


add_method("resolve", _resolve)
