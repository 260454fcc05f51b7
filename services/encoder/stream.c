#include "encoder/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "base/require.h"
#include "encoder/stream_internal.h"
#include "media/media_sampling.h"
#include "media/media_source.h"
#include "media/media_url.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "rpc/api.h"

enum { STORE_TIMEOUT_MS = 5000 };

/* A call to the store under way; it may outlive the stream. */
struct store_call {
    struct stream *stream; /* NULL: nobody waits */
    struct rpc_stream *call;
    struct peer *peer;
};

static struct store_call *store_call_create(struct stream *stream, struct status *st)
{
    const struct encoder_places *places = &stream->encoder->places;
    char address[DIRECTORY_ADDRESS_BYTES];
    struct store_call *call;

    if (!places->store(places->user, stream->store, address, st))
        return NULL;
    call = calloc(1, sizeof *call);
    if (call == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for a call");
    } else if (!peer_get(&call->peer, &stream->encoder->peers, address, st)) {
        free(call);
        call = NULL;
    } else {
        call->stream = stream;
    }
    return call;
}

/* Returns the stream, if it still waits. */
static struct stream *store_call_end(struct store_call *call)
{
    struct stream *stream = call->stream;

    peer_unref(call->peer);
    free(call);
    return stream;
}

static void store_call_abandon(struct store_call *call)
{
    if (call == NULL)
        return;
    call->stream = NULL;
    rpc_stream_cancel(call->call);
}

void stream_finish(struct stream *stream, enum stream_end end)
{
    REQUIRE(!stream->is_over);
    stream->is_over = true;
    log_info(&stream->log, "stream_over", "%s",
             end == STREAM_END_DONE ? "all of it is stored" : "the store has no use for it");
    stream->over(stream, end, stream->user);
}

/* ----------------------------------------------------------------------------------- the definition */

static void define_now(struct loop_timer *timer)
{
    stream_define(container_of(timer, struct stream, define_timer));
}

static void define_later(struct stream *stream, const struct status *why)
{
    log_warn(&stream->log, "store_lost", "%s (%s); again in %u ms", why->text, status_code_words(why->code),
             stream->define_retry_ms);
    loop_timer_start(stream->encoder->loop, &stream->define_timer, stream->define_retry_ms, define_now);
    stream->define_retry_ms = retry_next(stream->define_retry_ms);
}

static bool fill_job(struct stream *stream, const Reelkv__V1__StreamDefinition *definition, struct status *st)
{
    struct capture_job *job = &stream->job;
    const struct encoder *encoder = stream->encoder;
    double sample_fps;

    if (definition == NULL)
        return status_fail(st, STATUS_INVALID, "the stream has no definition");
    sample_fps = definition->sample_fps;
    if (!text_copy(job->source, sizeof job->source, definition->source) || job->source[0] == '\0')
        return status_fail(st, STATUS_INVALID, "the source is empty or longer than %d bytes",
                           LIMIT_URL_BYTES);
    if (!media_url_check(job->source, st))
        return false;
    if (!(sample_fps >= MEDIA_SAMPLE_FPS_MIN && sample_fps <= MEDIA_SAMPLE_FPS_MAX))
        return status_fail(st, STATUS_INVALID, "sample_fps must be %g to %g, not %g", MEDIA_SAMPLE_FPS_MIN,
                           MEDIA_SAMPLE_FPS_MAX, sample_fps);
    job->live = definition->kind == REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    job->sample_fps = sample_fps;
    job->origin_ns = job->live ? definition->created_ns : definition->start_time_ns;
    if (job->origin_ns < 0 || job->origin_ns > INT64_MAX / 2)
        return status_fail(st, STATUS_INVALID, "its time is before 1970 or out of range");
    job->slots = encoder->slots;
    job->slot_bytes = (encoder->picture_bytes_max + MEDIA_RGB_SLACK_BYTES + 4095) & ~UINT64_C(4095);
    job->open_timeout_ms = encoder->open_timeout_ms;
    job->stall_timeout_ms = encoder->stall_timeout_ms;
    return true;
}

/* The store's word: what to read, from where on, or that there is nothing to do. */
static void take_definition(struct stream *stream, const Reelkv__V1__StreamStatus *status)
{
    char masked[LIMIT_URL_BYTES + 1];
    struct status st = { 0 };

    if (status->state == REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED ||
        status->state == REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED) {
        stream_finish(stream, STREAM_END_GONE);
        return;
    }
    if (stream->defined) /* asked again, and it is still wanted: what goes on goes on */
        return;
    stream->defined = true;
    if (!fill_job(stream, status->definition, &st)) {
        /* Nobody could read it: that is how the stream ends, and the store says why. */
        log_error(&stream->log, "definition_refused", "%s", st.text);
        stream->job = (struct capture_job){ 0 };
        stream->capture_seq = status->next_seq;
        stream_append_end(stream, st.text);
        return;
    }
    url_mask(stream->job.source, masked, sizeof masked);
    log_info(&stream->log, "stream_started", "%s %s at %g frames/s from frame %" PRIu64,
             stream->job.live ? "live" : "file", masked, stream->job.sample_fps, status->next_seq);
    stream_capture_start(stream, status->next_seq);
    stream_push_open(stream);
}

