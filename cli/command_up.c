/* up: a whole cluster on this machine. supervise: what `up` leaves running. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <fcntl.h>

#include "base/file.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "cli_cluster.h"
#include "cli_command.h"
#include "model_facts.h"
#include "supervisor.h"
#include "up_banner.h"
#include "up_plan.h"
#include "up_start.h"

enum { LOCK_FD = 3, LEFTOVER_MS = SUPERVISOR_DRAIN_MS };

#define UP_OPTIONS(OPT)                                                                                     \
    CLI_DATA_OPTIONS(OPT)                                                                                   \
    OPT(model, STR, "", "0", "3800",                                                                        \
        "checkpoint folder, as published; '': as last time, else the demo model")                           \
    OPT(ram, BYTES, "0", "0", "64T", "KV kept in memory; 0: a quarter of the memory this cgroup may use")   \
    OPT(disk, BYTES, "0", "0", "1024T", "KV kept on disk; 0: half of what the data folder's disk has free") \
    OPT(dtype, STR, "", "0", "4", "bf16 or f32; '': as last time, else what the model advises, else bf16")  \
    OPT(n_local, U32, "0", "0", "1048576",                                                                  \
        "tokens of the window; 0: as last time, else what the model advises")                               \
    OPT(top_r, U32, "0", "0", "4096",                                                                       \
        "frames a layer retrieves; 0: what the model advises, else qa's default")                           \
    OPT(threads, U32, "0", "0", "256", "compute threads of each process; 0: one per CPU")                   \
    OPT(encoders, U32, "1", "1", "16", "how many encoders")                                                 \
    OPT(analyzers, U32, "1", "1", "16", "how many analyzers")                                               \
    OPT(kvstores, U32, "0", "0", "16", "how many kvstores; 0: as last time, else 1")                        \
    OPT(qas, U32, "1", "1", "16", "how many qas")                                                           \
    OPT(timeout, U32, "300", "1", "86400", "seconds until everything must be ready")                        \
    OPT(foreground, BOOL, "false", "", "", "stay until Ctrl-C or SIGTERM, then stop the cluster")

struct up_options {
    UP_OPTIONS(OPTION_FIELD)
};
static const struct option_row up_rows[] = {
#define ROW(...) OPTION_ROW(up_options, __VA_ARGS__),
    UP_OPTIONS(ROW)
#undef ROW
};

static bool prepare_folder(const struct up_options *options, char data[CLUSTER_PATH_BYTES], int *lock_p,
                           struct status *st)
{
    char log[CLUSTER_PATH_BYTES];

    return cluster_data_folder(options->data, data, st) && cluster_path(data, "log", log, st) &&
           file_make_folders(log, st) && cluster_lock(data, lock_p, st);
}

/* A supervisor that was killed leaves its processes and its file; they must end before others take their place. */
static void clear_leftovers(const char *data)
{
    struct cluster_file *file = calloc(1, sizeof *file);

    REQUIRE(file != NULL);
    if (cluster_file_read(data, file, NULL)) {
        cluster_stop_leftovers(file, LEFTOVER_MS);
        file_remove_tree(file->plan.run, NULL);
    }
    cluster_file_remove(data);
    free(file);
}

/* A question reads its frames, and a restarted analyzer its window, through a store's memory and disk. */
static bool check_window_fits(const struct cluster_plan *plan, const struct model_facts *facts,
                              struct status *st)
{
    uint64_t frames = (facts->n_local + facts->frame_tokens - 1) / facts->frame_tokens;
    uint64_t window = frames * facts->frame_bytes, stores = plan->counts[CLUSTER_KVSTORE];

    if (plan->ram_bytes / stores < window)
        return status_fail(
            st, STATUS_INVALID,
            "a memory budget of %s for each kvstore is smaller than one window of %s, which is %s; give "
            "more with --ram, or take a smaller --n-local",
            cli_bytes(plan->ram_bytes / stores), facts->family, cli_bytes(window));
    if (plan->disk_bytes / stores < window)
        return status_fail(
            st, STATUS_INVALID,
            "a disk budget of %s for each kvstore is smaller than one window of %s, which is %s; give "
            "more with --disk, or take a smaller --n-local",
            cli_bytes(plan->disk_bytes / stores), facts->family, cli_bytes(window));
    return true;
}

