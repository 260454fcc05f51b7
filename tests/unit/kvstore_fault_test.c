/* Disks that fail: a call of the store's on its files fails, or takes too little, at a chosen place. What was acked
 * durable is there afterwards, and after a restart; nothing wrong is ever served; nothing stops for good. */
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "kvstore_faulty_disk.h"

/* The whole story with one fault in it, and a restart with a sound disk. */
static int run_with_fault(unsigned watched, int error, int nth, int repeats)
{
    static unsigned runs;
    struct fixture fixture;
    struct stream *stream;
    char name[32];
    int failed;

    snprintf(name, sizeof name, "cam-%u", runs++);
    fault_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.segment_bytes_max = 1 << 20;
    fixture.options.disk_bytes = 16 << 20;
    fixture_open(&fixture);
    stream = fixture_define(&fixture, name);
    plan_fault(watched, error, nth, repeats);
    fault_write_all(&fixture, stream);
    fault_check_all(&fixture, stream);
    fixture_stop(&fixture);
    failed = fault.failed;
    plan_fault(0, 0, 0, 0);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", name);
    fault_check_all(&fixture, stream);
    fixture_remove(&fixture, stream);
    fixture_stop(&fixture);
    return failed;
}

/* The n-th call fails once, for every n until a run ends without meeting it. */
static void fail_every_call(unsigned watched, int error)
{
    int nth = 1;

    while (run_with_fault(watched, error, nth, 1) > 0)
        nth++;
    CHECK(nth > 3);
    printf("   %d places\n", nth - 1);
}

TEST(fault_any_failed_sync_loses_nothing)
{
    fail_every_call(FAULT_SYNC, EIO);
}

TEST(fault_any_failed_write_loses_nothing)
{
    fail_every_call(FAULT_WRITE, EIO);
}

/* The writer has left when the disk fails: what is written again is sealed as the rest was to be. */
TEST(fault_after_the_writer_left_leaves_no_file_open)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fault_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    plan_fault(FAULT_SYNC, EIO, 2, 1); /* the first is of the new file's superblock */
    fixture.store->options.commit_ms = 60000;
    fixture_append(&fixture, stream, 20);
    stream_detach(stream, &writer.base);
    fixture_wait_durable(&fixture, stream);
    fixture_wait_sealed(&fixture, stream);
    CHECK_EQ(fault.failed, 1);
    fixture_check_all(&fixture, stream, 0, 20);
    fixture_stop(&fixture);
}

TEST(fault_short_writes_are_continued)
{
    CHECK(run_with_fault(FAULT_WRITE, 0, 1, 1000) > 10);
}

TEST(fault_interrupted_calls_are_repeated)
{
    CHECK(run_with_fault(FAULT_WRITE | FAULT_RESERVE, EINTR, 1, 50) > 10);
}

TEST(fault_any_failed_rename_or_cut_loses_nothing)
{
    fail_every_call(FAULT_RENAME | FAULT_CUT, EIO);
}

/* The disk is full for the first tries: writers wait in RAM, then it goes on. */
TEST(fault_full_disk_is_waited_for)
{
    CHECK(run_with_fault(FAULT_RESERVE, ENOSPC, 1, 3) == 3);
    CHECK(run_with_fault(FAULT_OPEN, EMFILE, 1, 2) == 2);
}

/* What was begun of a file cannot be removed either: it is gone on with, and counted meanwhile. */
TEST(fault_file_that_is_neither_made_nor_removed_is_made_later)
{
    CHECK_EQ(run_with_fault(FAULT_RESERVE | FAULT_UNLINK, EIO, 1, 2), 2);
}

/* A disk that stays full: what RAM holds is taken, then appends are refused, typed; reads go on. */
TEST(fault_disk_that_stays_full_refuses_typed)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    struct stream_block block;
    uint64_t taken = 0;

    fault_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    plan_fault(FAULT_RESERVE, ENOSPC, 1, 1 << 20);
    for (;;) {
        block = fixture_block(stream, stream->next_seq);
        if (!fixture_append_block(&fixture, stream, &block, &fixture.st))
            break;
        taken++;
    }
    CHECK_EQ(fixture.st.code, STATUS_EXHAUSTED);
    CHECK(taken > 100);
    CHECK_EQ(stream_durable_seq(stream), 0);
    fixture_check_all(&fixture, stream, 0, taken);
    plan_fault(0, 0, 0, 0);
    fixture_append(&fixture, stream, 10);
    fixture_wait_durable(&fixture, stream);
    CHECK_EQ(stream_durable_seq(stream), taken + 10);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* A disk that stays full, and a camera whose frames are lost meanwhile: gaps of one reason take no more memory the more
 * they are, gaps of two reasons are refused in the end, and none that was taken is forgotten. */
