/* The kvstore as a process, through its RPCs: what is appended in chunks or shared memory is what scoring, fetching and
 * retrieving give back; over two stores as over one. */
#include "kvstore_client.h"

#include <fcntl.h>
#include <unistd.h>

#include "kv/kv_score.h"
#include "kv/kv_select.h"

enum { HITS_MAX = 256 };

static struct server servers[2];
static struct status st;

/* --- a reference that scores everything plainly --- */

static void make_query(uint32_t layer, uint32_t salt, float query[CLIENT_DIMS])
{
    for (uint32_t i = 0; i < CLIENT_DIMS; i++)
        query[i] = (float)((i * 37 + layer * 11 + salt * 5) % 19) - 9;
}

static float score_of(const char *name, uint64_t seq, uint32_t layer, const float *query)
{
    uint32_t key_bytes = kv_key_bytes(&client_geometry);
    uint8_t key[CLIENT_DIMS * 2];
    const struct kv_score_keys keys = { .at = (const void *[]){ key }, .count = 1, .dims = CLIENT_DIMS };
    float score;

    for (uint32_t i = 0; i < key_bytes; i++)
        key[i] = client_byte(name, seq, (uint64_t)layer * key_bytes + i);
    kv_score_ops_at(0)->of_dtype[KV_DTYPE_F16](query, &keys, &score);
    return score;
}

/* All frames [0, count) of the streams, chosen by one kv_select (itself tested against sorting). */
static uint32_t choose(const char *const *names, size_t streams, uint64_t count, uint32_t layer,
                       const float *query, const struct kv_selection *selection, struct kv_hit *out)
{
    struct kv_select *select;
    const struct kv_hit *hits;
    uint32_t hit_count;

    CHECK_OK(kv_select_create(&select, selection, &st), st);
    for (size_t s = 0; s < streams; s++)
        for (uint64_t seq = 0; seq < count; seq++) {
            struct kv_hit hit = { .score = score_of(names[s], seq, layer, query),
                                  .stream = (uint32_t)s,
                                  .seq = seq,
                                  .pts_ns = client_pts(seq) };

            kv_select_offer(select, &hit, 1);
        }
    CHECK_OK(kv_select_finish(select, &hits, &hit_count, &st), st);
    memcpy(out, hits, hit_count * sizeof *hits);
    kv_select_destroy(select);
    return hit_count;
}

static void check_hits(Reelkv__V1__Hit **got, size_t got_count, const struct kv_hit *want,
                       uint32_t want_count)
{
    CHECK_EQ(got_count, want_count);
    for (uint32_t i = 0; i < want_count; i++) {
        CHECK_EQ(got[i]->frame->stream, want[i].stream);
        CHECK_EQ(got[i]->frame->seq, want[i].seq);
        CHECK_EQ(got[i]->recent, want[i].recent);
        CHECK(got[i]->score == want[i].score);
        CHECK_EQ(got[i]->tokens, CLIENT_TOKENS);
        CHECK_EQ(got[i]->pts_ns, client_pts(want[i].seq));
    }
}

static const struct kv_selection selections[] = { { KV_SELECT_REKV, 8, 0 },
                                                  { KV_SELECT_REKV, 8, 4 },
                                                  { KV_SELECT_RECENT, 5, 0 },
                                                  { KV_SELECT_REKV, 60, 30 },
                                                  { KV_SELECT_ALL, 0, 3 } };

/* --- scoring --- */

TEST(kvstore_scores_as_the_reference_does)
{
    static const char *const names[] = { "cam-1", "cam-2" };

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], names[0], 70);
    client_fill(&servers[0], names[1], 70);
    for (size_t s = 0; s < ARRAY_LEN(selections); s++)
        for (uint32_t layer = 0; layer < client_geometry.layers; layer++) {
            Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
            Reelkv__V1__Selection selection;
            const Reelkv__V1__ScoreReply *answer;
            struct kv_hit want[HITS_MAX];
            struct client_view view;
            float query[CLIENT_DIMS];
            struct reply reply;
            uint32_t count;

            make_query(layer, 1, query);
            client_make_view(&view, names, 2);
            client_selection(&selection, &selections[s]);
            request.view = &view.view;
            request.selection = &selection;
            request.layer = layer;
            request.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
            client_call(&servers[0], &reply, &api_score, &request.base);
            CHECK_OK(reply.ok, reply.st);
            answer = reply.body;
            CHECK_EQ(answer->scored, 140);
            count = choose(names, 2, 70, layer, query, &selections[s], want);
            check_hits(answer->hits, answer->n_hits, want, count);
            client_done(&reply);
        }
    server_stop(&servers[0]);
}

