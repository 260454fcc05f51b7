#include "kvstore/ram_arena_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/require.h"

enum { TOUCHES_MAX = 3 };

static void forget_secret(struct ram_arena *arena, struct ram_slot *slot)
{
    arena->secrets -= slot->is_secret;
    slot->is_secret = false;
}

static void make_free(struct ram_arena *arena, struct ram_slot *slot, bool is_zeroed)
{
    struct region *region = &arena->regions[slot->region];

    REQUIRE(slot->refs == 0);
    REQUIRE(slot->pins == 0);
    REQUIRE(slot->owner == NULL);
    REQUIRE(slot->queue == QUEUE_NONE);
    if (slot->generation != 0)
        kv_pool_retire(arena->pool, slot->offset, slot->bytes);
    region->used -= slot->bytes;
    forget_secret(arena, slot);
    ram_run_free(arena, slot, is_zeroed);
}

/* --- eviction order --- */

static void queue_push(struct ram_arena *arena, struct ram_slot *slot, enum queue_kind kind)
{
    struct queue *queue = &arena->regions[slot->region].queues[kind];

    slot->queue = kind;
    slot->queue_next = NULL;
    slot->queue_prev = queue->last;
    if (queue->last != NULL)
        queue->last->queue_next = slot;
    else
        queue->first = slot;
    queue->last = slot;
    queue->bytes += slot->bytes;
    queue->count++;
}

static void queue_remove(struct ram_arena *arena, struct ram_slot *slot)
{
    struct queue *queue = &arena->regions[slot->region].queues[slot->queue];

    if (slot->queue == QUEUE_NONE)
        return;
    if (slot->queue_prev != NULL)
        slot->queue_prev->queue_next = slot->queue_next;
    else
        queue->first = slot->queue_next;
    if (slot->queue_next != NULL)
        slot->queue_next->queue_prev = slot->queue_prev;
    else
        queue->last = slot->queue_prev;
    queue->bytes -= slot->bytes;
    queue->count--;
    slot->queue = QUEUE_NONE;
}

static bool is_held(const struct ram_slot *slot)
{
    return slot->refs > 0 || slot->pins > 0;
}

static bool is_guaranteed(const struct ram_arena *arena, const struct ram_slot *slot)
{
    return slot->share != NULL &&
           slot->share->written_bytes - slot->share_mark + slot->bytes <= arena->guarantee;
}

static void evict(struct ram_arena *arena, struct ram_slot *slot)
{
    queue_remove(arena, slot);
    *slot->owner = NULL;
    slot->owner = NULL;
    make_free(arena, slot, false);
}

/* Goes once through a queue at most. What was touched since it was queued goes to `again`, what may not go now
 * goes to the end. */
static bool evict_from(struct ram_arena *arena, struct region *region, enum queue_kind kind,
                       bool spare_guaranteed)
{
    struct queue *queue = &region->queues[kind];

    for (uint64_t looks = queue->count; looks > 0; looks--) {
        struct ram_slot *slot = queue->first;

        if (!is_held(slot) && slot->touches == 0 && !(spare_guaranteed && is_guaranteed(arena, slot))) {
            evict(arena, slot);
            return true;
        }
        queue_remove(arena, slot);
        if (!is_held(slot) && slot->touches > 0) {
            slot->touches--;
            queue_push(arena, slot, kind == QUEUE_SMALL ? QUEUE_MAIN : kind);
        } else {
            queue_push(arena, slot, kind);
        }
    }
    return false;
}

static bool evict_one(struct ram_arena *arena, struct region *region)
{
    const struct queue *small = &region->queues[QUEUE_SMALL];

    if (small->bytes > region->bytes / 10 && evict_from(arena, region, QUEUE_SMALL, false))
        return true;
    if (evict_from(arena, region, QUEUE_LIVE, true))
        return true;
    /* A pass takes one touch off; TOUCHES_MAX more passes find one without. */
    for (int pass = 0; pass <= TOUCHES_MAX; pass++)
        if (evict_from(arena, region, QUEUE_MAIN, false) || evict_from(arena, region, QUEUE_SMALL, false) ||
            evict_from(arena, region, QUEUE_LIVE, false))
            return true;
    return false;
}

/* --- the arena --- */

