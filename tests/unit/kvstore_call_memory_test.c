/* A call for which there is no memory answers EXHAUSTED and has done nothing: of every call each allocation on the loop's
 * thread is refused in turn, until none is left to refuse, and then it must answer as it did before.
 *
 * The program's own allocations ask the real ones (CMakeLists.txt). */
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"
#include "kvstore_call_memory.h"

/* What a call that was refused must not have changed. */
struct state {
    uint64_t next_seq, epoch, streams, holds, receipts;
};

static struct state state_now(void)
{
    struct state state = { stream->next_seq, stream->epoch, calls.fixture.store->stream_count, 0, 0 };

    while (stream_hold_at(stream, (uint32_t)state.holds) != NULL)
        state.holds++;
    while (stream_receipt_at(stream, (uint32_t)state.receipts) != NULL)
        state.receipts++;
    return state;
}

/* --- one call, refused again and again --- */

static void nothing(void)
{
}

/* `undo` after each that was not refused. Until so many were told OK although something was refused on their way. */
static void refuse_each_until(deed_fn *deed, void (*undo)(void), uint32_t tolerated_max)
{
    struct said before;
    bool was_refused = true;
    uint32_t tolerated = 0, n;

    memory.left = 0;
    CHECK_EQ(deed(), STATUS_OK);
    before = said;
    undo();
    for (n = 1; was_refused && tolerated < tolerated_max; n++) {
        struct state state = state_now(), then;
        enum status_code code;

        memory.left = n;
        memory.has_refused = false;
        code = deed();
        memory.is_armed = false;
        memory.left = 0;
        was_refused = memory.has_refused;
        then = state_now();
        if (code == STATUS_OK) {
            CHECK_EQ(said.count, before.count);
            CHECK_EQ(said.bytes, before.bytes);
            CHECK_EQ(said.crc, before.crc);
            tolerated += was_refused;
            undo();
            continue;
        }
        if (!was_refused ||
            (code != STATUS_EXHAUSTED && code != STATUS_UNAVAILABLE && code != STATUS_ABORTED))
            test_fail(__FILE__, __LINE__, "without allocation %u: %s", n, said.end.text);
        CHECK_MEM(&then, &state, sizeof state);
    }
    CHECK(n > 2 && tolerated < n - 2); /* some were refused */
}

static void refuse_each(deed_fn *deed, void (*undo)(void))
{
    refuse_each_until(deed, undo, UINT32_MAX);
}

/* --- what reads --- */

static enum status_code list(void)
{
    Reelkv__V1__ListStreamsRequest request = REELKV__V1__LIST_STREAMS_REQUEST__INIT;

    ASKS(list_streams, &request);
}

static enum status_code prefetch(void)
{
    Reelkv__V1__PrefetchRequest request = REELKV__V1__PREFETCH_REQUEST__INIT;

    fill_refs();
    request.view = &calls_view;
    request.frames = ref_list;
    request.n_frames = 1;
    request.layers = 1;
    request.deadline_ms = 1;
    ASKS(prefetch, &request);
}

static enum status_code watch(void)
{
    Reelkv__V1__WatchStreamRequest request = REELKV__V1__WATCH_STREAM_REQUEST__INIT;
    struct rpc_call *call;

    request.id = &calls_id;
    call = begin(CALLS_HANDLER(watch_stream), &request.base);
    if (fuzz_call_is_over(call))
        return calls_end(&calls, call);
    FIXTURE_TURN_UNTIL(&calls.fixture, said.count == 1); /* what there was no memory for is told later */
    calls_let_go(&calls, call);
    return STATUS_OK;
}

TEST(call_memory_of_what_reads)
{
    deed_fn *const deeds[] = { score, fetch, retrieve, timeline, export, window, list, watch };

    start();
    for (size_t i = 0; i < ARRAY_LEN(deeds); i++)
        refuse_each(deeds[i], nothing);
    fixture_check_all(&calls.fixture, stream, 0, FRAMES);
    calls_close_store(&calls);
}

/* How much of it is ready when it ends is a matter of time. */
TEST(call_memory_of_a_ticket)
{
    enum status_code code;

    start();
    for (uint32_t n = 1; n < 4; n++) {
        memory.left = n;
        memory.has_refused = false;
        code = prefetch();
        memory.is_armed = false;
        CHECK(code == STATUS_OK || code == STATUS_EXHAUSTED);
        CHECK_EQ(calls.kvstore.prefetch_count, 0);
        CHECK(n > 1 || (memory.has_refused && code == STATUS_EXHAUSTED));
    }
    calls_close_store(&calls);
}

