/* The kvstore as a process: layers that are read before they are asked for, as a guess and by ticket; and K or V alone. */
#include "kvstore_client.h"
#include "reelkv/v1/retention.pb-c.h"

static struct server server;
static struct status st;

enum { FRAMES = 30, ASKED = 6 };

/* A store with one camera, whose blocks are on the disk only. */
static void start_cold(void)
{
    server_start(&server, "kv-a", NULL);
    client_fill(&server, "cam-1", FRAMES);
    server_stop(&server);
    server_start(&server, "kv-a", NULL);
}

static uint64_t read_ahead_slices(uint64_t *used_p)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    const Reelkv__V1__ServerInfo *info;
    struct reply reply;
    uint64_t slices;

    client_call(&server, &reply, &api_get_server_info, &request.base);
    CHECK_OK(reply.ok, reply.st);
    info = reply.body;
    slices = info->read_ahead_slices;
    *used_p = info->read_ahead_used;
    client_done(&reply);
    return slices;
}

static void ask_layer(struct retrieval *retrieval, uint32_t layer, const float *query)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery asked = REELKV__V1__RETRIEVE_QUERY__INIT;

    asked.layer = layer;
    asked.query = (ProtobufCBinaryData){ CLIENT_DIMS * sizeof *query, (uint8_t *)(uintptr_t)query };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &asked;
    CHECK_OK(rpc_sync_write(retrieval->call, &request.base, NULL, &st), st);
}

/* The newest blocks are the same in every layer: every guess is right, and what was guessed is what was stored. */
TEST(kvstore_reads_the_next_layer_while_its_caller_computes)
{
    static const char *const names[] = { "cam-1" };
    const struct kv_selection selection = { .kind = KV_SELECT_RECENT, .top_r = ASKED };
    struct retrieval retrieval = { 0 };
    struct rpc_payload payload;
    const float query[CLIENT_DIMS] = { 1 };
    uint64_t used;

    start_cold();
    retrieval_open(&retrieval, &server, names, 1, &selection, false);
    CHECK_EQ(retrieval_read(&retrieval, &payload)->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED);
    for (uint32_t layer = 0; layer < client_geometry.layers; layer++) {
        uint8_t bytes[2 * CLIENT_TOKENS * CLIENT_DIMS * 2];
        const Reelkv__V1__RetrieveReply *reply;
        uint64_t next = FRAMES - ASKED;

        ask_layer(&retrieval, layer, query);
        CHECK_EQ(retrieval_read(&retrieval, &payload)->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_HITS);
        while ((reply = retrieval_read(&retrieval, &payload))->item_case ==
               REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE) {
            CHECK_EQ(payload.len, sizeof bytes);
            rpc_payload_copy(&payload, 0, bytes, sizeof bytes);
            client_expect_layer("cam-1", next++, layer, bytes, sizeof bytes);
        }
        CHECK_EQ(next, FRAMES);
        CHECK_EQ(reply->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END);
        CHECK_EQ(reply->layer_end->read_ahead, layer == 0 ? 0 : ASKED);
        CHECK_EQ(reply->layer_end->read_ahead_used, layer == 0 ? 0 : ASKED);
        for (unsigned tries = 0; layer + 1 < client_geometry.layers && tries < 2000 &&
                                 read_ahead_slices(&used) < (layer + 1) * ASKED;
             tries++)
            test_pause_ms(5);
    }
    CHECK_OK(rpc_sync_finish(retrieval.call, &st), st);
    rpc_sync_stream_destroy(retrieval.call);
    CHECK_EQ(read_ahead_slices(&used), (client_geometry.layers - 1) * ASKED);
    CHECK_EQ(used, (client_geometry.layers - 1) * ASKED);
    server_stop(&server);
}

/* --- tickets --- */

struct asked_frames {
    struct client_view view;
    Reelkv__V1__FrameRef refs[ASKED], *list[ASKED];
};

static void name_frames(struct asked_frames *asked, uint64_t first)
{
    static const char *const names[] = { "cam-1" };

    client_make_view(&asked->view, names, 1);
    for (unsigned i = 0; i < ASKED; i++) {
        reelkv__v1__frame_ref__init(&asked->refs[i]);
        asked->refs[i].seq = first + i;
        asked->list[i] = &asked->refs[i];
    }
}

