#include "retriever.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"

enum { STORES_MAX = LIMIT_STREAMS_PER_QUESTION, THUMBNAIL_TIMEOUT_MS = 10000 };

/* One store of the question. Streams have an index in the question and one in what this store was asked. */
struct store {
    struct store_link *link;
    uint32_t stream_count;
    uint32_t to_question[LIMIT_STREAMS_PER_QUESTION];
    struct rpc_sync_stream *call;
    uint32_t picked;                    /* hits of this layer that come from this store */
    uint32_t pick_of[LIMIT_TOP_BLOCKS]; /* index in hits[] of the store's i-th slice */
};

struct retriever {
    const struct retriever_options *options;
    struct store stores[STORES_MAX];
    uint32_t store_count;
    uint32_t next_layer;
    struct kv_hit hits[LIMIT_TOP_BLOCKS]; /* the layer's choice, in time order; tag: its store */
    uint64_t offset_of[LIMIT_TOP_BLOCKS]; /* in bytes[] */
    bool have[LIMIT_TOP_BLOCKS];
    uint32_t hit_count;
    struct model_chosen chosen[LIMIT_TOP_BLOCKS];
    uint8_t *bytes;
    uint64_t bytes_room;
    struct retriever_totals totals;
};

/* ----------------------------------------------------------------------------------------- requests */

/* protobuf-c's structs point into this while a request is packed. */
struct view_parts {
    Reelkv__V1__View view;
    Reelkv__V1__TimeRange range;
    Reelkv__V1__StreamId ids[LIMIT_STREAMS_PER_QUESTION];
    Reelkv__V1__StreamId *id_list[LIMIT_STREAMS_PER_QUESTION];
};

static void fill_view(const struct retriever *retriever, const struct store *store, struct view_parts *parts)
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

static bool write_request(struct store *store, Reelkv__V1__RetrieveRequest *request, struct status *st)
{
    return rpc_sync_write(store->call, &request->base, NULL, st);
}

