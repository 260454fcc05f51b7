/* The store's small files under their checksum: as written, as an older store wrote them, and with anything changed. */
#include "kv/checked_json.h"

#include <stdlib.h>

#include "base/array.h"
#include "base/file.h"
#include "support/test.h"

enum { LIMIT_BYTES = 4096 };

static const struct {
    const char *file, *first_of_old;
} kinds[] = { { "default/cam-1/stream.json", "namespace" },
              { "default/cam-1/history.json", "next_seq" },
              { "default/cam-1/holds.json", "next" },
              { "default/cam-1/forget.json", "next" },
              { "scrub.json", "full_ns" } };

static struct status st;

/* One file in memory, whatever it is called. */
static struct file_text content;

static int memory_open(const char *path, int flags, mode_t mode)
{
    (void)path, (void)flags, (void)mode;
    return 1;
}

static int memory_close(int fd)
{
    (void)fd;
    return 0;
}

static int memory_fstat(int fd, struct stat *info)
{
    (void)fd;
    *info = (struct stat){ .st_mode = S_IFREG, .st_size = (off_t)content.len };
    return 0;
}

static ssize_t memory_pread(int fd, void *to, size_t len, off_t offset)
{
    (void)fd;
    memcpy(to, content.data + offset, len);
    return (ssize_t)len;
}

static const struct file_ops memory = {
    .open = memory_open, .close = memory_close, .fstat = memory_fstat, .pread = memory_pread
};

static void take_golden(unsigned format, size_t kind)
{
    char path[512];

    snprintf(path, sizeof path, REELKV_SOURCE_DIR "/tests/data/small_files/%u/%s", format, kinds[kind].file);
    CHECK_OK(file_read_all(path, LIMIT_BYTES, &content, &st), st);
}

static struct json *read_as(size_t kind, const char *path)
{
    return checked_json_read(&memory, path, LIMIT_BYTES, kinds[kind].first_of_old, &st);
}

static bool is_read(size_t kind)
{
    char path[512];
    struct json *object;

    snprintf(path, sizeof path, "/data/v1/%s", kinds[kind].file);
    object = read_as(kind, path);
    json_free(object);
    return object != NULL;
}

/* The files of tests/data/small_files/2 were made by another program, after docs/kv-format.md. */
TEST(files_of_both_formats_are_read)
{
    for (unsigned format = 1; format <= CHECKED_JSON_FORMAT; format++)
        for (size_t kind = 0; kind < ARRAY_LEN(kinds); kind++) {
            take_golden(format, kind);
            CHECK_OK(is_read(kind), st);
            free(content.data);
        }
}

/* A digit that still makes sense, a name, the checksum itself. */
TEST(every_flipped_bit_is_found)
{
    for (size_t kind = 0; kind < ARRAY_LEN(kinds); kind++) {
        take_golden(CHECKED_JSON_FORMAT, kind);
        for (size_t at = 0; at < content.len; at++)
            for (unsigned bit = 0; bit < 8; bit++) {
                content.data[at] ^= (char)(1 << bit);
                if (is_read(kind) || st.code != STATUS_DATA_LOSS)
                    test_fail(__FILE__, __LINE__, "%s: bit %u of byte %zu: %s", kinds[kind].file, bit, at,
                              st.text);
                content.data[at] ^= (char)(1 << bit);
            }
        CHECK_OK(is_read(kind), st);
        free(content.data);
    }
}

TEST(every_cut_and_what_is_added_is_found)
{
    for (size_t kind = 0; kind < ARRAY_LEN(kinds); kind++) {
        size_t len;

        take_golden(CHECKED_JSON_FORMAT, kind);
        len = content.len;
        for (content.len = 0; content.len < len; content.len++)
            CHECK(!is_read(kind));
        content.data = realloc(content.data, len + 1);
        content.data[len] = '\n';
        content.len = len + 1;
        CHECK(!is_read(kind));
        free(content.data);
    }
}

/* Sound, and not what it stands for. */
TEST(a_file_of_elsewhere_is_not_believed)
{
    take_golden(CHECKED_JSON_FORMAT, 2);
    CHECK(read_as(2, "/data/v1/default/cam-2/holds.json") == NULL);
    CHECK_EQ(st.code, STATUS_DATA_LOSS);
    CHECK_HAS(st.text, "/data/v1/default/cam-2/holds.json: it is default/cam-1/holds.json");
    CHECK(read_as(3, "/data/v1/default/cam-1/forget.json") == NULL);
    CHECK(read_as(2, "/data/v1/default/xdefault/cam-1/holds.json.new") == NULL);
    CHECK(read_as(2, "/data/v1/xdefault/cam-1/holds.json") == NULL);
    free(content.data);
}

static void take_text(const char *text)
{
    content = (struct file_text){ .data = strdup(text), .len = strlen(text) };
}

TEST(what_is_of_no_format_is_refused_and_a_later_one_by_name)
{
    static const char *const bad[] = { "",    "[]",         "{",
                                       "{}",  "{\"a\": 1}", "{\"crc32c\": \"00000000\", \"next\": 1}",
                                       "null" };
    struct json *object = json_make_object();

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        take_text(bad[i]);
        CHECK(!is_read(2));
        CHECK_EQ(st.code, STATUS_DATA_LOSS);
        free(content.data);
    }
    json_set_u64(object, "format", CHECKED_JSON_FORMAT + 1);
    json_set_str(object, "file", kinds[2].file);
    content.data = checked_json_text(object, 0);
    content.len = strlen(content.data);
    CHECK(!is_read(2));
    CHECK_EQ(st.code, STATUS_PRECONDITION);
    CHECK_HAS(st.text, "its format is 3, this version reads up to 2");
    free(content.data);
}

/* What somebody has changed by hand is an older file again. */
TEST(a_file_without_the_three_members_is_of_format_1)
{
    take_text("{\"next\": 4, \"holds\": []}");
    CHECK_OK(is_read(2), st);
    free(content.data);
}

TEST_MAIN()
