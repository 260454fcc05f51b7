/* block_read.h - a whole block as it came, for a writer that reloads its window: the record's image, checked.
 *
 * Owner, Thread, Fails: as slice_read.h. An image read back from the disk stays in RAM as long as there is room.
 * Bounds: a frame waits while RAM or the threads' queue are full; INIT answers UNAVAILABLE then. */
#ifndef REELKV_KVSTORE_BLOCK_READ_H
#define REELKV_KVSTORE_BLOCK_READ_H

#include "kvstore/slice_read.h"

struct block_read {
    /* asked for */
    struct store *store;
    const struct stream *stream; /* for INIT, until start returns */
    struct index_frame *frame;   /* NULL: the INIT block, the newest that came */
    bool takes_reduced;          /* one of fewer bits too: decoded, and answered as DERIVED */
    void (*done)(struct block_read *read);
    /* answered */
    enum frame_result result;
    struct kv_record record;
    const uint8_t *image;
    /* under way */
    struct segment_fetch fetch;
    struct ram_waiter waiter;
    struct index_chunk *chunk;
    struct segment *segment;
    struct ram_slot *slot;
    uint64_t buffer_bytes;
    uint8_t *buffer; /* of INIT; or what is decoded to */
    uint64_t offset, bytes;
    bool is_from_disk, is_reduced, is_running;
};

/* True: answered now. A stream without INIT answers NOT_FOUND. */
bool block_read_start(struct block_read *read);
void block_read_release(struct block_read *read); /* not while it runs */

#endif
