/* kvstore_fixture.h - a store in the test's own folder, without RPCs: streams with blocks whose every byte
 * follows from (stream, seq), so that what comes back can be told right from wrong. */
#ifndef REELKV_TEST_KVSTORE_FIXTURE_H
#define REELKV_TEST_KVSTORE_FIXTURE_H

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "kv/kv_crc.h"
#include "kvstore/block_read.h"
#include "kvstore/slice_read.h"
#include "kvstore/store.h"
#include "kvstore/view.h"
#include "support/payload.h"
#include "support/test.h"

struct fixture {
    struct loop *loop;
    struct store *store;
    struct store_options options;
    char root[512];
    struct status st;
};

/* A test that needs longer keys defines it. */
#ifndef FIXTURE_HEAD_DIM
#define FIXTURE_HEAD_DIM 16
#endif

static const struct kv_geometry fixture_geometry = {
    .layers = 3, .kv_heads = 2, .head_dim = FIXTURE_HEAD_DIM, .dtype = KV_DTYPE_F16
};
enum { FIXTURE_TOKENS = 20, FIXTURE_INIT_TOKENS = 5 };

struct fixture_writer {
    struct stream_writer base;
    bool is_fenced;
    struct status why;
};

static void fixture_moved(struct stream_writer *writer)
{
}

static void fixture_fenced(struct stream_writer *writer, const struct status *why)
{
    struct fixture_writer *fixture = container_of(writer, struct fixture_writer, base);

    fixture->is_fenced = true;
    fixture->why = *why;
}

static inline void fixture_open(struct fixture *fixture)
{
    CHECK_OK(loop_create(&fixture->loop, &fixture->st), fixture->st);
    CHECK_OK(store_open(&fixture->store, fixture->loop, &fixture->options, &fixture->st), fixture->st);
}

static inline void fixture_start(struct fixture *fixture)
{
    snprintf(fixture->root, sizeof fixture->root, "%s/data", test_folder());
    fixture->options = (struct store_options){ .name = "kv-a",
                                               .root = fixture->root,
                                               .ram_bytes = 16 << 20,
                                               .disk_bytes = 64 << 20,
                                               .segment_bytes_max = 1 << 20,
                                               .commit_ms = 5,
                                               .reading_threads = 2,
                                               .computing_threads = 2,
                                               .writing_threads = 2 };
    fixture_open(fixture);
}

static inline void fixture_stop(struct fixture *fixture)
{
    store_close(fixture->store);
    loop_destroy(fixture->loop);
}

