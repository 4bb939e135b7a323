/* le_slots.h: places for operations on whole files, of which a loop works on a bounded number at a time.
 *
 * A place is a direct descriptor (an entry of the ring's table of files, which costs no fd) and a buffer. The bound keeps
 * the buffers in the processor's cache, the number of open files low, and the kernel from starting a thread for each file.
 * What finds no place waits its turn. Where the kernel refuses the table, the place is the buffer alone, and fds are used. */
#ifndef LE_SLOTS_H
#define LE_SLOTS_H

#include <stdint.h>
#include <stdlib.h>

#include "le_compat.h"
#include "le_list.h"

#define LE_SLOTS 64
#define LE_SLOT_NONE (-1)

/* Bytes of a buffer. Most files are smaller. The little beyond 16 KiB lets a file of this size end within it. */
#define LE_SLOT_SIZE (16384u + 512)

enum le_slots_state { LE_SLOTS_UNUSED = 0, LE_SLOTS_DIRECT, LE_SLOTS_PLAIN };

struct le_loop;

/* What takes a place, embedded in an operation. */
struct le_turn {
    struct le_link link; /* in le_slots.waiting */
    /* It has a place now: start its requests. Returns how many references on the owner the caller has to take. */
    int (*begin)(struct le_loop *loop, struct le_turn *turn);
    void *owner; /* the Python object */
    int32_t slot; /* or LE_SLOT_NONE */
};
_Static_assert(sizeof(struct le_turn) == 40, "le_turn is part of the ABI of operations");

struct le_slots {
    char *buffers;          /* LE_SLOTS of LE_SLOT_SIZE bytes, from the first use on */
    struct le_link waiting; /* in the order of their start */
    uint32_t first;         /* where in the ring's table the direct descriptors begin */
    uint32_t free_count;
    uint8_t free[LE_SLOTS]; /* the one that was used last is on top: its buffer is in the cache */
    uint8_t state;          /* enum le_slots_state */
};
_Static_assert(sizeof(struct le_slots) == 32 + LE_SLOTS + 8, "le_slots is part of the ABI of le_loop");

static inline void le_slots_init(struct le_slots *slots)
{
    le_list_init(&slots->waiting);
}

/* Returns 0, or -1 if there is no memory. */
static inline int le_slots_open(struct le_slots *slots, int is_direct, uint32_t first)
{
    if (!(slots->buffers = malloc((size_t)LE_SLOTS * LE_SLOT_SIZE)))
        return -1;
    for (unsigned i = 0; i < LE_SLOTS; i++)
        slots->free[i] = (uint8_t)(LE_SLOTS - 1 - i);
    slots->free_count = LE_SLOTS;
    slots->first = first;
    slots->state = is_direct ? LE_SLOTS_DIRECT : LE_SLOTS_PLAIN;
    return 0;
}

static inline uint32_t le_slots_used(const struct le_slots *slots)
{
    return slots->state == LE_SLOTS_UNUSED ? 0 : LE_SLOTS - slots->free_count;
}

static inline void le_slots_free(struct le_slots *slots)
{
    /* What is still in use belongs to requests that nobody could wait for: the kernel may write to it. */
    if (!le_slots_used(slots))
        free(slots->buffers);
    slots->buffers = NULL;
}

static inline char *le_slot_buffer(const struct le_slots *slots, int32_t slot)
{
    return slots->buffers + (size_t)slot * LE_SLOT_SIZE;
}

/* Take a place, or wait for one. Returns whether the turn has come: then the caller begins. */
static inline int le_turn_enter(struct le_slots *slots, struct le_turn *turn)
{
    if (!slots->free_count) {
        le_list_push(&slots->waiting, &turn->link);
        return 0;
    }
    turn->slot = slots->free[--slots->free_count];
    return 1;
}

/* Give the place back, or stop waiting. Returns whose turn has come, who has got it: the caller lets it begin; or NULL. */
static inline struct le_turn *le_turn_leave(struct le_slots *slots, struct le_turn *turn)
{
    le_link_leave(&turn->link);
    if (turn->slot == LE_SLOT_NONE)
        return NULL;
    int32_t slot = turn->slot;
    turn->slot = LE_SLOT_NONE;
    struct le_link *link = le_list_pop(&slots->waiting);
    if (!link) {
        slots->free[slots->free_count++] = (uint8_t)slot;
        return NULL;
    }
    struct le_turn *next = LE_CONTAINER(link, struct le_turn, link);
    next->slot = slot;
    return next;
}

#endif
