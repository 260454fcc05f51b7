/* Segments that are rewritten with less in them: what answers afterwards, through questions that began before, restarts and
 * damage; and that nothing is lost when the disk fails in the middle. */
#include "kvstore/segment_age.h"

#include "base/file.h"
#include "kv/kv_crc.h"
#include "kvstore_faulty_disk.h"
#include "kvstore_fixture.h"

enum { FRAMES = 60, FEW_FRAMES = 4 };

struct ageing {
    struct segment_age age;
    bool came;
};

static void aged(struct segment_age *age)
{
    container_of(age, struct ageing, age)->came = true;
}

/* A stream of so many frames, a gap of three after them, sealed. */
static struct stream *write_sealed(struct fixture *fixture, struct fixture_writer *writer, uint64_t frames)
{
    struct stream *stream = fixture_write(fixture, "cam-a", writer, frames);

    CHECK_OK(fixture_append_gap(stream, 3, "away", &fixture->st), fixture->st);
    stream_detach(stream, &writer->base);
    fixture_wait_sealed(fixture, stream);
    return stream;
}

static bool age_segment(struct fixture *fixture, struct segment *segment,
                        const struct segment_transform *transform, struct status *st)
{
    struct ageing ageing = { .age = { .segment = segment, .transform = *transform, .done = aged } };

    segment_age_submit(fixture->store, &ageing.age);
    FIXTURE_TURN_UNTIL(fixture, ageing.came);
    CHECK(!ageing.age.takes_all); /* its size was foreseen */
    *st = ageing.age.st;
    return ageing.age.ok;
}

static void age_all(struct fixture *fixture, struct stream *stream, const struct segment_transform *transform)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        CHECK_OK(age_segment(fixture, stream->segments[i], transform, &fixture->st), fixture->st);
}

static void restart(struct fixture *fixture, struct stream **stream_p)
{
    fixture_stop(fixture);
    fixture_open(fixture);
    fixture_wait_keys(fixture);
    *stream_p = store_find(fixture->store, "default", "cam-a");
    CHECK(*stream_p != NULL);
}

/* Segment files of the stream's epochs. */
static uint32_t files_of(const struct stream *stream)
{
    struct file_names epochs, files;
    uint32_t count = 0;
    char folder[PATH_MAX + 256];
    struct status st;

    CHECK_OK(file_list_on(&file_system, stream->folder, &epochs, &st), st);
    for (uint32_t i = 0; i < epochs.count; i++) {
        if (strchr(epochs.list[i], '.') != NULL)
            continue;
        snprintf(folder, sizeof folder, "%s/%s", stream->folder, epochs.list[i]);
        CHECK_OK(file_list_on(&file_system, folder, &files, &st), st);
        count += files.count;
        file_names_free(&files);
    }
    file_names_free(&epochs);
    return count;
}

static void flip(const struct segment *segment, uint64_t at)
{
    char path[PATH_MAX + 8];
    struct file_text file;
    struct status st;

    snprintf(path, sizeof path, "%s.seg", segment->base);
    CHECK_OK(file_read_all(path, 64 << 20, &file, &st), st);
    file.data[at] ^= 1;
    CHECK_OK(file_write_durable(path, file.data, file.len, &st), st);
    free(file.data);
}

static void check_counts(const struct stream *stream, uint64_t evicted)
{
    CHECK_EQ(stream->next_seq, FRAMES + 3);
    CHECK_EQ(stream->stored_frames, FRAMES - evicted);
    CHECK_EQ(stream->evicted_frames, evicted);
    CHECK_EQ(stream->gap_frames, 3);
    CHECK_EQ(stream->damaged_frames, 0);
    CHECK_EQ(files_of(stream), stream->segment_count);
}

/* One in four stays, as it was; the others answer EVICTED, the gap stays a gap; the same after a restart, and when it is
 * done again with more. */
