/* What people give by mistake, given to the real processes: checkpoints, videos and questions with something wrong are
 * refused with a sentence that names it, by whoever finds it, and everybody else goes on. */
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "stage.h"
#include "support/video.h"

enum { FRAMES = 40, LONG_FRAMES = 900, START_MS = 60000, WAIT_MS = 60000 };

static const char *path_of(const char *name)
{
    static char path[1024];

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static void read_text(const char *path, struct file_text *text)
{
    struct status st;

    CHECK_OK(file_read_all(path, 64 << 20, text, &st), st);
}

static void write_text(const char *name, const void *data, size_t len)
{
    struct status st;

    CHECK_OK(file_write_durable(path_of(name), data, len, &st), st);
}

/* ------------------------------------------------------------------------------------------ checkpoints */

/* In a copy of the checkpoint, the first `from` of a file becomes `to`; to NULL: the file ends there. */
static void damage(const char *name, const char *from, const char *to)
{
    static const char *const files[] = { "config.json", "model.safetensors", "preprocessor_config.json",
                                         "tokenizer.json" };
    struct status st;

    CHECK_OK(file_make_folders(path_of("model"), &st), st);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct file_text text;
        char path[512];
        char *at;

        snprintf(path, sizeof path, STAGE_MODEL "/%s", files[i]);
        read_text(path, &text);
        if (strcmp(files[i], name) == 0) {
            at = memmem(text.data, text.len, from, strlen(from));
            CHECK(at != NULL);
            if (to != NULL)
                memcpy(at, to, strlen(to));
            else
                text.len = (size_t)(at - text.data);
        }
        snprintf(path, sizeof path, "model/%s", files[i]);
        write_text(path, text.data, text.len);
        free(text.data);
    }
}

