/* What a client asks that makes no sense is refused with a code and a sentence that says what, and nothing has changed. */
#include "kvstore_calls.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

enum { FRAMES = 12 };

static struct calls calls;
static struct stream *stream;

static void start(void)
{
    struct fixture_writer writer;

    calls_start(&calls);
    calls_messages();
    stream = fixture_write(&calls.fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(&calls.fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&calls.fixture, stream);
}

static void stop(void)
{
    CHECK_EQ(calls.fixture.store->stream_count, 1);
    CHECK_EQ(stream->next_seq, FRAMES);
    CHECK(stream_hold_at(stream, 0) == NULL && stream_receipt_at(stream, 0) == NULL);
    fixture_check_all(&calls.fixture, stream, 0, FRAMES);
    calls_close_store(&calls);
}

static char *text_of(size_t len)
{
    static char text[LIMIT_URL_BYTES + 2];

    memset(text, 'a', len);
    text[len] = '\0';
    return text;
}

TEST(refusal_of_holds)
{
    Reelkv__V1__HoldRequest request = REELKV__V1__HOLD_REQUEST__INIT;
    Reelkv__V1__HoldInfo hold = REELKV__V1__HOLD_INFO__INIT;
    Reelkv__V1__ReleaseHoldRequest release = REELKV__V1__RELEASE_HOLD_REQUEST__INIT;

    start();
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "no hold, or no range");
    request.hold = &hold;
    hold.id = &calls_id;
    hold.owner = (char *)"ann";
    hold.reason = (char *)"a theft";
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "no hold, or no range");
    hold.range = &calls_range;
    calls_range.from_ns = calls_range.to_ns = 5;
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "ends before it begins");
    calls_range.to_ns = 6;
    hold.owner = (char *)"";
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "owner must be 1 to 63 bytes");
    hold.owner = text_of(64);
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "owner must be 1 to 63 bytes");
    hold.owner = (char *)"a\tb";
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "control characters");
    hold.owner = (char *)"a\x7f";
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "control characters");
    hold.owner = (char *)"ann";
    hold.reason = (char *)"\xff";
    CALLS_REFUSED(&calls, hold, &request, STATUS_INVALID, "reason must be 1 to 200 bytes of UTF-8");
    hold.reason = (char *)"a theft";
    calls_id.name = (char *)"cam-9";
    release.id = &calls_id;
    CALLS_REFUSED(&calls, hold, &request, STATUS_NOT_FOUND, "cam-9 is not in store kv-a");
    CALLS_REFUSED(&calls, release_hold, &release, STATUS_NOT_FOUND, "cam-9 is not in store kv-a");
    calls_id.name = (char *)"cam-1";
    release.number = 3;
    CALLS_REFUSED(&calls, release_hold, &release, STATUS_NOT_FOUND, "no hold of number 3");
    stop();
}

TEST(refusal_of_what_is_to_be_forgotten)
{
    Reelkv__V1__ForgetRequest request = REELKV__V1__FORGET_REQUEST__INIT;

    start();
    request.id = &calls_id;
    CALLS_REFUSED(&calls, forget, &request, STATUS_INVALID, "no range");
    request.range = &calls_range;
    calls_range.from_ns = 7;
    calls_range.to_ns = 7;
    CALLS_REFUSED(&calls, forget, &request, STATUS_INVALID, "ends before it begins");
    calls_id.name = (char *)"cam-9";
    CALLS_REFUSED(&calls, forget, &request, STATUS_NOT_FOUND, "cam-9");
    request.id = NULL;
    CALLS_REFUSED(&calls, forget, &request, STATUS_INVALID, "names no stream");
    stop();
}

TEST(refusal_of_views)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__StreamId *many[LIMIT_STREAMS_PER_QUESTION + 1];

    start();
    CALLS_REFUSED(&calls, fetch, &request, STATUS_INVALID, "no view");
    request.view = &calls_view;
    calls_view.n_streams = 0;
    CALLS_REFUSED(&calls, fetch, &request, STATUS_INVALID, "view: 0 streams");
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = &calls_id;
    calls_view.streams = many;
    calls_view.n_streams = ARRAY_LEN(many);
    CALLS_REFUSED(&calls, fetch, &request, STATUS_INVALID, "view: 65 streams; 1 to 64");
    calls_view.n_streams = 1;
    calls_id.namespace_ = (char *)"No";
    CALLS_REFUSED(&calls, fetch, &request, STATUS_INVALID, "namespace");
    calls_id.namespace_ = (char *)"default";
    calls_view.fingerprint.len = 3;
    CALLS_REFUSED(&calls, fetch, &request, STATUS_INVALID, "fingerprint has 3 bytes");
    calls_view.fingerprint = calls_fingerprint();
    calls_view.range = &calls_range;
    calls_range.from_ns = 9;
    calls_range.to_ns = 9;
    CALLS_REFUSED(&calls, fetch, &request, STATUS_INVALID, "ends before it begins");
    calls_view.range = NULL;
    calls_print[3] = 8;
    CALLS_REFUSED(&calls, fetch, &request, STATUS_PRECONDITION, "holds blocks of fingerprint 0707");
    stop();
}

