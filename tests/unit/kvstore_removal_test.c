/* Files that do not go, histories that are not written: what is removed to keep the budget is there or has gone, is told of as it
 * is, and its bytes are counted as long as it takes them. */
#include <sys/resource.h>
#include <unistd.h>

#include "kvstore/stream_forget.h"
#include "kvstore_faulty_disk.h"

/* A file that cannot be removed stays: the budget holds all the same. */
TEST(removal_that_fails_keeps_the_budget)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fault_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk_bytes = 8 << 20;
    fixture_open(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    plan_fault(FAULT_UNLINK, EIO, 2, 1);
    fixture_append(&fixture, stream, 1500);
    CHECK_EQ(fault.failed, 1);
    CHECK(fixture.store->disk_used_bytes <= fixture.options.disk_bytes);
    CHECK(history_frames(&stream->history) > 0);
    fixture_wait_durable(&fixture, stream);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 1499, 0), FRAME_OK);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* A disk that removes nothing: no frame is given up for room that does not come, and when it recovers writing goes on. */
TEST(removal_by_a_disk_that_removes_nothing_loses_nothing)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    uint64_t durable;

    fault_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk_bytes = 8 << 20;
    fixture_open(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    plan_fault(FAULT_UNLINK, EIO, 1, 1 << 20);
    fault_append_until_refused(&fixture, stream);
    FIXTURE_TURN_UNTIL(&fixture, fault.failed >= 3 && fixture.store->removal == NULL);
    fixture.store->remove_at_ns = UINT64_MAX; /* none is tried while it is looked at */
    durable = stream_durable_seq(stream);
    CHECK(durable > 200);
    CHECK_EQ(history_frames(&stream->history), 0);
    CHECK_EQ(stream_frame_count(stream), stream->next_seq);
    CHECK(fixture.store->disk_used_bytes <= fixture.options.disk_bytes);
    fixture_check_all(&fixture, stream, 0, durable);
    plan_fault(0, 0, 0, 0);
    fixture.store->remove_at_ns = 0;
    fixture_append(&fixture, stream, 100);
    fixture_wait_durable(&fixture, stream);
    CHECK(history_frames(&stream->history) > 0);
    CHECK_EQ(history_frames(&stream->history) + stream_frame_count(stream), stream->next_seq);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* No descriptor for the history: nothing goes that the next start would not know of. */
TEST(removal_without_a_descriptor_keeps_every_segment)
{
    struct rlimit before, none;
    struct fixture fixture;
    struct stream *stream;
    uint32_t segments;
    bool fits;

    fault_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fault_write_all(&fixture, stream);
    fixture_wait_sealed(&fixture, stream);
    segments = stream->segment_count;
    CHECK(segments >= 2);
    fixture.store->options.disk_bytes = STORE_STREAM_DISK_BYTES;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    fits = store_fit_budget(fixture.store, &fixture.st);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK(!fits);
    CHECK_EQ(stream->segment_count, segments);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    fault_check_all(&fixture, store_find(fixture.store, "default", "cam-1"));
    fixture_stop(&fixture);
}

/* What is written to the history's new copy finds the disk full. */
static struct {
    char path[PATH_MAX]; /* of that copy; "": the disk has room again */
} full_history;

static void fill_history(void)
{
    if (full_history.path[0] != '\0')
        CHECK(symlink("/dev/full", full_history.path) == 0 || errno == EEXIST);
}

static int unlink_on_full_disk(const char *path)
{
    int failed = file_system.unlink(path);

    if (failed == 0)
        fill_history();
    return failed;
}

/* The disk has no room for the history before a file goes, nor afterwards: what has gone is not served as if it were there,
 * its bytes are free, and the next removal writes what this one could not. */
TEST(removal_on_a_full_disk_releases_what_has_gone)
{
    struct file_ops full = file_system;
    struct fixture fixture;
    struct stream *stream;
    uint64_t used, gone;

    full.unlink = unlink_on_full_disk;
    fault_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk = &full;
    fixture_open(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fault_write_all(&fixture, stream);
    fixture_wait_sealed(&fixture, stream);
    CHECK(stream->segment_count >= 2);
    used = fixture.store->disk_used_bytes;
    gone = stream->segments[0]->disk_bytes;
    snprintf(full_history.path, sizeof full_history.path, "%s/history.json.new", stream->folder);
    fill_history();
    fixture.store->options.disk_bytes = used - 1;
    CHECK_OK(store_fit_budget(fixture.store, &fixture.st), fixture.st);
    CHECK_EQ(fixture.store->disk_used_bytes, used - gone);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 0), FRAME_EVICTED);
    CHECK_EQ(fixture_read_layer(&fixture, stream, FAULT_FRAMES - 1, 0), FRAME_OK);
    full_history.path[0] = '\0';
    fixture.store->options.disk_bytes = STORE_STREAM_DISK_BYTES;
    CHECK_OK(store_fit_budget(fixture.store, &fixture.st), fixture.st);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->next_seq, FAULT_FRAMES);
    CHECK_EQ(history_frames(&stream->history), FAULT_FRAMES - 5);
    fixture_stop(&fixture);
}

static struct {
    atomic_int countdown;   /* the sync of a folder that brings it to 0 fails */
    atomic_ulong inode;     /* of that folder; 0: none has failed */
    atomic_bool was_synced; /* since */
} bad_folder;

