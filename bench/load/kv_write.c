#include "kv_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kv/kv_crc.h"
#include "kv_figures.h"
#include "kv_limits.h"
#include "rpc/api.h"

enum { SLOTS = 8, INIT_TOKENS = 1, STREAMS_MAX = 64 };

struct writer {
    struct kv_writing *writing;
    char name[64];
    struct rpc_sync *client;
    struct kv_pool *pool;
    struct kv_shm_peer *peer;
    struct rpc_sync_stream *call;
    uint8_t *slots[SLOTS];
    uint32_t slices_crc; /* of what follows the keys, in each slot */
    uint64_t epoch, stored, token;
    double stored_s, durable_s;
};

static struct writer writers[STREAMS_MAX];
static uint64_t began_ns;

float kv_number(uint64_t seed, uint64_t at)
{
    uint64_t mix = (seed + 1) * 0x9e3779b97f4a7c15ull + at * 0xbf58476d1ce4e5b9ull;

    mix ^= mix >> 29;
    mix *= 0x94d049bb133111ebull;
    mix ^= mix >> 32;
    return (float)(mix & 0xffff) / 32768.0f - 1;
}

/* The nearest below, of a number between -1 and 1. */
static uint16_t half_of(float number)
{
    uint32_t bits, exponent;

    memcpy(&bits, &number, sizeof bits);
    exponent = bits >> 23 & 255;
    if (exponent < 113)
        return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits >> 16 & 0x8000) | (exponent - 112) << 10 | (bits >> 13 & 1023));
}

/* --- blocks --- */

static uint64_t payload_bytes(const struct writer *writer, uint32_t tokens)
{
    return kv_payload_bytes(writer->writing->geometry, tokens);
}

static void fill_keys(const struct writer *writer, uint64_t seq, uint8_t *to)
{
    uint64_t numbers = kv_keys_bytes(writer->writing->geometry) / sizeof(uint16_t);

    for (uint64_t i = 0; i < numbers; i++) {
        uint16_t half = half_of(kv_number(seq, i));

        memcpy(to + i * sizeof half, &half, sizeof half);
    }
}

/* The slots differ in their keys only, which each frame gets anew. */
static void make_slots(struct writer *writer)
{
    uint64_t bytes = payload_bytes(writer, writer->writing->tokens),
             keys = kv_keys_bytes(writer->writing->geometry), room = (bytes + 4095) / 4096 * 4096;
    struct status st = { 0 };
    uint8_t *memory;

    if (writer->writing->is_inline) {
        memory = aligned_alloc(4096, SLOTS * room);
    } else {
        if (!kv_pool_create(&writer->pool, "kv-bench", SLOTS * room + (64 << 20), &st))
            kv_die("%s", st.text);
        memory = kv_pool_base(writer->pool) + kv_pool_data_offset(writer->pool);
        writer->peer = kv_server_share(writer->writing->server, writer->pool);
    }
    if (memory == NULL)
        kv_die("no memory for %d blocks", SLOTS);
    for (int i = 0; i < SLOTS; i++) {
        writer->slots[i] = memory + (uint64_t)i * room;
        for (uint64_t at = keys; at < bytes; at++)
            writer->slots[i][at] = (uint8_t)(at * 2654435761u >> 11);
    }
    writer->slices_crc = kv_crc(0, memory + keys, bytes - keys);
}

static void free_slots(struct writer *writer)
{
    kv_shm_peer_destroy(writer->peer);
    if (writer->pool == NULL)
        free(writer->slots[0]);
    kv_pool_destroy(writer->pool);
}

/* --- sending --- */

static void send(struct writer *writer, const Reelkv__V1__AppendRequest *request,
                 const struct rpc_attachment *attachment)
{
    struct status st = { 0 };

    if (!rpc_sync_write(writer->call, &request->base, attachment, &st))
        kv_die("append to %s: %s", writer->name, st.text);
}

static void borrowed(void *arg)
{
}

static void send_chunks(struct writer *writer, const uint8_t *payload, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes;) {
        Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
        Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
        uint64_t part = bytes - done < LIMIT_CHUNK_BYTES ? bytes - done : LIMIT_CHUNK_BYTES;
        const struct rpc_attachment attachment = { .data = payload + done, .len = part, .release = borrowed };

        request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
        request.chunk = &chunk;
        send(writer, &request, &attachment);
        done += part;
    }
}

