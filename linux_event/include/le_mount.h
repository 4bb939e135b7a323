/* le_mount.h: the records of fanotify(7) about a mount.
 *
 * Each record carries an open fd of this process. Whoever does not hand a record over has to close it: after a stop, at the
 * end of the loop, in a forked child, which has copies of them, and wherever a request is given up that may have brought some
 * already. So the records are zeroed before each read: what is in them afterwards was written by the kernel. */
#ifndef LE_MOUNT_H
#define LE_MOUNT_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "le_reader.h"

#ifndef FAN_REPORT_FD_ERROR
#define FAN_REPORT_FD_ERROR 0x2000 /* Linux 6.13 */
#endif

/* How many events one read takes, at most. Each takes an fd until its callback: not many, or other parts of the program could
 * find that none is left. */
#define LE_MOUNT_RECORDS 64
#define LE_MOUNT_PATH_MAX (PATH_MAX + 32)

/* Fds of events are opened in this way. With O_NONBLOCK a FIFO, or a file with a lease, does not let the read wait for others.
 * Hardly any fd of others has both flags: by these an fd is known. */
#define LE_MOUNT_FD_MARKS (O_NOATIME | O_NONBLOCK)
#define LE_MOUNT_FD_FLAGS (O_RDONLY | O_CLOEXEC | O_LARGEFILE | LE_MOUNT_FD_MARKS)

struct le_mount {
    struct le_reader reader; /* reader.op.fd is the fanotify group; -1: there is none */
    struct le_link link;     /* in the list of all that may have fds */
    /* Of a start before: the read from it has not been cancelled yet. Or -1. */
    int32_t old_group;
    uint32_t is_reading : 1; /* the kernel may be writing to the records */
    uint32_t skips_own : 1;  /* events that this process causes are dropped */
    uint32_t unused : 30;
    struct fanotify_event_metadata records[LE_MOUNT_RECORDS];
};
_Static_assert(offsetof(struct le_mount, reader) == 0, "le_mount begins with its reader");
_Static_assert(sizeof(struct le_mount) == sizeof(struct le_reader) + 16 + 8 + LE_MOUNT_RECORDS * 24,
               "struct le_mount has no hidden padding, and records are as long as those of the kernel");

#define LE_MOUNT_OF_LINK(pointer) LE_CONTAINER(pointer, struct le_mount, link)

static inline void le_mount_init(struct le_mount *mount, const struct le_op_class *cls,
                                 void (*on_records)(struct le_loop *loop, struct le_reader *reader))
{
    mount->reader.op.cls = cls;
    mount->reader.op.fd = mount->old_group = -1;
    mount->reader.buffer = (char *)mount->records;
    mount->reader.size = sizeof mount->records;
    mount->reader.on_records = on_records;
}

static inline int le_mount_is_valid(const struct fanotify_event_metadata *record)
{
    return record->event_len == sizeof *record && record->vers == FANOTIFY_METADATA_VERSION;
}

static inline void le_mount_close(int32_t *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* The next record that has not been handed over, or NULL. Its fd is the caller's. */
static inline struct fanotify_event_metadata *le_mount_next(struct le_mount *mount)
{
    struct le_reader *reader = &mount->reader;
    struct fanotify_event_metadata *record = (struct fanotify_event_metadata *)(reader->buffer + reader->taken);
    if (!le_reader_left(reader))
        return NULL;
    reader->taken += sizeof *record;
    return record;
}

/* Let go of what has been read, and of what a read that is given up may have brought. */
static inline void le_mount_drop(struct le_mount *mount)
{
    struct fanotify_event_metadata *record;
    while ((record = le_mount_next(mount)))
        le_mount_close(&record->fd);
    mount->reader.error = 0;
}

static inline void le_mount_rescue(struct le_mount *mount)
{
    if (!mount->is_reading)
        return;
    mount->is_reading = 0;
    for (unsigned i = 0; i < LE_MOUNT_RECORDS && le_mount_is_valid(&mount->records[i]); i++) {
        int32_t *fd = &mount->records[i].fd;
        if (*fd >= 0 && (fcntl(*fd, F_GETFL) & LE_MOUNT_FD_MARKS) == LE_MOUNT_FD_MARKS)
            le_mount_close(fd);
    }
}

/* Close everything. Nothing of it can be used any more. */
static inline void le_mount_abandon(struct le_mount *mount)
{
    le_mount_drop(mount);
    le_mount_rescue(mount);
    le_mount_close(&mount->reader.op.fd);
    le_mount_close(&mount->old_group);
    le_link_leave(&mount->link);
}

/* Open a group for the mount of a path; with mask 0, only to see whether that is possible: closing a group that has had a mark
 * takes the kernel some milliseconds, so there is none then. Returns an fd, or a negative errno; which of the calls has failed
 * is told. */
static inline int le_mount_open(const char *path, uint64_t mask, unsigned flags, int *at_mark)
{
    int group = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | flags, LE_MOUNT_FD_FLAGS), error;
    *at_mark = group >= 0;
    if (group < 0)
        return -errno;
    if (mask ? fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_MOUNT, mask | FAN_ONDIR, AT_FDCWD, path) == 0
             : faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) == 0)
        return group;
    error = -errno;
    close(group);
    return error;
}

