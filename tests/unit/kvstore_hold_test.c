/* What somebody wants kept stays, whatever room is wanted for: until the hold is released or ends. */
#include <errno.h>
#include <semaphore.h>

#include "kvstore/segment_age.h"
#include "kvstore/stream_forget.h"
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

/* What is held is looked up by these. */
static void check_times(const struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        struct segment *segment = stream->segments[i];
        int64_t least_ns = segment->least_ns, greatest_ns = segment->greatest_ns;

        segment_find_times(segment);
        CHECK_EQ(segment->least_ns, least_ns);
        CHECK_EQ(segment->greatest_ns, greatest_ns);
    }
}

/* Holds and receipts went through all frames of all segments at every look. Frames, gaps that grow, an end, tombstones. */
TEST(segments_know_the_times_of_what_they_have)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    struct fixture_answer answer = { 0 };

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 120);
    check_times(stream);
    for (unsigned i = 0; i < 3; i++)
        CHECK_OK(fixture_append_gap(stream, 5, "away", &st), st);
    check_times(stream);
    CHECK_EQ(stream_last_segment(stream)->greatest_ns, fixture_pts(135));
    CHECK_OK(stream_end(stream, "over", &st), st);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    CHECK_OK(stream_forget(stream, fixture_pts(0), fixture_pts(50), fixture_done, &answer, &st), st);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    check_times(stream);
    CHECK_EQ(stream->segments[0]->least_ns, fixture_pts(0)); /* its tombstone's */
    fixture_stop(&fixture);
    fixture_open(&fixture);
    check_times(store_find(fixture.store, "default", "cam-1"));
    fixture_stop(&fixture);
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
    CHECK(stream_held(stream, fixture_pts(3), fixture_pts(3) + 1) != NULL);
    CHECK(stream_held(stream, fixture_pts(4), fixture_pts(5)) == NULL);
    CHECK(stream_held(stream, fixture_pts(5), fixture_pts(6)) != NULL);
    CHECK(stream_held(stream, fixture_pts(7), fixture_pts(8)) == NULL);
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

/* --- what is being rewritten --- */

struct ageing {
    struct segment_age age;
    bool came;
};

static void aged(struct segment_age *age)
{
    container_of(age, struct ageing, age)->came = true;
}

/* A rename of a rewritten file waits until the test lets it go on. */
static sem_t may_rename;
static atomic_bool renames, names_fail;

static bool is_segment(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot != NULL && (strcmp(dot, ".seg") == 0 || strcmp(dot, ".open") == 0);
}

static int slow_rename(const char *from, const char *to)
{
    if (is_segment(to) && atomic_load(&renames))
        while (sem_wait(&may_rename) != 0)
            continue;
    if (!is_segment(to) || !atomic_load(&names_fail))
        return file_system.rename(from, to);
    errno = EIO;
    return -1;
}

static int failing_unlink(const char *path)
{
    if (!is_segment(path) || !atomic_load(&names_fail))
        return file_system.unlink(path);
    errno = EIO;
    return -1;
}

/* A sealed segment that is thinned from now on. */
static struct stream *start_ageing(struct fixture *fixture, struct ageing *ageing)
{
    static struct file_ops disk;
    struct fixture_writer writer;
    struct stream *stream;

    disk = file_system;
    disk.rename = slow_rename;
    disk.unlink = failing_unlink;
    atomic_store(&renames, false);
    atomic_store(&names_fail, false);
    CHECK_EQ(sem_init(&may_rename, 0, 0), 0);
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.disk = &disk;
    fixture_open(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, 20);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    atomic_store(&renames, true);
    *ageing = (struct ageing){
        .age = { .segment = stream->segments[0], .transform = { .aged = { .thin = 2 } }, .done = aged }
    };
    segment_age_submit(fixture->store, &ageing->age);
    return stream;
}

TEST(a_hold_ends_the_rewriting_of_what_it_holds)
{
    struct ageing ageing;
    struct fixture fixture;
    struct stream *stream = start_ageing(&fixture, &ageing);
    uint64_t number;

    CHECK_OK(hold(&fixture, stream, fixture_pts(5), fixture_pts(6), 0, &number), st);
    FIXTURE_TURN_UNTIL(&fixture, ageing.came);
    CHECK(!ageing.age.ok);
    for (int life = 0; life < 2; life++) {
        stream = store_find(fixture.store, "default", "cam-1");
        fixture_check_all(&fixture, stream, 0, 20);
        CHECK(stream_hold_at(stream, 0) != NULL);
        fixture_stop(&fixture);
        fixture_open(&fixture);
    }
    fixture_stop(&fixture);
}

