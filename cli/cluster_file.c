#include "cluster_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/name.h"
#include "base/require.h"
#include "cli_output.h"

enum { FILE_BYTES_MAX = 256 << 10, BOOT_ID_BYTES = 40, FORMAT_VERSION = 1 };

const char *const cluster_kind_names[CLUSTER_KINDS] = { "redis", "kvstore", "analyzer", "encoder", "qa" };
const char *const process_state_names[PROCESS_STATES] = { "starting", "ready", "down", "stopped" };

/* ---------------------------------------------------------------------------------------- processes */

bool process_identify(int pid, struct process_id *id)
{
    char path[64], text[1024];
    unsigned long long ticks;
    const char *rest;
    ssize_t len;
    char state;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    len = read(fd, text, sizeof text - 1);
    close(fd);
    if (len <= 0)
        return false;
    text[len] = '\0';
    rest = strrchr(text, ')'); /* the program's name may hold anything; fields are counted behind it */
    if (rest == NULL ||
        sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &state, &ticks) != 2 ||
        state == 'Z' || state == 'X')
        return false;
    *id = (struct process_id){ .pid = pid, .start_ticks = ticks };
    return true;
}

bool process_is_alive(const struct process_id *id)
{
    struct process_id now;

    return process_identify(id->pid, &now) && now.start_ticks == id->start_ticks;
}

bool process_signal(const struct process_id *id, int number)
{
    return process_is_alive(id) && kill(id->pid, number) == 0;
}

static void read_boot_id(char out[BOOT_ID_BYTES])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    out[0] = '\0';
    if (file == NULL)
        return;
    if (fgets(out, BOOT_ID_BYTES, file) != NULL)
        out[strcspn(out, "\n")] = '\0';
    fclose(file);
}

static void set_process_id(struct json *object, const struct process_id *id)
{
    json_set_u64(object, "pid", (uint64_t)id->pid);
    json_set_u64(object, "start_ticks", id->start_ticks);
}

static bool get_process_id(const struct json *object, bool same_boot, struct process_id *id,
                           struct status *st)
{
    uint32_t pid;

    if (!json_read_u32(object, "pid", &pid, st) ||
        !json_read_u64(object, "start_ticks", &id->start_ticks, st))
        return false;
    id->pid = same_boot ? (int)pid : 0; /* numbers of before a reboot name nobody */
    return true;
}

/* --------------------------------------------------------------------------------------------- plan */

bool cluster_path(const char *data, const char *name, char out[CLUSTER_PATH_BYTES], struct status *st)
{
    int len = snprintf(out, CLUSTER_PATH_BYTES, "%s/%s", data, name);

    if (len < 0 || len >= CLUSTER_PATH_BYTES)
        return status_fail(st, STATUS_INVALID, "the data folder's path is too long: %.80s...", data);
    return true;
}

void cluster_address(const struct cluster_plan *plan, const char *process, char out[CLUSTER_ADDRESS_BYTES])
{
    int len = snprintf(out, CLUSTER_ADDRESS_BYTES, "unix:%s/%s.sock", plan->run, process);

    REQUIRE(len > 0 && len < CLUSTER_ADDRESS_BYTES);
}

static struct json *plan_to_json(const struct cluster_plan *plan)
{
    struct json *object = json_make_object(), *counts = json_make_object();

    json_set_str(object, "bin", plan->bin);
    json_set_str(object, "run", plan->run);
    json_set_str(object, "model", plan->model);
    json_set_str(object, "dtype", plan->dtype);
    json_set_u64(object, "n_local", plan->n_local);
    json_set_u64(object, "top_r", plan->top_r);
    json_set_u64(object, "recent_window", plan->recent_window);
    json_set_u64(object, "threads", plan->threads);
    json_set_f64(object, "sample_fps", plan->sample_fps);
    json_set_str(object, "ageing", plan->ageing);
    json_set_str(object, "fingerprint", plan->fingerprint);
    json_set_u64(object, "ram_bytes", plan->ram_bytes);
    json_set_u64(object, "disk_bytes", plan->disk_bytes);
    for (int kind = 0; kind < CLUSTER_KINDS; kind++)
        json_set_u64(counts, cluster_kind_names[kind], plan->counts[kind]);
    json_set(object, "counts", counts);
    return object;
}

static bool read_text(const struct json *object, const char *key, char *out, size_t out_bytes,
                      struct status *st)
{
    const char *text;