/* The model is looked at before anything is started, so that what is wrong with it is said once and at once. */
static bool bring_up(const struct up_options *options, const char *data, int lock_fd,
                     struct cluster_file *file, struct model_facts *facts, struct status *st)
{
    struct up_request request = {
        .data = data,
        .model = options->model,
        .dtype = options->dtype,
        .n_local = options->n_local,
        .top_r = options->top_r,
        .recent_window = UINT32_MAX,
        .threads = options->threads,
        .ram_bytes = options->ram,
        .disk_bytes = options->disk,
        .counts = { [CLUSTER_KVSTORE] = options->kvstores,
                    [CLUSTER_ANALYZER] = options->analyzers,
                    [CLUSTER_ENCODER] = options->encoders,
                    [CLUSTER_QA] = options->qas },
    };
    struct up_start start = { .data = data,
                              .lock_fd = lock_fd,
                              .foreground = options->foreground,
                              .timeout_ms = options->timeout * 1000 };

    clear_leftovers(data);
    /* Remembered only once it has worked: a mistyped model is not to come back by itself. */
    return up_plan_resolve(&request, &file->plan, st) && model_facts_read(&file->plan, facts, st) &&
           check_window_fits(&file->plan, facts, st) && up_plan_make_run(data, &file->plan, st) &&
           up_start(&start, file, st) && cluster_settings_write(data, &file->plan, st);
}

/* Across all namespaces, as the stores have announced them. */
static uint32_t count_cameras(const char *data)
{
    struct cluster *cluster = NULL;
    uint32_t count = 0;

    if (cluster_open(&cluster, data, "", NULL))
        count = cluster_view(cluster)->stream_count;
    cluster_close(cluster);
    return count;
}

static enum cli_exit run_up(const struct cli_run *run)
{
    const struct up_options *options = run->options;
    struct cluster_file *file = calloc(1, sizeof *file);
    char data[CLUSTER_PATH_BYTES];
    struct model_facts facts;
    struct up_banner banner = { .data = data, .file = file, .facts = &facts };
    struct status st = { 0 };
    int lock_fd;
    bool ok;

    REQUIRE(file != NULL);
    ok = prepare_folder(options, data, &lock_fd, &st) && bring_up(options, data, lock_fd, file, &facts, &st);
    if (ok) {
        banner.cameras = count_cameras(data);
        up_banner_print(&banner, run->json);
        fflush(stdout);
        ok = !options->foreground || up_stay(file, &st);
    }
    free(file);
    return ok ? CLI_OK : cli_fail(&st, run->json);
}

const struct cli_command cli_up = {
    .path = "up",
    .group = "The cluster on this machine",
    .table = { .program = "reelkv up",
               .summary = "start a cluster here, or start it again with its cameras",
               .rows = up_rows,
               .count = ARRAY_LEN(up_rows) },
    .options_bytes = sizeof(struct up_options),
    .run = run_up,
};

/* ------------------------------------------------------------------------------------------- supervise */

#define SUPERVISE_OPTIONS(OPT)                               \
    OPT(data, STR, "", "0", "3800", "data folder, absolute") \
    OPT(foreground, BOOL, "false", "", "", "end with the starter")

struct supervise_options {
    SUPERVISE_OPTIONS(OPTION_FIELD)
};
static const struct option_row supervise_rows[] = {
#define ROW(...) OPTION_ROW(supervise_options, __VA_ARGS__),
    SUPERVISE_OPTIONS(ROW)
#undef ROW
};

static enum cli_exit run_supervise(const struct cli_run *run)
{
    const struct supervise_options *options = run->options;
    struct status st = { 0 };

    /* The lock came along as descriptor 3: it is held by this process alone, not by what it starts. */
    if (fcntl(LOCK_FD, F_SETFD, FD_CLOEXEC) != 0) {
        status_fail(&st, STATUS_INVALID, "supervise is started by `reelkv up`, not by hand");
        return cli_fail(&st, false);
    }
    if (options->foreground)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    log_init("supervisor", LOG_INFO);
    if (supervisor_run(options->data, &st))
        return CLI_OK;
    log_error(NULL, "start_failed", "%s", st.text);
    return cli_exit_of(st.code);
}

const struct cli_command cli_supervise = {
    .path = "supervise",
    .group = "",
    .table = { .program = "reelkv supervise",
               .summary = "keeps the processes of a cluster running; started by `reelkv up`",
               .rows = supervise_rows,
               .count = ARRAY_LEN(supervise_rows) },
    .options_bytes = sizeof(struct supervise_options),
    .run = run_supervise,
};
