/* Removing a stream from every tier: its writer is fenced, its blocks leave the index and RAM at once, its folder
 * is renamed (from then on it does not come back, whatever happens) and taken away; what of RAM had its blocks is zeroed. */
#include "kvstore/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/require.h"
#include "kvstore/segment_age.h"
#include "kvstore/segment_fetch.h"
#include "kvstore/store.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"
#include "kvstore/stream_rival.h"

struct stream_deletion {
    struct work work;
    struct stream *stream;
    bool is_running, ok;
    struct status st;
    stream_done_fn *done;
    void *user;
};

bool stream_remove_folder(const struct stream *stream, struct status *st)
{
    const struct file_ops *disk = stream->store->disk;
    char parent[STREAM_FOLDER_BYTES], gone[PATH_MAX];

    snprintf(parent, sizeof parent, "%s/v1/%s", stream->store->options.root, stream->ns);
    snprintf(gone, sizeof gone, "%s/.gone-%s", parent, stream->name);
    if (!file_remove_tree_on(disk, gone, st))
        return false;
    if (disk->rename(stream->folder, gone) != 0 && errno != ENOENT)
        return status_fail(st, status_code_of_errno(errno), "rename %s: %m", stream->folder);
    return file_sync_folder_on(disk, parent, st) && file_remove_tree_on(disk, gone, st) &&
           file_sync_folder_on(disk, parent, st); /* its bytes are given to others */
}

static void deletion_run(struct work *work)
{
    struct stream_deletion *deletion = container_of(work, struct stream_deletion, work);

    deletion->ok = stream_remove_folder(deletion->stream, &deletion->st);
}

static void forget(struct stream *stream)
{
    struct store *store = stream->store;

    stream_rivals_gone(stream);
    while (stream->segment_count > 0)
        store_segment_gone(store, stream->segments[--stream->segment_count]);
    store_remove_stream(store, stream);
    stream_free(stream);
    store_wipe_ram(store);
}

static void deletion_done(struct work *work)
{
    struct stream_deletion *deletion = container_of(work, struct stream_deletion, work);
    struct stream *stream = deletion->stream;
    struct store *store = stream->store;

    stream->deletion = NULL;
    if (deletion->ok) {
        forget(stream);
    } else {
        /* Its bytes stay counted, and no other takes its name and folder. */
        log_error(NULL, "stream_not_removed", "%s/%s: %s", stream->ns, stream->name, deletion->st.text);
        stream->is_ready = false;
        stream->is_left_over = true;
        for (uint32_t i = 0; i < stream->segment_count; i++)
            index_part_drop(&stream->segments[i]->index, store->arena);
    }
    deletion->done(deletion->user, NULL, deletion->ok ? NULL : &deletion->st);
    free(deletion);
    store_ram_freed(store);
}

static bool is_quiet(const struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (segment_is_busy(stream->segments[i]))
            return false;
    return stream->saves == NULL && !store_is_removing_from(stream->store, stream) &&
           !segment_age_is_of(stream->store, stream) && stream_rivals_are_idle(stream) &&
           stream_forget_is_idle(stream);
}

void stream_continue_deletion(struct stream *stream)
{
    struct stream_deletion *deletion = stream->deletion;

    if (deletion->is_running || !is_quiet(stream))
        return;
    for (uint32_t i = 0; i < stream->segment_count; i++)
        segment_fetch_close(stream->segments[i]);
    deletion->work = (struct work){ .run = deletion_run, .done = deletion_done };
    deletion->is_running = work_pool_submit(stream->store->writing, &deletion->work);
    if (!deletion->is_running)
        store_retry_later(stream->store);
}

/* Copies of them are secrets from now on. */
static void forget_frames(const struct segment *segment)
{
    for (uint64_t n = 0; n < segment->index.frame_count; n++)
        index_part_at(&segment->index, n)->is_forgotten = true;
}

bool stream_delete(struct stream *stream, struct stream_removed *removed, stream_done_fn *done, void *user,
                   struct status *st)
{
    const struct stream_hold *hold;
    struct stream_deletion *deletion;
    struct status why;

    if (stream->deletion != NULL)
        return status_fail(st, STATUS_NOT_FOUND, "stream %s is being removed", stream->name);
    hold = stream_hold_at(stream, 0);
    if (hold != NULL)
        return status_fail(st, STATUS_PRECONDITION, "stream %s is held by %s (%s): release its holds first",
                           stream->name, hold->owner, hold->reason);
    deletion = calloc(1, sizeof *deletion);
    if (deletion == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to remove stream %s", stream->name);
    *removed =
        (struct stream_removed){ .frames = stream_frame_count(stream), .bytes = stream_disk_bytes(stream) };
    deletion->stream = stream;
    deletion->done = done;
    deletion->user = user;
    stream->deletion = deletion;
    stream_import_release(stream);
    status_fail(&why, STATUS_NOT_FOUND, "stream %s was removed", stream->name);
    stream_fence_writer(stream, &why);
    stream_forget_leave(stream, &why);
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        segment_abandon(stream->segments[i]);
        forget_frames(stream->segments[i]);
        stream->segments[i]->is_leaving = true;
        if (!segment_is_busy(stream->segments[i])) /* a job may be reading the index */
            index_part_drop(&stream->segments[i]->index, stream->store->arena);
    }
    segment_age_pump(stream->store);
    stream_continue_deletion(stream);
    return true;
}
