/* cam ls, cam show, cam wait: how the cameras are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "interrupt.h"
#include "other_settings.h"
#include "reelkv/v1/catalog.pb-c.h"

enum { LOOK_MS = 200, SILENCE_MS = 5000 };

/* ------------------------------------------------------------------------------------------------ ls */

struct cam_ls_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};
static const struct option_row ls_rows[] = {
#define ROW(...) OPTION_ROW(cam_ls_options, __VA_ARGS__),
    CLI_STREAM_OPTIONS(ROW)
#undef ROW
};

static void print_table(const struct camera_list *list)
{
    static const char *const titles[] = { "CAMERA",   "STATE", ">FRAMES",    ">OF",  ">GAPS", ">GONE",
                                          ">DAMAGED", ">DISK", ">REMEMBERS", "FROM", "TO",    "SOURCE" };
    struct cli_table *table;

    if (list->count == 0 && list->silent_count == 0) {
        printf("No cameras yet: `%s` adds one.\n", cli_hint("cam add NAME FILE-OR-URL"));
        return;
    }
    table = cli_table_create(titles, ARRAY_LEN(titles));
    for (size_t i = 0; i < list->count; i++) {
        const struct camera *camera = &list->cameras[i];

        cli_table_cell(table, "%s", camera->name);
        cli_table_cell(table, "%s", camera_state_words(camera));
        cli_table_cell(table, "%llu", (unsigned long long)camera->stored_frames);
        if (camera->expected_frames > 0)
            cli_table_cell(table, "%llu", (unsigned long long)camera->expected_frames);
        else
            cli_table_cell(table, "-");
        cli_table_cell(table, "%llu", (unsigned long long)camera->gap_frames);
        cli_table_cell(table, "%llu", (unsigned long long)camera->evicted_frames);
        cli_table_cell(table, "%llu", (unsigned long long)camera->damaged_frames);
        cli_table_cell(table, "%s", cli_bytes(camera->disk_bytes));
        cli_table_cell(table, "%s",
                       camera->remembers_ns > 0 ? cli_span((double)camera->remembers_ns / 1e9) : "-");
        cli_table_cell(table, "%s", camera->first_pts_ns != 0 ? cli_time(camera->first_pts_ns) : "-");
        cli_table_cell(table, "%s", camera->last_pts_ns != 0 ? cli_time(camera->last_pts_ns) : "-");
        cli_table_cell(table, "%s", camera->source);
    }
    cli_table_print(table);
    camera_list_print_trouble(list);
    camera_list_warn(list, "missing here");
}

static void print_list_json(const struct camera_list *list)
{
    struct json *value = json_make_object(), *cameras = json_make_array();

    for (size_t i = 0; i < list->count; i++)
        json_append(cameras, camera_to_json(&list->cameras[i]));
    json_set(value, "cameras", cameras);
    json_set(value, "silent_stores", camera_list_silent(list));
    cli_print_json(value);
}

static enum cli_exit run_ls(const struct cli_run *run)
{
    const struct cam_ls_options *options = run->options;
    struct camera_list list = { 0 };
    struct cluster *cluster = NULL;
    enum cli_exit code = CLI_OK;
    struct status st = { 0 };

    if (!cluster_open(&cluster, options->data, options->redis, &st) ||
        !camera_list_read(cluster, options->namespace, &list, &st)) {
        code = cli_fail(&st, run->json);
    } else {
        if (run->json)
            print_list_json(&list);
        else
            print_table(&list);
        code = list.silent_count > 0 ? CLI_UNAVAILABLE : CLI_OK;
    }
    camera_list_deinit(&list);
    cluster_close(cluster);
    return code;
}

const struct cli_command cli_cam_ls = {
    .path = "cam ls",
    .group = "Cameras",
    .table = { .program = "reelkv cam ls",
               .summary = "all cameras",
               .rows = ls_rows,
               .count = ARRAY_LEN(ls_rows) },
    .options_bytes = sizeof(struct cam_ls_options),
    .run = run_ls,
};

/* ---------------------------------------------------------------------------------------------- show */

struct cam_show_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};
static const struct option_row show_rows[] = {
#define ROW(...) OPTION_ROW(cam_show_options, __VA_ARGS__),
    CLI_STREAM_OPTIONS(ROW)
#undef ROW
};