    if (!json_read_str(object, key, &text, st))
        return false;
    return text_copy(out, out_bytes, text) || status_fail(st, STATUS_INVALID, "%s is too long", key);
}

/* A folder of an earlier version has none. */
static bool read_ageing(const struct json *object, struct cluster_plan *plan, struct status *st)
{
    return json_get(object, "ageing") == NULL ||
           read_text(object, "ageing", plan->ageing, sizeof plan->ageing, st);
}

static bool plan_from_json(const struct json *object, struct cluster_plan *plan, struct status *st)
{
    const struct json *counts = json_get(object, "counts");

    if (!read_text(object, "bin", plan->bin, sizeof plan->bin, st) ||
        !read_text(object, "run", plan->run, sizeof plan->run, st) ||
        !read_text(object, "model", plan->model, sizeof plan->model, st) ||
        !read_text(object, "dtype", plan->dtype, sizeof plan->dtype, st) ||
        !json_read_u32(object, "n_local", &plan->n_local, st) ||
        !json_read_u32(object, "top_r", &plan->top_r, st) ||
        !json_read_u32(object, "recent_window", &plan->recent_window, st) ||
        !json_read_u32(object, "threads", &plan->threads, st) ||
        !json_read_f64(object, "sample_fps", &plan->sample_fps, st) || !read_ageing(object, plan, st) ||
        !read_text(object, "fingerprint", plan->fingerprint, sizeof plan->fingerprint, st) ||
        !json_read_u64(object, "ram_bytes", &plan->ram_bytes, st) ||
        !json_read_u64(object, "disk_bytes", &plan->disk_bytes, st))
        return false;
    for (int kind = 0; kind < CLUSTER_KINDS; kind++) {
        if (!json_read_u32(counts, cluster_kind_names[kind], &plan->counts[kind], st))
            return false;
        if (plan->counts[kind] > CLUSTER_PER_KIND_MAX)
            return status_fail(st, STATUS_INVALID, "%u processes of a kind", plan->counts[kind]);
    }
    return true;
}

/* ------------------------------------------------------------------------------------- cluster.json */

static struct json *process_to_json(const struct cluster_process *process)
{
    struct json *object = json_make_object();

    json_set_str(object, "name", process->name);
    json_set_str(object, "kind", cluster_kind_names[process->kind]);
    json_set_str(object, "state", process_state_names[process->state]);
    set_process_id(object, &process->id);
    json_set_u64(object, "restarts", process->restarts);
    json_set_u64(object, "exit_code", process->exit_code);
    json_set_str(object, "address", process->address);
    json_set_str(object, "trouble", process->trouble);
    return object;
}

static bool name_index(const char *const *names, int count, const char *name, int *index_p)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            *index_p = i;
            return true;
        }
    }
    return false;
}

static bool process_from_json(const struct json *object, bool same_boot, struct cluster_process *process,
                              struct status *st)
{
    const char *kind, *state;
    int index;

    if (!read_text(object, "name", process->name, sizeof process->name, st) ||
        !json_read_str(object, "kind", &kind, st) || !json_read_str(object, "state", &state, st) ||
        !get_process_id(object, same_boot, &process->id, st) ||
        !json_read_u32(object, "restarts", &process->restarts, st) ||
        (json_get(object, "exit_code") != NULL &&
         !json_read_u32(object, "exit_code", &process->exit_code, st)) ||
        !read_text(object, "address", process->address, sizeof process->address, st) ||
        !read_text(object, "trouble", process->trouble, sizeof process->trouble, st))
        return false;
    if (!name_index(cluster_kind_names, CLUSTER_KINDS, kind, &index))
        return status_fail(st, STATUS_INVALID, "unknown kind '%.40s'", kind);
    process->kind = (enum cluster_kind)index;
    if (!name_index(process_state_names, PROCESS_STATES, state, &index))
        return status_fail(st, STATUS_INVALID, "unknown state '%.40s'", state);
    process->state = (enum process_state)index;
    return true;
}

static bool write_json(const char *data, const char *name, struct json *value, struct status *st)
{
    char path[CLUSTER_PATH_BYTES];
    char *text = json_text(value, 2);
    bool ok = cluster_path(data, name, path, st) && file_write_durable(path, text, strlen(text), st);

    free(text);
    json_free(value);
    return ok;
}

