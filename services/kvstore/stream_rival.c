#include "kvstore/stream_rival.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "base/log.h"
#include "base/name.h"
#include "kvstore/segment_file.h"
#include "kvstore/store.h"

enum { FIRST_MS = 1000, LAST_MS = 64000 };

struct rival {
    struct rival *next;
    struct segment *segment; /* NULL: it was unlinked, that alone is to be synced */
    uint64_t disk_bytes;
    char base[];
};

struct stream_rivals {
    struct stream *stream;
    struct rival *first;
    struct loop_timer timer;
    struct work work;
    uint64_t wait_ms;
    bool is_running, is_gone; /* the first one */
    struct status st;
};

bool stream_has_rivals(const struct stream *stream)
{
    return stream->rivals != NULL && stream->rivals->first != NULL;
}

bool stream_rivals_are_idle(const struct stream *stream)
{
    return stream->rivals == NULL || !stream->rivals->is_running;
}

/* Without memory for it, all of the stream is uncertain. */
static bool add(struct stream *stream, struct segment *segment, const char *base, uint64_t disk_bytes)
{
    struct rival **link, *rival = malloc(sizeof *rival + strlen(base) + 1);

    if (stream->rivals == NULL)
        stream->rivals = calloc(1, sizeof *stream->rivals);
    if (rival == NULL || stream->rivals == NULL) {
        free(rival);
        text_copy(stream->unusable, sizeof stream->unusable, base + strlen(stream->folder) + 1);
        return false;
    }
    stream->rivals->stream = stream;
    *rival = (struct rival){ .segment = segment, .disk_bytes = disk_bytes };
    memcpy(rival->base, base, strlen(base) + 1);
    link = &stream->rivals->first;
    while (*link != NULL)
        link = &(*link)->next;
    *link = rival;
    return true;
}

void stream_rival_add(struct segment *segment, const char *base, uint64_t disk_bytes)
{
    segment->has_rival = true;
    add(segment->stream, segment, base, disk_bytes);
}

bool stream_rival_add_unlinked(struct stream *stream, const char *base, uint64_t disk_bytes)
{
    if (!add(stream, NULL, base, disk_bytes))
        return false;
    stream->store->unsynced_bytes += disk_bytes;
    stream_rivals_start(stream);
    return true;
}

uint64_t stream_rival_retry_ms(const struct segment *segment)
{
    const struct stream_rivals *rivals = segment->stream->rivals;

    for (const struct rival *rival = rivals == NULL ? NULL : rivals->first; rival != NULL;
         rival = rival->next)
        if (rival->segment == segment)
            return rivals->wait_ms == 0 ? FIRST_MS : rivals->wait_ms;
    return 0;
}

/* --- again and again --- */

static void try_first(struct loop_timer *timer);

static void try_in(struct stream_rivals *rivals, uint64_t ms)
{
    if (!loop_timer_is_running(&rivals->timer))
        loop_timer_start(rivals->stream->store->loop, &rivals->timer, ms, try_first);
}

static void unlink_run(struct work *work)
{
    struct stream_rivals *rivals = container_of(work, struct stream_rivals, work);
    const struct file_ops *disk = rivals->stream->store->disk;

    rivals->is_gone = rivals->first->segment == NULL
                          ? segment_file_sync_removal(disk, rivals->first->base, &rivals->st)
                          : segment_file_remove(disk, rivals->first->base, &rivals->st);
}

static void drop_first(struct stream_rivals *rivals)
{
    struct rival *gone = rivals->first;
    struct store *store = rivals->stream->store;
    bool has_more = false;

    rivals->first = gone->next;
    store->disk_used_bytes -= gone->disk_bytes;
    for (const struct rival *rival = rivals->first; rival != NULL; rival = rival->next)
        has_more |= rival->segment == gone->segment;
    if (gone->segment != NULL)
        gone->segment->has_rival = has_more;
    else
        store->unsynced_bytes -= gone->disk_bytes;
    free(gone);
}

static void unlinked(struct work *work)
{
    struct stream_rivals *rivals = container_of(work, struct stream_rivals, work);
    struct stream *stream = rivals->stream;
    const struct log_context context = { .stream = stream->name };

    rivals->is_running = false;
    if (rivals->is_gone) {
        log_info(&context, "rival_removed", "%s", rivals->first->base);
        drop_first(rivals);
        rivals->wait_ms = 0;
        store_room_changed(stream->store);
    } else {
        rivals->wait_ms = rivals->wait_ms == 0        ? FIRST_MS
                          : rivals->wait_ms < LAST_MS ? 2 * rivals->wait_ms
                                                      : LAST_MS;
        log_error(&context, "segment_not_removed", "%s; trying again in %llu s", rivals->st.text,
                  (unsigned long long)rivals->wait_ms / 1000);
    }
    if (stream->deletion != NULL)
        stream_continue_deletion(stream);
    else if (rivals->first != NULL)
        try_in(rivals, rivals->wait_ms);
}

static void try_first(struct loop_timer *timer)
{
    struct stream_rivals *rivals = container_of(timer, struct stream_rivals, timer);
    struct store *store = rivals->stream->store;

    if (rivals->first == NULL || rivals->is_running || rivals->stream->deletion != NULL || store->is_closing)
        return;
    rivals->work = (struct work){ .run = unlink_run, .done = unlinked };
    rivals->is_running = work_pool_submit(store->writing, &rivals->work);
    if (!rivals->is_running)
        try_in(rivals, FIRST_MS);
}

void stream_rivals_start(struct stream *stream)
{
    if (stream_has_rivals(stream) && !stream->rivals->is_running)
        try_in(stream->rivals, FIRST_MS);
}

/* --- the end --- */

void stream_rivals_gone(struct stream *stream)
{
    while (stream_has_rivals(stream))
        drop_first(stream->rivals);
}

void stream_rivals_free(struct stream *stream)
{
    if (stream->rivals == NULL)
        return;
    loop_timer_stop(&stream->rivals->timer);
    while (stream->rivals->first != NULL) {
        struct rival *next = stream->rivals->first->next;

        free(stream->rivals->first);
        stream->rivals->first = next;
    }
    free(stream->rivals);
}
