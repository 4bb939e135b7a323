/* le_wakers.h: the requests of the loop itself, which end its sleep: another thread, a Python signal, a deadline.
 *
 * They have no owner object: they live in the loop, which waits for their end before it goes. */
#ifndef LE_WAKERS_H
#define LE_WAKERS_H

#include <poll.h>

#include "le_loop.h"

/* The nearest deadline as a timer of the kernel. Needed only while another event loop waits for this one: while this loop
 * waits itself, the deadline is the timeout of the wait. */
struct le_deadline {
    struct le_op op;
    struct __kernel_timespec at;
    int64_t at_ns; /* LE_NS_NEVER: not set */
};
_Static_assert(offsetof(struct le_deadline, op) == 0, "le_deadline begins with its request");

static inline void le_waker_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    io_uring_prep_poll_multishot(sqe, op->fd, POLLIN);
}

/* The eventfd is never read: a multishot poll reports every write, and its counter is too wide to overflow. */
static inline enum le_op_verdict le_waker_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    (void)loop, (void)op, (void)flags;
    return result >= 0 ? LE_OP_AGAIN : LE_OP_END;
}

static inline enum le_op_verdict le_signal_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    (void)op, (void)flags;
    loop->is_signalled = 1;
    return result >= 0 ? LE_OP_AGAIN : LE_OP_END;
}

static inline void le_deadline_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_deadline *deadline = LE_CONTAINER(op, struct le_deadline, op);
    io_uring_prep_timeout(sqe, &deadline->at, 0, IORING_TIMEOUT_ABS);
}

static inline enum le_op_verdict le_deadline_on_cqe(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    (void)loop, (void)result, (void)flags;
    LE_CONTAINER(op, struct le_deadline, op)->at_ns = LE_NS_NEVER;
    return LE_OP_END;
}

static inline void le_deadline_set(struct le_loop *loop, struct le_deadline *deadline, int64_t at_ns)
{
    if (deadline->at_ns == at_ns)
        return;
    if (deadline->at_ns != LE_NS_NEVER)
        (void)le_op_stop(loop, &deadline->op);
    deadline->at_ns = at_ns;
    if (at_ns != LE_NS_NEVER) {
        deadline->at.tv_sec = at_ns / LE_NS_PER_S;
        deadline->at.tv_nsec = at_ns % LE_NS_PER_S;
        (void)le_op_start(loop, &deadline->op);
    }
}

#endif
