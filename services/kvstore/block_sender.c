#include "kvstore/block_sender.h"

#include <stdlib.h>

#include "base/require.h"

/* A block being sent; attachments on their way hold it too. */
struct sender_block {
    struct block_read read;
    struct block_sender *sender; /* NULL: the call is over */
    uint32_t refs;
};

static void block_unref(struct sender_block *block)
{
    if (--block->refs > 0)
        return;
    block_read_release(&block->read);
    free(block);
}

static void attachment_released(void *arg)
{
    block_unref(arg);
}

static void block_done(struct block_read *read)
{
    struct sender_block *block = container_of(read, struct sender_block, read);
    struct block_sender *sender = block->sender;

    if (sender != NULL)
        sender->go_on(sender);
    block_unref(block); /* the read's own */
}

bool block_sender_begin(struct block_sender *sender, const struct stream *stream, struct index_frame *frame)
{
    struct sender_block *block = calloc(1, sizeof *block);

    if (block == NULL)
        return false;
    block->sender = sender;
    block->refs = 2; /* the sender's and the read's */
    block->read.store = sender->kvstore->store;
    block->read.stream = stream;
    block->read.frame = frame;
    block->read.takes_reduced = sender->takes_reduced;
    block->read.done = block_done;
    sender->block = block;
    sender->is_head_sent = false;
    sender->sent_bytes = 0;
    if (block_read_start(&block->read))
        block->refs--;
    return true;
}

enum frame_result block_sender_result(const struct block_sender *sender)
{
    return sender->block->read.result;
}

void block_sender_end(struct block_sender *sender)
{
    block_unref(sender->block);
    sender->block = NULL;
}

void block_sender_deinit(struct block_sender *sender)
{
    if (sender->block == NULL)
        return;
    sender->block->sender = NULL;
    block_sender_end(sender);
}

static bool send_head(struct block_sender *sender)
{
    const struct block_read *read = &sender->block->read;
    const struct kv_record *record = &read->record;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    struct kv_layout layout;

    block.kind = record->type == KV_RECORD_INIT ? REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT
                                                : REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME;
    if (record->type == KV_RECORD_FRAME)
        block.seq = record->seq; /* INIT stands between numbers, elsewhere in every segment */
    block.pts_ns = record->pts_ns;
    block.token_index = record->token_index;
    block.tokens = record->tokens;
    block.payload_bytes = kv_record_payload_bytes(record);
    block.payload_crc32c = kv_record_payload_crc(record);
    if (sender->with_thumbnails) {
        kv_record_layout(record, &layout);
        block.thumbnail.data = (uint8_t *)(uintptr_t)read->image + layout.thumbnail;
        block.thumbnail.len = record->thumbnail_bytes;
    }
    sender->is_head_sent = sender->write_block(sender->call, &block);
    return sender->is_head_sent;
}

static bool send_chunk(struct block_sender *sender)
{
    struct sender_block *block = sender->block;
    struct kv_run run = kv_record_run(&block->read.record, sender->sent_bytes);
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    struct rpc_attachment attachment = { .data = block->read.image + run.image,
                                         .len = run.bytes < LIMIT_CHUNK_BYTES ? run.bytes : LIMIT_CHUNK_BYTES,
                                         .release = attachment_released,
                                         .arg = block };

    block->refs++;
    if (!sender->write_chunk(sender->call, &chunk, &attachment)) {
        block->refs--;
        return false;
    }
    sender->sent_bytes += attachment.len;
    return true;
}

bool block_sender_send(struct block_sender *sender)
{
    uint64_t bytes = kv_record_payload_bytes(&sender->block->read.record);

    if (!sender->is_head_sent && !send_head(sender))
        return false;
    while (sender->sent_bytes < bytes)
        if (!send_chunk(sender))
            return false;
    return true;
}
