/* feed_window.c - a feed takes its stream in the store and fills the window from what is there. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "feed_internal.h"
#include "kv/kv_crc.h"

enum { OPEN_TIMEOUT_MS = 10000, LOAD_TIMEOUT_MS = 60000 };

struct load_block {
    uint64_t token_index;
    uint32_t tokens;
    uint64_t bytes, got;
    uint32_t crc32c;
    uint8_t *payload;
};

struct feed_load {
    struct load_block *blocks;
    size_t count, room;
    uint64_t total_bytes, limit_bytes;
};

static void load_free(struct feed_load *load)
{
    if (load == NULL)
        return;
    for (size_t i = 0; i < load->count; i++)
        free(load->blocks[i].payload);
    free(load->blocks);
    free(load);
}

static void on_shared(void *user, uint64_t pool);
static void on_opened(const struct status *status, const struct rpc_message *reply, void *user);

void feed_window_open(struct feed *feed)
{
    struct status st = { 0 };

    feed->state = FEED_SHARING;
    feed->store_link =
        store_link_get(&feed->analyzer->links, directory_view(feed->analyzer->directory), feed->store, &st);
    if (feed->store_link == NULL) {
        st.retry_after_ms = DIRECTORY_HEARTBEAT_MS;
        feed_fail(feed, &st);
        return;
    }
    store_link_share(feed->store_link, on_shared, feed);
}

static void fill_id(const struct feed *feed, Reelkv__V1__StreamId *id)
{
    id->namespace_ = (char *)(uintptr_t)feed->ns;
    id->name = (char *)(uintptr_t)feed->name;
}

static void fill_geometry(const struct model_geometry *model, Reelkv__V1__Geometry *geometry)
{
    geometry->layers = model->layers;
    geometry->kv_heads = model->kv_heads;
    geometry->head_dim = model->head_dim;
    geometry->dtype = (Reelkv__V1__Dtype)model->dtype;
}

static void on_shared(void *user, uint64_t pool)
{
    Reelkv__V1__OpenStreamRequest request = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    struct rpc_stream_options options = { .timeout_ms = OPEN_TIMEOUT_MS };
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    struct feed *feed = user;
    const struct model_geometry *model = model_geometry(feed->analyzer->model);

    feed->shm_pool = pool;
    feed->state = FEED_OPENING;
    fill_id(feed, &id);
    fill_geometry(model, &geometry);
    request.id = &id;
    request.geometry = &geometry;
    request.fingerprint =
        (ProtobufCBinaryData){ MODEL_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)model->fingerprint };
    request.writer = (char *)(uintptr_t)feed->analyzer->options->name;
    request.expected_frames = feed->expected_frames;
    feed->store_call = rpc_unary(store_link_channel(feed->store_link), &api_open_stream, &options,
                                 &request.base, on_opened, feed);
}

static void on_load_message(struct rpc_stream *stream, const struct rpc_message *message, void *user);
static void on_load_end(struct rpc_stream *stream, const struct status *status, void *user);

static bool start_load(struct feed *feed)
{
    const struct rpc_stream_events events = { .on_message = on_load_message, .on_end = on_load_end };
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    struct rpc_stream_options options = { .timeout_ms = LOAD_TIMEOUT_MS };
    const struct model_geometry *model = model_geometry(feed->analyzer->model);
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    feed->load = calloc(1, sizeof *feed->load);
    if (feed->load == NULL)
        return feed_fail_now(feed, STATUS_EXHAUSTED, "no memory to load the window");
    /* The window, one block more on each side, and keys beside the slices: twice the window is ample. */
    feed->load->limit_bytes = 2 * (model->n_local + 2ull * LIMIT_FRAME_TOKENS) * model->token_bytes;
    fill_id(feed, &id);
    request.id = &id;
    request.fingerprint =
        (ProtobufCBinaryData){ MODEL_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)model->fingerprint };
    request.epoch = feed->epoch;
    request.tokens = model->n_local;
    feed->state = FEED_LOADING;
    feed->store_call =
        rpc_stream_open(store_link_channel(feed->store_link), &api_load_window, &options, &events, feed);
    rpc_stream_write(feed->store_call, &request.base, NULL);
    rpc_stream_half_close(feed->store_call);
    rpc_stream_read(feed->store_call);
    return true;
}

static void on_opened(const struct status *status, const struct rpc_message *reply, void *user)
{
    const Reelkv__V1__OpenStreamReply *opened;
    struct feed *feed = user;

    feed->store_call = NULL;
    if (feed->over) {
        feed_release(feed);
        return;
    }
    if (reply == NULL) {
        feed_fail(feed, status);
        return;
    }
    opened = (const Reelkv__V1__OpenStreamReply *)reply->body;
    feed->epoch = opened->epoch;
    feed->next_token_index = opened->next_token_index;
    feed->received_seq = feed->appended_seq = feed->stored_seq = opened->next_seq;
    feed->durable_seq = opened->durable_seq;
    start_load(feed);
}

/* The last block's bytes have all come. */
static bool load_is_whole(const struct feed_load *load)
{
    return load->count == 0 || load->blocks[load->count - 1].got == load->blocks[load->count - 1].bytes;
}

