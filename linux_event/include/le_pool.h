/* le_pool.h: a pool of buffers that the kernel takes from when data have come (IORING_REGISTER_PBUF_RING).
 *
 * A buffer is with the kernel, which may write to it at any time; or in use: it holds data that have not been handed over;
 * or spare. One that was given back twice would be filled twice at the same time, and no tool sees it: hence `owners`.
 *
 * The kernel takes buffers in the order in which they were provided, and so goes round all of them: the memory that it
 * touches is that of all provided buffers, however few data there are. What counts is how much of it stays in the processor's
 * cache. So only as many as are needed at a time (`wanted`) are provided. The others are a stack, the hottest on top.
 *
 * A request that finds no buffer ends with ENOBUFS, and would do so again if it were armed again at once. It waits in
 * `waiting` until the kernel has a buffer: Requests.enter arms as many as there are buffers, and goes on with the next ones
 * without a sleep where those armed have not taken them. Nothing depends on the time. */
#ifndef LE_POOL_H
#define LE_POOL_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "le_compat.h"
#include "le_list.h"

/* After so many returned buffers it is looked at how many were needed at once; fewer than this are always provided. */
#define LE_POOL_WINDOW 1024u
#define LE_POOL_FLOOR 8u

enum le_buffer_owner { LE_BUFFER_SPARE = 0, LE_BUFFER_KERNEL, LE_BUFFER_IN_USE };

struct le_pool {
    struct le_link link;    /* in loop->pools while it is registered with the ring */
    struct le_link waiting; /* requests that found no buffer, as le_many.link, oldest first */
    struct io_uring_buf_ring *ring;
    char *memory;
    uint16_t *spare;    /* a stack of buffer numbers */
    uint8_t *owners;    /* enum le_buffer_owner of each buffer */
    uint64_t exhausted; /* times that a request found no buffer */
    uint64_t grown;     /* times that buffers were added */
    uint32_t size;      /* bytes of a buffer */
    uint32_t count;     /* buffers */
    uint32_t count_max; /* how far it may grow */
    uint32_t entries;   /* of the ring: a power of two, room for count_max */
    uint32_t wanted;    /* buffers to leave with the kernel */
    uint32_t provided;  /* with the kernel, as far as its completions have been seen */
    uint32_t in_use;
    uint32_t spare_count;
    uint32_t returned; /* in the window, and the fewest that were provided in it */
    uint32_t lowest;
    uint32_t users; /* operations that the kernel may use it for */
    uint16_t group; /* its number in the ring of the loop */
    uint16_t tail;
};
_Static_assert(sizeof(struct le_pool) == 2 * 16 + 4 * 8 + 2 * 8 + 11 * 4 + 4, "le_pool has no hidden padding");

#define LE_POOL_OF_LINK(pointer) LE_CONTAINER(pointer, struct le_pool, link)

static inline size_t le_pool_ring_bytes(const struct le_pool *pool)
{
    return pool->entries * sizeof(struct io_uring_buf);
}

static inline size_t le_pool_memory_bytes(const struct le_pool *pool)
{
    return (size_t)pool->count_max * pool->size;
}

