/* arena_wipe.h - zeroes what is free of the store's RAM, and has been used since it was zeroed last.
 *
 *   taken from what is free, a piece at a time -> zeroed on a computing thread -> free again -> ... -> done()
 *
 * What becomes free meanwhile is left out. A store that closes ends it early: its memory goes.
 *
 * Owner:  the caller's memory, until done() is called, once. Thread: loop; the zeroing on a computing thread.
 * Bounds: RAM_DIRTY_BYTES at a time, which nobody else can take meanwhile; no more than was free and used. */
#ifndef REELKV_KVSTORE_ARENA_WIPE_H
#define REELKV_KVSTORE_ARENA_WIPE_H

#include "kvstore/store.h"

struct arena_wipe {
    struct store *store;
    void (*done)(struct arena_wipe *wipe);
    /* under way */
    struct work work;
    struct ram_slot *slot;
    uint64_t before;
};

void arena_wipe_start(struct arena_wipe *wipe); /* done() may be called before this returns */

#endif
