/* ram_arena.h - the RAM tier: one sealed pool, mapped by readers on this host, cut into slots.
 *
 * Two regions, so that large and small do not break each other's room: images hold whole records as they lie on
 * the disk (written from here, served from here); slices hold single layers that questions had read back.
 *
 *   taken --publish--> served --drop--> free when no reference is left
 *
 * A slot belongs to one owner pointer (in the index), which is cleared when the slot is evicted. References are
 * leases and reads and writes in flight; pins are blocks not yet on the disk: both are counted, and keep a slot.
 *
 * Eviction. Images: in the order of writing, except that every stream keeps its newest blocks up to its share
 * (half of the region over all streams), unless nothing else is left. Slices: S3-FIFO; what is read once goes
 * through a short queue and cannot flush what is read again.
 *
 * Owner:  the store. Thread: loop only; the bytes of a slot are for whoever holds a reference.
 * Fails:  ram_take() gives NULL when references and pins hold too much: try again when some are gone.
 * Bounds: the bytes given, for ever. */
#ifndef REELKV_KVSTORE_RAM_ARENA_H
#define REELKV_KVSTORE_RAM_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kv/kv_pool.h"

enum ram_region_kind { RAM_IMAGES, RAM_SLICES, RAM_REGIONS };

/* One for each stream: counts what it wrote, which tells how old a block is among its own. */
struct ram_share {
    uint64_t written_bytes;
};

struct slice_item;

struct ram_slot {
    uint64_t offset, bytes; /* in the pool; multiples of its granule */
    uint64_t generation;    /* 0: not published */
    uint32_t refs, pins;
    uint8_t region;
    uint8_t queue; /* where eviction finds it */
    uint8_t touches;
    bool is_free;
    bool is_dirty;                            /* free, and used since it was zeroed last */
    bool is_secret;                           /* somebody waits until it has gone */
    struct ram_slot **owner;                  /* NULL: dropped, goes when refs do */
    struct slice_item *leases;                /* of calls that told readers where it is (slice_sender.c) */
    struct ram_share *share;                  /* of an image; NULL: none */
    uint64_t share_mark;                      /* share->written_bytes right after this one */
    struct ram_slot *lower, *higher;          /* neighbours by address */
    struct ram_slot *queue_next, *queue_prev; /* eviction order, or the free list */
    struct ram_slot *dirty_next, *dirty_prev; /* of what is dirty, by when it became free */
    uint64_t dirty_at;
    uint64_t clean_from, clean_to; /* of what is free: zeroed, by offsets in the pool */
};

struct ram_arena;

bool ram_arena_create(struct ram_arena **arena_p, uint64_t bytes, struct status *st);
void ram_arena_destroy(struct ram_arena *arena); /* NULL is fine; no owner may be left */

const struct kv_pool *ram_arena_pool(const struct ram_arena *arena);

/* The largest slot a region gives; more can never be had. */
uint64_t ram_slot_bytes_max(const struct ram_arena *arena, enum ram_region_kind region);
uint64_t ram_region_bytes(const struct ram_arena *arena, enum ram_region_kind region);
uint64_t ram_used_bytes(const struct ram_arena *arena, enum ram_region_kind region);

/* Bytes that could be taken now, by evicting whatever can be. */
uint64_t ram_room_bytes(const struct ram_arena *arena, enum ram_region_kind region);

/* How many streams share the guarantee. */
void ram_set_shares(struct ram_arena *arena, uint32_t shares);

/* A slot with one reference and no owner; may evict. NULL: no room now. */
struct ram_slot *ram_take(struct ram_arena *arena, enum ram_region_kind region, uint64_t bytes);
uint8_t *ram_bytes(const struct ram_arena *arena, const struct ram_slot *slot);

/* The bytes stay from here on: readers may find them, eviction too. *owner is set to the slot. share NULL: no
 * guarantee. */
void ram_publish(struct ram_arena *arena, struct ram_slot *slot, struct ram_slot **owner,
                 struct ram_share *share);

/* The owner has moved in memory. */
void ram_move_owner(struct ram_slot *slot, struct ram_slot **owner);

/* The owner gives it up: clears the pointer; the slot goes with its last reference. */
void ram_drop(struct ram_arena *arena, struct ram_slot **owner);

void ram_ref(struct ram_arena *arena, struct ram_slot *slot);
void ram_unref(struct ram_arena *arena, struct ram_slot *slot); /* NULL is fine */
void ram_pin(struct ram_arena *arena, struct ram_slot *slot);
void ram_unpin(struct ram_arena *arena, struct ram_slot *slot);
void ram_touch(struct ram_slot *slot); /* a question read it */

/* What is in it must not be found any more: when no secret slot is left, what is free is zeroed. NULL is fine. */
void ram_make_secret(struct ram_arena *arena, struct ram_slot *slot);
/* The same of all slots that are held and have no owner: those who read them have them alone. One that is published after
 * all is none. */
void ram_make_loose_secret(struct ram_arena *arena);
bool ram_has_secrets(const struct ram_arena *arena); /* that have not gone yet */

/* Zeroing what is free: what became free before ram_frees() said so, a piece at a time, at most RAM_DIRTY_BYTES and a
 * sixteenth of its region. NULL: nothing of it is left. Memory that was never used is not touched. */
enum { RAM_DIRTY_BYTES = 4 << 20 };
uint64_t ram_frees(const struct ram_arena *arena);
struct ram_slot *ram_take_dirty(struct ram_arena *arena, uint64_t before);
void ram_give_clean(struct ram_arena *arena, struct ram_slot *slot); /* all its bytes are zero */

#endif
