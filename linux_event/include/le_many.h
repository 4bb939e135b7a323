/* le_many.h: operations with many results: one multishot request, armed again whatever has ended it early.
 *
 * IORING_CQE_F_MORE is looked at on every completion. Where it is clear the request is over, but the operation need not be:
 *
 *   data or a connection       the queue of completions was full: armed again with the next submission
 *   -EINTR, -EAGAIN            nothing has happened: the same
 *   -ECANCELED, not asked for  the thread that had armed it has ended: the same
 *   -ENOBUFS, receiving        waits for a buffer, see le_pool.h
 *   -EMFILE and the like       accepting: waits for a while, see operations/many.pyx
 *   else                       the end of the data, or an error: the operation ends once its results have been handed over
 *
 * The end that is missed. A multishot receive that has taken the last of the data, as far as the socket says how much is left,
 * goes back to wait for news. If the end was there before, it is no news, and the request waits for ever: seen on Linux 6.18
 * with data and a close on a Unix socket, and with data and a reset on TCP, wherever both came before the data were taken.
 * Hence a second request, `hangup`: a poll for the end alone, which costs nothing until then. Once it has fired the receive is
 * cancelled and made again as a single one each time, which looks at the socket first and misses nothing. */
#ifndef LE_MANY_H
#define LE_MANY_H

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "le_outcome.h"
#include "le_pool.h"
#include "le_results.h"

/* The request has ended for want of fds. WAITS: and is armed again when a time has come that was set. */
enum le_shortage { LE_SHORTAGE_NONE = 0, LE_SHORTAGE_NEW, LE_SHORTAGE_WAITS };

struct le_many {
    struct le_link link;   /* in pool->waiting */
    struct le_op *op;      /* of the operation that it belongs to */
    struct le_op hangup;   /* polls for the end of the data */
    struct le_pool *pool;  /* what it receives into, or NULL */
    struct le_pool *other; /* the one of the loop with buffers of the other size, or NULL: it is used by turns, see le_many_move */
    int64_t deadline_ns;   /* of the operation, LE_NS_NEVER: none */
    uint64_t inode;        /* of the socket that it was started with */
    struct le_result_queue results;
    int32_t outcome;       /* once it is over: 0, or a negative errno; of a shortage its errno */
    uint8_t is_over;       /* the request has ended for good */
    uint8_t shortage;      /* enum le_shortage */
    uint8_t is_timed;      /* an entry was put into the heap of deadlines: if it is there no more, its time has come */
    uint8_t is_datagram;   /* b"" is a message and not the end */
    uint8_t is_big;        /* `pool` is the one with the big buffers */
    uint8_t is_moving;     /* the request is to use `other` from the next time on that it is armed */
    uint8_t streak;        /* pieces in a row that speak for `other` */
    uint8_t reserved[5];
};
_Static_assert(sizeof(struct le_many) == 16 + 8 + 32 + 4 * 8 + 8 + 16, "le_many has no hidden padding");

#define LE_MANY_OF_LINK(pointer) LE_CONTAINER(pointer, struct le_many, link)

/* Of the flags of a result: its buffer is one of the big pool. The kernel has no such flag. */
#define LE_RESULT_BIG (1u << 15)

/* The pool that a result is in. */
static inline struct le_pool *le_many_pool(const struct le_many *many, uint32_t flags)
{
    return ((flags & LE_RESULT_BIG) != 0) == many->is_big ? many->pool : many->other;
}

/* Wait for a buffer. */
static inline void le_many_wait(struct le_loop *loop, struct le_many *many)
{
    le_list_push(&many->pool->waiting, &many->link);
    loop->waiting++;
}

static inline void le_many_leave(struct le_loop *loop, struct le_many *many)
{
    loop->waiting -= (uint64_t)le_link_is_in(&many->link);
    le_link_leave(&many->link);
}

/* Take the request that has waited longest for a buffer of this pool; the caller starts it. */
static inline struct le_op *le_pool_pop_waiting(struct le_loop *loop, struct le_pool *pool)
{
    struct le_many *many = LE_MANY_OF_LINK(pool->waiting.next);
    le_many_leave(loop, many);
    return many->op;
}

/* Get rid of a result that nobody is going to get. */
static inline void le_many_dispose(struct le_many *many, int32_t result, uint32_t flags)
{
    if (!many->pool)
        close(result);
    else if (flags & IORING_CQE_F_BUFFER)
        le_pool_give(le_many_pool(many, flags), flags >> IORING_CQE_BUFFER_SHIFT);
}

/* Get rid of all results that have not been handed over. */
static inline void le_many_drop(struct le_loop *loop, struct le_many *many)
{
    while (many->results.first) {
        const struct le_result *item = le_results_first(&loop->results, &many->results);
        le_many_dispose(many, item->result, item->flags);
        le_results_drop(&loop->results, &many->results);
    }
}

/* Whether the kernel has one of the requests, or is to get it. */
static inline int le_op_is_out(const struct le_op *op)
{
    return op->state != LE_OP_IDLE && op->state != LE_OP_FINISHED;
}

/* The request has ended for good: the operation is called until its results have been handed over, and then once more, when the
 * `other` of its requests has ended too. A cancelled one has nothing to hand over. */
static inline void le_many_end(struct le_loop *loop, struct le_many *many, int32_t outcome, const struct le_op *other)
{
    struct le_operation *operation = LE_OPERATION_OF_OP(many->op);
    many->is_over = 1;
    many->outcome = outcome;
    if (operation->flags & LE_OPERATION_CANCELLED && !le_op_is_out(other))
        le_operation_end(loop, operation, -ECANCELED);
    else
        le_watcher_collect(loop, &operation->head, LE_LANE_COMPLETIONS);
}

