/* block_sender.h - whole blocks on a call, one after the other: a Block, then its payload in chunks from where it lies.
 *
 * Owner:  the call's own struct; block_sender_deinit() when the call is over. A block that is being sent or read stays until
 *         that has ended.
 * Thread: loop. Bounds: one block. */
#ifndef REELKV_KVSTORE_BLOCK_SENDER_H
#define REELKV_KVSTORE_BLOCK_SENDER_H

#include "kvstore/block_read.h"
#include "kvstore/kvstore.h"

struct sender_block;

struct block_sender {
    /* given */
    struct kvstore *kvstore;
    struct rpc_call *call;
    bool with_thumbnails;
    bool takes_reduced; /* blocks of fewer bits too, decoded */
    /* Writes a message of the call's own type that has the block, or the chunk. False: the call takes nothing now. */
    bool (*write_block)(struct rpc_call *call, Reelkv__V1__Block *block);
    bool (*write_chunk)(struct rpc_call *call, Reelkv__V1__Chunk *chunk, const struct rpc_attachment *bytes);
    void (*go_on)(struct block_sender *sender); /* a block that was waited for has come */
    /* under way */
    struct sender_block *block; /* NULL: none at hand */
    bool is_head_sent;
    uint64_t sent_bytes;
};

/* Reads a block: the stream's INIT (frame NULL) or a frame. False: no memory. The result is asked for afterwards. */
bool block_sender_begin(struct block_sender *sender, const struct stream *stream, struct index_frame *frame);

/* Of the block at hand; 0: it is being read, and go_on will be called. */
enum frame_result block_sender_result(const struct block_sender *sender);

/* Sends what is left of a block that was read. False: the call takes nothing now. */
bool block_sender_send(struct block_sender *sender);

/* Lets go of the block at hand. */
void block_sender_end(struct block_sender *sender);
void block_sender_deinit(struct block_sender *sender);

#endif
