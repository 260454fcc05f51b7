/* The scrub: every sealed segment is read again, at no more than its rate; frames that no longer fit are quarantined before
 * anybody asks, everything else stays as it was; how far it came outlives the store. */
#include "kvstore_faulty_disk.h"
#include "kvstore_picture.h"

enum { FRAMES = 200 };

/* Turns the loop until the pass has ended and is saved. */
static void scrub_all(struct fixture *fixture)
{
    int64_t before_ns = fixture->store->scrub.full_ns;

    fixture_wait_keys(fixture);
    scrub_begin(fixture->store);
    FIXTURE_TURN_UNTIL(fixture,
                       fixture->store->scrub.full_ns != before_ns && fixture->store->scrub.job == NULL);
}

static struct stream *write_many(struct fixture *fixture)
{
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.scrub_bytes_per_second = 1 << 30;
    fixture_open(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, FRAMES);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    CHECK(stream->segment_count >= 3);
    return stream;
}

/* As if there never was one. */
static void forget_scrub(const struct fixture *fixture)
{
    char path[600];

    snprintf(path, sizeof path, "%s/scrub.json", fixture->root);
    CHECK_EQ(unlink(path), 0);
}

static uint64_t sealed_bytes(const struct stream *stream)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < stream->segment_count; i++) {
        struct stat info;
        char path[PATH_MAX + 8];

        snprintf(path, sizeof path, "%s.seg", stream->segments[i]->base);
        CHECK_EQ(stat(path, &info), 0);
        bytes += (uint64_t)info.st_size;
    }
    return bytes;
}

TEST(scrub_reads_every_byte_of_what_is_sealed_and_remembers_it)
{
    struct fixture fixture;
    struct stream *stream = write_many(&fixture);
    uint64_t bytes = sealed_bytes(stream);
    int64_t full_ns;

    scrub_all(&fixture);
    CHECK_EQ(fixture.store->scrub.read_bytes, bytes);
    CHECK_EQ(fixture.store->scrub.damaged, 0);
    full_ns = fixture.store->scrub.full_ns;
    CHECK(full_ns > 0 && full_ns <= clock_utc_ns());
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    CHECK_EQ(fixture.store->scrub.full_ns, full_ns);
    fixture_stop(&fixture);
}

/* One bit of a frame, then also of a column of keys. */
TEST(scrub_quarantines_what_is_damaged_and_nothing_else)
{
    struct picture picture;

    picture_take(&picture, false);
    picture.fixture.options.scrub_bytes_per_second = 1 << 30;
    for (unsigned round = 0; round < 3; round++) {
        struct stream *stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        struct fixture *fixture = &picture.fixture;
        char byte = picture.segment.data[picture_offset(4) + 5000];
        bool is_footer = round == 2;
        uint64_t at = is_footer ? picture.segment.len - KV_PAGE_BYTES - 1 : picture_offset(4) + 5000;
        int fd = open(picture.path, O_WRONLY | O_CLOEXEC);

        fixture_wait_keys(fixture);
        CHECK_EQ(picture_count(&picture, stream).right, PICTURE_FRAMES);
        CHECK(fd >= 0);
        byte = (char)(picture.segment.data[at] ^ 16);
        if (round > 0)
            CHECK_EQ(pwrite(fd, &byte, 1, (off_t)at), 1);
        close(fd);
        scrub_all(fixture);
        CHECK_EQ(fixture->store->scrub.damaged > 0, round > 0);
        CHECK_EQ(fixture->store->quarantined_frames, round == 1);
        CHECK_EQ(stream_damaged_frames(stream), round == 1);
        for (uint64_t seq = 0; seq < PICTURE_FRAMES; seq++)
            CHECK_EQ(stream_find(stream, seq)->is_quarantined, round == 1 && seq == 4);
        fixture_stop(fixture);
        forget_scrub(fixture);
    }
    picture_drop(&picture);
}

/* A gap of so many numbers that no loop gets through them. */
TEST(scrub_gets_past_a_damaged_gap_of_any_length)
{
    static const char reason[] = "the camera was away";
    const struct stream_gap gap = { .from_seq = 4,
                                    .to_seq = 1ull << 50,
                                    .from_pts_ns = fixture_pts(4),
                                    .to_pts_ns = fixture_pts(5),
                                    .reason = reason };
    struct fixture_writer writer;
    struct fixture fixture;
    struct file_text file;
    struct stream *stream;
    char path[PATH_MAX];
    char *note;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.scrub_bytes_per_second = 1 << 30;
    fixture_open(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 4);
    CHECK_OK(stream_append_gap(stream, &gap, &fixture.st), fixture.st);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    snprintf(path, sizeof path, "%.4000s.seg", stream->segments[0]->base);
    CHECK_OK(file_read_all(path, 64 << 20, &file, &fixture.st), fixture.st);
    note = memmem(file.data, file.len, reason, strlen(reason));
    CHECK(note != NULL);
    note[0] ^= 1; /* the record's; the footer has one too */
    CHECK_OK(file_write_durable(path, file.data, file.len, &fixture.st), fixture.st);
    free(file.data);
    scrub_all(&fixture);
    CHECK(fixture.store->scrub.damaged > 0);
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    fixture_check_all(&fixture, stream, 0, 4);
    fixture_stop(&fixture);
}