/* A range is from its first moment up to before its last; as_of is one more last moment; both hold for every stream. */
TEST(kvstore_sees_what_lies_in_the_range_and_before_as_of)
{
    static const char *const names[] = { "cam-1", "cam-2" };
    static const struct {
        int64_t from, to, as_of; /* seq whose time it is; -1: not said */
        uint64_t first, end;     /* what is seen of each stream */
    } cases[] = { { -1, -1, -1, 0, 40 },  { 10, -1, -1, 10, 40 }, { -1, 30, -1, 0, 30 },
                  { 10, 30, -1, 10, 30 }, { -1, -1, 25, 0, 25 },  { 10, 30, 20, 10, 20 },
                  { 10, 20, 30, 10, 20 }, { 30, 35, 20, 0, 0 } };

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], names[0], 40);
    client_fill(&servers[0], names[1], 40);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct kv_selection all = { .kind = KV_SELECT_ALL };
        Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
        Reelkv__V1__Selection selection;
        const Reelkv__V1__ScoreReply *answer;
        struct client_view view;
        float query[CLIENT_DIMS];
        struct reply reply;

        make_query(1, 1, query);
        client_make_view(&view, names, 2);
        client_selection(&selection, &all);
        view.range.from_ns = cases[i].from < 0 ? 0 : client_pts((uint64_t)cases[i].from);
        view.range.to_ns = cases[i].to < 0 ? 0 : client_pts((uint64_t)cases[i].to);
        view.view.as_of_ns = cases[i].as_of < 0 ? 0 : client_pts((uint64_t)cases[i].as_of);
        request.view = &view.view;
        request.selection = &selection;
        request.layer = 1;
        request.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
        client_call(&servers[0], &reply, &api_score, &request.base);
        CHECK_OK(reply.ok, reply.st);
        answer = reply.body;
        CHECK_EQ(answer->scored, 2 * (cases[i].end - cases[i].first));
        CHECK_EQ(answer->n_hits, answer->scored);
        for (size_t n = 0; n < answer->n_hits; n++)
            CHECK(answer->hits[n]->frame->seq >= cases[i].first &&
                  answer->hits[n]->frame->seq < cases[i].end);
        client_done(&reply);
    }
    server_stop(&servers[0]);
}

/* What two stores chose, merged by kv_select, is what one store with both streams chooses. */
TEST(kvstore_scores_of_two_stores_merge_exactly)
{
    static const char *const names[] = { "cam-1", "cam-2" };
    float query[CLIENT_DIMS];

    server_start(&servers[0], "kv-a", NULL);
    server_start(&servers[1], "kv-b", NULL);
    client_fill(&servers[0], names[0], 40);
    client_fill(&servers[1], names[1], 40);
    make_query(2, 3, query);
    for (size_t s = 0; s < ARRAY_LEN(selections); s++) {
        struct kv_hit want[HITS_MAX];
        struct kv_select *merged;
        const struct kv_hit *hits;
        uint32_t want_count, count;

        CHECK_OK(kv_select_create(&merged, &selections[s], &st), st);
        for (uint32_t i = 0; i < 2; i++) {
            Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
            Reelkv__V1__Selection selection;
            const Reelkv__V1__ScoreReply *answer;
            struct client_view view;
            struct reply reply;

            client_make_view(&view, &names[i], 1);
            client_selection(&selection, &selections[s]);
            request.view = &view.view;
            request.selection = &selection;
            request.layer = 2;
            request.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
            client_call(&servers[i], &reply, &api_score, &request.base);
            CHECK_OK(reply.ok, reply.st);
            answer = reply.body;
            for (size_t n = 0; n < answer->n_hits; n++) {
                struct kv_hit hit = { .score = answer->hits[n]->score,
                                      .stream = i,
                                      .seq = answer->hits[n]->frame->seq,
                                      .pts_ns = answer->hits[n]->pts_ns };

                kv_select_offer(merged, &hit, 1);
            }
            client_done(&reply);
        }
        CHECK_OK(kv_select_finish(merged, &hits, &count, &st), st);
        want_count = choose(names, 2, 40, 2, query, &selections[s], want);
        CHECK_EQ(count, want_count);
        for (uint32_t n = 0; n < count; n++)
            CHECK(hits[n].stream == want[n].stream && hits[n].seq == want[n].seq &&
                  hits[n].recent == want[n].recent && hits[n].score == want[n].score);
        kv_select_destroy(merged);
    }
    server_stop(&servers[0]);
    server_stop(&servers[1]);
}

