/* Phases (docs/drain.md):
 *
 *   SERVING -> LAME (health says no) -> CLOSING (gRPC shuts down; calls end) -> FORCED (calls are cancelled) -> CLOSED
 *
 * CLOSED is reached when gRPC's own tag is back, every accept slot has come back and no call is left: the tag
 * alone can come before the completions of the last calls. */
#include "rpc/server.h"

#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/require.h"
#include "rpc/address.h"
#include "rpc/call_internal.h"
#include "rpc/client_internal.h"
#include "rpc/health.h"
#include "rpc/reflection.h"

enum {
    ACCEPTS = 8, /* slots armed at once */
    REFLECTION_STREAMS = 128,
    SPARE_STREAMS = 128,  /* of a connection, for health Checks and refusals */
    BUILTIN_SERVICES = 3, /* health, two versions of reflection */
    DEFAULT_CALLS = 1024,
    DEFAULT_RETRY_MS = 100,
    DEFAULT_KEEPALIVE_MS = 10000,
    DEFAULT_KEEPALIVE_TIMEOUT_MS = 5000,
    DEFAULT_MEMORY_BYTES = 512 << 20,
    PINGS_MIN_INTERVAL_MS = 100, /* well below what any client of ours pings with: jitter counts */
};

enum phase { SERVING, LAME, CLOSING, FORCED, CLOSED };

struct listener {
    char address[RPC_ADDRESS_BYTES];
    int lock_fd; /* of a Unix socket; -1: none */
};

struct rpc_server {
    struct rpc *rpc;
    grpc_server *grpc;
    enum phase phase;
    bool shutdown_seen;
    struct rpc_service services[RPC_SERVICES + BUILTIN_SERVICES];
    size_t service_count; /* the built-in ones come last */
    struct listener listeners[RPC_ADDRESSES];
    size_t listener_count;
    uint32_t max_message_bytes, retry_after_ms;
    struct rpc_call *calls; /* accepted and not ended */
    struct call_limit served, watches, reflections;
    uint32_t armed;
    struct health *health;
    struct reflection *reflection;
    struct rpc_op shutdown_op;
    struct loop_timer timer; /* of the phase */
    uint32_t drain_ms;
    struct letter closed_letter;
    void (*done)(void *user);
    void *done_user;
};

/* ---- calls ---- */

/* NULL: no limit. A probe's Check is answered whatever else is open. */
static struct call_limit *limit_of(struct rpc_server *server, size_t service, const struct rpc_method *method)
{
    size_t health = server->service_count - BUILTIN_SERVICES;

    if (service < health)
        return &server->served;
    if (service > health)
        return &server->reflections;
    return method->shape == RPC_UNARY ? NULL : &server->watches;
}

const struct rpc_handler *server_find(struct rpc_server *server, grpc_slice path, void **state_p,
                                      struct call_limit **limit_p)
{
    for (size_t s = 0; s < server->service_count; s++) {
        const struct rpc_service *service = &server->services[s];

        for (size_t i = 0; i < service->handler_count; i++) {
            if (grpc_slice_str_cmp(path, service->handlers[i].method->path) != 0)
                continue;
            *state_p = service->state;
            *limit_p = limit_of(server, s, service->handlers[i].method);
            return &service->handlers[i];
        }
    }
    return NULL;
}

uint32_t server_max_message_bytes(const struct rpc_server *server)
{
    return server->max_message_bytes;
}

static void closed(struct letter *letter)
{
    struct rpc_server *server = container_of(letter, struct rpc_server, closed_letter);

    server->phase = CLOSED;
    if (server->done != NULL)
        server->done(server->done_user); /* may destroy the server */
}

static void check_closed(struct rpc_server *server)
{
    if (!server->shutdown_seen || server->armed > 0 || server->calls != NULL || server->grpc == NULL)
        return;
    loop_timer_stop(&server->timer);
    grpc_server_destroy(server->grpc);
    server->grpc = NULL;
    for (size_t i = 0; i < server->listener_count; i++) {
        struct listener *listener = &server->listeners[i];

        if (listener->lock_fd >= 0)
            socket_unlock(address_unix_path(listener->address), listener->lock_fd);
        listener->lock_fd = -1;
    }
    server->closed_letter.open = closed;
    loop_post(server->rpc->loop, &server->closed_letter);
}

void server_call_accepted(struct rpc_server *server, struct rpc_call *call, bool ok)
{
    server->armed--;
    if (!ok) {
        check_closed(server);
        return;
    }
    if (server->phase < CLOSING) {
        server->armed++;
        call_arm(server, server->rpc, server->grpc);
    }
    call->listed = true;
    call->next = server->calls;
    call->link = &server->calls;
    if (call->next != NULL)
        call->next->link = &call->next;
    server->calls = call;
}

