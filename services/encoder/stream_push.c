/* stream_push.c - a stream's call to its analyzer: opened, aligned with what the store has, fed, opened again.
 *
 * A call is a struct of its own, because gRPC may still speak of it when the stream has turned to another one. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "base/require.h"
#include "encoder/stream_internal.h"
#include "media/media_sampling.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "rpc/api.h"

/* An analyzer that reloads a long window from its store takes its time. */
enum { READY_TIMEOUT_MS = 90000 };

/* In a row, of one frame: then it is the frame, and no accident. */
enum { REFUSALS_MAX = 5 };

struct push {
    struct stream *stream; /* NULL: abandoned */
    struct rpc_stream *call;
    struct peer *peer;
    struct loop_timer patience;
    bool ready, end_sent;
    uint64_t stored_seq, sent_seq; /* below: stored; sent */
    uint32_t credits, in_flight;   /* frames sent and not stored */
};

static void on_message(struct rpc_stream *call, const struct rpc_message *message, void *user);
static void on_writable(struct rpc_stream *call, void *user);
static void on_end(struct rpc_stream *call, const struct status *status, void *user);

bool stream_push_is_ready(const struct stream *stream)
{
    return stream->push != NULL && stream->push->ready;
}

/* ------------------------------------------------------------------------------------------ open and close */

void stream_push_abandon(struct stream *stream)
{
    struct push *push = stream->push;

    loop_timer_stop(&stream->push_timer);
    stream->unsent = stream->first;
    if (push == NULL)
        return;
    stream->push = NULL;
    push->stream = NULL;
    loop_timer_stop(&push->patience);
    rpc_stream_cancel(push->call);
}

static void retry_now(struct loop_timer *timer)
{
    stream_push_open(container_of(timer, struct stream, push_timer));
}

static void retry_later(struct stream *stream, const struct status *why)
{
    uint32_t delay_ms = stream->push_retry_ms;

    if (why->code == STATUS_PRECONDITION)
        delay_ms = RETRY_MISMATCH_MS; /* another model: somebody has to restart something */
    if (why->retry_after_ms > delay_ms)
        delay_ms = why->retry_after_ms;
    log_warn(&stream->log, "analyzer_lost", "%s (%s); again in %u ms", why->text,
             status_code_words(why->code), delay_ms);
    stream_report(stream, why->text);
    loop_timer_start(stream->encoder->loop, &stream->push_timer, delay_ms, retry_now);
    stream->push_retry_ms = retry_next(stream->push_retry_ms);
}

static void fail(struct push *push, const struct status *why)
{
    struct stream *stream = push->stream;

    stream_push_abandon(stream);
    retry_later(stream, why);
}

static void patience_is_over(struct loop_timer *timer)
{
    struct push *push = container_of(timer, struct push, patience);
    struct status st = { 0 };

    status_fail(&st, STATUS_DEADLINE, "the analyzer at %s did not get ready in %d s",
                peer_address(push->peer), READY_TIMEOUT_MS / 1000);
    fail(push, &st);
}

static void send_hello(struct push *push)
{
    struct stream *stream = push->stream;
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    Reelkv__V1__IngestHello hello = REELKV__V1__INGEST_HELLO__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    id.namespace_ = stream->ns;
    id.name = stream->name;
    hello.id = &id;
    hello.fingerprint = (ProtobufCBinaryData){ MODEL_FINGERPRINT_BYTES,
                                               (uint8_t *)(uintptr_t)stream->encoder->vision->fingerprint };
    hello.store = stream->store;
    hello.encoder = (char *)(uintptr_t)stream->encoder->name;
    hello.expected_frames = stream->expected_frames;
    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_HELLO;
    request.hello = &hello;
    REQUIRE(rpc_stream_write(push->call, &request.base, NULL)); /* the first message always has room */
}

