/* kvstore_append.h - one call of Append, as its two files share it: kvstore_append.c has the call, its messages and
 * acks, kvstore_append_block.c the block at hand.
 *
 * Owner:  the call; freed when the call is over and no thread works for it.
 * Thread: the loop's, but for what a computing thread does with the block's record, slot and place meanwhile.
 * Bounds: one block; append_wait_ms without room. */
#ifndef REELKV_KVSTORE_KVSTORE_APPEND_H
#define REELKV_KVSTORE_KVSTORE_APPEND_H

#include "kvstore/kvstore.h"
#include "kvstore/kvstore_shm.h"

struct append {
    struct kvstore *kvstore;
    struct rpc_call *call; /* NULL: over */
    struct stream *stream; /* NULL: not attached, or fenced */
    struct stream_writer writer;
    struct shm_pool *pool;
    struct ram_waiter waiter;
    struct loop_timer wait_timer;
    bool ack_wanted, has_half_closed;
    bool is_import;
    struct stream *imported;               /* all of it came, and is being made seen; NULL: not yet */
    bool is_saving;                        /* an import begins or ends; it is told when that is on the disk */
    const Reelkv__V1__AppendRequest *note; /* a gap or end that waits; lives until the next is read */
    /* the block at hand */
    struct kv_record record;
    struct ram_slot *slot; /* NULL: none at hand */
    uint32_t payload_crc;
    struct kv_place place; /* in the writer's pool; length 0: in chunks */
    uint64_t left_bytes;   /* to come in chunks, of the block, or of one that is known and skipped */
    struct kv_record_intake intake;
    bool is_checked;                /* only its storing is left */
    const Reelkv__V1__Block *block; /* its message, which lives until the next is read */
    /* copying and checking it, on a computing thread, when it lies in the writer's pool */
    struct work work;
    bool is_working;
    uint32_t found_crc; /* of its bytes as they stand in the store's memory */
};

void append_read_next(struct append *append);
void append_finish(struct append *append, const struct status *status);
void append_send_ack(struct append *append);
void append_free(
    struct append *append); /* not while the call lasts, or something is under way: then nothing */

/* --- an import --- */

/* The stream is made; reading goes on when it is attached. */
bool append_begin_import(struct append *append, const Reelkv__V1__AppendBegin *message, struct status *st);
void append_finish_import(struct append *append); /* all is durable: it is seen, and the call ends */
void append_leave_import(struct stream *stream);  /* detached: unless all of it came it is removed */

/* --- the block at hand --- */

void append_on_block(struct append *append, const Reelkv__V1__Block *block);
void append_on_chunk(struct append *append, const struct rpc_payload *payload);
bool append_wants_chunk(const struct append *append);
bool append_retry(struct ram_waiter *waiter);  /* takes up what waited: a slot, a thread, room in the index */
void append_limit_wait(struct append *append); /* after append_wait_ms the call ends, refused */
void append_stop_waiting(struct append *append);

#endif
