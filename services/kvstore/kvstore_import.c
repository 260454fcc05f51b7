/* Append with an import: the stream is made when the call begins, seen when it ends well, removed when it does not. */
#include <string.h>

#include "base/log.h"
#include "base/require.h"
#include "kvstore/kvstore_append.h"
#include "kvstore/kvstore_directory.h"

static bool read_gone(const Reelkv__V1__ExportHead *head, struct history *history, struct status *st)
{
    uint64_t at = 0;

    memset(history, 0, sizeof *history);
    for (size_t i = 0; i < head->n_gone; i++) {
        const Reelkv__V1__ExportGone *gone = head->gone[i];
        const struct history_span span = { gone->from_seq, gone->to_seq, gone->from_pts_ns, gone->to_pts_ns,
                                           gone->frames };

        if (span.from_seq != at || span.to_seq <= at || span.frames > span.to_seq - at)
            return status_fail(st, STATUS_INVALID, "import: what has gone before its first number has holes");
        history_add(history, &span);
        at = span.to_seq;
    }
    if (at != head->first_seq || at >= STREAM_NUMBER_MAX)
        return status_fail(st, STATUS_INVALID,
                           "import: it begins with number %llu, and numbers before it are told up to %llu",
                           (unsigned long long)head->first_seq, (unsigned long long)at);
    history->next_seq = at;
    return true;
}

static void removed(void *user, struct stream *stream, const struct status *failure)
{
    (void)user;
    (void)stream;
    if (failure != NULL)
        log_error(NULL, "import_not_removed", "%s; the next start removes it", failure->text);
}

/* Before it was seen by anybody. */
static void abandon(struct stream *stream)
{
    struct stream_removed sizes;
    struct status st;

    if (!stream_delete(stream, &sizes, removed, NULL, &st))
        removed(NULL, NULL, &st);
}

static void started(void *user, struct stream *stream, const struct status *failure)
{
    struct append *append = user;
    struct status st = { 0 };

    append->is_saving = false;
    if (append->call == NULL) { /* it ended meanwhile */
        if (failure == NULL)
            abandon(stream);
        append_free(append);
        return;
    }
    if (failure != NULL) {
        append_finish(append, failure);
        return;
    }
    REQUIRE(stream_attach(stream, stream->epoch, &append->writer, &st)); /* nobody else can see it */
    append->stream = stream;
    append_send_ack(append);
    append_read_next(append);
}

bool append_begin_import(struct append *append, const Reelkv__V1__AppendBegin *message, struct status *st)
{
    const Reelkv__V1__ExportHead *head = message->import;
    struct stream_definition definition = { 0 };
    struct stream_import import = { .definition = &definition, .frames = head->frames, .bytes = head->bytes };
    struct history history;

    if (!kvstore_read_id(message->id, st) ||
        !kvstore_read_fingerprint(&head->fingerprint, import.fingerprint, st) ||
        !kvstore_read_definition(head->definition, append->kvstore->options->sample_fps, &definition, st) ||
        !read_gone(head, &history, st))
        return false;
    if (head->geometry == NULL)
        return status_fail(st, STATUS_INVALID, "import: it has no geometry");
    if (message->shm_pool != 0 || message->epoch != 0)
        return status_fail(st, STATUS_INVALID, "import: its blocks come in chunks, and it has no epoch");
    import.ns = message->id->namespace_;
    import.name = message->id->name;
    import.geometry = (struct kv_geometry){ .layers = head->geometry->layers,
                                            .kv_heads = head->geometry->kv_heads,
                                            .head_dim = head->geometry->head_dim,
                                            .dtype = (enum kv_dtype)head->geometry->dtype };
    import.history = &history;
    if (!kv_geometry_check(&import.geometry, st))
        return false;
    append->is_saving = stream_import(append->kvstore->store, &import, started, append, st);
    return append->is_saving;
}

static void seen(void *user, struct stream *stream, const struct status *failure)
{
    struct append *append = user;

    append->is_saving = false;
    if (failure == NULL)
        kvstore_directory_changed(append->kvstore->directory, stream);
    if (append->call != NULL) {
        append_finish(append, failure);
        return;
    }
    if (failure != NULL)
        abandon(append->imported);
    append_free(append);
}

void append_finish_import(struct append *append)
{
    struct status st = { 0 };

    if (append->imported != NULL)
        return; /* being finished, or finished, already */
    if (!append->stream->has_ended) {
        status_fail(&st, STATUS_INVALID, "import: it has no end");
        append_finish(append, &st);
        return;
    }
    append->imported = append->stream;
    append->is_saving = stream_finish_import(append->stream, seen, append, &st);
    if (!append->is_saving)
        append_finish(append, &st);
}

void append_leave_import(struct stream *stream)
{
    if (stream->is_importing && !stream->is_finishing)
        abandon(stream);
}