/* Turns the loop until the condition holds; fails the test after ten seconds. */
#define FIXTURE_TURN_UNTIL(fixture, condition)                                           \
    do {                                                                                 \
        uint64_t limit_ = clock_mono_ns() + 10000000000ull;                              \
        struct loop_timer tick_ = { 0 };                                                 \
        while (!(condition)) {                                                           \
            if (clock_mono_ns() > limit_)                                                \
                test_fail(__FILE__, __LINE__, "not within ten seconds: %s", #condition); \
            loop_timer_start((fixture)->loop, &tick_, 20, fixture_tick);                 \
            loop_run_once((fixture)->loop);                                              \
        }                                                                                \
        loop_timer_stop(&tick_);                                                         \
    } while (0)

static void fixture_tick(struct loop_timer *timer)
{
}

/* What the start has left on the disk is there. */
static inline void fixture_wait_keys(struct fixture *fixture)
{
    FIXTURE_TURN_UNTIL(fixture, fixture->store->keys_later.first == NULL);
}

struct fixture_answer {
    bool came;
    bool ok;
    struct status st;
};

static void fixture_done(void *user, struct stream *stream, const struct status *failure)
{
    struct fixture_answer *answer = user;

    answer->came = true;
    answer->ok = failure == NULL;
    if (failure != NULL)
        answer->st = *failure;
}

static inline struct stream *fixture_define(struct fixture *fixture, const char *name)
{
    struct stream_definition definition = { .source = "rtsp://cam/1",
                                            .kind = STREAM_LIVE,
                                            .sample_fps = 0.5 };
    struct fixture_answer answer = { 0 };

    CHECK_OK(stream_define(fixture->store, "default", name, &definition, fixture_done, &answer, &fixture->st),
             fixture->st);
    FIXTURE_TURN_UNTIL(fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    return store_find(fixture->store, "default", name);
}

static inline bool fixture_take(struct fixture *fixture, struct stream *stream, struct status *st)
{
    struct stream_open_request request = { .geometry = fixture_geometry, .writer = "analyzer-1" };
    struct fixture_answer answer = { 0 };

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    if (!stream_open(stream, &request, fixture_done, &answer, st))
        return false;
    FIXTURE_TURN_UNTIL(fixture, answer.came);
    if (!answer.ok)
        *st = answer.st;
    return answer.ok;
}

static inline void fixture_attach(struct fixture *fixture, struct stream *stream,
                                  struct fixture_writer *writer)
{
    *writer = (struct fixture_writer){ .base = { fixture_moved, fixture_fenced } };
    CHECK_OK(fixture_take(fixture, stream, &fixture->st), fixture->st);
    CHECK_OK(stream_attach(stream, stream->epoch, &writer->base, &fixture->st), fixture->st);
}

/* A pair of payload bytes: an f16 number between 0.5 and 2. No run of them is in two frames. */
static inline void fixture_pair(char camera, uint64_t seq, uint64_t n, uint8_t pair[2])
{
    uint64_t mix = (seq + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)(uint8_t)camera * 77 + n;

    mix = (mix ^ mix >> 30) * 0xbf58476d1ce4e5b9ull;
    mix = (mix ^ mix >> 27) * 0x94d049bb133111ebull;
    mix ^= mix >> 31;
    pair[0] = (uint8_t)mix;
    pair[1] = (uint8_t)(0x38 + (mix >> 8 & 7));
}

static inline char fixture_camera(const char *stream)
{
    return stream[strlen(stream) - 1];
}

/* Payload byte `at`. */
static inline uint8_t fixture_byte(const char *stream, uint64_t seq, uint64_t at)
{
    uint8_t pair[2];

    fixture_pair(fixture_camera(stream), seq, at / 2, pair);
    return pair[at % 2];
}

/* Payload bytes from `at` on; both are even. */
static inline void fixture_fill(const char *stream, uint64_t seq, uint64_t at, uint8_t *to, uint64_t bytes)
{
    char camera = fixture_camera(stream);

    for (uint64_t i = 0; i < bytes; i += 2)
        fixture_pair(camera, seq, (at + i) / 2, to + i);
}

static inline int64_t fixture_pts(uint64_t seq)
{
    return 1700000000000000000ll + (int64_t)seq * 2000000000ll;
}

/* As the server does: takes a slot, copies, checks, appends. */
static inline bool fixture_append_block(struct fixture *fixture, struct stream *stream,
                                        const struct stream_block *block, struct status *st)
{
    struct ram_arena *arena = fixture->store->arena;
    struct kv_record record;
    struct kv_layout layout;
    struct ram_slot *slot;
    uint8_t *payload, *image;
    bool is_known, ok;

    if (!stream_check_block(stream, block, &is_known, &record, st))
        return false;
    if (is_known)
        return true;
    kv_record_layout(&record, &layout);
    slot = ram_take(arena, RAM_IMAGES, layout.record_bytes);
    if (slot == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no RAM");
    image = ram_bytes(arena, slot);
    payload = malloc(block->payload_bytes);
    CHECK(payload != NULL);
    fixture_fill(stream->name, block->is_init ? 1 << 30 : block->seq, 0, payload, block->payload_bytes);
    kv_record_scatter(&record, 0, payload, block->payload_bytes, image);
    if (block->thumbnail_bytes > 0)
        memcpy(image + layout.thumbnail, block->thumbnail, block->thumbnail_bytes);
    explicit_bzero(payload, block->payload_bytes); /* memory is searched for it (kvstore_secret_test.c) */
    free(payload);
    kv_record_checksum(&record, image);
    ok = stream_append(stream, &record, slot, st);
    ram_unref(arena, slot);
    return ok;
}

static inline struct stream_block fixture_block(const struct stream *stream, uint64_t seq)
{
    return (struct stream_block){ .seq = seq,
                                  .pts_ns = fixture_pts(seq),
                                  .token_index = stream->next_token_index,
                                  .tokens = FIXTURE_TOKENS,
                                  .thumbnail = (const uint8_t *)"jpeg",
                                  .thumbnail_bytes = 4,
                                  .payload_bytes = kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS) };
}

static inline void fixture_append_init(struct fixture *fixture, struct stream *stream)
{
    struct stream_block block = { .is_init = true,
                                  .tokens = FIXTURE_INIT_TOKENS,
                                  .payload_bytes = kv_payload_bytes(&fixture_geometry, FIXTURE_INIT_TOKENS) };

    CHECK_OK(fixture_append_block(fixture, stream, &block, &fixture->st), fixture->st);
}

/* Appends the next `count` frames, waiting for room as a writer does. */
static inline void fixture_append(struct fixture *fixture, struct stream *stream, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct stream_block block = fixture_block(stream, stream->next_seq);
        uint64_t limit = clock_mono_ns() + 10000000000ull;

        while (!fixture_append_block(fixture, stream, &block, &fixture->st)) {
            struct loop_timer tick = { 0 };

            if (fixture->st.code != STATUS_EXHAUSTED || clock_mono_ns() > limit)
                test_fail(__FILE__, __LINE__, "append %llu: %s", (unsigned long long)block.seq,
                          fixture->st.text);
            loop_timer_start(fixture->loop, &tick, 5, fixture_tick);
            loop_run_once(fixture->loop);
            loop_timer_stop(&tick);
        }
    }
}

static inline bool fixture_append_gap(struct stream *stream, uint64_t frames, const char *reason,
                                      struct status *st)
{
    const struct stream_gap gap = { .from_seq = stream->next_seq,
                                    .to_seq = stream->next_seq + frames,
                                    .from_pts_ns = fixture_pts(stream->next_seq),
                                    .to_pts_ns = fixture_pts(stream->next_seq + frames),
                                    .reason = reason };

    return stream_append_gap(stream, &gap, st);
}

/* A stream whose writer has written INIT and its first `count` frames. */
static inline struct stream *fixture_write(struct fixture *fixture, const char *name,
                                           struct fixture_writer *writer, uint64_t count)
{
    struct stream *stream = fixture_define(fixture, name);

    fixture_attach(fixture, stream, writer);
    fixture_append_init(fixture, stream);
    fixture_append(fixture, stream, count);
    return stream;
}

static inline void fixture_wait_durable(struct fixture *fixture, struct stream *stream)
{
    FIXTURE_TURN_UNTIL(fixture, stream_durable_seq(stream) == stream->next_seq && stream_is_durable(stream));
}

static inline void fixture_remove(struct fixture *fixture, struct stream *stream)
{
    struct fixture_answer answer = { 0 };
    struct stream_removed removed;

    CHECK_OK(stream_delete(stream, &removed, fixture_done, &answer, &fixture->st), fixture->st);
    FIXTURE_TURN_UNTIL(fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
}

static inline bool fixture_is_sealed(const struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (stream->segments[i]->writer != NULL)
            return false;
    return true;
}

/* After its writer has left: until its segments, which end in any order, are sealed, or gone to keep the budget. */
static inline void fixture_wait_sealed(struct fixture *fixture, struct stream *stream)
{
    FIXTURE_TURN_UNTIL(fixture, fixture_is_sealed(stream) && fixture->store->removal == NULL);
}

struct fixture_read {
    struct slice_read read;
    bool came;
};

static void fixture_read_done(struct slice_read *read)
{
    container_of(read, struct fixture_read, read)->came = true;
}

/* Byte by byte; of DERIVED what the bytes are after they were encoded. */
static inline void fixture_check_layer(const struct slice_read *read, const char *name)
{
    uint64_t at = payload_layer_offset(&fixture_geometry, FIXTURE_TOKENS, read->layer);
    uint64_t slice_bytes = kv_slice_bytes(&fixture_geometry, FIXTURE_TOKENS);
    struct kv_encoding encoding = kv_quant_encoding(&fixture_geometry, 8);
    uint8_t *expected = malloc(2 * slice_bytes), *codes = malloc(slice_bytes);

    CHECK(expected != NULL && codes != NULL);
    CHECK_EQ(read->length, 2 * slice_bytes);
    fixture_fill(name, read->frame->seq, at, expected, read->length);
    for (uint32_t i = 0; read->result == FRAME_DERIVED && i < 2; i++) {
        CHECK(
            kv_quant_encode(&fixture_geometry, encoding, FIXTURE_TOKENS, expected + i * slice_bytes, codes));
        kv_quant_decode(&fixture_geometry, encoding, FIXTURE_TOKENS, codes, expected + i * slice_bytes);
    }
    for (uint64_t i = 0; i < read->length; i++)
        if (read->bytes[i] != expected[i])
            test_fail(__FILE__, __LINE__, "frame %llu layer %u: byte %llu is wrong",
                      (unsigned long long)read->frame->seq, read->layer, (unsigned long long)i);
    CHECK_EQ(read->crc, kv_crc(0, read->bytes, read->length));
    explicit_bzero(expected, 2 * slice_bytes);
    free(expected);
    free(codes);
}

/* Reads a layer (or the thumbnail) of a frame whose chunk is held; a right answer's bytes are compared with what was
 * written. Returns the result. */
static inline enum frame_result fixture_read_frame(struct fixture *fixture, struct index_frame *frame,
                                                   const char *name, uint32_t layer)
{
    struct fixture_read reading = {
        .read = { .store = fixture->store, .frame = frame, .layer = layer, .done = fixture_read_done }
    };
    struct slice_read *read = &reading.read;
    enum frame_result result;

    if (!slice_read_start(read))
        FIXTURE_TURN_UNTIL(fixture, reading.came);
    result = read->result;
    if (frame_result_has_bytes(result) && layer != SLICE_THUMBNAIL) {
        fixture_check_layer(read, name);
    } else if (result == FRAME_OK) {
        CHECK_EQ(read->length, 4);
        CHECK_MEM(read->bytes, "jpeg", 4);
    }
    slice_read_release(read);
    return result;
}

static inline enum frame_result fixture_read_layer(struct fixture *fixture, struct stream *stream,
                                                   uint64_t seq, uint32_t layer)
{
    struct index_frame *frame = stream_find(stream, seq);

    return frame == NULL ? frame_result_of_absence(stream_absence_of(stream, seq))
                         : fixture_read_frame(fixture, frame, stream->name, layer);
}

struct fixture_block_read {
    struct block_read read;
    bool came;
};

static void fixture_block_done(struct block_read *read)
{
    container_of(read, struct fixture_block_read, read)->came = true;
}

/* Reads a whole block (frame NULL: INIT); a right answer's bytes are compared with what was written. */
static inline enum frame_result fixture_read_block(struct fixture *fixture, struct stream *stream,
                                                   struct index_frame *frame)
{
    struct fixture_block_read reading = {
        .read = { .store = fixture->store, .stream = stream, .frame = frame, .done = fixture_block_done }
    };
    struct block_read *read = &reading.read;
    uint64_t seq = frame == NULL ? 1 << 30 : frame->seq;
    enum frame_result result;

    if (!block_read_start(read))
        FIXTURE_TURN_UNTIL(fixture, reading.came);
    result = read->result;
    for (uint64_t at = 0; result == FRAME_OK && at < kv_payload_bytes(&fixture_geometry, read->record.tokens);
         at++) {
        struct kv_run run = kv_record_run(&read->record, at);

        CHECK(run.bytes > 0);
        if (read->image[run.image] != fixture_byte(stream->name, seq, at))
            test_fail(__FILE__, __LINE__, "byte %llu of block %llu is wrong", (unsigned long long)at,
                      (unsigned long long)seq);
    }
    block_read_release(read);
    return result;
}

static inline void fixture_check_all(struct fixture *fixture, struct stream *stream, uint64_t from,
                                     uint64_t to)
{
    for (uint64_t seq = from; seq < to; seq++) {
        for (uint32_t layer = 0; layer < fixture_geometry.layers; layer++)
            if (fixture_read_layer(fixture, stream, seq, layer) != FRAME_OK)
                test_fail(__FILE__, __LINE__, "frame %llu layer %u is not there", (unsigned long long)seq,
                          layer);
        CHECK_EQ(fixture_read_layer(fixture, stream, seq, SLICE_THUMBNAIL), FRAME_OK);
    }
}

/* Works that keep a pool's threads, and fill its queue, until they are let go. */
struct fixture_jam_work {
    struct work work;
    struct fixture_jam *jam;
};

struct fixture_jam {
    struct fixture_jam_work works[STORE_READS_QUEUED + 3];
    atomic_bool is_let_go;
    atomic_uint running;
    unsigned submitted, done;
};

static void fixture_jam_run(struct work *work)
{
    struct fixture_jam *jam = container_of(work, struct fixture_jam_work, work)->jam;

    jam->running++;
    while (!jam->is_let_go)
        usleep(1000);
}

static void fixture_jam_done(struct work *work)
{
    container_of(work, struct fixture_jam_work, work)->jam->done++;
}

static inline void fixture_jam(struct fixture_jam *jam, struct work_pool *pool, uint32_t threads)
{
    for (; jam->submitted < ARRAY_LEN(jam->works); jam->submitted++) {
        struct fixture_jam_work *work = &jam->works[jam->submitted];

        *work = (struct fixture_jam_work){ { .run = fixture_jam_run, .done = fixture_jam_done }, jam };
        if (!work_pool_submit(pool, &work->work))
            break;
        while (jam->submitted < threads && jam->running <= jam->submitted)
            usleep(1000);
    }
    CHECK_EQ(jam->submitted, STORE_READS_QUEUED + threads);
}

static inline void fixture_let_go(struct fixture *fixture, struct fixture_jam *jam)
{
    jam->is_let_go = true;
    FIXTURE_TURN_UNTIL(fixture, jam->done == jam->submitted);
}

#endif
