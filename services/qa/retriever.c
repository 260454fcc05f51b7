#include "retriever.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"
#include "retriever_internal.h"

/* ----------------------------------------------------------------------------------------- requests */

void retriever_fill_view(const struct retriever *retriever, const struct retriever_store *store,
                         struct view_parts *parts)
{
    const struct retriever_options *options = retriever->options;

    parts->view = (Reelkv__V1__View)REELKV__V1__VIEW__INIT;
    parts->range = (Reelkv__V1__TimeRange)REELKV__V1__TIME_RANGE__INIT;
    for (uint32_t i = 0; i < store->stream_count; i++) {
        parts->ids[i] = (Reelkv__V1__StreamId)REELKV__V1__STREAM_ID__INIT;
        parts->ids[i].namespace_ = (char *)(uintptr_t)options->ns;
        parts->ids[i].name = (char *)(uintptr_t)options->streams[store->to_question[i]].name;
        parts->id_list[i] = &parts->ids[i];
    }
    parts->view.n_streams = store->stream_count;
    parts->view.streams = parts->id_list;
    parts->view.fingerprint =
        (ProtobufCBinaryData){ MODEL_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)options->fingerprint };
    parts->range.from_ns = options->from_ns;
    parts->range.to_ns = options->to_ns;
    parts->view.range = &parts->range;
    parts->view.as_of_ns = options->as_of_ns;
}

static bool write_request(struct retriever_store *store, Reelkv__V1__RetrieveRequest *request,
                          struct status *st)
{
    return rpc_sync_write(store->call, &request->base, NULL, st);
}

static bool send_open(struct retriever *retriever, struct retriever_store *store, struct status *st)
{
    const struct kv_selection *selection = &retriever->options->selection;
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    Reelkv__V1__Selection wanted = REELKV__V1__SELECTION__INIT;
    struct rpc_stream_options call = { .timeout_ms = retriever->options->timeout_ms,
                                       .request_id = retriever->options->request_id };
    struct view_parts parts;

    if (!store_calls_open(retriever->options->calls, &store->call, store_link_sync(store->link),
                          &api_retrieve, &call, st))
        return false;
    retriever_fill_view(retriever, store, &parts);
    wanted.kind = (Reelkv__V1__SelectorKind)selection->kind;
    wanted.top_r = selection->top_r;
    wanted.recent_window = selection->recent_window;
    open.view = &parts.view;
    open.selection = &wanted;
    open.pick = retriever->store_count > 1;
    if (store_link_peer(store->link) != NULL && kv_shm_peer_is_alive(store_link_peer(store->link)))
        open.shm_session = kv_shm_peer_session(store_link_peer(store->link));
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    return write_request(store, &request, st);
}

bool retriever_read_reply(struct retriever_store *store, const Reelkv__V1__RetrieveReply **reply_p,
                          const struct rpc_payload **payload_p, struct status *st)
{
    const struct rpc_message *message;

    if (!rpc_sync_read(store->call, &message, st))
        return false;
    if (message == NULL)
        return status_fail(st, STATUS_UNAVAILABLE, "the store ended the retrieval");
    *reply_p = (const Reelkv__V1__RetrieveReply *)message->body;
    *payload_p = &message->payload;
    return true;
}

static bool read_opened(struct retriever_store *store, struct retriever_view *view, struct status *st)
{
    const Reelkv__V1__RetrieveReply *reply;
    const struct rpc_payload *payload;
    const Reelkv__V1__RetrieveOpened *opened;

    if (!retriever_read_reply(store, &reply, &payload, st))
        return false;
    if (reply->item_case != REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED)
        return status_fail(st, STATUS_INTERNAL, "the store did not open the retrieval");
    opened = reply->opened;
    view->frames += opened->frames;
    view->evicted_frames += opened->evicted_frames;
    view->gap_frames += opened->gap_frames;
    view->damaged_frames += opened->damaged_frames;
    return true;
}

