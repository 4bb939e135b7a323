# linux.pxd: what the package uses of the C library beyond what Cython declares.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from posix.types cimport pid_t

cdef extern from "<errno.h>" nogil:
    enum:
        ECANCELED

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN
        POLLOUT

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned count, int flags)
    ctypedef uint64_t eventfd_t
    int eventfd_read(int fd, eventfd_t *value)
    int eventfd_write(int fd, eventfd_t value)

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

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOCK_DGRAM
        SOL_SOCKET
        SO_TYPE
    ctypedef unsigned socklen_t
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)

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
