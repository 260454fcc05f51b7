/* Which frames are taken and when they were: ReKV's rule for files, the grid and the clock for live sources.
 */
#include "media/media_sampling.h"
#include "support/test.h"

static const int64_t second = 1000000000;
static const int64_t origin = 1700000000000000000;

TEST(the_step_is_the_published_rule)
{
    static const struct {
        double average_fps, sample_fps;
        uint64_t step;
    } rows[] = {
        { 30, 0.5, 60 },  { 30000.0 / 1001, 0.5, 60 },
        { 25, 0.5, 50 },  { 30, 2, 15 },
        { 25, 2, 12 },    { 24000.0 / 1001, 1, 24 },
        { 12.5, 1, 12 },  { 13.5, 1, 14 },
        { 30, 0.1, 300 }, { 30, 30, 1 },
        { 25, 30, 1 },    { 0.2, 0.5, 1 },
        { 0, 0.5, 1 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        CHECK_EQ(media_sample_step(rows[i].average_fps, rows[i].sample_fps), rows[i].step);
}

/* Frames of 30 a second on a grid of 2: every slot has one frame, the first at or after its start. */
TEST(a_fast_camera_fills_every_slot_once)
{
    struct live_grid grid = { .origin_ns = origin, .sample_fps = 2 };
    uint64_t seq, taken = 0;

    for (int64_t i = 0; i < 300; i++) {
        int64_t at = origin + i * second / 30;

        if (!live_grid_place(&grid, at, &seq))
            continue;
        CHECK_EQ(seq, taken++);
        CHECK(at >= live_grid_time(&grid, seq) && at < live_grid_time(&grid, seq + 1));
    }
    CHECK_EQ(taken, 20);
}

/* A camera exactly as fast as the grid, its frames now just before, now just after the slot's edge. */
TEST(a_camera_as_fast_as_the_grid_loses_nothing_at_the_edges)
{
    static const int64_t jitter_ms[] = { 0, 3, -3, 5, -1, 2, -4, -2, 4 };
    struct live_grid grid = { .origin_ns = origin, .sample_fps = 2 };
    uint64_t seq, expected = 0, taken = 0;

    for (int64_t i = 2; i < 200; i++) {
        int64_t at = origin + i * second / 2 + jitter_ms[(size_t)i % ARRAY_LEN(jitter_ms)] * 1000000;

        if (!live_grid_place(&grid, at, &seq))
            continue;
        if (taken++ > 0)
            CHECK_EQ(seq, expected);
        expected = seq + 1;
    }
    CHECK_EQ(taken, 198);
}

TEST(an_outage_leaves_exactly_its_own_slots_empty)
{
    struct live_grid grid = { .origin_ns = origin, .sample_fps = 2 };
    uint64_t seq;

    CHECK(live_grid_place(&grid, origin + 10 * second, &seq));
    CHECK_EQ(seq, 20);
    CHECK(!live_grid_place(&grid, origin + 10 * second + second / 4, &seq));
    CHECK_EQ(live_grid_slot(&grid, origin + 40 * second), 80);
    CHECK(live_grid_place(&grid, origin + 40 * second + 1, &seq));
    CHECK_EQ(seq, 80);
    CHECK_EQ(grid.next_seq, 81);
    CHECK_EQ(live_grid_time(&grid, 80), origin + 40 * second);
}

/* After a restart the same time has the same number; a clock that was set back costs no frames. */
TEST(numbers_survive_restarts_and_a_clock_set_back)
{
    struct live_grid grid = { .origin_ns = origin, .sample_fps = 2, .next_seq = 21 };
    uint64_t seq;

    live_grid_anchor(&grid, origin + 15 * second);
    CHECK_EQ(grid.shift, 0);
    CHECK(live_grid_place(&grid, origin + 15 * second, &seq));
    CHECK_EQ(seq, 30);
    live_grid_anchor(&grid, origin - 3600 * second);
    CHECK(live_grid_place(&grid, origin - 3600 * second, &seq));
    CHECK_EQ(seq, 31);
    CHECK(live_grid_place(&grid, origin + second / 2, &seq));
    CHECK_EQ(seq, 32);
    CHECK_EQ(live_grid_time(&grid, seq), origin + second / 2);
}

/* A source that is lost and found again within a slot that has its frame: the next frame is the next slot's, and the
 * numbers still name times. */
TEST(a_reconnect_within_a_slot_shifts_no_number)
{
    struct live_grid grid = { .origin_ns = origin, .sample_fps = 0.5 };
    uint64_t seq;

    CHECK(live_grid_place(&grid, origin + 30 * second, &seq));
    CHECK_EQ(seq, 15);
    live_grid_anchor(&grid, origin + 31 * second);
    CHECK(!live_grid_place(&grid, origin + 31 * second, &seq));
    CHECK(live_grid_place(&grid, origin + 32 * second, &seq));
    CHECK_EQ(seq, 16);
}

/* Network jitter of up to 200 ms: after the first frames the distances are the camera's own. */
TEST(the_clock_takes_distances_from_the_camera)
{
    struct live_clock clock = { 0 };
    uint32_t noise = 1;
    int64_t last = 0;

    for (int64_t i = 0; i < 1000; i++) {
        int64_t media = i * second / 25, mapped;

        noise = noise * 1664525 + 1013904223;
        mapped =
            live_clock_map(&clock, origin + media + (i == 5 ? 0 : (int64_t)(noise % 200) * 1000000), media);
        if (i > 6)
            CHECK_EQ(mapped - last, second / 25);
        last = mapped;
    }
    CHECK_EQ(last, origin + 999 * second / 25);
}

/* HLS: three segments of 4 s arrive at once at the start, then one every 4 s. The backlog counts as now; from
 * then on the frames of a segment lie their true distances apart and never in the future. */
TEST(segments_that_arrive_at_once_keep_their_distances)
{
    struct live_clock clock = { 0 };
    int64_t last = 0, mapped;

    for (int64_t i = 0; i < 300; i++)
        last = live_clock_map(&clock, origin, i * second / 25);
    CHECK(last - origin < 1000);
    for (int64_t segment = 1; segment < 20; segment++) {
        int64_t arrival = origin + segment * 4 * second;

        for (int64_t i = 0; i < 100; i++) {
            mapped = live_clock_map(&clock, arrival, (200 + segment * 100 + i) * second / 25);
            CHECK(mapped <= arrival);
            CHECK(mapped > last);
            if (i > 0)
                CHECK_EQ(mapped - last, second / 25);
            last = mapped;
        }
    }
}

TEST(the_clock_follows_drift_and_survives_jumps)
{
    struct live_clock clock = { 0 };
    int64_t mapped = 0, arrival = origin;

    /* The camera's clock runs 1 % slow for ten minutes: the result stays within two windows of drift. */
    for (int64_t i = 0; i < 600; i++) {
        arrival = origin + i * second;
        mapped = live_clock_map(&clock, arrival, i * second * 99 / 100);
        CHECK(mapped <= arrival && arrival - mapped < 13 * second / 10);
    }
    mapped = live_clock_map(&clock, arrival + second, 0); /* it starts anew */
    CHECK_EQ(mapped, arrival + second);
    mapped = live_clock_map(&clock, arrival + 2 * second, 86400 * second);
    CHECK_EQ(mapped, arrival + 2 * second);
    mapped = live_clock_map(&clock, arrival, 86399 * second);
    CHECK_EQ(mapped, arrival + 2 * second + 1); /* never back */
}

TEST_MAIN()
