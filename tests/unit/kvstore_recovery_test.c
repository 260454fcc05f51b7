/* Files as a crash or a bad disk leaves them: cut, flipped, swapped, in segments that were sealed and in those that
 * were not. Every frame is right, or says what became of it. */
#include "kvstore/segment_load.h"
#include "kvstore_picture.h"

/* Killed while running: the open file is found, sealed, and all of it is there. */
TEST(recovery_of_an_open_file_finds_everything)
{
    struct picture picture;
    struct stream *stream;
    struct picture_tally tally;

    picture_take(&picture, true);
    stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
    CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
    CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + PICTURE_FRAMES * FIXTURE_TOKENS);
    CHECK(stream->init_record.layers != 0);
    tally = picture_count(&picture, stream);
    CHECK_EQ(tally.right, PICTURE_FRAMES);
    fixture_stop(&picture.fixture);
    fixture_open(&picture.fixture); /* sealed now: read by its footer */
    stream = store_find(picture.fixture.store, "default", "cam-1");
    CHECK_EQ(stream->segments[0]->state, SEGMENT_SEALED);
    CHECK_EQ(picture_count(&picture, stream).right, PICTURE_FRAMES);
    fixture_stop(&picture.fixture);
    picture_drop(&picture);
}

/* The last file holds gaps alone: the stream's last frame is that of the file before. */
TEST(recovery_knows_the_last_frame_of_a_camera_that_went_off)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 3);
    stream_detach(stream, &writer.base);
    fixture_attach(&fixture, stream, &writer);
    CHECK_OK(fixture_append_gap(stream, 2, "nobody answers there", &fixture.st), fixture.st);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->segment_count, 2);
    CHECK_EQ(stream->last_pts_ns, fixture_pts(2));
    fixture_stop(&fixture);
}

/* The last record cut at every 512 bytes, and everything before it: earlier frames stay, the torn one is not there,
 * and its number is the next. */
TEST(recovery_cuts_a_torn_tail)
{
    uint64_t start = picture_offset(PICTURE_FRAMES - 1), end = start + picture_record_bytes();
    struct picture picture;

    picture_take(&picture, true);
    for (uint64_t cut = start; cut < end; cut += 512) {
        struct stream *stream = picture_restore(&picture, picture.segment.data, cut);

        CHECK_EQ(stream->next_seq, PICTURE_FRAMES - 1);
        CHECK_EQ(picture_count(&picture, stream).right, PICTURE_FRAMES - 1);
        fixture_stop(&picture.fixture);
    }
    for (uint64_t cut = 0; cut < start; cut += 1 + start / 23) {
        struct stream *stream = picture_restore(&picture, picture.segment.data, cut);
        struct picture_tally tally = picture_count(&picture, stream);

        CHECK_EQ(tally.quarantined, 0);
        CHECK_EQ(tally.right, stream->next_seq);
        fixture_stop(&picture.fixture);
    }
    picture_drop(&picture);
}

/* The mark of a growing file says that it is synced up to there. */
static void put_mark(char *bytes, uint64_t len, uint64_t synced)
{
    struct kv_super super;
    struct status st;

    CHECK_OK(kv_super_get(&super, (const uint8_t *)bytes, &st), st);
    kv_mark_put(super.salt, synced, (uint8_t *)bytes + len - KV_PAGE_BYTES);
}

/* What is said to be cut was written: not the rest of the file, which never was, and also when the header itself is torn.
 * What had been synced is not cut: it is damage, and its number is not given again. */
