/* Workers that find each other through a real Redis, which may be away, come back empty, or stop answering.
 */
#include "redis/directory.h"

#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/process.h"
#include "support/test.h"

/* A worker with its own loop, as a service has; the test turns the loop by hand. */
struct member {
    struct loop *loop;
    struct directory *directory;
    const char *name;
    uint32_t streams;
    uint32_t refreshed;
    struct directory_lease lease;
    uint32_t lease_changes;
};

static void describe(struct worker_record *record, void *user)
{
    struct member *member = user;

    record->kind = WORKER_ENCODER;
    snprintf(record->name, sizeof record->name, "%s", member->name);
    snprintf(record->address, sizeof record->address, "unix:/%s", member->name);
    record->streams = member->streams;
}

static uint32_t own_streams(struct stream_record *records, uint32_t max, void *user)
{
    struct member *member = user;

    for (uint32_t i = 0; i < member->streams; i++) {
        snprintf(records[i].ns, sizeof records[i].ns, "default");
        snprintf(records[i].name, sizeof records[i].name, "cam-%u", i);
        snprintf(records[i].store, sizeof records[i].store, "%s", member->name);
        records[i].phase = STREAM_RUNNING;
    }
    return member->streams;
}

static void refreshed(const struct directory_view *view, void *user)
{
    ((struct member *)user)->refreshed++;
}

static void join(struct member *member, const char *name, uint32_t streams)
{
    struct directory_events events = { describe, own_streams, refreshed, member };
    struct status st = { 0 };

    memset(member, 0, sizeof *member);
    member->name = name;
    member->streams = streams;
    CHECK_OK(loop_create(&member->loop, &st), st);
    CHECK_OK(directory_create(&member->directory, member->loop, redis_address(), &events, &st), st);
}

static void part(struct member *member)
{
    directory_lease_release(&member->lease);
    directory_destroy(member->directory);
    loop_destroy(member->loop);
}

/* Turns the loop until `done` says so; false after 60 s. A tick keeps the loop from waiting for ever. */
static void tick(struct loop_timer *timer)
{
}

static bool turn_until(struct member *member, bool (*done)(struct member *member))
{
    uint64_t end_ns = clock_mono_ns() + 60000000000ull;
    struct loop_timer timer = { 0 };
    bool ok;

    while (!(ok = done(member)) && clock_mono_ns() < end_ns) {
        loop_timer_start(member->loop, &timer, 20, tick);
        loop_run_once(member->loop);
    }
    loop_timer_stop(&timer);
    return ok;
}

static bool sees_two_workers_and_three_streams(struct member *member)
{
    const struct directory_view *view = directory_view(member->directory);

    return view->worker_count == 2 && view->stream_count == 3;
}

static bool was_refreshed(struct member *member)
{
    return member->refreshed > 0;
}

static bool is_unreachable(struct member *member)
{
    return !directory_is_reachable(member->directory);
}