static bool send_open(struct retriever *retriever, struct store *store, struct status *st)
{
    const struct kv_selection *selection = &retriever->options->selection;
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    Reelkv__V1__Selection wanted = REELKV__V1__SELECTION__INIT;
    struct rpc_stream_options call = { .timeout_ms = retriever->options->timeout_ms,
                                       .request_id = retriever->options->request_id };
    struct view_parts parts;

    if (!rpc_sync_open(&store->call, store_link_sync(store->link), &api_retrieve, &call, st))
        return false;
    fill_view(retriever, store, &parts);
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

/* The next reply; a call that ends here ended too soon. */
static bool read_reply(struct store *store, const Reelkv__V1__RetrieveReply **reply_p,
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

static bool read_opened(struct store *store, struct retriever_view *view, struct status *st)
{
    const Reelkv__V1__RetrieveReply *reply;
    const struct rpc_payload *payload;
    const Reelkv__V1__RetrieveOpened *opened;

    if (!read_reply(store, &reply, &payload, st))
        return false;
    if (reply->item_case != REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED)
        return status_fail(st, STATUS_INTERNAL, "the store did not open the retrieval");
    opened = reply->opened;
    view->frames += opened->frames;
    view->evicted_frames += opened->evicted_frames;
    view->gap_frames += opened->gap_frames;
    if (opened->frames == 0)
        return true;
    if (view->first_pts_ns == 0 || opened->first_pts_ns < view->first_pts_ns)
        view->first_pts_ns = opened->first_pts_ns;
    if (opened->last_pts_ns > view->last_pts_ns)
        view->last_pts_ns = opened->last_pts_ns;
    return true;
}

/* ------------------------------------------------------------------------------------------ opening */

static void add_stream(struct retriever *retriever, uint32_t index)
{
    struct store_link *link = retriever->options->streams[index].link;
    struct store *store = NULL;

    for (uint32_t i = 0; i < retriever->store_count && store == NULL; i++)
        if (retriever->stores[i].link == link)
            store = &retriever->stores[i];
    if (store == NULL) {
        store = &retriever->stores[retriever->store_count++];
        store->link = link;
    }
    store->to_question[store->stream_count++] = index;
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
    for (uint32_t i = 0; i < options->stream_count; i++)
        add_stream(retriever, i);
    memset(view, 0, sizeof *view);
    for (uint32_t i = 0; i < retriever->store_count; i++) {
        if (!send_open(retriever, &retriever->stores[i], st) ||
            !read_opened(&retriever->stores[i], view, st)) {
            retriever_close(retriever);
            return false;
        }
    }
    retriever->totals.took_ns = clock_mono_ns() - started_ns;
    *retriever_p = retriever;
    return true;
}

void retriever_close(struct retriever *retriever)
{
    if (retriever == NULL)
        return;
    for (uint32_t i = 0; i < retriever->store_count; i++)
        rpc_sync_stream_destroy(retriever->stores[i].call);
    free(retriever->bytes);
    free(retriever);
}

/* ------------------------------------------------------------------------------------ choosing blocks */

static bool send_query(struct retriever *retriever, struct store *store, uint32_t layer, const float *folded,
                       struct status *st)
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

static bool take_hit(struct store *store, const Reelkv__V1__Hit *from, struct kv_hit *hit, struct status *st)
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
static bool read_hits(struct store *store, uint32_t layer, struct kv_hit *hits, uint32_t *count,
                      struct status *st)
{
    const Reelkv__V1__RetrieveReply *reply;
    const struct rpc_payload *payload;

    if (!read_reply(store, &reply, &payload, st))
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

static bool send_pick(struct retriever *retriever, struct store *store, uint32_t layer, struct status *st)
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

static bool choose(struct retriever *retriever, uint32_t layer, const float *folded, struct status *st)
{
    bool several = retriever->store_count > 1;

    retriever->hit_count = 0;
    for (uint32_t i = 0; i < retriever->store_count; i++) {
        retriever->stores[i].picked = 0;
        if (!send_query(retriever, &retriever->stores[i], layer, folded, st))
            return false;
    }
    if (several ? !merge(retriever, layer, st)
                : !read_hits(&retriever->stores[0], layer, retriever->hits, &retriever->hit_count, st))
        return false;
    if (several)
        kv_hits_sort_by_time(retriever->hits, retriever->hit_count);
    for (uint32_t i = 0; i < retriever->hit_count; i++) {
        struct store *store = retriever->hits[i].tag;

        store->pick_of[store->picked++] = i;
    }
    for (uint32_t i = 0; several && i < retriever->store_count; i++)
        if (!send_pick(retriever, &retriever->stores[i], layer, st))
            return false;
    return true;
}

/* ------------------------------------------------------------------------------------- getting bytes */

static bool make_room(struct retriever *retriever, struct status *st)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < retriever->hit_count; i++) {
        retriever->offset_of[i] = total;
        retriever->have[i] = false;
        total += 2 * kv_slice_bytes(&retriever->options->geometry, retriever->hits[i].tokens);
        total = (total + 63) / 64 * 64;
    }
    if (total > retriever->bytes_room) {
        free(retriever->bytes);
        retriever->bytes_room = 0;
        retriever->bytes = aligned_alloc(64, total);
        if (retriever->bytes == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for %llu bytes of blocks",
                               (unsigned long long)total);
        retriever->bytes_room = total;
    }
    return true;
}

/* A slice on its way: in shared memory, or inline in as many messages as it takes. */
struct arriving {
    uint32_t hit;
    uint64_t length, got;
    uint32_t crc32c;
};

static void count_missing(struct retriever *retriever, uint32_t result)
{
    uint32_t slots = sizeof retriever->totals.missing / sizeof retriever->totals.missing[0];

    retriever->totals.missing[result < slots ? result : 0]++;
}

static bool copy_shared(struct retriever *retriever, struct store *store, const Reelkv__V1__SliceHead *head,
                        uint32_t hit, struct status *st)
{
    const struct kv_shm_peer *peer = store_link_peer(store->link);
    struct kv_place place = { head->place->offset, head->place->length, head->place->generation };

    if (peer == NULL || head->place->pool != kv_shm_peer_arena_pool(peer) || place.length != head->length)
        return status_fail(st, STATUS_DATA_LOSS, "the store named memory that is not shared with it");
    if (!kv_pool_reader_copy(kv_shm_peer_arena(peer), &place, head->crc32c,
                             retriever->bytes + retriever->offset_of[hit], st))
        return status_wrap(st, "read a block from shared memory");
    retriever->have[hit] = true;
    retriever->totals.fetched_bytes += place.length;
    return true;
}

static bool take_head(struct retriever *retriever, struct store *store, const Reelkv__V1__SliceHead *head,
                      struct arriving *arriving, struct status *st)
{
    uint32_t hit;

    if (head->index >= store->picked)
        return status_fail(st, STATUS_DATA_LOSS, "the store sent a slice nobody asked for");
    hit = store->pick_of[head->index];
    if (head->result != REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK) {
        count_missing(retriever, (uint32_t)head->result);
        return true;
    }
    if (head->tokens != retriever->hits[hit].tokens ||
        head->length != 2 * kv_slice_bytes(&retriever->options->geometry, head->tokens))
        return status_fail(st, STATUS_DATA_LOSS, "the store sent a slice of %llu bytes, %u tokens",
                           (unsigned long long)head->length, head->tokens);
    if (head->place != NULL)
        return copy_shared(retriever, store, head, hit, st);
    *arriving = (struct arriving){ hit, head->length, 0, head->crc32c };
    return true;
}

static bool take_bytes(struct retriever *retriever, const struct rpc_payload *payload,
                       struct arriving *arriving, struct status *st)
{
    uint8_t *to = retriever->bytes + retriever->offset_of[arriving->hit];

    if (payload->len == 0)
        return true;
    if (payload->len > arriving->length - arriving->got)
        return status_fail(st, STATUS_DATA_LOSS, "the store sent more bytes than it said");
    rpc_payload_copy(payload, 0, to + arriving->got, payload->len);
    arriving->got += payload->len;
    if (arriving->got < arriving->length)
        return true;
    if (kv_crc(0, to, arriving->length) != arriving->crc32c)
        return status_fail(st, STATUS_DATA_LOSS, "a block does not fit its checksum");
    retriever->have[arriving->hit] = true;
    retriever->totals.fetched_bytes += arriving->length;
    *arriving = (struct arriving){ 0 };
    return true;
}

/* Slices until the store says that the layer is complete. */
static bool read_slices(struct retriever *retriever, struct store *store, uint32_t layer, struct status *st)
{
    struct arriving arriving = { 0 };

    for (;;) {
        const Reelkv__V1__RetrieveReply *reply;
        const struct rpc_payload *payload;

        if (!read_reply(store, &reply, &payload, st))
            return false;
        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END &&
            reply->layer_end->layer == layer && arriving.got == arriving.length)
            return true;
        if (reply->item_case != REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE)
            return status_fail(st, STATUS_INTERNAL, "the store did not send layer %u", layer);
        if (reply->slice->head != NULL && !take_head(retriever, store, reply->slice->head, &arriving, st))
            return false;
        if (!take_bytes(retriever, payload, &arriving, st))
            return false;
    }
}

