/* Redis is not there when the services start, or goes and stays away: each says so, what runs goes on, and what needs the
 * directory comes when Redis does. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "reelkv/v1/catalog.pb-c.h"
#include "rpc/api.h"
#include "stage.h"

enum { FRAMES = 900 };

static const struct question early = { .camera = "early", .words = "What was it?", .max_tokens = 4 };
static const struct question calm = { .camera = "calm", .words = "What was it?", .max_tokens = 4 };
static struct asked asked;

static void all_tell(const struct stage *stage, const char *words)
{
    for (enum stage_part part = 0; part < STAGE_PARTS; part++)
        stage_wait_told(stage, part, words);
}

/* Everything is started and a camera is added before there is a Redis. */
TEST(services_that_start_before_redis_wait_for_it)
{
    struct stage stage = { .without_redis = true };
    struct status st = { 0 };

    stage_open(&stage);
    all_tell(&stage, "redis_lost");
    add_camera(stage.store, "early", stage_film(FRAMES));
    CHECK(!ask_read(stage_ask_open(&stage, &early), &asked, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "has not read the directory yet");
    redis_start(&stage.cluster.redis);
    cluster_wait_joined(&stage.cluster);
    all_tell(&stage, "redis_back");
    wait_ended(stage.store, "early", FRAMES);
    stage_ask(&stage, &early, &asked);
    stage_close(&stage);
}

/* Redis dies while a camera is read and stays dead: the camera is read to its end all the same, also when its store is
 * killed meanwhile, and questions are answered. A camera added meanwhile is read when Redis is back. */
TEST(without_redis_what_runs_goes_on)
{
    struct stage stage = { 0 };
    const char *film = stage_film(FRAMES);
    uint32_t *crcs;

    stage_open(&stage);
    crcs = stage_undisturbed(&stage, "calm", film, FRAMES);
    stage_ask(&stage, &calm, &asked);
    add_camera(stage.store, "lone", film);
    wait_stored(stage.store, "lone", FRAMES / 10);
    CHECK_EQ(process_stop(&stage.cluster.redis, SIGKILL, 5000), 128 + SIGKILL);
    all_tell(&stage, "redis_lost");
    stage_kill(&stage, STAGE_KVSTORE);
    stage_start(&stage, STAGE_KVSTORE);
    wait_ended(stage.store, "lone", FRAMES);
    stage_check_crcs(&stage, "lone", crcs, FRAMES);
    stage_ask(&stage, &calm, &asked);
    add_camera(stage.store, "late", film);

    unlink(redis_address() + strlen("unix:"));
    redis_start(&stage.cluster.redis);
    wait_ended(stage.store, "late", FRAMES);
    stage_check_crcs(&stage, "late", crcs, FRAMES);
    free(crcs);
    stage_close(&stage);
}

static void remove_camera(struct rpc_sync *store, const char *name)
{
    const struct rpc_stream_options options = { .timeout_ms = 20000 };
    Reelkv__V1__DeleteStreamRequest request = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    const struct rpc_message *reply;
    struct rpc_sync_stream *call;
    struct status st = { 0 };

    id.namespace_ = (char *)"default";
    id.name = (char *)(uintptr_t)name;
    request.id = &id;
    CHECK_OK(rpc_sync_unary(&call, store, &api_delete_stream, &options, &request.base, &reply, &st), st);
    rpc_sync_stream_destroy(call);
}

/* Redis is emptied, and asked at once: the camera is there as before, or the qa says that it cannot tell now; never that
 * there is no such camera. One that was removed there is not. */
TEST(an_emptied_redis_hides_no_camera)
{
    struct stage stage = { 0 };
    struct status st = { 0 };
    struct process flush;

    stage_open(&stage);
    free(stage_undisturbed(&stage, "calm", stage_film(FRAMES / 10), FRAMES / 10));
    stage_ask(&stage, &calm, &asked);
    CHECK_EQ(process_run(&flush, "flush",
                         PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "FLUSHALL"),
                         5000),
             0);
    for (int i = 0; i < 30; i++) {
        if (!ask_read(stage_ask_open(&stage, &calm), &asked, &st))
            CHECK_EQ(st.code, STATUS_UNAVAILABLE);
        test_pause_ms(100);
    }
    stage_ask(&stage, &calm, &asked);
    remove_camera(stage.store, "calm");
    CHECK(!ask_read(stage_ask_open(&stage, &calm), &asked, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    stage_close(&stage);
}

TEST_MAIN()
