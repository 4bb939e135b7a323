/* le_transfer.h: data from one fd to another, through a pipe inside the kernel, without Python.
 *
 * A round fills the pipe from `in` and empties it into `out`: two splice requests. The kernel has both done by threads of its
 * own, so where neither can wait for a peer they are submitted together, hard-linked, and one thread does them in a row.
 * That the second finds what the first has brought is then certain, and so is that the link cannot be caught between the
 * two by a cancellation that finds neither: the second ends by itself. Else they follow each other by way of the loop.
 *
 * Files that the kernel cannot splice (of /proc, say) go through a buffer, by read and write. */
#ifndef LE_TRANSFER_H
#define LE_TRANSFER_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "le_loop.h"
#include "le_outcome.h"
#include "le_pipes.h"

#define LE_TRANSFER_BUFFER (1u << 16)

enum le_transfer_stage { /* what the request of the operation itself does */
    LE_TRANSFER_FILL = 0,
    LE_TRANSFER_EMPTY,
    LE_TRANSFER_PAIR, /* it empties what the request `fill`, linked in front of it, brings */
    LE_TRANSFER_WAIT_IN,
    LE_TRANSFER_WAIT_OUT,
};

struct le_transfer {
    struct le_op fill;
    struct le_pipe pipe;
    int32_t in_fd;
    int32_t out_fd;
    int32_t failure;     /* 0 or the first -errno */
    int64_t in_offset;   /* -1: the file has no offsets, or its own counts */
    int64_t out_offset;  /* the same */
    uint64_t size;       /* of the file that is read, as far as it is known; 0: not */
    uint64_t left;       /* bytes to take from `in` at most */
    uint64_t held;       /* bytes taken, and not yet given to `out` */
    uint64_t moved;      /* bytes that `out` has got, holes included */
    char *buffer;        /* instead of the pipe */
    uint32_t asked;      /* bytes of the last request to fill */
    int32_t filled;      /* what the linked request has answered */
    uint8_t stage;       /* enum le_transfer_stage */
    uint8_t is_at_end : 1;
    uint8_t is_starved : 1;  /* nothing to take at present */
    uint8_t is_blocked : 1;  /* no room at present */
    uint8_t is_sparse : 1;   /* look for holes */
    uint8_t may_link : 1;    /* neither side waits for anybody */
    uint8_t may_buffer : 1;
    uint8_t fill_closes : 1; /* the request `fill` closes in_fd */
};
_Static_assert(sizeof(struct le_transfer) == 128, "struct le_transfer is part of the ABI of operations");

#define LE_TRANSFER_OF_FILL(pointer) LE_CONTAINER(pointer, struct le_transfer, fill)

static inline void le_transfer_init(struct le_transfer *transfer)
{
    transfer->in_fd = transfer->out_fd = transfer->pipe.read_fd = transfer->pipe.write_fd = -1;
    transfer->in_offset = transfer->out_offset = -1;
    transfer->left = UINT64_MAX;
}

/* The pipe back to the others, if nothing is left in it; the buffer back to the C library. */
static inline void le_transfer_release(struct le_loop *loop, struct le_transfer *transfer)
{
    le_pipes_give(&loop->pipes, &transfer->pipe, !transfer->held);
    free(transfer->buffer);
    transfer->buffer = NULL;
}

/* The entry of the request that takes bytes from `in`. */
static inline void le_transfer_prep_fill(const struct le_transfer *transfer, struct io_uring_sqe *sqe)
{
    if (transfer->buffer)
        io_uring_prep_read(sqe, transfer->in_fd, transfer->buffer, transfer->asked, (uint64_t)transfer->in_offset);
    else
        io_uring_prep_splice(sqe, transfer->in_fd, transfer->in_offset, transfer->pipe.write_fd, -1, transfer->asked,
                             SPLICE_F_NONBLOCK);
}

/* The entry of the request that gives what is held to `out`. A pipe that is empty makes it fail, not wait. */
static inline void le_transfer_prep_empty(struct le_transfer *transfer, struct io_uring_sqe *sqe, uint64_t count)
{
    if (transfer->buffer) /* what is held stands at its end */
        io_uring_prep_write(sqe, transfer->out_fd, transfer->buffer + transfer->filled - count, (uint32_t)count,
                            (uint64_t)transfer->out_offset);
    else
        io_uring_prep_splice(sqe, transfer->pipe.read_fd, -1, transfer->out_fd, transfer->out_offset, (uint32_t)count,
                             SPLICE_F_NONBLOCK);
}

/* Go on with read and write, from where the last byte that `out` has got was taken. Returns whether that is possible. */
static inline int le_transfer_use_buffer(struct le_transfer *transfer)
{
    if (!transfer->may_buffer || transfer->buffer || (transfer->held && transfer->in_offset < 0))
        return 0;
    if (!(transfer->buffer = malloc(LE_TRANSFER_BUFFER))) {
        transfer->failure = -ENOMEM;
        return 1;
    }
    if (transfer->held) {
        transfer->in_offset -= (int64_t)transfer->held;
        transfer->left += transfer->held;
        transfer->held = 0;
        transfer->is_at_end = 0;
        le_pipe_close(&transfer->pipe);
    }
    return 1;
}

static inline void le_transfer_took(struct le_transfer *transfer, int32_t result)
{
    if (result > 0) {
        transfer->held += (uint64_t)result;
        transfer->left -= (uint64_t)result;
        transfer->filled = result;
        if (transfer->in_offset >= 0)
            transfer->in_offset += result;
        /* Less than asked for, and all that was there: asking once more would only be told of the end. */
        if ((uint32_t)result < transfer->asked && transfer->size && (uint64_t)transfer->in_offset >= transfer->size)
            transfer->is_at_end = 1;
    } else if (result == 0) {
        transfer->is_at_end = 1;
    } else if (result == -EAGAIN) {
        transfer->is_starved = 1;
    } else if (result != -EINTR && !(result == -EINVAL && le_transfer_use_buffer(transfer))) {
        transfer->failure = result;
    }
}

