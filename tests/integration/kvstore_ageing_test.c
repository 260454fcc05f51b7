/* A real store whose frames age in seconds: a question at each step, while the step is being made too. What comes is what was
 * written, or within the declared error of it, and says so; what is gone says so. */
#include <math.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/number.h"
#include "kv/kv_quant.h"
#include "kvstore_client.h"

enum { FRAMES = 40, TOP_R = 6, SLICE_BYTES = CLIENT_TOKENS * CLIENT_DIMS * 2 };

static struct server server;
static struct status st;

/* What a question met, over all layers. */
struct met {
    uint64_t in_view, evicted, gaps; /* as the store told */
    uint32_t ok, derived, gone;      /* slices */
};

/* --- what comes is right --- */

static double number_at(const uint8_t *slice, uint32_t at)
{
    uint16_t bits;

    memcpy(&bits, slice + 2 * at, sizeof bits);
    return (double)number_f32_of_f16(bits);
}

/* K or V read from 8 bits: each number lies as near to what was written as its group's scale promises. */
static void expect_derived(const uint8_t *written, const uint8_t *read)
{
    struct kv_encoding encoding = kv_quant_encoding(&client_geometry, 8);
    uint8_t codes[SLICE_BYTES];

    CHECK(kv_quant_encode(&client_geometry, encoding, CLIENT_TOKENS, written, codes));
    for (uint32_t i = 0; i < SLICE_BYTES / 2; i++) {
        double wrong = fabs(number_at(read, i) - number_at(written, i));
        float scale;

        memcpy(&scale, codes + i / encoding.group * sizeof scale, sizeof scale);
        if (!(wrong <= kv_quant_error(KV_DTYPE_F16, 8, scale)))
            test_fail(__FILE__, __LINE__, "number %u is %g away; scale %g", i, wrong, (double)scale);
    }
}

static void expect_layer(const Reelkv__V1__SliceHead *head, uint64_t seq, const uint8_t *bytes,
                         struct met *met)
{
    uint8_t written[2 * SLICE_BYTES];
    uint64_t at = payload_layer_offset(&client_geometry, CLIENT_TOKENS, head->layer);

    CHECK_EQ(head->length, sizeof written);
    CHECK_EQ(kv_crc(0, bytes, head->length), head->crc32c);
    if (head->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK) {
        client_expect_layer("cam-1", seq, head->layer, bytes, head->length);
        met->ok++;
        return;
    }
    CHECK_EQ(head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_DERIVED);
    for (uint32_t i = 0; i < sizeof written; i++)
        written[i] = client_byte("cam-1", seq, at + i);
    expect_derived(written, bytes);
    expect_derived(written + SLICE_BYTES, bytes + SLICE_BYTES);
    met->derived++;
}

/* --- a question --- */

static void send_query(struct retrieval *retrieval, uint32_t layer)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery query = REELKV__V1__RETRIEVE_QUERY__INIT;
    float numbers[CLIENT_DIMS];

    for (uint32_t i = 0; i < CLIENT_DIMS; i++)
        numbers[i] = (float)((i * 7 + layer) % 5) - 2;
    query.layer = layer;
    query.query = (ProtobufCBinaryData){ sizeof numbers, (uint8_t *)numbers };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &query;
    CHECK_OK(rpc_sync_write(retrieval->call, &request.base, NULL, &st), st);
}

static void take_slice(struct retrieval *retrieval, const Reelkv__V1__SliceHead *head,
                       const struct rpc_payload *payload, uint64_t seq, struct met *met)
{
    uint8_t bytes[2 * SLICE_BYTES];

    if (head->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED) {
        met->gone++;
        return;
    }
    if (head->place != NULL) {
        const struct kv_place place = { head->place->offset, head->place->length, head->place->generation };

        CHECK_OK(kv_pool_reader_copy(kv_shm_peer_arena(retrieval->peer), &place, head->crc32c, bytes, &st),
                 st);
    } else {
        CHECK_EQ(payload->len, sizeof bytes);
        rpc_payload_copy(payload, 0, bytes, payload->len);
    }
    expect_layer(head, seq, bytes, met);
}

