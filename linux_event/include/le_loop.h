/* le_loop.h: the state of a loop, and everything that changes it without Python.
 *
 * Nothing here takes or drops a Python reference. Where one has to change hands the function says so in what it
 * returns, or puts the request into the list `finished`, which loop.pyx empties. */
#ifndef LE_LOOP_H
#define LE_LOOP_H

#include <errno.h>
#include <stdint.h>

#include "le_chunks.h"
#include "le_clock.h"
#include "le_compat.h"
#include "le_fifo.h"
#include "le_heap.h"
#include "le_list.h"
#include "le_op.h"
#include "le_operation.h"
#include "le_pipes.h"
#include "le_pool.h"
#include "le_results.h"
#include "le_ring.h"
#include "le_slots.h"
#include "le_table.h"
#include "le_watcher.h"

enum le_loop_state { LE_LOOP_OPEN = 0, LE_LOOP_CLOSED, LE_LOOP_FORKED };

struct le_loop;

/* What its owner has to do by a system call of its own right before the loop enters the kernel: once for all that was asked for
 * in an iteration. Whoever owns it takes it out of the list before it goes away. */
struct le_flush {
    struct le_link link; /* in loop->to_flush */
    /* C only; the GIL is held. Returns whether the loop has to look again before it waits: something was collected, or a
     * deadline set, or it is to be called once more. */
    int (*on_flush)(struct le_loop *loop, struct le_flush *flush);
};
_Static_assert(sizeof(struct le_flush) == 24, "le_flush has no hidden padding");

struct le_loop {
    struct le_ring ring;

    struct le_link to_arm;    /* requests in the state QUEUED */
    struct le_link chain;     /* QUEUED, and held back until all of the chain is known; then moved to to_arm */
    struct le_link held;      /* QUEUED: members of a chain that wait for the end of one of it, see le_chain_follow() */
    struct le_link to_rearm;  /* QUEUED too, but by the completion that ended them: not before the next enter */
    struct le_link to_cancel; /* CANCEL_QUEUED */
    struct le_link in_flight; /* IN_FLIGHT and CANCELLING */
    struct le_link finished;  /* FINISHED: references to drop */
    struct le_link to_flush;  /* see struct le_flush */

    struct le_link lanes[LE_LANES][LE_PRIORITIES];
    struct le_link recheck;
    struct le_link idle;       /* active idle watchers */
    struct le_link notified;   /* active watchers that other threads have notified, see struct le_notified */
    struct le_link operations; /* started, and their callback has not been called: one reference each, see le_operation.h */
    uint64_t pending;    /* watchers in all lanes */
    struct le_results results; /* of operations with many, not handed over yet */
    struct le_link pools;      /* of buffers */
    uint64_t waiting;          /* requests that wait for a buffer of one of them */

    struct le_heap heap;
    struct le_fifo deferred;
    struct le_table watchers;
    struct le_index by_fd;
    struct le_index by_signal;
    struct le_index by_child; /* active watchers of children, by a remainder of the pid */
    struct le_pipes pipes; /* for data that are spliced */
    struct le_chunks chunks; /* for small pieces of data to be sent */

    struct le_slots slots;

    uint64_t next_id;
    uint64_t active;         /* active watchers */
    uint64_t active_ref;     /* those of them that keep run() going */
    uint64_t operation_count; /* members of the list `operations` */
    uint64_t streams;        /* those of them that are streams, listeners, datagram sockets */
    uint64_t listeners;
    uint64_t datagrams;
    uint64_t requests;       /* requests of watchers and operations that are not idle */
    uint64_t own_requests;   /* requests of the loop itself that are not idle */
    uint64_t cancelling;     /* requests in CANCEL_QUEUED or CANCELLING */
    uint64_t iterations;
    uint64_t callbacks;
    uint64_t completions;
    uint64_t other_syscalls; /* of the watchers, such as poll(2): those of the ring are counted there */

    /* Level-triggered I/O: asks the fds in `recheck`, see le_recheck(). Set by the module of that kind of watcher. */
    void (*on_recheck)(struct le_loop *loop, int only_everything);

