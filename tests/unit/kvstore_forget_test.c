/* What was forgotten is nowhere: no answer, no file and no memory of the store has it, and everything else is as it was. */
#include <dirent.h>

#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

#include "base/file.h"
#include "kvstore_faulty_disk.h"
#include "kvstore_picture.h"

enum { FRAMES = 120, SAMPLE_BYTES = 160 };

static struct status st;

/* The beginnings of a frame's keys, and of K and V of a layer: no other of the frames here has bytes like them. */
struct sample {
    size_t len; /* of each */
    uint8_t bytes[3][SAMPLE_BYTES];
};

static void take_sample(struct sample *sample, const char *name, uint64_t seq)
{
    uint64_t layer = payload_layer_offset(&fixture_geometry, FIXTURE_TOKENS, 1);
    uint64_t at[3] = { 0, layer, layer + kv_slice_bytes(&fixture_geometry, FIXTURE_TOKENS) };

    sample->len = SAMPLE_BYTES;
    for (unsigned i = 0; i < 3; i++)
        for (unsigned b = 0; b < SAMPLE_BYTES; b++)
            sample->bytes[i][b] = fixture_byte(name, seq, at[i] + b);
}

static bool is_in(const struct sample *sample, const void *bytes, size_t len)
{
    for (unsigned i = 0; i < 3; i++)
        if (memmem(bytes, len, sample->bytes[i], sample->len) != NULL)
            return true;
    return false;
}

static bool is_in_files(const struct sample *sample, const char *folder)
{
    struct dirent *entry;
    DIR *dir = opendir(folder);
    bool is_found = false;
    char path[1200];

    CHECK(dir != NULL);
    while (!is_found && (entry = readdir(dir)) != NULL) {
        struct file_text text;

        if (entry->d_name[0] == '.')
            continue;
        CHECK(snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path);
        if (entry->d_type == DT_DIR) {
            is_found = is_in_files(sample, path);
        } else if (entry->d_type == DT_REG && file_read_all(path, 64 << 20, &text, &st)) {
            is_found = is_in(sample, text.data, text.len);
            free(text.data);
        }
    }
    closedir(dir);
    return is_found;
}

static bool is_in_memory(const struct fixture *fixture, const struct sample *sample)
{
    const struct kv_pool *pool = ram_arena_pool(fixture->store->arena);

    return is_in(sample, kv_pool_base(pool), kv_pool_bytes(pool));
}

static void check_nowhere(struct fixture *fixture, struct stream *stream, uint64_t from, uint64_t to)
{
    struct sample sample;

    for (uint64_t seq = from; seq < to; seq++) {
        CHECK_EQ(fixture_read_layer(fixture, stream, seq, 0), FRAME_EVICTED);
        CHECK_EQ(fixture_read_layer(fixture, stream, seq, SLICE_THUMBNAIL), FRAME_EVICTED);
    }
    for (uint64_t seq = from; seq < to; seq += 3) {
        take_sample(&sample, stream->name, seq);
        CHECK(!is_in_files(&sample, fixture->root));
        CHECK(!is_in_memory(fixture, &sample));
    }
}

static struct fixture_answer answer;

static void ask(struct stream *stream, uint64_t from, uint64_t to)
{
    answer = (struct fixture_answer){ 0 };
    CHECK_OK(stream_forget(stream, fixture_pts(from), fixture_pts(to), fixture_done, &answer, &st), st);
}

static void forget(struct fixture *fixture, struct stream *stream, uint64_t from, uint64_t to)
{
    ask(stream, from, to);
    FIXTURE_TURN_UNTIL(fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
}

/* Much longer than what was asked takes, when nothing keeps it. */
static void turn_for_a_while(struct fixture *fixture)
{
    struct loop_timer tick = { 0 };

    for (unsigned i = 0; i < 50; i++) {
        loop_timer_start(fixture->loop, &tick, 5, fixture_tick);
        loop_run_once(fixture->loop);
    }
    loop_timer_stop(&tick);
}

/* While its writer writes on; from RAM, from sealed files, from the one that is being written. */
TEST(what_was_forgotten_is_nowhere)
{
    const struct forget_receipt *receipt;
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    struct sample sample;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, FRAMES);
    fixture_wait_durable(&fixture, stream);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    take_sample(&sample, "cam-1", 40);
    CHECK(is_in_files(&sample, fixture.root));
    index_frame_drop_copies(stream_find(stream, 40), fixture.store->arena); /* as eviction does */
    CHECK(is_in_memory(&fixture, &sample));
    forget(&fixture, stream, 30, 90);
    receipt = stream_receipt_at(stream, 0);
    CHECK_EQ(receipt->frames, 60);
    CHECK(receipt->bytes > 60 * kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS));
    CHECK_EQ(receipt->files, stream->segment_count);
    CHECK(receipt->done_ns >= receipt->asked_ns);
    check_nowhere(&fixture, stream, 30, 90);
    fixture_append(&fixture, stream, 5);
    fixture_wait_durable(&fixture, stream);
    fixture_check_all(&fixture, stream, 0, 30);
    fixture_check_all(&fixture, stream, 90, FRAMES + 5);
    CHECK_EQ(stream_damaged_frames(stream), 0);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    check_nowhere(&fixture, stream, 30, 90);
    fixture_check_all(&fixture, stream, 0, 30);
    fixture_check_all(&fixture, stream, 90, FRAMES + 5);
    CHECK_EQ(stream->next_seq, FRAMES + 5);
    CHECK_EQ(stream_damaged_frames(stream), 0);
    CHECK_EQ(stream_receipt_at(stream, 0)->frames, 60); /* asked for again */
    CHECK(stream_receipt_at(stream, 1) == NULL);
    fixture_stop(&fixture);
}