static inline void *le_pool_map(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Give the memory back. The kernel must not know of the pool any more. */
static inline void le_pool_free(struct le_pool *pool)
{
    LE_ASSERT(!pool->users);
    if (pool->ring)
        munmap(pool->ring, le_pool_ring_bytes(pool));
    if (pool->memory)
        munmap(pool->memory, le_pool_memory_bytes(pool));
    free(pool->spare);
    free(pool->owners);
    pool->ring = NULL;
    pool->memory = NULL;
    pool->spare = NULL;
    pool->owners = NULL;
    pool->count = pool->provided = pool->in_use = pool->spare_count = 0;
}

/* Take memory for as many buffers as the pool may ever have: pages that are never used cost nothing. Returns 0, or -1. */
static inline int le_pool_allocate(struct le_pool *pool, uint32_t size, uint32_t count_max)
{
    le_list_init(&pool->waiting);
    pool->size = size;
    pool->count_max = count_max;
    for (pool->entries = 1; pool->entries < count_max;)
        pool->entries *= 2;
    pool->ring = (struct io_uring_buf_ring *)le_pool_map(le_pool_ring_bytes(pool));
    pool->memory = (char *)le_pool_map(le_pool_memory_bytes(pool));
    pool->spare = (uint16_t *)malloc(count_max * sizeof *pool->spare);
    pool->owners = (uint8_t *)calloc(count_max, 1);
    if (pool->ring && pool->memory && pool->spare && pool->owners)
        return 0;
    le_pool_free(pool);
    return -1;
}

static inline char *le_pool_buffer(const struct le_pool *pool, uint32_t number)
{
    return pool->memory + (size_t)number * pool->size;
}

/* Let the kernel have as many buffers as are wanted. */
static inline void le_pool_provide(struct le_pool *pool)
{
    uint16_t tail = pool->tail;
    while (pool->provided < pool->wanted && pool->spare_count) {
        uint16_t number = pool->spare[--pool->spare_count];
        struct io_uring_buf *entry = &pool->ring->bufs[tail++ & (pool->entries - 1)];
        LE_ASSERT(pool->owners[number] == LE_BUFFER_SPARE);
        pool->owners[number] = LE_BUFFER_KERNEL;
        entry->addr = (uintptr_t)le_pool_buffer(pool, number);
        entry->len = pool->size;
        entry->bid = number;
        pool->provided++;
    }
    if (tail != pool->tail) {
        pool->tail = tail;
        io_uring_smp_store_release(&pool->ring->tail, tail);
    }
}

/* Let it have `count` buffers in all, and provide them. */
static inline void le_pool_grow(struct le_pool *pool, uint32_t count)
{
    while (pool->count < count)
        pool->spare[pool->spare_count++] = (uint16_t)pool->count++;
    pool->wanted = count;
    pool->lowest = 0;
    pool->returned = 0;
    le_pool_provide(pool);
}

/* The kernel has put data into a buffer. */
static inline void le_pool_take(struct le_pool *pool, uint32_t number)
{
    LE_ASSERT(number < pool->count && pool->owners[number] == LE_BUFFER_KERNEL);
    pool->owners[number] = LE_BUFFER_IN_USE;
    pool->provided--;
    pool->in_use++;
    if (pool->provided < pool->lowest)
        pool->lowest = pool->provided;
}

/* The data have been copied, or nobody wants them. */
static inline void le_pool_give(struct le_pool *pool, uint32_t number)
{
    LE_ASSERT(number < pool->count && pool->owners[number] == LE_BUFFER_IN_USE);
    pool->owners[number] = LE_BUFFER_SPARE;
    pool->in_use--;
    pool->spare[pool->spare_count++] = (uint16_t)number;
    if (LE_UNLIKELY(++pool->returned >= LE_POOL_WINDOW)) {
        /* More than half of them was never touched at a time: fewer will do. */
        if (pool->lowest > pool->wanted / 2 && pool->wanted > LE_POOL_FLOOR)
            pool->wanted -= pool->wanted / 4;
        pool->lowest = pool->wanted;
        pool->returned = 0;
    }
    le_pool_provide(pool);
}

/* A request has found no buffer: double what is provided, within the limit. */
static inline void le_pool_fall_short(struct le_pool *pool)
{
    uint32_t count = pool->wanted * 2 < pool->count_max ? pool->wanted * 2 : pool->count_max;
    pool->exhausted++;
    if (pool->provided || pool->wanted == pool->count_max) /* since then some have come back, or been added */
        return;
    pool->grown += count > pool->count;
    le_pool_grow(pool, count);
}

/* Whether requests that wait could go on. */
static inline int le_pool_is_wanted(const struct le_pool *pool)
{
    return pool->provided && !le_list_is_empty(&pool->waiting);
}

static inline void le_pool_verify(const struct le_pool *pool)
{
    uint32_t counts[3] = {0, 0, 0};
    for (uint32_t number = 0; number < pool->count; number++)
        counts[pool->owners[number]]++;
    LE_ASSERT(counts[LE_BUFFER_KERNEL] == pool->provided);
    LE_ASSERT(counts[LE_BUFFER_IN_USE] == pool->in_use);
    LE_ASSERT(counts[LE_BUFFER_SPARE] == pool->spare_count);
    LE_ASSERT(pool->count <= pool->count_max && pool->wanted <= pool->count);
    for (uint32_t i = 0; i < pool->spare_count; i++)
        LE_ASSERT(pool->owners[pool->spare[i]] == LE_BUFFER_SPARE);
}

#endif
