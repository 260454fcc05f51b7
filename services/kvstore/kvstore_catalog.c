/* Catalog: definitions of streams. Passwords in sources leave only when asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "kvstore/kvstore.h"
#include "kvstore/kvstore_directory.h"
#include "media/media_sampling.h"

enum { PAGE_DEFAULT = 100, PAGE_MAX = 1000, TOKEN_BYTES = 2 * LIMIT_NAME_BYTES + 2 };

static void reply_status(struct rpc_call *call, const struct stream *stream, bool with_secret)
{
    struct kvstore_status message;

    kvstore_fill_status(&message, stream, with_secret);
    rpc_call_reply(call, &message.status.base, NULL);
}

/* --- create --- */

static bool read_class(const struct kvstore *kvstore, const char *class, struct stream_definition *definition,
                       struct status *st)
{
    if (ageing_policy_find(&kvstore->store->ageing_state.policy, class) == NULL)
        return status_fail(st, STATUS_INVALID, "store %s has no class %.63s; its --ageing names them",
                           kvstore->options->name, class);
    text_copy(definition->class, sizeof definition->class, class);
    return true;
}

bool kvstore_read_definition(const Reelkv__V1__StreamDefinition *message, double default_fps,
                             struct stream_definition *definition, struct status *st)
{
    double sample_fps;
    size_t len;

    if (message == NULL)
        return status_fail(st, STATUS_INVALID, "the request has no definition");
    if (!kvstore_read_id(message->id, st))
        return false;
    len = strlen(message->source);
    if (len < 1 || len > LIMIT_URL_BYTES || !utf8_is_valid(message->source, len))
        return status_fail(st, STATUS_INVALID, "source must be a path or URL of 1 to %d bytes of UTF-8",
                           LIMIT_URL_BYTES);
    if (message->kind != REELKV__V1__SOURCE_KIND__SOURCE_KIND_FILE &&
        message->kind != REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE)
        return status_fail(st, STATUS_INVALID, "kind must be FILE or LIVE");
    sample_fps = message->sample_fps == 0 ? default_fps : message->sample_fps;
    if (!(sample_fps >= MEDIA_SAMPLE_FPS_MIN && sample_fps <= MEDIA_SAMPLE_FPS_MAX))
        return status_fail(st, STATUS_INVALID, "sample_fps must be %g to %g, not %g", MEDIA_SAMPLE_FPS_MIN,
                           MEDIA_SAMPLE_FPS_MAX, sample_fps);
    if (message->start_time_ns < 0 || message->start_time_ns > INT64_MAX / 2)
        return status_fail(st, STATUS_INVALID, "start_time_ns is before 1970 or out of range");
    text_copy(definition->source, sizeof definition->source, message->source);
    definition->kind = (enum stream_source_kind)message->kind;
    definition->sample_fps = sample_fps;
    definition->start_time_ns = message->start_time_ns;
    return true;
}

/* The call may be over before the disk has answered. */
struct waiting_call {
    struct kvstore *kvstore;
    struct rpc_call *call;
    struct stream_removed removed;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
};

static struct waiting_call *wait_for(struct kvstore *kvstore, struct rpc_call *call,
                                     const Reelkv__V1__StreamId *id, struct status *st)
{
    struct waiting_call *waiting = calloc(1, sizeof *waiting);

    if (waiting == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for one more call");
        return NULL;
    }
    waiting->kvstore = kvstore;
    waiting->call = call;
    text_copy(waiting->ns, sizeof waiting->ns, id->namespace_);
    text_copy(waiting->name, sizeof waiting->name, id->name);
    rpc_call_ref(call);
    return waiting;
}

static void stop_waiting(struct waiting_call *waiting)
{
    rpc_call_unref(waiting->call);
    free(waiting);
}

static void defined(void *user, struct stream *stream, const struct status *failure)
{
    struct waiting_call *waiting = user;

    if (failure != NULL) {
        rpc_call_finish(waiting->call, failure);
    } else {
        reply_status(waiting->call, stream, false);
        kvstore_directory_changed(waiting->kvstore->directory, stream);
    }
    stop_waiting(waiting);
}

void kvstore_create_stream(struct rpc_call *call, void *state)
{
    struct kvstore *kvstore = state;
    const Reelkv__V1__CreateStreamRequest *request =
        (const Reelkv__V1__CreateStreamRequest *)rpc_call_request(call)->body;
    struct stream_definition definition = { 0 };
    struct waiting_call *waiting;
    struct status st = { 0 };

    if (!kvstore_read_definition(request->definition, kvstore->options->sample_fps, &definition, &st) ||
        !read_class(kvstore, request->definition->class_, &definition, &st)) {
        rpc_call_finish(call, &st);
        return;
    }
    waiting = wait_for(kvstore, call, request->definition->id, &st);
    if (waiting != NULL &&
        stream_define(kvstore->store, waiting->ns, waiting->name, &definition, defined, waiting, &st))
        return;
    rpc_call_finish(call, &st);
    if (waiting != NULL)
        stop_waiting(waiting);
}

/* --- get, list --- */

