/* Every byte of a segment file is looked at: whatever is changed is found, and named by its place; what was never acknowledged
 * as durable is told from damage. */
#include "kv/kv_check.h"

#include <errno.h>
#include <unistd.h>

#include "base/file.h"
#include "kv_golden.h"
#include "support/test.h"

static struct status st;

/* --- a disk of one file in memory --- */

static struct {
    const uint8_t *bytes;
    uint64_t len;
} file;

static int memory_open(const char *path, int flags, mode_t mode)
{
    return 7;
}

static int memory_close(int fd)
{
    return 0;
}

static ssize_t memory_pread(int fd, void *to, size_t len, off_t offset)
{
    uint64_t left = (uint64_t)offset < file.len ? file.len - (uint64_t)offset : 0;

    len = len < left ? len : left;
    memcpy(to, file.bytes + offset, len);
    return (ssize_t)len;
}

static off_t memory_lseek(int fd, off_t offset, int whence)
{
    return offset;
}

static int memory_fstat(int fd, struct stat *info)
{
    *info = (struct stat){ .st_mode = S_IFREG, .st_size = (off_t)file.len };
    return 0;
}

static const struct file_ops memory = { .open = memory_open,
                                        .close = memory_close,
                                        .pread = memory_pread,
                                        .lseek = memory_lseek,
                                        .fstat = memory_fstat };

/* --- a check whose findings are counted --- */

struct looked {
    struct kv_check check;
    unsigned count[4]; /* by kind */
    struct kv_finding last;
    uint64_t accounted, advanced;
    unsigned advances_left; /* then it is interrupted */
};

static void heard(struct kv_check *check, const struct kv_finding *finding)
{
    struct looked *looked = container_of(check, struct looked, check);

    looked->count[finding->kind]++;
    looked->last = *finding;
}

static void accounted(struct kv_check *check, uint64_t from_seq, uint64_t to_seq)
{
    container_of(check, struct looked, check)->accounted += to_seq - from_seq;
}

static bool advanced(struct kv_check *check, uint64_t bytes)
{
    struct looked *looked = container_of(check, struct looked, check);

    looked->advanced += bytes;
    return looked->advances_left-- > 0;
}

static void look(struct looked *looked, const struct file_ops *disk, const char *path, bool is_open)
{
    *looked = (struct looked){ .check = { .disk = disk,
                                          .path = path,
                                          .name = { 40, 0x0123456789abcdef, is_open },
                                          .found = heard,
                                          .accounts = accounted,
                                          .advance = advanced },
                               .advances_left = 1000000 };
    CHECK_OK(kv_check_run(&looked->check, &st), st);
}

static void look_at(struct looked *looked, const uint8_t *bytes, uint64_t len, bool is_open)
{
    file.bytes = bytes;
    file.len = len;
    look(looked, &memory, "memory", is_open);
}

static unsigned found(const struct looked *looked)
{
    return looked->count[KV_FOUND_DAMAGE] + looked->count[KV_FOUND_KNOWN] + looked->count[KV_FOUND_TORN] +
           looked->count[KV_FOUND_UNREAD];
}

/* The golden records without their footer, in a file that is being written: synced up to record `synced`. */
enum { GROWING_BYTES = 1 << 17 };
static uint8_t *grow(const struct golden *golden, uint32_t synced)
{
    uint8_t *bytes = calloc(1, GROWING_BYTES);

    CHECK(bytes != NULL);
    CHECK(golden->footer.table + 2 * KV_PAGE_BYTES < GROWING_BYTES);
    memcpy(bytes, golden->bytes, golden->footer.table);
    kv_mark_put(golden->super.salt, golden->entries[synced].offset, bytes + GROWING_BYTES - KV_PAGE_BYTES);
    return bytes;
}

