/* The directory as it stands in a real Redis, read by the blocking reader that tools use. */
#include "redis/directory_view.h"

#include <signal.h>

#include "base/clock.h"
#include "support/process.h"
#include "support/test.h"

static void redis_cli(const char *key, const char *field, const char *value)
{
    const char *deed = field == NULL ? "SET" : "HSET", *socket = redis_address() + strlen("unix:");
    struct process cli;

    if (field == NULL)
        CHECK_EQ(process_run(&cli, "cli", PROCESS_ARGS("redis-cli", "-s", socket, deed, key, value), 5000),
                 0);
    else
        CHECK_EQ(process_run(&cli, "cli", PROCESS_ARGS("redis-cli", "-s", socket, deed, key, field, value),
                             5000),
                 0);
}

static void put_worker(enum worker_kind kind, const char *name, int64_t age_ms)
{
    struct worker_record record = { .seen_ms = clock_utc_ns() / 1000000 - age_ms, .address = "unix:/x" };
    char key[64], text[DIRECTORY_RECORD_BYTES];

    snprintf(key, sizeof key, "reelkv:1:workers:%s", worker_kind_names[kind]);
    worker_record_write(&record, text);
    redis_cli(key, name, text);
}

/* Live workers are seen, silent ones and nonsense are skipped and counted. */
TEST(view_shows_the_living_and_counts_what_it_skips)
{
    struct directory_view view = { 0 };
    struct status st = { 0 };
    struct process redis;

    redis_start(&redis);
    put_worker(WORKER_QA, "qa-0", 0);
    put_worker(WORKER_KVSTORE, "kvstore-1", 100);
    put_worker(WORKER_KVSTORE, "kvstore-0", 100);
    put_worker(WORKER_QA, "qa-gone", DIRECTORY_WORKER_TTL_MS + 60000);
    redis_cli("reelkv:1:streams", "default/dock", "{\"store\":\"kvstore-0\",\"phase\":2,\"seen_ms\":1}");
    redis_cli("reelkv:1:streams", "default/../etc", "{\"store\":\"kvstore-0\",\"phase\":2,\"seen_ms\":1}");
    redis_cli("reelkv:1:streams", "default/b", "nonsense");

    CHECK_OK(directory_read_once(redis_address(), 2000, &view, &st), st);
    CHECK_EQ(view.worker_count, 3);
    CHECK_EQ(view.stream_count, 1);
    CHECK_EQ(view.skipped, 3);
    CHECK_STR(view.workers[0].name, "kvstore-0");
    CHECK(directory_view_worker(&view, WORKER_QA, "qa-0") != NULL);
    CHECK(directory_view_worker(&view, WORKER_QA, "kvstore-0") == NULL);
    CHECK_EQ(directory_view_stream(&view, "default", "dock")->phase, STREAM_RUNNING);
    CHECK(directory_view_stream(&view, "default", "yard") == NULL);
    CHECK(directory_view_pick(&view, WORKER_KVSTORE, "default/dock", NULL) != NULL);
    CHECK(directory_view_pick(&view, WORKER_ANALYZER, "default/dock", NULL) == NULL);
    directory_view_deinit(&view);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

/* A Redis that answers with an error (it is loading, wants a password, holds something else there) is not an empty
 * directory. */
TEST(view_takes_no_error_for_an_empty_directory)
{
    struct directory_view view = { 0 };
    struct status st = { 0 };
    struct process redis;

    redis_start(&redis);
    put_worker(WORKER_QA, "qa-0", 0);
    redis_cli("reelkv:1:streams", NULL, "no hash");
    CHECK(!directory_read_once(redis_address(), 2000, &view, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "WRONGTYPE");
    CHECK_EQ(view.worker_count, 0);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

TEST(view_says_where_redis_should_have_been)
{
    struct directory_view view = { 0 };
    struct status st = { 0 };

    CHECK(!directory_read_once("unix:/nonexistent/redis.sock", 1000, &view, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "unix:/nonexistent/redis.sock");
    CHECK(!directory_read_once("redis.sock", 1000, &view, &st));
    CHECK_HAS(st.text, "must be unix:/path or host:port");
}

TEST_MAIN()
