/* le_outcome.h: how an operation starts and comes to its result, without Python. */
#ifndef LE_OUTCOME_H
#define LE_OUTCOME_H

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "le_loop.h"
#include "le_operation.h"

static inline int le_operation_is_unwanted(const struct le_operation *operation)
{
    return (operation->flags & (LE_OPERATION_CANCELLED | LE_OPERATION_TIMED_OUT)) != 0;
}

/* The caller takes two references on the object: the loop's, which it drops when it calls back, and, if le_op_start() says
 * so, that of the request. */
static inline void le_operation_enter(struct le_loop *loop, struct le_operation *operation)
{
    operation->head.flags = LE_WATCHER_ACTIVE; /* to the lanes; it is in no table of watchers */
    le_list_push(&loop->operations, &operation->link);
    loop->operation_count++;
}

/* A chain is being made: keep the request, which was just queued, back until all of the chain is known. */
static inline void le_operation_hold(struct le_loop *loop, struct le_operation *operation)
{
    le_op_move(&operation->op, LE_OP_QUEUED, &loop->chain);
    loop->chain_length++;
}

/* The chain is complete: its requests go to the kernel one behind the other. The flag is IOSQE_IO_LINK or _HARDLINK.
 *
 * Where a request on paths, a sync or a shutdown has failed, the kernel does not take it for a failure, and goes on with the
 * link. So a chain that is to end there is handed over in parts: behind such a request the rest is held until it has
 * succeeded. */
static inline void le_chain_release(struct le_loop *loop, uint8_t link_flag)
{
    struct le_operation *leader = NULL;
    struct le_link *link;
    struct le_link *list = &loop->to_arm;
    while ((link = le_list_pop(&loop->chain))) {
        struct le_operation *operation = LE_OPERATION_OF_OP(LE_OP_OF_LINK(link));
        if ((operation->leader = leader))
            leader->follower = operation;
        leader = operation;
        le_list_push(list, link);
        if (le_list_is_empty(&loop->chain))
            break;
        if (operation->flags & LE_OPERATION_LENIENT && link_flag == IOSQE_IO_LINK) {
            operation->next = LE_OPERATION_OF_OP(LE_OP_OF_LINK(loop->chain.next));
            list = &loop->held;
        } else {
            operation->op.linked = 1;
            operation->sqe.flags |= link_flag;
        }
    }
    loop->chain_length = 0;
    loop->is_chaining = 0;
}

/* Make a request of a chain fail that the kernel has not got yet: it keeps its place, so that what follows it fails too. */
static inline void le_operation_break(struct le_operation *operation)
{
    uint8_t flags = operation->sqe.flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK);
    io_uring_prep_cancel64(&operation->sqe, (uintptr_t)operation, 0); /* nothing has this user data: that of requests is `op` */
    operation->sqe.flags = flags;
}

/* The result is about to be handed over. The caller drops the loop's reference. */
static inline void le_operation_leave(struct le_loop *loop, struct le_operation *operation)
{
    le_watcher_unpend(loop, &operation->head);
    le_heap_remove(&loop->heap, &operation->head);
    le_link_leave(&operation->link);
    loop->operation_count--;
    operation->head.flags = 0;
    operation->flags |= LE_OPERATION_DONE;
}

/* The operation has ended: the next one of its chain begins. If nobody wants that any more, it can be cancelled from now on. */
static inline void le_chain_advance(struct le_loop *loop, struct le_operation *operation)
{
    struct le_operation *leader = operation->leader, *follower = operation->follower;
    operation->leader = operation->follower = NULL;
    if (leader)
        leader->follower = NULL;
    if (follower) {
        follower->leader = NULL;
        if (le_operation_is_unwanted(follower) && follower->op.state == LE_OP_IN_FLIGHT)
            (void)le_op_stop(loop, &follower->op); /* returns 1 only for what is not in flight */
    }
}

/* Nothing more comes from the kernel: collect the operation. */
static inline void le_operation_collect(struct le_loop *loop, struct le_operation *operation, int64_t result)
{
    LE_ASSERT(!(operation->flags & (LE_OPERATION_ENDED | LE_OPERATION_DONE)));
    operation->result = result;
    operation->flags |= LE_OPERATION_ENDED;
    le_chain_advance(loop, operation);
    le_heap_remove(&loop->heap, &operation->head);
    le_watcher_collect(loop, &operation->head, LE_LANE_COMPLETIONS);
}