/* Answers stop at once; a reader that has a block keeps it, and the receipt waits until it has let go. */
TEST(a_receipt_waits_for_those_who_read)
{
    struct fixture_block_read reading;
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 20);
    fixture_wait_durable(&fixture, stream);
    reading = (struct fixture_block_read){ .read = { .store = fixture.store,
                                                     .stream = stream,
                                                     .frame = stream_find(stream, 7),
                                                     .done = fixture_block_done } };
    if (!block_read_start(&reading.read))
        FIXTURE_TURN_UNTIL(&fixture, reading.came);
    CHECK_EQ(reading.read.result, FRAME_OK);
    ask(stream, 5, 10);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 7, 0), FRAME_EVICTED);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 4, 0), FRAME_OK);
    CHECK(!stream_forget(stream, 0, 1, fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_ABORTED);
    turn_for_a_while(&fixture);
    CHECK(!answer.came);
    block_read_release(&reading.read);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    check_nowhere(&fixture, stream, 5, 10);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Words go too: why there was a gap, and how it ended. */
TEST(gaps_and_ends_lose_their_words)
{
    static const char reason[] = "the neighbour stood before the lens";
    struct sample words = { .len = sizeof reason - 1 };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 10);
    CHECK_OK(fixture_append_gap(stream, 5, reason, &st), st);
    fixture_append(&fixture, stream, 10);
    fixture_wait_durable(&fixture, stream);
    for (unsigned i = 0; i < 3; i++)
        memcpy(words.bytes[i], reason, words.len);
    CHECK(is_in_files(&words, fixture.root));
    forget(&fixture, stream, 8, 18);
    CHECK(!is_in_files(&words, fixture.root));
    check_nowhere(&fixture, stream, 8, 10);
    CHECK_EQ(stream_absence_of(stream, 12), STREAM_ABSENT_EVICTED);
    fixture_check_all(&fixture, stream, 0, 8);
    fixture_check_all(&fixture, stream, 18, 25);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

TEST(what_is_held_is_not_forgotten)
{
    struct stream_hold hold = {
        .from_ns = fixture_pts(3), .to_ns = fixture_pts(4), .owner = "police", .reason = "case 17"
    };
    struct fixture_answer held = { 0 };
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 10);
    CHECK_OK(stream_hold_add(stream, &hold, fixture_done, &held, &st), st);
    FIXTURE_TURN_UNTIL(&fixture, held.came);
    CHECK(!stream_forget(stream, fixture_pts(1), fixture_pts(9), fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_PRECONDITION);
    CHECK_HAS(st.text, "police (case 17)");
    CHECK(!stream_forget(stream, fixture_pts(5), fixture_pts(5), fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    forget(&fixture, stream, 4, 9);
    fixture_check_all(&fixture, stream, 0, 4);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* The file breaks while it is sealed for that, and what it had is written again: what is to go went unseen then. */
TEST(what_is_written_again_meanwhile_is_forgotten_too)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk = faulty_disk();
    fixture.options.commit_ms = 60000;
    plan_fault(0, 0, 0, 0);
    fixture_open(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 5);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    fixture_append(&fixture, stream, 15);
    plan_fault(FAULT_SYNC, EIO, 1, 1);
    forget(&fixture, stream, 8, 12);
    CHECK_EQ(fault.failed, 1);
    check_nowhere(&fixture, stream, 8, 12);
    fixture_check_all(&fixture, stream, 0, 8);
    fixture_check_all(&fixture, stream, 12, 20);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* A file that failed is cut by the start that seals it. One that could not seal it gave a receipt all the same. */
TEST(what_a_file_has_behind_its_end_is_forgotten_too)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fault_start(&fixture);
    fixture.store->options.commit_ms = 60000;
    stream = fixture_write(&fixture, "cam-1", &writer, 5);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    fixture_append(&fixture, stream, 15);
    plan_fault(FAULT_SYNC, EIO, 1, 1);
    stream_commit(stream);
    FIXTURE_TURN_UNTIL(&fixture, stream->segments[0]->state == SEGMENT_FAILED);
    stream_commit(stream);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    plan_fault(FAULT_CUT, EIO, 1, 1);
    fixture_open(&fixture);
    CHECK_EQ(fault.failed, 1);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->segments[0]->state, SEGMENT_FAILED);
    forget(&fixture, stream, 15, 20);
    check_nowhere(&fixture, stream, 15, 20);
    fixture_check_all(&fixture, stream, 0, 15);
    fixture_stop(&fixture);
}

/* The last record of a file that grew is not what was synced. When it was seen nobody knows, but that it was the last. */
TEST(damage_at_the_end_of_a_file_is_forgotten_too)
{
    struct sample sample;
    struct picture picture;
    struct stream *stream;

    picture_take(&picture, true);
    picture.segment.data[picture_offset(PICTURE_FRAMES) - 2000] ^= 1;
    stream = picture_restore(&picture, picture.segment.data, picture.segment.len);
    CHECK_EQ(stream->damaged_frames, 1);
    take_sample(&sample, stream->name, PICTURE_FRAMES - 1);
    CHECK(is_in_files(&sample, picture.fixture.root));
    forget(&picture.fixture, stream, PICTURE_FRAMES - 1, PICTURE_FRAMES);
    CHECK(!is_in_files(&sample, picture.fixture.root));
    fixture_check_all(&picture.fixture, stream, 0, PICTURE_FRAMES - 1);
    fixture_stop(&picture.fixture);
    picture_drop(&picture);
}

/* Only the one file there is, and for a moment no room for what it is to become: it went as a whole, though nothing was held
 * and the budget had room. */
TEST(what_stands_beside_it_stays_when_the_disk_is_full_for_a_moment)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fault_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 20);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    CHECK_EQ(stream->segment_count, 1);
    plan_fault(FAULT_WRITE, ENOSPC, 1, 1);
    forget(&fixture, stream, 8, 12);
    CHECK_EQ(fault.failed, 1);
    check_nowhere(&fixture, stream, 8, 12);
    fixture_check_all(&fixture, stream, 0, 8);
    fixture_check_all(&fixture, stream, 12, 20);
    fixture_stop(&fixture);
}

