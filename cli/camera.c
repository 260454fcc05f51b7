#include "camera.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/name.h"
#include "base/require.h"
#include "cli_hint.h"
#include "cli_output.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "reelkv/v1/retention.pb-c.h"

enum { PAGE_STREAMS = 500, PAGE_SPANS = 1000 };

static void copy_text(char *out, size_t out_bytes, const char *text)
{
    snprintf(out, out_bytes, "%s", text != NULL ? text : "");
    cli_make_safe(out);
}

void camera_from_reply(const ProtobufCMessage *stream_status, struct camera *camera)
{
    const Reelkv__V1__StreamStatus *status = (const Reelkv__V1__StreamStatus *)stream_status;
    const Reelkv__V1__StreamDefinition *definition = status->definition;

    memset(camera, 0, sizeof *camera);
    if (definition != NULL) {
        if (definition->id != NULL) {
            copy_text(camera->ns, sizeof camera->ns, definition->id->namespace_);
            copy_text(camera->name, sizeof camera->name, definition->id->name);
        }
        copy_text(camera->store, sizeof camera->store, definition->store);
        copy_text(camera->source, sizeof camera->source, definition->source);
        copy_text(camera->class, sizeof camera->class, definition->class_);
        camera->is_live = definition->kind == REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
        camera->sample_fps = definition->sample_fps;
        camera->start_time_ns = definition->start_time_ns;
        camera->created_ns = definition->created_ns;
    }
    copy_text(camera->trouble, sizeof camera->trouble, status->trouble);
    camera->state = (int)status->state;
    camera->epoch = status->epoch;
    camera->next_seq = status->next_seq;
    camera->durable_seq = status->durable_seq;
    camera->stored_frames = status->stored_frames;
    camera->gap_frames = status->gap_frames;
    camera->evicted_frames = status->evicted_frames;
    camera->damaged_frames = status->damaged_frames;
    camera->first_pts_ns = status->first_pts_ns;
    camera->last_pts_ns = status->last_pts_ns;
    camera->disk_bytes = status->disk_bytes;
    camera->remembers_ns = status->remembers_ns;
    camera->expected_frames = status->expected_frames;
    if (status->fingerprint.len == DIRECTORY_FINGERPRINT_BYTES)
        hex_write(status->fingerprint.data, DIRECTORY_FINGERPRINT_BYTES, camera->fingerprint);
}

static bool get_from(struct cluster *cluster, const struct worker_record *store, Reelkv__V1__StreamId *id,
                     struct camera *camera, struct status *st)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    struct rpc_sync_stream *call = NULL;
    const ProtobufCMessage *reply;
    bool ok;

    request.id = id;
    ok = cluster_call(cluster, store, &api_get_stream, &request.base, &call, &reply, st);
    if (ok)
        camera_from_reply(reply, camera);
    rpc_sync_stream_destroy(call);
    return ok || cluster_blame(store, st);
}

/* A camera that the directory does not know (yet, after Redis came back empty) may be with any store; also with one that
 * does not say. */
static bool get_from_any(struct cluster *cluster, Reelkv__V1__StreamId *id, struct camera *camera,
                         const struct worker_record **store_p, struct status *st)
{
    const struct directory_view *view = cluster_view(cluster);
    const struct worker_record *doubtful = NULL;

    for (uint32_t i = 0; i < view->worker_count; i++) {
        const struct worker_record *store = &view->workers[i];
        struct status why = { 0 };

        if (store->kind != WORKER_KVSTORE)
            continue;
        if (get_from(cluster, store, id, camera, &why)) {
            *store_p = store;
            return true;
        }
        if (why.code != STATUS_NOT_FOUND) {
            doubtful = store;
            *st = why;
        }
    }
    if (doubtful != NULL && st->code == STATUS_UNAVAILABLE)
        return status_fail(st, STATUS_UNAVAILABLE,
                           "no store that answers has camera '%s', and %s does not answer now, see `%s`",
                           id->name, doubtful->name, cli_hint("doctor"));
    if (doubtful != NULL)
        return status_wrap(st, "camera '%s' may be with %s", id->name, doubtful->name);
    return status_fail(st, STATUS_NOT_FOUND, "there is no camera '%s'; `%s` lists them", id->name,
                       cli_hint("cam ls"));
}

