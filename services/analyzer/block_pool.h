/* block_pool.h - memory for blocks between the model that writes them and the store that copies them.
 *
 * Slots of one size, in a sealed memfd that stores on this host map read-only (kv/kv_pool.h). A slot is let go
 * by reference: one for the block itself until the store has it, one for each chunk the transport still sends.
 *
 * Owner:  analyzer; destroyed after every slot came back.
 * Thread: the loop's for all but writing a held slot's bytes.
 * Fails:  EXHAUSTED when the memory is not there; taking a slot from an empty pool gives NULL: wait for
 *         `freed`.
 * Bounds: pool_bytes. */
#ifndef REELKV_ANALYZER_BLOCK_POOL_H
#define REELKV_ANALYZER_BLOCK_POOL_H

#include "kv/kv_pool.h"

struct block_pool;

struct block_slot {
    uint8_t *bytes;
    uint64_t offset; /* in the pool, for AppendRequest.block.shm_offset */
    uint32_t refs;
    struct block_pool *pool;
    struct block_slot *next_free;
};

/* As many slots of slot_bytes as fit; at least one. `freed` is called each time a slot comes back. */
bool block_pool_create(struct block_pool **pool_p, uint64_t pool_bytes, uint64_t slot_bytes,
                       void (*freed)(void *user), void *user, struct status *st);
void block_pool_destroy(struct block_pool *pool); /* NULL is fine */

const struct kv_pool *block_pool_memory(const struct block_pool *pool);

bool block_pool_has_free(const struct block_pool *pool);
struct block_slot *block_pool_take(struct block_pool *pool); /* one reference; NULL: none is free */
void block_slot_ref(struct block_slot *slot);
void block_slot_unref(void *slot); /* void *: an attachment's release */

#endif