/* Be done with the group of a watcher that is stopped, after the request. As long as the kernel has a request that names the
 * group by its number, that may not become the number of another file. */
static inline void le_mount_leave_group(struct le_mount *mount)
{
    enum le_op_state state = (enum le_op_state)mount->reader.op.state;
    if ((state == LE_OP_CANCEL_QUEUED || state == LE_OP_CANCELLING) && mount->old_group < 0) {
        (void)fanotify_mark(mount->reader.op.fd, FAN_MARK_FLUSH | FAN_MARK_MOUNT, 0, AT_FDCWD, NULL);
        mount->old_group = mount->reader.op.fd;
        mount->reader.op.fd = -1;
    }
    le_mount_close(&mount->reader.op.fd);
}

static inline void le_mount_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_mount *mount = LE_CONTAINER(op, struct le_mount, reader.op);
    memset(mount->records, 0, sizeof mount->records);
    mount->is_reading = 1;
    le_reader_prep(op, sqe);
}

/* Of what a read has brought: drop the events of this process, or all if the watcher was stopped. */
static inline void le_mount_sift(struct le_mount *mount)
{
    struct fanotify_event_metadata *record, *kept = mount->records;
    for (unsigned i = 0; i < mount->reader.filled / sizeof *record; i++)
        if (!le_mount_is_valid(&mount->records[i])) { /* a kernel with other records than those of its headers */
            mount->reader.filled = mount->reader.taken = 0;
            mount->reader.error = -EPROTO;
            return;
        }
    if (mount->reader.op.state != LE_OP_IN_FLIGHT) {
        le_mount_drop(mount);
        return;
    }
    if (!mount->skips_own)
        return;
    for (pid_t own = getpid(); (record = le_mount_next(mount));)
        if (record->pid == own)
            le_mount_close(&record->fd);
        else
            *kept++ = *record;
    mount->reader.taken = 0;
    mount->reader.filled = (uint32_t)((char *)kept - mount->reader.buffer);
}

static inline enum le_op_verdict le_mount_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_mount *mount = LE_CONTAINER(op, struct le_mount, reader.op);
    enum le_op_verdict verdict;
    mount->is_reading = 0;
    verdict = le_reader_on_cqe(loop, op, result, flags);
    if (op->state != LE_OP_IN_FLIGHT)
        le_mount_close(&mount->old_group);
    else if (!le_reader_left(&mount->reader) && !mount->reader.error)
        return LE_OP_AGAIN; /* there was nothing, or nothing but what is dropped */
    return verdict;
}

/* The path of an event's file, which is closed. A file without that name any more has the one that it had last. Returns the
 * length or a negative errno. */
static inline ssize_t le_mount_path(int fd, char *path, int *is_folder)
{
    static const char mark[] = " (deleted)";
    const size_t mark_length = sizeof mark - 1;
    char link[48];
    struct stat file, named;
    snprintf(link, sizeof link, "/proc/thread-self/fd/%d", fd);
    ssize_t length = readlink(link, path, LE_MOUNT_PATH_MAX - 1);
    if (length < 0 || fstat(fd, &file) < 0)
        length = -errno;
    close(fd);
    if (length < 0)
        return length;
    *is_folder = S_ISDIR(file.st_mode);
    path[length] = 0;
    if ((size_t)length > mark_length && !memcmp(path + length - mark_length, mark, mark_length)) {
        /* Or it is the name. */
        if (!file.st_nlink || lstat(path, &named) < 0 || named.st_ino != file.st_ino || named.st_dev != file.st_dev)
            length -= (ssize_t)mark_length;
    }
    return length;
}

#endif
