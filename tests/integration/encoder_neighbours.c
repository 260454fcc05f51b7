#include "encoder_neighbours.h"

#include <string.h>

#include "support/process.h"
#include "support/test.h"

static void describe_store(struct worker_record *record, void *user)
{
    struct neighbours *neighbours = user;

    record->kind = WORKER_KVSTORE;
    snprintf(record->name, sizeof record->name, "store-0");
    snprintf(record->address, sizeof record->address, "%s", neighbours->world->address);
}

static void describe_analyzer(struct worker_record *record, void *user)
{
    struct neighbours *neighbours = user;

    record->kind = WORKER_ANALYZER;
    snprintf(record->name, sizeof record->name, "analyzer-0");
    snprintf(record->address, sizeof record->address, "%s", neighbours->world->address);
    record->has_model = true;
    memcpy(record->fingerprint, neighbours->fingerprint, sizeof record->fingerprint);
}

static uint32_t list_streams(struct stream_record *records, uint32_t max, void *user)
{
    struct neighbours *neighbours = user;
    struct world *world = neighbours->world;

    for (uint32_t i = 0; i < world->stream_count; i++) {
        snprintf(records[i].ns, sizeof records[i].ns, "default");
        snprintf(records[i].name, sizeof records[i].name, "%s", world->streams[i].name);
        snprintf(records[i].store, sizeof records[i].store, "store-0");
        records[i].phase = world->streams[i].ends > 0       ? STREAM_ENDED
                           : world->streams[i].call != NULL ? STREAM_RUNNING
                                                            : STREAM_WAITING;
    }
    return world->stream_count;
}

void neighbours_join(struct neighbours *neighbours, struct world *world)
{
    const struct directory_events store = { .describe = describe_store,
                                            .streams = list_streams,
                                            .user = neighbours };
    const struct directory_events analyzer = { .describe = describe_analyzer, .user = neighbours };
    struct status st = { 0 };

    neighbours->world = world;
    memcpy(neighbours->fingerprint, world->vision.fingerprint, sizeof neighbours->fingerprint);
    CHECK_OK(directory_create(&neighbours->store, world->loop, redis_address(), &store, &st), st);
    CHECK_OK(directory_create(&neighbours->analyzer, world->loop, redis_address(), &analyzer, &st), st);
}

void neighbours_leave(struct neighbours *neighbours)
{
    directory_destroy(neighbours->store);
    directory_destroy(neighbours->analyzer);
}