bool retriever_layer(void *retriever_, uint32_t layer, const float *folded,
                     const struct model_chosen **chosen_p, size_t *count_p, struct status *st)
{
    struct retriever *retriever = retriever_;
    uint64_t started_ns = clock_mono_ns();
    size_t count = 0;

    REQUIRE(layer == retriever->next_layer);
    if (!choose(retriever, layer, folded, st) || !make_room(retriever, st))
        return status_wrap(st, "retrieve layer %u", layer);
    for (uint32_t i = 0; i < retriever->store_count; i++)
        if (!read_slices(retriever, &retriever->stores[i], layer, st))
            return status_wrap(st, "retrieve layer %u", layer);
    for (uint32_t i = 0; i < retriever->hit_count; i++)
        if (retriever->have[i])
            retriever->chosen[count++] = (struct model_chosen){ retriever->bytes + retriever->offset_of[i],
                                                                retriever->hits[i].tokens };
    retriever->next_layer++;
    retriever->totals.took_ns += clock_mono_ns() - started_ns;
    *chosen_p = retriever->chosen;
    *count_p = count;
    return true;
}

const struct kv_hit *retriever_hits(const struct retriever *retriever, uint32_t *count_p)
{
    *count_p = retriever->hit_count;
    return retriever->hits;
}

