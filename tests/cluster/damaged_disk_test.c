/* The disk has not kept a camera's file as it was written: of one nothing is left, another was cut. Both are said to be
 * damaged, the one by questions about it too, and the other is answered from what is left, with a word of the rest. */
#include <glob.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "stage.h"

enum { FRAMES = 40, WAIT_MS = 60000 };

/* The camera's one sealed file; static storage. */
static const char *file_of(const char *camera)
{
    static char path[512];
    char pattern[512];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/kvstore-0/v1/default/%s/*/*.seg", test_folder(), camera);
    CHECK_EQ(glob(pattern, 0, NULL, &found), 0);
    CHECK_EQ(found.gl_pathc, 1);
    snprintf(path, sizeof path, "%s", found.gl_pathv[0]);
    globfree(&found);
    return path;
}

static uint64_t bytes_of(const char *path)
{
    FILE *file = fopen(path, "r");
    long bytes;

    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    bytes = ftell(file);
    fclose(file);
    return (uint64_t)bytes;
}

static void wipe(const char *path)
{
    uint64_t bytes = bytes_of(path);
    FILE *file = fopen(path, "r+");

    CHECK(file != NULL);
    for (uint64_t i = 0; i < bytes; i++)
        fputc(0x5a, file);
    CHECK_EQ(fclose(file), 0);
}

static void check_nothing_left(struct stage *stage)
{
    const struct question question = { .camera = "wiped", .words = "What?", .max_tokens = 4 };
    uint64_t end_ns = clock_mono_ns() + WAIT_MS * 1000000ull;
    static struct asked asked;
    struct status st = { 0 };

    while (!ask_read(stage_ask_open(stage, &question), &asked, &st) && st.code == STATUS_UNAVAILABLE) {
        CHECK(clock_mono_ns() < end_ns); /* the store has just been started again */
        test_pause_ms(50);
    }
    CHECK_EQ(st.code, STATUS_DATA_LOSS);
    CHECK_HAS(st.text, "damaged on disk, all of it (40 frames)");
}

TEST(damaged_cameras_are_told_from_empty_ones)
{
    static struct asked asked;
    struct stage stage = { 0 };
    struct camera camera;

    stage_open(&stage);
    add_camera(stage.store, "wiped", stage_film(FRAMES));
    add_camera(stage.store, "cut", stage_film(FRAMES));
    wait_ended(stage.store, "wiped", FRAMES);
    wait_ended(stage.store, "cut", FRAMES);
    CHECK_EQ(cluster_service_stop(stage.parts[STAGE_KVSTORE], SIGTERM), 0);
    wipe(file_of("wiped"));
    CHECK_EQ(truncate(file_of("cut"), (off_t)(bytes_of(file_of("cut")) / 2)), 0);
    stage_start(&stage, STAGE_KVSTORE);

    camera_look(stage.store, "wiped", &camera);
    CHECK_EQ(camera.stored_frames, FRAMES);
    CHECK_EQ(camera.damaged_frames, FRAMES);
    check_nothing_left(&stage);
    camera_look(stage.store, "cut", &camera);
    CHECK_EQ(camera.stored_frames, FRAMES);
    CHECK(camera.damaged_frames > 0 && camera.damaged_frames < FRAMES);
    stage_ask(&stage, &(struct question){ .camera = "cut", .words = "What?", .max_tokens = 4 }, &asked);
    CHECK_EQ(asked.damaged_frames, camera.damaged_frames);
    stage_close(&stage);
}

TEST_MAIN()