TEST(fault_disk_that_stays_full_bounds_the_gaps_in_memory)
{
    enum { NEIGHBOURS = 10000 };
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    uint64_t end_seq, taken = 0;

    fault_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    plan_fault(FAULT_RESERVE, ENOSPC, 1, 1 << 20);
    for (unsigned i = 0; i < NEIGHBOURS; i++)
        CHECK_OK(fixture_append_gap(stream, 1, "no room", &fixture.st), fixture.st);
    CHECK_EQ(stream->segment_count, 1);
    CHECK_EQ(stream->segments[0]->mark_count, 1);
    CHECK_EQ(stream->gap_frames, NEIGHBOURS);
    while (fixture_append_gap(stream, 2, taken % 2 == 0 ? "late" : "no room", &fixture.st) &&
           taken < NEIGHBOURS)
        taken++;
    CHECK(taken < NEIGHBOURS);
    CHECK_EQ(fixture.st.code, STATUS_EXHAUSTED);
    end_seq = stream->next_seq;
    CHECK_EQ(end_seq, NEIGHBOURS + 2 * taken);
    plan_fault(0, 0, 0, 0);
    fixture_wait_durable(&fixture, stream);
    CHECK_OK(fixture_append_gap(stream, 3, "late", &fixture.st), fixture.st);
    fixture_append(&fixture, stream, 1);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->next_seq, end_seq + 4);
    CHECK_EQ(stream->gap_frames, end_seq + 3);
    CHECK_EQ(fixture_read_layer(&fixture, stream, NEIGHBOURS - 1, 0), FRAME_GAP);
    CHECK_EQ(fixture_read_layer(&fixture, stream, end_seq + 3, 0), FRAME_OK);
    fixture_stop(&fixture);
}

/* A file system that knows no O_DIRECT. */
static int open_without_direct(const char *path, int flags, mode_t mode)
{
    if ((flags & O_DIRECT) == 0)
        return file_system.open(path, flags, mode);
    fault.failed++;
    errno = EINVAL;
    return -1;
}

/* INIT and three frames, none of them written when the first write of records is to fail. */
static struct stream *start_unwritten(struct fixture *fixture, struct fixture_writer *writer)
{
    fault_start(fixture);
    plan_fault(FAULT_WRITE, EIO, 2, 1); /* the first is of the superblock */
    return fixture_write(fixture, "cam-1", writer, 3);
}

/* Also at the next start, which has only the disk. */
static void check_init_and_frames(struct fixture *fixture, struct stream *stream)
{
    fixture_wait_durable(fixture, stream);
    CHECK_EQ(fault.failed, 1);
    for (int start = 0; start < 2; start++) {
        CHECK_EQ(fixture_read_block(fixture, stream, NULL), FRAME_OK);
        fixture_check_all(fixture, stream, 0, 3);
        fixture_stop(fixture);
        fixture_open(fixture);
        stream = store_find(fixture->store, "default", "cam-1");
    }
    fixture_stop(fixture);
}

/* The next writer has come, and has not sent it again. */
TEST(fault_after_a_takeover_keeps_init)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream = start_unwritten(&fixture, &writer);

    CHECK_OK(fixture_take(&fixture, stream, &fixture.st), fixture.st);
    CHECK(writer.is_fenced);
    check_init_and_frames(&fixture, stream);
}

/* The copy in memory goes with the stream's end, but not before all is durable. */
TEST(fault_after_the_end_keeps_init)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream = start_unwritten(&fixture, &writer);

    CHECK_OK(stream_end(stream, "", &fixture.st), fixture.st);
    stream_detach(stream, &writer.base);
    fixture_wait_durable(&fixture, stream);
    CHECK(stream->init_image == NULL);
    check_init_and_frames(&fixture, stream);
}

