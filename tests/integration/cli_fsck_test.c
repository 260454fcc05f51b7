/* mem fsck and mem dump on folders that a store wrote: what is whole passes, what is not is named, and nothing is changed but
 * torn tails, when asked to. */
#include <sys/wait.h>

#include "base/file.h"
#include "base/json.h"
#include "support/process.h"
#include "unit/kvstore_picture.h"

enum { VERB_MS = 60000 };

static struct status st;
static struct process verb;
static struct fixture_writer other; /* of cam-2, until its store closes */

/* A log of its own for each. */
static int run_words(const char *const *words)
{
    static unsigned count;
    char name[32];

    snprintf(name, sizeof name, "verb-%u", count++);
    return process_run(&verb, name, words, VERB_MS);
}
#define RUN(...) run_words(PROCESS_ARGS("reelkv", __VA_ARGS__))

static struct json *printed(void)
{
    const char *text = process_log(&verb);
    struct json *value = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, &st);

    if (value == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", st.text, text);
    return value;
}

static uint64_t number(const struct json *object, const char *key)
{
    uint64_t value;

    CHECK_OK(json_read_u64(object, key, &value, &st), st);
    return value;
}

/* A camera of several sealed files, and one whose writer is killed with its store; paths of a file of each. */
static void write_store(struct fixture *fixture, char sealed[1024], char grown[1024])
{
    struct fixture_writer writer;
    struct stream *stream;
    char folder[600];

    fixture_start(fixture);
    stream = fixture_write(fixture, "cam-1", &writer, 100);
    CHECK_OK(fixture_append_gap(stream, 5, "camera away", &st), st);
    fixture_append(fixture, stream, 100);
    fixture_wait_durable(fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    CHECK(stream->segment_count >= 3);
    CHECK(snprintf(sealed, 1024, "%s.seg", stream->segments[1]->base) < 1024);
    stream = fixture_write(fixture, "cam-2", &other, 5);
    fixture_wait_durable(fixture, stream);
    snprintf(folder, sizeof folder, "%s/v1/default/cam-2/%020d", fixture->root, 1);
    picture_find_segment(folder, ".open", grown);
}

static void close_store(struct fixture *fixture)
{
    stream_detach(store_find(fixture->store, "default", "cam-2"), &other.base);
    fixture_stop(fixture);
}

static void flip(const char *path, uint64_t offset)
{
    struct file_text text;

    CHECK_OK(file_read_all(path, 64 << 20, &text, &st), st);
    CHECK(offset < text.len);
    text.data[offset] ^= 4;
    picture_write_file(path, text.data, text.len);
    free(text.data);
}

static uint64_t place_of(const char *path, const char *word)
{
    struct file_text text;
    const char *found;
    uint64_t place;

    CHECK_OK(file_read_all(path, 64 << 10, &text, &st), st);
    found = strstr(text.data, word);
    CHECK(found != NULL);
    place = (uint64_t)(found - text.data);
    free(text.data);
    return place;
}

TEST(fsck_passes_a_store_and_changes_nothing)
{
    char sealed[1024], grown[1024];
    struct file_text before, after;
    struct fixture fixture;
    struct json *value;

    write_store(&fixture, sealed, grown);
    CHECK_OK(file_read_all(sealed, 64 << 20, &before, &st), st);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 0);
    CHECK_HAS(process_log(&verb), "a store is running");
    CHECK_EQ(RUN("mem", "fsck", "--repair", fixture.root), 5);
    CHECK_HAS(process_log(&verb), "stop it before");
    close_store(&fixture);
    CHECK_EQ(RUN("mem", "fsck", "--json", fixture.root), 0);
    value = printed();
    CHECK(json_bool(json_get(value, "clean")));
    CHECK_EQ(number(value, "cameras"), 2);
    CHECK_EQ(number(value, "frames"), 205);
    CHECK_EQ(number(value, "frames_gap"), 5);
    CHECK_EQ(number(value, "skipped_files"), 0);
    CHECK_EQ(json_len(json_get(value, "findings")), 0);
    json_free(value);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 0);
    CHECK_HAS(process_log(&verb), "All is as it was written");
    CHECK_OK(file_read_all(sealed, 64 << 20, &after, &st), st);
    CHECK_EQ(after.len, before.len);
    CHECK_MEM(after.data, before.data, before.len);
    free(before.data);
    free(after.data);
}

