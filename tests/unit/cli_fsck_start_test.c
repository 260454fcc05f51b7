/* mem fsck and a start of the store judge the small files of a camera alike: each member of each file missing, of another type,
 * out of range or in contradiction to others, in a camera of its own; one fsck and one start over all of them. */
#include "fsck.h"
#include "kv/checked_json.h"
#include "kvstore_picture.h"

enum { CASES_MAX = 2048, TEXT_BYTES = 8192, BAD_MAX = 8 };

/* What a start makes of it. */
enum verdict { FINE, LOST, ASIDE }; /* LOST: served, and numbers are missing */

enum type { TEXT, COUNT, TIME, REAL, FLAG, ROWS };
static const char *const wrong_types[][BAD_MAX] = {
    [TEXT] = { "17", "true", "[]", "{}" },
    [COUNT] = { "-1", "\"1\"", "1.5", "true", "[]", "99999999999999999999" },
    [TIME] = { "\"1\"", "1.5", "true", "{}", "99999999999999999999" },
    [REAL] = { "\"1\"", "true", "[]", "1e999" },
    [FLAG] = { "0", "\"true\"", "[]" },
    [ROWS] = { "{}", "17", "\"x\"", "null", "[17]", "[{}]" },
};

struct member {
    const char *key;
    enum type type;
    const char *good;
    bool is_optional;
    const char *bad[BAD_MAX], *fine[BAD_MAX], *lost[BAD_MAX];
};

#define BEYOND   "72057594037927937" /* HISTORY_NUMBER_MAX and one */
#define TEXT_50  "01234567890123456789012345678901234567890123456789"
#define TEXT_200 TEXT_50 TEXT_50 TEXT_50 TEXT_50
#define TEXT_600 TEXT_200 TEXT_200 TEXT_200

static const struct member stream_members[] = {
    { "namespace", TEXT, "\"default\"", .bad = { "\"other\"", "\"\"" } },
    { "name", TEXT, "\"$\"", .bad = { "\"other\"", "\"\"" } },
    { "source", TEXT, "\"rtsp://cam/1\"", .fine = { "\"\"" },
      .bad = { "\"" TEXT_600 TEXT_600 TEXT_600 TEXT_600 "\"" } },
    { "kind", TEXT, "\"live\"", .fine = { "\"file\"" }, .bad = { "\"dead\"", "\"\"" } },
    { "sample_fps", REAL, "0.5", .fine = { "1", "0" }, .bad = { "-0.5", "-1" } },
    { "start_time_ns", TIME, "0", .fine = { "-1" } },
    { "created_ns", TIME, "1700000000000000000", .fine = { "-1" } },
    { "class", TEXT, "\"\"", true, .fine = { "\"night\"", "null" }, .bad = { "\"" TEXT_200 "\"" } },
    { "epoch", COUNT, "3", .fine = { "0", "72057594037927936" }, .bad = { BEYOND } },
    { "next_seq", COUNT, "12", true, .fine = { "0", "null" }, .lost = { "13" }, .bad = { BEYOND } },
    { "writer", TEXT, "\"analyzer-0\"", .fine = { "\"\"" }, .bad = { "\"" TEXT_200 "\"" } },
    { "expected_frames", COUNT, "0", .fine = { "7" }, .bad = { BEYOND } },
    { "ended", FLAG, "false", .fine = { "true" } },
    { "trouble", TEXT, "\"\"", .fine = { "\"" TEXT_200 "\"" }, .bad = { "\"" TEXT_600 "\"" } },
    { "importing", FLAG, "false", true, .fine = { "true" } }, /* and goes */
};

static const struct member history_members[] = {
    { "next_seq", COUNT, "12", .lost = { "13" }, .bad = { "11", "0", BEYOND } },
    { "next_token_index", COUNT, "240", .fine = { "0" }, .bad = { BEYOND } },
    { "spans", ROWS, "[{$},{\"from_seq\":8,\"to_seq\":12,\"from_pts_ns\":16,\"to_pts_ns\":22,\"frames\":0}]",
      .lost = { "[]", "[{$}]" }, .bad = { "[{$},{$}]" } },
};
static const struct member span_members[] = {
    { "from_seq", COUNT, "0", .lost = { "1" }, .bad = { "8", BEYOND } },
    { "to_seq", COUNT, "8", .lost = { "7" }, .bad = { "0", "9", BEYOND } },
    { "from_pts_ns", TIME, "1", .fine = { "-1", "100" } },
    { "to_pts_ns", TIME, "14", .fine = { "-1", "100" } },
    { "frames", COUNT, "7", .fine = { "0" }, .bad = { "9" } },
};

