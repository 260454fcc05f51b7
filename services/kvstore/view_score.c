/* One layer of a view, scored: what the loop does of it. It waits for keys that are on the disk still, and sees which chunks
 * have sketches; then a computing thread scores (view_pass.h). */
#include "kvstore/view.h"

#include <stdlib.h>

#include "base/require.h"
#include "kvstore/sketches.h"
#include "kvstore/view_pass.h"

static void score_run(struct work *work)
{
    view_pass(container_of(work, struct view_score, work));
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

/* Those that were made since the last look, and the others are asked for, the newest first. */
static void look_for_sketches(struct view *view)
{
    uint64_t seen = view->store->sketches.made + 1;
    uint32_t left = seen == view->sketches_seen ? 0 : view->unsketched;
    bool is_full = false;

    view->sketches_seen = seen;
    for (uint32_t i = view->entry_count; i-- > 0 && left > 0;) {
        struct view_entry *entry = &view->entries[i];

        if (entry->sketch != NULL)
            continue;
        left--;
        entry->sketch = sketch_hold(entry->chunk);
        if (entry->sketch != NULL)
            view->unsketched--;
        else if (!is_full)
            is_full = sketches_want(view->store, entry->chunk);
    }
}

static bool submit(struct view_score *score)
{
    if (score->query != NULL)
        look_for_sketches(score->view);
    return work_pool_submit(score->view->store->computing, &score->work);
}

static bool retry_score(struct keys_waiter *waiter)
{
    struct view_score *score = container_of(waiter, struct view_score, keys);
    struct view *view = score->view;

    if (!view->store->is_closing && look_for_keys(view)) {
        if (view->keys_seen < view->entry_count)
            return false;
        return submit(score);
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
    } else if (!submit(score)) {
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