/* A byte of a block, a whole file, a definition, a history: each by its name, with exit code 8. */
TEST(fsck_names_what_is_damaged)
{
    char sealed[1024], grown[1024], path[1200];
    struct fixture fixture;
    struct json *value;
    const struct json *finding;
    struct file_text text;

    write_store(&fixture, sealed, grown);
    close_store(&fixture);
    CHECK_OK(file_read_all(sealed, 64 << 20, &text, &st), st);
    flip(sealed, picture_offset(3) + 5000);
    CHECK_EQ(RUN("mem", "fsck", "--json", fixture.root), 8);
    value = printed();
    finding = json_at(json_get(value, "findings"), 0);
    CHECK_EQ(json_len(json_get(value, "findings")), 1);
    CHECK_STR(json_str(json_get(finding, "path")), sealed);
    CHECK_STR(json_str(json_get(finding, "kind")), "damage");
    CHECK(number(finding, "offset") <= picture_offset(3) + 5000);
    CHECK_EQ(number(finding, "to_seq"), number(finding, "from_seq") + 1);
    CHECK_EQ(number(value, "frames_damaged"), 1);
    json_free(value);
    CHECK_EQ(RUN("mem", "fsck", sealed), 8);
    CHECK_HAS(process_log(&verb), "the checksum does not fit of");
    CHECK_EQ(unlink(sealed), 0);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 8);
    CHECK_HAS(process_log(&verb), "were stored, and no file has them");
    picture_write_file(sealed, text.data, text.len);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 0);
    snprintf(path, sizeof path, "%s/v1/default/cam-1/stream.json", fixture.root);
    flip(path, place_of(path, "created_ns\": ") + 13);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 8);
    CHECK_HAS(process_log(&verb), "stream.json: damaged: its checksum does not fit");
    flip(path, place_of(path, "created_ns\": ") + 13);
    snprintf(path, sizeof path, "%s/v1/default/cam-1/history.json", fixture.root);
    picture_write_file(path, "{}", 2);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 8);
    CHECK_HAS(process_log(&verb), "history.json");
    CHECK_EQ(unlink(path), 0);
    snprintf(path, sizeof path, "%s/v1/default/cam-1/holds.json", fixture.root);
    picture_write_file(path, "[", 1);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 8);
    CHECK_HAS(process_log(&verb), "holds.json");
    CHECK_EQ(unlink(path), 0);
    snprintf(path, sizeof path, "%s/scrub.json", fixture.root);
    picture_write_file(path, "{\"format\":2,\"file\":\"scrub.json\"}", 32);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 8);
    CHECK_HAS(process_log(&verb), "scrub.json: damaged: its checksum does not fit");
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 0);
    CHECK_EQ(RUN("mem", "fsck", "/proc/self"), 3);
    CHECK_HAS(process_log(&verb), "name a cluster's, a kvstore's or a camera's, or a segment file");
    CHECK_EQ(RUN("mem", "fsck", "/nowhere"), 3);
    free(text.data);
}

/* All was well with a camera whose last file had gone, or its only one. */
TEST(fsck_misses_the_last_file_of_a_camera)
{
    char sealed[1024], grown[1024], folder[600], last[1024];
    struct file_names names;
    struct fixture fixture;

    write_store(&fixture, sealed, grown);
    close_store(&fixture);
    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", fixture.root, 1);
    CHECK_OK(file_list_on(&file_system, folder, &names, &st), st);
    CHECK(names.count >= 3);
    snprintf(last, sizeof last, "%s/%s", folder, names.list[names.count - 1]);
    file_names_free(&names);
    CHECK_EQ(unlink(last), 0);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 8);
    CHECK_HAS(process_log(&verb), "to 204 were stored, and no file has them");
    CHECK_EQ(RUN("mem", "fsck", "/etc/passwd"), 2);
    CHECK_HAS(process_log(&verb), "not named as a segment file");
}