/* --- what changes something --- */

static enum status_code create(void)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition made = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId other = REELKV__V1__STREAM_ID__INIT;

    other.namespace_ = (char *)"default";
    other.name = (char *)"cam-2";
    made.id = &other;
    made.source = (char *)"rtsp://cam/2";
    made.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    request.definition = &made;
    ASKS(create_stream, &request);
}

static enum status_code remove_other(void)
{
    Reelkv__V1__DeleteStreamRequest request = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId other = REELKV__V1__STREAM_ID__INIT;

    other.namespace_ = (char *)"default";
    other.name = (char *)"cam-2";
    request.id = &other;
    ASKS(delete_stream, &request);
}

static void uncreate(void)
{
    CHECK_EQ(remove_other(), STATUS_OK);
}

static void recreate(void)
{
    CHECK_EQ(create(), STATUS_OK);
}

static enum status_code take(void)
{
    Reelkv__V1__OpenStreamRequest request = REELKV__V1__OPEN_STREAM_REQUEST__INIT;

    request.id = &calls_id;
    request.geometry = &calls_geometry;
    request.fingerprint = calls_fingerprint();
    request.writer = (char *)"w";
    ASKS(open_stream, &request);
}

static enum status_code hold(void)
{
    Reelkv__V1__HoldRequest request = REELKV__V1__HOLD_REQUEST__INIT;
    Reelkv__V1__HoldInfo info = REELKV__V1__HOLD_INFO__INIT;

    info.id = &calls_id;
    info.range = &calls_range;
    calls_range.from_ns = 5;
    calls_range.to_ns = 6; /* no frame is that old */
    info.owner = (char *)"ann";
    info.reason = (char *)"a theft";
    request.hold = &info;
    ASKS(hold, &request);
}

static enum status_code release(void)
{
    Reelkv__V1__ReleaseHoldRequest request = REELKV__V1__RELEASE_HOLD_REQUEST__INIT;

    request.id = &calls_id;
    request.number = stream_hold_at(stream, 0)->number;
    ASKS(release_hold, &request);
}

static void unhold(void)
{
    CHECK_EQ(release(), STATUS_OK);
}

static void hold_again(void)
{
    CHECK_EQ(hold(), STATUS_OK);
}

/* One that was refused is under way until the disk has been told so. */
static enum status_code forget(void)
{
    Reelkv__V1__ForgetRequest request = REELKV__V1__FORGET_REQUEST__INIT;
    uint32_t n = memory.left;
    enum status_code code;

    request.id = &calls_id;
    request.range = &calls_range;
    calls_range.from_ns = 5;
    calls_range.to_ns = 6;
    for (;;) {
        struct loop_timer tick = { 0 };

        memory.left = n;
        memory.has_refused = false;
        code = calls_end(&calls, begin(CALLS_HANDLER(forget), &request.base));
        if (code != STATUS_ABORTED)
            return code;
        memory.is_armed = false;
        loop_timer_start(calls.fixture.loop, &tick, 20, fixture_tick);
        loop_run_once(calls.fixture.loop);
        loop_timer_stop(&tick);
    }
}

TEST(call_memory_of_what_changes_something)
{
    start();
    refuse_each(create, uncreate);
    recreate();
    refuse_each(remove_other, recreate);
    refuse_each(take, nothing);
    refuse_each(hold, unhold);
    hold_again();
    refuse_each(release, hold_again);
    unhold();
    refuse_each_until(forget, nothing, 1); /* once it is on the disk that it is to go, it goes */
    fixture_check_all(&calls.fixture, stream, 0, FRAMES);
    calls_close_store(&calls);
}

/* Whoever cannot take a stream leaves it to its writer. */
TEST(call_memory_that_fails_to_take_a_stream_keeps_its_writer)
{
    struct fixture_writer writer;
    uint32_t n = 1;

    start();
    fixture_attach(&calls.fixture, stream, &writer);
    do {
        CHECK(!writer.is_fenced && stream->writer == &writer.base);
        memory.left = n++;
    } while (take() != STATUS_OK);
    memory.is_armed = false;
    CHECK(n > 2 && writer.is_fenced);
    calls_close_store(&calls);
}

TEST_MAIN()