bool camera_find(struct cluster *cluster, const char *ns, const char *name, struct camera *camera,
                 const struct worker_record **store_p, struct status *st)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    if (!name_check("camera", name, st) || !name_check("namespace", ns, st))
        return false;
    *store_p = cluster_store_of(cluster, ns, name, st);
    if (*store_p == NULL)
        return false;
    id.namespace_ = (char *)ns;
    id.name = (char *)name;
    if (get_from(cluster, *store_p, &id, camera, st))
        return true;
    return st->code == STATUS_NOT_FOUND && get_from_any(cluster, &id, camera, store_p, st);
}

bool camera_get(struct cluster *cluster, const char *ns, const char *name, struct camera *camera,
                struct status *st)
{
    const struct worker_record *store;
    struct status ignored;

    return camera_find(cluster, ns, name, camera, &store, st == NULL ? &ignored : st);
}

static void add_camera(struct camera_list *list, const Reelkv__V1__StreamStatus *status)
{
    list->cameras = array_grow(list->cameras, list->count, sizeof *list->cameras);
    REQUIRE(list->cameras != NULL);
    camera_from_reply(&status->base, &list->cameras[list->count++]);
}

static void add_silent(struct camera_list *list, const char *store)
{
    list->silent = array_grow(list->silent, list->silent_count, sizeof *list->silent);
    REQUIRE(list->silent != NULL);
    copy_text(list->silent[list->silent_count++], sizeof *list->silent, store);
}

static bool is_silent(const struct camera_list *list, const char *store)
{
    for (size_t i = 0; i < list->silent_count; i++)
        if (strcmp(list->silent[i], store) == 0)
            return true;
    return false;
}

/* A store that is gone for longer than its lease is known by its cameras alone. */
static void add_gone(struct camera_list *list, const struct directory_view *view, const char *ns)
{
    for (uint32_t i = 0; i < view->stream_count; i++) {
        const struct stream_record *stream = &view->streams[i];

        if ((ns == NULL || strcmp(stream->ns, ns) == 0) && !is_silent(list, stream->store) &&
            directory_view_worker(view, WORKER_KVSTORE, stream->store) == NULL)
            add_silent(list, stream->store);
    }
}

static bool list_store(struct cluster *cluster, const struct worker_record *store, const char *ns,
                       struct camera_list *list, struct status *st)
{
    char token[256] = "";

    for (uint32_t page = 0; page <= LIMIT_STREAMS / PAGE_STREAMS + 1; page++) {
        Reelkv__V1__ListStreamsRequest request = REELKV__V1__LIST_STREAMS_REQUEST__INIT;
        const Reelkv__V1__ListStreamsReply *reply;
        struct rpc_sync_stream *call;
        const ProtobufCMessage *body;
        bool ok, last;

        request.namespace_ = (char *)(ns != NULL ? ns : "");
        request.page_size = PAGE_STREAMS;
        request.page_token = token;
        ok = cluster_call(cluster, store, &api_list_streams, &request.base, &call, &body, st);
        if (ok) {
            reply = (const Reelkv__V1__ListStreamsReply *)body;
            for (size_t i = 0; i < reply->n_streams; i++)
                add_camera(list, reply->streams[i]);
            last = reply->next_page_token == NULL || reply->next_page_token[0] == '\0';
            ok = last || text_copy(token, sizeof token, reply->next_page_token) ||
                 status_fail(st, STATUS_INTERNAL, "%s gave a page token that is too long", store->name);
        }
        rpc_sync_stream_destroy(call);
        if (!ok || last)
            return ok;
    }
    return status_fail(st, STATUS_INTERNAL, "%s lists streams without end", store->name);
}

static int by_name(const void *a, const void *b)
{
    const struct camera *one = a, *other = b;
    int order = strcmp(one->ns, other->ns);

    return order != 0 ? order : strcmp(one->name, other->name);
}

bool camera_list_read(struct cluster *cluster, const char *ns, struct camera_list *list, struct status *st)
{
    const struct directory_view *view = cluster_view(cluster);
    uint32_t stores = 0;
    size_t before;

    memset(list, 0, sizeof *list);
    if (ns != NULL && !name_check("namespace", ns, st))
        return false;
    for (uint32_t i = 0; i < view->worker_count; i++) {
        const struct worker_record *store = &view->workers[i];

        if (store->kind != WORKER_KVSTORE)
            continue;
        stores++;
        before = list->count;
        if (!list_store(cluster, store, ns, list, st)) {
            list->count = before; /* half of a store's cameras would look like all of them */
            add_silent(list, store->name);
        }
    }
    if (stores == 0)
        return status_fail(st, STATUS_UNAVAILABLE, "no kvstore is running; see `%s`", cli_hint("node ls"));
    if (list->silent_count == stores)
        return status_wrap(st, "no kvstore answers now, see `%s`", cli_hint("doctor"));
    add_gone(list, view, ns);
    if (list->count > 0)
        qsort(list->cameras, list->count, sizeof *list->cameras, by_name);
    return true;
}

