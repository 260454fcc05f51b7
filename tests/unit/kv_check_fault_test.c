/* A disk that does not answer, or memory that is short, is never taken for damage: whatever call fails while a file is
 * checked, what is told is that nobody knows; and cutting a torn end fails whole. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "kv/kv_check.h"
#include "kv_golden.h"
#include "support/test.h"

static struct status st;

/* --- a disk and a memory of which the n-th call fails --- */

static uint32_t calls_left, allocations_left; /* until one fails; 0: none does */
static bool has_failed;

static bool fails(void)
{
    if (calls_left == 0 || --calls_left > 0)
        return false;
    errno = EIO;
    return has_failed = true;
}

static int failing_open(const char *path, int flags, mode_t mode)
{
    return fails() ? -1 : file_system.open(path, flags, mode);
}

static ssize_t failing_pread(int fd, void *to, size_t len, off_t offset)
{
    return fails() ? -1 : file_system.pread(fd, to, len, offset);
}

static ssize_t failing_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return fails() ? -1 : file_system.pwritev(fd, pieces, count, offset);
}

static int failing_fstat(int fd, struct stat *info)
{
    return fails() ? -1 : file_system.fstat(fd, info);
}

static int failing_ftruncate(int fd, off_t len)
{
    return fails() ? -1 : file_system.ftruncate(fd, len);
}

static int failing_fdatasync(int fd)
{
    return fails() ? -1 : file_system.fdatasync(fd);
}

static int failing_fsync(int fd)
{
    return fails() ? -1 : file_system.fsync(fd);
}

static const struct file_ops *failing_disk(void)
{
    static struct file_ops disk;

    disk = file_system;
    disk.open = failing_open;
    disk.pread = failing_pread;
    disk.pwritev = failing_pwritev;
    disk.fstat = failing_fstat;
    disk.ftruncate = failing_ftruncate;
    disk.fdatasync = failing_fdatasync;
    disk.fsync = failing_fsync;
    return &disk;
}

int __real_posix_memalign(void **memory_p, size_t align, size_t bytes);
int __wrap_posix_memalign(void **memory_p, size_t align, size_t bytes);

int __wrap_posix_memalign(void **memory_p, size_t align, size_t bytes)
{
    if (allocations_left > 0 && --allocations_left == 0) {
        has_failed = true;
        return ENOMEM;
    }
    return __real_posix_memalign(memory_p, align, bytes);
}

/* --- a file, and a check of it --- */

struct looked {
    struct kv_check check;
    unsigned count[4]; /* by kind */
};

static void heard(struct kv_check *check, const struct kv_finding *finding)
{
    struct looked *looked = container_of(check, struct looked, check);

    CHECK(finding->text[0] != '\0');
    looked->count[finding->kind]++;
}

static void accounted(struct kv_check *check, uint64_t from_seq, uint64_t to_seq)
{
    CHECK(from_seq < to_seq);
}

static bool advanced(struct kv_check *check, uint64_t bytes)
{
    return true;
}

static char path[600];

static void prepare(struct looked *looked, bool is_open)
{
    *looked = (struct looked){ .check = { .disk = failing_disk(),
                                          .path = path,
                                          .name = { 40, 0x0123456789abcdef, is_open },
                                          .found = heard,
                                          .accounts = accounted,
                                          .advance = advanced } };
    has_failed = false;
}

enum { GROWING_BYTES = 3 << 20 }; /* its mark is read by itself */

/* The golden records, sealed; or as they grow, synced up to the fifth, with a torn page behind the last. */
static void write_file(bool is_open)
{
    struct golden golden;
    uint8_t *bytes = calloc(1, GROWING_BYTES);

    CHECK(bytes != NULL);
    golden_compose(&golden);
    snprintf(path, sizeof path, "%s/file", test_folder());
    memcpy(bytes, golden.bytes, golden.footer.table);
    kv_mark_put(golden.super.salt, golden.entries[5].offset, bytes + GROWING_BYTES - KV_PAGE_BYTES);
    memset(bytes + golden.footer.table, 0x5a, KV_PAGE_BYTES);
    CHECK_OK(file_write_durable(path, is_open ? bytes : golden.bytes, is_open ? GROWING_BYTES : golden.len,
                                &st),
             st);
    free(bytes);
    free(golden.bytes);
}