/* What was written behind the mark goes, what is before it stays: the store has all its frames after it. */
TEST(fsck_repair_cuts_a_torn_tail)
{
    char sealed[1024], grown[1024];
    struct fixture fixture;
    struct file_text text;
    struct stream *stream;
    struct json *value;

    write_store(&fixture, sealed, grown);
    CHECK_OK(file_read_all(grown, 64 << 20, &text, &st), st);
    close_store(&fixture);
    snprintf(sealed, sizeof sealed, "%.*s.seg", (int)(strrchr(grown, '.') - grown), grown);
    CHECK_EQ(unlink(sealed), 0);
    memset(text.data + picture_offset(5) + 100, 0x5a, 9000); /* behind the five frames */
    picture_write_file(grown, text.data, text.len);
    CHECK_EQ(RUN("mem", "fsck", "--json", fixture.root), 0);
    value = printed();
    CHECK_EQ(number(value, "torn"), 1);
    CHECK_EQ(number(value, "cut_files"), 0);
    json_free(value);
    CHECK_EQ(RUN("mem", "fsck", "--repair", "--json", fixture.root), 0);
    value = printed();
    CHECK_EQ(number(value, "cut_files"), 1);
    json_free(value);
    CHECK_EQ(RUN("mem", "fsck", fixture.root), 0);
    CHECK_HAS(process_log(&verb), "All is as it was written");
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-2");
    CHECK_EQ(stream->next_seq, 5);
    fixture_check_all(&fixture, stream, 0, 5);
    fixture_stop(&fixture);
    free(text.data);
}

TEST(dump_shows_a_record_and_whether_it_fits)
{
    char sealed[1024], grown[1024], seq[32];
    struct fixture fixture;
    struct json *value;
    const struct json *part;
    uint64_t first;
    char byte[3];

    write_store(&fixture, sealed, grown);
    close_store(&fixture);
    CHECK_EQ(RUN("mem", "dump", sealed), 0);
    value = printed();
    CHECK_STR(json_str(json_get(json_get(value, "superblock"), "stream")), "cam-1");
    first = number(json_get(value, "superblock"), "first_seq");
    CHECK(number(json_get(value, "footer"), "frames") > 3);
    json_free(value);
    snprintf(seq, sizeof seq, "%llu", (unsigned long long)first + 3);
    CHECK_EQ(RUN("mem", "dump", sealed, "--seq", seq, "--payload"), 0);
    value = printed();
    CHECK_STR(json_str(json_get(value, "type")), "frame");
    CHECK_EQ(number(value, "seq"), first + 3);
    CHECK_EQ(number(value, "offset"), picture_offset(3));
    CHECK_EQ(json_len(json_get(value, "parts")), 4 + 2 * 3);
    part = json_at(json_get(value, "parts"), 1);
    CHECK_STR(json_str(json_get(part, "part")), "thumbnail");
    CHECK_STR(json_str(json_get(part, "hex")), "6a706567"); /* jpeg */
    part = json_at(json_get(value, "parts"), 4);
    CHECK_STR(json_str(json_get(part, "part")), "K");
    CHECK(json_bool(json_get(part, "fits")));
    snprintf(byte, sizeof byte, "%02x",
             fixture_byte("cam-1", first + 3, payload_layer_offset(&fixture_geometry, FIXTURE_TOKENS, 0)));
    CHECK_MEM(json_str(json_get(part, "hex")), byte, 2);
    flip(sealed, number(part, "offset") + 7);
    json_free(value);
    CHECK_EQ(RUN("mem", "dump", sealed, "--seq", seq), 8);
    value = printed();
    CHECK(!json_bool(json_get(json_at(json_get(value, "parts"), 4), "fits")));
    CHECK(json_bool(json_get(json_at(json_get(value, "parts"), 5), "fits")));
    json_free(value);
    CHECK_EQ(RUN("mem", "dump", sealed, "--offset", "4096"), 0);
    CHECK_HAS(process_log(&verb), "\"init\"");
    CHECK_EQ(RUN("mem", "dump", sealed, "--offset", "8192"), 8);
    CHECK_EQ(RUN("mem", "dump", sealed, "--payload"), 2);
    CHECK_EQ(RUN("mem", "dump", sealed, "--offset", "100"), 2);
    CHECK_EQ(RUN("mem", "dump", sealed, "--offset", "4096", "--seq", "1"), 2);
    CHECK_EQ(RUN("mem", "dump", sealed, "--seq", "100000"), 3);
    CHECK_EQ(RUN("mem", "dump", "/dev/null"), 2);
}

/* What had lost its end was printed with a word of it, and exit code 0. */
TEST(dump_of_a_sealed_file_without_its_footer_fails)
{
    char sealed[1024], grown[1024];
    struct fixture fixture;

    write_store(&fixture, sealed, grown);
    close_store(&fixture);
    CHECK_EQ(truncate(sealed, (off_t)picture_offset(3)), 0);
    CHECK_EQ(RUN("mem", "dump", sealed), 8);
    CHECK_HAS(process_log(&verb), "\"why\"");
}

TEST_MAIN()