bool cluster_file_write(const char *data, const struct cluster_file *file, struct status *st)
{
    struct json *value = json_make_object(), *supervisor = json_make_object(), *processes = json_make_array();
    char boot_id[BOOT_ID_BYTES];

    read_boot_id(boot_id);
    set_process_id(supervisor, &file->supervisor);
    for (uint32_t i = 0; i < file->process_count; i++)
        json_append(processes, process_to_json(&file->processes[i]));
    json_set_u64(value, "version", FORMAT_VERSION);
    json_set_str(value, "boot_id", boot_id);
    json_set_bool(value, "stopping", file->stopping);
    json_set(value, "supervisor", supervisor);
    json_set(value, "plan", plan_to_json(&file->plan));
    json_set(value, "processes", processes);
    return write_json(data, "cluster.json", value, st);
}

static bool file_from_json(const struct json *value, struct cluster_file *file, struct status *st)
{
    const struct json *processes = json_get(value, "processes");
    char boot_id[BOOT_ID_BYTES];
    const char *written_boot_id;
    uint32_t version;
    bool same_boot;

    if (!json_read_u32(value, "version", &version, st) ||
        !json_read_str(value, "boot_id", &written_boot_id, st))
        return false;
    if (version != FORMAT_VERSION)
        return status_fail(st, STATUS_INVALID, "version %u is not known", version);
    if (json_len(processes) > CLUSTER_PROCESSES_MAX)
        return status_fail(st, STATUS_INVALID, "too many processes");
    read_boot_id(boot_id);
    same_boot = strcmp(boot_id, written_boot_id) == 0;
    file->stopping = json_bool(json_get(value, "stopping"));
    file->process_count = (uint32_t)json_len(processes);
    if (!get_process_id(json_get(value, "supervisor"), same_boot, &file->supervisor, st) ||
        !plan_from_json(json_get(value, "plan"), &file->plan, st))
        return false;
    for (uint32_t i = 0; i < file->process_count; i++)
        if (!process_from_json(json_at(processes, i), same_boot, &file->processes[i], st))
            return false;
    return true;
}

/* Contents that do not fit are damage; that a file cannot be opened is not. */
static bool refuse_damaged(struct status *st, const char *path, const char *advice)
{
    struct status inner;

    if (st == NULL || (st->code != STATUS_INVALID && st->code != STATUS_DATA_LOSS))
        return false;
    inner = *st;
    return status_fail(st, STATUS_DATA_LOSS, "%s%s%s; %s", strstr(inner.text, path) == NULL ? path : "",
                       strstr(inner.text, path) == NULL ? ": " : "", inner.text, advice);
}

bool cluster_file_read(const char *data, struct cluster_file *file, struct status *st)
{
    char path[CLUSTER_PATH_BYTES], advice[STATUS_TEXT_BYTES];
    const char *quoted;
    struct json *value;
    bool ok;

    memset(file, 0, sizeof *file);
    if (!cluster_path(data, "cluster.json", path, st))
        return false;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return status_fail(st, STATUS_NOT_FOUND, "no cluster in %s: start one with `reelkv up --data %s`",
                           data, cli_quote(data));
    value = json_parse_file(path, FILE_BYTES_MAX, st);
    ok = value != NULL && file_from_json(value, file, st);
    json_free(value);
    if (ok)
        return true;
    quoted = cli_quote(data);
    snprintf(advice, sizeof advice, "`reelkv down --data %s` and `reelkv up --data %s` write it anew", quoted,
             quoted);
    return refuse_damaged(st, path, advice);
}

void cluster_file_remove(const char *data)
{
    char path[CLUSTER_PATH_BYTES];

    if (cluster_path(data, "cluster.json", path, NULL))
        unlink(path);
}

/* ------------------------------------------------------------------------------------ settings.json */

static void set_settings(struct json *object, const char *model, const char *dtype, uint32_t n_local,
                         const char *fingerprint)
{
    json_set_str(object, "model", model);
    json_set_str(object, "dtype", dtype);
    json_set_u64(object, "n_local", n_local);
    json_set_str(object, "fingerprint", fingerprint);
}

static struct json *read_settings(const char *data)
{
    char path[CLUSTER_PATH_BYTES];

    return cluster_path(data, "settings.json", path, NULL) ? json_parse_file(path, FILE_BYTES_MAX, NULL)
                                                           : NULL;
}

/* What the folder was started with once, the newest first, each fingerprint once; NULL: nothing more. */
static const struct json *settings_at(const struct json *settings, size_t at)
{
    return at == 0 ? settings : json_at(json_get(settings, "earlier"), at - 1);
}

static const char *fingerprint_of(const struct json *row)
{
    const char *text = json_str(json_get(row, "fingerprint"));

    return text != NULL ? text : "";
}

