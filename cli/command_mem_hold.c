/* mem hold, mem holds, mem release: ranges of time that are kept whatever room is wanted for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "reelkv/v1/retention.pb-c.h"

/* A range that has no end, as stores have it. */
static const char *time_or(int64_t utc_ns, bool is_open, const char *words)
{
    return is_open ? words : cli_time(utc_ns);
}

static struct json *hold_to_json(const Reelkv__V1__HoldInfo *hold)
{
    struct json *row = json_make_object();
    bool has_from = hold->range->from_ns > 0, has_to = hold->range->to_ns != INT64_MAX;

    json_set_str(row, "cam", hold->id->name);
    json_set_u64(row, "number", hold->number);
    json_set_str(row, "from", has_from ? cli_rfc3339(hold->range->from_ns) : NULL);
    json_set_str(row, "to", has_to ? cli_rfc3339(hold->range->to_ns) : NULL);
    json_set_str(row, "owner", hold->owner);
    json_set_str(row, "reason", hold->reason);
    json_set_str(row, "until", hold->until_ns > 0 ? cli_rfc3339(hold->until_ns) : NULL);
    json_set_str(row, "created", cli_rfc3339(hold->created_ns));
    return row;
}

/* A call to the store that has the camera. *call_p, which holds the reply, is destroyed by the caller. */
static bool call_store(struct cluster *cluster, const char *ns, const char *name,
                       const struct rpc_method *method, const ProtobufCMessage *request,
                       struct camera *camera, struct rpc_sync_stream **call_p,
                       const ProtobufCMessage **reply_p, struct status *st)
{
    const struct worker_record *store;

    *call_p = NULL;
    return camera_find(cluster, ns, name, camera, &store, st) &&
           (cluster_call(cluster, store, method, request, call_p, reply_p, st) || cluster_blame(store, st));
}

/* ---------------------------------------------------------------------------------------------- hold */

#define MEM_HOLD_OPTIONS(OPT)                                                                \
    CLI_STREAM_OPTIONS(OPT)                                                                  \
    OPT(from, STR, "", "0", "40", "what was seen since this time; '': since the beginning")  \
    OPT(to, STR, "", "0", "40", "what was seen before this time; '': all that will be seen") \
    OPT(owner, STR, "", "0", "63", "who wants it kept; must be given")                       \
    OPT(reason, STR, "", "0", "200", "why it is to be kept; must be given")                  \
    OPT(until, STR, "", "0", "40", "when the hold ends by itself, such as +30d; '': when it is released")

struct mem_hold_options {
    MEM_HOLD_OPTIONS(OPTION_FIELD)
};
static const struct option_row hold_rows[] = {
#define ROW(...) OPTION_ROW(mem_hold_options, __VA_ARGS__),
    MEM_HOLD_OPTIONS(ROW)
#undef ROW
};

static bool read_time(const char *flag, const char *text, int64_t *utc_ns_p, struct status *st)
{
    return text[0] == '\0' || cli_parse_time(text, clock_utc_ns(), utc_ns_p, st) ||
           status_wrap(st, "--%s", flag);
}

static void print_held(const Reelkv__V1__HoldInfo *hold, const struct camera *camera)
{
    bool has_to = hold->range->to_ns != INT64_MAX, has_until = hold->until_ns > 0;

    printf("Camera %s is held from %s%s%s%s%s, hold %llu; `%s` releases it.\n", camera->name,
           time_or(hold->range->from_ns, hold->range->from_ns <= 0, "the beginning"), has_to ? " to " : " on",
           has_to ? cli_time(hold->range->to_ns) : "", has_until ? ", until " : "",
           has_until ? cli_time(hold->until_ns) : "", (unsigned long long)hold->number,
           cli_hint("mem release %s %llu", camera->name, (unsigned long long)hold->number));
    if (camera->first_pts_ns == 0 || hold->range->from_ns > camera->last_pts_ns ||
        hold->range->to_ns <= camera->first_pts_ns)
        fprintf(stderr, "note: nothing of that range is stored now\n");
}

static enum cli_exit run_hold(const struct cli_run *run)
{
    const struct mem_hold_options *options = run->options;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    Reelkv__V1__HoldInfo hold = REELKV__V1__HOLD_INFO__INIT;
    Reelkv__V1__HoldRequest request = REELKV__V1__HOLD_REQUEST__INIT;
    struct rpc_sync_stream *call = NULL;
    const Reelkv__V1__HoldInfo *held;
    const ProtobufCMessage *reply;
    struct cluster *cluster = NULL;
    struct status st = { 0 };
    struct camera camera;
    bool ok;

