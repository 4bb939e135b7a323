/* le_op.h: one request to the kernel, embedded in the Python object that owns it.
 *
 * Its address is the user data of the request, so a completion finds it without a table. From the moment it is queued
 * until its final completion (IORING_CQE_F_MORE clear) the loop holds one reference on the owner: the memory outlives
 * whatever the kernel may still say about it. le_loop.h has the only functions that change the state. */
#ifndef LE_OP_H
#define LE_OP_H

#include <stdint.h>

#include "le_list.h"

struct le_loop;
struct le_op;
struct io_uring_sqe;

#define LE_OP_ABI 2

enum le_op_state {
    LE_OP_IDLE = 0,      /* not known to the loop; the owner may be freed */
    LE_OP_QUEUED,        /* goes to the kernel with the next submission */
    LE_OP_IN_FLIGHT,     /* the kernel has it */
    LE_OP_CANCEL_QUEUED, /* in flight, and its cancellation goes with the next submission */
    LE_OP_CANCELLING,    /* in flight, and the kernel has been asked to cancel it */
    LE_OP_FINISHED       /* finally completed; the reference on the owner is about to be dropped */
};

/* What a completion means for the request. LATER: there is no room for it. It has to stay in the queue, with all behind it,
 * until callbacks have run, of which some have to be collected then. */
enum le_op_verdict { LE_OP_END = 0, LE_OP_AGAIN = 1, LE_OP_LATER = 2 };

/* What a class wants to hear of. A level of readiness that nobody waits for any more is of no interest; the result of an
 * operation always is: an fd that arrives after all has to be closed, and the owner is to be told of the end. So is what a
 * reader has read (EVERY_READ): its owner is no operation, but the kernel writes to memory of it. */
enum le_op_interest { LE_OP_UNTIL_STOPPED = 0, LE_OP_EVERY_COMPLETION = 1, LE_OP_EVERY_READ = 2 };

struct le_op_class {
    uint32_t abi;          /* LE_OP_ABI */
    uint32_t owner_offset; /* from the start of the owning object to its le_op; 0: owned by the loop itself */
    const char *name;
    /* Fill the submission entry. Called right before the system call, so an fd named here is the one the user means. */
    void (*prep)(struct le_op *op, struct io_uring_sqe *sqe);
    /* Take a completion: C only, no Python. END and AGAIN count when the completion is the final one. Once the request
     * has been cancelled it is called only for a class that wants every completion, which then says AGAIN only for a request
     * that lets go of something, such as a close. */
    enum le_op_verdict (*on_cqe)(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags);
    uint64_t interest; /* enum le_op_interest */
};
_Static_assert(sizeof(struct le_op_class) == 40, "le_op_class is part of the ABI of watcher kinds");

struct le_op {
    struct le_link link;
    const struct le_op_class *cls;
    uint8_t state;       /* enum le_op_state */
    uint8_t restart : 1; /* arm again once the cancellation is through */
    uint8_t linked : 1;  /* the next request in the list is submitted together with this one */
    uint8_t missed : 6;  /* how many times its cancellation may have found nothing */
    uint16_t bits;       /* this and fd: for the use of the class */
    int32_t fd;
};
_Static_assert(sizeof(struct le_op) == 32, "le_op is part of the ABI of watcher kinds");

#define LE_OP_MISSED_MAX 63 /* what fits into `missed` */

#define LE_OP_OF_LINK(pointer) LE_CONTAINER(pointer, struct le_op, link)

static inline void *le_op_owner(const struct le_op *op)
{
    return op->cls->owner_offset ? (char *)op - op->cls->owner_offset : NULL;
}

#endif
