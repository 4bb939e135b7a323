"""Socket addresses: from what Python programs write, as for the module socket, to what the kernel reads, and back.

Nothing here asks anybody for the address of a name: that takes time, and is the business of the loop's resolver.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_FromString
from libc.errno cimport errno
from libc.stdint cimport UINT32_MAX, uint16_t, uint32_t
from libc.string cimport memcpy, memset, strchr
from linux_event.arguments cimport integer_within
from linux_event.linux cimport (
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, AF_VSOCK, ENAMETOOLONG, INADDR_BROADCAST, INET6_ADDRSTRLEN, SOCK_STREAM,
    SOL_SOCKET, SO_DOMAIN, SO_TYPE, getsockopt, htonl, htons, if_nametoindex, inet_ntop, inet_pton, ntohl, ntohs,
    sockaddr_in, sockaddr_in6, sockaddr_nl, sockaddr_storage, sockaddr_un, sockaddr_vm, socklen_t,
)

import os

cdef extern from *:
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)

cdef enum:
    PATH_OFFSET = 2  # of sun_path in sockaddr_un: behind the family
    FLOW_MAX = 0xfffff


def pack(address, family):
    """Make the bytes of a sockaddr.

    :param address: as for the methods of ``socket.socket``, with a numeric host:

        - AF_INET: ``(host, port)``; the host ``""`` is any address, ``"<broadcast>"`` that of broadcasts.
        - AF_INET6: ``(host, port)``, ``(host, port, flowinfo)`` or ``(host, port, flowinfo, scope_id)``. A scope may be part
          of the host too, by number or name of the interface: ``"fe80::1%eth0"``.
        - AF_UNIX: a path, as a str, bytes or path object; a name in the abstract namespace, which begins with a NUL.
        - AF_NETLINK: ``(pid, groups)``. AF_VSOCK: ``(cid, port)``.
        - Of other families the bytes of the sockaddr itself.
    :param family: an int, ``socket.AF_INET`` and so on.
    :returns: bytes, as connect(2) and sendto(2) take them.
    :raises TypeError: the address is not of the form that the family has.
    :raises ValueError: the host is not numeric (resolve it first), a number out of range, a NUL in a path.
    :raises OSError: a path is too long (ENAMETOOLONG), or there is no such interface.

    See ip(7), ipv6(7), unix(7), netlink(7), vsock(7).
    """
    cdef sockaddr_storage storage
    cdef int length = address_to_sockaddr(address, integer_within(family, "family", 0, 0xffff), &storage)
    return PyBytes_FromStringAndSize(<char *>&storage, length)


def unpack(data):
    """Tell what the bytes of a sockaddr mean: the reverse of ``pack``.

    :param data: bytes or another contiguous buffer, at most 128 bytes.
    :returns: the address as methods of ``socket.socket`` give it: ``(host, port)``, ``(host, port, flowinfo, scope_id)``, a
        path as a str, a name in the abstract namespace as bytes, ``(pid, groups)``, ``(cid, port)``; None of no bytes. Of other
        families the bytes themselves.
    :raises ValueError: there are too many bytes, or fewer than the family has.

    See ip(7), ipv6(7), unix(7), netlink(7), vsock(7).
    """
    cdef sockaddr_storage storage
    cdef int length = fill_raw(data, -1, &storage)
    return address_from_sockaddr(&storage, length)


# -- Sockets -----------------------------------------------------------------------------------------------------------

# socket.socket, and what its C base knows of itself without a system call. Found when they are needed first, because the
# import of the module socket takes longer than that of this package.
cdef object socket_class = None
cdef object socket_base = None
cdef object base_family, base_type, base_proto


cdef bint is_socket_object(object sock) except -1:
    global socket_class, socket_base, base_family, base_type, base_proto
    if socket_class is None:
        import socket
        socket_base = socket.SocketType
        base_family, base_type, base_proto = socket_base.family.__get__, socket_base.type.__get__, socket_base.proto.__get__
        socket_class = socket.socket
    return isinstance(sock, socket_base)


cdef int socket_option(int fd, int name) except -1:
    cdef int value = 0
    cdef socklen_t size = sizeof(value)
    if getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0:
        raise OSError(errno, os.strerror(errno), fd)
    return value


cdef int socket_family(object sock, int fd) except -1:
    if type(sock) is not int and is_socket_object(sock):
        return base_family(sock)
    return socket_option(fd, SO_DOMAIN)


cdef bint socket_is_unix_packet(object sock, int fd) except -1:
    if type(sock) is not int and is_socket_object(sock):
        return base_family(sock) == AF_UNIX and base_type(sock) != SOCK_STREAM
    return socket_option(fd, SO_DOMAIN) == AF_UNIX and socket_option(fd, SO_TYPE) != SOCK_STREAM


cdef object socket_of_fd(int fd, object listening):
    cdef bint is_listening_known = is_socket_object(listening)
    sock = socket_class.__new__(socket_class)
    try:
        if is_listening_known:
            sock.__init__(base_family(listening), base_type(listening), base_proto(listening), fd)
        else:
            sock.__init__(-1, -1, -1, fd)
    except BaseException:  # Ctrl-C, when it may have the fd already
        sock.detach()
        raise
    return sock


# -- To the kernel -----------------------------------------------------------------------------------------------------

cdef int address_to_sockaddr(object address, int family, sockaddr_storage *storage) except -1:
    memset(storage, 0, sizeof(storage[0]))
    storage.ss_family = family
    if family == AF_INET:
        return fill_inet(address, <sockaddr_in *>storage)
    if family == AF_INET6:
        return fill_inet6(address, <sockaddr_in6 *>storage)
    if family == AF_UNIX:
        return fill_unix(address, <sockaddr_un *>storage)
    if family == AF_NETLINK:
        return fill_netlink(address, <sockaddr_nl *>storage)
    if family == AF_VSOCK:
        return fill_vsock(address, <sockaddr_vm *>storage)
    return fill_raw(address, family, storage)


cdef int tuple_guard(object address, str family, str form, Py_ssize_t least, Py_ssize_t most) except -1:
    if not isinstance(address, tuple) or not least <= len(<tuple>address) <= most:
        raise TypeError(f"address of an {family} socket must be a tuple {form}, not {address!r}")
    return 0


cdef bytes host_bytes(object host):
    """The host as ASCII without a NUL; what is not that cannot be numeric, and is told so."""
    if isinstance(host, bytes):
        encoded = <bytes>host
    elif isinstance(host, str):
        encoded = (<str>host).encode("ascii", "replace")
    else:
        raise TypeError(f"host of an address must be a str, not {type(host).__name__} ({host!r})")
    return b"?" if b"\0" in encoded else encoded


cdef int raise_host(object host, str family) except -1:
    raise ValueError(f"host of an address of an {family} socket must be a numeric address of that family, not {host!r}: "
                     "resolve a name first")


cdef int fill_inet(object address, sockaddr_in *to) except -1:
    tuple_guard(address, "AF_INET", "(host, port)", 2, 2)
    cdef bytes host = host_bytes(address[0])
    to.sin_port = htons(<uint16_t>integer_within(address[1], "port", 0, 65535))
    if host == b"<broadcast>":
        to.sin_addr.s_addr = INADDR_BROADCAST
    elif host and inet_pton(AF_INET, PyBytes_AS_STRING(host), &to.sin_addr) != 1:
        raise_host(address[0], "AF_INET")
    return sizeof(to[0])


cdef int fill_inet6(object address, sockaddr_in6 *to) except -1:
    tuple_guard(address, "AF_INET6", "(host, port, flowinfo=0, scope_id=0)", 2, 4)
    cdef bytes host = host_bytes(address[0])
    cdef Py_ssize_t count = len(<tuple>address)
    cdef char *scope = strchr(PyBytes_AS_STRING(host), b"%")
    to.sin6_port = htons(<uint16_t>integer_within(address[1], "port", 0, 65535))
    if count > 2:
        to.sin6_flowinfo = htonl(<uint32_t>integer_within(address[2], "flowinfo", 0, FLOW_MAX))
    if count > 3:
        to.sin6_scope_id = <uint32_t>integer_within(address[3], "scope_id", 0, UINT32_MAX)
    if scope != NULL:
        host, name = host.split(b"%", 1)
        if not to.sin6_scope_id:  # as with getaddrinfo() and connect() the number given apart counts more
            to.sin6_scope_id = scope_number(name, address[0])
    if host and inet_pton(AF_INET6, PyBytes_AS_STRING(host), &to.sin6_addr) != 1:
        raise_host(address[0], "AF_INET6")
    return sizeof(to[0])


cdef uint32_t scope_number(bytes name, object host) except? 0:
    if name.isdigit():
        return <uint32_t>integer_within(int(name), "scope in the host", 0, UINT32_MAX)
    cdef uint32_t number = if_nametoindex(PyBytes_AS_STRING(name))
    if not number:
        raise OSError(errno, os.strerror(errno), host)
    return number


cdef int fill_unix(object address, sockaddr_un *to) except -1:
    cdef bytes path
    try:
        path = address if type(address) is bytes else os.fsencode(address)
    except TypeError:
        raise TypeError("address of an AF_UNIX socket must be a str, bytes or path object, "
                        f"not {type(address).__name__} ({address!r})") from None
    cdef Py_ssize_t size = PyBytes_GET_SIZE(path)
    cdef bint is_abstract = size == 0 or PyBytes_AS_STRING(path)[0] == 0
    if not is_abstract and b"\0" in path:
        raise ValueError(f"address: embedded NUL in the path {address!r}")
    # A path ends with a NUL, and the kernel counts it; a name in the abstract namespace ends where its length says.
    if size + (not is_abstract) > <Py_ssize_t>sizeof(to.sun_path):
        raise OSError(ENAMETOOLONG, os.strerror(ENAMETOOLONG), address)
    memcpy(to.sun_path, PyBytes_AS_STRING(path), size)
    return <int>(PATH_OFFSET + size + (not is_abstract))


cdef int fill_netlink(object address, sockaddr_nl *to) except -1:
    tuple_guard(address, "AF_NETLINK", "(pid, groups)", 2, 2)
    to.nl_pid = <uint32_t>integer_within(address[0], "pid", 0, UINT32_MAX)
    to.nl_groups = <uint32_t>integer_within(address[1], "groups", 0, UINT32_MAX)
    return sizeof(to[0])


cdef int fill_vsock(object address, sockaddr_vm *to) except -1:
    tuple_guard(address, "AF_VSOCK", "(cid, port)", 2, 2)
    to.svm_cid = <uint32_t>integer_within(address[0], "cid", 0, UINT32_MAX)
    to.svm_port = <uint32_t>integer_within(address[1], "port", 0, UINT32_MAX)
    return sizeof(to[0])


cdef int fill_raw(object address, int family, sockaddr_storage *storage) except -1:
    """Take the bytes of a sockaddr as they are; a family of -1 is whatever they say."""
    cdef Py_buffer view
    cdef Py_ssize_t size
    if isinstance(address, (str, tuple)):
        raise TypeError(f"address of a socket of family {family} must be the bytes of its sockaddr, not {address!r}")
    PyObject_GetBuffer(address, &view, PyBUF_SIMPLE)
    try:
        size = view.len
        if size > <Py_ssize_t>sizeof(storage[0]):
            raise ValueError(f"address: a sockaddr has at most {sizeof(storage[0])} bytes, not {size}")
        memset(storage, 0, sizeof(storage[0]))
        memcpy(storage, view.buf, size)
    finally:
        PyBuffer_Release(&view)
    if family >= 0 and (size < 2 or storage.ss_family != family):
        raise ValueError(f"address: the bytes of a sockaddr of family {family} begin with that number, not as {address!r}")
    return <int>size


# -- From the kernel ---------------------------------------------------------------------------------------------------

cdef object address_from_sockaddr(const sockaddr_storage *storage, unsigned length):
    cdef const sockaddr_un *unix = <const sockaddr_un *>storage
    cdef const sockaddr_in *inet = <const sockaddr_in *>storage
    cdef const sockaddr_in6 *inet6 = <const sockaddr_in6 *>storage
    cdef const sockaddr_nl *netlink = <const sockaddr_nl *>storage
    cdef const sockaddr_vm *vsock = <const sockaddr_vm *>storage
    cdef int family = storage.ss_family
    cdef char text[INET6_ADDRSTRLEN]
    if not length:
        return None  # of a connection: who has sent is known
    length = min(length, <unsigned>sizeof(storage[0]))  # the kernel tells the full length of what it has cut
    if family == AF_INET and length >= sizeof(inet[0]):
        inet_ntop(AF_INET, &inet.sin_addr, text, sizeof(text))
        return PyUnicode_FromString(text), ntohs(inet.sin_port)
    if family == AF_INET6 and length >= sizeof(inet6[0]):
        inet_ntop(AF_INET6, &inet6.sin6_addr, text, sizeof(text))
        return PyUnicode_FromString(text), ntohs(inet6.sin6_port), ntohl(inet6.sin6_flowinfo), inet6.sin6_scope_id
    if family == AF_UNIX and length >= PATH_OFFSET:
        return path_from_sockaddr(unix, length - PATH_OFFSET)
    if family == AF_NETLINK and length >= sizeof(netlink[0]):
        return netlink.nl_pid, netlink.nl_groups
    if family == AF_VSOCK and length >= sizeof(vsock[0]):
        return vsock.svm_cid, vsock.svm_port
    if family in (AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, AF_VSOCK):
        raise ValueError(f"a sockaddr of family {family} has more than {length} bytes")
    return PyBytes_FromStringAndSize(<const char *>storage, length)


cdef object path_from_sockaddr(const sockaddr_un *unix, unsigned size):
    cdef unsigned end = 0
    if size and unix.sun_path[0] == 0:
        return PyBytes_FromStringAndSize(unix.sun_path, size)
    # The path may fill its room without a NUL.
    size = min(size, <unsigned>sizeof(unix.sun_path))
    while end < size and unix.sun_path[end]:
        end += 1
    return PyUnicode_DecodeFSDefaultAndSize(unix.sun_path, end)
