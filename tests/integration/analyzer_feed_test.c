/* An analyzer's streams against a kvstore that is made up here: what it asks, what it sends, what it refuses. */
#include <stdatomic.h>
#include <stdlib.h>

#include "base/limits.h"
#include "micro/random_checkpoint.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "rpc/sync.h"
#include "support/cluster.h"
#include "support/store_double.h"
#include "support/test.h"

#define TINY_B REELKV_SOURCE_DIR "/tests/data/parity/tiny-b"

/* 112 wide, 3 layers, 2 key heads of 8; a block of the longest frame (196 tokens) takes 77,824 bytes. */
enum { HIDDEN = 112, LAYERS = 3, KEY_BYTES = 2 * 8 * sizeof(float), N_LOCAL = 450, TOKENS = 2, TRIES = 200 };

/* As wide, but a block of 196 tokens takes 14,085,120 bytes: more than lib/rpc takes from a writer at once. */
static const struct checkpoint_shape large = {
    .name = "large",
    .hidden = HIDDEN,
    .layers = 80,
    .heads = 7,
    .kv_heads = 7,
    .mlp = 64,
    .vocabulary = 1536,
    .v_hidden = 32,
    .v_layers = 1,
    .v_heads = 2,
    .v_mlp = 32,
    .image = 384,
    .patch = 14,
    .tied = true,
};
enum { LARGE_TOKENS = 196 };

/* ---------------------------------------------------------------------------------------- the store */

struct store {
    uint64_t next_seq, next_token_index;               /* of every stream */
    uint64_t undurable;                                /* of those below next_seq, in memory alone */
    bool cuts;                                         /* LoadWindow's first block stops in the middle */
    enum ack { ACK_WHOLE, ACK_EARLY, ACK_BEYOND } ack; /* a block that came; its head; one more than came */
    atomic_ullong frame_index;                         /* token index of the last frame that came */
    struct store_double made_up;
};

static void open_stream(struct rpc_call *call, void *state)
{
    const struct store *store = state;
    Reelkv__V1__OpenStreamReply reply = REELKV__V1__OPEN_STREAM_REPLY__INIT;

    reply.epoch = 1;
    reply.next_seq = store->next_seq;
    reply.durable_seq = store->next_seq - store->undurable;
    reply.next_token_index = store->next_token_index;
    rpc_call_reply(call, &reply.base, NULL);
}

static void send_block(struct rpc_call *call, uint32_t tokens, size_t bytes)
{
    static const uint8_t zeros[64];
    struct rpc_attachment attachment = { zeros, bytes, NULL, NULL };
    Reelkv__V1__LoadWindowReply reply = REELKV__V1__LOAD_WINDOW_REPLY__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;

    block.kind = REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT;
    block.tokens = tokens;
    block.payload_bytes = (uint64_t)LAYERS * KEY_BYTES + 2ull * LAYERS * tokens * KEY_BYTES;
    reply.item_case = REELKV__V1__LOAD_WINDOW_REPLY__ITEM_BLOCK;
    reply.block = &block;
    CHECK(rpc_call_write(call, &reply.base, NULL));
    reply.item_case = REELKV__V1__LOAD_WINDOW_REPLY__ITEM_CHUNK;
    reply.chunk = &chunk;
    CHECK(rpc_call_write(call, &reply.base, &attachment));
}

static void load_window(struct rpc_call *call, void *state)
{
    const struct store *store = state;

    if (store->cuts) {
        send_block(call, 13, 64);
        send_block(call, 13, 64);
    }
    rpc_call_finish(call, NULL);
}

struct append {
    struct store *store;
    bool frame;
    uint64_t seq, left; /* of the block that comes */
};

static void take_append(struct append *append, const Reelkv__V1__AppendRequest *request, size_t payload)
{
    if (request->item_case == REELKV__V1__APPEND_REQUEST__ITEM_BLOCK) {
        append->frame = request->block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME;
        append->seq = request->block->seq;
        append->left = request->block->payload_bytes;
        if (append->frame)
            atomic_store(&append->store->frame_index, request->block->token_index);
    } else if (request->item_case == REELKV__V1__APPEND_REQUEST__ITEM_CHUNK) {
        append->left -= payload;
    }
}

