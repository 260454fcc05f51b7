/* The store's handlers: calls and their messages as bytes, against a store that has one stream, with INIT, frames and a gap.
 *
 * An input is steps: a byte that says what, one for the length, the bytes. What: 0 to 63, a call is opened (modulo their
 * number), and, when it takes many messages, becomes the one that later steps send to; 64 to 191, a message to that one; 192 to
 * 223, its client's end; from 224 on, it is cancelled. After each step the loop turns until the handler waits for more. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "fuzz.h"
#include "fuzz_call.h"
#include "kvstore/kvstore.h"
#include "unit/kvstore_fixture.h"

enum { FRAMES = 3, TURNS_MAX = 200, STEPS_MAX = 32 };

static struct fixture fixture;
static struct kvstore kvstore;
static struct kvstore_options options;
static struct file_ops disk;
static struct rpc_call *talk; /* the call that steps send to; NULL: none */
static uint64_t epoch;        /* of the stream, as built */

static const struct rpc_handler handlers[] = {
    { &api_create_stream, kvstore_create_stream },
    { &api_get_stream, kvstore_get_stream },
    { &api_list_streams, kvstore_list_streams },
    { &api_delete_stream, kvstore_delete_stream },
    { &api_report_trouble, kvstore_report_trouble },
    { &api_open_stream, kvstore_open_stream },
    { &api_append, kvstore_append },
    { &api_load_window, kvstore_load_window },
    { &api_score, kvstore_score },
    { &api_fetch, kvstore_fetch },
    { &api_retrieve, kvstore_retrieve },
    { &api_timeline, kvstore_timeline },
    { &api_watch_stream, kvstore_watch_stream },
    { &api_export, kvstore_export },
    { &api_list_holds, kvstore_list_holds },
    { &api_list_receipts, kvstore_list_receipts },
};

/* --- the store --- */

static int not_synced(int fd)
{
    (void)fd;
    return 0;
}

static void remove_folder(void)
{
    file_remove_tree(test_folder(), NULL);
}

static void build(void)
{
    struct fixture_writer writer;
    struct stream *stream = fixture_write(&fixture, "cam-1", &writer, FRAMES);

    REQUIRE(fixture_append_gap(stream, 2, "away", &fixture.st));
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    epoch = stream->epoch;
}

static void start(void)
{
    log_init("fuzz", LOG_ERROR);
    disk = file_system;
    disk.fsync = disk.fdatasync = not_synced;
    snprintf(fixture.root, sizeof fixture.root, "%s/data", test_folder());
    atexit(remove_folder);
    fixture.options = (struct store_options){ .name = "kv-a",
                                              .root = fixture.root,
                                              .ram_bytes = 16 << 20,
                                              .disk_bytes = 64 << 20,
                                              .segment_bytes_max = 1 << 20,
                                              .commit_ms = 5,
                                              .reading_threads = 1,
                                              .writing_threads = 1,
                                              .disk = &disk };
    fixture_open(&fixture);
    options = (struct kvstore_options){
        .name = "kv-a", .disk_budget_bytes = 64 << 20, .append_wait_ms = 20, .sample_fps = 1
    };
    kvstore = (struct kvstore){ .options = &options, .loop = fixture.loop, .store = fixture.store };
    build();
}

/* As it was before the input, which may have written to it, or defined and removed streams. */
static void restore(void)
{
    struct stream *stream = store_find(fixture.store, "default", "cam-1");

    if (fixture.store->stream_count == 1 && stream != NULL && stream->epoch == epoch)
        return;
    while ((stream = store_next(fixture.store, NULL, NULL)) != NULL)
        fixture_remove(&fixture, stream);
    build();
}

/* --- an input --- */

static void turn_until_idle(const struct rpc_call *call)
{
    for (uint32_t i = 0; i < TURNS_MAX && !fuzz_call_is_idle(call); i++) {
        struct loop_timer tick = { 0 };

        loop_timer_start(fixture.loop, &tick, 1, fixture_tick);
        loop_run_once(fixture.loop);
        loop_timer_stop(&tick);
    }
}