void camera_list_deinit(struct camera_list *list)
{
    free(list->cameras);
    free(list->silent);
    memset(list, 0, sizeof *list);
}

struct json *camera_list_silent(const struct camera_list *list)
{
    struct json *names = json_make_array();

    for (size_t i = 0; i < list->silent_count; i++)
        json_append_str(names, list->silent[i]);
    return names;
}

void camera_list_print_trouble(const struct camera_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->cameras[i].trouble[0] != '\0')
            printf("%s: %s\n", list->cameras[i].name, list->cameras[i].trouble);
}

void camera_list_warn(const struct camera_list *list, const char *what)
{
    bool one = list->silent_count == 1;

    if (list->silent_count == 0)
        return;
    fflush(stdout); /* what was said before comes before */
    fprintf(stderr, "reelkv: ");
    for (size_t i = 0; i < list->silent_count; i++)
        fprintf(stderr, "%s%s", i > 0 ? ", " : "", list->silent[i]);
    fprintf(stderr, " %s not answer: %s cameras are %s\n", one ? "does" : "do", one ? "its" : "their", what);
}

const char *camera_state_words(const struct camera *camera)
{
    switch (camera->state) {
    case REELKV__V1__STREAM_STATE__STREAM_STATE_WAITING:
        return "waiting";
    case REELKV__V1__STREAM_STATE__STREAM_STATE_RUNNING:
        return "running";
    case REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED:
        return "ended";
    case REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED:
        return "failed";
    default:
        return "unknown";
    }
}

bool camera_has_other_settings(const struct cluster *cluster, const struct camera *camera)
{
    const struct directory_view *view = cluster_view(cluster);
    char fingerprint[2 * DIRECTORY_FINGERPRINT_BYTES + 1];
    bool is_other = false;

    for (uint32_t i = 0; camera->fingerprint[0] != '\0' && i < view->worker_count; i++) {
        if (view->workers[i].kind != WORKER_QA || !view->workers[i].has_model)
            continue;
        hex_write(view->workers[i].fingerprint, DIRECTORY_FINGERPRINT_BYTES, fingerprint);
        if (strcmp(fingerprint, camera->fingerprint) == 0)
            return false;
        is_other = true;
    }
    return is_other;
}

bool camera_is_complete(const struct camera *camera)
{
    return camera->state == REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED &&
           camera->durable_seq >= camera->next_seq;
}

uint64_t camera_frames_written(const struct camera *camera)
{
    uint64_t durable =
        camera->durable_seq > camera->gap_frames ? camera->durable_seq - camera->gap_frames : 0;

    if (camera->durable_seq >= camera->next_seq || camera->stored_frames < durable)
        return camera->stored_frames;
    return durable;
}

uint64_t camera_frames_on_disk(const struct camera *camera)
{
    uint64_t written = camera_frames_written(camera), gone = camera->evicted_frames + camera->damaged_frames;

    return written > gone ? written - gone : 0;
}

/* What the camera's store has from a number on; NULL when it does not say. Valid until *call_p is destroyed. */
static const Reelkv__V1__TimelineReply *timeline(struct cluster *cluster, const struct camera *camera,
                                                 uint64_t after_seq, struct rpc_sync_stream **call_p)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    const struct worker_record *store = cluster_store_of(cluster, camera->ns, camera->name, NULL);
    const ProtobufCMessage *body;

    *call_p = NULL;
    id.namespace_ = (char *)camera->ns;
    id.name = (char *)camera->name;
    request.id = &id;
    request.page_size = PAGE_SPANS;
    request.after_seq = after_seq;
    if (store == NULL || !cluster_call(cluster, store, &api_timeline, &request.base, call_p, &body, NULL))
        return NULL;
    return (const Reelkv__V1__TimelineReply *)body;
}

