/* Any one process is killed -9 in the middle of its work, several times, and started again: every frame is stored once,
 * and every byte is the one of an undisturbed run. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "clip_cluster.h"
#include "support/video.h"

enum { FRAMES = 900, KILLS = 3, N_LOCAL = 60, REACH_MS = 60000 };

/* A cluster, the film both cameras watch, and what the undisturbed camera left. */
struct stage {
    struct cluster cluster;
    struct cluster_service *services[4]; /* kvstore, analyzer, encoder, qa */
    struct rpc_sync *store;
    struct model *model;
    char film[320];
    uint32_t *calm; /* [FRAMES * layers] */
};

static const char *const kinds[] = { "kvstore", "analyzer", "encoder", "qa" };

static void start(struct stage *stage, uint32_t which)
{
    static const char *const analyzer[] = { "--pool-bytes", "16M", "--credits", "4", NULL };

    stage->services[which] =
        cluster_service_start(&stage->cluster, kinds[which], 0, which == 1 ? analyzer : NULL);
}

static void open_stage(struct stage *stage)
{
    memset(stage, 0, sizeof *stage);
    stage->model = parity_model(&(struct parity_options){ .checkpoint = "tiny-a",
                                                          .dtype = TENSOR_F32,
                                                          .n_local = N_LOCAL,
                                                          .parts = MODEL_LANGUAGE | MODEL_VISION,
                                                          .batch_frames = 1,
                                                          .threads = 1 });
    snprintf(stage->film, sizeof stage->film, "%s",
             video_make_numbered(&(struct video_numbered){ .name = "film.mkv",
                                                           .rate = "2",
                                                           .count = FRAMES,
                                                           .width = 96,
                                                           .height = 64,
                                                           .more = "-c:v ffv1" }));
    cluster_start(&stage->cluster, REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "f32", N_LOCAL);
    for (uint32_t i = 0; i < 4; i++)
        start(stage, i);
    cluster_wait_joined(&stage->cluster);
    stage->store = connect_to(stage->services[0]);
    add_camera(stage->store, "calm", stage->film);
    wait_ended(stage->store, "calm", FRAMES);
    stage->calm = block_crcs(stage->store, "calm", model_geometry(stage->model), FRAMES);
}

static void close_stage(struct stage *stage)
{
    uint32_t *shaken = block_crcs(stage->store, "shaken", model_geometry(stage->model), FRAMES);

    CHECK_MEM(shaken, stage->calm, FRAMES * model_geometry(stage->model)->layers * sizeof *shaken);
    free(shaken);
    free(stage->calm);
    rpc_sync_destroy(stage->store);
    model_close(stage->model);
    for (uint32_t i = 4; i-- > 0;)
        CHECK_EQ(cluster_service_stop(stage->services[i], SIGTERM), 0);
    CHECK_EQ(process_stop(&stage->cluster.redis, SIGTERM, 5000), 0);
}

/* Waits until the shaken camera has this many frames. */
static void reach(struct stage *stage, uint64_t frames)
{
    uint64_t end_ns = clock_mono_ns() + REACH_MS * 1000000ull, stored;
    bool ended;

    while ((stored = stored_frames(stage->store, "shaken", &ended)) < frames) {
        if (clock_mono_ns() > end_ns)
            test_fail(__FILE__, __LINE__, "stopped at %llu frames before %llu", (unsigned long long)stored,
                      (unsigned long long)frames);
        test_pause_ms(2);
    }
}

static void shake(struct stage *stage, uint32_t which)
{
    add_camera(stage->store, "shaken", stage->film);
    for (uint64_t i = 1; i <= KILLS; i++) {
        reach(stage, i * FRAMES / (KILLS + 2));
        CHECK_EQ(cluster_service_stop(stage->services[which], SIGKILL), 128 + SIGKILL);
        start(stage, which);
    }
    wait_ended(stage->store, "shaken", FRAMES);
}

TEST(analyzer_killed_mid_stream_leaves_the_same_bytes)
{
    struct stage stage;

    open_stage(&stage);
    shake(&stage, 1);
    close_stage(&stage);
}

TEST(encoder_killed_mid_stream_leaves_the_same_bytes)
{
    struct stage stage;

    open_stage(&stage);
    shake(&stage, 2);
    close_stage(&stage);
}

TEST(kvstore_killed_mid_stream_leaves_the_same_bytes)
{
    struct stage stage;

    open_stage(&stage);
    shake(&stage, 0);
    close_stage(&stage);
}

/* The directory is emptied while a camera runs: the work goes on, and everybody announces again. */
TEST(redis_killed_mid_stream_loses_no_camera)
{
    struct stage stage;

    open_stage(&stage);
    add_camera(stage.store, "shaken", stage.film);
    reach(&stage, FRAMES / 4);
    CHECK_EQ(process_stop(&stage.cluster.redis, SIGKILL, 5000), 128 + SIGKILL);
    unlink(redis_address() + strlen("unix:"));
    redis_start(&stage.cluster.redis);
    wait_ended(stage.store, "shaken", FRAMES);
    cluster_wait_joined(&stage.cluster);
    close_stage(&stage);
}

TEST_MAIN()