TEST(age_thins_a_segment)
{
    const struct segment_transform quarter = { .aged = { .thin = 4 } }, eighth = { .aged = { .thin = 8 } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t next_token, bytes;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    next_token = stream->next_token_index;
    bytes = stream_disk_bytes(stream) - STORE_STREAM_DISK_BYTES;
    age_all(&fixture, stream, &quarter);
    CHECK(stream_disk_bytes(stream) - STORE_STREAM_DISK_BYTES < bytes / 2);
    for (int life = 0; life < 3; life++) {
        uint32_t thin = life < 2 ? 4 : 8;

        for (uint64_t seq = 0; seq < FRAMES; seq++)
            CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 1),
                     seq % thin == 0 ? FRAME_OK : FRAME_EVICTED);
        CHECK_EQ(fixture_read_layer(&fixture, stream, FRAMES + 1, 0), FRAME_GAP);
        check_counts(stream, FRAMES - (FRAMES + thin - 1) / thin);
        if (life == 1)
            age_all(&fixture, stream, &eighth);
        else
            restart(&fixture, &stream);
    }
    CHECK_EQ(stream->next_token_index, next_token);
    CHECK_EQ(fixture_read_block(&fixture, stream, NULL), FRAME_OK);
    fixture_stop(&fixture);
}

/* Read from the disk, from RAM, and after a restart: what was encoded, decoded. */
TEST(age_keeps_slices_in_8_bits)
{
    const struct segment_transform transform = { .aged = { .bits = 8 } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    age_all(&fixture, stream, &transform);
    for (int life = 0; life < 3; life++) {
        for (uint64_t seq = 0; seq < FRAMES; seq++)
            for (uint32_t layer = 0; layer < fixture_geometry.layers; layer++)
                CHECK_EQ(fixture_read_layer(&fixture, stream, seq, layer), FRAME_DERIVED);
        CHECK_EQ(fixture_read_layer(&fixture, stream, 7, SLICE_THUMBNAIL), FRAME_OK);
        CHECK_EQ(fixture_read_block(&fixture, stream, stream_find(stream, 7)), FRAME_EVICTED);
        check_counts(stream, 0);
        if (life == 1)
            restart(&fixture, &stream);
    }
    fixture_stop(&fixture);
}

TEST(age_keeps_keys_and_thumbnails)
{
    const struct segment_transform transform = { .aged = { .thin = 2, .bits = 8, .keys_only = true } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    age_all(&fixture, stream, &transform);
    for (int life = 0; life < 2; life++) {
        for (uint64_t seq = 0; seq < FRAMES; seq++) {
            const struct index_frame *frame = stream_find(stream, seq);

            CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0), FRAME_EVICTED);
            CHECK_EQ(frame != NULL, seq % 2 == 0);
            if (frame == NULL)
                continue;
            CHECK_EQ(fixture_read_layer(&fixture, stream, seq, SLICE_THUMBNAIL), FRAME_OK);
            for (uint32_t i = 0; i < kv_key_bytes(&fixture_geometry); i++)
                CHECK_EQ(index_frame_key(frame, 1)[i],
                         fixture_byte("cam-a", seq, kv_key_bytes(&fixture_geometry) + i));
        }
        check_counts(stream, FRAMES / 2);
        CHECK(!segment_age_is_due(stream->segments[0], &transform.aged));
        restart(&fixture, &stream);
    }
    fixture_stop(&fixture);
}

/* What lies in the range and below the number has gone, and its times with it; before and behind it all is as it was. */
TEST(age_forgets_a_range)
{
    const struct segment_transform transform = {
        .forgets = true, .from_ns = fixture_pts(10), .to_ns = fixture_pts(20), .below_seq = 18
    };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    age_all(&fixture, stream, &transform);
    for (int life = 0; life < 2; life++) {
        for (uint64_t seq = 0; seq < FRAMES; seq++)
            CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0),
                     seq >= 10 && seq < 18 ? FRAME_EVICTED : FRAME_OK);
        CHECK_EQ(stream->segments[0]->marks[0].event, KV_TOMBSTONE_FORGOTTEN);
        check_counts(stream, 8);
        restart(&fixture, &stream);
    }
    fixture_stop(&fixture);
}

/* A question's view is older than the rewriting: its frames are found where they are now, or answer EVICTED; what it holds
 * of the old index goes with it. */
