/* Timeline: what a stream has, had and never had, as spans in the order of numbers. */
#include <stdlib.h>
#include <string.h>

#include "kvstore/kvstore.h"
#include "kvstore/slice_read.h"

enum { PAGE_DEFAULT = 1000, PAGE_MAX = 10000 };

struct timeline {
    Reelkv__V1__TimelineSpan *spans; /* in the call's memory */
    Reelkv__V1__TimelineSpan **list;
    uint32_t count, room;
    uint64_t after_seq, next_seq;
    int64_t from_ns, to_ns;
};

static bool is_like(const Reelkv__V1__TimelineSpan *a, const Reelkv__V1__TimelineSpan *b)
{
    return a->to_seq == b->from_seq && a->result == b->result && a->in_ram == b->in_ram &&
           strcmp(a->reason, b->reason) == 0;
}

/* False: the page is full, and next_seq says where the next begins. */
static bool add(struct timeline *timeline, const Reelkv__V1__TimelineSpan *span)
{
    Reelkv__V1__TimelineSpan *last = timeline->count == 0 ? NULL : timeline->list[timeline->count - 1];

    if (span->to_seq <= timeline->after_seq || span->to_pts_ns < timeline->from_ns ||
        span->from_pts_ns >= timeline->to_ns)
        return true;
    if (last != NULL && is_like(last, span)) {
        last->to_seq = span->to_seq;
        last->to_pts_ns = span->to_pts_ns;
        last->bytes += span->bytes;
        return true;
    }
    if (timeline->count == timeline->room) {
        timeline->next_seq = span->from_seq;
        return false;
    }
    timeline->spans[timeline->count] = *span;
    timeline->list[timeline->count] = &timeline->spans[timeline->count];
    timeline->count++;
    return true;
}

static bool add_gone(struct timeline *timeline, const struct history_span *from,
                     Reelkv__V1__FrameResult result)
{
    Reelkv__V1__TimelineSpan span = REELKV__V1__TIMELINE_SPAN__INIT;

    span.from_seq = from->from_seq;
    span.to_seq = from->to_seq;
    span.from_pts_ns = from->from_pts_ns;
    span.to_pts_ns = from->to_pts_ns;
    span.result = result;
    return add(timeline, &span);
}

/* How many spans of each are told already. */
struct told {
    uint32_t removed, lost;
};

static const struct history_span *next_before(const struct history *history, uint32_t at, uint64_t end_seq)
{
    return history != NULL && at < history->count && history->spans[at].from_seq < end_seq
               ? &history->spans[at]
               : NULL;
}

/* What no segment has any more, or has a mark of, and begins before this number. */
static bool add_absent(struct timeline *timeline, const struct stream *stream, struct told *told,
                       uint64_t end_seq)
{
    for (;;) {
        const struct history_span *removed = next_before(&stream->history, told->removed, end_seq);
        const struct history_span *lost = next_before(stream->lost, told->lost, end_seq);

        if (removed == NULL && lost == NULL)
            return true;
        if (removed == NULL || (lost != NULL && lost->from_seq < removed->from_seq)) {
            if (!add_gone(timeline, lost, REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED))
                return false;
            told->lost++;
        } else {
            if (!add_gone(timeline, removed,
                          removed->frames == 0 ? REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP
                                               : REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED))
                return false;
            told->removed++;
        }
    }
}

static Reelkv__V1__FrameResult result_of_frame(const struct index_frame *frame)
{
    if (frame->is_quarantined)
        return REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED;
    if (!frame->has_slices || frame->is_forgotten)
        return REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED;
    return frame->encoding.bits != 0 ? REELKV__V1__FRAME_RESULT__FRAME_RESULT_DERIVED
                                     : REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK;
}

static const char *reason_of_frame(const struct index_frame *frame)
{
    if (frame->is_forgotten)
        return "forgotten";
    if (!frame->has_slices)
        return "keys and thumbnail are left";
    return frame->encoding.bits == 8 ? "8 bit" : frame->encoding.bits == 4 ? "4 bit" : "";
}

