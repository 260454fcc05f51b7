/* The RAM tier: what is held stays, what is not goes in the right order, and every byte is somewhere exactly once. */
#include "kvstore/ram_arena.h"

#include <stdlib.h>

#include "support/test.h"

enum { ARENA_BYTES = 16 << 20, SLOTS = 4000, KB = 1 << 10 };

static struct status st;
static struct ram_arena *arena;
static uint32_t state = 77;

static uint32_t next_random(uint32_t below)
{
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
}

static void start(void)
{
    CHECK_OK(ram_arena_create(&arena, ARENA_BYTES, &st), st);
}

static struct ram_slot *take_published(struct ram_slot **owner, enum ram_region_kind region, uint64_t bytes,
                                       struct ram_share *share)
{
    struct ram_slot *slot = ram_take(arena, region, bytes);

    CHECK(slot != NULL);
    ram_publish(arena, slot, owner, share);
    ram_unref(arena, slot);
    return slot;
}

/* Random taking, publishing, holding and dropping, checked against a list: no two slots share a byte, contents stay
 * until the owner is cleared, and in the end everything is free again. */
TEST(arena_slots_never_overlap_and_never_leak)
{
    static struct ram_slot *owners[SLOTS], *held[64];
    static uint8_t marks[SLOTS];
    unsigned evicted = 0;

    start();
    for (unsigned round = 0; round < 60000; round++) {
        unsigned i = next_random(SLOTS), h = next_random(64);
        enum ram_region_kind region = i % 3 == 0 ? RAM_SLICES : RAM_IMAGES;

        if (owners[i] != NULL && next_random(3) == 0) {
            CHECK_EQ(ram_bytes(arena, owners[i])[0], marks[i]);
            CHECK_EQ(ram_bytes(arena, owners[i])[owners[i]->bytes - 1], marks[i]);
            ram_drop(arena, &owners[i]);
        } else if (owners[i] == NULL) {
            struct ram_slot *slot = ram_take(arena, region, 1 + next_random(60 * KB));

            if (slot == NULL)
                continue; /* too much is held */
            marks[i] = (uint8_t)next_random(256);
            memset(ram_bytes(arena, slot), marks[i], slot->bytes);
            ram_publish(arena, slot, &owners[i], NULL);
            ram_unref(arena, slot);
            evicted++;
        } else if (held[h] == NULL) {
            held[h] = owners[i];
            ram_ref(arena, held[h]);
            ram_touch(held[h]);
        } else {
            ram_unref(arena, held[h]);
            held[h] = NULL;
        }
    }
    CHECK(evicted > 10000);
    for (unsigned h = 0; h < 64; h++)
        ram_unref(arena, held[h]);
    for (unsigned i = 0; i < SLOTS; i++)
        ram_drop(arena, &owners[i]);
    for (unsigned region = 0; region < RAM_REGIONS; region++) {
        struct ram_slot *slot;

        CHECK_EQ(ram_used_bytes(arena, region), 0);
        CHECK_EQ(ram_room_bytes(arena, region), ram_region_bytes(arena, region));
        slot = ram_take(arena, region, ram_slot_bytes_max(arena, region)); /* one run again */
        CHECK(slot != NULL);
        ram_unref(arena, slot);
    }
    ram_arena_destroy(arena);
}

/* Pinned and referenced slots stay whatever is asked for. */
TEST(arena_evicts_nothing_that_is_held)
{
    struct ram_slot *owners[200] = { 0 }, *more;
    uint64_t each = 64 * KB;
    unsigned taken = 0;

    start();
    while (taken < 200 && (owners[taken] = ram_take(arena, RAM_IMAGES, each)) != NULL) {
        struct ram_slot *slot = owners[taken];

        owners[taken] = NULL;
        ram_publish(arena, slot, &owners[taken], NULL);
        ram_pin(arena, slot);
        ram_unref(arena, slot);
        taken++;
    }
    CHECK(taken > 100);
    CHECK(ram_take(arena, RAM_IMAGES, each) == NULL);
    CHECK(ram_room_bytes(arena, RAM_IMAGES) < each);
    ram_unpin(arena, owners[7]);
    more = ram_take(arena, RAM_IMAGES, each);
    CHECK(more != NULL);
    CHECK(owners[7] == NULL);
    ram_unref(arena, more);
    for (unsigned i = 0; i < taken; i++)
        if (owners[i] != NULL) {
            ram_unpin(arena, owners[i]);
            ram_drop(arena, &owners[i]);
        }
    ram_arena_destroy(arena);
}

