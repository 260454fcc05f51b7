/* arena.h - memory for one request: many allocations, one release, and a ceiling.
 *
 * Owner:  whoever holds the struct; arena_reset() frees everything it handed out.
 * Thread: one at a time.
 * Fails:  arena_alloc() returns NULL past limit_bytes or when memory is out.
 * Bounds: limit_bytes, counted with rounding. */
#ifndef REELKV_BASE_ARENA_H
#define REELKV_BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    size_t limit_bytes;
    size_t used_bytes;
    struct arena_chunk *chunks; /* newest first */
};

/* 16-byte aligned, zeroed; valid until arena_reset(). */
void *arena_alloc(struct arena *arena, size_t bytes);

/* A copy of `text` up to `len` bytes, NUL-terminated. NULL past the limit. */
char *arena_strndup(struct arena *arena, const char *text, size_t len);

/* Frees everything; the arena can be used again with the same limit. */
void arena_reset(struct arena *arena);

#endif