TEST(refusal_of_scores_and_fetches)
{
    Reelkv__V1__ScoreRequest score = REELKV__V1__SCORE_REQUEST__INIT;
    Reelkv__V1__FetchRequest fetch = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__PrefetchRequest prefetch = REELKV__V1__PREFETCH_REQUEST__INIT;
    Reelkv__V1__FrameRef ref = REELKV__V1__FRAME_REF__INIT, *refs[LIMIT_TOP_BLOCKS + 1];

    start();
    for (size_t i = 0; i < ARRAY_LEN(refs); i++)
        refs[i] = &ref;
    score.view = fetch.view = prefetch.view = &calls_view;
    CALLS_REFUSED(&calls, score, &score, STATUS_INVALID, "no selection");
    score.selection = &calls_selection;
    CALLS_REFUSED(&calls, score, &score, STATUS_INVALID, "query");
    score.layer = 3;
    CALLS_REFUSED(&calls, score, &score, STATUS_INVALID, "layer 3; the model has 3");
    fetch.frames = prefetch.frames = refs;
    fetch.n_frames = prefetch.n_frames = ARRAY_LEN(refs);
    CALLS_REFUSED(&calls, fetch, &fetch, STATUS_INVALID, "4097 frames; at most 4096");
    CALLS_REFUSED(&calls, prefetch, &prefetch, STATUS_INVALID, "4097 frames for 10000 ms");
    fetch.n_frames = prefetch.n_frames = 1;
    fetch.parts = (Reelkv__V1__SliceParts)3;
    CALLS_REFUSED(&calls, fetch, &fetch, STATUS_INVALID, "parts 3; K and V are 0");
    fetch.parts = REELKV__V1__SLICE_PARTS__SLICE_PARTS_BOTH;
    fetch.layers = prefetch.layers = 4;
    CALLS_REFUSED(&calls, fetch, &fetch, STATUS_INVALID, "layers 0 + 4; the model has 3");
    CALLS_REFUSED(&calls, prefetch, &prefetch, STATUS_INVALID, "layers 0 + 4; the model has 3");
    fetch.first_layer = prefetch.first_layer = 3;
    fetch.layers = prefetch.layers = 1;
    CALLS_REFUSED(&calls, fetch, &fetch, STATUS_INVALID, "layers 3 + 1; the model has 3");
    CALLS_REFUSED(&calls, prefetch, &prefetch, STATUS_INVALID, "layers 3 + 1; the model has 3");
    prefetch.first_layer = 0;
    prefetch.deadline_ms = 600001;
    CALLS_REFUSED(&calls, prefetch, &prefetch, STATUS_INVALID, "at most 4096 for 600000 ms");
    prefetch.deadline_ms = 0;
    prefetch.view = NULL;
    CALLS_REFUSED(&calls, prefetch, &prefetch, STATUS_INVALID, "no view");
    stop();
}

TEST(refusal_of_definitions)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition made = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__ListStreamsRequest list = REELKV__V1__LIST_STREAMS_REQUEST__INIT;

    start();
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "no definition");
    request.definition = &made;
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "names no stream");
    made.id = &calls_id;
    calls_id.name = (char *)"cam-2";
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "source must be a path or URL");
    made.source = text_of(LIMIT_URL_BYTES + 1);
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "1 to 2048 bytes");
    made.source = (char *)"rtsp://\xff";
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "bytes of UTF-8");
    made.source = (char *)"rtsp://cam/2";
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "FILE or LIVE");
    made.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_FILE;
    made.sample_fps = 1e6;
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "sample_fps must be");
    made.sample_fps = -1;
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "sample_fps must be");
    made.sample_fps = NAN;
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "sample_fps must be");
    made.sample_fps = 0;
    made.start_time_ns = -1;
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "before 1970");
    made.start_time_ns = INT64_MAX;
    CALLS_REFUSED(&calls, create_stream, &request, STATUS_INVALID, "out of range");
    list.page_token = (char *)"default";
    CALLS_REFUSED(&calls, list_streams, &list, STATUS_INVALID, "page_token is not from a reply");
    list.page_token = text_of(200);
    CALLS_REFUSED(&calls, list_streams, &list, STATUS_INVALID, "page_token is not from a reply");
    list.page_token = (char *)"No/cam-1";
    CALLS_REFUSED(&calls, list_streams, &list, STATUS_INVALID, "page_token");
    list.page_token = (char *)"default/No";
    CALLS_REFUSED(&calls, list_streams, &list, STATUS_INVALID, "page_token");
    stop();
}

TEST(refusal_of_writers)
{
    Reelkv__V1__OpenStreamRequest take = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__LoadWindowRequest window = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    uint64_t epoch;

    start();
    epoch = stream->epoch;
    take.id = window.id = &calls_id;
    CALLS_REFUSED(&calls, open_stream, &take, STATUS_INVALID, "no geometry");
    take.geometry = &calls_geometry;
    take.writer = text_of(STREAM_WRITER_BYTES);
    CALLS_REFUSED(&calls, open_stream, &take, STATUS_INVALID, "writer must be a name");
    take.writer = (char *)"\xff";
    CALLS_REFUSED(&calls, open_stream, &take, STATUS_INVALID, "writer must be a name");
    take.writer = (char *)"w";
    CALLS_REFUSED(&calls, open_stream, &take, STATUS_INVALID, "fingerprint has 0 bytes");
    take.fingerprint = calls_fingerprint();
    calls_geometry.layers = 0;
    CALLS_REFUSED(&calls, open_stream, &take, STATUS_INVALID, "layers");
    calls_geometry.layers = 4;
    CALLS_REFUSED(&calls, open_stream, &take, STATUS_PRECONDITION, "cam-1");
    CALLS_REFUSED(&calls, load_window, &window, STATUS_INVALID, "fingerprint has 0 bytes");
    window.fingerprint = calls_fingerprint();
    window.epoch = 77;
    CALLS_REFUSED(&calls, load_window, &window, STATUS_ABORTED, "epoch 77 was fenced by 1");
    window.epoch = 1;
    window.tokens = 1000000;
    CALLS_REFUSED(&calls, load_window, &window, STATUS_PRECONDITION, "smaller than one window");
    CHECK_EQ(stream->epoch, epoch);
    stop();
}

TEST_MAIN()
