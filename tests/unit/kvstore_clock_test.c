/* What the store does by its clocks, when these are wrong or go wrong. */
#include "base/file.h"
#include "kvstore/stream_hold.h"
#include "kvstore_faulty_disk.h"
#include "kvstore_test_clock.h"

enum { FRAMES = 200, DAY_S = 24 * 3600, SCRUB_SOON_S = 2 * SCRUB_AFTER_MS / 1000 };

static const int64_t day_ns = DAY_S * 1000000000ll;

/* Several segments of cam-1, sealed. */
static struct stream *write_many(struct fixture *fixture, const char *ageing, uint64_t scrub_rate)
{
    struct fixture_writer writer;
    struct stream *stream;

    fault_start(fixture);
    bad_sector.inode = 0;
    fixture_stop(fixture);
    fixture->options.ageing = ageing;
    fixture->options.scrub_bytes_per_second = scrub_rate;
    fixture_open(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, FRAMES);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    CHECK(stream->segment_count >= 3);
    return stream;
}

/* --- scrub --- */

/* The clock was a year ahead when the last pass ended, and is right now. */
TEST(scrub_is_not_switched_off_by_a_pass_of_the_future)
{
    struct fixture fixture;
    char path[600], text[200];

    write_many(&fixture, NULL, 1 << 30);
    fixture_stop(&fixture);
    snprintf(path, sizeof path, "%s/scrub.json", fixture.root);
    snprintf(text, sizeof text, "{ \"full_ns\": %lld, \"pass_ns\": 0, \"cursor_ns\": 0 }",
             (long long)(clock_utc_ns() + 365 * day_ns));
    CHECK_OK(file_write_durable(path, text, strlen(text), &fixture.st), fixture.st);
    fixture_open(&fixture);
    CLOCK_PASS_UNTIL(&fixture, SCRUB_SOON_S, fixture.store->scrub.read_bytes > 0);
    CLOCK_PASS_UNTIL(&fixture, SCRUB_SOON_S,
                     fixture.store->scrub.pass_ns == 0 && fixture.store->scrub.full_ns <= clock_utc_ns());
    fixture_stop(&fixture);
}

/* No descriptor is left for the first segment: it is read when there are some, and the pass is whole. */
TEST(scrub_reads_again_what_there_was_no_file_for)
{
    uint64_t bytes;

    for (unsigned round = 0; round < 2; round++) {
        struct fixture fixture;
        struct scrub *scrub;

        write_many(&fixture, NULL, 1 << 30);
        scrub = &fixture.store->scrub;
        plan_fault(FAULT_OPEN, EMFILE, 1, round);
        scrub_begin(fixture.store);
        CLOCK_PASS_UNTIL(&fixture, 2 * SCRUB_SOON_S, scrub->full_ns != 0 && scrub->job == NULL);
        CHECK_EQ(fault.failed, round);
        plan_fault(0, 0, 0, 0);
        if (round == 1)
            CHECK_EQ(scrub->read_bytes, bytes);
        bytes = scrub->read_bytes;
        fixture_stop(&fixture);
        CHECK_OK(file_remove_tree(fixture.root, &fixture.st), fixture.st);
    }
}

/* --- ageing --- */

static bool are_thinned(const struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (stream->segments[i]->super.aged.thin != 2)
            return false;
    return stream->segment_count > 0;
}

/* UTC is a year ahead at once: nothing goes, and what is due by the steady clock goes then. When it comes back it is believed;
 * and so it is at a start, whatever it says. */
TEST(ageing_does_not_follow_a_clock_that_steps_ahead)
{
    struct fixture fixture;
    struct stream *stream;

    write_many(&fixture, "default=full:10d,thin/2:20d,keys:30d", 0);
    stream = store_find(fixture.store, "default", "cam-1");
    clock_pass(&fixture, 1000);
    utc_ahead_ns += 365 * day_ns;
    for (int i = 0; i < 60; i++)
        clock_pass(&fixture, 1000);
    CHECK_EQ(fixture.store->ageing_state.rewritten_segments, 0);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    clock_pass(&fixture, 11 * DAY_S * 1000ull);
    CLOCK_PASS_UNTIL(&fixture, 60, are_thinned(stream));
    utc_ahead_ns -= 365 * day_ns;
    for (int i = 0; i < 60; i++)
        clock_pass(&fixture, 1000);
    CHECK(are_thinned(stream));
    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 0), FRAME_OK);
    fixture_stop(&fixture);
    utc_ahead_ns += 365 * day_ns;
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CLOCK_PASS_UNTIL(&fixture, 60, stream->segment_count == 0);
    fixture_stop(&fixture);
}

