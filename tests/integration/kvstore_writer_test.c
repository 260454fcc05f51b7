/* The kvstore as a process: writers that are fenced, wrong, or start again; the catalog; what the store says of itself. */
#include <pthread.h>
#include <unistd.h>

#include "kvstore_client.h"

static struct server servers[1];
static struct status st;

/* A checksum that does not fit ends the call; nothing of the block stays. */
TEST(kvstore_refuses_a_block_that_does_not_fit_its_checksum)
{
    struct writer writer = { 0 };

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, 3), writer.st);
    CHECK_OK(writer_block(&writer, false, 1), writer.st);
    while (writer_read(&writer))
        ;
    CHECK_EQ(writer.st.code, STATUS_DATA_LOSS);
    CHECK_EQ(writer.stored_seq, 3);
    rpc_sync_stream_destroy(writer.call);
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_EQ(writer.next_seq, 3);
    CHECK_EQ(writer.epoch, 2);
    server_stop(&servers[0]);
}

/* The first writer hears that it was fenced, and its epoch takes no more. */
TEST(kvstore_fences_the_writer_before)
{
    struct writer first = { 0 }, second = { 0 };

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&first, &servers[0], "cam-1"), first.st);
    CHECK_OK(writer_begin(&first), first.st);
    CHECK_OK(writer_frames(&first, 2), first.st);
    CHECK_OK(writer_open(&second, &servers[0], "cam-1"), second.st);
    CHECK_EQ(second.epoch, first.epoch + 1);
    CHECK_EQ(second.next_seq, 2);
    while (writer_read(&first))
        ;
    CHECK_EQ(first.st.code, STATUS_ABORTED);
    rpc_sync_stream_destroy(first.call);
    CHECK(!writer_begin(&first));
    CHECK_EQ(first.st.code, STATUS_ABORTED);
    rpc_sync_stream_destroy(first.call);
    CHECK_OK(writer_begin(&second), second.st);
    CHECK_OK(writer_frames(&second, 2), second.st);
    CHECK_OK(writer_finish(&second), second.st);
    server_stop(&servers[0]);
}

/* A model whose keys are so large that the index of a small store holds one file's. */
static const struct kv_geometry large = {
    .layers = 64, .kv_heads = 8, .head_dim = 64, .dtype = KV_DTYPE_F16
};

static void large_open(struct writer *writer)
{
    Reelkv__V1__OpenStreamRequest request = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct reply reply;

    *writer = (struct writer){ .server = &servers[0], .name = "cam-1" };
    geometry.layers = large.layers;
    geometry.kv_heads = large.kv_heads;
    geometry.head_dim = large.head_dim;
    geometry.dtype = (Reelkv__V1__Dtype)large.dtype;
    request.id = &id;
    request.fingerprint = client_fingerprint();
    request.geometry = &geometry;
    request.writer = (char *)"analyzer-0";
    client_call(&servers[0], &reply, &api_open_stream, &request.base);
    CHECK_OK(reply.ok, reply.st);
    writer->epoch = ((const Reelkv__V1__OpenStreamReply *)reply.body)->epoch;
    writer->next_seq = ((const Reelkv__V1__OpenStreamReply *)reply.body)->next_seq;
    writer->next_token = writer->next_seq;
    client_done(&reply);
}

/* A frame of one token, all zeros; until it is stored. */
static bool large_frame(struct writer *writer)
{
    uint64_t bytes = kv_payload_bytes(&large, 1);
    uint8_t *payload = calloc(1, bytes);
    const struct rpc_attachment attachment = { .data = payload, .len = bytes };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    bool ok;

    block.seq = writer->next_seq;
    block.pts_ns = client_pts(block.seq);
    block.token_index = writer->next_token++;
    block.tokens = 1;
    block.payload_bytes = bytes;
    block.payload_crc32c = kv_crc(0, payload, bytes);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = &block;
    ok = writer_send(writer, &request, NULL);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    ok = ok && writer_send(writer, &request, &attachment);
    free(payload);
    writer->next_seq++;
    while (ok && writer->stored_seq < writer->next_seq)
        ok = writer_read(writer);
    return ok;
}

static void *large_frames(void *writer)
{
    while (large_frame(writer))
        ;
    return NULL;
}

/* A question holds the index, so that a writer waits for room in it; then another takes the stream. The first is told,
 * what it waited for is forgotten, and the second goes on. */
