/* When the receipt is there, no byte of what was forgotten is in the memory of the process: not in the shared pool, not on the
 * heap, whoever had it. */
#define FIXTURE_HEAD_DIM 128 /* keys that have sketches */
#include "base/number.h"
#include "kv/kv_sketch.h"
#include "kvstore/segment_age.h"
#include "kvstore/stream_forget.h"
#include "kvstore_fixture.h"

enum { FRAMES = 60, SAMPLE_BYTES = 64, MASK = 0x5a, SAMPLE_PARTS = 24 };

static struct fixture fixture;
static struct stream *stream;
static struct fixture_answer answer;
static struct status st;

/* --- what is looked for, nowhere in memory as it is --- */

struct sample {
    uint8_t masked[SAMPLE_PARTS][SAMPLE_BYTES]; /* of a frame: keys, K, V, and keys as floats */
    unsigned parts, odd;                        /* odd 1: at odd places too */
};

static void take_sample(struct sample *sample, uint64_t seq)
{
    uint64_t layer = payload_layer_offset(&fixture_geometry, FIXTURE_TOKENS, 1);
    uint64_t at[3] = { 0, layer, layer + kv_slice_bytes(&fixture_geometry, FIXTURE_TOKENS) };

    for (unsigned i = 0; i < 3; i++)
        for (unsigned b = 0; b < SAMPLE_BYTES; b++)
            sample->masked[i][b] = fixture_byte("cam-1", seq, at[i] + b) ^ MASK;
    for (unsigned n = 0; n < SAMPLE_BYTES / sizeof(float); n++) {
        uint8_t pair[2];
        float number;

        fixture_pair('1', seq, n, pair);
        number = number_f32_of_f16(get_u16(pair));
        for (unsigned b = 0; b < sizeof number; b++)
            sample->masked[3][n * sizeof number + b] = ((const uint8_t *)&number)[b] ^ MASK;
    }
    sample->parts = 4;
    sample->odd = 0;
}

/* Of what the sketch of a frame's chunk has of the keys there, in all its layers. */
static void take_sketch_sample(struct sample *sample, uint64_t seq)
{
    const uint8_t *sketch = stream_find(stream, seq)->chunk->sketch;
    uint64_t bytes = fixture_geometry.layers * kv_sketch_bytes(&fixture_geometry);

    CHECK(sketch != NULL);
    sample->parts = SAMPLE_PARTS;
    sample->odd = 0;
    for (unsigned i = 0; i < SAMPLE_PARTS; i++)
        for (unsigned b = 0; b < SAMPLE_BYTES; b++)
            sample->masked[i][b] = sketch[i * bytes / SAMPLE_PARTS + b] ^ MASK;
}

static bool stands_at(const uint8_t *masked, const uint8_t *bytes)
{
    for (unsigned b = 0; b < SAMPLE_BYTES; b++)
        if ((masked[b] ^ MASK) != bytes[b])
            return false;
    return true;
}

static bool is_between(const struct sample *sample, const uint8_t *from, const uint8_t *to)
{
    for (const uint8_t *at = from; at + SAMPLE_BYTES <= to; at += 2 - sample->odd)
        for (unsigned i = 0; i < sample->parts; i++)
            if (at[0] == (sample->masked[i][0] ^ MASK) && stands_at(sample->masked[i], at))
                return true;
    return false;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
static const bool sees_heap = false;

/* The store's own part alone, of a process whose memory has a shadow that is larger than any machine, or whose threads' stacks
 * keep every vector they computed with, because nothing is optimised. */
static bool is_in_process(const struct sample *sample)
{
    const struct kv_pool *pool = ram_arena_pool(fixture.store->arena);
    const uint8_t *bytes = kv_pool_base(pool);

    return is_between(sample, bytes, bytes + kv_pool_bytes(pool));
}
#else
static const bool sees_heap = true;

/* Everything that the process may write to. */
static bool is_in_process(const struct sample *sample)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], access[8];
    uintptr_t from, to;
    bool found = false;

    CHECK(maps != NULL);
    while (!found && fgets(line, sizeof line, maps) != NULL) {
        CHECK_EQ(sscanf(line, "%lx-%lx %7s", &from, &to, access), 3);
        if (access[0] == 'r' && access[1] == 'w')
            found = is_between(sample, (const uint8_t *)from, (const uint8_t *)to);
    }
    fclose(maps);
    return found;
}
#endif

