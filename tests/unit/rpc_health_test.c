#include "grpc/health/v1/health.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "rpc/sync.h"
#include "support/rpc_fixture.h"
#include "support/test.h"

static const struct rpc_stream_options patient = { .timeout_ms = 30000 };
static const struct rpc_method check_method = {
    .path = "/grpc.health.v1.Health/Check",
    .shape = RPC_UNARY,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};
static const struct rpc_method watch_method = {
    .path = "/grpc.health.v1.Health/Watch",
    .shape = RPC_SERVER_STREAM,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};

enum {
    UNKNOWN = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN,
    SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING,
    NOT_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING,
};

static struct fixture fixture;
static struct rpc_sync *client;

static void begin(const struct rpc_server_options *options)
{
    struct status st = { 0 };

    fixture_start(&fixture, options);
    CHECK_OK(rpc_sync_create(&client, fixture_address(&fixture), NULL, &st), st);
}

static void end(void)
{
    rpc_sync_destroy(client);
    fixture_stop(&fixture);
}

static int check(const char *service, struct status *st)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    int got = -1;

    request.service = (char *)service;
    if (rpc_sync_unary(&stream, client, &check_method, &patient, &request.base, &reply, st))
        got = (int)((const Grpc__Health__V1__HealthCheckResponse *)reply->body)->status;
    rpc_sync_stream_destroy(stream);
    return got;
}

static struct rpc_sync_stream *watch(const char *service)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    request.service = (char *)service;
    CHECK_OK(rpc_sync_open(&stream, client, &watch_method, &patient, &st), st);
    CHECK_OK(rpc_sync_write(stream, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    return stream;
}

static int next(struct rpc_sync_stream *stream)
{
    const struct rpc_message *message = NULL;
    struct status st = { 0 };

    CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    CHECK(message != NULL);
    return (int)((const Grpc__Health__V1__HealthCheckResponse *)message->body)->status;
}

TEST(check_knows_the_server_its_services_and_nothing_else)
{
    struct status st = { 0 };

    begin(NULL);
    CHECK_EQ(check("", &st), SERVING);
    CHECK_EQ(check("reelkv.v1.KvStore", &st), SERVING);
    CHECK_EQ(check("reelkv.v1.Ingest", &st), SERVING);
    CHECK_EQ(check("reelkv.v1.Nothing", &st), -1);
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "there is no service \"reelkv.v1.Nothing\" here");
    end();
}

/* Two watchers and a change back and forth: each hears of it without asking; the one for the whole server does not. */
TEST(watch_pushes_changes)
{
    struct rpc_sync_stream *one, *two, *server;

    begin(NULL);
    one = watch("reelkv.v1.KvStore");
    two = watch("reelkv.v1.KvStore");
    server = watch("");
    CHECK_EQ(next(one), SERVING);
    CHECK_EQ(next(two), SERVING);
    CHECK_EQ(next(server), SERVING);
    fixture_set_serving(&fixture, false);
    CHECK_EQ(next(one), NOT_SERVING);
    CHECK_EQ(next(two), NOT_SERVING);
    fixture_set_serving(&fixture, true);
    CHECK_EQ(next(one), SERVING);
    rpc_sync_stream_destroy(one);
    fixture_drain(&fixture, 0, 10000);
    CHECK_EQ(next(server), NOT_SERVING);
    rpc_sync_stream_destroy(two);
    rpc_sync_stream_destroy(server);
    end();
}

/* As the protocol wants it: Watch on an unknown name says so and stays open; a drain ends it. */
TEST(watch_of_an_unknown_service_says_so_and_stays)
{
    const struct rpc_message *message = NULL;
    struct rpc_sync_stream *stream;
    struct status st = { 0 };

    begin(NULL);
    stream = watch("reelkv.v1.Later");
    CHECK_EQ(next(stream), UNKNOWN);
    fixture_drain(&fixture, 0, 10000);
    CHECK(!rpc_sync_read(stream, &message, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "the server is going away");
    rpc_sync_stream_destroy(stream);
    end();
}

static bool ask_spans(struct status *st)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    bool ok = rpc_sync_unary(&stream, client, &api_timeline, &patient, &request.base, &reply, st);

    rpc_sync_stream_destroy(stream);
    return ok;
}

/* A probe must not fail because the server is busy, or watched by many: the only call there may be is open, and all the
 * Watches, on one connection. What is more of either is refused with the reason; Check is answered before and after. */
TEST(check_is_answered_beside_all_the_calls_and_watches_there_may_be)
{
    struct rpc_server_options options = { .max_calls = 1, .retry_after_ms = 250 };
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    struct rpc_sync_stream *watches[RPC_WATCHES], *held = NULL, *late;
    const struct rpc_message *message = NULL;
    struct status st = { 0 };

    begin(&options);
    CHECK_OK(rpc_sync_open(&held, client, &api_score, &patient, &st), st);
    CHECK_OK(rpc_sync_write(held, &request.base, NULL, &st), st);
    CHECK(fixture_wait(&fixture.opened, 1));
    for (size_t i = 0; i < ARRAY_LEN(watches); i++) {
        watches[i] = watch("");
        CHECK_EQ(next(watches[i]), SERVING);
    }
    CHECK_EQ(check("", &st), SERVING);
    late = watch("");
    CHECK(!rpc_sync_read(late, &message, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_STR(st.text, "128 health watches are open, which is the limit; try again later");
    CHECK_EQ(st.retry_after_ms, 250);
    rpc_sync_stream_destroy(late);
    CHECK(!ask_spans(&st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_EQ(check("", &st), SERVING);
    rpc_sync_stream_destroy(watches[0]);
    late = watch("");
    while (!rpc_sync_read(late, &message, &st)) { /* the server may not have heard of the end yet */
        CHECK_EQ(st.code, STATUS_EXHAUSTED);
        rpc_sync_stream_destroy(late);
        late = watch("");
    }
    watches[0] = late;
    for (size_t i = 0; i < ARRAY_LEN(watches); i++)
        rpc_sync_stream_destroy(watches[i]);
    rpc_sync_stream_destroy(held);
    end();
}

TEST_MAIN()
