/* Budgets hold, and what goes to keep them says so: in whatever order segments go, and wherever a crash falls, numbers go on and every
 * frame is counted once; and no more goes than must. */
#include <dirent.h>
#include <sys/stat.h>

#include "base/file.h"
#include "kvstore_fixture.h"

enum { FRAMES = 300 };

/* What the file system says everything under the folder takes. */
static uint64_t disk_usage(const char *path)
{
    struct dirent *entry;
    struct stat info;
    uint64_t bytes;
    DIR *dir;

    if (lstat(path, &info) != 0)
        return 0;
    bytes = (uint64_t)info.st_blocks * 512;
    if (!S_ISDIR(info.st_mode) || (dir = opendir(path)) == NULL)
        return bytes;
    while ((entry = readdir(dir)) != NULL) {
        char below[1024];

        if (entry->d_name[0] == '.' && (entry->d_name[1] == '\0' || entry->d_name[1] == '.'))
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        bytes += disk_usage(below);
    }
    closedir(dir);
    return bytes;
}

/* FRAMES frames in several sealed segments. */
static struct stream *start(struct fixture *fixture)
{
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    CHECK(stream->segment_count >= 3);
    return stream;
}

static struct stream *restart(struct fixture *fixture)
{
    fixture_stop(fixture);
    fixture_open(fixture);
    return store_find(fixture->store, "default", "cam-1");
}

/* Removes segments, oldest first, until no more than this is used; those that are being read stay. */
static void evict_to(struct fixture *fixture, uint64_t bytes)
{
    fixture->store->options.disk_bytes = bytes;
    CHECK_OK(store_fit_budget(fixture->store, &fixture->st), fixture->st);
}

static uint64_t counted(const struct stream *stream)
{
    return stream->stored_frames + stream->damaged_frames + history_frames(&stream->history);
}

/* Two cameras write several times the budget; looked at after every few blocks, the folder is never larger. What
 * has gone says so, what is left is right, and so it is after a restart. */
TEST(eviction_never_passes_the_disk_budget)
{
    struct fixture fixture;
    struct fixture_writer writers[2];
    struct stream *streams[2];
    uint64_t most = 0, evicted;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk_bytes = 8 << 20;
    fixture_open(&fixture);
    streams[0] = fixture_define(&fixture, "cam-0");
    streams[1] = fixture_define(&fixture, "cam-1");
    for (unsigned i = 0; i < 2; i++) {
        fixture_attach(&fixture, streams[i], &writers[i]);
        fixture_append_init(&fixture, streams[i]);
    }
    for (unsigned round = 0; round < 200; round++) {
        uint64_t now;

        fixture_append(&fixture, streams[round % 2], 8);
        now = disk_usage(fixture.root);
        if (now > most)
            most = now;
        CHECK(now <= fixture.options.disk_bytes);
        CHECK(fixture.store->disk_used_bytes <= fixture.options.disk_bytes);
    }
    CHECK(most > fixture.options.disk_bytes / 2);
    for (unsigned i = 0; i < 2; i++)
        stream_detach(streams[i], &writers[i].base);
    for (unsigned i = 0; i < 2; i++)
        fixture_wait_sealed(&fixture, streams[i]);
    for (unsigned i = 0; i < 2; i++) {
        evicted = history_frames(&streams[i]->history);
        CHECK(evicted > 100);
        CHECK_EQ(evicted + stream_frame_count(streams[i]), 800);
        CHECK_EQ(fixture_read_layer(&fixture, streams[i], 0, 1), FRAME_EVICTED);
        fixture_check_all(&fixture, streams[i], evicted, 800);
    }
    fixture_stop(&fixture);
    CHECK(disk_usage(fixture.root) <= fixture.options.disk_bytes);
    fixture_open(&fixture);
    for (unsigned i = 0; i < 2; i++) {
        struct stream *stream = store_find(fixture.store, "default", i == 0 ? "cam-0" : "cam-1");

        evicted = history_frames(&stream->history);
        CHECK_EQ(stream->next_seq, 800);
        CHECK_EQ(evicted + stream_frame_count(stream), 800);
        CHECK_EQ(fixture_read_layer(&fixture, stream, 3, 1), FRAME_EVICTED);
        fixture_check_all(&fixture, stream, evicted, 800);
    }
    fixture_stop(&fixture);
}

/* All open segments together take a quarter of the budget, however many write: within what a file must have at least and
 * may have at most. */
