/* Retrieve: one question at one store, layer by layer.
 *
 *   Open -> Opened
 *   Query -> scored on a computing thread -> Hits -> (Pick ->) slices in order -> LayerEnd -> the next Query
 *
 * The view is made once, so that all layers see the same blocks. When a layer has been sent, its blocks are guessed to be
 * the next one's too, and read while the caller computes (read_ahead.h): GUESS_AFTER_MS later, for one that asks again at once
 * would wait for guesses that are under way; right away when it took longer than that before the layer at hand. Replies that the call does not take at once wait
 * as a step, which on_writable does again. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "base/clock.h"
#include "kvstore/read_ahead.h"
#include "kvstore/slice_sender.h"

enum step {
    STEP_OPEN,      /* reads Open */
    STEP_OPENED,    /* writes Opened */
    STEP_QUERY,     /* reads Query */
    STEP_SCORE,     /* scoring */
    STEP_HITS,      /* writes Hits */
    STEP_PICK,      /* reads Pick */
    STEP_SLICES,    /* writes slices */
    STEP_LAYER_END, /* writes LayerEnd */
    STEP_OVER       /* has failed; the end comes */
};

enum { BUSY_MS = 5, GUESS_AFTER_MS = 2 };

struct retrieve {
    struct kvstore *kvstore;
    struct rpc_call *call; /* NULL: over */
    enum step step;
    struct view *view;
    struct kv_selection selection;
    bool pick;
    uint32_t layer;
    uint64_t next_layer; /* the least that may be asked for */
    struct view_score score;
    bool is_scoring;
    struct loop_timer busy_timer;
    struct kv_hit *hits; /* of the layer, as sent */
    uint32_t hit_count;
    struct slice_target *targets;
    uint32_t target_count;
    struct slice_sender sender;
    struct loop_timer guess_timer;
    uint64_t sent_ns; /* the layer before, and whether its caller computed for long then */
    bool is_slow;
    struct read_ahead ahead; /* of the layer that is being asked for, then of the next one */
    uint32_t read_ahead,
        used_of; /* slices of this layer that were read before, and of these the wanted ones */
};

static void go_on(struct retrieve *retrieve);

static void retrieve_free(struct retrieve *retrieve)
{
    if (retrieve->call != NULL || retrieve->is_scoring)
        return;
    view_score_deinit(&retrieve->score);
    view_unref(retrieve->view);
    free(retrieve->hits);
    free(retrieve->targets);
    free(retrieve);
}

static void fail(struct retrieve *retrieve, const struct status *st)
{
    retrieve->step = STEP_OVER;
    rpc_call_finish(retrieve->call, st);
}

/* --- writing --- */

static bool write_reply(struct retrieve *retrieve, const Reelkv__V1__RetrieveReply *reply)
{
    return rpc_call_write(retrieve->call, &reply->base, NULL);
}

static bool write_opened(struct retrieve *retrieve)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveOpened opened = REELKV__V1__RETRIEVE_OPENED__INIT;
    const struct view *view = retrieve->view;

    opened.frames = view->frames;
    opened.evicted_frames = view->evicted_frames;
    opened.gap_frames = view->gap_frames;
    opened.damaged_frames = view->damaged_frames;
    opened.first_pts_ns = view->first_pts_ns;
    opened.last_pts_ns = view->last_pts_ns;
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED;
    reply.opened = &opened;
    return write_reply(retrieve, &reply);
}

static bool write_hits(struct retrieve *retrieve)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveHits hits = REELKV__V1__RETRIEVE_HITS__INIT;
    struct arena arena = { .limit_bytes = LIMIT_CALL_BYTES };
    struct status st = { 0 };
    bool written;

    hits.layer = retrieve->layer;
    hits.n_hits = retrieve->hit_count;
    hits.hits = kvstore_make_hits(&arena, retrieve->hits, retrieve->hit_count);
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_HITS;
    reply.hits = &hits;
    if (hits.hits == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for %u hits", retrieve->hit_count);
        fail(retrieve, &st);
    }
    written = hits.hits != NULL && write_reply(retrieve, &reply);
    arena_reset(&arena);
    return written;
}

