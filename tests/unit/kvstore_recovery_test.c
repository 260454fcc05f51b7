/* Files as a crash or a bad disk leaves them: cut, flipped, swapped, in segments that were sealed and in those that
 * were not. Every frame is right, or says what became of it. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "kvstore/segment_load.h"
#include "kvstore_faulty_disk.h"

enum { FRAMES = 12 };

/* The bytes of the one segment file, and where it is. */
struct picture {
    char path[1024]; /* of the .open or .seg file */
    char json[1024];
    struct file_text segment, definition;
    struct fixture fixture; /* its options; the store is closed */
    bool is_open;
};

static void find_segment(const char *folder, const char *suffix, char path[1024])
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    CHECK(dir != NULL);
    path[0] = '\0';
    while ((entry = readdir(dir)) != NULL) {
        size_t len = strlen(entry->d_name);

        if (len > strlen(suffix) && strcmp(entry->d_name + len - strlen(suffix), suffix) == 0)
            snprintf(path, 1024, "%s/%s", folder, entry->d_name);
    }
    closedir(dir);
    CHECK(path[0] != '\0');
}

/* A store with INIT and FRAMES frames; its files as they are while it runs (.open), or after it has closed. */
static void take_picture(struct picture *picture, bool is_open)
{
    struct fixture *fixture = &picture->fixture;
    struct fixture_writer writer;
    struct stream *stream;
    char folder[600];

    memset(picture, 0, sizeof *picture);
    picture->is_open = is_open;
    fixture_start(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(fixture, stream);
    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", fixture->root, 1);
    snprintf(picture->json, sizeof picture->json, "%s/v1/default/cam-1/stream.json", fixture->root);
    if (!is_open) {
        stream_detach(stream, &writer.base);
        fixture_wait_sealed(fixture, stream);
    }
    find_segment(folder, is_open ? ".open" : ".seg", picture->path);
    CHECK_OK(file_read_all(picture->path, 64 << 20, &picture->segment, &fixture->st), fixture->st);
    CHECK_OK(file_read_all(picture->json, 64 << 20, &picture->definition, &fixture->st), fixture->st);
    if (is_open)
        stream_detach(stream, &writer.base);
    fixture_stop(fixture);
}

static void drop_picture(struct picture *picture)
{
    free(picture->segment.data);
    free(picture->definition.data);
}

static void write_file(const char *path, const char *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct status st;

    CHECK(fd >= 0);
    CHECK_OK(file_write_fully(fd, data, len, &st), st);
    close(fd);
}

/* Puts the files back as the picture shows them, with these bytes for the segment, and opens the store. */
static struct stream *restore(struct picture *picture, const char *bytes, size_t len)
{
    struct fixture *fixture = &picture->fixture;
    char folder[600];

    snprintf(folder, sizeof folder, "%s/v1/default/cam-1", fixture->root);
    CHECK_OK(file_remove_tree(folder, &fixture->st), fixture->st);
    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", fixture->root, 1);
    CHECK_OK(file_make_folders(folder, &fixture->st), fixture->st);
    write_file(picture->path, bytes, len);
    write_file(picture->json, picture->definition.data, picture->definition.len);
    fixture_open(fixture);
    return store_find(fixture->store, "default", "cam-1");
}

struct tally {
    unsigned right, quarantined, absent;
};

/* Reads everything; wrong bytes fail the test inside. */
static struct tally count_all(struct picture *picture, struct stream *stream)
{
    struct tally tally = { 0 };

    for (uint64_t seq = 0; seq < FRAMES; seq++) {
        bool is_right = true, is_quarantined = false;

        for (uint32_t layer = 0; layer <= fixture_geometry.layers; layer++) {
            enum frame_result result =
                fixture_read_layer(&picture->fixture, stream, seq,
                                   layer == fixture_geometry.layers ? (uint32_t)SLICE_THUMBNAIL : layer);

            is_right &= result == FRAME_OK;
            is_quarantined |= result == FRAME_QUARANTINED;
        }
        tally.right += is_right;
        tally.quarantined += is_quarantined;
        tally.absent += !is_right && !is_quarantined;
    }
    return tally;
}

static uint64_t record_bytes(void)
{
    struct kv_record record;
    struct kv_layout layout;

    kv_record_init_block(&record, KV_RECORD_FRAME, &fixture_geometry, FIXTURE_TOKENS);
    record.thumbnail_bytes = 4;
    kv_record_layout(&record, &layout);
    return layout.record_bytes;
}

static uint64_t init_record_bytes(void)
{
    struct kv_record record;
    struct kv_layout layout;

    kv_record_init_block(&record, KV_RECORD_INIT, &fixture_geometry, FIXTURE_INIT_TOKENS);
    kv_record_layout(&record, &layout);
    return layout.record_bytes;
}

static uint64_t frame_offset(uint64_t seq)
{
    return KV_PAGE_BYTES + init_record_bytes() + seq * record_bytes();
}

/* Killed while running: the open file is found, sealed, and all of it is there. */
TEST(recovery_of_an_open_file_finds_everything)
{
    struct picture picture;
    struct stream *stream;
    struct tally tally;

    take_picture(&picture, true);
    stream = restore(&picture, picture.segment.data, picture.segment.len);
    CHECK_EQ(stream->next_seq, FRAMES);
    CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + FRAMES * FIXTURE_TOKENS);
    CHECK(stream->init_record.layers != 0);
    tally = count_all(&picture, stream);
    CHECK_EQ(tally.right, FRAMES);
    fixture_stop(&picture.fixture);
    fixture_open(&picture.fixture); /* sealed now: read by its footer */
    stream = store_find(picture.fixture.store, "default", "cam-1");
    CHECK_EQ(stream->segments[0]->state, SEGMENT_SEALED);
    CHECK_EQ(count_all(&picture, stream).right, FRAMES);
    fixture_stop(&picture.fixture);
    drop_picture(&picture);
}

