#include "base/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 16 << 10, ALIGN_BYTES = 16 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    size_t used;
    alignas(ALIGN_BYTES) unsigned char data[];
};

static struct arena_chunk *chunk_add(struct arena *arena, size_t bytes)
{
    size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    struct arena_chunk *chunk = calloc(1, sizeof *chunk + size);

    if (chunk == NULL)
        return NULL;
    chunk->size = size;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    struct arena_chunk *chunk = arena->chunks;
    void *out;

    if (bytes > arena->limit_bytes - arena->used_bytes)
        return NULL;
    bytes = (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    if (bytes > arena->limit_bytes - arena->used_bytes)
        return NULL;
    if (chunk == NULL || chunk->size - chunk->used < bytes)
        chunk = chunk_add(arena, bytes);
    if (chunk == NULL)
        return NULL;
    out = chunk->data + chunk->used;
    chunk->used += bytes;
    arena->used_bytes += bytes;
    return out;
}

char *arena_strndup(struct arena *arena, const char *text, size_t len)
{
    size_t n = strnlen(text, len);
    char *copy = arena_alloc(arena, n + 1);

    if (copy != NULL)
        memcpy(copy, text, n);
    return copy;
}

void arena_reset(struct arena *arena)
{
    while (arena->chunks != NULL) {
        struct arena_chunk *next = arena->chunks->next;

        free(arena->chunks);
        arena->chunks = next;
    }
    arena->used_bytes = 0;
}