TEST(members_see_each_other_and_the_streams)
{
    struct member one, two;
    struct process redis;

    redis_start(&redis);
    join(&one, "encoder-0", 3);
    CHECK(turn_until(&one, was_refreshed));
    join(&two, "encoder-1", 0);
    CHECK(turn_until(&two, sees_two_workers_and_three_streams));
    CHECK(directory_view_stream(directory_view(two.directory), "default", "cam-2") != NULL);
    part(&two);
    part(&one);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

/* hiredis' packaged libuv adapter never hears of a refused connection; ours retries until Redis is there. */
TEST(redis_may_come_later_and_come_back_empty)
{
    struct process redis;
    struct member one;

    join(&one, "encoder-0", 3);
    for (int i = 0; i < 3; i++)
        loop_run_once(one.loop);
    CHECK(!directory_is_reachable(one.directory));
    CHECK(!directory_is_known(one.directory));
    redis_start(&redis);
    CHECK(turn_until(&one, was_refreshed));
    CHECK(directory_is_known(one.directory));

    CHECK_EQ(process_stop(&redis, SIGKILL, 5000), 128 + SIGKILL);
    CHECK(turn_until(&one, is_unreachable));
    CHECK_EQ(directory_view(one.directory)->stream_count <= 3, 1); /* the last view stays */
    CHECK(directory_is_known(one.directory));
    unlink(redis_address() + strlen("unix:"));
    redis_start(&redis); /* nothing was saved: it comes back empty */
    one.refreshed = 0;
    CHECK(turn_until(&one, was_refreshed));
    one.refreshed = 0;
    CHECK(turn_until(&one, was_refreshed));
    CHECK_EQ(directory_view(one.directory)->stream_count, 3);
    CHECK_EQ(directory_view(one.directory)->worker_count, 1);
    part(&one);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

/* A Redis that hangs is given up on after REDIS_REPLY_MS and found again when it goes on. */
TEST(redis_that_hangs_is_noticed)
{
    struct directory_view view = { 0 };
    struct process redis;
    struct member one;
    struct status st;

    redis_start(&redis);
    join(&one, "encoder-0", 1);
    CHECK(turn_until(&one, was_refreshed));
    kill(redis.pid, SIGSTOP);
    CHECK(turn_until(&one, is_unreachable));
    CHECK(!directory_read_once(redis_address(), 100, &view, &st));
    CHECK_HAS(st.text, "it did not answer in time");
    kill(redis.pid, SIGCONT);
    one.refreshed = 0;
    CHECK(turn_until(&one, was_refreshed));
    part(&one);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

static bool sees_three_streams(struct member *member)
{
    return directory_view(member->directory)->stream_count == 3;
}

static bool sees_no_stream(struct member *member)
{
    return directory_view(member->directory)->stream_count == 0;
}

static bool recalls_nothing(struct member *member)
{
    return directory_recall_stream(member->directory, "default", "cam-2") == NULL;
}

/* The store that would write its streams again is late. What they were is still known for a while, and then not. */
TEST(streams_of_an_emptied_redis_are_recalled_for_a_while)
{
    const struct stream_record *record;
    struct process redis, flush;
    struct member store, one;

    redis_start(&redis);
    join(&store, "store-0", 3);
    join(&one, "encoder-1", 0);
    CHECK(turn_until(&store, was_refreshed));
    CHECK(turn_until(&one, sees_three_streams));
    part(&store);
    CHECK_EQ(process_run(&flush, "flush",
                         PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "FLUSHALL"),
                         5000),
             0);
    CHECK(turn_until(&one, sees_no_stream));
    record = directory_recall_stream(one.directory, "default", "cam-2");
    CHECK(record != NULL);
    CHECK_STR(record->store, "store-0");
    CHECK(directory_recall_stream(one.directory, "default", "cam-3") == NULL);
    CHECK(directory_recall_stream(one.directory, "other", "cam-2") == NULL);
    CHECK(turn_until(&one, recalls_nothing));
    part(&one);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

static void put_worker(const char *name, int64_t hours_ago)
{
    struct worker_record record = { .kind = WORKER_ENCODER, .address = "unix:/old" };
    char text[DIRECTORY_RECORD_BYTES];
    struct process cli;

    record.seen_ms = clock_utc_ns() / 1000000 - hours_ago * 3600000;
    worker_record_write(&record, text);
    CHECK_EQ(process_run(&cli, "put",
                         PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "HSET",
                                      "reelkv:1:workers:encoder", name, text),
                         5000),
             0);
}

static bool skips_one(struct member *member)
{
    return member->refreshed > 0 && directory_view(member->directory)->skipped == 1;
}

/* More than one reading removes; the one that died an hour ago may come back and is left alone. */
TEST(workers_silent_for_a_day_are_forgotten)
{
    struct process redis;
    struct member one;
    char name[32];

    redis_start(&redis);
    for (int i = 0; i < DIRECTORY_FORGOTTEN_MAX + 2; i++) {
        snprintf(name, sizeof name, "killed-%d", i);
        put_worker(name, 25);
    }
    put_worker("killed-lately", 1);
    join(&one, "encoder-0", 0);
    CHECK(turn_until(&one, skips_one));
    one.refreshed = 0;
    CHECK(turn_until(&one, skips_one)); /* and stays so */
    CHECK_EQ(directory_view(one.directory)->worker_count, 1);
    part(&one);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

static bool was_refreshed_twice(struct member *member)
{
    return member->refreshed >= 2;
}

/* To one whose clock is a day ahead all others are silent for a day, at each reading: those that go on writing stay. The second
 * reading after each writing tells; the last one comes when the worker that was killed has gone. */
TEST(workers_that_write_are_not_forgotten_whatever_the_clocks_say)
{
    struct process redis;
    struct member one;

    redis_start(&redis);
    put_worker("killed", 25);
    join(&one, "encoder-0", 0);
    do {
        put_worker("behind", 25);
        one.refreshed = 0;
        CHECK(turn_until(&one, was_refreshed_twice));
        CHECK(directory_view(one.directory)->skipped >= 1);
    } while (directory_view(one.directory)->skipped > 1);
    part(&one);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

static void lease_changed(struct directory_lease *lease, bool held)
{
    container_of(lease, struct member, lease)->lease_changes++;
}

static bool lease_answered(struct member *member)
{
    return member->lease_changes > 0;
}

static bool lease_held(struct member *member)
{
    return member->lease.held;
}

static void claim(struct member *member)
{
    snprintf(member->lease.ns, sizeof member->lease.ns, "default");
    snprintf(member->lease.name, sizeof member->lease.name, "dock");
    member->lease.changed = lease_changed;
    directory_lease_claim(member->directory, &member->lease, member->name);
}

TEST(lease_has_one_holder_and_passes_on_when_released)
{
    struct member one, two;
    struct process redis;

    redis_start(&redis);
    join(&one, "encoder-0", 0);
    join(&two, "encoder-1", 0);
    CHECK(turn_until(&one, was_refreshed));
    CHECK(turn_until(&two, was_refreshed));
    claim(&one);
    CHECK(turn_until(&one, lease_held));
    claim(&two);
    CHECK(turn_until(&two, lease_answered));
    CHECK(!two.lease.held);
    directory_lease_release(&one.lease);
    one.refreshed = 0;
    CHECK(turn_until(&one, was_refreshed)); /* the release is out */
    CHECK(turn_until(&two, lease_held));
    part(&two);
    part(&one);
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

/* The loop is not turned between release and destroy: a worker that ends has its loop no more. */
TEST(a_lease_released_at_the_very_end_is_free_at_once)
{
    const char *socket = redis_address() + strlen("unix:");
    struct process redis, cli;
    struct member one;

    redis_start(&redis);
    join(&one, "encoder-0", 0);
    CHECK(turn_until(&one, was_refreshed));
    claim(&one);
    CHECK(turn_until(&one, lease_held));
    part(&one);
    CHECK_EQ(process_run(&cli, "cli",
                         PROCESS_ARGS("redis-cli", "-s", socket, "EXISTS", "reelkv:1:lease:default/dock"),
                         5000),
             0);
    CHECK_STR(process_log(&cli), "0\n");
    CHECK_EQ(process_stop(&redis, SIGTERM, 5000), 0);
}

TEST_MAIN()
