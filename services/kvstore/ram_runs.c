/* Free runs of the arena: found by size, cut and joined, and zeroed when somebody wants what was there to be gone. */
#include <stdlib.h>

#include "base/bytes.h"
#include "kvstore/ram_arena_internal.h"

enum { FIT_TRIES = 16 };

static unsigned class_of(uint64_t granules)
{
    unsigned top = 63 - (unsigned)__builtin_clzll(granules);

    if (top < RAM_CLASS_BITS)
        return (unsigned)granules;
    return (top << RAM_CLASS_BITS) +
           (unsigned)(granules >> (top - RAM_CLASS_BITS) & ((1u << RAM_CLASS_BITS) - 1));
}

void ram_run_add(struct ram_arena *arena, struct ram_slot *run)
{
    struct region *region = &arena->regions[run->region];
    unsigned class = class_of(run->bytes / arena->granule);

    run->is_free = true;
    run->queue_prev = NULL;
    run->queue_next = region->free_lists[class];
    if (run->queue_next != NULL)
        run->queue_next->queue_prev = run;
    region->free_lists[class] = run;
    region->free_bits[class / 64] |= 1ull << class % 64;
}

static void run_remove(struct ram_arena *arena, struct ram_slot *run)
{
    struct region *region = &arena->regions[run->region];
    unsigned class = class_of(run->bytes / arena->granule);

    if (run->queue_prev != NULL)
        run->queue_prev->queue_next = run->queue_next;
    else
        region->free_lists[class] = run->queue_next;
    if (run->queue_next != NULL)
        run->queue_next->queue_prev = run->queue_prev;
    if (region->free_lists[class] == NULL)
        region->free_bits[class / 64] &= ~(1ull << class % 64);
    run->is_free = false;
}

struct ram_slot *ram_run_find(const struct ram_arena *arena, const struct region *region, uint64_t bytes)
{
    unsigned class = class_of(bytes / arena->granule), tries = 0;

    for (struct ram_slot *run = region->free_lists[class]; run != NULL && tries < FIT_TRIES;
         run = run->queue_next, tries++)
        if (run->bytes >= bytes)
            return run;
    /* Every run of a higher class is long enough. */
    for (class ++; class < RAM_CLASSES; class = (class / 64 + 1) * 64) {
        uint64_t bits = region->free_bits[class / 64] >> class % 64;

        if (bits != 0)
            return region->free_lists[class + (unsigned)__builtin_ctzll(bits)];
    }
    return NULL;
}

/* --- which of them are dirty --- */

static void dirty_link(struct ram_arena *arena, struct ram_slot *run, struct ram_slot *after)
{
    run->is_dirty = true;
    run->dirty_prev = after;
    run->dirty_next = after == NULL ? arena->dirty_first : after->dirty_next;
    if (run->dirty_next != NULL)
        run->dirty_next->dirty_prev = run;
    else
        arena->dirty_last = run;
    if (after != NULL)
        after->dirty_next = run;
    else
        arena->dirty_first = run;
}

static void dirty_unlink(struct ram_arena *arena, struct ram_slot *run)
{
    if (!run->is_dirty)
        return;
    if (run->dirty_prev != NULL)
        run->dirty_prev->dirty_next = run->dirty_next;
    else
        arena->dirty_first = run->dirty_next;
    if (run->dirty_next != NULL)
        run->dirty_next->dirty_prev = run->dirty_prev;
    else
        arena->dirty_last = run->dirty_prev;
    run->is_dirty = false;
}

/* In its place, and as old. */
static void dirty_replace(struct ram_arena *arena, struct ram_slot *gone, struct ram_slot *run)
{
    dirty_unlink(arena, run);
    run->dirty_at = gone->dirty_at;
    dirty_link(arena, run, gone);
    dirty_unlink(arena, gone);
}

static bool is_clean(const struct ram_slot *run)
{
    return run->clean_to - run->clean_from == run->bytes;
}

/* Of what is zeroed, the part in the run. */
static void clip_clean(struct ram_slot *run, uint64_t from, uint64_t to)
{
    uint64_t end = run->offset + run->bytes;

    run->clean_from = from > run->offset ? from : run->offset;
    run->clean_to = to < end ? to : end;
    if (run->clean_to <= run->clean_from)
        run->clean_from = run->clean_to = run->offset;
}

