# linux.pxd: what the package uses of the C library beyond what Cython declares.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from posix.types cimport pid_t

cdef extern from "<errno.h>" nogil:
    enum:
        ECANCELED
        EMSGSIZE
        ENAMETOOLONG
        ENOBUFS
        ENOTSOCK
        EOPNOTSUPP

cdef extern from "<poll.h>" nogil:
    enum:
        POLLHUP
        POLLIN
        POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout_ms)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned count, int flags)
    ctypedef uint64_t eventfd_t
    int eventfd_read(int fd, eventfd_t *value)
    int eventfd_write(int fd, eventfd_t value)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6
        AF_NETLINK
        AF_UNIX
        AF_VSOCK
        IOV_MAX "1024"  # UIO_MAXIOV of the kernel: <limits.h> has it only where some macros are defined
        MSG_CMSG_CLOEXEC
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_PEEK
        MSG_WAITALL
        MSG_ZEROCOPY
        SCM_RIGHTS
        SHUT_RD
        SHUT_RDWR
        SHUT_WR
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOCK_STREAM
        SOCK_DGRAM
        SOL_SOCKET
        SO_ACCEPTCONN
        SO_BROADCAST
        SO_DOMAIN
        SO_PROTOCOL
        SO_REUSEADDR
        SO_REUSEPORT
        SO_TYPE
        SOMAXCONN
    ctypedef unsigned socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *header)
    unsigned char *CMSG_DATA(cmsghdr *header)
    size_t CMSG_SPACE(size_t size)
    size_t CMSG_LEN(size_t size)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    int socket(int family, int type, int protocol)
    int bind(int fd, const sockaddr *address, socklen_t length)
    int connect(int fd, const sockaddr *address, socklen_t length)
    int listen(int fd, int backlog)
    int getsockname(int fd, sockaddr *address, socklen_t *length)
    int getpeername(int fd, sockaddr *address, socklen_t *length)
    int shutdown(int fd, int how)
    Py_ssize_t recv(int fd, void *buffer, size_t size, int flags)

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_IP
        IPPROTO_IPV6
        IPPROTO_TCP
        IPV6_V6ONLY

cdef extern from "<arpa/inet.h>" nogil:
    enum:
        INET6_ADDRSTRLEN
        INADDR_BROADCAST
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)
    uint32_t htonl(uint32_t value)
    uint32_t ntohl(uint32_t value)
    int inet_pton(int family, const char *text, void *address)
    const char *inet_ntop(int family, const void *address, char *text, socklen_t size)

cdef extern from "<net/if.h>" nogil:
    unsigned if_nametoindex(const char *name)

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        char sun_path[108]

cdef extern from "<linux/netlink.h>" nogil:
    struct sockaddr_nl:
        uint32_t nl_pid
        uint32_t nl_groups

cdef extern from "<linux/vm_sockets.h>" nogil:
    struct sockaddr_vm:
        unsigned svm_cid
        unsigned svm_port

cdef extern from "<sys/stat.h>" nogil:
    struct stat:
        unsigned st_mode
        unsigned long st_dev
        unsigned long st_ino
        int64_t st_size
    int fstat(int fd, stat *buffer)
    bint S_ISBLK(unsigned mode)
    bint S_ISCHR(unsigned mode)
    bint S_ISREG(unsigned mode)
    bint S_ISDIR(unsigned mode)
    bint S_ISFIFO(unsigned mode)
    bint S_ISSOCK(unsigned mode)
    struct statx_timestamp:
        int64_t tv_sec
        uint32_t tv_nsec
    struct statx:
        uint32_t stx_mask
        uint32_t stx_blksize
        uint32_t stx_nlink
        uint32_t stx_uid
        uint32_t stx_gid
        uint16_t stx_mode
        uint64_t stx_ino
        uint64_t stx_size
        uint64_t stx_blocks
        statx_timestamp stx_atime
        statx_timestamp stx_ctime
        statx_timestamp stx_mtime
        uint32_t stx_rdev_major
        uint32_t stx_rdev_minor
        uint32_t stx_dev_major
        uint32_t stx_dev_minor
    enum:
        STATX_BASIC_STATS

cdef extern from "<sys/sysmacros.h>" nogil:
    uint64_t makedev(unsigned major, unsigned minor)

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_gettid
        SYS_io_uring_register
        SYS_io_uring_enter

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)
    pid_t getpid()
    int close(int fd)
    int ftruncate(int fd, int64_t length)
    int truncate(const char *path, int64_t length)
    int pipe2(int *fds, int flags)
    Py_ssize_t read(int fd, void *buffer, size_t size)
    Py_ssize_t write(int fd, const void *buffer, size_t size)

cdef extern from "<fcntl.h>" nogil:
    enum:
        AT_EMPTY_PATH
        AT_FDCWD
        AT_NO_AUTOMOUNT
        AT_REMOVEDIR
        AT_SYMLINK_FOLLOW
        AT_SYMLINK_NOFOLLOW
        F_GETFD
        F_GETFL
        F_SETPIPE_SZ
        O_APPEND
        O_CLOEXEC
        O_CREAT
        O_EXCL
        O_NOCTTY
        O_NONBLOCK
        O_RDONLY
        O_TRUNC
        O_WRONLY
    int fcntl(int fd, int command, ...)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *request, timespec *remaining)

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
    struct epoll_event:
        unsigned events
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
