/* The kvstore as a process: frames that are named, with what became of those that are not there; requests that make no
 * sense. */
#include "kvstore_client.h"

static struct server servers[3];
static struct status st;

/* --- fetching --- */

struct fetched {
    uint32_t heads, thumbnails, slices;
    enum _Reelkv__V1__FrameResult last_result;
};

static void fetch(struct server *server, Reelkv__V1__FetchRequest *request, struct fetched *fetched)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    const struct rpc_message *message;
    struct rpc_sync_stream *call;

    *fetched = (struct fetched){ 0 };
    CHECK_OK(rpc_sync_open(&call, server->client, &api_fetch, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request->base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    while (rpc_sync_read(call, &message, &st) && message != NULL) {
        const Reelkv__V1__SliceHead *head = ((const Reelkv__V1__SliceReply *)message->body)->head;
        uint8_t bytes[2 * CLIENT_TOKENS * CLIENT_DIMS * 2];

        if (head == NULL)
            continue;
        fetched->heads++;
        fetched->last_result = head->result;
        fetched->thumbnails += head->thumbnail.len == 4 && memcmp(head->thumbnail.data, "jpeg", 4) == 0;
        if (message->payload.len == 0)
            continue;
        CHECK_EQ(message->payload.len, sizeof bytes);
        rpc_payload_copy(&message->payload, 0, bytes, sizeof bytes);
        client_expect_layer("cam-1", request->frames[head->index]->seq, head->layer, bytes, sizeof bytes);
        fetched->slices++;
    }
    CHECK_OK(rpc_sync_finish(call, &st), st);
    rpc_sync_stream_destroy(call);
}

TEST(kvstore_fetches_layers_thumbnails_and_says_what_is_missing)
{
    static const char *const names[] = { "cam-1" };
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__FrameRef refs[3], *list[3];
    struct client_view view;
    struct fetched fetched;

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], "cam-1", 20);
    for (unsigned round = 0; round < 2; round++) {
        client_make_view(&view, names, 1);
        for (unsigned i = 0; i < 3; i++) {
            reelkv__v1__frame_ref__init(&refs[i]);
            refs[i].seq = i * 7;
            list[i] = &refs[i];
        }
        request.view = &view.view;
        request.frames = list;
        request.n_frames = 3;
        request.first_layer = 1;
        request.layers = 3;
        request.thumbnails = true;
        fetch(&servers[0], &request, &fetched);
        CHECK_EQ(fetched.heads, 9);
        CHECK_EQ(fetched.slices, 9);
        CHECK_EQ(fetched.thumbnails, 3);
        request.first_layer = 0;
        request.layers = 0;
        fetch(&servers[0], &request, &fetched);
        CHECK_EQ(fetched.heads, 3);
        CHECK_EQ(fetched.slices, 0);
        CHECK_EQ(fetched.thumbnails, 3);
        refs[2].seq = 99;
        fetch(&servers[0], &request, &fetched);
        CHECK_EQ(fetched.heads, 3);
        CHECK_EQ(fetched.last_result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_NOT_FOUND);
        if (round == 0) {
            server_stop(&servers[0]);
            server_start(&servers[0], "kv-a", NULL);
        }
    }
    server_stop(&servers[0]);
}

/* Whole layers of frames as they came, in the order of the request. */
struct slice {
    uint32_t layer, tokens, crc;
    int64_t pts_ns;
    uint8_t bytes[2 * CLIENT_TOKENS * CLIENT_DIMS * 2];
};

