/* The store without RPCs: what is stored comes back, after restarts too; writers are fenced. Budgets are in
 * kvstore_eviction_test.c. */
#include "kvstore/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/name.h"
#include "kvstore_fixture.h"

TEST(store_keeps_blocks_through_a_restart)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 100);
    fixture_check_all(&fixture, stream, 0, 100); /* from RAM */
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);

    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK(stream != NULL);
    CHECK_EQ(stream->next_seq, 100);
    CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + 100 * FIXTURE_TOKENS);
    CHECK_EQ(stream->epoch, 1);
    CHECK_EQ(stream_durable_seq(stream), 100);
    CHECK_STR(stream->definition.source, "rtsp://cam/1");
    CHECK(!index_frame_is_in_ram(stream_find(stream, 7)));
    fixture_check_all(&fixture, stream, 0, 100); /* from the disk */
    CHECK(index_frame_is_in_ram(stream_find(stream, 7)));
    fixture_check_all(&fixture, stream, 0, 100); /* what was read back, from RAM again */
    fixture_stop(&fixture);
}

/* Numbers and token index go on across epochs; each epoch writes segments of its own. */
TEST(store_goes_on_in_the_next_epoch)
{
    struct fixture fixture;
    struct fixture_writer first, second;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &first, 10);
    CHECK_EQ(stream->epoch, 1);
    fixture_attach(&fixture, stream, &second);
    CHECK_EQ(stream->epoch, 2);
    CHECK(first.is_fenced);
    CHECK_EQ(first.why.code, STATUS_ABORTED);
    CHECK(!second.is_fenced);
    fixture_append_init(&fixture, stream);
    CHECK_EQ(stream->next_seq, 10);
    CHECK_EQ(stream->next_token_index, FIXTURE_INIT_TOKENS + 10 * FIXTURE_TOKENS);
    fixture_append(&fixture, stream, 10);
    fixture_check_all(&fixture, stream, 0, 20);
    stream_detach(stream, &second.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->epoch, 2);
    fixture_check_all(&fixture, stream, 0, 20);
    fixture_stop(&fixture);
}

/* The epoch before cannot attach any more, nor can a second call of this one. */
TEST(store_fences_lower_epochs)
{
    struct fixture fixture;
    struct fixture_writer first, late = { .base = { fixture_moved, fixture_fenced } };
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    fixture_attach(&fixture, stream, &first);
    CHECK(!stream_attach(stream, 1, &late.base, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_ABORTED);
    CHECK_OK(fixture_take(&fixture, stream, &fixture.st), fixture.st);
    CHECK(!stream_attach(stream, 1, &late.base, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_ABORTED);
    CHECK_OK(stream_attach(stream, 2, &late.base, &fixture.st), fixture.st);
    stream_detach(stream, &late.base);
    fixture_stop(&fixture);
}

TEST(store_refuses_another_models_blocks)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream_open_request request = { .geometry = fixture_geometry, .writer = "x" };
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 1);
    memset(request.fingerprint, 8, sizeof request.fingerprint);
    CHECK(!stream_open(stream, &request, fixture_done, NULL, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_PRECONDITION);
    CHECK_HAS(fixture.st.text, "0707");
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Blocks come in order; known ones are let pass, jumps are not, gaps say what is missing. */
TEST(store_takes_blocks_in_order)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream_gap gap = { .from_seq = 3, .to_seq = 6, .reason = "the camera was away" };
    struct stream_block block;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 3);
    block = fixture_block(stream, 1);
    block.token_index = 0;
    CHECK_OK(fixture_append_block(&fixture, stream, &block, &fixture.st), fixture.st);
    CHECK_EQ(stream->next_seq, 3);
    block = fixture_block(stream, 4);
    CHECK(!fixture_append_block(&fixture, stream, &block, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_INVALID);
    CHECK_HAS(fixture.st.text, "gap");
    CHECK_OK(stream_append_gap(stream, &gap, &fixture.st), fixture.st);
    CHECK_EQ(stream->next_seq, 6);
    CHECK_OK(stream_append_gap(stream, &gap, &fixture.st), fixture.st); /* sent again */
    CHECK_EQ(stream->next_seq, 6);
    gap.from_seq = 8;
    gap.to_seq = 9;
    CHECK(!stream_append_gap(stream, &gap, &fixture.st));
    fixture_append(&fixture, stream, 2);
    CHECK_EQ(stream->next_seq, 8);
    CHECK_EQ(stream->gap_frames, 3);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 4, 0), FRAME_GAP);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 7, 0), FRAME_OK);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 8, 0), FRAME_NOT_FOUND);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->gap_frames, 3);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 4, 0), FRAME_GAP);
    CHECK_EQ(fixture_read_layer(&fixture, stream, 7, 0), FRAME_OK);
    fixture_stop(&fixture);
}

