#include "up_plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/name.h"
#include "base/require.h"
#include "cli_output.h"
#include "machine.h"
#include "media/media_sampling.h"
#include "model/model.h"

enum { ADVICE_BYTES_MAX = 64 << 10 };

#define RUN_IN_TMP         "/tmp/reelkv-"
#define RAM_BYTES_MIN      (64ull << 20)
#define DISK_BYTES_MIN     (256ull << 20)
#define SAMPLE_FPS_DEFAULT 0.5 /* ReKV's */

bool up_plan_own_path(char out[CLUSTER_PATH_BYTES], struct status *st)
{
    ssize_t len = readlink("/proc/self/exe", out, CLUSTER_PATH_BYTES - 1);

    if (len <= 0)
        return status_fail(st, STATUS_INTERNAL, "read /proc/self/exe: %m");
    out[len] = '\0';
    return true;
}

static bool find_programs(struct cluster_plan *plan, struct status *st)
{
    char program[CLUSTER_PATH_BYTES + 64];

    if (!up_plan_own_path(plan->bin, st))
        return false;
    *strrchr(plan->bin, '/') = '\0';
    for (int kind = CLUSTER_KVSTORE; kind < CLUSTER_KINDS; kind++) {
        char name[32];

        snprintf(name, sizeof name, "reelkv-%s", cluster_kind_names[kind]);
        if (!machine_find_program(plan->bin, name, program, sizeof program))
            return status_fail(st, STATUS_NOT_FOUND,
                               "%s is not in %s beside reelkv; build or install all of ReelKV", name,
                               plan->bin);
    }
    if (!machine_find_program(NULL, "redis-server", program, sizeof program))
        return status_fail(st, STATUS_NOT_FOUND, "redis-server is not in PATH; `apt install redis-server`");
    return true;
}

/* Installed beside bin (../share/reelkv), else the source tree (build/PRESET/bin). */
static bool default_model(const char *bin, char out[CLUSTER_PATH_BYTES])
{
    static const char *const places[] = { "../share/reelkv/models/reelkv-demo",
                                          "../../../models/reelkv-demo" };
    char path[CLUSTER_PATH_BYTES + 64], *full;

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        snprintf(path, sizeof path, "%s/%s", bin, places[i]);
        full = realpath(path, NULL);
        if (full != NULL) {
            bool fits = text_copy(out, CLUSTER_PATH_BYTES, full);

            free(full);
            return fits;
        }
    }
    return false;
}

static bool find_model(const struct up_request *request, const char *remembered, struct cluster_plan *plan,
                       struct status *st)
{
    const char *wanted = request->model[0] != '\0' ? request->model : remembered;
    char config[CLUSTER_PATH_BYTES + 16], *full;

    if (wanted[0] == '\0') {
        if (!default_model(plan->bin, plan->model))
            return status_fail(st, STATUS_NOT_FOUND,
                               "the demo model is not installed; name a checkpoint folder with "
                               "--model DIR");
    } else {
        full = realpath(wanted, NULL);
        if (full == NULL)
            return status_fail(st, status_code_of_errno(errno),
                               "model folder %s: %m; name another with --model DIR", wanted);
        if (!text_copy(plan->model, sizeof plan->model, full)) {
            free(full);
            return status_fail(st, STATUS_INVALID, "the path of the model folder is too long");
        }
        free(full);
    }
    snprintf(config, sizeof config, "%s/config.json", plan->model);
    if (access(config, R_OK) != 0)
        return status_fail(
            st, STATUS_NOT_FOUND,
            "%s holds no config.json that can be read; --model wants a Hugging Face checkpoint folder",
            plan->model);
    return true;
}

/* Numbers that the options would take, too. */
static const struct {
    const char *name;
    double min, max;
} numbers[] = { { "n_local", 1, 1 << 20 },
                { "top_r", 1, LIMIT_TOP_R },
                { "recent_window", 0, LIMIT_RECENT_WINDOW },
                { "sample_fps", MEDIA_SAMPLE_FPS_MIN, MEDIA_SAMPLE_FPS_MAX } };

static bool is_advice(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (strcmp(name, numbers[i].name) == 0)
            return true;
    return strcmp(name, "dtype") == 0;
}

