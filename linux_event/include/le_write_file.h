/* le_write_file.h: writing a file as a whole, in its place or beside it.
 *
 * The steps are requests of their own, one after the other, on an fd. A chain on a direct descriptor would not be faster: the
 * kernel creates files in threads of its own, and what it costs is the file system. And it would be wrong: a direct
 * descriptor is dropped without the flush that tells the errors of writing behind (NFS, FUSE), a closed fd is flushed.
 *
 * What replaces a file is written under a name of its own in the same folder, which nobody else can have (O_EXCL), and
 * renamed when it is complete. From the moment that the kernel is asked to rename there is no way back, so then the operation
 * cannot be cancelled; before that every end removes what was written. The folder, if it is to be synced, is opened first:
 * where that fails the old file is still there. */
#ifndef LE_WRITE_FILE_H
#define LE_WRITE_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>

#include "le_outcome.h"

enum le_write_step {
    LE_WRITE_FOLDER = 0, /* open it */
    LE_WRITE_OPEN,
    LE_WRITE_DATA,
    LE_WRITE_SYNC,
    LE_WRITE_CLOSE,
    LE_WRITE_RENAME,
    LE_WRITE_FOLDER_SYNC,
    LE_WRITE_UNLINK,
    LE_WRITE_FOLDER_CLOSE,
    LE_WRITE_OVER,
};

/* Names that are tried before it is told that they exist. */
#define LE_WRITE_NAMES 16

/* The end of the name of what is not complete yet: digits, drawn anew for each attempt. */
#define LE_WRITE_DIGITS 16

struct le_write_file {
    struct le_turn turn;
    struct le_op op;
    struct le_operation *operation;
    const char *path;
    const char *folder; /* to be synced, or NULL */
    char *beside;       /* the name to write under, which ends with the digits; NULL: write in its place */
    char *digits;
    const char *data;
    uint64_t total;
    uint64_t written;
    uint32_t flags; /* of open(2) */
    uint32_t mode;
    int32_t fd;        /* or -1 */
    int32_t folder_fd; /* or -1 */
    int32_t error;     /* a negative errno, which will be the result */
    uint8_t step;      /* enum le_write_step */
    uint8_t names;     /* tried */
    uint8_t is_synced;
    uint8_t is_beside; /* the file `beside` exists, and is ours */
};
_Static_assert(sizeof(struct le_write_file) == 40 + 32 + 64 + 24, "le_write_file is part of the ABI of operations");

static inline void le_write_draw(struct le_write_file *file)
{
    uint64_t number;
    if (getrandom(&number, sizeof number, GRND_NONBLOCK) != sizeof number)
        number = (uint64_t)le_clock_ns();
    for (unsigned i = 0; i < LE_WRITE_DIGITS; i++, number >>= 4)
        file->digits[i] = "0123456789abcdef"[number & 15];
}

static inline void le_write_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_write_file *file = LE_CONTAINER(op, struct le_write_file, op);
    uint64_t left = file->total - file->written;
    switch (file->step) {
    case LE_WRITE_FOLDER:
        io_uring_prep_openat(sqe, AT_FDCWD, file->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        break;
    case LE_WRITE_OPEN:
        if (file->beside)
            le_write_draw(file);
        io_uring_prep_openat(sqe, AT_FDCWD, file->beside ? file->beside : file->path, (int)file->flags, file->mode);
        break;
    case LE_WRITE_DATA:
        /* In one piece where that is possible: what is appended then stays together. At a position of its own: see
         * le_read_file.h. Appending ignores it. */
        io_uring_prep_write(sqe, file->fd, file->data + file->written, left < LE_PART_MAX ? (unsigned)left : LE_PART_MAX,
                            file->written);
        break;
    case LE_WRITE_SYNC:
        io_uring_prep_fsync(sqe, file->fd, 0);
        break;
    case LE_WRITE_CLOSE:
        io_uring_prep_close(sqe, file->fd);
        break;
    case LE_WRITE_RENAME:
        file->operation->flags |= LE_OPERATION_SETTLED;
        io_uring_prep_renameat(sqe, AT_FDCWD, file->beside, AT_FDCWD, file->path, 0);
        break;
    case LE_WRITE_FOLDER_SYNC:
        io_uring_prep_fsync(sqe, file->folder_fd, 0);
        break;
    case LE_WRITE_UNLINK:
        io_uring_prep_unlinkat(sqe, AT_FDCWD, file->beside, 0);
        break;
    default:
        io_uring_prep_close(sqe, file->folder_fd);
    }
}

