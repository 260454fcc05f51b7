/* host.h - what every service's main() has in common: loop, gRPC, one server, signals, drain.
 *
 *   options -> rpc_host_create() -> the service's own objects, on rpc_host_loop() -> rpc_host_serve()
 *           -> rpc_host_run() -> the service's objects destroyed -> rpc_host_destroy()
 *
 * rpc_host_serve() prints one line of JSON on stdout, for whoever started the process:
 *   {"ready":true,"service":"kvstore","addresses":["127.0.0.1:40213","unix:/run/reelkv/kv.sock"]}
 * SIGTERM and SIGINT drain; a second one shortens the drain; then on_drained, and rpc_host_run() returns.
 *
 * Owner:  main. Thread: the loop's (main's). */
#ifndef REELKV_RPC_HOST_H
#define REELKV_RPC_HOST_H

#include "rpc/rpc.h"
#include "rpc/server.h"

struct rpc_host;

/* The fields that rpc/host_options.def gives a service's options. */
struct rpc_host_options {
    const char *service;   /* "kvstore" */
    const char *listen;    /* addresses, comma-separated */
    const char *advertise; /* what others are told; "": the first address listened on */
    uint32_t max_calls;
    uint64_t rpc_memory_bytes;
    uint32_t lame_ms;
    uint32_t drain_ms;
};

/* From a service's options struct whose .def includes rpc/host_options.def. */
#define RPC_HOST_OPTIONS(service_name, options)                                                    \
    {                                                                                              \
        .service = (service_name), .listen = (options)->listen, .advertise = (options)->advertise, \
        .max_calls = (options)->max_calls, .rpc_memory_bytes = (options)->rpc_memory_bytes,        \
        .lame_ms = (options)->lame_ms, .drain_ms = (options)->drain_ms                             \
    }

bool rpc_host_create(struct rpc_host **host_p, const struct rpc_host_options *options, struct status *st);
struct loop *rpc_host_loop(struct rpc_host *host);
struct rpc *rpc_host_rpc(struct rpc_host *host);

/* Called on the loop when the drain begins: the service tells its long streams and its workers. NULL: none.
 */
void rpc_host_on_drain(struct rpc_host *host, void (*on_drain)(void *user), void *user);

/* Called once, outside callbacks, when the server has closed and the calls this process has made still go on: a service
 * that has something to say in them turns the loop for as long as it allows itself. NULL: none. */
void rpc_host_on_drained(struct rpc_host *host, void (*on_drained)(void *user), void *user);

bool rpc_host_serve(struct rpc_host *host, const struct rpc_service *services, size_t count,
                    struct status *st);

/* What to write into the directory, once serving. A pod listens on 0.0.0.0 and is reached by its own address. */
const char *rpc_host_address(const struct rpc_host *host);

/* Until drained; then ends the calls this process has made (rpc_settle()): no callback of a call, in or out, comes after
 * it, and all that was attached to messages has been released. */
void rpc_host_run(struct rpc_host *host);

/* SIGTERM and SIGINT stay blocked afterwards: the process is about to end. NULL and half-made hosts are fine. */
void rpc_host_destroy(struct rpc_host *host);

#endif
