/* feed_append.c - a feed's Append call: blocks, gaps and the end, and what the store says of them. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "feed_internal.h"
#include "kv/kv_crc.h"

static void on_reply(struct rpc_stream *stream, const struct rpc_message *message, void *user);
static void on_end(struct rpc_stream *stream, const struct status *status, void *user);
static void on_writable(struct rpc_stream *stream, void *user);
static void send_init(struct feed *feed);

static bool write_item(struct feed *feed, Reelkv__V1__AppendRequest *request,
                       const struct rpc_attachment *payload)
{
    return rpc_stream_write(feed->store_call, &request->base, payload);
}

void feed_append_open(struct feed *feed)
{
    const struct rpc_stream_events events = { on_reply, on_writable, on_end };
    struct rpc_stream_options options = { .timeout_ms = RPC_NO_TIMEOUT };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    feed->store_call =
        rpc_stream_open(store_link_channel(feed->store_link), &api_append, &options, &events, feed);
    id.namespace_ = feed->ns;
    id.name = feed->name;
    begin.id = &id;
    begin.epoch = feed->epoch;
    begin.shm_pool = feed->shm_pool;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin;
    write_item(feed, &request, NULL);
    rpc_stream_read(feed->store_call);
    send_init(feed);
    feed_running(feed);
}

bool feed_append_ready(const struct feed *feed)
{
    return feed->store_call != NULL && feed->chunks.slot == NULL && rpc_stream_can_write(feed->store_call);
}

/* Sends what still fits of the block that travels in chunks; on_writable goes on with the rest. */
static void send_chunks(struct feed *feed)
{
    while (feed->chunks.slot != NULL && rpc_stream_can_write(feed->store_call)) {
        Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
        Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
        uint64_t left = feed->chunks.total - feed->chunks.done;
        uint64_t part = left < LIMIT_CHUNK_BYTES ? left : LIMIT_CHUNK_BYTES;
        struct rpc_attachment payload = { feed->chunks.slot->bytes + feed->chunks.done, part,
                                          block_slot_unref, feed->chunks.slot };

        request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
        request.chunk = &chunk;
        block_slot_ref(feed->chunks.slot);
        if (!write_item(feed, &request, &payload)) {
            block_slot_unref(feed->chunks.slot);
            return;
        }
        feed->chunks.done += part;
        if (feed->chunks.done == feed->chunks.total)
            feed->chunks.slot = NULL;
    }
}

/* The Block message, then its bytes unless the store reads them from our pool. */
static void send_block(struct feed *feed, Reelkv__V1__Block *block, struct block_slot *slot)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;

    block->payload_crc32c = kv_crc(0, slot->bytes, block->payload_bytes);
    block->shm_offset = slot->offset;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = block;
    if (!write_item(feed, &request, NULL))
        return; /* the call is over: on_end comes and tells the encoder */
    if (feed->shm_pool != 0)
        return;
    feed->chunks.slot = slot;
    feed->chunks.done = 0;
    feed->chunks.total = block->payload_bytes;
    send_chunks(feed);
}

static void remember_sent(struct feed *feed, uint64_t seq, struct block_slot *slot)
{
    struct feed_sent *sent = calloc(1, sizeof *sent);

    REQUIRE(sent != NULL);
    sent->seq = seq;
    sent->slot = slot;
    *feed->sent_link = sent;
    feed->sent_link = &sent->next;
}

/* The system prompt's block opens every epoch. */
static void send_init(struct feed *feed)
{
    const struct model_block *init = model_init_block(feed->analyzer->model);
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;

    block.kind = REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT;
    block.tokens = init->tokens;
    block.token_index = init->token_index;
    block.payload_bytes = model_block_bytes(feed->analyzer->model, init->tokens);
    send_block(feed, &block, feed->analyzer->init_slot);
}

void feed_append_block(struct feed *feed, const struct feed_item *item, struct block_slot *slot)
{
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;

    block.kind = REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME;
    block.seq = item->seq;
    block.pts_ns = item->pts_ns;
    block.tokens = item->tokens;
    block.token_index = model_window_next_index(feed->window) - item->tokens;
    block.payload_bytes = model_block_bytes(feed->analyzer->model, item->tokens);
    block.thumbnail = (ProtobufCBinaryData){ item->thumbnail_bytes, item->thumbnail };
    feed->appended_seq = item->seq + 1;
    remember_sent(feed, item->seq, slot);
    if (feed->store_call != NULL)
        send_block(feed, &block, slot);
}

