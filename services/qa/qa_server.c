#include "qa_server.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "question.h"
#include "rpc/api.h"

static const struct option_row rows[] = {
#define OPT(...) OPTION_ROW(qa_options, __VA_ARGS__),
#include "qa_options.def"
#undef OPT
};

const struct option_table qa_option_table = {
    .program = "reelkv-qa",
    .summary = "Answers questions about stored streams, with the frames each layer chose as evidence.",
    .rows = rows,
    .count = ARRAY_LEN(rows),
};

static const struct rpc_handler handlers[] = { { &api_ask, question_open } };

static void describe(struct worker_record *record, void *user)
{
    struct qa *qa = user;

    record->kind = WORKER_QA;
    text_copy(record->name, sizeof record->name, qa->options->name);
    text_copy(record->address, sizeof record->address, rpc_host_address(qa->host));
    record->pid = (uint64_t)getpid();
    record->started_ms = qa->started_ms;
    record->streams = qa->questions;
    record->capacity = qa->options->max_questions;
    record->has_model = true;
    memcpy(record->fingerprint, model_geometry(qa->model)->fingerprint, sizeof record->fingerprint);
    record->draining = qa->draining;
}

static void on_drain(void *user)
{
    struct qa *qa = user;

    qa->draining = true;
    directory_leave(qa->directory);
}

static bool open_parts(struct qa *qa, struct status *st)
{
    struct work_pool_options answering = { .name = "question",
                                           .threads = qa->options->max_questions,
                                           .queue_max =
                                               qa->options->max_questions + qa->options->max_waiting };
    struct work_pool_options links = { .name = "links", .threads = 1, .queue_max = 64 };
    struct directory_events events = { .describe = describe, .user = qa };
    struct rpc_service service = { "reelkv.v1.Qa", handlers, ARRAY_LEN(handlers), qa };
    const struct model_spec spec = MODEL_SPEC(qa->options, MODEL_LANGUAGE, 1);

    if (!name_check("qa", qa->options->name, st) || !model_open_spec(&qa->model, &spec, st) ||
        !work_pool_create(&qa->answering, qa->loop, &answering, st) ||
        !work_pool_create(&qa->links_pool, qa->loop, &links, st))
        return false;
    qa->links.rpc = rpc_host_rpc(qa->host);
    qa->links.pool = qa->links_pool;
    if (!rpc_host_serve(qa->host, &service, 1, st))
        return false;
    rpc_host_on_drain(qa->host, on_drain, qa);
    return directory_create(&qa->directory, qa->loop, qa->options->redis, &events, st);
}

bool qa_server_create(struct qa **qa_p, struct rpc_host *host, const struct qa_options *options,
                      struct status *st)
{
    struct qa *qa = calloc(1, sizeof *qa);

    if (qa == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the qa");
    qa->options = options;
    qa->host = host;
    qa->loop = rpc_host_loop(host);
    qa->started_ms = clock_utc_ns() / 1000000;
    if (!open_parts(qa, st)) {
        qa_server_destroy(qa);
        return false;
    }
    *qa_p = qa;
    return true;
}

void qa_server_destroy(struct qa *qa)
{
    if (qa == NULL)
        return;
    work_pool_destroy(qa->answering); /* cancelled questions come to their end */
    directory_destroy(qa->directory);
    work_pool_destroy(qa->links_pool);
    model_close(qa->model);
    free(qa);
}