/* Every layer of the frames `seqs` of each stream. */
static uint32_t fetch_all(struct server *server, const char *const *names, uint32_t streams,
                          const uint64_t *seqs, uint32_t frames, struct slice *slices)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__FrameRef refs[8], *list[8];
    const struct rpc_message *message;
    struct rpc_sync_stream *call;
    struct client_view view;
    uint32_t count = 0;

    client_make_view(&view, names, streams);
    for (uint32_t i = 0; i < streams * frames; i++) {
        reelkv__v1__frame_ref__init(&refs[i]);
        refs[i].stream = i / frames;
        refs[i].seq = seqs[i % frames];
        list[i] = &refs[i];
    }
    request.view = &view.view;
    request.frames = list;
    request.n_frames = streams * frames;
    request.layers = client_geometry.layers;
    CHECK_OK(rpc_sync_open(&call, server->client, &api_fetch, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    while (rpc_sync_read(call, &message, &st) && message != NULL) {
        const Reelkv__V1__SliceHead *head = ((const Reelkv__V1__SliceReply *)message->body)->head;
        struct slice *slice = &slices[count];

        CHECK(head != NULL && count < streams * frames * client_geometry.layers);
        CHECK_EQ(head->index, count / client_geometry.layers);
        CHECK_EQ(head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
        CHECK_EQ(message->payload.len, sizeof slice->bytes);
        *slice = (struct slice){ head->layer, head->tokens, head->crc32c, head->pts_ns, { 0 } };
        rpc_payload_copy(&message->payload, 0, slice->bytes, sizeof slice->bytes);
        client_expect_layer(names[refs[head->index].stream], refs[head->index].seq, head->layer, slice->bytes,
                            sizeof slice->bytes);
        CHECK_EQ(kv_crc(0, slice->bytes, sizeof slice->bytes), slice->crc);
        count++;
    }
    CHECK_OK(rpc_sync_finish(call, &st), st);
    rpc_sync_stream_destroy(call);
    return count;
}

/* Frames of two cameras in two stores, put one behind the other, are what one store that has both cameras sends. */
TEST(kvstore_fetches_of_two_stores_merge_exactly)
{
    enum { FRAMES = 3, SLICES = 2 * FRAMES * 4 };
    static const char *const names[] = { "cam-1", "cam-2" };
    static const uint64_t seqs[FRAMES] = { 14, 0, 9 };
    static struct slice merged[SLICES], whole[SLICES];
    uint32_t count = 0;

    server_start(&servers[0], "kv-a", NULL);
    server_start(&servers[1], "kv-b", NULL);
    server_start(&servers[2], "kv-c", NULL);
    for (unsigned i = 0; i < 2; i++) {
        client_fill(&servers[i], names[i], 20);
        client_fill(&servers[2], names[i], 20);
    }
    for (unsigned i = 0; i < 2; i++)
        count += fetch_all(&servers[i], &names[i], 1, seqs, FRAMES, merged + count);
    CHECK_EQ(count, SLICES);
    CHECK_EQ(fetch_all(&servers[2], names, 2, seqs, FRAMES, whole), SLICES);
    for (uint32_t i = 0; i < SLICES; i++) {
        CHECK_EQ(merged[i].layer, whole[i].layer);
        CHECK_EQ(merged[i].tokens, whole[i].tokens);
        CHECK_EQ(merged[i].crc, whole[i].crc);
        CHECK_EQ(merged[i].pts_ns, whole[i].pts_ns);
        CHECK_MEM(merged[i].bytes, whole[i].bytes, sizeof whole[i].bytes);
    }
    for (unsigned i = 0; i < ARRAY_LEN(servers); i++)
        server_stop(&servers[i]);
}

/* --- limits --- */

/* A small disk: what has gone answers EVICTED everywhere, what is left is right. */
TEST(kvstore_says_what_was_evicted)
{
    static const char *const options[] = { "--disk-budget-bytes=8M", "--ram-budget-bytes=8M", NULL };
    static const char *const names[] = { "cam-1" };
    static const struct kv_selection all = { KV_SELECT_ALL, 0, 0 };
    Reelkv__V1__TimelineRequest ask = REELKV__V1__TIMELINE_REQUEST__INIT;
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    const Reelkv__V1__TimelineReply *timeline;
    Reelkv__V1__FrameRef ref = REELKV__V1__FRAME_REF__INIT, *list[1] = { &ref };
    const Reelkv__V1__RetrieveReply *opened;
    struct retrieval retrieval = { 0 };
    struct rpc_payload payload;
    struct fetched fetched;
    struct client_view view;
    struct reply reply;
    uint64_t evicted;

    server_start(&servers[0], "kv-a", options);
    client_fill(&servers[0], "cam-1", 800);
    for (unsigned round = 0; round < 2; round++) {
        ask.id = &id;
        client_call(&servers[0], &reply, &api_timeline, &ask.base);
        CHECK_OK(reply.ok, reply.st);
        timeline = reply.body;
        CHECK_EQ(timeline->spans[0]->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED);
        CHECK_EQ(timeline->spans[0]->from_seq, 0);
        evicted = timeline->spans[0]->to_seq;
        CHECK(evicted > 200 && evicted < 800);
        CHECK_EQ(timeline->spans[1]->from_seq, evicted);
        CHECK_EQ(timeline->spans[timeline->n_spans - 1]->to_seq, 800);
        client_done(&reply);

        client_make_view(&view, names, 1);
        request.view = &view.view;
        request.frames = list;
        request.n_frames = 1;
        request.layers = 1;
        ref.seq = evicted - 1;
        fetch(&servers[0], &request, &fetched);
        CHECK_EQ(fetched.last_result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED);
        ref.seq = evicted;
        fetch(&servers[0], &request, &fetched);
        CHECK_EQ(fetched.last_result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
        CHECK_EQ(fetched.slices, 1);

        retrieval_open(&retrieval, &servers[0], names, 1, &all, false);
        opened = retrieval_read(&retrieval, &payload);
        CHECK_EQ(opened->opened->frames, 800 - evicted);
        CHECK_EQ(opened->opened->evicted_frames, evicted);
        rpc_sync_cancel(retrieval.call);
        rpc_sync_stream_destroy(retrieval.call);
        if (round == 0) {
            server_stop(&servers[0]);
            server_start(&servers[0], "kv-a", options);
        }
    }
    server_stop(&servers[0]);
}

/* --- bad requests --- */

/* Each is answered with a sentence; the store goes on. */
TEST(kvstore_refuses_requests_that_make_no_sense)
{
    static const char *const names[] = { "cam-1" }, *const nobody[] = { "cam-9" };
    static const struct kv_selection best = { KV_SELECT_REKV, 8, 0 };
    float query[CLIENT_DIMS] = { 0 };
    struct client_view view;
    struct reply reply;

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], "cam-1", 3);
    for (unsigned i = 0; i < 9; i++) {
        static const enum status_code codes[] = { STATUS_INVALID, STATUS_NOT_FOUND, STATUS_PRECONDITION,
                                                  STATUS_INVALID, STATUS_INVALID,   STATUS_INVALID,
                                                  STATUS_INVALID, STATUS_INVALID,   STATUS_INVALID };
        static const uint8_t other[16] = { 9 };
        Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
        Reelkv__V1__Selection selection;

        client_make_view(&view, i == 1 ? nobody : names, 1);
        client_selection(&selection, &best);
        request.view = i == 0 ? NULL : &view.view;
        request.selection = i == 3 ? NULL : &selection;
        if (i == 2)
            view.view.fingerprint.data = (uint8_t *)(uintptr_t)other;
        selection.top_r = i == 4 ? 1u << 31 : 8;
        request.layer = i == 5 ? 4 : 0;
        request.query = (ProtobufCBinaryData){ i == 6 ? 12 : sizeof query, (uint8_t *)query };
        if (i == 7)
            view.view.fingerprint.len = 15;
        if (i == 8) {
            view.range.from_ns = 10;
            view.range.to_ns = 5;
        }
        client_call(&servers[0], &reply, &api_score, &request.base);
        CHECK(!reply.ok);
        CHECK_EQ(reply.st.code, codes[i]);
        CHECK(strlen(reply.st.text) > 10);
        client_done(&reply);
    }
    server_stop(&servers[0]);
}

TEST_MAIN()
