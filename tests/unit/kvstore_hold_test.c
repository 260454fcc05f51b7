/* What somebody wants kept stays, whatever room is wanted for: until the hold is released or ends. */
#include "kvstore/stream_hold.h"

#include "kvstore_fixture.h"

static struct status st;

static bool hold(struct fixture *fixture, struct stream *stream, int64_t from_ns, int64_t to_ns,
                 int64_t until_ns, uint64_t *number_p)
{
    struct stream_hold added = {
        .from_ns = from_ns, .to_ns = to_ns, .until_ns = until_ns, .owner = "police", .reason = "case 17"
    };
    struct fixture_answer answer = { 0 };

    if (!stream_hold_add(stream, &added, fixture_done, &answer, &st))
        return false;
    FIXTURE_TURN_UNTIL(fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    *number_p = added.number;
    return true;
}

static void release(struct fixture *fixture, struct stream *stream, uint64_t number)
{
    struct fixture_answer answer = { 0 };

    CHECK_OK(stream_hold_release(stream, number, fixture_done, &answer, &st), st);
    FIXTURE_TURN_UNTIL(fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
}

static struct stream *start_small(struct fixture *fixture, struct fixture_writer *writer)
{
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.disk_bytes = 8 << 20;
    fixture_open(fixture);
    return fixture_write(fixture, "cam-1", writer, 100);
}

/* The oldest of all is held: others go, in its stream and around it. */
TEST(what_is_held_outlives_what_came_later)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t number;

    stream = start_small(&fixture, &writer);
    CHECK_OK(hold(&fixture, stream, fixture_pts(10), fixture_pts(20), 0, &number), st);
    fixture_append(&fixture, stream, 1400);
    fixture_wait_durable(&fixture, stream);
    CHECK(history_frames(&stream->history) > 500);
    CHECK(fixture.store->disk_used_bytes <= fixture.options.disk_bytes);
    fixture_check_all(&fixture, stream, 10, 20);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 300, 0), FRAME_EVICTED);
    release(&fixture, stream, number);
    fixture_append(&fixture, stream, 400);
    fixture_wait_durable(&fixture, stream);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 10, 0), FRAME_EVICTED);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Nothing may go: who writes waits, is told whose hold it is, and goes on when it is released. */
TEST(a_store_of_which_all_is_held_says_by_whom)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t number, limit;

    stream = start_small(&fixture, &writer);
    CHECK_OK(hold(&fixture, stream, INT64_MIN, INT64_MAX, 0, &number), st);
    limit = clock_mono_ns() + 10000000000ull;
    while (stream->waits_because[0] == '\0' && clock_mono_ns() < limit) {
        struct stream_block block = fixture_block(stream, stream->next_seq);
        struct loop_timer tick = { 0 };

        if (fixture_append_block(&fixture, stream, &block, &st))
            continue;
        CHECK_EQ(st.code, STATUS_EXHAUSTED);
        loop_timer_start(fixture.loop, &tick, 5, fixture_tick);
        loop_run_once(fixture.loop);
        loop_timer_stop(&tick);
    }
    CHECK_HAS(stream->waits_because, "held");
    CHECK_HAS(stream->waits_because, "police");
    CHECK_HAS(stream->waits_because, "case 17");
    CHECK_EQ(history_frames(&stream->history), 0);
    CHECK(fixture.store->disk_used_bytes <= fixture.options.disk_bytes);
    fixture_check_all(&fixture, stream, 0, 20);
    release(&fixture, stream, number);
    fixture_append(&fixture, stream, 200);
    fixture_wait_durable(&fixture, stream);
    CHECK_STR(stream->waits_because, "");
    CHECK(history_frames(&stream->history) > 0);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Durable when it was acknowledged; gone when it was released, or its end has come. */
TEST(holds_outlive_the_store_and_not_their_end)
{
    struct fixture_writer writer;
    struct stream_removed removed;
    struct fixture_answer answer = { 0 };
    struct fixture fixture;
    struct stream *stream;
    uint64_t first, second, third;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 10);
    fixture_wait_durable(&fixture, stream);
    CHECK_OK(hold(&fixture, stream, fixture_pts(2), fixture_pts(4), 0, &first), st);
    CHECK_OK(hold(&fixture, stream, fixture_pts(5), fixture_pts(6), clock_utc_ns() + 3600000000000, &second),
             st);
    CHECK_OK(hold(&fixture, stream, fixture_pts(7), fixture_pts(8), 1, &third), st);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK(stream_is_held(stream, fixture_pts(3), fixture_pts(3) + 1));
    CHECK(!stream_is_held(stream, fixture_pts(4), fixture_pts(5)));
    CHECK(stream_is_held(stream, fixture_pts(5), fixture_pts(6)));
    CHECK(!stream_is_held(stream, fixture_pts(7), fixture_pts(8)));
    CHECK_EQ(stream_hold_at(stream, 0)->number, first);
    CHECK_EQ(stream_hold_at(stream, 1)->number, second);
    CHECK(stream_hold_at(stream, 2) == NULL);
    CHECK(segment_held(stream->segments[0]) != NULL);
    CHECK(!stream_delete(stream, &removed, fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_PRECONDITION);
    CHECK_HAS(st.text, "police (case 17)");
    release(&fixture, stream, first);
    CHECK(!stream_hold_release(stream, first, fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    release(&fixture, stream, second);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK(stream_hold_at(stream, 0) == NULL);
    CHECK_OK(hold(&fixture, stream, 0, 1, 0, &first), st);
    CHECK(first > third); /* no number is given again */
    release(&fixture, stream, first);
    fixture_remove(&fixture, stream);
    CHECK(store_find(fixture.store, "default", "cam-1") == NULL);
    fixture_stop(&fixture);
}

TEST(a_stream_has_a_bounded_number_of_holds)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t number;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 2);
    for (unsigned i = 0; i < STREAM_HOLDS_MAX; i++)
        CHECK_OK(hold(&fixture, stream, i, i + 1, i % 2 == 0 ? 0 : INT64_MAX, &number), st);
    CHECK(!hold(&fixture, stream, 0, 1, 0, &number));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    release(&fixture, stream, 17);
    CHECK_OK(hold(&fixture, stream, 0, 1, 1, &number), st);
    CHECK_OK(hold(&fixture, stream, 0, 1, 0, &number), st); /* the last has ended */
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    CHECK(stream_hold_at(store_find(fixture.store, "default", "cam-1"), STREAM_HOLDS_MAX - 1) != NULL);
    fixture_stop(&fixture);
}

TEST_MAIN()
