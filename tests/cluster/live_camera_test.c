/* A live RTSP camera that no one here wrote, through the death of each process: every slot of its grid is a frame or a
 * gap with a reason, what was durable stays, and the camera goes on. */
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "stage.h"
#include "support/video.h"

enum { FPS = 5, MORE = 8, CALL_MS = 60000, SPANS_MAX = 10000 };

#define PASSWORD "s3cret"

/* 25 frames a second, from the tape's start for each viewer who knows the password. */
static const char *start_rtsp(struct process *server)
{
    static char url[96];
    struct video_numbered video = { "tape.mp4", "25", 0, 3000, 96, 64, "-g 12 -bf 0" };
    char tape[VIDEO_PATH_BYTES];
    int port = 0;

    snprintf(tape, sizeof tape, "%s", video_make_numbered(&video));
    process_start(server, "rtsp",
                  PROCESS_ARGS("/usr/bin/python3", REELKV_SOURCE_DIR "/tests/support/rtsp_server.py", tape,
                               "admin", PASSWORD));
    CHECK(process_wait_text(server, "port ", 20000));
    CHECK(sscanf(process_log(server), "port %d", &port) == 1);
    snprintf(url, sizeof url, "rtsp://admin:" PASSWORD "@127.0.0.1:%d/live", port);
    return url;
}

/* Where slot `seq` lies on the camera's grid, against the time the store has for it: less than two slots apart. */
static void check_time(const struct camera *camera, uint64_t seq, int64_t pts_ns)
{
    double slots = (double)(pts_ns - camera->created_ns) * FPS / 1e9;

    CHECK_NEAR(slots, (double)seq, 2);
}

/* The store's own account of every number: spans that follow each other, frames in their time, gaps with a reason. */
static void check_whole(struct rpc_sync *store)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    const Reelkv__V1__TimelineReply *timeline;
    uint64_t next_seq = 0, gaps = 0;
    struct rpc_sync_stream *call;
    const struct rpc_message *reply;
    struct camera camera;
    struct status st = { 0 };

    id.namespace_ = (char *)"default";
    id.name = (char *)"gate";
    request.id = &id;
    request.page_size = SPANS_MAX;
    camera_look(store, "gate", &camera);
    CHECK_OK(rpc_sync_unary(&call, store, &api_timeline, &options, &request.base, &reply, &st), st);
    timeline = (const Reelkv__V1__TimelineReply *)reply->body;
    CHECK_EQ(timeline->next_seq, 0);
    for (size_t i = 0; i < timeline->n_spans; i++) {
        const Reelkv__V1__TimelineSpan *span = timeline->spans[i];

        CHECK_EQ(span->from_seq, next_seq);
        next_seq = span->to_seq;
        if (span->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP) {
            CHECK(span->reason[0] != '\0');
            gaps += span->to_seq - span->from_seq;
            continue;
        }
        CHECK_EQ(span->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
        check_time(&camera, span->from_seq, span->from_pts_ns);
        check_time(&camera, span->to_seq - 1, span->to_pts_ns);
    }
    rpc_sync_stream_destroy(call);
    CHECK_EQ(camera.next_seq, next_seq);
    CHECK_EQ(camera.gap_frames, gaps);
    CHECK_EQ(camera.stored_frames, next_seq - gaps);
}

/* Nobody writes any more: soon all there is is on the disk. */
static void wait_durable(struct rpc_sync *store)
{
    uint64_t end_ns = clock_mono_ns() + CALL_MS * 1000000ull;
    struct camera camera;

    for (;;) {
        camera_look(store, "gate", &camera);
        if (camera.durable_seq == camera.next_seq)
            break;
        CHECK(clock_mono_ns() < end_ns);
        test_pause_ms(50);
    }
    CHECK(!camera.has_ended && camera.gap_frames > 0);
}

static void check_password_is_nowhere(struct stage *stage)
{
    struct process dump;

    for (enum stage_part part = 0; part < STAGE_PARTS; part++)
        CHECK(strstr(process_log(&stage->parts[part]->process), PASSWORD) == NULL);
    CHECK_EQ(process_run(&dump, "dump",
                         PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "HGETALL",
                                      "reelkv:1:streams"),
                         CALL_MS),
             0);
    CHECK_HAS(process_log(&dump), "gate");
    CHECK(strstr(process_log(&dump), PASSWORD) == NULL);
}

/* MORE new frames come. */
static void goes_on(struct stage *stage)
{
    struct camera camera;

    camera_look(stage->store, "gate", &camera);
    wait_stored(stage->store, "gate", camera.stored_frames + MORE);
}

/* What was durable before is the same after. */
static void kill_store(struct stage *stage)
{
    const struct model_geometry *geometry = model_geometry(stage->model);
    uint64_t gaps_before, gaps_after;
    uint32_t *before, *after;
    struct camera camera;

    camera_look(stage->store, "gate", &camera);
    before = block_crcs(stage->store, "gate", geometry, camera.durable_seq, &gaps_before);
    stage_kill(stage, STAGE_KVSTORE);
    stage_start(stage, STAGE_KVSTORE);
    after = block_crcs(stage->store, "gate", geometry, camera.durable_seq, &gaps_after);
    CHECK_EQ(gaps_after, gaps_before);
    CHECK_MEM(after, before, camera.durable_seq * geometry->layers * sizeof *after);
    free(before);
    free(after);
}

TEST(a_live_camera_is_frames_and_gaps_without_a_hole_whoever_is_killed)
{
    struct stage stage = { 0 };
    struct process rtsp;

    stage_open(&stage);
    add_live_camera(stage.store, "gate", start_rtsp(&rtsp), FPS);
    goes_on(&stage);
    check_password_is_nowhere(&stage);
    stage_kill(&stage, STAGE_ENCODER);
    stage_start(&stage, STAGE_ENCODER);
    goes_on(&stage);
    stage_kill(&stage, STAGE_ANALYZER);
    stage_start(&stage, STAGE_ANALYZER);
    goes_on(&stage);
    kill_store(&stage);
    goes_on(&stage);
    stage_kill(&stage, STAGE_ENCODER);
    stage_kill(&stage, STAGE_ANALYZER);
    stage_start(&stage, STAGE_ANALYZER);
    stage_start(&stage, STAGE_ENCODER);
    goes_on(&stage);
    /* An encoder that is asked to end hands on what it has: then the account is closed. */
    CHECK_EQ(cluster_service_stop(stage.parts[STAGE_ENCODER], SIGTERM), 0);
    wait_durable(stage.store);
    check_whole(stage.store);
    process_stop(&rtsp, SIGKILL, 1000);
    stage_close(&stage);
}

TEST_MAIN()