/* What there is to let go of, one after the other. */
static inline uint8_t le_write_unwind(const struct le_write_file *file)
{
    return file->fd >= 0          ? LE_WRITE_CLOSE
           : file->is_beside      ? LE_WRITE_UNLINK
           : file->folder_fd >= 0 ? LE_WRITE_FOLDER_CLOSE
                                  : LE_WRITE_OVER;
}

static inline uint8_t le_write_after_data(const struct le_write_file *file)
{
    return file->written < file->total ? LE_WRITE_DATA : file->is_synced ? LE_WRITE_SYNC : LE_WRITE_CLOSE;
}

/* Take the result of a step that has not failed, and say which comes next. */
static inline uint8_t le_write_on_success(struct le_write_file *file, int32_t result)
{
    switch (file->step) {
    case LE_WRITE_FOLDER:
        file->folder_fd = result;
        return LE_WRITE_OPEN;
    case LE_WRITE_OPEN:
        file->fd = result;
        file->is_beside = file->beside != NULL;
        return le_write_after_data(file);
    case LE_WRITE_DATA:
        file->written += (uint32_t)result;
        return le_write_after_data(file);
    case LE_WRITE_SYNC:
        return LE_WRITE_CLOSE;
    case LE_WRITE_CLOSE:
        file->fd = -1;
        return file->is_beside ? LE_WRITE_RENAME : LE_WRITE_OVER;
    case LE_WRITE_RENAME:
        file->is_beside = 0;
        return file->folder_fd >= 0 ? LE_WRITE_FOLDER_SYNC : LE_WRITE_OVER;
    case LE_WRITE_UNLINK:
        file->is_beside = 0;
        return le_write_unwind(file);
    case LE_WRITE_FOLDER_CLOSE:
        file->folder_fd = -1;
        return LE_WRITE_OVER;
    default:
        return le_write_unwind(file);
    }
}

static inline enum le_op_verdict le_write_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_write_file *file = LE_CONTAINER(op, struct le_write_file, op);
    int is_close = file->step == LE_WRITE_CLOSE || file->step == LE_WRITE_FOLDER_CLOSE;
    int is_unwanted = !(file->operation->flags & LE_OPERATION_SETTLED) && le_operation_is_unwanted(file->operation);
    (void)flags;
    if (result == 0 && file->step == LE_WRITE_DATA)
        result = -EIO; /* a file that takes nothing and tells no error would be asked for ever */
    if (result == -EINTR && !is_close && (!is_unwanted || file->step == LE_WRITE_UNLINK))
        return LE_OP_AGAIN; /* a signal to a thread of the kernel, which has done nothing */
    if (result == -EEXIST && file->step == LE_WRITE_OPEN && file->beside && ++file->names < LE_WRITE_NAMES && !is_unwanted)
        return LE_OP_AGAIN;
    if (result < 0 && !file->error && result != -EINTR && file->step != LE_WRITE_UNLINK && file->step != LE_WRITE_FOLDER_CLOSE)
        file->error = result;
    if (is_unwanted && !file->error)
        file->error = -ECANCELED;
    uint8_t step = file->step;
    /* A close that fails has closed, and what cannot be removed stays. */
    if (result >= 0 || is_close || step == LE_WRITE_UNLINK)
        step = le_write_on_success(file, result);
    file->step = file->error ? le_write_unwind(file) : step;
    if (file->step != LE_WRITE_OVER)
        return LE_OP_AGAIN;
    le_operation_end(loop, file->operation, file->error ? file->error : (int64_t)file->total);
    return LE_OP_END;
}

/* It has a place. Returns how many references on the owner the caller has to take. */
static inline int le_write_begin(struct le_loop *loop, struct le_turn *turn)
{
    struct le_write_file *file = LE_CONTAINER(turn, struct le_write_file, turn);
    file->step = file->folder ? LE_WRITE_FOLDER : LE_WRITE_OPEN;
    return le_op_start(loop, &file->op);
}

/* Make it end soon. Returns how many references on the owner the caller has to drop. */
static inline int le_write_abort(struct le_loop *loop, struct le_write_file *file)
{
    int dropped = 0;
    if (file->turn.slot == LE_SLOT_NONE) {
        le_link_leave(&file->turn.link);
        le_operation_end(loop, file->operation, -ECANCELED);
    } else if (file->op.state == LE_OP_QUEUED && !file->error) {
        file->error = -ECANCELED;
        file->step = le_write_unwind(file);
        if (file->step == LE_WRITE_OVER) {
            dropped = le_op_stop(loop, &file->op);
            le_operation_end(loop, file->operation, -ECANCELED);
        }
    } else if (file->step < LE_WRITE_CLOSE) {
        le_op_stop(loop, &file->op);
    }
    return dropped;
}

#endif
