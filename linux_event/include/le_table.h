/* le_table.h: the tables through which watchers are looked up: by id, and by a small integer (fd, signal number).
 *
 * Both hold borrowed pointers; a watcher leaves them when it is destroyed or freed. No event passes through them. */
#ifndef LE_TABLE_H
#define LE_TABLE_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "le_compat.h"
#include "le_watcher.h"

#define LE_TABLE_MIN 16

/* By id: the place of a watcher is its id modulo the capacity, and no two have the same place, because an id whose place is
 * taken is never given: le_table_add() passes over it. So there is nothing to probe and no gap to close, and watchers that
 * were made one after the other stand side by side. Places taken are passed over once for each round of the ids through the
 * table, of which an eighth at least is free: a few steps for each watcher, however long others live. */
struct le_table {
    struct le_watcher **slots;
    uint64_t capacity; /* a power of two, or 0 */
    uint64_t count;
    uint64_t shrink_at; /* the count at which a smaller table is tried next */
};
_Static_assert(sizeof(struct le_table) == 32, "le_table is laid out alike in all extensions");

/* Returns 0 or -ENOMEM; for a smaller capacity -EEXIST, if two watchers would have the same place. */
static inline int le_table_resize(struct le_table *table, uint64_t capacity)
{
    struct le_watcher **slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    for (uint64_t place = 0; place < table->capacity; place++) {
        struct le_watcher *watcher = table->slots[place];
        if (!watcher)
            continue;
        if (slots[watcher->id & (capacity - 1)]) {
            free(slots);
            return -EEXIST;
        }
        slots[watcher->id & (capacity - 1)] = watcher;
    }
    free(table->slots);
    table->slots = slots;
    table->capacity = capacity;
    table->shrink_at = capacity > LE_TABLE_MIN ? capacity / 8 : 0;
    return 0;
}

/* Add a watcher, and raise its id to the next one that has a place. Returns 0 or -ENOMEM. */
static inline int le_table_add(struct le_table *table, struct le_watcher *watcher)
{
    if (table->count >= table->capacity - table->capacity / 8) {
        int error = le_table_resize(table, table->capacity ? table->capacity * 2 : LE_TABLE_MIN);
        if (error)
            return error;
    }
    while (table->slots[watcher->id & (table->capacity - 1)])
        watcher->id++;
    table->slots[watcher->id & (table->capacity - 1)] = watcher;
    table->count++;
    return 0;
}

static inline struct le_watcher *le_table_get(const struct le_table *table, uint64_t id)
{
    if (!table->capacity)
        return NULL;
    struct le_watcher *watcher = table->slots[id & (table->capacity - 1)];
    return watcher && watcher->id == id ? watcher : NULL;
}

static inline void le_table_remove(struct le_table *table, const struct le_watcher *watcher)
{
    uint64_t place = watcher->id & (table->capacity - 1);
    LE_ASSERT(table->slots[place] == watcher);
    table->slots[place] = NULL;
    if (LE_UNLIKELY(--table->count <= table->shrink_at && table->capacity > LE_TABLE_MIN)) {
        uint64_t capacity = table->count && table->capacity / 4 > LE_TABLE_MIN ? table->capacity / 4 : LE_TABLE_MIN;
        if (le_table_resize(table, capacity))
            table->shrink_at = table->count / 2;
    }
}

static inline void le_table_free(struct le_table *table)
{
    free(table->slots);
    memset(table, 0, sizeof *table);
}

/* By a small integer: an array of chains. */
struct le_chain {
    struct le_chain *next;
    struct le_watcher *watcher; /* NULL while the chain link is in no table */
};
_Static_assert(sizeof(struct le_chain) == 16, "le_chain is part of the memory of a watcher");

struct le_index {
    struct le_chain **heads;
    uint32_t capacity;
    uint32_t keys; /* with at least one watcher */
};
_Static_assert(sizeof(struct le_index) == 16, "le_index has no hidden padding");

static inline struct le_chain *le_index_first(const struct le_index *index, uint32_t key)
{
    return key < index->capacity ? index->heads[key] : NULL;
}

/* Add at the end of the chain, so that watchers are listed in the order of their creation. */
static inline int le_index_add(struct le_index *index, uint32_t key, struct le_chain *link, struct le_watcher *watcher)
{
    if (key >= index->capacity) {
        uint32_t capacity = index->capacity ? index->capacity : LE_TABLE_MIN;
        while (capacity <= key)
            capacity *= 2;
        struct le_chain **heads = realloc(index->heads, capacity * sizeof *heads);
        if (!heads)
            return -ENOMEM;
        memset(heads + index->capacity, 0, (capacity - index->capacity) * sizeof *heads);
        index->heads = heads;
        index->capacity = capacity;
    }
    struct le_chain **place = &index->heads[key];
    index->keys += !*place;
    while (*place)
        place = &(*place)->next;
    link->watcher = watcher;
    link->next = NULL;
    *place = link;
    return 0;
}

static inline void le_index_remove(struct le_index *index, uint32_t key, struct le_chain *link)
{
    if (!link->watcher)
        return;
    struct le_chain **place = &index->heads[key];
    while (*place != link) {
        LE_ASSERT(*place);
        place = &(*place)->next;
    }
    *place = link->next;
    link->watcher = NULL;
    link->next = NULL;
    index->keys -= !index->heads[key];
}

static inline void le_index_free(struct le_index *index)
{
    free(index->heads);
    memset(index, 0, sizeof *index);
}

#endif