static bool region_init(struct ram_arena *arena, enum ram_region_kind kind, uint64_t offset, uint64_t bytes)
{
    struct region *region = &arena->regions[kind];
    struct ram_slot *all = calloc(1, sizeof *all);

    if (all == NULL)
        return false;
    region->offset = all->offset = offset;
    region->bytes = all->bytes = bytes;
    region->lowest = all;
    all->region = (uint8_t)kind;
    all->clean_from = offset;
    all->clean_to = offset + bytes;
    ram_run_add(arena, all);
    return true;
}

bool ram_arena_create(struct ram_arena **arena_p, uint64_t bytes, struct status *st)
{
    struct ram_arena *arena = calloc(1, sizeof *arena);
    uint64_t data, room, slices;

    if (arena == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the RAM tier");
    if (!kv_pool_create(&arena->pool, "reelkv-kv", bytes, st)) {
        free(arena);
        return false;
    }
    arena->granule = kv_pool_granule(arena->pool);
    data = kv_pool_data_offset(arena->pool);
    room = kv_pool_bytes(arena->pool) - data;
    slices = room / 4 / arena->granule * arena->granule;
    if (slices == 0 || !region_init(arena, RAM_IMAGES, data, room - slices) ||
        !region_init(arena, RAM_SLICES, data + room - slices, slices)) {
        ram_arena_destroy(arena);
        return status_fail(st, STATUS_EXHAUSTED, "RAM tier: %llu bytes are too few",
                           (unsigned long long)bytes);
    }
    ram_set_shares(arena, 1);
    *arena_p = arena;
    return true;
}

void ram_arena_destroy(struct ram_arena *arena)
{
    if (arena == NULL)
        return;
    for (unsigned kind = 0; kind < RAM_REGIONS; kind++) {
        struct ram_slot *slot = arena->regions[kind].lowest;

        while (slot != NULL) {
            struct ram_slot *higher = slot->higher;

            REQUIRE(slot->is_free);
            free(slot);
            slot = higher;
        }
    }
    kv_pool_destroy(arena->pool);
    free(arena);
}

const struct kv_pool *ram_arena_pool(const struct ram_arena *arena)
{
    return arena->pool;
}

uint64_t ram_slot_bytes_max(const struct ram_arena *arena, enum ram_region_kind region)
{
    return arena->regions[region].bytes / 2 / arena->granule * arena->granule;
}

uint64_t ram_region_bytes(const struct ram_arena *arena, enum ram_region_kind region)
{
    return arena->regions[region].bytes;
}

uint64_t ram_used_bytes(const struct ram_arena *arena, enum ram_region_kind region)
{
    return arena->regions[region].used;
}

uint64_t ram_room_bytes(const struct ram_arena *arena, enum ram_region_kind region)
{
    return arena->regions[region].bytes - arena->regions[region].held;
}

void ram_set_shares(struct ram_arena *arena, uint32_t shares)
{
    arena->guarantee = arena->regions[RAM_IMAGES].bytes / 2 / (shares == 0 ? 1 : shares);
}

static void begin_use(struct ram_arena *arena, struct ram_slot *slot)
{
    struct region *region = &arena->regions[slot->region];

    slot->generation = 0;
    slot->refs = 1;
    slot->touches = 0;
    slot->pins = 0;
    slot->owner = NULL;
    slot->share = NULL;
    slot->queue = QUEUE_NONE;
    region->used += slot->bytes;
    region->held += slot->bytes;
}

struct ram_slot *ram_take(struct ram_arena *arena, enum ram_region_kind kind, uint64_t bytes)
{
    struct region *region = &arena->regions[kind];
    uint64_t rounded = round_up(bytes, arena->granule);
    struct ram_slot *run;

    REQUIRE(bytes > 0);
    if (rounded > ram_slot_bytes_max(arena, kind))
        return NULL;
    while ((run = ram_run_find(arena, region, rounded)) == NULL)
        if (!evict_one(arena, region))
            return NULL;
    if (!ram_run_cut(arena, run, rounded))
        return NULL;
    begin_use(arena, run);
    explicit_bzero(ram_bytes(arena, run) + bytes, rounded - bytes); /* nobody writes there */
    queue_push(arena, run, QUEUE_LOOSE);
    return run;
}

uint8_t *ram_bytes(const struct ram_arena *arena, const struct ram_slot *slot)
{
    return kv_pool_base(arena->pool) + slot->offset;
}

void ram_publish(struct ram_arena *arena, struct ram_slot *slot, struct ram_slot **owner,
                 struct ram_share *share)
{
    REQUIRE(slot->owner == NULL);
    REQUIRE(slot->generation == 0);
    slot->generation = ++arena->generation;
    kv_pool_publish(arena->pool, slot->offset, slot->bytes, slot->generation);
    forget_secret(arena, slot);
    queue_remove(arena, slot);
    slot->owner = owner;
    *owner = slot;
    if (share != NULL) {
        share->written_bytes += slot->bytes;
        slot->share = share;
        slot->share_mark = share->written_bytes;
    }
    queue_push(arena, slot, slot->region == RAM_IMAGES ? QUEUE_LIVE : QUEUE_SMALL);
}

void ram_move_owner(struct ram_slot *slot, struct ram_slot **owner)
{
    REQUIRE(slot->owner != NULL);
    *slot->owner = NULL;
    slot->owner = owner;
    *owner = slot;
}

static void free_if_unwanted(struct ram_arena *arena, struct ram_slot *slot)
{
    if (is_held(slot) || slot->owner != NULL)
        return;
    queue_remove(arena, slot);
    make_free(arena, slot, false);
}

void ram_drop(struct ram_arena *arena, struct ram_slot **owner)
{
    struct ram_slot *slot = *owner;

    if (slot == NULL)
        return;
    REQUIRE(slot->owner == owner);
    *owner = NULL;
    slot->owner = NULL;
    slot->share = NULL;
    queue_remove(arena, slot);
    if (is_held(slot))
        queue_push(arena, slot, QUEUE_LOOSE);
    free_if_unwanted(arena, slot);
}

/* Counts held bytes as references and pins come and go. */
static void set_held(struct ram_arena *arena, const struct ram_slot *slot, bool was_held)
{
    if (was_held && !is_held(slot))
        arena->regions[slot->region].held -= slot->bytes;
    else if (!was_held && is_held(slot))
        arena->regions[slot->region].held += slot->bytes;
}

void ram_ref(struct ram_arena *arena, struct ram_slot *slot)
{
    bool was_held = is_held(slot);

    slot->refs++;
    set_held(arena, slot, was_held);
}

void ram_unref(struct ram_arena *arena, struct ram_slot *slot)
{
    if (slot == NULL)
        return;
    REQUIRE(slot->refs > 0);
    slot->refs--;
    set_held(arena, slot, true);
    free_if_unwanted(arena, slot);
}

void ram_pin(struct ram_arena *arena, struct ram_slot *slot)
{
    bool was_held = is_held(slot);

    slot->pins++;
    set_held(arena, slot, was_held);
}

void ram_unpin(struct ram_arena *arena, struct ram_slot *slot)
{
    REQUIRE(slot->pins > 0);
    slot->pins--;
    set_held(arena, slot, true);
    free_if_unwanted(arena, slot);
}

void ram_make_secret(struct ram_arena *arena, struct ram_slot *slot)
{
    if (slot == NULL || slot->is_secret)
        return;
    slot->is_secret = true;
    arena->secrets++;
}

bool ram_has_secrets(const struct ram_arena *arena)
{
    return arena->secrets > 0;
}

void ram_make_loose_secret(struct ram_arena *arena)
{
    for (uint32_t i = 0; i < RAM_REGIONS; i++)
        for (struct ram_slot *slot = arena->regions[i].queues[QUEUE_LOOSE].first; slot != NULL;
             slot = slot->queue_next)
            ram_make_secret(arena, slot);
}

uint64_t ram_frees(const struct ram_arena *arena)
{
    return arena->frees;
}

struct ram_slot *ram_take_dirty(struct ram_arena *arena, uint64_t before)
{
    struct ram_slot *run = ram_run_cut_dirty(arena, before);

    if (run != NULL)
        begin_use(arena, run);
    return run;
}

void ram_give_clean(struct ram_arena *arena, struct ram_slot *slot)
{
    slot->refs = 0;
    set_held(arena, slot, true);
    make_free(arena, slot, true);
}

void ram_touch(struct ram_slot *slot)
{
    if (slot->touches < TOUCHES_MAX)
        slot->touches++;
}