static bool take_block(struct feed *feed, const Reelkv__V1__Block *block)
{
    struct feed_load *load = feed->load;
    struct load_block *loaded;

    if (!load_is_whole(load))
        return feed_fail_now(feed, STATUS_DATA_LOSS, "kvstore %s began a block in the middle of another",
                             feed->store);
    if (block->tokens == 0 || block->tokens > LIMIT_FRAME_TOKENS ||
        block->payload_bytes != model_block_bytes(feed->analyzer->model, block->tokens) ||
        load->total_bytes + block->payload_bytes > load->limit_bytes)
        return feed_fail_now(feed, STATUS_DATA_LOSS, "kvstore %s sent a block of %u tokens, %llu bytes",
                             feed->store, block->tokens, (unsigned long long)block->payload_bytes);
    if (load->count == load->room) {
        size_t room = load->room == 0 ? 64 : 2 * load->room;
        struct load_block *grown = realloc(load->blocks, room * sizeof *grown);

        if (grown == NULL)
            return feed_fail_now(feed, STATUS_EXHAUSTED, "no memory to load the window");
        load->blocks = grown;
        load->room = room;
    }
    loaded = &load->blocks[load->count];
    *loaded = (struct load_block){ .token_index = block->token_index,
                                   .tokens = block->tokens,
                                   .bytes = block->payload_bytes,
                                   .crc32c = block->payload_crc32c,
                                   .payload = malloc(block->payload_bytes) };
    if (loaded->payload == NULL)
        return feed_fail_now(feed, STATUS_EXHAUSTED, "no memory to load the window");
    load->total_bytes += block->payload_bytes;
    load->count++;
    return true;
}

static bool take_chunk(struct feed *feed, const struct rpc_payload *payload)
{
    struct feed_load *load = feed->load;
    struct load_block *block = load->count == 0 ? NULL : &load->blocks[load->count - 1];

    if (block == NULL || payload->len == 0 || payload->len > block->bytes - block->got)
        return feed_fail_now(feed, STATUS_DATA_LOSS, "kvstore %s sent a chunk that belongs to no block",
                             feed->store);
    rpc_payload_copy(payload, 0, block->payload + block->got, payload->len);
    block->got += payload->len;
    if (block->got == block->bytes && kv_crc(0, block->payload, block->bytes) != block->crc32c)
        return feed_fail_now(feed, STATUS_DATA_LOSS, "a block from kvstore %s does not fit its checksum",
                             feed->store);
    return true;
}

static void on_load_message(struct rpc_stream *stream, const struct rpc_message *message, void *user)
{
    const Reelkv__V1__LoadWindowReply *reply = (const Reelkv__V1__LoadWindowReply *)message->body;
    struct feed *feed = user;
    bool ok = false;

    if (feed->over)
        return; /* cancelled: on_end comes */
    if (reply->item_case == REELKV__V1__LOAD_WINDOW_REPLY__ITEM_BLOCK)
        ok = take_block(feed, reply->block);
    else if (reply->item_case == REELKV__V1__LOAD_WINDOW_REPLY__ITEM_CHUNK)
        ok = take_chunk(feed, &message->payload);
    else
        feed_fail_now(feed, STATUS_DATA_LOSS, "kvstore %s sent nothing known", feed->store);
    if (ok)
        rpc_stream_read(stream);
}

/* What the store has; of a stream that is new, or whose every block was evicted, the system prompt alone. */
static bool fill_window(struct feed *feed, struct status *st)
{
    const struct feed_load *load = feed->load;
    const struct model_block *init = model_init_block(feed->analyzer->model);
    uint64_t next = feed->next_token_index > init->tokens ? feed->next_token_index : init->tokens;
    struct model_block *blocks;
    bool ok;

    if (load->count == 0)
        return model_window_restore(feed->window, init, 1, next, st);
    blocks = calloc(load->count, sizeof *blocks);
    if (blocks == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %zu blocks", load->count);
    for (size_t i = 0; i < load->count; i++)
        blocks[i] = (struct model_block){ load->blocks[i].token_index, load->blocks[i].tokens,
                                          load->blocks[i].payload };
    ok = model_window_restore(feed->window, blocks, load->count, next, st);
    free(blocks);
    return ok;
}

/* Engine thread: the feed's window and blocks are nobody else's meanwhile. */
static void run_restore(struct work *work)
{
    struct feed *feed = container_of(work, struct feed, restore);
    struct status *st = &feed->restore_failure;

    feed->restore_ok = model_window_create(&feed->window, feed->analyzer->model, st) && fill_window(feed, st);
}

static void restore_done(struct work *work)
{
    struct feed *feed = container_of(work, struct feed, restore);

    feed->restoring = false;
    load_free(feed->load);
    feed->load = NULL;
    if (feed->over) {
        feed_release(feed);
        return;
    }
    if (!feed->restore_ok) {
        status_wrap(&feed->restore_failure, "fill the window");
        feed_fail(feed, &feed->restore_failure);
        return;
    }
    feed_append_open(feed);
}

static void on_load_end(struct rpc_stream *stream, const struct status *status, void *user)
{
    struct feed *feed = user;

    feed->store_call = NULL;
    if (feed->over) {
        feed_release(feed);
        return;
    }
    if (status->code != STATUS_OK) {
        feed_fail(feed, status);
        return;
    }
    if (!load_is_whole(feed->load)) {
        feed_fail_now(feed, STATUS_DATA_LOSS, "kvstore %s ended in the middle of a block", feed->store);
        return;
    }
    feed->state = FEED_RESTORING;
    feed->restore.run = run_restore;
    feed->restore.done = restore_done;
    feed->restoring = engine_run(feed->analyzer->engine, &feed->restore);
    if (!feed->restoring)
        feed_fail_now(feed, STATUS_EXHAUSTED, "too many windows are being filled; try again");
}

void feed_window_abandon(struct feed *feed)
{
    if (feed->store_call != NULL && feed->state <= FEED_LOADING)
        rpc_stream_cancel(feed->store_call);
    if (feed->restoring && engine_forget(feed->analyzer->engine, &feed->restore))
        feed->restoring = false;
    if (!feed->restoring) {
        load_free(feed->load);
        feed->load = NULL;
    }
}
