/* truthcam: synthetic cameras that know the truth. See docs/truthcam.md. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/options.h"
#include "base/require.h"
#include "encode.h"
#include "truth_json.h"

struct truthcam_options {
#define OPT OPTION_FIELD
#include "truthcam_options.def"
#undef OPT
};

static const struct option_row rows[] = {
#define OPT(...) OPTION_ROW(truthcam_options, __VA_ARGS__),
#include "truthcam_options.def"
#undef OPT
};

static const struct option_table table = {
    .program = "truthcam",
    .summary = "Writes H.264 videos of moving shapes together with everything there is to know about them.",
    .rows = rows,
    .count = ARRAY_LEN(rows),
};

static bool find_profile(const char *name, enum profile *profile_p, struct status *st)
{
    for (int i = 0; i < PROFILES; i++) {
        if (strcmp(profile_names[i], name) != 0)
            continue;
        *profile_p = (enum profile)i;
        return true;
    }
    return status_fail(st, STATUS_INVALID, "profile must be demo, score or long, not '%s'", name);
}

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    interrupted = number;
}

static bool paint_once(const struct world *world, struct renderer *renderer, struct encoder *encoder,
                       struct status *st)
{
    struct picture picture;

    for (uint32_t frame = 0; frame < world->seconds * VIDEO_FPS; frame++) {
        if (interrupted != 0)
            return status_fail(st, STATUS_CANCELLED, "interrupted; no video was written");
        if (!encoder_picture(encoder, &picture, st))
            return false;
        render_frame(renderer, frame, &picture);
        if (!encoder_put(encoder, st))
            return false;
    }
    return true;
}

/* Half a video is none: its index comes last. A device or a link stays. */
static void remove_begun(const char *path)
{
    struct stat info;

    if (lstat(path, &info) == 0 && S_ISREG(info.st_mode))
        unlink(path);
}

static bool write_video(const struct truthcam_options *options, const struct world *world, struct status *st)
{
    bool live = options->live[0] != '\0', ok = false;
    struct renderer *renderer = NULL;
    struct encoder *encoder = NULL;

    if (!live) { /* a live camera just ends */
        signal(SIGINT, interrupt);
        signal(SIGTERM, interrupt);
    }
    if (!renderer_create(&renderer, world, st) ||
        !encoder_open(&encoder, live ? options->live : options->out, live, st))
        goto out;
    for (uint32_t loop = 0; loop == 0 || (live && (options->loops == 0 || loop < options->loops)); loop++)
        if (!paint_once(world, renderer, encoder, st))
            goto out;
    ok = encoder_finish(encoder, st);
out:
    if (!ok && !live && encoder != NULL)
        remove_begun(options->out);
    encoder_close(encoder);
    renderer_destroy(renderer);
    return ok;
}

static bool write_truth(const struct truthcam_options *options, const struct world *world, struct status *st)
{
    struct question *questions = calloc(QUESTIONS_MAX, sizeof *questions);
    struct json *truth;
    char *text;
    bool ok;

    if (questions == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for questions");
    truth = truth_json(world, questions, questions_make(world, options->questions, questions));
    text = json_text(truth, 1);
    ok = file_write_through(options->truth, text, strlen(text), st);
    free(text);
    json_free(truth);
    free(questions);
    return ok;
}

static int fail(const struct status *st, int code)
{
    fprintf(stderr, "truthcam: %s\n", st->text);
    return code;
}

static int close_output(void)
{
    struct status st;

    return file_flush_output(&st) ? 0 : fail(&st, 1);
}

int main(int argc, char **argv)
{
    struct truthcam_options options;
    static struct world world;
    struct status st = { 0 };
    enum profile profile = PROFILE_DEMO;

    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of writing, not a death */
    switch (options_parse(&table, &options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        goto usage;
    case OPTIONS_RUN:
        break;
    }
    if (options.vocabulary) {
        vocabulary_print(stdout);
        return close_output();
    }
    if (!find_profile(options.profile, &profile, &st))
        goto usage;
    if (options.out[0] == '\0' && options.truth[0] == '\0' && options.live[0] == '\0') {
        status_fail(&st, STATUS_INVALID, "nothing to do: give --out, --truth or --live; see --help");
        goto usage;
    }
    if (options.out[0] != '\0' && options.live[0] != '\0') {
        status_fail(&st, STATUS_INVALID,
                    "--out and --live are two ways to deliver one video; give one of them");
        goto usage;
    }
    world_make(&world, options.seed, options.seconds, profile);
    if ((options.truth[0] != '\0' && !write_truth(&options, &world, &st)) ||
        ((options.out[0] != '\0' || options.live[0] != '\0') && !write_video(&options, &world, &st)))
        return fail(&st, st.code == STATUS_CANCELLED ? 130 : 1);
    return 0;
usage:
    return fail(&st, 2);
}
