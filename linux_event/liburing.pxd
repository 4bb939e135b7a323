# liburing.pxd: what the package uses of liburing and of the kernel's header for io_uring.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from linux_event.linux cimport msghdr, sockaddr, socklen_t

cdef extern from "le_compat.h" nogil:
    struct io_uring_sqe:
        uint8_t opcode
        uint8_t flags
        uint16_t ioprio
        int32_t fd
        uint64_t off
        uint64_t addr
        uint32_t len
        uint32_t rw_flags
        uint32_t msg_flags
        uint64_t user_data
        uint16_t buf_index
        int32_t splice_fd_in
        uint32_t file_index
        uint64_t addr3

    struct io_uring_params:
        uint32_t flags
        uint32_t cq_entries
        uint32_t features

    struct io_uring_sq:
        unsigned ring_entries

    struct io_uring:
        io_uring_sq sq
        int ring_fd
        int enter_ring_fd
        uint32_t features

    struct io_uring_probe:
        uint8_t last_op

    enum:
        IORING_OP_ASYNC_CANCEL
        IORING_SETUP_SQPOLL
        IORING_SETUP_CQSIZE
        IORING_SETUP_R_DISABLED
        IORING_SETUP_SUBMIT_ALL
        IORING_SETUP_TASKRUN_FLAG
        IORING_SETUP_SINGLE_ISSUER
        IORING_SETUP_DEFER_TASKRUN
        IORING_SQ_CQ_OVERFLOW
        IORING_SQ_NEED_WAKEUP
        IORING_ENTER_GETEVENTS
        IORING_ENTER_SQ_WAKEUP
        IORING_ENTER_SQ_WAIT
        IORING_ENTER_EXT_ARG
        IORING_ENTER_NO_IOWAIT
        IORING_FEAT_NO_IOWAIT
        IOSQE_FIXED_FILE
        IOSQE_IO_HARDLINK
        IOSQE_IO_LINK
        IOSQE_CQE_SKIP_SUCCESS
        IORING_FSYNC_DATASYNC
        IORING_REGISTER_PBUF_RING
        IORING_UNREGISTER_PBUF_RING
        IORING_REGISTER_FILES2
        IORING_RSRC_REGISTER_SPARSE
        IORING_OP_SEND
        IORING_OP_SEND_ZC
        IORING_CQE_F_MORE
        IORING_CQE_F_NOTIF
        LE_REGISTER_ENABLE_RINGS

    struct io_uring_rsrc_register:
        uint32_t nr
        uint32_t flags

    struct io_uring_getevents_arg:
        uint64_t sigmask
        uint32_t sigmask_sz
        uint64_t ts

    struct io_uring_buf_reg:
        uint64_t ring_addr
        uint32_t ring_entries
        uint16_t bgid

    struct __kernel_timespec:
        long long tv_sec
        long long tv_nsec

    int io_uring_queue_init_params(unsigned entries, io_uring *ring, io_uring_params *params)
    void io_uring_queue_exit(io_uring *ring)
    int io_uring_register_eventfd(io_uring *ring, int fd)
    int io_uring_unregister_eventfd(io_uring *ring)
    int io_uring_ring_dontfork(io_uring *ring)
    io_uring_probe *io_uring_get_probe_ring(io_uring *ring)
    void io_uring_free_probe(io_uring_probe *probe)
    int io_uring_opcode_supported(const io_uring_probe *probe, int op)
    void io_uring_prep_poll_multishot(io_uring_sqe *sqe, int fd, unsigned mask)
    void io_uring_prep_poll_add(io_uring_sqe *sqe, int fd, unsigned mask)
    void io_uring_prep_timeout(io_uring_sqe *sqe, __kernel_timespec *ts, unsigned count, unsigned flags)
    void io_uring_prep_openat(io_uring_sqe *sqe, int dfd, const char *path, int flags, unsigned mode)
    void io_uring_prep_close(io_uring_sqe *sqe, int fd)
    void io_uring_prep_read(io_uring_sqe *sqe, int fd, void *buffer, unsigned count, uint64_t offset)
    void io_uring_prep_write(io_uring_sqe *sqe, int fd, const void *buffer, unsigned count, uint64_t offset)
    void io_uring_prep_fsync(io_uring_sqe *sqe, int fd, unsigned flags)
    void io_uring_prep_fallocate(io_uring_sqe *sqe, int fd, int mode, int64_t offset, int64_t length)
    void io_uring_prep_nop(io_uring_sqe *sqe)
    void io_uring_prep_statx(io_uring_sqe *sqe, int dfd, const char *path, int flags, unsigned mask, void *buffer)
    void io_uring_prep_renameat(io_uring_sqe *sqe, int olddfd, const char *oldpath, int newdfd, const char *newpath,
                                unsigned flags)
    void io_uring_prep_unlinkat(io_uring_sqe *sqe, int dfd, const char *path, int flags)
    void io_uring_prep_mkdirat(io_uring_sqe *sqe, int dfd, const char *path, unsigned mode)
    void io_uring_prep_linkat(io_uring_sqe *sqe, int olddfd, const char *oldpath, int newdfd, const char *newpath, int flags)
    void io_uring_prep_symlinkat(io_uring_sqe *sqe, const char *target, int newdirfd, const char *linkpath)
    void io_uring_prep_splice(io_uring_sqe *sqe, int fd_in, int64_t offset_in, int fd_out, int64_t offset_out, unsigned count,
                              unsigned flags)
    void le_prep_ftruncate(io_uring_sqe *sqe, int fd, int64_t length)
    void io_uring_prep_accept(io_uring_sqe *sqe, int fd, sockaddr *address, socklen_t *length, int flags)
    void io_uring_prep_connect(io_uring_sqe *sqe, int fd, const sockaddr *address, socklen_t length)
    void io_uring_prep_recv(io_uring_sqe *sqe, int fd, void *buffer, size_t size, int flags)
    void io_uring_prep_send(io_uring_sqe *sqe, int fd, const void *buffer, size_t size, int flags)
    void io_uring_prep_send_zc(io_uring_sqe *sqe, int fd, const void *buffer, size_t size, int flags, unsigned zc_flags)
    void io_uring_prep_recvmsg(io_uring_sqe *sqe, int fd, msghdr *message, unsigned flags)
    void io_uring_prep_sendmsg(io_uring_sqe *sqe, int fd, const msghdr *message, unsigned flags)
    void io_uring_prep_shutdown(io_uring_sqe *sqe, int fd, int how)