    id.namespace_ = (char *)(uintptr_t)options->namespace;
    id.name = run->arguments[0];
    hold.id = &id;
    hold.range = &range;
    hold.owner = (char *)(uintptr_t)options->owner;
    hold.reason = (char *)(uintptr_t)options->reason;
    request.hold = &hold;
    ok = options->owner[0] != '\0' && options->reason[0] != '\0';
    if (!ok)
        status_fail(&st, STATUS_INVALID, "say with --owner who wants it kept, and with --reason why");
    ok = ok && name_check("camera", id.name, &st) && read_time("from", options->from, &range.from_ns, &st) &&
         read_time("to", options->to, &range.to_ns, &st) &&
         read_time("until", options->until, &hold.until_ns, &st) &&
         cluster_open(&cluster, options->data, options->redis, &st) &&
         call_store(cluster, options->namespace, id.name, &api_hold, &request.base, &camera, &call, &reply,
                    &st);
    if (ok) {
        held = (const Reelkv__V1__HoldInfo *)reply;
        if (run->json)
            cli_print_json(hold_to_json(held));
        else
            print_held(held, &camera);
    }
    rpc_sync_stream_destroy(call);
    cluster_close(cluster);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_mem_hold = {
    .path = "mem hold",
    .group = "What is stored",
    .table = { .program = "reelkv mem hold",
               .summary = "keep what was seen in a range of time, whatever room is wanted for",
               .arguments = "CAMERA",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = hold_rows,
               .count = ARRAY_LEN(hold_rows) },
    .options_bytes = sizeof(struct mem_hold_options),
    .run = run_hold,
};

/* --------------------------------------------------------------------------------------------- holds */

struct mem_holds_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};
static const struct option_row holds_rows[] = {
#define ROW(...) OPTION_ROW(mem_holds_options, __VA_ARGS__),
    CLI_STREAM_OPTIONS(ROW)
#undef ROW
};

static const char *const titles[] = { "CAMERA", ">NUMBER", "FROM", "TO", "UNTIL", "OWNER", "REASON" };

static void hold_cells(struct cli_table *table, const Reelkv__V1__HoldInfo *hold)
{
    cli_table_cell(table, "%s", hold->id->name);
    cli_table_cell(table, "%llu", (unsigned long long)hold->number);
    cli_table_cell(table, "%s", time_or(hold->range->from_ns, hold->range->from_ns <= 0, "beginning"));
    cli_table_cell(table, "%s", time_or(hold->range->to_ns, hold->range->to_ns == INT64_MAX, "end"));
    cli_table_cell(table, "%s", time_or(hold->until_ns, hold->until_ns <= 0, "it is released"));
    cli_table_cell(table, "%s", hold->owner);
    cli_table_cell(table, "%s", hold->reason);
}

/* A camera that was removed meanwhile has none. */
static bool list_camera(struct cluster *cluster, const char *ns, const char *name, struct cli_table *table,
                        struct json *rows, struct status *st)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__ListHoldsRequest request = REELKV__V1__LIST_HOLDS_REQUEST__INIT;
    const Reelkv__V1__ListHoldsReply *list;
    struct rpc_sync_stream *call;
    const ProtobufCMessage *reply;
    struct camera camera;
    bool ok;

    id.namespace_ = (char *)(uintptr_t)ns;
    id.name = (char *)(uintptr_t)name;
    request.id = &id;
    ok = call_store(cluster, ns, name, &api_list_holds, &request.base, &camera, &call, &reply, st);
    if (ok) {
        list = (const Reelkv__V1__ListHoldsReply *)reply;
        for (size_t i = 0; i < list->n_holds; i++) {
            hold_cells(table, list->holds[i]);
            json_append(rows, hold_to_json(list->holds[i]));
        }
    }
    rpc_sync_stream_destroy(call);
    return ok;
}

/* *list_p: whose holds, and which stores do not say. */
static bool list_all(struct cluster *cluster, const struct cli_run *run, struct cli_table *table,
                     struct json *rows, struct camera_list *list, struct status *st)
{
    const struct mem_holds_options *options = run->options;
    bool ok;

