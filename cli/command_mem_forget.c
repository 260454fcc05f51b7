/* mem forget: takes what was seen in a range of time out of the store for good, and shows the receipts of that. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "forget_watch.h"
#include "interrupt.h"
#include "reelkv/v1/retention.pb-c.h"

#define MEM_FORGET_OPTIONS(OPT)                                                             \
    CLI_STREAM_OPTIONS(OPT)                                                                 \
    OPT(from, STR, "", "0", "40", "what was seen since this time; '': since the beginning") \
    OPT(to, STR, "", "0", "40", "what was seen before this time; '': until now")            \
    OPT(yes, BOOL, "false", "", "", "do not ask whether that is meant")                     \
    OPT(receipts, BOOL, "false", "", "", "forget nothing; show what was forgotten before")  \
    CLI_TIMEOUT_OPTION(OPT)

struct mem_forget_options {
    MEM_FORGET_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(mem_forget_options, __VA_ARGS__),
    MEM_FORGET_OPTIONS(ROW)
#undef ROW
};

static const char *from_words(int64_t from_ns)
{
    return from_ns <= 0 ? "the beginning" : cli_time(from_ns);
}

static struct json *receipt_to_json(const Reelkv__V1__Receipt *receipt)
{
    struct json *row = json_make_object();

    json_set_str(row, "namespace", receipt->id->namespace_);
    json_set_str(row, "cam", receipt->id->name);
    json_set_u64(row, "number", receipt->number);
    json_set_str(row, "from", receipt->range->from_ns > 0 ? cli_rfc3339(receipt->range->from_ns) : NULL);
    json_set_str(row, "to", cli_rfc3339(receipt->range->to_ns));
    json_set_str(row, "asked", cli_rfc3339(receipt->asked_ns));
    json_set_str(row, "done", receipt->done_ns > 0 ? cli_rfc3339(receipt->done_ns) : NULL);
    json_set_u64(row, "frames", receipt->frames);
    json_set_u64(row, "bytes", receipt->bytes);
    json_set_u64(row, "files", receipt->files);
    json_set_str(row, "store", receipt->store);
    json_set_str(row, "version", receipt->version);
    json_set_str(row, "waits_because", receipt->waits_because[0] != '\0' ? receipt->waits_because : NULL);
    return row;
}

/* --- receipts --- */

/* Only the newest can be under way. */
static void print_wait(const Reelkv__V1__Receipt *receipt)
{
    char text[STATUS_TEXT_BYTES];

    if (receipt->waits_because[0] == '\0')
        return;
    snprintf(text, sizeof text, "%s", receipt->waits_because);
    printf("Number %llu waits, and goes on by itself: %s.\n", (unsigned long long)receipt->number,
           cli_make_safe(text));
}

static void print_receipts(const Reelkv__V1__ListReceiptsReply *list, bool as_json)
{
    static const char *const titles[] = { ">NUMBER", "FROM", "TO", ">FRAMES", ">BYTES", ">FILES", "DONE" };
    struct json *value = json_make_object(), *receipts = json_make_array();
    struct cli_table *table = cli_table_create(titles, ARRAY_LEN(titles));

    for (size_t i = 0; i < list->n_receipts; i++) {
        const Reelkv__V1__Receipt *receipt = list->receipts[i];

        json_append(receipts, receipt_to_json(receipt));
        cli_table_cell(table, "%llu", (unsigned long long)receipt->number);
        cli_table_cell(table, "%s", from_words(receipt->range->from_ns));
        cli_table_cell(table, "%s", cli_time(receipt->range->to_ns));
        cli_table_cell(table, "%llu", (unsigned long long)receipt->frames);
        cli_table_cell(table, "%s", cli_bytes(receipt->bytes));
        cli_table_cell(table, "%llu", (unsigned long long)receipt->files);
        cli_table_cell(table, "%s", receipt->done_ns > 0 ? cli_time(receipt->done_ns) : "under way");
    }
    json_set(value, "receipts", receipts);
    if (as_json) {
        cli_print_json(value);
        cli_table_destroy(table);
        return;
    }
    json_free(value);
    if (list->n_receipts > 0) {
        cli_table_print(table);
        print_wait(list->receipts[list->n_receipts - 1]);
        return;
    }
    cli_table_destroy(table);
    printf("Nothing was forgotten.\n");
}

static bool show_receipts(struct cluster *cluster, const struct worker_record *store,
                          Reelkv__V1__StreamId *id, bool as_json, struct status *st)
{
    Reelkv__V1__ListReceiptsRequest request = REELKV__V1__LIST_RECEIPTS_REQUEST__INIT;
    struct rpc_sync_stream *call;
    const ProtobufCMessage *reply;
    bool ok;

    request.id = id;
    ok = cluster_call(cluster, store, &api_list_receipts, &request.base, &call, &reply, st) ||
         cluster_blame(store, st);
    if (ok)
        print_receipts((const Reelkv__V1__ListReceiptsReply *)reply, as_json);
    rpc_sync_stream_destroy(call);
    return ok;
}

/* --- forgetting --- */

