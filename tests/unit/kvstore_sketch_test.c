/* Questions with sketches: hits and scores are those of scoring all keys, bit for bit; and sketches cost no frame. */
#define FIXTURE_HEAD_DIM 128 /* 256 numbers a key: the least that has sketches in f16 */
#include "kvstore_fixture.h"

#include "kv/kv_score.h"
#include "kv/kv_sketch.h"
#include "kvstore/stream_forget.h"
#include "kvstore_faulty_disk.h"
#include "kvstore_held_thread.h"

enum { FRAMES = 150, HITS_MAX = 128 };

static const struct view_stream_name names[] = { { "default", "cam-1" }, { "default", "cam-2" } };

struct asked {
    struct view_score score;
    bool came;
};

static void came(struct view_score *score)
{
    container_of(score, struct asked, score)->came = true;
}

static struct index_memory *memory_of(struct fixture *fixture)
{
    return &fixture->store->index_memory;
}

/* A chunk that is not full has a sketch only then. */
static bool all_but_the_last_are_sealed(const struct stream *stream)
{
    for (uint32_t i = 0; i + 1 < stream->segment_count; i++)
        if (stream->segments[i]->state != SEGMENT_SEALED)
            return false;
    return true;
}

static void start(struct fixture *fixture, struct fixture_writer writers[2])
{
    fixture_start(fixture);
    for (unsigned i = 0; i < 2; i++) {
        struct stream *stream = fixture_write(fixture, names[i].name, &writers[i], FRAMES);

        stream_commit(stream);
        fixture_wait_durable(fixture, stream);
        FIXTURE_TURN_UNTIL(fixture, all_but_the_last_are_sealed(stream));
    }
}

static void stop(struct fixture *fixture, struct fixture_writer writers[2])
{
    for (unsigned i = 0; i < 2; i++)
        stream_detach(store_find(fixture->store, "default", names[i].name), &writers[i].base);
    fixture_stop(fixture);
}

static struct view *look(struct fixture *fixture, int64_t from_ns, int64_t to_ns)
{
    struct view_request request = { .streams = names, .stream_count = 2, .from_ns = from_ns, .to_ns = to_ns };
    struct view *view;

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    CHECK_OK(view_create(&view, fixture->store, &request, &fixture->st), fixture->st);
    return view;
}

static void begin(struct asked *asked, struct view *view, const struct kv_selection *selection, uint32_t seed)
{
    uint32_t dims = kv_key_dims(&fixture_geometry);
    float *query = malloc(dims * sizeof *query);

    CHECK(query != NULL);
    for (uint32_t i = 0; i < dims; i++)
        query[i] = (float)((i * 7919 + seed * 104729) % 1009) / 500 - 1;
    *asked = (struct asked){
        .score = { .view = view, .selection = *selection, .layer = seed % 3, .query = query, .done = came }
    };
    CHECK(view_score_start(&asked->score));
}

/* All keys scored, all offered. */
static void check_all(const struct asked *asked)
{
    const struct view *view = asked->score.view;
    const struct kv_hit *hits;
    struct kv_select *select;
    struct status st;
    uint32_t count;

    CHECK_OK(kv_select_create(&select, &asked->score.selection, &st), st);
    for (uint32_t n = 0; n < view->entry_count; n++)
        for (uint32_t i = 0; i < INDEX_CHUNK_FRAMES; i++) {
            struct index_frame *frame = &view->entries[n].chunk->frames[i];
            struct kv_hit hit = {
                .stream = view->entries[n].stream, .seq = frame->seq, .pts_ns = frame->pts_ns, .tag = frame
            };
            const void *key;

            if ((view->entries[n].mask >> i & 1) == 0)
                continue;
            key = index_frame_key(frame, asked->score.layer);
            kv_score_ops()->of_dtype[KV_DTYPE_F16](asked->score.query,
                                                   &(struct kv_score_keys){ &key, NULL, 1,
                                                                            kv_key_dims(&fixture_geometry) },
                                                   &hit.score);
            kv_select_offer(select, &hit, 1);
        }
    CHECK_OK(kv_select_finish(select, &hits, &count, &st), st);
    CHECK_EQ(asked->score.hit_count, count);
    for (uint32_t i = 0; i < count; i++)
        CHECK(asked->score.hits[i].tag == hits[i].tag && asked->score.hits[i].score == hits[i].score &&
              asked->score.hits[i].recent == hits[i].recent);
    kv_select_destroy(select);
}