/* The same with a bad length, token count, token index. */
TEST(store_refuses_blocks_that_make_no_sense)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    struct stream_block block;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 1);
    for (unsigned i = 0; i < 5; i++) {
        block = fixture_block(stream, 1);
        if (i == 0)
            block.tokens = 0;
        else if (i == 1)
            block.tokens = UINT32_MAX;
        else if (i == 2)
            block.payload_bytes--;
        else if (i == 3)
            block.thumbnail_bytes = LIMIT_THUMBNAIL_BYTES + 1;
        else
            block.token_index = 0;
        CHECK(!fixture_append_block(&fixture, stream, &block, &fixture.st));
        CHECK_EQ(fixture.st.code, STATUS_INVALID);
    }
    CHECK_EQ(stream->next_seq, 1);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* Numbers so large that sums of them would wrap, or that JSON does not hold: refused, and the store opens again. */
TEST(store_refuses_numbers_beyond_all_streams)
{
    struct stream_open_request request = { .geometry = fixture_geometry,
                                           .writer = "analyzer-1",
                                           .expected_frames = 1ull << 63 };
    const struct stream_gap gaps[] = { { .from_seq = 1, .to_seq = UINT64_MAX, .reason = "away" },
                                       { .from_seq = 1, .to_seq = 1ull << 63, .reason = "away" } };
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream_block block;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    CHECK(!stream_open(stream, &request, fixture_done, NULL, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_INVALID);
    fixture_attach(&fixture, stream, &writer);
    fixture_append(&fixture, stream, 1);
    for (size_t i = 0; i < ARRAY_LEN(gaps); i++) {
        CHECK(!stream_append_gap(stream, &gaps[i], &fixture.st));
        CHECK_EQ(fixture.st.code, STATUS_INVALID);
    }
    block = fixture_block(stream, 1);
    block.token_index = UINT64_MAX - 3;
    CHECK(!fixture_append_block(&fixture, stream, &block, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_INVALID);
    fixture_append(&fixture, stream, 1);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    CHECK_EQ(store_find(fixture.store, "default", "cam-1")->next_seq, 2);
    fixture_stop(&fixture);
}

/* Readers of other languages refuse a message with text that is no UTF-8: what a writer says is cut between
 * characters, and shown with '?' where it is none. */
TEST(store_keeps_no_text_that_is_no_utf8)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    char trouble[2 * STREAM_TROUBLE_BYTES];

    for (size_t i = 0; i + 1 < sizeof trouble; i += 3)
        memcpy(trouble + i, "\xe2\x82\xac", i + 3 < sizeof trouble ? 3 : sizeof trouble - i);
    trouble[sizeof trouble - 1] = '\0';
    fixture_start(&fixture);
    stream = fixture_define(&fixture, "cam-1");
    stream_set_trouble(stream, trouble);
    CHECK(utf8_is_valid(stream->trouble, strlen(stream->trouble)));
    CHECK(strlen(stream->trouble) > STREAM_TROUBLE_BYTES - 4);
    stream_set_trouble(stream, "no file \xff\xfe.mp4");
    CHECK_STR(stream->trouble, "no file ??.mp4");
    fixture_attach(&fixture, stream, &writer);
    CHECK_OK(stream_end(stream, trouble, &fixture.st), fixture.st);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK(utf8_is_valid(stream->trouble, strlen(stream->trouble)));
    CHECK(strlen(stream->trouble) > STREAM_TROUBLE_BYTES - 4);
    fixture_stop(&fixture);
}

TEST(store_refuses_a_second_store_on_one_folder)
{
    struct fixture fixture;
    struct store *second;

    fixture_start(&fixture);
    CHECK(!store_open(&second, fixture.loop, &fixture.options, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_EXISTS);
    CHECK_HAS(fixture.st.text, "in use by another kvstore");
    fixture_stop(&fixture);
}

/* Removed from the list, from RAM, from the disk; the name is free again. */
TEST(store_deletes_a_stream_from_every_tier)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct fixture_answer answer = { 0 };
    struct stream_removed removed;
    struct stream *stream;
    char folder[STREAM_FOLDER_BYTES];

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 50);
    snprintf(folder, sizeof folder, "%s", stream->folder);
    CHECK(ram_used_bytes(fixture.store->arena, RAM_IMAGES) > 0);
    CHECK_OK(stream_delete(stream, &removed, fixture_done, &answer, &fixture.st), fixture.st);
    CHECK_EQ(removed.frames, 50);
    CHECK(writer.is_fenced);
    CHECK(store_find(fixture.store, "default", "cam-1") == NULL);
    FIXTURE_TURN_UNTIL(&fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
    CHECK(access(folder, F_OK) != 0);
    CHECK_EQ(ram_used_bytes(fixture.store->arena, RAM_IMAGES), 0);
    CHECK_EQ(fixture.store->index_memory.used_bytes, 0);
    CHECK_EQ(fixture.store->disk_used_bytes, 0);
    stream = fixture_define(&fixture, "cam-1");
    CHECK_EQ(stream->next_seq, 0);
    fixture_stop(&fixture);
}

TEST(store_refuses_a_stream_that_exists)
{
    struct fixture fixture;
    struct stream_definition definition = { .source = "x", .kind = STREAM_FILE };

    fixture_start(&fixture);
    fixture_define(&fixture, "cam-1");
    CHECK(!stream_define(fixture.store, "default", "cam-1", &definition, fixture_done, NULL, &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_EXISTS);
    fixture_stop(&fixture);
}

/* The end is remembered, with its trouble; a new block takes it back. */
TEST(store_remembers_the_end)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "film", &writer, 3);
    CHECK_OK(stream_end(stream, "the file is cut short", &fixture.st), fixture.st);
    CHECK(stream->has_ended);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "film");
    CHECK(stream->has_ended);
    CHECK_STR(stream->trouble, "the file is cut short");
    fixture_attach(&fixture, stream, &writer);
    fixture_append(&fixture, stream, 1);
    CHECK(!stream->has_ended);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    CHECK(!store_find(fixture.store, "default", "film")->has_ended);
    fixture_stop(&fixture);
}

