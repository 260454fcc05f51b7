/* Inputs of fuzz_calls.c to start from: calls as clients make them. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "fuzz_calls.h"
#include "kvstore/kvstore.h"
#include "unit/kvstore_fixture.h"

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
    add_step(&input, FUZZ_CALL_SCORE, &score.base);
    add_step(&input, FUZZ_CALL_FETCH, &fetch.base);
    add_step(&input, FUZZ_CALL_TIMELINE, &timeline.base);
    add_step(&input, FUZZ_CALL_LOAD_WINDOW, &window.base);
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

    add_step(&input, FUZZ_CALL_RETRIEVE, NULL);
    open.view = &view;
    open.selection = &selection;
    open.pick = true;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    ask.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &ask;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    pick.frames = refs;
    pick.n_frames = 1;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_PICK;
    request.pick = &pick;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    add_step(&input, FUZZ_STEP_END, NULL);
    add("retrieve", input.bytes, input.len);
}

static void fill_geometry(Reelkv__V1__Geometry *geometry)
{
    geometry->layers = fixture_geometry.layers;
    geometry->kv_heads = fixture_geometry.kv_heads;
    geometry->head_dim = fixture_geometry.head_dim;
    geometry->dtype = (Reelkv__V1__Dtype)fixture_geometry.dtype;
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

    fill_geometry(&geometry);
    take.id = begin.id = &id;
    take.fingerprint = view.fingerprint;
    take.geometry = &geometry;
    take.writer = (char *)"w";
    add_step(&input, FUZZ_CALL_OPEN_STREAM, &take.base);
    add_step(&input, FUZZ_CALL_APPEND, NULL);
    begin.epoch = 2;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    gap.from_seq = 5;
    gap.to_seq = 7;
    gap.reason = (char *)"away";
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
    request.gap = &gap;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    block.seq = 7;
    block.tokens = 1;
    block.token_index = 65;
    block.payload_bytes = kv_payload_bytes(&fixture_geometry, 1);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = &block;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    chunk.data = (ProtobufCBinaryData){ 200, (uint8_t *)calloc(1, 200) };
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    for (uint64_t sent = 0; sent < block.payload_bytes; sent += chunk.data.len) {
        if (block.payload_bytes - sent < chunk.data.len)
            chunk.data.len = block.payload_bytes - sent;
        add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    }
    free(chunk.data.data);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
    request.end = &end;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    add_step(&input, FUZZ_STEP_END, NULL);
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
    add_step(&input, FUZZ_CALL_CREATE_STREAM, &create.base);
    add_step(&input, FUZZ_CALL_GET_STREAM, &get.base);
    add_step(&input, FUZZ_CALL_REPORT_TROUBLE, &report.base);
    add_step(&input, FUZZ_CALL_LIST_STREAMS, &list.base);
    add_step(&input, FUZZ_CALL_DELETE_STREAM, &drop.base);
    add("catalog", input.bytes, input.len);
}

static void add_retention(fuzz_seed_fn *add)
{
    Reelkv__V1__HoldRequest hold = REELKV__V1__HOLD_REQUEST__INIT;
    Reelkv__V1__HoldInfo info = REELKV__V1__HOLD_INFO__INIT;
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    Reelkv__V1__ListHoldsRequest list = REELKV__V1__LIST_HOLDS_REQUEST__INIT;
    Reelkv__V1__ReleaseHoldRequest release = REELKV__V1__RELEASE_HOLD_REQUEST__INIT;
    Reelkv__V1__ForgetRequest forget = REELKV__V1__FORGET_REQUEST__INIT;
    Reelkv__V1__ListReceiptsRequest receipts = REELKV__V1__LIST_RECEIPTS_REQUEST__INIT;
    struct input input = { .len = 0 };

    hold.hold = &info;
    info.id = list.id = release.id = forget.id = receipts.id = &id;
    info.range = forget.range = &range;
    info.owner = (char *)"police";
    info.reason = (char *)"case 17";
    range.from_ns = fixture_pts(0);
    range.to_ns = fixture_pts(1);
    release.number = 1;
    add_step(&input, FUZZ_CALL_HOLD, &hold.base);
    add_step(&input, FUZZ_CALL_LIST_HOLDS, &list.base);
    add_step(&input, FUZZ_CALL_FORGET, &forget.base);
    add_step(&input, FUZZ_CALL_RELEASE_HOLD, &release.base);
    add_step(&input, FUZZ_CALL_FORGET, &forget.base);
    add_step(&input, FUZZ_CALL_LIST_RECEIPTS, &receipts.base);
    add("retention", input.bytes, input.len);
}

static void add_long_ones(fuzz_seed_fn *add)
{
    Reelkv__V1__PrefetchRequest prefetch = REELKV__V1__PREFETCH_REQUEST__INIT;
    Reelkv__V1__WatchStreamRequest watch = REELKV__V1__WATCH_STREAM_REQUEST__INIT;
    Reelkv__V1__ExportRequest export = REELKV__V1__EXPORT_REQUEST__INIT;
    Reelkv__V1__FrameRef ref = REELKV__V1__FRAME_REF__INIT, *refs[] = { &ref };
    struct input input = { .len = 0 };

    prefetch.view = &view;
    prefetch.frames = refs;
    prefetch.n_frames = 1;
    watch.id = export.id = &id;
    add_step(&input, FUZZ_CALL_PREFETCH, &prefetch.base);
    add_step(&input, FUZZ_STEP_MESSAGE - 1, NULL);
    add_step(&input, FUZZ_CALL_WATCH_STREAM, &watch.base);
    add_step(&input, FUZZ_CALL_EXPORT, &export.base);
    add("long", input.bytes, input.len);
}

static void add_import(fuzz_seed_fn *add)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__ExportHead head = REELKV__V1__EXPORT_HEAD__INIT;
    Reelkv__V1__ExportGone gone = REELKV__V1__EXPORT_GONE__INIT, *all[] = { &gone };
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId other = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    Reelkv__V1__AppendGap gap = REELKV__V1__APPEND_GAP__INIT;
    Reelkv__V1__AppendEnd over = REELKV__V1__APPEND_END__INIT;
    struct input input = { .len = 0 };

    fill_geometry(&geometry);
    other.namespace_ = (char *)"default";
    other.name = (char *)"cam-3";
    definition.id = begin.id = &other;
    definition.source = (char *)"rtsp://cam/3";
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    definition.sample_fps = 1;
    gone.to_seq = 4;
    gone.frames = 4;
    head.definition = &definition;
    head.fingerprint = view.fingerprint;
    head.geometry = &geometry;
    head.first_seq = 4;
    head.gone = all;
    head.n_gone = 1;
    begin.import = &head;
    add_step(&input, FUZZ_CALL_APPEND, NULL);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    gap.from_seq = 4;
    gap.to_seq = 7;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
    request.gap = &gap;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
    request.end = &over;
    add_step(&input, FUZZ_STEP_MESSAGE, &request.base);
    add("import", input.bytes, input.len);
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
    add_retention(add);
    add_long_ones(add);
    add_import(add);
}
