# linux.pxd: what the package uses of the C library beyond what Cython declares.

from libc.stdint cimport uint64_t
from posix.types cimport pid_t

cdef extern from "<errno.h>" nogil:
    enum:
        ECANCELED

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN

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
    int fstat(int fd, stat *buffer)
    bint S_ISBLK(unsigned mode)
    bint S_ISCHR(unsigned mode)
    bint S_ISREG(unsigned mode)
    bint S_ISDIR(unsigned mode)

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
    int pipe2(int *fds, int flags)
    Py_ssize_t read(int fd, void *buffer, size_t size)
    Py_ssize_t write(int fd, const void *buffer, size_t size)

cdef extern from "<fcntl.h>" nogil:
    enum:
        AT_FDCWD
        F_GETFD
        O_APPEND
        O_CLOEXEC
        O_CREAT
        O_EXCL
        O_NOCTTY
        O_NONBLOCK
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