void kvstore_get_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__GetStreamRequest *request =
        (const Reelkv__V1__GetStreamRequest *)rpc_call_request(call)->body;
    const struct stream *stream;
    struct status st = { 0 };

    stream = kvstore_stream_of(state, request->id, &st);
    if (stream == NULL)
        rpc_call_finish(call, &st);
    else
        reply_status(call, stream, request->with_secret);
}

/* "ns/name" of the last stream of the page before. */
static bool read_token(const char *token, char ns[TOKEN_BYTES], const char **name_p, struct status *st)
{
    char *slash;

    if (!text_copy(ns, TOKEN_BYTES, token) || (slash = strchr(ns, '/')) == NULL)
        return status_fail(st, STATUS_INVALID, "page_token is not from a reply of this call");
    *slash = '\0';
    *name_p = slash + 1;
    return name_check("page_token", ns, st) && name_check("page_token", *name_p, st);
}

/* `stream`, or the first behind it that is in the namespace asked for. */
static const struct stream *first_in(const struct stream *stream, const char *ns)
{
    while (stream != NULL && ns[0] != '\0' && strcmp(stream->ns, ns) != 0)
        stream = store_after(stream);
    return stream;
}

void kvstore_list_streams(struct rpc_call *call, void *state)
{
    const struct kvstore *kvstore = state;
    const Reelkv__V1__ListStreamsRequest *request =
        (const Reelkv__V1__ListStreamsRequest *)rpc_call_request(call)->body;
    Reelkv__V1__ListStreamsReply reply = REELKV__V1__LIST_STREAMS_REPLY__INIT;
    uint32_t page = request->page_size == 0 ? PAGE_DEFAULT : request->page_size;
    Reelkv__V1__StreamStatus **list;
    struct kvstore_status *messages;
    const struct stream *stream, *last = NULL;
    char ns[TOKEN_BYTES], token[TOKEN_BYTES];
    const char *name = NULL;
    struct status st = { 0 };

    if (page > PAGE_MAX)
        page = PAGE_MAX;
    if (request->page_token[0] != '\0' && !read_token(request->page_token, ns, &name, &st)) {
        rpc_call_finish(call, &st);
        return;
    }
    messages = arena_alloc(rpc_call_arena(call), page * sizeof *messages);
    list = arena_alloc(rpc_call_arena(call), page * sizeof *list);
    if (messages == NULL || list == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "a page of %u streams is too large; ask for fewer", page);
        rpc_call_finish(call, &st);
        return;
    }
    stream = first_in(store_next(kvstore->store, name == NULL ? NULL : ns, name), request->namespace_);
    for (; stream != NULL && reply.n_streams < page;
         stream = first_in(store_after(stream), request->namespace_)) {
        kvstore_fill_status(&messages[reply.n_streams], stream, request->with_secret);
        list[reply.n_streams] = &messages[reply.n_streams].status;
        reply.n_streams++;
        last = stream;
    }
    reply.streams = list;
    if (stream != NULL) {
        snprintf(token, sizeof token, "%s/%s", last->ns, last->name);
        reply.next_page_token = token;
    }
    rpc_call_reply(call, &reply.base, NULL);
}

/* --- what encoders report --- */

void kvstore_report_trouble(struct rpc_call *call, void *state)
{
    const Reelkv__V1__ReportTroubleRequest *request =
        (const Reelkv__V1__ReportTroubleRequest *)rpc_call_request(call)->body;
    Reelkv__V1__ReportTroubleReply reply = REELKV__V1__REPORT_TROUBLE_REPLY__INIT;
    struct status st = { 0 };
    struct stream *stream = kvstore_stream_of(state, request->id, &st);

    if (stream == NULL) {
        rpc_call_finish(call, &st);
        return;
    }
    stream_set_encoder_says(stream, request->trouble);
    rpc_call_reply(call, &reply.base, NULL);
}

/* --- delete --- */

static void deleted(void *user, struct stream *stream, const struct status *failure)
{
    struct waiting_call *waiting = user;
    Reelkv__V1__DeleteStreamReply reply = REELKV__V1__DELETE_STREAM_REPLY__INIT;

    (void)stream;
    reply.frames = waiting->removed.frames;
    reply.bytes = waiting->removed.bytes;
    if (failure != NULL)
        rpc_call_finish(waiting->call, failure);
    else
        rpc_call_reply(waiting->call, &reply.base, NULL);
    kvstore_directory_removed(waiting->kvstore->directory, waiting->ns, waiting->name);
    stop_waiting(waiting);
}

void kvstore_delete_stream(struct rpc_call *call, void *state)
{
    struct kvstore *kvstore = state;
    const Reelkv__V1__DeleteStreamRequest *request =
        (const Reelkv__V1__DeleteStreamRequest *)rpc_call_request(call)->body;
    struct waiting_call *waiting = NULL;
    struct stream *stream;
    struct status st = { 0 };

    stream = kvstore_stream_of(kvstore, request->id, &st);
    if (stream != NULL)
        waiting = wait_for(kvstore, call, request->id, &st);
    if (waiting != NULL && stream_delete(stream, &waiting->removed, deleted, waiting, &st)) {
        kvstore_end_forgotten_prefetches(kvstore);
        return;
    }
    rpc_call_finish(call, &st);
    if (waiting != NULL)
        stop_waiting(waiting);
}