static const struct member hold_members[] = {
    { "next", COUNT, "3", .fine = { "4" }, .bad = { "0", "2" } },
    { "holds", ROWS, "[{$}]", .fine = { "[]" }, .bad = { "[{$},{$}]" } },
};
static const struct member hold_row[] = {
    { "number", COUNT, "2", .fine = { "1" }, .bad = { "0", "3" } },
    { "from_ns", TIME, "1000", .fine = { "-1" }, .bad = { "2000", "2001" } },
    { "to_ns", TIME, "2000", .fine = { "1001" }, .bad = { "-1", "1000" } },
    { "owner", TEXT, "\"police\"", .bad = { "\"" TEXT_200 "\"" } },
    { "reason", TEXT, "\"case 17\"", .fine = { "\"" TEXT_200 "\"" }, .bad = { "\"" TEXT_200 "1\"" } },
    { "until_ns", TIME, "0", .fine = { "-1", "4000000000000000000" } },
    { "created_ns", TIME, "3000", .fine = { "-1" } },
};

static const struct member forget_members[] = {
    { "next", COUNT, "2", .fine = { "3" }, .bad = { "0", "1" } },
    { "receipts", ROWS, "[{$}]", .fine = { "[]" }, .bad = { "[{$},{$}]" } },
};
static const struct member receipt_row[] = {
    { "number", COUNT, "1", .bad = { "0", "2" } },
    { "from_ns", TIME, "1000", .fine = { "-1" }, .bad = { "2000", "2001" } },
    { "to_ns", TIME, "2000", .fine = { "1001" }, .bad = { "-1", "1000" } },
    { "next_seq", COUNT, "12", .fine = { "0" }, .bad = { BEYOND } },
    { "asked_ns", TIME, "3000", .fine = { "-1" } },
    { "done_ns", TIME, "4000", .fine = { "-1", "0" } },
    { "frames", COUNT, "1", .fine = { "0" } },
    { "bytes", COUNT, "24576", .fine = { "0" } },
    { "files", COUNT, "1", .fine = { "0" } },
    { "store", TEXT, "\"kv-a\"", .bad = { "\"" TEXT_200 "\"" } },
    { "version", TEXT, "\"0.1.0\"", .bad = { "\"" TEXT_50 "\"" } },
};

static const struct kind {
    const char *name;
    const struct member *members, *row;
    size_t count, row_count;
} kinds[] = {
    { "stream.json", stream_members, NULL, ARRAY_LEN(stream_members), 0 },
    { "history.json", history_members, span_members, ARRAY_LEN(history_members), ARRAY_LEN(span_members) },
    { "holds.json", hold_members, hold_row, ARRAY_LEN(hold_members), ARRAY_LEN(hold_row) },
    { "forget.json", forget_members, receipt_row, ARRAY_LEN(forget_members), ARRAY_LEN(receipt_row) },
};

/* A camera, and what is done to one of its files. */
struct fault {
    const struct kind *kind;
    const struct member *member; /* NULL: the whole file */
    const char *value;           /* NULL: it is missing */
    unsigned format;
    enum verdict verdict;
    bool goes; /* with the start */
    bool is_reported;
};

static struct fault faults[CASES_MAX];
static unsigned fault_count;
static struct fixture fixture;

/* --- the files --- */

struct text {
    char bytes[TEXT_BYTES];
    size_t len;
};

/* `$` stands for the row, or the camera's name. */
static void add(struct text *text, const char *word, const char *dollar)
{
    for (; *word != '\0'; word++) {
        const char *from = *word == '$' ? dollar : word;
        size_t len = *word == '$' ? strlen(dollar) : 1;

        CHECK(text->len + len < sizeof text->bytes);
        memcpy(text->bytes + text->len, from, len);
        text->len += len;
    }
    text->bytes[text->len] = '\0';
}

static void add_members(struct text *text, const struct member *members, size_t count,
                        const struct fault *fault, const char *dollar)
{
    bool is_first = true;

    for (size_t i = 0; i < count; i++) {
        bool is_faulty = fault != NULL && fault->member == &members[i];

        if (is_faulty && fault->value == NULL)
            continue;
        add(text, is_first ? "\"" : ",\"", "");
        add(text, members[i].key, "");
        add(text, "\":", "");
        add(text, is_faulty ? fault->value : members[i].good, dollar);
        is_first = false;
    }
}