/* A block that is written again is pinned for its new file before it is unpinned for the old one. */
TEST(arena_keeps_a_slot_until_its_last_pin)
{
    struct ram_slot *owner = NULL, *slot;
    uint64_t room;

    start();
    room = ram_room_bytes(arena, RAM_IMAGES);
    slot = ram_take(arena, RAM_IMAGES, 64 * KB);
    ram_publish(arena, slot, &owner, NULL);
    ram_pin(arena, slot);
    ram_pin(arena, slot);
    ram_unref(arena, slot);
    ram_unpin(arena, slot);
    CHECK_EQ(ram_room_bytes(arena, RAM_IMAGES), room - slot->bytes);
    ram_drop(arena, &owner);
    CHECK_EQ(ram_used_bytes(arena, RAM_IMAGES), slot->bytes);
    ram_unpin(arena, slot);
    CHECK_EQ(ram_used_bytes(arena, RAM_IMAGES), 0);
    CHECK_EQ(ram_room_bytes(arena, RAM_IMAGES), room);
    ram_arena_destroy(arena);
}

/* A slow stream keeps its newest blocks while a fast one writes a hundred times as much. */
TEST(arena_keeps_every_streams_newest_blocks)
{
    static struct ram_slot *slow[20], *fast[2000];
    struct ram_share shares[2] = { { 0 } };

    start();
    ram_set_shares(arena, 2);
    for (unsigned i = 0; i < 2000; i++) {
        if (i % 100 == 0)
            take_published(&slow[i / 100], RAM_IMAGES, 64 * KB, &shares[0]);
        take_published(&fast[i], RAM_IMAGES, 64 * KB, &shares[1]);
    }
    for (unsigned i = 0; i < 20; i++)
        CHECK(slow[i] != NULL);
    CHECK(fast[0] == NULL);
    CHECK(fast[1999] != NULL);
    for (unsigned i = 0; i < 20; i++)
        ram_drop(arena, &slow[i]);
    for (unsigned i = 0; i < 2000; i++)
        ram_drop(arena, &fast[i]);
    ram_arena_destroy(arena);
}

/* What questions read again and again survives one long read of the past. */
TEST(arena_scan_does_not_flush_what_is_read_again)
{
    static struct ram_slot *hot[10], *cold[3000];
    unsigned kept = 0;

    start();
    for (unsigned i = 0; i < 10; i++)
        take_published(&hot[i], RAM_SLICES, 16 * KB, NULL);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < 10; i++)
            ram_touch(hot[i]);
    for (unsigned i = 0; i < 3000; i++) {
        take_published(&cold[i], RAM_SLICES, 16 * KB, NULL);
        if (i % 200 == 0)
            for (unsigned n = 0; n < 10; n++)
                if (hot[n] != NULL)
                    ram_touch(hot[n]);
    }
    for (unsigned i = 0; i < 10; i++)
        kept += hot[i] != NULL;
    CHECK_EQ(kept, 10);
    CHECK(cold[0] == NULL);
    for (unsigned i = 0; i < 10; i++)
        ram_drop(arena, &hot[i]);
    for (unsigned i = 0; i < 3000; i++)
        ram_drop(arena, &cold[i]);
    ram_arena_destroy(arena);
}

