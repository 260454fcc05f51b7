#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/process.h"
#include "support/rpc_calls.h"
#include "support/test.h"

/* Opened as a stream of requests, so that the call is there before its request. */
static const struct rpc_method late_watch_method = {
    .path = "/grpc.health.v1.Health/Watch",
    .shape = RPC_BIDI,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};

static struct fixture fixture;
static struct rpc_sync *client;

static struct rpc_sync_stream *hold(void)
{
    struct rpc_sync_stream *stream = calls_hold(client);

    CHECK(fixture_wait(&fixture.opened, 1));
    return stream;
}

static bool is_serving(void)
{
    struct status st = { 0 };
    int state = calls_health(client, "", &st);

    CHECK_OK(state >= 0, st);
    return state == HEALTH_SERVING;
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

    client = calls_begin(&fixture, NULL, NULL);
    held = hold();
    fixture_drain(&fixture, 0, 60000);
    for (int i = 0; i < 4000 && calls_info(client, &st); i++)
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
    calls_end(&fixture, client);
}

/* A Watch was accepted before the drain, its request comes after it began. It ends like every other Watch; staying, it
 * would hold the process up for drain_ms. */
TEST(a_watch_whose_request_comes_late_ends_with_the_others)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct rpc_sync_stream *held, *watch = NULL;
    const struct rpc_message *reply;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    held = hold();
    CHECK_OK(rpc_sync_open(&watch, client, &late_watch_method, &patient, &st), st);
    CHECK(is_serving()); /* comes after the Watch on the same connection */
    fixture_drain(&fixture, 0, 600000);
    for (int i = 0; i < 4000 && calls_info(client, &st); i++)
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
    calls_end(&fixture, client);
}

/* Nobody answers the open call and the server's endless stream has no end: when drain_ms is over both are cancelled,
 * their handlers and clients hear of it, and the drain ends. */
TEST(calls_that_outlast_the_drain_are_cancelled)
{
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    struct rpc_sync_stream *held, *endless = NULL;
    const struct rpc_message *reply;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
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
    calls_end(&fixture, client);
}

/* In the lame time health says no while calls are still answered; a second drain goes on at once. */
TEST(a_lame_server_still_answers_and_a_second_drain_shortens_it)
{
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK(is_serving());
    fixture_drain(&fixture, 600000, 600000);
    for (int i = 0; i < 4000 && is_serving(); i++)
        test_pause_ms(5);
    CHECK(!is_serving());
    CHECK_OK(calls_info(client, &st), st);
    CHECK(!fixture.drained);
    fixture_drain(&fixture, 0, 0);
    CHECK(wait_drained());
    CHECK(!calls_info(client, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    calls_end(&fixture, client);
}

/* The third signal of an impatient operator: lame and closing are both cut short, the open call is cancelled. */
TEST(a_third_drain_cancels_what_is_open)
{
    struct rpc_sync_stream *held;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    held = hold();
    fixture_drain(&fixture, 600000, 600000);
    for (int i = 0; i < 4000 && is_serving(); i++)
        test_pause_ms(5);
    fixture_drain(&fixture, 0, 0);
    for (int i = 0; i < 4000 && calls_info(client, &st); i++)
        test_pause_ms(5);
    CHECK(!fixture.drained);
    fixture_drain(&fixture, 0, 0);
    CHECK(wait_drained());
    CHECK_EQ(atomic_load(&fixture.cancelled), 1);
    rpc_sync_stream_destroy(held);
    calls_end(&fixture, client);
}

/* Without a drain, destroying a server with open calls cancels them; it does not abort the process as gRPC's own
 * destroy would. */
TEST(destroying_a_busy_server_cancels_its_calls)
{
    struct rpc_sync_stream *held;
    const struct rpc_message *reply;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    held = hold();
    fixture_stop(&fixture);
    CHECK(!rpc_sync_read(held, &reply, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_EQ(atomic_load(&fixture.ended), 1);
    rpc_sync_stream_destroy(held);
    rpc_sync_destroy(client);
}

TEST_MAIN()
