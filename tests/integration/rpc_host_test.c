#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/process.h"
#include "support/rpc_calls.h"
#include "support/test.h"

static struct process server;
static char tcp_address[128], unix_address[300];

/* Starts the server on a free port and a socket of the test's own; reads the ready line as a program would. */
static void start(const char *drain_option)
{
    struct status st = { 0 };
    static unsigned started; /* a log of its own for each */
    char listen[400], name[32];
    struct json *ready;
    char *line;

    snprintf(unix_address, sizeof unix_address, "unix:%s/rpc.sock", test_folder());
    snprintf(listen, sizeof listen, "--listen=127.0.0.1:0,%s", unix_address);
    snprintf(name, sizeof name, "server-%u", ++started);
    process_start(&server, name, PROCESS_ARGS("rpc-test-server", listen, drain_option));
    CHECK(process_wait_text(&server, "]}\n", 30000));
    line = strdup(process_log(&server));
    REQUIRE(line != NULL);
    line[strcspn(line, "\n")] = '\0';
    ready = json_parse((struct bytes){ (const uint8_t *)line, strlen(line) }, &st);
    CHECK(ready != NULL);
    CHECK(json_bool(json_get(ready, "ready")));
    CHECK_STR(json_str(json_get(ready, "service")), "test");
    CHECK_EQ(json_len(json_get(ready, "addresses")), 2);
    snprintf(tcp_address, sizeof tcp_address, "%s", json_str(json_at(json_get(ready, "addresses"), 0)));
    CHECK_STR(json_str(json_at(json_get(ready, "addresses"), 1)), unix_address);
    json_free(ready);
    free(line);
}

static struct rpc_sync *client;

static struct rpc_sync_stream *open_push(void)
{
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    CHECK_OK(rpc_sync_create(&client, tcp_address, NULL, &st), st);
    CHECK_OK(rpc_sync_open(&stream, client, &api_append, &patient, &st), st);
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    const struct rpc_message *reply;
    CHECK_OK(rpc_sync_write(stream, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_read(stream, &reply, &st), st);
    return stream;
}

TEST(a_service_says_when_it_is_ready_and_leaves_on_sigterm)
{
    struct status st = { 0 };

    start("--drain-ms=10000");
    CHECK_OK(calls_info_at(tcp_address, &st), st);
    CHECK_OK(calls_info_at(unix_address, &st), st);
    CHECK_EQ(process_stop(&server, SIGTERM, 20000), 0);
    CHECK_HAS(process_log(&server), " drain got SIGTERM with ");
    CHECK(access(unix_address + 5, F_OK) != 0);
    CHECK(!calls_info_at(tcp_address, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "Connection refused");
}

/* A stream that its client leaves open holds the exit up for drain_ms and no longer. */
TEST(an_open_stream_delays_the_exit_only_for_drain_ms)
{
    struct rpc_sync_stream *stream;
    struct status st = { 0 };

    start("--drain-ms=300");
    stream = open_push();
    CHECK_EQ(process_stop(&server, SIGTERM, 20000), 0);
    CHECK(!rpc_sync_finish(stream, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    rpc_sync_stream_destroy(stream);
    rpc_sync_destroy(client);
}

/* drain_ms would hold for ten minutes; a second signal does not wait for it. */
TEST(a_second_signal_shortens_the_drain)
{
    struct rpc_sync_stream *stream;
    struct status st = { 0 };

    start("--drain-ms=600000");
    stream = open_push();
    kill(server.pid, SIGINT);
    CHECK(process_wait_text(&server, "drain got SIGINT with 1 calls open", 20000));
    for (int i = 0; i < 4000 && calls_info_at(tcp_address, &st); i++)
        test_pause_ms(5); /* the lame time of 0 ms ends: the server is closing */
    CHECK_EQ(process_stop(&server, SIGTERM, 20000), 0);
    rpc_sync_stream_destroy(stream);
    rpc_sync_destroy(client);
}

/* Signals keep coming while the process takes itself down: the exit code is still that of a clean end. */
TEST(signals_during_the_end_do_not_spoil_it)
{
    for (int round = 0; round < 5; round++) {
        start("--drain-ms=10000");
        for (int i = 0; i < 300 && kill(server.pid, i % 2 == 0 ? SIGTERM : SIGINT) == 0; i++)
            usleep(200);
        CHECK_EQ(process_wait(&server, 20000), 0);
    }
}

TEST(bad_options_and_taken_addresses_are_told)
{
    struct process other;
    char listen[400];

    start("--drain-ms=10000");
    snprintf(listen, sizeof listen, "--listen=%s", tcp_address);
    CHECK_EQ(process_run(&other, "taken", PROCESS_ARGS("rpc-test-server", listen), 20000), 1);
    CHECK_HAS(process_log(&other), "Address already in use");
    CHECK(strstr(process_log(&other), ".cc:") == NULL); /* gRPC would write lines of its own */
    snprintf(listen, sizeof listen, "--listen=%s", unix_address);
    CHECK_EQ(process_run(&other, "stolen", PROCESS_ARGS("rpc-test-server", listen), 20000), 1);
    CHECK_HAS(process_log(&other), "is served by another process");
    CHECK_EQ(process_run(&other, "empty", PROCESS_ARGS("rpc-test-server", "--listen=127.0.0.1:0,,"), 20000),
             1);
    CHECK_HAS(process_log(&other), "--listen has an empty address in it");
    CHECK_EQ(process_run(&other, "bad", PROCESS_ARGS("rpc-test-server", "--max-calls=0"), 20000), 2);
    CHECK_EQ(process_stop(&server, SIGTERM, 20000), 0);
}

TEST_MAIN()
