#include "rpc/client.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reelkv/v1/ingest.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/process.h"
#include "support/rpc_fixture.h"
#include "support/test.h"

static const struct rpc_stream_options patient = { .timeout_ms = 30000 };

/* Server and client on one loop, which the test turns itself. */
static struct fixture fixture;
static struct rpc_channel *channel;

static void serve(const struct rpc_server_options *wanted, const char *address)
{
    const char *addresses[] = { address };
    struct rpc_server_options options = wanted != NULL ? *wanted : (struct rpc_server_options){ 0 };
    struct status st = { 0 };

    options.addresses = addresses;
    options.address_count = 1;
    options.services = fixture.services;
    options.service_count = 2;
    CHECK_OK(rpc_server_create(&fixture.server, fixture.rpc, &options, &st), st);
}

static void begin(const struct rpc_server_options *wanted)
{
    struct status st = { 0 };

    memset(&fixture, 0, sizeof fixture);
    fixture_services(&fixture);
    CHECK_OK(loop_create(&fixture.loop, &st), st);
    CHECK_OK(rpc_create(&fixture.rpc, fixture.loop, &st), st);
    serve(wanted, "127.0.0.1:0");
    CHECK_OK(rpc_channel_create(&channel, fixture.rpc, rpc_server_address(fixture.server, 0), NULL, &st), st);
}

static void end(void)
{
    rpc_channel_destroy(channel);
    rpc_server_destroy(fixture.server);
    rpc_destroy(fixture.rpc);
    loop_destroy(fixture.loop);
}

struct seen {
    unsigned messages, writable, ends;
    unsigned want; /* messages to read on for */
    uint64_t bytes;
    bool after_end;
    struct status status;
    char text[128];
};

static void seen_message(struct rpc_stream *stream, const struct rpc_message *message, void *user)
{
    struct seen *seen = user;

    seen->after_end = seen->after_end || seen->ends > 0;
    seen->messages++;
    seen->bytes += message->payload.len;
    if (seen->messages < seen->want)
        rpc_stream_read(stream);
}

static void seen_writable(struct rpc_stream *stream, void *user)
{
    ((struct seen *)user)->writable++;
}

static void seen_end(struct rpc_stream *stream, const struct status *status, void *user)
{
    struct seen *seen = user;

    seen->ends++;
    seen->status = *status;
}

static const struct rpc_stream_events events = { seen_message, seen_writable, seen_end };

static void turn_until(const unsigned *counter, unsigned want)
{
    while (*counter < want)
        loop_run_once(fixture.loop);
}

static void on_reply(const struct status *status, const struct rpc_message *reply, void *user)
{
    struct seen *seen = user;

    seen->ends++;
    seen->status = *status;
    if (reply != NULL) {
        seen->messages++;
        if (reply->body->descriptor == &reelkv__v1__server_info__descriptor)
            snprintf(seen->text, sizeof seen->text, "%s",
                     ((const Reelkv__V1__ServerInfo *)reply->body)->name);
    }
}

TEST(a_unary_call_on_the_loop_is_answered_once)
{
    struct rpc_stream_options options = { .timeout_ms = 30000, .request_id = "abc" };
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct seen seen = { 0 };

    begin(NULL);
    rpc_unary(channel, &api_get_server_info, &options, &request.base, on_reply, &seen);
    CHECK_EQ(seen.ends, 0); /* never before it returns */
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_OK);
    CHECK_STR(seen.text, "abc");
    end();
    CHECK_EQ(seen.ends, 1);
}

/* All are started before any is answered; all are taken. */
TEST(a_burst_of_3000_calls_is_answered_completely)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct rpc_server_options options = { .max_calls = 4096 };
    struct seen seen = { 0 };

    begin(&options);
    for (int i = 0; i < 3000; i++)
        rpc_unary(channel, &api_get_server_info, &patient, &request.base, on_reply, &seen);
    turn_until(&seen.ends, 3000);
    CHECK_EQ(seen.messages, 3000);
    end();
}

/* The same with room for 64: the rest is refused, at once and with advice, none hangs. */
TEST(a_burst_beyond_the_limit_is_refused_not_queued)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    struct rpc_server_options options = { .max_calls = 64, .max_streams = 10000 };
    struct seen seen = { 0 };

    begin(&options);
    for (int i = 0; i < 3000; i++)
        rpc_unary(channel, &api_score, &patient, &request.base, on_reply, &seen);
    turn_until(&seen.ends, 3000 - 64);
    CHECK_EQ(seen.messages, 0);
    CHECK_EQ(seen.status.code, STATUS_EXHAUSTED);
    CHECK_EQ(seen.status.retry_after_ms, 100);
    CHECK_EQ(rpc_server_calls(fixture.server), 64);
    fixture_release_held(&fixture);
    turn_until(&seen.ends, 3000);
    CHECK_EQ(seen.messages, 64);
    end();
}

