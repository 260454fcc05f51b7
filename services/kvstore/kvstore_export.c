/* Export: what a stream has in a range of time, in the order of numbers, for another store to take in by Append. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"
#include "kvstore/block_sender.h"
#include "kvstore/kvstore.h"

enum { RETRY_AFTER_MS = 100 };

/* What was evicted or damaged is not told apart: neither will ever be read again. */
static const char *const not_exported = "not in the export: removed, or damaged, before";

struct export_gap {
    uint64_t from_seq, to_seq;
    int64_t from_pts_ns, to_pts_ns;
    char *reason;
};

enum export_step { EXPORT_HEAD, EXPORT_INIT, EXPORT_ITEMS, EXPORT_END };

struct export
{
    struct block_sender sender;
    struct kvstore *kvstore;
    struct rpc_call *call;
    struct view *view; /* holds the index's chunks */
    struct stream *stream;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    int64_t from_ns, to_ns;
    enum export_step step;
    uint32_t entry, bit;         /* of the view: the next frame */
    struct index_frame *at_hand; /* what the block at hand is read from; NULL: INIT */
    struct export_gap *gaps;
    uint32_t gap_count, next_gap;
    uint64_t first_seq, next_seq; /* next: the number that is told next */
    int64_t last_pts_ns;
    /* Behind the last of the numbers that the range covers, and when it was seen. 0: the stream goes on behind the range. */
    uint64_t end_seq;
    int64_t end_pts_ns;
};

static void fail(struct export *export, enum status_code code, const char *why)
{
    struct status st;

    status_fail(&st, code, "stream %s: %s", export->name, why);
    st.retry_after_ms = status_code_is_retryable(code) ? RETRY_AFTER_MS : 0;
    rpc_call_finish(export->call, &st);
}

/* --- what there is --- */

static struct index_frame *frame_at(const struct export *export)
{
    return export->entry == export->view->entry_count
               ? NULL
               : &export->view->entries[export->entry].chunk->frames[export->bit];
}

/* To the first frame at or behind the cursor. */
static void find_frame(struct export *export)
{
    while (export->entry < export->view->entry_count &&
           (export->bit == INDEX_CHUNK_FRAMES ||
            (export->view->entries[export->entry].mask >> export->bit & 1) == 0)) {
        if (++export->bit >= INDEX_CHUNK_FRAMES) {
            export->bit = 0;
            export->entry++;
        }
    }
}

static void next_frame(struct export *export)
{
    export->bit++;
    find_frame(export);
}

static bool is_wanted(const struct export *export, const struct segment_mark *mark)
{
    return mark->type == KV_RECORD_GAP && !mark->is_damaged && mark->end_seq > mark->seq &&
           mark->end_pts_ns >= export->from_ns && mark->pts_ns < export->to_ns;
}

/* They may leave with their segments while blocks are being sent. */
static bool gather_gaps(struct export *export, struct status *st)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < export->stream->segment_count; i++)
        count += export->stream->segments[i]->mark_count;
    export->gaps = calloc(count + 1, sizeof *export->gaps);
    if (export->gaps == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %u gaps", count);
    for (uint32_t i = 0; i < export->stream->segment_count; i++) {
        const struct segment *segment = export->stream->segments[i];

        for (uint32_t m = 0; m < segment->mark_count; m++) {
            const struct segment_mark *mark = &segment->marks[m];
            struct export_gap *gap = &export->gaps[export->gap_count];

            if (!is_wanted(export, mark))
                continue;
            *gap = (struct export_gap){ mark->seq, mark->end_seq, mark->pts_ns, mark->end_pts_ns,
                                        strdup(mark->note == NULL ? "" : mark->note) };
            if (gap->reason == NULL)
                return status_fail(st, STATUS_EXHAUSTED, "no memory for %u gaps", count);
            export->gap_count++;
        }
    }
    return true;
}

/* --- the head --- */

