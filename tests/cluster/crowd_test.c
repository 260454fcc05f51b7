/* Cameras that share the processes, and questions that share them, get what each gets alone, byte for byte and id for
 * id. */
#include <stdlib.h>

#include "stage.h"

enum { FRAMES = 300, CAMERAS = 4, QUESTIONS = 4 };

static const char *const names[CAMERAS] = { "east", "west", "north", "south" };

TEST(cameras_read_at_once_leave_the_bytes_of_each_alone)
{
    struct stage stage = { 0 };
    const char *film = stage_film(FRAMES);
    uint32_t *alone;

    stage_open(&stage);
    alone = stage_undisturbed(&stage, "alone", film, FRAMES);
    for (uint32_t i = 0; i < CAMERAS; i++)
        add_camera(stage.store, names[i], film);
    for (uint32_t i = 0; i < CAMERAS; i++) {
        wait_ended(stage.store, names[i], FRAMES);
        stage_check_crcs(&stage, names[i], alone, FRAMES);
    }
    free(alone);
    stage_close(&stage);
}

/* Each about another number of frames. */
TEST(questions_at_once_get_the_answers_of_each_alone)
{
    static struct asked alone[QUESTIONS], crowded;
    struct question question = { .camera = "alone", .words = "What was there to see?", .max_tokens = 64 };
    struct rpc_sync_stream *calls[QUESTIONS];
    struct stage stage = { 0 };
    struct status st = { 0 };

    stage_open(&stage);
    add_camera(stage.store, "alone", stage_film(FRAMES));
    wait_ended(stage.store, "alone", FRAMES);
    for (uint32_t i = 0; i < QUESTIONS; i++) {
        question.top_r = 8 + 16 * i;
        stage_ask(&stage, &question, &alone[i]);
    }
    for (uint32_t i = 0; i < QUESTIONS; i++) {
        question.top_r = 8 + 16 * i;
        calls[i] = stage_ask_open(&stage, &question);
    }
    for (uint32_t i = 0; i < QUESTIONS; i++) {
        CHECK_OK(ask_read(calls[i], &crowded, &st), st);
        CHECK_MEM(&crowded, &alone[i], sizeof crowded);
    }
    stage_close(&stage);
}

TEST_MAIN()
