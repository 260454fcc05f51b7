/* kvstore_client.h - a kvstore of the test's own, as a real process, and a writer and reader for it. Every byte of a
 * block follows from (stream, seq), so that what comes back can be told right from wrong. */
#ifndef REELKV_TEST_KVSTORE_CLIENT_H
#define REELKV_TEST_KVSTORE_CLIENT_H

#include <signal.h>
#include <stdlib.h>

#include "base/json.h"
#include "kv/kv_crc.h"
#include "kv/kv_geometry.h"
#include "kv/kv_select.h"
#include "kv/kv_shm.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "rpc/sync.h"
#include "support/payload.h"
#include "support/process.h"
#include "support/test.h"

static const struct kv_geometry client_geometry = {
    .layers = 4, .kv_heads = 2, .head_dim = 16, .dtype = KV_DTYPE_F16
};
enum { CLIENT_TOKENS = 24, CLIENT_TIMEOUT_MS = 20000, CLIENT_DIMS = 32 };

struct server {
    struct process process;
    char path[300], address[320], name[32];
    struct rpc_sync *client;
};

/* Options beyond name, path, listen; NULL-terminated. */
static inline void server_begin(struct server *server, const char *name, const char *const *options)
{
    const char *argv[24] = { "reelkv-kvstore",
                             "--name",
                             name,
                             "--path",
                             server->path,
                             "--redis",
                             "127.0.0.1:1",
                             "--ram-budget-bytes=24M",
                             "--disk-budget-bytes=64M",
                             "--segment-bytes=1M",
                             "--commit-ms=10",
                             "--listen" };
    static unsigned starts;
    char log_name[64];

    snprintf(server->name, sizeof server->name, "%s", name);
    snprintf(server->path, sizeof server->path, "%s/%s", test_folder(), name);
    snprintf(server->address, sizeof server->address, "unix:%s/%s.sock", test_folder(), name);
    argv[12] = server->address;
    process_args_change(argv, ARRAY_LEN(argv), options);
    snprintf(log_name, sizeof log_name, "%s-%u", name, starts++); /* each start has a log of its own */
    process_start(&server->process, log_name, argv);
}

static inline void server_await(struct server *server)
{
    struct status st;

    if (!process_wait_text(&server->process, "\"ready\":true", 20000))
        test_fail(__FILE__, __LINE__, "kvstore did not start: %s", process_log(&server->process));
    CHECK_OK(rpc_sync_create(&server->client, server->address, NULL, &st), st);
}

static inline void server_start(struct server *server, const char *name, const char *const *options)
{
    server_begin(server, name, options);
    server_await(server);
}

static inline void server_stop(struct server *server)
{
    rpc_sync_destroy(server->client);
    server->client = NULL;
    CHECK_EQ(process_stop(&server->process, SIGTERM, 30000), 0);
}

static inline void server_kill(struct server *server)
{
    rpc_sync_destroy(server->client);
    server->client = NULL;
    process_stop(&server->process, SIGKILL, 10000);
}

/* --- unary calls: the reply is valid until client_done() --- */

struct reply {
    struct rpc_sync_stream *stream;
    const void *body;
    struct status st;
    bool ok;
};

static inline void client_call(struct server *server, struct reply *reply, const struct rpc_method *method,
                               const ProtobufCMessage *request)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    const struct rpc_message *message;

    *reply = (struct reply){ 0 };
    reply->ok =
        rpc_sync_unary(&reply->stream, server->client, method, &options, request, &message, &reply->st);
    if (reply->ok)
        reply->body = message->body;
}

static inline void client_done(struct reply *reply)
{
    rpc_sync_stream_destroy(reply->stream);
    reply->stream = NULL;
}

static inline Reelkv__V1__StreamId client_id(const char *name)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    id.namespace_ = (char *)"default";
    id.name = (char *)(uintptr_t)name;
    return id;
}

static const uint8_t client_print[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static inline ProtobufCBinaryData client_fingerprint(void)
{
    return (ProtobufCBinaryData){ 16, (uint8_t *)(uintptr_t)client_print };
}

static inline void client_create(struct server *server, const char *name)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId id = client_id(name);
    struct reply reply;

    definition.id = &id;
    definition.source = (char *)"rtsp://user:secret@cam.example/1";
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    definition.sample_fps = 0.5;
    request.definition = &definition;
    client_call(server, &reply, &api_create_stream, &request.base);
    CHECK_OK(reply.ok, reply.st);
    client_done(&reply);
}

/* --- writing --- */

struct writer {
    struct server *server;
    char name[64];
    uint64_t epoch, next_seq, next_token, durable_seq, stored_seq;
    struct rpc_sync_stream *call;
    struct kv_pool *pool; /* NULL: in chunks */
    struct kv_shm_peer *peer;
    struct status st;
};

static inline uint8_t client_byte(const char *stream, uint64_t seq, uint64_t at)
{
    uint64_t mix =
        (seq + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)(uint8_t)stream[strlen(stream) - 1] * 77 + at / 2;

    mix ^= mix >> 29;
    mix *= 0xbf58476d1ce4e5b9ull;
    mix ^= mix >> 32;
    return at % 2 == 0 ? (uint8_t)mix : (uint8_t)(0x38 + (mix & 0x87));
}

