/* What a failed sync leaves to others: to those who read blocks of the file that fails (a work holds the one reading
 * thread, so that they begin before the blocks get headers for another file, and end after that), and to those who read
 * what was written again. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>

#include "base/file.h"
#include "kvstore_held_thread.h"

static atomic_int syncs_to_failure; /* the one that brings it to 0 fails */

static int failing_fdatasync(int fd)
{
    if (atomic_fetch_sub(&syncs_to_failure, 1) != 1)
        return file_system.fdatasync(fd);
    errno = EIO;
    return -1;
}

/* What is in RAM only goes to another file. */
static void fail_file(struct fixture *fixture, struct stream *stream)
{
    const struct segment *before = stream->segments[0];

    syncs_to_failure = 1;
    stream_commit(stream);
    FIXTURE_TURN_UNTIL(fixture, before->state == SEGMENT_FAILED);
    CHECK_EQ(before->index.frame_count, 0);
}

/* Three blocks in a file that exists, none of them synced. */
static struct stream *start(struct fixture *fixture, struct fixture_writer *writer)
{
    static struct file_ops disk;
    struct stream *stream;

    disk = file_system;
    disk.fdatasync = failing_fdatasync;
    syncs_to_failure = 0;
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.disk = &disk;
    fixture->options.commit_ms = 60000;
    fixture->options.computing_threads = fixture->options.writing_threads = 1;
    fixture_open(fixture);
    stream = fixture_define(fixture, "cam-1");
    fixture_attach(fixture, stream, writer);
    fixture_append(fixture, stream, 3);
    FIXTURE_TURN_UNTIL(fixture, stream->segments[0]->state == SEGMENT_OPEN);
    return stream;
}

static void block_arrived(struct block_read *read)
{
    read->done = NULL;
}

TEST(rewrite_leaves_a_block_that_is_being_read_whole)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream = start(&fixture, &writer);
    struct block_read read = { .store = fixture.store,
                               .frame = stream_find(stream, 1),
                               .done = block_arrived };
    struct held_thread held;

    hold_thread(&fixture, &held);
    CHECK(!block_read_start(&read));
    fail_file(&fixture, stream);
    sem_post(&held.may_go);
    FIXTURE_TURN_UNTIL(&fixture, read.done == NULL && held.is_done);
    CHECK_EQ(read.result, FRAME_OK);
    CHECK_EQ(read.record.seq, 1);
    for (uint64_t at = 0; at < kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS); at++)
        CHECK_EQ(read.image[kv_record_run(&read.record, at).image], fixture_byte("cam-1", 1, at));
    block_read_release(&read);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    fixture_check_all(&fixture, stream, 0, 3);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* The answer is that of the first try, which held the thread: no second one was needed. */
TEST(rewrite_leaves_a_thumbnail_that_is_being_read_whole)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream = start(&fixture, &writer);
    struct index_frame *frame = stream_find(stream, 1);
    struct fixture_read reading = { .read = { .store = fixture.store,
                                              .frame = frame,
                                              .layer = SLICE_THUMBNAIL,
                                              .done = fixture_read_done } };
    struct held_thread held;

    hold_thread(&fixture, &held);
    CHECK(!slice_read_start(&reading.read));
    fail_file(&fixture, stream);
    sem_post(&held.may_go);
    FIXTURE_TURN_UNTIL(&fixture, reading.came && held.is_done);
    CHECK_EQ(reading.read.result, FRAME_OK);
    CHECK_MEM(reading.read.bytes, "jpeg", 4);
    CHECK(reading.read.frame == frame);
    slice_read_release(&reading.read);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* The sync that fails is of an end alone, and a frame has come behind it: what is written again has the number that the
 * frame's file begins with, and belongs before it, at the next start too. */
TEST(rewrite_of_an_end_keeps_what_came_after_it)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream = start(&fixture, &writer);

    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    syncs_to_failure = 2; /* the first is of the next file's superblock */
    CHECK_OK(stream_end(stream, "", &fixture.st), fixture.st);
    fixture_append(&fixture, stream, 1);
    FIXTURE_TURN_UNTIL(&fixture, stream->segments[0]->state == SEGMENT_FAILED);
    CHECK_EQ(stream->segment_count, 3);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->next_seq, 4);
    CHECK(!stream->has_ended);
    fixture_check_all(&fixture, stream, 0, 4);
    fixture_stop(&fixture);
}

