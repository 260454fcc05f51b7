/* A camera of which a small file is damaged or gone is set aside: told, counted, untouched; the others are served. */
#include "kvstore_picture.h"

#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

static const char *const files[] = { "stream.json", "history.json", "holds.json", "forget.json" };

static void path_of(const struct fixture *fixture, const char *name, char path[1024])
{
    snprintf(path, 1024, "%s/v1/default/cam-1/%s", fixture->root, name);
}

static void put_golden(const struct fixture *fixture, unsigned format, const char *name)
{
    char from[512], to[1024];
    struct file_text text;
    struct status st;

    snprintf(from, sizeof from, REELKV_SOURCE_DIR "/tests/data/small_files/%u/default/cam-1/%s", format,
             name);
    path_of(fixture, name, to);
    CHECK_OK(file_read_all(from, 4096, &text, &st), st);
    picture_write_file(to, text.data, text.len);
    free(text.data);
}

/* cam-1 has the golden files of a format and no segment, cam-2 a few frames; the store is closed. */
static void start(struct fixture *fixture, unsigned format)
{
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(fixture);
    fixture_define(fixture, "cam-1");
    stream = fixture_write(fixture, "cam-2", &writer, 4);
    stream_detach(stream, &writer.base);
    fixture_stop(fixture);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        put_golden(fixture, format, files[i]);
}

static void check_golden(struct fixture *fixture)
{
    struct stream *stream = store_find(fixture->store, "default", "cam-1");

    CHECK(stream != NULL);
    CHECK_EQ(stream->epoch, 3);
    CHECK_EQ(stream->next_seq, 12);
    CHECK_EQ(stream->next_token_index, 240);
    CHECK_EQ(history_frames(&stream->history), 8);
    CHECK_EQ(stream_absence_of(stream, 3), STREAM_ABSENT_EVICTED);
    CHECK_EQ(stream_absence_of(stream, 9), STREAM_ABSENT_GAP);
    CHECK_EQ(stream_hold_at(stream, 0)->number, 2);
    CHECK_EQ(stream_receipt_at(stream, 0)->done_ns, 1700000201000000000);
}

static void check_aside(struct fixture *fixture, const char *path)
{
    struct stream_definition definition = { .source = "x", .kind = STREAM_LIVE, .sample_fps = 1 };
    struct stream *stream = store_next(fixture->store, NULL, NULL), *other;
    struct fixture_answer answer = { 0 };

    CHECK(store_find(fixture->store, "default", "cam-1") == NULL);
    CHECK(!store_say_absent(fixture->store, "default", "cam-1", &fixture->st));
    CHECK_EQ(fixture->st.code, STATUS_DATA_LOSS);
    CHECK_HAS(fixture->st.text, path);
    CHECK_HAS(fixture->st.text, "move the folder it is in, this camera's, out of the data folder");
    CHECK_STR(stream->name, "cam-1");
    CHECK_STR(stream->trouble, fixture->st.text);
    CHECK(stream->aside_bytes > 0);
    CHECK_EQ(fixture->store->disk_used_bytes,
             stream_disk_bytes(stream) + stream_disk_bytes(store_after(stream)));
    CHECK(
        !stream_define(fixture->store, "default", "cam-1", &definition, fixture_done, &answer, &fixture->st));
    CHECK_EQ(fixture->st.code, STATUS_EXISTS);
    other = store_find(fixture->store, "default", "cam-2");
    fixture_check_all(fixture, other, 0, 4);
}

/* The files of an older store, and of this one. */
TEST(small_files_of_both_formats_are_believed)
{
    for (unsigned format = 1; format <= CHECKED_JSON_FORMAT; format++) {
        struct fixture fixture;

        start(&fixture, format);
        fixture_open(&fixture);
        check_golden(&fixture);
        fixture_stop(&fixture);
        CHECK_OK(file_remove_tree(fixture.root, &fixture.st), fixture.st);
    }
}

/* A digit of each that makes sense as well: neither believed nor replaced, and the camera is back with the right file. */
TEST(a_changed_digit_sets_its_camera_aside)
{
    struct fixture fixture;

    start(&fixture, CHECKED_JSON_FORMAT);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct file_text text, after;
        char path[1024], *digit;

        path_of(&fixture, files[i], path);
        CHECK_OK(file_read_all(path, 4096, &text, &fixture.st), fixture.st);
        digit = strstr(text.data, "17");
        CHECK(digit != NULL);
        digit[1] = '6';
        picture_write_file(path, text.data, text.len);
        fixture_open(&fixture);
        check_aside(&fixture, path);
        fixture_stop(&fixture);
        CHECK_OK(file_read_all(path, 4096, &after, &fixture.st), fixture.st);
        CHECK_EQ(after.len, text.len);
        CHECK_MEM(after.data, text.data, text.len);
        free(text.data);
        free(after.data);
        put_golden(&fixture, CHECKED_JSON_FORMAT, files[i]);
        fixture_open(&fixture);
        check_golden(&fixture);
        fixture_stop(&fixture);
    }
}

/* It was hidden, and its segments counted for nothing. */
TEST(a_missing_definition_does_not_hide_its_camera)
{
    struct fixture_writer writer;
    struct file_text definition;
    struct fixture fixture;
    struct stream *stream;
    uint64_t bytes;
    char path[1024];

    fixture_start(&fixture);
    stream = fixture_write(&fixture, "cam-2", &writer, 4);
    stream_detach(stream, &writer.base);
    stream = fixture_write(&fixture, "cam-1", &writer, 30);
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    bytes = stream_disk_bytes(stream) - STORE_STREAM_DISK_BYTES;
    fixture_stop(&fixture);
    path_of(&fixture, "stream.json", path);
    CHECK_OK(file_read_all(path, 4096, &definition, &fixture.st), fixture.st);
    CHECK_EQ(unlink(path), 0);
    fixture_open(&fixture);
    check_aside(&fixture, path);
    CHECK(store_next(fixture.store, NULL, NULL)->aside_bytes >= bytes);
    fixture_stop(&fixture);
    picture_write_file(path, definition.data, definition.len);
    free(definition.data);
    fixture_open(&fixture);
    fixture_check_all(&fixture, store_find(fixture.store, "default", "cam-1"), 0, 30);
    fixture_stop(&fixture);
}

/* Killed while it was being defined: nobody was told that it exists. */
TEST(a_folder_with_half_a_definition_is_no_camera)
{
    struct fixture fixture;
    char path[1024];

    start(&fixture, CHECKED_JSON_FORMAT);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        path_of(&fixture, files[i], path);
        CHECK_EQ(unlink(path), 0);
    }
    path_of(&fixture, "stream.json.new", path);
    picture_write_file(path, "{ \"na", 5);
    fixture_open(&fixture);
    CHECK(!store_say_absent(fixture.store, "default", "cam-1", &fixture.st));
    CHECK_EQ(fixture.st.code, STATUS_NOT_FOUND);
    fixture_define(&fixture, "cam-1");
    fixture_stop(&fixture);
}

TEST_MAIN()