static void check_nowhere(uint64_t from, uint64_t to, uint64_t step)
{
    for (uint64_t seq = from; seq < to; seq += step) {
        struct sample sample;

        take_sample(&sample, seq);
        if (is_in_process(&sample))
            test_fail(__FILE__, __LINE__, "frame %llu is in memory", (unsigned long long)seq);
    }
}

/* --- what is done --- */

struct ageing {
    struct segment_age age;
    bool came;
};

static void aged(struct segment_age *age)
{
    container_of(age, struct ageing, age)->came = true;
}

static void thin_all(void)
{
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        struct ageing ageing = {
            .age = { .segment = stream->segments[i], .transform = { .aged = { .thin = 2 } }, .done = aged }
        };

        segment_age_submit(fixture.store, &ageing.age);
        FIXTURE_TURN_UNTIL(&fixture, ageing.came);
        CHECK_OK(ageing.age.ok, ageing.age.st);
    }
}

static void ask(uint64_t from, uint64_t to)
{
    answer = (struct fixture_answer){ 0 };
    CHECK_OK(stream_forget(stream, fixture_pts(from), fixture_pts(to), fixture_done, &answer, &st), st);
}

static void wait_receipt(void)
{
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
}

/* Much longer than what was asked takes, when nothing keeps it. */
static void check_receipt_waits(void)
{
    struct loop_timer tick = { 0 };

    for (unsigned i = 0; i < 50; i++) {
        loop_timer_start(fixture.loop, &tick, 5, fixture_tick);
        loop_run_once(fixture.loop);
    }
    loop_timer_stop(&tick);
    CHECK(!answer.came);
}

struct question {
    struct view_score score;
    bool came;
};

static void answered(struct view_score *score)
{
    container_of(score, struct question, score)->came = true;
}

static void score_layer(struct view *view, uint32_t layer)
{
    uint32_t dims = kv_key_dims(&fixture_geometry);
    float *query = malloc(dims * sizeof *query);
    struct question question = { .score = { .view = view,
                                            .selection = { KV_SELECT_REKV, 8, 4 },
                                            .layer = layer,
                                            .query = query,
                                            .done = answered } };

    CHECK(query != NULL);
    for (uint32_t i = 0; i < dims; i++)
        query[i] = (float)(i % 7) - 3;
    CHECK(view_score_start(&question.score));
    FIXTURE_TURN_UNTIL(&fixture, question.came && fixture.store->sketches.count == 0 &&
                                     !fixture.store->sketches.is_running);
    CHECK(question.score.hit_count > 0);
    view_score_deinit(&question.score);
}

/* All layers; sketches are made of what the first one sees, and read by the others. Returns what it holds of the index. */
static struct view *ask_question(void)
{
    static const struct view_stream_name name = { "default", "cam-1" };
    struct view_request request = { .streams = &name, .stream_count = 1, .to_ns = INT64_MAX };
    struct view *view;

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    CHECK_OK(view_create(&view, fixture.store, &request, &st), st);
    for (uint32_t layer = 0; layer < fixture_geometry.layers; layer++)
        score_layer(view, layer);
    return view;
}

/* Written, sealed, and loaded by another life: it is on the disk alone. */
static void start(void)
{
    struct fixture_writer writer;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    fixture_wait_keys(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
}

static void start_read(struct fixture_read *reading, uint64_t seq, enum slice_parts parts)
{
    *reading = (struct fixture_read){ .read = { .store = fixture.store,
                                                .frame = stream_find(stream, seq),
                                                .layer = 1,
                                                .parts = parts,
                                                .done = fixture_read_done } };
    if (!slice_read_start(&reading->read))
        FIXTURE_TURN_UNTIL(&fixture, reading->came);
    CHECK_EQ(reading->read.result, FRAME_OK);
}

/* Written from RAM, sealed with their keys, read in every way, asked with sketches, copied to another file, scanned, loaded. */
TEST(nothing_of_it_is_in_memory)
{
    struct fixture_read half;
    struct sample sample, sketch, thinned, kept;

    start();
    take_sample(&sample, 20);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    CHECK(is_in_process(&sample));
    view_unref(ask_question());
    take_sketch_sample(&sketch, 20);
    CHECK(is_in_process(&sketch) == sees_heap);
    for (uint64_t seq = 0; seq < FRAMES; seq += 2)
        CHECK_EQ(fixture_read_block(&fixture, stream, stream_find(stream, seq)), FRAME_OK);
    thin_all();
    for (uint64_t seq = 0; seq < FRAMES; seq += 2) {
        start_read(&half, seq, SLICE_V);
        slice_read_release(&half.read);
    }
    fixture_check_all(&fixture, stream, 0, 1);
    view_unref(ask_question());
    take_sketch_sample(&thinned, 20);
    take_sketch_sample(&kept, 58);
    ask(10, 50);
    wait_receipt();
    check_nowhere(10, 50, 13);
    CHECK(!is_in_process(&sketch) && !is_in_process(&thinned));
    CHECK(is_in_process(&kept) == sees_heap);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 8, 0), FRAME_OK);
    take_sample(&sample, 8);
    CHECK(is_in_process(&sample)); /* what was not forgotten is found */
    fixture_stop(&fixture);
}