    if (run->count > 0)
        return name_check("camera", run->arguments[0], st) &&
               list_camera(cluster, options->namespace, run->arguments[0], table, rows, st);
    ok = camera_list_read(cluster, options->namespace, list, st);
    for (size_t i = 0; ok && i < list->count; i++)
        ok = list_camera(cluster, options->namespace, list->cameras[i].name, table, rows, st) ||
             st->code == STATUS_NOT_FOUND;
    return ok;
}

static enum cli_exit run_holds(const struct cli_run *run)
{
    const struct mem_holds_options *options = run->options;
    struct cli_table *table = cli_table_create(titles, ARRAY_LEN(titles));
    struct json *value = json_make_object(), *rows = json_make_array();
    struct camera_list list = { 0 };
    struct cluster *cluster = NULL;
    struct status st = { 0 };
    bool ok = cluster_open(&cluster, options->data, options->redis, &st) &&
              list_all(cluster, run, table, rows, &list, &st);
    bool has_rows = json_len(rows) > 0, is_partial = list.silent_count > 0;

    cluster_close(cluster);
    json_set(value, "holds", rows);
    json_set(value, "silent_stores", camera_list_silent(&list));
    if (ok && !run->json && has_rows)
        cli_table_print(table);
    else
        cli_table_destroy(table);
    if (ok && run->json)
        cli_print_json(value);
    else
        json_free(value);
    if (ok && !run->json && !has_rows && !is_partial)
        printf("Nothing is held.\n");
    if (ok && !run->json)
        camera_list_warn(&list, "missing here");
    camera_list_deinit(&list);
    if (!ok)
        return cli_fail(&st, run->json);
    return is_partial ? CLI_UNAVAILABLE : CLI_OK;
}

const struct cli_command cli_mem_holds = {
    .path = "mem holds",
    .group = "What is stored",
    .table = { .program = "reelkv mem holds",
               .summary = "what is held, by whom and why",
               .arguments = "[CAMERA]",
               .arguments_max = 1,
               .rows = holds_rows,
               .count = ARRAY_LEN(holds_rows) },
    .options_bytes = sizeof(struct mem_holds_options),
    .run = run_holds,
};

/* ------------------------------------------------------------------------------------------- release */

struct mem_release_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};
static const struct option_row release_rows[] = {
#define ROW(...) OPTION_ROW(mem_release_options, __VA_ARGS__),
    CLI_STREAM_OPTIONS(ROW)
#undef ROW
};

static bool read_number(const char *text, uint64_t *number_p, struct status *st)
{
    char *end;

    errno = 0;
    *number_p = strtoull(text, &end, 10);
    return (text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0) ||
           status_fail(st, STATUS_INVALID, "the number of a hold is a whole number, as `mem holds` shows it");
}

static enum cli_exit run_release(const struct cli_run *run)
{
    const struct mem_release_options *options = run->options;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__ReleaseHoldRequest request = REELKV__V1__RELEASE_HOLD_REQUEST__INIT;
    struct rpc_sync_stream *call = NULL;
    const Reelkv__V1__HoldInfo *hold;
    const ProtobufCMessage *reply;
    struct cluster *cluster = NULL;
    struct status st = { 0 };
    struct camera camera;
    bool ok;

    id.namespace_ = (char *)(uintptr_t)options->namespace;
    id.name = run->arguments[0];
    request.id = &id;
    ok = name_check("camera", id.name, &st) && read_number(run->arguments[1], &request.number, &st) &&
         cluster_open(&cluster, options->data, options->redis, &st) &&
         call_store(cluster, options->namespace, id.name, &api_release_hold, &request.base, &camera, &call,
                    &reply, &st);
    if (ok) {
        hold = (const Reelkv__V1__HoldInfo *)reply;
        if (run->json)
            cli_print_json(hold_to_json(hold));
        else
            printf("Hold %llu of camera %s is released.\n", (unsigned long long)hold->number, id.name);
    }
    rpc_sync_stream_destroy(call);
    cluster_close(cluster);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_mem_release = {
    .path = "mem release",
    .group = "What is stored",
    .table = { .program = "reelkv mem release",
               .summary = "end a hold",
               .arguments = "CAMERA NUMBER",
               .arguments_min = 2,
               .arguments_max = 2,
               .rows = release_rows,
               .count = ARRAY_LEN(release_rows) },
    .options_bytes = sizeof(struct mem_release_options),
    .run = run_release,
};