static bool write_chunk(struct rpc_stream *stream, const void *data, size_t len)
{
    struct rpc_attachment attachment = { .data = data, .len = len };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;

    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    return rpc_stream_write(stream, &request.base, &attachment);
}

/* gRPC refuses a second send while one is in flight. Here writes queue up to the bound, then say no, and on_writable
 * says when to go on. */
TEST(writes_queue_up_to_the_bound_and_then_say_no)
{
    struct seen seen = { .want = 100 };
    struct rpc_stream *stream;
    unsigned written = 0;

    begin(NULL);
    stream = rpc_stream_open(channel, &api_append, &patient, &events, &seen);
    rpc_stream_read(stream);
    while (write_chunk(stream, "0123456789", 10))
        written++;
    CHECK_EQ(written, RPC_QUEUED_MESSAGES);
    while (written < 100) {
        turn_until(&seen.writable, seen.writable + 1);
        while (written < 100 && write_chunk(stream, "0123456789", 10))
            written++;
    }
    rpc_stream_half_close(stream);
    CHECK(!write_chunk(stream, "too late", 8));
    turn_until(&seen.messages, 100);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_OK);
    CHECK_EQ(atomic_load(&fixture.messages), 100);
    end();
    CHECK(!seen.after_end);
}

TEST(a_client_stream_on_the_loop_is_answered_at_its_end)
{
    struct seen seen = { .want = 1 };
    struct rpc_stream *stream;

    begin(NULL);
    stream = rpc_stream_open(channel, &fixture_collect, &patient, &events, &seen);
    rpc_stream_read(stream);
    for (int i = 0; i < 5; i++)
        CHECK(write_chunk(stream, "0123456789", 10));
    rpc_stream_half_close(stream);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_OK);
    CHECK_EQ(seen.messages, 1);
    end();
}

/* Large messages: the queue is bounded by its bytes, too. */
TEST(the_write_queue_is_bounded_in_bytes)
{
    struct seen seen = { 0 };
    struct rpc_stream *stream;
    unsigned written = 0;
    void *data = calloc(1, 3 << 20);

    REQUIRE(data != NULL);
    begin(NULL);
    stream = rpc_stream_open(channel, &api_append, &patient, &events, &seen);
    while (write_chunk(stream, data, 3 << 20))
        written++;
    CHECK_EQ(written, 2); /* 3 MiB is below RPC_QUEUED_BYTES, 6 MiB is not */
    rpc_stream_cancel(stream);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_CANCELLED);
    CHECK_HAS(seen.status.text, "/reelkv.v1.KvStore/Append");
    free(data);
    end();
}

TEST(cancel_reaches_the_handler_and_ends_the_call_once)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    struct seen seen = { 0 };
    struct rpc_stream *stream;

    begin(NULL);
    stream = rpc_unary(channel, &api_score, &patient, &request.base, on_reply, &seen);
    while (atomic_load(&fixture.opened) < 1)
        loop_run_once(fixture.loop);
    rpc_stream_cancel(stream);
    rpc_stream_cancel(stream);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_CANCELLED);
    while (atomic_load(&fixture.ended) < 1)
        loop_run_once(fixture.loop);
    CHECK_EQ(atomic_load(&fixture.cancelled), 1);
    end();
    CHECK_EQ(seen.ends, 1);
}

/* A server that takes the connection and says nothing: a call to it waits. */
static int listen_deaf(char address[32])
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof in;

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&in, len) == 0 && listen(fd, 8) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
    snprintf(address, 32, "127.0.0.1:%u", ntohs(in.sin_port));
    return fd;
}

/* A channel and the whole of gRPC are taken down under open calls: each hears its end, once. */
TEST(taking_gRPC_down_ends_open_calls)
{
    static const struct rpc_stream_options endless = { .timeout_ms = RPC_NO_TIMEOUT };
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    struct seen unary = { 0 }, stream = { 0 };
    struct status st = { 0 };
    char address[32];
    int deaf;

    begin(NULL);
    rpc_unary(channel, &api_score, &patient, &request.base, on_reply, &unary);
    rpc_stream_read(rpc_stream_open(channel, &api_push, &patient, &events, &stream));
    while (atomic_load(&fixture.opened) < 2)
        loop_run_once(fixture.loop);
    rpc_server_destroy(fixture.server);
    fixture.server = NULL;
    turn_until(&unary.ends, 1);
    turn_until(&stream.ends, 1);
    CHECK_EQ(unary.status.code, STATUS_UNAVAILABLE);
    CHECK_HAS(unary.status.text, rpc_channel_address(channel));
    memset(&unary, 0, sizeof unary);
    rpc_channel_destroy(channel);
    deaf = listen_deaf(address);
    CHECK_OK(rpc_channel_create(&channel, fixture.rpc, address, NULL, &st), st);
    rpc_unary(channel, &api_score, &endless, &request.base, on_reply, &unary);
    end();
    CHECK_EQ(unary.ends, 1);
    CHECK(unary.status.code != STATUS_OK);
    CHECK_EQ(stream.ends, 1);
    close(deaf);
}