/* The file that is to begin with the system prompt's block cannot be made yet when the next writer asks for it. */
TEST(fault_full_disk_keeps_init_for_the_next_writer)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fault_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 3);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    plan_fault(FAULT_RESERVE, ENOSPC, 1, 1 << 30);
    fixture_attach(&fixture, stream, &writer);
    fixture_append_init(&fixture, stream);
    fixture_append(&fixture, stream, 1);
    CHECK_OK(fixture_take(&fixture, stream, &fixture.st), fixture.st);
    CHECK(segment_is_creating(stream_last_segment(stream)));
    CHECK_EQ(fixture_read_block(&fixture, stream, NULL), FRAME_OK);
    CHECK_EQ(fixture_read_block(&fixture, stream, stream_find(stream, 3)), FRAME_OK);
    plan_fault(0, 0, 0, 0);
    fixture_wait_durable(&fixture, stream);
    fixture_check_all(&fixture, stream, 0, 4);
    fixture_stop(&fixture);
}

TEST(fault_file_systems_without_direct_access_work)
{
    struct file_ops plain = file_system;
    struct fixture fixture;
    struct stream *stream;

    plain.open = open_without_direct;
    fault_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk = &plain;
    fixture_open(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fault_write_all(&fixture, stream);
    fault_check_all(&fixture, stream);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    fault_check_all(&fixture, store_find(fixture.store, "default", "cam-1"));
    CHECK(fault.failed > 100);
    fixture_stop(&fixture);
}

/* A real one: a tmpfs of 6 MB under a budget of 64. Appends end typed, reads go on, and when the operator makes room
 * (here: a stream is removed) writing goes on. */
TEST(fault_real_full_disk)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream, *other;
    uint64_t taken;

    plan_fault(0, 0, 0, 0);
    snprintf(fixture.root, sizeof fixture.root, "%s/data", test_folder());
    CHECK_EQ(mkdir(fixture.root, 0700), 0);
    if (mount("tmpfs", fixture.root, "tmpfs", 0, "size=6m") != 0)
        test_skip("mounting a tmpfs is not allowed here");
    fixture_start(&fixture);
    other = fixture_define(&fixture, "cam-0");
    fixture_attach(&fixture, other, &writer);
    fixture_append(&fixture, other, 200);
    fixture_wait_durable(&fixture, other);
    stream_detach(other, &writer.base);
    fixture_wait_sealed(&fixture, other);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    taken = fault_append_until_refused(&fixture, stream);
    CHECK(stream_durable_seq(stream) < taken);
    fixture_check_all(&fixture, other, 0, 200);
    fixture_remove(&fixture, other);
    fixture_append(&fixture, stream, 5);
    fixture_check_all(&fixture, stream, taken - 20, taken + 5);
    stream_detach(stream, &writer.base);
    fixture_remove(&fixture, stream);
    fixture_stop(&fixture);
    CHECK_EQ(umount(fixture.root), 0);
}

/* Reads that fail answer UNAVAILABLE, and succeed when asked again: a file that does not open now says nothing of what
 * is in it. */
TEST(fault_failed_reads_are_typed)
{
    static const int open_errors[] = { EMFILE, EIO };
    struct fixture fixture;
    struct stream *stream;

    fault_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fault_write_all(&fixture, stream);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    fixture_wait_keys(&fixture);
    plan_fault(FAULT_READ, EIO, 1, 1);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 3, 1), FRAME_UNAVAILABLE);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 3, 1), FRAME_OK);
    for (size_t i = 0; i < ARRAY_LEN(open_errors); i++) {
        plan_fault(FAULT_OPEN, open_errors[i], 1, 1);
        CHECK_EQ(fixture_read_layer(&fixture, stream, 10 + i, 1), FRAME_UNAVAILABLE);
        CHECK_EQ(fixture_read_layer(&fixture, stream, 10 + i, 1), FRAME_OK);
        plan_fault(FAULT_OPEN, open_errors[i], 1, 1);
        CHECK_EQ(fixture_read_block(&fixture, stream, stream_find(stream, 20 + i)), FRAME_UNAVAILABLE);
        CHECK_EQ(fixture_read_block(&fixture, stream, stream_find(stream, 20 + i)), FRAME_OK);
    }
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    plan_fault(FAULT_READ, 0, 1, 1 << 20); /* short reads are continued */
    fixture_check_all(&fixture, stream, 5, 10);
    CHECK(fault.failed > 5);
    fixture_stop(&fixture);
}

TEST_MAIN()