/* Errors of a connection that has failed before it was accepted: the next one may be good. See accept(2). */
static inline int le_is_of_one_connection(int error)
{
    switch (error) {
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
        return 1;
    default:
        return 0;
    }
}

static inline int le_is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* Big buffers for big streams, small ones for the others: let the request, which is not with the kernel, use the other pool. */
static inline void le_many_move(struct le_many *many, struct le_operation *operation)
{
    struct le_pool *pool = many->other;
    many->other = many->pool;
    many->pool = pool;
    many->is_big ^= 1;
    many->is_moving = 0;
    many->streak = 0;
    operation->sqe.buf_group = pool->group;
}

static inline enum le_op_verdict le_many_on_cqe(struct le_loop *loop, struct le_op *op, struct le_many *many, int32_t result,
                                                uint32_t flags)
{
    struct le_operation *operation = LE_OPERATION_OF_OP(op);
    int has_buffer = many->pool && flags & IORING_CQE_F_BUFFER;
    flags |= many->is_big ? LE_RESULT_BIG : 0;
    int is_piece = many->pool ? result > 0 || (result == 0 && many->is_datagram) : result >= 0;
    if (operation->flags & LE_OPERATION_CANCELLED || (has_buffer && !is_piece)) {
        if (has_buffer)
            le_pool_take(many->pool, flags >> IORING_CQE_BUFFER_SHIFT);
        if (has_buffer || is_piece)
            le_many_dispose(many, result, flags);
    }
    if (operation->flags & LE_OPERATION_CANCELLED) {
        if (!(flags & IORING_CQE_F_MORE))
            le_many_end(loop, many, -ECANCELED, &many->hangup);
        return LE_OP_END;
    }
    if (is_piece) {
        if (!le_results_push(&loop->results, &many->results, result, flags))
            return LE_OP_LATER;
        if (has_buffer)
            le_pool_take(many->pool, flags >> IORING_CQE_BUFFER_SHIFT);
        le_watcher_collect(loop, &operation->head, LE_LANE_COMPLETIONS);
    }
    if (flags & IORING_CQE_F_MORE)
        return LE_OP_END;
    if (operation->flags & LE_OPERATION_TIMED_OUT) {
        le_many_end(loop, many, -ECANCELED, &many->hangup);
        return LE_OP_END;
    }
    struct le_pool *short_pool = many->pool;
    if (many->is_moving)
        le_many_move(many, operation);
    if (is_piece || result == -EINTR || result == -EAGAIN || result == -ECANCELED)
        return LE_OP_AGAIN;
    if (many->pool && result == -ENOBUFS) {
        le_pool_fall_short(short_pool);
        le_many_wait(loop, many);
        return LE_OP_END;
    }
    if (!many->pool && le_is_of_one_connection(-result))
        return LE_OP_AGAIN;
    if (!many->pool && le_is_shortage(-result)) {
        many->shortage = LE_SHORTAGE_NEW;
        many->outcome = result;
        le_watcher_collect(loop, &operation->head, LE_LANE_COMPLETIONS);
        return LE_OP_END;
    }
    le_many_end(loop, many, result, &many->hangup);
    return LE_OP_END;
}

static inline uint64_t le_inode(int fd)
{
    struct stat status;
    return fstat(fd, &status) ? 0 : (uint64_t)status.st_ino;
}

/* A socket that was closed meanwhile is kept open by the request alone. Armed again, it would be that of whatever has got the
 * number since: then it fails with EBADF. */
static inline void le_many_prep(struct le_op *op, struct le_many *many, struct io_uring_sqe *sqe)
{
    struct le_operation *operation = LE_OPERATION_OF_OP(op);
    *sqe = operation->sqe;
    if (!many->inode)
        many->inode = le_inode(sqe->fd);
    else if (many->inode != le_inode(sqe->fd))
        sqe->fd = -1;
}

static inline void le_many_prep_hangup(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_many *many = LE_CONTAINER(op, struct le_many, hangup);
    io_uring_prep_poll_add(sqe, LE_OPERATION_OF_OP(many->op)->sqe.fd, EPOLLRDHUP); /* errors are always told */
}

static inline enum le_op_verdict le_many_on_hangup(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_many *many = LE_CONTAINER(op, struct le_many, hangup);
    struct le_operation *operation = LE_OPERATION_OF_OP(many->op);
    (void)flags;
    if (many->is_over) { /* that was what it has waited for */
        le_many_end(loop, many, many->outcome, many->op);
        return LE_OP_END;
    }
    if (op->state == LE_OP_IN_FLIGHT && (result == -EINTR || result == -ECANCELED))
        return LE_OP_AGAIN;
    if (result > 0) {
        operation->sqe.ioprio = 0;
        if (many->op->state == LE_OP_IN_FLIGHT)
            le_op_stop(loop, many->op);
    }
    return LE_OP_END;
}

/* Fill the entry for receiving into a pool. It is looked first whether there are data: to arm one on a quiet connection takes
 * no buffer, and is not refused for want of one. */
static inline void le_many_prep_recv(struct le_operation *operation, struct le_many *many, int fd)
{
    io_uring_prep_recv_multishot(&operation->sqe, fd, NULL, 0, 0);
    operation->sqe.ioprio |= IORING_RECVSEND_POLL_FIRST;
    operation->sqe.flags |= IOSQE_BUFFER_SELECT;
    operation->sqe.buf_group = many->pool->group;
}

static inline void le_many_prep_accept(struct le_operation *operation, int fd)
{
    io_uring_prep_multishot_accept(&operation->sqe, fd, NULL, NULL, SOCK_CLOEXEC);
}

#endif
