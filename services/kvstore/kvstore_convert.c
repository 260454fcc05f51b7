/* Requests as they come over the wire, checked, in the core's own words; and back. */
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "kv/kv_score.h"
#include "kvstore/kvstore.h"

bool kvstore_read_id(const Reelkv__V1__StreamId *id, struct status *st)
{
    if (id == NULL)
        return status_fail(st, STATUS_INVALID, "the request names no stream");
    return name_check("namespace", id->namespace_, st) && name_check("stream", id->name, st);
}

struct stream *kvstore_stream_of(const struct kvstore *kvstore, const Reelkv__V1__StreamId *id,
                                 struct status *st)
{
    struct stream *stream;

    if (!kvstore_read_id(id, st))
        return NULL;
    stream = store_find(kvstore->store, id->namespace_, id->name);
    if (stream == NULL)
        store_say_absent(kvstore->store, id->namespace_, id->name, st);
    return stream;
}

bool kvstore_read_fingerprint(const ProtobufCBinaryData *bytes, uint8_t fingerprint[KV_FINGERPRINT_BYTES],
                              struct status *st)
{
    if (bytes->len != KV_FINGERPRINT_BYTES)
        return status_fail(st, STATUS_INVALID, "fingerprint has %zu bytes, not %d", bytes->len,
                           KV_FINGERPRINT_BYTES);
    memcpy(fingerprint, bytes->data, KV_FINGERPRINT_BYTES);
    return true;
}

bool kvstore_read_selection(const Reelkv__V1__Selection *message, struct kv_selection *selection,
                            struct status *st)
{
    if (message == NULL)
        return status_fail(st, STATUS_INVALID, "the request has no selection");
    *selection = (struct kv_selection){ .kind = (enum kv_selector_kind)message->kind,
                                        .top_r = message->top_r,
                                        .recent_window = message->recent_window };
    return kv_selection_check(selection, st);
}

bool kvstore_make_view(struct kvstore *kvstore, const Reelkv__V1__View *message, bool only_readable,
                       struct view **view_p, struct status *st)
{
    struct view_stream_name names[LIMIT_STREAMS_PER_QUESTION];
    struct view_request request = { .streams = names, .only_readable = only_readable };

    if (message == NULL)
        return status_fail(st, STATUS_INVALID, "the request has no view");
    if (message->n_streams < 1 || message->n_streams > LIMIT_STREAMS_PER_QUESTION)
        return status_fail(st, STATUS_INVALID, "view: %zu streams; 1 to %d are allowed", message->n_streams,
                           LIMIT_STREAMS_PER_QUESTION);
    for (size_t i = 0; i < message->n_streams; i++) {
        if (!kvstore_read_id(message->streams[i], st))
            return false;
        names[i] = (struct view_stream_name){ message->streams[i]->namespace_, message->streams[i]->name };
    }
    request.stream_count = (uint32_t)message->n_streams;
    if (!kvstore_read_fingerprint(&message->fingerprint, request.fingerprint, st))
        return false;
    if (message->range != NULL) {
        request.from_ns = message->range->from_ns;
        request.to_ns = message->range->to_ns;
    } else {
        request.from_ns = INT64_MIN;
    }
    request.as_of_ns = message->as_of_ns;
    return view_create(view_p, kvstore->store, &request, st);
}

bool kvstore_read_query(struct view_score *score, const ProtobufCBinaryData *query, struct status *st)
{
    const struct view *view = score->view;

    if (!view->has_shape)
        return true; /* no blocks: nothing to compare the query with */
    if (score->layer >= view->geometry.layers)
        return status_fail(st, STATUS_INVALID, "layer %u; the model has %u", score->layer,
                           view->geometry.layers);
    if (query->len == 0 && !kv_selection_uses_scores(&score->selection))
        return true;
    score->query = malloc(kv_key_dims(&view->geometry) * sizeof *score->query);
    if (score->query == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a query");
    return kv_query_read(&view->geometry, query->data, query->len, score->query, st);
}

Reelkv__V1__Hit **kvstore_make_hits(struct arena *arena, const struct kv_hit *hits, uint32_t count)
{
    struct made {
        Reelkv__V1__Hit hit;
        Reelkv__V1__FrameRef frame;
    } *made = arena_alloc(arena, (count + 1) * sizeof *made);
    Reelkv__V1__Hit **list = arena_alloc(arena, (count + 1) * sizeof *list);

    for (uint32_t i = 0; made != NULL && list != NULL && i < count; i++) {
        reelkv__v1__hit__init(&made[i].hit);
        reelkv__v1__frame_ref__init(&made[i].frame);
        made[i].frame.stream = hits[i].stream;
        made[i].frame.seq = hits[i].seq;
        made[i].hit.frame = &made[i].frame;
        made[i].hit.pts_ns = hits[i].pts_ns;
        made[i].hit.score = hits[i].score;
        made[i].hit.tokens = hits[i].tokens;
        made[i].hit.recent = hits[i].recent;
        list[i] = &made[i].hit;
    }
    return made == NULL ? NULL : list;
}