/* gRPC looks again by itself for a server that was not there; until it does, calls fail at once. */
static void call_until_answered(void)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct seen seen;

    for (;;) {
        memset(&seen, 0, sizeof seen);
        rpc_unary(channel, &api_get_server_info, &patient, &request.base, on_reply, &seen);
        turn_until(&seen.ends, 1);
        if (seen.status.code != STATUS_UNAVAILABLE)
            break;
        test_pause_ms(10);
    }
    CHECK_EQ(seen.status.code, STATUS_OK);
}

TEST(a_server_that_is_not_there_is_unavailable_and_found_when_it_comes)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct seen seen = { 0 };
    char address[300];
    struct status st = { 0 };

    begin(NULL);
    rpc_channel_destroy(channel);
    rpc_server_destroy(fixture.server);
    snprintf(address, sizeof address, "unix:%s/later.sock", test_folder());
    CHECK_OK(rpc_channel_create(&channel, fixture.rpc, address, NULL, &st), st);
    rpc_unary(channel, &api_get_server_info, &patient, &request.base, on_reply, &seen);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_UNAVAILABLE);
    CHECK_HAS(seen.status.text, address);
    serve(NULL, address);
    call_until_answered();
    end();
}

/* The server goes and comes back at the same address: the channel finds it again by itself, though a call that was sent on
 * the breaking connection is lost. */
TEST(a_channel_connects_again_after_its_server_was_replaced)
{
    char address[128];

    begin(NULL);
    snprintf(address, sizeof address, "%s", rpc_server_address(fixture.server, 0));
    for (int round = 0; round < 3; round++) {
        call_until_answered();
        rpc_server_destroy(fixture.server);
        serve(NULL, address);
    }
    end();
}

/* The reader asks for 7 of 50 messages, then no more: nothing else is delivered until it does. */
TEST(messages_come_only_as_they_are_asked_for)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    struct seen seen = { .want = 7 };
    struct rpc_stream *stream;

    begin(NULL);
    request.first_layer = 50;
    request.layers = 10;
    stream = rpc_stream_open(channel, &api_fetch, &patient, &events, &seen);
    CHECK(rpc_stream_write(stream, &request.base, NULL));
    rpc_stream_half_close(stream);
    rpc_stream_read(stream);
    turn_until(&seen.messages, 7);
    while (atomic_load(&fixture.writes) < 50)
        loop_run_once(fixture.loop);
    CHECK_EQ(seen.messages, 7);
    CHECK_EQ(seen.ends, 0);
    seen.want = 51;
    rpc_stream_read(stream);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.messages, 50);
    CHECK_EQ(seen.bytes, 50 * 10240);
    CHECK_EQ(seen.status.code, STATUS_OK);
    while (atomic_load(&fixture.releases) < 50)
        loop_run_once(fixture.loop);
    end();
}

TEST(a_request_over_the_limit_fails_with_its_size)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    struct seen seen = { 0 };

    begin(NULL);
    request.query.len = 17 << 20;
    request.query.data = calloc(1, request.query.len);
    REQUIRE(request.query.data != NULL);
    rpc_unary(channel, &api_score, &patient, &request.base, on_reply, &seen);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_EXHAUSTED);
    CHECK_HAS(seen.status.text, "larger than the limit of 16777216");
    free(request.query.data);
    end();
}

/* The reply is not what the client takes it for: the call fails as INTERNAL, it is not our caller's fault. */
TEST(a_malformed_reply_is_an_internal_error)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct rpc_method method = api_get_server_info;
    struct seen seen = { 0 };

    begin(NULL);
    method.reply = &reelkv__v1__timeline_reply__descriptor; /* field 1: a message, not a name */
    rpc_unary(channel, &method, &patient, &request.base, on_reply, &seen);
    turn_until(&seen.ends, 1);
    CHECK_EQ(seen.status.code, STATUS_INTERNAL);
    CHECK_HAS(seen.status.text, "not a well-formed reelkv.v1.TimelineReply");
    end();
}

TEST_MAIN()
