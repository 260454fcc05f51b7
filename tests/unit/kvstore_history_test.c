/* What a stream no longer has: spans join, are found, survive writing and reading, and stay bounded. */
#include "kv/history.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/limits.h"
#include "support/test.h"

static struct history history, again;
static struct status st;

static void add(uint64_t from, uint64_t to, uint64_t frames)
{
    const struct history_span span = { from, to, (int64_t)from * 100 - 500, (int64_t)(to - 1) * 100 - 500,
                                       frames };

    history_add(&history, &span);
}

static void start(void)
{
    memset(&history, 0, sizeof history);
}

TEST(history_joins_neighbours_of_one_kind)
{
    start();
    add(0, 10, 10);
    add(10, 20, 10);
    add(20, 25, 0);
    add(25, 25, 0); /* nothing */
    add(25, 30, 5);
    CHECK_EQ(history.count, 3);
    CHECK_EQ(history.spans[0].to_seq, 20);
    CHECK_EQ(history_frames(&history), 25);
    CHECK_EQ(history_gap_frames(&history), 5);
    CHECK_EQ(history_find(&history, 19)->frames, 20);
    CHECK_EQ(history_find(&history, 22)->frames, 0);
    CHECK(history_find(&history, 30) == NULL);
}

/* Times before 1970 (negative) come through, too. */
TEST(history_survives_writing_and_reading)
{
    char path[512], *text;

    start();
    for (uint64_t i = 0; i < 40; i++)
        add(i * 10, i * 10 + 10, i % 2 == 0 ? 10 : 0);
    history.next_seq = 400;
    history.next_token_index = 123456789012345;
    history.rough_below_seq = 7;
    text = history_text(&history, "history.json");
    snprintf(path, sizeof path, "%s/history.json", test_folder());
    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
    CHECK_OK(history_read(&again, &file_system, path, &st), st);
    CHECK_EQ(again.count, history.count);
    CHECK_MEM(again.spans, history.spans, history.count * sizeof history.spans[0]);
    CHECK_EQ(again.next_seq, 400);
    CHECK_EQ(again.next_token_index, 123456789012345);
    CHECK_EQ(again.rough_below_seq, 7);
    free(text);
    snprintf(path, sizeof path, "%s/none.json", test_folder());
    CHECK_OK(history_read(&again, &file_system, path, &st), st);
    CHECK_EQ(again.count, 0);
    CHECK_EQ(again.rough_below_seq, 0);
}

/* However long a stream lives: the oldest spans become one; no frame is forgotten. */
TEST(history_stays_bounded)
{
    start();
    for (uint64_t i = 0; i < 5000; i++)
        add(i * 10, i * 10 + 10, i % 2 == 0 ? 10 : 0);
    CHECK_EQ(history.count, HISTORY_SPANS_MAX);
    CHECK_EQ(history_frames(&history), 25000);
    CHECK_EQ(history_gap_frames(&history), 25000);
    CHECK_EQ(history.spans[0].from_seq, 0);
    for (uint32_t i = 1; i < history.count; i++)
        CHECK_EQ(history.spans[i].from_seq, history.spans[i - 1].to_seq);
}

/* A stream's share of the disk budget rests on it: also with the largest numbers a stream may have. */
TEST(history_text_is_as_short_as_it_is_said_to_be)
{
    char longest[CHECKED_JSON_FILE_BYTES], *text;

    snprintf(longest, sizeof longest, "%0*d/%0*d/history.json", LIMIT_NAME_BYTES, 0, LIMIT_NAME_BYTES, 0);

    start();
    for (uint64_t i = 0; i < HISTORY_SPANS_MAX; i++) {
        const struct history_span span = { .from_seq = (1ull << 56) - 20000 + i * 100,
                                           .to_seq = (1ull << 56) - 20000 + (i + 1) * 100,
                                           .from_pts_ns = INT64_MIN,
                                           .to_pts_ns = INT64_MIN + 1,
                                           .frames = i % 2 == 0 ? 100 : 0 };

        history_add(&history, &span);
    }
    for (uint32_t i = 0; i < history.count; i++)
        history.spans[i].frames = history.spans[i].frames == 0 ? 0 : 1ull << 55;
    history.next_seq = history.next_token_index = history.rough_below_seq = 1ull << 56;
    CHECK_EQ(history.count, HISTORY_SPANS_MAX);
    text = history_text(&history, longest);
    CHECK(strlen(text) <= HISTORY_SPANS_MAX * HISTORY_SPAN_BYTES + HISTORY_REST_BYTES);
    free(text);
}

/* A segment with a read in flight stays behind and goes later than the one after it. */
TEST(history_is_in_the_order_of_numbers_whatever_goes_first)
{
    start();
    add(0, 10, 10);
    add(20, 30, 10);
    add(30, 33, 0);
    add(10, 20, 10);
    CHECK_EQ(history.count, 2);
    CHECK_EQ(history.spans[0].to_seq, 30);
    CHECK_EQ(history.spans[1].to_seq, 33);
    CHECK_EQ(history_frames(&history), 30);
    CHECK(history_find(&history, 15) != NULL);

    start(); /* what lay between the two oldest when they became one is counted there */
    for (uint64_t i = 0; i <= HISTORY_SPANS_MAX; i++)
        add(i * 20, i * 20 + 10, 10);
    CHECK_EQ(history.spans[0].from_seq, 0);
    CHECK_EQ(history.spans[0].to_seq, 30);
    add(10, 20, 10); /* and two more become one */
    CHECK_EQ(history.spans[0].to_seq, 50);
    CHECK_EQ(history.spans[0].frames, 40);
    for (uint32_t i = 1; i < history.count; i++)
        CHECK(history.spans[i].from_seq >= history.spans[i - 1].to_seq);
}

