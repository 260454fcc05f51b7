#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "rpc/client.h"
#include "rpc/host.h"
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

/* A service of the test's own process, with a call to the server. */
struct caller {
    struct rpc_host *host;
    unsigned replies, ends, lent, released;
    struct loop_timer timer;
};

static void caller_message(struct rpc_stream *stream, const struct rpc_message *message, void *user)
{
    ((struct caller *)user)->replies++;
}

static void caller_end(struct rpc_stream *stream, const struct status *status, void *user)
{
    ((struct caller *)user)->ends++;
}

static void caller_released(void *user)
{
    ((struct caller *)user)->released++;
}

static void tick(struct loop_timer *timer)
{
}

static void turn_for(struct caller *caller, int turns)
{
    while (turns-- > 0) {
        loop_timer_start(rpc_host_loop(caller->host), &caller->timer, 10, tick);
        loop_run_once(rpc_host_loop(caller->host));
    }
    loop_timer_stop(&caller->timer);
}

static void lend_all_there_is_room_for(struct caller *caller, struct rpc_stream *stream)
{
    static uint8_t payload[1 << 20];
    const struct rpc_attachment attachment = { payload, sizeof payload, caller_released, caller };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;

    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    while (rpc_stream_write(stream, &request.base, &attachment))
        caller->lent++;
}

static void kill_server(struct loop_timer *timer)
{
    kill(server.pid, SIGKILL);
}

/* The neighbour hangs with a full socket, so gRPC holds what it has begun to write to it; the service that lent it must
 * not go on to destroy it. */
TEST(what_was_lent_to_a_call_is_back_when_the_run_returns)
{
    const struct rpc_host_options options = { .service = "caller", .listen = "", .advertise = "" };
    const struct rpc_stream_events events = { .on_message = caller_message, .on_end = caller_end };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    struct rpc_channel *channel = NULL;
    struct caller caller = { 0 };
    struct rpc_stream *stream;
    struct status st = { 0 };
    sigset_t signals;

    start("--drain-ms=10000");
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &signals) == 0);
    CHECK_OK(rpc_host_create(&caller.host, &options, &st), st);
    CHECK_OK(rpc_channel_create(&channel, rpc_host_rpc(caller.host), unix_address, NULL, &st), st);
    stream = rpc_stream_open(channel, &api_append, &patient, &events, &caller);
    CHECK(rpc_stream_write(stream, &request.base, NULL));
    rpc_stream_read(stream);
    while (caller.replies == 0)
        loop_run_once(rpc_host_loop(caller.host));
    CHECK(kill(server.pid, SIGSTOP) == 0);
    lend_all_there_is_room_for(&caller, stream);
    turn_for(&caller, 30);
    CHECK(caller.released < caller.lent);
    loop_timer_start(rpc_host_loop(caller.host), &caller.timer, 300, kill_server);
    CHECK(kill(getpid(), SIGTERM) == 0);
    rpc_host_run(caller.host);
    CHECK_EQ(caller.ends, 1);
    CHECK_EQ(caller.released, caller.lent);
    loop_timer_stop(&caller.timer);
    rpc_channel_destroy(channel);
    rpc_host_destroy(caller.host);
    CHECK(pthread_sigmask(SIG_SETMASK, &signals, NULL) ==
          0); /* it leaves SIGTERM blocked, and programs inherit that */
    process_stop(&server, SIGKILL, 20000);
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