void camera_explain(struct cluster *cluster, const struct camera *camera, char out[STATUS_TEXT_BYTES])
{
    const Reelkv__V1__TimelineReply *reply;
    struct rpc_sync_stream *call;

    copy_text(out, STATUS_TEXT_BYTES, camera->trouble);
    if (out[0] != '\0' || !camera->is_live || camera->gap_frames == 0)
        return;
    reply = timeline(cluster, camera, camera->next_seq > 0 ? camera->next_seq - 1 : 0, &call);
    if (reply != NULL && reply->n_spans > 0)
        copy_text(out, STATUS_TEXT_BYTES, reply->spans[0]->reason);
    rpc_sync_stream_destroy(call);
}

bool camera_last_gap(struct cluster *cluster, const struct camera *camera, struct camera_gap *gap)
{
    struct camera_gap newest = { 0 };
    uint64_t after_seq = 0;
    bool found = false;

    if (camera->gap_frames == 0)
        return false;
    do {
        struct rpc_sync_stream *call;
        const Reelkv__V1__TimelineReply *reply = timeline(cluster, camera, after_seq, &call);

        if (reply == NULL) {
            rpc_sync_stream_destroy(call);
            return false;
        }
        for (size_t i = 0; i < reply->n_spans; i++) {
            const Reelkv__V1__TimelineSpan *span = reply->spans[i];

            if (span->result != REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP || span->reason[0] == '\0')
                continue;
            newest = (struct camera_gap){ span->from_seq, span->to_seq, span->from_pts_ns, "" };
            copy_text(newest.reason, sizeof newest.reason, span->reason);
            found = true;
        }
        /* The next page begins further on, whatever a store says. */
        after_seq = reply->next_seq > after_seq ? reply->next_seq : 0;
        rpc_sync_stream_destroy(call);
    } while (after_seq != 0);
    if (found)
        *gap = newest;
    return found;
}

size_t camera_holds(struct cluster *cluster, const struct camera *camera)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__ListHoldsRequest request = REELKV__V1__LIST_HOLDS_REQUEST__INIT;
    const struct worker_record *store = cluster_store_of(cluster, camera->ns, camera->name, NULL);
    struct rpc_sync_stream *call = NULL;
    const ProtobufCMessage *reply;
    size_t count = 0;

    id.namespace_ = (char *)camera->ns;
    id.name = (char *)camera->name;
    request.id = &id;
    if (store != NULL && cluster_call(cluster, store, &api_list_holds, &request.base, &call, &reply, NULL))
        count = ((const Reelkv__V1__ListHoldsReply *)reply)->n_holds;
    rpc_sync_stream_destroy(call);
    return count;
}

static void set_time(struct json *object, const char *key, int64_t utc_ns)
{
    json_set_str(object, key, utc_ns != 0 ? cli_rfc3339(utc_ns) : NULL);
}

struct json *camera_to_json(const struct camera *camera)
{
    struct json *value = json_make_object();

    json_set_str(value, "namespace", camera->ns);
    json_set_str(value, "name", camera->name);
    json_set_str(value, "state", camera_state_words(camera));
    json_set_str(value, "trouble", camera->trouble[0] != '\0' ? camera->trouble : NULL);
    json_set_str(value, "source", camera->source);
    json_set_str(value, "kind", camera->is_live ? "live" : "file");
    json_set_f64(value, "sample_fps", camera->sample_fps);
    set_time(value, "start_time", camera->start_time_ns);
    set_time(value, "created", camera->created_ns);
    json_set_str(value, "store", camera->store);
    json_set_u64(value, "epoch", camera->epoch);
    json_set_str(value, "fingerprint", camera->fingerprint[0] != '\0' ? camera->fingerprint : NULL);
    json_set_u64(value, "frames_offered", camera->next_seq);
    json_set_u64(value, "frames_expected", camera->expected_frames);
    json_set_u64(value, "frames_stored", camera->stored_frames);
    json_set_u64(value, "frames_durable", camera->durable_seq);
    json_set_u64(value, "frames_gap", camera->gap_frames);
    json_set_u64(value, "frames_evicted", camera->evicted_frames);
    json_set_u64(value, "frames_damaged", camera->damaged_frames);
    json_set_u64(value, "frames_on_disk", camera_frames_on_disk(camera));
    set_time(value, "first", camera->first_pts_ns);
    set_time(value, "last", camera->last_pts_ns);
    json_set_u64(value, "disk_bytes", camera->disk_bytes);
    json_set_str(value, "class", camera->class[0] != '\0' ? camera->class : "default");
    json_set_u64(value, "remembers_s", (uint64_t)camera->remembers_ns / 1000000000);
    return value;
}
