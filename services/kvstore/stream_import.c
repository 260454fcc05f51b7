/* A stream that comes from another store: nobody sees it until all of it is on the disk, and what is not whole is removed.
 *
 *   stream.json with "importing" -> history.json -> its blocks, as of any stream -> stream.json without "importing"
 *
 * A store that finds "importing" at start removes the stream. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"
#include "kvstore/stream.h"

/* --- its room --- */

bool stream_is_filled(const struct stream *stream)
{
    return stream->is_importing && stream->deletion == NULL;
}

static uint64_t disk_left(const struct store *store)
{
    return subtract_to_zero(store->options.disk_bytes, store->disk_used_bytes);
}

static bool refuse(const struct store *store, uint64_t bytes, struct status *st)
{
    char takes[SIZE_TEXT_BYTES], left[SIZE_TEXT_BYTES];

    size_text(bytes, takes);
    size_text(disk_left(store), left);
    return status_fail(
        st, STATUS_EXHAUSTED,
        "store %s has no room for it: it takes %s, disk_budget_bytes has %s left, and an import "
        "removes nothing of other streams; give the store more, or remove a camera there",
        store->options.name, takes, left);
}

bool stream_import_reserve(struct stream *stream, uint64_t bytes, struct status *st)
{
    uint64_t more = subtract_to_zero(bytes, stream->import_left_bytes);

    if (more > disk_left(stream->store)) {
        refuse(stream->store, bytes, st);
        text_copy(stream->waits_because, sizeof stream->waits_because, st->text);
        return false;
    }
    stream->store->disk_used_bytes += more;
    stream->import_left_bytes += more;
    return true;
}

bool stream_import_plan_init(struct stream *stream, struct status *st)
{
    uint64_t left = stream->import_left_bytes, files = 1 + left / store_segment_bytes(stream->store);

    return !stream_is_filled(stream) ||
           stream_import_reserve(stream, left + files * stream_init_bytes(stream), st);
}

void stream_import_release(struct stream *stream)
{
    stream->store->disk_used_bytes -= stream->import_left_bytes;
    stream->import_left_bytes = 0;
}

/* Of a frame, besides its payload and thumbnail: its header, what rounds its parts up, and its place in the footer. */
static uint64_t bytes_beside(const struct kv_geometry *geometry)
{
    enum { MANY = 1024, PARTS = 4 };
    const struct kv_record empty = { .type = KV_RECORD_FRAME, .layers = geometry->layers };
    struct kv_layout layout;

    kv_record_layout(&empty, &layout);
    return layout.record_bytes + KV_PAGE_BYTES + (geometry->layers + PARTS) * KV_PART_ALIGN +
           segment_footer_bytes(geometry, MANY, MANY, 0) / MANY + 1;
}

/* All of it, in files as large as a camera's would be now: the last one of them may be the only one. */
static uint64_t bytes_of(const struct store *store, const struct stream_import *import)
{
    uint64_t records = import->bytes + import->frames * bytes_beside(&import->geometry);
    uint64_t files = 1 + records / store_segment_bytes(store);

    return records + files * (segment_bytes_min(&import->geometry, 0, 0) + STORE_FILE_SLACK_BYTES);
}

static bool check_room(const struct store *store, const struct stream_import *import, struct status *st)
{
    const struct index_memory *memory = &store->index_memory;
    uint64_t chunks = 1 + import->frames / INDEX_CHUNK_FRAMES;

    if (import->bytes > store->options.disk_bytes ||
        import->frames > store->options.disk_bytes / KV_PAGE_BYTES) /* more than one a page cannot be */
        return refuse(store, import->bytes, st);
    if (chunks * index_chunk_bytes(&import->geometry) >
        subtract_to_zero(memory->limit_bytes, memory->used_bytes))
        return status_fail(
            st, STATUS_EXHAUSTED,
            "store %s has no room for it: the index of %llu frames does not fit into what a quarter of "
            "ram_budget_bytes has left, and an import removes nothing of other streams",
            store->options.name, (unsigned long long)import->frames);
    return bytes_of(store, import) + STORE_STREAM_DISK_BYTES <= disk_left(store) ||
           refuse(store, bytes_of(store, import) + STORE_STREAM_DISK_BYTES, st);
}

/* --- from its beginning to its end --- */

bool stream_import(struct store *store, const struct stream_import *import, stream_done_fn *done, void *user,
                   struct status *st)
{
    struct stream *stream;

    if (!check_room(store, import, st) || !stream_create(&stream, store, import->ns, import->name, st))
        return false;
    stream->definition = *import->definition;
    stream->is_importing = true;
    stream->has_shape = true;
    stream->geometry = import->geometry;
    memcpy(stream->fingerprint, import->fingerprint, KV_FINGERPRINT_BYTES);
    stream->epoch = 1;
    stream->history = *import->history;
    stream->next_seq = stream->history.next_seq;
    if (!stream_begin(stream, done, user, st))
        return false;
    REQUIRE(stream_import_reserve(stream, bytes_of(store, import),
                                  st)); /* it was looked at, and nobody came between */
    return true;
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

    if (failure == NULL) {
        stream_import_release(finishing->stream);
        finishing->stream->is_importing = false;
        store_room_changed(finishing->stream->store);
    }
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
