/* On a disk that is full to its budget: what must not be lost can be held, and what must go can be forgotten, and not a byte
 * more is counted than there may be. */
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

#include "kvstore_test_clock.h"

enum { FRAMES = 300, WAITS_S = 60 };

static struct fixture fixture;
static struct fixture_writer writer;
static struct stream *stream;
static struct status st;

/* Some sealed segments, and a budget of which they leave nothing. */
static void start_full(void)
{
    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    CHECK(stream->segment_count >= 4);
    fixture.store->options.disk_bytes = fixture.store->disk_used_bytes;
}

static bool is_in_budget(void)
{
    return fixture.store->disk_used_bytes <= fixture.store->options.disk_bytes;
}

static void hold(int64_t from_ns, int64_t to_ns)
{
    struct stream_hold added = { .from_ns = from_ns, .to_ns = to_ns, .owner = "police", .reason = "case 17" };
    struct fixture_answer answer = { 0 };

    CHECK_OK(stream_hold_add(stream, &added, fixture_done, &answer, &st), st);
    CHECK(is_in_budget());
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
}

/* Its file was counted on top of a full budget. */
TEST(a_hold_has_its_room_on_a_full_disk)
{
    start_full();
    hold(fixture_pts(0), fixture_pts(10));
    CHECK(is_in_budget());
    CHECK_EQ(history_frames(&stream->history), 0); /* nothing went for it */
    fixture_check_all(&fixture, stream, 0, 10);
    fixture_stop(&fixture);
}

/* So was its; the file that is written anew has others go for it. */
TEST(a_forget_has_its_room_on_a_full_disk)
{
    struct fixture_answer answer = { 0 };

    start_full();
    CHECK_OK(stream_forget(stream, fixture_pts(FRAMES - 30), fixture_pts(FRAMES - 20), fixture_done, &answer,
                           &st),
             st);
    CHECK(is_in_budget());
    FIXTURE_TURN_UNTIL(&fixture, !is_in_budget() || answer.came);
    CHECK(is_in_budget());
    CHECK_OK(answer.ok, answer.st);
    CHECK_EQ(fixture_read_layer(&fixture, stream, FRAMES - 25, 0), FRAME_EVICTED);
    CHECK_EQ(fixture_read_layer(&fixture, stream, FRAMES - 35, 0), FRAME_OK);
    fixture_stop(&fixture);
}

/* It waited for room for ever: all others are held. So its file goes as a whole, as it would for a writer. */
TEST(a_forget_ends_where_all_else_is_held)
{
    const struct segment *last;
    struct fixture_answer answer = { 0 };

    start_full();
    last = stream_last_segment(stream);
    hold(INT64_MIN, last->least_ns);
    CHECK_OK(stream_forget(stream, fixture_pts(FRAMES - 3), fixture_pts(FRAMES - 1), fixture_done, &answer,
                           &st),
             st);
    CLOCK_PASS_UNTIL(&fixture, WAITS_S, answer.came);
    CHECK_OK(answer.ok, answer.st);
    CHECK(is_in_budget());
    CHECK_EQ(stream_receipt_at(stream, 0)->frames, 2);
    CHECK_EQ(fixture_read_layer(&fixture, stream, FRAMES - 2, 0), FRAME_EVICTED);
    CHECK_EQ(stream_last_segment(stream)->state, SEGMENT_SEALED);
    fixture_check_all(&fixture, stream, 0, stream_last_segment(stream)->end_seq);
    CHECK(stream_last_segment(stream)->end_seq > FRAMES / 2);
    fixture_stop(&fixture);
}

TEST_MAIN()
