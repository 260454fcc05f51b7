#include "grpc/health/v1/health.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "rpc/sync.h"
#include "support/process.h"
#include "support/rpc_fixture.h"
#include "support/test.h"

static const struct rpc_stream_options patient = { .timeout_ms = 30000 };
static const struct rpc_method check_method = {
    .path = "/grpc.health.v1.Health/Check",
    .shape = RPC_UNARY,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};

/* Opened as a stream of requests, so that the call is there before its request. */
static const struct rpc_method late_watch_method = {
    .path = "/grpc.health.v1.Health/Watch",
    .shape = RPC_BIDI,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};

static struct fixture fixture;
static struct rpc_sync *client;

static void begin(void)
{
    struct status st = { 0 };

    fixture_start(&fixture, NULL);
    CHECK_OK(rpc_sync_create(&client, fixture_address(&fixture), NULL, &st), st);
}

static void end(void)
{
    rpc_sync_destroy(client);
    fixture_stop(&fixture);
}

static struct rpc_sync_stream *hold(void)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    CHECK_OK(rpc_sync_open(&stream, client, &api_score, &patient, &st), st);
    CHECK_OK(rpc_sync_write(stream, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    CHECK(fixture_wait(&fixture.opened, 1));
    return stream;
}

static enum status_code ask(struct status *st)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;

    st->code = STATUS_OK;
    rpc_sync_unary(&stream, client, &api_get_server_info, &patient, &request.base, &reply, st);
    rpc_sync_stream_destroy(stream);
    return st->code;
}

static bool is_serving(void)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };
    bool serving;

    CHECK_OK(rpc_sync_unary(&stream, client, &check_method, &patient, &request.base, &reply, &st), st);
    serving = ((const Grpc__Health__V1__HealthCheckResponse *)reply->body)->status ==
              GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    rpc_sync_stream_destroy(stream);
    return serving;
}

static bool wait_drained(void)
{
    for (int i = 0; i < 4000 && !fixture.drained; i++)
        test_pause_ms(5);
    return fixture.drained;
}

/* A call is open when the drain begins; new ones are refused, the old one gets its answer, then all is over. */
TEST(a_drain_waits_for_open_calls_and_takes_no_new_ones)
{
    struct rpc_sync_stream *held;
    const struct rpc_message *reply;
    struct status st = { 0 };

    begin();
    held = hold();
    fixture_drain(&fixture, 0, 60000);
    for (int i = 0; i < 4000 && ask(&st) == STATUS_OK; i++)
        test_pause_ms(5);
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK(!fixture.drained);
    fixture_release_held(&fixture);
    CHECK_OK(rpc_sync_read(held, &reply, &st), st);
    CHECK(reply != NULL);
    CHECK_OK(rpc_sync_finish(held, &st), st);
    rpc_sync_stream_destroy(held);
    CHECK(wait_drained());
    CHECK_EQ(atomic_load(&fixture.cancelled), 0);
    CHECK_HAS(rpc_server_address(fixture.server, 0), "127.0.0.1:"); /* for whoever still asks */
    end();
}

/* A Watch was accepted before the drain, its request comes after it began. It ends like every other Watch; staying, it
 * would hold the process up for drain_ms. */
TEST(a_watch_whose_request_comes_late_ends_with_the_others)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct rpc_sync_stream *held, *watch = NULL;
    const struct rpc_message *reply;
    struct status st = { 0 };

    begin();
    held = hold();
    CHECK_OK(rpc_sync_open(&watch, client, &late_watch_method, &patient, &st), st);
    CHECK(is_serving()); /* comes after the Watch on the same connection */
    fixture_drain(&fixture, 0, 600000);
    for (int i = 0; i < 4000 && ask(&st) == STATUS_OK; i++)
        test_pause_ms(5);
    CHECK_OK(rpc_sync_write(watch, &request.base, NULL, &st), st);
    CHECK(!rpc_sync_read(watch, &reply, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "the server is going away");
    rpc_sync_stream_destroy(watch);
    fixture_release_held(&fixture);
    CHECK_OK(rpc_sync_finish(held, &st), st);
    rpc_sync_stream_destroy(held);
    CHECK(wait_drained());
    end();
}

/* Nobody answers the open call and the server's endless stream has no end: when drain_ms is over both are cancelled,
 * their handlers and clients hear of it, and the drain ends. */
TEST(calls_that_outlast_the_drain_are_cancelled)
{
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    struct rpc_sync_stream *held, *endless = NULL;
    const struct rpc_message *reply;
    struct status st = { 0 };

    begin();
    held = hold();
    request.tokens = 64;
    CHECK_OK(rpc_sync_open(&endless, client, &api_load_window, &patient, &st), st);
    CHECK_OK(rpc_sync_write(endless, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_read(endless, &reply, &st), st);
    fixture_drain(&fixture, 0, 100);
    CHECK(wait_drained());
    CHECK(!rpc_sync_read(held, &reply, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK(!rpc_sync_finish(endless, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    rpc_sync_stream_destroy(endless);
    rpc_sync_stream_destroy(held);
    CHECK_EQ(atomic_load(&fixture.cancelled), 2);
    CHECK(fixture_wait(&fixture.releases, atomic_load(&fixture.writes)));
    end();
}

/* In the lame time health says no while calls are still answered; a second drain goes on at once. */
TEST(a_lame_server_still_answers_and_a_second_drain_shortens_it)
{
    struct status st = { 0 };

    begin();
    CHECK(is_serving());
    fixture_drain(&fixture, 600000, 600000);
    for (int i = 0; i < 4000 && is_serving(); i++)
        test_pause_ms(5);
    CHECK(!is_serving());
    CHECK_EQ(ask(&st), STATUS_OK);
    CHECK(!fixture.drained);
    fixture_drain(&fixture, 0, 0);
    CHECK(wait_drained());
    CHECK_EQ(ask(&st), STATUS_UNAVAILABLE);
    end();
}

/* The third signal of an impatient operator: lame and closing are both cut short, the open call is cancelled. */
TEST(a_third_drain_cancels_what_is_open)
{
    struct rpc_sync_stream *held;
    struct status st = { 0 };

    begin();
    held = hold();
    fixture_drain(&fixture, 600000, 600000);
    for (int i = 0; i < 4000 && is_serving(); i++)
        test_pause_ms(5);
    fixture_drain(&fixture, 0, 0);
    for (int i = 0; i < 4000 && ask(&st) == STATUS_OK; i++)
        test_pause_ms(5);
    CHECK(!fixture.drained);
    fixture_drain(&fixture, 0, 0);
    CHECK(wait_drained());
    CHECK_EQ(atomic_load(&fixture.cancelled), 1);
    rpc_sync_stream_destroy(held);
    end();
}

/* Without a drain, destroying a server with open calls cancels them; it does not abort the process as gRPC's own
 * destroy would. */
TEST(destroying_a_busy_server_cancels_its_calls)
{
    struct rpc_sync_stream *held;
    const struct rpc_message *reply;
    struct status st = { 0 };

    begin();
    held = hold();
    fixture_stop(&fixture);
    CHECK(!rpc_sync_read(held, &reply, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_EQ(atomic_load(&fixture.ended), 1);
    rpc_sync_stream_destroy(held);
    rpc_sync_destroy(client);
}

TEST_MAIN()
