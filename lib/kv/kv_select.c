#include "kv/kv_select.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/require.h"

/* A bounded list of the best by some order, worst at the top of a heap. */
struct best {
    struct kv_hit *hits; /* room of them */
    uint32_t count, room;
    int (*compare)(const struct kv_hit *a, const struct kv_hit *b); /* above 0: a is better */
    bool overflowed;                                                /* something had to go */
};

struct kv_selector {
    bool uses_scores;
    bool takes_all;
    int (*compare)(const struct kv_hit *a, const struct kv_hit *b);
};

struct kv_select {
    struct kv_selection selection;
    const struct kv_selector *selector;
    struct best recent, chosen;
    struct kv_hit *hits; /* chosen, then recent, once finished */
    uint32_t count;
    bool finished;
};

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

int kv_hit_compare_time(const struct kv_hit *a, const struct kv_hit *b)
{
    if (a->pts_ns != b->pts_ns)
        return a->pts_ns > b->pts_ns ? 1 : -1;
    if (a->stream != b->stream)
        return compare_u64(a->stream, b->stream);
    return compare_u64(a->seq, b->seq);
}

static int compare_score(const struct kv_hit *a, const struct kv_hit *b)
{
    if (a->score != b->score)
        return a->score > b->score ? 1 : -1;
    return kv_hit_compare_time(a, b);
}

/* By enum kv_selector_kind. A new selector is a row here, and a number in the protocol. */
static const struct kv_selector selectors[] = {
    [KV_SELECT_REKV] = { .uses_scores = true, .compare = compare_score },
    [KV_SELECT_RECENT] = { .compare = kv_hit_compare_time },
    [KV_SELECT_ALL] = { .takes_all = true, .compare = compare_score },
};

static const struct kv_selector *selector_of(enum kv_selector_kind kind)
{
    return (unsigned)kind < ARRAY_LEN(selectors) && selectors[kind].compare != NULL ? &selectors[kind] : NULL;
}

bool kv_selection_uses_scores(const struct kv_selection *selection)
{
    return selector_of(selection->kind)->uses_scores;
}

bool kv_selection_check(const struct kv_selection *selection, struct status *st)
{
    const struct kv_selector *selector = selector_of(selection->kind);
    uint64_t wanted = selection->recent_window;

    if (selector == NULL)
        return status_fail(st, STATUS_INVALID, "selection: unknown selector %d", (int)selection->kind);
    if (!selector->takes_all)
        wanted += selection->top_r;
    if (wanted > LIMIT_TOP_BLOCKS)
        return status_fail(st, STATUS_INVALID, "selection: %llu blocks wanted, at most %d are given at once",
                           (unsigned long long)wanted, LIMIT_TOP_BLOCKS);
    if (wanted == 0 && !selector->takes_all)
        return status_fail(st, STATUS_INVALID, "selection: top_r and recent_window are both 0");
    return true;
}

static void swap_hits(struct kv_hit *a, struct kv_hit *b)
{
    struct kv_hit held = *a;

    *a = *b;
    *b = held;
}

static void sift_down(struct best *best, uint32_t at)
{
    for (;;) {
        uint32_t worst = at, child = 2 * at + 1;

        for (uint32_t i = child; i < child + 2 && i < best->count; i++)
            if (best->compare(&best->hits[worst], &best->hits[i]) > 0)
                worst = i;
        if (worst == at)
            return;
        swap_hits(&best->hits[at], &best->hits[worst]);
        at = worst;
    }
}