static void end_talk(void)
{
    if (talk != NULL)
        fuzz_call_let_go(talk);
    talk = NULL;
}

static void open_call(const struct rpc_handler *handler, const uint8_t *data, size_t len)
{
    struct rpc_call *call = fuzz_call_open(fixture.loop, handler, &kvstore, data, len);

    if (call == NULL)
        return;
    turn_until_idle(call);
    if (handler->method->shape != RPC_BIDI) {
        fuzz_call_let_go(call);
        return;
    }
    end_talk();
    talk = call;
}

static void step(uint8_t what, const uint8_t *data, size_t len)
{
    if (what < 64) {
        open_call(&handlers[what % ARRAY_LEN(handlers)], data, len);
        return;
    }
    if (talk == NULL || fuzz_call_is_over(talk) || !fuzz_call_is_idle(talk))
        return;
    if (what < 192)
        fuzz_call_send(talk, data, len);
    else if (what < 224)
        fuzz_call_half_close(talk);
    else
        end_talk();
    if (talk != NULL)
        turn_until_idle(talk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (fixture.store == NULL)
        start();
    for (uint32_t steps = 0; len >= 2 && steps < STEPS_MAX; steps++) {
        size_t bytes = data[1] < len - 2 ? data[1] : len - 2;

        step(data[0], data + 2, bytes);
        data += 2 + bytes;
        len -= 2 + bytes;
    }
    end_talk();
    FIXTURE_TURN_UNTIL(&fixture, fuzz_calls_alive() == 0);
    restore();
    return 0;
}

/* --- seeds --- */

struct input {
    uint8_t bytes[2048];
    size_t len;
};

static void add_step(struct input *input, uint8_t what, const ProtobufCMessage *message)
{
    size_t len = message == NULL ? 0 : protobuf_c_message_get_packed_size(message);

    REQUIRE(len <= UINT8_MAX && input->len + len + 2 <= sizeof input->bytes);
    input->bytes[input->len++] = what;
    input->bytes[input->len++] = (uint8_t)len;
    if (message != NULL)
        protobuf_c_message_pack(message, input->bytes + input->len);
    input->len += len;
}

static Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT, *ids[] = { &id };
static uint8_t print[KV_FINGERPRINT_BYTES];
static float query[32];
static Reelkv__V1__View view = REELKV__V1__VIEW__INIT;
static Reelkv__V1__Selection selection = REELKV__V1__SELECTION__INIT;

static void add_readers(fuzz_seed_fn *add)
{
    Reelkv__V1__ScoreRequest score = REELKV__V1__SCORE_REQUEST__INIT;
    Reelkv__V1__FetchRequest fetch = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__TimelineRequest timeline = REELKV__V1__TIMELINE_REQUEST__INIT;
    Reelkv__V1__LoadWindowRequest window = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    Reelkv__V1__FrameRef ref = REELKV__V1__FRAME_REF__INIT, *refs[] = { &ref };
    struct input input = { .len = 0 };

    score.view = fetch.view = &view;
    score.selection = &selection;
    score.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
    ref.seq = 1;
    fetch.frames = refs;
    fetch.n_frames = 1;
    fetch.layers = 2;
    fetch.thumbnails = true;
    timeline.id = window.id = &id;
    window.fingerprint = view.fingerprint;
    window.epoch = 1;
    window.tokens = 40;
    add_step(&input, 8, &score.base);
    add_step(&input, 9, &fetch.base);
    add_step(&input, 11, &timeline.base);
    add_step(&input, 7, &window.base);
    add("readers", input.bytes, input.len);
}

static void add_retrieve(fuzz_seed_fn *add)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    Reelkv__V1__RetrieveQuery ask = REELKV__V1__RETRIEVE_QUERY__INIT;
    Reelkv__V1__RetrievePick pick = REELKV__V1__RETRIEVE_PICK__INIT;
    Reelkv__V1__FrameRef ref = REELKV__V1__FRAME_REF__INIT, *refs[] = { &ref };
    struct input input = { .len = 0 };

    add_step(&input, 10, NULL);
    open.view = &view;
    open.selection = &selection;
    open.pick = true;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    add_step(&input, 64, &request.base);
    ask.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &ask;
    add_step(&input, 64, &request.base);
    pick.frames = refs;
    pick.n_frames = 1;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_PICK;
    request.pick = &pick;
    add_step(&input, 64, &request.base);
    add_step(&input, 192, NULL);
    add("retrieve", input.bytes, input.len);
}