TEST(age_leaves_a_view_its_frames)
{
    const struct segment_transform thinned = { .aged = { .thin = 2, .bits = 8 } };
    const struct segment_transform keys = { .aged = { .keys_only = true } };
    const struct view_stream_name name = { "default", "cam-a" };
    struct view_request request = { .streams = &name, .stream_count = 1, .from_ns = INT64_MIN };
    uint64_t index_bytes;
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    struct view *view;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    memset(request.fingerprint, 7, sizeof request.fingerprint);
    CHECK_OK(view_create(&view, fixture.store, &request, &fixture.st), fixture.st);
    CHECK_EQ(view->frames, FRAMES);
    for (int round = 0; round < 3; round++) {
        for (uint64_t seq = 0; seq < FRAMES; seq++) {
            enum stream_absence absence;
            struct index_frame *frame = view_find(view, 0, seq, &absence);
            bool is_there = round == 0 || (round == 1 && seq % 2 == 0);

            CHECK(frame != NULL);
            CHECK_EQ(fixture_read_frame(&fixture, frame, "cam-a", 2), !is_there    ? FRAME_EVICTED
                                                                      : round == 1 ? FRAME_DERIVED
                                                                                   : FRAME_OK);
        }
        age_all(&fixture, stream, round == 0 ? &thinned : &keys);
    }
    CHECK(fixture.store->index_memory.gone_bytes > 0);
    index_bytes = fixture.store->index_memory.used_bytes - fixture.store->index_memory.gone_bytes;
    view_unref(view);
    CHECK_EQ(fixture.store->index_memory.gone_bytes, 0);
    CHECK_EQ(fixture.store->index_memory.used_bytes, index_bytes);
    CHECK_OK(view_create(&view, fixture.store, &request, &fixture.st), fixture.st);
    CHECK_EQ(view->frames, FRAMES / 2); /* for scoring */
    CHECK_EQ(view->evicted_frames, FRAMES / 2);
    view_unref(view);
    request.only_readable = true;
    CHECK_OK(view_create(&view, fixture.store, &request, &fixture.st), fixture.st);
    CHECK_EQ(view->frames, 0);
    CHECK_EQ(view->evicted_frames, FRAMES);
    CHECK_EQ(view->gap_frames, 3);
    view_unref(view);
    fixture_stop(&fixture);
}

/* One byte of a frame's V is wrong in the file: the frame answers QUARANTINED from then on, restarts included. */
TEST(age_carries_damage_as_damage)
{
    const struct segment_transform transform = { .aged = { .bits = 8 } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    struct segment *segment;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    segment = stream->segments[0];
    flip(segment,
         index_part_find(&segment->index, 5)->offset + index_part_find(&segment->index, 5)->record_bytes / 2);
    age_all(&fixture, stream, &transform);
    for (int life = 0; life < 2; life++) {
        CHECK_EQ(fixture_read_layer(&fixture, stream, 4, 0), FRAME_DERIVED);
        CHECK_EQ(fixture_read_layer(&fixture, stream, 5, 0), FRAME_QUARANTINED);
        CHECK_EQ(fixture_read_layer(&fixture, stream, 6, 0), FRAME_DERIVED);
        CHECK_EQ(stream_damaged_frames(stream), 1);
        CHECK_EQ(stream->stored_frames, FRAMES - 1);
        CHECK_EQ(stream_damaged_in_range(stream, fixture_pts(5), fixture_pts(6)), 1);
        restart(&fixture, &stream);
    }
    fixture_stop(&fixture);
}

/* Counted as when a reader finds it, and once, whoever is the first. */
TEST(age_counts_the_damage_it_finds)
{
    const struct segment_transform transform = { .aged = { .bits = 8 } };

    for (unsigned found = 0; found < 2; found++) {
        struct fixture_writer writer;
        struct fixture fixture;
        struct stream *stream;
        struct index_frame *frame;

        fixture_start(&fixture);
        stream = write_sealed(&fixture, &writer, FRAMES);
        restart(&fixture, &stream); /* nothing of it is in RAM */
        frame = stream_find(stream, 5);
        flip(stream->segments[0], frame->offset + frame->slices_at);
        if (found == 1)
            CHECK_EQ(fixture_read_layer(&fixture, stream, 5, 0), FRAME_QUARANTINED);
        CHECK_EQ(fixture.store->quarantined_frames, found);
        age_all(&fixture, stream, &transform);
        CHECK_EQ(fixture.store->quarantined_frames, 1);
        CHECK_EQ(stream_damaged_frames(stream), 1);
        fixture_stop(&fixture);
        CHECK_OK(file_remove_tree_on(&file_system, fixture.root, &fixture.st), fixture.st);
    }
}

static atomic_ullong garbled_at; /* the next read from there comes back wrong; 0: none does */

static ssize_t garbling_pread(int fd, void *to, size_t len, off_t offset)
{
    unsigned long long at = (unsigned long long)offset;
    ssize_t n = file_system.pread(fd, to, len, offset);

    if (n > 0 && at != 0 && atomic_compare_exchange_strong(&garbled_at, &at, 0))
        ((uint8_t *)to)[n / 2] ^= 1;
    return n;
}

/* A cable, or a bit of memory: it is not the file, and the old one goes for ever. */
TEST(age_loses_nothing_to_one_wrong_read)
{
    const struct segment_transform transform = { .aged = { .bits = 8 } };
    struct file_ops disk = file_system;
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    disk.pread = garbling_pread;
    fixture.options.disk = &disk;
    restart(&fixture, &stream);
    garbled_at = stream_find(stream, 5)->offset;
    age_all(&fixture, stream, &transform);
    CHECK_EQ(garbled_at, 0);
    CHECK_EQ(fixture.store->quarantined_frames, 0);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 5, 0), FRAME_DERIVED);
    check_counts(stream, 0);
    fixture_stop(&fixture);
}