/* What cannot be read now is not damage. */
TEST(scrub_marks_nothing_that_the_disk_does_not_read)
{
    struct fixture fixture;
    struct stream *stream = write_many(&fixture);

    fixture_stop(&fixture);
    fixture.options.disk = faulty_disk();
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    fixture_wait_keys(&fixture);
    plan_fault(FAULT_READ, EIO, 1, 100000);
    scrub_all(&fixture);
    plan_fault(0, 0, 0, 0);
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
}

/* It has a byte a second: whoever wants the segment, or the end of the store, does not wait for that. */
TEST(scrub_makes_way)
{
    for (unsigned round = 0; round < 3; round++) {
        struct fixture fixture;
        struct stream *stream = write_many(&fixture);

        fixture_stop(&fixture);
        fixture.options.scrub_bytes_per_second = 1;
        fixture_open(&fixture);
        stream = store_find(fixture.store, "default", "cam-1");
        fixture_wait_keys(&fixture);
        scrub_begin(fixture.store);
        CHECK(fixture.store->scrub.job != NULL);
        if (round == 0) {
            fixture_remove(&fixture, stream);
        } else if (round == 1) { /* the oldest goes for others */
            struct segment *oldest = stream->segments[0];

            CHECK_EQ(oldest->reads, 1);
            while (stream->segments[0] == oldest) {
                struct segment wanted = { .stream = stream };

                CHECK(!store_reserve_disk(fixture.store, &wanted, fixture.options.disk_bytes));
                loop_run_once(fixture.loop);
            }
        }
        fixture_stop(&fixture);
        CHECK_OK(file_remove_tree(fixture.root, &fixture.st), fixture.st);
    }
}

/* Segments' files that were opened to be read: by the scrub, once keys are there. It opens each twice. */
static atomic_int opened_to_read;
static atomic_bool syncs_slowly;

static int counting_open(const char *path, int flags, mode_t mode)
{
    int fd = file_system.open(path, flags, mode);

    opened_to_read += fd >= 0 && is_segment_path(path) && (flags & O_ACCMODE) == O_RDONLY;
    return fd;
}

static int slow_fdatasync(int fd)
{
    if (atomic_exchange(&syncs_slowly, false))
        usleep(400000);
    return file_system.fdatasync(fd);
}

/* The last blocks take the disk longer than the scrub looks away: it reads nothing more meanwhile. */
TEST(scrub_begins_no_segment_while_the_store_closes)
{
    struct file_ops disk = file_system;
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    write_many(&fixture);
    fixture_stop(&fixture);
    disk.open = counting_open;
    disk.fdatasync = slow_fdatasync;
    fixture.options.disk = &disk;
    fixture.options.scrub_bytes_per_second = 2 << 20;
    fixture_open(&fixture);
    fixture_wait_keys(&fixture);
    stream = fixture_write(&fixture, "cam-2", &writer, 4);
    opened_to_read = 0;
    scrub_begin(fixture.store);
    FIXTURE_TURN_UNTIL(&fixture, opened_to_read == 2);
    syncs_slowly = true;
    fixture_append(&fixture, stream, 1);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    CHECK(!syncs_slowly);
    CHECK_EQ(opened_to_read, 2);
}

/* Half a pass goes on where it was. */
TEST(scrub_goes_on_where_the_store_ended)
{
    struct fixture fixture;
    struct stream *stream = write_many(&fixture);
    uint64_t bytes = sealed_bytes(stream);
    struct segment *first = stream->segments[0];
    struct scrub *scrub = &fixture.store->scrub;
    char text[200], path[600];
    struct stat info;

    snprintf(path, sizeof path, "%s.seg", first->base);
    CHECK_EQ(stat(path, &info), 0);
    snprintf(text, sizeof text, "{ \"full_ns\": 0, \"pass_ns\": %lld, \"cursor_ns\": %lld }",
             (long long)clock_utc_ns(), (long long)first->super.created_ns + 1);
    CHECK_EQ(scrub->pass_ns, 0);
    fixture_stop(&fixture);
    snprintf(path, sizeof path, "%s/scrub.json", fixture.root);
    CHECK_OK(file_write_durable(path, text, strlen(text), &fixture.st), fixture.st);
    fixture_open(&fixture);
    scrub_all(&fixture);
    CHECK_EQ(fixture.store->scrub.read_bytes, bytes - (uint64_t)info.st_size);
    fixture_stop(&fixture);
    CHECK_OK(file_write_durable(path, "{ \"full", 7, &fixture.st), fixture.st);
    fixture_open(&fixture); /* damaged: as none */
    scrub_all(&fixture);
    CHECK_EQ(fixture.store->scrub.read_bytes, bytes);
    fixture_stop(&fixture);
}