const struct retriever_totals *retriever_totals(const struct retriever *retriever)
{
    return &retriever->totals;
}

/* ---------------------------------------------------------------------------------------- thumbnails */

static bool take_thumbnail(const Reelkv__V1__SliceHead *head, const uint32_t *frame_of, uint32_t asked,
                           struct retriever_thumbnail *thumbnails)
{
    struct retriever_thumbnail *thumbnail;

    if (head == NULL || head->index >= asked || head->thumbnail.len == 0 ||
        head->thumbnail.len > LIMIT_THUMBNAIL_BYTES)
        return true; /* none */
    thumbnail = &thumbnails[frame_of[head->index]];
    if (thumbnail->data != NULL)
        return true;
    thumbnail->data = malloc(head->thumbnail.len);
    if (thumbnail->data == NULL)
        return false;
    memcpy(thumbnail->data, head->thumbnail.data, head->thumbnail.len);
    thumbnail->len = (uint32_t)head->thumbnail.len;
    return true;
}

static bool fetch_thumbnails(struct retriever *retriever, struct store *store, const struct kv_hit *frames,
                             uint32_t count, struct retriever_thumbnail *thumbnails, struct status *st)
{
    struct rpc_stream_options call = { .timeout_ms = THUMBNAIL_TIMEOUT_MS };
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__FrameRef *refs = calloc(count, sizeof *refs);
    Reelkv__V1__FrameRef **list = calloc(count, sizeof *list);
    uint32_t *frame_of = calloc(count, sizeof *frame_of), asked = 0;
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    struct view_parts parts;
    bool ok = refs != NULL && list != NULL && frame_of != NULL;

    for (uint32_t i = 0; ok && i < count; i++) {
        for (uint32_t s = 0; s < store->stream_count; s++) {
            if (store->to_question[s] != frames[i].stream)
                continue;
            refs[asked] = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
            refs[asked].stream = s;
            refs[asked].seq = frames[i].seq;
            list[asked] = &refs[asked];
            frame_of[asked++] = i;
        }
    }
    fill_view(retriever, store, &parts);
    request.view = &parts.view;
    request.n_frames = asked;
    request.frames = list;
    request.thumbnails = true;
    ok = ok &&
         (asked == 0 || (rpc_sync_open(&stream, store_link_sync(store->link), &api_fetch, &call, st) &&
                         rpc_sync_write(stream, &request.base, NULL, st) && rpc_sync_half_close(stream, st)));
    while (ok && asked > 0 && (ok = rpc_sync_read(stream, &message, st)) && message != NULL)
        ok = take_thumbnail(((const Reelkv__V1__SliceReply *)message->body)->head, frame_of, asked,
                            thumbnails);
    rpc_sync_stream_destroy(stream);
    free(refs);
    free(list);
    free(frame_of);
    return ok;
}

bool retriever_thumbnails(struct retriever *retriever, const struct kv_hit *frames, uint32_t count,
                          struct retriever_thumbnail *thumbnails, struct status *st)
{
    for (uint32_t i = 0; count > 0 && i < retriever->store_count; i++)
        if (!fetch_thumbnails(retriever, &retriever->stores[i], frames, count, thumbnails, st))
            return status_wrap(st, "fetch thumbnails");
    return true;
}
