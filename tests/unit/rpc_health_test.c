#include "support/rpc_calls.h"
#include "support/test.h"

static const struct rpc_method watch_method = {
    .path = "/grpc.health.v1.Health/Watch",
    .shape = RPC_SERVER_STREAM,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};

static struct fixture fixture;
static struct rpc_sync *client;

static struct rpc_sync_stream *watch(const char *service)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;

    request.service = (char *)(uintptr_t)service;
    return calls_open(client, &watch_method, &request.base);
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

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_EQ(calls_health(client, "", &st), HEALTH_SERVING);
    CHECK_EQ(calls_health(client, "reelkv.v1.KvStore", &st), HEALTH_SERVING);
    CHECK_EQ(calls_health(client, "reelkv.v1.Ingest", &st), HEALTH_SERVING);
    CHECK_EQ(calls_health(client, "reelkv.v1.Nothing", &st), -1);
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "there is no service \"reelkv.v1.Nothing\" here");
    calls_end(&fixture, client);
}

/* Two watchers of a service and one of the whole server: each hears of the drain without asking. */
TEST(watch_pushes_the_drain)
{
    static const char *const names[] = { "reelkv.v1.KvStore", "reelkv.v1.KvStore", "" };
    struct rpc_sync_stream *watches[ARRAY_LEN(names)];

    client = calls_begin(&fixture, NULL, NULL);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        watches[i] = watch(names[i]);
        CHECK_EQ(next(watches[i]), HEALTH_SERVING);
    }
    fixture_drain(&fixture, 0, 10000);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        CHECK_EQ(next(watches[i]), HEALTH_NOT_SERVING);
        rpc_sync_stream_destroy(watches[i]);
    }
    calls_end(&fixture, client);
}

/* As the protocol wants it: Watch on an unknown name says so and stays open; a drain ends it. */
TEST(watch_of_an_unknown_service_says_so_and_stays)
{
    const struct rpc_message *message = NULL;
    struct rpc_sync_stream *stream;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    stream = watch("reelkv.v1.Later");
    CHECK_EQ(next(stream), HEALTH_UNKNOWN);
    fixture_drain(&fixture, 0, 10000);
    CHECK(!rpc_sync_read(stream, &message, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "the server is going away");
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

/* A probe must not fail because the server is busy, or watched by many: the only call there may be is open, and all the
 * Watches, on one connection. What is more of either is refused with the reason; Check is answered before and after. */
TEST(check_is_answered_beside_all_the_calls_and_watches_there_may_be)
{
    struct rpc_server_options options = { .max_calls = 1, .retry_after_ms = 250 };
    struct rpc_sync_stream *watches[RPC_WATCHES], *held, *late;
    const struct rpc_message *message = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, &options, NULL);
    held = calls_hold(client);
    CHECK(fixture_wait(&fixture.opened, 1));
    for (size_t i = 0; i < ARRAY_LEN(watches); i++) {
        watches[i] = watch("");
        CHECK_EQ(next(watches[i]), HEALTH_SERVING);
    }
    CHECK_EQ(calls_health(client, "", &st), HEALTH_SERVING);
    late = watch("");
    CHECK(!rpc_sync_read(late, &message, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_STR(st.text, "128 health watches are open, which is the limit; try again later");
    CHECK_EQ(st.retry_after_ms, 250);
    rpc_sync_stream_destroy(late);
    CHECK(!calls_info(client, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_EQ(calls_health(client, "", &st), HEALTH_SERVING);
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
    calls_end(&fixture, client);
}

TEST_MAIN()