bool server_admits(struct rpc_server *server, struct rpc_call *call, struct status *st)
{
    struct call_limit *limit = call->limit;

    call->limit = NULL;
    if (server->phase >= CLOSING)
        return status_fail(st, STATUS_UNAVAILABLE, "the server is going away");
    if (limit != NULL && limit->open == limit->max) {
        status_fail(st, STATUS_EXHAUSTED, "%u %s are open, which is the limit; try again later", limit->max,
                    limit->what);
        st->retry_after_ms = server->retry_after_ms;
        return false;
    }
    call->limit = limit;
    if (limit != NULL)
        limit->open++;
    return true;
}

void server_call_left(struct rpc_server *server, struct rpc_call *call)
{
    REQUIRE(call->listed);
    *call->link = call->next;
    if (call->next != NULL)
        call->next->link = call->link;
    if (call->limit != NULL)
        call->limit->open--;
    call->server = NULL;
    rpc_call_unref(call);
    check_closed(server);
}

/* ---- starting ---- */

static grpc_server *grpc_server_of(const struct rpc_server *server, const struct rpc_server_options *options)
{
    uint32_t all_calls = server->served.max + server->watches.max + server->reflections.max;
    const struct rpc_arg rows[] = {
        { GRPC_ARG_ALLOW_REUSEPORT, 0 }, /* else two servers share one port, and the traffic */
        { GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, server->max_message_bytes },
        { GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, server->max_message_bytes },
        { GRPC_ARG_MAX_CONCURRENT_STREAMS, or_default(options->max_streams, all_calls + SPARE_STREAMS) },
        { GRPC_ARG_KEEPALIVE_TIME_MS, or_default(options->keepalive_ms, DEFAULT_KEEPALIVE_MS) },
        { GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
          or_default(options->keepalive_timeout_ms, DEFAULT_KEEPALIVE_TIMEOUT_MS) },
        { GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1 },
        { GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0 }, /* no limit */
        { GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PINGS_MIN_INTERVAL_MS },
        { GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 }, /* none: inflating has no limit in gRPC */
        { GRPC_ARG_HTTP2_BDP_PROBE, 0 },
        { GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, or_default(options->lookahead_bytes, RPC_LOOKAHEAD_BYTES) },
        { GRPC_ARG_HTTP2_MAX_FRAME_SIZE, RPC_FRAME_BYTES },
    };
    grpc_resource_quota *quota = grpc_resource_quota_create(NULL);
    grpc_arg args[ARRAY_LEN(rows) + 1];
    grpc_channel_args all = { ARRAY_LEN(args), args };
    grpc_server *out;

    rpc_args_fill(args, rows, ARRAY_LEN(rows));
    grpc_resource_quota_resize(quota,
                               options->memory_bytes != 0 ? options->memory_bytes : DEFAULT_MEMORY_BYTES);
    args[ARRAY_LEN(rows)] = (grpc_arg){ .type = GRPC_ARG_POINTER,
                                        .key = (char *)GRPC_ARG_RESOURCE_QUOTA,
                                        .value.pointer = { quota, grpc_resource_quota_arg_vtable() } };
    out = grpc_server_create(&all, NULL);
    grpc_resource_quota_unref(quota); /* the server holds it */
    return out;
}

static bool listen_on(struct rpc_server *server, const char *address, struct status *st)
{
    struct listener *listener = &server->listeners[server->listener_count];
    const char *path = address_unix_path(address);
    grpc_server_credentials *credentials;
    char target[ADDRESS_TARGET_BYTES];
    int port;

    listener->lock_fd = -1;
    if (!address_check(address, st))
        return false;
    if (path != NULL && !socket_lock(path, &listener->lock_fd, st))
        return false;
    snprintf(listener->address, sizeof listener->address, "%s", address);
    server->listener_count++; /* from here on check_closed() lets go of the lock */
    credentials = grpc_insecure_server_credentials_create();
    address_target(address, target);
    port = grpc_server_add_http2_port(server->grpc, target, credentials);
    grpc_server_credentials_release(credentials);
    if (port == 0 && path != NULL)
        return status_fail(st, STATUS_UNAVAILABLE, "cannot listen on %s; is its folder there and writable?",
                           address);
    if (port == 0) {
        address_explain(address, st);
        return false;
    }
    if (path == NULL)
        snprintf(listener->address, sizeof listener->address, "%.*s:%d",
                 (int)(strrchr(address, ':') - address), address, port);
    return true;
}

static bool add_services(struct rpc_server *server, const struct rpc_server_options *options,
                         struct status *st)
{
    if (!health_create(&server->health, options->services, options->service_count, st) ||
        !reflection_create(&server->reflection, options->services, options->service_count, st)) {
        health_destroy(server->health);
        return false;
    }
    for (size_t i = 0; i < options->service_count; i++)
        server->services[server->service_count++] = options->services[i];
    server->services[server->service_count++] = *health_service(server->health);
    server->services[server->service_count++] = reflection_services(server->reflection)[0];
    server->services[server->service_count++] = reflection_services(server->reflection)[1];
    return true;
}