static inline void le_transfer_gave(struct le_transfer *transfer, int32_t result)
{
    if (result > 0) {
        transfer->held -= (uint64_t)result;
        transfer->moved += (uint64_t)result;
        if (transfer->out_offset >= 0)
            transfer->out_offset += result;
    } else if (result == 0) {
        transfer->failure = -EIO; /* takes nothing and tells no error: it would be asked for ever */
    } else if (result == -EAGAIN) {
        transfer->is_blocked = 1;
    } else if (result != -EINTR && !(result == -EINVAL && le_transfer_use_buffer(transfer))) {
        transfer->failure = result;
    }
}

/* Step over a hole: its bytes count as moved, and nothing is written. Returns how far the data go from there. */
static inline uint64_t le_transfer_skip_hole(struct le_transfer *transfer)
{
    off_t data = lseek(transfer->in_fd, transfer->in_offset, SEEK_DATA), end;
    if (data < 0 && errno == ENXIO && transfer->size > (uint64_t)transfer->in_offset)
        data = (off_t)transfer->size; /* nothing but a hole */
    if (data >= transfer->in_offset) {
        transfer->moved += (uint64_t)(data - transfer->in_offset);
        transfer->out_offset += data - transfer->in_offset;
        transfer->in_offset = data;
        if ((end = lseek(transfer->in_fd, data, SEEK_HOLE)) > data)
            return (uint64_t)(end - data);
    }
    return UINT64_MAX;
}

static inline int le_transfer_is_over(const struct le_transfer *transfer)
{
    return transfer->failure || (!transfer->held && (transfer->is_at_end || !transfer->left));
}

/* Fill the entry of what comes next. Returns whether there is something. If it is a pair, the caller starts `fill` in front
 * of the request. */
static inline int le_transfer_next(struct le_loop *loop, struct le_transfer *transfer, struct io_uring_sqe *sqe)
{
    if (le_transfer_is_over(transfer))
        return 0;
    if (transfer->held) {
        if (transfer->is_blocked) {
            transfer->stage = LE_TRANSFER_WAIT_OUT;
            io_uring_prep_poll_add(sqe, transfer->out_fd, POLLOUT);
        } else {
            transfer->stage = LE_TRANSFER_EMPTY;
            le_transfer_prep_empty(transfer, sqe, transfer->held);
        }
        return 1;
    }
    if (transfer->is_starved) {
        transfer->stage = LE_TRANSFER_WAIT_IN;
        io_uring_prep_poll_add(sqe, transfer->in_fd, POLLIN);
        return 1;
    }
    if (!transfer->buffer && transfer->pipe.read_fd < 0) {
        int error = le_pipes_take(&loop->pipes, &transfer->pipe);
        if (error) {
            transfer->failure = error;
            return 0;
        }
    }
    uint64_t ask = transfer->buffer ? LE_TRANSFER_BUFFER : transfer->pipe.size;
    if (transfer->left < ask)
        ask = transfer->left;
    if (transfer->is_sparse) {
        uint64_t data = le_transfer_skip_hole(transfer);
        ask = data < ask ? data : ask;
    }
    transfer->asked = (uint32_t)ask;
    if (transfer->may_link && !transfer->buffer) {
        transfer->stage = LE_TRANSFER_PAIR;
        le_transfer_prep_empty(transfer, sqe, ask);
    } else {
        transfer->stage = LE_TRANSFER_FILL;
        le_transfer_prep_fill(transfer, sqe);
    }
    return 1;
}

/* Take what the request of the operation has answered. */
static inline void le_transfer_answer(struct le_transfer *transfer, int32_t result)
{
    switch (transfer->stage) {
    case LE_TRANSFER_FILL:
        le_transfer_took(transfer, result);
        break;
    case LE_TRANSFER_PAIR:
        le_transfer_took(transfer, transfer->filled);
        if (transfer->held)
            le_transfer_gave(transfer, result);
        break;
    case LE_TRANSFER_EMPTY:
        le_transfer_gave(transfer, result);
        break;
    default:
        transfer->is_starved = transfer->is_blocked = 0;
        if (result < 0 && result != -EINTR)
            transfer->failure = result;
    }
}

/* -- The linked request ---------------------------------------------------------------------------------------------- */

static inline void le_fill_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_transfer *transfer = LE_TRANSFER_OF_FILL(op);
    if (transfer->fill_closes)
        io_uring_prep_close(sqe, transfer->in_fd);
    else
        le_transfer_prep_fill(transfer, sqe);
    sqe->flags |= IOSQE_IO_HARDLINK;
}

static inline enum le_op_verdict le_fill_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_transfer *transfer = LE_TRANSFER_OF_FILL(op);
    (void)loop, (void)flags;
    if (transfer->fill_closes)
        transfer->in_fd = -1;
    else
        transfer->filled = result;
    return LE_OP_END;
}

/* Let `fill` be submitted linked in front of the request of the operation, which is queued right behind it by the caller.
 * Returns 1 if the caller must take a reference on the owner for the loop, else 0. */
static inline int le_fill_start(struct le_loop *loop, struct le_transfer *transfer, struct le_link *list)
{
    int takes_reference = le_op_start(loop, &transfer->fill);
    le_op_move(&transfer->fill, LE_OP_QUEUED, list);
    transfer->fill.linked = 1;
    transfer->filled = -ECANCELED;
    return takes_reference;
}

#endif
