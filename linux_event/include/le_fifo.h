/* le_fifo.h: the queue of deferred calls, a ring of a power of two entries. It holds references that its user counts. */
#ifndef LE_FIFO_H
#define LE_FIFO_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#define LE_FIFO_MIN 64

struct le_call {
    void *callable;
    void *args; /* a tuple, or NULL for none */
};
_Static_assert(sizeof(struct le_call) == 2 * sizeof(void *), "le_call has no hidden padding");

struct le_fifo {
    struct le_call *calls;
    uint64_t head; /* counts for ever; the place is the count modulo the capacity */
    uint64_t tail;
    uint64_t capacity;
};
_Static_assert(sizeof(struct le_fifo) == 32, "le_fifo has no hidden padding");

static inline uint64_t le_fifo_count(const struct le_fifo *fifo)
{
    return fifo->tail - fifo->head;
}

static inline struct le_call *le_fifo_at(const struct le_fifo *fifo, uint64_t position)
{
    return &fifo->calls[position & (fifo->capacity - 1)];
}

/* Move the calls to an array of the given power of two. Returns 0 or -ENOMEM. */
static inline int le_fifo_resize(struct le_fifo *fifo, uint64_t capacity)
{
    struct le_call *calls = malloc(capacity * sizeof *calls);
    if (!calls)
        return -ENOMEM;
    for (uint64_t position = fifo->head; position != fifo->tail; position++)
        calls[position & (capacity - 1)] = *le_fifo_at(fifo, position);
    free(fifo->calls);
    fifo->calls = calls;
    fifo->capacity = capacity;
    return 0;
}

static inline int le_fifo_push(struct le_fifo *fifo, void *callable, void *args)
{
    if (le_fifo_count(fifo) == fifo->capacity) {
        int error = le_fifo_resize(fifo, fifo->capacity ? fifo->capacity * 2 : LE_FIFO_MIN);
        if (error)
            return error;
    }
    struct le_call *call = le_fifo_at(fifo, fifo->tail++);
    call->callable = callable;
    call->args = args;
    return 0;
}

static inline struct le_call le_fifo_pop(struct le_fifo *fifo)
{
    return *le_fifo_at(fifo, fifo->head++);
}

/* Give memory of a burst back, once the queue is empty. */
static inline void le_fifo_trim(struct le_fifo *fifo)
{
    if (fifo->capacity > 64 * LE_FIFO_MIN && !le_fifo_count(fifo))
        (void)le_fifo_resize(fifo, LE_FIFO_MIN);
}

static inline void le_fifo_free(struct le_fifo *fifo)
{
    free(fifo->calls);
    fifo->calls = NULL;
    fifo->capacity = fifo->head = fifo->tail = 0;
}

#endif
