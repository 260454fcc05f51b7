/* ram_arena_internal.h - what ram_arena.c and ram_runs.c share: the arena, its regions, and the runs of a region that are free.
 *
 * A slot that is free is a run: those that touch are one, found by size. What of a run was zeroed and not used since is known
 * in one piece; one that has more bytes than that is dirty, and in a list by when it became so.
 *
 * Thread: loop. Fails: false or NULL without memory for one more run, or when there is none. */
#ifndef REELKV_KVSTORE_RAM_ARENA_INTERNAL_H
#define REELKV_KVSTORE_RAM_ARENA_INTERNAL_H

#include "kvstore/ram_arena.h"

/* Free runs by size: four classes to each doubling, a bit for each class that has any. */
enum { RAM_CLASS_BITS = 2, RAM_CLASSES = 64 << RAM_CLASS_BITS };

enum queue_kind {
    QUEUE_NONE,
    QUEUE_LOOSE,
    QUEUE_LIVE,
    QUEUE_SMALL,
    QUEUE_MAIN,
    QUEUES
}; /* loose: held, no owner */

struct queue {
    struct ram_slot *first, *last;
    uint64_t bytes, count;
};

struct region {
    uint64_t offset, bytes, used, held; /* held: referenced or pinned */
    struct ram_slot *lowest;            /* stays the same: runs are joined from below */
    struct ram_slot *free_lists[RAM_CLASSES];
    uint64_t free_bits[RAM_CLASSES / 64];
    struct queue queues[QUEUES];
};

struct ram_arena {
    struct kv_pool *pool;
    uint64_t granule;
    uint64_t generation; /* the last given */
    uint64_t guarantee;  /* bytes of each stream's newest blocks */
    uint64_t secrets;    /* slots */
    uint64_t frees;
    struct ram_slot *dirty_first, *dirty_last; /* free runs, by when they became so */
    struct region regions[RAM_REGIONS];
};

void ram_run_add(struct ram_arena *arena, struct ram_slot *run); /* to those of its size */
/* The first that is long enough; NULL: there is none. */
struct ram_slot *ram_run_find(const struct ram_arena *arena, const struct region *region, uint64_t bytes);
/* The slot takes the run's start; what is left over becomes a run. */
bool ram_run_cut(struct ram_arena *arena, struct ram_slot *run, uint64_t bytes);
/* A slot becomes a run, or part of those beside it. */
void ram_run_free(struct ram_arena *arena, struct ram_slot *slot, bool is_zeroed);
/* Cuts what is to be zeroed next (ram_take_dirty()). */
struct ram_slot *ram_run_cut_dirty(struct ram_arena *arena, uint64_t before);

#endif
