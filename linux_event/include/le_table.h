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

/* By id: open addressing with linear probing. Consecutive ids spread well under a multiplicative hash. */
struct le_table {
    struct le_watcher **slots;
    uint64_t capacity; /* a power of two, or 0 */
    uint64_t count;
    uint32_t shift; /* 64 minus the binary logarithm of the capacity */
};
_Static_assert(sizeof(struct le_table) == 32, "le_table is laid out alike in all extensions");

static inline uint64_t le_table_home(const struct le_table *table, uint64_t id)
{
    return (id * UINT64_C(0x9E3779B97F4A7C15)) >> table->shift;
}

static inline void le_table_place(struct le_table *table, struct le_watcher *watcher)
{
    uint64_t place = le_table_home(table, watcher->id);
    while (table->slots[place])
        place = (place + 1) & (table->capacity - 1);
    table->slots[place] = watcher;
}

static inline int le_table_resize(struct le_table *table, uint64_t capacity)
{
    struct le_watcher **slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    struct le_table old = *table;
    table->slots = slots;
    table->capacity = capacity;
    table->shift = 64 - (uint32_t)__builtin_ctzll(capacity);
    for (uint64_t place = 0; place < old.capacity; place++)
        if (old.slots[place])
            le_table_place(table, old.slots[place]);
    free(old.slots);
    return 0;
}

static inline int le_table_add(struct le_table *table, struct le_watcher *watcher)
{
    if (table->count >= table->capacity - table->capacity / 8) {
        int error = le_table_resize(table, table->capacity ? table->capacity * 2 : LE_TABLE_MIN);
        if (error)
            return error;
    }
    le_table_place(table, watcher);
    table->count++;
    return 0;
}

static inline struct le_watcher *le_table_get(const struct le_table *table, uint64_t id)
{
    if (!table->capacity)
        return NULL;
    uint64_t place = le_table_home(table, id);
    while (table->slots[place] && table->slots[place]->id != id)
        place = (place + 1) & (table->capacity - 1);
    return table->slots[place];
}

static inline void le_table_remove(struct le_table *table, const struct le_watcher *watcher)
{
    uint64_t mask = table->capacity - 1;
    uint64_t hole = le_table_home(table, watcher->id);
    while (table->slots[hole] != watcher) {
        LE_ASSERT(table->slots[hole]);
        hole = (hole + 1) & mask;
    }
    /* Close the gap: whatever was pushed past the hole by a collision moves back into it. */
    for (uint64_t place = (hole + 1) & mask; table->slots[place]; place = (place + 1) & mask) {
        uint64_t home = le_table_home(table, table->slots[place]->id);
        if (((place - home) & mask) >= ((place - hole) & mask)) {
            table->slots[hole] = table->slots[place];
            hole = place;
        }
    }
    table->slots[hole] = NULL;
    table->count--;
    if (table->capacity > LE_TABLE_MIN && table->count < table->capacity / 8)
        (void)le_table_resize(table, table->capacity / 4 < LE_TABLE_MIN ? LE_TABLE_MIN : table->capacity / 4);
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
