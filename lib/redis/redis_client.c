#include "redis/redis_client.h"

#include <hiredis/async.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"
#include "loop/lookup.h"
#include "redis/directory_view.h"

enum { RETRY_MIN_MS = 100, RETRY_MAX_MS = 2000 };

struct redis_client {
    struct loop *loop;
    struct redis_address address;
    struct redis_client_events events;
    redisAsyncContext *context; /* NULL while waiting */
    struct loop_poll *poll;
    unsigned wanted;
    struct loop_lookup *lookup; /* of the host's name; NULL: none is under way */
    bool connected;
    bool closing;
    bool giving_up; /* for a reason of ours */
    uint32_t outstanding;
    uint64_t oldest_sent_ns; /* of the oldest command without a reply, approximately: reset by each reply */
    uint32_t retry_ms;
    struct loop_timer retry;
    struct loop_timer deadline;
};

struct redis_command {
    struct redis_client *client;
    void (*replied)(const redisReply *reply, void *user);
    void *user;
};

static void on_ready(struct loop_poll *poll, unsigned events, void *user)
{
    struct redis_client *client = user;

    if ((events & LOOP_READABLE) && client->context != NULL)
        redisAsyncHandleRead(client->context);
    if ((events & LOOP_WRITABLE) && client->context != NULL)
        redisAsyncHandleWrite(client->context);
}

static void want(struct redis_client *client, unsigned set, unsigned clear)
{
    client->wanted = (client->wanted | set) & ~clear;
    if (client->poll != NULL)
        loop_poll_want(client->poll, client->wanted);
}

static void add_read(void *data)
{
    want(data, LOOP_READABLE, 0);
}

static void del_read(void *data)
{
    want(data, 0, LOOP_READABLE);
}

static void add_write(void *data)
{
    want(data, LOOP_WRITABLE, 0);
}

static void del_write(void *data)
{
    want(data, 0, LOOP_WRITABLE);
}

/* hiredis calls this last, while it frees the context for whatever reason. */
static void cleanup(void *data)
{
    struct redis_client *client = data;

    loop_poll_destroy(client->poll);
    client->poll = NULL;
    client->wanted = 0;
    client->context = NULL;
}

static void try_connect(struct loop_timer *timer);

static void lost(struct redis_client *client, const char *why)
{
    client->connected = false;
    loop_timer_stop(&client->deadline);
    if (client->closing)
        return;
    loop_timer_start(client->loop, &client->retry, client->retry_ms, try_connect);
    client->retry_ms = client->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : client->retry_ms * 2;
    client->events.lost(why, client->events.user);
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
    struct redis_client *client = context->data;

    if (!client->giving_up)
        lost(client, context->err != 0 ? context->errstr : "closed");
}

/* hiredis itself tells only of connections that were made. */
static void give_up(struct redis_client *client, const char *what_it_did)
{
    char why[128];

    client->giving_up = true;
    if (client->context != NULL)
        redisAsyncFree(client->context); /* callbacks get NULL */
    client->giving_up = false;
    snprintf(why, sizeof why, "%s within %d ms", what_it_did, REDIS_REPLY_MS);
    lost(client, why);
}

static void on_connect(const redisAsyncContext *context, int status)
{
    struct redis_client *client = context->data;

    if (status != REDIS_OK) { /* hiredis frees the context itself and reports no disconnect */
        lost(client, context->errstr);
        return;
    }
    loop_timer_stop(&client->deadline);
    client->connected = true;
    client->retry_ms = RETRY_MIN_MS;
    client->events.connected(client->events.user);
}

static void on_deadline(struct loop_timer *timer)
{
    struct redis_client *client = container_of(timer, struct redis_client, deadline);
    uint64_t due_ns = client->oldest_sent_ns + REDIS_REPLY_MS * 1000000ull, now_ns = clock_mono_ns();

    if (!client->connected)
        give_up(client, client->lookup != NULL ? "its name was not found" : "it took no connection");
    else if (client->outstanding > 0 && now_ns < due_ns)
        loop_timer_start(client->loop, timer, (due_ns - now_ns) / 1000000 + 1, on_deadline);
    else if (client->outstanding > 0)
        give_up(client, "it did not answer");
}