bool rpc_server_create(struct rpc_server **server_p, struct rpc *rpc,
                       const struct rpc_server_options *options, struct status *st)
{
    struct rpc_server *server = calloc(1, sizeof *server);
    sigset_t before;
    bool ok = true;

    REQUIRE(loop_is_here(rpc->loop));
    REQUIRE(options->address_count > 0 && options->address_count <= RPC_ADDRESSES);
    REQUIRE(options->service_count <= RPC_SERVICES);
    if (server == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a server");
    if (!add_services(server, options, st)) {
        free(server);
        return false;
    }
    server->rpc = rpc;
    rpc->servers++;
    server->max_message_bytes = or_default(options->max_message_bytes, LIMIT_MESSAGE_BYTES);
    server->served = (struct call_limit){ "calls", 0, or_default(options->max_calls, DEFAULT_CALLS) };
    server->watches = (struct call_limit){ "health watches", 0, RPC_WATCHES };
    server->reflections = (struct call_limit){ "reflection streams", 0, REFLECTION_STREAMS };
    server->retry_after_ms = or_default(options->retry_after_ms, DEFAULT_RETRY_MS);
    loop_signals_block(&before);
    server->grpc = grpc_server_of(server, options);
    grpc_server_register_completion_queue(server->grpc, rpc->cq, NULL);
    for (size_t i = 0; ok && i < options->address_count; i++)
        ok = listen_on(server, options->addresses[i], st);
    grpc_server_start(server->grpc); /* also when it failed: only a started server can be shut down */
    loop_signals_restore(&before);
    if (!ok) {
        rpc_server_destroy(server);
        return false;
    }
    for (; server->armed < ACCEPTS; server->armed++)
        call_arm(server, rpc, server->grpc);
    *server_p = server;
    return true;
}

const char *rpc_server_address(const struct rpc_server *server, size_t index)
{
    REQUIRE(index < server->listener_count);
    return server->listeners[index].address;
}

uint32_t rpc_server_calls(const struct rpc_server *server)
{
    return server->served.open;
}

/* ---- draining ---- */

static void shutdown_done(struct rpc_op *op, bool ok)
{
    struct rpc_server *server = container_of(op, struct rpc_server, shutdown_op);

    server->shutdown_seen = true;
    check_closed(server);
}

static void enter_forced(struct rpc_server *server)
{
    server->phase = FORCED;
    if (server->grpc != NULL) /* else the letter that says "closed" is on its way */
        grpc_server_cancel_all_calls(server->grpc);
}

static void enter_closing(struct rpc_server *server);

static void phase_over(struct loop_timer *timer)
{
    struct rpc_server *server = container_of(timer, struct rpc_server, timer);

    if (server->phase == LAME)
        enter_closing(server);
    else if (server->phase == CLOSING)
        enter_forced(server);
}

static void enter_closing(struct rpc_server *server)
{
    sigset_t before;

    server->phase = CLOSING;
    health_end_watches(server->health);
    reflection_end_streams(server->reflection);
    rpc_op_start(server->rpc, &server->shutdown_op, shutdown_done);
    loop_signals_block(&before);
    grpc_server_shutdown_and_notify(server->grpc, server->rpc->cq, &server->shutdown_op);
    loop_signals_restore(&before);
    loop_timer_start(server->rpc->loop, &server->timer, server->drain_ms, phase_over);
}

void rpc_server_drain(struct rpc_server *server, uint32_t lame_ms, uint32_t drain_ms,
                      void (*done)(void *user), void *user)
{
    REQUIRE(loop_is_here(server->rpc->loop));
    if (server->phase == SERVING) {
        server->drain_ms = drain_ms;
        server->done = done;
        server->done_user = user;
        server->phase = LAME;
        health_stop_serving(server->health);
        loop_timer_start(server->rpc->loop, &server->timer, lame_ms, phase_over);
    } else if (server->phase == LAME || server->phase == CLOSING) {
        loop_timer_stop(&server->timer);
        phase_over(&server->timer);
    }
}

bool rpc_server_is_draining(const struct rpc_server *server)
{
    return server->phase != SERVING;
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (server == NULL)
        return;
    if (server->phase != CLOSED) {
        struct loop *loop = server->rpc->loop;

        REQUIRE(loop_is_here(loop) && !loop_is_running(loop));
        loop_timer_stop(&server->timer);
        server->done = NULL;
        if (server->phase < CLOSING) {
            health_stop_serving(server->health);
            enter_closing(server);
            loop_timer_stop(&server->timer);
        }
        enter_forced(server);
        while (server->phase != CLOSED)
            loop_run_once(loop);
    }
    health_destroy(server->health);
    reflection_destroy(server->reflection);
    server->rpc->servers--;
    free(server);
}
