/* The small parts of lib/base that do not need a file of their own: arena, array, name, file, json, log. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/array.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/name.h"
#include "support/test.h"

TEST(arena_refuses_past_its_limit_and_starts_over_after_reset)
{
    struct arena arena = { .limit_bytes = 100000 };

    CHECK(arena_alloc(&arena, 60000) != NULL);
    CHECK(arena_alloc(&arena, 60000) == NULL);
    CHECK(arena_alloc(&arena, SIZE_MAX) == NULL);
    arena_reset(&arena);
    CHECK(arena_alloc(&arena, 60000) != NULL);
    CHECK_STR(arena_strndup(&arena, "camera", 3), "cam");
    arena_reset(&arena);
}

TEST(names_are_safe_as_folders_and_keys)
{
    static const char *const good[] = { "a", "dock-2", "7.x_y" };
    static const char *const bad[] = { "", ".", "..", "A", "a/b", "-a", "a b", "caf\xc3\xa9" };
    char longest[LIMIT_NAME_BYTES + 2];
    struct status st = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK_OK(name_check("stream", good[i], &st), st);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!name_check("stream", bad[i], &st));
    memset(longest, 'a', sizeof longest);
    longest[LIMIT_NAME_BYTES + 1] = '\0';
    CHECK(!name_check("stream", longest, &st));
    longest[LIMIT_NAME_BYTES] = '\0';
    CHECK(name_check("stream", longest, &st));
}

/* Passwords with an '@' or '/' in them were hidden, those with a '#' or '?' shown; and an '@' in a path, with a port before
 * it, may as well be the end of a password of digits. */
TEST(url_mask_hides_passwords_whatever_they_are_made_of)
{
    static const char *const pairs[][2] = {
        { "rtsp://admin:p@ss@10.0.0.7/live", "rtsp://***@10.0.0.7/live" },
        { "rtsp://10.0.0.7/live?mail=a@b", "rtsp://10.0.0.7/live?***" },
        { "rtsp://a:b@10.0.0.7:554/live?user=c&password=d?e", "rtsp://***@10.0.0.7:554/live?***" },
        { "rtsp://admin:pa/ss@10.0.0.7/live", "rtsp://***@10.0.0.7/live" },
        { "rtsp://admin:pa#ss@10.0.0.7/live", "rtsp://***@10.0.0.7/live" },
        { "rtsp://admin:pa?ss@10.0.0.7/live", "rtsp://***?***" },
        { "rtsp://admin:p@a?ss@10.0.0.7/live", "rtsp://***?***" },
        { "rtsp://admin:12/34@10.0.0.7:554/live?x=1", "rtsp://***@10.0.0.7:554/live?***" },
        { "rtsp://a:b@10.0.0.7/live?password=c@d", "rtsp://***?***" },
        { "http://10.0.0.7:8080/live@2x", "http://***@2x" },
        { "http://[fe80::1]:80/live", "http://[fe80::1]:80/live" },
        { "udp://@239.0.0.1:5000", "udp://@239.0.0.1:5000" },
        { "admin:pass@10.0.0.7:6379", "***@10.0.0.7:6379" },
        { "/videos/a@b.mp4", "/videos/a@b.mp4" },
        { "/videos/14:05@gate.mp4", "/videos/14:05@gate.mp4" },
        { "yard@home", "yard@home" },
    };
    char out[64];

    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        url_mask(pairs[i][0], out, sizeof out);
        CHECK_STR(out, pairs[i][1]);
    }
    url_mask(pairs[0][0], out, 8);
    CHECK_STR(out, "rtsp://");
}

/* A newline in a name that was refused began a line of its own. */
TEST(what_was_typed_is_shown_on_one_line)
{
    struct status st = { 0 };
    char out[32];

    CHECK(!name_check("camera", "a\nb\x1b[2J", &st));
    CHECK_HAS(st.text, "camera name 'a?b?[2J' is not valid");
    text_show("http://u:p@h/a\tb", out, sizeof out);
    CHECK_STR(out, "http://***@h/a?b");
}

TEST(utf8_refuses_overlong_surrogate_and_cut_sequences)
{
    static const char *const bad[] = { "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                       "\xe2\x82", "\x80",         "a\xff" };

    CHECK(utf8_is_valid("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8e\xa5", 14));
    CHECK(!utf8_is_valid("a\0b", 3));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!utf8_is_valid(bad[i], strlen(bad[i])));
}

TEST(utf8_repair_shows_what_is_no_text_and_keeps_the_rest)
{
    static const char *const pairs[][2] = {
        { "caf\xc3\xa9", "caf\xc3\xa9" },
        { "caf\xc3", "caf?" },
        { "\xff\xe2\x82\xac\xe2\x82 x", "?\xe2\x82\xac?? x" },
    };
    char text[32];

    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        snprintf(text, sizeof text, "%s", pairs[i][0]);
        utf8_repair(text);
        CHECK_STR(text, pairs[i][1]);
    }
}

/* Runs between two dup2 of stderr; what was written comes back. */
static void logged(void (*write_log)(void), char *out, size_t out_bytes)
{
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);

    REQUIRE(file != NULL && saved >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    write_log();
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    out[fread(out, 1, out_bytes - 1, file)] = '\0';
    fclose(file);
}

static void log_hostile(void)
{
    struct log_context context = { .request = "7f3a", .stream = "dock" };

    errno = ENOSPC;
    log_error(&context, "write_failed", "%s: %m", "a\nforged \x1b[2J line");
}

