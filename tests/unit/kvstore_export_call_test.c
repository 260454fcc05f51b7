/* What is exported tells each number from its first to its last once, as a block or as missing, whatever happens to the
 * stream meanwhile; or it ends with a reason. */
#include "kvstore_patchwork.h"

#include "kvstore/stream_forget.h"

static struct calls calls;
static struct stream *stream;
static Reelkv__V1__ExportRequest request;

static void start(void)
{
    calls_start(&calls);
    calls_messages();
    stream = patch_make(&calls);
    request = (Reelkv__V1__ExportRequest)REELKV__V1__EXPORT_REQUEST__INIT;
    request.id = &calls_id;
}

/* Of what was said: which numbers came as blocks, bit by bit; all others of [first_seq, end_seq) as gaps. */
static uint64_t check_export(uint64_t first_seq, uint64_t end_seq)
{
    uint64_t next = first_seq, blocks = 0, at = 0;

    CHECK(said.count > 2);
    for (uint32_t i = 0; i < said.count; i++) {
        const Reelkv__V1__ExportReply *reply = (const Reelkv__V1__ExportReply *)said.replies[i];

        switch (reply->item_case) {
        case REELKV__V1__EXPORT_REPLY__ITEM_HEAD:
            CHECK_EQ(i, 0);
            CHECK_EQ(reply->head->first_seq, first_seq);
            for (size_t n = 0; n < reply->head->n_gone; n++) { /* all before it */
                CHECK_EQ(reply->head->gone[n]->from_seq, at);
                at = reply->head->gone[n]->to_seq;
            }
            CHECK_EQ(at, first_seq);
            break;
        case REELKV__V1__EXPORT_REPLY__ITEM_BLOCK:
            if (reply->block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT)
                break;
            CHECK_EQ(reply->block->seq, next);
            CHECK_EQ(reply->block->pts_ns, fixture_pts(next));
            blocks |= 1ull << next++;
            break;
        case REELKV__V1__EXPORT_REPLY__ITEM_GAP:
            CHECK_EQ(reply->gap->from_seq, next);
            CHECK(reply->gap->to_seq > next);
            next = reply->gap->to_seq;
            break;
        default:
            break;
        }
    }
    CHECK_EQ(next, end_seq);
    return blocks;
}

static uint64_t bits(uint64_t from, uint64_t to)
{
    return ((1ull << (to - from)) - 1) << from;
}

/* All that can be read: not what is keys alone, thinned, forgotten or lost. */
static const uint64_t readable =
    0xfffull | 1ull << 18 | 1ull << 20 | 1ull << 22 | 1ull << 24 | 0xffull << 28 | 0x3full << 44;

TEST(export_tells_each_number_once)
{
    start();
    CALLS_OK(&calls, export, &request);
    CHECK_EQ(check_export(0, PATCH_END), readable);
    calls_close_store(&calls);
}

TEST(export_of_a_range_says_what_it_leaves_out)
{
    start();
    request.range = &calls_range;
    calls_range.from_ns = fixture_pts(3);
    calls_range.to_ns = fixture_pts(8);
    CALLS_OK(&calls, export, &request);
    CHECK_EQ(check_export(3, 8), bits(3, 8));
    calls_range.from_ns = fixture_pts(36) - 1; /* it begins with the gap, and goes on behind what was lost */
    calls_range.to_ns = 0;
    CALLS_OK(&calls, export, &request);
    CHECK_EQ(check_export(36, PATCH_END), bits(44, 50));
    calls_range.from_ns = fixture_pts(200);
    CALLS_REFUSED(&calls, export, &request, STATUS_NOT_FOUND, "has no frame in that range");
    calls_range.from_ns = fixture_pts(3);
    calls_range.to_ns = fixture_pts(2);
    CALLS_REFUSED(&calls, export, &request, STATUS_INVALID, "ends before it begins");
    calls_close_store(&calls);
}

