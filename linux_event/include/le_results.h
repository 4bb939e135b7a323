/* le_results.h: completions that have been taken from the kernel's queue and not been handed over yet.
 *
 * A request with many results may bring any number of them within one iteration. They stand in one array of the loop, each
 * operation having a queue in it that is linked by places. The array is made once and has room for what one iteration
 * delivers: what does not fit stays in the queue of the kernel, which loses nothing, until callbacks have made room. */
#ifndef LE_RESULTS_H
#define LE_RESULTS_H

#include <stdint.h>
#include <stdlib.h>

#include "le_compat.h"

/* Without a limit of their own (max_events) this is how many results an iteration may bring. */
#define LE_RESULTS_MIN 64u
#define LE_RESULTS_MAX 4096u

struct le_result {
    int32_t result;
    uint32_t flags; /* of the completion */
    uint32_t next;  /* the place of the next one in its queue, or of the next free one; 0: none */
};
_Static_assert(sizeof(struct le_result) == 12, "le_result has no hidden padding");

struct le_results {
    struct le_result *items; /* place 0 is never used; NULL until there is an operation with many results */
    uint32_t capacity;
    uint32_t free_first;
    uint32_t used;
};
_Static_assert(sizeof(struct le_results) == 24, "le_results has no hidden padding");

/* The results of one operation, oldest first; all zero: none. */
struct le_result_queue {
    uint32_t first;
    uint32_t last;
};
_Static_assert(sizeof(struct le_result_queue) == 8, "le_result_queue has no hidden padding");

/* Make the array, unless there is one. Returns 0, or -1 without memory. */
static inline int le_results_reserve(struct le_results *results, uint64_t capacity)
{
    if (results->items)
        return 0;
    capacity = capacity < LE_RESULTS_MIN ? LE_RESULTS_MIN : capacity > LE_RESULTS_MAX ? LE_RESULTS_MAX : capacity;
    results->items = (struct le_result *)malloc((capacity + 1) * sizeof *results->items);
    if (!results->items)
        return -1;
    results->capacity = (uint32_t)capacity;
    for (uint32_t place = 1; place <= results->capacity; place++)
        results->items[place].next = place < results->capacity ? place + 1 : 0;
    results->free_first = 1;
    return 0;
}

static inline void le_results_free(struct le_results *results)
{
    free(results->items);
    results->items = NULL;
    results->capacity = results->free_first = results->used = 0;
}

/* Append a result to a queue. Returns whether there was room. */
static inline int le_results_push(struct le_results *results, struct le_result_queue *queue, int32_t result, uint32_t flags)
{
    uint32_t place = results->free_first;
    if (!place)
        return 0;
    struct le_result *item = &results->items[place];
    results->free_first = item->next;
    results->used++;
    item->result = result;
    item->flags = flags;
    item->next = 0;
    if (queue->last)
        results->items[queue->last].next = place;
    else
        queue->first = place;
    queue->last = place;
    return 1;
}

/* The oldest result of a queue that is not empty. */
static inline const struct le_result *le_results_first(const struct le_results *results, const struct le_result_queue *queue)
{
    LE_ASSERT(queue->first);
    return &results->items[queue->first];
}

/* Drop the oldest result of a queue that is not empty. */
static inline void le_results_drop(struct le_results *results, struct le_result_queue *queue)
{
    uint32_t place = queue->first;
    struct le_result *item = &results->items[place];
    queue->first = item->next;
    if (!queue->first)
        queue->last = 0;
    item->next = results->free_first;
    results->free_first = place;
    results->used--;
}

/* For the verify build: every place is either free or used. */
static inline void le_results_verify(const struct le_results *results)
{
    uint32_t count = 0;
    for (uint32_t place = results->free_first; place; place = results->items[place].next)
        count++;
    LE_ASSERT(count + results->used == results->capacity);
}

#endif