void feed_append_gap(struct feed *feed, const struct feed_item *item)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendGap gap = REELKV__V1__APPEND_GAP__INIT;

    gap.from_seq = item->seq;
    gap.to_seq = item->to_seq;
    gap.from_pts_ns = item->pts_ns;
    gap.to_pts_ns = item->to_pts_ns;
    gap.reason = item->text;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
    request.gap = &gap;
    feed->appended_seq = item->to_seq;
    write_item(feed, &request, NULL);
}

void feed_append_end(struct feed *feed, const struct feed_item *item)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendEnd end = REELKV__V1__APPEND_END__INIT;

    if (item != NULL) {
        end.trouble = item->text;
        request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
        request.end = &end;
        write_item(feed, &request, NULL);
    }
    rpc_stream_half_close(feed->store_call);
}

static void free_stored(struct feed *feed)
{
    while (feed->sent != NULL && feed->sent->seq < feed->stored_seq) {
        struct feed_sent *sent = feed->sent;

        feed->sent = sent->next;
        if (feed->sent == NULL)
            feed->sent_link = &feed->sent;
        block_slot_unref(sent->slot);
        free(sent);
    }
}

/* Every seq below it has been sent whole; of the newest frame some chunks may be left. */
static uint64_t sent_whole_seq(const struct feed *feed)
{
    bool is_half_sent = feed->chunks.slot != NULL && feed->chunks.slot != feed->analyzer->init_slot;

    return feed->appended_seq - is_half_sent;
}

static void on_reply(struct rpc_stream *stream, const struct rpc_message *message, void *user)
{
    const Reelkv__V1__AppendReply *reply = (const Reelkv__V1__AppendReply *)message->body;
    struct feed *feed = user;

    if (feed->over)
        return;
    if (reply->stored_seq > sent_whole_seq(feed) || reply->durable_seq > reply->stored_seq ||
        reply->stored_seq < feed->stored_seq || reply->durable_seq < feed->durable_seq) {
        feed_fail_now(feed, STATUS_DATA_LOSS, "kvstore %s says stored %llu, durable %llu; %llu were sent",
                      feed->store, (unsigned long long)reply->stored_seq,
                      (unsigned long long)reply->durable_seq, (unsigned long long)sent_whole_seq(feed));
        return;
    }
    feed->stored_seq = reply->stored_seq;
    feed->durable_seq = reply->durable_seq;
    free_stored(feed);
    feed_acknowledge(feed);
    rpc_stream_read(stream);
}

static void on_writable(struct rpc_stream *stream, void *user)
{
    struct feed *feed = user;

    if (feed->over)
        return;
    send_chunks(feed);
    feed_advance(feed);
}

static void free_sent(struct feed *feed)
{
    while (feed->sent != NULL) {
        struct feed_sent *sent = feed->sent;

        feed->sent = sent->next;
        block_slot_unref(sent->slot);
        free(sent);
    }
    feed->sent_link = &feed->sent;
    feed->chunks.slot = NULL;
}

static void on_end(struct rpc_stream *stream, const struct status *status, void *user)
{
    struct feed *feed = user;

    feed->store_call = NULL;
    free_sent(feed); /* the store reads our pool no more: the call is over at its end too, or it is gone */
    if (feed->over) {
        feed_release(feed);
        return;
    }
    if (status->code != STATUS_OK)
        feed_fail(feed, status);
    else if (feed->state == FEED_ENDING)
        feed_finished(feed);
    else
        feed_fail_now(feed, STATUS_UNAVAILABLE, "kvstore %s closed the stream", feed->store);
}

void feed_append_abandon(struct feed *feed)
{
    if (feed->store_call != NULL && feed->state >= FEED_RESTORING)
        rpc_stream_cancel(feed->store_call);
    else if (feed->store_call == NULL)
        free_sent(feed);
}