/* Far more blocks than RAM: all are there, most from the disk; the arena never grows. */
TEST(store_serves_more_than_its_ram)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.ram_bytes = 8 << 20;
    fixture_open(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 1000);
    fixture_wait_durable(&fixture, stream);
    CHECK(stream_find(stream, 999)->image != NULL);
    CHECK(stream_find(stream, 0)->image == NULL);
    fixture_check_all(&fixture, stream, 0, 1000);
    CHECK(store_ram_used(fixture.store) <= fixture.options.ram_bytes);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
}

/* A writer that reloads: INIT and every block, byte for byte, from RAM and from the disk. */
TEST(store_gives_whole_blocks_back)
{
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 10);
    CHECK_EQ(fixture_read_block(&fixture, stream, NULL), FRAME_OK);
    CHECK_EQ(fixture_read_block(&fixture, stream, stream_find(stream, 9)), FRAME_OK);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    stream->init_record.layers = 0; /* as after the writer has gone for good */
    CHECK_EQ(fixture_read_block(&fixture, stream, NULL), FRAME_OK);
    for (uint64_t seq = 0; seq < 10; seq++)
        CHECK_EQ(fixture_read_block(&fixture, stream, stream_find(stream, seq)), FRAME_OK);
    CHECK(stream_find(stream, 4)->image != NULL);
    fixture_stop(&fixture);
}

