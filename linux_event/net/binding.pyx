"""Sockets with an address: listening ones, and those for datagrams. Made of an address, or taken as they are given."""

from libc.errno cimport EADDRINUSE, ECONNREFUSED, errno
from libc.stdint cimport INT32_MAX
from linux_event.address cimport address_from_sockaddr, address_to_sockaddr
from linux_event.arguments cimport fd_argument, integer_within
from linux_event.errors cimport check_errno
from linux_event.linux cimport (
    AF_INET, AF_INET6, AF_UNIX, IPPROTO_IPV6, IPPROTO_TCP, IPV6_V6ONLY, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM,
    SOL_SOCKET, SO_ACCEPTCONN, SO_BROADCAST, SO_REUSEADDR, SO_REUSEPORT, SO_TYPE, TCP_NODELAY, bind, close, connect, getpid,
    getsockname, getsockopt, listen, setsockopt, sockaddr, sockaddr_storage, socket, socklen_t,
)

import os
import stat


cdef class Binding:
    """A socket and where it is. Cannot be used from Python."""

    def __cinit__(self):
        self.fd = -1
        self.kind = SOCK_STREAM

    def __dealloc__(self):
        release(self)


cdef int release(Binding self) noexcept:
    if self.owns_fd and self.fd >= 0:
        close(self.fd)
    self.fd = -1
    return 0


cdef Binding binding_new(object address, object backlog, bint reuse_port):
    cdef Binding self = Binding.__new__(Binding)
    try:
        open_socket(self, address, backlog, reuse_port)
    except BaseException:
        binding_remove_path(self)
        raise
    return self


cdef int binding_remove_path(Binding self) except -1:
    if self.path is None or self.process != getpid():
        return 0
    try:
        status = os.lstat(self.path)
        if status.st_ino == self.path_inode and status.st_dev == self.path_device:
            os.unlink(self.path)
    except OSError:
        pass  # somebody else has removed it
    self.path = None
    return 0


cdef int option(int fd, int level, int name, int value, object address) except -1:
    if setsockopt(fd, level, name, &value, sizeof(value)) < 0:
        raise OSError(errno, os.strerror(errno), address)
    return 0


cdef int read_option(int fd, int name, object given) except -1:
    cdef int value = 0
    cdef socklen_t size = sizeof(value)
    if getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0:
        raise OSError(errno, os.strerror(errno), fd)
    return value


cdef int bind_address(Binding self, int family, object target, object address, bint reuse_port) except -1:
    """Make the socket of the listener and bind it; `target` is the address in the form of the family."""
    cdef sockaddr_storage storage
    cdef int length = address_to_sockaddr(target, family, &storage)
    make_socket(self, family, address)
    if family != AF_UNIX:
        option(self.fd, SOL_SOCKET, SO_REUSEADDR, 1, address)
        if reuse_port:
            option(self.fd, SOL_SOCKET, SO_REUSEPORT, 1, address)
        if family == AF_INET6:
            # "" and None are all addresses of both families, "::" those of one.
            option(self.fd, IPPROTO_IPV6, IPV6_V6ONLY, 1 if address[0] else 0, address)
    return bind_socket(self, target, &storage, length, address)


cdef int make_socket(Binding self, int family, object address) except -1:
    cdef int fd = socket(family, self.kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    if fd < 0:
        raise OSError(errno, os.strerror(errno), address)
    self.fd, self.owns_fd = fd, True
    return 0


cdef int bind_socket(Binding self, object target, sockaddr_storage *storage, int length, object address) except -1:
    if bind(self.fd, <sockaddr *>storage, length) == 0:
        return 0
    cdef int error = errno
    if error == EADDRINUSE and storage.ss_family == AF_UNIX and is_stale(self.kind, target, storage, length):
        os.unlink(target)
        if bind(self.fd, <sockaddr *>storage, length) == 0:
            return 0
        error = errno
    raise OSError(error, os.strerror(error), address)


cdef bint is_stale(int kind, object path, sockaddr_storage *storage, int length) except -1:
    """Whether the file is that of a socket which nobody has any more."""
    cdef int fd, result
    cdef bint is_socket = False
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except (OSError, ValueError):  # in the abstract namespace
        pass
    if not is_socket:
        return False
    fd = check_errno(socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))
    result = 0 if connect(fd, <sockaddr *>storage, length) == 0 else errno
    close(fd)
    return result == ECONNREFUSED