/* What a chain has waited for is through: hand the next part of it over, or end all of the rest. */
static inline void le_chain_follow(struct le_loop *loop, struct le_operation *operation)
{
    int goes_on = operation->result >= 0 && !(operation->flags & LE_OPERATION_CANCELLED);
    struct le_operation *member = operation->next;
    operation->next = NULL;
    while (member && member->op.state == LE_OP_QUEUED) { /* a loop that is being closed may have ended them already */
        struct le_op *following = LE_OP_OF_LINK(member->op.link.next);
        struct le_operation *next = member->op.linked ? LE_OPERATION_OF_OP(following) : goes_on ? NULL : member->next;
        if (goes_on) {
            le_op_move(&member->op, LE_OP_QUEUED, &loop->to_rearm);
        } else {
            member->next = NULL;
            member->op.linked = 0;
            le_op_move(&member->op, LE_OP_FINISHED, &loop->finished);
            le_operation_collect(loop, member, -ECANCELED);
        }
        member = next;
    }
}

static inline void le_operation_end(struct le_loop *loop, struct le_operation *operation, int64_t result)
{
    le_operation_collect(loop, operation, result);
    if (LE_UNLIKELY(operation->next != NULL))
        le_chain_follow(loop, operation);
}

static inline void le_operation_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    *sqe = LE_OPERATION_OF_OP(op)->sqe;
}

/* For requests that are answered once. */
static inline enum le_op_verdict le_operation_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_operation *operation = LE_OPERATION_OF_OP(op);
    operation->cqe_flags = flags;
    if (result == -EINTR && !(operation->flags & LE_OPERATION_CHAINED) && !le_operation_is_unwanted(operation))
        return LE_OP_AGAIN; /* a signal to a thread of the kernel, which has done nothing */
    le_operation_end(loop, operation, result);
    return LE_OP_END;
}

#define LE_PART_MAX 0x7ffff000u /* bytes that one read or write moves at most: MAX_RW_COUNT of the kernel */

/* A short write at the current position of a file: Linux 6.18 writes the part, fails with the rest (disk full, limit of the
 * size), tells the part, and leaves the position where it was; 6.1 moved it. Left so, the rest would be written over the part.
 * If the position was left the part begins there, so the file reaches at least to its end; if it was moved the part ends there,
 * and behind it is nothing but in the rare case of a file that is written over. */
static inline void le_position_mend(int fd, int64_t written)
{
    struct stat status;
    if (fstat(fd, &status) < 0 || !(S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)))
        return;
    int64_t position = lseek(fd, 0, SEEK_CUR);
    int64_t end = S_ISBLK(status.st_mode) ? lseek(fd, 0, SEEK_END) : status.st_size;
    if (position >= 0)
        (void)lseek(fd, position + written <= end ? position + written : position, SEEK_SET);
}

/* For requests that move the bytes at sqe.addr and may move fewer than asked for: asks for the rest until `total` have gone.
 * Where some have a failure comes next, which is the result. */
static inline enum le_op_verdict le_operation_on_part(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_operation *operation = LE_OPERATION_OF_OP(op);
    struct io_uring_sqe *sqe = &operation->sqe;
    operation->cqe_flags = flags;
    if (result > 0) {
        uint64_t left = operation->total - (uint64_t)(operation->result += result);
        if (!left) {
            le_operation_end(loop, operation, operation->result);
            return LE_OP_END;
        }
        sqe->addr += (uint64_t)result;
        if (sqe->opcode == IORING_OP_WRITE) { /* else `off` is the address to send to */
            if (sqe->off != UINT64_MAX)
                sqe->off += (uint64_t)result;
            else if ((uint32_t)result < sqe->len)
                le_position_mend(sqe->fd, result);
        }
        sqe->len = left < LE_PART_MAX ? (uint32_t)left : LE_PART_MAX;
    } else if (result != -EINTR) {
        /* A file that takes nothing and tells no error would be asked for ever. */
        le_operation_end(loop, operation, result == 0 && operation->total ? -EIO : result);
        return LE_OP_END;
    }
    if (le_operation_is_unwanted(operation)) {
        le_operation_end(loop, operation, -ECANCELED);
        return LE_OP_END;
    }
    /* What was linked to it has been cancelled by the kernel; the rest still tells how it ends, and has no place to keep. */
    operation->flags &= ~(uint32_t)LE_OPERATION_CHAINED;
    le_chain_advance(loop, operation);
    sqe->flags &= (uint8_t) ~(IOSQE_IO_LINK | IOSQE_IO_HARDLINK);
    return LE_OP_AGAIN;
}

#endif