static inline int64_t client_pts(uint64_t seq)
{
    return 1700000000000000000ll + (int64_t)seq * 2000000000ll;
}

static inline void client_payload(const char *stream, uint64_t seq, uint8_t *payload, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        payload[i] = client_byte(stream, seq, i);
}

static inline bool writer_open(struct writer *writer, struct server *server, const char *name)
{
    Reelkv__V1__OpenStreamRequest request = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    Reelkv__V1__StreamId id = client_id(name);
    const Reelkv__V1__OpenStreamReply *opened;
    struct kv_pool *pool = writer->pool;
    struct kv_shm_peer *peer = writer->peer;
    struct reply reply;

    *writer = (struct writer){ .server = server, .pool = pool, .peer = peer };
    snprintf(writer->name, sizeof writer->name, "%s", name);
    geometry.layers = client_geometry.layers;
    geometry.kv_heads = client_geometry.kv_heads;
    geometry.head_dim = client_geometry.head_dim;
    geometry.dtype = (Reelkv__V1__Dtype)client_geometry.dtype;
    request.id = &id;
    request.fingerprint = client_fingerprint();
    request.geometry = &geometry;
    request.writer = (char *)"analyzer-0";
    client_call(server, &reply, &api_open_stream, &request.base);
    writer->st = reply.st;
    if (reply.ok) {
        opened = reply.body;
        writer->epoch = opened->epoch;
        writer->next_seq = opened->next_seq;
        writer->next_token = opened->next_token_index;
        writer->durable_seq = opened->durable_seq;
    }
    client_done(&reply);
    return reply.ok;
}

static inline bool writer_send(struct writer *writer, Reelkv__V1__AppendRequest *request,
                               const struct rpc_attachment *attachment)
{
    return rpc_sync_write(writer->call, &request->base, attachment, &writer->st);
}

static inline bool writer_read(struct writer *writer)
{
    const struct rpc_message *message;
    const Reelkv__V1__AppendReply *reply;

    if (!rpc_sync_read(writer->call, &message, &writer->st) || message == NULL)
        return false;
    reply = (const Reelkv__V1__AppendReply *)message->body;
    CHECK(reply->stored_seq >= writer->stored_seq && reply->durable_seq >= writer->durable_seq);
    CHECK(reply->durable_seq <= reply->stored_seq);
    writer->stored_seq = reply->stored_seq;
    writer->durable_seq = reply->durable_seq;
    return true;
}

static inline bool writer_begin(struct writer *writer)
{
    const struct rpc_stream_options options = { .timeout_ms = RPC_NO_TIMEOUT };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__StreamId id = client_id(writer->name);

    if (!rpc_sync_open(&writer->call, writer->server->client, &api_append, &options, &writer->st))
        return false;
    begin.id = &id;
    begin.epoch = writer->epoch;
    begin.shm_pool = writer->peer == NULL ? 0 : kv_shm_peer_pool(writer->peer);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin;
    return writer_send(writer, &request, NULL) && writer_read(writer);
}

static inline bool writer_chunks(struct writer *writer, const uint8_t *payload, uint64_t bytes)
{
    enum { CHUNK = 1500 }; /* parts of odd sizes: they cross every boundary inside the record */

    for (uint64_t done = 0; done < bytes;) {
        Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
        Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
        uint64_t part = bytes - done < CHUNK ? bytes - done : CHUNK;
        const struct rpc_attachment attachment = { .data = payload + done, .len = part };

        request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
        request.chunk = &chunk;
        if (!writer_send(writer, &request, &attachment))
            return false;
        done += part;
    }
    return true;
}

/* One block; is_init: the system prompt's, of 5 tokens. */
static inline bool writer_block(struct writer *writer, bool is_init, uint32_t crc_flip)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    uint32_t tokens = is_init ? 5 : CLIENT_TOKENS;
    uint64_t bytes = kv_payload_bytes(&client_geometry, tokens);
    uint8_t *own = malloc(bytes), *payload = own;
    bool ok;

    CHECK(own != NULL);
    if (writer->pool != NULL)
        payload = kv_pool_base(writer->pool) + kv_pool_data_offset(writer->pool) +
                  (is_init ? 0 : (1 + writer->next_seq % 8) * (64 << 10));
    client_payload(writer->name, is_init ? 1 << 30 : writer->next_seq, payload, bytes);
    block.kind = is_init ? REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT : REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME;
    block.seq = writer->next_seq;
    block.pts_ns = client_pts(writer->next_seq);
    block.tokens = tokens;
    block.token_index = is_init ? 0 : writer->next_token;
    block.thumbnail = (ProtobufCBinaryData){ 4, (uint8_t *)(uintptr_t) "jpeg" };
    block.payload_bytes = bytes;
    block.payload_crc32c = kv_crc(0, payload, bytes) ^ crc_flip;
    block.shm_offset = (uint64_t)(writer->pool == NULL ? 0 : payload - kv_pool_base(writer->pool));
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = &block;
    ok = writer_send(writer, &request, NULL) &&
         (writer->pool != NULL || writer_chunks(writer, payload, bytes));
    free(own);
    if (!ok)
        return false;
    if (!is_init)
        writer->next_seq++;
    writer->next_token =
        writer->next_token == 0 || !is_init ? writer->next_token + tokens : writer->next_token;
    return true;
}

