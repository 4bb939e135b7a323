/* le_signal.h: how a signal gets from a C handler, in whatever thread, to the loops that want it.
 *
 * A loop with signal watchers has a hub: a bounded queue that handlers in any thread write without locks, and an eventfd
 * that the loop polls. The handler itself is in watchers/signal.pyx, which owns the list of hubs.
 *
 * A place in the queue is taken with one atomic step and published with another, because a handler may interrupt a handler.
 * Whoever published writes the eventfd afterwards, so a reader that stopped at an unpublished place is woken again. What
 * finds the queue full is merged into one record for each signal number, as the kernel itself merges pending signals. */
#ifndef LE_SIGNAL_H
#define LE_SIGNAL_H

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "le_compat.h"
#include "le_loop.h"

#define LE_SIGNAL_MAX 64
#define LE_SIGNAL_PLACES 256 /* a power of two */

struct le_signal_record {
    int32_t signum;
    int32_t code; /* si_code */
    int32_t pid;  /* of the sender; 0: the kernel does not say */
    uint32_t uid;
    int32_t status; /* of a child: how it has ended, for SIGCHLD */
    int32_t value;  /* of sigqueue(3), a timer or a message queue */
};
_Static_assert(sizeof(struct le_signal_record) == 24, "le_signal_record has no hidden padding");

struct le_signal_place {
    uint64_t turn; /* equals the position while free for it, position + 1 once published */
    struct le_signal_record record;
};
_Static_assert(sizeof(struct le_signal_place) == 32, "le_signal_place has no hidden padding");

/* Whether the kernel tells who has sent a signal. Those of timers of the process have other things in that place. */
static inline int le_signal_has_sender(int signum, int code)
{
    return signum == SIGCHLD || (code <= 0 && code != SI_TIMER);
}

struct le_signal_hub {
    struct le_signal_hub *next; /* in the list of hubs that handlers walk */
    uint64_t wanted;            /* bit signum - 1 */
    uint64_t merged;            /* signals that found the queue full */
    uint64_t head;
    uint64_t tail;
    int fd;        /* an eventfd */
    int reader_fd; /* a signalfd, or -1 */
    uint32_t users[LE_SIGNAL_MAX + 1];
    struct le_signal_place places[LE_SIGNAL_PLACES];
};
_Static_assert(offsetof(struct le_signal_hub, next) == 0, "le_signal_hub begins with its link");
_Static_assert((LE_SIGNAL_PLACES & (LE_SIGNAL_PLACES - 1)) == 0, "positions wrap around without a gap");

static inline void le_signal_hub_init(struct le_signal_hub *hub)
{
    memset(hub, 0, sizeof *hub);
    for (uint64_t i = 0; i < LE_SIGNAL_PLACES; i++)
        hub->places[i].turn = i;
}

static inline void le_signal_hub_close(struct le_signal_hub *hub)
{
    if (hub->fd >= 0)
        close(hub->fd);
    if (hub->reader_fd >= 0)
        close(hub->reader_fd);
    hub->fd = hub->reader_fd = -1;
}

/* Count one more, or one less, watcher of the signal. */
static inline void le_signal_hub_add(struct le_signal_hub *hub, int signum)
{
    if (!hub->users[signum]++)
        __atomic_fetch_or(&hub->wanted, UINT64_C(1) << (signum - 1), __ATOMIC_RELEASE);
}

static inline void le_signal_hub_remove(struct le_signal_hub *hub, int signum)
{
    if (!--hub->users[signum])
        __atomic_fetch_and(&hub->wanted, ~(UINT64_C(1) << (signum - 1)), __ATOMIC_RELEASE);
}