/* `host` is an address in numbers, so that hiredis asks no resolver; or the path of a socket. */
static void connect_to(struct redis_client *client, const char *host)
{
    redisAsyncContext *context =
        client->address.is_unix ? redisAsyncConnectUnix(host) : redisAsyncConnect(host, client->address.port);
    char why[128];

    if (context == NULL || context->err != 0) {
        snprintf(why, sizeof why, "%s", context != NULL ? context->errstr : "out of memory");
        if (context != NULL)
            redisAsyncFree(context);
        lost(client, why);
        return;
    }
    context->data = client;
    context->ev = (typeof(context->ev)){ client, add_read, del_read, add_write, del_write, cleanup };
    if (!loop_poll_create(&client->poll, client->loop, context->c.fd, on_ready, client, NULL)) {
        context->ev.cleanup = NULL;
        redisAsyncFree(context);
        lost(client, "no descriptor to poll with");
        return;
    }
    client->context = context;
    redisAsyncSetConnectCallback(context, on_connect);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
}

/* Perhaps after the deadline, while the next try is waited for: then this is it, with a deadline of its own. */
static void looked_up(const char *address, const struct status *why, void *user)
{
    struct redis_client *client = user;

    client->lookup = NULL;
    if (address == NULL) {
        lost(client, why->text);
        return;
    }
    loop_timer_stop(&client->retry);
    if (!loop_timer_is_running(&client->deadline))
        loop_timer_start(client->loop, &client->deadline, REDIS_REPLY_MS, on_deadline);
    connect_to(client, address);
}

static void try_connect(struct loop_timer *timer)
{
    struct redis_client *client = container_of(timer, struct redis_client, retry);
    struct status st = { 0 };

    loop_timer_start(client->loop, &client->deadline, REDIS_REPLY_MS, on_deadline);
    if (client->address.is_unix)
        connect_to(client, client->address.host);
    else if (client->lookup == NULL && /* else the one under way will do */
             !loop_lookup_start(&client->lookup, client->loop, client->address.host, looked_up, client, &st))
        lost(client, st.text);
}

bool redis_client_create(struct redis_client **client_p, struct loop *loop, const char *address,
                         const struct redis_client_events *events, struct status *st)
{
    struct redis_client *client = calloc(1, sizeof *client);

    if (client == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a redis client");
    if (!redis_address_read(address, &client->address, st)) {
        free(client);
        return false;
    }
    client->loop = loop;
    client->events = *events;
    client->retry_ms = RETRY_MIN_MS;
    loop_timer_start(loop, &client->retry, 0, try_connect);
    *client_p = client;
    return true;
}

void redis_client_destroy(struct redis_client *client)
{
    if (client == NULL)
        return;
    client->closing = true;
    loop_timer_stop(&client->retry);
    loop_timer_stop(&client->deadline);
    loop_lookup_forget(client->lookup);
    /* hiredis writes when the loop turns, and this loop may turn no more. */
    if (client->connected)
        redisAsyncHandleWrite(client->context);
    if (client->context != NULL)
        redisAsyncFree(client->context);
    REQUIRE(client->outstanding == 0);
    free(client);
}

bool redis_client_is_connected(const struct redis_client *client)
{
    return client->connected;
}

static void on_reply(redisAsyncContext *context, void *reply, void *user)
{
    struct redis_command *command = user;
    struct redis_client *client = command->client;

    client->outstanding--;
    client->oldest_sent_ns = clock_mono_ns();
    if (command->replied != NULL)
        command->replied(reply, command->user);
    free(command);
}

bool redis_client_send(struct redis_client *client, void (*replied)(const redisReply *reply, void *user),
                       void *user, int argc, const char *const *argv)
{
    struct redis_command *command;

    if (!client->connected || client->outstanding == REDIS_COMMANDS_MAX)
        return false;
    command = malloc(sizeof *command);
    if (command == NULL)
        return false;
    *command = (struct redis_command){ client, replied, user };
    if (redisAsyncCommandArgv(client->context, on_reply, command, argc, (const char **)(uintptr_t)argv,
                              NULL) != REDIS_OK) {
        free(command);
        return false;
    }
    if (client->outstanding++ == 0) {
        client->oldest_sent_ns = clock_mono_ns();
        loop_timer_start(client->loop, &client->deadline, REDIS_REPLY_MS, on_deadline);
    }
    return true;
}