static bool open_call(struct stream *stream, struct status *st)
{
    static const struct rpc_stream_events events = { on_message, on_writable, on_end };
    static const struct rpc_stream_options options = { .timeout_ms = RPC_NO_TIMEOUT };
    const struct encoder_places *places = &stream->encoder->places;
    char address[DIRECTORY_ADDRESS_BYTES];
    struct push *push;

    if (!places->analyzer(places->user, stream->ns, stream->name, address, st))
        return false;
    push = calloc(1, sizeof *push);
    if (push == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a call");
    if (!peer_get(&push->peer, &stream->encoder->peers, address, st)) {
        free(push);
        return false;
    }
    push->stream = stream;
    push->call = rpc_stream_open(peer_channel(push->peer), &api_push, &options, &events, push);
    stream->push = push;
    loop_timer_start(stream->encoder->loop, &push->patience, READY_TIMEOUT_MS, patience_is_over);
    send_hello(push);
    rpc_stream_read(push->call);
    return true;
}

void stream_push_open(struct stream *stream)
{
    struct status st = { 0 };

    if (stream->push != NULL || !stream->defined || loop_timer_is_running(&stream->push_timer))
        return;
    /* How long a file is goes with the greeting. */
    if (!stream->job.live && !stream->source_known)
        return;
    stream->unsent = stream->first;
    if (!open_call(stream, &st))
        retry_later(stream, &st);
}

/* Refused is a frame not yet stored. Which of those in flight is not said; from now on there is only one, until the
 * store has it. When it is refused again and again it becomes a gap, so that the stream goes on. */
static void count_refusal(struct stream *stream, uint64_t stored_seq, const struct status *why)
{
    char reason[CAPTURE_TEXT_BYTES + 1];
    struct item *item = stream->first;

    while (item != NULL && item->to_seq <= stored_seq)
        item = item->next;
    if (item == NULL || item->kind != ITEM_FRAME || !item->encoded)
        return;
    stream->refusals = item->seq == stream->refused_seq ? stream->refusals + 1 : 1;
    stream->refused_seq = item->seq;
    snprintf(reason, sizeof reason, "the analyzer refuses the frame: %.400s", why->text);
    if (stream->refusals >= REFUSALS_MAX && item_become_gap(item, reason)) {
        stream->refusals = 0;
        stream->push_retry_ms = RETRY_FIRST_MS;
    }
}

/* The stream can have no more frames: what came last is its end. */
static void end_refused(struct stream *stream, uint64_t stored_seq, const struct status *why)
{
    log_error(&stream->log, "stream_refused", "%s", why->text);
    stream_capture_stop(stream);
    items_free_all(stream);
    stream->capture_seq = stored_seq;
    stream_append_end(stream, why->text);
}

/* The call has ended with a failure. */
static void lost(struct stream *stream, const struct push *push, const struct status *why)
{
    if (push->ready && why->code == STATUS_OUT_OF_RANGE && !stream->draining) {
        end_refused(stream, push->stored_seq, why);
        return;
    }
    if (push->ready && (why->code == STATUS_INVALID || why->code == STATUS_INTERNAL))
        count_refusal(stream, push->stored_seq, why);
    retry_later(stream, why);
    if (why->code == STATUS_NOT_FOUND)
        stream_define(stream); /* it may have been removed; then the store says so, too */
}

static void on_end(struct rpc_stream *call, const struct status *status, void *user)
{
    struct push *push = user;
    struct stream *stream = push->stream;
    bool all_durable =
        stream != NULL && push->end_sent && (stream->first == NULL || stream->first->kind == ITEM_END);
    struct status closed = { 0 };

    if (stream != NULL) {
        stream->push = NULL;
        stream->unsent = stream->first;
        loop_timer_stop(&push->patience);
        status_fail(&closed, STATUS_UNAVAILABLE,
                    "the analyzer at %s ended the call before the last frame was durable",
                    peer_address(push->peer));
        if (status->code != STATUS_OK)
            lost(stream, push, status);
        else if (all_durable && stream->has_end)
            stream_finish(stream, STREAM_END_DONE);
        else if (!(all_durable && stream->draining))
            retry_later(stream, &closed);
    }
    peer_unref(push->peer);
    free(push);
}

/* ------------------------------------------------------------------------------------- where to go on */

static bool prepend_gap(struct stream *stream, uint64_t from_seq, uint64_t to_seq)
{
    const struct live_grid grid = { .origin_ns = stream->job.origin_ns,
                                    .sample_fps = stream->job.sample_fps };
    struct item *gap = item_create(stream, ITEM_GAP);

    if (gap == NULL || (gap->text = strdup("the encoder was restarted")) == NULL) {
        item_unref(gap);
        return false;
    }
    gap->seq = from_seq;
    gap->to_seq = to_seq;
    gap->pts_ns = live_grid_time(&grid, from_seq);
    gap->to_pts_ns = live_grid_time(&grid, to_seq);
    items_prepend(stream, gap);
    return true;
}

/* The store wants next_seq. What it has on its disk is let go of; what it has in memory alone is kept, and sent only
 * if a later Ready wants it; what we no longer have is read again or becomes a gap. */
static bool align(struct stream *stream, uint64_t next_seq, struct status *st)
{
    uint64_t have_seq;

    items_free_below(stream, stream->durable_seq);
    stream->unsent = items_at(stream, next_seq);
    have_seq = items_next_seq(stream);
    if (have_seq <= next_seq && next_seq <= stream->capture_seq)
        return true;
    if (have_seq > next_seq && stream->job.live)
        return prepend_gap(stream, next_seq, have_seq) ||
               status_fail(st, STATUS_EXHAUSTED, "no memory for a gap");
    /* A file: capture again from there. Or the store has more than we ever read: another encoder was here. */
    log_info(&stream->log, "capture_moved", "from frame %" PRIu64 " to %" PRIu64, have_seq, next_seq);
    stream_capture_stop(stream);
    items_free_all(stream);
    if (!stream->draining)
        stream_capture_start(stream, next_seq);
    return true;
}

static bool take_ready(struct push *push, const Reelkv__V1__IngestReady *ready, struct status *st)
{
    struct stream *stream = push->stream;

    if (push->ready || ready->credits == 0 || ready->credits > LIMIT_CREDITS ||
        ready->durable_seq > ready->next_seq)
        return status_fail(st, STATUS_INVALID,
                           "the analyzer at %s was ready twice, or gives %u credits, or says %" PRIu64
                           " stored, %" PRIu64 " durable",
                           peer_address(push->peer), ready->credits, ready->next_seq, ready->durable_seq);
    loop_timer_stop(&push->patience);
    push->ready = true;
    push->credits = ready->credits;
    push->stored_seq = ready->next_seq;
    push->sent_seq = ready->next_seq;
    stream->durable_seq = ready->durable_seq;
    stream->reported[0] = '\0';
    log_info(&stream->log, "analyzer_ready", "%s, epoch %" PRIu64 ", frame %" PRIu64 ", durable %" PRIu64,
             peer_address(push->peer), ready->epoch, ready->next_seq, ready->durable_seq);
    return align(stream, ready->next_seq, st);
}

static void count_in_flight(struct push *push)
{
    push->in_flight = 0;
    for (struct item *item = push->stream->first; item != push->stream->unsent; item = item->next)
        push->in_flight += item->kind == ITEM_FRAME && item->seq >= push->stored_seq;
}

static bool take_ack(struct push *push, const Reelkv__V1__IngestAck *ack, struct status *st)
{
    struct stream *stream = push->stream;

    if (!push->ready || ack->stored_seq > push->sent_seq || ack->durable_seq > ack->stored_seq ||
        ack->stored_seq < push->stored_seq || ack->durable_seq < stream->durable_seq ||
        ack->credits > LIMIT_CREDITS)
        return status_fail(st, STATUS_INVALID,
                           "the analyzer at %s acknowledged %" PRIu64 " stored, %" PRIu64 " durable; %" PRIu64
                           " were sent",
                           peer_address(push->peer), ack->stored_seq, ack->durable_seq, push->sent_seq);
    if (ack->stored_seq > push->stored_seq) {
        stream->push_retry_ms = RETRY_FIRST_MS;
        stream->reported[0] = '\0';
    }
    if (ack->stored_seq > stream->refused_seq)
        stream->refusals = 0;
    push->stored_seq = ack->stored_seq;
    push->credits = ack->credits;
    stream->durable_seq = ack->durable_seq;
    items_free_below(stream, ack->durable_seq);
    count_in_flight(push);
    return true;
}

static void on_message(struct rpc_stream *call, const struct rpc_message *message, void *user)
{
    const Reelkv__V1__PushReply *reply = (const Reelkv__V1__PushReply *)message->body;
    struct push *push = user;
    struct status st = { 0 };
    bool ok;

    if (push->stream == NULL)
        return;
    if (reply->item_case == REELKV__V1__PUSH_REPLY__ITEM_READY)
        ok = take_ready(push, reply->ready, &st);
    else if (reply->item_case == REELKV__V1__PUSH_REPLY__ITEM_ACK)
        ok = take_ack(push, reply->ack, &st);
    else
        ok = status_fail(&st, STATUS_INVALID, "the analyzer at %s said nothing known",
                         peer_address(push->peer));
    if (!ok) {
        fail(push, &st);
        return;
    }
    stream_push_advance(push->stream);
    rpc_stream_read(call);
}

/* --------------------------------------------------------------------------------------------- sending */

static void sent(void *arg)
{
    item_unref(arg);
}

static bool send_frame(struct push *push, struct item *item)
{
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    Reelkv__V1__IngestFrame frame = REELKV__V1__INGEST_FRAME__INIT;
    uint32_t hidden = push->stream->encoder->vision->hidden;
    const struct rpc_attachment embeddings = {
        .data = item->work.embeddings,
        .len = (size_t)item->work.tokens * hidden * sizeof(float),
        .release = sent,
        .arg = item,
    };

    frame.seq = item->seq;
    frame.pts_ns = item->pts_ns;
    frame.tokens = item->work.tokens;
    frame.hidden = hidden;
    frame.thumbnail = (ProtobufCBinaryData){ item->work.thumbnail_bytes, item->work.thumbnail };
    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_FRAME;
    request.frame = &frame;
    item->refs++;
    if (rpc_stream_write(push->call, &request.base, &embeddings))
        return true;
    item->refs--;
    return false;
}

/* The store may have the beginning of a gap that has grown since: what is left begins later. */
static int64_t gap_time(const struct item *gap, uint64_t seq)
{
    double share = (double)(seq - gap->seq) / (double)(gap->to_seq - gap->seq);

    return gap->pts_ns + (int64_t)((double)(gap->to_pts_ns - gap->pts_ns) * share);
}

static bool send_gap(struct push *push, const struct item *item)
{
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    Reelkv__V1__IngestGap gap = REELKV__V1__INGEST_GAP__INIT;

    gap.from_seq = push->sent_seq;
    gap.to_seq = item->to_seq;
    gap.from_pts_ns = gap_time(item, push->sent_seq);
    gap.to_pts_ns = item->to_pts_ns;
    gap.reason = item->text;
    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_GAP;
    request.gap = &gap;
    return rpc_stream_write(push->call, &request.base, NULL);
}

static bool send_end(struct push *push, const struct item *item)
{
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    Reelkv__V1__IngestEnd end = REELKV__V1__INGEST_END__INIT;

    end.trouble = item->text;
    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_END;
    request.end = &end;
    if (!rpc_stream_write(push->call, &request.base, NULL))
        return false;
    push->end_sent = true;
    rpc_stream_half_close(push->call);
    return true;
}

/* False: not now; room in the call, an acknowledgement or the batch brings us back. */
static bool send_item(struct push *push, struct item *item)
{
    if (!rpc_stream_can_write(push->call))
        return false;
    switch (item->kind) {
    case ITEM_FRAME:
        if (!item->encoded || push->in_flight >= (push->stream->refusals > 0 ? 1 : push->credits) ||
            !send_frame(push, item))
            return false;
        push->in_flight++;
        break;
    case ITEM_GAP:
        if (!send_gap(push, item))
            return false;
        break;
    case ITEM_END:
        return send_end(push, item);
    }
    push->sent_seq = item->to_seq;
    return true;
}

void stream_push_advance(struct stream *stream)
{
    struct push *push = stream->push;

    if (push == NULL || !push->ready || push->end_sent)
        return;
    while (stream->unsent != NULL && send_item(push, stream->unsent))
        stream->unsent = stream->unsent->next;
    if (stream->draining && stream->unsent == NULL && !push->end_sent) {
        push->end_sent = true; /* half-closed without End: the stream is not over, only this call */
        rpc_stream_half_close(push->call);
    }
}

static void on_writable(struct rpc_stream *call, void *user)
{
    struct push *push = user;

    if (push->stream != NULL)
        stream_push_advance(push->stream);
}
