/* le_read_file.h: reading a file from its first byte to its last, whatever kind of file it is.
 *
 * open -> read go to the kernel as one chain. The end is where a read finds nothing; a short read does not tell it, as the
 * files of /proc, pipes and terminals show. The close follows when the end is known, and not before: of a file that is not a
 * regular one, what comes next can be had from no other descriptor. The operation ends when the file is closed.
 *
 * Every read names its position, the number of bytes that have come, which files without positions ignore. The current
 * position of the file would not do: the kernel leaves it behind where a read or write is cut short by an error, and what
 * follows would be read, or written, in the wrong place. So the second read cannot be part of the chain.
 *
 * Nothing is believed about the size: files grow and shrink meanwhile, and many tell none. Where the buffer is too small the
 * size is asked for all the same, but only to reserve memory, since memory of the right size is far cheaper than memory that
 * grows and shrinks. A direct descriptor cannot be asked: the path is, if that takes no waiting. Beyond that memory grows by
 * factors.
 *
 * io_uring opens a FIFO that nobody writes to at once, and a read says that it is at its end. open(2) would have waited. So
 * before a file is taken for empty, it is polled: a FIFO becomes readable when a writer has come, all other files are. */
#ifndef LE_READ_FILE_H
#define LE_READ_FILE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_PATH, statx() */
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "le_outcome.h"

/* Bytes of one read, at most: while it copies from the page cache the loop does nothing else. */
#define LE_READ_PORTION (1u << 20)
/* Memory grows by this factor, from this size on, by no more than the step. */
#define LE_READ_GROWTH 4u
#define LE_READ_GROWN_FIRST (1u << 17)
#define LE_READ_GROWN_STEP (1u << 28)
/* Files that say that they are longer (those of memory, in /proc) are not believed at all. */
#define LE_READ_SIZE_MAX (1ull << 40)

enum le_read_step { LE_READ_OPEN = 0, LE_READ_DATA, LE_READ_POLL, LE_READ_CLOSE };

/* The members of the chain in their order. The one that ends last carries what follows. */
enum le_read_member {
    LE_READ_OPENS = 0,
    LE_READ_READS,
    LE_READ_CHAIN,
    LE_READ_CANCELLER = LE_READ_CHAIN, /* no member: asks the kernel to end one */
    LE_READ_OPS
};

/* A request of the chain that has not been begun cannot be found by a cancellation. It has been after the next enter or two;
 * what is not found later (a read that waits for a disk) ends by itself. */
#define LE_READ_CANCEL_TRIES 8

struct le_read_file;

/* What needs Python: memory that becomes the result, and references. */
struct le_read_host {
    char *(*grow)(struct le_read_file *file, uint64_t capacity); /* keeps `used` bytes; NULL: there is no memory */
    void (*hold)(void *owner);
};
_Static_assert(sizeof(struct le_read_host) == 16, "le_read_host is part of the ABI of operations");

struct le_read_file {
    struct le_turn turn;
    struct le_op ops[LE_READ_OPS];
    struct le_operation *operation;
    const struct le_read_host *host;
    const char *path;
    char *memory; /* the buffer of the slot, or what grow() has given */
    void *grown;  /* of the host: what grow() has made */
    uint64_t used;
    uint64_t capacity;
    int32_t results[LE_READ_CHAIN];
    int32_t error;       /* a negative errno, which will be the result */
    int32_t fd;          /* where there is no direct descriptor, or -1 */
    uint8_t step;        /* enum le_read_step; while there is no chain */
    uint8_t chain_left;  /* members that have not ended; 0: no chain, or it is over */
    uint8_t has_ended;   /* bits: the members of the chain that have */
    uint8_t carrier;     /* the index of the op that makes the requests after the chain */
    uint8_t is_direct;
    uint8_t is_polled;
    uint8_t target;      /* what the canceller was sent for */
    uint8_t tries;
};
_Static_assert(sizeof(struct le_read_file) == 40 + 3 * 32 + 56 + 24, "le_read_file is part of the ABI of operations");

static inline struct le_read_file *le_read_file_of(struct le_op *op)
{
    return LE_CONTAINER(op - op->bits, struct le_read_file, ops);
}

static inline uint8_t le_read_first_left(const struct le_read_file *file)
{
    uint8_t i = 0;
    while (file->has_ended >> i & 1)
        i++;
    return i;
}