/* What would be looked at again in ten seconds, by a clock that was half a day ahead, is looked at again in ten seconds. */
TEST(ageing_goes_on_when_the_clock_goes_back)
{
    struct fixture fixture;
    struct stream *stream = write_many(&fixture, "default=full:10d,thin/2:20d", 0);
    const int64_t *quiet_until_ns = fixture.store->ageing_state.quiet_until_ns;

    /* as if it could not be rewritten when it was due */
    stream->segments[0]->age_not_before_ns = clock_mono_ns() + (11ull * DAY_S + 120) * 1000000000ull;
    clock_pass(&fixture, 11 * DAY_S * 1000ull);
    CLOCK_PASS_UNTIL(&fixture, 100,
                     stream_last_segment(stream)->super.aged.thin == 2 && *quiet_until_ns > clock_utc_ns());
    CHECK(*quiet_until_ns < clock_utc_ns() + day_ns && !are_thinned(stream));
    utc_ahead_ns -= day_ns / 2;
    CLOCK_PASS_UNTIL(&fixture, 300, are_thinned(stream));
    fixture_stop(&fixture);
}

/* --- holds --- */

static bool is_held(const struct stream *stream)
{
    return segment_held(stream->segments[0]) != NULL;
}

/* UTC was a year ahead for a moment: every hold with an end was over, and what was held could go. */
TEST(holds_do_not_end_by_a_clock_that_steps_ahead)
{
    struct fixture fixture;
    struct stream *stream = write_many(&fixture, NULL, 0);
    struct stream_hold hold = { .from_ns = INT64_MIN,
                                .to_ns = INT64_MAX,
                                .until_ns = clock_utc_ns() + 10 * day_ns,
                                .owner = "police",
                                .reason = "case 17" };
    struct fixture_answer answer = { 0 };

    CHECK_OK(stream_hold_add(stream, &hold, fixture_done, &answer, &fixture.st), fixture.st);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    utc_ahead_ns += 365 * day_ns;
    CHECK(is_held(stream));
    CHECK(stream_hold_at(stream, 0) != NULL);
    clock_pass(&fixture, 9 * DAY_S * 1000ull);
    CHECK(is_held(stream));
    clock_pass(&fixture, 2 * DAY_S * 1000ull);
    CHECK(!is_held(stream));
    utc_ahead_ns -= 365 * day_ns;
    CHECK(!is_held(stream));
    fixture_stop(&fixture);
}

/* --- rewriting --- */

struct ageing {
    struct segment_age age;
    bool came;
};

static void aged(struct segment_age *age)
{
    container_of(age, struct ageing, age)->came = true;
}

/* The index has room for the second, and never for the first: nothing may go for it. */
TEST(age_without_room_holds_nobody_up_and_ends)
{
    struct ageing large = { .age = {
                                .transform = { .aged = { .bits = 8 } }, .makes_room = true, .done = aged } };
    struct ageing small = large;
    struct fixture_writer writers[2];
    struct stream *streams[2];
    struct fixture fixture;

    fault_start(&fixture);
    for (int i = 0; i < 2; i++) {
        streams[i] = fixture_write(&fixture, i == 0 ? "cam-1" : "cam-2", &writers[i], i == 0 ? 40 : 4);
        stream_detach(streams[i], &writers[i].base);
        fixture_wait_sealed(&fixture, streams[i]);
        CHECK_EQ(streams[i]->segment_count, 1);
    }
    fixture.store->index_memory.limit_bytes =
        fixture.store->index_memory.used_bytes + index_chunk_bytes(&fixture_geometry);
    fixture.store->remove_at_ns = UINT64_MAX;
    large.age.segment = streams[0]->segments[0];
    small.age.segment = streams[1]->segments[0];
    segment_age_submit(fixture.store, &large.age);
    segment_age_submit(fixture.store, &small.age);
    FIXTURE_TURN_UNTIL(&fixture, small.came);
    CHECK_OK(small.age.ok, small.age.st);
    CHECK(!large.came);
    CLOCK_PASS_UNTIL(&fixture, 60, large.came);
    CHECK(!large.age.ok);
    CHECK_EQ(large.age.st.code, STATUS_EXHAUSTED);
    CHECK_HAS(large.age.st.text, "the index");
    fixture_check_all(&fixture, streams[0], 0, 40);
    fixture_stop(&fixture);
}

TEST_MAIN()