static void ask(struct fixture *fixture, struct view *view, const struct kv_selection *selection,
                uint32_t seed)
{
    struct asked asked;

    begin(&asked, view, selection, seed);
    FIXTURE_TURN_UNTIL(fixture, asked.came);
    CHECK_OK(asked.score.ok, asked.score.st);
    check_all(&asked);
    view_score_deinit(&asked.score);
}

static void wait_made(struct fixture *fixture)
{
    FIXTURE_TURN_UNTIL(fixture, !fixture->store->sketches.is_running && fixture->store->sketches.count == 0);
}

/* A question that has them made. */
static void make_sketches(struct fixture *fixture)
{
    struct view *view = look(fixture, 0, 0);

    ask(fixture, view, &(struct kv_selection){ KV_SELECT_REKV, 4, 0 }, 1);
    wait_made(fixture);
    view_unref(view);
}

static void ask_all(struct fixture *fixture)
{
    static const struct kv_selection selections[] = { { KV_SELECT_REKV, 1, 0 },    { KV_SELECT_REKV, 8, 0 },
                                                      { KV_SELECT_REKV, 64, 0 },   { KV_SELECT_REKV, 8, 20 },
                                                      { KV_SELECT_REKV, 100, 28 }, { KV_SELECT_REKV, 0, 9 },
                                                      { KV_SELECT_RECENT, 9, 0 } };

    for (uint32_t seed = 0; seed < 60; seed++) {
        int64_t from = seed % 3 == 0 ? 0 : fixture_pts(seed),
                to = seed % 2 == 0 ? 0 : fixture_pts(FRAMES - seed);
        struct view *view = look(fixture, from, to);

        ask(fixture, view, &selections[seed % ARRAY_LEN(selections)], seed);
        view_unref(view);
    }
}

TEST(hits_and_scores_are_those_of_all_keys)
{
    struct fixture_writer writers[2];
    struct fixture fixture;

    start(&fixture, writers);
    CHECK_EQ(memory_of(&fixture)->sketch_bytes, 0);
    ask_all(&fixture); /* with ever more sketches */
    wait_made(&fixture);
    CHECK(memory_of(&fixture)->sketch_bytes > 0);
    ask_all(&fixture);
    stop(&fixture, writers);
}

TEST(a_view_uses_sketches_that_were_made_since)
{
    const struct kv_selection selection = { KV_SELECT_REKV, 8, 2 };
    struct fixture_writer writers[2];
    struct fixture fixture;
    struct view *view;

    start(&fixture, writers);
    view = look(&fixture, 0, 0);
    ask(&fixture, view, &selection, 0);
    CHECK_EQ(view->unsketched, view->entry_count);
    wait_made(&fixture);
    ask(&fixture, view, &selection, 1);
    CHECK(view->unsketched <= 2); /* the last chunk of each camera is not full */
    view_unref(view);
    stop(&fixture, writers);
}

/* Also of chunks with frames that are not looked at. */
TEST(frames_that_cannot_be_read_are_not_chosen_by_their_sketches)
{
    struct fixture_writer writers[2];
    struct fixture fixture;
    const struct stream *stream;

    start(&fixture, writers);
    make_sketches(&fixture);
    stream = store_find(fixture.store, "default", "cam-2");
    for (uint64_t seq = 0; seq < FRAMES; seq += 3)
        index_frame_quarantine(stream_find(stream, seq));
    ask_all(&fixture);
    stop(&fixture, writers);
}

