/* le_raw.h: the raw requests of a Ring, which hand over what the kernel says as it says it.
 *
 * A raw request is an operation. What it has beyond one is here: results that wait to be told, for requests that are answered
 * many times, and the links that the user makes with IOSQE_IO_LINK. */
#ifndef LE_RAW_H
#define LE_RAW_H

#include <string.h>
#include <unistd.h>

#include "le_outcome.h"
#include "le_results.h"

struct le_raw {
    int32_t *pipe;                  /* where the kernel puts the two fds of a pipe, or NULL */
    struct le_result_queue results; /* not told yet; the final one stands in the operation */
    uint32_t count;                 /* of them */
    uint8_t flags;                  /* IOSQE_*, as the user gave them */
    uint8_t opens_fd;               /* a result that is not negative is an fd, which nobody else will close */
    uint8_t reserved[2];
};
_Static_assert(sizeof(struct le_raw) == 24, "le_raw is part of a Request");

/* Both stand in the same object: op.fd, which is for the use of the class, has the distance. */
static inline struct le_raw *le_raw_of(struct le_operation *operation)
{
    return (struct le_raw *)((char *)operation + operation->op.fd);
}

static inline void le_raw_begin(struct le_raw *raw, struct le_operation *operation)
{
    operation->op.fd = (int32_t)((char *)raw - (char *)operation);
}

static inline void le_raw_fill(struct io_uring_sqe *sqe, uint8_t opcode, int fd, uint64_t addr, uint32_t len, uint64_t off)
{
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->addr = addr;
    sqe->len = len;
    sqe->off = off;
}

/* -- Results ------------------------------------------------------------------------------------------------------ */

/* Nobody will be told of the result: what it brings is not kept. */
static inline void le_raw_drop(const struct le_raw *raw, int64_t result)
{
    if (result < 0)
        return;
    if (raw->opens_fd)
        close((int)result);
    if (raw->pipe) {
        close(raw->pipe[0]);
        close(raw->pipe[1]);
    }
}

/* Take the oldest of the results that are kept; where more is to be told the request is collected once more. */
static inline struct le_result le_raw_pop(struct le_loop *loop, struct le_operation *operation)
{
    struct le_raw *raw = le_raw_of(operation);
    struct le_result result = *le_results_first(&loop->results, &raw->results);
    le_results_drop(&loop->results, &raw->results);
    raw->count--;
    if (raw->count || operation->flags & LE_OPERATION_ENDED) {
        loop->more_results--;
        le_watcher_collect(loop, &operation->head, LE_LANE_COMPLETIONS);
    }
    return result;
}

static inline void le_raw_drop_all(struct le_loop *loop, struct le_operation *operation)
{
    struct le_raw *raw = le_raw_of(operation);
    if (!raw->count)
        return;
    loop->more_results -= raw->count - !(operation->flags & LE_OPERATION_ENDED);
    for (; raw->count; raw->count--) {
        le_raw_drop(raw, le_results_first(&loop->results, &raw->results)->result);
        le_results_drop(&loop->results, &raw->results);
    }
}

static inline enum le_op_verdict le_raw_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_operation *operation = LE_OPERATION_OF_OP(op);
    struct le_raw *raw = le_raw_of(operation);
    if (!(flags & IORING_CQE_F_MORE)) {
        loop->more_results += raw->count != 0;
        operation->cqe_flags = flags;
        le_operation_end(loop, operation, result);
    } else if (operation->flags & LE_OPERATION_CANCELLED) {
        le_raw_drop(raw, result);
    } else {
        if (!le_results_push(&loop->results, &raw->results, result, flags))
            return LE_OP_LATER;
        loop->more_results += raw->count++ != 0;
        le_watcher_collect(loop, &operation->head, LE_LANE_COMPLETIONS);
    }
    return LE_OP_END;
}

/* Whether results of requests that are answered many times have to wait in the kernel's queue. */
static inline int le_raw_is_full(const struct le_loop *loop)
{
    return loop->results.items && !loop->results.free_first;
}

/* How many requests wait to be submitted, without those of the loop itself. */
static inline uint64_t le_raw_queued(const struct le_loop *loop)
{
    uint64_t count = 0;
    for (const struct le_link *link = loop->to_arm.next; link != &loop->to_arm; link = link->next)
        count += LE_OP_OF_LINK(link)->cls->owner_offset != 0;
    return count;
}

/* -- Links -------------------------------------------------------------------------------------------------------- */

/* A request whose flags link it to the next one goes alone where there is no next one in this submission: the kernel would
 * take whatever stands behind it, which may be a request of the loop itself, for the next one. */
static inline void le_raw_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    *sqe = LE_OPERATION_OF_OP(op)->sqe;
    if (!op->linked)
        sqe->flags &= (uint8_t) ~(IOSQE_IO_LINK | IOSQE_IO_HARDLINK);
}

/* Find the raw request that the next one is to be linked to; the classes of raw requests are an array, from first to last.
 * Returns how many requests its chain has, 0 if there is none. */
static inline uint32_t le_raw_chain(struct le_loop *loop, const struct le_op_class *first, const struct le_op_class *last,
                                    struct le_op **before)
{
    if (!loop->raw_chain_length)
        return 0;
    for (struct le_link *link = loop->to_arm.prev; link != &loop->to_arm; link = link->prev) {
        struct le_op *op = LE_OP_OF_LINK(link);
        if ((uintptr_t)op->cls < (uintptr_t)first || (uintptr_t)op->cls > (uintptr_t)last)
            continue;
        if (op->linked || !(LE_OPERATION_OF_OP(op)->sqe.flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK)))
            return 0;
        *before = op;
        return loop->raw_chain_length;
    }
    return 0;
}

/* Move a request that was just queued behind the one that it is linked to. */
static inline void le_raw_link(struct le_op *before, struct le_op *op)
{
    le_link_leave(&op->link);
    le_list_push(before->link.next, &op->link); /* in front of what follows it */
    before->linked = 1;
    LE_OPERATION_OF_OP(before)->follower = LE_OPERATION_OF_OP(op);
    LE_OPERATION_OF_OP(op)->leader = LE_OPERATION_OF_OP(before);
    LE_OPERATION_OF_OP(before)->flags |= LE_OPERATION_CHAINED;
    LE_OPERATION_OF_OP(op)->flags |= LE_OPERATION_CHAINED;
}

/* -- Messages ----------------------------------------------------------------------------------------------------- */

/* The completion that a message of another ring is. Its user data is the address of a request that is never freed, so a
 * message that comes late, or to the wrong ring, finds it all the same. The sender marks it as not final. */
static inline enum le_op_verdict le_message_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    (void)op;
    return loop->inbox ? loop->inbox->cls->on_cqe(loop, loop->inbox, result, flags) : LE_OP_END;
}

#endif