static struct json *make_earlier(const char *data, const char *fingerprint)
{
    struct json *settings = read_settings(data), *earlier = json_make_array();
    const struct json *row;

    for (size_t at = 0;
         (row = settings_at(settings, at)) != NULL && json_len(earlier) < CLUSTER_SETTINGS_EARLIER; at++) {
        const char *model = json_str(json_get(row, "model")), *dtype = json_str(json_get(row, "dtype"));
        struct json *copy;

        if (model == NULL || dtype == NULL || fingerprint_of(row)[0] == '\0' ||
            strcmp(fingerprint_of(row), fingerprint) == 0)
            continue;
        copy = json_make_object();
        set_settings(copy, model, dtype, (uint32_t)json_number(json_get(row, "n_local")),
                     fingerprint_of(row));
        json_append(earlier, copy);
    }
    json_free(settings);
    return earlier;
}

bool cluster_settings_of(const char *data, const char *fingerprint, struct cluster_plan *plan)
{
    struct json *settings = read_settings(data);
    const struct json *row;
    bool found = false;

    memset(plan, 0, sizeof *plan);
    for (size_t at = 0; !found && (row = settings_at(settings, at)) != NULL; at++)
        found = strcmp(fingerprint_of(row), fingerprint) == 0 &&
                read_text(row, "model", plan->model, sizeof plan->model, NULL) &&
                read_text(row, "dtype", plan->dtype, sizeof plan->dtype, NULL) &&
                json_read_u32(row, "n_local", &plan->n_local, NULL);
    json_free(settings);
    return found;
}

bool cluster_settings_write(const char *data, const struct cluster_plan *plan, struct status *st)
{
    struct json *value = json_make_object();

    json_set_u64(value, "version", FORMAT_VERSION);
    set_settings(value, plan->model, plan->dtype, plan->n_local, plan->fingerprint);
    json_set_u64(value, "kvstores", plan->counts[CLUSTER_KVSTORE]);
    json_set_str(value, "ageing", plan->ageing);
    json_set(value, "earlier", make_earlier(data, plan->fingerprint));
    return write_json(data, "settings.json", value, st);
}

bool cluster_settings_read(const char *data, struct cluster_plan *plan, struct status *st)
{
    char path[CLUSTER_PATH_BYTES];
    struct json *value;
    bool ok;

    memset(plan, 0, sizeof *plan);
    if (!cluster_path(data, "settings.json", path, st))
        return false;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return true;
    value = json_parse_file(path, FILE_BYTES_MAX, st);
    ok = value != NULL && read_text(value, "model", plan->model, sizeof plan->model, st) &&
         read_text(value, "dtype", plan->dtype, sizeof plan->dtype, st) &&
         json_read_u32(value, "n_local", &plan->n_local, st) &&
         json_read_u32(value, "kvstores", &plan->counts[CLUSTER_KVSTORE], st) &&
         read_ageing(value, plan, st) &&
         (json_get(value, "fingerprint") == NULL ||
          read_text(value, "fingerprint", plan->fingerprint, sizeof plan->fingerprint, st));
    json_free(value);
    return ok || refuse_damaged(st, path,
                                "remove it, and say once again what it held: --model, --dtype, --n-local, "
                                "--kvstores, --ageing");
}

/* --------------------------------------------------------------------------------------------- lock */

bool cluster_lock(const char *data, int *fd_p, struct status *st)
{
    struct cluster_file *file;
    char path[CLUSTER_PATH_BYTES], who[32] = "";
    int fd;

    if (!cluster_path(data, "lock", path, st))
        return false;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", path);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *fd_p = fd;
        return true;
    }
    if (errno != EWOULDBLOCK)
        status_fail(st, status_code_of_errno(errno), "lock %s: %m", path);
    else {
        file = calloc(1, sizeof *file);
        REQUIRE(file != NULL);
        if (cluster_file_read(data, file, NULL) && file->supervisor.pid != 0)
            snprintf(who, sizeof who, " (process %d)", file->supervisor.pid);
        if (file->stopping)
            status_fail(st, STATUS_EXISTS, "the cluster on %s%s is still stopping; try again in a moment",
                        data, who);
        else
            status_fail(st, STATUS_EXISTS,
                        "a cluster already runs on %s%s; use it, or stop it with `reelkv down --data %s`",
                        data, who, cli_quote(data));
        free(file);
    }
    close(fd);
    return false;
}
