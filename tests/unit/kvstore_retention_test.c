/* Holds and receipts when the disk does not take them, when there are too many, and when several ask at once: whoever was
 * refused has changed nothing, and whoever was told OK finds it there after a restart. */
#include "kvstore_calls.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

enum { FRAMES = 12 };

static struct calls calls;
static struct stream *stream;
static Reelkv__V1__HoldRequest hold;
static Reelkv__V1__HoldInfo info;
static Reelkv__V1__ReleaseHoldRequest release;
static Reelkv__V1__ForgetRequest forget;
static Reelkv__V1__ListReceiptsRequest receipts;

static void start(void)
{
    struct fixture_writer writer;

    calls_start(&calls);
    calls_messages();
    stream = fixture_write(&calls.fixture, "cam-1", &writer, FRAMES);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&calls.fixture, stream);
    FIXTURE_TURN_UNTIL(&calls.fixture, stream->saves == NULL);
    hold = (Reelkv__V1__HoldRequest)REELKV__V1__HOLD_REQUEST__INIT;
    info = (Reelkv__V1__HoldInfo)REELKV__V1__HOLD_INFO__INIT;
    release = (Reelkv__V1__ReleaseHoldRequest)REELKV__V1__RELEASE_HOLD_REQUEST__INIT;
    forget = (Reelkv__V1__ForgetRequest)REELKV__V1__FORGET_REQUEST__INIT;
    receipts = (Reelkv__V1__ListReceiptsRequest)REELKV__V1__LIST_RECEIPTS_REQUEST__INIT;
    info.id = release.id = forget.id = receipts.id = &calls_id;
    info.range = forget.range = &calls_range;
    info.owner = (char *)"ann";
    info.reason = (char *)"a theft";
    hold.hold = &info;
    calls_range.from_ns = fixture_pts(3);
    calls_range.to_ns = fixture_pts(6);
}

static void restart(void)
{
    calls_close_store(&calls);
    calls_open_store(&calls);
    fixture_wait_keys(&calls.fixture);
    stream = store_find(calls.fixture.store, "default", "cam-1");
    CHECK(stream != NULL);
}

TEST(retention_hold_that_the_disk_does_not_take_is_none)
{
    start();
    calls_small_files_fail = 1;
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(hold), &hold.base), status_code_of_errno(EIO));
    CHECK(stream_hold_at(stream, 0) == NULL);
    calls_small_files_fail = 0;
    CALLS_OK(&calls, hold, &hold);
    release.number = stream_hold_at(stream, 0)->number;
    calls_small_files_fail = 1;
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(release_hold), &release.base), status_code_of_errno(EIO));
    for (unsigned i = 0; i < 2; i++) {
        CHECK(stream_hold_at(stream, 0) != NULL && stream_hold_at(stream, 0)->number == release.number);
        CALLS_REFUSED(&calls, forget, &forget, STATUS_PRECONDITION, "is held in that range by ann (a theft)");
        restart();
    }
    CALLS_OK(&calls, release_hold, &release);
    restart();
    CHECK(stream_hold_at(stream, 0) == NULL);
    calls_close_store(&calls);
}

/* One change at a time; a caller who leaves meanwhile has been heard. */
TEST(retention_hold_asked_for_while_another_is_written_waits)
{
    struct rpc_call *first;

    start();
    first = calls_begin(&calls, CALLS_HANDLER(hold), &hold.base);
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(hold), &hold.base), STATUS_UNAVAILABLE);
    CHECK_HAS(said.end.text, "another change of its holds is being written");
    calls_let_go(&calls, first);
    FIXTURE_TURN_UNTIL(&calls.fixture, stream->saves == NULL);
    CHECK(stream_hold_at(stream, 0) != NULL && stream_hold_at(stream, 1) == NULL);
    calls_close_store(&calls);
}