TEST(check_passes_what_is_whole)
{
    struct golden golden;
    struct looked looked;
    uint8_t *growing;

    golden_compose(&golden);
    look_at(&looked, golden.bytes, golden.len, false);
    CHECK_EQ(found(&looked), 0);
    CHECK_EQ(looked.check.records, GOLDEN_RECORDS);
    CHECK_EQ(looked.check.frames, GOLDEN_FRAMES);
    CHECK_EQ(looked.check.gap_frames, 7);
    CHECK_EQ(looked.accounted, 17);
    CHECK_EQ(looked.check.end_seq, 57);
    CHECK_EQ(looked.advanced, golden.len);
    growing = grow(&golden, 2);
    look_at(&looked, growing, GROWING_BYTES, true);
    CHECK_EQ(found(&looked), 0);
    CHECK_EQ(looked.accounted, 17);
    CHECK_EQ(looked.check.end, golden.footer.table);
    free(growing);
    free(golden.bytes);
}

/* One bit of every eleventh byte of the file, of others in each page; padding and footer included. */
TEST(check_finds_a_bit_anywhere)
{
    struct golden golden;
    struct looked looked;

    golden_compose(&golden);
    for (uint64_t at = 0; at < golden.len; at += 11) {
        uint8_t bit = (uint8_t)(1u << at % 8);

        golden.bytes[at] ^= bit;
        look_at(&looked, golden.bytes, golden.len, false);
        if (looked.count[KV_FOUND_DAMAGE] + looked.count[KV_FOUND_UNREAD] == 0)
            test_fail(__FILE__, __LINE__, "byte %llu may be anything", (unsigned long long)at);
        if (at < golden.footer.table &&
            (looked.last.offset > at || looked.last.offset + looked.last.bytes <= at))
            test_fail(__FILE__, __LINE__, "byte %llu: found at %llu, %llu bytes: %s", (unsigned long long)at,
                      (unsigned long long)looked.last.offset, (unsigned long long)looked.last.bytes,
                      looked.last.text);
        golden.bytes[at] ^= bit;
    }
    free(golden.bytes);
}

/* Cut anywhere, two pages changed for each other, a page of another segment. */
TEST(check_finds_pages_that_are_not_where_they_belong)
{
    static uint8_t page[KV_PAGE_BYTES];
    struct golden golden;
    struct looked looked;

    golden_compose(&golden);
    for (uint64_t len = 0; len < golden.len; len += 512) {
        look_at(&looked, golden.bytes, len, false);
        CHECK(looked.count[KV_FOUND_DAMAGE] > 0);
    }
    for (uint64_t a = 0; a < golden.len; a += KV_PAGE_BYTES)
        for (uint64_t b = a + KV_PAGE_BYTES; b < golden.len; b += KV_PAGE_BYTES) {
            if (memcmp(golden.bytes + a, golden.bytes + b, KV_PAGE_BYTES) == 0)
                continue;
            memcpy(page, golden.bytes + a, KV_PAGE_BYTES);
            memcpy(golden.bytes + a, golden.bytes + b, KV_PAGE_BYTES);
            memcpy(golden.bytes + b, page, KV_PAGE_BYTES);
            look_at(&looked, golden.bytes, golden.len, false);
            CHECK(looked.count[KV_FOUND_DAMAGE] > 0);
            memcpy(golden.bytes + b, golden.bytes + a, KV_PAGE_BYTES);
            memcpy(golden.bytes + a, page, KV_PAGE_BYTES);
        }
    look_at(&looked, golden.bytes, golden.len, false);
    CHECK_EQ(found(&looked), 0);
    free(golden.bytes);
}