    uint8_t state; /* enum le_loop_state */
    uint8_t is_running;
    uint8_t is_asleep;   /* blocked in the kernel with the GIL released */
    uint8_t is_woken;    /* its sleep is about to end, because somebody has written to its eventfd */
    uint8_t is_stopping; /* stop() was called */
    uint8_t is_chaining; /* operations that start now become part of the chain */
    uint32_t chain_length;
    /* Of the raw requests of a Ring, see le_raw.h. */
    struct le_op *inbox;       /* takes the messages of other rings; NULL: they are dropped */
    uint64_t more_results;     /* waiting to be told, beyond the one for each watcher and operation that `pending` counts */
    uint32_t raw_chain_length; /* requests of the chain that the next raw request continues; 0: there is none */
    uint16_t next_group;  /* number to try for the next pool of buffers */
    uint8_t is_reordered; /* a collected watcher has changed its lane */
    uint8_t is_signalled; /* the pipe of the Python signals has been written to */
    uint8_t is_cancel_missed; /* a cancellation has found nothing: see le_loop_recancel() */
    uint8_t is_embedded; /* fileno() was called: another event loop waits for this one */
};
_Static_assert(offsetof(struct le_loop, ring) == 0, "le_loop begins with its ring");

static inline void le_loop_init(struct le_loop *loop)
{
    struct le_link *heads[] = {&loop->to_arm,   &loop->chain,   &loop->held, &loop->to_rearm,   &loop->to_cancel, &loop->in_flight,
                               &loop->finished, &loop->recheck, &loop->idle, &loop->operations, &loop->pools,
                               &loop->notified, &loop->to_flush};
    for (unsigned i = 0; i < sizeof heads / sizeof *heads; i++)
        le_list_init(heads[i]);
    for (unsigned lane = 0; lane < LE_LANES; lane++)
        for (unsigned rank = 0; rank < LE_PRIORITIES; rank++)
            le_list_init(&loop->lanes[lane][rank]);
    le_slots_init(&loop->slots);
    loop->next_id = 1;
}

static inline void le_loop_free(struct le_loop *loop)
{
    le_heap_free(&loop->heap);
    le_fifo_free(&loop->deferred);
    le_table_free(&loop->watchers);
    le_index_free(&loop->by_fd);
    le_index_free(&loop->by_signal);
    le_index_free(&loop->by_child);
    le_results_free(&loop->results);
    le_chunks_free(&loop->chunks);
    le_slots_free(&loop->slots);
}

/* -- The life of a request: the only functions that change le_op.state ------------------------------------------- */

static inline void le_op_move(struct le_op *op, enum le_op_state state, struct le_link *list)
{
    le_link_leave(&op->link);
    op->state = state;
    if (list)
        le_list_push(list, &op->link);
}

static inline uint64_t *le_op_counter(struct le_loop *loop, const struct le_op *op)
{
    return op->cls->owner_offset ? &loop->requests : &loop->own_requests;
}

/* Ask for the request to be made. Returns 1 if the caller must take a reference on the owner for the loop, else 0. */
static inline int le_op_start(struct le_loop *loop, struct le_op *op)
{
    switch (op->state) {
    case LE_OP_IDLE:
        op->restart = 0;
        op->missed = 0;
        le_op_move(op, LE_OP_QUEUED, &loop->to_arm);
        ++*le_op_counter(loop, op);
        return 1;
    case LE_OP_FINISHED:
        op->restart = 0;
        le_op_move(op, LE_OP_QUEUED, &loop->to_arm);
        return 0;
    case LE_OP_CANCEL_QUEUED:
    case LE_OP_CANCELLING:
        /* The fd may be another file by now, so the old request has to end before the new one begins. */
        op->restart = 1;
        return 0;
    default:
        return 0;
    }
}

/* Ask for the request to end. Returns 1 if it is over and the caller must drop the loop's reference, else 0. */
static inline int le_op_stop(struct le_loop *loop, struct le_op *op)
{
    op->restart = 0;
    switch (op->state) {
    case LE_OP_QUEUED:
        le_op_move(op, LE_OP_IDLE, NULL);
        --*le_op_counter(loop, op);
        return 1;
    case LE_OP_IN_FLIGHT:
        le_op_move(op, LE_OP_CANCEL_QUEUED, &loop->to_cancel);
        loop->cancelling++;
        return 0;
    default:
        return 0;
    }
}

