#include "up_banner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli_cluster.h"
#include "cli_output.h"
#include "other_settings.h"

enum { NOTE_BYTES = 8 * CLUSTER_PATH_BYTES };

/* Both halves of the work share the machine's cores. */
static double frames_per_s(const struct model_facts *facts)
{
    if (facts->vision_frames_per_s <= 0 || facts->language_frames_per_s <= 0)
        return 0;
    return 1 / (1 / facts->vision_frames_per_s + 1 / facts->language_frames_per_s);
}

static double camera_hours(uint64_t bytes, const struct up_banner *banner)
{
    return (double)bytes / (double)banner->facts->frame_bytes / banner->file->plan.sample_fps / 3600;
}

/* Of how many cameras the frames have this fingerprint, from the i-th camera on. */
static size_t count_from(const struct camera_list *list, size_t i)
{
    const char *fingerprint = list->cameras[i].fingerprint;
    size_t count = 0;

    for (; i < list->count; i++)
        count += strcmp(list->cameras[i].fingerprint, fingerprint) == 0;
    return count;
}

static bool is_first_of_its_settings(const struct camera_list *list, size_t i)
{
    for (size_t n = 0; n < i; n++)
        if (strcmp(list->cameras[n].fingerprint, list->cameras[i].fingerprint) == 0)
            return false;
    return true;
}

/* What is stored under another fingerprint can be neither read nor continued; "" when nothing is. */
static void describe_change(const struct up_banner *banner, char *out, size_t out_bytes)
{
    const struct camera_list *list = banner->cameras;
    char back[NOTE_BYTES / 2], more[32];
    size_t used = 0, count;

    out[0] = '\0';
    for (size_t i = 0; i < list->count && used < out_bytes; i++) {
        const struct camera *camera = &list->cameras[i];

        if (camera->fingerprint[0] == '\0' || strcmp(camera->fingerprint, banner->facts->fingerprint) == 0 ||
            !is_first_of_its_settings(list, i))
            continue;
        count = count_from(list, i);
        snprintf(more, sizeof more, count > 1 ? " (and %zu more)" : "", count - 1);
        other_settings_way_back(banner->data, camera->fingerprint, back, sizeof back);
        used += (size_t)
            snprintf(out + used, out_bytes - used,
                     "%swhat camera %s%s saw was stored with other settings: it cannot be asked about, "
                     "and does not go on, until %s",
                     used > 0 ? "; " : "", camera->name, more, back);
    }
}

static void set_rate(struct json *object, const char *key, double per_s)
{
    if (per_s > 0)
        json_set_f64(object, key, per_s);
    else
        json_set_str(object, key, NULL); /* not measured */
}

static void print_json(const struct up_banner *banner)
{
    const struct cluster_plan *plan = &banner->file->plan;
    const struct model_facts *facts = banner->facts;
    struct json *value = json_make_object(), *model = json_make_object(), *speed = json_make_object();
    struct json *budget = json_make_object(), *processes = json_make_array();
    char note[NOTE_BYTES];

    for (uint32_t i = 0; i < banner->file->process_count; i++) {
        const struct cluster_process *process = &banner->file->processes[i];
        struct json *row = json_make_object();

        json_set_str(row, "name", process->name);
        json_set_str(row, "address", process->address);
        json_set_u64(row, "pid", (uint64_t)process->id.pid);
        json_append(processes, row);
    }
    json_set_str(model, "folder", plan->model);
    json_set_str(model, "family", facts->family);
    json_set_u64(model, "layers", facts->layers);
    json_set_u64(model, "frame_tokens", facts->frame_tokens);
    json_set_u64(model, "n_local", facts->n_local);
    json_set_str(model, "dtype", plan->dtype);
    json_set_str(model, "numerics", facts->numerics);
    json_set_str(model, "fingerprint", facts->fingerprint);
    set_rate(speed, "vision_frames_per_s", facts->vision_frames_per_s);
    set_rate(speed, "language_frames_per_s", facts->language_frames_per_s);
    set_rate(speed, "frames_per_s", frames_per_s(facts));
    json_set_u64(budget, "ram_bytes", plan->ram_bytes);
    json_set_u64(budget, "disk_bytes", plan->disk_bytes);
    json_set_u64(budget, "frame_bytes", facts->frame_bytes);
    json_set_f64(budget, "sample_fps", plan->sample_fps);
    json_set_f64(budget, "ram_camera_hours", camera_hours(plan->ram_bytes, banner));
    json_set_f64(budget, "disk_camera_hours", camera_hours(plan->disk_bytes, banner));
    json_set_bool(value, "ready", true);
    json_set_str(value, "data", banner->data);
    json_set_u64(value, "cameras", banner->cameras->count);
    describe_change(banner, note, sizeof note);
    json_set_str(value, "note", note[0] != '\0' ? note : NULL);
    json_set(value, "processes", processes);
    json_set(value, "model", model);
    json_set(value, "speed", speed);
    json_set(value, "budget", budget);
    cli_print_json(value);
}