static void sift_up(struct best *best, uint32_t at)
{
    while (at > 0 && best->compare(&best->hits[(at - 1) / 2], &best->hits[at]) > 0) {
        swap_hits(&best->hits[at], &best->hits[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static void best_offer(struct best *best, const struct kv_hit *hit)
{
    if (best->count < best->room) {
        best->hits[best->count] = *hit;
        sift_up(best, best->count++);
        return;
    }
    best->overflowed = true;
    if (best->room == 0 || best->compare(hit, &best->hits[0]) <= 0)
        return;
    best->hits[0] = *hit;
    sift_down(best, 0);
}

/* Takes the heap apart from its worst end: best first remains. */
static void best_sort(struct best *best)
{
    uint32_t count = best->count;

    while (best->count > 1) {
        best->count--;
        swap_hits(&best->hits[0], &best->hits[best->count]);
        sift_down(best, 0);
    }
    best->count = count;
}

bool kv_select_create(struct kv_select **select_p, const struct kv_selection *selection, struct status *st)
{
    struct kv_select *select;
    uint32_t room = selection->top_r;

    if (!kv_selection_check(selection, st))
        return false;
    if (selector_of(selection->kind)->takes_all)
        room = LIMIT_TOP_BLOCKS;
    select = calloc(1, sizeof *select);
    if (select != NULL)
        select->hits = calloc((size_t)room + selection->recent_window, sizeof *select->hits);
    if (select == NULL || (select->hits == NULL && room + selection->recent_window > 0)) {
        free(select);
        return status_fail(st, STATUS_EXHAUSTED, "no memory to choose %u blocks", room);
    }
    select->selection = *selection;
    select->selector = selector_of(selection->kind);
    select->chosen =
        (struct best){ .hits = select->hits, .room = room, .compare = select->selector->compare };
    select->recent = (struct best){ .hits = select->hits + room,
                                    .room = selection->recent_window,
                                    .compare = kv_hit_compare_time };
    *select_p = select;
    return true;
}

void kv_select_destroy(struct kv_select *select)
{
    if (select == NULL)
        return;
    free(select->hits);
    free(select);
}

void kv_select_offer(struct kv_select *select, const struct kv_hit *hits, uint32_t count)
{
    REQUIRE(!select->finished);
    for (uint32_t i = 0; i < count; i++) {
        best_offer(&select->chosen, &hits[i]);
        best_offer(&select->recent, &hits[i]);
    }
}

static void lower_floor(struct kv_floor *floor, const struct best *best)
{
    bool is_full = best->count == best->room;

    if (best->room == 0)
        return;
    if (best->compare == kv_hit_compare_time)
        floor->pts_ns = !is_full                               ? INT64_MIN
                        : best->hits[0].pts_ns < floor->pts_ns ? best->hits[0].pts_ns
                                                               : floor->pts_ns;
    else
        floor->score = is_full ? best->hits[0].score : -INFINITY;
}

struct kv_floor kv_select_floor(const struct kv_select *select)
{
    struct kv_floor floor = { .score = INFINITY, .pts_ns = INT64_MAX };

    if (select->selector->takes_all)
        return (struct kv_floor){ .score = -INFINITY, .pts_ns = INT64_MIN };
    lower_floor(&floor, &select->chosen);
    lower_floor(&floor, &select->recent);
    return floor;
}

/* The order is total, so what is not worse than the worst of the chosen is one of them. */
static bool is_chosen(const struct best *chosen, const struct kv_hit *hit)
{
    if (!chosen->overflowed)
        return true;
    return chosen->count > 0 && chosen->compare(hit, &chosen->hits[chosen->count - 1]) >= 0;
}

bool kv_select_finish(struct kv_select *select, const struct kv_hit **hits_p, uint32_t *count_p,
                      struct status *st)
{
    struct best *chosen = &select->chosen, *recent = &select->recent;

    REQUIRE(!select->finished);
    if (select->selector->takes_all && chosen->overflowed)
        return status_fail(st, STATUS_EXHAUSTED,
                           "selector all: more than %d blocks in view; ask about a shorter time",
                           LIMIT_TOP_BLOCKS);
    select->finished = true;
    best_sort(chosen);
    best_sort(recent);
    for (uint32_t i = 0; i < chosen->count; i++)
        chosen->hits[i].recent = false;
    select->count = chosen->count;
    for (uint32_t i = 0; i < recent->count; i++) {
        struct kv_hit hit = recent->hits[i];

        hit.recent = true;
        if (!is_chosen(chosen, &hit))
            select->hits[select->count++] = hit;
    }
    *hits_p = select->hits;
    *count_p = select->count;
    return true;
}

static int compare_time_for_sort(const void *a, const void *b)
{
    return kv_hit_compare_time(a, b);
}

void kv_hits_sort_by_time(struct kv_hit *hits, uint32_t count)
{
    qsort(hits, count, sizeof *hits, compare_time_for_sort);
}