TEST(recovery_tells_what_was_torn_from_what_is_damaged)
{
    uint64_t at = picture_offset(PICTURE_FRAMES - 1), end = picture_offset(PICTURE_FRAMES);
    const struct {
        uint64_t zeros_from, zeros_to, synced, torn_bytes, damaged_bytes;
    } cases[] = { { 0, 0, end, 0, 0 },
                  { at + KV_PAGE_BYTES, end, at, end - at, 0 },
                  { at, at + KV_PAGE_BYTES, at, end - at - KV_PAGE_BYTES, 0 },
                  { at + KV_PAGE_BYTES, end, end, 0, end - at },
                  { at, at + KV_PAGE_BYTES, end, 0, end - at } };
    struct picture picture;
    struct stream *stream;
    char base[1024];

    picture_take(&picture, true);
    CHECK(picture.segment.len > end + picture_record_bytes());
    stream = picture_restore(&picture, "", 0);
    snprintf(base, sizeof base, "%.*s", (int)(strrchr(picture.path, '.') - picture.path), picture.path);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *bytes = malloc(picture.segment.len);
        struct segment_load load = { .below_seq = UINT64_MAX };
        struct segment *segment;

        CHECK(bytes != NULL);
        memcpy(bytes, picture.segment.data, picture.segment.len);
        memset(bytes + cases[i].zeros_from, 0, cases[i].zeros_to - cases[i].zeros_from);
        put_mark(bytes, picture.segment.len, cases[i].synced);
        for (int sealed = 0; sealed < 2; sealed++) { /* what the scan found, its footer says too */
            if (!sealed)
                picture_write_file(picture.path, bytes, picture.segment.len);
            CHECK_OK(segment_load(stream, base, !sealed, &segment, &load, &picture.fixture.st),
                     picture.fixture.st);
            CHECK_EQ(segment->end_seq, PICTURE_FRAMES - (cases[i].torn_bytes > 0));
            CHECK_EQ(segment->index.frame_count, PICTURE_FRAMES - (cases[i].zeros_to > 0));
            CHECK_EQ(load.was_scanned, !sealed);
            CHECK_EQ(load.torn_bytes, sealed ? 0 : cases[i].torn_bytes);
            CHECK_EQ(load.damaged_bytes, sealed ? 0 : cases[i].damaged_bytes);
            CHECK_EQ(load.damaged_frames, !sealed && cases[i].damaged_bytes > 0);
            segment_destroy(segment);
        }
        free(bytes);
    }
    fixture_stop(&picture.fixture);
    picture_drop(&picture);
}

/* A torn record in a preallocated file: its later pages never arrived, zeros follow. */
TEST(recovery_cuts_a_tail_that_ends_in_zeros)
{
    struct picture picture;

    picture_take(&picture, true);
    for (uint64_t at = picture_offset(PICTURE_FRAMES - 1) + KV_PAGE_BYTES;
         at < picture_offset(PICTURE_FRAMES); at += KV_PAGE_BYTES) {
        char *bytes = malloc(picture.segment.len);
        struct stream *stream;

        CHECK(bytes != NULL);
        memcpy(bytes, picture.segment.data, picture.segment.len);
        memset(bytes + at, 0, picture.segment.len - at);
        stream = picture_restore(&picture, bytes, picture.segment.len);
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES - 1);
        CHECK_EQ(picture_count(&picture, stream).right, PICTURE_FRAMES - 1);
        fixture_stop(&picture.fixture);
        free(bytes);
    }
    picture_drop(&picture);
}

/* Damage in the middle is told apart from a torn tail: the frames behind it are served, its own are marked. */
TEST(recovery_quarantines_damage_in_the_middle)
{
    static const uint64_t in_record[] = { 3, 40, 300, 4095, 4097, 5000, 12000 };
    struct picture picture;

    picture_take(&picture, true);
    for (size_t i = 0; i < ARRAY_LEN(in_record); i++) {
        struct stream *stream;
        struct picture_tally tally;

        picture.segment.data[picture_offset(4) + in_record[i]] ^= 16;
        for (unsigned round = 0; round < 2; round++) { /* scanned; then by the footer that was written */
            if (round == 0)
                stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
            else
                fixture_open(&picture.fixture);
            stream = store_find(picture.fixture.store, "default", "cam-1");
            tally = picture_count(&picture, stream);
            CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
            CHECK_EQ(tally.right, PICTURE_FRAMES - 1);
            CHECK_EQ(tally.quarantined, 1);
            CHECK_EQ(fixture_read_layer(&picture.fixture, stream, 4, 0), FRAME_QUARANTINED);
            CHECK_EQ(stream->damaged_frames, 1);
            fixture_stop(&picture.fixture);
        }
        picture.segment.data[picture_offset(4) + in_record[i]] ^= 16;
    }
    picture_drop(&picture);
}