/* The last record cut at every 512 bytes, and everything before it: earlier frames stay, the torn one is not there,
 * and its number is the next. */
TEST(recovery_cuts_a_torn_tail)
{
    uint64_t start = frame_offset(FRAMES - 1), end = start + record_bytes();
    struct picture picture;

    take_picture(&picture, true);
    for (uint64_t cut = start; cut < end; cut += 512) {
        struct stream *stream = restore(&picture, picture.segment.data, cut);

        CHECK_EQ(stream->next_seq, FRAMES - 1);
        CHECK_EQ(count_all(&picture, stream).right, FRAMES - 1);
        fixture_stop(&picture.fixture);
    }
    for (uint64_t cut = 0; cut < start; cut += 1 + start / 23) {
        struct stream *stream = restore(&picture, picture.segment.data, cut);
        struct tally tally = count_all(&picture, stream);

        CHECK_EQ(tally.quarantined, 0);
        CHECK_EQ(tally.right, stream->next_seq);
        fixture_stop(&picture.fixture);
    }
    drop_picture(&picture);
}

/* What is said to be cut was written: not the rest of the file, which never was, and also when the header itself is torn. */
TEST(recovery_tells_how_much_was_torn)
{
    uint64_t at = frame_offset(FRAMES - 1);
    const struct {
        uint64_t zeros_from, zeros_to, torn_bytes;
    } cases[] = { { 0, 0, 0 },
                  { at + KV_PAGE_BYTES, frame_offset(FRAMES), record_bytes() },
                  { at, at + KV_PAGE_BYTES, record_bytes() - KV_PAGE_BYTES } };
    struct picture picture;
    struct stream *stream;
    char base[1024];

    take_picture(&picture, true);
    CHECK(picture.segment.len > frame_offset(FRAMES) + record_bytes());
    stream = restore(&picture, "", 0);
    snprintf(base, sizeof base, "%.*s", (int)(strrchr(picture.path, '.') - picture.path), picture.path);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *bytes = malloc(picture.segment.len);
        struct segment_load load;
        struct segment *segment;

        CHECK(bytes != NULL);
        memcpy(bytes, picture.segment.data, picture.segment.len);
        memset(bytes + cases[i].zeros_from, 0, cases[i].zeros_to - cases[i].zeros_from);
        write_file(picture.path, bytes, picture.segment.len);
        CHECK_OK(segment_load(stream, base, true, &segment, &load, &picture.fixture.st), picture.fixture.st);
        CHECK_EQ(load.torn_bytes, cases[i].torn_bytes);
        CHECK_EQ(load.damaged_frames, 0);
        segment_destroy(segment);
        free(bytes);
    }
    fixture_stop(&picture.fixture);
    drop_picture(&picture);
}