/* ------------------------------------------------------------------------------------------ opening */

static void add_stream(struct retriever *retriever, uint32_t index)
{
    struct store_link *link = retriever->options->streams[index].link;
    struct retriever_store *store = NULL;

    for (uint32_t i = 0; i < retriever->store_count && store == NULL; i++)
        if (retriever->stores[i].link == link)
            store = &retriever->stores[i];
    if (store == NULL) {
        store = &retriever->stores[retriever->store_count++];
        store->link = link;
    }
    store->to_question[store->stream_count++] = index;
}

/* Selector external: the frames are given; the stores say how large they are and when they were. */
static bool look_up_all(struct retriever *retriever, struct retriever_view *view, struct status *st)
{
    const struct retriever_options *options = retriever->options;
    uint32_t found = 0;

    for (uint32_t i = 0; i < options->frame_count; i++) {
        retriever->hits[i] =
            (struct kv_hit){ .stream = options->frames[i].stream, .seq = options->frames[i].seq };
        for (uint32_t s = 0; s < retriever->store_count; s++)
            if (retriever->stores[s].link == options->streams[options->frames[i].stream].link)
                retriever->hits[i].tag = &retriever->stores[s];
    }
    retriever->hit_count = options->frame_count;
    for (uint32_t s = 0; s < retriever->store_count; s++)
        if (!retriever_look_up(retriever, &retriever->stores[s], st))
            return false;
    for (uint32_t i = 0; i < retriever->hit_count; i++)
        if (retriever->hits[i].tokens > 0)
            retriever->hits[found++] = retriever->hits[i];
    retriever->hit_count = found;
    kv_hits_sort_by_time(retriever->hits, found);
    view->frames = found;
    return true;
}

static bool open_all(struct retriever *retriever, struct retriever_view *view, struct status *st)
{
    for (uint32_t i = 0; i < retriever->store_count; i++)
        if (!send_open(retriever, &retriever->stores[i], st) || !read_opened(&retriever->stores[i], view, st))
            return false;
    return true;
}

bool retriever_open(struct retriever **retriever_p, const struct retriever_options *options,
                    struct retriever_view *view, struct status *st)
{
    uint64_t started_ns = clock_mono_ns();
    struct retriever *retriever = calloc(1, sizeof *retriever);

    REQUIRE(options->stream_count >= 1 && options->stream_count <= LIMIT_STREAMS_PER_QUESTION);
    if (retriever == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to retrieve");
    retriever->options = options;
    retriever->due_ns = started_ns + (uint64_t)options->timeout_ms * 1000000;
    for (uint32_t i = 0; i < options->stream_count; i++)
        add_stream(retriever, i);
    memset(view, 0, sizeof *view);
    if (options->external ? !look_up_all(retriever, view, st) : !open_all(retriever, view, st)) {
        retriever_close(retriever);
        return false;
    }
    retriever->totals.took_ns = clock_mono_ns() - started_ns;
    *retriever_p = retriever;
    return true;
}

void retriever_let_go(struct retriever *retriever)
{
    for (uint32_t i = 0; i < retriever->store_count; i++) {
        store_calls_close(retriever->options->calls, retriever->stores[i].call);
        retriever->stores[i].call = NULL;
    }
}

void retriever_close(struct retriever *retriever)
{
    if (retriever == NULL)
        return;
    retriever_let_go(retriever);
    free(retriever->bytes);
    free(retriever);
}

/* ------------------------------------------------------------------------------------ choosing blocks */

static bool send_query(struct retriever *retriever, struct retriever_store *store, uint32_t layer,
                       const float *folded, struct status *st)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery query = REELKV__V1__RETRIEVE_QUERY__INIT;

    query.layer = layer;
    query.query = (ProtobufCBinaryData){ kv_key_dims(&retriever->options->geometry) * sizeof *folded,
                                         (uint8_t *)(uintptr_t)folded };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &query;
    return write_request(store, &request, st);
}