/* A footer that is whole by itself, of records that are whole, but not of these. */
TEST(check_finds_a_footer_that_is_of_other_records)
{
    struct golden golden;
    struct looked looked;
    struct kv_entry *entry;
    uint8_t *table;

    golden_compose(&golden);
    entry = &golden.entries[4];
    table = golden.bytes + golden.footer.table;
    entry->pts_ns++;
    kv_entry_put(entry, table + 4 * KV_ENTRY_BYTES);
    golden.footer.table_crc = kv_crc(0, table, golden.footer.notes - golden.footer.table);
    kv_footer_put(&golden.footer, golden.bytes + golden.len - KV_PAGE_BYTES);
    look_at(&looked, golden.bytes, golden.len, false);
    CHECK_EQ(looked.count[KV_FOUND_DAMAGE], 1);
    CHECK_HAS(looked.last.text, "something else of record 43");
    free(golden.bytes);
    golden_compose(&golden);
    golden.bytes[golden.footer.columns] ^= 1;
    golden.footer.column_crc[0] = kv_crc(0, golden.bytes + golden.footer.columns,
                                         kv_footer_column_end(&golden.footer, 0) - golden.footer.columns);
    kv_footer_put(&golden.footer, golden.bytes + golden.len - KV_PAGE_BYTES);
    look_at(&looked, golden.bytes, golden.len, false);
    CHECK_EQ(looked.count[KV_FOUND_DAMAGE], 1);
    CHECK_HAS(looked.last.text, "not its records");
    free(golden.bytes);
}

/* Damage that was found when the file was sealed stays told, and is not told again as new. */
TEST(check_knows_damage_that_was_marked)
{
    struct golden golden;
    struct looked looked;
    uint8_t *table;

    golden_compose(&golden);
    table = golden.bytes + golden.footer.table;
    golden.entries[2].flags = KV_ENTRY_DAMAGED;
    memset(golden.bytes + golden.entries[2].offset, 0x5a, golden.entries[2].record_bytes);
    kv_entry_put(&golden.entries[2], table + 2 * KV_ENTRY_BYTES);
    golden.footer.table_crc = kv_crc(0, table, golden.footer.notes - golden.footer.table);
    kv_footer_put(&golden.footer, golden.bytes + golden.len - KV_PAGE_BYTES);
    look_at(&looked, golden.bytes, golden.len, false);
    CHECK_EQ(looked.count[KV_FOUND_KNOWN], 1);
    CHECK_EQ(found(&looked), 1);
    CHECK_EQ(looked.last.from_seq, 41);
    CHECK_EQ(looked.last.to_seq, 42);
    CHECK_EQ(looked.check.damaged_frames, 1);
    CHECK_EQ(looked.accounted, 17);
    free(golden.bytes);
}

/* What lies before the mark was acknowledged; what lies behind it was not, also where it fits. */
TEST(check_tells_a_torn_tail_from_damage)
{
    struct golden golden;
    struct looked looked;
    uint8_t *growing;

    golden_compose(&golden);
    for (uint32_t i = 1; i < GOLDEN_RECORDS; i++) {
        growing = grow(&golden, 3);
        growing[golden.entries[i].offset + 300] ^= 1;
        look_at(&looked, growing, GROWING_BYTES, true);
        CHECK_EQ(found(&looked), 1);
        CHECK_EQ(looked.count[i < 3 ? KV_FOUND_DAMAGE : KV_FOUND_TORN], 1);
        CHECK_EQ(looked.last.offset, golden.entries[i].offset);
        CHECK_EQ(looked.check.end, i < 3 ? golden.footer.table : golden.entries[i].offset);
        CHECK_EQ(looked.check.torn_bytes > 0, i >= 3);
        free(growing);
    }
    free(golden.bytes);
}

