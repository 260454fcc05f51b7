/* Score: one layer's choice. Fetch: layers and thumbnails of frames that are named. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kvstore/slice_sender.h"

enum { RETRY_AFTER_MS = 100 };

/* --- score --- */

struct scoring {
    struct rpc_call *call;
    struct view_score score;
};

static void scoring_free(struct scoring *scoring)
{
    view_unref(scoring->score.view);
    view_score_deinit(&scoring->score);
    rpc_call_unref(scoring->call);
    free(scoring);
}

static void scored(struct view_score *score)
{
    struct scoring *scoring = container_of(score, struct scoring, score);
    Reelkv__V1__ScoreReply reply = REELKV__V1__SCORE_REPLY__INIT;

    if (score->ok) {
        reply.hits = kvstore_make_hits(rpc_call_arena(scoring->call), score->hits, score->hit_count);
        if (reply.hits == NULL)
            score->ok = status_fail(&score->st, STATUS_EXHAUSTED, "%u hits are too many for one reply",
                                    score->hit_count);
    }
    if (score->ok) {
        reply.n_hits = score->hit_count;
        reply.scored = score->view->frames;
        rpc_call_reply(scoring->call, &reply.base, NULL);
    } else {
        rpc_call_finish(scoring->call, &score->st);
    }
    scoring_free(scoring);
}

static bool start_scoring(struct scoring *scoring, struct kvstore *kvstore,
                          const Reelkv__V1__ScoreRequest *request, struct status *st)
{
    struct view_score *score = &scoring->score;

    score->layer = request->layer;
    score->done = scored;
    if (!kvstore_read_selection(request->selection, &score->selection, st) ||
        !kvstore_make_view(kvstore, request->view, false, &score->view, st) ||
        !kvstore_read_query(score, &request->query, st))
        return false;
    if (view_score_start(score))
        return true;
    status_fail(st, STATUS_EXHAUSTED, "store %s is busy reading; try again", kvstore->options->name);
    st->retry_after_ms = RETRY_AFTER_MS;
    return false;
}

void kvstore_score(struct rpc_call *call, void *state)
{
    struct scoring *scoring = calloc(1, sizeof *scoring);
    struct status st = { 0 };

    if (scoring == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more call");
        rpc_call_finish(call, &st);
        return;
    }
    scoring->call = call;
    rpc_call_ref(call);
    if (start_scoring(scoring, state, (const Reelkv__V1__ScoreRequest *)rpc_call_request(call)->body, &st))
        return;
    rpc_call_finish(call, &st);
    scoring_free(scoring);
}

/* --- fetch --- */

struct fetch {
    struct rpc_call *call;
    struct view *view;
    struct slice_target *targets; /* in the call's memory */
    uint32_t count;
    struct slice_sender sender;
};

static bool write_slice(struct slice_sender *sender, const Reelkv__V1__SliceReply *reply,
                        const struct rpc_attachment *attachment)
{
    return rpc_call_write(sender->call, &reply->base, attachment);
}

static void fetched(struct slice_sender *sender)
{
    rpc_call_finish(sender->call, NULL);
}

static void on_writable(struct rpc_call *call, void *user)
{
    (void)call;
    slice_sender_resume(&((struct fetch *)user)->sender);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct fetch *fetch = user;

    (void)call;
    slice_sender_deinit(&fetch->sender);
    view_unref(fetch->view);
    free(fetch);
}

static void add_frame(struct fetch *fetch, const Reelkv__V1__FetchRequest *request, uint32_t index)
{
    const Reelkv__V1__FrameRef *ref = request->frames[index];
    uint32_t layers = request->layers == 0 ? 1 : request->layers;
    struct slice_target target = { .index = index,
                                   .wants_slice = request->layers > 0,
                                   .parts = (enum slice_parts)request->parts };

    target.frame = view_find(fetch->view, ref->stream, ref->seq, &target.absence);
    for (uint32_t i = 0; i < layers; i++) {
        target.layer = request->first_layer + i;
        target.wants_thumbnail = i == 0 && request->thumbnails;
        fetch->targets[fetch->count++] = target;
        if (target.frame == NULL)
            return; /* one answer is enough for what is not there */
    }
}

static bool start_fetch(struct fetch *fetch, struct kvstore *kvstore, const Reelkv__V1__FetchRequest *request,
                        struct status *st)
{
    uint32_t layers = request->layers == 0 ? 1 : request->layers;

    if (request->n_frames > LIMIT_TOP_BLOCKS)
        return status_fail(st, STATUS_INVALID, "%zu frames; at most %d at once", request->n_frames,
                           LIMIT_TOP_BLOCKS);
    if (request->parts > REELKV__V1__SLICE_PARTS__SLICE_PARTS_V)
        return status_fail(st, STATUS_INVALID, "parts %d; K and V are 0, K alone is 1, V alone 2",
                           (int)request->parts);
    if (!kvstore_make_view(kvstore, request->view, false, &fetch->view, st))
        return false;
    if (fetch->view->has_shape && (request->layers > fetch->view->geometry.layers ||
                                   request->first_layer > fetch->view->geometry.layers - request->layers))
        return status_fail(st, STATUS_INVALID, "layers %u + %u; the model has %u", request->first_layer,
                           request->layers, fetch->view->geometry.layers);
    if (!fetch->view->has_shape)
        layers = 1; /* nothing is there: one answer a frame */
    fetch->targets =
        arena_alloc(rpc_call_arena(fetch->call), (request->n_frames * layers + 1) * sizeof *fetch->targets);
    if (fetch->targets == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "%zu frames of %u layers are too many for one call",
                           request->n_frames, layers);
    for (uint32_t i = 0; i < request->n_frames; i++)
        add_frame(fetch, request, i);
    return true;
}

void kvstore_fetch(struct rpc_call *call, void *state)
{
    const Reelkv__V1__FetchRequest *request = (const Reelkv__V1__FetchRequest *)rpc_call_request(call)->body;
    struct fetch *fetch = calloc(1, sizeof *fetch);
    struct status st = { 0 };

    if (fetch == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more call");
        rpc_call_finish(call, &st);
        return;
    }
    fetch->call = call;
    fetch->sender = (struct slice_sender){ .kvstore = state,
                                           .call = call,
                                           .write = write_slice,
                                           .finished = fetched,
                                           .shm_session = request->shm_session };
    slice_sender_init(&fetch->sender);
    rpc_call_set_user(call, fetch);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    if (start_fetch(fetch, state, request, &st))
        slice_sender_start(&fetch->sender, fetch->targets, fetch->count);
    else
        rpc_call_finish(call, &st);
}