static void on_append(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct append *append = user;
    Reelkv__V1__AppendReply reply = REELKV__V1__APPEND_REPLY__INIT;

    if (message == NULL) {
        rpc_call_finish(call, NULL);
        return;
    }
    take_append(append, (const Reelkv__V1__AppendRequest *)message->body, message->payload.len);
    if (append->frame && (append->left == 0 || append->store->ack == ACK_EARLY)) {
        append->frame = false;
        reply.stored_seq = reply.durable_seq = append->seq + (append->store->ack == ACK_BEYOND ? 2 : 1);
        CHECK(rpc_call_write(call, &reply.base, NULL));
        if (append->left > 0)
            return; /* the rest stays on its way */
    }
    rpc_call_read(call, on_append);
}

static void append_ended(struct rpc_call *call, void *user)
{
    free(user);
}

static void open_append(struct rpc_call *call, void *state)
{
    struct append *append = calloc(1, sizeof *append);

    REQUIRE(append != NULL);
    append->store = state;
    rpc_call_set_user(call, append);
    rpc_call_on_end(call, append_ended);
    rpc_call_read(call, on_append);
}

static const struct rpc_handler handlers[] = {
    { &api_get_server_info, store_double_info },
    { &api_open_stream, open_stream },
    { &api_load_window, load_window },
    { &api_append, open_append },
};

/* ------------------------------------------------------------------------------------------ the encoder */

struct world {
    struct store store;
    bool is_large;           /* the checkpoint */
    const char *max_streams; /* NULL: the default */
    char model[320];
    struct cluster cluster;
    struct rpc_sync *analyzer;
    uint8_t fingerprint[DIRECTORY_FINGERPRINT_BYTES];
    uint64_t ready_next_seq, ready_durable_seq; /* as the last Ready said */
};

static void begin(struct world *world)
{
    const char *const flags[] = { "--pool-bytes", world->is_large ? "64M" : "1M", "--max-streams",
                                  world->max_streams != NULL ? world->max_streams : "64", NULL };
    struct cluster_service *service;
    struct directory_view view = { 0 };
    const struct worker_record *record;
    struct status st = { 0 };

    snprintf(world->model, sizeof world->model, "%s/large", test_folder());
    if (world->is_large)
        CHECK_OK(random_checkpoint_write(world->model, &large, TINY_B "/tokenizer.json", &st), st);
    cluster_start(&world->cluster, world->is_large ? world->model : TINY_B, "f32", N_LOCAL);
    world->store.made_up.handlers = handlers;
    world->store.made_up.handler_count = ARRAY_LEN(handlers);
    world->store.made_up.state = &world->store;
    store_double_start(&world->store.made_up);
    service = cluster_service_start(&world->cluster, "analyzer", 0, flags);
    cluster_wait_joined(&world->cluster);
    for (int i = 0; i < TRIES && directory_view_worker(&view, WORKER_ANALYZER, service->name) == NULL; i++) {
        test_pause_ms(50);
        CHECK_OK(directory_read_once(redis_address(), 5000, &view, &st), st);
    }
    record = directory_view_worker(&view, WORKER_ANALYZER, service->name);
    CHECK(record != NULL);
    memcpy(world->fingerprint, record->fingerprint, sizeof world->fingerprint);
    directory_view_deinit(&view);
    CHECK_OK(rpc_sync_create(&world->analyzer, service->address, NULL, &st), st);
}

static void end(struct world *world)
{
    rpc_sync_destroy(world->analyzer);
    cluster_stop(&world->cluster);
    store_double_stop(&world->store.made_up);
}

static void note_ready(struct world *world, const struct rpc_message *message)
{
    const Reelkv__V1__PushReply *reply = (const Reelkv__V1__PushReply *)message->body;

    CHECK_EQ(reply->item_case, REELKV__V1__PUSH_REPLY__ITEM_READY);
    world->ready_next_seq = reply->ready->next_seq;
    world->ready_durable_seq = reply->ready->durable_seq;
}

