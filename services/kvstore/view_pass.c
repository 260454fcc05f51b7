#include "kvstore/view_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kv/kv_score.h"
#include "kv/kv_sketch.h"

/* Runs of memory that are read beside each other: two or four come faster than one. */
enum { SIDE = KV_SKETCH_SIDE, GROUP_FRAMES = SIDE * INDEX_CHUNK_FRAMES };

_Static_assert((int)INDEX_CHUNK_FRAMES == (int)KV_SKETCH_KEYS, "a sketch is of a chunk's keys");

/* Frames that are scored together. */
struct group {
    const void *keys[GROUP_FRAMES]; /* behind `count` anything */
    uint32_t entries[GROUP_FRAMES]; /* of the view */
    uint8_t places[GROUP_FRAMES];   /* in their chunks */
    float scores[GROUP_FRAMES];
    uint32_t count;
    int64_t newest_ns; /* none of them is newer */
};

/* What is to be scored exactly, in what order. */
struct pass {
    const struct view_score *score;
    void (*take)(struct pass *pass, struct group *group); /* the next ones; none: all were taken */
    uint32_t entries_left;                                /* of the view, the last ones first */
    /* by sketches; NULL, or nothing: not so */
    float (*bounds)[KV_SKETCH_KEYS]; /* [entries] */
    uint32_t *masks; /* [entries]; of their frames, those that were not offered; without a sketch 0 */
    const struct kv_hit *highest; /* by bounds: seq is entry * KV_SKETCH_KEYS + place */
    uint32_t highest_count;
    const struct kv_sketch_ops *ops;
    const struct kv_sketch_query *query;
    uint64_t layer_at;  /* of the layer, in sketches */
    uint32_t *possible; /* [entries * KV_SKETCH_KEYS], likewise entry * KV_SKETCH_KEYS + place */
    uint32_t possible_count, refined_count;
};

static void group_clear(struct group *group, const float *query)
{
    group->count = 0;
    group->newest_ns = INT64_MIN;
    for (uint32_t i = 0; i < GROUP_FRAMES; i++) {
        group->keys[i] = query;
        group->scores[i] = 0;
    }
}

static void group_add(struct group *group, const struct view_score *score, uint32_t n, uint32_t place)
{
    const struct view_entry *entry = &score->view->entries[n];
    uint32_t key_bytes = kv_key_bytes(&score->view->geometry);
    uint64_t at = ((uint64_t)score->layer * INDEX_CHUNK_FRAMES + place) * key_bytes;

    if (score->query != NULL)
        group->keys[group->count] = entry->keys + at;
    group->entries[group->count] = n;
    group->places[group->count++] = (uint8_t)place;
    if (entry->newest_ns > group->newest_ns)
        group->newest_ns = entry->newest_ns;
}

static void group_score(struct group *group, const struct group *next, const struct view_score *score,
                        kv_score_fn *score_keys)
{
    const struct kv_score_keys keys = { .at = group->keys,
                                        .ahead = next->keys,
                                        .count = group->count,
                                        .dims = kv_key_dims(&score->view->geometry) };

    if (score->query != NULL)
        score_keys(score->query, &keys, group->scores);
}

static void offer(const struct view_score *score, const struct group *group, uint32_t i)
{
    const struct view_entry *entry = &score->view->entries[group->entries[i]];
    struct index_frame *frame = &entry->chunk->frames[group->places[i]];
    const struct kv_hit hit = { .score = group->scores[i],
                                .stream = entry->stream,
                                .seq = frame->seq,
                                .pts_ns = frame->pts_ns,
                                .tokens = frame->tokens,
                                .tag = frame };

    kv_select_offer(score->select, &hit, 1);
}

/* Of most groups nothing is looked at but the scores. */
static void group_offer(const struct group *group, const struct view_score *score)
{
    struct kv_floor floor = kv_select_floor(score->select);

    for (uint32_t i = 0; i < group->count; i++)
        if (group->scores[i] >= floor.score || group->newest_ns >= floor.pts_ns) {
            offer(score, group, i);
            floor = kv_select_floor(score->select);
        }
}

static void run_pass(struct pass *pass)
{
    const struct view_score *score = pass->score;
    const struct view *view = score->view;
    kv_score_fn *score_keys = kv_score_ops()->of_dtype[view->has_shape ? view->geometry.dtype : KV_DTYPE_F32];
    struct group groups[2];
    uint32_t at = 0;

    pass->entries_left = view->entry_count;
    for (unsigned i = 0; i < 2; i++)
        group_clear(&groups[i], score->query);
    for (pass->take(pass, &groups[at]); groups[at].count > 0; at = 1 - at) {
        struct group *next = &groups[1 - at];

        group_clear(next, score->query);
        pass->take(pass, next);
        group_score(&groups[at], next, score, score_keys);
        group_offer(&groups[at], score);
    }
}

/* --- all that have no bounds --- */