/* Until they are in another file, RAM has the only copies. */
TEST(rewrite_leaves_blocks_pinned_until_they_are_on_the_disk)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream = start(&fixture, &writer);

    fail_file(&fixture, stream);
    CHECK(stream_durable_seq(stream) == 0);
    for (uint64_t seq = 0; seq < 3; seq++)
        CHECK_EQ(stream_find(stream, seq)->image->pins, 1);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    for (uint64_t seq = 0; seq < 3; seq++)
        CHECK_EQ(stream_find(stream, seq)->image->pins, 0);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Three frames in a file that fails with four more in it, which are durable in another one. */
static struct stream *write_again(struct fixture *fixture)
{
    struct fixture_writer writer;
    struct stream *stream = start(fixture, &writer);
    const struct segment *failed = stream->segments[0];

    stream_commit(stream);
    fixture_wait_durable(fixture, stream);
    fixture_append(fixture, stream, 4);
    syncs_to_failure = 1;
    stream_commit(stream);
    FIXTURE_TURN_UNTIL(fixture, failed->state == SEGMENT_FAILED);
    stream_commit(stream);
    fixture_wait_durable(fixture, stream);
    stream_detach(stream, &writer.base);
    return stream;
}

/* What was written again came back from the file that failed when the other one had gone (removed for room, or aged). */
TEST(rewrite_leaves_nothing_that_comes_back)
{
    struct fixture fixture;
    struct stream *stream = write_again(&fixture);
    char later[1100];

    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->segment_count, 2);
    CHECK_EQ(stream->segments[0]->end_seq, 3);
    CHECK_EQ(stream->segments[0]->left_frames, 0); /* not only looked past */
    fixture_check_all(&fixture, stream, 0, 7);
    snprintf(later, sizeof later, "%s.seg", stream->segments[1]->base);
    fixture_stop(&fixture);
    CHECK_EQ(unlink(later), 0);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    fixture_check_all(&fixture, stream, 0, 3);
    CHECK(stream_find(stream, 3) == NULL);
    fixture_stop(&fixture);
}

static void path_of_failed(const struct stream *stream, char path[1100])
{
    snprintf(path, 1100, "%s.open", stream->segments[0]->base);
}

/* The last page of a file that grows says what was synced. */
static void read_mark(const char *path, uint8_t page[KV_PAGE_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    CHECK_EQ(pread(fd, page, KV_PAGE_BYTES, lseek(fd, 0, SEEK_END) - KV_PAGE_BYTES), KV_PAGE_BYTES);
    close(fd);
}

static void write_mark(const char *path, const uint8_t page[KV_PAGE_BYTES])
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    CHECK_EQ(pwrite(fd, page, KV_PAGE_BYTES, lseek(fd, 0, SEEK_END) - KV_PAGE_BYTES), KV_PAGE_BYTES);
    close(fd);
}

static const uint8_t no_mark[KV_PAGE_BYTES];

static struct stream *start_again(struct fixture *fixture)
{
    fixture_stop(fixture);
    fixture_open(fixture);
    return store_find(fixture->store, "default", "cam-1");
}

static void remove_last(struct fixture *fixture, struct stream *stream)
{
    uint32_t count = stream->segment_count;

    fixture_wait_sealed(fixture, stream);
    fixture_wait_keys(fixture);
    CHECK(store_remove_segment(fixture->store, stream->segments[count - 1]));
    FIXTURE_TURN_UNTIL(fixture, fixture->store->removal == NULL);
    CHECK_EQ(stream->segment_count, count - 1);
}

static void check_first_three(struct fixture *fixture, struct stream *stream)
{
    fixture_check_all(fixture, stream, 0, 3);
    for (uint64_t seq = 3; seq < 7; seq++)
        CHECK_EQ(fixture_read_layer(fixture, stream, seq, 0), FRAME_EVICTED);
    CHECK_EQ(stream->next_seq, 7);
}

/* The other one went before the next start, which alone cuts the file that failed. */
TEST(what_was_written_again_and_removed_does_not_come_back)
{
    struct fixture fixture;
    struct stream *stream = write_again(&fixture);

    remove_last(&fixture, stream);
    check_first_three(&fixture, stream);
    stream = start_again(&fixture);
    check_first_three(&fixture, stream);
    fixture_stop(&fixture);
}

/* A power cut may take the mark as well: then a start would have sealed the file that failed with what is in the other one. */
TEST(what_was_written_again_does_not_come_back_when_the_mark_is_lost)
{
    struct fixture fixture;
    struct stream *stream = write_again(&fixture);
    char path[1100];

    path_of_failed(stream, path);
    write_mark(path, no_mark);
    stream = start_again(&fixture);
    fixture_check_all(&fixture, stream, 0, 7);
    remove_last(&fixture, stream);
    check_first_three(&fixture, stream);
    stream = start_again(&fixture);
    check_first_three(&fixture, stream);
    fixture_stop(&fixture);
}

