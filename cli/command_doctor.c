/* doctor: looks at everything a cluster needs, and says what to do about what is not well. */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_cluster.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "grpc/health/v1/health.pb-c.h"
#include "kv/checked_json.h"
#include "kv/kv_format.h"
#include "machine.h"
#include "model_facts.h"
#include "up_plan.h"

enum { CHECKS_MAX = 64, TEXT_BYTES = 400, CLOCK_OFF_MS = 2000, DEFINITION_BYTES_MAX = 1 << 20 };

#define MEMORY_BYTES_LOW (2ull << 30)
#define DISK_BYTES_LOW   (2ull << 30)

#define DOCTOR_OPTIONS(OPT)  \
    CLI_CLUSTER_OPTIONS(OPT) \
    OPT(model, STR, "", "0", "3800", "checkpoint folder to look at; '': the cluster's")

struct doctor_options {
    DOCTOR_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(doctor_options, __VA_ARGS__),
    DOCTOR_OPTIONS(ROW)
#undef ROW
};

enum verdict { FINE, WARN, FAIL };
static const char *const verdict_words[] = { "ok", "warn", "fail" };

struct check {
    enum verdict verdict;
    char what[TEXT_BYTES];
    char found[TEXT_BYTES];
    char advice[TEXT_BYTES]; /* "": nothing to do */
};

struct doctor {
    const struct doctor_options *options;
    char data[CLUSTER_PATH_BYTES];
    char bin[CLUSTER_PATH_BYTES];
    struct cluster_file *file; /* zeroed without a cluster */
    struct check checks[CHECKS_MAX];
    size_t count;
};

/* "found" and, behind '|', what to do about it. */
static void note(struct doctor *doctor, enum verdict verdict, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void note(struct doctor *doctor, enum verdict verdict, const char *what, const char *format, ...)
{
    struct check *check = &doctor->checks[doctor->count];
    char text[2 * TEXT_BYTES], *bar;
    va_list args;

    if (doctor->count == CHECKS_MAX)
        return;
    doctor->count++;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bar = strchr(text, '|');
    if (bar != NULL)
        *bar = '\0';
    check->verdict = verdict;
    snprintf(check->what, sizeof check->what, "%s", what);
    snprintf(check->found, sizeof check->found, "%.*s", TEXT_BYTES - 1, text);
    snprintf(check->advice, sizeof check->advice, "%.*s", TEXT_BYTES - 1, bar != NULL ? bar + 1 : "");
}

/* ---------------------------------------------------------------------------------------- the machine */

static bool check_programs(struct doctor *doctor)
{
    static const char *const names[] = { "reelkv-kvstore", "reelkv-analyzer", "reelkv-encoder",
                                         "reelkv-capture", "reelkv-qa" };
    char path[CLUSTER_PATH_BYTES + 64], missing[TEXT_BYTES / 2] = "";
    struct status st;

    if (!up_plan_own_path(doctor->bin, &st)) {
        note(doctor, FAIL, "programs", "%s", st.text);
        return false;
    }
    *strrchr(doctor->bin, '/') = '\0';
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!machine_find_program(doctor->bin, names[i], path, sizeof path))
            snprintf(missing + strlen(missing), sizeof missing - strlen(missing), " %s", names[i]);
    if (missing[0] == '\0')
        note(doctor, FINE, "programs", "all in %s", doctor->bin);
    else
        note(doctor, FAIL, "programs", "missing in %.150s:%s|build (`make build`) or install all of ReelKV",
             doctor->bin, missing);
    return missing[0] == '\0';
}

static void check_redis_server(struct doctor *doctor)
{
    char path[CLUSTER_PATH_BYTES], line[256] = "";
    unsigned major = 0, minor = 0;
    const char *version;
    FILE *pipe;

    if (!machine_find_program(NULL, "redis-server", path, sizeof path)) {
        note(doctor, FAIL, "redis-server", "not in PATH|`apt install redis-server`");
        return;
    }
    pipe = popen("redis-server --version", "re");
    if (pipe != NULL) {
        if (fgets(line, sizeof line, pipe) == NULL)
            line[0] = '\0';
        pclose(pipe);
    }
    version = strstr(line, "v=");
    if (version == NULL || sscanf(version, "v=%u.%u", &major, &minor) != 2)
        note(doctor, WARN, "redis-server", "%s does not tell its version|try `redis-server --version`", path);
    else if (major < 6)
        note(doctor, FAIL, "redis-server", "version %u.%u|ReelKV needs 6.0 or newer", major, minor);
    else
        note(doctor, FINE, "redis-server", "version %u.%u, %s", major, minor, path);
}