static uint32_t plain_mask(const struct pass *pass, uint32_t n)
{
    const struct view_entry *entry = &pass->score->view->entries[n];

    if (pass->score->query == NULL)
        return entry->mask;
    return entry->keys != NULL && (pass->bounds == NULL || entry->sketch == NULL) ? entry->mask : 0;
}

/* The first of each of SIDE chunks, then the second of each. */
static void take_plain(struct pass *pass, struct group *group)
{
    while (group->count == 0 && pass->entries_left > 0) {
        uint32_t masks[SIDE], any = 0, count = pass->entries_left < SIDE ? pass->entries_left : SIDE;

        pass->entries_left -= count;
        for (uint32_t i = 0; i < count; i++)
            any |= masks[i] = plain_mask(pass, pass->entries_left + i);
        for (uint32_t place = 0; any >> place != 0; place++)
            for (uint32_t i = 0; i < count; i++)
                if ((masks[i] >> place & 1) != 0)
                    group_add(group, pass->score, pass->entries_left + i, place);
    }
}

/* --- by sketches --- */

/* Sketches that are read beside each other. */
struct side {
    struct kv_sketch_run run;
    uint32_t entries[SIDE];
};

static const void *sketch_of(const struct pass *pass, uint32_t n)
{
    return pass->score->view->entries[n].sketch + pass->layer_at;
}

static void side_take(struct side *side, struct pass *pass)
{
    const struct view *view = pass->score->view;
    struct kv_sketch_run *run = &side->run;

    run->count = 0;
    while (run->count < SIDE && pass->entries_left > 0) {
        const struct view_entry *entry = &view->entries[--pass->entries_left];

        if (entry->sketch == NULL || entry->keys == NULL)
            continue;
        side->entries[run->count] = pass->entries_left;
        run->bounds[run->count] = pass->bounds[pass->entries_left];
        run->at[run->count++] = sketch_of(pass, pass->entries_left);
    }
}

/* Numbers beside each other, in any processor's vectors. */
typedef float four_floats __attribute__((vector_size(16)));
typedef uint32_t four_bits __attribute__((vector_size(16)));

/* The frames whose bound is not below, as bits. */
static uint32_t not_below(const float bounds[KV_SKETCH_KEYS], float floor)
{
    four_bits found = { 0 }, bits = { 1, 2, 4, 8 };

    for (uint32_t place = 0; place < KV_SKETCH_KEYS; place += 4, bits <<= 4) {
        four_floats four;

        memcpy(&four, bounds + place, sizeof four);
        found |= (four_bits)(four >= floor) & bits;
    }
    return found[0] | found[1] | found[2] | found[3];
}

static void offer_bounds(const struct pass *pass, uint32_t n, struct kv_select *by_bound)
{
    const float *bounds = pass->bounds[n];
    float floor = kv_select_floor(by_bound).score;

    pass->masks[n] = pass->score->view->entries[n].mask;
    for (uint32_t left = pass->masks[n] & not_below(bounds, floor); left != 0; left &= left - 1) {
        uint32_t place = (uint32_t)__builtin_ctz(left);
        const struct kv_hit hit = { .score = bounds[place], .seq = (uint64_t)n * KV_SKETCH_KEYS + place };

        kv_select_offer(by_bound, &hit, 1);
    }
}

static void find_bounds(struct pass *pass, struct kv_select *by_bound)
{
    struct side sides[2];
    uint32_t at = 0;

    pass->entries_left = pass->score->view->entry_count;
    for (side_take(&sides[at], pass); sides[at].run.count > 0; at = 1 - at) {
        struct side *side = &sides[at], *next = &sides[1 - at];

        side_take(next, pass);
        for (uint32_t i = 0; i < side->run.count; i++)
            side->run.ahead[i] = i < next->run.count ? next->run.at[i] : side->run.at[i];
        pass->ops->bounds(pass->query, &side->run);
        for (uint32_t i = 0; i < side->run.count; i++)
            offer_bounds(pass, side->entries[i], by_bound);
    }
}

/* Its key comes while the others of the group are looked for. */
static void take_bounded(struct pass *pass, struct group *group, uint32_t n, uint32_t place)
{
    enum { LINE_BYTES = 64 };
    uint32_t key_bytes = kv_key_bytes(&pass->score->view->geometry);

    group_add(group, pass->score, n, place);
    for (uint32_t at = 0; at < key_bytes; at += LINE_BYTES)
        __builtin_prefetch((const char *)group->keys[group->count - 1] + at, 0, 2);
    pass->masks[n] &= ~(1u << place);
}

static void take_highest(struct pass *pass, struct group *group)
{
    for (; group->count < GROUP_FRAMES && pass->highest_count > 0; pass->highest_count--) {
        uint64_t at = pass->highest++->seq;

        take_bounded(pass, group, (uint32_t)(at / KV_SKETCH_KEYS), at % KV_SKETCH_KEYS);
    }
}

