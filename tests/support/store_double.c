#include "support/store_double.h"

#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/call.h"
#include "support/process.h"
#include "support/test.h"

void store_double_info(struct rpc_call *call, void *state)
{
    Reelkv__V1__ServerInfo info = REELKV__V1__SERVER_INFO__INIT;

    rpc_call_reply(call, &info.base, NULL);
}

static void describe(struct worker_record *record, void *user)
{
    const struct store_double *store = user;

    record->kind = WORKER_KVSTORE;
    snprintf(record->name, sizeof record->name, "store-0");
    snprintf(record->address, sizeof record->address, "%s", served_address(&store->served));
}

static uint32_t streams(struct stream_record *records, uint32_t max, void *user)
{
    const struct store_double *store = user;

    if (store->stream == NULL || max == 0)
        return 0;
    records[0] = (struct stream_record){ .ns = "default", .store = "store-0", .phase = STREAM_RUNNING };
    snprintf(records[0].name, sizeof records[0].name, "%s", store->stream);
    return 1;
}

static void announce(struct served *served)
{
    struct store_double *store = container_of(served, struct store_double, served);
    struct directory_events events = { .describe = describe, .streams = streams, .user = store };

    REQUIRE(directory_create(&store->directory, served->loop, redis_address(), &events, NULL));
}

static void withdraw(struct served *served)
{
    directory_destroy(container_of(served, struct store_double, served)->directory);
}

void store_double_start(struct store_double *store)
{
    store->service =
        (struct rpc_service){ "reelkv.v1.KvStore", store->handlers, store->handler_count, store->state };
    store->served.services = &store->service;
    store->served.service_count = 1;
    store->served.started = announce;
    store->served.ending = withdraw;
    served_start(&store->served);
}

void store_double_stop(struct store_double *store)
{
    served_stop(&store->served);
}
