/* Redis is not there when the services start, or goes and stays away: each says so, what runs goes on, and what needs the
 * directory comes when Redis does. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

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

TEST_MAIN()