/* Where the newest are not asked for the view's entries are not looked at. */
static bool is_among_newest(const struct pass *pass, uint32_t n, const struct kv_floor *floor)
{
    return floor->pts_ns != INT64_MAX && pass->score->view->entries[n].newest_ns >= floor->pts_ns;
}

static void lift(float bounds[KV_SKETCH_KEYS])
{
    for (uint32_t place = 0; place < KV_SKETCH_KEYS; place++)
        bounds[place] = INFINITY;
}

/* The newest too, whatever their bounds. */
static void find_possible(struct pass *pass)
{
    struct kv_floor floor = kv_select_floor(pass->score->select);

    for (uint32_t n = pass->score->view->entry_count; n-- > 0;) {
        float *bounds = pass->bounds[n];

        if (pass->masks[n] == 0)
            continue;
        if (is_among_newest(pass, n, &floor))
            lift(bounds);
        for (uint32_t left = pass->masks[n] & not_below(bounds, floor.score); left != 0; left &= left - 1)
            pass->possible[pass->possible_count++] = n * KV_SKETCH_KEYS + (uint32_t)__builtin_ctz(left);
    }
}

/* Not if the sixth bits of its key say that it cannot be among the best; those of a later one are asked for. */
static bool stays_possible(struct pass *pass, uint32_t i, float floor)
{
    enum { AHEAD = 16 };
    uint32_t at = pass->possible[i], place = at % KV_SKETCH_KEYS;
    float bound = pass->bounds[at / KV_SKETCH_KEYS][place];

    if (i + AHEAD < pass->possible_count) {
        uint32_t later = pass->possible[i + AHEAD];

        kv_sketch_ask_refined(pass->query, sketch_of(pass, later / KV_SKETCH_KEYS), later % KV_SKETCH_KEYS);
    }
    return bound >= floor &&
           pass->ops->refine(pass->query, sketch_of(pass, at / KV_SKETCH_KEYS), place, bound) >= floor;
}

static void take_possible(struct pass *pass, struct group *group)
{
    float floor = kv_select_floor(pass->score->select).score;

    for (; group->count < GROUP_FRAMES && pass->refined_count < pass->possible_count; pass->refined_count++) {
        uint32_t at = pass->possible[pass->refined_count];

        if (stays_possible(pass, pass->refined_count, floor))
            take_bounded(pass, group, at / KV_SKETCH_KEYS, at % KV_SKETCH_KEYS);
    }
}

static void free_room(struct pass *pass)
{
    free(pass->bounds);
    free(pass->masks);
    free(pass->possible);
}

static bool make_room(struct pass *pass)
{
    uint32_t count = pass->score->view->entry_count;

    pass->bounds = malloc(count * sizeof *pass->bounds);
    pass->masks = calloc(count, sizeof *pass->masks);
    pass->possible = malloc((size_t)count * KV_SKETCH_KEYS * sizeof *pass->possible);
    if (pass->bounds != NULL && pass->masks != NULL && pass->possible != NULL)
        return true;
    free_room(pass);
    return false;
}

static void score_bounded(struct pass *pass, struct kv_select *by_bound)
{
    struct status st;

    pass->take = take_plain;
    run_pass(pass);
    find_bounds(pass, by_bound);
    REQUIRE(kv_select_finish(by_bound, &pass->highest, &pass->highest_count, &st));
    pass->take = take_highest;
    run_pass(pass);
    find_possible(pass);
    pass->take = take_possible;
    run_pass(pass);
}

/* False: not so; nothing was offered. */
static bool score_by_sketches(struct view_score *score)
{
    const struct view *view = score->view;
    const struct kv_selection highest = { .kind = KV_SELECT_REKV, .top_r = score->selection.top_r };
    struct kv_sketch_query *query;
    struct pass pass = { .score = score, .ops = kv_sketch_ops() };
    struct kv_select *by_bound = NULL;
    struct status st;
    bool ok;

    if (score->query == NULL || score->selection.kind != KV_SELECT_REKV || score->selection.top_r == 0 ||
        view->unsketched == view->entry_count)
        return false;
    query = kv_sketch_query_create(score->query, kv_key_dims(&view->geometry));
    ok = query != NULL && kv_select_create(&by_bound, &highest, &st) && make_room(&pass);
    if (ok) {
        pass.query = query;
        pass.layer_at = score->layer * kv_sketch_bytes(&view->geometry);
        score_bounded(&pass, by_bound);
        free_room(&pass);
    }
    kv_select_destroy(by_bound);
    kv_sketch_query_destroy(query);
    return ok;
}

void view_pass(struct view_score *score)
{
    struct pass pass = { .score = score, .take = take_plain };

    if (!kv_select_create(&score->select, &score->selection, &score->st))
        return;
    if (!score_by_sketches(score))
        run_pass(&pass);
    score->ok = kv_select_finish(score->select, &score->hits, &score->hit_count, &score->st);
}
