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
#include "camera.h"
#include "cli_cluster.h"
#include "cli_command.h"
#include "interrupt.h"
#include "leftovers.h"
#include "model_facts.h"
#include "supervisor.h"
#include "up_banner.h"
#include "up_plan.h"
#include "up_start.h"

#define UP_OPTIONS(OPT)                                                                                     \
    CLI_DATA_OPTIONS(OPT)                                                                                   \
    OPT(model, STR, "", "0", "3800",                                                                        \
        "checkpoint folder, as published; '': as last time, else the demo model")                           \
    OPT(ram, BYTES, "0", "0", "64T", "KV kept in memory; 0: a quarter of the memory this cgroup may use")   \
    OPT(disk, BYTES, "0", "0", "1024T", "KV kept on disk; 0: half of what the data folder's disk has free") \
    OPT(ageing, STR, "", "0", "4000",                                                                       \
        "what becomes of frames as they grow older, such as default=full:24h,8bit:14d (docs/ageing.md); "   \
        "none: all is kept until --disk is full; '': as last time")                                         \
    OPT(dtype, STR, "", "0", "4", "bf16 or f32; '': as last time, else what the model advises, else bf16")  \
    OPT(n_local, U32, "0", "0", "1048576",                                                                  \
        "tokens of the window; 0: as last time, else what the model advises")                               \
    OPT(top_r, U32, "0", "0", "3072",                                                                       \
        "frames a layer retrieves; 0: what the model advises, else qa's default")                           \
    OPT(threads, U32, "0", "0", "256", "compute threads of each process; 0: one per CPU")                   \
    OPT(encoders, U32, "1", "1", "16", "how many encoders")                                                 \
    OPT(analyzers, U32, "1", "1", "16", "how many analyzers")                                               \
    OPT(kvstores, U32, "0", "0", "16", "how many kvstores; 0: as last time, else 1")                        \
    OPT(qas, U32, "1", "1", "16", "how many qas")                                                           \
    OPT(timeout, U32, "300", "1", "2592000", "seconds until everything must be ready")                      \
    OPT(foreground, BOOL, "false", "", "", "stay until Ctrl-C or SIGTERM, then stop the cluster")

struct up_options {
    UP_OPTIONS(OPTION_FIELD)
};
static const struct option_row up_rows[] = {
#define ROW(...) OPTION_ROW(up_options, __VA_ARGS__),
    UP_OPTIONS(ROW)
#undef ROW
};

/* One run of the verb. */
struct up {
    char data[CLUSTER_PATH_BYTES];
    int lock_fd;
    struct cluster_file file;
    struct cluster_plan before; /* of the last time */
    struct model_facts facts;
};

static bool prepare_folder(const struct up_options *options, struct up *up, struct status *st)
{
    char log[CLUSTER_PATH_BYTES];

    if (!cluster_data_folder(options->data, up->data, st) || !cluster_path(up->data, "log", log, st))
        return false;
    if (!file_make_folders(log, st))
        return status_wrap(st, "this folder cannot hold a cluster, name another with --data");
    return cluster_lock(up->data, &up->lock_fd, st);
}

/* The model is looked at before anything is started, so that what is wrong with it is said once and at once. */
static bool bring_up(const struct up_options *options, struct up *up, struct status *st)
{
    struct up_request request = {
        .data = up->data,
        .model = options->model,
        .dtype = options->dtype,
        .ageing = options->ageing,
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
    struct up_start start = { .data = up->data,
                              .lock_fd = up->lock_fd,
                              .foreground = options->foreground,
                              .timeout_ms = options->timeout * 1000 };
    struct cluster_plan *plan = &up->file.plan;

    leftovers_sweep(up->data);
    if (!cluster_settings_read(up->data, &up->before, st) ||
        !up_plan_resolve(&request, &up->before, plan, st) || !model_facts_read(plan, &up->facts, st))
        return false;
    text_copy(plan->fingerprint, sizeof plan->fingerprint, up->facts.fingerprint);
    /* Remembered only once it has worked: a mistyped model is not to come back by itself. */
    if (!up_plan_make_run(up->data, plan, st) || !up_start(&start, &up->file, st))
        return false;
    if (cluster_settings_write(up->data, plan, st))
        return true;
    if (up_stop(&up->file, NULL))
        return status_wrap(st, "what it was started with could not be kept, so everything was stopped again");
    return status_wrap(
        st,
        "what it was started with could not be kept, and it does not stop: `reelkv down --data %s` ends it",
        cli_quote(up->data));
}

/* Across all namespaces; all stores have just said that they are ready. */
static void read_cameras(const char *data, struct camera_list *list)
{
    struct cluster *cluster = NULL;

    memset(list, 0, sizeof *list);
    if (cluster_open(&cluster, data, "", NULL) && cluster_view(cluster)->stream_count > 0)
        camera_list_read(cluster, NULL, list, NULL);
    cluster_close(cluster);
}

static enum cli_exit run_up(const struct cli_run *run)
{
    const struct up_options *options = run->options;
    struct up *up = calloc(1, sizeof *up);
    struct camera_list cameras = { 0 };
    struct up_banner banner;
    struct status st = { 0 };
    bool ok, told = false;

    REQUIRE(up != NULL);
    interrupt_ends(run->json); /* until up_start() */
    ok = prepare_folder(options, up, &st) && bring_up(options, up, &st);
    if (ok) {
        read_cameras(up->data, &cameras);
        banner = (struct up_banner){ up->data, &up->file, &up->facts, &cameras };
        up_banner_print(&banner, run->json);
        fflush(stdout);
        told = true;
        camera_list_deinit(&cameras);
        ok = !options->foreground || up_stay(&up->file, &st);
    }
    free(up);
    return ok ? CLI_OK : cli_fail(&st, run->json && !told); /* one document on stdout: the banner */
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
    OPT(starter, U32, "0", "0", "4194304", "process to end with; 0: none")

struct supervise_options {
    SUPERVISE_OPTIONS(OPTION_FIELD)
};
static const struct option_row supervise_rows[] = {
#define ROW(...) OPTION_ROW(supervise_options, __VA_ARGS__),
    SUPERVISE_OPTIONS(ROW)
#undef ROW
};

/* A starter that was gone before we could ask sends no signal any more. */
static bool ends_with(uint32_t starter, struct status *st)
{
    if (starter == 0)
        return true;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    return (uint32_t)getppid() == starter ||
           status_fail(st, STATUS_CANCELLED, "process %u, which this was to end with, is gone", starter);
}

static enum cli_exit run_supervise(const struct cli_run *run)
{
    const struct supervise_options *options = run->options;
    struct status st = { 0 };

    /* The lock came along as descriptor 3: it is held by this process alone, not by what it starts. */
    if (fcntl(SUPERVISOR_LOCK_FD, F_SETFD, FD_CLOEXEC) != 0) {
        status_fail(&st, STATUS_INVALID, "supervise is started by `reelkv up`, not by hand");
        return cli_fail(&st, false);
    }
    log_init("supervisor", LOG_INFO);
    if (ends_with(options->starter, &st) && supervisor_run(options->data, &st))
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
