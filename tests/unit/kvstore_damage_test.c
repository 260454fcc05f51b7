/* What a bad disk took is counted, in whatever way it was found, and every question about its time hears of it. */
#include "kvstore_picture.h"

#define SECOND_NS 1000000000ll

/* What a question about [from, to) sees; of a fixture's frames one comes each two seconds. */
static void look(struct fixture *fixture, int64_t from_ns, int64_t to_ns, uint64_t frames, uint64_t damaged)
{
    const struct view_stream_name name = { "default", "cam-1" };
    struct view_request request = { .streams = &name, .stream_count = 1, .from_ns = from_ns, .to_ns = to_ns };
    struct view *view;

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    CHECK_OK(view_create(&view, fixture->store, &request, &fixture->st), fixture->st);
    CHECK_EQ(view->frames, frames);
    CHECK_EQ(view->damaged_frames, damaged);
    view_unref(view);
}

static void end_stream(struct fixture *fixture, struct stream *stream, struct fixture_writer *writer)
{
    CHECK_OK(stream_end(stream, "", &fixture->st), fixture->st);
    fixture_wait_durable(fixture, stream);
    FIXTURE_TURN_UNTIL(fixture, stream->saves == NULL);
    stream_detach(stream, &writer->base);
    fixture_wait_sealed(fixture, stream);
}

/* The stream's newest sealed file, as bytes. */
static void read_sealed(struct fixture *fixture, char path[1024], struct file_text *text)
{
    char folder[600];

    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", fixture->root, 1);
    picture_find_segment(folder, ".seg", path);
    CHECK_OK(file_read_all(path, 64 << 20, text, &fixture->st), fixture->st);
}

/* The one file of an ended camera is cut behind its first frames, or nothing of it (`kept` 0) is what it was. */
static void damage_the_end(uint64_t kept)
{
    struct fixture_writer writer;
    struct file_text file;
    struct fixture fixture;
    struct stream *stream;
    int64_t begin_ns;
    char path[1024];

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, PICTURE_FRAMES);
    end_stream(&fixture, stream, &writer);
    begin_ns = kept == 0 ? stream->definition.created_ns : fixture_pts(0);
    read_sealed(&fixture, path, &file);
    fixture_stop(&fixture);
    if (kept == 0)
        memset(file.data, 0x5a, file.len);
    picture_write_file(path, file.data, kept == 0 ? file.len : picture_offset(kept));
    free(file.data);
    for (unsigned round = 0; round < 2; round++) {
        fixture_open(&fixture);
        stream = store_find(fixture.store, "default", "cam-1");
        CHECK(stream->has_ended);
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
        CHECK_EQ(stream_damaged_frames(stream), PICTURE_FRAMES - kept);
        CHECK_EQ(fixture_read_layer(&fixture, stream, PICTURE_FRAMES - 1, 0), FRAME_QUARANTINED);
        look(&fixture, 0, 0, kept, PICTURE_FRAMES - kept);
        look(&fixture, 0, begin_ns - SECOND_NS, 0, 0);
        look(&fixture, begin_ns + 22 * SECOND_NS + 1, 0, 0, 0);
        look(&fixture, begin_ns + 22 * SECOND_NS, 0, 0, 1);
        fixture_stop(&fixture);
    }
}

/* How many there were is known from stream.json, when they were from those that are left. */
TEST(damage_that_cuts_an_ended_camera_is_counted)
{
    damage_the_end(5);
}

/* When they were, from when the camera was defined. */
TEST(damage_to_all_of_an_ended_camera_is_counted)
{
    damage_the_end(0);
}

/* A file between others that tells nothing of itself: its numbers were taken for none at all. */
TEST(damage_of_a_whole_file_among_others_is_counted)
{
    static char junk[KV_PAGE_BYTES];
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t first, end;
    char path[PATH_MAX + 8];

    memset(junk, 0x5a, sizeof junk);
    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 200);
    end_stream(&fixture, stream, &writer);
    CHECK(stream->segment_count >= 3);
    first = stream->segments[1]->super.first_seq;
    end = stream->segments[1]->end_seq;
    snprintf(path, sizeof path, "%s.seg", stream->segments[1]->base);
    fixture_stop(&fixture);
    picture_write_file(path, junk, sizeof junk);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->next_seq, 200);
    CHECK_EQ(stream_damaged_frames(stream), end - first);
    look(&fixture, 0, 0, 200 - (end - first), end - first);
    look(&fixture, 0, fixture_pts(first - 1) + 1, first, 0);
    look(&fixture, fixture_pts(first), fixture_pts(end), 0, end - first);
    fixture_stop(&fixture);
}

/* The first frames, some in the middle: each counts in its own time and in no other. */
TEST(damage_in_a_file_is_counted_in_its_time)
{
    static const uint64_t cases[] = { 0, 4 };
    struct picture picture;

    picture_take(&picture, true);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture *fixture = &picture.fixture;
        uint64_t seq = cases[i];

        picture.segment.data[picture_offset(seq) + 5000] ^= 1;
        CHECK_EQ(stream_damaged_frames(picture_restore(&picture, picture.segment.data, picture.segment.len)),
                 1);
        look(fixture, 0, 0, PICTURE_FRAMES - 1, 1);
        look(fixture, fixture_pts(seq), fixture_pts(seq) + 1, 0, 1);
        look(fixture, fixture_pts(seq) + 1, 0, PICTURE_FRAMES - 1 - seq, 0);
        fixture_stop(fixture);
        picture.segment.data[picture_offset(seq) + 5000] ^= 1;
    }
    picture_drop(&picture);
}

/* Sealed files are checked as they are read: from then on the frame counts as damaged, for questions that come later too. */
TEST(damage_that_a_reader_finds_stays_told)
{
    struct picture picture;
    struct stream *stream;

    picture_take(&picture, false);
    picture.segment.data[picture_offset(4) + 12000] ^= 1;
    stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
    look(&picture.fixture, 0, 0, PICTURE_FRAMES, 0);
    picture_count(&picture, stream);
    picture_count(&picture, stream);
    CHECK_EQ(stream_damaged_frames(stream), 1);
    look(&picture.fixture, 0, 0, PICTURE_FRAMES - 1, 1);
    fixture_stop(&picture.fixture);
    picture_drop(&picture);
}

/* The power went while it was sealed, and took the new name: the file has a trailer and no mark. Its first damaged record was
 * taken for the torn end, and all behind it for never synced: it was cut. */
TEST(damage_to_a_file_that_was_being_sealed_costs_no_other_frame)
{
    struct picture picture;
    struct stream *stream;
    struct picture_tally tally;
    char *dot;

    picture_take(&picture, false);
    dot = strrchr(picture.path, '.');
    memcpy(dot, ".open", sizeof ".open");
    picture.segment.data[picture_offset(4) + 12000] ^= 1;
    stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
    CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
    tally = picture_count(&picture, stream);
    CHECK_EQ(tally.right, PICTURE_FRAMES - 1);
    CHECK_EQ(tally.quarantined, 1);
    CHECK_EQ(stream_damaged_frames(stream), 1);
    fixture_stop(&picture.fixture);
    picture_drop(&picture);
}

TEST_MAIN()
