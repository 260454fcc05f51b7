/* The store's budgets: what is counted, and which segments go when there is no room. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/segment_age.h"
#include "kvstore/segment_fetch.h"
#include "kvstore/segment_file.h"
#include "kvstore/store.h"
#include "kvstore/stream_hold.h"
#include "kvstore/stream_rival.h"

enum {
    SEGMENT_SHARE = 4, /* open segments together take at most this part of the disk */
    SEGMENT_BYTES_MIN = 1 << 20,
    REMOVE_AGAIN_MS = 1000,
};

uint64_t store_segment_bytes(const struct store *store)
{
    uint64_t writers = store->writer_count == 0 ? 1 : store->writer_count;
    uint64_t bytes = store->options.disk_bytes / SEGMENT_SHARE / writers;

    if (bytes > store->options.segment_bytes_max)
        bytes = store->options.segment_bytes_max;
    return bytes < SEGMENT_BYTES_MIN ? SEGMENT_BYTES_MIN : bytes;
}

/* `after` NULL: before all others. */
static void insert_after(struct store *store, struct segment *segment, struct segment *after)
{
    segment->older = after;
    segment->newer = after == NULL ? store->oldest : after->newer;
    if (segment->newer != NULL)
        segment->newer->older = segment;
    else
        store->newest = segment;
    if (after != NULL)
        after->newer = segment;
    else
        store->oldest = segment;
    store_ageing_add(store, segment);
}

static void insert_in_order(struct store *store, struct segment *segment)
{
    struct segment *after = store->newest;

    while (after != NULL && after->super.created_ns > segment->super.created_ns)
        after = after->older;
    insert_after(store, segment, after);
}

static void take_out(struct store *store, struct segment *segment)
{
    if (segment->older != NULL)
        segment->older->newer = segment->newer;
    else if (store->oldest == segment)
        store->oldest = segment->newer;
    if (segment->newer != NULL)
        segment->newer->older = segment->older;
    else if (store->newest == segment)
        store->newest = segment->older;
    segment->newer = segment->older = NULL;
}

void store_segment_sealed(struct store *store, struct segment *segment)
{
    insert_in_order(store, segment);
    store_room_changed(store);
}

static int compare_begun(const void *a, const void *b)
{
    const struct segment *left = *(struct segment *const *)a, *right = *(struct segment *const *)b;

    if (left->super.created_ns != right->super.created_ns)
        return left->super.created_ns < right->super.created_ns ? -1 : 1;
    return left->super.salt < right->super.salt ? -1 : left->super.salt > right->super.salt;
}