/* Take the next finished request out of its list; the caller drops the reference on its owner. */
static inline struct le_op *le_op_next_finished(struct le_loop *loop)
{
    struct le_link *link = loop->finished.next;
    if (link == &loop->finished)
        return NULL;
    struct le_op *op = LE_CONTAINER(link, struct le_op, link);
    le_op_move(op, LE_OP_IDLE, NULL);
    --*le_op_counter(loop, op);
    return op;
}

/* Returns 0 if the completion has to stay where it is, else 1. */
static inline int le_op_complete(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    int is_final = !(flags & IORING_CQE_F_MORE);
    int again = op->restart;
    if (LE_UNLIKELY(result <= -LE_ERESTARTSYS))
        result = -EINTR;
    LE_ASSERT(op->state == LE_OP_IN_FLIGHT || op->state == LE_OP_CANCEL_QUEUED || op->state == LE_OP_CANCELLING);
    if (op->cls->interest != LE_OP_UNTIL_STOPPED) {
        enum le_op_verdict verdict = op->cls->on_cqe(loop, op, result, flags);
        if (LE_UNLIKELY(verdict == LE_OP_LATER))
            return 0;
        again = verdict == LE_OP_AGAIN;
    } else if (op->state == LE_OP_IN_FLIGHT) {
        /* Nobody asked for an end: the thread that armed the request may have exited, which says nothing about the fd. */
        if (result == -ECANCELED)
            again = 1;
        else
            again = op->cls->on_cqe(loop, op, result, flags) == LE_OP_AGAIN;
    }
    if (!is_final)
        return 1;
    loop->cancelling -= op->state != LE_OP_IN_FLIGHT;
    op->restart = 0;
    if (again)
        le_op_move(op, LE_OP_QUEUED, &loop->to_rearm);
    else
        le_op_move(op, LE_OP_FINISHED, &loop->finished);
    return 1;
}

/* A cancellation has found nothing. Most often the request has just ended. But between two attempts at it, when a poll has
 * woken it and the kernel has put the next attempt off, or hands it to a thread, a request is in none of the places where
 * the kernel looks for it, and goes on as if nothing had been asked: then ask again. What the kernel cannot cancel at all is
 * not found either (a read of a disk), so there is an end to it. */
static inline void le_loop_recancel(struct le_loop *loop)
{
    struct le_link *next;
    loop->is_cancel_missed = 0;
    if (!loop->cancelling)
        return;
    for (struct le_link *link = loop->in_flight.next; link != &loop->in_flight; link = next) {
        struct le_op *op = LE_OP_OF_LINK(link);
        next = link->next;
        if (op->state == LE_OP_CANCELLING && op->missed < LE_OP_MISSED_MAX) {
            op->missed++;
            le_op_move(op, LE_OP_CANCEL_QUEUED, &loop->to_cancel);
        }
    }
}

/* Let what completions have queued go with the coming submission. A poll that a full completion queue has ended completes
 * as soon as it is armed: armed anew by the same enter it would go round for ever, and callbacks would never get their turn. */
static inline void le_loop_take_rearmed(struct le_loop *loop)
{
    struct le_link *link;
    while ((link = le_list_pop(&loop->to_rearm)))
        le_list_push(&loop->to_arm, link);
    if (LE_UNLIKELY(loop->is_cancel_missed))
        le_loop_recancel(loop);
}

/* How many requests, from this one on, have to be submitted together. */
static inline uint32_t le_op_chain_length(const struct le_loop *loop, const struct le_op *op)
{
    uint32_t length = 1;
    /* While a loop is being closed, what comes next may have left the list already. */
    for (; op->linked && op->link.next != &loop->to_arm; length++)
        op = LE_OP_OF_LINK(op->link.next);
    return length;
}

/* Fill submission entries for everything queued, as many as fit. Returns whether all of it did. */
static inline int le_loop_fill(struct le_loop *loop)
{
    struct io_uring_sqe *sqe;
    /* Cancellations first: they make room in the kernel and let the peers of closed fds see the end. */
    while (!le_list_is_empty(&loop->to_cancel)) {
        if (!(sqe = le_ring_sqe(&loop->ring)))
            return 0;
        struct le_op *op = LE_CONTAINER(loop->to_cancel.next, struct le_op, link);
        io_uring_prep_cancel64(sqe, (uintptr_t)op, 0);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        sqe->user_data = 0;
        le_op_move(op, LE_OP_CANCELLING, &loop->in_flight);
    }
    /* The kernel ends a chain where a submission ends: there has to be room for all of it. */
    for (uint32_t chain = 0; !le_list_is_empty(&loop->to_arm); chain--) {
        struct le_op *op = LE_OP_OF_LINK(loop->to_arm.next);
        if (!chain && (chain = le_op_chain_length(loop, op)) > 1 && io_uring_sq_space_left(&loop->ring.uring) < chain)
            return 0;
        if (!(sqe = le_ring_sqe(&loop->ring)))
            return 0;
        op->cls->prep(op, sqe);
        op->linked = 0;
        sqe->user_data = (uintptr_t)op;
        le_op_move(op, LE_OP_IN_FLIGHT, &loop->in_flight);
    }
    return 1;
}

