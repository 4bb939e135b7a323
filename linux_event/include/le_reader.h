/* le_reader.h: records that the kernel hands out through an fd, such as those of inotify(7), fanotify(7) and signalfd(2), read
 * by the ring.
 *
 * One read is with the kernel at a time. What it has brought stays in the buffer of the reader until all of it has been handed
 * over, and only then is the next one made. So whoever is slow leaves the records in the queue of the kernel, which is bounded
 * and says so when it overflows, and the records keep their order without being copied.
 *
 * The fd has to be non-blocking, although nothing here fails for that. A read request waits for an inotify fd either way, but
 * on one that blocks the kernel (6.18) hands each of them to a thread of its own. Kernels before 6.7 take O_NONBLOCK at its
 * word and end the read with EAGAIN: then a poll waits in its place, and the read follows. */
#ifndef LE_READER_H
#define LE_READER_H

#include <errno.h>
#include <poll.h>

#include "le_loop.h"

struct le_reader {
    struct le_op op; /* op.fd is the fd; the class of the request has the interest LE_OP_EVERY_READ */
    char *buffer;
    /* Called when records have come, or the error for which there will be none any more. In C: it collects watchers. Called for
     * a request that was cancelled, too: what it has brought may have to be let go of, such as the fds of fanotify. */
    void (*on_records)(struct le_loop *loop, struct le_reader *reader);
    uint64_t position; /* bytes that all reads before the last one have brought */
    uint32_t size;     /* of the buffer */
    uint32_t filled;   /* bytes that the last read has brought */
    uint32_t taken;    /* those of them that have been handed over */
    int32_t error;     /* a negative errno; 0: there was none */
    uint64_t polls;    /* the next request is a poll */
};
_Static_assert(offsetof(struct le_reader, op) == 0, "le_reader begins with its request");
_Static_assert(sizeof(struct le_reader) == 32 + 3 * 8 + 4 * 4 + 8, "le_reader has no hidden padding");

static inline void le_reader_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_reader *reader = LE_CONTAINER(op, struct le_reader, op);
    LE_ASSERT(reader->taken == reader->filled);
    if (reader->polls)
        io_uring_prep_poll_add(sqe, op->fd, POLLIN);
    else
        io_uring_prep_read(sqe, op->fd, reader->buffer, reader->size, (uint64_t)-1);
}

static inline enum le_op_verdict le_reader_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_reader *reader = LE_CONTAINER(op, struct le_reader, op);
    int was_poll = reader->polls != 0;
    (void)flags;
    reader->polls = 0;
    if (op->state != LE_OP_IN_FLIGHT && (was_poll || result <= 0))
        return op->restart ? LE_OP_AGAIN : LE_OP_END;
    if (result == -EAGAIN)
        reader->polls = 1;
    /* ECANCELED that was not asked for: the thread that had made the request has ended. */
    if (result == -EAGAIN || result == -EINTR || result == -ECANCELED || (was_poll && result > 0))
        return LE_OP_AGAIN;
    reader->position += reader->filled;
    reader->taken = 0;
    reader->filled = result > 0 ? (uint32_t)result : 0;
    reader->error = result > 0 ? 0 : result < 0 ? result : -EIO;
    reader->on_records(loop, reader);
    /* A request that was stopped and is to go on does so when its records have been handed over, by whoever does that. */
    return op->restart && reader->taken == reader->filled ? LE_OP_AGAIN : LE_OP_END;
}

/* What has been read and not been handed over yet. */
static inline uint32_t le_reader_left(const struct le_reader *reader)
{
    return reader->filled - reader->taken;
}

/* Where in the stream of all bytes that the fd has ever brought the next record is. */
static inline uint64_t le_reader_position(const struct le_reader *reader)
{
    return reader->position + reader->taken;
}

#endif