cdef int bind_host(Binding self, tuple address, bint reuse_port) except -1:
    host = address[0]
    if host is None or host == "" or host == b"":
        try:
            return bind_address(self, AF_INET6, ("::", *address[1:]), (None, *address[1:]), reuse_port)
        except OSError as error:
            if error.errno == EADDRINUSE:
                raise
        release(self)  # a machine without IPv6
        return bind_address(self, AF_INET, ("", *address[1:]), address, reuse_port)
    if not isinstance(host, (str, bytes)):
        raise TypeError(f"host of an address must be a str or None, not {type(host).__name__} ({host!r})")
    if host in ("localhost", b"localhost"):
        return bind_address(self, AF_INET, ("127.0.0.1", *address[1:]), address, reuse_port)
    try:
        return bind_address(self, AF_INET6 if (":" if isinstance(host, str) else b":") in host else AF_INET, address, address,
                            reuse_port)
    except ValueError as error:
        if "host of" in str(error):
            raise ValueError(f"host must be a numeric address, '' or 'localhost', not {host!r}: resolve it first, with "
                             "loop.resolve()") from None
        raise


cdef int bind_path(Binding self, object path) except -1:
    cdef bytes name = path if type(path) is bytes else os.fsencode(path)
    if not name:
        raise ValueError("address: the path is empty")
    bind_address(self, AF_UNIX, name, path, False)
    return keep_path(self, name)


cdef int keep_path(Binding self, bytes name) except -1:
    """Of a socket that was bound to a path: its file is to be removed at the end."""
    if not name or name[0] == 0:
        return 0
    status = os.lstat(name)
    self.path = os.path.abspath(name)
    self.path_inode, self.path_device = status.st_ino, status.st_dev
    self.process = getpid()
    return 0


cdef int take_socket(Binding self, object sock) except -1:
    cdef int fd = fd_argument(sock)
    if read_option(fd, SO_TYPE, sock) != SOCK_STREAM:
        raise ValueError(f"address: {sock!r} is no stream socket")
    if not read_option(fd, SO_ACCEPTCONN, sock):
        raise ValueError(f"address: {sock!r} does not listen")
    self.fd = fd
    self.kept = sock
    return 0


cdef int open_socket(Binding self, object address, object backlog, bint reuse_port) except -1:
    cdef sockaddr_storage storage
    cdef socklen_t length = sizeof(storage)
    cdef int count = <int>integer_within(backlog, "backlog", 0, INT32_MAX)
    cdef bint is_host = isinstance(address, (tuple, list))
    if reuse_port and not is_host:
        raise ValueError("reuse_port is for addresses of the form (host, port)")
    if is_host:
        if not 2 <= len(address) <= 4:
            raise TypeError(f"address must be (host, port), a path or a listening socket, not {address!r}")
        bind_host(self, tuple(address), reuse_port)
    elif isinstance(address, (str, bytes)) or isinstance(address, os.PathLike):  # which may raise, short of memory
        bind_path(self, address)
    else:
        take_socket(self, address)
    if self.kept is None and listen(self.fd, count) < 0:
        raise OSError(errno, os.strerror(errno), address)
    check_errno(getsockname(self.fd, <sockaddr *>&storage, &length))
    self.local = address_from_sockaddr(&storage, length)
    if storage.ss_family in (AF_INET, AF_INET6):
        option(self.fd, IPPROTO_TCP, TCP_NODELAY, 1, address)  # what it accepts inherits that
    return 0


# -- Datagrams ---------------------------------------------------------------------------------------------------------

cdef Binding binding_of_datagrams(object local, object remote, bint reuse_port, bint broadcast):
    cdef Binding self = Binding.__new__(Binding)
    self.kind = SOCK_DGRAM
    if isinstance(local, os.PathLike):
        local = os.fspath(local)
    if isinstance(remote, os.PathLike):
        remote = os.fspath(remote)
    try:
        open_datagram_socket(self, local, remote, reuse_port, broadcast)
    except BaseException:
        binding_remove_path(self)
        raise
    return self


