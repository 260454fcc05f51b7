#include "analyzer_server.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/options.h"
#include "base/require.h"
#include "feed.h"
#include "rpc/api.h"

static const struct option_row rows[] = {
#define OPT(...) OPTION_ROW(analyzer_options, __VA_ARGS__),
#include "analyzer_options.def"
#undef OPT
};

const struct option_table analyzer_option_table = {
    .program = "reelkv-analyzer",
    .summary = "Runs the language model over new frames and sends every frame's KV to its store.",
    .rows = rows,
    .count = ARRAY_LEN(rows),
};

static const struct rpc_handler handlers[] = { { &api_push, feed_open } };

static void describe(struct worker_record *record, void *user)
{
    struct analyzer *analyzer = user;
    const struct model_geometry *geometry = model_geometry(analyzer->model);

    record->kind = WORKER_ANALYZER;
    text_copy(record->name, sizeof record->name, analyzer->options->name);
    text_copy(record->address, sizeof record->address, rpc_host_address(analyzer->host));
    record->pid = (uint64_t)getpid();
    record->started_ms = analyzer->started_ms;
    record->streams = analyzer->feed_count;
    record->capacity = analyzer->options->max_streams;
    record->has_model = true;
    memcpy(record->fingerprint, geometry->fingerprint, sizeof record->fingerprint);
    record->draining = analyzer->draining;
}

static void on_drain(void *user)
{
    struct analyzer *analyzer = user;

    directory_leave(analyzer->directory);
    feeds_drain(analyzer);
}

static void slot_freed(void *user)
{
    feeds_slot_freed(user);
}

/* Memory for blocks: one slot holds the system prompt's for good, at least one is left for frames. */
static bool make_pool(struct analyzer *analyzer, struct status *st)
{
    const struct model_geometry *geometry = model_geometry(analyzer->model);
    const struct model_block *init = model_init_block(analyzer->model);
    uint32_t tokens = init->tokens > geometry->frame_tokens ? init->tokens : geometry->frame_tokens;
    uint64_t pool_bytes = analyzer->options->pool_bytes;

    if (!block_pool_create(&analyzer->blocks, pool_bytes, model_block_bytes(analyzer->model, tokens),
                           slot_freed, analyzer, st))
        return false;
    analyzer->init_slot = block_pool_take(analyzer->blocks);
    if (!block_pool_has_free(analyzer->blocks))
        return status_fail(st, STATUS_EXHAUSTED,
                           "pool_bytes %llu holds no frame's block beside the system prompt's; give it more",
                           (unsigned long long)pool_bytes);
    memcpy(analyzer->init_slot->bytes, init->payload, model_block_bytes(analyzer->model, init->tokens));
    return true;
}

static bool open_parts(struct analyzer *analyzer, struct status *st)
{
    struct work_pool_options links = { .name = "links", .threads = 1, .queue_max = 64 };
    struct directory_events events = { .describe = describe, .user = analyzer };
    struct rpc_service service = { "reelkv.v1.Ingest", handlers, ARRAY_LEN(handlers), analyzer };
    const struct analyzer_options *options = analyzer->options;
    const struct model_spec spec = MODEL_SPEC(options, MODEL_LANGUAGE, options->batch_frames);

    if (!name_check("analyzer", options->name, st) || !model_open_spec(&analyzer->model, &spec, st))
        return false;
    if (!engine_create(&analyzer->engine, analyzer->loop, analyzer->model, options->batch_frames, st) ||
        !make_pool(analyzer, st) || !work_pool_create(&analyzer->links_pool, analyzer->loop, &links, st))
        return false;
    analyzer->links.rpc = rpc_host_rpc(analyzer->host);
    analyzer->links.pool = analyzer->links_pool;
    analyzer->links.memory = block_pool_memory(analyzer->blocks);
    if (!rpc_host_serve(analyzer->host, &service, 1, st))
        return false;
    rpc_host_on_drain(analyzer->host, on_drain, analyzer);
    return directory_create(&analyzer->directory, analyzer->loop, options->redis, &events, st);
}

bool analyzer_server_create(struct analyzer **analyzer_p, struct rpc_host *host,
                            const struct analyzer_options *options, struct status *st)
{
    struct analyzer *analyzer = calloc(1, sizeof *analyzer);

    if (analyzer == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the analyzer");
    analyzer->options = options;
    analyzer->host = host;
    analyzer->loop = rpc_host_loop(host);
    analyzer->started_ms = clock_utc_ns() / 1000000;
    if (!open_parts(analyzer, st)) {
        analyzer_server_destroy(analyzer);
        return false;
    }
    *analyzer_p = analyzer;
    return true;
}

void analyzer_server_destroy(struct analyzer *analyzer)
{
    if (analyzer == NULL)
        return;
    directory_destroy(analyzer->directory);
    engine_destroy(analyzer->engine);
    work_pool_destroy(analyzer->links_pool);
    if (analyzer->init_slot != NULL)
        block_slot_unref(analyzer->init_slot);
    block_pool_destroy(analyzer->blocks);
    model_close(analyzer->model);
    free(analyzer);
}