TEST(kvstore_fences_a_writer_that_waits_for_the_index)
{
    static const char *const options[] = { "--ram-budget-bytes=8M", "--append-wait-ms=60000", NULL };
    static const char *const names[] = { "cam-1" };
    static const struct kv_selection best = { KV_SELECT_REKV, 1, 0 };
    struct writer first, second;
    struct retrieval question = { 0 };
    struct rpc_payload payload;
    pthread_t thread;

    server_start(&servers[0], "kv-a", options);
    client_create(&servers[0], "cam-1");
    large_open(&first);
    CHECK_OK(writer_begin(&first), first.st);
    CHECK_OK(large_frame(&first), first.st);
    retrieval_open(&question, &servers[0], names, 1, &best, false);
    CHECK_EQ(retrieval_read(&question, &payload)->opened->frames, 1);
    CHECK_EQ(pthread_create(&thread, NULL, large_frames, &first), 0);
    usleep(500000); /* by then it waits; if not, it is fenced all the same */
    large_open(&second);
    pthread_join(thread, NULL);
    CHECK_EQ(first.st.code, STATUS_ABORTED);
    CHECK(second.next_seq >= 1);
    rpc_sync_stream_destroy(first.call);
    rpc_sync_cancel(question.call);
    rpc_sync_stream_destroy(question.call);
    CHECK_OK(writer_begin(&second), second.st);
    CHECK_OK(large_frame(&second), second.st);
    CHECK_OK(writer_finish(&second), second.st);
    server_stop(&servers[0]);
}

/* More gaps than may wait for the disk, long before it would be synced by itself: the writer waits, and is not refused. */
TEST(kvstore_makes_a_writer_of_many_gaps_wait)
{
    static const char *const options[] = { "--commit-ms=60000", NULL };
    struct writer writer = { 0 };

    server_start(&servers[0], "kv-a", options);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    for (unsigned i = 0; i < 1000; i++)
        CHECK_OK(writer_gap(&writer, 2, i % 2 == 0 ? "late" : "away"), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
    CHECK_EQ(writer.durable_seq, 2000);
    server_stop(&servers[0]);
}

/* A writer that reads no ack before it has said everything, so that they queue up: the last one, too, comes before the end. */
TEST(kvstore_sends_the_last_ack_before_the_end)
{
    enum { GAPS = 20000 };
    struct writer writer = { 0 };

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    for (unsigned i = 0; i < GAPS; i++)
        CHECK_OK(writer_gap(&writer, 1, "away"), writer.st);
    CHECK_OK(rpc_sync_half_close(writer.call, &writer.st), writer.st);
    usleep(500000); /* by then all of it is durable; if not, the last ack waits for that */
    while (writer_read(&writer))
        ;
    CHECK_OK(rpc_sync_finish(writer.call, &writer.st), writer.st);
    rpc_sync_stream_destroy(writer.call);
    CHECK_EQ(writer.durable_seq, GAPS);
    server_stop(&servers[0]);
}

/* SIGTERM while a writer appends: it hears UNAVAILABLE at once, and what was stored is there at the next start. */
TEST(kvstore_that_stops_tells_its_writers)
{
    struct writer writer = { 0 };

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, 25), writer.st);
    CHECK_EQ(kill(servers[0].process.pid, SIGTERM), 0);
    while (writer_read(&writer))
        ;
    CHECK_EQ(writer.st.code, STATUS_UNAVAILABLE);
    rpc_sync_stream_destroy(writer.call);
    rpc_sync_destroy(servers[0].client);
    CHECK_EQ(process_wait(&servers[0].process, 30000), 0);
    server_start(&servers[0], "kv-a", NULL);
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_EQ(writer.next_seq, 25);
    CHECK_EQ(writer.durable_seq, 25);
    server_stop(&servers[0]);
}