TEST(eviction_segments_are_as_large_as_budget_and_writers_allow)
{
    enum { WRITERS = 4 };
    struct fixture_writer writers[WRITERS];
    struct stream *streams[WRITERS];
    struct fixture fixture;
    char name[16];

    fixture_start(&fixture);
    fixture.store->options.segment_bytes_max = 1 << 30;
    for (unsigned i = 0; i < WRITERS; i++) {
        uint64_t share = fixture.options.disk_bytes / 4 / (i + 1);

        snprintf(name, sizeof name, "cam-%u", i);
        streams[i] = fixture_define(&fixture, name);
        fixture_attach(&fixture, streams[i], &writers[i]);
        fixture_append(&fixture, streams[i], 1);
        CHECK_EQ(store_segment_bytes(fixture.store), share);
        CHECK_EQ(streams[i]->segments[0]->capacity, share / KV_PAGE_BYTES * KV_PAGE_BYTES);
    }
    fixture.store->options.segment_bytes_max = 2 << 20;
    CHECK_EQ(store_segment_bytes(fixture.store), 2 << 20);
    fixture.store->options.disk_bytes = 8 << 20;
    CHECK_EQ(store_segment_bytes(fixture.store), 1 << 20);
    fixture.store->options = fixture.options;
    for (unsigned i = 0; i < WRITERS; i++) {
        fixture_wait_durable(&fixture, streams[i]);
        stream_detach(streams[i], &writers[i].base);
        fixture_wait_sealed(&fixture, streams[i]);
    }
    CHECK(disk_usage(fixture.root) < 2 << 20); /* sealed, they give back what they did not fill */
    fixture_stop(&fixture);
}

/* A camera that is off from the start tells gaps only; the room of frames is not taken before there are any. */
TEST(a_camera_that_never_connected_takes_the_disk_of_its_gaps)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    uint64_t empty;

    fixture_start(&fixture);
    fixture.store->options.segment_bytes_max = 16 << 20;
    stream = fixture_define(&fixture, "gate");
    empty = fixture.store->disk_used_bytes;
    fixture_attach(&fixture, stream, &writer);
    fixture_append_init(&fixture, stream);
    for (uint64_t seq = 0; seq < 100; seq++) {
        CHECK_OK(fixture_append_gap(stream, 1, "nobody answers there", &fixture.st), fixture.st);
        fixture_wait_durable(&fixture, stream);
        CHECK(fixture.store->disk_used_bytes - empty < 4 << 20); /* the gaps themselves: 400 KiB */
    }
    CHECK(stream->segment_count > 1);
    fixture_append(&fixture, stream, 80); /* more than the last segment of gaps has room for */
    fixture_wait_durable(&fixture, stream);
    CHECK(fixture.store->disk_used_bytes - empty >= 16 << 20);
    CHECK_EQ(stream->gap_frames, 100);
    fixture_check_all(&fixture, stream, 100, 180);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* The disk budget was lowered: the next start removes the oldest until it fits. */
TEST(eviction_fits_a_lowered_budget_at_start)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 1000);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    CHECK(disk_usage(fixture.root) > 8 << 20);
    fixture.options.disk_bytes = 8 << 20;
    fixture_open(&fixture);
    CHECK(disk_usage(fixture.root) <= 8 << 20);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 0), FRAME_EVICTED);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 999, 0), FRAME_OK);
    fixture_stop(&fixture);
}

/* The oldest segment is being read, so that the later ones go before it. */
TEST(eviction_out_of_order_keeps_the_numbers)
{
    struct fixture fixture;
    struct stream *stream = start(&fixture);

    stream->segments[0]->reads++;
    evict_to(&fixture, STORE_STREAM_DISK_BYTES + stream->segments[0]->disk_bytes);
    CHECK_EQ(stream->segment_count, 1);
    fixture_check_all(&fixture, stream, 0, 10);
    CHECK_EQ(fixture_read_layer(&fixture, stream, FRAMES - 1, 0), FRAME_EVICTED);
    stream->segments[0]->reads--;
    evict_to(&fixture, STORE_STREAM_DISK_BYTES);
    for (unsigned round = 0; round < 2; round++) {
        CHECK_EQ(stream->segment_count, 0);
        CHECK_EQ(stream->next_seq, FRAMES);
        CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + FRAMES * FIXTURE_TOKENS);
        CHECK_EQ(stream->history.count, 1);
        CHECK_EQ(history_frames(&stream->history), FRAMES);
        stream = restart(&fixture);
    }
    fixture_stop(&fixture);
}

