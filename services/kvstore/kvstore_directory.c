#include "kvstore/kvstore_directory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/name.h"
#include "redis/directory.h"

struct kvstore_directory {
    struct kvstore *kvstore;
    struct directory *directory;
};

static void describe(struct worker_record *record, void *user)
{
    const struct kvstore *kvstore = ((struct kvstore_directory *)user)->kvstore;

    record->kind = WORKER_KVSTORE;
    text_copy(record->name, sizeof record->name, kvstore->options->name);
    text_copy(record->address, sizeof record->address, rpc_host_address(kvstore->host));
    record->pid = (uint64_t)getpid();
    record->started_ms = kvstore->started_ms;
    record->streams = kvstore->store->stream_count;
    record->capacity = LIMIT_STREAMS;
    record->draining = kvstore->is_draining;
}

static void fill_record(struct stream_record *record, const struct kvstore *kvstore,
                        const struct stream *stream)
{
    text_copy(record->ns, sizeof record->ns, stream->ns);
    text_copy(record->name, sizeof record->name, stream->name);
    text_copy(record->store, sizeof record->store, kvstore->options->name);
    record->phase = kvstore_phase_of(stream);
}

static uint32_t streams(struct stream_record *records, uint32_t max, void *user)
{
    const struct kvstore *kvstore = ((struct kvstore_directory *)user)->kvstore;
    const struct stream *stream = store_next(kvstore->store, NULL, NULL);
    uint32_t count = 0;

    for (; stream != NULL && count < max; stream = store_after(stream))
        fill_record(&records[count++], kvstore, stream);
    return count;
}

/* Went with what an emptied Redis had; unless the view has no room for more. */
static void put_back(struct kvstore_directory *directory, const struct directory_view *view,
                     const struct stream *stream)
{
    if (view->stream_count < LIMIT_STREAMS)
        kvstore_directory_changed(directory, stream);
}

/* Both lists have the same order. A stream in our name that we have not was removed while Redis was away. */
static void refreshed(const struct directory_view *view, void *user)
{
    const struct kvstore *kvstore = ((struct kvstore_directory *)user)->kvstore;
    const struct stream *stream = store_next(kvstore->store, NULL, NULL);

    for (uint32_t i = 0; i < view->stream_count; i++) {
        const struct stream_record *record = &view->streams[i];

        for (; stream != NULL && store_compare(stream, record->ns, record->name) < 0;
             stream = store_after(stream))
            put_back(user, view, stream);
        if (stream != NULL && store_compare(stream, record->ns, record->name) == 0)
            stream = store_after(stream);
        else if (strcmp(record->store, kvstore->options->name) == 0)
            kvstore_directory_removed(user, record->ns, record->name);
    }
    for (; stream != NULL; stream = store_after(stream))
        put_back(user, view, stream);
}

bool kvstore_directory_create(struct kvstore_directory **directory_p, struct kvstore *kvstore,
                              struct status *st)
{
    struct kvstore_directory *made = calloc(1, sizeof *made);
    const struct directory_events events = {
        .describe = describe, .streams = streams, .refreshed = refreshed, .user = made
    };

    if (made == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the directory");
    made->kvstore = kvstore;
    if (!directory_create(&made->directory, kvstore->loop, kvstore->options->redis, &events, st)) {
        free(made);
        return false;
    }
    *directory_p = made;
    return true;
}

void kvstore_directory_destroy(struct kvstore_directory *directory)
{
    if (directory == NULL)
        return;
    directory_destroy(directory->directory);
    free(directory);
}

void kvstore_directory_changed(struct kvstore_directory *directory, const struct stream *stream)
{
    struct stream_record record = { 0 };

    if (directory == NULL || stream->is_importing)
        return;
    fill_record(&record, directory->kvstore, stream);
    directory_put_stream(directory->directory, &record);
}

void kvstore_directory_removed(struct kvstore_directory *directory, const char *ns, const char *name)
{
    if (directory != NULL)
        directory_remove_stream(directory->directory, ns, name);
}

void kvstore_directory_leave(struct kvstore_directory *directory)
{
    if (directory != NULL)
        directory_leave(directory->directory);
}