/* What could not be written that it is to go stays; once it is written it goes, however often the disk fails. */
TEST(retention_range_that_the_disk_does_not_take_is_not_forgotten)
{
    const struct forget_receipt *receipt;
    enum status_code code;

    start();
    calls_small_files_fail = 1;
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(forget), &forget.base), status_code_of_errno(EIO));
    CHECK(stream_receipt_at(stream, 0) == NULL);
    fixture_check_all(&calls.fixture, stream, 0, FRAMES);
    do { /* until the store knows that the disk has it not */
        calls_small_files_pass = 1;
        calls_small_files_fail = 1;
        code = calls_ask(&calls, CALLS_HANDLER(forget), &forget.base);
    } while (code == STATUS_ABORTED);
    CHECK_EQ(code, STATUS_OK);
    CHECK(calls_small_files_fail < 1); /* the receipt was written twice */
    receipt = stream_receipt_at(stream, 0);
    CHECK(receipt != NULL && receipt->done_ns != 0);
    CHECK_EQ(receipt->frames, 3);
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t seq = 0; seq < FRAMES; seq++)
            CHECK_EQ(fixture_read_layer(&calls.fixture, stream, seq, 0),
                     seq >= 3 && seq < 6 ? FRAME_EVICTED : FRAME_OK);
        restart();
    }
    calls_close_store(&calls);
}

/* The last sixteen are kept, in order. Without an end the range ends now. */
TEST(retention_keeps_the_last_receipts)
{
    const Reelkv__V1__ListReceiptsReply *reply;

    start();
    calls_range.from_ns = fixture_pts(FRAMES) + 1; /* where nothing is */
    calls_range.to_ns = 0;
    for (unsigned i = 0; i < FORGET_RECEIPTS_MAX + 2; i++)
        CALLS_OK(&calls, forget, &forget);
    for (unsigned i = 0; i < 2; i++) {
        CALLS_OK(&calls, list_receipts, &receipts);
        reply = (const Reelkv__V1__ListReceiptsReply *)said.replies[0];
        CHECK_EQ(reply->n_receipts, FORGET_RECEIPTS_MAX);
        for (size_t n = 0; n < reply->n_receipts; n++) {
            CHECK_EQ(reply->receipts[n]->number, n + 3);
            CHECK(reply->receipts[n]->done_ns >= reply->receipts[n]->range->to_ns);
            CHECK_STR(reply->receipts[n]->store, "kv-a");
        }
        restart();
    }
    fixture_check_all(&calls.fixture, stream, 0, FRAMES);
    calls_close_store(&calls);
}

static const char *why_it_waits(void)
{
    const Reelkv__V1__ListReceiptsReply *reply;

    CALLS_OK(&calls, list_receipts, &receipts);
    reply = (const Reelkv__V1__ListReceiptsReply *)said.replies[0];
    CHECK_EQ(reply->n_receipts, 1);
    return reply->receipts[0]->waits_because;
}

/* The budget has no room for the file that is to be made. Only the log said so. */
TEST(retention_says_what_a_forgetting_waits_for)
{
    struct store *store;
    struct rpc_call *call;

    start();
    store = calls.fixture.store;
    store->disk_used_bytes += store->options.disk_bytes;
    call = calls_begin(&calls, CALLS_HANDLER(forget), &forget.base);
    FIXTURE_TURN_UNTIL(&calls.fixture,
                       stream_forget_waits_because(stream)[0] != '\0' && stream->saves == NULL);
    FIXTURE_TURN_UNTIL(&calls.fixture, strstr(why_it_waits(), "the disk's budget has no room") != NULL);
    store->disk_used_bytes -= store->options.disk_bytes;
    CHECK_EQ(calls_end(&calls, call), STATUS_OK);
    CHECK_STR(why_it_waits(), "");
    CHECK(stream_receipt_at(stream, 0)->done_ns != 0);
    calls_close_store(&calls);
}

/* Whoever asks for something of a stream that is going is told so, and whoever waits for a receipt. */
TEST(retention_of_a_stream_that_goes_ends_with_it)
{
    struct stream_removed removed;
    struct fixture_answer answer = { 0 };
    struct stream_hold direct = { .from_ns = 1, .to_ns = 2, .owner = "ann", .reason = "x" };
    struct rpc_call *call;
    struct status st;

    start();
    call = calls_begin(&calls, CALLS_HANDLER(forget), &forget.base);
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(forget), &forget.base), STATUS_ABORTED);
    CHECK_HAS(said.end.text, "another range is being forgotten");
    CHECK_OK(stream_delete(stream, &removed, fixture_done, &answer, &st), st);
    CHECK(!stream_hold_add(stream, &direct, fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK(!stream_hold_release(stream, 1, fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK(!stream_forget(stream, 1, 2, fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK(!stream_delete(stream, &removed, fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    FIXTURE_TURN_UNTIL(&calls.fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    CHECK(calls_end(&calls, call) != STATUS_OK);
    calls_close_store(&calls);
}

TEST_MAIN()