/* Each slice is small enough for one message. */
static void read_layer(struct retrieval *retrieval, uint32_t layer, struct met *met)
{
    uint64_t seqs[TOP_R] = { 0 };
    struct rpc_payload payload;
    const Reelkv__V1__RetrieveReply *reply = retrieval_read(retrieval, &payload);

    CHECK_EQ(reply->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_HITS);
    CHECK(reply->hits->n_hits <= TOP_R);
    for (size_t i = 0; i < reply->hits->n_hits; i++)
        seqs[i] = reply->hits->hits[i]->frame->seq;
    for (;;) {
        const Reelkv__V1__SliceReply *slice;

        reply = retrieval_read(retrieval, &payload);
        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END)
            return;
        slice = reply->slice;
        for (size_t i = 0; i <= slice->n_more; i++) {
            const Reelkv__V1__SliceHead *head = i == 0 ? slice->head : slice->more[i - 1];

            CHECK(head != NULL && head->layer == layer && head->index < TOP_R);
            take_slice(retrieval, head, &payload, seqs[head->index], met);
        }
    }
}

static struct met ask(struct kv_shm_peer *peer)
{
    static const char *const names[] = { "cam-1" };
    const struct kv_selection selection = { .kind = KV_SELECT_REKV, .top_r = TOP_R };
    struct retrieval retrieval = { .peer = peer };
    struct rpc_payload payload;
    const Reelkv__V1__RetrieveReply *reply;
    struct met met;

    retrieval_open(&retrieval, &server, names, 1, &selection, false);
    reply = retrieval_read(&retrieval, &payload);
    met = (struct met){ .in_view = reply->opened->frames,
                        .evicted = reply->opened->evicted_frames,
                        .gaps = reply->opened->gap_frames };
    for (uint32_t layer = 0; layer < client_geometry.layers; layer++) {
        send_query(&retrieval, layer);
        read_layer(&retrieval, layer, &met);
    }
    CHECK_OK(rpc_sync_finish(retrieval.call, &st), st);
    rpc_sync_stream_destroy(retrieval.call);
    CHECK_EQ(met.in_view + met.evicted, FRAMES);
    CHECK_EQ(met.gaps, 3);
    return met;
}

/* --- what is left besides --- */