/* A free run becomes two. False: no memory. */
static bool split_run(struct ram_arena *arena, struct ram_slot *run, uint64_t bytes)
{
    struct ram_slot *rest = calloc(1, sizeof *rest);
    uint64_t from = run->clean_from, to = run->clean_to;

    if (rest == NULL)
        return false;
    run_remove(arena, run);
    rest->region = run->region;
    rest->offset = run->offset + bytes;
    rest->bytes = run->bytes - bytes;
    rest->lower = run;
    rest->higher = run->higher;
    if (rest->higher != NULL)
        rest->higher->lower = rest;
    run->higher = rest;
    run->bytes = bytes;
    rest->dirty_at = run->dirty_at;
    clip_clean(run, from, to);
    clip_clean(rest, from, to);
    if (run->is_dirty && !is_clean(rest))
        dirty_link(arena, rest, run);
    if (is_clean(run))
        dirty_unlink(arena, run);
    ram_run_add(arena, run);
    ram_run_add(arena, rest);
    return true;
}

bool ram_run_cut(struct ram_arena *arena, struct ram_slot *run, uint64_t bytes)
{
    if (run->bytes > bytes && !split_run(arena, run, bytes))
        return false;
    run_remove(arena, run);
    dirty_unlink(arena, run);
    return true;
}

static void join_clean(struct ram_slot *run, const struct ram_slot *gone)
{
    uint64_t bytes = run->clean_to - run->clean_from, gone_bytes = gone->clean_to - gone->clean_from;

    if (bytes > 0 && gone_bytes > 0 && run->clean_to == gone->clean_from) {
        run->clean_to = gone->clean_to;
    } else if (gone_bytes > bytes) { /* only one part is remembered */
        run->clean_from = gone->clean_from;
        run->clean_to = gone->clean_to;
    }
}

/* `run` takes over the bytes of the one right above it, and is as dirty as the older of them. */
static void join_higher(struct ram_arena *arena, struct ram_slot *run)
{
    struct ram_slot *gone = run->higher;

    if (gone->is_dirty && (!run->is_dirty || gone->dirty_at < run->dirty_at))
        dirty_replace(arena, gone, run);
    dirty_unlink(arena, gone);
    join_clean(run, gone);
    run->bytes += gone->bytes;
    run->higher = gone->higher;
    if (run->higher != NULL)
        run->higher->lower = run;
    free(gone);
}

void ram_run_free(struct ram_arena *arena, struct ram_slot *slot, bool is_zeroed)
{
    slot->dirty_at = ++arena->frees;
    slot->clean_from = slot->offset;
    slot->clean_to = slot->offset + (is_zeroed ? slot->bytes : 0);
    if (!is_zeroed)
        dirty_link(arena, slot, arena->dirty_last);
    if (slot->higher != NULL && slot->higher->is_free) {
        run_remove(arena, slot->higher);
        join_higher(arena, slot);
    }
    if (slot->lower != NULL && slot->lower->is_free) {
        slot = slot->lower;
        run_remove(arena, slot);
        join_higher(arena, slot);
    }
    ram_run_add(arena, slot);
}

/* What is to be zeroed of a run next, at most so much: right behind what is clean, or right before it, so that it grows. */
static void dirty_part(const struct ram_slot *run, uint64_t most, uint64_t *from_p, uint64_t *bytes_p)
{
    bool has_clean = run->clean_to > run->clean_from;
    uint64_t end = run->offset + run->bytes, from = has_clean ? run->clean_to : run->offset;
    bool is_before = from == end;
    uint64_t room = is_before ? run->clean_from - run->offset : end - from;

    *bytes_p = room < most ? room : most;
    *from_p = is_before ? run->clean_from - *bytes_p : from;
}

struct ram_slot *ram_run_cut_dirty(struct ram_arena *arena, uint64_t before)
{
    struct ram_slot *run = arena->dirty_first;
    uint64_t piece, from, bytes;

    if (run == NULL || run->dirty_at > before)
        return NULL;
    piece = round_down(arena->regions[run->region].bytes / 16, arena->granule);
    if (piece > RAM_DIRTY_BYTES)
        piece = RAM_DIRTY_BYTES;
    dirty_part(run, piece > arena->granule ? piece : arena->granule, &from, &bytes);
    if (from > run->offset && split_run(arena, run, from - run->offset))
        run = run->higher;
    else
        bytes += from - run->offset; /* no memory to part it: from its beginning */
    if (!ram_run_cut(arena, run, bytes))
        ram_run_cut(arena, run, run->bytes);
    return run;
}
