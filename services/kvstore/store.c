/* The store's state and its budgets. What it does at start is in store_load.c. */
#include "kvstore/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/require.h"

enum {
    RETRY_MS = 200,
    SEGMENT_SHARE = 4, /* open segments together take at most this part of the disk */
    SEGMENT_BYTES_MIN = 1 << 20,
};

/* --- the list of streams --- */

static int compare_names(const struct stream *stream, const char *ns, const char *name)
{
    int order = strcmp(stream->ns, ns);

    return order != 0 ? order : strcmp(stream->name, name);
}

struct stream *store_find(const struct store *store, const char *ns, const char *name)
{
    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (compare_names(stream, ns, name) == 0)
            return stream->is_ready && stream->deletion == NULL ? stream : NULL;
    return NULL;
}

static struct stream *first_ready(struct stream *stream)
{
    while (stream != NULL && (!stream->is_ready || stream->deletion != NULL))
        stream = stream->next;
    return stream;
}

struct stream *store_next(const struct store *store, const char *ns, const char *name)
{
    struct stream *stream = store->streams;

    while (ns != NULL && stream != NULL && compare_names(stream, ns, name) <= 0)
        stream = stream->next;
    return first_ready(stream);
}

struct stream *store_after(const struct stream *stream)
{
    return first_ready(stream->next);
}

bool store_add_stream(struct store *store, struct stream *stream, struct status *st)
{
    struct stream **link = &store->streams;

    while (*link != NULL && compare_names(*link, stream->ns, stream->name) < 0)
        link = &(*link)->next;
    if (*link != NULL && compare_names(*link, stream->ns, stream->name) == 0)
        return status_fail(st, STATUS_EXISTS, "stream %s/%s exists already%s", stream->ns, stream->name,
                           (*link)->deletion != NULL ? " (it is being removed; try again)" : "");
    if (store->stream_count >= LIMIT_STREAMS)
        return status_fail(st, STATUS_EXHAUSTED, "this store has %d streams, its limit; use another store",
                           LIMIT_STREAMS);
    stream->next = *link;
    *link = stream;
    store->stream_count++;
    store->disk_used_bytes += STORE_STREAM_DISK_BYTES;
    return true;
}

void store_remove_stream(struct store *store, struct stream *stream)
{
    struct stream **link = &store->streams;

    while (*link != stream)
        link = &(*link)->next;
    *link = stream->next;
    store->stream_count--;
    store->disk_used_bytes -= STORE_STREAM_DISK_BYTES;
}

uint64_t store_frames(const struct store *store)
{
    uint64_t frames = 0;

    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        frames += stream_frame_count(stream);
    return frames;
}

uint64_t store_ram_used(const struct store *store)
{
    return ram_used_bytes(store->arena, RAM_IMAGES) + ram_used_bytes(store->arena, RAM_SLICES) +
           store->index_memory.used_bytes;
}

/* --- the disk budget --- */

uint64_t store_segment_bytes(const struct store *store)
{
    uint64_t writers = store->writer_count == 0 ? 1 : store->writer_count;
    uint64_t bytes = store->options.disk_bytes / SEGMENT_SHARE / writers;

    if (bytes > store->options.segment_bytes_max)
        bytes = store->options.segment_bytes_max;
    return bytes < SEGMENT_BYTES_MIN ? SEGMENT_BYTES_MIN : bytes;
}

static void age_add(struct store *store, struct segment *segment)
{
    struct segment *after = store->newest;

    while (after != NULL && after->super.created_ns > segment->super.created_ns)
        after = after->age_prev;
    segment->age_prev = after;
    segment->age_next = after == NULL ? store->oldest : after->age_next;
    if (segment->age_next != NULL)
        segment->age_next->age_prev = segment;
    else
        store->newest = segment;
    if (after != NULL)
        after->age_next = segment;
    else
        store->oldest = segment;
}

static void age_remove(struct store *store, struct segment *segment)
{
    if (segment->age_prev != NULL)
        segment->age_prev->age_next = segment->age_next;
    else if (store->oldest == segment)
        store->oldest = segment->age_next;
    if (segment->age_next != NULL)
        segment->age_next->age_prev = segment->age_prev;
    else if (store->newest == segment)
        store->newest = segment->age_prev;
    segment->age_next = segment->age_prev = NULL;
}

void store_segment_sealed(struct store *store, struct segment *segment)
{
    age_add(store, segment);
    store_room_changed(store);
}

void store_segment_gone(struct store *store, struct segment *segment)
{
    age_remove(store, segment);
    store->disk_used_bytes -= segment->disk_bytes;
    segment_destroy(segment);
}