/* Returns whether the loop has to look again before it waits. */
static inline int le_loop_flush(struct le_loop *loop)
{
    struct le_link taken, *link;
    int look_again = 0;
    le_list_init(&taken);
    while ((link = le_list_pop(&loop->to_flush)))
        le_list_push(&taken, link);
    while ((link = le_list_pop(&taken))) {
        struct le_flush *flush = LE_CONTAINER(link, struct le_flush, link);
        look_again |= flush->on_flush(loop, flush);
    }
    return look_again;
}

/* Whether something waits to be handed to the kernel. */
static inline int le_loop_has_queued(const struct le_loop *loop)
{
    const struct io_uring_sq *sq = &loop->ring.uring.sq;
    return !le_list_is_empty(&loop->to_arm) || !le_list_is_empty(&loop->to_rearm) ||
           !le_list_is_empty(&loop->to_cancel) || !le_list_is_empty(&loop->to_flush) || loop->is_cancel_missed || sq->sqe_tail != io_uring_smp_load_acquire(sq->khead);
}

/* Whether requests that wait for a buffer could go on. */
static inline int le_loop_can_feed(const struct le_loop *loop)
{
    if (LE_LIKELY(!loop->waiting))
        return 0;
    for (const struct le_link *link = loop->pools.next; link != &loop->pools; link = link->next)
        if (le_pool_is_wanted(LE_POOL_OF_LINK(link)))
            return 1;
    return 0;
}

/* Buffers of all pools that hold data not handed over yet. */
static inline uint64_t le_loop_buffers_in_use(const struct le_loop *loop)
{
    uint64_t count = 0;
    for (const struct le_link *link = loop->pools.next; link != &loop->pools; link = link->next)
        count += LE_POOL_OF_LINK(link)->in_use;
    return count;
}

/* Whether there is a reason to enter the kernel that cannot be seen from the completion queue alone. */
static inline int le_loop_wants_enter(const struct le_loop *loop)
{
    return le_loop_has_queued(loop) || le_ring_is_flagged(&loop->ring) || le_loop_can_feed(loop);
}

/* The ring is gone: end every request that the kernel had, or was to get. */
static inline void le_loop_abandon(struct le_loop *loop)
{
    struct le_link *lists[] = {&loop->to_arm,   &loop->chain,     &loop->held,
                               &loop->to_rearm, &loop->to_cancel, &loop->in_flight};
    for (unsigned i = 0; i < sizeof lists / sizeof *lists; i++)
        while (!le_list_is_empty(lists[i]))
            le_op_move(LE_OP_OF_LINK(lists[i]->next), LE_OP_FINISHED, &loop->finished);
    loop->cancelling = 0;
}

/* Read the completion queue until it is empty, or until there is no room for the next completion. Completions change requests
 * and put watchers into lanes; they run nothing. */
static inline void le_loop_reap(struct le_loop *loop)
{
    struct io_uring *uring = &loop->ring.uring;
    uint32_t ready;
    while ((ready = le_ring_cq_ready(&loop->ring))) {
        uint32_t head = *uring->cq.khead, i;
        for (i = 0; i < ready; i++) {
            const struct io_uring_cqe *cqe = &uring->cq.cqes[(head + i) & uring->cq.ring_mask];
            struct le_op *op = (struct le_op *)(uintptr_t)cqe->user_data;
            if (op && !le_op_complete(loop, op, cqe->res, cqe->flags))
                break;
            if (!op && cqe->res == -ENOENT) /* cancellations carry no request, and complete only where they fail */
                loop->is_cancel_missed = 1;
        }
        io_uring_cq_advance(uring, i);
        loop->completions += i;
        if (i < ready)
            break;
    }
}

