/* le_heap.h: all deadlines of a loop: a 4-ary heap keyed (deadline, sequence), in one array of small entries.
 *
 * An entry names its watcher by a slot, a small number. Where the entry of a slot is now stands in an array of its own: a
 * move in the heap writes four bytes there and does not touch the watcher, which lies anywhere in memory. Four entries fill
 * a cache line, and the four children of an entry share one. Removing from the middle is O(log n). Space is made when a
 * watcher starts, never when it fires. */
#ifndef LE_HEAP_H
#define LE_HEAP_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "le_compat.h"
#include "le_watcher.h"

#define LE_HEAP_ARITY 4
#define LE_HEAP_MIN 16
#define LE_HEAP_LINE 64

struct le_heap_entry {
    int64_t deadline_ns;
    uint32_t sequence; /* equal deadlines fire in the order of their start; wraps around */
    uint32_t slot;
};
_Static_assert(sizeof(struct le_heap_entry) * LE_HEAP_ARITY == LE_HEAP_LINE, "the children of an entry share a cache line");

struct le_heap {
    struct le_heap_entry *entries;  /* by position */
    uint32_t *positions;            /* by slot; of a free slot: the next free one */
    struct le_watcher **watchers;   /* by slot */
    uint32_t count;
    uint32_t capacity;
    uint32_t sequence;
    uint32_t free_slot; /* the first one, or LE_NOT_IN_HEAP */
};
_Static_assert(sizeof(struct le_heap) == 40, "le_heap has no hidden padding");

static inline int le_heap_before(const struct le_heap_entry *a, const struct le_heap_entry *b)
{
    return a->deadline_ns < b->deadline_ns ||
           (a->deadline_ns == b->deadline_ns && (int32_t)(a->sequence - b->sequence) < 0);
}

static inline void le_heap_put(struct le_heap *heap, uint32_t position, struct le_heap_entry entry)
{
    heap->entries[position] = entry;
    heap->positions[entry.slot] = position;
}

static inline void le_heap_rise(struct le_heap *heap, uint32_t position, struct le_heap_entry entry)
{
    while (position) {
        uint32_t parent = (position - 1) / LE_HEAP_ARITY;
        if (!le_heap_before(&entry, &heap->entries[parent]))
            break;
        le_heap_put(heap, position, heap->entries[parent]);
        position = parent;
    }
    le_heap_put(heap, position, entry);
}

static inline void le_heap_sink(struct le_heap *heap, uint32_t position, struct le_heap_entry entry)
{
    for (;;) {
        uint64_t first = (uint64_t)position * LE_HEAP_ARITY + 1;
        if (first >= heap->count)
            break;
        uint32_t best = (uint32_t)first;
        uint32_t end = heap->count - first < LE_HEAP_ARITY ? heap->count : (uint32_t)first + LE_HEAP_ARITY;
        for (uint32_t child = best + 1; child < end; child++)
            if (le_heap_before(&heap->entries[child], &heap->entries[best]))
                best = child;
        if (!le_heap_before(&heap->entries[best], &entry))
            break;
        le_heap_put(heap, position, heap->entries[best]);
        position = best;
    }
    le_heap_put(heap, position, entry);
}

/* Entry 1, the first child, begins a cache line: entry 0 is the last of the line before. */
static inline struct le_heap_entry *le_heap_allocate(uint32_t capacity)
{
    size_t size = ((size_t)capacity + LE_HEAP_ARITY - 1) * sizeof(struct le_heap_entry);
    struct le_heap_entry *block = aligned_alloc(LE_HEAP_LINE, (size + LE_HEAP_LINE - 1) / LE_HEAP_LINE * LE_HEAP_LINE);
    return block ? block + LE_HEAP_ARITY - 1 : NULL;
}

static inline void le_heap_release(struct le_heap_entry *entries)
{
    if (entries)
        free(entries - (LE_HEAP_ARITY - 1));
}

/* Give the arrays room for twice as many. Returns 0 or -ENOMEM. */
static inline int le_heap_grow(struct le_heap *heap)
{
    uint32_t capacity = heap->capacity ? heap->capacity * 2 : LE_HEAP_MIN;
    if (heap->capacity > UINT32_MAX / 4)
        return -ENOMEM;
    uint32_t *positions = realloc(heap->positions, capacity * sizeof *positions);
    if (positions)
        heap->positions = positions;
    struct le_watcher **watchers = realloc(heap->watchers, capacity * sizeof *watchers);
    if (watchers)
        heap->watchers = watchers;
    struct le_heap_entry *entries = positions && watchers ? le_heap_allocate(capacity) : NULL;
    if (!entries)
        return -ENOMEM;
    if (heap->count)
        memcpy(entries, heap->entries, heap->count * sizeof *entries);
    le_heap_release(heap->entries);
    heap->entries = entries;
    for (uint32_t slot = heap->capacity; slot < capacity; slot++)
        positions[slot] = slot + 1 < capacity ? slot + 1 : LE_NOT_IN_HEAP;
    heap->free_slot = heap->capacity; /* growth happens when no slot is free */
    heap->capacity = capacity;
    return 0;
}

static inline void le_heap_free(struct le_heap *heap)
{
    le_heap_release(heap->entries);
    free(heap->positions);
    free(heap->watchers);
    memset(heap, 0, sizeof *heap);
}

/* Insert a watcher that is not in the heap. Returns 0 or -ENOMEM. */
static inline int le_heap_add(struct le_heap *heap, struct le_watcher *watcher, int64_t deadline_ns)
{
    LE_ASSERT(watcher->heap_slot == LE_NOT_IN_HEAP);
    if (heap->count == heap->capacity) {
        int error = le_heap_grow(heap);
        if (error)
            return error;
    }
    uint32_t slot = heap->free_slot;
    heap->free_slot = heap->positions[slot];
    heap->watchers[slot] = watcher;
    watcher->heap_slot = slot;
    struct le_heap_entry entry = {deadline_ns, heap->sequence++, slot};
    le_heap_rise(heap, heap->count++, entry);
    return 0;
}

static inline void le_heap_remove(struct le_heap *heap, struct le_watcher *watcher)
{
    uint32_t slot = watcher->heap_slot;
    if (slot == LE_NOT_IN_HEAP)
        return;
    uint32_t position = heap->positions[slot];
    watcher->heap_slot = LE_NOT_IN_HEAP;
    heap->positions[slot] = heap->free_slot;
    heap->free_slot = slot;
    struct le_heap_entry last = heap->entries[--heap->count];
    if (last.slot == slot)
        return;
    if (position && le_heap_before(&last, &heap->entries[(position - 1) / LE_HEAP_ARITY]))
        le_heap_rise(heap, position, last);
    else
        le_heap_sink(heap, position, last);
}

/* Give memory of a burst back. To be called where the heap is empty. */
static inline void le_heap_trim(struct le_heap *heap)
{
    uint32_t sequence = heap->sequence;
    if (heap->capacity > 1024 * LE_HEAP_MIN) {
        le_heap_free(heap);
        heap->sequence = sequence;
    }
}

static inline int64_t le_heap_deadline_ns(const struct le_heap *heap, const struct le_watcher *watcher)
{
    return heap->entries[heap->positions[watcher->heap_slot]].deadline_ns;
}

static inline struct le_watcher *le_heap_first(const struct le_heap *heap)
{
    return heap->watchers[heap->entries[0].slot];
}

#endif
