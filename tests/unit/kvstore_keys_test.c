/* Keys that a start leaves on the disk: questions wait for them and answer as if they had been there; what cannot be read is
 * told, what is damaged comes from the records. */
#include "kvstore_faulty_disk.h"
#include "kvstore_picture.h"

enum { BEST = 6, FRAMES = 200 };

struct scored {
    struct view_score score;
    bool came;
};

/* The view goes at once: it must not outlive its store. */
static void scored(struct view_score *score)
{
    container_of(score, struct scored, score)->came = true;
    view_unref(score->view);
}

/* Starts scoring all of cam-1. */
static void score_begin(struct fixture *fixture, struct scored *scored_p, uint32_t layer)
{
    static const struct view_stream_name name = { "default", "cam-1" };
    struct view_request request = { .streams = &name, .stream_count = 1 };
    uint32_t dims = kv_key_dims(&fixture_geometry);
    float *query = malloc(dims * sizeof *query);

    CHECK(query != NULL);
    for (uint32_t i = 0; i < dims; i++)
        query[i] = (float)((i * 37 + layer * 11) % 19) - 9;
    memset(request.fingerprint, 7, sizeof request.fingerprint);
    *scored_p = (struct scored){ 0 };
    scored_p->score = (struct view_score){
        .selection = { KV_SELECT_REKV, BEST, 0 }, .layer = layer, .query = query, .done = scored
    };
    CHECK_OK(view_create(&scored_p->score.view, fixture->store, &request, &fixture->st), fixture->st);
    CHECK(view_score_start(&scored_p->score)); /* nothing has been called yet, whatever fails */
    CHECK(!scored_p->came);
}

struct best {
    uint64_t seqs[BEST];
    float scores[BEST];
};

static struct best best_of(struct fixture *fixture, uint32_t layer)
{
    struct scored scored;
    struct best best;

    score_begin(fixture, &scored, layer);
    FIXTURE_TURN_UNTIL(fixture, scored.came);
    CHECK_OK(scored.score.ok, scored.score.st);
    CHECK_EQ(scored.score.hit_count, BEST);
    for (uint32_t i = 0; i < BEST; i++) {
        best.seqs[i] = scored.score.hits[i].seq;
        best.scores[i] = scored.score.hits[i].score;
    }
    view_score_deinit(&scored.score);
    return best;
}

static void check_same(const struct best *got, const struct best *want)
{
    for (uint32_t i = 0; i < BEST; i++)
        CHECK(got->seqs[i] == want->seqs[i] && got->scores[i] == want->scores[i]);
}

static bool is_blank(const struct stream *stream, uint32_t segment)
{
    return stream->segments[segment]->index.chunks[0]->is_blank;
}

/* Several segments of cam-1; sealed. */
static struct stream *write_many(struct fixture *fixture)
{
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, FRAMES);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    CHECK(stream->segment_count >= 3);
    return stream;
}

TEST(keys_are_read_when_the_store_runs_and_score_as_before)
{
    struct best want[3];
    struct fixture fixture;
    struct stream *stream;

    write_many(&fixture);
    for (uint32_t layer = 0; layer < 3; layer++)
        want[layer] = best_of(&fixture, layer);
    for (unsigned round = 0; round < 2; round++) {
        fixture_stop(&fixture);
        fixture_open(&fixture);
        stream = store_find(fixture.store, "default", "cam-1");
        CHECK_EQ(stream->next_seq, FRAMES);
        for (uint32_t i = 0; i < stream->segment_count; i++)
            CHECK(is_blank(stream, i));
        if (round == 1) /* asked at once, or when they have come by themselves */
            fixture_wait_keys(&fixture);
        for (uint32_t layer = 0; layer < 3; layer++) {
            struct best got = best_of(&fixture, layer);

            check_same(&got, &want[layer]);
        }
        fixture_check_all(&fixture, stream, 0, FRAMES);
    }
    fixture_stop(&fixture);
}

/* A question that meets a disk whose reads fail. Where the start had read all keys before they did: once more. */
static struct stream *fail_to_read(struct fixture *fixture, struct scored *scored)
{
    for (;;) {
        fixture_stop(fixture);
        fixture->options.disk = faulty_disk();
        fixture_open(fixture);
        plan_fault(FAULT_READ, EIO, 1, 1000);
        score_begin(fixture, scored, 1);
        FIXTURE_TURN_UNTIL(fixture, scored->came);
        if (!scored->score.ok)
            return store_find(fixture->store, "default", "cam-1");
        view_score_deinit(&scored->score);
        plan_fault(0, 0, 0, 0);
    }
}

/* The disk's failure is not damage: whoever asks is told, and asks again. */
TEST(keys_that_cannot_be_read_now_are_unavailable_and_come_later)
{
    struct fixture fixture;
    struct stream *stream;
    struct best want, got;
    struct scored scored;

    write_many(&fixture);
    want = best_of(&fixture, 1);
    stream = fail_to_read(&fixture, &scored);
    CHECK_EQ(scored.score.st.code, STATUS_UNAVAILABLE);
    view_score_deinit(&scored.score);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 1), FRAME_UNAVAILABLE);
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    plan_fault(0, 0, 0, 0);
    fixture_wait_keys(&fixture);
    got = best_of(&fixture, 1);
    check_same(&got, &want);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
}

/* Where a column is damaged the records still have the keys; where a record is too, it alone is lost. */
TEST(keys_come_from_records_when_their_column_is_damaged)
{
    struct picture picture;

    picture_take(&picture, false);
    for (unsigned damaged = 0; damaged < 2; damaged++) {
        struct picture_tally tally;
        struct stream *stream;

        picture.segment.data[picture.segment.len - KV_PAGE_BYTES - 1] ^= 1; /* the last column's */
        picture.segment.data[picture_offset(0) + 5000] ^= (char)damaged;
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        fixture_wait_keys(&picture.fixture);
        CHECK_EQ(stream_damaged_frames(stream), damaged);
        tally = picture_count(&picture, stream);
        CHECK_EQ(tally.right, PICTURE_FRAMES - damaged);
        CHECK_EQ(tally.quarantined, damaged);
        fixture_stop(&picture.fixture);
        picture.segment.data[picture.segment.len - KV_PAGE_BYTES - 1] ^= 1;
    }
    picture_drop(&picture);
}

/* A question that waits for keys ends with the stream it asks of, or with the store. */
TEST(keys_that_never_come_let_questions_end)
{
    for (unsigned round = 0; round < 2; round++) {
        bool is_removed = round == 0;
        struct fixture fixture;
        struct scored scored;

        write_many(&fixture);
        fixture_stop(&fixture);
        fixture.options.disk = faulty_disk();
        fixture_open(&fixture);
        score_begin(&fixture, &scored, 1);
        if (is_removed) {
            fixture_remove(&fixture, store_find(fixture.store, "default", "cam-1"));
            FIXTURE_TURN_UNTIL(&fixture, scored.came);
        }
        fixture_stop(&fixture);
        CHECK(scored.came);
        CHECK_EQ(scored.score.ok, is_removed);
        view_score_deinit(&scored.score);
    }
}

TEST_MAIN()