/* What `cam show` knows of a camera's gaps. */
struct gaps {
    char now[STATUS_TEXT_BYTES]; /* why nothing comes; "": something does, or the camera's trouble says it */
    bool has_last;
    struct camera_gap last;
};

static void read_gaps(struct cluster *cluster, const struct camera *camera, struct gaps *gaps)
{
    memset(gaps, 0, sizeof *gaps);
    if (camera->trouble[0] == '\0')
        camera_explain(cluster, camera, gaps->now);
    gaps->has_last = camera_last_gap(cluster, camera, &gaps->last);
}

static void print_camera(const struct camera *camera, const struct gaps *gaps, size_t holds,
                         const char *way_back)
{
    printf("camera    %s (namespace %s)\n", camera->name, camera->ns);
    printf("state     %s%s%s\n", camera_state_words(camera), camera->trouble[0] != '\0' ? ": " : "",
           camera->trouble);
    printf("source    %s (%s, %g frames/s)\n", camera->source, camera->is_live ? "live" : "file",
           camera->sample_fps);
    printf("created   %s\n", cli_time(camera->created_ns));
    if (camera->first_pts_ns != 0)
        printf("seen      %s to %s\n", cli_time(camera->first_pts_ns), cli_time(camera->last_pts_ns));
    printf("frames    %llu offered", (unsigned long long)camera->next_seq);
    if (camera->expected_frames > 0)
        printf(" of %llu", (unsigned long long)camera->expected_frames);
    printf(", %llu stored (%llu of them on disk), %llu in gaps, %llu evicted, %llu damaged\n",
           (unsigned long long)camera->stored_frames, (unsigned long long)camera_frames_on_disk(camera),
           (unsigned long long)camera->gap_frames, (unsigned long long)camera->evicted_frames,
           (unsigned long long)camera->damaged_frames);
    if (gaps->now[0] != '\0')
        printf("gap now   %s\n", gaps->now);
    else if (gaps->has_last)
        printf("last gap  frames %llu to %llu, %s: %s\n", (unsigned long long)gaps->last.from_seq,
               (unsigned long long)gaps->last.to_seq - 1, cli_time(gaps->last.from_pts_ns),
               gaps->last.reason);
    if (way_back[0] != '\0')
        printf(
            "settings  stored with another model, dtype or window than the cluster runs with now (fingerprint "
            "%s): kept, but neither asked about nor continued until %s\n",
            camera->fingerprint, way_back);
    printf("ages      as class %s\n", camera->class[0] != '\0' ? camera->class : "default");
    if (camera->remembers_ns > 0)
        printf("remembers about %s at this rate\n", cli_span((double)camera->remembers_ns / 1e9));
    if (holds > 0)
        printf("holds     %zu; `%s` tells what is kept for whom\n", holds,
               cli_hint("mem holds %s", camera->name));
    printf("kept by   %s, %s on disk, epoch %llu\n", camera->store, cli_bytes(camera->disk_bytes),
           (unsigned long long)camera->epoch);
}

static void print_camera_json(const struct camera *camera, const struct gaps *gaps, size_t holds,
                              bool has_other_settings)
{
    struct json *value = camera_to_json(camera), *last;

    json_set_bool(value, "other_settings", has_other_settings);
    json_set_u64(value, "holds", holds);
    json_set_str(value, "gap_reason", gaps->now[0] != '\0' ? gaps->now : NULL);
    if (gaps->has_last) {
        last = json_make_object();
        json_set_u64(last, "from_seq", gaps->last.from_seq);
        json_set_u64(last, "to_seq", gaps->last.to_seq);
        json_set_str(last, "from", cli_rfc3339(gaps->last.from_pts_ns));
        json_set_str(last, "reason", gaps->last.reason);
        json_set(value, "last_gap", last);
    }
    cli_print_json(value);
}

static enum cli_exit run_show(const struct cli_run *run)
{
    const struct cam_show_options *options = run->options;
    struct cluster *cluster = NULL;
    struct camera *camera = calloc(1, sizeof *camera);
    struct gaps gaps;
    struct status st = { 0 };
    char way_back[4 * CLUSTER_PATH_BYTES] = "";
    size_t holds = 0;
    bool ok;