/* What was written and never synced may arrive in any order: without a mark that says that it was, the first hole is the
 * end, and the writer sends the rest again. */
TEST(recovery_cuts_at_a_hole_that_was_never_synced)
{
    struct picture picture;
    struct fixture_writer writer;
    struct stream *stream;

    picture_take(&picture, true);
    memset(picture.segment.data + picture.segment.len - KV_PAGE_BYTES, 0, KV_PAGE_BYTES);
    memset(picture.segment.data + picture_offset(4), 0, KV_PAGE_BYTES);
    stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
    CHECK_EQ(stream->next_seq, 4);
    CHECK_EQ(stream->damaged_frames, 0);
    fixture_attach(&picture.fixture, stream, &writer);
    fixture_append_init(&picture.fixture, stream);
    fixture_append(&picture.fixture, stream, PICTURE_FRAMES - 4);
    stream_detach(stream, &writer.base);
    CHECK_EQ(picture_count(&picture, stream).right, PICTURE_FRAMES);
    fixture_stop(&picture.fixture);
    picture_drop(&picture);
}

/* A bit of any byte, in a sealed segment and in an open one: no wrong byte is served, no frame silently missing, and
 * whatever of the frames' own bytes was hit is found. */
static void flip_everywhere(bool is_open, uint64_t step)
{
    struct picture picture;
    uint64_t flips = 0, found = 0;

    picture_take(&picture, is_open);
    for (uint64_t at = 0; at < picture_offset(PICTURE_FRAMES); at += step) {
        struct stream *stream;
        struct picture_tally tally;

        picture.segment.data[at] ^= (char)(1 << at % 8);
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        tally = picture_count(&picture, stream);
        if (at >= picture_offset(0) &&
            tally.right == PICTURE_FRAMES) /* keys are read only when a segment is scanned */
            CHECK(!is_open);
        CHECK(tally.right >= PICTURE_FRAMES - 1 || at < KV_PAGE_BYTES);
        found += tally.right < PICTURE_FRAMES;
        flips++;
        fixture_stop(&picture.fixture);
        picture.segment.data[at] ^= (char)(1 << at % 8);
    }
    CHECK(found > flips / 2);
    picture_drop(&picture);
}

TEST(recovery_serves_no_flipped_bit_of_an_open_segment)
{
    flip_everywhere(true, 1531);
}

TEST(recovery_serves_no_flipped_bit_of_a_sealed_segment)
{
    flip_everywhere(false, 1531);
}

/* Any part of the footer: what it said is found in the records instead. */
TEST(recovery_goes_by_the_records_when_the_footer_is_damaged)
{
    struct picture picture;

    picture_take(&picture, false);
    for (uint64_t at = picture_offset(PICTURE_FRAMES); at < picture.segment.len; at += 677) {
        struct stream *stream;

        picture.segment.data[at] ^= 4;
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
        CHECK(stream->init_record.layers != 0); /* for the next segments of its epoch */
        CHECK_EQ(picture_count(&picture, stream).right, PICTURE_FRAMES);
        fixture_stop(&picture.fixture);
        picture.segment.data[at] ^= 4;
    }
    picture_drop(&picture);
}

/* One bad region over the last record's body and the footer behind it; then the trailer too, and then the record's header
 * instead. Nothing of a sealed file is torn: the number was given, and is not given again. */