/* What is not there is not advised. */
static bool advice_is_good(const struct json *advice, struct status *st)
{
    const struct json *dtype = json_get(advice, "dtype");
    enum tensor_dtype known;

    if (!json_is_object(advice))
        return status_fail(st, STATUS_INVALID, "must be an object, such as {\"n_local\": 256}");
    for (void *at = json_first(advice); at != NULL; at = json_next(advice, at))
        if (!is_advice(json_key(at)))
            return status_fail(
                st, STATUS_INVALID,
                "knows no '%.64s'; dtype, n_local, top_r, recent_window and sample_fps may be advised",
                json_key(at));
    if (dtype != NULL && json_str(dtype) == NULL)
        return status_fail(st, STATUS_INVALID, "dtype must be \"bf16\" or \"f32\"");
    if (dtype != NULL && !model_dtype_read(&known, json_str(dtype), st))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        const struct json *value = json_get(advice, numbers[i].name);

        if (value != NULL && (!json_is_number(value) || json_number(value) < numbers[i].min ||
                              json_number(value) > numbers[i].max))
            return status_fail(st, STATUS_INVALID, "%s must be %g to %.7g", numbers[i].name, numbers[i].min,
                               numbers[i].max);
    }
    return true;
}

/* What the model's folder advises; a model without advice runs with the services' defaults. */
static bool take_advice(struct cluster_plan *plan, struct status *st)
{
    char path[CLUSTER_PATH_BYTES + 16];
    struct json *advice;
    const char *dtype;
    bool ok;

    snprintf(path, sizeof path, "%s/reelkv.json", plan->model);
    if (access(path, F_OK) != 0)
        return true;
    advice = json_parse_file(path, ADVICE_BYTES_MAX, st);
    if (advice == NULL)
        return false;
    ok = advice_is_good(advice, st);
    dtype = json_str(json_get(advice, "dtype"));
    if (ok && plan->dtype[0] == '\0' && dtype != NULL)
        text_copy(plan->dtype, sizeof plan->dtype, dtype);
    if (ok && plan->n_local == 0)
        plan->n_local = (uint32_t)json_number(json_get(advice, "n_local"));
    if (ok && plan->top_r == 0)
        plan->top_r = (uint32_t)json_number(json_get(advice, "top_r"));
    if (ok && plan->recent_window == UINT32_MAX && json_get(advice, "recent_window") != NULL)
        plan->recent_window = (uint32_t)json_number(json_get(advice, "recent_window"));
    if (ok && json_get(advice, "sample_fps") != NULL)
        plan->sample_fps = json_number(json_get(advice, "sample_fps"));
    json_free(advice);
    return ok || status_wrap(st, "%s", path);
}

/* A store that takes more than is free would have the kernel kill for it, whoever that is; it refuses, and this does so
 * before anything is started. */
static bool check_memory(const struct up_request *request, const struct cluster_plan *plan, uint64_t memory,
                         struct status *st)
{
    uint64_t least = RAM_BYTES_MIN * plan->counts[CLUSTER_KVSTORE], available = memory_available();

    if (plan->ram_bytes < least)
        return status_fail(st, STATUS_EXHAUSTED,
                           "a memory budget of %s is too small, the least is %s (%s for each kvstore); %s",
                           cli_bytes(plan->ram_bytes), cli_bytes(least), cli_bytes(RAM_BYTES_MIN),
                           request->ram_bytes > 0 ? "give more with --ram"
                                                  : "free some memory or name a budget with --ram");
    if (plan->ram_bytes > memory)
        return status_fail(st, STATUS_EXHAUSTED,
                           "a memory budget of %s does not fit: there are %s; give less with --ram",
                           cli_bytes(plan->ram_bytes), cli_bytes(memory));
    return available == 0 || plan->ram_bytes <= available ||
           status_fail(
               st, STATUS_EXHAUSTED,
               "a memory budget of %s does not fit now: %s are free; free some memory or give less with --ram",
               cli_bytes(plan->ram_bytes), cli_bytes(available));
}

/* A quarter of the memory; half of what the disk has for us. */
static bool set_budgets(const struct up_request *request, struct cluster_plan *plan, struct status *st)
{
    uint64_t disk_free, disk_used, memory = memory_limit();
    uint32_t stores = plan->counts[CLUSTER_KVSTORE];
    char store[CLUSTER_PATH_BYTES], folder[CLUSTER_PATH_BYTES];

    if (!cluster_path(request->data, "store", store, st))
        return false;
    machine_nearest_folder(request->data, folder, sizeof folder);
    disk_free = machine_disk_free(folder);
    disk_used = machine_disk_used(store);
    plan->ram_bytes = request->ram_bytes > 0 ? request->ram_bytes : memory / 4;
    plan->disk_bytes = request->disk_bytes > 0 ? request->disk_bytes : (disk_free + disk_used) / 2;
    if (request->ram_bytes == 0 && plan->ram_bytes > memory_available() / 2)
        plan->ram_bytes = memory_available() / 2;
    if (!check_memory(request, plan, memory, st))
        return false;
    if (plan->disk_bytes < DISK_BYTES_MIN * stores)
        return status_fail(st, STATUS_EXHAUSTED,
                           "a disk budget of %s is too small, the least is %s (%s for each kvstore); %s",
                           cli_bytes(plan->disk_bytes), cli_bytes(DISK_BYTES_MIN * stores),
                           cli_bytes(DISK_BYTES_MIN),
                           request->disk_bytes > 0 ? "give more with --disk"
                                                   : "free some of the disk, name a budget with --disk, "
                                                     "or use another disk with --data");
    if (plan->disk_bytes > disk_free + disk_used)
        return status_fail(
            st, STATUS_EXHAUSTED,
            "a disk budget of %s does not fit: %s has %s free; free some, give less with --disk, or "
            "use another with --data",
            cli_bytes(plan->disk_bytes), request->data, cli_bytes(disk_free));
    return true;
}