bool store_order_loaded(struct store *store, struct status *st)
{
    struct segment **list;
    uint64_t count = 0, at = 0;
    bool ok = true;

    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        count += stream->segment_count;
    list = malloc((count + 1) * sizeof(struct segment *));
    if (list == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %llu segments", (unsigned long long)count);
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        for (uint32_t i = 0; i < stream->segment_count; i++)
            list[at++] = stream->segments[i];
    qsort(list, count, sizeof(struct segment *), compare_begun);
    for (at = 0; at < count; at++)
        insert_after(store, list[at], store->newest);
    while (ok && at-- > 0) /* the newest first */
        ok = list[at]->index.chunk_count == 0 || !list[at]->index.chunks[0]->is_blank ||
             keys_add(store, list[at]);
    free(list);
    return ok || status_fail(st, STATUS_EXHAUSTED, "no memory for %llu segments", (unsigned long long)count);
}

void store_segment_gone(struct store *store, struct segment *segment)
{
    take_out(store, segment);
    store->disk_used_bytes -= segment->disk_bytes;
    segment_destroy(segment);
}

void store_replace_segment(struct store *store, struct segment *old, struct segment *made)
{
    insert_after(store, made, old);
    take_out(store, old);
}

void store_adjust_disk(struct store *store, struct segment *segment, uint64_t bytes)
{
    if (stream_is_filled(segment->stream) && bytes < segment->disk_bytes) { /* for its next file */
        segment->stream->import_left_bytes += segment->disk_bytes - bytes;
        store->disk_used_bytes += segment->disk_bytes - bytes;
    }
    store->disk_used_bytes += bytes - segment->disk_bytes;
    segment->disk_bytes = bytes;
}

/* Segments that wait for room ask again. */
void store_room_changed(struct store *store)
{
    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (stream->waits_for_room)
            stream_pump(stream);
    segment_age_pump(store);
}

/* Removes one segment's file; the store does one at a time. The segment stays in its stream, unread, until that is done. */
struct removal {
    struct work work;
    struct store *store;
    struct segment *segment;
    char *history; /* as it will be then */
    bool is_gone;  /* the file */
    bool is_saved; /* the history */
    bool is_synced;
    struct status st, sync_st;
};

static bool save_history(const struct removal *removal, struct status *st)
{
    char path[PATH_MAX + 16];

    snprintf(path, sizeof path, "%s/history.json", removal->segment->stream->folder);
    return file_write_durable_on(removal->store->disk, path, removal->history, strlen(removal->history), st);
}

/* What the history says must be on the disk before the file has gone; only a disk without room for even that
 * turns the order round. */
static void removal_run(struct work *work)
{
    struct removal *removal = container_of(work, struct removal, work);
    const struct file_ops *disk = removal->store->disk;

    removal->is_saved = save_history(removal, &removal->st);
    if (!removal->is_saved && errno != ENOSPC && errno != EDQUOT)
        return;
    removal->is_gone = segment_file_unlink(disk, removal->segment->base, &removal->st);
    if (removal->is_gone && !removal->is_saved)
        removal->is_saved = save_history(removal, &removal->st);
    removal->is_synced =
        removal->is_gone && segment_file_sync_removal(disk, removal->segment->base, &removal->sync_st);
}

/* It is served again, and others are asked to go before it. */
static void keep_segment(struct removal *removal)
{
    struct store *store = removal->store;
    struct segment *segment = removal->segment;
    const struct log_context context = { .stream = segment->super.stream };

    log_error(&context, "segment_not_removed", "%s; trying again", removal->st.text);
    segment->is_leaving = segment->stream->deletion != NULL;
    take_out(store, segment);
    insert_after(store, segment, store->newest);
    store->remove_at_ns = clock_mono_ns() + REMOVE_AGAIN_MS * 1000000ull;
}

/* Its bytes may be there again after a power cut: they are nobody's until the folder has been synced, and no other file goes for
 * them meanwhile. */
static void keep_bytes(const struct removal *removal)
{
    struct store *store = removal->store;
    const struct segment *segment = removal->segment;
    const struct log_context context = { .stream = segment->super.stream };

    log_error(&context, "removal_not_synced", "%s; a power cut may bring %s back; trying again",
              removal->sync_st.text, segment->base);
    store->disk_used_bytes += segment->disk_bytes;
    stream_rival_add_unlinked(segment->stream, segment->base, segment->disk_bytes);
}

/* Its file has gone. A history that was not written is written whole with the stream's next removal. */
static void release_segment(struct removal *removal)
{
    struct segment *segment = removal->segment;
    const struct log_context context = { .stream = segment->super.stream };

    if (!removal->is_saved)
        log_error(&context, "history_not_saved", "%s; a restart before the next removal does not know of %s",
                  removal->st.text, segment->base);
    if (!removal->is_synced)
        keep_bytes(removal);
    stream_release_segment(segment->stream, segment);
    store_segment_gone(removal->store, segment);
}

static void removal_done(struct work *work)
{
    struct removal *removal = container_of(work, struct removal, work);
    struct store *store = removal->store;
    struct stream *stream = removal->segment->stream;

    store->removal = NULL;
    if (removal->is_gone) {
        release_segment(removal);
    } else {
        keep_segment(removal);
    }
    free(removal->history);
    free(removal);
    if (stream->deletion != NULL)
        stream_continue_deletion(stream);
    store_room_changed(store);
    store_ram_freed(store);
}

bool store_is_removing_from(const struct store *store, const struct stream *stream)
{
    return store->removal != NULL && store->removal->segment->stream == stream;
}

/* *held_p: when there is none, a hold of one that could go but for it; NULL: there is none of these either. */
static struct segment *oldest_removable(struct store *store, const struct stream_hold **held_p)
{
    struct segment *segment = store->oldest;

    for (*held_p = NULL; segment != NULL; segment = segment->newer) {
        const struct stream_hold *hold;

        if (segment->is_leaving || segment->has_rival)
            continue;
        hold = segment_held(segment);
        if (segment_is_busy(segment)) {
            if (hold != NULL || !scrub_yield(store, segment))
                continue;
            *held_p = NULL;
            return NULL; /* it is asked again in a moment, and no younger one goes for it */
        }
        if (hold == NULL)
            return segment;
        if (*held_p == NULL)
            *held_p = hold;
    }
    return NULL;
}

/* Writers that wait for room are told whose hold it is. */
static void tell_held(struct store *store, const struct stream_hold *hold)
{
    struct status st;

    status_fail(&st, STATUS_EXHAUSTED, "everything that could make room is held, by %s (%s) among others",
                hold->owner, hold->reason);
    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (stream->waits_for_room)
            text_copy(stream->waits_because, sizeof stream->waits_because, st.text);
}

/* False: no memory. */
static bool start_removal(struct store *store, struct segment *segment)
{
    struct removal *removal = calloc(1, sizeof *removal);
    struct history history = segment->stream->history;
    char file[CHECKED_JSON_FILE_BYTES];
    const struct log_context context = { .stream = segment->super.stream };

    if (removal == NULL)
        return false;
    stream_add_to_history(&history, segment);
    stream_file_of(segment->stream, "history.json", file);
    removal->history = history_text(&history, file);
    if (removal->history == NULL) {
        free(removal);
        return false;
    }
    segment->is_leaving = true;
    segment_fetch_close(segment);
    log_debug(&context, "segment_leaves", "%s with %llu frames makes room", segment->base,
              (unsigned long long)segment->index.frame_count);
    removal->store = store;
    removal->segment = segment;
    removal->work = (struct work){ .run = removal_run, .done = removal_done };
    store->removal = removal;
    REQUIRE(work_pool_submit(store->writing, &removal->work));
    return true;
}

bool store_remove_segment(struct store *store, struct segment *segment)
{
    return store->removal == NULL && clock_mono_ns() >= store->remove_at_ns && !segment->is_leaving &&
           !segment->has_rival && !segment_is_busy(segment) && start_removal(store, segment);
}

/* Writers that reserved more than new ones get now are asked to seal, and give the rest back. */
static bool close_large_segments(struct store *store)
{
    bool any = false;

    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        for (uint32_t i = 0; i < stream->segment_count; i++) {
            struct segment *segment = stream->segments[i];

            if (segment->writer == NULL || segment_is_creating(segment))
                continue;
            if (segment_is_open(segment) &&
                (stream->writer == NULL || segment->capacity > 2 * store_segment_bytes(store)))
                segment_close(segment);
            any |= !segment_is_open(segment);
        }
    return any;
}

static void make_room(struct store *store)
{
    const struct stream_hold *held;
    struct segment *segment;

    if (store->removal != NULL)
        return;
    if (clock_mono_ns() < store->remove_at_ns || store->unsynced_bytes > 0) {
        store_retry_later(store);
        return;
    }
    segment = oldest_removable(store, &held);
    if (segment != NULL && start_removal(store, segment))
        return;
    if (close_large_segments(store))
        return;
    if (held != NULL)
        tell_held(store, held);
    store_retry_later(store);
}

/* No other stream's segments go for it. */
static bool reserve_of_import(struct segment *segment, uint64_t bytes)
{
    struct stream *stream = segment->stream;
    struct status st;

    stream->waits_for_room = !stream_import_reserve(stream, bytes, &st);
    if (stream->waits_for_room) {
        store_retry_later(stream->store);
        return false;
    }
    stream->import_left_bytes -= bytes;
    segment->disk_bytes = bytes;
    return true;
}

bool store_reserve_disk(struct store *store, struct segment *segment, uint64_t bytes)
{
    if (stream_is_filled(segment->stream))
        return reserve_of_import(segment, bytes);
    if (store->disk_used_bytes + bytes <= store->options.disk_bytes) {
        store->disk_used_bytes += bytes;
        segment->disk_bytes = bytes;
        return true;
    }
    segment->stream->waits_for_room = true;
    make_room(store);
    return false;
}

bool store_has_disk_room(struct store *store, uint64_t bytes, bool makes_room)
{
    if (store->disk_used_bytes + bytes <= store->options.disk_bytes)
        return true;
    if (makes_room)
        make_room(store);
    return false;
}

bool store_has_index_room(struct store *store, uint64_t bytes)
{
    const struct index_memory *memory = &store->index_memory;
    uint64_t wanted = memory->used_bytes + bytes;

    if (wanted <= memory->limit_bytes)
        return true;
    /* What questions alone hold comes free with them: more segments must not go for it. */
    if (wanted - memory->gone_bytes > memory->limit_bytes)
        make_room(store);
    store_retry_later(store);
    return false;
}

/* Damage that was found at this start or an earlier one is marked, however full the index was. */
static uint64_t damage_bytes(const struct store *store)
{
    uint64_t bytes = 0;

    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        for (uint32_t i = 0; i < stream->segment_count; i++)
            for (uint32_t n = 0; n < stream->segments[i]->mark_count; n++)
                if (stream->segments[i]->marks[n].is_damaged)
                    bytes += segment_mark_bytes(0);
    return bytes;
}

/* An index that only its damage makes too large loses old segments; one that never fitted is left to the operator. */
static bool check_index(const struct store *store, struct status *st)
{
    const struct index_memory *memory = &store->index_memory;

    if (memory->used_bytes - damage_bytes(store) <= memory->limit_bytes)
        return true;
    return status_fail(
        st, STATUS_PRECONDITION,
        "the index of what is stored takes %llu bytes, a quarter of ram_budget_bytes is %llu: give at "
        "least %llu",
        (unsigned long long)memory->used_bytes, (unsigned long long)memory->limit_bytes,
        4 * (unsigned long long)memory->used_bytes);
}

/* Now; after a power cut more may be there. */
static uint64_t bytes_there(const struct store *store)
{
    return store->disk_used_bytes - store->unsynced_bytes;
}

static bool is_beyond_budget(const struct store *store)
{
    return bytes_there(store) > store->options.disk_bytes ||
           store->index_memory.used_bytes > store->index_memory.limit_bytes;
}

bool store_fit_budget(struct store *store, struct status *st)
{
    const struct segment *kept =
        NULL; /* the first that could not be removed: when its turn comes again, none can */

    if (!check_index(store, st))
        return false;
    while (is_beyond_budget(store)) {
        const struct stream_hold *held;
        struct segment *segment = oldest_removable(store, &held);
        uint64_t bytes = bytes_there(store);

        if (segment != NULL && segment != kept && !start_removal(store, segment))
            return status_fail(st, STATUS_EXHAUSTED, "no memory to remove %s", segment->base);
        if (segment == NULL || segment == kept)
            return status_fail(
                st, STATUS_PRECONDITION,
                "what cannot be removed%s takes %llu bytes of disk_budget_bytes %llu, and its index "
                "%llu of %llu",
                segment == NULL && held != NULL ? ", for it is held," : "",
                (unsigned long long)store->disk_used_bytes, (unsigned long long)store->options.disk_bytes,
                (unsigned long long)store->index_memory.used_bytes,
                (unsigned long long)store->index_memory.limit_bytes);
        while (store->removal != NULL)
            loop_run_once(store->loop);
        if (kept == NULL && bytes_there(store) == bytes)
            kept = segment;
    }
    return true;
}