/* --- retrieving --- */

static void retrieve_query(struct retrieval *retrieval, uint32_t layer, const float *query)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery ask = REELKV__V1__RETRIEVE_QUERY__INIT;

    ask.layer = layer;
    ask.query = (ProtobufCBinaryData){ CLIENT_DIMS * sizeof *query, (uint8_t *)(uintptr_t)query };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &ask;
    CHECK_OK(rpc_sync_write(retrieval->call, &request.base, NULL, &st), st);
}

/* A layer as it comes: slices in order; frames[i] is (stream name, seq) of index i. */
struct layer_reader {
    struct retrieval *retrieval;
    uint32_t layer;
    const struct kv_hit *frames;
    const char *const *names;
    uint8_t bytes[2 * CLIENT_TOKENS * CLIENT_DIMS * 2];
    uint64_t got;
    uint32_t next, crc;
};

static void slice_is_whole(struct layer_reader *reader)
{
    const struct kv_hit *frame = &reader->frames[reader->next];

    CHECK_EQ(kv_crc(0, reader->bytes, sizeof reader->bytes), reader->crc);
    client_expect_layer(reader->names[frame->stream], frame->seq, reader->layer, reader->bytes,
                        sizeof reader->bytes);
    reader->next++;
}

static void read_head(struct layer_reader *reader, const Reelkv__V1__SliceHead *head)
{
    struct retrieval *retrieval = reader->retrieval;
    struct kv_place place;

    CHECK_EQ(head->index, reader->next);
    CHECK_EQ(head->layer, reader->layer);
    CHECK_EQ(head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
    CHECK_EQ(head->tokens, CLIENT_TOKENS);
    CHECK_EQ(head->length, sizeof reader->bytes);
    reader->crc = head->crc32c;
    reader->got = 0;
    if (head->place == NULL)
        return;
    place = (struct kv_place){ head->place->offset, head->place->length, head->place->generation };
    CHECK(retrieval->peer != NULL);
    CHECK_EQ(head->place->pool, kv_shm_peer_arena_pool(retrieval->peer));
    CHECK_OK(kv_pool_reader_copy(kv_shm_peer_arena(retrieval->peer), &place, head->crc32c, reader->bytes,
                                 &st),
             st);
    retrieval->shared++;
    slice_is_whole(reader);
}

/* Reads slices to the end of the layer. */
static void read_slices(struct retrieval *retrieval, uint32_t layer, const struct kv_hit *frames,
                        uint32_t count, const char *const *names)
{
    struct layer_reader reader = { .retrieval = retrieval, .layer = layer, .frames = frames, .names = names };

    for (;;) {
        struct rpc_payload payload;
        const Reelkv__V1__RetrieveReply *reply = retrieval_read(retrieval, &payload);

        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END) {
            CHECK_EQ(reply->layer_end->layer, layer);
            break;
        }
        CHECK_EQ(reply->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE);
        if (reply->slice->head != NULL)
            read_head(&reader, reply->slice->head);
        for (size_t i = 0; i < reply->slice->n_more; i++) {
            CHECK(reply->slice->more[i]->place != NULL && payload.len == 0);
            read_head(&reader, reply->slice->more[i]);
        }
        if (payload.len == 0)
            continue;
        CHECK(payload.len <= sizeof reader.bytes - reader.got);
        rpc_payload_copy(&payload, 0, reader.bytes + reader.got, payload.len);
        reader.got += payload.len;
        if (reader.got < sizeof reader.bytes)
            continue;
        retrieval->inlined++;
        slice_is_whole(&reader);
    }
    CHECK_EQ(reader.next, count);
}