/* Killed when the history was written and the file not yet removed: the file is there, so its frames are. */
TEST(eviction_cut_short_by_a_kill_counts_nothing_twice)
{
    struct fixture fixture;
    struct stream *stream = start(&fixture);
    struct file_text file;
    uint64_t first_frames = stream->segments[0]->index.frame_count;
    char path[PATH_MAX + 8];

    snprintf(path, sizeof path, "%s.seg", stream->segments[0]->base);
    CHECK_OK(file_read_all(path, 64 << 20, &file, &fixture.st), fixture.st);
    evict_to(&fixture, fixture.store->disk_used_bytes - 1);
    CHECK_EQ(history_frames(&stream->history), first_frames);
    fixture_stop(&fixture);
    CHECK_OK(file_write_durable(path, file.data, file.len, &fixture.st), fixture.st);
    free(file.data);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(counted(stream), FRAMES);
    CHECK_EQ(history_frames(&stream->history), 0);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    evict_to(&fixture, fixture.store->disk_used_bytes - 1);
    CHECK_EQ(history_frames(&stream->history), first_frames);
    CHECK_EQ(counted(stream), FRAMES);
    fixture_stop(&fixture);
}

static void flip(const char *path, uint64_t at, uint64_t from_end)
{
    struct status st;
    struct file_text file;

    CHECK_OK(file_read_all(path, 64 << 20, &file, &st), st);
    file.data[at] ^= 1;
    file.data[file.len - from_end] ^= 1;
    CHECK_OK(file_write_durable(path, file.data, file.len, &st), st);
    free(file.data);
}

/* A frame that could not be read any more goes with its segment, and is counted there. */
TEST(eviction_of_damaged_frames_counts_them_once)
{
    struct fixture fixture;
    struct stream *stream = start(&fixture);
    const struct index_frame *frame = stream_find(stream, 4);
    uint64_t at = frame->offset + frame->slices_at + 100;
    char path[PATH_MAX + 8];

    snprintf(path, sizeof path, "%s.seg", stream->segments[0]->base);
    fixture_stop(&fixture);
    flip(path, at, 10); /* the trailer, too: the file is scanned */
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->damaged_frames, 1);
    CHECK_EQ(counted(stream), FRAMES);
    evict_to(&fixture, fixture.store->disk_used_bytes - 1);
    CHECK_EQ(stream->damaged_frames, 0);
    CHECK_EQ(counted(stream), FRAMES);
    fixture_stop(&fixture);
}

/* A question that comes while a file is being removed chooses among what it can read, and is told of the rest. */
TEST(eviction_under_way_hides_the_segment_from_new_questions)
{
    struct fixture fixture;
    struct stream *stream = start(&fixture);
    struct segment *first = stream->segments[0];
    const struct view_stream_name name = { "default", "cam-1" };
    struct view_request request = { .streams = &name, .stream_count = 1, .from_ns = INT64_MIN };
    enum stream_absence absence;
    struct view *view;

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    first->is_leaving = true;
    CHECK_OK(view_create(&view, fixture.store, &request, &fixture.st), fixture.st);
    CHECK_EQ(view->evicted_frames, first->index.frame_count);
    CHECK_EQ(view->frames, FRAMES - first->index.frame_count);
    CHECK_EQ(view->first_pts_ns, fixture_pts(first->index.frame_count));
    CHECK(view_find(view, 0, 0, &absence) == NULL);
    CHECK_EQ(absence, STREAM_ABSENT_EVICTED);
    CHECK(view_find(view, 0, FRAMES - 1, &absence) != NULL);
    view_unref(view);
    first->is_leaving = false; /* its file could not be removed */
    CHECK_OK(view_create(&view, fixture.store, &request, &fixture.st), fixture.st);
    CHECK_EQ(view->frames, FRAMES);
    CHECK(view_find(view, 0, 0, &absence) != NULL);
    view_unref(view);
    fixture_stop(&fixture);
}

/* A question holds what it sees of the index: segments that go for a writer give no memory back before it ends. One
 * goes, and the writer waits; it must not take all of them. */