TEST(recovery_counts_the_damaged_tail_of_a_sealed_file)
{
    struct picture picture;

    picture_take(&picture, false);
    for (unsigned round = 0; round < 3; round++) {
        struct fixture *fixture = &picture.fixture;
        uint64_t from = picture_offset(PICTURE_FRAMES - 1) + (round == 2 ? 0 : KV_PAGE_BYTES);
        char *bytes = malloc(picture.segment.len);
        struct fixture_writer writer;
        struct stream *stream;

        CHECK(bytes != NULL);
        memcpy(bytes, picture.segment.data, picture.segment.len);
        memset(bytes + from, 0x5a, picture_offset(PICTURE_FRAMES) + 200 - from);
        if (round == 1)
            memset(bytes + picture.segment.len - KV_PAGE_BYTES, 0x5a, KV_PAGE_BYTES);
        stream = picture_restore(&picture, bytes, picture.segment.len);
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES);
        CHECK_EQ(stream->damaged_frames, 1);
        if (round < 2)
            CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + PICTURE_FRAMES * FIXTURE_TOKENS);
        CHECK_EQ(picture_count(&picture, stream).right, PICTURE_FRAMES - 1);
        CHECK_EQ(fixture_read_layer(fixture, stream, PICTURE_FRAMES - 1, 0), FRAME_QUARANTINED);
        fixture_attach(fixture, stream, &writer);
        fixture_append(fixture, stream, 1);
        fixture_wait_durable(fixture, stream);
        stream_detach(stream, &writer.base);
        fixture_stop(fixture);
        fixture_open(fixture);
        stream = store_find(fixture->store, "default", "cam-1");
        CHECK_EQ(stream->next_seq, PICTURE_FRAMES + 1);
        CHECK_EQ(stream->damaged_frames, 1);
        CHECK_EQ(fixture_read_layer(fixture, stream, PICTURE_FRAMES - 1, 0), FRAME_QUARANTINED);
        CHECK_EQ(fixture_read_layer(fixture, stream, PICTURE_FRAMES, 0), FRAME_OK);
        fixture_stop(fixture);
        free(bytes);
    }
    picture_drop(&picture);
}

/* Bytes that carry nothing were read with those before them: behind the last layer, and behind the thumbnail. */
TEST(recovery_finds_what_is_not_zero_behind_a_part)
{
    const uint64_t places[] = { picture_offset(4) - 1, picture_offset(7) + KV_PAGE_BYTES + 4 };
    struct picture picture;

    picture_take(&picture, false);
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        struct picture_tally tally;
        struct stream *stream;

        CHECK_EQ(picture.segment.data[places[i]], 0);
        picture.segment.data[places[i]] = 1;
        stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
        tally = picture_count(&picture, stream);
        CHECK_EQ(tally.right, PICTURE_FRAMES - 1);
        CHECK_EQ(tally.quarantined, 1);
        picture.segment.data[places[i]] = 0;
        fixture_stop(&picture.fixture);
    }
    picture_drop(&picture);
}

/* Two records change places; a record stands where another of the same length was. */
TEST(recovery_serves_no_swapped_record)
{
    struct picture picture;

    picture_take(&picture, false);
    for (unsigned round = 0; round < 2; round++) {
        uint64_t bytes = picture_record_bytes();
        char *changed = malloc(picture.segment.len);
        struct stream *stream;
        struct picture_tally tally;

        CHECK(changed != NULL);
        memcpy(changed, picture.segment.data, picture.segment.len);
        memcpy(changed + picture_offset(3), picture.segment.data + picture_offset(7), bytes);
        if (round == 0)
            memcpy(changed + picture_offset(7), picture.segment.data + picture_offset(3), bytes);
        stream = picture_restore(&picture, changed, picture.segment.len);
        tally = picture_count(&picture, stream);
        CHECK_EQ(tally.right, round == 0 ? PICTURE_FRAMES - 2 : PICTURE_FRAMES - 1);
        CHECK_EQ(tally.quarantined, round == 0 ? 2 : 1);
        fixture_stop(&picture.fixture);
        free(changed);
    }
    picture_drop(&picture);
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