static void retrieve_all(struct retrieval *retrieval, struct server *server, const char *const *names,
                         size_t streams, uint64_t frames, const struct kv_selection *selection)
{
    struct rpc_payload payload;
    const Reelkv__V1__RetrieveReply *reply;

    retrieval_open(retrieval, server, names, streams, selection, false);
    reply = retrieval_read(retrieval, &payload);
    CHECK_EQ(reply->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED);
    CHECK_EQ(reply->opened->frames, streams * frames);
    CHECK_EQ(reply->opened->evicted_frames, 0);
    CHECK_EQ(reply->opened->last_pts_ns, client_pts(frames - 1));
    for (uint32_t layer = 0; layer < client_geometry.layers; layer++) {
        struct kv_hit want[HITS_MAX];
        float query[CLIENT_DIMS];
        uint32_t count;

        make_query(layer, 7, query);
        retrieve_query(retrieval, layer, query);
        count = choose(names, streams, frames, layer, query, selection, want);
        kv_hits_sort_by_time(want, count);
        reply = retrieval_read(retrieval, &payload);
        CHECK_EQ(reply->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_HITS);
        check_hits(reply->hits->hits, reply->hits->n_hits, want, count);
        read_slices(retrieval, layer, want, count, names);
    }
    CHECK_OK(rpc_sync_finish(retrieval->call, &st), st);
    rpc_sync_stream_destroy(retrieval->call);
}

/* Each layer's choice and bytes, inline and by shared memory, from RAM and (after a restart) from the disk. */
TEST(kvstore_retrieves_layer_by_layer)
{
    static const char *const names[] = { "cam-1", "cam-2" };

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], names[0], 50);
    client_fill(&servers[0], names[1], 50);
    for (unsigned round = 0; round < 3; round++) {
        struct retrieval in_line = { 0 }, shared = { 0 };
        char socket[400];

        if (round == 1) {
            server_stop(&servers[0]);
            server_start(&servers[0], "kv-a", NULL);
        }
        snprintf(socket, sizeof socket, "%s/shm.sock", servers[0].path);
        CHECK_OK(kv_shm_peer_create(&shared.peer, socket, NULL, 5000, &st), st);
        for (size_t s = 0; s < ARRAY_LEN(selections); s++) {
            retrieve_all(&in_line, &servers[0], names, 2, 50, &selections[s]);
            retrieve_all(&shared, &servers[0], names, 2, 50, &selections[s]);
            CHECK(s >= 3 || shared.inlined == 0); /* the large ones pass what one call may lease */
        }
        CHECK_EQ(in_line.shared, 0);
        CHECK(in_line.inlined > 0);
        CHECK(shared.shared > shared.inlined);
        kv_shm_peer_destroy(shared.peer);
    }
    server_stop(&servers[0]);
}

/* The caller picks: among them a frame that was never there. */
TEST(kvstore_sends_what_the_caller_picks)
{
    static const char *const names[] = { "cam-1" };
    static const struct kv_selection selection = { KV_SELECT_REKV, 8, 0 };
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrievePick pick = REELKV__V1__RETRIEVE_PICK__INIT;
    Reelkv__V1__FrameRef refs[2], *list[2] = { &refs[0], &refs[1] };
    const Reelkv__V1__RetrieveReply *reply;
    struct retrieval retrieval = { 0 };
    struct rpc_payload payload;
    float query[CLIENT_DIMS];

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], names[0], 20);
    retrieval_open(&retrieval, &servers[0], names, 1, &selection, true);
    retrieval_read(&retrieval, &payload);
    make_query(1, 1, query);
    retrieve_query(&retrieval, 1, query);
    reply = retrieval_read(&retrieval, &payload);
    CHECK_EQ(reply->hits->n_hits, 8);
    CHECK(reply->hits->hits[0]->score >= reply->hits->hits[7]->score);
    reelkv__v1__frame_ref__init(&refs[0]);
    reelkv__v1__frame_ref__init(&refs[1]);
    refs[0].seq = 3;
    refs[1].seq = 20;
    pick.layer = 1;
    pick.n_frames = 2;
    pick.frames = list;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_PICK;
    request.pick = &pick;
    CHECK_OK(rpc_sync_write(retrieval.call, &request.base, NULL, &st), st);
    reply = retrieval_read(&retrieval, &payload);
    CHECK_EQ(reply->slice->head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
    CHECK_EQ(payload.len, 2 * CLIENT_TOKENS * CLIENT_DIMS * 2);
    reply = retrieval_read(&retrieval, &payload);
    CHECK_EQ(reply->slice->head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_NOT_FOUND);
    CHECK_EQ(reply->slice->head->index, 1);
    CHECK_EQ(payload.len, 0);
    reply = retrieval_read(&retrieval, &payload);
    CHECK_EQ(reply->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END);
    rpc_sync_cancel(retrieval.call);
    rpc_sync_stream_destroy(retrieval.call);
    server_stop(&servers[0]);
}