static bool take_hit(struct retriever_store *store, const Reelkv__V1__Hit *from, struct kv_hit *hit,
                     struct status *st)
{
    if (from->frame == NULL || from->frame->stream >= store->stream_count || from->tokens == 0 ||
        from->tokens > LIMIT_FRAME_TOKENS)
        return status_fail(st, STATUS_DATA_LOSS, "the store chose a block that cannot be");
    *hit = (struct kv_hit){
        .score = from->score,
        .stream = store->to_question[from->frame->stream],
        .seq = from->frame->seq,
        .pts_ns = from->pts_ns,
        .tokens = from->tokens,
        .recent = from->recent,
        .tag = store,
    };
    return true;
}

/* The store's hits of this layer go behind those already in `hits`. */
static bool read_hits(struct retriever_store *store, uint32_t layer, struct kv_hit *hits, uint32_t *count,
                      struct status *st)
{
    const Reelkv__V1__RetrieveReply *reply;
    const struct rpc_payload *payload;

    if (!retriever_read_reply(store, &reply, &payload, st))
        return false;
    if (reply->item_case != REELKV__V1__RETRIEVE_REPLY__ITEM_HITS || reply->hits->layer != layer)
        return status_fail(st, STATUS_INTERNAL, "the store did not answer layer %u", layer);
    if (reply->hits->n_hits > LIMIT_TOP_BLOCKS - *count)
        return status_fail(st, STATUS_DATA_LOSS, "the store chose %zu blocks", reply->hits->n_hits);
    for (size_t i = 0; i < reply->hits->n_hits; i++)
        if (!take_hit(store, reply->hits->hits[i], &hits[*count + i], st))
            return false;
    *count += (uint32_t)reply->hits->n_hits;
    return true;
}

static bool send_pick(struct retriever *retriever, struct retriever_store *store, uint32_t layer,
                      struct status *st)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrievePick pick = REELKV__V1__RETRIEVE_PICK__INIT;
    Reelkv__V1__FrameRef *refs = calloc(store->picked + 1, sizeof *refs);
    Reelkv__V1__FrameRef **list = calloc(store->picked + 1, sizeof *list);
    bool ok = refs != NULL && list != NULL;

    for (uint32_t i = 0; ok && i < store->picked; i++) {
        const struct kv_hit *hit = &retriever->hits[store->pick_of[i]];

        refs[i] = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
        refs[i].seq = hit->seq;
        while (store->to_question[refs[i].stream] != hit->stream)
            refs[i].stream++;
        list[i] = &refs[i];
    }
    pick.layer = layer;
    pick.n_frames = store->picked;
    pick.frames = list;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_PICK;
    request.pick = &pick;
    ok = ok ? write_request(store, &request, st) : status_fail(st, STATUS_EXHAUSTED, "no memory to pick");
    free(refs);
    free(list);
    return ok;
}

/* Several stores: the best of all their choices, exactly as one store would have chosen. */
static bool merge(struct retriever *retriever, uint32_t layer, struct status *st)
{
    struct kv_hit *offered = calloc(LIMIT_TOP_BLOCKS, sizeof *offered);
    struct kv_select *select = NULL;
    const struct kv_hit *best;
    bool ok = offered != NULL && kv_select_create(&select, &retriever->options->selection, st);

    if (offered == NULL)
        status_fail(st, STATUS_EXHAUSTED, "no memory to merge");
    for (uint32_t i = 0; ok && i < retriever->store_count; i++) {
        uint32_t count = 0;

        ok = read_hits(&retriever->stores[i], layer, offered, &count, st);
        if (ok)
            kv_select_offer(select, offered, count);
    }
    ok = ok && kv_select_finish(select, &best, &retriever->hit_count, st);
    if (ok)
        memcpy(retriever->hits, best, retriever->hit_count * sizeof *best);
    kv_select_destroy(select);
    free(offered);
    return ok;
}