/* Of the format of the fault, under its checksum. */
static void write_file(const struct kind *kind, const char *camera, const struct fault *fault)
{
    struct text row = { 0 }, text = { 0 };
    char path[1024], head[256], tail[64];
    bool is_faulty = fault->kind == kind;

    if (is_faulty && fault->member == NULL && fault->value == NULL)
        return;
    snprintf(path, sizeof path, "%s/v1/default/%s/%s", fixture.root, camera, kind->name);
    if (is_faulty && fault->member == NULL) {
        picture_write_file(path, fault->value, strlen(fault->value));
        return;
    }
    snprintf(head, sizeof head, "{\"format\":2,\"file\":\"default/%s/%s\",", camera, kind->name);
    add(&text, fault->format == 1 ? "{" : head, "");
    add_members(&row, kind->row, kind->row_count, is_faulty ? fault : NULL, "");
    add_members(&text, kind->members, kind->count, is_faulty ? fault : NULL,
                kind->row == NULL ? camera : row.bytes);
    snprintf(tail, sizeof tail, ",\n\"crc32c\": \"%08x\"\n}\n", kv_crc(0, text.bytes, text.len));
    add(&text, fault->format == 1 ? "}" : tail, "");
    picture_write_file(path, text.bytes, text.len);
}

static void name_of(unsigned n, char name[16])
{
    snprintf(name, 16, "cam-%u", n);
}

static void write_camera(unsigned n)
{
    char camera[16], folder[1024];

    name_of(n, camera);
    snprintf(folder, sizeof folder, "%s/v1/default/%s", fixture.root, camera);
    CHECK_OK(file_make_folders(folder, &fixture.st), fixture.st);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        write_file(&kinds[i], camera, &faults[n]);
}

/* --- the faults --- */

static void plan(const struct kind *kind, const struct member *member, const char *value,
                 enum verdict verdict)
{
    for (unsigned format = 1; format <= CHECKED_JSON_FORMAT; format++) {
        CHECK(fault_count < CASES_MAX);
        faults[fault_count++] = (struct fault){
            .kind = kind,
            .member = member,
            .value = value,
            .format = format,
            .verdict = verdict,
            .goes = member != NULL && strcmp(member->key, "importing") == 0 && verdict == FINE &&
                    value != NULL && strcmp(value, "true") == 0,
        };
    }
}

static void plan_list(const struct kind *kind, const struct member *member, const char *const *values,
                      enum verdict verdict)
{
    for (size_t i = 0; i < BAD_MAX && values[i] != NULL; i++)
        plan(kind, member, values[i], verdict);
}

static void plan_members(const struct kind *kind, const struct member *members, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct member *member = &members[i];

        plan(kind, member, NULL, member->is_optional ? FINE : ASIDE);
        plan_list(kind, member, wrong_types[member->type], ASIDE);
        plan_list(kind, member, member->bad, ASIDE);
        plan_list(kind, member, member->fine, FINE);
        plan_list(kind, member, member->lost, LOST);
    }
}

static void plan_all(void)
{
    static const char *const no_files[BAD_MAX] = { "", "{", "[]", "17", "{}", "{\"format\":2}" };

    plan(NULL, NULL, NULL, FINE);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct kind *kind = &kinds[i];

        plan(kind, NULL, NULL, i == 0 ? ASIDE : i == 1 ? LOST : FINE);
        plan_list(kind, NULL, no_files, ASIDE);
        plan_members(kind, kind->members, kind->count);
        plan_members(kind, kind->row, kind->row_count);
    }
}

/* --- the two who judge --- */

static void reported(struct fsck *fsck, const char *path, const struct kv_finding *finding)
{
    const char *name = strstr(path, "/default/cam-");

    (void)fsck;
    CHECK_EQ(finding->kind, KV_FOUND_DAMAGE);
    CHECK(name != NULL);
    faults[strtoul(name + strlen("/default/cam-"), NULL, 10)].is_reported = true;
}

static bool go_on(struct fsck *fsck)
{
    (void)fsck;
    return true;
}

static void disagree(unsigned n, const char *who)
{
    const struct fault *fault = &faults[n];

    test_fail(__FILE__, __LINE__, "cam-%u, format %u: %s: \"%s\" of %s is %.60s", n, fault->format, who,
              fault->member == NULL ? "all" : fault->member->key,
              fault->kind == NULL ? "no file" : fault->kind->name,
              fault->value == NULL ? "missing" : fault->value);
}

