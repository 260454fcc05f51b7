/* A stream that comes from another store: nobody sees it until all of it is on the disk, and what is not whole is removed.
 *
 *   stream.json with "importing" -> history.json -> its blocks, as of any stream -> stream.json without "importing"
 *
 * A store that finds "importing" at start removes the stream. */
#include <stdlib.h>
#include <string.h>

#include "kvstore/store.h"
#include "kvstore/stream.h"

bool stream_import(struct store *store, const struct stream_import *import, stream_done_fn *done, void *user,
                   struct status *st)
{
    uint64_t disk_free = store->options.disk_bytes > store->disk_used_bytes
                             ? store->options.disk_bytes - store->disk_used_bytes
                             : 0;
    struct stream *stream;

    if (import->bytes > disk_free || disk_free - import->bytes < STORE_STREAM_DISK_BYTES)
        return status_fail(
            st, STATUS_EXHAUSTED,
            "store %s has no room for %llu bytes more: its budget has %llu left, and an import "
            "removes nothing of other streams",
            store->options.name, (unsigned long long)import->bytes, (unsigned long long)disk_free);
    if (!stream_create(&stream, store, import->ns, import->name, st))
        return false;
    stream->definition = *import->definition;
    stream->is_importing = true;
    stream->has_shape = true;
    stream->geometry = import->geometry;
    memcpy(stream->fingerprint, import->fingerprint, KV_FINGERPRINT_BYTES);
    stream->epoch = 1;
    stream->history = *import->history;
    stream->next_seq = stream->history.next_seq;
    return stream_begin(stream, done, user, st);
}

/* The caller's `done`, once it is known whether the stream is seen. */
struct finishing {
    struct stream *stream;
    stream_done_fn *done;
    void *user;
};

static void finished(void *user, struct stream *stream, const struct status *failure)
{
    struct finishing *finishing = user;

    if (failure == NULL)
        finishing->stream->is_importing = false;
    finishing->stream->is_finishing = false;
    finishing->done(finishing->user, stream, failure);
    free(finishing);
}

bool stream_finish_import(struct stream *stream, stream_done_fn *done, void *user, struct status *st)
{
    struct finishing *finishing = malloc(sizeof *finishing);
    bool ok;

    if (finishing == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to end the import of stream %s", stream->name);
    *finishing = (struct finishing){ stream, done, user };
    stream->is_finishing = true; /* from now on every stream.json that is written is of a whole one */
    ok = stream_save(stream, finished, finishing, st);
    stream->is_finishing = ok;
    if (!ok)
        free(finishing);
    return ok;
}