static bool write_layer_end(struct retrieve *retrieve)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveLayerEnd end = REELKV__V1__RETRIEVE_LAYER_END__INIT;

    end.layer = retrieve->layer;
    end.read_ahead = retrieve->read_ahead;
    end.read_ahead_used = retrieve->used_of;
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END;
    reply.layer_end = &end;
    return write_reply(retrieve, &reply);
}

static bool write_slice(struct slice_sender *sender, const Reelkv__V1__SliceReply *slice,
                        const struct rpc_attachment *attachment)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;

    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE;
    reply.slice = (Reelkv__V1__SliceReply *)(uintptr_t)slice;
    return rpc_call_write(sender->call, &reply.base, attachment);
}

/* --- slices --- */

/* How many of the blocks that were guessed are wanted; without memory to count them: none. */
static uint32_t wanted_guesses(const struct retrieve *retrieve)
{
    const struct index_frame **frames = malloc((retrieve->target_count + 1) * sizeof *frames);
    uint32_t count = 0;

    for (uint32_t i = 0; frames != NULL && i < retrieve->target_count; i++)
        if (retrieve->targets[i].frame != NULL)
            frames[count++] = retrieve->targets[i].frame;
    count = read_ahead_count(&retrieve->ahead, frames, count, retrieve->layer);
    free(frames);
    return count;
}

/* What has not been read by now is not guessed any more. */
static void count_guesses(struct retrieve *retrieve)
{
    struct read_ahead *ahead = &retrieve->ahead;

    read_ahead_stop(ahead);
    retrieve->read_ahead = ahead->read + ahead->waiting;
    retrieve->used_of = retrieve->read_ahead > 0 ? wanted_guesses(retrieve) : 0;
    ahead->store->ahead.used += retrieve->used_of;
}

static void guess_next(struct retrieve *retrieve)
{
    uint32_t next = retrieve->layer + 1;

    for (uint32_t i = 0; i < retrieve->target_count && next < retrieve->view->geometry.layers; i++)
        if (retrieve->targets[i].frame != NULL)
            read_ahead_add(&retrieve->ahead, retrieve->targets[i].frame, next);
    read_ahead_pump(retrieve->ahead.store);
}

static void caller_computes(struct loop_timer *timer)
{
    guess_next(container_of(timer, struct retrieve, guess_timer));
}

static void slices_sent(struct slice_sender *sender)
{
    struct retrieve *retrieve = container_of(sender, struct retrieve, sender);

    retrieve->sent_ns = clock_mono_ns();
    read_ahead_drop(&retrieve->ahead);
    if (retrieve->is_slow)
        guess_next(retrieve);
    else
        loop_timer_start(retrieve->kvstore->loop, &retrieve->guess_timer, GUESS_AFTER_MS, caller_computes);
    retrieve->step = STEP_LAYER_END;
    go_on(retrieve);
}

static void send_slices(struct retrieve *retrieve)
{
    retrieve->step = STEP_SLICES;
    count_guesses(retrieve);
    slice_sender_start(&retrieve->sender, retrieve->targets, retrieve->target_count);
}

static bool make_targets(struct retrieve *retrieve, uint32_t count)
{
    struct status st = { 0 };

    free(retrieve->targets);
    retrieve->target_count = count;
    retrieve->targets = calloc((size_t)count + 1, sizeof *retrieve->targets);
    if (retrieve->targets != NULL)
        return true;
    status_fail(&st, STATUS_EXHAUSTED, "no memory for %u blocks", count);
    fail(retrieve, &st);
    return false;
}

static void send_hits_slices(struct retrieve *retrieve)
{
    if (!make_targets(retrieve, retrieve->hit_count))
        return;
    for (uint32_t i = 0; i < retrieve->hit_count; i++)
        retrieve->targets[i] = (struct slice_target){
            .frame = retrieve->hits[i].tag, .index = i, .layer = retrieve->layer, .wants_slice = true
        };
    send_slices(retrieve);
}