/* Frames, each stored before the next is sent. */
static inline bool writer_frames(struct writer *writer, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!writer_block(writer, false, 0))
            return false;
        while (writer->stored_seq < writer->next_seq)
            if (!writer_read(writer))
                return false;
    }
    return true;
}

static inline bool writer_gap(struct writer *writer, uint64_t count, const char *reason)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendGap gap = REELKV__V1__APPEND_GAP__INIT;

    gap.from_seq = writer->next_seq;
    gap.to_seq = writer->next_seq + count;
    gap.from_pts_ns = client_pts(gap.from_seq);
    gap.to_pts_ns = client_pts(gap.to_seq - 1);
    gap.reason = (char *)(uintptr_t)reason;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
    request.gap = &gap;
    writer->next_seq += count;
    return writer_send(writer, &request, NULL);
}

/* Half-closes; true when everything became durable. */
static inline bool writer_finish(struct writer *writer)
{
    bool ok = rpc_sync_half_close(writer->call, &writer->st);

    while (ok && writer_read(writer))
        ;
    ok = ok && rpc_sync_finish(writer->call, &writer->st);
    rpc_sync_stream_destroy(writer->call);
    writer->call = NULL;
    return ok;
}

/* A stream with INIT and `frames` frames, all durable. */
static inline void client_fill(struct server *server, const char *name, uint64_t frames)
{
    struct writer writer = { 0 };

    client_create(server, name);
    CHECK_OK(writer_open(&writer, server, name), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, frames), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
    CHECK_EQ(writer.durable_seq, frames);
}

/* --- reading --- */

struct client_view {
    Reelkv__V1__View view;
    Reelkv__V1__StreamId ids[4], *list[4];
    Reelkv__V1__TimeRange range;
};

static inline void client_make_view(struct client_view *made, const char *const *names, size_t count)
{
    reelkv__v1__view__init(&made->view);
    reelkv__v1__time_range__init(&made->range);
    for (size_t i = 0; i < count; i++) {
        made->ids[i] = client_id(names[i]);
        made->list[i] = &made->ids[i];
    }
    made->view.streams = made->list;
    made->view.n_streams = count;
    made->view.fingerprint = client_fingerprint();
    made->view.range = &made->range;
}

/* The K and V of a layer as they were written. */
static inline void client_expect_layer(const char *name, uint64_t seq, uint32_t layer, const uint8_t *bytes,
                                       uint64_t length)
{
    uint64_t at = payload_layer_offset(&client_geometry, CLIENT_TOKENS, layer);

    CHECK_EQ(length, 2 * kv_slice_bytes(&client_geometry, CLIENT_TOKENS));
    for (uint64_t i = 0; i < length; i++)
        if (bytes[i] != client_byte(name, seq, at + i))
            test_fail(__FILE__, __LINE__, "%s frame %llu layer %u: byte %llu is wrong", name,
                      (unsigned long long)seq, layer, (unsigned long long)i);
}

static inline void client_selection(Reelkv__V1__Selection *message, const struct kv_selection *selection)
{
    reelkv__v1__selection__init(message);
    message->kind = (Reelkv__V1__SelectorKind)selection->kind;
    message->top_r = selection->top_r;
    message->recent_window = selection->recent_window;
}

struct retrieval {
    struct rpc_sync_stream *call;
    struct kv_shm_peer *peer; /* NULL: inline */
    uint64_t shared, inlined; /* slices that came each way */
    struct status st;
};

static inline const Reelkv__V1__RetrieveReply *retrieval_read(struct retrieval *retrieval,
                                                              struct rpc_payload *payload)
{
    const struct rpc_message *message;

    CHECK_OK(rpc_sync_read(retrieval->call, &message, &retrieval->st), retrieval->st);
    CHECK(message != NULL);
    *payload = message->payload;
    return (const Reelkv__V1__RetrieveReply *)message->body;
}

static inline void retrieval_open(struct retrieval *retrieval, struct server *server,
                                  const char *const *names, size_t count,
                                  const struct kv_selection *selection, bool pick)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    Reelkv__V1__Selection wanted;
    struct client_view view;

    client_make_view(&view, names, count);
    client_selection(&wanted, selection);
    open.view = &view.view;
    open.selection = &wanted;
    open.pick = pick;
    open.shm_session = retrieval->peer == NULL ? 0 : kv_shm_peer_session(retrieval->peer);
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    CHECK_OK(rpc_sync_open(&retrieval->call, server->client, &api_retrieve, &options, &retrieval->st),
             retrieval->st);
    CHECK_OK(rpc_sync_write(retrieval->call, &request.base, NULL, &retrieval->st), retrieval->st);
}

#endif