/* What is made of a segment is smaller: only that much of the index must be free. */
TEST(age_needs_index_room_for_what_is_kept)
{
    const struct segment_transform quarter = { .aged = { .thin = 4 } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    CHECK_EQ(stream->segments[0]->index.chunk_count, 4);
    fixture.store->index_memory.limit_bytes =
        fixture.store->index_memory.used_bytes + index_chunk_bytes(&fixture_geometry);
    age_all(&fixture, stream, &quarter);
    check_counts(stream, FRAMES - FRAMES / 4);
    CHECK(fixture.store->index_memory.used_bytes <= fixture.store->index_memory.limit_bytes);
    fixture_stop(&fixture);
}

/* The index is full: the oldest segment goes for it, as it would for the disk. */
TEST(age_that_makes_room_makes_it_in_the_index_too)
{
    struct ageing ageing = { .age = {
                                 .transform = { .aged = { .bits = 8 } }, .makes_room = true, .done = aged } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    uint64_t first;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, 4 * FRAMES);
    CHECK(stream->segment_count >= 3);
    first = stream->segments[1]->super.first_seq;
    fixture.store->index_memory.limit_bytes = fixture.store->index_memory.used_bytes;
    ageing.age.segment = stream->segments[1];
    segment_age_submit(fixture.store, &ageing.age);
    FIXTURE_TURN_UNTIL(&fixture, ageing.came);
    CHECK_OK(ageing.age.ok, ageing.age.st);
    CHECK_EQ(stream->segments[0]->super.first_seq, first);
    CHECK_EQ(fixture_read_layer(&fixture, stream, first - 1, 0), FRAME_EVICTED);
    CHECK_EQ(fixture_read_layer(&fixture, stream, first, 0), FRAME_DERIVED);
    fixture_stop(&fixture);
}

/* Each call of a rewriting fails in turn: the segment is as it was or as it was to be, and so after a restart. */
TEST(age_survives_every_failing_call)
{
    const struct segment_transform transform = { .aged = { .thin = 2 } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    bool was_hit = true;

    for (uint32_t call = 1; was_hit; call++) {
        bool ok;

        fixture_start(&fixture);
        stream = write_sealed(&fixture, &writer, FEW_FRAMES);
        fixture_stop(&fixture);
        fixture.options.disk = faulty_disk();
        fixture_open(&fixture);
        fixture_wait_keys(&fixture);
        stream = store_find(fixture.store, "default", "cam-a");
        plan_fault(FAULT_ALL, EIO, (int)call, 1);
        ok = age_segment(&fixture, stream->segments[0], &transform, &fixture.st);
        was_hit = fault.failed > 0;
        plan_fault(0, 0, 0, 0);
        CHECK(ok || was_hit);
        for (int life = 0; life < 2; life++) {
            for (uint64_t seq = 0; seq < FEW_FRAMES; seq++) {
                enum frame_result result = fixture_read_layer(&fixture, stream, seq, 0);

                CHECK(result == FRAME_OK || (result == FRAME_EVICTED && seq % 2 == 1));
                if (ok)
                    CHECK_EQ(result, seq % 2 == 0 ? FRAME_OK : FRAME_EVICTED);
            }
            CHECK_EQ(stream->stored_frames + stream->evicted_frames, FEW_FRAMES);
            restart(&fixture, &stream);
        }
        CHECK_EQ(files_of(stream), stream->segment_count);
        fixture_stop(&fixture);
        CHECK_OK(file_remove_tree_on(&file_system, fixture.root, &fixture.st), fixture.st);
    }
}

/* The stream is removed, and the store closed, while a segment is being rewritten. */
TEST(age_ends_with_its_stream_and_its_store)
{
    struct ageing ageing = { .age = { .transform = { .aged = { .thin = 2 } }, .done = aged } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FRAMES);
    ageing.age.segment = stream->segments[0];
    segment_age_submit(fixture.store, &ageing.age);
    fixture_remove(&fixture, stream);
    CHECK(ageing.came && !ageing.age.ok);
    CHECK_EQ(ageing.age.st.code, STATUS_ABORTED);
    CHECK_EQ(fixture.store->disk_used_bytes, 0);
    CHECK_EQ(fixture.store->index_memory.used_bytes, 0);
    stream = write_sealed(&fixture, &writer, FRAMES);
    ageing.came = false;
    ageing.age.segment = stream->segments[0];
    segment_age_submit(fixture.store, &ageing.age);
    fixture_stop(&fixture);
    CHECK(ageing.came);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-a");
    check_counts(stream, ageing.age.ok ? FRAMES / 2 : 0);
    for (uint64_t seq = 0; seq < FRAMES; seq++)
        CHECK_EQ(fixture_read_layer(&fixture, stream, seq, 0),
                 ageing.age.ok && seq % 2 == 1 ? FRAME_EVICTED : FRAME_OK);
    fixture_stop(&fixture);
}

/* An export takes blocks of fewer bits as they are read: what questions get layer by layer, in one piece. */
TEST(a_reduced_block_is_what_its_layers_are)
{
    const struct segment_transform transform = { .aged = { .bits = 8 } };
    struct fixture_block_read block = { .read = { .takes_reduced = true, .done = fixture_block_done } };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = write_sealed(&fixture, &writer, FEW_FRAMES);
    age_all(&fixture, stream, &transform);
    block.read.store = fixture.store;
    block.read.stream = stream;
    block.read.frame = stream_find(stream, 2);
    if (!block_read_start(&block.read))
        FIXTURE_TURN_UNTIL(&fixture, block.came);
    CHECK_EQ(block.read.result, FRAME_DERIVED);
    CHECK_EQ(kv_record_payload_bytes(&block.read.record),
             kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS));
    for (uint32_t layer = 0; layer < fixture_geometry.layers; layer++) {
        uint64_t at = payload_layer_offset(&fixture_geometry, FIXTURE_TOKENS, layer);
        struct kv_run run = kv_record_run(&block.read.record, at);
        struct fixture_read reading = { .read = { .store = fixture.store,
                                                  .frame = stream_find(stream, 2),
                                                  .layer = layer,
                                                  .done = fixture_read_done } };

        if (!slice_read_start(&reading.read))
            FIXTURE_TURN_UNTIL(&fixture, reading.came);
        CHECK_EQ(reading.read.result, FRAME_DERIVED);
        CHECK_MEM(block.read.image + run.image, reading.read.bytes, reading.read.length);
        slice_read_release(&reading.read);
    }
    CHECK_OK(kv_record_verify(&block.read.record, block.read.image, &fixture.st), fixture.st);
    block_read_release(&block.read);
    block = (struct fixture_block_read){ .read = { .store = fixture.store,
                                                   .stream = stream,
                                                   .frame = stream_find(stream, 2),
                                                   .done = fixture_block_done } };
    CHECK(block_read_start(&block.read)); /* a writer's window is only what came */
    CHECK_EQ(block.read.result, FRAME_EVICTED);
    block_read_release(&block.read);
    fixture_stop(&fixture);
}

TEST_MAIN()