    REQUIRE(camera != NULL);
    ok = cluster_open(&cluster, options->data, options->redis, &st) &&
         camera_get(cluster, options->namespace, run->arguments[0], camera, &st);
    if (ok) {
        read_gaps(cluster, camera, &gaps);
        holds = camera_holds(cluster, camera);
        if (camera_has_other_settings(cluster, camera))
            other_settings_way_back(cluster_data(cluster), camera->fingerprint, way_back, sizeof way_back);
    }
    cluster_close(cluster);
    if (ok && run->json)
        print_camera_json(camera, &gaps, holds, way_back[0] != '\0');
    else if (ok)
        print_camera(camera, &gaps, holds, way_back);
    free(camera);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_cam_show = {
    .path = "cam show",
    .group = "Cameras",
    .table = { .program = "reelkv cam show",
               .summary = "one camera, with everything known about it",
               .arguments = "NAME",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = show_rows,
               .count = ARRAY_LEN(show_rows) },
    .options_bytes = sizeof(struct cam_show_options),
    .run = run_show,
};

/* ---------------------------------------------------------------------------------------------- wait */

#define CAM_WAIT_OPTIONS(OPT)                                            \
    CLI_STREAM_OPTIONS(OPT)                                              \
    OPT(frames, U32, "0", "0", "4294967295",                             \
        "until so many frames are on disk; 0: until the file has ended") \
    OPT(timeout, U32, "3600", "1", "2592000", "seconds")

struct cam_wait_options {
    CAM_WAIT_OPTIONS(OPTION_FIELD)
};
static const struct option_row wait_rows[] = {
#define ROW(...) OPTION_ROW(cam_wait_options, __VA_ARGS__),
    CAM_WAIT_OPTIONS(ROW)
#undef ROW
};

/* What this camera adds to the bar; *done_p says whether its wait is over. */
static bool look(struct cluster *cluster, const struct cam_wait_options *options, const char *name,
                 struct camera *camera, bool *done_p, struct status *st)
{
    if (!camera_get(cluster, options->namespace, name, camera, st))
        return false;
    if (camera->state == REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED)
        return status_fail(st, STATUS_PRECONDITION, "camera %s cannot be read: %s; `%s` removes it", name,
                           camera->trouble, cli_hint("cam rm %s", name));
    if (options->frames == 0 && camera->is_live)
        return status_fail(st, STATUS_INVALID, "camera %s is live and never ends; say how many with --frames",
                           name);
    *done_p = camera_is_complete(camera) ||
              (options->frames > 0 && camera_frames_written(camera) >= options->frames);
    return true;
}

/* After a look at all of them that failed: is it worth another? A store that is being started again is back in a
 * moment; a cluster that was stopped is not. */
static bool goes_on(struct cluster *cluster, struct status *st)
{
    if (st->code != STATUS_UNAVAILABLE || cluster_is_stopped(cluster, st))
        return false;
    cluster_refresh(cluster, NULL);
    return true;
}

/* A store that is away for more than a moment; told once each time. */
struct silence {
    uint64_t since_ns; /* all answered */
    bool told;
};

static void tell_silence(struct silence *silence, struct cli_progress *progress, const struct status *st)
{
    uint64_t now_ns = clock_mono_ns();
    struct status shown = *st;

    if (silence->told || now_ns - silence->since_ns < SILENCE_MS * 1000000ull)
        return;
    silence->told = true;
    cli_progress_end(progress);
    fprintf(stderr, "reelkv: still waiting: %s\n", cli_make_safe(shown.text));
}

/* "not done in 10 s: ...; yard: Connection refused" */
static void add_reason(struct cluster *cluster, const struct camera *camera, struct status *st)
{
    char why[STATUS_TEXT_BYTES];
    size_t used = strlen(st->text);

    camera_explain(cluster, camera, why);
    if (why[0] != '\0')
        snprintf(st->text + used, sizeof st->text - used, "; %s: %.300s", camera->name, why);
}

static bool wait_for_all(struct cluster *cluster, struct interrupt *interrupt, const struct cli_run *run,
                         struct camera *cameras, struct status *st)
{
    const struct cam_wait_options *options = run->options;
    uint64_t deadline = clock_mono_ns() + options->timeout * 1000000000ull;
    struct cli_progress progress = { 0 };
    struct silence silence = { .since_ns = clock_mono_ns() };
    bool ok = true, all = false;