TEST(sketches_go_before_frames_do)
{
    struct fixture_writer writers[2];
    struct fixture fixture;
    struct index_memory *memory;
    struct stream *stream;
    struct view *view;
    uint64_t bytes;

    start(&fixture, writers);
    memory = memory_of(&fixture);
    make_sketches(&fixture);
    bytes = memory->sketch_bytes;
    stream = store_find(fixture.store, "default", "cam-1");
    view = look(&fixture, 0, fixture_pts(32)); /* holds the chunks of the first frames of both */
    memory->limit_bytes = memory->used_bytes + memory->sketch_bytes;
    fixture_append(&fixture, stream, 64);
    CHECK(memory->sketch_bytes < bytes);
    CHECK(memory->used_bytes + memory->sketch_bytes <= memory->limit_bytes);
    CHECK_EQ(stream_frame_count(stream), FRAMES + 64);
    ask(&fixture, view, &(struct kv_selection){ KV_SELECT_REKV, 8, 0 }, 5);
    CHECK(view->entries[0].sketch != NULL && view->entries[0].chunk->sketch == view->entries[0].sketch);
    view_unref(view);
    memory->limit_bytes = memory->used_bytes;
    sketches_trim(memory);
    CHECK_EQ(memory->sketch_bytes, 0);
    CHECK(memory->sketched_first == NULL && memory->sketched_last == NULL);
    ask_all(&fixture);
    CHECK_EQ(memory->sketch_bytes, 0); /* nothing to spare */
    memory->limit_bytes *= 4;
    make_sketches(&fixture);
    CHECK(memory->sketch_bytes > 0);
    stop(&fixture, writers);
}

/* They stayed until the next frame came, or the next question held them. */
TEST(sketches_that_a_question_holds_go_when_it_ends)
{
    struct fixture_writer writers[2];
    struct fixture fixture;
    struct index_memory *memory;
    struct view *view;
    uint64_t bytes;

    start(&fixture, writers);
    memory = memory_of(&fixture);
    make_sketches(&fixture);
    bytes = memory->sketch_bytes;
    view = look(&fixture, 0, 0);
    memory->limit_bytes = memory->used_bytes;
    sketches_trim(memory);
    CHECK_EQ(memory->sketch_bytes, bytes);
    ask(&fixture, view, &(struct kv_selection){ KV_SELECT_REKV, 8, 0 }, 5);
    view_unref(view);
    CHECK_EQ(memory->sketch_bytes, 0);
    stop(&fixture, writers);
}

/* Questions that overlapped, one always there, kept them for good. */
TEST(sketches_that_are_to_go_are_not_held_by_questions_that_begin_then)
{
    struct fixture_writer writers[2];
    struct fixture fixture;
    struct index_memory *memory;
    struct view *before, *after;

    start(&fixture, writers);
    memory = memory_of(&fixture);
    make_sketches(&fixture);
    before = look(&fixture, 0, 0);
    memory->limit_bytes = memory->used_bytes;
    sketches_trim(memory);
    after = look(&fixture, 0, 0);
    CHECK_EQ(after->unsketched, after->entry_count);
    view_unref(before);
    CHECK_EQ(memory->sketch_bytes, 0);
    ask(&fixture, after, &(struct kv_selection){ KV_SELECT_REKV, 8, 0 }, 5);
    view_unref(after);
    stop(&fixture, writers);
}

/* The loop would go through a million frames for each layer, to find nothing. */
TEST(a_view_looks_for_sketches_again_only_when_some_were_made)
{
    const struct kv_selection selection = { KV_SELECT_REKV, 8, 0 };
    struct fixture_writer writers[2];
    struct fixture fixture;
    struct view *view;

    start(&fixture, writers);
    memory_of(&fixture)->limit_bytes = memory_of(&fixture)->used_bytes;
    view = look(&fixture, 0, 0);
    ask(&fixture, view, &selection, 0);
    memory_of(&fixture)->limit_bytes *= 4;
    ask(&fixture, view, &selection, 1);
    CHECK_EQ(fixture.store->sketches.made, 0);
    view_unref(view);
    make_sketches(&fixture);
    CHECK(fixture.store->sketches.made > 0);
    stop(&fixture, writers);
}

TEST(sketches_go_with_their_camera)
{
    struct fixture_writer writers[2];
    struct fixture fixture;

    start(&fixture, writers);
    make_sketches(&fixture);
    for (unsigned i = 0; i < 2; i++) {
        struct stream *stream = store_find(fixture.store, "default", names[i].name);

        stream_detach(stream, &writers[i].base);
        fixture_remove(&fixture, stream);
    }
    CHECK_EQ(memory_of(&fixture)->used_bytes, 0);
    CHECK_EQ(memory_of(&fixture)->sketch_bytes, 0);
    fixture_stop(&fixture);
}

