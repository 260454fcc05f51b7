#include "clip_cluster.h"

#include <stdlib.h>

#include "base/clock.h"
#include "kv/kv_crc.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "reelkv/v1/qa.pb-c.h"
#include "rpc/api.h"

enum { WAIT_MS = 60000, CALL_MS = 60000, UNAVAILABLE_TRIES = 600 };
static const int64_t start_ns = 1767225600ll * 1000000000; /* 2026-01-01T00:00:00Z */

void write_clip(const char *path, uint32_t from, uint32_t to)
{
    struct fixture clip = fixture_open("clip");
    const struct safetensors_tensor *frames = safetensors_find(clip.tensors, "frames");
    uint64_t frame_bytes = frames->shape[1] * frames->shape[2] * 3;
    char raw[320], size[32];
    struct process ffmpeg;
    FILE *file;

    snprintf(raw, sizeof raw, "%s/clip.rgb", test_folder());
    snprintf(size, sizeof size, "%dx%d", (int)frames->shape[2], (int)frames->shape[1]);
    file = fopen(raw, "wb");
    CHECK(file != NULL);
    for (uint64_t i = from; i < to; i++)
        CHECK_EQ(fwrite(frames->data + i % frames->shape[0] * frame_bytes, frame_bytes, 1, file), 1);
    fclose(file);
    CHECK_EQ(process_run(&ffmpeg, "ffmpeg",
                         PROCESS_ARGS("ffmpeg", "-nostdin", "-loglevel", "error", "-f", "rawvideo",
                                      "-pix_fmt", "rgb24", "-s", size, "-r", "2", "-i", raw, "-c:v", "ffv1",
                                      "-pix_fmt", "bgr0", "-y", path),
                         60000),
             0);
    fixture_close(&clip);
}

struct rpc_sync *connect_to(const struct cluster_service *service)
{
    struct rpc_sync *client;
    struct status st = { 0 };

    CHECK_OK(rpc_sync_create(&client, service->address, NULL, &st), st);
    return client;
}

static bool create_stream(struct rpc_sync *store, const char *name, Reelkv__V1__StreamDefinition *definition,
                          struct status *st)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *call;
    const struct rpc_message *reply;
    bool ok;

    id.namespace_ = (char *)"default";
    id.name = (char *)(uintptr_t)name;
    definition->id = &id;
    request.definition = definition;
    ok = rpc_sync_unary(&call, store, &api_create_stream, &options, &request.base, &reply, st);
    rpc_sync_stream_destroy(call);
    return ok;
}

bool try_add_camera(struct rpc_sync *store, const char *name, const char *path, struct status *st)
{
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;

    definition.source = (char *)(uintptr_t)path;
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_FILE;
    definition.sample_fps = CLIP_FPS;
    definition.start_time_ns = start_ns;
    return create_stream(store, name, &definition, st);
}

void add_camera(struct rpc_sync *store, const char *name, const char *path)
{
    struct status st = { 0 };

    CHECK_OK(try_add_camera(store, name, path, &st), st);
}

void add_live_camera(struct rpc_sync *store, const char *name, const char *url, double fps)
{
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    struct status st = { 0 };

    definition.source = (char *)(uintptr_t)url;
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    definition.sample_fps = fps;
    CHECK_OK(create_stream(store, name, &definition, &st), st);
}

static void take_status(struct camera *camera, const Reelkv__V1__StreamStatus *status)
{
    camera->has_failed = status->state == REELKV__V1__STREAM_STATE__STREAM_STATE_FAILED;
    camera->has_ended = camera->has_failed || status->state == REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED;
    camera->created_ns = status->definition->created_ns;
    camera->epoch = status->epoch;
    camera->next_seq = status->next_seq;
    camera->durable_seq = status->durable_seq;
    camera->stored_frames = status->stored_frames;
    camera->gap_frames = status->gap_frames;
    camera->damaged_frames = status->damaged_frames;
    snprintf(camera->trouble, sizeof camera->trouble, "%s", status->trouble);
}

