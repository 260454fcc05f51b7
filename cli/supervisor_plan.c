#include "supervisor_plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/require.h"

struct args {
    struct arena *arena;
    char **argv;
    unsigned count;
    bool full;
};

static void add(struct args *args, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct args *args, const char *format, ...)
{
    char text[CLUSTER_PATH_BYTES + 64];
    va_list list;
    int len;

    REQUIRE(args->count < PLAN_ARGS_MAX);
    va_start(list, format);
    len = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    REQUIRE(len >= 0 && (size_t)len < sizeof text);
    args->argv[args->count] = arena_strndup(args->arena, text, (size_t)len);
    args->full = args->full || args->argv[args->count] == NULL;
    args->count++;
}

static void add_redis(struct args *args, const struct cluster_plan *plan)
{
    static const char *const fixed[] = { "--port",           "0",  "--save",    "", "--appendonly", "no",
                                         "--daemonize",      "no", "--logfile", "", "--maxmemory",  "64mb",
                                         "--unixsocketperm", "700" };

    add(args, "redis-server");
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
        add(args, "%s", fixed[i]);
    add(args, "--dir");
    add(args, "%s", plan->run);
    add(args, "--unixsocket");
    add(args, "%s/redis.sock", plan->run);
}

static void add_model(struct args *args, const struct cluster_plan *plan)
{
    add(args, "--model");
    add(args, "%s", plan->model);
    add(args, "--dtype");
    add(args, "%s", plan->dtype);
    if (plan->n_local > 0)
        add(args, "--n-local=%u", plan->n_local);
    if (plan->threads > 0)
        add(args, "--threads=%u", plan->threads);
}

static void add_service(struct args *args, const struct cluster_plan *plan, const char *data,
                        const struct plan_row *row)
{
    uint32_t stores = plan->counts[CLUSTER_KVSTORE];

    add(args, "%s/reelkv-%s", plan->bin, cluster_kind_names[row->kind]);
    add(args, "--name");
    add(args, "%s", row->name);
    add(args, "--listen");
    add(args, "unix:%s/%s.sock", plan->run, row->name);
    add(args, "--redis");
    add(args, "unix:%s/redis.sock", plan->run);
    if (row->kind == CLUSTER_KVSTORE) {
        add(args, "--path");
        add(args, "%s/store/%s", data, row->name);
        add(args, "--shm-socket");
        add(args, "%s/%s.shm", plan->run, row->name);
        add(args, "--ram-budget-bytes=%llu", (unsigned long long)(plan->ram_bytes / stores));
        add(args, "--disk-budget-bytes=%llu", (unsigned long long)(plan->disk_bytes / stores));
        add(args, "--sample-fps=%.17g", plan->sample_fps);
        if (plan->ageing[0] != '\0')
            add(args, "--ageing=%s", plan->ageing);
        return;
    }
    add_model(args, plan);
    if (row->kind == CLUSTER_QA && plan->top_r > 0)
        add(args, "--top-r=%u", plan->top_r);
    if (row->kind == CLUSTER_QA && plan->recent_window != UINT32_MAX)
        add(args, "--recent-window=%u", plan->recent_window);
}

bool supervisor_plan_rows(const struct cluster_plan *plan, const char *data, struct arena *arena,
                          struct plan_row **rows_p, uint32_t *count_p, struct status *st)
{
    struct plan_row *rows = arena_alloc(arena, CLUSTER_PROCESSES_MAX * sizeof *rows);
    uint32_t count = 0;

    if (rows == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the table of processes");
    for (int kind = 0; kind < CLUSTER_KINDS; kind++) {
        for (uint32_t i = 0; i < plan->counts[kind]; i++) {
            struct plan_row *row = &rows[count++];
            struct args args = { .arena = arena, .argv = row->argv };

            REQUIRE(count <= CLUSTER_PROCESSES_MAX);
            row->kind = (enum cluster_kind)kind;
            if (kind == CLUSTER_REDIS) {
                snprintf(row->name, sizeof row->name, "redis");
                add_redis(&args, plan);
            } else {
                snprintf(row->name, sizeof row->name, "%s-%u", cluster_kind_names[kind], i);
                add_service(&args, plan, data, row);
            }
            if (args.full)
                return status_fail(st, STATUS_EXHAUSTED, "no memory for the command lines");
        }
    }
    *rows_p = rows;
    *count_p = count;
    return true;
}