TEST(a_store_closes_while_sketches_are_made)
{
    struct fixture_writer writers[2];
    struct fixture fixture;
    struct asked asked;
    struct view *view;

    start(&fixture, writers);
    view = look(&fixture, 0, 0);
    begin(&asked, view, &(struct kv_selection){ KV_SELECT_REKV, 4, 0 }, 1);
    CHECK(fixture.store->sketches.is_running && fixture.store->sketches.count > 0);
    FIXTURE_TURN_UNTIL(&fixture, asked.came);
    view_score_deinit(&asked.score);
    view_unref(view);
    stop(&fixture, writers);
}

/* Of a chunk with such a key there is none, and it is not tried again. */
TEST(a_chunk_with_a_broken_key_is_scored_as_it_is)
{
    struct fixture_writer writers[2];
    struct fixture fixture;
    struct index_frame *frame;
    uint16_t not_a_number = 0x7e01;

    start(&fixture, writers);
    frame = stream_find(store_find(fixture.store, "default", "cam-1"), 20);
    memcpy(index_frame_key(frame, 1) + 10, &not_a_number, sizeof not_a_number);
    make_sketches(&fixture);
    CHECK(frame->chunk->sketch == NULL && frame->chunk->is_sketch_wanted);
    ask_all(&fixture);
    stop(&fixture, writers);
}

/* --- chunks whose frames go while they wait --- */

/* One computing thread; files of several chunks, of which nothing is durable before it is asked for. */
static struct stream *start_undurable(struct fixture *fixture, struct fixture_writer *writer, uint64_t frames)
{
    struct stream *stream;

    fault_start(fixture);
    fixture_stop(fixture);
    fixture->options.commit_ms = 60000;
    fixture->options.computing_threads = 1;
    fixture->options.ram_bytes = 64 << 20;
    fixture->options.segment_bytes_max = 8 << 20;
    fixture_open(fixture);
    fixture_define(fixture, names[1].name);
    stream = fixture_define(fixture, names[0].name);
    fixture_attach(fixture, stream, writer);
    fixture_append(fixture, stream, frames);
    FIXTURE_TURN_UNTIL(fixture, stream->segments[0]->state == SEGMENT_OPEN);
    return stream;
}

/* The store died of a division by the number of their keys. */
TEST(chunks_that_a_failed_file_leaves_empty_while_they_wait_have_no_sketch)
{
    const struct kv_selection selection = { KV_SELECT_REKV, 4, 0 };
    struct fixture_writer writer;
    struct held_thread held;
    struct fixture fixture;
    struct stream *stream = start_undurable(&fixture, &writer, 3 * INDEX_CHUNK_FRAMES);
    const struct segment *segment = stream->segments[0];
    struct view *view = look(&fixture, 0, 0);
    struct asked asked;

    hold_thread(&fixture, &held);
    begin(&asked, view, &selection, 1);
    CHECK_EQ(fixture.store->sketches.count, 2);
    plan_fault(FAULT_SYNC, EIO, 1, 1);
    stream_commit(stream);
    FIXTURE_TURN_UNTIL(&fixture, segment->state == SEGMENT_FAILED);
    CHECK_EQ(view->entries[0].chunk->count, 0);
    sem_post(&held.may_go);
    FIXTURE_TURN_UNTIL(&fixture, asked.came && held.is_done);
    check_all(&asked);
    view_score_deinit(&asked.score);
    wait_made(&fixture);
    CHECK(view->entries[0].chunk->sketch == NULL);
    view_unref(view);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Each layer of a question that began before made them again, for nobody. */
TEST(chunks_of_a_file_that_was_written_anew_are_not_wanted)
{
    const struct kv_selection selection = { KV_SELECT_REKV, 4, 0 };
    struct fixture_writer writer;
    struct fixture_answer answer = { 0 };
    struct fixture fixture;
    struct stream *stream = start_undurable(&fixture, &writer, 2 * INDEX_CHUNK_FRAMES);
    struct view *view = look(&fixture, 0, 0);
    struct asked asked;

    CHECK_OK(stream_forget(stream, fixture_pts(1), fixture_pts(2), fixture_done, &answer, &fixture.st),
             fixture.st);
    FIXTURE_TURN_UNTIL(&fixture, view->entries[0].chunk->gone_link != NULL);
    begin(&asked, view, &selection, 1);
    CHECK(!fixture.store->sketches.is_running);
    FIXTURE_TURN_UNTIL(&fixture, asked.came);
    check_all(&asked);
    view_score_deinit(&asked.score);
    view_unref(view);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

TEST_MAIN()
