/* Selection: what is chosen, in any order of offering, from one store or several. */
#include "kv/kv_select.h"

#include <stdlib.h>

#include "base/limits.h"
#include "support/test.h"

enum { BLOCKS = 200, HITS_MAX = 256 };

static struct status st;
static uint32_t state = 1;

static uint32_t next_random(uint32_t below)
{
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
}

/* Several cameras, few different scores and times, so that ties are everywhere. */
static void make_blocks(struct kv_hit *blocks)
{
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = (struct kv_hit){ .score = (float)next_random(20) - 10,
                                     .stream = i % 3,
                                     .seq = i,
                                     .pts_ns = (int64_t)(i / 2) * 1000,
                                     .tokens = 196 };
}

static bool is_newer(const struct kv_hit *a, const struct kv_hit *b)
{
    if (a->pts_ns != b->pts_ns)
        return a->pts_ns > b->pts_ns;
    return a->stream != b->stream ? a->stream > b->stream : a->seq > b->seq;
}

/* By sorting everything; no heap. */
static uint32_t choose_plainly(const struct kv_selection *selection, const struct kv_hit *blocks,
                               struct kv_hit *out)
{
    struct kv_hit sorted[BLOCKS], newest[BLOCKS];
    uint32_t rest = 0, taken = 0;

    memcpy(sorted, blocks, sizeof sorted);
    for (uint32_t i = 0; i < BLOCKS; i++)
        for (uint32_t j = i + 1; j < BLOCKS; j++)
            if (is_newer(&sorted[j], &sorted[i])) {
                struct kv_hit held = sorted[i];

                sorted[i] = sorted[j];
                sorted[j] = held;
            }
    memcpy(newest, sorted, sizeof newest);
    for (; taken < selection->top_r && taken < BLOCKS; taken++) {
        uint32_t best = taken;

        for (uint32_t i = best + 1; i < BLOCKS; i++)
            if (selection->kind == KV_SELECT_REKV && sorted[i].score > sorted[best].score)
                best = i;
        out[taken] = sorted[best];
        out[taken].recent = false;
        memmove(&sorted[taken + 1], &sorted[taken], (best - taken) * sizeof sorted[0]);
    }
    for (uint32_t i = 0; i < selection->recent_window; i++) {
        bool is_taken = false;

        for (uint32_t n = 0; n < taken; n++)
            is_taken |= out[n].seq == newest[i].seq;
        if (is_taken)
            continue;
        out[taken + rest] = newest[i];
        out[taken + rest].recent = true;
        rest++;
    }
    return taken + rest;
}

static void check_same(const struct kv_hit *got, uint32_t got_count, const struct kv_hit *want,
                       uint32_t want_count)
{
    CHECK_EQ(got_count, want_count);
    for (uint32_t i = 0; i < want_count; i++) {
        CHECK_EQ(got[i].seq, want[i].seq);
        CHECK_EQ(got[i].stream, want[i].stream);
        CHECK_EQ(got[i].recent, want[i].recent);
    }
}

static const struct kv_selection selections[] = {
    { KV_SELECT_REKV, 64, 0 }, { KV_SELECT_REKV, 64, 8 },   { KV_SELECT_REKV, 1, 1 },
    { KV_SELECT_REKV, 0, 5 },  { KV_SELECT_RECENT, 16, 0 }, { KV_SELECT_RECENT, 16, 4 },
};

/* Offered forwards, backwards and in pieces, the choice is that of sorting everything. */
TEST(select_chooses_what_sorting_would)
{
    struct kv_hit blocks[BLOCKS], want[HITS_MAX];

    make_blocks(blocks);
    for (size_t s = 0; s < ARRAY_LEN(selections); s++) {
        uint32_t want_count = choose_plainly(&selections[s], blocks, want);

        for (unsigned way = 0; way < 3; way++) {
            struct kv_select *select;
            const struct kv_hit *hits;
            uint32_t count;

            CHECK_OK(kv_select_create(&select, &selections[s], &st), st);
            for (uint32_t i = 0; i < BLOCKS; i += way == 2 ? 10 : 1)
                kv_select_offer(select, &blocks[way == 1 ? BLOCKS - 1 - i : i], way == 2 ? 10 : 1);
            CHECK_OK(kv_select_finish(select, &hits, &count, &st), st);
            check_same(hits, count, want, want_count);
            kv_select_destroy(select);
        }
    }
}

/* Whichever come first, blocks below the floor can be left out; and many are. */
TEST(select_needs_nothing_below_its_floor)
{
    struct kv_hit blocks[BLOCKS], want[HITS_MAX];

    make_blocks(blocks);
    for (size_t s = 0; s < ARRAY_LEN(selections); s++) {
        uint32_t want_count = choose_plainly(&selections[s], blocks, want);

        for (unsigned way = 0; way < 2; way++) {
            struct kv_select *select;
            const struct kv_hit *hits;
            uint32_t count, left_out = 0;

            CHECK_OK(kv_select_create(&select, &selections[s], &st), st);
            for (uint32_t i = 0; i < BLOCKS; i++) {
                const struct kv_hit *block = &blocks[way == 1 ? BLOCKS - 1 - i : i];
                struct kv_floor floor = kv_select_floor(select);

                if (block->score < floor.score && block->pts_ns < floor.pts_ns)
                    left_out++;
                else
                    kv_select_offer(select, block, 1);
            }
            CHECK_OK(kv_select_finish(select, &hits, &count, &st), st);
            check_same(hits, count, want, want_count);
            CHECK(way == 0 || left_out > BLOCKS / 8); /* the newest came first */
            kv_select_destroy(select);
        }
    }
}

