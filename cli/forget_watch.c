#include "forget_watch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/name.h"
#include "base/require.h"
#include "cli_output.h"
#include "reelkv/v1/retention.pb-c.h"
#include "rpc/api.h"

enum { LOOK_TIMEOUT_MS = 2000 };

struct forget_watch {
    struct rpc_sync *store;
    const char *ns, *name;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ends;
    bool is_ending;
    char seen[STATUS_TEXT_BYTES], said[STATUS_TEXT_BYTES];
};

/* Most reasons are over before anybody could read them. */
static void say_what_lasts(struct forget_watch *watch, const char *why)
{
    char text[STATUS_TEXT_BYTES];

    if (why[0] != '\0' && strcmp(why, watch->seen) == 0 && strcmp(why, watch->said) != 0) {
        snprintf(text, sizeof text, "%s", why);
        fprintf(stderr, "reelkv: the store waits, and goes on by itself: %s\n", cli_make_safe(text));
        snprintf(watch->said, sizeof watch->said, "%s", why);
    }
    snprintf(watch->seen, sizeof watch->seen, "%s", why);
}

static void look(struct forget_watch *watch)
{
    const struct rpc_stream_options options = { .timeout_ms = LOOK_TIMEOUT_MS };
    Reelkv__V1__ListReceiptsRequest request = REELKV__V1__LIST_RECEIPTS_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    const Reelkv__V1__ListReceiptsReply *list;
    struct rpc_sync_stream *call = NULL;
    const struct rpc_message *reply;
    struct status st;

    id.namespace_ = (char *)(uintptr_t)watch->ns;
    id.name = (char *)(uintptr_t)watch->name;
    request.id = &id;
    if (rpc_sync_unary(&call, watch->store, &api_list_receipts, &options, &request.base, &reply, &st)) {
        list = (const Reelkv__V1__ListReceiptsReply *)reply->body;
        say_what_lasts(watch,
                       list->n_receipts == 0 ? "" : list->receipts[list->n_receipts - 1]->waits_because);
    }
    rpc_sync_stream_destroy(call);
}

/* False: it ends. */
static bool wait_for_turn(struct forget_watch *watch)
{
    struct timespec until;
    bool goes_on;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FORGET_LOOK_MS / 1000;
    pthread_mutex_lock(&watch->lock);
    while (!watch->is_ending && pthread_cond_timedwait(&watch->ends, &watch->lock, &until) == 0)
        ;
    goes_on = !watch->is_ending;
    pthread_mutex_unlock(&watch->lock);
    return goes_on;
}

static void *watch_run(void *arg)
{
    while (wait_for_turn(arg))
        look(arg);
    return NULL;
}

struct forget_watch *forget_watch_create(struct rpc_sync *store, const char *ns, const char *name)
{
    struct forget_watch *watch = calloc(1, sizeof *watch);
    pthread_condattr_t monotonic;

    REQUIRE(watch != NULL);
    watch->store = store;
    watch->ns = ns;
    watch->name = name;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->ends, &monotonic);
    pthread_condattr_destroy(&monotonic);
    REQUIRE(pthread_create(&watch->thread, NULL, watch_run, watch) == 0);
    return watch;
}

void forget_watch_destroy(struct forget_watch *watch)
{
    if (watch == NULL)
        return;
    pthread_mutex_lock(&watch->lock);
    watch->is_ending = true;
    pthread_cond_signal(&watch->ends);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->ends);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}