static struct rpc_sync_stream *prefetch(uint64_t first, uint32_t deadline_ms, Reelkv__V1__PrefetchReply *last)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__PrefetchRequest request = REELKV__V1__PREFETCH_REQUEST__INIT;
    const struct rpc_message *message;
    struct rpc_sync_stream *call;
    struct asked_frames asked;
    bool is_first = true;

    name_frames(&asked, first);
    request.view = &asked.view.view;
    request.frames = asked.list;
    request.n_frames = ASKED;
    request.deadline_ms = deadline_ms;
    CHECK_OK(rpc_sync_open(&call, server.client, &api_prefetch, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    for (last->done = false; !last->done; is_first = false) {
        CHECK_OK(rpc_sync_read(call, &message, &st) && message != NULL, st);
        CHECK(is_first || ((const Reelkv__V1__PrefetchReply *)message->body)->ticket == last->ticket);
        *last = *(const Reelkv__V1__PrefetchReply *)message->body;
        CHECK(last->ticket != 0);
    }
    return call;
}

static uint32_t frames_in_ram(void)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    const Reelkv__V1__TimelineReply *timeline;
    struct reply reply;
    uint32_t count = 0;

    request.id = &id;
    client_call(&server, &reply, &api_timeline, &request.base);
    CHECK_OK(reply.ok, reply.st);
    timeline = reply.body;
    for (size_t i = 0; i < timeline->n_spans; i++)
        count += timeline->spans[i]->in_ram
                     ? (uint32_t)(timeline->spans[i]->to_seq - timeline->spans[i]->from_seq)
                     : 0;
    client_done(&reply);
    return count;
}

static bool cancel(uint64_t ticket, struct status *why)
{
    Reelkv__V1__CancelPrefetchRequest request = REELKV__V1__CANCEL_PREFETCH_REQUEST__INIT;
    struct reply reply;

    request.ticket = ticket;
    client_call(&server, &reply, &api_cancel_prefetch, &request.base);
    *why = reply.st;
    client_done(&reply);
    return reply.ok;
}