void store_adjust_disk(struct store *store, struct segment *segment, uint64_t bytes)
{
    store->disk_used_bytes += bytes - segment->disk_bytes;
    segment->disk_bytes = bytes;
}

/* Segments that wait for room ask again. */
void store_room_changed(struct store *store)
{
    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (stream->waits_for_room)
            stream_pump(stream);
}

/* Removes one segment's file; the store does one at a time. */
struct removal {
    struct work work;
    struct store *store;
    struct segment *segment; /* out of its stream already */
    char *history;
    bool ok;
    struct status st;
};

static bool save_history(const struct removal *removal, struct status *st)
{
    char path[PATH_MAX + 16];

    snprintf(path, sizeof path, "%s/history.json", removal->segment->stream->folder);
    return file_write_durable(path, removal->history, strlen(removal->history), st);
}

static bool unlink_segment(const struct removal *removal, struct status *st)
{
    static const char *const suffixes[] = { ".seg", ".open" };
    const struct disk_ops *disk = removal->store->disk;
    char path[PATH_MAX + 8];

    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        snprintf(path, sizeof path, "%s%s", removal->segment->base, suffixes[i]);
        if (disk->unlink(path) != 0 && errno != ENOENT)
            return status_fail(st, status_code_of_errno(errno), "remove %s: %m", path);
    }
    *strrchr(path, '/') = '\0';
    rmdir(path); /* the epoch's folder, when this was its last */
    return true;
}

/* What the history says must be on the disk before the file has gone; only a disk without room for even that
 * turns the order round. */
static void removal_run(struct work *work)
{
    struct removal *removal = container_of(work, struct removal, work);
    bool is_saved = save_history(removal, &removal->st);

    if (!is_saved && removal->st.code != STATUS_EXHAUSTED)
        return;
    removal->ok = unlink_segment(removal, &removal->st) && (is_saved || save_history(removal, &removal->st));
}