/* What a call keeps grows with its layers, so it names each once. */
TEST(kvstore_refuses_a_layer_asked_for_again)
{
    static const char *const names[] = { "cam-1" };
    static const struct kv_selection selection = { KV_SELECT_REKV, 8, 0 };
    struct kv_hit want[HITS_MAX];
    struct retrieval retrieval = { 0 };
    const struct rpc_message *message;
    struct rpc_payload payload;
    float query[CLIENT_DIMS];
    uint32_t count;

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], names[0], 20);
    for (uint32_t again = 0; again < 2; again++) {
        retrieval_open(&retrieval, &servers[0], names, 1, &selection, false);
        retrieval_read(&retrieval, &payload);
        make_query(1, 1, query);
        retrieve_query(&retrieval, 1, query);
        retrieval_read(&retrieval, &payload);
        count = choose(names, 1, 20, 1, query, &selection, want);
        kv_hits_sort_by_time(want, count);
        read_slices(&retrieval, 1, want, count, names);
        retrieve_query(&retrieval, again, query);
        CHECK(!rpc_sync_read(retrieval.call, &message, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        rpc_sync_stream_destroy(retrieval.call);
    }
    server_stop(&servers[0]);
}

/* Blocks handed over in shared memory are the store's own afterwards: the writer's pool may change. */
TEST(kvstore_appends_from_shared_memory)
{
    static const char *const names[] = { "cam-1" };
    struct writer writer = { 0 };
    struct retrieval retrieval = { 0 };
    char socket[400];

    server_start(&servers[0], "kv-a", NULL);
    snprintf(socket, sizeof socket, "%s/shm.sock", servers[0].path);
    CHECK_OK(kv_pool_create(&writer.pool, "writer", 1 << 20, &st), st);
    CHECK_OK(kv_shm_peer_create(&writer.peer, socket, writer.pool, 5000, &st), st);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, 30), writer.st);
    memset(kv_pool_base(writer.pool) + kv_pool_data_offset(writer.pool), 0,
           kv_pool_bytes(writer.pool) - kv_pool_data_offset(writer.pool));
    CHECK_OK(writer_finish(&writer), writer.st);
    retrieve_all(&retrieval, &servers[0], names, 1, 30, &selections[0]);
    kv_shm_peer_destroy(writer.peer);
    kv_pool_destroy(writer.pool);
    server_stop(&servers[0]);
}

/* A socket's address holds 107 bytes; the data folder's path is longer, and memory is shared all the same. A killed store
 * leaves the socket behind: the next one takes its place. */
TEST(kvstore_with_a_long_path_shares_memory)
{
    static const Reelkv__V1__GetServerInfoRequest ask = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    char path[400], socket[400];
    const char *const options[] = { "--path", path, NULL };

    snprintf(path, sizeof path, "%s/%0150d/%0100d", test_folder(), 1, 2);
    for (unsigned round = 0; round < 2; round++) {
        struct kv_shm_peer *peer;
        struct reply reply;

        server_start(&servers[0], "kv-a", options);
        client_call(&servers[0], &reply, &api_get_server_info, &ask.base);
        CHECK_OK(reply.ok, reply.st);
        snprintf(socket, sizeof socket, "%s", ((const Reelkv__V1__ServerInfo *)reply.body)->shm_socket);
        client_done(&reply);
        CHECK_HAS(socket, path);
        CHECK_OK(kv_shm_peer_create(&peer, socket, NULL, 5000, &st), st);
        kv_shm_peer_destroy(peer);
        if (round == 0)
            server_kill(&servers[0]);
    }
    server_stop(&servers[0]);
    CHECK(access(socket, F_OK) != 0);
}

/* Readers of its memory run in other folders. */
TEST(kvstore_with_a_relative_path_names_its_socket_in_full)
{
    static const Reelkv__V1__GetServerInfoRequest ask = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    static const char *const options[] = { "--path", "near", NULL };
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct reply reply;
    char path[400];

    snprintf(path, sizeof path, "%s/near/shm.sock", test_folder());
    CHECK_EQ(chdir(test_folder()), 0);
    server_start(&servers[0], "kv-a", options);
    CHECK_EQ(fchdir(here), 0);
    close(here);
    client_call(&servers[0], &reply, &api_get_server_info, &ask.base);
    CHECK_OK(reply.ok, reply.st);
    CHECK_STR(((const Reelkv__V1__ServerInfo *)reply.body)->shm_socket, path);
    client_done(&reply);
    server_stop(&servers[0]);
}

TEST_MAIN()