static bool add_frame(struct timeline *timeline, const struct index_frame *frame)
{
    Reelkv__V1__TimelineSpan span = REELKV__V1__TIMELINE_SPAN__INIT;

    span.from_seq = frame->seq;
    span.to_seq = frame->seq + 1;
    span.from_pts_ns = span.to_pts_ns = frame->pts_ns;
    span.result = result_of_frame(frame);
    span.reason = (char *)(uintptr_t)reason_of_frame(frame);
    span.bytes = frame->record_bytes;
    span.in_ram = index_frame_is_in_ram(frame);
    return add(timeline, &span);
}

static bool add_mark(struct timeline *timeline, const struct segment_mark *mark)
{
    Reelkv__V1__TimelineSpan span = REELKV__V1__TIMELINE_SPAN__INIT;

    if (mark->type == KV_RECORD_EVENT || mark->seq == mark->end_seq)
        return true;
    span.from_seq = mark->seq;
    span.to_seq = mark->end_seq;
    span.from_pts_ns = mark->pts_ns;
    span.to_pts_ns = mark->end_pts_ns;
    span.result = mark->is_damaged                    ? REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED
                  : mark->type == KV_RECORD_TOMBSTONE ? REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED
                                                      : REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP;
    if (mark->note != NULL)
        span.reason = mark->note;
    else if (mark->type == KV_RECORD_TOMBSTONE)
        span.reason = (char *)(uintptr_t)kv_tombstone_text(mark->event);
    return add(timeline, &span);
}

static bool add_segment(struct timeline *timeline, const struct segment *segment)
{
    struct segment_cursor cursor = { 0 };
    const struct segment_mark *mark;
    const struct index_frame *frame;

    while (segment_next(segment, &cursor, &frame, &mark))
        if (frame != NULL ? !add_frame(timeline, frame) : !add_mark(timeline, mark))
            return false;
    return true;
}

static bool fill(struct timeline *timeline, const struct stream *stream)
{
    struct told told = { 0 };

    for (uint32_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];

        if (!add_absent(timeline, stream, &told, segment->super.first_seq) || !add_segment(timeline, segment))
            return false;
    }
    return add_absent(timeline, stream, &told, UINT64_MAX);
}

void kvstore_timeline(struct rpc_call *call, void *state)
{
    const Reelkv__V1__TimelineRequest *request =
        (const Reelkv__V1__TimelineRequest *)rpc_call_request(call)->body;
    Reelkv__V1__TimelineReply reply = REELKV__V1__TIMELINE_REPLY__INIT;
    struct timeline timeline = { .room = request->page_size == 0 ? PAGE_DEFAULT : request->page_size,
                                 .after_seq = request->after_seq,
                                 .from_ns = INT64_MIN,
                                 .to_ns = INT64_MAX };
    const struct stream *stream;
    struct status st = { 0 };

    stream = kvstore_stream_of(state, request->id, &st);
    if (timeline.room > PAGE_MAX)
        timeline.room = PAGE_MAX;
    if (request->range != NULL) {
        timeline.from_ns = request->range->from_ns;
        timeline.to_ns = request->range->to_ns == 0 ? INT64_MAX : request->range->to_ns;
    }
    timeline.spans = arena_alloc(rpc_call_arena(call), timeline.room * sizeof *timeline.spans);
    timeline.list = arena_alloc(rpc_call_arena(call), timeline.room * sizeof *timeline.list);
    if (stream != NULL && (timeline.spans == NULL || timeline.list == NULL)) {
        status_fail(&st, STATUS_EXHAUSTED, "a page of %u spans is too large", timeline.room);
        stream = NULL;
    }
    if (stream == NULL) {
        rpc_call_finish(call, &st);
        return;
    }
    fill(&timeline, stream);
    reply.n_spans = timeline.count;
    reply.spans = timeline.list;
    reply.next_seq = timeline.next_seq;
    rpc_call_reply(call, &reply.base, NULL);
}