/* All numbers before the first: what has gone already, and what is left out. */
static void fill_gone(const struct export *export, struct history *gone)
{
    const struct stream *stream = export->stream;
    uint64_t at = 0;

    memset(gone, 0, sizeof *gone);
    for (uint32_t i = 0; i < stream->history.count; i++) {
        struct history_span span = stream->history.spans[i];

        if (span.from_seq >= export->first_seq)
            break;
        if (span.from_seq > at) { /* kept here, and left out: as if it had gone */
            const struct history_span left_out = { at, span.from_seq, span.from_pts_ns, span.from_pts_ns,
                                                   span.from_seq - at };

            history_add(gone, &left_out);
        }
        span.to_seq = span.to_seq < export->first_seq ? span.to_seq : export->first_seq;
        span.frames = span.frames < span.to_seq - span.from_seq ? span.frames : span.to_seq - span.from_seq;
        history_add(gone, &span);
        at = span.to_seq;
    }
    if (at < export->first_seq) {
        const struct history_span left_out = { at, export->first_seq, export->last_pts_ns,
                                               export->last_pts_ns, export->first_seq - at };

        history_add(gone, &left_out);
    }
}

static void sum_up(struct export *export, Reelkv__V1__ExportHead *head)
{
    const struct kv_geometry *geometry = &export->stream->geometry;
    uint32_t entry = export->entry, bit = export->bit;
    struct index_frame *frame;

    for (; (frame = frame_at(export)) != NULL; next_frame(export)) {
        head->frames++;
        head->bytes += kv_payload_bytes(geometry, frame->tokens) + frame->thumbnail_bytes;
    }
    export->entry = entry;
    export->bit = bit;
}

static bool write_head(struct export *export)
{
    Reelkv__V1__ExportReply reply = REELKV__V1__EXPORT_REPLY__INIT;
    Reelkv__V1__ExportHead head = REELKV__V1__EXPORT_HEAD__INIT;
    Reelkv__V1__ExportGone gone[HISTORY_SPANS_MAX], *list[HISTORY_SPANS_MAX];
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    const struct stream *stream = export->stream;
    struct kvstore_status status;
    struct history history;

    kvstore_fill_status(&status, stream, false);
    fill_gone(export, &history);
    for (uint32_t i = 0; i < history.count; i++) {
        const struct history_span *span = &history.spans[i];

        gone[i] = (Reelkv__V1__ExportGone)REELKV__V1__EXPORT_GONE__INIT;
        gone[i].from_seq = span->from_seq;
        gone[i].to_seq = span->to_seq;
        gone[i].from_pts_ns = span->from_pts_ns;
        gone[i].to_pts_ns = span->to_pts_ns;
        gone[i].frames = span->frames;
        list[i] = &gone[i];
    }
    geometry.layers = stream->geometry.layers;
    geometry.kv_heads = stream->geometry.kv_heads;
    geometry.head_dim = stream->geometry.head_dim;
    geometry.dtype = (Reelkv__V1__Dtype)stream->geometry.dtype;
    head.definition = &status.definition;
    head.fingerprint.data = (uint8_t *)(uintptr_t)stream->fingerprint;
    head.fingerprint.len = KV_FINGERPRINT_BYTES;
    head.geometry = &geometry;
    head.first_seq = export->first_seq;
    head.n_gone = history.count;
    head.gone = list;
    head.exported_ns = clock_utc_ns();
    sum_up(export, &head);
    reply.item_case = REELKV__V1__EXPORT_REPLY__ITEM_HEAD;
    reply.head = &head;
    return rpc_call_write(export->call, &reply.base, NULL);
}

/* --- items --- */

static bool write_block(struct rpc_call *call, Reelkv__V1__Block *block)
{
    Reelkv__V1__ExportReply reply = REELKV__V1__EXPORT_REPLY__INIT;

    reply.item_case = REELKV__V1__EXPORT_REPLY__ITEM_BLOCK;
    reply.block = block;
    return rpc_call_write(call, &reply.base, NULL);
}

static bool write_chunk(struct rpc_call *call, Reelkv__V1__Chunk *chunk, const struct rpc_attachment *bytes)
{
    Reelkv__V1__ExportReply reply = REELKV__V1__EXPORT_REPLY__INIT;

    reply.item_case = REELKV__V1__EXPORT_REPLY__ITEM_CHUNK;
    reply.chunk = chunk;
    return rpc_call_write(call, &reply.base, bytes);
}

