/* le_watcher.h: the part of a watcher that the loop works with, embedded in the Python object as its first field. */
#ifndef LE_WATCHER_H
#define LE_WATCHER_H

#include <stdint.h>

#include "le_list.h"

#define LE_WATCHER_ABI 1

#define LE_PRIORITY_MIN (-2)
#define LE_PRIORITY_MAX 2
#define LE_PRIORITIES (LE_PRIORITY_MAX - LE_PRIORITY_MIN + 1)

#define LE_NOT_IN_HEAP UINT32_MAX

enum le_watcher_flag {
    LE_WATCHER_ACTIVE = 1,    /* the loop owns a reference */
    LE_WATCHER_REF = 2,       /* keeps run() going while active */
    LE_WATCHER_DESTROYED = 4, /* left the tables of the loop for good, or was never put into them */
    LE_WATCHER_PENDING = 8,   /* collected: in a lane, its callback runs soon */
    LE_WATCHER_TIMED = 16,    /* the lane it is in is that of the timers */
    LE_WATCHER_RECHECK = 32,  /* in the list of level-triggered watchers whose readiness is asked again */
    LE_WATCHER_LEVEL = 64,    /* level-triggered */
};

/* A lane is a queue of collected watchers. Timers have their own, because completions are dispatched in portions. */
enum le_lane { LE_LANE_TIMERS = 0, LE_LANE_COMPLETIONS = 1, LE_LANES = 2 };

/* The functions of a kind of watcher. Each takes the Python object, holds the GIL and returns 0, or -1 with a Python
 * exception set. */
typedef int (*le_watcher_function)(void *watcher);

struct le_watcher_class {
    uint32_t abi; /* LE_WATCHER_ABI */
    const char *name;
    le_watcher_function on_start;    /* arm: the deadline, the request, ... Called while inactive */
    le_watcher_function on_stop;     /* take back what on_start did. Called while active */
    le_watcher_function on_dispatch; /* call the callback. Called for a collected watcher */
    /* Leave tables of the kind's own; may be NULL. C only: the destructor calls it too. */
    le_watcher_function on_destroy;
    /* Drop the kind's own references to what is the user's; may be NULL. Called last by destroy(), and only by it. */
    le_watcher_function on_release;
};
_Static_assert(sizeof(struct le_watcher_class) == 56, "le_watcher_class is part of the ABI of watcher kinds");

struct le_watcher {
    struct le_link link; /* in a lane or in the recheck list */
    const struct le_watcher_class *cls;
    uint64_t id;
    uint32_t heap_slot; /* in the heap of deadlines, or LE_NOT_IN_HEAP */
    uint16_t events;     /* collected for the next call, for the use of the kind */
    int8_t priority;
    uint8_t flags; /* enum le_watcher_flag */
};
_Static_assert(sizeof(struct le_watcher) == 40, "le_watcher is part of the ABI of watcher kinds");

/* Membership of an active idle watcher in its loop's list. */
struct le_idle {
    struct le_link link;
    struct le_watcher *watcher;
};
_Static_assert(sizeof(struct le_idle) == 24, "le_idle has no hidden padding");

/* What a watcher of notifications has not been told yet. Any thread adds to it, under the GIL. While it is active and the count
 * is not 0, it is either in the list of its loop, whence the loop collects it, or collected. */
struct le_notified {
    struct le_link link;
    struct le_watcher *watcher;
    uint64_t count;
};
_Static_assert(sizeof(struct le_notified) == 32, "le_notified has no hidden padding");

#endif