/* How many frames are scored, and how many of the first ten have a thumbnail. */
static void look(uint64_t *scored_p, uint32_t *thumbnails_p)
{
    static const char *const names[] = { "cam-1" };
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    const struct kv_selection selection = { .kind = KV_SELECT_REKV, .top_r = TOP_R };
    Reelkv__V1__ScoreRequest score = REELKV__V1__SCORE_REQUEST__INIT;
    Reelkv__V1__FetchRequest fetch = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__FrameRef refs[10], *list[10];
    Reelkv__V1__Selection wanted;
    const struct rpc_message *message;
    struct rpc_sync_stream *call;
    float query[CLIENT_DIMS] = { 1 };
    struct client_view view;
    struct reply reply;

    client_make_view(&view, names, 1);
    client_selection(&wanted, &selection);
    score.view = fetch.view = &view.view;
    score.selection = &wanted;
    score.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
    client_call(&server, &reply, &api_score, &score.base);
    CHECK_OK(reply.ok, reply.st);
    *scored_p = ((const Reelkv__V1__ScoreReply *)reply.body)->scored;
    client_done(&reply);
    for (uint32_t i = 0; i < 10; i++) {
        reelkv__v1__frame_ref__init(&refs[i]);
        refs[i].seq = i;
        list[i] = &refs[i];
    }
    fetch.frames = list;
    fetch.n_frames = 10;
    fetch.thumbnails = true;
    *thumbnails_p = 0;
    CHECK_OK(rpc_sync_open(&call, server.client, &api_fetch, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &fetch.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    while (rpc_sync_read(call, &message, &st) && message != NULL)
        *thumbnails_p += ((const Reelkv__V1__SliceReply *)message->body)->head->thumbnail.len == 4;
    CHECK_OK(rpc_sync_finish(call, &st), st);
    rpc_sync_stream_destroy(call);
}

/* --- the steps --- */

struct step {
    const char *ageing;
    uint64_t in_view, scored;
    uint32_t thumbnails;
    bool is_derived;
};

static bool is_there(const struct met *met, const struct step *step)
{
    return met->in_view == step->in_view && (step->is_derived ? met->ok == 0 : met->derived == 0) &&
           met->gone == 0;
}

/* Asks until the step is made; while it is, answers are right as well. Then once more, by shared memory. */
static void pass_step(const struct step *step)
{
    const char *options[] = { step->ageing, NULL };
    uint64_t limit_ns = clock_mono_ns() + 60000000000ull, scored;
    struct kv_shm_peer *peer;
    uint32_t thumbnails;
    struct met met;
    char socket[400];

    server_start(&server, "kv-a", options);
    do {
        CHECK(clock_mono_ns() < limit_ns);
        met = ask(NULL);
        look(&scored, &thumbnails);
        usleep(10000);
    } while (!is_there(&met, step) || scored != step->scored);
    snprintf(socket, sizeof socket, "%s/shm.sock", server.path);
    CHECK_OK(kv_shm_peer_create(&peer, socket, NULL, 5000, &st), st);
    for (int again = 0; again < 2; again++) {
        met = ask(again == 0 ? NULL : peer);
        CHECK(is_there(&met, step));
        CHECK_EQ(met.ok + met.derived, step->in_view == 0 ? 0 : TOP_R * client_geometry.layers);
    }
    kv_shm_peer_destroy(peer);
    look(&scored, &thumbnails);
    CHECK_EQ(thumbnails, step->thumbnails);
    server_stop(&server);
}

TEST(kvstore_ages_a_stream_through_all_steps)
{
    static const struct step steps[] = {
        { "--ageing=default=full:1d", FRAMES, FRAMES, 10, false },
        { "--ageing=default=full:1s,thin/2:1d", FRAMES / 2, FRAMES / 2, 5, false },
        { "--ageing=default=full:1s,thin/2:2s,8bit:1d", FRAMES / 2, FRAMES / 2, 5, true },
        { "--ageing=default=full:1s,thin/2:2s,8bit:3s,keys:1d", 0, FRAMES / 2, 5, false },
        { "--ageing=default=full:1s,thin/2:2s,8bit:3s,keys:4s", 0, 0, 0, false },
    };
    struct writer writer = { 0 };

    server_start(&server, "kv-a", NULL);
    client_create(&server, "cam-1");
    CHECK_OK(writer_open(&writer, &server, "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, FRAMES), writer.st);
    CHECK_OK(writer_gap(&writer, 3, "away"), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
    server_stop(&server);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++)
        pass_step(&steps[i]);
}

/* --- classes --- */

static bool create_of_class(const char *name, const char *class, struct reply *reply)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId id = client_id(name);

    definition.id = &id;
    definition.source = (char *)"rtsp://cam.example/1";
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    definition.class_ = (char *)(uintptr_t) class;
    request.definition = &definition;
    client_call(&server, reply, &api_create_stream, &request.base);
    return reply->ok;
}

static void check_class(const char *name, const char *class, const char *trouble)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(name);
    const Reelkv__V1__StreamStatus *status;
    struct reply reply;

    request.id = &id;
    client_call(&server, &reply, &api_get_stream, &request.base);
    CHECK_OK(reply.ok, reply.st);
    status = reply.body;
    CHECK_STR(status->definition->class_, class);
    CHECK_HAS(status->trouble, trouble);
    client_done(&reply);
}

/* A class that the store does not know is refused; one that it knows no more is said, and treated as default. */
TEST(kvstore_classes_are_checked_and_kept)
{
    static const char *const options[] = { "--ageing=door=full:1h,keys:90d", NULL };
    struct reply reply;

    server_start(&server, "kv-b", options);
    CHECK(!create_of_class("cam-1", "dock", &reply));
    CHECK_EQ(reply.st.code, STATUS_INVALID);
    CHECK_HAS(reply.st.text, "dock");
    client_done(&reply);
    CHECK_OK(create_of_class("cam-2", "door", &reply), reply.st);
    client_done(&reply);
    CHECK_OK(create_of_class("cam-3", "", &reply), reply.st);
    client_done(&reply);
    server_stop(&server);
    server_start(&server, "kv-b", options);
    check_class("cam-2", "door", "");
    check_class("cam-3", "", "");
    server_stop(&server);
    server_start(&server, "kv-b", NULL);
    check_class("cam-2", "door", "class door");
    check_class("cam-3", "", "");
    server_stop(&server);
}

TEST_MAIN()
