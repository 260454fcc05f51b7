/* Catalog.WatchStream of a real kvstore: a state at once, every later one soon, the last one always. */
#include "kvstore_client.h"

static struct server server;

struct watch {
    struct rpc_sync_stream *call;
    Reelkv__V1__StreamStatus last; /* its numbers; pointers are not kept */
    struct status st;
};

static void watch_open(struct watch *watch, const char *name)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__WatchStreamRequest request = REELKV__V1__WATCH_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(name);

    *watch = (struct watch){ 0 };
    request.id = &id;
    CHECK_OK(rpc_sync_open(&watch->call, server.client, &api_watch_stream, &options, &watch->st), watch->st);
    CHECK_OK(rpc_sync_write(watch->call, &request.base, NULL, &watch->st), watch->st);
    CHECK_OK(rpc_sync_half_close(watch->call, &watch->st), watch->st);
}

static bool watch_read(struct watch *watch)
{
    const struct rpc_message *message;

    if (!rpc_sync_read(watch->call, &message, &watch->st))
        return false;
    CHECK(message != NULL);
    watch->last = *(const Reelkv__V1__StreamStatus *)message->body;
    CHECK_HAS(watch->last.definition->source, "***@cam.example");
    return true;
}

static void watch_until(struct watch *watch, Reelkv__V1__StreamState state, uint64_t durable_seq)
{
    uint64_t before = 0;

    while (watch->last.state != state || watch->last.durable_seq != durable_seq) {
        CHECK_OK(watch_read(watch), watch->st);
        CHECK(watch->last.durable_seq >= before);
        before = watch->last.durable_seq;
    }
}

TEST(watch_tells_the_durable_watermark_as_it_moves_and_the_streams_end)
{
    Reelkv__V1__DeleteStreamRequest delete = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct writer writer = { 0 };
    struct watch watch;
    struct reply reply;

    server_start(&server, "kv-a", NULL);
    client_create(&server, "cam-1");
    watch_open(&watch, "cam-1");
    watch_until(&watch, REELKV__V1__STREAM_STATE__STREAM_STATE_WAITING, 0);
    CHECK_OK(writer_open(&writer, &server, "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK_OK(writer_frames(&writer, 1), writer.st);
        watch_until(&watch, REELKV__V1__STREAM_STATE__STREAM_STATE_RUNNING, i);
    }
    CHECK_OK(writer_finish(&writer), writer.st);
    watch_until(&watch, REELKV__V1__STREAM_STATE__STREAM_STATE_WAITING, 3);
    delete.id = &id;
    client_call(&server, &reply, &api_delete_stream, &delete.base);
    CHECK_OK(reply.ok, reply.st);
    client_done(&reply);
    while (watch_read(&watch))
        ;
    CHECK_EQ(watch.st.code, STATUS_NOT_FOUND);
    CHECK_HAS(watch.st.text, "default/cam-1 was removed");
    rpc_sync_stream_destroy(watch.call);
    server_stop(&server);
}

TEST(watch_of_an_unknown_stream_is_refused)
{
    struct watch watch;

    server_start(&server, "kv-a", NULL);
    watch_open(&watch, "cam-1");
    CHECK(!watch_read(&watch));
    CHECK_EQ(watch.st.code, STATUS_NOT_FOUND);
    rpc_sync_stream_destroy(watch.call);
    server_stop(&server);
}

TEST(watches_beyond_the_limit_are_refused_with_a_time_to_retry)
{
    enum { WATCHES = 256 };
    static struct watch watches[WATCHES + 1];

    server_start(&server, "kv-a", NULL);
    client_create(&server, "cam-1");
    for (size_t i = 0; i < WATCHES; i++) {
        watch_open(&watches[i], "cam-1");
        CHECK_OK(watch_read(&watches[i]), watches[i].st);
    }
    watch_open(&watches[WATCHES], "cam-1");
    CHECK(!watch_read(&watches[WATCHES]));
    CHECK_EQ(watches[WATCHES].st.code, STATUS_EXHAUSTED);
    CHECK(watches[WATCHES].st.retry_after_ms > 0);
    for (size_t i = 0; i <= WATCHES; i++)
        rpc_sync_stream_destroy(watches[i].call);
    server_stop(&server);
}

/* Open watches would hold a drain up for --drain-ms; here that is longer than the test waits for the process. */
TEST(watches_end_when_the_store_stops)
{
    struct watch watch;

    server_start(&server, "kv-a", (const char *[]){ "--drain-ms=600000", NULL });
    client_create(&server, "cam-1");
    watch_open(&watch, "cam-1");
    CHECK_OK(watch_read(&watch), watch.st);
    CHECK_EQ(process_stop(&server.process, SIGTERM, 30000), 0);
    while (watch_read(&watch))
        ;
    CHECK_EQ(watch.st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(watch.st.text, "store kv-a is stopping");
    rpc_sync_stream_destroy(watch.call);
    rpc_sync_destroy(server.client);
}

TEST_MAIN()