/* A torn record in a preallocated file: its later pages never arrived, zeros follow. */
TEST(recovery_cuts_a_tail_that_ends_in_zeros)
{
    struct picture picture;

    take_picture(&picture, true);
    for (uint64_t at = frame_offset(FRAMES - 1) + KV_PAGE_BYTES; at < frame_offset(FRAMES);
         at += KV_PAGE_BYTES) {
        char *bytes = malloc(picture.segment.len);
        struct stream *stream;

        CHECK(bytes != NULL);
        memcpy(bytes, picture.segment.data, picture.segment.len);
        memset(bytes + at, 0, picture.segment.len - at);
        stream = restore(&picture, bytes, picture.segment.len);
        CHECK_EQ(stream->next_seq, FRAMES - 1);
        CHECK_EQ(count_all(&picture, stream).right, FRAMES - 1);
        fixture_stop(&picture.fixture);
        free(bytes);
    }
    drop_picture(&picture);
}

/* Damage in the middle is told apart from a torn tail: the frames behind it are served, its own are marked. */
TEST(recovery_quarantines_damage_in_the_middle)
{
    static const uint64_t in_record[] = { 3, 40, 300, 4095, 4097, 5000, 12000 };
    struct picture picture;

    take_picture(&picture, true);
    for (size_t i = 0; i < ARRAY_LEN(in_record); i++) {
        struct stream *stream;
        struct tally tally;

        picture.segment.data[frame_offset(4) + in_record[i]] ^= 16;
        for (unsigned round = 0; round < 2; round++) { /* scanned; then by the footer that was written */
            if (round == 0)
                stream = restore(&picture, picture.segment.data, picture.segment.len);
            else
                fixture_open(&picture.fixture);
            stream = store_find(picture.fixture.store, "default", "cam-1");
            tally = count_all(&picture, stream);
            CHECK_EQ(stream->next_seq, FRAMES);
            CHECK_EQ(tally.right, FRAMES - 1);
            CHECK_EQ(tally.quarantined, 1);
            CHECK_EQ(fixture_read_layer(&picture.fixture, stream, 4, 0), FRAME_QUARANTINED);
            CHECK_EQ(stream->damaged_frames, 1);
            fixture_stop(&picture.fixture);
        }
        picture.segment.data[frame_offset(4) + in_record[i]] ^= 16;
    }
    drop_picture(&picture);
}

/* A bit of any byte, in a sealed segment and in an open one: no wrong byte is served, no frame silently missing, and
 * whatever of the frames' own bytes was hit is found. */
static void flip_everywhere(bool is_open, uint64_t step)
{
    struct picture picture;
    uint64_t flips = 0, found = 0;

    take_picture(&picture, is_open);
    for (uint64_t at = 0; at < frame_offset(FRAMES); at += step) {
        struct stream *stream;
        struct tally tally;

        picture.segment.data[at] ^= (char)(1 << at % 8);
        stream = restore(&picture, picture.segment.data, picture.segment.len);
        tally = count_all(&picture, stream);
        if (at >= frame_offset(0) && tally.right == FRAMES) /* keys are read only when a segment is scanned */
            CHECK(!is_open);
        CHECK(tally.right >= FRAMES - 1 || at < KV_PAGE_BYTES);
        found += tally.right < FRAMES;
        flips++;
        fixture_stop(&picture.fixture);
        picture.segment.data[at] ^= (char)(1 << at % 8);
    }
    CHECK(found > flips / 2);
    drop_picture(&picture);
}

TEST(recovery_serves_no_flipped_bit_of_an_open_segment)
{
    flip_everywhere(true, 1531);
}

TEST(recovery_serves_no_flipped_bit_of_a_sealed_segment)
{
    flip_everywhere(false, 1531);
}