TEST(eviction_for_the_index_waits_for_questions)
{
    struct fixture fixture;
    struct stream *stream = start(&fixture);
    const struct view_stream_name name = { "default", "cam-1" };
    struct view_request request = { .streams = &name, .stream_count = 1, .from_ns = INT64_MIN };
    uint32_t before = stream->segment_count, refused = 0;
    struct fixture_writer writer;
    struct view *view;

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    fixture_attach(&fixture, stream, &writer);
    CHECK_OK(view_create(&view, fixture.store, &request, &fixture.st), fixture.st);
    fixture.store->index_memory.limit_bytes = fixture.store->index_memory.used_bytes;
    for (unsigned i = 0; i < 20; i++) {
        struct stream_block block = fixture_block(stream, stream->next_seq);

        refused += !fixture_append_block(&fixture, stream, &block, &fixture.st);
        CHECK_EQ(fixture.st.code, STATUS_EXHAUSTED);
        FIXTURE_TURN_UNTIL(&fixture, fixture.store->removal == NULL);
    }
    CHECK_EQ(refused, 20);
    CHECK(stream->segment_count >= before); /* one went; the writer's new one came */
    view_unref(view);
    fixture_append(&fixture, stream, 1);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Gaps and their reasons take memory too: they count in the index's part, wait for room there, and give it back. */
TEST(eviction_makes_room_in_the_index_for_gaps)
{
    struct fixture fixture;
    struct stream *stream = start(&fixture);
    struct index_memory *memory = &fixture.store->index_memory;
    uint64_t before = memory->used_bytes;
    struct fixture_writer writer;
    char reason[1001];

    memset(reason, 'x', sizeof reason - 1);
    reason[sizeof reason - 1] = '\0';
    fixture_attach(&fixture, stream, &writer);
    CHECK_OK(fixture_append_gap(stream, 1, reason, &fixture.st), fixture.st);
    CHECK_EQ(memory->used_bytes - before, segment_mark_bytes(1000));
    memory->limit_bytes = memory->used_bytes;
    CHECK(!fixture_append_gap(stream, 1, "another", &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_EXHAUSTED);
    FIXTURE_TURN_UNTIL(&fixture, fixture.store->removal == NULL);
    CHECK_OK(fixture_append_gap(stream, 1, "another", &fixture.st), fixture.st);
    CHECK(history_frames(&stream->history) > 0);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    before = memory->used_bytes;
    stream = restart(&fixture);
    memory = &fixture.store->index_memory;
    CHECK_EQ(memory->used_bytes, before);
    fixture_remove(&fixture, stream);
    CHECK_EQ(memory->used_bytes, 0);
    fixture_stop(&fixture);
}

/* Gaps of reasons that keep them apart, until the index takes so much. */
static void append_gaps(struct fixture *fixture, struct stream *stream, uint64_t index_bytes)
{
    const struct index_memory *memory = &fixture->store->index_memory;
    char reasons[2][1001];

    for (unsigned i = 0; i < 2; i++) {
        memset(reasons[i], i == 0 ? 'x' : 'y', sizeof reasons[i] - 1);
        reasons[i][sizeof reasons[i] - 1] = '\0';
    }
    while (memory->used_bytes < index_bytes) {
        if (stream->next_seq % 100 == 0)
            fixture_wait_durable(fixture, stream);
        CHECK_OK(fixture_append_gap(stream, 1, reasons[stream->next_seq % 2], &fixture->st), fixture->st);
    }
}

/* The index is full to the last byte when a frame is found damaged at start: its mark takes the place of the oldest
 * segment. A memory budget that was lowered is refused: nobody asked for anything to go. */
TEST(eviction_makes_room_in_the_index_for_damage)
{
    struct fixture_writer writer;
    const struct index_frame *frame;
    struct fixture fixture;
    struct stream *stream;
    char path[PATH_MAX + 8];
    uint64_t used, at, end_seq;

    fixture_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &writer);
    append_gaps(&fixture, stream, fixture.options.ram_bytes / 8 + (64 << 10));
    fixture_append(&fixture, stream, 3);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    end_seq = stream->next_seq;
    used = fixture.store->index_memory.used_bytes;
    frame = stream_find(stream, end_seq - 2);
    at = frame->offset + frame->slices_at + 100;
    snprintf(path, sizeof path, "%s.seg", frame->chunk->segment->base);
    fixture_stop(&fixture);
    flip(path, at, 10);
    fixture.options.ram_bytes = fixture.options.ram_bytes / 2;
    CHECK_OK(loop_create(&fixture.loop, &fixture.st), fixture.st);
    CHECK(!store_open(&fixture.store, fixture.loop, &fixture.options, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_PRECONDITION);
    CHECK_HAS(fixture.st.text, "ram_budget_bytes");
    loop_destroy(fixture.loop);
    fixture.options.ram_bytes = 4 * used;
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK(fixture.store->index_memory.used_bytes <= used);
    CHECK_EQ(stream->next_seq, end_seq);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 0, 0), FRAME_GAP);
    CHECK_EQ(fixture_read_layer(&fixture, stream, end_seq - 2, 0), FRAME_QUARANTINED);
    CHECK_EQ(fixture_read_layer(&fixture, stream, end_seq - 1, 0), FRAME_OK);
    fixture_stop(&fixture);
}

TEST_MAIN()