/* A variable that was set for another verb, or yesterday, must not say it. */
static bool is_typed(struct status *st)
{
    static const char *const names[] = { "REELKV_FROM", "REELKV_TO", "REELKV_YES" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (getenv(names[i]) != NULL)
            return status_fail(
                st, STATUS_INVALID,
                "what is to be forgotten is said on the command line, not by %s in the environment: "
                "unset it",
                names[i]);
    return true;
}

static bool read_range(const struct mem_forget_options *options, Reelkv__V1__TimeRange *range,
                       struct status *st)
{
    int64_t now = clock_utc_ns();

    range->to_ns = now;
    if (options->from[0] == '\0' && options->to[0] == '\0')
        return status_fail(st, STATUS_INVALID,
                           "say with --from or --to what is to be forgotten; `%s` forgets all",
                           cli_hint("cam rm CAMERA"));
    if (options->from[0] != '\0' && !cli_parse_time(options->from, now, &range->from_ns, st))
        return status_wrap(st, "--from");
    if (options->to[0] != '\0' && !cli_parse_time(options->to, now, &range->to_ns, st))
        return status_wrap(st, "--to");
    if (range->to_ns > now)
        return status_fail(st, STATUS_INVALID,
                           "--to lies in the future: only what was seen already can be forgotten");
    return range->from_ns < range->to_ns ||
           status_fail(st, STATUS_INVALID, "--from must be before --to, and before now");
}

/* Nobody can take it back. */
static bool confirm(const struct mem_forget_options *options, const char *name,
                    const Reelkv__V1__TimeRange *range, struct status *st)
{
    char answer[16] = "";

    if (options->yes)
        return true;
    if (!isatty(STDIN_FILENO))
        return status_fail(st, STATUS_INVALID,
                           "what is forgotten never comes back: say --yes when that is meant");
    fprintf(stderr, "Forget what camera %s saw from %s to %s, for good? [y/N] ", name,
            from_words(range->from_ns), cli_time(range->to_ns));
    if (fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y'))
        return true;
    return status_fail(st, STATUS_CANCELLED, "nothing was forgotten");
}

static void print_receipt(const Reelkv__V1__Receipt *receipt, bool as_json)
{
    if (as_json)
        cli_print_json(receipt_to_json(receipt));
    else
        printf(
            "Forgotten: %llu frames that camera %s saw from %s to %s, %s in %llu files; receipt %llu of %s.\n",
            (unsigned long long)receipt->frames, receipt->id->name, from_words(receipt->range->from_ns),
            cli_time(receipt->range->to_ns), cli_bytes(receipt->bytes), (unsigned long long)receipt->files,
            (unsigned long long)receipt->number, receipt->store);
}

static void cancel(void *user)
{
    rpc_sync_cancel(user);
}

static bool forget(struct cluster *cluster, const struct worker_record *store, Reelkv__V1__StreamId *id,
                   Reelkv__V1__TimeRange *range, const struct mem_forget_options *options, struct status *st)
{
    const struct rpc_stream_options call_options = { .timeout_ms = cluster_left_ms(
                                                         cluster_deadline(options->timeout)) };
    Reelkv__V1__ForgetRequest request = REELKV__V1__FORGET_REQUEST__INIT;
    struct interrupt *interrupt = interrupt_create();
    struct rpc_sync *sync = cluster_connect(cluster, store->address, st);
    const struct rpc_message *message = NULL;
    struct rpc_sync_stream *call = NULL;
    struct forget_watch *watch;
    bool ok;

    request.id = id;
    request.range = range;
    ok = sync != NULL && rpc_sync_open(&call, sync, &api_forget, &call_options, st);
    if (ok) {
        watch = forget_watch_create(sync, id->namespace_, id->name);
        interrupt_watch(interrupt, cancel, call);
        ok = rpc_sync_write(call, &request.base, NULL, st) && rpc_sync_half_close(call, st) &&
             rpc_sync_read(call, &message, st);
        interrupt_watch(interrupt, NULL, NULL);
        forget_watch_destroy(watch);
    }
    if (ok && message != NULL)
        print_receipt((const Reelkv__V1__Receipt *)message->body, options->json);
    if (!ok && interrupt_has_come(interrupt))
        status_fail(st, STATUS_CANCELLED, "interrupted; the store goes on with it, `%s` tells",
                    cli_hint("mem forget %s --receipts", id->name));
    else if (!ok && st->code == STATUS_DEADLINE)
        status_fail(st, STATUS_DEADLINE, "not done in %u s; the store goes on with it, `%s` tells",
                    options->timeout, cli_hint("mem forget %s --receipts", id->name));
    else if (!ok)
        cluster_blame(store, st);
    rpc_sync_stream_destroy(call);
    interrupt_destroy(interrupt);
    return ok;
}

static enum cli_exit run_mem_forget(const struct cli_run *run)
{
    const struct mem_forget_options *options = run->options;
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    const struct worker_record *store;
    struct cluster *cluster = NULL;
    struct status st = { 0 };
    struct camera camera;
    bool ok;

    id.namespace_ = (char *)(uintptr_t)options->namespace;
    id.name = run->arguments[0];
    ok = name_check("camera", id.name, &st) &&
         (options->receipts || (is_typed(&st) && read_range(options, &range, &st))) &&
         cluster_open(&cluster, options->data, options->redis, &st) &&
         camera_find(cluster, options->namespace, id.name, &camera, &store, &st);
    if (ok && options->receipts)
        ok = show_receipts(cluster, store, &id, run->json, &st);
    else if (ok)
        ok = confirm(options, id.name, &range, &st) && forget(cluster, store, &id, &range, options, &st);
    cluster_close(cluster);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_mem_forget = {
    .path = "mem forget",
    .group = "What is stored",
    .table = { .program = "reelkv mem forget",
               .summary = "take what was seen in a range of time out of the store, for good",
               .arguments = "CAMERA",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct mem_forget_options),
    .run = run_mem_forget,
};