static void on_pick(struct retrieve *retrieve, const Reelkv__V1__RetrievePick *pick)
{
    struct status st = { 0 };

    if (pick->layer != retrieve->layer || pick->n_frames > LIMIT_TOP_BLOCKS) {
        status_fail(&st, STATUS_INVALID, "pick of %zu frames for layer %u; layer %u was scored",
                    pick->n_frames, pick->layer, retrieve->layer);
        fail(retrieve, &st);
        return;
    }
    if (!make_targets(retrieve, (uint32_t)pick->n_frames))
        return;
    for (uint32_t i = 0; i < pick->n_frames; i++) {
        struct slice_target *target = &retrieve->targets[i];

        *target = (struct slice_target){ .index = i, .layer = retrieve->layer, .wants_slice = true };
        target->frame =
            view_find(retrieve->view, pick->frames[i]->stream, pick->frames[i]->seq, &target->absence);
    }
    send_slices(retrieve);
}

/* --- scoring --- */

static void scored(struct view_score *score)
{
    struct retrieve *retrieve = container_of(score, struct retrieve, score);
    struct status st = { 0 };

    retrieve->is_scoring = false;
    if (retrieve->call == NULL) {
        retrieve_free(retrieve);
        return;
    }
    if (!score->ok) {
        fail(retrieve, &score->st);
        return;
    }
    free(retrieve->hits);
    retrieve->hit_count = score->hit_count;
    retrieve->hits = malloc((score->hit_count + 1) * sizeof *retrieve->hits);
    if (retrieve->hits == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for %u hits", score->hit_count);
        fail(retrieve, &st);
        return;
    }
    memcpy(retrieve->hits, score->hits, score->hit_count * sizeof *retrieve->hits);
    if (!retrieve->pick)
        kv_hits_sort_by_time(retrieve->hits, retrieve->hit_count);
    view_score_deinit(score);
    retrieve->step = STEP_HITS;
    go_on(retrieve);
}

static void start_score(struct retrieve *retrieve)
{
    retrieve->is_scoring = view_score_start(&retrieve->score);
    if (!retrieve->is_scoring)
        go_on(retrieve); /* the threads' queue is full: again in a moment */
}

static void no_longer_busy(struct loop_timer *timer)
{
    start_score(container_of(timer, struct retrieve, busy_timer));
}

static void on_query(struct retrieve *retrieve, const Reelkv__V1__RetrieveQuery *query)
{
    struct status st = { 0 };

    if (query->layer < retrieve->next_layer) {
        status_fail(&st, STATUS_INVALID, "query for layer %u after that for layer %llu", query->layer,
                    (unsigned long long)retrieve->next_layer - 1);
        fail(retrieve, &st);
        return;
    }
    loop_timer_stop(&retrieve->guess_timer);
    retrieve->is_slow =
        retrieve->next_layer > 0 && clock_mono_ns() - retrieve->sent_ns >= GUESS_AFTER_MS * 1000000ull;
    retrieve->layer = query->layer;
    retrieve->next_layer = (uint64_t)query->layer + 1;
    retrieve->score = (struct view_score){
        .view = retrieve->view, .selection = retrieve->selection, .layer = query->layer, .done = scored
    };
    if (!kvstore_read_query(&retrieve->score, &query->query, &st)) {
        fail(retrieve, &st);
        return;
    }
    retrieve->step = STEP_SCORE;
    start_score(retrieve);
}

/* --- the call --- */