void camera_look(struct rpc_sync *store, const char *name, struct camera *camera)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;
    struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *call;
    const struct rpc_message *reply;
    struct status st = { 0 };

    id.namespace_ = (char *)"default";
    id.name = (char *)(uintptr_t)name;
    request.id = &id;
    /* A store that was just killed breaks the call under way, and is not there until its new process is. */
    for (int tries = 1; !rpc_sync_unary(&call, store, &api_get_stream, &options, &request.base, &reply, &st);
         tries++) {
        if (st.code != STATUS_UNAVAILABLE || tries == UNAVAILABLE_TRIES)
            test_fail(__FILE__, __LINE__, "get stream %s: %s", name, st.text);
        rpc_sync_stream_destroy(call);
        test_pause_ms(100);
    }
    take_status(camera, (const Reelkv__V1__StreamStatus *)reply->body);
    rpc_sync_stream_destroy(call);
}

static void wait_until(struct rpc_sync *store, const char *name, uint64_t frames, bool until_end)
{
    uint64_t end_ns = clock_mono_ns() + WAIT_MS * 1000000ull;
    struct camera camera;

    for (;;) {
        camera_look(store, name, &camera);
        if (camera.has_failed)
            test_fail(__FILE__, __LINE__, "camera %s failed: %s", name, camera.trouble);
        if (until_end ? camera.has_ended : camera.stored_frames >= frames)
            break;
        if (clock_mono_ns() > end_ns)
            test_fail(__FILE__, __LINE__, "camera %s stopped at %llu frames before %llu", name,
                      (unsigned long long)camera.stored_frames, (unsigned long long)frames);
        test_pause_ms(until_end ? 50 : 2);
    }
    if (until_end)
        CHECK_EQ(camera.stored_frames, frames);
}

void wait_stored(struct rpc_sync *store, const char *name, uint64_t frames)
{
    wait_until(store, name, frames, false);
}

void wait_ended(struct rpc_sync *store, const char *name, uint64_t frames)
{
    wait_until(store, name, frames, true);
}

void clip_cluster_open(struct clip_cluster *clip, const char *checkpoint)
{
    struct rpc_sync *store;
    char model[512], video[320], name[64];
    uint32_t frames;

    snprintf(name, sizeof name, "stream-%s", checkpoint);
    clip->fixture = fixture_open(name);
    frames = clip->frames > 0 ? clip->frames : fixture_u32(clip->fixture.manifest, "frames");
    snprintf(model, sizeof model, "%s/tests/data/parity/%s", REELKV_SOURCE_DIR, checkpoint);
    snprintf(video, sizeof video, "%s/clip.mkv", test_folder());
    write_clip(video, 0, frames);
    cluster_start(&clip->cluster, model, "f32", fixture_u32(clip->fixture.manifest, "n_local"));
    clip->store = cluster_service_start(&clip->cluster, "kvstore", 0, clip->store_flags);
    cluster_service_start(&clip->cluster, "analyzer", 0, PROCESS_ARGS("--pool-bytes", "64M"));
    cluster_service_start(&clip->cluster, "encoder", 0, NULL);
    clip->qa = cluster_service_start(&clip->cluster, "qa", 0, NULL);
    cluster_wait_joined(&clip->cluster);
    store = connect_to(clip->store);
    add_camera(store, "clip", video);
    wait_ended(store, "clip", frames);
    rpc_sync_destroy(store);
}

void clip_cluster_close(struct clip_cluster *clip)
{
    cluster_stop(&clip->cluster);
    fixture_close(&clip->fixture);
}

