/* store_calls.h - the calls to stores that one question has open, so that the question's end reaches them.
 *
 * Owner:  the question. Zeroed memory is not enough: init before use, deinit when no call is open.
 * Thread: the question's; store_calls_cancel() from the loop's. The lock is held for no call that waits.
 * Fails:  CANCELLED once cancelled: for new calls at once, for whoever waits in one as soon as gRPC has said so.
 * Bounds: STORE_CALLS_MAX calls. */
#ifndef REELKV_QA_STORE_CALLS_H
#define REELKV_QA_STORE_CALLS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/limits.h"
#include "rpc/sync.h"

/* A Retrieve call to the store of each stream, and one Fetch. */
enum { STORE_CALLS_MAX = LIMIT_STREAMS_PER_QUESTION + 1 };

struct store_calls {
    pthread_mutex_t lock;
    atomic_bool cancelled; /* any thread may read it */
    struct rpc_sync_stream *open[STORE_CALLS_MAX];
};

void store_calls_init(struct store_calls *calls);
void store_calls_deinit(struct store_calls *calls);

/* As rpc_sync_open(). */
bool store_calls_open(struct store_calls *calls, struct rpc_sync_stream **stream_p, struct rpc_sync *client,
                      const struct rpc_method *method, const struct rpc_stream_options *options,
                      struct status *st);
void store_calls_close(struct store_calls *calls, struct rpc_sync_stream *stream); /* NULL is fine */

void store_calls_cancel(struct store_calls *calls);

#endif
