/* The store's streams, those who wait for RAM, its timers and its end. Its budgets are in store_budget.c, its start in
 * store_load.c. */
#include "kvstore/store.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/require.h"
#include "kvstore/segment_age.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"
#include "kvstore/stream_rival.h"

enum { RETRY_MS = 200, NAME_AGAIN_MS = 200 };

/* --- the list of streams --- */

int store_compare(const struct stream *stream, const char *ns, const char *name)
{
    int order = strcmp(stream->ns, ns);

    return order != 0 ? order : strcmp(stream->name, name);
}

static bool is_listed(const struct stream *stream)
{
    return stream->is_ready && !stream->is_importing && stream->deletion == NULL;
}

struct stream *store_find(const struct store *store, const char *ns, const char *name)
{
    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (store_compare(stream, ns, name) == 0)
            return is_listed(stream) && !stream->is_set_aside ? stream : NULL;
    return NULL;
}

bool store_say_absent(const struct store *store, const char *ns, const char *name, struct status *st)
{
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (stream->is_set_aside && store_compare(stream, ns, name) == 0)
            return status_fail(st, STATUS_DATA_LOSS, "%s", stream->trouble);
    return status_fail(st, STATUS_NOT_FOUND, "stream %s/%s is not in store %s", ns, name,
                       store->options.name);
}

static struct stream *first_listed(struct stream *stream)
{
    while (stream != NULL && !is_listed(stream))
        stream = stream->next;
    return stream;
}

struct stream *store_next(const struct store *store, const char *ns, const char *name)
{
    struct stream *stream = store->streams;

    while (ns != NULL && stream != NULL && store_compare(stream, ns, name) <= 0)
        stream = stream->next;
    return first_listed(stream);
}

struct stream *store_after(const struct stream *stream)
{
    return first_listed(stream->next);
}

/* One that is on its way out will not have it for long. */
static bool refuse_name(const struct stream *stream, struct status *st)
{
    if (stream->is_left_over)
        return status_fail(
            st, STATUS_ABORTED,
            "stream %s/%s could not be removed, and keeps its name until this store starts again", stream->ns,
            stream->name);
    if (stream->deletion == NULL)
        return status_fail(st, STATUS_EXISTS, "stream %s/%s exists already", stream->ns, stream->name);
    status_fail(st, STATUS_ABORTED, "stream %s/%s is still being removed; try again", stream->ns,
                stream->name);
    st->retry_after_ms = NAME_AGAIN_MS;
    return false;
}

bool store_add_stream(struct store *store, struct stream *stream, struct status *st)
{
    struct stream **link = &store->streams;

    while (*link != NULL && store_compare(*link, stream->ns, stream->name) < 0)
        link = &(*link)->next;
    if (*link != NULL && store_compare(*link, stream->ns, stream->name) == 0)
        return refuse_name(*link, st);
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
    stream_import_release(stream);
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
           store->index_memory.used_bytes + store->index_memory.sketch_bytes;
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
        stream_progress(stream);
    }
    store_ram_freed(store);
    keys_start(store);
    keys_retry(store);
    store_reads_retry(store);
    if (store->ram_waiters != NULL || store->keys_later.first != NULL)
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
    if (store->removal != NULL || store->ages != NULL || store->warm_up != NULL || store->scrub.job != NULL ||
        store->sketches.is_running)
        return false;
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next) {
        if (stream->saves != NULL || stream->deletion != NULL || !stream_rivals_are_idle(stream))
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

    segment_age_pump(store);
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
    keys_retry(store); /* who waits is told */
    store_ageing_stop(store);
    scrub_stop(store);
    sketches_stop(store);
    if (store->writing != NULL) {
        for (struct stream *stream = store->streams; stream != NULL; stream = stream->next)
            for (uint32_t i = 0; i < stream->segment_count; i++)
                segment_close(stream->segments[i]);
        drain(store);
    }
    loop_timer_stop(&store->commit_timer);
    loop_timer_stop(&store->retry_timer);
    loop_timer_stop(&store->age_timer);
    loop_timer_stop(&store->wipe_timer);
    work_pool_destroy(store->reading_ahead);
    scrub_close(store);
    work_pool_destroy(store->reading);
    uring_destroy(store->ring);
    store->ring = NULL;
    work_pool_destroy(store->computing);
    work_pool_destroy(store->ageing);
    work_pool_destroy(store->writing);
    while (store->streams != NULL) {
        struct stream *stream = store->streams;

        store->streams = stream->next;
        stream_free(stream);
    }
    ram_arena_destroy(store->arena);
    if (store->lock_fd >= 0)
        store->disk->close(store->lock_fd);
    free(store);
}