static void check_machine(struct doctor *doctor)
{
    uint64_t limit = memory_limit(), available = memory_available();
    bool is_portable = strcmp(machine_instructions(), "portable") == 0;
    char folder[CLUSTER_PATH_BYTES];
    uint64_t disk_free;

    machine_nearest_folder(doctor->data, folder, sizeof folder);
    disk_free = machine_disk_free(folder);
    note(doctor, is_portable ? WARN : FINE, "processor", "%ld CPUs, %s%s", sysconf(_SC_NPROCESSORS_ONLN),
         machine_instructions(), is_portable ? "|it works, but slowly: AVX2 or better is wanted" : "");
    note(doctor, available < MEMORY_BYTES_LOW ? WARN : FINE, "memory", "%s of %s free%s",
         cli_bytes(available), cli_bytes(limit),
         available < MEMORY_BYTES_LOW ? "|free some, or name a small budget with `up --ram`" : "");
    note(doctor, disk_free < DISK_BYTES_LOW ? WARN : FINE, "disk", "%s free for %s%s", cli_bytes(disk_free),
         doctor->data, disk_free < DISK_BYTES_LOW ? "|free some, or use another disk with --data" : "");
}

static void check_folder(struct doctor *doctor)
{
    char folder[CLUSTER_PATH_BYTES];

    machine_nearest_folder(doctor->data, folder, sizeof folder);
    if (access(folder, R_OK | W_OK | X_OK) != 0)
        note(doctor, FAIL, "data folder", "%s cannot be written|change its owner, or use another with --data",
             folder);
    else if (strcmp(folder, doctor->data) != 0)
        note(doctor, FINE, "data folder", "%s: made by `%s`", doctor->data, cli_hint("up"));
    else if (machine_has_direct_io(doctor->data))
        note(doctor, FINE, "data folder", "%s, with direct I/O", doctor->data);
    else
        note(doctor, WARN, "data folder",
             "%s has no direct I/O|it works through the page cache; ext4 or xfs keep memory for KV",
             doctor->data);
}

static void note_model(struct doctor *doctor, const char *folder, const struct model_facts *facts)
{
    if (facts->vision_frames_per_s > 0 && facts->language_frames_per_s > 0)
        note(doctor, FINE, "model", "%s: %s, %u layers, %s + %s frames/s (vision, language)", folder,
             facts->family, facts->layers, cli_rate(facts->vision_frames_per_s),
             cli_rate(facts->language_frames_per_s));
    else
        note(doctor, FINE, "model", "%s: %s, %u layers, speed " MODEL_NOT_MEASURED, folder, facts->family,
             facts->layers);
}

static void check_model(struct doctor *doctor)
{
    struct up_request request = { .data = doctor->data,
                                  .model = doctor->options->model,
                                  .dtype = "",
                                  .ageing = "",
                                  .recent_window = UINT32_MAX,
                                  .counts = {
                                      [CLUSTER_ANALYZER] = 1, [CLUSTER_ENCODER] = 1, [CLUSTER_QA] = 1 } };
    struct cluster_plan *plan = calloc(1, sizeof *plan), *last = calloc(1, sizeof *last);
    struct model_facts facts;
    struct status st = { 0 };

    REQUIRE(plan != NULL && last != NULL);
    if (!cluster_settings_read(doctor->data, last, &st) || !up_plan_resolve(&request, last, plan, &st))
        note(doctor, FAIL, "next up", "%s", st.text);
    else if (model_facts_read(plan, &facts, &st))
        note_model(doctor, plan->model, &facts);
    else
        note(doctor, FAIL, "model", "%s|name another checkpoint folder with --model", st.text);
    free(last);
    free(plan);
}

/* ----------------------------------------------------------------------------------------- the stores */

/* Where stores keep what they know of a camera: <data>/store/KVSTORE/v1/NAMESPACE/CAMERA/stream.json. */
enum { DEPTH_CAMERA = 4 };

/* A folder of an epoch: a camera whose definition is missing was one. */
static bool has_blocks(const char *folder)
{
    struct file_names names;
    bool has = false;
    uint64_t epoch;

    if (file_list_on(&file_system, folder, &names, NULL))
        for (uint32_t i = 0; i < names.count; i++)
            has |= kv_epoch_name_get(&epoch, names.list[i]);
    file_names_free(&names);
    return has;
}

static void check_definition(struct doctor *doctor, const char *folder)
{
    static const struct {
        const char *name, *first_of_old;
    } files[] = { { "stream.json", "namespace" },
                  { "history.json", "next_seq" },
                  { "holds.json", "next" },
                  { "forget.json", "next" } };
    char path[CLUSTER_PATH_BYTES + 16];
    struct json *value;
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        value = checked_json_read(&file_system, path, DEFINITION_BYTES_MAX, files[i].first_of_old, &st);
        if (value == NULL && (st.code != STATUS_NOT_FOUND || (i == 0 && has_blocks(folder))))
            note(doctor, FAIL, "store", "%s|move the folder it is in, this camera's, out of the data folder",
                 st.text);
        json_free(value);
    }
}