static void add_append(fuzz_seed_fn *add)
{
    Reelkv__V1__OpenStreamRequest take = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__AppendGap gap = REELKV__V1__APPEND_GAP__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    Reelkv__V1__AppendEnd end = REELKV__V1__APPEND_END__INIT;
    struct input input = { .len = 0 };

    geometry.layers = fixture_geometry.layers;
    geometry.kv_heads = fixture_geometry.kv_heads;
    geometry.head_dim = fixture_geometry.head_dim;
    geometry.dtype = (Reelkv__V1__Dtype)fixture_geometry.dtype;
    take.id = begin.id = &id;
    take.fingerprint = view.fingerprint;
    take.geometry = &geometry;
    take.writer = (char *)"w";
    add_step(&input, 5, &take.base);
    add_step(&input, 6, NULL);
    begin.epoch = 2;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin;
    add_step(&input, 64, &request.base);
    gap.from_seq = 5;
    gap.to_seq = 7;
    gap.reason = (char *)"away";
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
    request.gap = &gap;
    add_step(&input, 64, &request.base);
    block.seq = 7;
    block.tokens = 1;
    block.token_index = 65;
    block.payload_bytes = kv_payload_bytes(&fixture_geometry, 1);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = &block;
    add_step(&input, 64, &request.base);
    chunk.data = (ProtobufCBinaryData){ 200, (uint8_t *)calloc(1, 200) };
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    for (uint64_t sent = 0; sent < block.payload_bytes; sent += chunk.data.len) {
        if (block.payload_bytes - sent < chunk.data.len)
            chunk.data.len = block.payload_bytes - sent;
        add_step(&input, 64, &request.base);
    }
    free(chunk.data.data);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
    request.end = &end;
    add_step(&input, 64, &request.base);
    add_step(&input, 192, NULL);
    add("append", input.bytes, input.len);
}

static void add_catalog(fuzz_seed_fn *add)
{
    Reelkv__V1__CreateStreamRequest create = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__GetStreamRequest get = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__ListStreamsRequest list = REELKV__V1__LIST_STREAMS_REQUEST__INIT;
    Reelkv__V1__ReportTroubleRequest report = REELKV__V1__REPORT_TROUBLE_REQUEST__INIT;
    Reelkv__V1__DeleteStreamRequest drop = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId other = REELKV__V1__STREAM_ID__INIT;
    struct input input = { .len = 0 };

    other.namespace_ = (char *)"default";
    other.name = (char *)"cam-2";
    definition.id = get.id = report.id = drop.id = &other;
    definition.source = (char *)"rtsp://u:p@cam/1";
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    create.definition = &definition;
    report.trouble = (char *)"nobody answers";
    add_step(&input, 0, &create.base);
    add_step(&input, 1, &get.base);
    add_step(&input, 4, &report.base);
    add_step(&input, 2, &list.base);
    add_step(&input, 3, &drop.base);
    add("catalog", input.bytes, input.len);
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    id.namespace_ = (char *)"default";
    id.name = (char *)"cam-1";
    memset(print, 7, sizeof print); /* as the fixture's */
    view.streams = ids;
    view.n_streams = 1;
    view.fingerprint = (ProtobufCBinaryData){ sizeof print, print };
    selection.kind = REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_REKV;
    selection.top_r = 2;
    add_readers(add);
    add_retrieve(add);
    add_append(add);
    add_catalog(add);
}
