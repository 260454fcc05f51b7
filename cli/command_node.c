/* node ls, mem ls: the workers of a cluster, and the memory they keep. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "reelkv/v1/kvstore.pb-c.h"

/* ------------------------------------------------------------------------------------------- node ls */

struct node_ls_options {
    CLI_CLUSTER_OPTIONS(OPTION_FIELD)
};
static const struct option_row node_rows[] = {
#define ROW(...) OPTION_ROW(node_ls_options, __VA_ARGS__),
    CLI_CLUSTER_OPTIONS(ROW)
#undef ROW
};

static void node_json(const struct directory_view *view)
{
    struct json *value = json_make_object(), *nodes = json_make_array();

    for (uint32_t i = 0; i < view->worker_count; i++) {
        const struct worker_record *worker = &view->workers[i];
        char fingerprint[2 * DIRECTORY_FINGERPRINT_BYTES + 1] = "";
        struct json *node = json_make_object();

        hex_write(worker->fingerprint, DIRECTORY_FINGERPRINT_BYTES, fingerprint);
        json_set_str(node, "kind", worker_kind_names[worker->kind]);
        json_set_str(node, "name", worker->name);
        json_set_str(node, "address", worker->address);
        json_set_str(node, "state", worker->draining ? "draining" : "ready");
        json_set_u64(node, "pid", worker->pid);
        json_set_u64(node, "streams", worker->streams);
        json_set_u64(node, "capacity", worker->capacity);
        json_set_str(node, "fingerprint", worker->has_model ? fingerprint : NULL);
        json_set_str(node, "started", cli_rfc3339(worker->started_ms * 1000000));
        json_set_str(node, "seen", cli_rfc3339(worker->seen_ms * 1000000));
        json_append(nodes, node);
    }
    json_set(value, "nodes", nodes);
    cli_print_json(value);
}

/* A qa counts questions where the others count cameras. */
static void work_cell(struct cli_table *table, const struct worker_record *worker)
{
    const char *what = worker->kind == WORKER_QA ? "questions" : "cameras";

    if (worker->capacity > 0)
        cli_table_cell(table, "%u of %u %s", worker->streams, worker->capacity, what);
    else
        cli_table_cell(table, "%u %s", worker->streams, what);
}

static void node_table(const struct directory_view *view)
{
    static const char *const titles[] = { "NODE",    "KIND",     "STATE",  ">BUSY WITH",
                                          ">UP FOR", ">PROCESS", "ADDRESS" };
    struct cli_table *table;
    int64_t now_ms = clock_utc_ns() / 1000000;

    if (view->worker_count == 0) {
        printf("No worker has announced itself; see `%s` and `%s`.\n", cli_hint("logs"), cli_hint("doctor"));
        return;
    }
    table = cli_table_create(titles, ARRAY_LEN(titles));
    for (uint32_t i = 0; i < view->worker_count; i++) {
        const struct worker_record *worker = &view->workers[i];

        cli_table_cell(table, "%s", worker->name);
        cli_table_cell(table, "%s", worker_kind_names[worker->kind]);
        cli_table_cell(table, "%s", worker->draining ? "draining" : "ready");
        work_cell(table, worker);
        cli_table_cell(table, "%s", cli_span((double)(now_ms - worker->started_ms) / 1000));
        cli_table_cell(table, "%llu", (unsigned long long)worker->pid);
        cli_table_cell(table, "%s", worker->address);
    }
    cli_table_print(table);
}

static enum cli_exit run_node_ls(const struct cli_run *run)
{
    const struct node_ls_options *options = run->options;
    struct cluster *cluster = NULL;
    struct status st = { 0 };

    if (!cluster_open_for(&cluster, CLUSTER_NEEDS_NOBODY, options->data, options->redis, &st))
        return cli_fail(&st, run->json);
    if (run->json)
        node_json(cluster_view(cluster));
    else
        node_table(cluster_view(cluster));
    cluster_close(cluster);
    return CLI_OK;
}

