#include "cli_cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "cli_hint.h"
#include "cli_output.h"

enum { CONNECTIONS_MAX = 64, LOOK_MS = 50 };

struct connection {
    char address[DIRECTORY_ADDRESS_BYTES];
    struct rpc_sync *sync;
};

/* A process of a cluster that was started here, without which the verb finds nothing. */
struct needed {
    char name[LIMIT_NAME_BYTES + 1];
    enum worker_kind kind;
};

struct cluster {
    char redis[DIRECTORY_ADDRESS_BYTES];
    char data[CLUSTER_PATH_BYTES]; /* "": found by --redis */
    struct needed needed[2 * CLUSTER_PER_KIND_MAX];
    uint32_t needed_count;
    struct directory_view view;
    struct connection connections[CONNECTIONS_MAX];
    uint32_t connection_count;
};

bool cluster_data_folder(const char *option, char out[CLUSTER_PATH_BYTES], struct status *st)
{
    const char *home = getenv("HOME"), *share = getenv("XDG_DATA_HOME");
    char here[CLUSTER_PATH_BYTES] = "";
    int len;

    if (option[0] == '/')
        len = snprintf(out, CLUSTER_PATH_BYTES, "%s", option);
    else if (option[0] != '\0' && getcwd(here, sizeof here) == NULL)
        return status_fail(st, status_code_of_errno(errno), "the current folder cannot be named: %m");
    else if (option[0] != '\0')
        len = snprintf(out, CLUSTER_PATH_BYTES, "%s/%s", here, option);
    else if (share != NULL && share[0] == '/')
        len = snprintf(out, CLUSTER_PATH_BYTES, "%s/reelkv", share);
    else if (home != NULL && home[0] == '/')
        len = snprintf(out, CLUSTER_PATH_BYTES, "%s/.local/share/reelkv", home);
    else
        return status_fail(st, STATUS_INVALID, "HOME is not set; say where the data is with --data DIR");
    if (len >= CLUSTER_PATH_BYTES)
        return status_fail(st, STATUS_INVALID, "the data folder's path is too long");
    if (!utf8_is_valid(out, (size_t)len)) /* it could not be written to cluster.json */
        return status_fail(st, STATUS_INVALID,
                           "the data folder's path is not valid UTF-8; name another with --data DIR");
    while (len > 1 && out[len - 1] == '/')
        out[--len] = '\0';
    return true;
}

static bool is_needed(enum cluster_need need, enum cluster_kind kind)
{
    return (kind == CLUSTER_KVSTORE && need != CLUSTER_NEEDS_NOBODY) ||
           (kind == CLUSTER_QA && need == CLUSTER_NEEDS_STORES_AND_QAS);
}

static void note_needed(struct cluster *cluster, enum cluster_need need, const struct cluster_file *file)
{
    for (uint32_t i = 0; i < file->process_count; i++) {
        const struct cluster_process *process = &file->processes[i];

        if (!is_needed(need, process->kind) || process->state != PROCESS_READY ||
            cluster->needed_count == ARRAY_LEN(cluster->needed))
            continue;
        text_copy(cluster->needed[cluster->needed_count].name, sizeof cluster->needed[0].name, process->name);
        cluster->needed[cluster->needed_count++].kind =
            process->kind == CLUSTER_KVSTORE ? WORKER_KVSTORE : WORKER_QA;
    }
}

static bool read_running(const char *data, struct cluster_file *file, struct status *st)
{
    if (!cluster_file_read(data, file, st))
        return false;
    if (process_is_alive(&file->supervisor) ||
        (file->process_count > 0 && process_is_alive(&file->processes[0].id)))
        return true;
    return status_fail(
        st, STATUS_UNAVAILABLE,
        "the cluster in %s is not running; start it again, with its cameras, by `reelkv up --data %s`", data,
        cli_quote(data));
}

bool cluster_is_stopped(const struct cluster *cluster, struct status *st)
{
    struct cluster_file *file = calloc(1, sizeof *file);
    struct status why = { 0 };
    bool stopped;

    REQUIRE(file != NULL);
    stopped = cluster->data[0] != '\0' && !read_running(cluster->data, file, &why);
    free(file);
    if (stopped)
        *st = why;
    return stopped;
}

static bool find_redis(struct cluster *cluster, enum cluster_need need, const char *data, const char *redis,
                       struct status *st)
{
    struct cluster_file *file;
    bool ok;

    if (redis[0] != '\0')
        return text_copy(cluster->redis, sizeof cluster->redis, redis) ||
               status_fail(st, STATUS_INVALID, "the address '%.40s...' is too long", redis);
    if (!cluster_data_folder(data, cluster->data, st))
        return false;
    file = calloc(1, sizeof *file);
    REQUIRE(file != NULL);
    ok = read_running(cluster->data, file, st);
    if (ok) {
        cluster_address(&file->plan, "redis", cluster->redis);
        note_needed(cluster, need, file);
    }
    free(file);
    return ok;
}

static bool sees_all_needed(const struct cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->needed_count; i++)
        if (directory_view_worker(&cluster->view, cluster->needed[i].kind, cluster->needed[i].name) == NULL)
            return false;
    return true;
}

/* A Redis of ours that has just died is back in a moment, and its workers announce themselves to it: that is waited
 * for. What is missing after that is missing. */