static void print_speed(const struct up_banner *banner)
{
    double speed = frames_per_s(banner->facts), fps = banner->file->plan.sample_fps;

    if (speed <= 0) {
        printf("  speed    " MODEL_NOT_MEASURED "\n");
        return;
    }
    printf("  speed    %s frames/s expected (vision %s, language %s alone): %.0f cameras at %g frames/s\n",
           cli_rate(speed), cli_rate(banner->facts->vision_frames_per_s),
           cli_rate(banner->facts->language_frames_per_s), floor(speed / fps), fps);
}

static void print_addresses(const struct up_banner *banner)
{
    for (uint32_t i = 0; i < banner->file->process_count; i++)
        printf("  %-8s %-12s %s\n", i == 0 ? "at" : "", banner->file->processes[i].name,
               banner->file->processes[i].address);
}

/* A verb without --data would look elsewhere unless the folder is the usual one or the environment names it. */
static void print_next(const struct up_banner *banner)
{
    const char *named = getenv("REELKV_DATA");
    char usual[CLUSTER_PATH_BYTES];
    bool found =
        cluster_data_folder(named != NULL ? named : "", usual, NULL) && strcmp(usual, banner->data) == 0;

    printf("Go on with:  ");
    if (!found)
        printf("export REELKV_DATA=%s\n             ", cli_quote(banner->data));
    printf("reelkv cam add NAME FILE-OR-URL    reelkv ask \"...\"    reelkv down\n");
}

void up_banner_print(const struct up_banner *banner, bool as_json)
{
    const struct cluster_plan *plan = &banner->file->plan;
    const struct model_facts *facts = banner->facts;
    size_t cameras = banner->cameras->count;
    char note[NOTE_BYTES];

    if (as_json) {
        print_json(banner);
        return;
    }
    printf("ReelKV is ready.\n");
    print_addresses(banner);
    printf("  data     %s%s", banner->data, cameras > 0 ? "" : "\n");
    if (cameras > 0)
        printf(", %zu camera%s found again\n", cameras, cameras == 1 ? "" : "s");
    printf("  model    %s\n", plan->model);
    printf("           %s, %u layers, %u tokens a frame, window %u tokens, %s\n", facts->family,
           facts->layers, facts->frame_tokens, facts->n_local, facts->numerics);
    printf("           fingerprint %s\n", facts->fingerprint);
    print_speed(banner);
    printf("  memory   %s of KV: %s of one camera at %g frames/s (%s a frame)\n", cli_bytes(plan->ram_bytes),
           cli_span(camera_hours(plan->ram_bytes, banner) * 3600), plan->sample_fps,
           cli_bytes(facts->frame_bytes));
    printf("  disk     %s of KV: %s of one camera; then the oldest goes first\n", cli_bytes(plan->disk_bytes),
           cli_span(camera_hours(plan->disk_bytes, banner) * 3600));
    describe_change(banner, note, sizeof note);
    if (note[0] != '\0')
        printf("Note: %s\n", note);
    print_next(banner);
}