static void removal_done(struct work *work)
{
    struct removal *removal = container_of(work, struct removal, work);
    struct store *store = removal->store;
    struct stream *stream = removal->segment->stream;
    const struct log_context context = { .stream = stream->name };

    store->removal = NULL;
    if (removal->ok) {
        store_segment_gone(store, removal->segment);
    } else {
        /* Its bytes stay counted; the next start finds the file again. */
        log_error(&context, "segment_not_removed", "%s", removal->st.text);
        age_remove(store, removal->segment);
        segment_destroy(removal->segment);
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

static struct segment *oldest_removable(const struct store *store)
{
    struct segment *segment = store->oldest;

    while (segment != NULL && (segment->is_leaving || segment_is_busy(segment)))
        segment = segment->age_next;
    return segment;
}

static bool start_removal(struct store *store, struct segment *segment)
{
    struct removal *removal = calloc(1, sizeof *removal);
    struct stream *stream = segment->stream;
    const struct log_context context = { .stream = stream->name };

    if (removal == NULL)
        return false;
    segment->is_leaving = true;
    log_debug(&context, "segment_leaves", "%s with %llu frames makes room", segment->base,
              (unsigned long long)segment->index.frame_count);
    stream_release_segment(stream, segment);
    removal->store = store;
    removal->segment = segment;
    removal->history = history_text(&stream->history);
    removal->work = (struct work){ .run = removal_run, .done = removal_done };
    store->removal = removal;
    REQUIRE(work_pool_submit(store->writing, &removal->work));
    return true;
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
    struct segment *segment;

    if (store->removal != NULL)
        return;
    segment = oldest_removable(store);
    if (segment != NULL && start_removal(store, segment))
        return;
    if (!close_large_segments(store))
        store_retry_later(store);
}

bool store_reserve_disk(struct store *store, struct segment *segment, uint64_t bytes)
{
    if (store->disk_used_bytes + bytes <= store->options.disk_bytes) {
        store->disk_used_bytes += bytes;
        segment->disk_bytes = bytes;
        return true;
    }
    segment->stream->waits_for_room = true;
    make_room(store);
    return false;
}

bool store_has_index_room(struct store *store, const struct segment *segment)
{
    uint64_t growth = index_part_growth(&segment->index, &segment->super.geometry);

    if (store->index_memory.used_bytes + growth <= store->index_memory.limit_bytes)
        return true;
    make_room(store);
    return false;
}

bool store_fit_budget(struct store *store, struct status *st)
{
    while (store->disk_used_bytes > store->options.disk_bytes) {
        struct segment *segment = oldest_removable(store);

        if (segment == NULL || !start_removal(store, segment))
            return status_fail(st, STATUS_PRECONDITION,
                               "what cannot be removed takes %llu bytes, more than disk_budget_bytes %llu",
                               (unsigned long long)store->disk_used_bytes,
                               (unsigned long long)store->options.disk_bytes);
        while (store->removal != NULL)
            loop_run_once(store->loop);
    }
    return true;
}

/* --- waiting for RAM --- */

void store_wait_for_ram(struct store *store, struct ram_waiter *waiter)
{
    REQUIRE(!waiter->is_waiting);
    waiter->is_waiting = true;
    waiter->next = NULL;
    *store->ram_waiters_end = waiter;
    store->ram_waiters_end = &waiter->next;
    store_retry_later(store);
}

void store_stop_waiting(struct store *store, struct ram_waiter *waiter)
{
    struct ram_waiter **link = &store->ram_waiters;

    if (!waiter->is_waiting)
        return;
    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
    if (*link == NULL)
        store->ram_waiters_end = link;
    waiter->is_waiting = false;
}

/* In the order of waiting; the first that still gets nothing keeps its place and ends the round. */
void store_ram_freed(struct store *store)
{
    while (store->ram_waiters != NULL) {
        struct ram_waiter *waiter = store->ram_waiters;

        store_stop_waiting(store, waiter);
        if (waiter->retry(waiter))
            continue;
        waiter->is_waiting = true;
        waiter->next = store->ram_waiters;
        if (store->ram_waiters == NULL)
            store->ram_waiters_end = &waiter->next;
        store->ram_waiters = waiter;
        return;
    }
}

/* --- timers --- */

static void retry_all(struct loop_timer *timer)
{
    struct store *store = container_of(timer, struct store, retry_timer);

    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next) {
        stream_pump_saves(stream);
        stream_pump(stream);
        if (stream->deletion != NULL)
            stream_continue_deletion(stream);
    }
    store_ram_freed(store);
    store_reads_retry(store);
    if (store->ram_waiters != NULL)
        store_retry_later(store);
}

void store_retry_later(struct store *store)
{
    if (!loop_timer_is_running(&store->retry_timer))
        loop_timer_start(store->loop, &store->retry_timer, RETRY_MS, retry_all);
}

static bool has_undurable(const struct store *store)
{
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (stream_durable_seq(stream) < stream->next_seq || !stream_is_durable(stream))
            return true;
    return false;
}

static void commit_all(struct loop_timer *timer)
{
    struct store *store = container_of(timer, struct store, commit_timer);

    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        stream_commit(stream);
    if (has_undurable(store))
        store_start_commits(store);
}

void store_start_commits(struct store *store)
{
    if (!loop_timer_is_running(&store->commit_timer))
        loop_timer_start(store->loop, &store->commit_timer, store->options.commit_ms, commit_all);
}

/* --- closing --- */

static bool is_quiet(const struct store *store)
{
    if (store->removal != NULL || store->warm_up != NULL)
        return false;
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next) {
        if (stream->saves != NULL || stream->deletion != NULL)
            return false;
        for (uint32_t i = 0; i < stream->segment_count; i++)
            if (stream->segments[i]->writer != NULL || stream->segments[i]->reads > 0)
                return false;
    }
    return true;
}

/* A disk that takes nothing must not keep the process from ending: what is not durable then was never acked so. */
static void give_up(struct store *store)
{
    log_error(NULL, "store_closes_with_unwritten_blocks", "the disk takes nothing; their writers have them");
    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        for (uint32_t i = 0; i < stream->segment_count; i++)
            segment_abandon(stream->segments[i]);
}

/* That it no longer runs is all that is asked of it. */
static void close_timeout(struct loop_timer *timer)
{
}

static void drain(struct store *store)
{
    enum { CLOSE_MS = 20000 };
    struct loop_timer limit = { 0 };
    bool gave_up = false;

    loop_timer_start(store->loop, &limit, CLOSE_MS, close_timeout);
    while (!is_quiet(store)) {
        if (!loop_timer_is_running(&limit) && !gave_up) {
            give_up(store);
            gave_up = true;
            continue;
        }
        loop_run_once(store->loop);
    }
    loop_timer_stop(&limit);
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    store->is_closing = true;
    if (store->writing != NULL) {
        for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
            for (uint32_t i = 0; i < stream->segment_count; i++)
                segment_close(stream->segments[i]);
        drain(store);
    }
    loop_timer_stop(&store->commit_timer);
    loop_timer_stop(&store->retry_timer);
    work_pool_destroy(store->reading);
    work_pool_destroy(store->writing);
    while (store->streams != NULL) {
        struct stream *stream = store->streams;

        store->streams = stream->next;
        stream_free(stream);
    }
    ram_arena_destroy(store->arena);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store);
}