static inline void le_read_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_read_file *file = le_read_file_of(op);
    unsigned slot = (unsigned)file->turn.slot;
    uint64_t left = file->capacity - file->used;
    uint8_t step = file->step;
    if (op->bits == LE_READ_CANCELLER) {
        file->target = le_read_first_left(file);
        io_uring_prep_cancel64(sqe, (uintptr_t)&file->ops[file->target], 0);
        return;
    }
    if (file->chain_left)
        step = op->bits ? LE_READ_DATA : LE_READ_OPEN;
    switch (step) {
    case LE_READ_OPEN:
        /* A direct descriptor is never inherited, and O_CLOEXEC is refused. */
        if (file->is_direct)
            io_uring_prep_openat_direct(sqe, AT_FDCWD, file->path, O_RDONLY | O_NOCTTY, 0, slot);
        else
            io_uring_prep_openat(sqe, AT_FDCWD, file->path, O_RDONLY | O_NOCTTY | O_CLOEXEC, 0);
        sqe->flags |= file->chain_left ? IOSQE_IO_LINK : 0;
        break;
    case LE_READ_DATA:
        io_uring_prep_read(sqe, file->is_direct ? file->turn.slot : file->fd, file->memory + file->used,
                           left < LE_READ_PORTION ? (unsigned)left : LE_READ_PORTION, file->used);
        sqe->flags |= file->is_direct ? IOSQE_FIXED_FILE : 0;
        break;
    case LE_READ_POLL:
        io_uring_prep_poll_add(sqe, file->is_direct ? file->turn.slot : file->fd, POLLIN);
        sqe->flags |= file->is_direct ? IOSQE_FIXED_FILE : 0;
        break;
    default:
        if (file->is_direct)
            io_uring_prep_close_direct(sqe, slot);
        else
            io_uring_prep_close(sqe, file->fd);
    }
}

static inline enum le_op_verdict le_read_end(struct le_loop *loop, struct le_read_file *file, int64_t result)
{
    le_operation_end(loop, file->operation, result);
    return LE_OP_END;
}

/* What the file says of its size, or 0. */
static inline uint64_t le_read_size(struct le_loop *loop, const struct le_read_file *file)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_CACHED};
    struct statx status = {0};
    int fd = file->fd;
    if (file->is_direct)
        fd = (int)syscall(SYS_openat2, AT_FDCWD, file->path, &how, sizeof how);
    if (fd >= 0 && statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &status))
        status.stx_size = 0;
    if (fd >= 0 && file->is_direct)
        close(fd);
    loop->other_syscalls += file->is_direct ? 3 : 1;
    return status.stx_size;
}

static inline int le_read_grow_to(struct le_read_file *file, uint64_t capacity)
{
    char *memory = file->host->grow(file, capacity);
    if (memory) {
        file->memory = memory;
        file->capacity = capacity;
    }
    return memory != NULL;
}

/* Make room for more than `used` bytes. Returns whether there is memory. */
static inline int le_read_grow(struct le_loop *loop, struct le_read_file *file)
{
    uint64_t more = file->capacity * (LE_READ_GROWTH - 1);
    uint64_t capacity = file->capacity + (more < LE_READ_GROWN_STEP ? more : LE_READ_GROWN_STEP);
    uint64_t size = file->grown ? 0 : le_read_size(loop, file);
    /* One byte more than it says, for the read that finds the end. */
    if (size >= file->used && size < LE_READ_SIZE_MAX && le_read_grow_to(file, size + 1))
        return 1;
    return le_read_grow_to(file, capacity < LE_READ_GROWN_FIRST ? LE_READ_GROWN_FIRST : capacity);
}

/* The file is open, and what has been read so far is in `used` or `error`: say what comes next. */
static inline enum le_op_verdict le_read_go_on(struct le_loop *loop, struct le_read_file *file, int is_at_end)
{
    file->step = LE_READ_CLOSE;
    if (le_operation_is_unwanted(file->operation)) {
        file->error = -ECANCELED;
    } else if (!file->error && is_at_end) {
        if (!file->used && !file->is_polled)
            file->step = LE_READ_POLL;
    } else if (!file->error) {
        file->step = LE_READ_DATA;
        if (file->used == file->capacity && !le_read_grow(loop, file)) {
            file->error = -ENOMEM;
            file->step = LE_READ_CLOSE;
        }
    }
    return LE_OP_AGAIN;
}