static bool write_gap(struct export *export, const struct export_gap *from)
{
    Reelkv__V1__ExportReply reply = REELKV__V1__EXPORT_REPLY__INIT;
    Reelkv__V1__AppendGap gap = REELKV__V1__APPEND_GAP__INIT;

    gap.from_seq = from->from_seq;
    gap.to_seq = from->to_seq;
    gap.from_pts_ns = from->from_pts_ns;
    gap.to_pts_ns = from->to_pts_ns;
    gap.reason = from->reason;
    reply.item_case = REELKV__V1__EXPORT_REPLY__ITEM_GAP;
    reply.gap = &gap;
    if (!rpc_call_write(export->call, &reply.base, NULL))
        return false;
    export->next_seq = from->to_seq;
    export->last_pts_ns = from->to_pts_ns;
    return true;
}

/* The numbers up to what comes next are not there. */
static bool write_hole(struct export *export, uint64_t seq, int64_t pts_ns)
{
    const struct export_gap hole = { export->next_seq, seq, export->last_pts_ns, pts_ns,
                                     (char *)(uintptr_t)not_exported };

    return write_gap(export, &hole);
}

static bool write_tail(struct export *export)
{
    bool is_later = export->end_pts_ns > export->last_pts_ns;

    return write_hole(export, export->end_seq, is_later ? export->end_pts_ns : export->last_pts_ns);
}

static bool write_end(struct export *export)
{
    Reelkv__V1__ExportReply reply = REELKV__V1__EXPORT_REPLY__INIT;
    Reelkv__V1__AppendEnd end = REELKV__V1__APPEND_END__INIT;

    if (export->stream->has_ended)
        end.trouble = export->stream->trouble;
    reply.item_case = REELKV__V1__EXPORT_REPLY__ITEM_END;
    reply.end = &end;
    if (!rpc_call_write(export->call, &reply.base, NULL))
        return false;
    rpc_call_finish(export->call, NULL);
    return true;
}

enum progress { WENT_ON, WAITS };

static enum progress begin_block(struct export *export, struct index_frame *frame)
{
    export->at_hand = frame;
    if (block_sender_begin(&export->sender, export->stream, frame))
        return WENT_ON;
    fail(export, STATUS_EXHAUSTED, "no memory for a block");
    return WAITS;
}

/* The block at hand; what cannot be read any more becomes part of a hole. */
static enum progress send_block(struct export *export)
{
    enum frame_result result = block_sender_result(&export->sender);
    const struct index_frame *frame = export->step == EXPORT_INIT ? NULL : frame_at(export);
    bool has_bytes;

    if (result == 0)
        return WAITS;
    if (result == FRAME_UNAVAILABLE && export->at_hand != NULL &&
        export->at_hand->is_moved) { /* its file was rewritten while it was read */
        block_sender_end(&export->sender);
        return WENT_ON;
    }
    has_bytes = frame_result_has_bytes(result);
    if (result == FRAME_UNAVAILABLE || (!has_bytes && frame == NULL && result != FRAME_NOT_FOUND)) {
        fail(export, STATUS_UNAVAILABLE, "a block cannot be read now");
        return WAITS;
    }
    if (has_bytes && !block_sender_send(&export->sender))
        return WAITS;
    block_sender_end(&export->sender);
    if (frame == NULL) {
        export->step = EXPORT_ITEMS;
        return WENT_ON;
    }
    if (has_bytes) {
        export->next_seq = frame->seq + 1;
        export->last_pts_ns = frame->pts_ns;
    }
    next_frame(export);
    return WENT_ON;
}

static enum progress send_item(struct export *export)
{
    struct index_frame *frame = frame_at(export), *moved = frame;
    const struct export_gap *gap =
        export->next_gap < export->gap_count ? &export->gaps[export->next_gap] : NULL;
    bool is_gap = gap != NULL && (frame == NULL || gap->from_seq < frame->seq);

    if (frame == NULL && gap == NULL && export->next_seq < export->end_seq)
        return write_tail(export) ? WENT_ON : WAITS;
    if (frame == NULL && gap == NULL) {
        export->step = EXPORT_END;
        return WENT_ON;
    }
    if (is_gap && gap->to_seq <= export->next_seq) {
        export->next_gap++;
        return WENT_ON;
    }
    if (is_gap && gap->from_seq > export->next_seq)
        return write_hole(export, gap->from_seq, gap->from_pts_ns) ? WENT_ON : WAITS;
    if (is_gap) {
        export->next_gap += write_gap(export, gap);
        return export->next_seq == gap->to_seq ? WENT_ON : WAITS;
    }
    if (frame->seq > export->next_seq)
        return write_hole(export, frame->seq, frame->pts_ns) ? WENT_ON : WAITS;
    if (frame->is_moved)
        moved = stream_find(export->stream, frame->seq);
    if (moved != NULL)
        return begin_block(export, moved);
    next_frame(export); /* it went with the file that it was in */
    return WENT_ON;
}