/* --- what it found --- */

/* One bit of K of the frame's first layer, in its file. */
static void flip_bit(const struct stream *stream, uint64_t seq)
{
    const struct index_frame *frame = stream_find(stream, seq);
    char path[PATH_MAX + 8], byte;
    off_t at = (off_t)(frame->offset + frame->slices_at + 77);
    int fd;

    snprintf(path, sizeof path, "%s.seg", frame->chunk->segment->base);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    CHECK_EQ(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static struct stream *start_again(struct fixture *fixture, uint64_t scrub_rate)
{
    fixture_stop(fixture);
    fixture->options.scrub_bytes_per_second = scrub_rate;
    fixture_open(fixture);
    fixture_wait_keys(fixture);
    return store_find(fixture->store, "default", "cam-1");
}

static void check_known(const struct fixture *fixture, const struct stream *stream, const uint64_t *damaged,
                        uint32_t count)
{
    CHECK_EQ(stream_damaged_frames(stream), count);
    for (uint64_t seq = 0; seq < FRAMES; seq++) {
        bool is_damaged = false;

        for (uint32_t i = 0; i < count; i++)
            is_damaged |= damaged[i] == seq;
        CHECK_EQ(stream_find(stream, seq)->is_quarantined, is_damaged);
    }
    CHECK_EQ(fixture->store->quarantined_frames, 0); /* since this start */
}

/* A start knew nothing of it until somebody asked, or the next day's pass. With the scrub off, too. What is right again when it
 * is read again is not held against it. */
TEST(scrub_found_it_before_the_store_was_started_again)
{
    static const uint64_t damaged[] = { 4, 5, 6, 150 }, left[] = { 4, 5, 6 };
    struct fixture fixture;
    struct stream *stream = write_many(&fixture);

    for (uint32_t i = 0; i < ARRAY_LEN(damaged); i++)
        flip_bit(stream, damaged[i]);
    scrub_all(&fixture);
    CHECK_EQ(fixture.store->quarantined_frames, ARRAY_LEN(damaged));
    CHECK_EQ(fixture.store->scrub.damages.count, 2);
    stream = start_again(&fixture, 0);
    check_known(&fixture, stream, damaged, ARRAY_LEN(damaged));
    CHECK_EQ(fixture_read_layer(&fixture, stream, 150, 0), FRAME_QUARANTINED);
    flip_bit(stream, 150);
    stream = start_again(&fixture, 1 << 30);
    scrub_all(&fixture);
    stream = start_again(&fixture, 0);
    check_known(&fixture, stream, left, ARRAY_LEN(left));
    fixture_check_all(&fixture, stream, 140, 160);
    fixture_stop(&fixture);
}

/* A segment that goes takes with it what was found in it. */
TEST(scrub_keeps_nothing_of_what_is_gone)
{
    struct fixture fixture;
    struct stream *stream = write_many(&fixture);

    flip_bit(stream, 4);
    scrub_all(&fixture);
    CHECK_EQ(fixture.store->scrub.damages.count, 1);
    CHECK(store_remove_segment(fixture.store, stream->segments[0]));
    FIXTURE_TURN_UNTIL(&fixture, fixture.store->removal == NULL);
    scrub_all(&fixture);
    CHECK_EQ(fixture.store->scrub.damages.count, 0);
    fixture_stop(&fixture);
}

/* The longest there can be is read again as it was written. */
TEST(scrub_state_of_all_it_may_know_fits_its_file)
{
    static struct scrub_state state = { INT64_MAX, INT64_MAX, INT64_MAX, { 0 } };
    static struct scrub_state read;
    struct status st;
    char *text, path[600];

    for (uint64_t i = 0; i < SCRUB_DAMAGE_MAX; i++) {
        const struct scrub_damage damage = { UINT64_MAX - i, HISTORY_NUMBER_MAX - 1, HISTORY_NUMBER_MAX,
                                             INT64_MAX };

        CHECK(scrub_damages_add(&state.damages, &damage));
    }
    CHECK(!scrub_damages_add(&state.damages, &(struct scrub_damage){ 1, 2, 3, 4 }));
    CHECK(scrub_damages_add(&state.damages, &state.damages.list[SCRUB_DAMAGE_MAX - 1]));
    text = scrub_state_text(&state);
    CHECK(text != NULL && strlen(text) <= SCRUB_STATE_BYTES_MAX);
    snprintf(path, sizeof path, "%s/scrub.json", test_folder());
    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
    free(text);
    CHECK_OK(scrub_state_read(&read, &file_system, test_folder(), &st), st);
    CHECK(read.full_ns == state.full_ns && read.pass_ns == state.pass_ns &&
          read.cursor_ns == state.cursor_ns);
    CHECK_EQ(read.damages.count, state.damages.count);
    CHECK_MEM(read.damages.list, state.damages.list, sizeof state.damages.list);
}

TEST_MAIN()
