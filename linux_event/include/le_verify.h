/* le_verify.h: every invariant of a loop, walked after every callback in the verify build (LE_VERIFY=1). */
#ifndef LE_VERIFY_H
#define LE_VERIFY_H

#include "le_loop.h"

static inline uint64_t le_verify_ops(const struct le_link *head, unsigned states, int owned)
{
    uint64_t count = 0;
    for (const struct le_link *link = head->next; link != head; link = link->next) {
        const struct le_op *op = LE_CONTAINER(link, struct le_op, link);
        LE_ASSERT(link->next->prev == link && link->prev->next == link);
        LE_ASSERT(op->cls->abi == LE_OP_ABI);
        LE_ASSERT(states & (1u << op->state));
        count += (le_op_owner(op) != NULL) == owned;
    }
    return count;
}

static inline uint64_t le_verify_requests(const struct le_loop *loop, int owned)
{
    return le_verify_ops(&loop->to_arm, 1u << LE_OP_QUEUED, owned) +
           le_verify_ops(&loop->chain, 1u << LE_OP_QUEUED, owned) +
           le_verify_ops(&loop->held, 1u << LE_OP_QUEUED, owned) +
           le_verify_ops(&loop->to_rearm, 1u << LE_OP_QUEUED, owned) +
           le_verify_ops(&loop->to_cancel, 1u << LE_OP_CANCEL_QUEUED, owned) +
           le_verify_ops(&loop->in_flight, 1u << LE_OP_IN_FLIGHT | 1u << LE_OP_CANCELLING, owned) +
           le_verify_ops(&loop->finished, 1u << LE_OP_FINISHED, owned);
}