    while (ok && !all) {
        uint64_t done_frames = 0, total_frames = 0;
        int late = 0;

        all = true;
        for (int i = 0; ok && i < run->count; i++) {
            bool done = false;

            ok = look(cluster, options, run->arguments[i], &cameras[i], &done, st);
            late = done || !all ? late : i;
            all = all && done;
            done_frames += camera_frames_written(&cameras[i]);
            total_frames += options->frames > 0 ? options->frames : cameras[i].expected_frames;
        }
        if (ok) {
            silence = (struct silence){ .since_ns = clock_mono_ns() };
        } else if (clock_mono_ns() < deadline && goes_on(cluster, st)) {
            tell_silence(&silence, &progress, st);
            ok = true, all = false;
        }
        if (!ok || all)
            break;
        if (interrupt_has_come(interrupt))
            ok = status_fail(st, STATUS_CANCELLED, "interrupted; the cameras are read on");
        else if (clock_mono_ns() > deadline)
            ok = status_fail(st, STATUS_DEADLINE, "not done in %u s: %llu of %llu frames are on disk",
                             options->timeout, (unsigned long long)done_frames,
                             (unsigned long long)total_frames);
        if (!ok && st->code == STATUS_DEADLINE)
            add_reason(cluster, &cameras[late], st);
        cli_progress_draw(&progress, "frames", done_frames, total_frames);
        usleep(LOOK_MS * 1000);
    }
    cli_progress_end(&progress);
    return ok;
}

static bool check_names(const struct cli_run *run, struct status *st)
{
    for (int i = 0; i < run->count; i++) {
        if (!name_check("camera", run->arguments[i], st))
            return false;
        for (int j = 0; j < i; j++)
            if (strcmp(run->arguments[i], run->arguments[j]) == 0)
                return status_fail(st, STATUS_INVALID, "camera %s is named twice", run->arguments[i]);
    }
    return true;
}

static void print_waited(const struct camera *camera)
{
    printf("%s: %s, %llu frames on disk", camera->name, camera_state_words(camera),
           (unsigned long long)camera_frames_on_disk(camera));
    if (camera->evicted_frames > 0)
        printf(", %llu evicted", (unsigned long long)camera->evicted_frames);
    if (camera->damaged_frames > 0)
        printf(", %llu damaged", (unsigned long long)camera->damaged_frames);
    printf("\n");
}

static void report_wait(const struct cli_run *run, const struct camera *cameras)
{
    struct json *value, *list;

    if (!run->json) {
        for (int i = 0; i < run->count; i++)
            print_waited(&cameras[i]);
        return;
    }
    value = json_make_object();
    list = json_make_array();
    for (int i = 0; i < run->count; i++)
        json_append(list, camera_to_json(&cameras[i]));
    json_set(value, "cameras", list);
    cli_print_json(value);
}

static enum cli_exit run_wait(const struct cli_run *run)
{
    const struct cam_wait_options *options = run->options;
    struct camera *cameras = calloc((size_t)run->count, sizeof *cameras);
    struct interrupt *interrupt = interrupt_create();
    struct cluster *cluster = NULL;
    struct status st = { 0 };
    bool ok;

    REQUIRE(cameras != NULL);
    ok = check_names(run, &st) && cluster_open(&cluster, options->data, options->redis, &st) &&
         wait_for_all(cluster, interrupt, run, cameras, &st);
    cluster_close(cluster);
    interrupt_destroy(interrupt);
    if (ok)
        report_wait(run, cameras);
    free(cameras);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_cam_wait = {
    .path = "cam wait",
    .group = "Cameras",
    .table = { .program = "reelkv cam wait",
               .summary = "until files have been read to their end and all is on disk",
               .arguments = "NAME...",
               .arguments_min = 1,
               .arguments_max = LIMIT_STREAMS_PER_QUESTION,
               .rows = wait_rows,
               .count = ARRAY_LEN(wait_rows) },
    .options_bytes = sizeof(struct cam_wait_options),
    .run = run_wait,
};