/* Between two spans there may be a file that is held: as long as others touch it is in no span; where none do, the one that
 * covers it says nothing of one number. */
TEST(history_says_of_no_number_that_it_has_gone_when_it_may_be_there)
{
    start();
    add(0, 10, 10);
    for (uint64_t i = 2; i <= HISTORY_SPANS_MAX + 1; i++)
        add(i * 10, i * 10 + 10, i % 2 == 0 ? 10 : 0);
    CHECK_EQ(history.count, HISTORY_SPANS_MAX);
    CHECK_EQ(history.spans[0].to_seq, 10);
    CHECK_EQ(history.spans[1].to_seq, 40);
    CHECK(history_find(&history, 15) == NULL);
    CHECK(history_has(&history, 5) && history_has(&history, 35) && !history_has(&history, 15));
    start();
    for (uint64_t i = 0; i <= HISTORY_SPANS_MAX; i++)
        add(i * 20, i * 20 + 10, 10);
    CHECK(history_find(&history, 15) != NULL);
    CHECK(!history_has(&history, 15));
    CHECK(history_has(&history, 45));
}

TEST(history_takes_back_what_is_there_after_all)
{
    start();
    add(0, 100, 100);
    add(100, 110, 0);
    history_take_back(&history, 80, 110);
    CHECK_EQ(history.count, 1);
    CHECK_EQ(history.spans[0].to_seq, 80);
    CHECK_EQ(history_frames(&history), 80);
    CHECK_EQ(history_gap_frames(&history), 0);
    history_take_back(&history, 20, 30);
    CHECK_EQ(history.count, 2);
    CHECK_EQ(history_frames(&history), 70);
    CHECK(history_find(&history, 25) == NULL);
    add(20, 30, 10);
    CHECK_EQ(history.count, 1);
    CHECK_EQ(history_frames(&history), 80);
}

/* Times are the writer's word: two that are closer than a double can tell, or as far apart as can be. */
TEST(history_counts_a_range_whatever_the_times)
{
    const int64_t now = 1700000000000000000;
    const struct history_span close = { 0, 10, now, now + 1, 10 };
    const struct history_span far = { 10, 20, INT64_MIN, INT64_MAX, 10 };
    uint64_t frames, gaps;

    start();
    history_add(&history, &close);
    history_in_range(&history, INT64_MIN, now + 1, &frames, &gaps);
    CHECK(frames <= 10);
    start();
    history_add(&history, &far);
    history_in_range(&history, 0, INT64_MAX, &frames, &gaps);
    CHECK(frames >= 4 && frames <= 6);
    history_in_range(&history, 500, 100, &frames, &gaps); /* as_of before the range */
    CHECK_EQ(frames, 0);
}

TEST(history_counts_what_lies_in_a_range)
{
    uint64_t frames, gaps;

    start();
    add(0, 11, 11); /* times -500 .. 500 */
    add(11, 21, 0); /* 600 .. 1500 */
    history_in_range(&history, INT64_MIN, INT64_MAX, &frames, &gaps);
    CHECK_EQ(frames, 11);
    CHECK_EQ(gaps, 10);
    history_in_range(&history, 0, 501, &frames, &gaps);
    CHECK(frames >= 5 && frames <= 6);
    CHECK_EQ(gaps, 0);
    history_in_range(&history, 2000, 3000, &frames, &gaps);
    CHECK_EQ(frames + gaps, 0);
}

/* A file that was tampered with is refused by name, not believed. */
TEST(history_refuses_what_makes_no_sense)
{
    static const char *const bad[] = {
        "{",
        "[]",
        "{\"next_seq\":1}",
        "{\"next_seq\":-1,\"next_token_index\":0,\"spans\":[]}",
        "{\"next_seq\":1,\"next_token_index\":0,\"spans\":[{\"from_seq\":5,\"to_seq\":5,\"from_pts_ns\":0,"
        "\"to_pts_ns\":0,\"frames\":0}]}",
        "{\"next_seq\":1,\"next_token_index\":0,\"spans\":[{\"from_seq\":0,\"to_seq\":5,\"from_pts_ns\":0,"
        "\"to_pts_ns\":0,\"frames\":6}]}",
        "{\"next_seq\":9,\"next_token_index\":0,\"spans\":[{\"from_seq\":0,\"to_seq\":8,\"from_pts_ns\":0,"
        "\"to_pts_ns\":0,\"frames\":4},{\"from_seq\":0,\"to_seq\":5,\"from_pts_ns\":0,\"to_pts_ns\":0,"
        "\"frames\":5}]}",
        "{\"next_seq\":1,\"next_token_index\":0,\"spans\":[{\"from_seq\":0,\"to_seq\":72057594037927937,"
        "\"from_pts_ns\":0,\"to_pts_ns\":0,\"frames\":6}]}",
        "{\"next_seq\":72057594037927937,\"next_token_index\":0,\"spans\":[]}",
    };
    char path[512];

    snprintf(path, sizeof path, "%s/history.json", test_folder());
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_OK(file_write_durable(path, bad[i], strlen(bad[i]), &st), st);
        CHECK(!history_read(&again, &file_system, path, &st));
        CHECK_HAS(st.text, "history.json");
    }
}

TEST_MAIN()