/* It was taken too when it was in a file with what goes: the rewriting knew times alone. */
TEST(what_comes_after_it_was_asked_stays)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 20);
    ask(stream, 8, 40);
    fixture_append(&fixture, stream, 30);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    CHECK_EQ(stream_receipt_at(stream, 0)->frames, 12);
    fixture_wait_durable(&fixture, stream);
    check_nowhere(&fixture, stream, 8, 20);
    fixture_check_all(&fixture, stream, 0, 8);
    fixture_check_all(&fixture, stream, 20, 50);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

static bool has_intent(const struct fixture *fixture)
{
    char path[600];
    struct file_text text;
    bool has_it;

    snprintf(path, sizeof path, "%s/v1/default/cam-1/forget.json", fixture->root);
    if (!file_read_all(path, 1 << 20, &text, &st))
        return false;
    has_it = memmem(text.data, text.len, "done_ns", 7) != NULL;
    free(text.data);
    return has_it;
}

/* A kill with the intent on the disk and the frames in RAM alone: their writer sent them again, and they were stored. */
TEST(an_intent_waits_until_what_it_counts_is_durable)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fault_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 5);
    fixture_wait_durable(&fixture, stream);
    plan_fault(FAULT_WRITE | FAULT_OPEN | FAULT_SYNC, EIO, 1, 1 << 30);
    fixture_append(&fixture, stream, 15);
    ask(stream, 8, 12);
    turn_for_a_while(&fixture);
    CHECK(stream_durable_seq(stream) < 20 && !answer.came && !has_intent(&fixture));
    CHECK_EQ(fixture_read_layer(&fixture, stream, 9, 0), FRAME_EVICTED);
    plan_fault(0, 0, 0, 0);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    check_nowhere(&fixture, stream, 8, 12);
    fixture_check_all(&fixture, stream, 12, 20);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

static atomic_int failing_folder_syncs;

static int failing_fsync(int fd)
{
    struct stat info;

    if (file_system.fstat(fd, &info) == 0 && S_ISDIR(info.st_mode) &&
        atomic_fetch_sub(&failing_folder_syncs, 1) > 0) {
        errno = EIO;
        return -1;
    }
    return file_system.fsync(fd);
}

