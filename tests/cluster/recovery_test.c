/* Any one process is killed -9 in the middle of its work, several times, and started again: every frame is stored once,
 * every byte is the one of an undisturbed run, and a question is answered right or not at all. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "stage.h"

enum { FRAMES = 900, KILLS = 3 };

/* A stage, the film both cameras watch, and what the undisturbed camera left. */
struct recovery {
    struct stage stage;
    char film[320];
    uint32_t *calm; /* [FRAMES * layers] */
};

static void open_recovery(struct recovery *recovery)
{
    memset(recovery, 0, sizeof *recovery);
    snprintf(recovery->film, sizeof recovery->film, "%s", stage_film(FRAMES));
    stage_open(&recovery->stage);
    recovery->calm = stage_undisturbed(&recovery->stage, "calm", recovery->film, FRAMES);
}

static void close_recovery(struct recovery *recovery)
{
    free(recovery->calm);
    stage_close(&recovery->stage);
}

static void check_shaken(struct recovery *recovery)
{
    wait_ended(recovery->stage.store, "shaken", FRAMES);
    stage_check_crcs(&recovery->stage, "shaken", recovery->calm, FRAMES);
}

/* Kills the part several times in the middle of a camera; its neighbour notices, in these words. */
static void shake(enum stage_part part, enum stage_part neighbour, const char *words)
{
    struct recovery recovery;

    open_recovery(&recovery);
    add_camera(recovery.stage.store, "shaken", recovery.film);
    for (uint64_t i = 1; i <= KILLS; i++) {
        wait_stored(recovery.stage.store, "shaken", i * FRAMES / (KILLS + 2));
        stage_kill(&recovery.stage, part);
        stage_start(&recovery.stage, part);
    }
    check_shaken(&recovery);
    stage_wait_told(&recovery.stage, neighbour, words);
    close_recovery(&recovery);
}

TEST(analyzer_killed_mid_stream_leaves_the_same_bytes)
{
    shake(STAGE_ANALYZER, STAGE_ENCODER, "analyzer_lost");
}

TEST(encoder_killed_mid_stream_leaves_the_same_bytes)
{
    shake(STAGE_ENCODER, STAGE_ANALYZER, "epoch 2"); /* the stream is opened anew by another writer */
}

TEST(kvstore_killed_mid_stream_leaves_the_same_bytes)
{
    shake(STAGE_KVSTORE, STAGE_ANALYZER, "feed_failed");
}

/* The directory is emptied while a camera runs: the work goes on, and everybody announces again. */
TEST(redis_killed_mid_stream_loses_no_camera)
{
    struct recovery recovery;

    open_recovery(&recovery);
    add_camera(recovery.stage.store, "shaken", recovery.film);
    wait_stored(recovery.stage.store, "shaken", FRAMES / 4);
    CHECK_EQ(process_stop(&recovery.stage.cluster.redis, SIGKILL, 5000), 128 + SIGKILL);
    unlink(redis_address() + strlen("unix:"));
    redis_start(&recovery.stage.cluster.redis);
    check_shaken(&recovery);
    cluster_wait_joined(&recovery.stage.cluster);
    close_recovery(&recovery);
}

static const struct question long_question = {
    .camera = "calm", .words = "What was there to see?", .top_r = 64, .max_tokens = 64
};

/* The question is under way when the part dies: it is answered whole and right, or refused as UNAVAILABLE with a
 * sentence; and answered right once the part is back. */
static void ask_while_dying(struct stage *stage, enum stage_part part, const struct asked *calm)
{
    static struct asked asked;

    for (uint32_t i = 0; i < KILLS; i++) {
        struct rpc_sync_stream *call = stage_ask_open(stage, &long_question);
        struct status st = { 0 };

        test_pause_ms(i * 10);
        stage_kill(stage, part);
        if (ask_read(call, &asked, &st)) {
            CHECK_MEM(&asked, calm, sizeof asked);
        } else {
            CHECK_EQ(st.code, STATUS_UNAVAILABLE);
            CHECK(st.text[0] != '\0');
        }
        stage_start(stage, part);
        stage_ask(stage, &long_question, &asked);
        CHECK_MEM(&asked, calm, sizeof asked);
    }
}

TEST(questions_asked_while_a_process_dies_are_answered_right_or_refused)
{
    static struct asked calm;
    struct stage stage = { 0 };

    stage_open(&stage);
    add_camera(stage.store, "calm", stage_film(120));
    wait_ended(stage.store, "calm", 120);
    stage_ask(&stage, &long_question, &calm);
    ask_while_dying(&stage, STAGE_QA, &calm);
    ask_while_dying(&stage, STAGE_KVSTORE, &calm);
    stage_close(&stage);
}

TEST_MAIN()