/* The call after its Hello, and what came of it: Ready, or *st. */
static struct rpc_sync_stream *push_open(struct world *world, const char *name, struct status *st)
{
    static const struct rpc_stream_options patient = { .timeout_ms = 120000 };
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    Reelkv__V1__IngestHello hello = REELKV__V1__INGEST_HELLO__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    id.namespace_ = "default";
    id.name = (char *)(uintptr_t)name;
    hello.id = &id;
    hello.fingerprint = (ProtobufCBinaryData){ sizeof world->fingerprint, world->fingerprint };
    hello.store = "store-0";
    hello.encoder = "encoder-0";
    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_HELLO;
    request.hello = &hello;
    for (int i = 0; i < TRIES; i++) {
        const struct rpc_message *message = NULL;
        struct rpc_sync_stream *stream;

        *st = (struct status){ 0 };
        CHECK_OK(rpc_sync_open(&stream, world->analyzer, &api_push, &patient, st), *st);
        if (rpc_sync_write(stream, &request.base, NULL, st) && rpc_sync_read(stream, &message, st) &&
            message != NULL) {
            note_ready(world, message);
            return stream;
        }
        rpc_sync_stream_destroy(stream);
        if (st->code != STATUS_UNAVAILABLE && st->code != STATUS_EXHAUSTED)
            return NULL; /* else its view of the directory is older than the store, or a place not free yet */
        test_pause_ms(50);
    }
    return NULL;
}

static void push_frame(struct rpc_sync_stream *stream, uint64_t seq, uint32_t tokens)
{
    static const float zeros[LARGE_TOKENS * HIDDEN];
    struct rpc_attachment attachment = { zeros, tokens * HIDDEN * sizeof *zeros, NULL, NULL };
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    Reelkv__V1__IngestFrame frame = REELKV__V1__INGEST_FRAME__INIT;
    struct status st = { 0 };

    frame.seq = seq;
    frame.pts_ns = (int64_t)seq * 1000;
    frame.tokens = tokens;
    frame.hidden = HIDDEN;
    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_FRAME;
    request.frame = &frame;
    CHECK_OK(rpc_sync_write(stream, &request.base, &attachment, &st), st);
}

static void wait_stored(struct rpc_sync_stream *stream, uint64_t stored_seq)
{
    const struct rpc_message *message;
    struct status st = { 0 };
    uint64_t stored = 0;

    while (stored < stored_seq) {
        const Reelkv__V1__PushReply *reply;

        CHECK_OK(rpc_sync_read(stream, &message, &st), st);
        CHECK(message != NULL);
        reply = (const Reelkv__V1__PushReply *)message->body;
        CHECK_EQ(reply->item_case, REELKV__V1__PUSH_REPLY__ITEM_ACK);
        stored = reply->ack->stored_seq;
    }
}

/* ------------------------------------------------------------------------------------------- the claims */

/* A pool of 13 slots, 20 streams that are open and have sent nothing; then each sends five frames at once. Each
 * stream's system prompt used to hold a slot until its first frame was stored: the pool was gone before one was. */
TEST(streams_that_have_sent_nothing_hold_no_slot)
{
    enum { STREAMS = 20, FRAMES = 5 };
    struct rpc_sync_stream *streams[STREAMS];
    static struct world world;
    struct status st;

    world = (struct world){ 0 };
    begin(&world);
    for (uint32_t i = 0; i < STREAMS; i++) {
        char name[16];

        snprintf(name, sizeof name, "cam-%u", i);
        streams[i] = push_open(&world, name, &st);
        CHECK_OK(streams[i] != NULL, st);
    }
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        for (uint32_t i = 0; i < STREAMS; i++)
            push_frame(streams[i], seq, TOKENS);
    for (uint32_t i = 0; i < STREAMS; i++) {
        wait_stored(streams[i], FRAMES);
        rpc_sync_stream_destroy(streams[i]);
    }
    end(&world);
}