static void log_long(void)
{
    char text[3 * LOG_LINE_BYTES];

    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    log_error(NULL, "long", "%s", text);
    log_debug(NULL, "unwanted", "below the level");
}

/* Whatever a peer puts into a name: an event is one line of bounded length, with the caller's errno in it. */
TEST(a_log_event_is_one_line)
{
    char out[4 * LOG_LINE_BYTES];

    logged(log_hostile, out, sizeof out);
    CHECK_HAS(out,
              "Z E reelkv write_failed req 7f3a stream dock a forged  [2J line: No space left on device\n");
    CHECK_EQ(strcspn(out, "\n"), strlen(out) - 1);
    logged(log_long, out, sizeof out);
    CHECK_EQ(strlen(out), LOG_LINE_BYTES);
    CHECK_EQ(strcspn(out, "\n"), strlen(out) - 1);
}

TEST(file_write_durable_replaces_whole_and_reads_back)
{
    struct file_text text;
    struct status st = { 0 };
    char path[300];

    snprintf(path, sizeof path, "%s/a/b", test_folder());
    CHECK_OK(file_make_folders(path, &st), st);
    snprintf(path, sizeof path, "%s/a/b/c", test_folder());
    CHECK_OK(file_write_durable(path, "first", 5, &st), st);
    CHECK_OK(file_write_durable(path, "2nd", 3, &st), st);
    CHECK(!file_make_folders(path, &st)); /* not silently taken for a folder */
    CHECK_EQ(st.code, STATUS_EXISTS);
    CHECK_OK(file_read_all(path, 10, &text, &st), st);
    CHECK_STR(text.data, "2nd");
    free(text.data);
    CHECK(!file_read_all(path, 2, &text, &st));
    CHECK_HAS(st.text, "at most 2 are read");
    CHECK(!file_read_all(test_folder(), 10, &text, &st));
    snprintf(path, sizeof path, "%s/none", test_folder());
    CHECK(!file_read_all(path, 10, &text, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
}

TEST(json_errors_name_the_place_or_the_field)
{
    static const char text[] = "{\"layers\": 24, \"name\": 7, \"minus\": -1}";
    struct status st = { 0 };
    const char *name;
    uint32_t layers;
    struct json *value;

    CHECK(json_parse((struct bytes){ (const uint8_t *)"{\"a\": ", 6 }, &st) == NULL);
    CHECK_HAS(st.text, "line 1");
    value = json_parse((struct bytes){ (const uint8_t *)text, sizeof text - 1 }, &st);
    CHECK(value != NULL);
    CHECK_OK(json_read_u32(value, "layers", &layers, &st), st);
    CHECK_EQ(layers, 24);
    CHECK(!json_read_str(value, "name", &name, &st));
    CHECK_HAS(st.text, "'name' has the wrong type");
    CHECK(!json_read_u32(value, "heads", &layers, &st));
    CHECK_HAS(st.text, "'heads' is missing");
    CHECK(!json_read_u32(value, "minus", &layers, &st));
    json_free(value);
}

TEST(json_is_written_in_the_order_it_was_set)
{
    struct json *value = json_make_object();
    struct json *list = json_make_array();
    char *text;

    json_set_str(value, "z", "first");
    json_set_u64(value, "a", 2);
    json_append_str(list, "bad \xff byte");
    json_set(value, "list", list);
    json_set_f64(value, "nan", NAN);
    text = json_text(value, 0);
    CHECK_STR(text, "{\"z\":\"first\",\"a\":2,\"list\":[\"bad ? byte\"],\"nan\":null}");
    free(text);
    json_free(value);
}

static void make_tree(const char *root)
{
    char path[320];

    for (int folder = 0; folder < 20; folder++) {
        snprintf(path, sizeof path, "%s/%d", root, folder);
        CHECK(file_make_folders(path, NULL));
        for (int file = 0; file < 20; file++) {
            int fd;

            snprintf(path, sizeof path, "%s/%d/%d", root, folder, file);
            fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            CHECK(fd >= 0);
            close(fd);
        }
    }
}

static void *remove_too(void *root)
{
    return file_remove_tree(root, NULL) ? root : NULL;
}

/* Each finds that what it has just seen is gone; neither takes that for the end. */
TEST(a_tree_that_two_remove_at_once_is_gone_when_either_says_so)
{
    char root[300];

    snprintf(root, sizeof root, "%s/tree", test_folder());
    for (int round = 0; round < 30; round++) {
        struct status st = { 0 };
        pthread_t thread;
        void *done;

        make_tree(root);
        REQUIRE(pthread_create(&thread, NULL, remove_too, root) == 0);
        CHECK_OK(file_remove_tree(root, &st), st);
        CHECK(access(root, F_OK) != 0);
        REQUIRE(pthread_join(thread, &done) == 0);
        CHECK(done != NULL);
    }
}

TEST(a_list_that_grows_one_by_one_has_room_and_keeps_what_it_has)
{
    uint32_t *list = NULL;

    for (uint32_t count = 0; count < 1000; count++) {
        list = array_grow(list, count, sizeof *list);
        CHECK(malloc_usable_size(list) >= (count + 1) * sizeof *list);
        list[count] = count;
    }
    for (uint32_t i = 0; i < 1000; i++)
        CHECK_EQ(list[i], i);
    free(list);
}

TEST_MAIN()
