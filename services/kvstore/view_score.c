/* One layer of a view, scored. On the loop it waits for keys that are on the disk still; then a computing thread takes the
 * view's chunks from the newest to the oldest, SIDE of them beside each other, and offers what may be among the best. */
#include "kvstore/view.h"

#include <stdlib.h>

#include "base/require.h"
#include "kv/kv_score.h"

/* Runs of memory that are read beside each other: two or four come faster than one. */
enum { SIDE = 4, GROUP_FRAMES = SIDE * INDEX_CHUNK_FRAMES };

/* Frames that are scored together: the first of each chunk, then the second of each. */
struct group {
    const void *keys[GROUP_FRAMES]; /* behind `count` anything */
    uint32_t entries[GROUP_FRAMES]; /* of the view */
    uint8_t places[GROUP_FRAMES];   /* in their chunks */
    float scores[GROUP_FRAMES];
    uint32_t count;
    int64_t newest_ns; /* none of them is newer */
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

/* Entries [first, end). */
static void group_add(struct group *group, const struct view_score *score, uint32_t first, uint32_t end)
{
    const struct kv_geometry *geometry = &score->view->geometry;
    uint32_t key_bytes = kv_key_bytes(geometry);
    uint64_t layer_at = (uint64_t)score->layer * INDEX_CHUNK_FRAMES * key_bytes;

    for (uint32_t place = 0; place < INDEX_CHUNK_FRAMES; place++)
        for (uint32_t n = first; n < end; n++) {
            const struct view_entry *entry = &score->view->entries[n];

            if ((entry->mask >> place & 1) == 0 || (score->query != NULL && entry->keys == NULL))
                continue;
            if (score->query != NULL)
                group->keys[group->count] = entry->keys + layer_at + (uint64_t)place * key_bytes;
            group->entries[group->count] = n;
            group->places[group->count++] = (uint8_t)place;
            if (entry->newest_ns > group->newest_ns)
                group->newest_ns = entry->newest_ns;
        }
}

/* The next ones before *left; none: all were taken. */
static void group_take(struct group *group, const struct view_score *score, uint32_t *left)
{
    group_clear(group, score->query);
    while (group->count == 0 && *left > 0) {
        uint32_t end = *left;

        *left -= end < SIDE ? end : SIDE;
        group_add(group, score, *left, end);
    }
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

static void score_run(struct work *work)
{
    struct view_score *score = container_of(work, struct view_score, work);
    const struct view *view = score->view;
    kv_score_fn *score_keys = kv_score_ops()->of_dtype[view->has_shape ? view->geometry.dtype : KV_DTYPE_F32];
    uint32_t left = view->entry_count, at = 0;
    struct group groups[2];

    if (!kv_select_create(&score->select, &score->selection, &score->st))
        return;
    for (group_take(&groups[at], score, &left); groups[at].count > 0; at = 1 - at) {
        group_take(&groups[1 - at], score, &left);
        group_score(&groups[at], &groups[1 - at], score, score_keys);
        group_offer(&groups[at], score);
    }
    score->ok = kv_select_finish(score->select, &score->hits, &score->hit_count, &score->st);
}

static void score_done(struct work *work)
{
    struct view_score *score = container_of(work, struct view_score, work);

    view_unref(score->view);
    score->done(score);
}

static bool is_awaited(const struct index_chunk *chunk)
{
    return chunk->is_blank && chunk->segment != NULL && !chunk->segment->is_leaving;
}

/* Up to the first chunk whose keys are not there; asks for them. False: they cannot be read now. */
static bool look_for_keys(struct view *view)
{
    while (view->keys_seen < view->entry_count) {
        struct view_entry *entry = &view->entries[view->keys_seen];

        if (is_awaited(entry->chunk))
            return keys_want(entry->chunk->segment);
        if (entry->chunk->is_blank)
            entry->keys = NULL;
        view->keys_seen++;
    }
    return true;
}

/* Those behind it too, so that they are read beside each other. */
static void want_the_rest(const struct view *view)
{
    const struct segment *last = NULL;

    for (uint32_t i = view->entry_count; i-- > view->keys_seen;) {
        const struct index_chunk *chunk = view->entries[i].chunk;

        if (is_awaited(chunk) && chunk->segment != last)
            keys_want(chunk->segment);
        last = chunk->segment;
    }
}

static bool retry_score(struct keys_waiter *waiter)
{
    struct view_score *score = container_of(waiter, struct view_score, keys);
    struct view *view = score->view;

    if (!view->store->is_closing && look_for_keys(view)) {
        if (view->keys_seen < view->entry_count)
            return false;
        return work_pool_submit(view->store->computing, &score->work);
    }
    status_fail(&score->st, STATUS_UNAVAILABLE, "keys of stored frames cannot be read now; try again");
    score_done(&score->work);
    return true;
}

bool view_score_start(struct view_score *score)
{
    struct view *view = score->view;

    REQUIRE(!view->has_shape || score->layer < view->geometry.layers);
    score->ok = false;
    score->select = NULL;
    score->hit_count = 0;
    score->work = (struct work){ .run = score_run, .done = score_done };
    score->keys = (struct keys_waiter){ .retry = retry_score };
    if (score->query != NULL && (!look_for_keys(view) || view->keys_seen < view->entry_count)) {
        want_the_rest(view);
        keys_wait(view->store, &score->keys); /* a failure is told there, not before this returns */
    } else if (!work_pool_submit(view->store->computing, &score->work)) {
        return false;
    }
    view_ref(view);
    return true;
}

void view_score_deinit(struct view_score *score)
{
    kv_select_destroy(score->select);
    free(score->query);
    score->select = NULL;
    score->query = NULL;
}