/* The disk budget took all of a stream's blocks while its camera was away. Token indices go on, so the window does,
 * too; a window that began anew was refused by the store for ever. */
TEST(a_stream_whose_every_block_was_evicted_goes_on_behind_them)
{
    static struct world world;
    struct rpc_sync_stream *stream;
    struct status st;

    world = (struct world){ .store = { .next_seq = 100, .next_token_index = 20000 } };
    begin(&world);
    stream = push_open(&world, "cam-0", &st);
    CHECK_OK(stream != NULL, st);
    push_frame(stream, 100, TOKENS);
    wait_stored(stream, 101);
    CHECK_EQ(atomic_load(&world.store.frame_index), 20000);
    rpc_sync_stream_destroy(stream);
    end(&world);
}

/* An encoder that takes all of it for durable lets go of frames that a killed store has lost. */
TEST(ready_tells_what_is_on_the_disk_from_what_is_stored)
{
    static struct world world;
    struct rpc_sync_stream *stream;
    struct status st;

    world = (struct world){ .store = { .next_seq = 100, .next_token_index = 20000, .undurable = 30 } };
    begin(&world);
    stream = push_open(&world, "cam-0", &st);
    CHECK_OK(stream != NULL, st);
    CHECK_EQ(world.ready_next_seq, 100);
    CHECK_EQ(world.ready_durable_seq, 70);
    rpc_sync_stream_destroy(stream);
    end(&world);
}

TEST(a_window_with_a_block_cut_short_is_refused)
{
    static struct world world;
    struct status st;

    world = (struct world){ .store = { .next_seq = 1, .next_token_index = 209, .cuts = true } };
    begin(&world);
    CHECK(push_open(&world, "cam-0", &st) == NULL);
    CHECK_EQ(st.code, STATUS_DATA_LOSS);
    CHECK_HAS(st.text, "in the middle of another");
    end(&world);
}

/* A store that has a block before all of its chunks were sent, or one that was not sent at all. The early ack used to give
 * the block's memory to the next frame while the rest of it was still being read. */
TEST(a_store_that_acknowledges_what_it_cannot_have_ends_the_feed)
{
    static const struct {
        enum ack ack;
        const char *why;
    } rows[] = { { ACK_EARLY, "stored 1, durable 1; 0 were sent" },
                 { ACK_BEYOND, "stored 2, durable 2; 1 were sent" } };
    static struct world world;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct rpc_message *message;
        struct rpc_sync_stream *stream;
        struct status st;

        world = (struct world){ .store = { .ack = rows[i].ack }, .is_large = true };
        begin(&world);
        stream = push_open(&world, "cam-0", &st);
        CHECK_OK(stream != NULL, st);
        push_frame(stream, 0, LARGE_TOKENS);
        CHECK(!rpc_sync_read(stream, &message, &st));
        CHECK_EQ(st.code, STATUS_DATA_LOSS);
        CHECK_HAS(st.text, rows[i].why);
        rpc_sync_stream_destroy(stream);
        end(&world);
    }
}

/* With room for one stream: the next has its turn once the analyzer has lost patience. The place used to be taken for as
 * long as the silent one liked. */
TEST(a_call_that_never_says_hello_loses_its_place)
{
    static const struct rpc_stream_options patient = { .timeout_ms = 120000 };
    const struct rpc_message *message;
    struct rpc_sync_stream *silent, *stream;
    static struct world world;
    struct status st = { 0 };

    world = (struct world){ .max_streams = "1" };
    begin(&world);
    CHECK_OK(rpc_sync_open(&silent, world.analyzer, &api_push, &patient, &st), st);
    CHECK(!rpc_sync_read(silent, &message, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "no Hello came");
    stream = push_open(&world, "cam-0", &st);
    CHECK_OK(stream != NULL, st);
    rpc_sync_stream_destroy(silent);
    rpc_sync_stream_destroy(stream);
    end(&world);
}

TEST_MAIN()