/* It may be on the disk: the next start carried out what was said to have failed. */
TEST(an_intent_that_failed_is_taken_back)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    struct file_ops disk = file_system;

    disk.fsync = failing_fsync;
    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk = &disk;
    fixture_open(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 20);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    for (unsigned i = 0; i <= FORGET_RECEIPTS_MAX; i++)
        forget(&fixture, stream, 0, 1);
    failing_folder_syncs = 1;
    ask(stream, 8, 12);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK(!answer.ok);
    CHECK(!stream_forget(stream, fixture_pts(8), fixture_pts(12), fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_ABORTED); /* until that is known to be over */
    FIXTURE_TURN_UNTIL(&fixture, !stream_is_being_forgotten(stream, fixture_pts(8), fixture_pts(12)));
    CHECK_EQ(stream_receipt_at(stream, 0)->number, 2); /* the oldest is there still */
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream_receipt_at(stream, 0)->number, 2);
    turn_for_a_while(&fixture);
    fixture_check_all(&fixture, stream, 1, 20);
    fixture_stop(&fixture);
}

/* A start could not read a file. A receipt was given for what the next start had again. */
TEST(nothing_is_forgotten_while_a_file_cannot_be_used)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 60);
    fixture_wait_durable(&fixture, stream);
    ask(stream, 10, 50);
    FIXTURE_TURN_UNTIL(&fixture, stream->saves == NULL); /* the intent is durable */
    status_fail(&st, STATUS_UNAVAILABLE, "it stops");
    stream_forget_leave(stream, &st);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture.options.disk = faulty_disk();
    plan_fault(FAULT_READ, EIO, 1, 1);
    fixture_open(&fixture);
    CHECK_EQ(fault.failed, 1);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK(!stream_forget(stream, fixture_pts(0), fixture_pts(5), fixture_done, &answer, &st));
    CHECK_EQ(st.code, STATUS_PRECONDITION);
    CHECK_HAS(st.text, "the store could not use 00000000000000000001/00000000000000000000-");
    turn_for_a_while(&fixture);
    CHECK_EQ(stream_receipt_at(stream, 0)->done_ns, 0);
    fixture_stop(&fixture);
    plan_fault(0, 0, 0, 0);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    FIXTURE_TURN_UNTIL(&fixture, stream_receipt_at(stream, 0)->done_ns != 0 && stream->saves == NULL);
    check_nowhere(&fixture, stream, 10, 50);
    fixture_check_all(&fixture, stream, 0, 10);
    fixture_check_all(&fixture, stream, 50, 60);
    fixture_stop(&fixture);
}

/* The stream goes meanwhile, or the store does: whoever waits hears of it, and the next start carries on. */
TEST(what_was_begun_is_carried_on)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct stream *stream;
    struct fixture_answer gone;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 60);
    fixture_wait_durable(&fixture, stream);
    ask(stream, 10, 50);
    FIXTURE_TURN_UNTIL(&fixture, stream->saves == NULL); /* the intent is durable */
    CHECK(!answer.came);
    status_fail(&st, STATUS_UNAVAILABLE, "it stops");
    stream_forget_leave(stream, &st);
    CHECK(answer.came && !answer.ok);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(fixture_read_layer(&fixture, stream, 20, 0), FRAME_EVICTED);
    FIXTURE_TURN_UNTIL(&fixture, stream_receipt_at(stream, 0)->done_ns != 0 && stream->saves == NULL);
    CHECK_EQ(stream_receipt_at(stream, 0)->frames, 40);
    check_nowhere(&fixture, stream, 10, 50);
    fixture_check_all(&fixture, stream, 0, 10);
    fixture_check_all(&fixture, stream, 50, 60);
    ask(stream, 0, 5);
    gone = answer;
    fixture_remove(&fixture, stream);
    CHECK(!gone.came && answer.came && !answer.ok);
    fixture_stop(&fixture);
}

static bool is_any_in_memory(const struct fixture *fixture, uint64_t frames)
{
    struct sample sample;
    bool is_found = false;

    for (uint64_t seq = 0; seq < frames; seq++) {
        take_sample(&sample, "cam-1", seq);
        is_found |= is_in_memory(fixture, &sample);
    }
    return is_found;
}

/* Its blocks stayed in RAM until others were written over them. */
TEST(what_was_removed_is_not_in_memory)
{
    struct fixture_writer writer;
    struct fixture fixture;
    struct sample sample;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 40); /* the last are not written yet */
    CHECK_EQ(fixture_read_layer(&fixture, stream, 3, 1), FRAME_OK);
    take_sample(&sample, "cam-1", 30);
    CHECK(is_in_memory(&fixture, &sample));
    fixture_remove(&fixture, stream);
    FIXTURE_TURN_UNTIL(&fixture, !is_any_in_memory(&fixture, 40));
    fixture_stop(&fixture);
}

TEST_MAIN()
