/* A question's calls to stores end with it, also one that waits for a store that says nothing. */
#include "qa/store_calls.h"

#include "reelkv/v1/ingest.pb-c.h"
#include "rpc/api.h"
#include "support/rpc_fixture.h"
#include "support/test.h"

static const struct rpc_stream_options patient = { .timeout_ms = 300000 };

struct waiting {
    struct store_calls *calls;
    struct rpc_sync_stream *stream;
    struct status st;
    bool ok;
};

static void *wait_for_reply(void *arg)
{
    struct waiting *waiting = arg;
    const struct rpc_message *message;

    waiting->ok = rpc_sync_read(waiting->stream, &message, &waiting->st);
    return NULL;
}

/* The server's Push answers nothing. One thread waits for it as a question's does; this one is the loop's. */
TEST(who_waits_for_a_silent_store_is_woken_by_the_cancellation)
{
    static struct fixture fixture;
    struct rpc_sync *client;
    struct store_calls calls;
    struct waiting waiting = { .calls = &calls };
    struct rpc_sync_stream *second = NULL;
    pthread_t thread;
    struct status st = { 0 };

    fixture_start(&fixture, NULL);
    CHECK_OK(rpc_sync_create(&client, fixture_address(&fixture), NULL, &st), st);
    store_calls_init(&calls);
    CHECK_OK(store_calls_open(&calls, &waiting.stream, client, &api_push, &patient, &st), st);
    CHECK(pthread_create(&thread, NULL, wait_for_reply, &waiting) == 0);
    CHECK(fixture_wait(&fixture.opened, 1));
    store_calls_cancel(&calls);
    pthread_join(thread, NULL);
    CHECK(!waiting.ok);
    CHECK_EQ(waiting.st.code, STATUS_CANCELLED);
    CHECK(!store_calls_open(&calls, &second, client, &api_push, &patient, &st));
    CHECK_EQ(st.code, STATUS_CANCELLED);
    CHECK(fixture_wait(&fixture.cancelled, 1));
    store_calls_close(&calls, waiting.stream);
    store_calls_deinit(&calls);
    rpc_sync_destroy(client);
    fixture_stop(&fixture);
}

TEST_MAIN()
