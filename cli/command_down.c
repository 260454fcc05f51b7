/* down: stops the cluster of a data folder. What the cameras saw stays. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/require.h"
#include "cli_cluster.h"
#include "cli_command.h"
#include "interrupt.h"
#include "leftovers.h"
#include "supervisor.h"

enum { LOOK_MS = 50 };

#define DOWN_OPTIONS(OPT)                   \
    CLI_DATA_OPTIONS(OPT)                   \
    OPT(timeout, U32, "90", "1", "2592000", \
        "seconds to wait for the processes to drain; then they are killed")

struct down_options {
    DOWN_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(down_options, __VA_ARGS__),
    DOWN_OPTIONS(ROW)
#undef ROW
};

static uint32_t still_running(const char *data, struct cluster_file *file, uint32_t *total_p)
{
    struct cluster_file *now = calloc(1, sizeof *now);
    uint32_t running = 0;

    REQUIRE(now != NULL);
    if (cluster_file_read(data, now, NULL))
        *file = *now; /* processes may have been started anew since */
    free(now);
    *total_p = file->process_count;
    for (uint32_t i = 0; i < file->process_count; i++)
        running += process_is_alive(&file->processes[i].id);
    return running;
}

/* False when the supervisor is still there after timeout_s, or when Ctrl-C ended the wait. */
static bool wait_for_supervisor(const char *data, struct cluster_file *file, struct interrupt *interrupt,
                                uint32_t timeout_s)
{
    uint64_t deadline = clock_mono_ns() + timeout_s * 1000000000ull;
    struct process_id supervisor = file->supervisor;
    struct cli_progress progress = { 0 };
    bool ended;

    while (ended = !process_is_alive(&supervisor),
           !ended && clock_mono_ns() < deadline && !interrupt_has_come(interrupt)) {
        uint32_t total, running = still_running(data, file, &total);

        cli_progress_draw(&progress, "stopping", total - running, total);
        usleep(LOOK_MS * 1000);
    }
    cli_progress_end(&progress);
    return ended;
}

static void report(const struct cli_run *run, const char *data, bool killed)
{
    struct json *value;

    if (!run->json) {
        printf("The cluster in %s was stopped%s; `reelkv up --data %s` goes on where it was.\n", data,
               killed ? " by force" : "", cli_quote(data));
        return;
    }
    value = json_make_object();
    json_set_bool(value, "stopped", true);
    json_set_bool(value, "killed", killed);
    json_set_str(value, "data", data);
    cli_print_json(value);
}

/* A cluster.json that is damaged is no reason to leave a cluster running. */
static bool find_cluster(const char *data, struct cluster_file *file, struct status *st)
{
    return leftovers_find(data, file) || cluster_file_read(data, file, st) || st->code == STATUS_DATA_LOSS;
}

static enum cli_exit run_down(const struct cli_run *run)
{
    const struct down_options *options = run->options;
    struct cluster_file *file = calloc(1, sizeof *file);
    char data[CLUSTER_PATH_BYTES];
    struct interrupt *interrupt;
    struct status st = { 0 };
    bool ended, killed, interrupted;

    REQUIRE(file != NULL);
    if (!cluster_data_folder(options->data, data, &st) || !find_cluster(data, file, &st)) {
        free(file);
        return cli_fail(&st, run->json);
    }
    interrupt = interrupt_create();
    ended = !process_signal(&file->supervisor, SIGTERM) ||
            wait_for_supervisor(data, file, interrupt, options->timeout);
    interrupted = !ended && interrupt_has_come(interrupt);
    killed = !ended && !interrupted;
    if (killed)
        process_signal(&file->supervisor, SIGKILL);
    if (!interrupted)
        leftovers_clear(data, file, killed ? 0 : SUPERVISOR_DRAIN_MS);
    interrupt_destroy(interrupt);
    free(file);
    if (interrupted) {
        status_fail(&st, STATUS_CANCELLED, "interrupted; the cluster goes on stopping");
        return cli_fail(&st, run->json);
    }
    report(run, data, killed);
    return CLI_OK;
}

const struct cli_command cli_down = {
    .path = "down",
    .group = "The cluster on this machine",
    .table = { .program = "reelkv down",
               .summary = "stop it; what the cameras saw stays",
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct down_options),
    .run = run_down,
};