static bool read_directory(struct cluster *cluster, struct status *st)
{
    uint64_t deadline = clock_mono_ns() + CLUSTER_DIRECTORY_MS * 1000000ull;
    bool ok;

    for (;;) {
        ok = cluster_refresh(cluster, st);
        if ((ok && sees_all_needed(cluster)) || cluster->data[0] == '\0' || clock_mono_ns() > deadline)
            return ok;
        usleep(LOOK_MS * 1000);
    }
}

bool cluster_open_for(struct cluster **cluster_p, enum cluster_need need, const char *data, const char *redis,
                      struct status *st)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);

    REQUIRE(cluster != NULL);
    if (!find_redis(cluster, need, data, redis, st) || !read_directory(cluster, st)) {
        cluster_close(cluster);
        return false;
    }
    *cluster_p = cluster;
    return true;
}

bool cluster_open(struct cluster **cluster_p, const char *data, const char *redis, struct status *st)
{
    return cluster_open_for(cluster_p, CLUSTER_NEEDS_STORES, data, redis, st);
}

void cluster_close(struct cluster *cluster)
{
    if (cluster == NULL)
        return;
    for (uint32_t i = 0; i < cluster->connection_count; i++)
        rpc_sync_destroy(cluster->connections[i].sync);
    directory_view_deinit(&cluster->view);
    free(cluster);
}

bool cluster_refresh(struct cluster *cluster, struct status *st)
{
    struct directory_view view = { 0 };

    if (!directory_read_once(cluster->redis, CLUSTER_DIRECTORY_MS, &view, st))
        return cluster->data[0] == '\0' ? false
                                        : status_wrap(st, "the cluster in %s does not answer; see `%s`",
                                                      cluster->data, cli_hint("doctor"));
    directory_view_deinit(&cluster->view);
    cluster->view = view;
    return true;
}

const struct directory_view *cluster_view(const struct cluster *cluster)
{
    return &cluster->view;
}

const char *cluster_redis(const struct cluster *cluster)
{
    return cluster->redis;
}

const char *cluster_data(const struct cluster *cluster)
{
    return cluster->data;
}

struct rpc_sync *cluster_connect(struct cluster *cluster, const char *address, struct status *st)
{
    struct connection *connection;

    for (uint32_t i = 0; i < cluster->connection_count; i++)
        if (strcmp(cluster->connections[i].address, address) == 0)
            return cluster->connections[i].sync;
    if (cluster->connection_count == CONNECTIONS_MAX) {
        status_fail(st, STATUS_EXHAUSTED, "more than %d workers in one command", CONNECTIONS_MAX);
        return NULL;
    }
    connection = &cluster->connections[cluster->connection_count];
    if (!rpc_sync_create(&connection->sync, address, NULL, st))
        return NULL;
    text_copy(connection->address, sizeof connection->address, address);
    cluster->connection_count++;
    return connection->sync;
}

const struct worker_record *cluster_store_of(const struct cluster *cluster, const char *ns, const char *name,
                                             struct status *st)
{
    const struct stream_record *stream = directory_view_stream(&cluster->view, ns, name);
    const struct worker_record *worker;
    char key[2 * LIMIT_NAME_BYTES + 2];

    if (stream != NULL) {
        worker = directory_view_worker(&cluster->view, WORKER_KVSTORE, stream->store);
        if (worker == NULL)
            status_fail(st, STATUS_UNAVAILABLE, "camera %s is kept by %s, which is not running now; see `%s`",
                        name, stream->store, cli_hint("node ls"));
        return worker;
    }
    snprintf(key, sizeof key, "%s/%s", ns, name);
    worker = directory_view_pick(&cluster->view, WORKER_KVSTORE, key, NULL);
    if (worker == NULL)
        status_fail(st, STATUS_UNAVAILABLE, "no kvstore is running; see `%s` and `%s`", cli_hint("node ls"),
                    cli_hint("doctor"));
    return worker;
}

uint64_t cluster_deadline(uint32_t seconds)
{
    return clock_mono_ns() + seconds * 1000000000ull;
}

uint32_t cluster_left_ms(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns();

    return deadline_ns < now_ns + 1000000 ? 1 : (uint32_t)((deadline_ns - now_ns) / 1000000);
}

bool cluster_blame(const struct worker_record *worker, struct status *st)
{
    return st != NULL && st->code == STATUS_UNAVAILABLE &&
           status_wrap(st, "%s does not answer now, see `%s`", worker->name, cli_hint("doctor"));
}

bool cluster_call(struct cluster *cluster, const struct worker_record *worker,
                  const struct rpc_method *method, const ProtobufCMessage *request,
                  struct rpc_sync_stream **call_p, const ProtobufCMessage **reply_p, struct status *st)
{
    struct rpc_stream_options options = { .timeout_ms = CLUSTER_TIMEOUT_MS };
    struct rpc_sync *sync = cluster_connect(cluster, worker->address, st);
    const struct rpc_message *reply;

    *call_p = NULL;
    if (sync != NULL && rpc_sync_unary(call_p, sync, method, &options, request, &reply, st)) {
        *reply_p = reply->body;
        return true;
    }
    if (st != NULL && st->code == STATUS_DEADLINE)
        st->code = STATUS_UNAVAILABLE; /* it is the worker that is late, not the verb */
    return false;
}