/* A superblock that does not fit: nothing of the file can be told from anything else. It stays, its frames are not
 * served, and the stream goes on behind them. */
TEST(recovery_keeps_a_file_whose_superblock_is_damaged)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct picture picture;
        struct stream *stream;
        struct stat info;

        take_picture(&picture, is_open);
        picture.segment.data[100] ^= 1;
        stream = restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(count_all(&picture, stream).right, 0);
        CHECK_EQ(stat(picture.path, &info), 0);
        CHECK(picture.fixture.store->disk_used_bytes >= (uint64_t)info.st_blocks * 512);
        fixture_remove(&picture.fixture, stream);
        fixture_stop(&picture.fixture);
        drop_picture(&picture);
    }
}

/* The disk does not open the file now: it stays, and is served when the disk has recovered. A disk that does not even let
 * its numbers be looked up keeps the store from starting, and so from giving them again. */
TEST(recovery_removes_no_file_that_does_not_open)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct picture picture;
        struct fixture *fixture = &picture.fixture;
        struct stream *stream;

        take_picture(&picture, is_open);
        fixture->options.disk = &faulty;
        plan_fault(FAULT_OPEN, EIO, 1, 1);
        stream = restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(fault.failed, 1);
        CHECK_EQ(stream->next_seq, FRAMES);
        CHECK_EQ(count_all(&picture, stream).quarantined, FRAMES);
        fixture_stop(fixture);
        plan_fault(FAULT_OPEN, EIO, 1, 2);
        CHECK_OK(loop_create(&fixture->loop, &fixture->st), fixture->st);
        CHECK(!store_open(&fixture->store, fixture->loop, &fixture->options, &fixture->st));
        CHECK_EQ(fixture->st.code, STATUS_UNAVAILABLE);
        CHECK_HAS(fixture->st.text, picture.path);
        loop_destroy(fixture->loop);
        plan_fault(0, 0, 0, 0);
        fixture_open(fixture);
        stream = store_find(fixture->store, "default", "cam-1");
        CHECK_EQ(count_all(&picture, stream).right, FRAMES);
        fixture_remove(fixture, stream);
        fixture_stop(fixture);
        drop_picture(&picture);
    }
}

/* The stream's last file cannot be used: its numbers stay taken, whatever of it is damaged besides, and say so. */
TEST(recovery_gives_no_number_of_an_unusable_file_again)
{
    for (unsigned is_open = 0; is_open < 2; is_open++) {
        struct fixture_writer writer;
        struct picture picture;
        struct stream *stream;

        take_picture(&picture, is_open);
        picture.segment.data[100] ^= 1;
        picture.segment.data[frame_offset(4) + 20] ^= 1;
        stream = restore(&picture, picture.segment.data, picture.segment.len);
        for (unsigned round = 0; round < 2; round++) { /* alone; then with a file behind it */
            CHECK_EQ(stream->next_seq, FRAMES + round);
            CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + (FRAMES + round) * FIXTURE_TOKENS);
            CHECK_EQ(fixture_read_layer(&picture.fixture, stream, FRAMES - 1, 0), FRAME_QUARANTINED);
            fixture_attach(&picture.fixture, stream, &writer);
            fixture_append(&picture.fixture, stream, 1);
            fixture_wait_durable(&picture.fixture, stream);
            stream_detach(stream, &writer.base);
            fixture_stop(&picture.fixture);
            fixture_open(&picture.fixture);
            stream = store_find(picture.fixture.store, "default", "cam-1");
            CHECK_EQ(fixture_read_layer(&picture.fixture, stream, FRAMES + round, 0), FRAME_OK);
        }
        fixture_remove(&picture.fixture, stream);
        fixture_stop(&picture.fixture);
        drop_picture(&picture);
    }
}

/* Any part of the footer: the records are found by scanning instead. */
TEST(recovery_scans_when_the_footer_is_damaged)
{
    struct picture picture;

    take_picture(&picture, false);
    for (uint64_t at = frame_offset(FRAMES); at < picture.segment.len; at += 677) {
        struct stream *stream;

        picture.segment.data[at] ^= 4;
        stream = restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(stream->next_seq, FRAMES);
        CHECK(stream->init_record.layers != 0); /* for the next segments of its epoch */
        CHECK_EQ(count_all(&picture, stream).right, FRAMES);
        fixture_stop(&picture.fixture);
        picture.segment.data[at] ^= 4;
    }
    drop_picture(&picture);
}

