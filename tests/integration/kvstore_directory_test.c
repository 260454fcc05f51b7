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

/* Reads the directory until it says, or no longer says, that there is this stream; not within 20 s is a failure. */
static void wait_for(const char *name, bool is_there)
{
    uint64_t end_ns = clock_mono_ns() + 20000000000ull;
    struct directory_view view = { 0 };

    for (;;) {
        CHECK_OK(directory_read_once(redis_address(), 5000, &view, &st), st);
        if ((directory_view_stream(&view, "default", name) != NULL) == is_there)
            break;
        if (clock_mono_ns() > end_ns)
            test_fail(__FILE__, __LINE__, "stream %s is %s the directory", name,
                      is_there ? "not in" : "still in");
        usleep(20000);
    }
    directory_view_deinit(&view);
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

TEST_MAIN()
