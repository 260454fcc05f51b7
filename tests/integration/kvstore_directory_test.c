/* The kvstore's streams in the directory: what it has is there, what it has not in its own name goes. */
#include <unistd.h>

#include "base/clock.h"
#include "kvstore_client.h"
#include "redis/directory_view.h"

static struct server server;
static struct status st;

static void put_stream(const char *path, const char *store)
{
    struct stream_record record = { .phase = STREAM_RUNNING };
    char text[DIRECTORY_RECORD_BYTES];
    struct process cli;

    snprintf(record.store, sizeof record.store, "%s", store);
    stream_record_write(&record, text);
    CHECK_EQ(process_run(&cli, "cli",
                         PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "HSET",
                                      "reelkv:1:streams", path, text),
                         5000),
             0);
}

static bool is_there(const char *name)
{
    struct directory_view view = { 0 };
    bool found;

    CHECK_OK(directory_read_once(redis_address(), 5000, &view, &st), st);
    found = directory_view_stream(&view, "default", name) != NULL;
    directory_view_deinit(&view);
    return found;
}

/* Reads the directory until it says, or no longer says, that there is this stream; not within 20 s is a failure. */
static void wait_for(const char *name, bool wanted)
{
    uint64_t end_ns = clock_mono_ns() + 20000000000ull;

    while (is_there(name) != wanted) {
        if (clock_mono_ns() > end_ns)
            test_fail(__FILE__, __LINE__, "stream %s is %s the directory", name,
                      wanted ? "not in" : "still in");
        usleep(20000);
    }
}

/* A stream that was removed while Redis was away: its record stands there when Redis is back. */
TEST(kvstore_clears_the_directory_of_streams_it_has_not)
{
    const char *options[] = { "--redis", redis_address(), NULL };
    struct process redis;

    redis_start(&redis);
    put_stream("default/aisle", "kv-a");
    put_stream("default/dock", "kv-b"); /* another store's */
    put_stream("default/yard", "kv-a");
    server_start(&server, "kv-a", options);
    client_create(&server, "gate");
    wait_for("gate", true);
    wait_for("aisle", false);
    wait_for("yard", false);
    wait_for("dock", true);
    wait_for("gate", true);
    server_stop(&server);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

static int64_t last_beat(void)
{
    struct directory_view view = { 0 };
    const struct worker_record *worker;
    int64_t seen_ms;

    CHECK_OK(directory_read_once(redis_address(), 5000, &view, &st), st);
    worker = directory_view_worker(&view, WORKER_KVSTORE, "kv-a");
    seen_ms = worker != NULL ? worker->seen_ms : 0;
    directory_view_deinit(&view);
    return seen_ms;
}

static void wait_beat(void)
{
    uint64_t end_ns = clock_mono_ns() + 20000000000ull;
    int64_t before_ms = last_beat();

    while (last_beat() <= before_ms && clock_mono_ns() < end_ns)
        usleep(20000);
    CHECK(clock_mono_ns() < end_ns);
}

/* The first heartbeat after it shows the kvstore that Redis was emptied; with the second everything is there. */
TEST(kvstore_puts_its_streams_back_into_an_emptied_redis)
{
    const char *options[] = { "--redis", redis_address(), NULL };
    struct process redis, flush;

    redis_start(&redis);
    server_start(&server, "kv-a", options);
    client_create(&server, "gate");
    client_create(&server, "yard");
    wait_for("yard", true);
    for (int round = 0; round < 4; round++) {
        CHECK_EQ(process_run(&flush, "flush",
                             PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "FLUSHALL"),
                             5000),
                 0);
        put_stream("default/dock", "kv-b");
        wait_beat();
        wait_beat();
        CHECK(is_there("gate"));
        CHECK(is_there("yard"));
        CHECK(is_there("dock"));
    }
    server_stop(&server);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

TEST_MAIN()