static enum progress step(struct export *export)
{
    if (export->sender.block != NULL)
        return send_block(export);
    /* The stream may be removed while its blocks are being sent. */
    if (store_find(export->kvstore->store, export->ns, export->name) != export->stream) {
        fail(export, STATUS_NOT_FOUND, "it was removed");
        return WAITS;
    }
    switch (export->step) {
    case EXPORT_HEAD:
        if (!write_head(export))
            return WAITS;
        export->step = EXPORT_INIT;
        return WENT_ON;
    case EXPORT_INIT:
        return begin_block(export, NULL);
    case EXPORT_ITEMS:
        return send_item(export);
    case EXPORT_END:
        write_end(export);
        break;
    }
    return WAITS;
}

static void go_on(struct export *export)
{
    while (step(export) == WENT_ON)
        ;
}

static void block_came(struct block_sender *sender)
{
    go_on(container_of(sender, struct export, sender));
}

/* --- the call --- */

static bool start(struct export *export, const Reelkv__V1__ExportRequest *request, struct status *st)
{
    struct view_stream_name name;
    struct view_request view = { .streams = &name, .stream_count = 1, .from_ns = INT64_MIN };

    export->stream = kvstore_stream_of(export->kvstore, request->id, st);
    if (export->stream == NULL)
        return false;
    memcpy(export->ns, export->stream->ns, sizeof export->ns);
    memcpy(export->name, export->stream->name, sizeof export->name);
    memcpy(view.fingerprint, export->stream->fingerprint, KV_FINGERPRINT_BYTES);
    name = (struct view_stream_name){ export->ns, export->name };
    if (request->range != NULL) {
        view.from_ns = request->range->from_ns;
        view.to_ns = request->range->to_ns;
    }
    export->from_ns = view.from_ns;
    export->to_ns = view.to_ns == 0 ? INT64_MAX : view.to_ns;
    if (!view_create(&export->view, export->kvstore->store, &view, st) || !gather_gaps(export, st))
        return false;
    find_frame(export);
    if (frame_at(export) == NULL)
        return status_fail(st, STATUS_NOT_FOUND, "stream %s has no frame in that range", export->name);
    export->first_seq = frame_at(export)->seq;
    if (export->gap_count > 0 && export->gaps[0].from_seq < export->first_seq)
        export->first_seq = export->gaps[0].from_seq;
    export->next_seq = export->first_seq;
    export->last_pts_ns = frame_at(export)->pts_ns;
    export->end_pts_ns = export->stream->last_pts_ns;
    if (export->to_ns > export->end_pts_ns)
        export->end_seq = export->stream->next_seq;
    return true;
}

static void on_writable(struct rpc_call *call, void *user)
{
    (void)call;
    go_on(user);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct export *export = user;

    (void)call;
    block_sender_deinit(&export->sender);
    view_unref(export->view);
    for (uint32_t i = 0; i < export->gap_count; i++)
        free(export->gaps[i].reason);
    free(export->gaps);
    free(export);
}

void kvstore_export(struct rpc_call *call, void *state)
{
    struct export *export = calloc(1, sizeof *export);
    struct status st = { 0 };

    if (export == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more call");
        rpc_call_finish(call, &st);
        return;
    }
    export->kvstore = state;
    export->call = call;
    export->sender = (struct block_sender){ .kvstore = state,
                                            .call = call,
                                            .with_thumbnails = true,
                                            .takes_reduced = true,
                                            .write_block = write_block,
                                            .write_chunk = write_chunk,
                                            .go_on = block_came };
    rpc_call_set_user(call, export);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    if (start(export, (const Reelkv__V1__ExportRequest *)rpc_call_request(call)->body, &st))
        go_on(export);
    else
        rpc_call_finish(call, &st);
}
