/* lib/rpc's client against a server that shares no code with it: rpc_stock_server.py, Debian's python3-grpcio. */
#include <signal.h>
#include <stdlib.h>

#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "rpc/sync.h"
#include "support/process.h"
#include "support/test.h"

static struct process server;
static struct rpc_sync *client;

static void begin(void)
{
    struct status st = { 0 };
    char address[64];
    unsigned port = 0;

    process_start(&server, "server",
                  PROCESS_ARGS("/usr/bin/python3",
                               REELKV_SOURCE_DIR "/tests/integration/rpc_stock_server.py"));
    CHECK(process_wait_text(&server, " ready\n", 30000));
    CHECK_EQ(sscanf(process_log(&server), "port %u ready", &port), 1);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    CHECK_OK(rpc_sync_create(&client, address, NULL, &st), st);
}

static void end(void)
{
    rpc_sync_destroy(client);
    process_stop(&server, SIGKILL, 10000);
}

/* What GetServerInfo is to do is in the request id; it answers with so many letters. */
static bool ask(const char *wanted, size_t letters, struct status *st)
{
    struct rpc_stream_options options = { .timeout_ms = 60000, .request_id = wanted };
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    bool ok;

    ok = rpc_sync_unary(&stream, client, &api_get_server_info, &options, &request.base, &reply, st);
    if (ok)
        CHECK_EQ(strlen(((const Reelkv__V1__ServerInfo *)reply->body)->name), letters);
    rpc_sync_stream_destroy(stream);
    return ok;
}

TEST(a_stock_server_is_understood)
{
    struct rpc_stream_options options = { .timeout_ms = 60000 };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    struct rpc_attachment attachment = { .data = "abc" };
    const struct rpc_message *message = NULL;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    begin();
    CHECK_OK(ask("plain", 1, &st), st);
    CHECK(!ask("retry-1250", 0, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_STR(st.text, "busy");
    CHECK_EQ(st.retry_after_ms, 1250);
    CHECK_OK(rpc_sync_open(&stream, client, &api_append, &options, &st), st);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    for (attachment.len = 1; attachment.len <= 3; attachment.len++) {
        CHECK_OK(rpc_sync_write(stream, &request.base, &attachment, &st), st);
        CHECK_OK(rpc_sync_read(stream, &message, &st), st);
        CHECK_EQ(((const Reelkv__V1__AppendReply *)message->body)->stored_seq, attachment.len);
    }
    CHECK_EQ(((const Reelkv__V1__AppendReply *)message->body)->durable_seq, 'a' + 'b' + 'c');
    CHECK_OK(rpc_sync_finish(stream, &st), st);
    rpc_sync_stream_destroy(stream);
    end();
}

static unsigned long memory_peak_kb(void)
{
    char line[256];
    unsigned long peak = 0;
    FILE *file = fopen("/proc/self/status", "r");

    REQUIRE(file != NULL);
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "VmHWM: %lu", &peak) != 1)
        ;
    fclose(file);
    return peak;
}

/* Our calls say that they take no compressed replies, and a stock server that was told to compress does it all the same.
 * 100 MB of one letter, 100 kB on the wire: gRPC would inflate them whole and only then look at the size. It is gRPC or
 * lib/rpc that refuses, whoever looks first. */
TEST(compressed_replies_are_refused_before_they_are_inflated)
{
    struct status st = { 0 };
    unsigned long before;

    begin();
    CHECK_OK(ask("plain", 1, &st), st);
    before = memory_peak_kb();
    for (int i = 0; i < 20; i++) {
        CHECK(!ask(i < 19 ? "zip-1000" : "zip-100000000", 0, &st));
        CHECK_EQ(st.code, STATUS_UNIMPLEMENTED);
        CHECK_HAS(st.text, "ompress");
    }
    CHECK(memory_peak_kb() - before < 50000);
    CHECK_OK(ask("plain", 1, &st), st);
    end();
}

TEST_MAIN()
