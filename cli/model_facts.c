#include "model_facts.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/name.h"
#include "cli_output.h"
#include "model/model.h"

enum {
    N_LOCAL_DEFAULT = 15000,    /* the services' own, when neither options nor the model say */
    RECORD_HEAD_BYTES = 4096,   /* docs/kv-format.md */
    THUMBNAIL_BYTES = 12 << 10, /* a usual one; at most LIMIT_THUMBNAIL_BYTES */
    RECORD_ALIGN = 4096,
};

#define MEASURE_SECONDS 0.4

static uint64_t checkpoint_bytes(const char *folder)
{
    struct dirent *entry;
    uint64_t bytes = 0;
    DIR *dir = opendir(folder);

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        struct stat info;

        if (strstr(entry->d_name, ".safetensors") != NULL &&
            fstatat(dirfd(dir), entry->d_name, &info, 0) == 0)
            bytes += (uint64_t)info.st_size;
    }
    if (dir != NULL)
        closedir(dir);
    return bytes;
}

static void fill(const struct model *model, struct model_facts *facts)
{
    const struct model_geometry *geometry = model_geometry(model);
    uint64_t record = RECORD_HEAD_BYTES + THUMBNAIL_BYTES + model_block_bytes(model, geometry->frame_tokens);

    text_copy(facts->family, sizeof facts->family, geometry->family);
    text_copy(facts->numerics, sizeof facts->numerics, model_numerics(model));
    hex_write(geometry->fingerprint, sizeof geometry->fingerprint, facts->fingerprint);
    facts->layers = geometry->layers;
    facts->frame_tokens = geometry->frame_tokens;
    facts->n_local = geometry->n_local;
    facts->frame_bytes = (record + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN;
}

static bool holds_window(const char *what, const char *option, uint64_t budget, uint64_t window,
                         const char *family, struct status *st)
{
    return budget >= window ||
           status_fail(
               st, STATUS_INVALID,
               "a %s budget of %s for each kvstore is smaller than one window of %s, which is %s; give "
               "more with %s, or take a smaller --n-local",
               what, cli_bytes(budget), family, cli_bytes(window), option);
}

/* A question reads its frames, and a restarted analyzer its window, through a store's memory and disk. */
static bool check_window_fits(const struct cluster_plan *plan, const struct model_facts *facts,
                              struct status *st)
{
    uint64_t frames = (facts->n_local + facts->frame_tokens - 1) / facts->frame_tokens;
    uint64_t window = frames * facts->frame_bytes, stores = plan->counts[CLUSTER_KVSTORE];

    return holds_window("memory", "--ram", plan->ram_bytes / stores, window, facts->family, st) &&
           holds_window("disk", "--disk", plan->disk_bytes / stores, window, facts->family, st);
}

bool model_facts_read(const struct cluster_plan *plan, struct model_facts *facts, struct status *st)
{
    bool small = checkpoint_bytes(plan->model) < memory_available() / 4;
    const struct model_spec spec = {
        .folder = plan->model,
        .dtype = plan->dtype,
        .threads = plan->threads,
        .n_local = plan->n_local > 0 ? plan->n_local : N_LOCAL_DEFAULT,
        .parts = small ? MODEL_VISION | MODEL_LANGUAGE : MODEL_VISION,
        .batch_frames = small ? 8 : 1,
    };
    struct model_speed speed = { 0 };
    struct model *model;
    bool ok;

    memset(facts, 0, sizeof *facts);
    if (!model_open_spec(&model, &spec, st))
        return false;
    fill(model, facts);
    ok = check_window_fits(plan, facts, st) && (!small || model_measure(model, MEASURE_SECONDS, &speed, st));
    facts->vision_frames_per_s = speed.vision_frames_per_s;
    facts->language_frames_per_s = speed.language_frames_per_s;
    model_close(model);
    return ok;
}