/* -- Watchers ----------------------------------------------------------------------------------------------------- */

static inline int le_watcher_is(const struct le_watcher *watcher, enum le_watcher_flag flag)
{
    return (watcher->flags & flag) != 0;
}

/* Returns 1 if the caller must take a reference on the watcher for the loop, else 0. */
static inline int le_watcher_activate(struct le_loop *loop, struct le_watcher *watcher)
{
    if (le_watcher_is(watcher, LE_WATCHER_ACTIVE))
        return 0;
    watcher->flags |= LE_WATCHER_ACTIVE;
    loop->active++;
    loop->active_ref += le_watcher_is(watcher, LE_WATCHER_REF);
    return 1;
}

static inline void le_watcher_unpend(struct le_loop *loop, struct le_watcher *watcher)
{
    if (watcher->flags & (LE_WATCHER_PENDING | LE_WATCHER_RECHECK)) {
        loop->pending -= le_watcher_is(watcher, LE_WATCHER_PENDING);
        watcher->flags &= (uint8_t) ~(LE_WATCHER_PENDING | LE_WATCHER_TIMED | LE_WATCHER_RECHECK);
        le_link_leave(&watcher->link);
    }
    watcher->events = 0;
}

/* Returns 1 if the caller must drop the loop's reference on the watcher, else 0. */
static inline int le_watcher_deactivate(struct le_loop *loop, struct le_watcher *watcher)
{
    le_watcher_unpend(loop, watcher);
    le_heap_remove(&loop->heap, watcher);
    if (!le_watcher_is(watcher, LE_WATCHER_ACTIVE))
        return 0;
    watcher->flags &= (uint8_t)~LE_WATCHER_ACTIVE;
    loop->active--;
    loop->active_ref -= le_watcher_is(watcher, LE_WATCHER_REF);
    return 1;
}

/* Collect the watcher: its callback runs in this iteration, or later if the portion of completions is used up. */
static inline void le_watcher_collect(struct le_loop *loop, struct le_watcher *watcher, enum le_lane lane)
{
    if (le_watcher_is(watcher, LE_WATCHER_PENDING))
        return;
    if (le_watcher_is(watcher, LE_WATCHER_RECHECK)) {
        watcher->flags &= (uint8_t)~LE_WATCHER_RECHECK;
        le_link_leave(&watcher->link);
    }
    watcher->flags |= lane == LE_LANE_TIMERS ? LE_WATCHER_PENDING | LE_WATCHER_TIMED : LE_WATCHER_PENDING;
    loop->pending++;
    le_list_push(&loop->lanes[lane][watcher->priority - LE_PRIORITY_MIN], &watcher->link);
}

/* What was collected before the loop was left may have been consumed since: ask the level-triggered watchers again, before
 * those that have been called, in the order in which they were collected. Whether the loop is idle will be seen anew. */
static inline void le_loop_uncollect(struct le_loop *loop)
{
    for (struct le_link *link = loop->idle.next; link != &loop->idle; link = link->next)
        le_watcher_unpend(loop, LE_CONTAINER(link, struct le_idle, link)->watcher);
    for (unsigned rank = 0; rank < LE_PRIORITIES; rank++) {
        struct le_link *head = &loop->lanes[LE_LANE_COMPLETIONS][rank];
        for (struct le_link *link = head->prev, *former; link != head; link = former) {
            struct le_watcher *watcher = LE_CONTAINER(link, struct le_watcher, link);
            former = link->prev;
            if (!le_watcher_is(watcher, LE_WATCHER_LEVEL))
                continue;
            le_watcher_unpend(loop, watcher);
            watcher->flags |= LE_WATCHER_RECHECK;
            le_list_push(loop->recheck.next, link); /* in front of the first */
        }
    }
}

/* Take the next collected watcher of a lane, or NULL. */
static inline struct le_watcher *le_lane_pop(struct le_loop *loop, enum le_lane lane, unsigned rank)
{
    struct le_link *link = le_list_pop(&loop->lanes[lane][rank]);
    if (!link)
        return NULL;
    struct le_watcher *watcher = LE_CONTAINER(link, struct le_watcher, link);
    watcher->flags &= (uint8_t) ~(LE_WATCHER_PENDING | LE_WATCHER_TIMED);
    loop->pending--;
    /* A burst of timers is bound by memory: the objects of the calls after the next are fetched while this one runs. */
    struct le_link *ahead = loop->lanes[lane][rank].next->next;
    __builtin_prefetch((char *)ahead - 32, 1);
    __builtin_prefetch((char *)ahead + 48, 1);
    __builtin_prefetch((char *)ahead->next, 1);
    return watcher;
}