static bool set_counts(const struct up_request *request, uint32_t remembered, struct cluster_plan *plan,
                       struct status *st)
{
    memcpy(plan->counts, request->counts, sizeof plan->counts);
    plan->counts[CLUSTER_REDIS] = 1;
    if (plan->counts[CLUSTER_KVSTORE] == 0)
        plan->counts[CLUSTER_KVSTORE] = remembered > 0 ? remembered : 1;
    if (plan->counts[CLUSTER_KVSTORE] < remembered)
        return status_fail(
            st, STATUS_INVALID,
            "%s has the cameras of %u kvstores, with %u some would be missing; leave --kvstores away",
            request->data, remembered, plan->counts[CLUSTER_KVSTORE]);
    return true;
}

/* What the stores think of the text they say themselves. */
static bool set_ageing(const char *wanted, const char *remembered, struct cluster_plan *plan,
                       struct status *st)
{
    if (wanted[0] == '\0')
        wanted = remembered;
    else if (strcmp(wanted, "none") == 0)
        wanted = "";
    return text_copy(plan->ageing, sizeof plan->ageing, wanted) ||
           status_fail(st, STATUS_INVALID, "--ageing is longer than %d bytes", CLUSTER_AGEING_BYTES - 1);
}

bool up_plan_resolve(const struct up_request *request, const struct cluster_plan *last,
                     struct cluster_plan *plan, struct status *st)
{
    enum tensor_dtype dtype;

    memset(plan, 0, sizeof *plan);
    if (!find_programs(plan, st) || !find_model(request, last->model, plan, st))
        return false;
    text_copy(plan->dtype, sizeof plan->dtype, request->dtype);
    plan->n_local = request->n_local;
    if (strcmp(plan->model, last->model) == 0) {
        if (plan->dtype[0] == '\0')
            text_copy(plan->dtype, sizeof plan->dtype, last->dtype);
        if (plan->n_local == 0)
            plan->n_local = last->n_local;
    }
    plan->top_r = request->top_r;
    plan->recent_window = request->recent_window;
    plan->threads = request->threads;
    plan->sample_fps = SAMPLE_FPS_DEFAULT;
    if (!take_advice(plan, st))
        return false;
    if (plan->dtype[0] == '\0')
        text_copy(plan->dtype, sizeof plan->dtype, "bf16");
    return model_dtype_read(&dtype, plan->dtype, st) && set_ageing(request->ageing, last->ageing, plan, st) &&
           set_counts(request, last->counts[CLUSTER_KVSTORE], plan, st) && set_budgets(request, plan, st);
}

bool up_plan_make_run(const char *data, struct cluster_plan *plan, struct status *st)
{
    int len = snprintf(plan->run, sizeof plan->run, "%s/run", data);

    if (len > 0 && len + CLUSTER_SOCKET_NAME_BYTES <= LIMIT_SOCKET_PATH_BYTES)
        return file_remove_tree(plan->run, st) && file_make_folders(plan->run, st);
    snprintf(plan->run, sizeof plan->run, RUN_IN_TMP "XXXXXX");
    if (mkdtemp(plan->run) == NULL)
        return status_fail(st, status_code_of_errno(errno), "make a folder for sockets in /tmp: %m");
    return true;
}

void up_plan_remove_run(const char *data, const struct cluster_plan *plan)
{
    char inside[CLUSTER_PATH_BYTES];
    size_t len = strlen(RUN_IN_TMP);

    if (!cluster_path(data, "run", inside, NULL))
        return;
    file_remove_tree(inside, NULL);
    if (strncmp(plan->run, RUN_IN_TMP, len) == 0 && plan->run[len] != '\0' &&
        strchr(plan->run + len, '/') == NULL)
        file_remove_tree(plan->run, NULL);
}
