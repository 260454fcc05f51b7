#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "retriever_internal.h"

enum { THUMBNAILS_TIMEOUT_MS = 10000 };

bool retriever_make_room(struct retriever *retriever, struct status *st)
{
    uint64_t total = 0, tokens = 0;

    for (uint32_t i = 0; i < retriever->hit_count; i++)
        tokens += retriever->hits[i].tokens;
    if (tokens > retriever->options->tokens_max)
        return status_fail(st, STATUS_INVALID,
                           "%u blocks have %llu tokens; the limit is %u: choose fewer blocks",
                           retriever->hit_count, (unsigned long long)tokens, retriever->options->tokens_max);
    for (uint32_t i = 0; i < retriever->hit_count; i++) {
        retriever->offset_of[i] = total;
        retriever->told[i] = retriever->have[i] = false;
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
    uint32_t crc32c, crc; /* as the store said, and of what has come */
};

static void count_missing(struct retriever *retriever, uint32_t result)
{
    uint32_t slots = sizeof retriever->totals.missing / sizeof retriever->totals.missing[0];

    retriever->totals.missing[result < slots ? result : 0]++;
}

static bool copy_shared(struct retriever *retriever, struct retriever_store *store,
                        const Reelkv__V1__SliceHead *head, uint32_t hit, struct status *st)
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

static bool has_bytes(Reelkv__V1__FrameResult result)
{
    return result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK ||
           result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_DERIVED;
}

static bool take_head(struct retriever *retriever, struct retriever_store *store,
                      const Reelkv__V1__SliceHead *head, struct arriving *arriving, struct status *st)
{
    uint32_t hit;

    if (head->index >= store->picked || retriever->told[store->pick_of[head->index]])
        return status_fail(st, STATUS_DATA_LOSS, "the store sent a slice nobody asked for");
    if (arriving->got < arriving->length)
        return status_fail(st, STATUS_DATA_LOSS, "the store began a slice in the middle of another");
    hit = store->pick_of[head->index];
    retriever->told[hit] = true;
    store->told++;
    if (!has_bytes(head->result)) {
        count_missing(retriever, (uint32_t)head->result);
        return true;
    }
    retriever->totals.derived += head->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_DERIVED;
    if (head->tokens != retriever->hits[hit].tokens ||
        head->length != 2 * kv_slice_bytes(&retriever->options->geometry, head->tokens))
        return status_fail(st, STATUS_DATA_LOSS, "the store sent a slice of %llu bytes, %u tokens",
                           (unsigned long long)head->length, head->tokens);
    if (head->place != NULL)
        return copy_shared(retriever, store, head, hit, st);
    *arriving = (struct arriving){ hit, head->length, 0, head->crc32c, 0 };
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
    for (uint32_t i = 0; i < payload->piece_count; i++) {
        const struct bytes *piece = &payload->pieces[i];

        arriving->crc = kv_crc_copy(arriving->crc, to + arriving->got, piece->data, piece->len);
        arriving->got += piece->len;
    }
    if (arriving->got < arriving->length)
        return true;
    if (arriving->crc != arriving->crc32c)
        return status_fail(st, STATUS_DATA_LOSS, "a block does not fit its checksum");
    retriever->have[arriving->hit] = true;
    retriever->totals.fetched_bytes += arriving->length;
    *arriving = (struct arriving){ 0 };
    return true;
}

/* A message: one slice or a part of it, or several in shared memory. */
static bool take_reply(struct retriever *retriever, struct retriever_store *store,
                       const Reelkv__V1__SliceReply *reply, const struct rpc_payload *payload,
                       struct arriving *arriving, struct status *st)
{
    if (reply->head != NULL && !take_head(retriever, store, reply->head, arriving, st))
        return false;
    for (size_t i = 0; i < reply->n_more; i++)
        if (!take_head(retriever, store, reply->more[i], arriving, st))
            return false;
    return take_bytes(retriever, payload, arriving, st);
}

/* Every block asked for has come, or the store has said why not. */
static bool check_complete(const struct retriever_store *store, const struct arriving *arriving,
                           struct status *st)
{
    return (store->told == store->picked && arriving->got == arriving->length) ||
           status_fail(st, STATUS_DATA_LOSS, "the store sent %u of %u blocks", store->told, store->picked);
}

/* Slices until the store says that the layer is complete. */
bool retriever_read_layer(struct retriever *retriever, struct retriever_store *store, uint32_t layer,
                          struct status *st)
{
    struct arriving arriving = { 0 };

    for (;;) {
        const Reelkv__V1__RetrieveReply *reply;
        const struct rpc_payload *payload;

        if (!retriever_read_reply(store, &reply, &payload, st))
            return false;
        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END &&
            reply->layer_end->layer == layer)
            return check_complete(store, &arriving, st);
        if (reply->item_case != REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE)
            return status_fail(st, STATUS_INTERNAL, "the store did not send layer %u", layer);
        if (!take_reply(retriever, store, reply->slice, payload, &arriving, st))
            return false;
    }
}

