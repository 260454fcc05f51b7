/* A sector of a segment's file that the disk never reads again: what is there still is served, what is not is told, and
 * everything else goes on. */
#include "kvstore_faulty_disk.h"
#include "kvstore_test_clock.h"

enum { BEST = 6, FRAMES = 200 };

/* Several segments of cam-1, sealed; the store is closed, and opens on a disk that may fail. */
static void write_many(struct fixture *fixture, char first_segment[PATH_MAX])
{
    struct fixture_writer writer;
    struct stream *stream;

    plan_fault(0, 0, 0, 0);
    bad_sector.inode = 0;
    fixture_start(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, FRAMES);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    CHECK(stream->segment_count >= 3);
    snprintf(first_segment, PATH_MAX, "%.4000s.seg", stream->segments[0]->base);
    fixture_stop(fixture);
    fixture->options.disk = faulty_disk();
}

static struct stream *open_again(struct fixture *fixture)
{
    fixture_open(fixture);
    return store_find(fixture->store, "default", "cam-1");
}

/* --- questions --- */

struct scored {
    struct view_score score;
    bool came;
};

static void scored(struct view_score *score)
{
    container_of(score, struct scored, score)->came = true;
    view_unref(score->view);
}

/* Asks all of cam-1 once. *frames_p: those that there were to choose from. */
static bool ask(struct fixture *fixture, uint64_t *frames_p)
{
    static const struct view_stream_name name = { "default", "cam-1" };
    struct view_request request = { .streams = &name, .stream_count = 1 };
    uint32_t dims = kv_key_dims(&fixture_geometry);
    struct scored asked = { .score = {
                                .selection = { KV_SELECT_REKV, BEST, 0 }, .layer = 2, .done = scored } };
    bool ok;

    asked.score.query = calloc(dims, sizeof *asked.score.query);
    CHECK(asked.score.query != NULL);
    asked.score.query[0] = 1;
    memset(request.fingerprint, 7, sizeof request.fingerprint);
    CHECK_OK(view_create(&asked.score.view, fixture->store, &request, &fixture->st), fixture->st);
    *frames_p = asked.score.view->frames;
    CHECK(view_score_start(&asked.score));
    FIXTURE_TURN_UNTIL(fixture, asked.came);
    ok = asked.score.ok;
    CHECK(ok || asked.score.st.code == STATUS_UNAVAILABLE);
    view_score_deinit(&asked.score);
    return ok;
}

/* --- keys --- */

/* What a start reads of a segment: its first page, its last four, and the table between. Keys come later. */
enum { READS_OF_LAST_PAGE = 1, READS_OF_FOOTER = 2, READS_OF_FILE = 3, READS_OF_ALL = 3 * READS_OF_FILE };

static uint64_t file_bytes(const char *path)
{
    struct stat info;

    CHECK_EQ(stat(path, &info), 0);
    return (uint64_t)info.st_size;
}

TEST(keys_that_are_never_read_come_from_the_records)
{
    struct fixture fixture;
    struct stream *stream;
    char path[PATH_MAX];
    uint64_t frames;

    write_many(&fixture, path);
    plan_bad_sector(path, file_bytes(path) - KV_PAGE_BYTES, UINT32_MAX, READS_OF_LAST_PAGE);
    stream = open_again(&fixture);
    CHECK(!ask(&fixture, &frames));
    CLOCK_PASS_UNTIL(&fixture, 60, ask(&fixture, &frames));
    CHECK(ask(&fixture, &frames)); /* with a view that began after that */
    CHECK_EQ(frames, FRAMES);
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
}

TEST(a_frame_whose_record_is_not_read_either_is_quarantined_alone)
{
    struct fixture fixture;
    struct stream *stream;
    char path[PATH_MAX];
    uint64_t frames, lost, offset;

    write_many(&fixture, path);
    stream = open_again(&fixture);
    lost = stream->segments[0]->index.frame_count - 1;
    offset = stream_find(stream, lost)->offset;
    fixture_stop(&fixture);
    plan_bad_sector(path, offset, UINT32_MAX, READS_OF_FOOTER);
    stream = open_again(&fixture);
    CHECK(!ask(&fixture, &frames));
    CLOCK_PASS_UNTIL(&fixture, 60, ask(&fixture, &frames));
    CHECK(ask(&fixture, &frames)); /* with a view that began after that */
    CHECK_EQ(frames, FRAMES - 1);
    CHECK_EQ(fixture.store->quarantined_frames, 1);
    CHECK_EQ(fixture_read_layer(&fixture, stream, lost, 0), FRAME_QUARANTINED);
    fixture_check_all(&fixture, stream, 0, lost);
    fixture_check_all(&fixture, stream, lost + 1, FRAMES);
    fixture_stop(&fixture);
    bad_sector.inode = 0;
    stream = open_again(&fixture); /* nothing was made of it */
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
}

