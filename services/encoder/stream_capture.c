/* stream_capture.c - a stream's capture child: started, its frames and gaps made items, started again when it breaks. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "encoder/stream_internal.h"

enum {
    BREAKS_MAX = 5,       /* in a row without a frame: then it is the file, or its server is gone */
    ENCODE_TRIES_MAX = 4, /* of one frame, with ENCODE_AGAIN_MS between: memory may have been short */
    ENCODE_AGAIN_MS = 500,
};

static void restart_later(struct stream *stream);

static void offer(struct stream *stream, struct item *item)
{
    item->refs++;
    batch_offer(stream->encoder->batch, &item->work);
}

static void encode_again(struct loop_timer *timer)
{
    struct stream *stream = container_of(timer, struct stream, encode_timer);

    for (struct item *item = stream->first; item != NULL; item = item->next)
        if (item->encode_again) {
            item->encode_again = false;
            offer(stream, item);
        }
}

/* The picture stays where it is and is tried again; one that never can be encoded is a gap, and the stream goes on. */
static void encode_failed(struct stream *stream, struct item *item, const struct status *why)
{
    char reason[CAPTURE_TEXT_BYTES + 1];

    log_warn(&stream->log, "encode_failed", "frame %" PRIu64 ": %s", item->seq, why->text);
    snprintf(reason, sizeof reason, "the picture could not be encoded: %.400s", why->text);
    if (++item->encode_tries >= ENCODE_TRIES_MAX && item_become_gap(item, reason)) {
        stream_push_advance(stream);
        return;
    }
    item->encode_again = true;
    if (!loop_timer_is_running(&stream->encode_timer))
        loop_timer_start(stream->encoder->loop, &stream->encode_timer, ENCODE_AGAIN_MS, encode_again);
}

/* On the loop, when the batch is done with a frame. The stream may have let go of it meanwhile. */
static void frame_encoded(struct batch_item *work, const struct status *failure)
{
    struct item *item = container_of(work, struct item, work);
    struct stream *stream = item->stream;

    if (stream != NULL && failure != NULL) {
        encode_failed(stream, item, failure);
    } else if (stream != NULL) {
        capture_pool_unref(item->pool);
        item->pool = NULL;
        item->encoded = true;
        stream->capture_breaks = 0;
        stream->capture_retry_ms = RETRY_FIRST_MS;
        items_release_slots(stream);
        stream_push_advance(stream);
    }
    item_unref(item);
}

static bool take_frame(struct stream *stream, const struct capture_message *m)
{
    struct item *item = item_create(stream, ITEM_FRAME);

    if (item == NULL)
        return false;
    item->seq = m->seq;
    item->to_seq = m->seq + 1;
    item->pts_ns = m->pts_ns;
    item->capture = stream->capture;
    item->slot = m->slot;
    item->pool = capture_pool_ref(stream->capture);
    item->work.picture = (struct model_picture){ capture_rgb(stream->capture, m->slot), m->height, m->width };
    item->work.done = frame_encoded;
    items_append(stream, item);
    offer(stream, item);
    return true;
}

static void opened(struct stream *stream, const struct capture_message *m)
{
    stream->expected_frames = m->seq;
    stream->source_known = true;
    log_info(&stream->log, "source_open", "%s %u x %u, from frame %" PRIu64, m->text, m->width, m->height,
             stream->capture_seq);
    stream->trouble[0] = '\0';
    stream_push_open(stream);
}

static void told(struct capture *capture, const struct capture_message *m, void *user)
{
    struct stream *stream = user;
    bool ok = true;

    if (m->kind == CAPTURE_OPENED) {
        opened(stream, m);
    } else if (m->kind == CAPTURE_TROUBLE) {
        /* Told at each try; logged when it is new. */
        if (strcmp(m->text, stream->trouble) != 0)
            log_warn(&stream->log, "source_lost", "%s; trying again", m->text);
        memcpy(stream->trouble, m->text, sizeof stream->trouble);
    } else if (m->kind == CAPTURE_FRAME) {
        ok = take_frame(stream, m);
        stream->capture_seq = m->seq + 1;
    } else {
        ok = items_append_gap(stream, m);
        stream->capture_seq = m->to_seq;
    }
    if (!ok) {
        log_error(&stream->log, "capture_lost", "no memory for frame %" PRIu64, m->seq);
        stream->capture_seq = m->seq;
        stream_capture_stop(stream);
        restart_later(stream);
        return;
    }
    stream_push_advance(stream);
}