/* Change the priority; a watcher already collected goes to the end of its new lane. */
static inline void le_watcher_prioritize(struct le_loop *loop, struct le_watcher *watcher, int8_t priority)
{
    enum le_lane lane = le_watcher_is(watcher, LE_WATCHER_TIMED) ? LE_LANE_TIMERS : LE_LANE_COMPLETIONS;
    watcher->priority = priority;
    if (le_watcher_is(watcher, LE_WATCHER_PENDING)) {
        le_link_leave(&watcher->link);
        le_list_push(&loop->lanes[lane][priority - LE_PRIORITY_MIN], &watcher->link);
        loop->is_reordered = 1;
    }
}

/* Collect the watchers whose deadline has come. */
static inline void le_loop_collect_timers(struct le_loop *loop, int64_t now_ns)
{
    while (loop->heap.count && loop->heap.entries[0].deadline_ns <= now_ns) {
        struct le_watcher *watcher = le_heap_first(&loop->heap);
        le_heap_remove(&loop->heap, watcher);
        for (uint32_t i = 1; i <= LE_HEAP_ARITY && i < loop->heap.count; i++)
            __builtin_prefetch(loop->heap.watchers[loop->heap.entries[i].slot], 1);
        le_watcher_collect(loop, watcher, LE_LANE_TIMERS);
    }
    if (!loop->heap.count)
        le_heap_trim(&loop->heap);
}

/* Collect what has been notified. A notification that comes from now on, from a callback say, is for the next iteration. */
static inline void le_loop_collect_notified(struct le_loop *loop)
{
    struct le_link *link;
    while ((link = le_list_pop(&loop->notified)))
        le_watcher_collect(loop, LE_CONTAINER(link, struct le_notified, link)->watcher, LE_LANE_COMPLETIONS);
}

/* Collect all active idle watchers, in the lanes of the timers: all of them belong to this iteration. */
static inline void le_loop_collect_idle(struct le_loop *loop)
{
    for (struct le_link *link = loop->idle.next; link != &loop->idle; link = link->next)
        le_watcher_collect(loop, LE_CONTAINER(link, struct le_idle, link)->watcher, LE_LANE_TIMERS);
}

typedef int (*le_visit)(void *object, void *arg);

/* Visit every reference that the loop holds without a Python field: deferred calls, active watchers, requests. The object of
 * a watcher begins watcher_offset before its le_watcher. Stops at the first result that is not 0 and returns it. */
static inline int le_loop_visit(const struct le_loop *loop, size_t watcher_offset, le_visit visit, void *arg)
{
    int result;
    if (!loop->in_flight.next) /* a collection may come before le_loop_init() */
        return 0;
    for (uint64_t position = loop->deferred.head; position != loop->deferred.tail; position++) {
        const struct le_call *call = le_fifo_at(&loop->deferred, position);
        if ((result = visit(call->callable, arg)) || (call->args && (result = visit(call->args, arg))))
            return result;
    }
    for (uint64_t place = 0; place < loop->watchers.capacity; place++) {
        struct le_watcher *watcher = loop->watchers.slots[place];
        if (watcher && le_watcher_is(watcher, LE_WATCHER_ACTIVE) && (result = visit((char *)watcher - watcher_offset, arg)))
            return result;
    }
    for (struct le_link *link = loop->operations.next; link != &loop->operations; link = link->next)
        if ((result = visit((char *)LE_OPERATION_OF_LINK(link) - watcher_offset, arg)))
            return result;
    const struct le_link *lists[] = {&loop->to_arm,    &loop->chain,     &loop->held,    &loop->to_rearm,
                                     &loop->to_cancel, &loop->in_flight, &loop->finished};
    for (unsigned i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const struct le_link *link = lists[i]->next; link != lists[i]; link = link->next) {
            void *owner = le_op_owner(LE_OP_OF_LINK(link));
            if (owner && (result = visit(owner, arg)))
                return result;
        }
    return 0;
}

#endif
