/* le_chunks.h: what waits to be sent on a stream: a list of pieces, and the memory that small ones are copied into. */
#ifndef LE_CHUNKS_H
#define LE_CHUNKS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define LE_CHUNK_BYTES 16384u
#define LE_CHUNKS_KEPT 64u /* of those that a loop has no use for at the moment: a MiB */

enum le_piece_kind {
    LE_PIECE_NEAR = 0, /* part of the stream itself: a bytes object */
    LE_PIECE_BYTES,    /* a bytes object: to let go of it runs no code of others */
    LE_PIECE_VIEW,     /* another object: to let go of it may run any code */
    LE_PIECE_CHUNK     /* the head of a chunk, behind which the bytes stand */
};

struct le_piece {
    struct le_piece *next;
    const char *at;
    size_t left;
    void *owner;   /* the object that the bytes belong to; NULL: a chunk */
    uint32_t room; /* of a chunk: how much may be appended */
    uint32_t kind; /* enum le_piece_kind */
};
_Static_assert(sizeof(struct le_piece) == 40, "le_piece has no hidden padding");

struct le_chunk {
    struct le_piece piece;
    char data[LE_CHUNK_BYTES - sizeof(struct le_piece)];
};
_Static_assert(sizeof(struct le_chunk) == LE_CHUNK_BYTES, "le_chunk has no hidden padding");

/* The free ones of a loop, the hottest first. */
struct le_chunks {
    struct le_chunk *free;
    uint64_t count;
};
_Static_assert(sizeof(struct le_chunks) == 16, "le_chunks has no hidden padding");

/* Returns NULL without memory. */
static inline struct le_chunk *le_chunk_take(struct le_chunks *chunks)
{
    struct le_chunk *chunk = chunks->free;
    if (!chunk) {
        chunk = (struct le_chunk *)malloc(sizeof *chunk);
        if (!chunk)
            return NULL;
    } else {
        chunks->free = (struct le_chunk *)chunk->piece.next;
        chunks->count--;
    }
    chunk->piece.next = NULL;
    chunk->piece.at = chunk->data;
    chunk->piece.left = 0;
    chunk->piece.owner = NULL;
    chunk->piece.room = sizeof chunk->data;
    chunk->piece.kind = LE_PIECE_CHUNK;
    return chunk;
}

static inline void le_chunk_give(struct le_chunks *chunks, struct le_chunk *chunk)
{
    if (chunks->count >= LE_CHUNKS_KEPT) {
        free(chunk);
        return;
    }
    chunk->piece.next = (struct le_piece *)chunks->free;
    chunks->free = chunk;
    chunks->count++;
}

static inline void le_chunks_free(struct le_chunks *chunks)
{
    while (chunks->free) {
        struct le_chunk *chunk = chunks->free;
        chunks->free = (struct le_chunk *)chunk->piece.next;
        free(chunk);
    }
    chunks->count = 0;
}

#endif