static void compare(unsigned n)
{
    const struct fault *fault = &faults[n];
    const struct stream *stream;
    enum verdict verdict;
    char name[16];

    name_of(n, name);
    stream = store_find(fixture.store, "default", name);
    if (stream == NULL) {
        store_say_absent(fixture.store, "default", name, &fixture.st);
        if (fault->goes != (fixture.st.code == STATUS_NOT_FOUND))
            disagree(n, "the start has lost the camera");
    }
    verdict = stream == NULL && !fault->goes                        ? ASIDE
              : stream != NULL && stream_damaged_frames(stream) > 0 ? LOST
                                                                    : FINE;
    if (verdict != fault->verdict)
        disagree(n, verdict == ASIDE  ? "the start set it aside"
                    : verdict == LOST ? "the start misses numbers"
                                      : "the start believes it");
    if (fault->is_reported != (verdict != FINE))
        disagree(n, fault->is_reported ? "fsck reports what a start accepts"
                                       : "fsck passes what a start does not accept");
}

TEST(fsck_and_a_start_judge_every_member_alike)
{
    struct fsck fsck = { .found = reported, .advance = go_on };
    struct status st;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    fixture.options.disk_bytes = 1 << 30; /* of which each camera's files may take some */
    plan_all();
    for (unsigned n = 0; n < fault_count; n++)
        write_camera(n);
    CHECK_OK(fsck_path(&fsck, fixture.root, &st), st);
    CHECK_EQ(fsck.streams, fault_count);
    fixture_open(&fixture);
    for (unsigned n = 0; n < fault_count; n++)
        compare(n);
    fixture_stop(&fixture);
}

static void unread(struct fsck *fsck, const char *path, const struct kv_finding *finding)
{
    (void)fsck;
    CHECK_EQ(finding->kind, KV_FOUND_UNREAD);
    CHECK_HAS(path, "holds.json");
    CHECK_HAS(finding->text, "its format is 3");
}

/* A later version's: it is not damaged, and this one starts on no part of it. */
TEST(fsck_does_not_pass_a_file_of_a_later_format)
{
    static const char head[] = "{\"format\":3,\"file\":\"default/cam-0/holds.json\",\"next\":1,\"holds\":[]";
    struct fsck fsck = { .found = unread, .advance = go_on };
    char path[1024], text[256];
    struct status st;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    faults[0] = (struct fault){ .format = 2 };
    write_camera(0);
    snprintf(path, sizeof path, "%s/v1/default/cam-0/holds.json", fixture.root);
    snprintf(text, sizeof text, "%s,\n\"crc32c\": \"%08x\"\n}\n", head, kv_crc(0, head, sizeof head - 1));
    picture_write_file(path, text, strlen(text));
    CHECK_OK(fsck_path(&fsck, fixture.root, &st), st);
    CHECK_EQ(fsck.found_count[KV_FOUND_UNREAD], 1);
    CHECK_OK(loop_create(&fixture.loop, &st), st);
    CHECK(!store_open(&fixture.store, fixture.loop, &fixture.options, &st));
    CHECK_HAS(st.text, "its format is 3");
    loop_destroy(fixture.loop);
}

/* Neither a segment nor another small file, and yet something of a camera. */
TEST(fsck_sees_a_folder_that_has_lost_its_definition)
{
    struct fsck fsck = { .found = reported, .advance = go_on };
    char path[1024];
    struct status st;

    fixture_start(&fixture);
    fixture_stop(&fixture);
    snprintf(path, sizeof path, "%s/v1/default/cam-0", fixture.root);
    CHECK_OK(file_make_folders(path, &st), st);
    faults[0] = (struct fault){ 0 };
    snprintf(path, sizeof path, "%s/v1/default/cam-0/stream.json.new", fixture.root);
    picture_write_file(path, "{", 1);
    CHECK_OK(fsck_path(&fsck, fixture.root, &st), st);
    CHECK(!faults[0].is_reported);
    snprintf(path, sizeof path, "%s/v1/default/cam-0/notes", fixture.root);
    picture_write_file(path, "x", 1);
    CHECK_OK(fsck_path(&fsck, fixture.root, &st), st);
    CHECK(faults[0].is_reported);
    fixture_open(&fixture);
    CHECK(!store_say_absent(fixture.store, "default", "cam-0", &st));
    CHECK_EQ(st.code, STATUS_DATA_LOSS);
    fixture_stop(&fixture);
}

TEST_MAIN()