/* Why there was a gap: in its mark, in the record on its way to the disk, behind the table of a file that is written, and of
 * one that is written anew. */
TEST(no_words_of_a_gap_are_in_memory)
{
    static const char reason[] =
        "the neighbour stood before the lens for some time, and then went away again";
    struct sample words = { .parts = 1, .odd = 1 };
    struct fixture_writer writer;

    _Static_assert(sizeof reason > SAMPLE_BYTES, "it is looked for");
    for (unsigned b = 0; b < SAMPLE_BYTES; b++)
        words.masked[0][b] = (uint8_t)reason[b] ^ MASK;
    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 10);
    for (unsigned i = 0; i < 8; i++) {
        fixture_append(&fixture, stream, 1);
        CHECK_OK(fixture_append_gap(stream, 2, reason, &st), st);
        CHECK_OK(fixture_append_gap(stream, 2, reason, &st), st);
    }
    fixture_append(&fixture, stream, 10);
    fixture_wait_durable(&fixture, stream);
    CHECK(is_in_process(&words) == sees_heap);
    ask(9, stream->next_seq - 5);
    wait_receipt();
    CHECK(!is_in_process(&words));
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* K alone stands in a slot that no frame has: it was freed as it was, after the receipt. */
TEST(a_receipt_waits_for_half_a_layer)
{
    struct fixture_read half;

    start();
    start_read(&half, 12, SLICE_K);
    ask(10, 15);
    check_receipt_waits();
    slice_read_release(&half.read);
    wait_receipt();
    check_nowhere(11, 15, 2);
    fixture_stop(&fixture);
}

/* It reads the chunks' sketches, whatever becomes of the segments. */
TEST(a_receipt_waits_for_a_question_with_sketches)
{
    struct sample sketch;
    struct view *view;

    start();
    view = ask_question();
    take_sketch_sample(&sketch, 20);
    ask(10, 50);
    check_receipt_waits();
    CHECK(is_in_process(&sketch) == sees_heap);
    view_unref(view);
    wait_receipt();
    check_nowhere(10, 50, 13);
    CHECK(!is_in_process(&sketch));
    fixture_stop(&fixture);
}

/* A layer was read and let go of by its frame when the segment was thinned, while its reader had it still. */
TEST(a_receipt_waits_for_what_ageing_left_to_its_reader)
{
    struct fixture_read whole, thumbnail;

    start();
    start_read(&whole, 13, SLICE_BOTH);
    thumbnail = (struct fixture_read){ .read = { .store = fixture.store,
                                                 .frame = stream_find(stream, 11),
                                                 .layer = SLICE_THUMBNAIL,
                                                 .done = fixture_read_done } };
    if (!slice_read_start(&thumbnail.read))
        FIXTURE_TURN_UNTIL(&fixture, thumbnail.came);
    thin_all();
    ask(10, 15);
    check_receipt_waits();
    slice_read_release(&whole.read);
    check_receipt_waits();
    slice_read_release(&thumbnail.read);
    wait_receipt();
    check_nowhere(11, 15, 2);
    fixture_stop(&fixture);
}

/* The stream goes while what it had is being zeroed. */
TEST(a_stream_goes_while_memory_is_zeroed)
{
    struct fixture_answer gone;

    for (unsigned turns = 0; turns < 40; turns += 4) {
        start();
        fixture_check_all(&fixture, stream, 0, 20);
        ask(10, 15);
        for (unsigned i = 0; i < turns; i++) {
            struct loop_timer tick = { 0 };

            loop_timer_start(fixture.loop, &tick, 1, fixture_tick);
            loop_run_once(fixture.loop);
            loop_timer_stop(&tick);
        }
        gone = answer;
        fixture_remove(&fixture, stream);
        CHECK(gone.came || answer.came);
        fixture_stop(&fixture);
    }
}

TEST_MAIN()