/* A writer that says nonsense is told so, and the stream goes on with the next. */
TEST(kvstore_refuses_writers_that_make_no_sense)
{
    struct kv_pool *pool;
    struct kv_shm_peer *peer;
    char socket[400];

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    snprintf(socket, sizeof socket, "%s/shm.sock", servers[0].path);
    CHECK_OK(kv_pool_create(&pool, "writer", 1 << 20, &st), st);
    CHECK_OK(kv_shm_peer_create(&peer, socket, pool, 5000, &st), st);
    for (unsigned i = 0; i < 7; i++) {
        static const char *const words[] = { "Begin",   "outside", "outside", "without a block",
                                             "payload", "to come", "gap" };
        const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
        Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
        Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
        Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
        const struct rpc_attachment bytes = { .data = socket, .len = 100 };
        struct writer writer = { 0 };

        if (i == 1 || i == 2)
            writer.peer = peer;
        CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
        CHECK_EQ(writer.next_seq, 0);
        if (i == 0)
            CHECK_OK(rpc_sync_open(&writer.call, servers[0].client, &api_append, &options, &st), st);
        else
            CHECK_OK(writer_begin(&writer), writer.st);
        block.tokens = CLIENT_TOKENS;
        block.payload_bytes = kv_payload_bytes(&client_geometry, CLIENT_TOKENS) - (i == 4);
        block.shm_offset = i == 1 ? 0 : UINT64_MAX - 5;
        block.seq = i == 6 ? 9 : 0;
        request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
        request.block = &block;
        if (i == 3) {
            request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
            request.chunk = &chunk;
        }
        if (writer_send(&writer, &request, i == 3 ? &bytes : NULL) && i == 5) {
            uint8_t *too_much = calloc(1, block.payload_bytes + 1);
            const struct rpc_attachment attachment = { .data = too_much, .len = block.payload_bytes + 1 };

            request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
            request.chunk = &chunk;
            writer_send(&writer, &request, &attachment);
            free(too_much);
        }
        while (writer_read(&writer))
            ;
        CHECK_EQ(writer.st.code, STATUS_INVALID);
        CHECK_HAS(writer.st.text, words[i]);
        rpc_sync_stream_destroy(writer.call);
    }
    kv_shm_peer_destroy(peer);
    kv_pool_destroy(pool);
    server_stop(&servers[0]);
}

TEST(kvstore_catalog_lists_pages_masks_passwords_and_deletes)
{
    Reelkv__V1__ListStreamsRequest list = REELKV__V1__LIST_STREAMS_REQUEST__INIT;
    Reelkv__V1__DeleteStreamRequest delete = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__GetStreamRequest get = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-2");
    char token[200] = "", name[32];
    struct reply reply;
    unsigned seen = 0;

    server_start(&servers[0], "kv-a", NULL);
    for (unsigned i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "cam-%u", i);
        client_create(&servers[0], name);
    }
    do {
        const Reelkv__V1__ListStreamsReply *page;

        list.page_size = 2;
        list.page_token = token;
        client_call(&servers[0], &reply, &api_list_streams, &list.base);
        CHECK_OK(reply.ok, reply.st);
        page = reply.body;
        for (size_t i = 0; i < page->n_streams; i++, seen++) {
            snprintf(name, sizeof name, "cam-%u", seen);
            CHECK_STR(page->streams[i]->definition->id->name, name);
            CHECK_STR(page->streams[i]->definition->store, "kv-a");
            CHECK_HAS(page->streams[i]->definition->source, "***@cam.example");
            CHECK(strstr(page->streams[i]->definition->source, "secret") == NULL);
            CHECK_EQ(page->streams[i]->state, REELKV__V1__STREAM_STATE__STREAM_STATE_WAITING);
        }
        snprintf(token, sizeof token, "%s", page->next_page_token);
        client_done(&reply);
    } while (token[0] != '\0');
    CHECK_EQ(seen, 5);
    get.id = &id;
    get.with_secret = true;
    client_call(&servers[0], &reply, &api_get_stream, &get.base);
    CHECK_OK(reply.ok, reply.st);
    CHECK_HAS(((const Reelkv__V1__StreamStatus *)reply.body)->definition->source, "user:secret@");
    client_done(&reply);
    delete.id = &id;
    client_call(&servers[0], &reply, &api_delete_stream, &delete.base);
    CHECK_OK(reply.ok, reply.st);
    client_done(&reply);
    client_call(&servers[0], &reply, &api_get_stream, &get.base);
    CHECK(!reply.ok);
    CHECK_EQ(reply.st.code, STATUS_NOT_FOUND);
    client_done(&reply);
    server_stop(&servers[0]);
    server_start(&servers[0], "kv-a", NULL);
    client_call(&servers[0], &reply, &api_get_stream, &get.base);
    CHECK_EQ(reply.st.code, STATUS_NOT_FOUND);
    client_done(&reply);
    server_stop(&servers[0]);
}

