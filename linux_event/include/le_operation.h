/* le_operation.h: one request with one result, embedded in the Python object as its first field.
 *
 * To the lanes and to the heap of deadlines an operation is a watcher that is called once: when its result is in, or before
 * that when its deadline has come. le_outcome.h has the functions. */
#ifndef LE_OPERATION_H
#define LE_OPERATION_H

#include <stdint.h>

#include "le_compat.h"
#include "le_op.h"
#include "le_watcher.h"

enum le_operation_flag {
    LE_OPERATION_CANCELLED = 1, /* cancel() was called: what the kernel brings all the same is disposed of */
    LE_OPERATION_TIMED_OUT = 2, /* the deadline came first, and the request has been asked to end */
    LE_OPERATION_ENDED = 4,     /* the result is in, and collected */
    LE_OPERATION_DONE = 8,      /* the result has been handed over, or is being so */
    LE_OPERATION_CHAINED = 16,  /* submitted linked to others: nothing of it can be asked for again by itself */
    LE_OPERATION_KEPT = 32,     /* the kernel may still have it though its loop is gone: its memory is never freed */
    LE_OPERATION_SETTLED = 64,  /* what it is for has happened or is happening: too late to cancel it, or for its deadline */
    LE_OPERATION_LENIENT = 128, /* the kernel would go on with the chain where this fails, so the loop does it when it has not */
    LE_OPERATION_RAISED = 256,  /* the callback that got the result has raised an exception */
};

struct le_operation {
    struct le_watcher head;
    struct le_link link; /* in loop->operations from the start until the callback is called */
    struct le_op op;
    struct io_uring_sqe sqe; /* what `op` asks for: filled at the call, copied into the queue right before the system call */
    int64_t result;          /* what the kernel has answered, or the sum of its answers */
    uint64_t total;          /* bytes to move, for a request that is made again until all have gone */
    struct le_operation *next; /* what goes on with the chain when this has not failed, see le_chain_follow() */
    uint32_t cqe_flags;      /* of the last completion */
    uint32_t flags;          /* enum le_operation_flag */
    struct le_operation *leader; /* in a chain: what has to end before this one begins, until it has */
    struct le_operation *follower;
};
_Static_assert(sizeof(struct le_operation) == 40 + 16 + 32 + 64 + 24 + 24, "le_operation is part of the ABI of operations");

#define LE_OPERATION_OF_OP(pointer) LE_CONTAINER(pointer, struct le_operation, op)
#define LE_OPERATION_OF_LINK(pointer) LE_CONTAINER(pointer, struct le_operation, link)

#endif
