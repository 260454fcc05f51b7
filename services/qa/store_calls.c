#include "store_calls.h"

#include <string.h>

#include "base/require.h"

void store_calls_init(struct store_calls *calls)
{
    memset(calls, 0, sizeof *calls);
    pthread_mutex_init(&calls->lock, NULL);
}

void store_calls_deinit(struct store_calls *calls)
{
    for (size_t i = 0; i < STORE_CALLS_MAX; i++)
        REQUIRE(calls->open[i] == NULL);
    pthread_mutex_destroy(&calls->lock);
}

static void replace(struct store_calls *calls, struct rpc_sync_stream *from, struct rpc_sync_stream *to)
{
    size_t i = 0;

    while (i < STORE_CALLS_MAX && calls->open[i] != from)
        i++;
    REQUIRE(i < STORE_CALLS_MAX);
    calls->open[i] = to;
}

bool store_calls_open(struct store_calls *calls, struct rpc_sync_stream **stream_p, struct rpc_sync *client,
                      const struct rpc_method *method, const struct rpc_stream_options *options,
                      struct status *st)
{
    if (atomic_load(&calls->cancelled))
        return status_fail(st, STATUS_CANCELLED, "the question was cancelled");
    if (!rpc_sync_open(stream_p, client, method, options, st))
        return false;
    pthread_mutex_lock(&calls->lock);
    replace(calls, NULL, *stream_p);
    if (atomic_load(&calls->cancelled)) /* between the look and here */
        rpc_sync_cancel(*stream_p);
    pthread_mutex_unlock(&calls->lock);
    return true;
}

void store_calls_close(struct store_calls *calls, struct rpc_sync_stream *stream)
{
    if (stream == NULL)
        return;
    pthread_mutex_lock(&calls->lock);
    replace(calls, stream, NULL);
    pthread_mutex_unlock(&calls->lock);
    rpc_sync_stream_destroy(stream);
}

void store_calls_cancel(struct store_calls *calls)
{
    pthread_mutex_lock(&calls->lock);
    atomic_store(&calls->cancelled, true);
    for (size_t i = 0; i < STORE_CALLS_MAX; i++)
        if (calls->open[i] != NULL)
            rpc_sync_cancel(calls->open[i]);
    pthread_mutex_unlock(&calls->lock);
}