static inline enum le_op_verdict le_read_on_step(struct le_loop *loop, struct le_read_file *file, int32_t result)
{
    switch (file->step) {
    case LE_READ_OPEN:
        if (result < 0 && (result != -EINTR || le_operation_is_unwanted(file->operation)))
            return le_read_end(loop, file, result);
        if (result < 0)
            return LE_OP_AGAIN;
        if (!file->is_direct)
            file->fd = result;
        return le_read_go_on(loop, file, 0);
    case LE_READ_DATA:
        if (result > 0)
            file->used += (uint32_t)result;
        else if (result != -EINTR)
            file->error = result;
        return le_read_go_on(loop, file, result == 0);
    case LE_READ_POLL:
        file->is_polled = 1;
        return le_read_go_on(loop, file, 0);
    default:
        file->fd = -1;
        return le_read_end(loop, file, file->error ? file->error : (int64_t)file->used);
    }
}

/* Ask the kernel to end the member of the chain that is at work; again for each that follows. */
static inline void le_read_cancel_chain(struct le_loop *loop, struct le_read_file *file)
{
    file->tries = 0;
    if (le_op_start(loop, &file->ops[LE_READ_CANCELLER]))
        file->host->hold(file->turn.owner);
}

static inline enum le_op_verdict le_read_on_cancelled(struct le_read_file *file, int32_t result)
{
    if (!file->chain_left)
        return LE_OP_END;
    if (file->has_ended >> file->target & 1) {
        file->tries = 0;
        return LE_OP_AGAIN;
    }
    return result == -ENOENT && ++file->tries < LE_READ_CANCEL_TRIES ? LE_OP_AGAIN : LE_OP_END;
}

static inline enum le_op_verdict le_read_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_read_file *file = le_read_file_of(op);
    (void)flags;
    if (op->bits == LE_READ_CANCELLER)
        return le_read_on_cancelled(file, result);
    if (!file->chain_left)
        return le_read_on_step(loop, file, result);
    file->results[op->bits] = result;
    file->has_ended |= (uint8_t)(1u << op->bits);
    if (--file->chain_left) {
        if (LE_UNLIKELY(le_operation_is_unwanted(file->operation)))
            le_read_cancel_chain(loop, file);
        return LE_OP_END;
    }
    file->carrier = (uint8_t)op->bits;
    file->step = file->results[LE_READ_OPENS] < 0 ? LE_READ_OPEN : LE_READ_DATA;
    return le_read_on_step(loop, file, file->results[file->step == LE_READ_OPEN ? LE_READ_OPENS : LE_READ_READS]);
}

/* It has a place. Returns how many references on the owner the caller has to take. */
static inline int le_read_begin(struct le_loop *loop, struct le_turn *turn)
{
    struct le_read_file *file = LE_CONTAINER(turn, struct le_read_file, turn);
    file->memory = le_slot_buffer(&loop->slots, turn->slot);
    file->capacity = LE_SLOT_SIZE;
    file->is_direct = loop->slots.state == LE_SLOTS_DIRECT;
    if (!file->is_direct || loop->ring.uring.sq.ring_entries < LE_READ_CHAIN) {
        file->step = LE_READ_OPEN;
        return le_op_start(loop, &file->ops[LE_READ_OPENS]);
    }
    file->chain_left = LE_READ_CHAIN;
    for (unsigned i = 0; i < LE_READ_CHAIN; i++) {
        le_op_start(loop, &file->ops[i]);
        file->ops[i].linked = i + 1 < LE_READ_CHAIN;
    }
    return LE_READ_CHAIN;
}

/* Make it end soon. Returns how many references on the owner the caller has to drop. */
static inline int le_read_abort(struct le_loop *loop, struct le_read_file *file)
{
    struct le_op *op = &file->ops[file->carrier];
    int dropped = 0;
    if (file->turn.slot == LE_SLOT_NONE) {
        le_link_leave(&file->turn.link);
        le_read_end(loop, file, -ECANCELED);
    } else if (file->chain_left && file->ops[LE_READ_OPENS].state == LE_OP_QUEUED) {
        for (unsigned i = 0; i < LE_READ_CHAIN; i++) {
            dropped += le_op_stop(loop, &file->ops[i]);
            file->ops[i].linked = 0;
        }
        file->chain_left = 0;
        le_read_end(loop, file, -ECANCELED);
    } else if (file->chain_left) {
        le_read_cancel_chain(loop, file);
    } else if (file->step == LE_READ_OPEN && op->state == LE_OP_QUEUED) {
        dropped = le_op_stop(loop, op);
        le_read_end(loop, file, -ECANCELED);
    } else if (file->step != LE_READ_CLOSE && op->state == LE_OP_QUEUED) {
        file->error = -ECANCELED;
        file->step = LE_READ_CLOSE;
    } else if (file->step != LE_READ_CLOSE) {
        le_op_stop(loop, op);
    }
    return dropped;
}

#endif
