/* Segment files of which nothing can be used, for good or for now: they stay where they are, and none of their numbers is given
 * again. */
#include <sys/stat.h>

#include "kvstore_faulty_disk.h"
#include "kvstore_picture.h"

/* A superblock that does not fit: nothing of the file can be told from anything else. It stays, its frames are not
 * served, and the stream goes on behind them. */
TEST(unusable_file_with_a_damaged_superblock_stays)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct picture picture;
        struct stream *stream;
        struct stat info;

        picture_take(&picture, is_open);
        picture.segment.data[100] ^= 1;
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(picture_count(&picture, stream).right, 0);
        CHECK_EQ(stat(picture.path, &info), 0);
        CHECK(picture.fixture.store->disk_used_bytes >= (uint64_t)info.st_blocks * 512);
        fixture_remove(&picture.fixture, stream);
        fixture_stop(&picture.fixture);
        picture_drop(&picture);
    }
}

/* A sound superblock of another file: what stands behind it is not taken for its records, and the numbers are those that the
 * headers of the file's own salt tell. */
TEST(unusable_file_whose_superblock_has_not_its_name_stays)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct picture picture;
        struct kv_super super;
        struct stream *stream;
        uint8_t *page;

        picture_take(&picture, is_open);
        page = (uint8_t *)picture.segment.data;
        CHECK_OK(kv_super_get(&super, page, &picture.fixture.st), picture.fixture.st);
        super.salt++;
        kv_super_put(&super, page);
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
        CHECK_EQ(picture_count(&picture, stream).quarantined, PICTURE_FRAMES);
        fixture_remove(&picture.fixture, stream);
        fixture_stop(&picture.fixture);
        picture_drop(&picture);
    }
}

/* Nothing is left of the last sealed file, and no header tells its numbers: stream.json does, since it was sealed. */
TEST(unusable_file_of_zeros_keeps_its_numbers)
{
    struct file_text definition;
    struct picture picture;
    struct stream *stream;

    picture_take(&picture, false);
    CHECK_OK(file_read_all(picture.json, 64 << 20, &definition, &picture.fixture.st), picture.fixture.st);
    free(picture.definition.data);
    picture.definition = definition;
    memset(picture.segment.data, 0, picture.segment.len);
    stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
    CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
    CHECK_EQ(picture_count(&picture, stream).quarantined, PICTURE_FRAMES);
    fixture_stop(&picture.fixture);
    picture_drop(&picture);
}

/* With the planned fault the store does not start, and names the file; without it every frame is there. */
static void check_refused_until_healed(struct picture *picture)
{
    struct fixture *fixture = &picture->fixture;
    struct stream *stream;

    CHECK_OK(loop_create(&fixture->loop, &fixture->st), fixture->st);
    CHECK(!store_open(&fixture->store, fixture->loop, &fixture->options, &fixture->st));
    CHECK_EQ(fixture->st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(fixture->st.text, picture->path);
    loop_destroy(fixture->loop);
    plan_fault(0, 0, 0, 0);
    fixture_open(fixture);
    stream = store_find(fixture->store, "default", "cam-1");
    CHECK_EQ(picture_count(picture, stream).right, PICTURE_FRAMES);
    fixture_remove(fixture, stream);
    fixture_stop(fixture);
    picture_drop(picture);
}

/* The disk does not open the file now: it stays, and is served when the disk has recovered. A disk that does not even let
 * its numbers be looked up keeps the store from starting, and so from giving them again. */
TEST(unusable_file_that_does_not_open_stays)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct picture picture;
        struct fixture *fixture = &picture.fixture;
        struct stream *stream;

        picture_take(&picture, is_open);
        fixture->options.disk = faulty_disk();
        plan_fault(FAULT_OPEN, EIO, 1, 1);
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(fault.failed, 1);
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
        CHECK_EQ(picture_count(&picture, stream).quarantined, PICTURE_FRAMES);
        fixture_stop(fixture);
        plan_fault(FAULT_OPEN, EIO, 1, 2);
        check_refused_until_healed(&picture);
    }
}

/* The file opens and its superblock is not read: its numbers are looked up from the headers of its records. Where the disk
 * reads none of the last ones, nobody knows where the numbers end, and the store does not start. */
TEST(unusable_file_that_is_not_read_now_keeps_its_numbers)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct picture picture;
        struct fixture *fixture = &picture.fixture;
        struct stream *stream;

        picture_take(&picture, is_open);
        fixture->options.disk = faulty_disk();
        plan_fault(FAULT_READ, EIO, 1, 3); /* the superblock, and the first headers */
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(fault.failed, 3);
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
        CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + PICTURE_FRAMES * FIXTURE_TOKENS);
        fixture_stop(fixture);
        plan_fault(FAULT_READ, EIO, 1, 1 << 20);
        check_refused_until_healed(&picture);
    }
}