TEST(kvstore_prefetches_by_ticket_until_it_is_cancelled_or_late)
{
    enum { SLICES = ASKED * 4 };
    Reelkv__V1__PrefetchReply last = REELKV__V1__PREFETCH_REPLY__INIT;
    struct rpc_sync_stream *call;
    const struct rpc_message *message;
    uint64_t gone;

    CHECK_EQ(SLICES, ASKED * client_geometry.layers);
    start_cold();
    CHECK_EQ(frames_in_ram(), 0);
    call = prefetch(3, 0, &last);
    CHECK_EQ(last.wanted, SLICES);
    CHECK_EQ(last.ready, SLICES);
    CHECK_EQ(last.refused + last.failed, 0);
    CHECK_EQ(frames_in_ram(), ASKED);
    gone = last.ticket;
    CHECK_OK(cancel(gone, &st), st);
    CHECK_OK(rpc_sync_read(call, &message, &st) && message == NULL, st); /* the call has ended, with OK */
    rpc_sync_stream_destroy(call);
    CHECK(!cancel(gone, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);

    call = prefetch(6, 50, &last); /* three of them are there; this one ends by itself */
    CHECK_EQ(last.wanted, SLICES);
    CHECK_EQ(last.ready, SLICES);
    CHECK(last.ticket != gone);
    CHECK_OK(rpc_sync_read(call, &message, &st) && message == NULL, st);
    rpc_sync_stream_destroy(call);

    call =
        prefetch(FRAMES - 2, 60000, &last); /* two are there, the others never were; this one is left alone */
    CHECK_EQ(last.wanted, 2 * client_geometry.layers);
    CHECK_EQ(last.ready, 2 * client_geometry.layers);
    rpc_sync_stream_destroy(call);
    for (unsigned tries = 0; tries < 2000 && cancel(last.ticket, &st); tries++)
        test_pause_ms(5);
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    call = prefetch(0, 600000, &last); /* a store that stops does not wait for tickets */
    server_stop(&server);
    rpc_sync_stream_destroy(call);
}

/* What a ticket keeps would have kept the receipt waiting until the ticket's end, ten minutes from now. */
TEST(kvstore_forgets_what_a_ticket_keeps_at_once)
{
    Reelkv__V1__PrefetchReply last = REELKV__V1__PREFETCH_REPLY__INIT;
    Reelkv__V1__ForgetRequest request = REELKV__V1__FORGET_REQUEST__INIT;
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct rpc_sync_stream *forgotten, *kept;
    const struct rpc_message *message;
    struct reply reply;

    start_cold();
    forgotten = prefetch(0, 600000, &last);
    kept = prefetch(FRAMES - ASKED, 600000, &last);
    range.from_ns = client_pts(0);
    range.to_ns = client_pts(3);
    request.id = &id;
    request.range = &range;
    client_call(&server, &reply, &api_forget, &request.base);
    CHECK_OK(reply.ok, reply.st);
    CHECK_EQ(((const Reelkv__V1__Receipt *)reply.body)->frames, 3);
    client_done(&reply);
    CHECK(!rpc_sync_read(forgotten, &message, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    rpc_sync_stream_destroy(forgotten);
    CHECK_OK(cancel(last.ticket, &st), st); /* it was left alone */
    rpc_sync_stream_destroy(kept);
    server_stop(&server);
}

TEST(kvstore_refuses_tickets_that_make_no_sense)
{
    static const struct {
        uint32_t first_layer, layers, deadline_ms;
    } cases[] = { { 4, 0, 0 }, { 0, 5, 0 }, { 3, 2, 0 }, { 0, UINT32_MAX, 0 }, { 0, 1, 600001 } };
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };

    start_cold();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Reelkv__V1__PrefetchRequest request = REELKV__V1__PREFETCH_REQUEST__INIT;
        const struct rpc_message *message;
        struct rpc_sync_stream *call;
        struct asked_frames asked;

        name_frames(&asked, 0);
        request.view = &asked.view.view;
        request.frames = asked.list;
        request.n_frames = ASKED;
        request.first_layer = cases[i].first_layer;
        request.layers = cases[i].layers;
        request.deadline_ms = cases[i].deadline_ms;
        CHECK_OK(rpc_sync_open(&call, server.client, &api_prefetch, &options, &st), st);
        CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
        CHECK(!rpc_sync_read(call, &message, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        rpc_sync_stream_destroy(call);
    }
    server_stop(&server);
}

/* --- K or V alone --- */

/* One layer of one frame, inline or by its place; returns its length, and whether it was shared. */
static uint64_t fetch_part(Reelkv__V1__SliceParts parts, struct kv_shm_peer *peer, uint8_t *bytes,
                           bool *is_shared_p)
{
    static const char *const names[] = { "cam-1" };
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__FrameRef ref = REELKV__V1__FRAME_REF__INIT, *list = &ref;
    const struct rpc_message *message;
    const Reelkv__V1__SliceHead *head;
    struct rpc_sync_stream *call;
    struct client_view view;
    uint64_t length;

    client_make_view(&view, names, 1);
    ref.seq = 11;
    request.view = &view.view;
    request.frames = &list;
    request.n_frames = 1;
    request.first_layer = 2;
    request.layers = 1;
    request.parts = parts;
    request.shm_session = peer == NULL ? 0 : kv_shm_peer_session(peer);
    CHECK_OK(rpc_sync_open(&call, server.client, &api_fetch, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_read(call, &message, &st) && message != NULL, st);
    head = ((const Reelkv__V1__SliceReply *)message->body)->head;
    CHECK_EQ(head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
    length = head->length;
    *is_shared_p = head->place != NULL;
    if (head->place != NULL) {
        const struct kv_place place = { head->place->offset, head->place->length, head->place->generation };

        CHECK_OK(kv_pool_reader_copy(kv_shm_peer_arena(peer), &place, head->crc32c, bytes, &st), st);
    } else {
        CHECK_EQ(message->payload.len, length);
        rpc_payload_copy(&message->payload, 0, bytes, length);
        CHECK_EQ(kv_crc(0, bytes, length), head->crc32c);
    }
    CHECK_OK(rpc_sync_finish(call, &st), st);
    rpc_sync_stream_destroy(call);
    return length;
}

/* From the disk, then of a layer that is in RAM; inline and shared. */
TEST(kvstore_fetches_k_or_v_alone)
{
    enum { HALF = CLIENT_TOKENS * CLIENT_DIMS * 2 };
    static const Reelkv__V1__SliceParts parts[] = { REELKV__V1__SLICE_PARTS__SLICE_PARTS_K,
                                                    REELKV__V1__SLICE_PARTS__SLICE_PARTS_V };
    uint64_t at = payload_layer_offset(&client_geometry, CLIENT_TOKENS, 2);
    uint8_t bytes[2 * HALF];
    bool is_shared;

    for (unsigned round = 0; round < 2; round++) {
        char socket[400];
        struct kv_shm_peer *peer;

        if (round == 0)
            start_cold();
        else
            CHECK_EQ(fetch_part(REELKV__V1__SLICE_PARTS__SLICE_PARTS_BOTH, NULL, bytes, &is_shared),
                     2 * HALF);
        snprintf(socket, sizeof socket, "%s/shm.sock", server.path);
        CHECK_OK(kv_shm_peer_create(&peer, socket, NULL, 10000, &st), st);
        for (unsigned which = 0; which < 2; which++)
            for (unsigned shared = 0; shared < 2; shared++) {
                CHECK_EQ(fetch_part(parts[which], shared ? peer : NULL, bytes, &is_shared), HALF);
                CHECK_EQ(is_shared,
                         shared && round == 1); /* a half is not kept in memory, where it could be shared */
                for (uint64_t i = 0; i < HALF; i++)
                    CHECK_EQ(bytes[i], client_byte("cam-1", 11, at + which * HALF + i));
            }
        kv_shm_peer_destroy(peer);
    }
    server_stop(&server);
}

TEST_MAIN()