/* A dropped slot lives as long as somebody reads it; its generation goes with it. */
TEST(arena_dropped_slot_lives_until_its_last_reader)
{
    const struct kv_pool *pool;
    struct kv_pool_reader *reader;
    struct ram_slot *owner = NULL, *slot;
    struct kv_place place;

    start();
    pool = ram_arena_pool(arena);
    CHECK_OK(kv_pool_reader_create(&reader, kv_pool_fd(pool), ARENA_BYTES, &st), st);
    slot = take_published(&owner, RAM_SLICES, 10 * KB, NULL);
    place = (struct kv_place){ slot->offset, 10 * KB, slot->generation };
    ram_ref(arena, slot);
    ram_drop(arena, &owner);
    CHECK(owner == NULL);
    CHECK(kv_pool_reader_is_current(reader, &place));
    CHECK(ram_used_bytes(arena, RAM_SLICES) > 0);
    ram_unref(arena, slot);
    CHECK(!kv_pool_reader_is_current(reader, &place));
    CHECK_EQ(ram_used_bytes(arena, RAM_SLICES), 0);
    kv_pool_reader_destroy(reader);
    ram_arena_destroy(arena);
}

/* What was used and is free again is zeroed once, whatever is taken and freed meanwhile; what was never used is not touched. */
TEST(arena_zeroes_what_was_used)
{
    static struct ram_slot *owners[SLOTS];
    uint8_t *base;
    uint64_t before, zeroed = 0;
    struct ram_slot *piece;

    start();
    base = kv_pool_base(ram_arena_pool(arena));
    CHECK(ram_take_dirty(arena, ram_frees(arena)) == NULL);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned i = next_random(SLOTS);

        if (owners[i] != NULL) {
            ram_drop(arena, &owners[i]);
        } else {
            struct ram_slot *slot = take_published(&owners[i], i % 3 == 0 ? RAM_SLICES : RAM_IMAGES,
                                                   1 + next_random(60 * KB), NULL);

            memset(ram_bytes(arena, slot), 0xa5, slot->bytes);
        }
    }
    for (unsigned i = 0; i < SLOTS; i++)
        if (i % 10 != 0)
            ram_drop(arena, &owners[i]);
    before = ram_frees(arena);
    while ((piece = ram_take_dirty(arena, before)) != NULL) {
        unsigned i = next_random(SLOTS / 10) * 10;

        memset(ram_bytes(arena, piece), 0, piece->bytes);
        zeroed += piece->bytes;
        if (owners[i] != NULL && next_random(4) == 0) {
            memset(ram_bytes(arena, owners[i]), 0, owners[i]->bytes);
            ram_drop(arena, &owners[i]); /* beside it, or not */
        }
        ram_give_clean(arena, piece);
    }
    CHECK(zeroed > ARENA_BYTES / 4 && zeroed < 3ull * ARENA_BYTES);
    for (unsigned i = 0; i < SLOTS; i++)
        if (owners[i] != NULL) {
            memset(ram_bytes(arena, owners[i]), 0, owners[i]->bytes);
            ram_drop(arena, &owners[i]);
        }
    CHECK(memchr(base + kv_pool_data_offset(ram_arena_pool(arena)), 0xa5,
                 kv_pool_bytes(ram_arena_pool(arena)) - kv_pool_data_offset(ram_arena_pool(arena))) == NULL);
    ram_arena_destroy(arena);
}

/* Read by somebody and dropped by its owner, or never published: it goes with the last reader, and is waited for. */
TEST(arena_waits_for_what_has_no_owner)
{
    struct ram_slot *owner = NULL, *half, *moved, *late = NULL;

    start();
    half = ram_take(arena, RAM_SLICES, KB);
    moved = take_published(&owner, RAM_IMAGES, KB, NULL);
    ram_ref(arena, moved);
    ram_drop(arena, &owner);
    take_published(&owner, RAM_IMAGES, KB, NULL);
    CHECK(!ram_has_secrets(arena));
    ram_make_loose_secret(arena);
    ram_unref(arena, half);
    CHECK(ram_has_secrets(arena));
    ram_unref(arena, moved);
    CHECK(!ram_has_secrets(arena));
    half = ram_take(arena, RAM_SLICES, KB);
    ram_make_loose_secret(arena);
    ram_publish(arena, half, &late, NULL); /* what came meanwhile is none */
    CHECK(!ram_has_secrets(arena));
    ram_unref(arena, half);
    ram_drop(arena, &late);
    ram_drop(arena, &owner);
    ram_arena_destroy(arena);
}

TEST_MAIN()