static struct rpc_sync_stream *open_fetch(struct rpc_sync *store, const char *name,
                                          const struct model_geometry *geometry, uint64_t frames)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__View view = REELKV__V1__VIEW__INIT;
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT, *ids[] = { &id };
    Reelkv__V1__FrameRef *refs = calloc(frames, sizeof *refs), **list = calloc(frames, sizeof *list);
    struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *call;
    struct status st = { 0 };

    id.namespace_ = (char *)"default";
    id.name = (char *)(uintptr_t)name;
    view.n_streams = 1;
    view.streams = ids;
    view.fingerprint =
        (ProtobufCBinaryData){ MODEL_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)geometry->fingerprint };
    for (uint64_t i = 0; i < frames; i++) {
        refs[i] = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
        refs[i].seq = i;
        list[i] = &refs[i];
    }
    request.view = &view;
    request.n_frames = frames;
    request.frames = list;
    request.layers = geometry->layers;
    CHECK_OK(rpc_sync_open(&call, store, &api_fetch, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    free(refs);
    free(list);
    return call;
}

uint32_t *block_crcs(struct rpc_sync *store, const char *name, const struct model_geometry *geometry,
                     uint64_t frames, uint64_t *gaps_p)
{
    struct rpc_sync_stream *call = open_fetch(store, name, geometry, frames);
    uint32_t *crcs = calloc(frames * geometry->layers, sizeof *crcs), layer = 0, index = 0, said = 0;
    uint64_t left = 0, whole = 0, gaps = 0;
    uint8_t bytes[LIMIT_CHUNK_BYTES / 4];
    struct status st = { 0 };

    for (;;) {
        const struct rpc_message *message;
        const Reelkv__V1__SliceReply *reply;

        CHECK_OK(rpc_sync_read(call, &message, &st), st);
        if (message == NULL)
            break;
        reply = (const Reelkv__V1__SliceReply *)message->body;
        if (reply->head != NULL && gaps_p != NULL &&
            reply->head->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP) {
            gaps++; /* one answer for all layers */
            continue;
        }
        if (reply->head != NULL) {
            CHECK_EQ(reply->head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
            CHECK(reply->head->index < frames && reply->head->layer < geometry->layers && left == 0);
            index = reply->head->index;
            layer = reply->head->layer;
            left = reply->head->length;
            said = reply->head->crc32c;
        }
        CHECK(message->payload.len <= left && message->payload.len <= sizeof bytes);
        rpc_payload_copy(&message->payload, 0, bytes, message->payload.len);
        crcs[index * geometry->layers + layer] =
            kv_crc(crcs[index * geometry->layers + layer], bytes, message->payload.len);
        left -= message->payload.len;
        if (left == 0) {
            CHECK_EQ(crcs[index * geometry->layers + layer], said);
            whole++;
        }
    }
    CHECK_EQ(whole, (frames - gaps) * geometry->layers);
    if (gaps_p != NULL)
        *gaps_p = gaps;
    rpc_sync_stream_destroy(call);
    return crcs;
}

static int by_time(const void *left, const void *right)
{
    const Reelkv__V1__Hit *a = *(Reelkv__V1__Hit *const *)left, *b = *(Reelkv__V1__Hit *const *)right;

    if (a->pts_ns != b->pts_ns)
        return a->pts_ns < b->pts_ns ? -1 : 1;
    return (int)a->frame->stream - (int)b->frame->stream;
}

static void take_evidence(const Reelkv__V1__Evidence *evidence, struct asked *asked)
{
    CHECK(evidence->n_frames <= ARRAY_LEN(asked->evidence));
    asked->evidence_count = evidence->n_frames;
    asked->damaged_frames = evidence->damaged_frames;
    for (size_t i = 0; i < evidence->n_frames; i++) {
        asked->evidence[i].seq = evidence->frames[i]->seq;
        asked->evidence[i].pts_ns = evidence->frames[i]->pts_ns;
    }
    for (size_t i = 0; i < evidence->n_layers; i++) {
        const Reelkv__V1__LayerChoice *choice = evidence->layers[i];

        CHECK(choice->layer < LIMIT_LAYERS && choice->n_hits <= 64);
        qsort(choice->hits, choice->n_hits, sizeof *choice->hits, by_time);
        asked->chosen_count[choice->layer] = choice->n_hits;
        for (size_t h = 0; h < choice->n_hits; h++) {
            asked->chosen[choice->layer][h] = choice->hits[h]->frame->seq;
            asked->streams[choice->layer][h] = choice->hits[h]->frame->stream;
        }
    }
}

static uint32_t selector_of(const char *name)
{
    return strcmp(name, "rekv") == 0     ? REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_REKV
           : strcmp(name, "recent") == 0 ? REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_RECENT
                                         : REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_ALL;
}

struct rpc_sync_stream *ask_open(struct rpc_sync *qa, const Reelkv__V1__AskRequest *request)
{
    struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *call;
    struct status st = { 0 };

    CHECK_OK(rpc_sync_open(&call, qa, &api_ask, &options, &st), st);
    if (rpc_sync_write(call, &request->base, NULL, &st))
        rpc_sync_half_close(call, &st);
    return call; /* a call that is over already says so when it is read */
}

bool ask_read(struct rpc_sync_stream *call, struct asked *asked, struct status *st)
{
    const struct rpc_message *message;
    bool ok, has_end = false;

    memset(asked, 0, sizeof *asked);
    while ((ok = rpc_sync_read(call, &message, st)) && message != NULL) {
        const Reelkv__V1__AskReply *reply = (const Reelkv__V1__AskReply *)message->body;

        if (reply->item_case == REELKV__V1__ASK_REPLY__ITEM_EVIDENCE)
            take_evidence(reply->evidence, asked);
        if (reply->item_case != REELKV__V1__ASK_REPLY__ITEM_END)
            continue;
        CHECK(reply->end->n_answer_ids <= 64);
        asked->id_count = reply->end->n_answer_ids;
        memcpy(asked->ids, reply->end->answer_ids, asked->id_count * sizeof *asked->ids);
        has_end = true;
    }
    rpc_sync_stream_destroy(call);
    CHECK(!ok || has_end); /* OK means all of it */
    return ok;
}

void ask(struct rpc_sync *qa, char **streams, size_t stream_count, const struct json *run,
         struct asked *asked)
{
    Reelkv__V1__AskRequest request = REELKV__V1__ASK_REQUEST__INIT;
    Reelkv__V1__Count top_r = REELKV__V1__COUNT__INIT, recent = REELKV__V1__COUNT__INIT,
                      tokens = REELKV__V1__COUNT__INIT;
    struct status st = { 0 };

    top_r.value = fixture_u32(run, "top_r");
    recent.value = fixture_u32(run, "recent_window");
    tokens.value = 64;
    request.namespace_ = (char *)"default";
    request.n_streams = stream_count;
    request.streams = streams;
    request.question = (char *)(uintptr_t)json_str(json_get(run, "question"));
    request.selector = selector_of(json_str(json_get(run, "selector")));
    request.top_r = &top_r;
    request.recent_window = &recent;
    request.max_tokens = &tokens;
    request.layer_lists = true;
    if (stream_count == 1) /* only the frames before: as_of is between two of them */
        request.as_of_ns = start_ns + (int64_t)fixture_u32(run, "frames") * 1000000000 / CLIP_FPS - 100000000;
    CHECK_OK(ask_read(ask_open(qa, &request), asked, &st), st);
}

void check_ids(const struct asked *asked, const struct json *run)
{
    const struct json *stop = json_get(run, "stop_at");
    uint32_t want[64];
    size_t count = fixture_ids(json_get(run, "ids"), want, 64);

    if (stop != NULL)
        count = (size_t)json_number(stop);
    CHECK_EQ(asked->id_count, count);
    for (size_t i = 0; i < count; i++)
        if (asked->ids[i] != want[i])
            test_fail(__FILE__, __LINE__, "question %u, %s: id %zu is %u, not %u", fixture_u32(run, "run"),
                      json_str(json_get(run, "selector")), i, asked->ids[i], want[i]);
}