/* It was acked while the file took the held one's place: a kill in between lost what was held. */
TEST(a_hold_is_acked_when_no_file_gets_its_name)
{
    struct stream_hold added = { .to_ns = INT64_MAX, .owner = "police", .reason = "case 17" };
    struct fixture_answer answer = { 0 };
    struct loop_timer tick = { 0 };
    struct ageing ageing;
    struct fixture fixture;
    struct stream *stream = start_ageing(&fixture, &ageing);

    FIXTURE_TURN_UNTIL(&fixture, ageing.age.step == AGE_NAMING && ageing.age.is_running);
    CHECK_OK(stream_hold_add(stream, &added, fixture_done, &answer, &st), st);
    FIXTURE_TURN_UNTIL(&fixture, stream->saves == NULL); /* it is durable */
    for (unsigned i = 0; i < 20; i++) {
        loop_timer_start(fixture.loop, &tick, 2, fixture_tick);
        loop_run_once(fixture.loop);
    }
    loop_timer_stop(&tick);
    CHECK(!answer.came && !ageing.came);
    sem_post(&may_rename);
    FIXTURE_TURN_UNTIL(&fixture, answer.came && ageing.came);
    CHECK_OK(answer.ok, answer.st);
    CHECK(ageing.age.ok);
    for (uint64_t seq = 0; seq < 20; seq++)
        CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0), seq % 2 == 1 ? FRAME_EVICTED : FRAME_OK);
    fixture_stop(&fixture);
}

/* The file that was to have the name stays, and may take the held one's place. It was refused, and was there again after a
 * start. */
TEST(a_hold_that_is_refused_in_the_end_is_none)
{
    struct stream_hold added = { .to_ns = INT64_MAX, .owner = "police", .reason = "case 17" };
    struct fixture_answer answer = { 0 };
    struct ageing ageing;
    struct fixture fixture;
    struct stream *stream = start_ageing(&fixture, &ageing);

    FIXTURE_TURN_UNTIL(&fixture, ageing.age.step == AGE_NAMING && ageing.age.is_running);
    CHECK_OK(stream_hold_add(stream, &added, fixture_done, &answer, &st), st);
    atomic_store(&names_fail, true);
    FIXTURE_TURN_UNTIL(&fixture, stream->saves == NULL); /* it is durable */
    sem_post(&may_rename);
    FIXTURE_TURN_UNTIL(&fixture, answer.came && ageing.came);
    CHECK(!answer.ok && !ageing.age.ok);
    CHECK_EQ(answer.st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(answer.st.text, "hold it then");
    CHECK(stream_hold_at(stream, 0) == NULL);
    atomic_store(&renames, false);
    atomic_store(&names_fail, false);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    CHECK(stream_hold_at(store_find(fixture.store, "default", "cam-1"), 0) == NULL);
    fixture_stop(&fixture);
}

static void aged_for_nothing(struct segment_age *age)
{
    aged(age);
    CHECK(age->ok && age->stream->deletion != NULL);
    CHECK(!store_remove_segment(age->store, age->made));
}

/* The stream is removed while the file gets its name. That file was taken for room once more, and its segment used after the
 * stream had gone. */
TEST(a_file_that_gets_its_name_goes_with_its_stream)
{
    struct stream_removed removed;
    struct fixture_answer answer = { 0 };
    struct ageing ageing;
    struct fixture fixture;
    struct stream *stream = start_ageing(&fixture, &ageing);

    ageing.age.done = aged_for_nothing;
    FIXTURE_TURN_UNTIL(&fixture, ageing.age.step == AGE_NAMING && ageing.age.is_running);
    CHECK_OK(stream_delete(stream, &removed, fixture_done, &answer, &st), st);
    sem_post(&may_rename);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    CHECK(ageing.came && fixture.store->streams == NULL);
    CHECK_EQ(fixture.store->disk_used_bytes, 0);
    CHECK_EQ(fixture.store->index_memory.used_bytes, 0);
    fixture_stop(&fixture);
}

TEST(what_is_being_forgotten_cannot_be_held)
{
    struct fixture_answer forgotten = { 0 };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t number;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 60);
    CHECK_OK(stream_forget(stream, fixture_pts(10), fixture_pts(50), fixture_done, &forgotten, &st), st);
    CHECK(!hold(&fixture, stream, fixture_pts(49), fixture_pts(55), 0, &number));
    CHECK_EQ(st.code, STATUS_ABORTED);
    CHECK_OK(hold(&fixture, stream, fixture_pts(50), fixture_pts(55), 0, &number), st);
    FIXTURE_TURN_UNTIL(&fixture, forgotten.came);
    CHECK_OK(forgotten.ok, forgotten.st);
    CHECK_OK(hold(&fixture, stream, fixture_pts(49), fixture_pts(55), 0, &number), st);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

TEST_MAIN()
