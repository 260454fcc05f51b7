/* rpc.h - the process' share of gRPC: one completion queue, one thread that waits on it and posts what it
 * finds to the loop. Servers and channels are made on it.
 *
 * Makes SIGPIPE ignored and keeps signals away from gRPC's threads; sets malloc's thresholds so that large
 * messages do not return to the kernel each time.
 *
 * Owner:  main; destroyed after servers and channels, before the loop.
 * Thread: the loop's. */
#ifndef REELKV_RPC_RPC_H
#define REELKV_RPC_RPC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "loop/loop.h"

struct rpc;

enum {
    RPC_NO_TIMEOUT = UINT32_MAX / 2, /* for calls that may stay open for ever; say it, 0 is refused */
    RPC_REQUEST_ID_BYTES = 64,       /* x-request-id, at most */
    RPC_QUEUED_MESSAGES = 16,        /* written to one call and not yet taken by the transport */
    RPC_QUEUED_BYTES = 4 << 20,      /* the queue takes one more while it holds less than this */
    RPC_LOOKAHEAD_BYTES = 1 << 20,   /* what a sender may have on its way, per stream, before anyone asks */
    RPC_FRAME_BYTES =
        1 << 20, /* of HTTP/2, that is taken: payloads come in pieces that end where a frame does */
};

bool rpc_create(struct rpc **rpc_p, struct loop *loop, struct status *st);

/* Cancels client calls, also those opened meanwhile, and turns the loop until each has had its on_end and all that was
 * attached to a message, in or out, is released. Servers are closed by then. Not from within a callback. gRPC holds
 * what it has begun to write until that is out or the connection is lost. */
void rpc_settle(struct rpc *rpc);

/* Does the same first. NULL is fine. */
void rpc_destroy(struct rpc *rpc);

struct loop *rpc_loop(struct rpc *rpc);

#endif
