/* cam follow: a camera's state, told by its store whenever it changes. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/require.h"
#include "camera.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "interrupt.h"
#include "reelkv/v1/catalog.pb-c.h"

enum { AGAIN_MS = 500 };

struct cam_follow_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(cam_follow_options, __VA_ARGS__),
    CLI_STREAM_OPTIONS(ROW)
#undef ROW
};

struct follow {
    const struct cli_run *run;
    const struct cam_follow_options *options;
    struct cluster *cluster;
    struct interrupt *interrupt;
    struct camera camera; /* as it was last */
};

static void print_line(const struct camera *camera)
{
    printf("%s  %s  %llu offered", cli_time(clock_utc_ns()), camera_state_words(camera),
           (unsigned long long)camera->next_seq);
    if (camera->expected_frames > 0)
        printf(" of %llu", (unsigned long long)camera->expected_frames);
    printf(", %llu on disk, %llu in gaps", (unsigned long long)camera_frames_on_disk(camera),
           (unsigned long long)camera->gap_frames);
    if (camera->evicted_frames > 0)
        printf(", %llu evicted", (unsigned long long)camera->evicted_frames);
    if (camera->damaged_frames > 0)
        printf(", %llu damaged", (unsigned long long)camera->damaged_frames);
    if (camera->trouble[0] != '\0')
        printf(": %s", camera->trouble);
    printf("\n");
}

/* False: standard output takes no more, and the process' end says so. */
static bool show(const struct follow *follow)
{
    if (follow->run->json)
        cli_print_json_line(camera_to_json(&follow->camera));
    else
        print_line(&follow->camera);
    return fflush(stdout) == 0;
}

static bool is_over(const struct follow *follow)
{
    return camera_is_complete(&follow->camera) ||
           follow->camera.state == REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED;
}

/* Until nothing more can come (true), or the store ends the call or does not answer. */
static bool read_changes(struct follow *follow, struct rpc_sync_stream *call, struct status *st)
{
    Reelkv__V1__WatchStreamRequest request = REELKV__V1__WATCH_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    const struct rpc_message *message;

    id.namespace_ = follow->camera.ns;
    id.name = follow->camera.name;
    request.id = &id;
    if (!rpc_sync_write(call, &request.base, NULL, st) || !rpc_sync_half_close(call, st))
        return false;
    for (;;) {
        if (!rpc_sync_read(call, &message, st))
            return false;
        if (message == NULL)
            return status_fail(st, STATUS_UNAVAILABLE, "store %s has ended the call", follow->camera.store);
        camera_from_reply(message->body, &follow->camera);
        if (!show(follow) || is_over(follow))
            return true;
    }
}

static void cancel(void *user)
{
    rpc_sync_cancel(user);
}

static bool follow_once(struct follow *follow, struct status *st)
{
    const struct rpc_stream_options options = { .timeout_ms = RPC_NO_TIMEOUT };
    const struct worker_record *store;
    struct rpc_sync_stream *call;
    struct rpc_sync *sync;
    bool ok;

    if (!camera_find(follow->cluster, follow->options->namespace, follow->run->arguments[0], &follow->camera,
                     &store, st))
        return false;
    sync = cluster_connect(follow->cluster, store->address, st);
    if (sync == NULL || !rpc_sync_open(&call, sync, &api_watch_stream, &options, st))
        return cluster_blame(store, st);
    interrupt_watch(follow->interrupt, cancel, call);
    ok = read_changes(follow, call, st);
    interrupt_watch(follow->interrupt, NULL, NULL);
    rpc_sync_stream_destroy(call);
    return ok || cluster_blame(store, st);
}

/* A store that is being started again is back in a moment; a cluster that was stopped is not. */
static bool follow_on(struct follow *follow, struct status *st)
{
    bool told = false;

    while (!follow_once(follow, st)) {
        if (interrupt_has_come(follow->interrupt))
            return status_fail(st, STATUS_CANCELLED, "interrupted; the camera is read on");
        if (st->code != STATUS_UNAVAILABLE || follow->camera.name[0] == '\0' ||
            cluster_is_stopped(follow->cluster, st))
            return false;
        if (!told)
            fprintf(stderr, "reelkv: still waiting: %s\n", cli_make_safe(st->text));
        told = true;
        usleep(AGAIN_MS * 1000);
        cluster_refresh(follow->cluster, NULL);
    }
    return true;
}

static enum cli_exit run_follow(const struct cli_run *run)
{
    struct follow follow = { .run = run, .options = run->options, .interrupt = interrupt_create() };
    struct status st = { 0 };
    bool ok = cluster_open(&follow.cluster, follow.options->data, follow.options->redis, &st) &&
              follow_on(&follow, &st);

    cluster_close(follow.cluster);
    interrupt_destroy(follow.interrupt);
    if (ok)
        return CLI_OK;
    return run->json ? cli_fail_line(&st) : cli_fail(&st, false);
}

const struct cli_command cli_cam_follow = {
    .path = "cam follow",
    .group = "Cameras",
    .table = { .program = "reelkv cam follow",
               .summary = "one camera's state, a line whenever it changes",
               .arguments = "NAME",
               .arguments_min = 1,
               .arguments_max = 1,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct cam_follow_options),
    .run = run_follow,
};
