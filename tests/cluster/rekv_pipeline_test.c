/* ReKV's fixtures, computed through the four processes: lossless video -> encoder -> analyzer -> kvstore -> qa. The video
 * goes on behind the fixture's frames until the store's budget has sent them to the disk; from there their keys, values
 * and representative keys must come as the reference implementation's, and so must the blocks every layer chooses and the
 * answers (docs/fixtures.md). */
#include <signal.h>
#include <stdlib.h>

#include "clip_cluster.h"
#include "redis/directory_view.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"

enum { CALL_MS = 60000 };

static void check_run(struct rpc_sync *qa, const struct json *run)
{
    const struct json *chosen = json_get(run, "chosen");
    char *streams[] = { (char *)"clip" };
    static struct asked asked;

    ask(qa, streams, 1, run, &asked);
    for (size_t layer = 0; layer < json_len(chosen); layer++) {
        uint32_t want[64];
        size_t count = fixture_ids(json_at(chosen, layer), want, 64);

        CHECK_EQ(asked.chosen_count[layer], count);
        for (size_t i = 0; i < count; i++)
            CHECK_EQ(asked.chosen[layer][i], want[i]);
    }
    /* The service lets `all` see its whole context; the fixture's window ends after n_local tokens. */
    if (strcmp(json_str(json_get(run, "selector")), "all") != 0)
        check_ids(&asked, run);
}

static void check_runs(const struct clip_cluster *clip)
{
    const struct json *runs = json_get(clip->fixture.manifest, "runs");
    struct rpc_sync *qa = connect_to(clip->qa);

    for (size_t i = 0; i < json_len(runs); i++)
        check_run(qa, json_at(runs, i));
    rpc_sync_destroy(qa);
}

static Reelkv__V1__StreamId clip_id(void)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    id.namespace_ = (char *)"default";
    id.name = (char *)"clip";
    return id;
}

/* The older part of the stream is on the disk only: the fixture's frames, and more than half of all. */
static void check_on_disk(struct rpc_sync *store, const struct clip_cluster *clip)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    Reelkv__V1__StreamId id = clip_id();
    struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *call;
    const struct rpc_message *message;
    const Reelkv__V1__TimelineSpan *oldest;
    struct status st = { 0 };

    request.id = &id;
    CHECK_OK(rpc_sync_unary(&call, store, &api_timeline, &options, &request.base, &message, &st), st);
    oldest = ((const Reelkv__V1__TimelineReply *)message->body)->spans[0];
    CHECK_EQ(oldest->from_seq, 0);
    CHECK_EQ(oldest->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK);
    CHECK(!oldest->in_ram);
    CHECK(oldest->to_seq > clip->frames / 2);
    CHECK(oldest->to_seq >= fixture_u32(clip->fixture.manifest, "frames"));
    rpc_sync_stream_destroy(call);
}

/* The payload that follows a Block, whole; free(). */
static uint8_t *read_payload(struct rpc_sync_stream *call, uint64_t bytes)
{
    uint8_t *payload = malloc(bytes);
    const struct rpc_message *message;
    struct status st = { 0 };

    for (uint64_t got = 0; got < bytes; got += message->payload.len) {
        CHECK_OK(rpc_sync_read(call, &message, &st), st);
        CHECK(message != NULL && message->payload.len > 0 && message->payload.len <= bytes - got);
        rpc_payload_copy(&message->payload, 0, payload + got, message->payload.len);
    }
    return payload;
}

/* Every block of the stream, as a writer gets them that starts again: the system prompt's, and the frames'. */
static void load_blocks(struct rpc_sync *store, const struct model_geometry *geometry, uint32_t frames,
                        uint8_t **init_p, uint8_t **payloads)
{
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    Reelkv__V1__StreamId id = clip_id();
    struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *call;
    const struct rpc_message *message;
    struct camera camera;
    struct status st = { 0 };

    camera_look(store, "clip", &camera);
    request.id = &id;
    request.fingerprint =
        (ProtobufCBinaryData){ MODEL_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)geometry->fingerprint };
    request.epoch = camera.epoch;
    request.tokens = frames * geometry->frame_tokens;
    CHECK_OK(rpc_sync_open(&call, store, &api_load_window, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    for (int64_t seq = -1; seq < frames; seq++) { /* the system prompt has none */
        const Reelkv__V1__Block *block;
        uint8_t **at = seq < 0 ? init_p : &payloads[seq];

        CHECK_OK(rpc_sync_read(call, &message, &st), st);
        CHECK(message != NULL);
        block = ((const Reelkv__V1__LoadWindowReply *)message->body)->block;
        CHECK(block != NULL);
        CHECK_EQ(block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT, seq < 0);
        CHECK(seq < 0 || block->seq == (uint64_t)seq);
        *at = read_payload(call, block->payload_bytes);
    }
    CHECK_OK(rpc_sync_finish(call, &st), st);
    rpc_sync_stream_destroy(call);
}

static void check_kv(struct rpc_sync *store, const struct clip_cluster *clip, const char *checkpoint)
{
    struct model *model =
        parity_model(&(struct parity_options){ .checkpoint = checkpoint,
                                               .dtype = TENSOR_F32,
                                               .n_local = fixture_u32(clip->fixture.manifest, "n_local") });
    uint8_t **payloads = calloc(clip->frames, sizeof *payloads), *init = NULL;

    load_blocks(store, model_geometry(model), clip->frames, &init, payloads);
    check_blocks(&clip->fixture, model, payloads, init);
    check_representatives(&clip->fixture, model, payloads);
    for (uint32_t i = 0; i < clip->frames; i++)
        free(payloads[i]);
    free(payloads);
    free(init);
    model_close(model);
}

/* `frames`: enough to overfill the smallest memory a store takes. */
static void check_stream(const char *checkpoint, uint32_t frames)
{
    static const char *const small[] = { "--ram-budget-bytes", "8M", NULL };
    struct clip_cluster clip = { .frames = frames, .store_flags = small };
    struct rpc_sync *store;

    clip_cluster_open(&clip, checkpoint);
    store = connect_to(clip.store);
    check_on_disk(store, &clip);
    check_kv(store, &clip, checkpoint);
    check_runs(&clip);
    rpc_sync_destroy(store);
    clip_cluster_close(&clip);
}

TEST(four_processes_equal_the_reference_f32_on_disk)
{
    check_stream("tiny-a", 1300);
}

TEST(four_processes_equal_the_reference_with_grouped_heads_and_196_tokens)
{
    check_stream("tiny-b", 160);
}

TEST(four_processes_equal_the_reference_f16_on_disk)
{
    check_stream("tiny-c", 1200);
}

TEST(four_processes_equal_the_reference_sharded)
{
    check_stream("tiny-d", 1000);
}

/* Nothing is left in the store's memory, and nothing it wrote was closed in order. */
TEST(four_processes_answer_as_the_reference_after_the_store_was_killed)
{
    struct clip_cluster clip = { 0 };

    clip_cluster_open(&clip, "tiny-a");
    CHECK_EQ(cluster_service_stop(clip.store, SIGKILL), 128 + SIGKILL);
    cluster_service_start(&clip.cluster, "kvstore", 0, NULL);
    cluster_wait_joined(&clip.cluster);
    test_pause_ms(2 * DIRECTORY_HEARTBEAT_MS); /* until qa has read of the store's new process */
    check_runs(&clip);
    clip_cluster_close(&clip);
}

TEST_MAIN()