static void on_open(struct retrieve *retrieve, const Reelkv__V1__RetrieveOpen *open)
{
    struct status st = { 0 };

    if (!kvstore_read_selection(open->selection, &retrieve->selection, &st) ||
        !kvstore_make_view(retrieve->kvstore, open->view, true, &retrieve->view, &st)) {
        fail(retrieve, &st);
        return;
    }
    retrieve->pick = open->pick;
    retrieve->sender.shm_session = open->shm_session;
    retrieve->step = STEP_OPENED;
    go_on(retrieve);
}

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct retrieve *retrieve = user;
    const Reelkv__V1__RetrieveRequest *request;
    struct status st = { 0 };

    if (message == NULL) {
        rpc_call_finish(call, NULL);
        return;
    }
    request = (const Reelkv__V1__RetrieveRequest *)message->body;
    if (retrieve->step == STEP_OPEN && request->item_case == REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN) {
        on_open(retrieve, request->open);
    } else if (retrieve->step == STEP_QUERY &&
               request->item_case == REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY) {
        on_query(retrieve, request->query);
    } else if (retrieve->step == STEP_PICK && request->item_case == REELKV__V1__RETRIEVE_REQUEST__ITEM_PICK) {
        on_pick(retrieve, request->pick);
    } else {
        status_fail(&st, STATUS_INVALID, "expected %s",
                    retrieve->step == STEP_OPEN   ? "Open"
                    : retrieve->step == STEP_PICK ? "Pick"
                                                  : "Query");
        fail(retrieve, &st);
    }
}

static void read_then(struct retrieve *retrieve, enum step step)
{
    retrieve->step = step;
    rpc_call_read(retrieve->call, on_message);
}

static void do_step(struct retrieve *retrieve)
{
    switch (retrieve->step) {
    case STEP_OPENED:
        if (write_opened(retrieve))
            read_then(retrieve, STEP_QUERY);
        break;
    case STEP_HITS:
        if (!write_hits(retrieve))
            break;
        if (retrieve->pick)
            read_then(retrieve, STEP_PICK);
        else
            send_hits_slices(retrieve);
        break;
    case STEP_SLICES:
        slice_sender_resume(&retrieve->sender);
        break;
    case STEP_LAYER_END:
        if (write_layer_end(retrieve))
            read_then(retrieve, STEP_QUERY);
        break;
    case STEP_SCORE:
        if (!retrieve->is_scoring && !loop_timer_is_running(&retrieve->busy_timer))
            loop_timer_start(retrieve->kvstore->loop, &retrieve->busy_timer, BUSY_MS, no_longer_busy);
        break;
    case STEP_OPEN:
    case STEP_QUERY:
    case STEP_PICK: /* the caller's turn */
    case STEP_OVER:
        break;
    }
}

/* Does the step at hand, if the call takes it, and those behind it. Where all of a layer is in RAM its hits, the places of its
 * slices and its end leave as one packet: each more is one more turn through the kernel for its reader. */
static void go_on(struct retrieve *retrieve)
{
    rpc_call_cork(retrieve->call);
    do_step(retrieve);
    rpc_call_uncork(retrieve->call);
}

static void on_writable(struct rpc_call *call, void *user)
{
    (void)call;
    go_on(user);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct retrieve *retrieve = user;

    (void)call;
    retrieve->call = NULL;
    loop_timer_stop(&retrieve->busy_timer);
    loop_timer_stop(&retrieve->guess_timer);
    slice_sender_deinit(&retrieve->sender);
    read_ahead_drop(&retrieve->ahead);
    retrieve_free(retrieve);
}

void kvstore_retrieve(struct rpc_call *call, void *state)
{
    struct retrieve *retrieve = calloc(1, sizeof *retrieve);
    struct status st = { 0 };

    if (retrieve == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more call");
        rpc_call_finish(call, &st);
        return;
    }
    retrieve->kvstore = state;
    retrieve->call = call;
    retrieve->ahead = (struct read_ahead){ .store = retrieve->kvstore->store, .kind = READ_AHEAD_GUESSES };
    retrieve->sender = (struct slice_sender){
        .kvstore = state, .call = call, .write = write_slice, .finished = slices_sent
    };
    slice_sender_init(&retrieve->sender);
    rpc_call_set_user(call, retrieve);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    rpc_call_read(call, on_message);
}