void stream_append_end(struct stream *stream, const char *trouble)
{
    struct item *end = item_create(stream, ITEM_END);

    REQUIRE(end != NULL);
    end->text = strdup(trouble);
    REQUIRE(end->text != NULL);
    end->seq = stream->capture_seq;
    end->to_seq = end->seq;
    items_append(stream, end);
    stream->source_known = true;
    stream_push_open(stream);
    stream_push_advance(stream);
}

static void finish_file(struct stream *stream, const struct capture_message *end)
{
    char shrunk[CAPTURE_TEXT_BYTES + 1];

    stream_capture_stop(stream);
    if (end->seq < stream->capture_seq) {
        snprintf(shrunk, sizeof shrunk,
                 "the file gives %" PRIu64 " frames now; %" PRIu64 " were stored before: it has changed",
                 end->seq, stream->capture_seq);
        stream_append_end(stream, shrunk);
        return;
    }
    stream_append_end(stream, end->text);
}

static void broke(struct stream *stream, const struct status *st)
{
    char trouble[CAPTURE_TEXT_BYTES + 1];

    stream_capture_stop(stream);
    log_warn(&stream->log, "capture_lost", "%s", st->text);
    if (++stream->capture_breaks < BREAKS_MAX || stream->job.live) {
        stream_report(stream, st->text);
        restart_later(stream);
        return;
    }
    snprintf(trouble, sizeof trouble, "reading failed %d times in a row at frame %" PRIu64 ": %.300s",
             BREAKS_MAX, stream->capture_seq, st->text);
    stream_append_end(stream, trouble);
}

static void refused(struct stream *stream, const struct status *st)
{
    stream_capture_stop(stream);
    log_warn(&stream->log, "source_refused", "%s", st->text);
    stream_append_end(stream, st->text);
}

static void ended(struct capture *capture, enum capture_outcome outcome, const struct capture_message *end,
                  const struct status *st, void *user)
{
    struct stream *stream = user;

    switch (outcome) {
    case CAPTURE_DONE:
        finish_file(stream, end);
        break;
    case CAPTURE_REFUSED:
        if (status_code_is_retryable(st->code))
            broke(stream, st);
        else
            refused(stream, st);
        break;
    case CAPTURE_BROKEN:
        broke(stream, st);
        break;
    case CAPTURE_STOPPED: /* only a retired one is stopped, and that tells nobody */
        break;
    }
}

void stream_capture_start(struct stream *stream, uint64_t from_seq)
{
    struct capture_options options = {
        .program = stream->encoder->capture_program,
        .job = &stream->job,
        .events = { told, ended, stream },
    };
    struct status st = { 0 };

    REQUIRE(stream->capture == NULL);
    loop_timer_stop(&stream->capture_timer);
    stream->job.from_seq = from_seq;
    stream->capture_seq = from_seq;
    if (!capture_create(&stream->capture, stream->encoder->loop, &options, &st)) {
        log_error(&stream->log, "capture_lost", "%s", st.text);
        restart_later(stream);
    }
}

static void restart_now(struct loop_timer *timer)
{
    struct stream *stream = container_of(timer, struct stream, capture_timer);

    stream_push_open(stream);
    if (stream->capture != NULL)
        return;
    /* The frames of a child that has died hold none of the next one's slots, so it would come on top of them. */
    if (stream->frame_count > stream->encoder->keep_frames)
        restart_later(stream);
    else
        stream_capture_start(stream, stream->capture_seq);
}

static void restart_later(struct stream *stream)
{
    if (stream->draining)
        return;
    loop_timer_start(stream->encoder->loop, &stream->capture_timer, stream->capture_retry_ms, restart_now);
    stream->capture_retry_ms = retry_next(stream->capture_retry_ms);
}

void stream_capture_stop(struct stream *stream)
{
    loop_timer_stop(&stream->capture_timer);
    if (stream->capture == NULL)
        return;
    for (struct item *item = stream->first; item != NULL; item = item->next)
        item->capture = NULL; /* the pool keeps the pixels that are still to be encoded */
    capture_retire(stream->capture, &stream->encoder->retired);
    stream->capture = NULL;
}
