/* The index by itself: keys of a large model stand in large pages; an allocation that fails changes nothing. */
#include "kvstore/index.h"

#include "base/large.h"
#include "simulation/sim_memory.h"
#include "support/test.h"

/* A 7B model's: keys in large pages. A small one's: behind the sums. */
static const struct kv_geometry shapes[] = {
    { .layers = 28, .kv_heads = 4, .head_dim = 128, .dtype = KV_DTYPE_F16 },
    { .layers = 4, .kv_heads = 2, .head_dim = 32, .dtype = KV_DTYPE_F32 },
};

enum { FRAMES = 3 * INDEX_CHUNK_FRAMES + 1 };

static bool add(struct index_part *part, struct index_memory *memory, const struct kv_geometry *geometry,
                uint64_t seq)
{
    const struct index_frame frame = { .seq = seq, .tokens = 1 };
    struct index_frame *added = index_part_add(part, NULL, memory, geometry, &frame);

    for (uint32_t layer = 0; added != NULL && layer < geometry->layers; layer++)
        memset(index_frame_key(added, layer), (int)(seq * 31 + layer), kv_key_bytes(geometry));
    return added != NULL;
}

static bool has_its_keys(const struct index_part *part, const struct kv_geometry *geometry, uint64_t seq)
{
    const struct index_frame *frame = index_part_find(part, seq);

    CHECK(frame != NULL);
    for (uint32_t layer = 0; layer < geometry->layers; layer++)
        for (uint32_t i = 0; i < kv_key_bytes(geometry); i++)
            if (index_frame_key(frame, layer)[i] != (uint8_t)(seq * 31 + layer))
                return false;
    return true;
}

TEST(keys_of_a_layer_stand_together_in_large_pages_where_they_are_many)
{
    struct index_memory memory = { .limit_bytes = UINT64_MAX };
    struct index_part part = { 0 };
    const struct index_chunk *chunk;

    for (uint64_t seq = 0; seq < FRAMES; seq++)
        CHECK(add(&part, &memory, &shapes[0], seq));
    chunk = part.chunks[1];
    CHECK_EQ((uintptr_t)chunk->keys % LARGE_ALIGN, 0);
    CHECK_EQ(index_frame_key(&chunk->frames[1], 0) - index_frame_key(&chunk->frames[0], 0), 1024);
    CHECK_EQ(index_frame_key(&chunk->frames[0], 1) - index_frame_key(&chunk->frames[0], 0), 16 * 1024);
    CHECK_EQ(chunk->keys - part.chunks[0]->keys, 16 * 28 * 1024);
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        CHECK(has_its_keys(&part, &shapes[0], seq));
    index_part_drop(&part, NULL);
    CHECK_EQ(memory.used_bytes, 0);
}

/* Fills a part while the n-th allocation fails. False: fewer were asked for. */
static bool fill_with_a_failure(const struct kv_geometry *geometry, uint64_t n)
{
    struct index_memory memory = { .limit_bytes = UINT64_MAX };
    struct index_part part = { 0 };
    int64_t live = sim_memory_live();
    uint32_t refused = 0;

    sim_memory_start();
    sim_memory_fail_at(n, 1);
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        if (!add(&part, &memory, geometry, seq)) {
            refused++;
            CHECK_EQ(part.frame_count, seq);
            CHECK_EQ(memory.used_bytes, part.chunk_count * index_chunk_bytes(geometry));
            seq--;
        }
    CHECK_EQ(refused, sim_memory_failed());
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        CHECK(has_its_keys(&part, geometry, seq));
    index_part_drop(&part, NULL);
    CHECK_EQ(memory.used_bytes, 0);
    CHECK_EQ(sim_memory_live(), live);
    return refused > 0;
}

TEST(every_allocation_may_fail_and_the_frame_be_added_again)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        uint64_t n = 1;

        while (fill_with_a_failure(&shapes[i], n))
            n++;
        CHECK(n > 4); /* a chunk each for the frames, and the list */
    }
    sim_memory_start(); /* what the program allocates at its end is not refused */
}

TEST_MAIN()