/* They were left out, and the camera ended with an earlier number where it was taken in. */
TEST(export_tells_the_numbers_behind_the_last_frame)
{
    struct fixture_answer answer = { 0 };
    struct status st;

    start();
    request.range = &calls_range;
    CHECK_OK(stream_forget(stream, fixture_pts(46), INT64_MAX, fixture_done, &answer, &st), st);
    FIXTURE_TURN_UNTIL(&calls.fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    calls_range.from_ns = fixture_pts(44);
    calls_range.to_ns = 0;
    CALLS_OK(&calls, export, &request);
    CHECK_EQ(check_export(44, PATCH_END), bits(44, 46));
    calls_range.to_ns = fixture_pts(PATCH_END);
    CALLS_OK(&calls, export, &request);
    CHECK_EQ(check_export(44, PATCH_END), bits(44, 46));
    calls_range.to_ns = fixture_pts(48); /* the stream goes on behind it */
    CALLS_OK(&calls, export, &request);
    CHECK_EQ(check_export(44, 46), bits(44, 46));
    calls_close_store(&calls);
}

/* The disk answers nothing for a while: it ends, and can be asked again. */
TEST(export_ends_when_the_disk_does_not_answer)
{
    start();
    plan_fault(FAULT_OPEN, EMFILE, 1, 1000);
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(export), &request.base), STATUS_UNAVAILABLE);
    CHECK_HAS(said.end.text, "a block cannot be read now");
    CHECK(said.end.retry_after_ms > 0);
    plan_fault(0, 0, 0, 0);
    CALLS_OK(&calls, export, &request);
    CHECK_EQ(check_export(0, PATCH_END), readable);
    calls_close_store(&calls);
}

TEST(export_of_a_stream_that_is_removed_meanwhile_ends)
{
    struct rpc_call *call;

    start();
    call = calls_begin(&calls, CALLS_HANDLER(export), &request.base);
    CHECK(!fuzz_call_is_over(call));
    fixture_remove(&calls.fixture, stream);
    CHECK_EQ(calls_end(&calls, call), STATUS_NOT_FOUND);
    CHECK_HAS(said.end.text, "it was removed");
    calls_close_store(&calls);
}

/* Files that are rewritten while it goes on: what is told after that is as it is then; the last ones may have gone. */
TEST(export_goes_on_through_files_that_are_written_anew)
{
    struct rpc_call *call;
    uint64_t blocks;

    start();
    call = calls_begin(&calls, CALLS_HANDLER(export), &request.base);
    CHECK(!fuzz_call_is_over(call));
    for (uint32_t i = 4; i < stream->segment_count; i++)
        patch_age(&calls.fixture, stream->segments[i], (struct kv_aged){ .thin = 3, .bits = 8 });
    CHECK_EQ(calls_end(&calls, call), STATUS_OK);
    blocks = check_export(0, PATCH_END);
    CHECK_EQ(blocks & ~readable, 0);
    CHECK_EQ(blocks & bits(0, 24), readable & bits(0, 24));
    calls_close_store(&calls);
}

/* --- the writer's window --- */

/* From the newest back to what is no more as its writer had it; each block whole, in order. */
TEST(window_ends_where_blocks_are_no_more_what_came)
{
    Reelkv__V1__LoadWindowRequest window = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    uint64_t next = 44;

    start();
    window.id = &calls_id;
    window.fingerprint = calls_fingerprint();
    window.epoch = stream->epoch;
    window.tokens = 1000;
    CALLS_OK(&calls, load_window, &window);
    for (uint32_t i = 0; i < said.count; i++) {
        const Reelkv__V1__LoadWindowReply *reply = (const Reelkv__V1__LoadWindowReply *)said.replies[i];

        if (reply->item_case != REELKV__V1__LOAD_WINDOW_REPLY__ITEM_BLOCK)
            continue;
        CHECK_EQ(reply->block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT, i == 0);
        CHECK(i == 0 || reply->block->seq == next++);
    }
    CHECK_EQ(next, PATCH_END);
    patch_age(&calls.fixture, stream->segments[stream->segment_count - 1], (struct kv_aged){ .bits = 8 });
    CALLS_OK(&calls, load_window, &window);
    for (uint32_t i = 0; i < said.count; i++) { /* nothing but the system prompt */
        const Reelkv__V1__LoadWindowReply *reply = (const Reelkv__V1__LoadWindowReply *)said.replies[i];

        CHECK(reply->item_case != REELKV__V1__LOAD_WINDOW_REPLY__ITEM_BLOCK ||
              reply->block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT);
    }
    calls_close_store(&calls);
}

TEST(window_with_a_hole_is_none)
{
    Reelkv__V1__LoadWindowRequest window = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    struct rpc_call *call;

    start();
    window.id = &calls_id;
    window.fingerprint = calls_fingerprint();
    window.epoch = stream->epoch;
    window.tokens = 100;
    plan_fault(FAULT_READ | FAULT_OPEN, EMFILE, 1, 1000);
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(load_window), &window.base), STATUS_ABORTED);
    CHECK_HAS(said.end.text, "a block could not be read; ask again");
    plan_fault(0, 0, 0, 0);
    call = calls_begin(&calls, CALLS_HANDLER(load_window), &window.base);
    fixture_remove(&calls.fixture, stream);
    CHECK_EQ(calls_end(&calls, call), STATUS_NOT_FOUND);
    CHECK_HAS(said.end.text, "it was removed");
    calls_close_store(&calls);
}

TEST_MAIN()