TEST(select_all_has_no_floor)
{
    struct kv_selection selection = { KV_SELECT_ALL, 0, 0 };
    const struct kv_hit hit = { .score = 1 };
    struct kv_select *select;
    struct kv_floor floor;

    CHECK_OK(kv_select_create(&select, &selection, &st), st);
    kv_select_offer(select, &hit, 1);
    floor = kv_select_floor(select);
    CHECK(isinf(floor.score) && floor.score < 0 && floor.pts_ns == INT64_MIN);
    kv_select_destroy(select);
}

/* Blocks dealt over two and three stores; what each chose, offered to one more, is what one store with all
 * of them would have chosen. */
TEST(select_merges_stores_exactly)
{
    struct kv_hit blocks[BLOCKS], want[HITS_MAX];

    make_blocks(blocks);
    for (size_t s = 0; s < ARRAY_LEN(selections); s++)
        for (uint32_t stores = 2; stores <= 3; stores++) {
            uint32_t want_count = choose_plainly(&selections[s], blocks, want), count;
            struct kv_select *merged;
            const struct kv_hit *hits;

            CHECK_OK(kv_select_create(&merged, &selections[s], &st), st);
            for (uint32_t store = 0; store < stores; store++) {
                struct kv_select *own;

                CHECK_OK(kv_select_create(&own, &selections[s], &st), st);
                for (uint32_t i = 0; i < BLOCKS; i++)
                    if (i / 7 % stores == store)
                        kv_select_offer(own, &blocks[i], 1);
                CHECK_OK(kv_select_finish(own, &hits, &count, &st), st);
                kv_select_offer(merged, hits, count);
                kv_select_destroy(own);
            }
            CHECK_OK(kv_select_finish(merged, &hits, &count, &st), st);
            check_same(hits, count, want, want_count);
            kv_select_destroy(merged);
        }
}

TEST(select_of_equal_scores_takes_the_newer)
{
    struct kv_selection selection = { KV_SELECT_REKV, 2, 0 };
    struct kv_hit blocks[4] = { { .score = 1, .pts_ns = 10, .seq = 0 },
                                { .score = 1, .pts_ns = 30, .seq = 2 },
                                { .score = 1, .pts_ns = 20, .seq = 1 },
                                { .score = 1, .pts_ns = 30, .stream = 1, .seq = 9 } };
    struct kv_select *select;
    const struct kv_hit *hits;
    uint32_t count;

    CHECK_OK(kv_select_create(&select, &selection, &st), st);
    kv_select_offer(select, blocks, 4);
    CHECK_OK(kv_select_finish(select, &hits, &count, &st), st);
    CHECK_EQ(count, 2);
    CHECK_EQ(hits[0].seq, 9);
    CHECK_EQ(hits[1].seq, 2);
    kv_select_destroy(select);
}

TEST(select_all_takes_all_or_says_there_are_too_many)
{
    struct kv_selection selection = { KV_SELECT_ALL, 0, 3 };
    struct kv_select *select;
    const struct kv_hit *hits;
    uint32_t count;

    for (int extra = 0; extra <= 1; extra++) {
        CHECK_OK(kv_select_create(&select, &selection, &st), st);
        for (uint32_t i = 0; i < LIMIT_TOP_BLOCKS + (uint32_t)extra; i++) {
            struct kv_hit hit = { .seq = i, .pts_ns = i };

            kv_select_offer(select, &hit, 1);
        }
        if (extra == 0) {
            CHECK_OK(kv_select_finish(select, &hits, &count, &st), st);
            CHECK_EQ(count, LIMIT_TOP_BLOCKS);
            CHECK_EQ(hits[0].seq, LIMIT_TOP_BLOCKS - 1);
        } else {
            CHECK(!kv_select_finish(select, &hits, &count, &st));
            CHECK_EQ(st.code, STATUS_EXHAUSTED);
        }
        kv_select_destroy(select);
    }
}

TEST(select_with_nothing_in_view_chooses_nothing)
{
    struct kv_select *select;
    const struct kv_hit *hits;
    uint32_t count = 9;

    CHECK_OK(kv_select_create(&select, &selections[1], &st), st);
    CHECK_OK(kv_select_finish(select, &hits, &count, &st), st);
    CHECK_EQ(count, 0);
    kv_select_destroy(select);
}

TEST(select_refuses_senseless_selections)
{
    static const struct kv_selection bad[] = { { 0, 4, 0 },
                                               { 9, 4, 0 },
                                               { KV_SELECT_REKV, 0, 0 },
                                               { KV_SELECT_REKV, LIMIT_TOP_BLOCKS, 1 },
                                               { KV_SELECT_REKV, UINT32_MAX, UINT32_MAX },
                                               { KV_SELECT_ALL, 0, LIMIT_TOP_BLOCKS + 1 } };
    struct kv_select *select;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK(!kv_select_create(&select, &bad[i], &st));
        CHECK_EQ(st.code, STATUS_INVALID);
    }
}

TEST(select_puts_hits_in_time_order)
{
    struct kv_hit hits[3] = { { .pts_ns = 5, .stream = 1 }, { .pts_ns = 5, .stream = 0 }, { .pts_ns = 2 } };

    kv_hits_sort_by_time(hits, 3);
    CHECK_EQ(hits[0].pts_ns, 2);
    CHECK_EQ(hits[1].stream, 0);
    CHECK_EQ(hits[2].stream, 1);
}

TEST_MAIN()
