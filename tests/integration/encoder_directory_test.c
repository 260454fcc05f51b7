/* Which encoder reads which stream: two of them, a real Redis, a store and an analyzer of encoder_world.h announced in
 * it. Each camera is read once; an encoder that goes is replaced; a Redis that is emptied changes nothing. */
#include <signal.h>
#include <stdlib.h>

#include "encoder/encoder_directory.h"
#include "encoder_neighbours.h"
#include "support/process.h"
#include "support/test.h"
#include "support/video.h"

/* The linker turns the directory's calls of stream_start() into __wrap_stream_start(). */
static uint32_t starts_refused;

bool __real_stream_start(struct stream **stream_p, struct encoder *encoder,
                         const struct stream_options *options, struct status *st);
bool __wrap_stream_start(struct stream **stream_p, struct encoder *encoder,
                         const struct stream_options *options, struct status *st);
bool __wrap_stream_start(struct stream **stream_p, struct encoder *encoder,
                         const struct stream_options *options, struct status *st)
{
    if (starts_refused == 0)
        return __real_stream_start(stream_p, encoder, options, st);
    starts_refused--;
    return status_fail(st, STATUS_EXHAUSTED, "no memory for a stream");
}

/* Redis, the neighbours and up to two encoders on the world's loop. */
struct town {
    struct world *world;
    struct process redis;
    struct neighbours neighbours;
    struct encoder second;
    struct encoder_directory *encoders[2];
};

static void town_start(struct town *town)
{
    memset(town, 0, sizeof *town);
    town->world = world_create();
    redis_start(&town->redis);
    neighbours_join(&town->neighbours, town->world);
    town->second = town->world->encoder;
    town->second.name = "encoder-1";
}

static void start_encoder(struct town *town, int index)
{
    struct encoder_directory_options options = { redis_address(), "127.0.0.1:1", 8 };
    struct encoder *encoder = index == 0 ? &town->world->encoder : &town->second;
    struct status st = { 0 };

    CHECK_OK(encoder_directory_create(&town->encoders[index], encoder, &options, &st), st);
}

static const char lease_key[] = "reelkv:1:lease:default/cam";

static void check_lease_is_held(bool held)
{
    const char *socket = redis_address() + strlen("unix:");
    struct process cli;

    CHECK_EQ(process_run(&cli, held ? "held" : "free",
                         PROCESS_ARGS("redis-cli", "-s", socket, "EXISTS", lease_key), 5000),
             0);
    CHECK_STR(process_log(&cli), held ? "1\n" : "0\n");
}

static void town_end(struct town *town)
{
    for (int i = 0; i < 2; i++)
        encoder_directory_destroy(town->encoders[i]);
    while (town->second.retired > 0 || town->second.peers.first != NULL)
        loop_run_once(town->world->loop);
    neighbours_leave(&town->neighbours);
    world_destroy(town->world);
    process_stop(&town->redis, SIGKILL, 1000);
}

static const char *make(uint32_t count)
{
    struct video_numbered video = { "a.mp4", "25", 0, count, 192, 64, "" };

    return video_make_numbered(&video);
}

static bool all_ended(struct world *world)
{
    for (uint32_t i = 0; i < world->stream_count; i++)
        if (world->streams[i].ends == 0 || world->streams[i].call != NULL)
            return false;
    return true;
}

static bool five_received(struct world *world)
{
    return world->streams[0].received >= 5;
}

TEST(every_stream_is_read_once_by_one_of_two)
{
    struct town town;
    char path[VIDEO_PATH_BYTES];
    uint32_t by_first = 0;

    town_start(&town);
    snprintf(path, sizeof path, "%s", make(30));
    start_encoder(&town, 0);
    start_encoder(&town, 1);
    world_for(town.world, 2500); /* both know of each other */
    for (uint32_t i = 0; i < 8; i++) {
        char name[8];

        snprintf(name, sizeof name, "cam%u", i);
        world_add(town.world, name, path);
    }
    world_until(town.world, all_ended, 30000);
    for (uint32_t i = 0; i < 8; i++) {
        CHECK_EQ(world_check(&town.world->streams[i], 30, 1), 30);
        CHECK_EQ(town.world->streams[i].hellos, 1);
        by_first += strcmp(town.world->streams[i].encoder, "encoder-0") == 0;
    }
    CHECK(by_first > 0 && by_first < 8);
    town_end(&town);
}

