#include "kill_calls.h"

enum { SLICE_BYTES_MAX = 2 * KILL_TOKENS_MAX * CLIENT_DIMS * 2 };

static bool call(struct server *server, struct reply *reply, const struct rpc_method *method,
                 const ProtobufCMessage *request, struct status *st)
{
    client_call(server, reply, method, request);
    *st = reply->st;
    return reply->ok;
}

/* --- slices --- */

/* K and V of one layer, as they come. */
struct slice {
    const struct kill_question *question;
    uint64_t seq;
    uint32_t layer;
    Reelkv__V1__FrameResult result;
    uint64_t length, got;
    uint8_t bytes[SLICE_BYTES_MAX];
};

static void end_slice(const struct slice *slice)
{
    bool has_bytes = slice->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK;

    kill_check_answer(slice->question, slice->seq, slice->result, slice->layer,
                      has_bytes ? slice->bytes : NULL, slice->got);
}

/* From the store's memory; false: another frame has taken the place. */
static bool copy_shared(struct slice *slice, const Reelkv__V1__SliceHead *head, struct kv_shm_peer *peer)
{
    const struct kv_place place = { .offset = head->place->offset,
                                    .length = head->place->length,
                                    .generation = head->place->generation };
    struct status st;

    CHECK(peer != NULL && head->place->pool == kv_shm_peer_arena_pool(peer));
    CHECK_OK(kv_pool_reader_check(kv_shm_peer_arena(peer), &place, &st), st);
    if (kv_pool_reader_copy(kv_shm_peer_arena(peer), &place, head->crc32c, slice->bytes, &st)) {
        slice->got = place.length;
        return true;
    }
    CHECK_EQ(st.code, STATUS_ABORTED);
    return false;
}

static void check_head(const struct slice *slice, const Reelkv__V1__SliceHead *head)
{
    const struct kill_stream *stream = slice->question->stream;
    uint32_t tokens = kill_tokens(stream, slice->seq);

    if (head->result != REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK || !kill_counts_still(slice->question))
        return;
    if (head->tokens == tokens && head->pts_ns == client_pts(slice->seq) &&
        head->length == 2 * kv_slice_bytes(&client_geometry, tokens))
        return;
    if (kill_counts_still(slice->question))
        test_fail(__FILE__, __LINE__, "WRONG: %s number %llu has %u tokens, not %u", stream->name,
                  (unsigned long long)slice->seq, head->tokens, tokens);
}

static void begin_slice(struct slice *slice, const Reelkv__V1__SliceHead *head, struct kv_shm_peer *peer)
{
    slice->layer = head->layer;
    slice->result = head->result;
    slice->length = head->length;
    slice->got = 0;
    CHECK(slice->length <= sizeof slice->bytes);
    check_head(slice, head);
    if (head->place != NULL && copy_shared(slice, head, peer))
        end_slice(slice);
    else if (head->place != NULL)
        slice->length = 0; /* its bytes were not seen */
    else if (slice->length == 0)
        end_slice(slice);
}

static void add_bytes(struct slice *slice, const struct rpc_payload *payload)
{
    if (payload->len == 0)
        return;
    CHECK(payload->len <= slice->length - slice->got);
    rpc_payload_copy(payload, 0, slice->bytes + slice->got, payload->len);
    slice->got += payload->len;
    if (slice->got == slice->length)
        end_slice(slice);
}

/* What a message brings: heads of the frames `seqs`, and bytes of the last one. Returns how many heads. */
static uint32_t take_message(struct slice *slice, const Reelkv__V1__SliceReply *reply,
                             const struct rpc_payload *payload, const uint64_t *seqs, size_t count,
                             struct kv_shm_peer *peer)
{
    uint32_t heads = reply->head == NULL ? 0 : 1 + (uint32_t)reply->n_more;

    for (uint32_t i = 0; i < heads; i++) {
        const Reelkv__V1__SliceHead *head = i == 0 ? reply->head : reply->more[i - 1];

        CHECK(head->index < count);
        slice->seq = seqs[head->index];
        begin_slice(slice, head, peer);
    }
    add_bytes(slice, payload);
    return heads;
}

/* --- fetch --- */

