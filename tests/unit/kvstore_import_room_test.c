/* An import's room: it is reserved before it begins, and no camera that is there loses anything for it. */
#include "kvstore_fixture.h"

enum { HELD_FRAMES = 1200, SEGMENT_BYTES = 16 << 20 };

static struct fixture fixture;
static struct stream *camera;
static struct status st;

/* A camera that has been written and left, in a budget that has so many bytes more. */
static void start(uint64_t room)
{
    struct fixture_writer writer;

    fixture_start(&fixture);
    camera = fixture_write(&fixture, "cam-1", &writer, HELD_FRAMES);
    fixture_wait_durable(&fixture, camera);
    stream_detach(camera, &writer.base);
    fixture_wait_sealed(&fixture, camera);
    fixture.options.disk_bytes = fixture.store->disk_used_bytes + room;
    fixture.options.segment_bytes_max = SEGMENT_BYTES;
    fixture_stop(&fixture);
    fixture_open(&fixture);
    camera = store_find(fixture.store, "default", "cam-1");
}

static uint64_t disk_left(void)
{
    return fixture.store->options.disk_bytes - fixture.store->disk_used_bytes;
}

static uint64_t import_bytes(uint64_t frames)
{
    return frames * (kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS) + 4);
}

static struct fixture_answer begun;

static bool begin_import(const char *name, uint64_t frames)
{
    static const struct stream_definition definition = { .source = "a",
                                                         .kind = STREAM_FILE,
                                                         .sample_fps = 1 };
    static const struct history history;
    struct stream_import import = { .ns = "default",
                                    .name = name,
                                    .definition = &definition,
                                    .geometry = fixture_geometry,
                                    .history = &history,
                                    .frames = frames,
                                    .bytes = import_bytes(frames) };

    memset(import.fingerprint, 7, sizeof import.fingerprint);
    begun = (struct fixture_answer){ 0 };
    if (!stream_import(fixture.store, &import, fixture_done, &begun, &st))
        return false;
    FIXTURE_TURN_UNTIL(&fixture, begun.came);
    CHECK_OK(begun.ok, begun.st);
    return true;
}

/* The one that nobody sees yet, and its writer. */
static struct stream *attach(const char *name, struct fixture_writer *writer)
{
    struct stream *stream = fixture.store->streams;

    while (strcmp(stream->name, name) != 0)
        stream = stream->next;
    *writer = (struct fixture_writer){ .base = { fixture_moved, fixture_fenced } };
    CHECK_OK(stream_attach(stream, 1, &writer->base, &st), st);
    fixture_append_init(&fixture, stream);
    return stream;
}

static void check_camera_is_whole(void)
{
    CHECK_EQ(camera->stored_frames, HELD_FRAMES);
    CHECK_EQ(history_frames(&camera->history), 0);
    CHECK_EQ(fixture_read_layer(&fixture, camera, 0, 0), FRAME_OK);
    CHECK_EQ(fixture_read_layer(&fixture, camera, HELD_FRAMES - 1, 0), FRAME_OK);
}

/* Its payload alone fits: it began, and for its headers, footers and the room of its file others went. */
TEST(an_import_whose_files_do_not_fit_is_refused_before)
{
    start(import_bytes(300) + STORE_STREAM_DISK_BYTES);
    CHECK(!begin_import("copy-1", 300));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_HAS(st.text, "removes nothing of other streams; give the store more");
    CHECK_HAS(st.text, " MiB, disk_budget_bytes has 2.5 MiB left");
    check_camera_is_whole();
    fixture_stop(&fixture);
}

/* There is room for it, and none for a file as large as a camera's would be. What it does not need it gives back. */
TEST(an_import_takes_no_room_from_others)
{
    struct fixture_answer seen = { 0 };
    struct fixture_writer writer;
    struct stream *stream;

    start(6 << 20);
    CHECK(store_segment_bytes(fixture.store) + (1 << 20) > disk_left() / 2);
    CHECK_OK(begin_import("copy-1", 300), st);
    CHECK(!begin_import("copy-2", 300)); /* what the first one will take is taken */
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    stream = attach("copy-1", &writer);
    fixture_append(&fixture, stream, 300);
    CHECK_OK(stream_end(stream, "", &st), st);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    check_camera_is_whole();
    CHECK_OK(stream_finish_import(stream, fixture_done, &seen, &st), st);
    FIXTURE_TURN_UNTIL(&fixture, seen.came && stream->saves == NULL);
    CHECK_OK(seen.ok, seen.st);
    CHECK_EQ(fixture.store->disk_used_bytes, stream_disk_bytes(camera) + stream_disk_bytes(stream));
    fixture_check_all(&fixture, stream, 0, 300);
    fixture_stop(&fixture);
}

/* More comes than was said: it gets what is left, and then nothing. Once it has gone, so has what it held. */
TEST(an_import_that_is_larger_than_it_says_takes_no_room_from_others)
{
    struct fixture_writer writer;
    struct stream *stream;
    uint64_t used, taken = 0;

    start(3 << 20);
    used = fixture.store->disk_used_bytes;
    CHECK_OK(begin_import("copy-1", 2), st);
    stream = attach("copy-1", &writer);
    while (taken < 2000) {
        struct stream_block block = fixture_block(stream, stream->next_seq);

        if (!fixture_append_block(&fixture, stream, &block, &st))
            break;
        if (++taken % 5 == 0)
            loop_run_once(fixture.loop);
    }
    CHECK(taken > 2 && taken < 400);
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_HAS(stream->waits_because, "removes nothing of other streams");
    for (unsigned i = 0; i < 50; i++) {
        struct loop_timer tick = { 0 };

        loop_timer_start(fixture.loop, &tick, 5, fixture_tick);
        loop_run_once(fixture.loop);
        loop_timer_stop(&tick);
    }
    check_camera_is_whole();
    stream_detach(stream, &writer.base);
    fixture_remove(&fixture, stream);
    CHECK_EQ(fixture.store->disk_used_bytes, used);
    check_camera_is_whole();
    fixture_stop(&fixture);
}

TEST_MAIN()