/* A stream without frames may change its model: the system prompt's block of another is none for the new one. */
TEST(store_gives_no_init_of_another_model)
{
    const struct stream_gap gap = { .to_seq = 3, .reason = "nobody answers there" };
    struct stream_open_request request = { .geometry = fixture_geometry, .writer = "analyzer-1" };
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 0);
    CHECK_OK(stream_append_gap(stream, &gap, &fixture.st), fixture.st);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    for (uint8_t model = 7; model < 9; model++) {
        struct fixture_answer answer = { 0 };

        memset(request.fingerprint, model, sizeof request.fingerprint);
        CHECK_OK(stream_open(stream, &request, fixture_done, &answer, &fixture.st), fixture.st);
        FIXTURE_TURN_UNTIL(&fixture, answer.came);
        CHECK_EQ(fixture_read_block(&fixture, stream, NULL), model == 7 ? FRAME_OK : FRAME_NOT_FOUND);
    }
    fixture_stop(&fixture);
}

/* Everything that can be had of the images' RAM, so that who wants some must wait. */
struct held {
    struct ram_slot *slots[1024];
    uint32_t count;
};

static void hold_all_ram(struct ram_arena *arena, struct held *held)
{
    held->count = 0;
    for (uint64_t bytes = 1 << 20; bytes >= KV_PAGE_BYTES; bytes /= 2)
        while (held->count < ARRAY_LEN(held->slots) &&
               (held->slots[held->count] = ram_take(arena, RAM_IMAGES, bytes)) != NULL)
            held->count++;
    CHECK(held->count < ARRAY_LEN(held->slots));
}

static void let_go(struct ram_arena *arena, const struct held *held)
{
    for (uint32_t i = 0; i < held->count; i++)
        ram_unref(arena, held->slots[i]);
}

/* A writer's read of a block waits for RAM; the stream is removed, and its memory is given back before its turn comes. */
TEST(store_removes_a_stream_of_which_a_block_is_waited_for)
{
    static struct held held;
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;
    struct fixture_block_read reading = { .read.done = fixture_block_done };

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 10);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_stop(&fixture);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    hold_all_ram(fixture.store->arena, &held);
    reading.read.store = fixture.store;
    reading.read.stream = stream;
    reading.read.frame = stream_find(stream, 3);
    CHECK(!block_read_start(&reading.read));
    CHECK(reading.read.waiter.is_waiting);
    fixture_remove(&fixture, stream);
    FIXTURE_TURN_UNTIL(&fixture, reading.came);
    CHECK_EQ(reading.read.result, FRAME_EVICTED);
    block_read_release(&reading.read);
    let_go(fixture.store->arena, &held);
    CHECK_EQ(fixture.store->index_memory.used_bytes, 0);
    fixture_stop(&fixture);
}

/* The system prompt's block is held by nothing while its read waits, so it does not wait: asked again, it is there. */
TEST(store_says_at_once_that_init_cannot_be_read_now)
{
    static struct fixture_jam jam;
    struct fixture fixture;
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-1", &writer, 1);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    stream->init_record.layers = 0; /* as after the writer has gone for good */
    fixture_jam(&jam, fixture.store->reading, fixture.options.reading_threads);
    CHECK_EQ(fixture_read_block(&fixture, stream, NULL), FRAME_UNAVAILABLE);
    fixture_let_go(&fixture, &jam);
    CHECK_EQ(fixture_read_block(&fixture, stream, NULL), FRAME_OK);
    fixture_stop(&fixture);
}

TEST_MAIN()