/* ---------------------------------------------------------------------------------------------- fetch */

/* One Fetch call: the frames of `frames` that this store has, and who takes each reply. */
struct fetch {
    const struct kv_hit *frames;
    uint32_t count;
    uint32_t first_layer, layers;
    bool thumbnails;
    bool (*take)(struct fetch *fetch, const Reelkv__V1__SliceReply *reply, const struct rpc_payload *payload,
                 struct status *st);
    void *arg;
    struct retriever *retriever;
    struct retriever_store *store;
    uint32_t frame_of[LIMIT_TOP_BLOCKS]; /* of the i-th frame asked for: its index in frames[] */
    uint32_t asked;
    struct arriving arriving;
    Reelkv__V1__FrameRef refs[LIMIT_TOP_BLOCKS];
    Reelkv__V1__FrameRef *list[LIMIT_TOP_BLOCKS];
};

static void name_frames(struct fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->count; i++) {
        for (uint32_t s = 0; s < fetch->store->stream_count; s++) {
            Reelkv__V1__FrameRef *ref = &fetch->refs[fetch->asked];

            if (fetch->store->to_question[s] != fetch->frames[i].stream)
                continue;
            *ref = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
            ref->stream = s;
            ref->seq = fetch->frames[i].seq;
            fetch->list[fetch->asked] = ref;
            fetch->frame_of[fetch->asked++] = i;
        }
    }
}

bool retriever_time_left(const struct retriever *retriever, uint32_t *ms_p, struct status *st)
{
    uint64_t now_ns = clock_mono_ns();

    if (now_ns + 1000000 > retriever->due_ns)
        return status_fail(st, STATUS_DEADLINE,
                           "choosing and reading frames took longer than retrieve_ms, %u ms",
                           retriever->options->timeout_ms);
    *ms_p = (uint32_t)((retriever->due_ns - now_ns) / 1000000);
    return true;
}

static bool send_fetch(struct fetch *fetch, struct rpc_sync_stream **stream_p, struct status *st)
{
    const struct retriever_options *options = fetch->retriever->options;
    const struct kv_shm_peer *peer = store_link_peer(fetch->store->link);
    struct rpc_stream_options call = { .timeout_ms = THUMBNAILS_TIMEOUT_MS,
                                       .request_id = options->request_id };
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    struct view_parts parts;

    if (!fetch->thumbnails && !retriever_time_left(fetch->retriever, &call.timeout_ms, st))
        return false;
    retriever_fill_view(fetch->retriever, fetch->store, &parts);
    request.view = &parts.view;
    request.n_frames = fetch->asked;
    request.frames = fetch->list;
    request.first_layer = fetch->first_layer;
    request.layers = fetch->layers;
    request.thumbnails = fetch->thumbnails;
    if (fetch->layers > 0 && peer != NULL && kv_shm_peer_is_alive(peer))
        request.shm_session = kv_shm_peer_session(peer);
    return store_calls_open(options->calls, stream_p, store_link_sync(fetch->store->link), &api_fetch, &call,
                            st) &&
           rpc_sync_write(*stream_p, &request.base, NULL, st) && rpc_sync_half_close(*stream_p, st);
}

static bool run_fetch(struct fetch *fetch, struct status *st)
{
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    bool ok;

    fetch->asked = 0;
    name_frames(fetch);
    if (fetch->asked == 0)
        return true;
    ok = send_fetch(fetch, &stream, st);
    while (ok && (ok = rpc_sync_read(stream, &message, st)) && message != NULL)
        ok = fetch->take(fetch, (const Reelkv__V1__SliceReply *)message->body, &message->payload, st);
    store_calls_close(fetch->retriever->options->calls, stream);
    return ok;
}