const struct cli_command cli_node_ls = {
    .path = "node ls",
    .group = "What there is",
    .table = { .program = "reelkv node ls",
               .summary = "the workers of the cluster",
               .rows = node_rows,
               .count = ARRAY_LEN(node_rows) },
    .options_bytes = sizeof(struct node_ls_options),
    .run = run_node_ls,
};

/* -------------------------------------------------------------------------------------------- mem ls */

struct mem_ls_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};
static const struct option_row mem_rows[] = {
#define ROW(...) OPTION_ROW(mem_ls_options, __VA_ARGS__),
    CLI_STREAM_OPTIONS(ROW)
#undef ROW
};

/* Not what the cameras' table calls FRAMES and DAMAGED: frames that are there now, and those found since the start. */
static const char *const store_titles[] = { "STORE",          ">MEMORY",  ">OF",      ">SKETCHES",
                                            ">DISK",          ">OF",      ">CAMERAS", ">FRAMES NOW",
                                            ">FOUND DAMAGED", ">GUESSED", "SCRUBBED" };
static const char *const camera_titles[] = { "CAMERA", "STORE", ">FRAMES", ">GONE", ">DAMAGED",
                                             ">GAPS",  ">DISK", "OLDEST",  "NEWEST" };

/* Of what was read before it was asked for, how much was wanted then. */
static void guessed_cell(struct cli_table *table, const Reelkv__V1__ServerInfo *info)
{
    if (info->read_ahead_slices == 0)
        cli_table_cell(table, "-");
    else
        cli_table_cell(table, "%.0f %%",
                       100.0 * (double)info->read_ahead_used / (double)info->read_ahead_slices);
}

/* When all of it was last read again. */
static const char *scrubbed_text(const Reelkv__V1__ServerInfo *info)
{
    if (info->full_scrub_ns != 0)
        return cli_time(info->full_scrub_ns);
    return info->scrub_bytes_per_second == 0 ? "off" : "not yet";
}

static void store_row(const char *name, const Reelkv__V1__ServerInfo *info, struct cli_table *table,
                      struct json *stores)
{
    struct json *row = json_make_object();

    json_set_str(row, "name", name);
    json_set_u64(row, "ram_used_bytes", info->ram_used_bytes);
    json_set_u64(row, "sketch_bytes", info->sketch_bytes);
    json_set_u64(row, "ram_budget_bytes", info->ram_budget_bytes);
    json_set_u64(row, "disk_used_bytes", info->disk_used_bytes);
    json_set_u64(row, "disk_budget_bytes", info->disk_budget_bytes);
    json_set_u64(row, "cameras", info->streams);
    json_set_u64(row, "frames", info->frames);
    json_set_u64(row, "quarantined_frames", info->quarantined_frames);
    json_set_u64(row, "read_ahead_slices", info->read_ahead_slices);
    json_set_u64(row, "read_ahead_used", info->read_ahead_used);
    json_set_u64(row, "scrub_bytes_per_second", info->scrub_bytes_per_second);
    json_set_i64(row, "full_scrub_ns", info->full_scrub_ns);
    json_set_u64(row, "scrubbed_bytes", info->scrubbed_bytes);
    json_append(stores, row);
    cli_table_cell(table, "%s", name);
    cli_table_cell(table, "%s", cli_bytes(info->ram_used_bytes));
    cli_table_cell(table, "%s", cli_bytes(info->ram_budget_bytes));
    cli_table_cell(table, "%s", cli_bytes(info->sketch_bytes));
    cli_table_cell(table, "%s", cli_bytes(info->disk_used_bytes));
    cli_table_cell(table, "%s", cli_bytes(info->disk_budget_bytes));
    cli_table_cell(table, "%u", info->streams);
    cli_table_cell(table, "%llu", (unsigned long long)info->frames);
    cli_table_cell(table, "%llu", (unsigned long long)info->quarantined_frames);
    guessed_cell(table, info);
    cli_table_cell(table, "%s", scrubbed_text(info));
}