/* Of this file nothing is read, but of others: all its frames are lost, and theirs are found. */
TEST(keys_of_a_file_that_is_never_read_quarantine_its_frames)
{
    struct fixture fixture;
    struct stream *stream;
    char path[PATH_MAX];
    uint64_t frames, lost;

    write_many(&fixture, path);
    plan_bad_sector(path, 0, UINT32_MAX, READS_OF_FILE);
    stream = open_again(&fixture);
    lost = stream->segments[0]->index.frame_count;
    CHECK(!ask(&fixture, &frames));
    CLOCK_PASS_UNTIL(&fixture, 60, ask(&fixture, &frames));
    CHECK(ask(&fixture, &frames)); /* with a view that began after that */
    CHECK_EQ(frames, FRAMES - lost);
    CHECK_EQ(fixture.store->quarantined_frames, lost);
    fixture_check_all(&fixture, stream, lost, FRAMES);
    fixture_stop(&fixture);
}

/* A disk that reads nothing says nothing: however long, and then all is there. The scrub does not wait for it. */
TEST(a_disk_that_is_away_is_no_damage)
{
    struct fixture fixture;
    struct stream *stream;
    char path[PATH_MAX];
    uint64_t frames;

    write_many(&fixture, path);
    fixture.options.scrub_bytes_per_second = 1 << 30;
    plan_bad_sector(NULL, 0, UINT32_MAX, READS_OF_ALL);
    stream = open_again(&fixture);
    CHECK_EQ(stream->segment_count, 3);
    CLOCK_PASS_UNTIL(&fixture, 200, fixture.store->scrub.full_ns != 0);
    CHECK(!ask(&fixture, &frames));
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    bad_sector.inode = 0;
    CLOCK_PASS_UNTIL(&fixture, 60, ask(&fixture, &frames));
    CHECK(ask(&fixture, &frames)); /* with a view that began after that */
    CHECK_EQ(frames, FRAMES);
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    CLOCK_PASS_UNTIL(&fixture, 60, fixture.store->keys_later.first == NULL);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
}

/* --- ageing --- */

/* The sector is read twice in an attempt at most, and the attempts become rare. */
TEST(ageing_gives_a_frame_up_that_is_never_read)
{
    enum { LOST = 6 };
    struct fixture fixture;
    struct stream *stream;
    char path[PATH_MAX];
    uint64_t offset;

    write_many(&fixture, path);
    stream = open_again(&fixture);
    offset = stream_find(stream, LOST)->offset;
    fixture_stop(&fixture);
    fixture.options.ageing = "default=full:1s,thin/2:100d";
    plan_bad_sector(path, offset + KV_PAGE_BYTES, offset + KV_PAGE_BYTES + 1, 0);
    stream = open_again(&fixture);
    CLOCK_PASS_UNTIL(&fixture, 30, stream->segments[1]->super.aged.thin == 2);
    CHECK_EQ(stream->segments[0]->super.aged.thin, 0); /* the others do not wait for it */
    CLOCK_PASS_UNTIL(&fixture, 300, stream->segments[0]->super.aged.thin == 2);
    CHECK(bad_sector.failed <= 6);
    for (uint64_t seq = 0; seq < 12; seq++)
        CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0), seq % 2 == 1  ? FRAME_EVICTED
                                                               : seq == LOST ? FRAME_QUARANTINED
                                                                             : FRAME_OK);
    CHECK_EQ(stream_damaged_frames(stream), 1);
    fixture_stop(&fixture);
}

/* Of this file nothing is read: however long, it stays as it was. */
TEST(ageing_keeps_a_file_that_is_not_read_at_all)
{
    struct fixture fixture;
    struct stream *stream;
    char path[PATH_MAX];
    int attempts;

    write_many(&fixture, path);
    fixture.options.ageing = "default=full:1h,thin/2:100d";
    stream = open_again(&fixture);
    fixture_wait_keys(&fixture);
    plan_bad_sector(path, 0, UINT32_MAX, 0);
    clock_pass(&fixture, 3600 * 1000);
    for (int i = 0; i < 120; i++)
        clock_pass(&fixture, 5000);
    attempts = bad_sector.failed;
    CHECK(attempts >= 3 && attempts <= 16);
    CHECK_EQ(stream->segments[0]->super.aged.thin, 0);
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    bad_sector.inode = 0;
    CLOCK_PASS_UNTIL(&fixture, 1000, stream->segments[0]->super.aged.thin == 2);
    CHECK_EQ(stream_damaged_frames(stream), 0);
    fixture_stop(&fixture);
}

TEST_MAIN()