static void on_definition(const struct status *status, const struct rpc_message *reply, void *user)
{
    struct stream *stream = store_call_end(user);

    if (stream == NULL)
        return;
    stream->definition_call = NULL;
    if (status->code == STATUS_NOT_FOUND) {
        stream_finish(stream, STREAM_END_GONE);
    } else if (status->code != STATUS_OK) {
        define_later(stream, status);
    } else {
        stream->define_retry_ms = RETRY_FIRST_MS;
        take_definition(stream, (const Reelkv__V1__StreamStatus *)reply->body);
    }
}

static bool ask_store(struct stream *stream, struct status *st)
{
    const struct rpc_stream_options options = { .timeout_ms = STORE_TIMEOUT_MS };
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    struct store_call *call = store_call_create(stream, st);

    if (call == NULL)
        return false;
    id.namespace_ = stream->ns;
    id.name = stream->name;
    request.id = &id;
    request.with_secret = true;
    stream->definition_call = call;
    call->call =
        rpc_unary(peer_channel(call->peer), &api_get_stream, &options, &request.base, on_definition, call);
    return true;
}

void stream_define(struct stream *stream)
{
    struct status st = { 0 };

    if (stream->definition_call == NULL && !stream->draining && !ask_store(stream, &st))
        define_later(stream, &st);
}

static void stop_defining(struct stream *stream)
{
    loop_timer_stop(&stream->define_timer);
    store_call_abandon(stream->definition_call);
    stream->definition_call = NULL;
}

/* ------------------------------------------------------------------------------------------- trouble */

static void on_reported(const struct status *status, const struct rpc_message *reply, void *user)
{
    struct stream *stream = store_call_end(user);

    if (stream == NULL)
        return;
    stream->report_call = NULL;
    if (status->code != STATUS_OK)
        stream->reported[0] = '\0'; /* the next try tells it again */
}

void stream_report(struct stream *stream, const char *trouble)
{
    const struct rpc_stream_options options = { .timeout_ms = STORE_TIMEOUT_MS };
    Reelkv__V1__ReportTroubleRequest request = REELKV__V1__REPORT_TROUBLE_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    if (stream->report_call != NULL || stream->draining || strcmp(trouble, stream->reported) == 0)
        return;
    stream->report_call = store_call_create(stream, NULL);
    if (stream->report_call == NULL)
        return;
    snprintf(stream->reported, sizeof stream->reported, "%s", trouble);
    id.namespace_ = stream->ns;
    id.name = stream->name;
    request.id = &id;
    request.trouble = stream->reported;
    stream->report_call->call = rpc_unary(peer_channel(stream->report_call->peer), &api_report_trouble,
                                          &options, &request.base, on_reported, stream->report_call);
}

/* ------------------------------------------------------------------------------------ life and death */

bool stream_start(struct stream **stream_p, struct encoder *encoder, const struct stream_options *options,
                  struct status *st)
{
    struct stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a stream");
    stream->encoder = encoder;
    stream->over = options->over;
    stream->user = options->user;
    stream->last_link = &stream->first;
    stream->define_retry_ms = RETRY_FIRST_MS;
    stream->capture_retry_ms = RETRY_FIRST_MS;
    stream->push_retry_ms = RETRY_FIRST_MS;
    if (!text_copy(stream->ns, sizeof stream->ns, options->ns) ||
        !text_copy(stream->name, sizeof stream->name, options->name) ||
        !text_copy(stream->store, sizeof stream->store, options->store)) {
        free(stream);
        return status_fail(st, STATUS_INVALID, "a name is longer than %d bytes", LIMIT_NAME_BYTES);
    }
    snprintf(stream->log_name, sizeof stream->log_name, "%s/%s", stream->ns, stream->name);
    stream->log.stream = stream->log_name;
    *stream_p = stream;
    stream_define(stream);
    return true;
}

void stream_drain(struct stream *stream)
{
    stream->draining = true;
    stop_defining(stream);
    stream_capture_stop(stream);
    stream_push_advance(stream);
}

bool stream_is_drained(const struct stream *stream)
{
    return stream->draining && (stream->is_over || (stream->push == NULL && stream->first == NULL));
}

void stream_destroy(struct stream *stream)
{
    if (stream == NULL)
        return;
    stop_defining(stream);
    loop_timer_stop(&stream->encode_timer);
    store_call_abandon(stream->report_call);
    stream_capture_stop(stream);
    stream_push_abandon(stream);
    items_free_all(stream);
    free(stream);
}

struct stream_progress stream_progress(const struct stream *stream)
{
    return (struct stream_progress){
        .durable_seq = stream->durable_seq,
        .captured_seq = stream->capture_seq,
        .kept_frames = stream->frame_count,
        .connected = stream_push_is_ready(stream),
        .capture_pid = stream->capture != NULL ? capture_pid(stream->capture) : 0,
    };
}
