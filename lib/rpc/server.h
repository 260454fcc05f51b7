/* server.h - listens, accepts, refuses what is too much, drains. See docs/drain.md.
 *
 * Answers by itself: unknown methods (UNIMPLEMENTED), malformed messages (INVALID), more than max_calls at
 * once (EXHAUSTED with retry_after_ms), grpc.health.v1 (Check, Watch) and reflection (v1, v1alpha). Watches and
 * reflection have limits of their own; a Check has none: it is answered whatever else is open.
 *
 * Owner:  main; after rpc_server_drain()'s done, or at any time outside callbacks, rpc_server_destroy().
 * Thread: the loop's.
 * Fails:  create: UNAVAILABLE with the address and why it cannot be listened on; INVALID for an address that
 *         makes no sense.
 * Bounds: memory_bytes for what gRPC holds of all connections, calls and arrived messages. A last resort: when it
 *         is overdrawn, gRPC closes connections without calls and ends calls at random, more than it must; their
 *         clients read EXHAUSTED. A call's own memory comes on top (call.h). The C core 1.51 has no limit on the
 *         number of connections; each takes some kB of this memory, and a descriptor. */
#ifndef REELKV_RPC_SERVER_H
#define REELKV_RPC_SERVER_H

#include "rpc/call.h"
#include "rpc/rpc.h"

struct rpc_server;

struct rpc_handler {
    const struct rpc_method *method;
    /* Unary and server-stream: the request is there. Else: sets callbacks and reads. */
    void (*open)(struct rpc_call *call, void *state);
};

struct rpc_service {
    const char *name; /* "reelkv.v1.KvStore", for health */
    const struct rpc_handler *handlers;
    size_t handler_count;
    void *state;
};

enum { RPC_ADDRESSES = 8, RPC_SERVICES = 16, RPC_WATCHES = 128 /* open health Watches */ };

struct rpc_server_options {
    const char *const *addresses; /* "127.0.0.1:7304", "[::1]:0", "unix:/run/reelkv/kv.sock" */
    size_t address_count;
    const struct rpc_service *services; /* outlive the server, as do their rows */
    size_t service_count;
    uint32_t max_message_bytes; /* 0: LIMIT_MESSAGE_BYTES */
    uint64_t memory_bytes;      /* 0: 512 MiB */
    uint32_t max_calls;         /* at once, health and reflection apart; 0: 1024 */
    uint32_t max_streams;    /* per connection; 0: max_calls + 384, so that refusals and Checks are heard */
    uint32_t retry_after_ms; /* told to those refused; 0: 100 */
    uint32_t keepalive_ms;   /* 0: 10000; how long a silent connection goes unpinged */
    uint32_t
        keepalive_timeout_ms; /* 0: 5000; how long its answer may take before the connection counts as lost */
    uint32_t lookahead_bytes; /* taken from a sender before the handler asks, per stream; 0: 1 MiB */
};

/* Listens and serves from the next turn of the loop on. The options are copied. A Unix socket is guarded by a
 * lock file beside it (path + ".lock"), because gRPC lets a second server take it over. */
bool rpc_server_create(struct rpc_server **server_p, struct rpc *rpc,
                       const struct rpc_server_options *options, struct status *st);

/* Address `index` as clients may use it: the kernel's port in place of 0. Valid until destroy, also when drained. */
const char *rpc_server_address(const struct rpc_server *server, size_t index);

uint32_t rpc_server_calls(const struct rpc_server *server); /* open now, health and reflection apart */

/* Lame duck (health says NOT_SERVING, calls are still taken) for lame_ms; then GOAWAY, and up to drain_ms for
 * the open calls to end; then they are cancelled. done(user) is called on the loop when all is over. A second
 * drain shortens the first: it goes on to the next phase at once. */
void rpc_server_drain(struct rpc_server *server, uint32_t lame_ms, uint32_t drain_ms,
                      void (*done)(void *user), void *user);
bool rpc_server_is_draining(const struct rpc_server *server);

/* Not drained: cancels what is open and turns the loop until it has ended. Not from within a callback.
 * NULL is fine. */
void rpc_server_destroy(struct rpc_server *server);

#endif
