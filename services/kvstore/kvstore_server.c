#include "kvstore/kvstore_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/kvstore.h"
#include "kvstore/kvstore_directory.h"
#include "kvstore/kvstore_shm.h"
#include "kvstore/kvstore_watch.h"
#include "kvstore/stream_forget.h"

static const struct option_row rows[] = {
#define OPT(...) OPTION_ROW(kvstore_options, __VA_ARGS__),
#include "kvstore_options.def"
#undef OPT
};

const struct option_table kvstore_option_table = {
    .program = "reelkv-kvstore",
    .summary =
        "Keeps streams' KV blocks in RAM and on disk, scores questions against them, serves their layers.",
    .rows = rows,
    .count = ARRAY_LEN(rows),
};

static const struct rpc_handler catalog_handlers[] = {
    { &api_create_stream, kvstore_create_stream },   { &api_get_stream, kvstore_get_stream },
    { &api_list_streams, kvstore_list_streams },     { &api_delete_stream, kvstore_delete_stream },
    { &api_report_trouble, kvstore_report_trouble }, { &api_watch_stream, kvstore_watch_stream },
};

static const struct rpc_handler kvstore_handlers[] = {
    { &api_get_server_info, kvstore_get_server_info },
    { &api_open_stream, kvstore_open_stream },
    { &api_append, kvstore_append },
    { &api_load_window, kvstore_load_window },
    { &api_score, kvstore_score },
    { &api_fetch, kvstore_fetch },
    { &api_retrieve, kvstore_retrieve },
    { &api_timeline, kvstore_timeline },
    { &api_prefetch, kvstore_prefetch },
    { &api_cancel_prefetch, kvstore_cancel_prefetch },
    { &api_export, kvstore_export },
};

static const struct rpc_handler retention_handlers[] = {
    { &api_hold, kvstore_hold },
    { &api_list_holds, kvstore_list_holds },
    { &api_release_hold, kvstore_release_hold },
    { &api_forget, kvstore_forget },
    { &api_list_receipts, kvstore_list_receipts },
};

static void on_drain(void *user)
{
    struct kvstore *kvstore = user;

    struct status why = { 0 };

    kvstore->is_draining = true;
    kvstore_directory_leave(kvstore->directory);
    kvstore_end_prefetches(kvstore);
    status_fail(&why, STATUS_UNAVAILABLE, "store %s is stopping", kvstore->options->name);
    for (struct stream *stream = kvstore->store->streams; stream != NULL;
         stream = stream->next) { /* also of those that nobody sees yet */
        stream_fence_writer(stream, &why);
        stream_forget_leave(stream, &why);
    }
    kvstore_watches_end(kvstore->watches, &why);
}

static bool parse_reads(const char *name, enum store_reads *reads_p, struct status *st)
{
    static const char *const names[] = {
        [STORE_READS_AUTO] = "auto", [STORE_READS_BY_RING] = "io_uring", [STORE_READS_BY_THREADS] = "threads"
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *reads_p = (enum store_reads)i;
            return true;
        }
    return status_fail(st, STATUS_INVALID, "--read-with must be auto, io_uring or threads, not %s", name);
}

static bool open_store(struct kvstore *kvstore, struct status *st)
{
    const struct kvstore_options *options = kvstore->options;
    struct store_options store = { .name = options->name,
                                   .root = options->path,
                                   .ram_bytes = options->ram_budget_bytes,
                                   .disk_bytes = options->disk_budget_bytes,
                                   .segment_bytes_max = options->segment_bytes,
                                   .commit_ms = options->commit_ms,
                                   .reading_threads = options->reading_threads,
                                   .writing_threads = options->writing_threads,
                                   .ageing = options->ageing,
                                   .scrub_bytes_per_second = options->scrub_bytes_per_second };

    if (options->path[0] == '\0')
        return status_fail(st, STATUS_INVALID, "--path must name the data folder");
    return parse_reads(options->read_with, &store.reads, st) &&
           store_open(&kvstore->store, kvstore->loop, &store, st);
}

static bool open_shm(struct kvstore *kvstore, struct status *st)
{
    const char *named = kvstore->options->shm_socket;
    char path[PATH_MAX];

    if (strcmp(named, "none") == 0)
        return true;
    snprintf(path, sizeof path, "%s/shm.sock", kvstore->options->path);
    return kvstore_shm_create(&kvstore->shm, kvstore->loop, named[0] == '\0' ? path : named,
                              ram_arena_pool(kvstore->store->arena), st);
}

static bool open_parts(struct kvstore *kvstore, struct status *st)
{
    const struct rpc_service services[] = {
        { "reelkv.v1.Catalog", catalog_handlers, ARRAY_LEN(catalog_handlers), kvstore },
        { "reelkv.v1.KvStore", kvstore_handlers, ARRAY_LEN(kvstore_handlers), kvstore },
        { "reelkv.v1.Retention", retention_handlers, ARRAY_LEN(retention_handlers), kvstore },
    };

    if (!name_check("kvstore", kvstore->options->name, st) || !open_store(kvstore, st) ||
        !open_shm(kvstore, st) || !kvstore_watches_create(&kvstore->watches, kvstore, st) ||
        !rpc_host_serve(kvstore->host, services, ARRAY_LEN(services), st))
        return false;
    rpc_host_on_drain(kvstore->host, on_drain, kvstore);
    return kvstore_directory_create(&kvstore->directory, kvstore, st);
}

bool kvstore_server_create(struct kvstore **kvstore_p, struct rpc_host *host,
                           const struct kvstore_options *options, struct status *st)
{
    struct kvstore *kvstore = calloc(1, sizeof *kvstore);

    if (kvstore == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the kvstore");
    kvstore->options = options;
    kvstore->host = host;
    kvstore->loop = rpc_host_loop(host);
    kvstore->started_ms = clock_utc_ns() / 1000000;
    if (!open_parts(kvstore, st)) {
        kvstore_server_destroy(kvstore);
        return false;
    }
    *kvstore_p = kvstore;
    return true;
}

void kvstore_server_destroy(struct kvstore *kvstore)
{
    if (kvstore == NULL)
        return;
    kvstore_watches_destroy(kvstore->watches);
    kvstore_directory_destroy(kvstore->directory);
    kvstore->directory = NULL; /* what still ends while the store closes does not tell it */
    kvstore_shm_destroy(kvstore->shm);
    store_close(kvstore->store);
    free(kvstore);
}