static void send_block(struct writer *writer, bool is_init, uint64_t seq)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    uint32_t tokens = is_init ? INIT_TOKENS : writer->writing->tokens;
    uint64_t bytes = payload_bytes(writer, tokens), keys = kv_keys_bytes(writer->writing->geometry);
    uint8_t *payload = writer->slots[is_init ? SLOTS - 1 : seq % SLOTS];

    fill_keys(writer, seq, payload);
    block.kind = is_init ? REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT : REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME;
    block.seq = seq;
    block.pts_ns = kv_frame_pts(seq);
    block.token_index = is_init ? 0 : writer->token;
    block.tokens = tokens;
    block.payload_bytes = bytes;
    block.payload_crc32c = is_init ? kv_crc(0, payload, bytes)
                                   : kv_crc_join(kv_crc(0, payload, keys), writer->slices_crc, bytes - keys);
    block.shm_offset = writer->pool == NULL ? 0 : (uint64_t)(payload - kv_pool_base(writer->pool));
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = &block;
    send(writer, &request, NULL);
    if (writer->pool == NULL)
        send_chunks(writer, payload, bytes);
    writer->token += tokens;
}

static bool read_ack(struct writer *writer)
{
    const struct rpc_message *message;
    struct status st = { 0 };

    if (!rpc_sync_read(writer->call, &message, &st))
        kv_die("append to %s: %s", writer->name, st.text);
    if (message == NULL)
        return false;
    writer->stored = ((const Reelkv__V1__AppendReply *)message->body)->stored_seq;
    return true;
}

static void begin(struct writer *writer)
{
    const struct rpc_stream_options options = { .timeout_ms = RPC_NO_TIMEOUT };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin message = REELKV__V1__APPEND_BEGIN__INIT;
    struct kv_view view;
    struct status st = { 0 };

    if (!rpc_sync_open(&writer->call, writer->client, &api_append, &options, &st))
        kv_die("%s", st.text);
    kv_view_fill(&view, writer->name, 0);
    message.id = &view.id;
    message.epoch = writer->epoch;
    message.shm_pool = writer->peer == NULL ? 0 : kv_shm_peer_pool(writer->peer);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &message;
    send(writer, &request, NULL);
    send_block(writer, true, 0);
}

static double seconds(void)
{
    return (double)(clock_mono_ns() - began_ns) * 1e-9;
}

static void write_stream(unsigned number, void *arg)
{
    struct writer *writer = &writers[number];
    struct status st = { 0 };

    begin(writer);
    for (uint64_t seq = 0; seq < writer->writing->frames; seq++) {
        while (seq - writer->stored >= SLOTS - 1) /* the last slot has INIT at first */
            read_ack(writer);
        send_block(writer, false, seq);
    }
    while (writer->stored < writer->writing->frames)
        read_ack(writer);
    writer->stored_s = seconds();
    if (!rpc_sync_half_close(writer->call, &st))
        kv_die("append to %s: %s", writer->name, st.text);
    while (read_ack(writer))
        ;
    writer->durable_s = seconds();
    rpc_sync_stream_destroy(writer->call);
}

void kv_write(struct kv_writing *writing)
{
    if (writing->streams > STREAMS_MAX)
        kv_die("%u streams; at most %d", writing->streams, STREAMS_MAX);
    writing->bytes = writing->stored_s = writing->durable_s = 0;
    for (uint32_t i = 0; i < writing->streams; i++) {
        struct writer *writer = &writers[i];

        *writer = (struct writer){ .writing = writing };
        snprintf(writer->name, sizeof writer->name, "%s%u", writing->prefix, i);
        writer->client = kv_server_connect(writing->server);
        kv_stream_create(writing->server, writer->name);
        writer->epoch = kv_stream_open(writer->client, writer->name, writing->geometry);
        make_slots(writer);
    }
    writing->own_cpu_s = -kv_own_cpu();
    writing->store_cpu_s = -kv_cpu_of(writing->server->pid);
    began_ns = clock_mono_ns();
    kv_threads(writing->streams, write_stream, NULL);
    writing->own_cpu_s += kv_own_cpu();
    writing->store_cpu_s += kv_cpu_of(writing->server->pid);
    for (uint32_t i = 0; i < writing->streams; i++) {
        struct writer *writer = &writers[i];

        writing->bytes += (double)(writing->frames * payload_bytes(writer, writing->tokens));
        writing->stored_s = writer->stored_s > writing->stored_s ? writer->stored_s : writing->stored_s;
        writing->durable_s = writer->durable_s > writing->durable_s ? writer->durable_s : writing->durable_s;
        free_slots(writer);
        rpc_sync_destroy(writer->client);
    }
}
