#include "rpc/health.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "grpc/health/v1/health.pb-c.h"

enum serving {
    SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING,
    NOT_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING,
    SERVICE_UNKNOWN = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN,
};

struct entry {
    const char *name;
    enum serving serving;
};

struct watch {
    struct watch *next, **link;
    struct rpc_call *call;
    const struct entry *entry;
    enum serving told;
};

struct health {
    struct rpc_service service;
    struct rpc_handler handlers[2];
    struct entry entries[RPC_SERVICES + 1];
    size_t count;
    struct entry unknown;
    struct watch *watches;
    bool ending; /* watches that come late end at once */
};

static const struct rpc_method check_method = {
    .path = "/grpc.health.v1.Health/Check",
    .shape = RPC_UNARY,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};
static const struct rpc_method watch_method = {
    .path = "/grpc.health.v1.Health/Watch",
    .shape = RPC_SERVER_STREAM,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};

static struct entry *find(struct health *health, const char *name)
{
    for (size_t i = 0; i < health->count; i++)
        if (strcmp(health->entries[i].name, name) == 0)
            return &health->entries[i];
    return NULL;
}

static const char *name_asked_for(const struct rpc_call *call)
{
    return ((const Grpc__Health__V1__HealthCheckRequest *)rpc_call_request(call)->body)->service;
}

static void check_open(struct rpc_call *call, void *state)
{
    Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    const struct entry *entry = find(state, name_asked_for(call));
    struct status st = { 0 };

    if (entry == NULL) {
        status_fail(&st, STATUS_NOT_FOUND, "there is no service \"%.100s\" here", name_asked_for(call));
        rpc_call_finish(call, &st);
        return;
    }
    reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)entry->serving;
    rpc_call_reply(call, &reply.base, NULL);
}

static void watch_tell(struct watch *watch)
{
    Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    if (watch->told == watch->entry->serving)
        return;
    reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)watch->entry->serving;
    if (rpc_call_write(watch->call, &reply.base, NULL))
        watch->told = watch->entry->serving; /* else on_writable tells it later */
}

static void watch_writable(struct rpc_call *call, void *user)
{
    watch_tell(user);
}

static void watch_ended(struct rpc_call *call, void *user)
{
    struct watch *watch = user;

    *watch->link = watch->next;
    if (watch->next != NULL)
        watch->next->link = watch->link;
}

static void finish_going_away(struct rpc_call *call)
{
    struct status st = { 0 };

    status_fail(&st, STATUS_UNAVAILABLE, "the server is going away");
    rpc_call_finish(call, &st);
}

static void watch_open(struct rpc_call *call, void *state)
{
    struct health *health = state;
    struct watch *watch = arena_alloc(rpc_call_arena(call), sizeof *watch);

    REQUIRE(watch != NULL); /* a new call's arena is empty */
    if (health->ending) {
        finish_going_away(call);
        return;
    }
    watch->call = call;
    watch->entry = find(health, name_asked_for(call));
    if (watch->entry == NULL)
        watch->entry = &health->unknown;
    watch->next = health->watches;
    watch->link = &health->watches;
    if (watch->next != NULL)
        watch->next->link = &watch->next;
    health->watches = watch;
    rpc_call_set_user(call, watch);
    rpc_call_on_end(call, watch_ended);
    rpc_call_on_writable(call, watch_writable);
    watch_tell(watch);
}

bool health_create(struct health **health_p, const struct rpc_service *services, size_t count,
                   struct status *st)
{
    struct health *health = calloc(1, sizeof *health);

    REQUIRE(count <= RPC_SERVICES);
    if (health == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a server's health");
    health->entries[health->count++] = (struct entry){ "", SERVING };
    for (size_t i = 0; i < count; i++)
        health->entries[health->count++] = (struct entry){ services[i].name, SERVING };
    health->unknown = (struct entry){ "", SERVICE_UNKNOWN };
    health->handlers[0] = (struct rpc_handler){ &check_method, check_open };
    health->handlers[1] = (struct rpc_handler){ &watch_method, watch_open };
    health->service = (struct rpc_service){ "grpc.health.v1.Health", health->handlers, 2, health };
    *health_p = health;
    return true;
}

void health_destroy(struct health *health)
{
    if (health == NULL)
        return;
    REQUIRE(health->watches == NULL);
    free(health);
}

const struct rpc_service *health_service(struct health *health)
{
    return &health->service;
}

static void tell_all(struct health *health)
{
    for (struct watch *watch = health->watches; watch != NULL; watch = watch->next)
        watch_tell(watch);
}

void health_set(struct health *health, const char *service, bool serving)
{
    struct entry *entry = find(health, service);

    REQUIRE(entry != NULL);
    entry->serving = serving ? SERVING : NOT_SERVING;
    tell_all(health);
}

void health_set_all(struct health *health, bool serving)
{
    for (size_t i = 0; i < health->count; i++)
        health->entries[i].serving = serving ? SERVING : NOT_SERVING;
    tell_all(health);
}

void health_end_watches(struct health *health)
{
    health->ending = true;
    for (struct watch *watch = health->watches; watch != NULL; watch = watch->next)
        finish_going_away(watch->call);
}
