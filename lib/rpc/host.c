#include "rpc/host.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/require.h"

struct rpc_host {
    struct rpc_host_options options;
    struct loop *loop;
    struct rpc *rpc;
    struct rpc_server *server;
    struct loop_signal *terminate, *interrupt;
    void (*on_drain)(void *user);
    void *on_drain_user;
    void (*on_drained)(void *user);
    void *on_drained_user;
    bool drained;
};

static void drained(void *user)
{
    struct rpc_host *host = user;

    host->drained = true;
    loop_stop(host->loop);
}

static void drain(struct rpc_host *host)
{
    bool first = host->server != NULL && !rpc_server_is_draining(host->server);

    if (host->server == NULL) {
        drained(host);
        return;
    }
    if (first && host->on_drain != NULL)
        host->on_drain(host->on_drain_user);
    rpc_server_drain(host->server, host->options.lame_ms, host->options.drain_ms, drained, host);
}

static void signalled(int number, void *user)
{
    struct rpc_host *host = user;

    log_info(NULL, "drain", "got %s with %u calls open", number == SIGINT ? "SIGINT" : "SIGTERM",
             host->server != NULL ? rpc_server_calls(host->server) : 0);
    drain(host);
}

bool rpc_host_create(struct rpc_host **host_p, const struct rpc_host_options *options, struct status *st)
{
    struct rpc_host *host = calloc(1, sizeof *host);

    if (host == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to start %s", options->service);
    host->options = *options;
    if (!loop_create(&host->loop, st) || !rpc_create(&host->rpc, host->loop, st) ||
        !loop_signal_create(&host->terminate, host->loop, SIGTERM, signalled, host, st) ||
        !loop_signal_create(&host->interrupt, host->loop, SIGINT, signalled, host, st)) {
        rpc_host_destroy(host);
        return false;
    }
    *host_p = host;
    return true;
}

struct loop *rpc_host_loop(struct rpc_host *host)
{
    return host->loop;
}

struct rpc *rpc_host_rpc(struct rpc_host *host)
{
    return host->rpc;
}

const char *rpc_host_address(const struct rpc_host *host)
{
    REQUIRE(host->server != NULL);
    return host->options.advertise[0] != '\0' ? host->options.advertise : rpc_server_address(host->server, 0);
}

void rpc_host_on_drain(struct rpc_host *host, void (*on_drain)(void *user), void *user)
{
    host->on_drain = on_drain;
    host->on_drain_user = user;
}

void rpc_host_on_drained(struct rpc_host *host, void (*on_drained)(void *user), void *user)
{
    host->on_drained = on_drained;
    host->on_drained_user = user;
}

/* Splits "a,b" in place; INVALID when there is nothing in it or too much. */
static bool split_addresses(char *text, const char **addresses, size_t *count_p, struct status *st)
{
    char *rest = text;
    size_t count = 0;

    for (char *one = strsep(&rest, ","); one != NULL; one = strsep(&rest, ",")) {
        if (one[0] == '\0')
            return status_fail(st, STATUS_INVALID, "--listen has an empty address in it");
        if (count == RPC_ADDRESSES)
            return status_fail(st, STATUS_INVALID, "--listen takes at most %d addresses", RPC_ADDRESSES);
        addresses[count++] = one;
    }
    *count_p = count;
    return true;
}

static void print_ready(const struct rpc_host *host, size_t addresses)
{
    struct json *line = json_make_object(), *list = json_make_array();
    char *text;

    for (size_t i = 0; i < addresses; i++)
        json_append_str(list, rpc_server_address(host->server, i));
    json_set_bool(line, "ready", true);
    json_set_str(line, "service", host->options.service);
    json_set(line, "addresses", list);
    text = json_text(line, 0);
    printf("%s\n", text);
    fflush(stdout);
    free(text);
    json_free(line);
}

bool rpc_host_serve(struct rpc_host *host, const struct rpc_service *services, size_t count,
                    struct status *st)
{
    const char *addresses[RPC_ADDRESSES];
    struct rpc_server_options options = { .addresses = addresses,
                                          .services = services,
                                          .service_count = count,
                                          .max_calls = host->options.max_calls,
                                          .memory_bytes = host->options.rpc_memory_bytes };
    char *text = strdup(host->options.listen);
    bool ok;

    if (text == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to start %s", host->options.service);
    ok = split_addresses(text, addresses, &options.address_count, st) &&
         rpc_server_create(&host->server, host->rpc, &options, st);
    free(text);
    if (ok)
        print_ready(host, options.address_count);
    return ok;
}

void rpc_host_run(struct rpc_host *host)
{
    while (!host->drained)
        loop_run(host->loop);
    if (host->on_drained != NULL)
        host->on_drained(host->on_drained_user);
    rpc_settle(host->rpc);
}

/* Without the loop a SIGTERM would again kill: an impatient one must not turn a clean end into a killed one. */
static void ignore_late_signals(void)
{
    sigset_t late;

    sigemptyset(&late);
    sigaddset(&late, SIGTERM);
    sigaddset(&late, SIGINT);
    pthread_sigmask(SIG_BLOCK, &late, NULL);
}

void rpc_host_destroy(struct rpc_host *host)
{
    if (host == NULL)
        return;
    ignore_late_signals();
    rpc_server_destroy(host->server);
    rpc_destroy(host->rpc);
    loop_signal_destroy(host->interrupt);
    loop_signal_destroy(host->terminate);
    loop_destroy(host->loop);
    free(host);
}