static void check_trouble(const char *says)
{
    Reelkv__V1__GetStreamRequest get = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct reply reply;

    get.id = &id;
    client_call(&servers[0], &reply, &api_get_stream, &get.base);
    CHECK_OK(reply.ok, reply.st);
    CHECK_STR(((const Reelkv__V1__StreamStatus *)reply.body)->trouble, says);
    client_done(&reply);
}

static void report(const char *trouble)
{
    Reelkv__V1__ReportTroubleRequest request = REELKV__V1__REPORT_TROUBLE_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct reply reply;

    request.id = &id;
    request.trouble = (char *)trouble;
    client_call(&servers[0], &reply, &api_report_trouble, &request.base);
    CHECK_OK(reply.ok, reply.st);
    client_done(&reply);
}

TEST(kvstore_says_what_an_encoder_reported_until_something_comes)
{
    struct writer writer = { 0 };

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    check_trouble("");
    report("there is no analyzer");
    check_trouble("there is no analyzer");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, 1), writer.st);
    check_trouble("");
    report("its web server is away");
    check_trouble("its web server is away");
    CHECK_OK(writer_gap(&writer, 1, "nothing came"), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
    check_trouble("");
    server_stop(&servers[0]);
}

TEST(kvstore_timeline_shows_frames_and_gaps)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    Reelkv__V1__GetServerInfoRequest ask = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    const Reelkv__V1__TimelineReply *timeline;
    const Reelkv__V1__ServerInfo *info;
    struct writer writer = { 0 };
    struct reply reply;

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, 10), writer.st);
    CHECK_OK(writer_gap(&writer, 5, "no route to host"), writer.st);
    CHECK_OK(writer_frames(&writer, 10), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
    request.id = &id;
    client_call(&servers[0], &reply, &api_timeline, &request.base);
    CHECK_OK(reply.ok, reply.st);
    timeline = reply.body;
    CHECK_EQ(timeline->n_spans, 3);
    CHECK_EQ(timeline->next_seq, 0);
    CHECK_EQ(timeline->spans[0]->to_seq, 10);
    CHECK_EQ(timeline->spans[1]->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP);
    CHECK_EQ(timeline->spans[1]->to_seq, 15);
    CHECK_STR(timeline->spans[1]->reason, "no route to host");
    CHECK_EQ(timeline->spans[2]->from_seq, 15);
    CHECK_EQ(timeline->spans[2]->to_seq, 25);
    CHECK(timeline->spans[2]->in_ram);
    client_done(&reply);
    request.page_size = 1;
    request.after_seq = 10;
    client_call(&servers[0], &reply, &api_timeline, &request.base);
    CHECK_OK(reply.ok, reply.st);
    timeline = reply.body;
    CHECK_EQ(timeline->n_spans, 1);
    CHECK_EQ(timeline->spans[0]->from_seq, 10);
    CHECK_EQ(timeline->next_seq, 15);
    client_done(&reply);
    client_call(&servers[0], &reply, &api_get_server_info, &ask.base);
    CHECK_OK(reply.ok, reply.st);
    info = reply.body;
    CHECK_STR(info->name, "kv-a");
    CHECK_EQ(info->streams, 1);
    CHECK_EQ(info->frames, 20);
    CHECK(info->disk_used_bytes > 0 && info->disk_used_bytes <= info->disk_budget_bytes);
    CHECK(info->ram_used_bytes > 0 && info->ram_used_bytes <= info->ram_budget_bytes);
    CHECK_HAS(info->shm_socket, "shm.sock");
    client_done(&reply);
    server_stop(&servers[0]);
}

TEST(kvstore_second_process_on_one_folder_is_refused)
{
    struct process second;
    char path[400];

    server_start(&servers[0], "kv-a", NULL);
    snprintf(path, sizeof path, "%s", servers[0].path);
    CHECK_EQ(process_run(&second, "second",
                         PROCESS_ARGS("reelkv-kvstore", "--path", path, "--redis", "127.0.0.1:1",
                                      "--ram-budget-bytes=24M", "--disk-budget-bytes=64M"),
                         10000),
             1);
    CHECK_HAS(process_log(&second), "in use by another kvstore");
    server_stop(&servers[0]);
}

TEST_MAIN()
