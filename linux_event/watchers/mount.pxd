# mount.pxd: watchers of mounts.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from linux_event.core cimport le_link, le_loop, le_op, le_op_class, le_op_verdict, le_reader
from linux_event.liburing cimport io_uring_sqe
from linux_event.watcher cimport Watcher

cdef extern from "le_mount.h" nogil:
    enum:
        FAN_ACCESS
        FAN_CLOSE_NOWRITE
        FAN_CLOSE_WRITE
        FAN_MODIFY
        FAN_OPEN
        FAN_OPEN_EXEC
        FAN_Q_OVERFLOW
        FAN_REPORT_FD_ERROR
        LE_MOUNT_PATH_MAX
    struct fanotify_event_metadata:
        uint64_t mask
        int32_t fd
        int32_t pid
    struct le_mount:
        le_reader reader
        le_link link
        uint32_t skips_own
    le_mount *LE_MOUNT_OF_LINK(le_link *link)
    void le_mount_init(le_mount *mount, const le_op_class *cls, void (*on_records)(le_loop *, le_reader *) noexcept nogil)
    int le_mount_open(const char *path, uint64_t mask, unsigned flags, int *at_mark)
    void le_mount_leave_group(le_mount *mount)
    void le_mount_abandon(le_mount *mount)
    void le_mount_drop(le_mount *mount)
    fanotify_event_metadata *le_mount_next(le_mount *mount)
    void le_mount_sift(le_mount *mount)
    Py_ssize_t le_mount_path(int fd, char *path, int *is_folder)
    void le_mount_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_mount_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)

cdef class MountEvent:
    cdef readonly object path
    cdef readonly frozenset names
    cdef readonly int pid

cdef class MountWatcher(Watcher):
    cdef le_mount mount
    cdef uint64_t mask
    cdef int64_t pause_ns  # after a failure: until the next read
    cdef bint is_short  # of fds: there is to be a pause before the next read
    cdef object given  # the path, a str or bytes
    cdef bytes encoded
