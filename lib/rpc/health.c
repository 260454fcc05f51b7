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

struct watch {
    struct watch *next, **link;
    struct rpc_call *call;
    const struct health *health;
    bool is_known; /* the name it asked for */
    enum serving told;
};

struct health {
    struct rpc_service service;
    struct rpc_handler handlers[2];
    const char *names[RPC_SERVICES + 1];
    size_t count;
    enum serving serving;
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

static bool knows(const struct health *health, const char *name)
{
    for (size_t i = 0; i < health->count; i++)
        if (strcmp(health->names[i], name) == 0)
            return true;
    return false;
}

static const char *name_asked_for(const struct rpc_call *call)
{
    return ((const Grpc__Health__V1__HealthCheckRequest *)rpc_call_request(call)->body)->service;
}

static void check_open(struct rpc_call *call, void *state)
{
    Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    const struct health *health = state;
    struct status st = { 0 };

    if (!knows(health, name_asked_for(call))) {
        status_fail(&st, STATUS_NOT_FOUND, "there is no service \"%.100s\" here", name_asked_for(call));
        rpc_call_finish(call, &st);
        return;
    }
    reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)health->serving;
    rpc_call_reply(call, &reply.base, NULL);
}

static void watch_tell(struct watch *watch)
{
    Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    enum serving serving = watch->is_known ? watch->health->serving : SERVICE_UNKNOWN;

    if (watch->told == serving)
        return;
    reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)serving;
    if (rpc_call_write(watch->call, &reply.base, NULL))
        watch->told = serving; /* else on_writable tells it later */
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
    watch->health = health;
    watch->is_known = knows(health, name_asked_for(call));
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
    health->names[health->count++] = "";
    for (size_t i = 0; i < count; i++)
        health->names[health->count++] = services[i].name;
    health->serving = SERVING;
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

void health_stop_serving(struct health *health)
{
    health->serving = NOT_SERVING;
    for (struct watch *watch = health->watches; watch != NULL; watch = watch->next)
        watch_tell(watch);
}

void health_end_watches(struct health *health)
{
    health->ending = true;
    for (struct watch *watch = health->watches; watch != NULL; watch = watch->next)
        finish_going_away(watch->call);
}