/* One bad region over the last record's body and the footer behind it; then the trailer too, and then the record's header
 * instead. Nothing of a sealed file is torn: the number was given, and is not given again. */
TEST(recovery_counts_the_damaged_tail_of_a_sealed_file)
{
    struct picture picture;

    take_picture(&picture, false);
    for (unsigned round = 0; round < 3; round++) {
        struct fixture *fixture = &picture.fixture;
        uint64_t from = frame_offset(FRAMES - 1) + (round == 2 ? 0 : KV_PAGE_BYTES);
        char *bytes = malloc(picture.segment.len);
        struct fixture_writer writer;
        struct stream *stream;

        CHECK(bytes != NULL);
        memcpy(bytes, picture.segment.data, picture.segment.len);
        memset(bytes + from, 0x5a, frame_offset(FRAMES) + 200 - from);
        if (round == 1)
            memset(bytes + picture.segment.len - KV_PAGE_BYTES, 0x5a, KV_PAGE_BYTES);
        stream = restore(&picture, bytes, picture.segment.len);
        CHECK_EQ(stream->next_seq, FRAMES);
        CHECK_EQ(stream->damaged_frames, 1);
        if (round < 2)
            CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + FRAMES * FIXTURE_TOKENS);
        CHECK_EQ(count_all(&picture, stream).right, FRAMES - 1);
        CHECK_EQ(fixture_read_layer(fixture, stream, FRAMES - 1, 0), FRAME_QUARANTINED);
        fixture_attach(fixture, stream, &writer);
        fixture_append(fixture, stream, 1);
        fixture_wait_durable(fixture, stream);
        stream_detach(stream, &writer.base);
        fixture_stop(fixture);
        fixture_open(fixture);
        stream = store_find(fixture->store, "default", "cam-1");
        CHECK_EQ(stream->next_seq, FRAMES + 1);
        CHECK_EQ(stream->damaged_frames, 1);
        CHECK_EQ(fixture_read_layer(fixture, stream, FRAMES - 1, 0), FRAME_QUARANTINED);
        CHECK_EQ(fixture_read_layer(fixture, stream, FRAMES, 0), FRAME_OK);
        fixture_stop(fixture);
        free(bytes);
    }
    drop_picture(&picture);
}

/* Two records change places; a record stands where another of the same length was. */
TEST(recovery_serves_no_swapped_record)
{
    struct picture picture;

    take_picture(&picture, false);
    for (unsigned round = 0; round < 2; round++) {
        uint64_t bytes = record_bytes();
        char *changed = malloc(picture.segment.len);
        struct stream *stream;
        struct tally tally;

        CHECK(changed != NULL);
        memcpy(changed, picture.segment.data, picture.segment.len);
        memcpy(changed + frame_offset(3), picture.segment.data + frame_offset(7), bytes);
        if (round == 0)
            memcpy(changed + frame_offset(7), picture.segment.data + frame_offset(3), bytes);
        stream = restore(&picture, changed, picture.segment.len);
        tally = count_all(&picture, stream);
        CHECK_EQ(tally.right, round == 0 ? FRAMES - 2 : FRAMES - 1);
        CHECK_EQ(tally.quarantined, round == 0 ? 2 : 1);
        fixture_stop(&picture.fixture);
        free(changed);
    }
    drop_picture(&picture);
}

/* A block that is damaged in RAM alone comes from the disk. */
TEST(recovery_of_a_block_damaged_in_ram)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct index_frame *frame;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 3);
    fixture_wait_durable(&fixture, stream);
    frame = stream_find(stream, 1);
    CHECK(frame->image != NULL);
    ram_bytes(fixture.store->arena, frame->image)[frame->slices_at + 50] ^= 1;
    CHECK_EQ(fixture_read_layer(&fixture, stream, 1, 0), FRAME_OK);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 1, 1), FRAME_OK);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

TEST_MAIN()