static struct fetch *fetch_create(struct retriever *retriever, const struct kv_hit *frames, uint32_t count,
                                  struct status *st)
{
    struct fetch *fetch = calloc(1, sizeof *fetch);

    REQUIRE(count <= LIMIT_TOP_BLOCKS);
    if (fetch == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory to fetch");
        return NULL;
    }
    fetch->retriever = retriever;
    fetch->frames = frames;
    fetch->count = count;
    return fetch;
}

static bool take_slice(struct fetch *fetch, const Reelkv__V1__SliceReply *reply,
                       const struct rpc_payload *payload, struct status *st)
{
    return take_reply(fetch->retriever, fetch->store, reply, payload, &fetch->arriving, st);
}

bool retriever_fetch_layer(struct retriever *retriever, struct retriever_store *store, uint32_t layer,
                           struct status *st)
{
    struct fetch *fetch = fetch_create(retriever, retriever->hits, retriever->hit_count, st);
    bool ok;

    if (fetch == NULL)
        return false;
    fetch->store = store;
    fetch->first_layer = layer;
    fetch->layers = 1;
    fetch->take = take_slice;
    ok = run_fetch(fetch, st) && check_complete(store, &fetch->arriving, st);
    free(fetch);
    return ok;
}

static bool take_size(struct fetch *fetch, const Reelkv__V1__SliceReply *reply,
                      const struct rpc_payload *payload, struct status *st)
{
    struct kv_hit *hit;

    if (reply->head == NULL || reply->head->index >= fetch->asked || reply->head->tokens > LIMIT_FRAME_TOKENS)
        return status_fail(st, STATUS_DATA_LOSS, "the store described a frame nobody asked for");
    hit = &fetch->retriever->hits[fetch->frame_of[reply->head->index]];
    if (!has_bytes(reply->head->result)) {
        count_missing(fetch->retriever, (uint32_t)reply->head->result);
        return true;
    }
    hit->tokens = reply->head->tokens;
    hit->pts_ns = reply->head->pts_ns;
    return true;
}

bool retriever_look_up(struct retriever *retriever, struct retriever_store *store, struct status *st)
{
    struct fetch *fetch = fetch_create(retriever, retriever->hits, retriever->hit_count, st);
    bool ok;

    if (fetch == NULL)
        return false;
    fetch->store = store;
    fetch->take = take_size;
    ok = run_fetch(fetch, st);
    free(fetch);
    return ok;
}

static bool take_thumbnail(struct fetch *fetch, const Reelkv__V1__SliceReply *reply,
                           const struct rpc_payload *payload, struct status *st)
{
    const Reelkv__V1__SliceHead *head = reply->head;
    struct retriever_thumbnail *thumbnail;

    if (head == NULL || head->index >= fetch->asked || head->thumbnail.len == 0 ||
        head->thumbnail.len > LIMIT_THUMBNAIL_BYTES)
        return true; /* none */
    thumbnail = (struct retriever_thumbnail *)fetch->arg + fetch->frame_of[head->index];
    if (thumbnail->data != NULL)
        return true;
    thumbnail->data = malloc(head->thumbnail.len);
    if (thumbnail->data == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a thumbnail");
    memcpy(thumbnail->data, head->thumbnail.data, head->thumbnail.len);
    thumbnail->len = (uint32_t)head->thumbnail.len;
    return true;
}

bool retriever_thumbnails(struct retriever *retriever, const struct kv_hit *frames, uint32_t count,
                          struct retriever_thumbnail *thumbnails, struct status *st)
{
    struct fetch *fetch = fetch_create(retriever, frames, count, st);
    bool ok = fetch != NULL;

    for (uint32_t i = 0; ok && i < retriever->store_count; i++) {
        fetch->store = &retriever->stores[i];
        fetch->thumbnails = true;
        fetch->take = take_thumbnail;
        fetch->arg = thumbnails;
        ok = run_fetch(fetch, st);
    }
    free(fetch);
    return ok || status_wrap(st, "fetch thumbnails");
}