bool kill_fetch(struct server *server, struct kill_stream *stream, const uint64_t *seqs, uint32_t count,
                uint32_t layer, struct kv_shm_peer *peer, struct status *st)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__FrameRef refs[KILL_FETCH_MAX], *list[KILL_FETCH_MAX];
    const char *name = stream->name;
    const struct rpc_message *message;
    struct rpc_sync_stream *fetch;
    struct kill_question question;
    struct slice slice = { .question = &question };
    struct client_view view;
    uint32_t heads = 0;
    bool ok;

    REQUIRE(count <= KILL_FETCH_MAX);
    client_make_view(&view, &name, 1);
    for (uint32_t i = 0; i < count; i++) {
        reelkv__v1__frame_ref__init(&refs[i]);
        refs[i].seq = seqs[i];
        list[i] = &refs[i];
    }
    request.view = &view.view;
    request.frames = list;
    request.n_frames = count;
    request.first_layer = layer;
    request.layers = 1;
    request.shm_session = peer == NULL ? 0 : kv_shm_peer_session(peer);
    kill_ask(&question, stream);
    if (!rpc_sync_open(&fetch, server->client, &api_fetch, &options, st))
        return false;
    ok = rpc_sync_write(fetch, &request.base, NULL, st) && rpc_sync_half_close(fetch, st);
    while (ok && (ok = rpc_sync_read(fetch, &message, st)) && message != NULL)
        heads += take_message(&slice, (const Reelkv__V1__SliceReply *)message->body, &message->payload, seqs,
                              count, peer);
    ok = ok && rpc_sync_finish(fetch, st);
    rpc_sync_stream_destroy(fetch);
    if (ok)
        CHECK_EQ(heads, count);
    return ok;
}

/* --- retrieve --- */

static bool ask_layer(struct retrieval *retrieval, uint32_t layer, uint64_t dice)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery query = REELKV__V1__RETRIEVE_QUERY__INIT;
    float numbers[CLIENT_DIMS];

    for (uint32_t i = 0; i < CLIENT_DIMS; i++)
        numbers[i] = (float)((dice >> (i % 32) & 15) + layer) - 8;
    query.layer = layer;
    query.query = (ProtobufCBinaryData){ sizeof numbers, (uint8_t *)numbers };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &query;
    return rpc_sync_write(retrieval->call, &request.base, NULL, &retrieval->st);
}

struct hits {
    uint64_t seqs[KILL_FETCH_MAX];
    size_t count;
};

static void take_hits(struct hits *hits, const Reelkv__V1__RetrieveHits *message)
{
    CHECK(message->n_hits <= KILL_FETCH_MAX);
    hits->count = message->n_hits;
    for (size_t i = 0; i < hits->count; i++)
        hits->seqs[i] = message->hits[i]->frame->seq;
}

/* Up to the layer's end. */
static bool read_layer(struct retrieval *retrieval, struct slice *slice)
{
    const struct rpc_message *message;
    struct hits hits = { .count = 0 };

    while (rpc_sync_read(retrieval->call, &message, &retrieval->st) && message != NULL) {
        const Reelkv__V1__RetrieveReply *reply = (const Reelkv__V1__RetrieveReply *)message->body;

        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END)
            return true;
        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_HITS)
            take_hits(&hits, reply->hits);
        if (reply->item_case != REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE)
            continue;
        take_message(slice, reply->slice, &message->payload, hits.seqs, hits.count, NULL);
    }
    return false;
}

bool kill_retrieve(struct server *server, struct kill_stream *stream, uint64_t dice, struct status *st)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    const struct kv_selection selection = { KV_SELECT_REKV, 8, 2 };
    const char *name = stream->name;
    struct kill_question question;
    struct slice slice = { .question = &question };
    struct retrieval retrieval = { .peer = NULL };
    Reelkv__V1__Selection wanted;
    struct client_view view;
    bool ok;

    client_make_view(&view, &name, 1);
    client_selection(&wanted, &selection);
    open.view = &view.view;
    open.selection = &wanted;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    kill_ask(&question, stream);
    if (!rpc_sync_open(&retrieval.call, server->client, &api_retrieve, &options, st))
        return false;
    ok = rpc_sync_write(retrieval.call, &request.base, NULL, &retrieval.st);
    for (uint32_t layer = dice % 2; ok && layer < client_geometry.layers; layer += 2)
        ok = ask_layer(&retrieval, layer, dice) && read_layer(&retrieval, &slice);
    ok = ok && rpc_sync_half_close(retrieval.call, &retrieval.st) &&
         rpc_sync_finish(retrieval.call, &retrieval.st);
    rpc_sync_stream_destroy(retrieval.call);
    *st = retrieval.st;
    return ok;
}

/* --- timeline --- */

static void check_span(const struct kill_question *question, const Reelkv__V1__TimelineSpan *span)
{
    for (uint64_t seq = span->from_seq; seq < span->to_seq; seq++)
        kill_check_answer(question, seq, span->result, 0, NULL, 0);
}