/* A file that cannot be looked into has a later one behind it, which tells where its numbers end at the latest. */
TEST(unusable_file_before_another_keeps_no_store_from_starting)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fault_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 100);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    CHECK(stream->segment_count >= 2);
    fixture_stop(&fixture);
    plan_fault(FAULT_OPEN, EIO, 1, 2); /* to load the first, and to look into it */
    fixture_open(&fixture);
    CHECK_EQ(fault.failed, 2);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->next_seq, 100);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 0), FRAME_QUARANTINED);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 99, 0), FRAME_OK);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    fixture_check_all(&fixture, stream, 0, 100);
    fixture_stop(&fixture);
}

/* The stream's last file cannot be used: its numbers stay taken, whatever of it is damaged besides, and say so. */
TEST(unusable_file_keeps_its_numbers)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct fixture_writer writer;
        struct picture picture;
        struct stream *stream;

        picture_take(&picture, is_open);
        picture.segment.data[100] ^= 1;
        picture.segment.data[picture_offset(4) + 20] ^= 1;
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        for (unsigned round = 0; round < 2; round++) { /* alone; then with a file behind it */
            CHECK_EQ(stream->next_seq, PICTURE_FRAMES + round);
            CHECK_EQ(stream->next_token_index,
                     FIXTURE_INIT_TOKENS + (PICTURE_FRAMES + round) * FIXTURE_TOKENS);
            CHECK_EQ(fixture_read_layer(&picture.fixture, stream, PICTURE_FRAMES - 1, 0), FRAME_QUARANTINED);
            fixture_attach(&picture.fixture, stream, &writer);
            fixture_append(&picture.fixture, stream, 1);
            fixture_wait_durable(&picture.fixture, stream);
            stream_detach(stream, &writer.base);
            fixture_stop(&picture.fixture);
            fixture_open(&picture.fixture);
            stream = store_find(picture.fixture.store, "default", "cam-1");
            CHECK_EQ(fixture_read_layer(&picture.fixture, stream, PICTURE_FRAMES + round, 0), FRAME_OK);
        }
        fixture_remove(&picture.fixture, stream);
        fixture_stop(&picture.fixture);
        picture_drop(&picture);
    }
}

/* A power cut took back the name that sealing gave: the file has no mark any more, and all of it was acked. The start after
 * next finds what this one cannot read. */
TEST(unusable_sealed_file_under_its_old_name_keeps_its_numbers)
{
    char base[PATH_MAX], from[PATH_MAX + 8], to[PATH_MAX + 8];
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 10);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    snprintf(base, sizeof base, "%s", stream->segments[0]->base);
    fixture_stop(&fixture);
    snprintf(from, sizeof from, "%s.seg", base);
    snprintf(to, sizeof to, "%s.open", base);
    CHECK_EQ(rename(from, to), 0);
    fixture.options.disk = faulty_disk();
    plan_fault(FAULT_READ, ENOMEM, 1, 1);
    fixture_open(&fixture);
    CHECK_EQ(fault.failed, 1);
    CHECK_EQ(store_find(fixture.store, "default", "cam-1")->next_seq, 10);
    fixture_stop(&fixture);
    plan_fault(0, 0, 0, 0);
    fixture_open(&fixture);
    fixture_check_all(&fixture, store_find(fixture.store, "default", "cam-1"), 0, 10);
    fixture_stop(&fixture);
}

/* The stream ended without a frame. A start that could not read the file took it for one of frames, and by the next, sound
 * start a frame that never was counted as lost. */
TEST(unusable_sealed_file_of_an_end_alone_takes_no_number)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    CHECK_OK(stream_end(stream, "it is no video", &fixture.st), fixture.st);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    fixture_stop(&fixture);
    fixture.options.disk = faulty_disk();
    plan_fault(FAULT_READ, EIO, 1, 1); /* the superblock */
    fixture_open(&fixture);
    CHECK_EQ(fault.failed, 1);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->segment_count, 0);
    CHECK_EQ(stream->next_seq, 0);
    CHECK_OK(fixture_take(&fixture, stream, &fixture.st), fixture.st); /* writes stream.json */
    fixture_stop(&fixture);
    plan_fault(0, 0, 0, 0);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->next_seq, 0);
    CHECK_EQ(stream->damaged_frames, 0);
    fixture_stop(&fixture);
}

TEST_MAIN()
