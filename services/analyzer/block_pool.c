#include "block_pool.h"

#include <stdlib.h>

#include "base/require.h"

struct block_pool {
    struct kv_pool *memory;
    uint64_t slot_bytes;
    uint32_t slot_count, free_count;
    struct block_slot *slots;
    struct block_slot *first_free;
    void (*freed)(void *user);
    void *user;
};

static void lay_out_slots(struct block_pool *pool)
{
    uint8_t *base = kv_pool_base(pool->memory);
    uint64_t first = kv_pool_data_offset(pool->memory);

    for (uint32_t i = pool->slot_count; i-- > 0;) {
        struct block_slot *slot = &pool->slots[i];

        slot->offset = first + i * pool->slot_bytes;
        slot->bytes = base + slot->offset;
        slot->pool = pool;
        slot->next_free = pool->first_free;
        pool->first_free = slot;
    }
    pool->free_count = pool->slot_count;
}

bool block_pool_create(struct block_pool **pool_p, uint64_t pool_bytes, uint64_t slot_bytes,
                       void (*freed)(void *user), void *user, struct status *st)
{
    struct block_pool *pool = calloc(1, sizeof *pool);
    uint64_t room;

    if (pool == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a block pool");
    pool->freed = freed;
    pool->user = user;
    pool->slot_bytes = (slot_bytes + 4095) / 4096 * 4096;
    if (!kv_pool_create(&pool->memory, "reelkv-blocks", pool_bytes, st))
        goto fail;
    room = kv_pool_bytes(pool->memory) - kv_pool_data_offset(pool->memory);
    pool->slot_count = (uint32_t)(room / pool->slot_bytes);
    if (pool->slot_count == 0) {
        status_fail(st, STATUS_EXHAUSTED, "pool_bytes %llu holds no block of %llu bytes; give it more",
                    (unsigned long long)pool_bytes, (unsigned long long)slot_bytes);
        goto fail;
    }
    pool->slots = calloc(pool->slot_count, sizeof *pool->slots);
    if (pool->slots == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for %u slots", pool->slot_count);
        goto fail;
    }
    lay_out_slots(pool);
    *pool_p = pool;
    return true;
fail:
    block_pool_destroy(pool);
    return false;
}

void block_pool_destroy(struct block_pool *pool)
{
    if (pool == NULL)
        return;
    REQUIRE(pool->free_count == (pool->slots == NULL ? 0 : pool->slot_count));
    kv_pool_destroy(pool->memory);
    free(pool->slots);
    free(pool);
}

const struct kv_pool *block_pool_memory(const struct block_pool *pool)
{
    return pool->memory;
}

bool block_pool_has_free(const struct block_pool *pool)
{
    return pool->first_free != NULL;
}

struct block_slot *block_pool_take(struct block_pool *pool)
{
    struct block_slot *slot = pool->first_free;

    if (slot == NULL)
        return NULL;
    pool->first_free = slot->next_free;
    pool->free_count--;
    slot->refs = 1;
    return slot;
}

void block_slot_ref(struct block_slot *slot)
{
    REQUIRE(slot->refs > 0);
    slot->refs++;
}

void block_slot_unref(void *slot_)
{
    struct block_slot *slot = slot_;
    struct block_pool *pool = slot->pool;

    REQUIRE(slot->refs > 0);
    if (--slot->refs > 0)
        return;
    slot->next_free = pool->first_free;
    pool->first_free = slot;
    pool->free_count++;
    pool->freed(pool->user);
}