/* Which of the hits each store sends, in their order. */
static void share_out(struct retriever *retriever)
{
    for (uint32_t i = 0; i < retriever->store_count; i++)
        retriever->stores[i].picked = retriever->stores[i].told = 0;
    for (uint32_t i = 0; i < retriever->hit_count; i++) {
        struct retriever_store *store = retriever->hits[i].tag;

        store->pick_of[store->picked++] = i;
    }
}

static bool choose(struct retriever *retriever, uint32_t layer, const float *folded, struct status *st)
{
    bool several = retriever->store_count > 1;

    retriever->hit_count = 0;
    for (uint32_t i = 0; i < retriever->store_count; i++)
        if (!send_query(retriever, &retriever->stores[i], layer, folded, st))
            return false;
    if (several ? !merge(retriever, layer, st)
                : !read_hits(&retriever->stores[0], layer, retriever->hits, &retriever->hit_count, st))
        return false;
    if (several)
        kv_hits_sort_by_time(retriever->hits, retriever->hit_count);
    share_out(retriever);
    for (uint32_t i = 0; several && i < retriever->store_count; i++)
        if (!send_pick(retriever, &retriever->stores[i], layer, st))
            return false;
    return true;
}

/* What has come of the layer. */
static void gather(struct retriever *retriever)
{
    retriever->chosen_count = 0;
    for (uint32_t i = 0; i < retriever->hit_count; i++) {
        const struct kv_hit *hit = &retriever->hits[i];
        uint32_t at = retriever->chosen_count;

        if (!retriever->have[i])
            continue;
        retriever->chosen[at] =
            (struct model_chosen){ retriever->bytes + retriever->offset_of[i], hit->tokens };
        retriever->chosen_hits[at] = *hit;
        retriever->chosen_count++;
    }
}

/* The store would refuse such a query as the asker's mistake. */
static bool check_query(const struct retriever *retriever, uint32_t layer, const float *folded,
                        struct status *st)
{
    for (uint32_t i = 0; i < kv_key_dims(&retriever->options->geometry); i++)
        if (!isfinite(folded[i]))
            return status_fail(
                st, STATUS_INTERNAL,
                "the model's numbers are not finite in layer %u: its weights are damaged, or too "
                "large for its dtype; fetch the checkpoint again, or try another dtype",
                layer);
    return true;
}

bool retriever_layer(void *retriever_, uint32_t layer, const float *folded,
                     const struct model_chosen **chosen_p, size_t *count_p, struct status *st)
{
    struct retriever *retriever = retriever_;
    uint64_t started_ns = clock_mono_ns();
    uint32_t left_ms;

    REQUIRE(layer == retriever->next_layer);
    if (!retriever_time_left(retriever, &left_ms, st)) /* before a call's deadline puts it on the store */
        return false;
    if (retriever->options->external)
        share_out(retriever);
    else if (!check_query(retriever, layer, folded, st))
        return false;
    else if (!choose(retriever, layer, folded, st))
        return status_wrap(st, "retrieve layer %u", layer);
    if (!retriever_make_room(retriever, st))
        return false;
    for (uint32_t i = 0; i < retriever->store_count; i++) {
        struct retriever_store *store = &retriever->stores[i];

        if (retriever->options->external ? !retriever_fetch_layer(retriever, store, layer, st)
                                         : !retriever_read_layer(retriever, store, layer, st))
            return status_wrap(st, "retrieve layer %u", layer);
    }
    gather(retriever);
    retriever->next_layer++;
    retriever->totals.took_ns += clock_mono_ns() - started_ns;
    *chosen_p = retriever->chosen;
    *count_p = retriever->chosen_count;
    return true;
}

const struct kv_hit *retriever_hits(const struct retriever *retriever, uint32_t *count_p)
{
    *count_p = retriever->chosen_count;
    return retriever->chosen_hits;
}

const struct retriever_totals *retriever_totals(const struct retriever *retriever)
{
    return &retriever->totals;
}