/* Either nobody knows, or, when a call was made again, all is as without a failure. */
static void check_never_damage(bool is_open)
{
    struct looked looked, sound;
    uint32_t n = 0, unread = 0;

    write_file(is_open);
    prepare(&sound, is_open);
    CHECK_OK(kv_check_run(&sound.check, &st), st);
    CHECK_EQ(sound.count[KV_FOUND_TORN], is_open);
    do {
        prepare(&looked, is_open);
        calls_left = ++n;
        CHECK_OK(kv_check_run(&looked.check, &st), st);
        calls_left = 0;
        if (looked.count[KV_FOUND_DAMAGE] + looked.count[KV_FOUND_KNOWN] > 0)
            test_fail(__FILE__, __LINE__, "call %u failed, and something was damaged", n);
        unread += looked.count[KV_FOUND_UNREAD] > 0;
        if (looked.count[KV_FOUND_UNREAD] == 0 && (looked.check.records != sound.check.records ||
                                                   looked.count[KV_FOUND_TORN] != sound.count[KV_FOUND_TORN]))
            test_fail(__FILE__, __LINE__, "call %u failed, and nothing was said", n);
        CHECK(has_failed || looked.count[KV_FOUND_UNREAD] == 0);
        CHECK(looked.count[KV_FOUND_UNREAD] == 0 || looked.check.torn_bytes == 0 ||
              looked.check.end == sound.check.end); /* nothing else is cut */
    } while (has_failed);
    CHECK(unread > 5);
}

TEST(check_of_a_sealed_file_on_a_disk_that_fails_finds_no_damage)
{
    check_never_damage(false);
}

TEST(check_of_a_growing_file_on_a_disk_that_fails_finds_no_damage)
{
    check_never_damage(true);
}

TEST(check_without_memory_says_so)
{
    struct looked looked;
    uint32_t n = 0;
    bool ok;

    write_file(false);
    do {
        prepare(&looked, false);
        allocations_left = ++n;
        ok = kv_check_run(&looked.check, &st);
        allocations_left = 0;
        CHECK(ok != has_failed);
        CHECK(ok || st.code == STATUS_EXHAUSTED);
        CHECK_EQ(looked.count[KV_FOUND_DAMAGE] + looked.count[KV_FOUND_UNREAD], 0);
    } while (has_failed);
    CHECK(n > 2);
}

/* Whatever fails, the records that are whole are there afterwards, and the end can be cut again. */
TEST(check_cuts_a_torn_end_on_a_disk_that_fails)
{
    struct looked looked, again;
    struct stat info;
    uint32_t n = 0;
    bool ok;

    do {
        write_file(true);
        prepare(&looked, true);
        CHECK_OK(kv_check_run(&looked.check, &st), st);
        CHECK_EQ(looked.count[KV_FOUND_TORN], 1);
        calls_left = ++n;
        ok = kv_check_cut(&looked.check, &st);
        calls_left = 0;
        CHECK(ok != has_failed);
        CHECK(ok || st.code == STATUS_UNAVAILABLE || st.code == status_code_of_errno(EIO));
        prepare(&again, true);
        CHECK_OK(kv_check_run(&again.check, &st), st);
        CHECK_EQ(again.check.records, looked.check.records);
        CHECK_EQ(again.count[KV_FOUND_DAMAGE] + again.count[KV_FOUND_UNREAD], 0);
        if (!ok)
            CHECK_OK(kv_check_cut(&again.check, &st), st);
        CHECK_EQ(stat(path, &info), 0);
        CHECK_EQ(info.st_size, looked.check.end + KV_PAGE_BYTES);
    } while (!ok);
    CHECK(n > 4);
    allocations_left = 1;
    CHECK(!kv_check_cut(&looked.check, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
}

/* A file that was made and never written is told from one that is damaged; so is one that is too short. */
TEST(check_of_a_file_that_was_never_written)
{
    static const uint8_t zeros[2 * KV_PAGE_BYTES];
    struct looked looked;

    snprintf(path, sizeof path, "%s/file", test_folder());
    CHECK_OK(file_write_durable(path, zeros, sizeof zeros, &st), st);
    prepare(&looked, true);
    CHECK_OK(kv_check_run(&looked.check, &st), st);
    CHECK_EQ(looked.count[KV_FOUND_TORN], 1);
    CHECK_EQ(looked.count[KV_FOUND_DAMAGE], 0);
    prepare(&looked, false);
    CHECK_OK(kv_check_run(&looked.check, &st), st);
    CHECK_EQ(looked.count[KV_FOUND_DAMAGE], 1);
    snprintf(path, sizeof path, "%s", test_folder()); /* no file at all */
    prepare(&looked, false);
    CHECK_OK(kv_check_run(&looked.check, &st), st);
    CHECK_EQ(looked.count[KV_FOUND_UNREAD], 1);
}

TEST_MAIN()