/* The services refuse to start, each for what it loads, and `reelkv up` before it starts any. */
TEST(a_checkpoint_with_something_wrong_is_refused_by_name)
{
    static const struct {
        const char *service, *file, *from, *to, *says;
    } cases[] = {
        { "reelkv-analyzer", "model.safetensors", "layers.1.self_attn.k_proj.bias",
          "layers.1.self_attn.k_proj.bios", "layers.1.self_attn.k_proj.bias' is missing" },
        { "reelkv-qa", "model.safetensors", "\"shape\":[1536,64]", "\"shape\":[64,1536]",
          "has shape [64, 1536]; config.json asks for [1536, 64]" },
        { "reelkv-encoder", "model.safetensors", "encoder.layers.1.mlp.fc1.weight",
          "encoder.layers.9.mlp.fc1.weight", "encoder.layers.1.mlp.fc1.weight' is missing" },
        { "reelkv-analyzer", "model.safetensors", "\"__metadata__\"", NULL, "model.safetensors" },
        { "reelkv-qa", "config.json", "{", "[", "malformed JSON" },
        { "reelkv-encoder", "config.json", "LlavaOnevisionForConditionalGeneration",
          "LlavaTwovisionsForConditionGeneration!", "is unknown; known: llava_onevision" },
        { "reelkv-qa", "tokenizer.json", "\"content\":\"<|im_end|>\"", "\"content\":\"<|im_fin|>\"",
          "lacks the added token '<|im_end|>'" },
    };
    struct process process;
    char model[1024];

    snprintf(model, sizeof model, "%s", path_of("model"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        damage(cases[i].file, cases[i].from, cases[i].to);
        CHECK_EQ(process_run(&process, "service",
                             PROCESS_ARGS(cases[i].service, "--model", model, "--n-local", "60", "--redis",
                                          redis_address(), "--threads", "1"),
                             START_MS),
                 1);
        CHECK_HAS(process_log(&process), cases[i].says);
    }
    damage(cases[0].file, cases[0].from, cases[0].to);
    CHECK(process_run(&process, "up",
                      PROCESS_ARGS("reelkv", "up", "--model", model, "--data", path_of("data"), "--n-local",
                                   "60", "--ram", "64M", "--disk", "256M"),
                      START_MS) > 0);
    CHECK_HAS(process_log(&process), cases[0].says);
}

/* ---------------------------------------------------------------------------------------------- videos */

static void cut(const char *name, double part)
{
    struct file_text text;

    read_text(path_of(name), &text);
    write_text(name, text.data, (size_t)((double)text.len * part));
    free(text.data);
}

/* Two transport streams end to end: another size from the middle on. */
static void make_two_sizes(void)
{
    struct video_numbered first = { "1.ts", "25", 0, 60, 192, 64, "" };
    struct video_numbered second = { "2.ts", "25", 60, 60, 322, 182, "" };
    struct file_text one, two;
    char *both;

    read_text(video_make_numbered(&first), &one);
    read_text(video_make_numbered(&second), &two);
    both = malloc(one.len + two.len);
    memcpy(both, one.data, one.len);
    memcpy(both + one.len, two.data, two.len);
    write_text("two-sizes.ts", both, one.len + two.len);
    free(both);
    free(one.data);
    free(two.data);
}

static void make_videos(void)
{
    static const char letter[] = "Dear camera, this is no video. It is a letter.\n";

    video_make_numbered(&(struct video_numbered){ "whole.mp4", "2", 0, FRAMES, 192, 64, "" });
    video_make_numbered(&(struct video_numbered){ "no-index.mp4", "2", 0, FRAMES, 192, 64, "" });
    cut("no-index.mp4", 0.5);
    video_make_numbered(
        &(struct video_numbered){ "cut.mp4", "2", 0, FRAMES, 192, 64, "-movflags +faststart" });
    cut("cut.mp4", 0.7);
    make_two_sizes();
    write_text("letter.mp4", letter, sizeof letter - 1);
    video_ffmpeg("-f lavfi -i sine=d=1 -c:a aac %/sound.mp4");
    video_ffmpeg("-f lavfi -i color=s=64x64:r=25:d=1 -frames:v 0 -c:v libx264 %/none.mkv");
}

static const struct bad_video {
    const char *name, *file;
    uint32_t least, most; /* frames stored */
    const char *says;     /* NULL: nothing is wrong with it */
} videos[] = {
    { "letter", "letter.mp4", 0, 0, "this is not a video" },
    { "no-index", "no-index.mp4", 0, 0, "its index (moov) is missing" },
    { "sound", "sound.mp4", 0, 0, "it has sound but no picture" },
    { "none", "none.mkv", 0, 0, "ends before its first frame" },
    { "absent", "absent.mp4", 0, 0, "No such file or directory" },
    { "cut", "cut.mp4", 1, FRAMES - 1, "is cut short or damaged" },
    { "two-sizes", "two-sizes.ts", 10, 10, NULL }, /* 120 frames at 25 a second, half of each size */
    { "whole", "whole.mp4", FRAMES, FRAMES, NULL },
};

static void check_video(struct rpc_sync *store, const struct bad_video *video)
{
    uint64_t end_ns = clock_mono_ns() + WAIT_MS * 1000000ull;
    struct camera camera;

    for (;;) {
        camera_look(store, video->name, &camera);
        if (camera.has_ended)
            break;
        if (clock_mono_ns() > end_ns)
            test_fail(__FILE__, __LINE__, "camera %s does not end", video->name);
        test_pause_ms(20);
    }
    if (camera.has_failed != (video->says != NULL))
        test_fail(__FILE__, __LINE__, "camera %s: \"%s\"", video->name, camera.trouble);
    if (video->says != NULL)
        CHECK_HAS(camera.trouble, video->says);
    CHECK(camera.stored_frames >= video->least && camera.stored_frames <= video->most);
    CHECK_EQ(camera.next_seq, camera.stored_frames);
}

/* ------------------------------------------------------------------------------------------- questions */

static struct asked asked;

static const struct question whole = { .camera = "whole", .words = "What?", .max_tokens = 4 };

static bool put(struct stage *stage, const struct question *question, struct status *st)
{
    return ask_read(stage_ask_open(stage, question), &asked, st);
}

/* Of the service itself, whatever a client checked before. */
static void check_questions(struct stage *stage)
{
    static char too_long[LIMIT_QUESTION_BYTES + 2];
    const int64_t year_ns = 31536000ll * 1000000000;
    const struct {
        struct question question;
        enum status_code code;
        const char *says;
    } rows[] = {
        { { .camera = "whole", .words = "" }, STATUS_INVALID, "the question is empty" },
        { { .camera = "whole", .words = " \t\n" }, STATUS_INVALID, "the question is empty" },
        { { .camera = "whole", .words = "\xff\xfe" }, STATUS_INVALID, "not valid UTF-8" },
        { { .camera = "whole", .words = too_long }, STATUS_INVALID, "at most 4096" },
        { { .camera = "nobody", .words = "What?" }, STATUS_NOT_FOUND, "there is no stream 'nobody'" },
        { { .camera = "No Good", .words = "What?" }, STATUS_INVALID, "No Good" },
        { { .words = "What?" }, STATUS_INVALID, "1 to 64 streams" },
        { { .camera = "whole", .words = "What?", .max_tokens = LIMIT_ANSWER_TOKENS + 1 },
          STATUS_INVALID,
          "max_tokens must be 1 to" },
        { { .camera = "whole", .words = "What?", .from_ns = 2, .to_ns = 1 },
          STATUS_INVALID,
          "ends before it begins" },
        { { .camera = "whole", .words = "What?", .from_ns = 1, .to_ns = year_ns },
          STATUS_OUT_OF_RANGE,
          "nothing is stored for that time" },
        { { .camera = "whole", .words = "What?", .from_ns = 130 * year_ns },
          STATUS_OUT_OF_RANGE,
          "nothing is stored for that time" },
        { { .camera = "sound", .words = "What?" }, STATUS_OUT_OF_RANGE, "nothing is stored for that time" },
    };
    struct status st;

    memset(too_long, 'a', sizeof too_long - 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        memset(&st, 0, sizeof st);
        CHECK(!put(stage, &rows[i].question, &st));
        CHECK_EQ(st.code, rows[i].code);
        CHECK_HAS(st.text, rows[i].says);
    }
    CHECK_OK(put(stage, &whole, &st), st);
}

TEST(bad_videos_and_bad_questions_are_told_and_harm_nobody)
{
    struct stage stage = { 0 };

    make_videos();
    stage_open(&stage);
    for (size_t i = 0; i < ARRAY_LEN(videos); i++)
        add_camera(stage.store, videos[i].name, path_of(videos[i].file));
    for (size_t i = 0; i < ARRAY_LEN(videos); i++)
        check_video(stage.store, &videos[i]);
    stage_ask(&stage, &whole, &asked);
    check_questions(&stage);
    stage_close(&stage);
}

/* ----------------------------------------------------------------------------------------- another model */

static void restart_all_but_the_store(struct stage *stage, uint32_t n_local)
{
    for (enum stage_part part = STAGE_ANALYZER; part < STAGE_PARTS; part++)
        stage_kill(stage, part);
    stage->cluster.n_local = n_local;
    for (enum stage_part part = STAGE_ANALYZER; part < STAGE_PARTS; part++)
        stage_start(stage, part);
}

/* Another window is another fingerprint: what is stored is neither read nor added to, and both sides say so; with the old
 * window the camera goes on where it was. */
TEST(a_store_under_another_fingerprint_is_refused_and_kept)
{
    const struct question question = { .camera = "half", .words = "What?", .max_tokens = 4 };
    struct stage stage = { 0 };
    struct camera camera;
    uint32_t *before;
    struct status st = { 0 };

    stage_open(&stage);
    add_camera(stage.store, "half", stage_film(LONG_FRAMES));
    wait_stored(stage.store, "half", LONG_FRAMES / 10);
    restart_all_but_the_store(&stage, STAGE_N_LOCAL + 4);
    stage_wait_told(&stage, STAGE_ENCODER, "or remove it (failed precondition)");
    camera_look(stage.store, "half", &camera);
    CHECK(camera.stored_frames < LONG_FRAMES);
    before = stage_crcs(&stage, "half", camera.stored_frames);
    CHECK(!put(&stage, &question, &st));
    CHECK_EQ(st.code, STATUS_PRECONDITION);
    CHECK_HAS(st.text, "holds blocks of fingerprint");

    restart_all_but_the_store(&stage, STAGE_N_LOCAL);
    wait_ended(stage.store, "half", LONG_FRAMES);
    stage_check_crcs(&stage, "half", before, camera.stored_frames);
    stage_ask(&stage, &question, &asked);
    free(before);
    stage_close(&stage);
}

/* A store that could not keep one window whole takes no stream of that model. */
TEST(a_budget_smaller_than_one_window_is_told)
{
    static const char *const small[] = { "--disk-budget-bytes", "8M", NULL };
    struct stage stage = { .flags = { [STAGE_KVSTORE] = small }, .n_local = 20000 };
    struct camera camera;

    stage_open(&stage);
    add_camera(stage.store, "dock", stage_film(FRAMES));
    stage_wait_told(&stage, STAGE_ENCODER,
                    "disk_budget_bytes of store kvstore-0 is 8388608, smaller than one window");
    camera_look(stage.store, "dock", &camera);
    CHECK_EQ(camera.next_seq, 0);
    stage_close(&stage);
}

TEST_MAIN()