bool kill_timeline(struct server *server, struct kill_stream *stream, uint64_t *end_p, struct status *st)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(stream->name);
    struct kill_question question;
    struct reply reply;
    uint64_t end = 0;
    bool ok;

    request.id = &id;
    request.page_size = 100;
    kill_ask(&question, stream);
    do {
        const Reelkv__V1__TimelineReply *timeline;

        request.after_seq = end;
        ok = call(server, &reply, &api_timeline, &request.base, st);
        timeline = reply.body;
        for (size_t i = 0; ok && i < timeline->n_spans; i++) {
            if (timeline->spans[i]->from_seq > end && kill_counts_still(&question))
                test_fail(__FILE__, __LINE__, "LOST: %s: behind %llu the timeline goes on with %llu",
                          stream->name, (unsigned long long)end,
                          (unsigned long long)timeline->spans[i]->from_seq);
            check_span(&question, timeline->spans[i]);
            end = timeline->spans[i]->to_seq;
        }
        ok = ok && (timeline->next_seq == 0 || timeline->next_seq <= end || !kill_counts_still(&question));
        request.page_size = ok && timeline->next_seq != 0 ? 100 : 0;
        client_done(&reply);
    } while (ok && request.page_size != 0);
    *end_p = end;
    return ok;
}

/* --- writing --- */

bool kill_create(struct server *server, struct kill_stream *stream, struct status *st)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId id = client_id(stream->name);
    struct reply reply;
    bool ok;

    definition.id = &id;
    definition.source = (char *)"rtsp://cam.example/1";
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    definition.sample_fps = 0.5;
    request.definition = &definition;
    stream->is_making = true;
    ok = call(server, &reply, &api_create_stream, &request.base, st);
    client_done(&reply);
    if (!ok)
        return false;
    stream->is_making = false;
    stream->is_there = true;
    return true;
}

bool kill_remove(struct server *server, struct kill_stream *stream, struct status *st)
{
    Reelkv__V1__DeleteStreamRequest request = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(stream->name);
    struct reply reply;
    bool ok;

    request.id = &id;
    stream->is_removing = true;
    ok = call(server, &reply, &api_delete_stream, &request.base, st);
    client_done(&reply);
    if (!ok)
        return false;
    kill_counts.removed++;
    kill_stream_is_gone(stream);
    return true;
}

bool kill_hear(struct writer *writer, struct kill_stream *stream)
{
    if (!writer_read(writer))
        return false;
    CHECK(writer->stored_seq <= stream->offered);
    if (writer->stored_seq > stream->stored)
        stream->stored = writer->stored_seq;
    if (writer->durable_seq > stream->durable)
        stream->durable = writer->durable_seq;
    return true;
}

static bool write_gap(struct writer *writer, struct kill_stream *stream)
{
    uint64_t end = writer->next_seq;

    while (kill_is_gap(stream, end))
        end++;
    kill_offer(stream, end, 0);
    kill_counts.gaps += end - writer->next_seq;
    return writer_gap(writer, end - writer->next_seq, end % 2 == 0 ? "late" : "the camera was away");
}

static bool write_block(struct writer *writer, struct kill_stream *stream, bool is_init)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    uint64_t seq = writer->next_seq;
    uint32_t tokens = is_init ? KILL_INIT_TOKENS : kill_tokens(stream, seq);
    uint64_t bytes = kv_payload_bytes(&client_geometry, tokens);
    uint8_t own[KILL_SLOT_BYTES], *payload = own;

    REQUIRE(bytes <= sizeof own);
    if (writer->pool != NULL)
        payload = kv_pool_base(writer->pool) + kv_pool_data_offset(writer->pool) +
                  (is_init ? 0 : 1 + seq % KILL_SLOTS) * KILL_SLOT_BYTES;
    kill_payload(stream, is_init ? KILL_INIT : seq, payload, bytes);
    block.kind = is_init ? REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT : REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME;
    block.seq = seq;
    block.pts_ns = client_pts(seq);
    block.tokens = tokens;
    block.token_index = is_init ? 0 : kill_token_index(stream, seq);
    block.payload_bytes = bytes;
    block.payload_crc32c = kv_crc(0, payload, bytes);
    block.shm_offset = (uint64_t)(writer->pool == NULL ? 0 : payload - kv_pool_base(writer->pool));
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = &block;
    if (!is_init) {
        kill_offer(stream, seq + 1, bytes);
        kill_counts.frames++;
        writer->next_seq++;
    }
    return writer_send(writer, &request, NULL) &&
           (writer->pool != NULL || writer_chunks(writer, payload, bytes));
}

bool kill_write_init(struct writer *writer, struct kill_stream *stream)
{
    return write_block(writer, stream, true);
}

bool kill_write_next(struct writer *writer, struct kill_stream *stream)
{
    if (kill_is_gap(stream, writer->next_seq))
        return write_gap(writer, stream);
    return write_block(writer, stream, false);
}