cdef int open_datagram_socket(Binding self, object local, object remote, bint reuse_port, bint broadcast) except -1:
    cdef sockaddr_storage storage
    cdef socklen_t length = sizeof(storage)
    cdef int family = 0, remote_family = family_of(remote, "remote_address")
    cdef bint is_given = not (local is None or isinstance(local, (tuple, list, str, bytes)))
    if is_given and (remote is not None or reuse_port):
        raise ValueError(f"local_address: remote_address and reuse_port are not for a socket that is given ({local!r})")
    if is_given:
        take_datagram_socket(self, local)
    else:
        family = family_of(local, "local_address") or remote_family or AF_INET
        if remote_family and remote_family != family:
            raise ValueError(f"local_address {local!r} and remote_address {remote!r} are of different families")
        if family == AF_UNIX and (reuse_port or broadcast):
            raise ValueError("reuse_port and broadcast are for addresses of the form (host, port)")
        bind_datagram_socket(self, family, local, remote, reuse_port)
    if broadcast:
        option(self.fd, SOL_SOCKET, SO_BROADCAST, 1, local)
    if remote is not None:
        connect_datagram_socket(self, family, remote)
    check_errno(getsockname(self.fd, <sockaddr *>&storage, &length))
    self.family = storage.ss_family
    self.local = address_from_sockaddr(&storage, length)
    return 0


cdef int take_datagram_socket(Binding self, object sock) except -1:
    self.fd = fd_argument(sock)
    self.kept = sock
    if read_option(self.fd, SO_TYPE, sock) != SOCK_DGRAM:
        raise ValueError(f"local_address: {sock!r} is no datagram socket")
    return 0


cdef int family_of(object address, str name) except -1:
    """Of an address that the user has written. 0: that of the other one."""
    if isinstance(address, (str, bytes)):
        return AF_UNIX
    if not isinstance(address, (tuple, list)):
        if address is None or name == "local_address":
            return 0
        raise TypeError(f"{name} must be (host, port), a path or None, not {type(address).__name__} ({address!r})")
    if not 2 <= len(address) <= 4:
        raise TypeError(f"{name} must be (host, port) or a path, not {address!r}")
    host = address[0]
    if host is None or host == "" or host == b"":
        return AF_INET6 if len(address) > 2 else 0
    if not isinstance(host, (str, bytes)):
        raise TypeError(f"host of {name} must be a str or None, not {type(host).__name__} ({host!r})")
    if host in ("localhost", b"localhost"):
        return 0
    return AF_INET6 if (":" if isinstance(host, str) else b":") in host else AF_INET


cdef object numeric(object address, int family):
    """The address in the form of the family."""
    if family == AF_UNIX:
        return address
    host = address[0]
    if host is None:
        host = ""
    elif host in ("localhost", b"localhost"):
        host = "127.0.0.1" if family == AF_INET else "::1"
    return (host, *address[1:])


cdef int fill(object address, int family, sockaddr_storage *storage) except -1:
    try:
        return address_to_sockaddr(numeric(address, family), family, storage)
    except ValueError as error:
        if "host of" in str(error):
            raise ValueError(f"host must be a numeric address, '' or 'localhost', not {address[0]!r}: resolve it first, with "
                             "loop.resolve()") from None
        raise


cdef int bind_datagram_socket(Binding self, int family, object local, object remote, bint reuse_port) except -1:
    cdef sockaddr_storage storage
    cdef int length = 0
    if local is None and remote is None:
        local = "", 0
    if local is not None:
        length = fill(local, family, &storage)
    make_socket(self, family, local)
    if local is None:
        return 0
    if reuse_port:
        option(self.fd, SOL_SOCKET, SO_REUSEPORT, 1, local)
    if family == AF_INET6:
        option(self.fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, local)
    target = numeric(local, family)
    bind_socket(self, target, &storage, length, local)
    return keep_path(self, os.fsencode(target)) if family == AF_UNIX else 0


cdef int connect_datagram_socket(Binding self, int family, object remote) except -1:
    cdef sockaddr_storage storage
    cdef int length = fill(remote, family, &storage)
    if connect(self.fd, <sockaddr *>&storage, length) < 0:
        raise OSError(errno, os.strerror(errno), remote)
    return 0