/* On a real file: cut, then whole, with everything that was synced; cutting it again changes nothing. */
TEST(check_cuts_a_torn_tail_and_nothing_else)
{
    struct golden golden;
    struct looked looked;
    struct file_text left;
    uint8_t *growing;
    char path[600];

    golden_compose(&golden);
    growing = grow(&golden, 3);
    growing[golden.entries[4].offset + 300] ^= 1;
    snprintf(path, sizeof path, "%s/grown.open", test_folder());
    CHECK_OK(file_write_through(path, growing, GROWING_BYTES, &st), st);
    look(&looked, &file_system, path, true);
    CHECK_EQ(looked.count[KV_FOUND_TORN], 1);
    CHECK_OK(kv_check_cut(&looked.check, &st), st);
    for (unsigned round = 0; round < 2; round++) {
        look(&looked, &file_system, path, true);
        CHECK_EQ(found(&looked), 0);
        CHECK_EQ(looked.accounted, 3);
        CHECK_EQ(looked.check.synced, golden.entries[4].offset);
    }
    CHECK_OK(file_read_all(path, GROWING_BYTES, &left, &st), st);
    CHECK_EQ(left.len, golden.entries[4].offset + KV_PAGE_BYTES);
    CHECK_MEM(left.data, growing, golden.entries[4].offset);
    free(left.data);
    free(growing);
    free(golden.bytes);
}

static uint64_t mixed(uint64_t value)
{
    value = (value ^ value >> 31) * 0x7fb5d329728ea185ull;
    value = (value ^ value >> 27) * 0x81dadef4bc2dd44dull;
    return value ^ value >> 33;
}

/* Fields of any value under checksums that fit: whatever they say, reading stays within the file, and ends. */
TEST(check_survives_files_made_to_harm)
{
    struct golden golden;
    struct looked looked;

    golden_compose(&golden);
    for (uint64_t round = 0; round < 5000; round++) {
        uint64_t random = mixed(round + 1), kind = random % 4;
        uint64_t page = kind == 0   ? 0
                        : kind == 1 ? golden.len - KV_PAGE_BYTES
                        : kind == 2 ? golden.entries[random / 4 % GOLDEN_RECORDS].offset
                                    : golden.footer.table;
        uint64_t at =
            page + (kind == 3 ? random / 64 % (GOLDEN_RECORDS * KV_ENTRY_BYTES) : random / 64 % 160);
        uint8_t *bytes = golden.bytes, before[KV_PAGE_BYTES], trailer[KV_PAGE_BYTES];
        uint64_t trailer_at = golden.len - KV_PAGE_BYTES, value = mixed(random) >> random / 7 % 64;

        memcpy(before, bytes + page, KV_PAGE_BYTES);
        memcpy(trailer, bytes + trailer_at, KV_PAGE_BYTES);
        memcpy(bytes + at, &value, random % 3 == 0 ? 8 : random % 3 == 1 ? 4 : 1);
        if (kind == 3) {
            golden.footer.table_crc = kv_crc(0, bytes + page, golden.footer.notes - page);
            kv_footer_put(&golden.footer, bytes + trailer_at);
        } else {
            put_u32(bytes + page + KV_PAGE_BYTES - 4, kv_crc(0, bytes + page, KV_PAGE_BYTES - 4));
        }
        look_at(&looked, bytes, golden.len, round % 5 == 0);
        memcpy(bytes + page, before, KV_PAGE_BYTES);
        memcpy(bytes + trailer_at, trailer, KV_PAGE_BYTES);
    }
    look_at(&looked, golden.bytes, golden.len, false);
    CHECK_EQ(found(&looked), 0);
    free(golden.bytes);
}

TEST(check_stops_when_told_to)
{
    struct golden golden;
    struct looked looked;

    golden_compose(&golden);
    look_at(&looked, golden.bytes, golden.len, false);
    for (unsigned calls = 0; calls < 4; calls++) {
        struct kv_check *check = &looked.check;

        looked = (struct looked){ .check = { .disk = &memory,
                                             .path = "memory",
                                             .name = { 40, 0x0123456789abcdef, false },
                                             .found = heard,
                                             .accounts = accounted,
                                             .advance = advanced },
                                  .advances_left = calls };
        CHECK(!kv_check_run(check, &st));
        CHECK_EQ(st.code, STATUS_CANCELLED);
    }
    free(golden.bytes);
}

TEST_MAIN()
