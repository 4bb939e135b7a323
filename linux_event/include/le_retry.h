/* le_retry.h: requests on sockets that end with EAGAIN although they were to wait.
 *
 * io_uring waits for a socket by itself: it tries, polls, and tries again. There are places where this does not do:
 *
 * - After 128 tries in vain the kernel hands the request to a thread, which tells EAGAIN of a socket with O_NONBLOCK.
 * - A Unix socket with O_NONBLOCK cannot wait for room in the queue of a listener (connect), and a datagram socket not for
 *   room in the queue of a receiver it is not connected to: poll tells that it is writable all the time.
 * - A try that fails for a full queue of the receiver has taken the data of a Unix datagram out of the request (seen on 6.18):
 *   the next one sends an empty datagram. So the kernel must not try such a send twice: it is told not to wait
 *   (MSG_DONTWAIT), and what it tries next is a new request.
 *
 * What comes between two tries is a poll, and where that has not helped, a pause that grows. */
#ifndef LE_RETRY_H
#define LE_RETRY_H

#include <poll.h>

#include "le_outcome.h"

#define LE_PAUSE_MIN_NS 1000000
#define LE_PAUSE_MAX_NS 16000000

struct le_retry {
    struct io_uring_sqe sqe; /* what is to be tried again, while the operation waits */
    struct __kernel_timespec pause;
    uint64_t is_polled; /* the last wait was a poll, or a poll would not help */
};
_Static_assert(sizeof(struct le_retry) == 64 + 16 + 8, "le_retry is kept in bytes objects");

/* After the entry has been filled. `sqe.user_data`, which the entry in the queue gets of its own, finds the le_retry. */
static inline void le_retry_init(struct le_operation *operation, struct le_retry *retry, int can_poll)
{
    retry->pause.tv_sec = 0;
    retry->pause.tv_nsec = LE_PAUSE_MIN_NS;
    retry->is_polled = !can_poll;
    operation->sqe.user_data = (uintptr_t)retry;
}

/* For requests that are answered once. Without a le_retry the kernel knows how to wait, and is asked again. */
static inline enum le_op_verdict le_retry_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_operation *operation = LE_OPERATION_OF_OP(op);
    struct io_uring_sqe *sqe = &operation->sqe;
    struct le_retry *retry = (struct le_retry *)(uintptr_t)sqe->user_data;
    int is_wait = retry && (sqe->opcode == IORING_OP_POLL_ADD || sqe->opcode == IORING_OP_TIMEOUT);
    if (is_wait && le_operation_is_unwanted(operation))
        return le_operation_on_cqe(loop, op, -ECANCELED, flags);
    if (is_wait) {
        *sqe = retry->sqe;
        return LE_OP_AGAIN;
    }
    if (result != -EAGAIN || operation->flags & LE_OPERATION_CHAINED || le_operation_is_unwanted(operation))
        return le_operation_on_cqe(loop, op, result, flags);
    if (!retry)
        return LE_OP_AGAIN;
    retry->sqe = *sqe;
    if (!retry->is_polled) {
        io_uring_prep_poll_add(sqe, sqe->fd, POLLOUT);
        retry->is_polled = 1;
    } else {
        io_uring_prep_timeout(sqe, &retry->pause, 0, 0);
        retry->pause.tv_nsec = retry->pause.tv_nsec < LE_PAUSE_MAX_NS ? 2 * retry->pause.tv_nsec : LE_PAUSE_MAX_NS;
        retry->is_polled = retry->sqe.opcode == IORING_OP_CONNECT;
    }
    sqe->user_data = (uintptr_t)retry;
    return LE_OP_AGAIN;
}

/* For sends on streams, see le_operation_on_part(). */
static inline enum le_op_verdict le_retry_on_part(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    return le_operation_on_part(loop, op, result == -EAGAIN ? -EINTR : result, flags);
}

#endif