/* Stores that do not answer are left out here as camera_list_read() leaves out their cameras. */
static void gather_stores(struct cluster *cluster, struct cli_table *table, struct json *stores)
{
    const struct directory_view *view = cluster_view(cluster);

    for (uint32_t i = 0; i < view->worker_count; i++) {
        Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
        const struct worker_record *worker = &view->workers[i];
        struct rpc_sync_stream *call;
        const ProtobufCMessage *reply;

        if (worker->kind != WORKER_KVSTORE)
            continue;
        if (cluster_call(cluster, worker, &api_get_server_info, &request.base, &call, &reply, NULL))
            store_row(worker->name, (const Reelkv__V1__ServerInfo *)reply, table, stores);
        rpc_sync_stream_destroy(call);
    }
}

static void camera_rows(const struct camera_list *list, struct cli_table *table, struct json *rows)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct camera *camera = &list->cameras[i];

        json_append(rows, camera_to_json(camera));
        cli_table_cell(table, "%s", camera->name);
        cli_table_cell(table, "%s", camera->store);
        cli_table_cell(table, "%llu", (unsigned long long)camera->stored_frames);
        cli_table_cell(table, "%llu", (unsigned long long)camera->evicted_frames);
        cli_table_cell(table, "%llu", (unsigned long long)camera->damaged_frames);
        cli_table_cell(table, "%llu", (unsigned long long)camera->gap_frames);
        cli_table_cell(table, "%s", cli_bytes(camera->disk_bytes));
        cli_table_cell(table, "%s", camera->first_pts_ns != 0 ? cli_time(camera->first_pts_ns) : "-");
        cli_table_cell(table, "%s", camera->last_pts_ns != 0 ? cli_time(camera->last_pts_ns) : "-");
    }
}

static void print_memory(struct cluster *cluster, const struct camera_list *list, bool as_json)
{
    struct cli_table *store_table = cli_table_create(store_titles, ARRAY_LEN(store_titles));
    struct cli_table *camera_table = cli_table_create(camera_titles, ARRAY_LEN(camera_titles));
    struct json *value = json_make_object(), *stores = json_make_array(), *cameras = json_make_array();

    gather_stores(cluster, store_table, stores);
    camera_rows(list, camera_table, cameras);
    json_set(value, "stores", stores);
    json_set(value, "cameras", cameras);
    json_set(value, "silent_stores", camera_list_silent(list));
    if (as_json) {
        cli_print_json(value);
        cli_table_destroy(store_table);
        cli_table_destroy(camera_table);
    } else {
        cli_table_print(store_table);
        printf("\n");
        cli_table_print(camera_table);
        camera_list_print_trouble(list);
        json_free(value);
        camera_list_warn(list, "missing here");
    }
}

static enum cli_exit run_mem_ls(const struct cli_run *run)
{
    const struct mem_ls_options *options = run->options;
    struct camera_list list = { 0 };
    struct cluster *cluster = NULL;
    enum cli_exit code = CLI_OK;
    struct status st = { 0 };

    if (!cluster_open(&cluster, options->data, options->redis, &st) ||
        !camera_list_read(cluster, options->namespace, &list, &st)) {
        code = cli_fail(&st, run->json);
    } else {
        print_memory(cluster, &list, run->json);
        code = list.silent_count > 0 ? CLI_UNAVAILABLE : CLI_OK;
    }
    camera_list_deinit(&list);
    cluster_close(cluster);
    return code;
}

const struct cli_command cli_mem_ls = {
    .path = "mem ls",
    .group = "What there is",
    .table = { .program = "reelkv mem ls",
               .summary = "what is remembered, and how much room there is",
               .rows = mem_rows,
               .count = ARRAY_LEN(mem_rows) },
    .options_bytes = sizeof(struct mem_ls_options),
    .run = run_mem_ls,
};