/* Of a file that failed before one of its frames was durable the other one has the first number too. */
TEST(what_was_written_again_from_the_first_number_on_does_not_come_back)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream = start(&fixture, &writer);

    fail_file(&fixture, stream);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    stream = start_again(&fixture);
    fixture_check_all(&fixture, stream, 0, 3);
    remove_last(&fixture, stream);
    stream = start_again(&fixture);
    for (uint64_t seq = 0; seq < 3; seq++)
        CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0), FRAME_EVICTED);
    CHECK_EQ(stream->next_seq, 3);
    fixture_stop(&fixture);
}

static void save_rough_history(const struct stream *stream)
{
    struct history history = { .next_seq = stream->next_seq,
                               .next_token_index = stream->next_token_index,
                               .rough_below_seq = 30,
                               .count = 1,
                               .spans = { { 0, 30, fixture_pts(0), fixture_pts(29), 20 } } };
    char path[PATH_MAX], file[CHECKED_JSON_FILE_BYTES], *text;
    struct status st;

    stream_file_of(stream, "history.json", file);
    text = history_text(&history, file);
    snprintf(path, sizeof path, "%s/history.json", stream->folder);
    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
    free(text);
}

/* Ten frames went before those of a file that failed, and ten behind them: the two spans became one, which covers them. What was
 * durable in that file behind a mark of before is there all the same. */
TEST(what_a_span_of_others_covers_is_not_cut)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream = start(&fixture, &writer);
    uint8_t mark[KV_PAGE_BYTES];
    char path[1100];

    fixture_append(&fixture, stream, 7);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    segment_close(stream->segments[0]);
    fixture_append(&fixture, stream, 3);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    CHECK_EQ(stream->segment_count, 2);
    snprintf(path, sizeof path, "%s.open", stream->segments[1]->base);
    read_mark(path, mark);
    fixture_append(&fixture, stream, 7);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    syncs_to_failure = 1;
    fixture_append(&fixture, stream, 10);
    stream_commit(stream);
    FIXTURE_TURN_UNTIL(&fixture, stream->segment_count == 3 && stream->segments[1]->state == SEGMENT_FAILED);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    remove_last(&fixture, stream);
    CHECK(store_remove_segment(fixture.store, stream->segments[0]));
    FIXTURE_TURN_UNTIL(&fixture, fixture.store->removal == NULL);
    save_rough_history(stream);
    write_mark(path, mark);
    stream = start_again(&fixture);
    fixture_check_all(&fixture, stream, 10, 20);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 5, 0), FRAME_EVICTED);
    fixture_stop(&fixture);
}

/* Nobody writes behind records that a power cut may take: what a start finds behind the mark, and cannot sync. */
TEST(what_a_start_cannot_sync_keeps_writers_away)
{
    struct fixture fixture;
    struct stream *stream = write_again(&fixture);
    char path[1100];

    path_of_failed(stream, path);
    write_mark(path, no_mark);
    fixture_stop(&fixture);
    syncs_to_failure = 1;
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    fixture_check_all(&fixture, stream, 0, 7);
    CHECK(!fixture_take(&fixture, stream, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_UNAVAILABLE);
    stream = start_again(&fixture);
    fixture_check_all(&fixture, stream, 0, 7);
    CHECK_OK(fixture_take(&fixture, stream, &fixture.st), fixture.st);
    fixture_stop(&fixture);
}

static void flip_a_bit(const char *path)
{
    uint8_t byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    CHECK_EQ(pread(fd, &byte, 1, 0), 1);
    byte ^= 1;
    CHECK_EQ(pwrite(fd, &byte, 1, 0), 1);
    close(fd);
}

/* Nor with a file that could not be used while the other one went. */
TEST(what_was_written_again_does_not_come_back_with_its_file)
{
    struct fixture fixture;
    struct stream *stream = write_again(&fixture);
    char path[1100];

    path_of_failed(stream, path);
    flip_a_bit(path);
    stream = start_again(&fixture);
    CHECK(stream->unusable[0] != '\0');
    remove_last(&fixture, stream);
    flip_a_bit(path);
    stream = start_again(&fixture);
    check_first_three(&fixture, stream);
    fixture_stop(&fixture);
}

TEST_MAIN()