static void check_definitions(struct doctor *doctor, const char *folder, int depth)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[CLUSTER_PATH_BYTES];

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (!name_check("name", entry->d_name, NULL) ||
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path)
            continue;
        if (depth + 1 == DEPTH_CAMERA)
            check_definition(doctor, path);
        else
            check_definitions(doctor, path, depth + 1);
    }
    if (dir != NULL)
        closedir(dir);
}

static void check_stores(struct doctor *doctor)
{
    char folder[CLUSTER_PATH_BYTES];

    if (cluster_path(doctor->data, "store", folder, NULL))
        check_definitions(doctor, folder, 0);
}

/* ---------------------------------------------------------------------------------------- the cluster */

static void check_supervisor(struct doctor *doctor)
{
    struct status st = { 0 };

    if (!cluster_file_read(doctor->data, doctor->file, &st)) {
        if (st.code == STATUS_NOT_FOUND)
            note(doctor, WARN, "cluster", "none in %s|start one with `reelkv up --data %s`", doctor->data,
                 cli_quote(doctor->data));
        else
            note(doctor, FAIL, "cluster", "%s", st.text);
        return;
    }
    if (!process_is_alive(&doctor->file->supervisor)) {
        note(doctor, FAIL, "cluster",
             "its supervisor is gone|`reelkv up --data %s` starts everything again, with the cameras",
             cli_quote(doctor->data));
        return;
    }
    note(doctor, doctor->file->stopping ? WARN : FINE, "cluster", "supervisor is process %d%s",
         doctor->file->supervisor.pid, doctor->file->stopping ? ", stopping" : "");
    for (uint32_t i = 0; i < doctor->file->process_count; i++) {
        const struct cluster_process *process = &doctor->file->processes[i];

        if (process->state == PROCESS_READY && process->restarts > 0)
            note(doctor, WARN, process->name, "ready; restarts so far: %u|see `%s`", process->restarts,
                 cli_hint("logs %s", process->name));
        else if (process->state != PROCESS_READY)
            note(doctor, FAIL, process->name, "%s, %s|see `%s`", process_state_names[process->state],
                 process->trouble[0] != '\0' ? process->trouble : "not ready yet",
                 cli_hint("logs %s", process->name));
    }
}

static bool is_serving(struct cluster *cluster, const struct worker_record *worker, struct status *st)
{
    static const struct rpc_method check_method = {
        .path = "/grpc.health.v1.Health/Check",
        .shape = RPC_UNARY,
        .request = &grpc__health__v1__health_check_request__descriptor,
        .reply = &grpc__health__v1__health_check_response__descriptor
    };
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct rpc_sync_stream *call;
    const ProtobufCMessage *reply;
    bool ok = cluster_call(cluster, worker, &check_method, &request.base, &call, &reply, st);

    if (ok && ((const Grpc__Health__V1__HealthCheckResponse *)reply)->status !=
                  GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING)
        ok = status_fail(st, STATUS_UNAVAILABLE, "it says that it is not serving");
    rpc_sync_stream_destroy(call);
    return ok;
}

static void check_worker(struct doctor *doctor, struct cluster *cluster, const struct worker_record *worker)
{
    int64_t ahead_ms = worker->seen_ms - clock_utc_ns() / 1000000;
    struct status st = { 0 };

    if (!is_serving(cluster, worker, &st))
        note(doctor, FAIL, worker->name, "%s at %s: %s|see `%s`", worker_kind_names[worker->kind],
             worker->address, st.text, cli_hint("logs %s", worker->name));
    else if (ahead_ms > CLOCK_OFF_MS)
        note(doctor, WARN, worker->name,
             "its clock is %lld ms ahead of ours|synchronise the machines' clocks (NTP)",
             (long long)ahead_ms);
    else
        note(doctor, FINE, worker->name, "%s healthy at %s", worker_kind_names[worker->kind],
             worker->address);
}

static void check_camera(struct doctor *doctor, const struct cluster *cluster, const struct camera *camera)
{
    if (camera->damaged_frames > 0)
        note(
            doctor, WARN, camera->name,
            "%llu of %llu frames stored are damaged on disk and cannot be read|`%s` names the files; the rest is "
            "served",
            (unsigned long long)camera->damaged_frames, (unsigned long long)camera->stored_frames,
            cli_hint("logs %s", camera->store));
    if (camera->trouble[0] != '\0')
        note(doctor, WARN, camera->name, "%s: %s|see `%s`", camera_state_words(camera), camera->trouble,
             cli_hint("cam show %s", camera->name));
    if (camera_has_other_settings(cluster, camera))
        note(
            doctor, WARN, camera->name,
            "stored with another model, dtype or window than the cluster runs with|`%s` says how to go back to it",
            cli_hint("cam show %s", camera->name));
}