/* Async-signal-safe, for any number of threads. Returns whether the hub wanted the signal; its eventfd is to be written. */
static inline int le_signal_hub_push(struct le_signal_hub *hub, const struct le_signal_record *record)
{
    uint64_t bit = UINT64_C(1) << (record->signum - 1);
    if (!(__atomic_load_n(&hub->wanted, __ATOMIC_ACQUIRE) & bit))
        return 0;
    uint64_t position = __atomic_load_n(&hub->tail, __ATOMIC_RELAXED);
    for (;;) {
        struct le_signal_place *place = &hub->places[position % LE_SIGNAL_PLACES];
        int64_t ahead = (int64_t)(__atomic_load_n(&place->turn, __ATOMIC_ACQUIRE) - position);
        if (ahead < 0) {
            __atomic_fetch_or(&hub->merged, bit, __ATOMIC_RELEASE);
            return 1;
        }
        if (ahead > 0) {
            position = __atomic_load_n(&hub->tail, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&hub->tail, &position, position + 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            place->record = *record;
            __atomic_store_n(&place->turn, position + 1, __ATOMIC_RELEASE);
            return 1;
        }
    }
}

/* For the one thread that owns the loop. Returns whether there was a record. */
static inline int le_signal_hub_pop(struct le_signal_hub *hub, struct le_signal_record *record)
{
    struct le_signal_place *place = &hub->places[hub->head % LE_SIGNAL_PLACES];
    if (__atomic_load_n(&place->turn, __ATOMIC_ACQUIRE) == hub->head + 1) {
        *record = place->record;
        __atomic_store_n(&place->turn, hub->head + LE_SIGNAL_PLACES, __ATOMIC_RELEASE);
        hub->head++;
        return 1;
    }
    uint64_t merged = __atomic_load_n(&hub->merged, __ATOMIC_ACQUIRE);
    if (!merged || hub->head != __atomic_load_n(&hub->tail, __ATOMIC_RELAXED))
        return 0;
    memset(record, 0, sizeof *record);
    record->signum = __builtin_ctzll(merged) + 1;
    __atomic_fetch_and(&hub->merged, ~(UINT64_C(1) << (record->signum - 1)), __ATOMIC_RELEASE);
    return 1;
}

/* What one watcher has still to be told. */
struct le_signal_queue {
    struct le_signal_record *records;
    uint32_t head;
    uint32_t count;
    uint32_t capacity; /* a power of two, or 0 */
};
_Static_assert(sizeof(struct le_signal_queue) == 24, "le_signal_queue has no hidden padding");

/* Make room for one more record. Returns 0 or -ENOMEM. */
static inline int le_signal_queue_reserve(struct le_signal_queue *queue)
{
    if (queue->count < queue->capacity)
        return 0;
    uint32_t capacity = queue->capacity ? queue->capacity * 2 : 4;
    struct le_signal_record *records = malloc(capacity * sizeof *records);
    if (!records)
        return -ENOMEM;
    for (uint32_t i = 0; i < queue->count; i++)
        records[i] = queue->records[(queue->head + i) & (queue->capacity - 1)];
    free(queue->records);
    queue->records = records;
    queue->head = 0;
    queue->capacity = capacity;
    return 0;
}

/* Without memory the record is merged into the last one: a watcher that has something to be told is told at least that. */
static inline void le_signal_queue_push(struct le_signal_queue *queue, const struct le_signal_record *record)
{
    if (le_signal_queue_reserve(queue))
        return;
    queue->records[(queue->head + queue->count++) & (queue->capacity - 1)] = *record;
}

static inline struct le_signal_record le_signal_queue_pop(struct le_signal_queue *queue)
{
    struct le_signal_record record = queue->records[queue->head];
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->count--;
    return record;
}

static inline void le_signal_queue_free(struct le_signal_queue *queue)
{
    free(queue->records);
    memset(queue, 0, sizeof *queue);
}

/* An active watcher, in the list of its loop's hub. */
struct le_signal_member {
    struct le_link link;
    struct le_watcher *watcher;
    struct le_signal_queue queue;
    int signum;
};
_Static_assert(offsetof(struct le_signal_member, link) == 0, "le_signal_member begins with its link");

/* Hand what has arrived to the watchers, and collect them. */
static inline void le_signal_hub_collect(struct le_loop *loop, struct le_signal_hub *hub, const struct le_link *members)
{
    struct le_signal_record record;
    while (le_signal_hub_pop(hub, &record))
        for (struct le_link *link = members->next; link != members; link = link->next) {
            struct le_signal_member *member = LE_CONTAINER(link, struct le_signal_member, link);
            if (member->signum != record.signum)
                continue;
            le_signal_queue_push(&member->queue, &record);
            le_watcher_collect(loop, member->watcher, LE_LANE_COMPLETIONS);
        }
}

#endif