static int failing_folder_sync(int fd)
{
    struct stat info;

    if (fstat(fd, &info) != 0 || !S_ISDIR(info.st_mode))
        return file_system.fsync(fd);
    if (atomic_fetch_sub(&bad_folder.countdown, 1) == 1) {
        bad_folder.inode = info.st_ino;
        errno = EIO;
        return -1;
    }
    if (info.st_ino == bad_folder.inode)
        bad_folder.was_synced = true;
    return file_system.fsync(fd);
}

static uint64_t start_unsynced_removal(struct fixture *fixture, struct file_ops *disk)
{
    struct stream *stream;
    uint64_t used;

    *disk = file_system;
    disk->fsync = failing_folder_sync;
    bad_folder.countdown = 0;
    bad_folder.inode = 0;
    bad_folder.was_synced = false;
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.disk = disk;
    fixture_open(fixture);
    stream = fixture_define(fixture, "cam-1");
    fault_write_all(fixture, stream);
    fixture_wait_sealed(fixture, stream);
    FIXTURE_TURN_UNTIL(fixture, stream->saves == NULL);
    CHECK(stream->segment_count >= 2);
    used = fixture->store->disk_used_bytes;
    bad_folder.countdown = 2; /* the first is of the history's name */
    CHECK(store_remove_segment(fixture->store, stream->segments[0]));
    FIXTURE_TURN_UNTIL(fixture, fixture->store->removal == NULL);
    CHECK(bad_folder.inode != 0);
    return used;
}

/* A power cut may bring the file back: till its folder has been synced its bytes are nobody's, and no other goes for them. */
TEST(removal_that_is_not_synced_keeps_its_bytes)
{
    struct fixture fixture;
    struct file_ops disk;
    uint64_t used = start_unsynced_removal(&fixture, &disk);
    struct stream *stream = store_find(fixture.store, "default", "cam-1");
    uint32_t segments = stream->segment_count;

    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 0), FRAME_EVICTED);
    CHECK_EQ(fixture.store->disk_used_bytes, used);
    CHECK(!store_has_disk_room(fixture.store, fixture.options.disk_bytes - used + 1, true));
    CHECK(fixture.store->removal == NULL);
    FIXTURE_TURN_UNTIL(&fixture, fixture.store->disk_used_bytes < used);
    CHECK_EQ(fixture.store->unsynced_bytes, 0);
    CHECK_EQ(stream->segment_count, segments);
    fixture_stop(&fixture);
}

/* Nor is there a receipt for what was in it. */
TEST(removal_that_is_not_synced_keeps_receipts_waiting)
{
    struct fixture fixture;
    struct file_ops disk;
    struct stream *stream;
    struct fixture_answer answer = { 0 };

    start_unsynced_removal(&fixture, &disk);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_OK(stream_forget(stream, fixture_pts(0), fixture_pts(3), fixture_done, &answer, &fixture.st),
             fixture.st);
    FIXTURE_TURN_UNTIL(&fixture, answer.came || bad_folder.was_synced);
    CHECK(bad_folder.was_synced);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    fixture_stop(&fixture);
}

/* What a process changed in a folder, and did not live to sync, the next start syncs: a power cut would bring it back. */
TEST(removal_that_was_never_synced_is_synced_by_the_next_start)
{
    struct fixture fixture;
    struct file_ops disk;

    start_unsynced_removal(&fixture, &disk);
    fixture_stop(&fixture);
    CHECK(!bad_folder.was_synced);
    fixture_open(&fixture);
    CHECK(bad_folder.was_synced);
    fixture_stop(&fixture);
}

/* The same at start, under a budget that was lowered: a person must look at the disk. */
TEST(removal_by_a_disk_that_removes_nothing_is_told_at_start)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fault_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 800);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture.options.disk_bytes = 8 << 20;
    plan_fault(FAULT_UNLINK, EIO, 1, 1 << 20);
    CHECK_OK(loop_create(&fixture.loop, &fixture.st), fixture.st);
    CHECK(!store_open(&fixture.store, fixture.loop, &fixture.options, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_PRECONDITION);
    loop_destroy(fixture.loop);
    plan_fault(FAULT_UNLINK, EIO, 1, 1); /* one file that does not go keeps no other from going */
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(fault.failed, 1);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 0), FRAME_OK);
    CHECK_EQ(history_frames(&stream->history) + stream_frame_count(stream), 800);
    fixture_stop(&fixture);
}

/* A stream whose folder could not be taken away: its bytes stay counted, nobody gets its name, and it is there again at
 * the next start. */
TEST(removal_of_a_stream_that_fails_forgets_nothing)
{
    struct stream_definition definition = { .source = "x", .kind = STREAM_LIVE, .sample_fps = 1 };
    struct fixture_answer answer = { 0 };
    struct stream_removed removed;
    struct fixture fixture;
    struct stream *stream;
    uint64_t used;

    fault_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fault_write_all(&fixture, stream);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    used = fixture.store->disk_used_bytes;
    plan_fault(FAULT_RENAME, EIO, 1, 1);
    CHECK_OK(stream_delete(stream, &removed, fixture_done, &answer, &fixture.st), fixture.st);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK(!answer.ok);
    CHECK_EQ(fixture.store->disk_used_bytes, used);
    CHECK(store_find(fixture.store, "default", "cam-1") == NULL);
    CHECK(!stream_define(fixture.store, "default", "cam-1", &definition, fixture_done, NULL, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_ABORTED); /* no list has it, so it does not "exist already" */
    CHECK_HAS(fixture.st.text, "could not be removed, and keeps its name until this store starts again");
    fixture_stop(&fixture);
    fixture_open(&fixture);
    fault_check_all(&fixture, store_find(fixture.store, "default", "cam-1"));
    fixture_stop(&fixture);
}

TEST_MAIN()
