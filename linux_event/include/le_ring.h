/* le_ring.h: the two queues shared with the kernel, and the seam beneath them.
 *
 * liburing maps the queues; filling, publishing and reading them is inline here. The four operations of le_ring_ops are
 * all that enters the kernel: in production they are io_uring's, in tests they may be scripted. */
#ifndef LE_RING_H
#define LE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "le_compat.h"

#define LE_RING_ABI 1
#define LE_WAIT_FOREVER (-1)

struct le_ring;

struct le_ring_ops {
    uint32_t abi; /* LE_RING_ABI */
    /* Create the queues, in the state "disabled". flags are IORING_SETUP_*. Returns 0 or a negative errno. */
    int (*open)(struct le_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t flags);
    /* Let the calling thread, and only that, use the ring. */
    int (*enable)(struct le_ring *ring);
    /* io_uring_enter(2): hand over what is published, run what the kernel has put off, and wait for wait_nr completions
     * at most timeout_ns (LE_WAIT_FOREVER: no limit). Returns the number of entries taken or a negative errno. */
    int (*enter)(struct le_ring *ring, uint32_t wait_nr, int64_t timeout_ns);
    void (*close)(struct le_ring *ring);
};
_Static_assert(sizeof(struct le_ring_ops) == 40, "le_ring_ops is part of the ABI of scripted rings");

struct le_ring {
    struct io_uring uring;
    const struct le_ring_ops *ops;
    uint64_t syscalls;
    uint64_t submissions;
    uint64_t cq_overflows; /* times the completion queue was found too small */
    uint32_t enter_flags;  /* added to every enter */
    uint8_t is_open;
    uint8_t is_enabled;
    uint8_t is_polled;   /* SQPOLL: a kernel thread takes the entries */
};
_Static_assert(offsetof(struct le_ring, uring) == 0, "le_ring begins with liburing's");

/* The next free submission entry, zeroed by the prep function that fills it, or NULL while the queue is full. */
static inline struct io_uring_sqe *le_ring_sqe(struct le_ring *ring)
{
    return io_uring_get_sqe(&ring->uring);
}

/* Make the filled entries visible to the kernel. Returns how many it has not taken yet: entries left over from a
 * submission that was cut short count again. */
static inline uint32_t le_ring_publish(struct le_ring *ring)
{
    struct io_uring_sq *sq = &ring->uring.sq;
    if (sq->sqe_head != sq->sqe_tail) {
        ring->submissions += sq->sqe_tail - sq->sqe_head;
        if (sq->array)
            for (; sq->sqe_head != sq->sqe_tail; sq->sqe_head++)
                sq->array[sq->sqe_head & sq->ring_mask] = sq->sqe_head & sq->ring_mask;
        sq->sqe_head = sq->sqe_tail;
        io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    }
    return sq->sqe_tail - io_uring_smp_load_acquire(sq->khead);
}

static inline uint32_t le_ring_sq_flags(const struct le_ring *ring)
{
    return IO_URING_READ_ONCE(*ring->uring.sq.kflags);
}

static inline uint32_t le_ring_cq_ready(const struct le_ring *ring)
{
    return io_uring_smp_load_acquire(ring->uring.cq.ktail) - *ring->uring.cq.khead;
}

/* Whether entering the kernel would bring completions to the queue: it has put off work, or kept what did not fit. Costs
 * a read of shared memory. It may say so in vain: the flag is raised after the work was queued, which another processor may
 * have run by then, and an enter that finds no work does not take it down. */
static inline int le_ring_is_flagged(const struct le_ring *ring)
{
    return (le_ring_sq_flags(ring) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

#endif