/* Its lease was kept alive with nobody behind it. */
TEST(a_stream_that_could_not_be_started_is_let_go_and_tried_again)
{
    struct town town;
    struct world_stream *stream;

    town_start(&town);
    stream = world_add(town.world, "cam", make(20));
    starts_refused = 1;
    start_encoder(&town, 0);
    world_until(town.world, all_ended, 30000);
    CHECK_EQ(starts_refused, 0);
    CHECK_EQ(world_check(stream, 20, 1), 20);
    town_end(&town);
}

TEST(an_encoder_that_goes_is_replaced_where_it_was)
{
    struct town town;
    struct world_stream *stream;

    town_start(&town);
    town.world->encode_ms = 100;
    town.world->credits = 1;
    stream = world_add(town.world, "cam", make(60));
    start_encoder(&town, 0);
    world_until(town.world, five_received, 20000);
    encoder_directory_drain(town.encoders[0]);
    world_for(town.world, 1500);
    encoder_directory_destroy(town.encoders[0]);
    town.encoders[0] = NULL;
    CHECK_EQ(stream->ends, 0);
    CHECK(stream->durable >= 5);
    start_encoder(&town, 1);
    world_until(town.world, all_ended, 40000);
    CHECK_STR(stream->encoder, "encoder-1");
    CHECK_EQ(world_check(stream, 60, 1), 60);
    CHECK_EQ(stream->frames_in_all, 60);
    town_end(&town);
}

/* Others waited for it until the draining encoder was gone, and then until it ran out. */
TEST(the_lease_of_a_drained_stream_is_free_while_its_encoder_still_drains)
{
    struct town town;
    struct world_stream *stream;

    town_start(&town);
    town.world->encode_ms = 50;
    town.world->durable_lag = 1000;
    stream = world_add(town.world, "cam", make(60));
    start_encoder(&town, 0);
    world_until(town.world, five_received, 20000);
    encoder_directory_drain(town.encoders[0]);
    CHECK(!encoder_directory_release_drained(town.encoders[0]));
    check_lease_is_held(true);
    world_for(town.world, 1500);
    CHECK(encoder_directory_release_drained(town.encoders[0]));
    world_for(town.world, 200);
    check_lease_is_held(false);
    CHECK_EQ(stream->durable, stream->received);
    town_end(&town);
}

TEST(an_emptied_redis_stops_nothing)
{
    struct town town;
    struct world_stream *stream;
    struct process flush;

    town_start(&town);
    town.world->encode_ms = 150;
    start_encoder(&town, 0);
    start_encoder(&town, 1);
    world_for(town.world, 2500); /* so that the one that rendezvous names has it */
    stream = world_add(town.world, "cam", make(80));
    world_until(town.world, five_received, 20000);
    CHECK_EQ(process_run(&flush, "flush",
                         (const char *[]){ "redis-cli", "-s", redis_address() + strlen("unix:"), "FLUSHALL",
                                           NULL },
                         5000),
             0);
    world_until(town.world, all_ended, 40000);
    CHECK_EQ(stream->hellos, 1);
    CHECK_EQ(world_check(stream, 80, 1), 80);
    town_end(&town);
}

/* Another encoder reads the camera when this one drains, and is gone soon after: the one that is about to end does not
 * take its lease. */
TEST(a_draining_encoder_takes_no_stream)
{
    const char *socket = redis_address() + strlen("unix:");
    struct town town;
    struct world_stream *stream;
    struct process cli;

    town_start(&town);
    CHECK_EQ(process_run(&cli, "set",
                         PROCESS_ARGS("redis-cli", "-s", socket, "SET", lease_key, "another", "PX", "4000"),
                         5000),
             0);
    stream = world_add(town.world, "cam", make(10));
    start_encoder(&town, 0);
    world_for(town.world, 2000); /* it asks for the lease and is refused */
    encoder_directory_drain(town.encoders[0]);
    CHECK(encoder_directory_release_drained(town.encoders[0]));
    world_for(town.world, 4000);
    CHECK_EQ(stream->hellos, 0);
    check_lease_is_held(false);
    town_end(&town);
}

TEST(an_analyzer_of_another_model_is_not_chosen)
{
    struct town town;
    struct world_stream *stream;

    town_start(&town);
    town.neighbours.fingerprint[0] = 8;
    stream = world_add(town.world, "cam", make(10));
    start_encoder(&town, 0);
    world_for(town.world, 3000);
    CHECK_EQ(stream->hellos, 0);
    CHECK(!all_ended(town.world));
    town_end(&town);
}

TEST_MAIN()