/* What stores know of them. A store that does not answer was told of as a worker. */
static void check_cameras(struct doctor *doctor, struct cluster *cluster)
{
    struct camera_list list;

    camera_list_read(cluster, NULL, &list, NULL);
    for (size_t i = 0; i < list.count; i++)
        check_camera(doctor, cluster, &list.cameras[i]);
    camera_list_deinit(&list);
}

static void check_directory(struct doctor *doctor)
{
    const struct doctor_options *options = doctor->options;
    uint32_t counts[WORKER_KINDS] = { 0 };
    struct cluster *cluster = NULL;
    const struct directory_view *view;
    struct status st = { 0 };

    if (options->redis[0] == '\0' && doctor->file->process_count == 0)
        return; /* said already: there is no cluster */
    if (!cluster_open_for(&cluster, CLUSTER_NEEDS_NOBODY, options->data, options->redis, &st)) {
        note(doctor, FAIL, "directory", "%s|see `%s`", st.text, cli_hint("logs redis"));
        return;
    }
    view = cluster_view(cluster);
    note(doctor, FINE, "directory", "%u workers and %u camera%s in %s", view->worker_count,
         view->stream_count, view->stream_count == 1 ? "" : "s", cluster_redis(cluster));
    for (uint32_t i = 0; i < view->worker_count; i++) {
        counts[view->workers[i].kind]++;
        check_worker(doctor, cluster, &view->workers[i]);
    }
    for (int kind = 0; kind < WORKER_KINDS; kind++)
        if (counts[kind] == 0)
            note(doctor, FAIL, worker_kind_names[kind], "none has announced itself|see `%s`",
                 cli_hint("logs"));
    check_cameras(doctor, cluster);
    cluster_close(cluster);
}

/* ------------------------------------------------------------------------------------------ the report */

static enum verdict worst(const struct doctor *doctor)
{
    enum verdict verdict = FINE;

    for (size_t i = 0; i < doctor->count; i++)
        verdict = doctor->checks[i].verdict > verdict ? doctor->checks[i].verdict : verdict;
    return verdict;
}

static void print_report(const struct doctor *doctor)
{
    for (size_t i = 0; i < doctor->count; i++) {
        const struct check *check = &doctor->checks[i];

        printf("%-5s %-13s %s\n", verdict_words[check->verdict], check->what, check->found);
        if (check->advice[0] != '\0')
            printf("%19s -> %s\n", "", check->advice);
    }
}

static void print_report_json(const struct doctor *doctor)
{
    struct json *value = json_make_object(), *list = json_make_array();

    for (size_t i = 0; i < doctor->count; i++) {
        const struct check *check = &doctor->checks[i];
        struct json *row = json_make_object();

        json_set_str(row, "what", check->what);
        json_set_str(row, "verdict", verdict_words[check->verdict]);
        json_set_str(row, "found", check->found);
        json_set_str(row, "advice", check->advice[0] != '\0' ? check->advice : NULL);
        json_append(list, row);
    }
    json_set_str(value, "verdict", verdict_words[worst(doctor)]);
    json_set(value, "checks", list);
    cli_print_json(value);
}

static enum cli_exit run_doctor(const struct cli_run *run)
{
    struct doctor *doctor = calloc(1, sizeof *doctor);
    struct cluster_file *file = calloc(1, sizeof *file);
    enum cli_exit code = CLI_OK;
    struct status st = { 0 };
    bool programs;

    REQUIRE(doctor != NULL && file != NULL);
    doctor->options = run->options;
    doctor->file = file;
    if (!cluster_data_folder(doctor->options->data, doctor->data, &st)) {
        code = cli_fail(&st, run->json);
    } else {
        programs = check_programs(doctor);
        check_redis_server(doctor);
        check_machine(doctor);
        check_folder(doctor);
        if (programs)
            check_model(doctor);
        if (doctor->options->redis[0] == '\0') {
            check_stores(doctor);
            check_supervisor(doctor);
        }
        check_directory(doctor);
        if (run->json)
            print_report_json(doctor);
        else
            print_report(doctor);
        code = worst(doctor) == FAIL ? CLI_FAILED : CLI_OK;
    }
    free(file);
    free(doctor);
    return code;
}

const struct cli_command cli_doctor = {
    .path = "doctor",
    .group = "The cluster on this machine",
    .table = { .program = "reelkv doctor",
               .summary = "look at everything a cluster needs, and say what to do",
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct doctor_options),
    .run = run_doctor,
};