static inline void le_verify(const struct le_loop *loop)
{
    if (!LE_VERIFY)
        return;
    LE_ASSERT(loop->requests == le_verify_requests(loop, 1));
    LE_ASSERT(loop->own_requests == le_verify_requests(loop, 0));

    uint64_t cancelling = 0;
    const struct le_link *lists[] = {&loop->to_cancel, &loop->in_flight};
    for (unsigned i = 0; i < 2; i++)
        for (const struct le_link *link = lists[i]->next; link != lists[i]; link = link->next)
            cancelling += LE_OP_OF_LINK(link)->state != LE_OP_IN_FLIGHT;
    LE_ASSERT(cancelling == loop->cancelling);

    const struct le_heap *heap = &loop->heap;
    for (uint32_t i = 0; i < heap->count; i++) {
        uint32_t slot = heap->entries[i].slot;
        LE_ASSERT(heap->positions[slot] == i && heap->watchers[slot]->heap_slot == slot);
        LE_ASSERT(le_watcher_is(heap->watchers[slot], LE_WATCHER_ACTIVE));
        LE_ASSERT(!i || !le_heap_before(&heap->entries[i], &heap->entries[(i - 1) / LE_HEAP_ARITY]));
    }

    for (const struct le_link *link = loop->notified.next; link != &loop->notified; link = link->next) {
        const struct le_notified *notified = LE_CONTAINER(link, struct le_notified, link);
        LE_ASSERT(notified->count && le_watcher_is(notified->watcher, LE_WATCHER_ACTIVE));
        LE_ASSERT(!le_watcher_is(notified->watcher, LE_WATCHER_PENDING));
    }

    uint64_t pending = 0;
    for (unsigned lane = 0; lane < LE_LANES; lane++)
        for (unsigned rank = 0; rank < LE_PRIORITIES; rank++) {
            const struct le_link *head = &loop->lanes[lane][rank];
            for (const struct le_link *link = head->next; link != head; link = link->next, pending++) {
                const struct le_watcher *watcher = LE_CONTAINER(link, struct le_watcher, link);
                LE_ASSERT(watcher->priority - LE_PRIORITY_MIN == (int)rank);
                LE_ASSERT(le_watcher_is(watcher, LE_WATCHER_ACTIVE) && le_watcher_is(watcher, LE_WATCHER_PENDING));
                LE_ASSERT(le_watcher_is(watcher, LE_WATCHER_TIMED) == (lane == LE_LANE_TIMERS));
                LE_ASSERT(!le_watcher_is(watcher, LE_WATCHER_RECHECK));
            }
        }
    LE_ASSERT(pending == loop->pending);

    uint64_t watchers = 0, active = 0, active_ref = 0, recheck = 0, deadlines = 0;
    for (uint64_t place = 0; place < loop->watchers.capacity; place++) {
        const struct le_watcher *watcher = loop->watchers.slots[place];
        if (!watcher)
            continue;
        int is_active = le_watcher_is(watcher, LE_WATCHER_ACTIVE);
        watchers++;
        LE_ASSERT(watcher->cls && watcher->cls->abi == LE_WATCHER_ABI);
        LE_ASSERT(!le_watcher_is(watcher, LE_WATCHER_DESTROYED));
        LE_ASSERT(le_table_get(&loop->watchers, watcher->id) == watcher);
        active += (uint64_t)is_active;
        active_ref += is_active && le_watcher_is(watcher, LE_WATCHER_REF);
        recheck += (uint64_t)le_watcher_is(watcher, LE_WATCHER_RECHECK);
        deadlines += watcher->heap_slot != LE_NOT_IN_HEAP;
        LE_ASSERT(watcher->heap_slot == LE_NOT_IN_HEAP || heap->watchers[watcher->heap_slot] == watcher);
    }
    le_results_verify(&loop->results);
    uint64_t waiting = 0;
    for (const struct le_link *link = loop->pools.next; link != &loop->pools; link = link->next) {
        const struct le_pool *pool = LE_POOL_OF_LINK(link);
        le_pool_verify(pool);
        for (const struct le_link *member = pool->waiting.next; member != &pool->waiting; member = member->next)
            waiting++;
    }
    LE_ASSERT(waiting == loop->waiting);

    uint64_t operations = 0;
    for (const struct le_link *link = loop->operations.next; link != &loop->operations; link = link->next, operations++) {
        const struct le_operation *operation = LE_OPERATION_OF_LINK(link);
        int has_ended = (operation->flags & LE_OPERATION_ENDED) != 0;
        LE_ASSERT(!(operation->flags & LE_OPERATION_DONE));
        LE_ASSERT(!operation->leader || operation->leader->follower == operation);
        LE_ASSERT(!operation->follower || operation->follower->leader == operation);
        LE_ASSERT(!has_ended || (!operation->leader && !operation->follower));
        LE_ASSERT(!has_ended || le_watcher_is(&operation->head, LE_WATCHER_PENDING));
        LE_ASSERT(!has_ended || operation->head.heap_slot == LE_NOT_IN_HEAP);
        deadlines += operation->head.heap_slot != LE_NOT_IN_HEAP;
    }
    LE_ASSERT(operations == loop->operation_count);
    LE_ASSERT(le_slots_used(&loop->slots) <= operations);
    LE_ASSERT(le_list_is_empty(&loop->slots.waiting) || !loop->slots.free_count);
    LE_ASSERT(watchers == loop->watchers.count);
    LE_ASSERT(active == loop->active && active_ref == loop->active_ref);
    LE_ASSERT(deadlines == heap->count);
    for (const struct le_link *link = loop->recheck.next; link != &loop->recheck; link = link->next)
        recheck--;
    LE_ASSERT(recheck == 0);

    uint32_t fds = 0;
    for (uint32_t key = 0; key < loop->by_fd.capacity; key++) {
        fds += loop->by_fd.heads[key] != NULL;
        for (const struct le_chain *link = loop->by_fd.heads[key]; link; link = link->next)
            LE_ASSERT(!le_watcher_is(link->watcher, LE_WATCHER_DESTROYED));
    }
    LE_ASSERT(fds == loop->by_fd.keys);
    for (uint32_t key = 0; key < loop->by_child.capacity; key++)
        for (const struct le_chain *link = loop->by_child.heads[key]; link; link = link->next)
            LE_ASSERT(le_watcher_is(link->watcher, LE_WATCHER_ACTIVE));
}

#endif
