/* kvstore_faulty_disk.h - a disk whose calls on segment files fail, or take too little, at a chosen place: a table for
 * store_options.disk; and what is written to such disks. */
#ifndef REELKV_TEST_KVSTORE_FAULTY_DISK_H
#define REELKV_TEST_KVSTORE_FAULTY_DISK_H

#include <errno.h>
#include <stdatomic.h>

#include "kvstore_fixture.h"

enum fault_call {
    FAULT_WRITE = 1,
    FAULT_SYNC = 2,
    FAULT_RESERVE = 4,
    FAULT_OPEN = 8,
    FAULT_READ = 16,
    FAULT_CUT = 32,
    FAULT_RENAME = 64,
    FAULT_UNLINK = 128,
    FAULT_ALL = 255
};

static struct {
    atomic_uint watched;  /* kinds */
    atomic_int error;     /* errno; 0: short writes and reads instead */
    atomic_int countdown; /* the call that brings it to 0 fails */
    atomic_int repeats;   /* how many fail from there on */
    atomic_int failed;
} fault;

static bool fault_strikes(enum fault_call call)
{
    if ((fault.watched & call) == 0 || atomic_fetch_sub(&fault.countdown, 1) > 1)
        return false;
    if (atomic_fetch_sub(&fault.repeats, 1) <= 0)
        return false;
    fault.failed++;
    errno = fault.error;
    return true;
}

/* A place of one file, or of all, that is read a few times and then never again. */
static struct {
    atomic_ullong inode; /* 0: none; BAD_EVERYWHERE: of all files */
    atomic_llong from, to;
    atomic_int good_reads, failed;
} bad_sector;
#define BAD_EVERYWHERE UINT64_MAX

static bool is_bad_sector(int fd, size_t len, off_t offset)
{
    struct stat info;

    if (bad_sector.inode == 0 || offset >= bad_sector.to || offset + (off_t)len <= bad_sector.from ||
        fstat(fd, &info) != 0 || (bad_sector.inode != BAD_EVERYWHERE && info.st_ino != bad_sector.inode) ||
        atomic_fetch_sub(&bad_sector.good_reads, 1) > 0)
        return false;
    bad_sector.failed++;
    errno = EIO;
    return true;
}

/* path NULL: of all files. */
static inline void plan_bad_sector(const char *path, uint64_t from, uint64_t to, int good_reads)
{
    struct stat info = { 0 };

    CHECK(path == NULL || stat(path, &info) == 0);
    bad_sector.from = (long long)from;
    bad_sector.to = (long long)to;
    bad_sector.good_reads = good_reads;
    bad_sector.failed = 0;
    bad_sector.inode = path == NULL ? BAD_EVERYWHERE : info.st_ino;
}

static bool is_segment_path(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot != NULL && (strcmp(dot, ".open") == 0 || strcmp(dot, ".seg") == 0);
}

/* A small file on its way to its name. */
static bool is_beside(const char *path)
{
    return strlen(path) > 4 && strcmp(path + strlen(path) - 4, ".new") == 0;
}

/* Segments are read and written in pages; other files are no multiple of them. */
static bool is_of_pages(size_t len)
{
    return len % KV_PAGE_BYTES == 0;
}

static int fault_open(const char *path, int flags, mode_t mode)
{
    return is_segment_path(path) && fault_strikes(FAULT_OPEN) ? -1 : file_system.open(path, flags, mode);
}

static ssize_t fault_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    struct iovec first = pieces[0];

    if (!is_of_pages(first.iov_len) || !fault_strikes(FAULT_WRITE))
        return file_system.pwritev(fd, pieces, count, offset);
    if (fault.error != 0)
        return -1;
    if (first.iov_len > KV_PAGE_BYTES)
        first.iov_len = KV_PAGE_BYTES;
    return file_system.pwritev(fd, &first, 1, offset);
}

static ssize_t fault_pread(int fd, void *to, size_t len, off_t offset)
{
    if (is_of_pages(len) && is_bad_sector(fd, len, offset))
        return -1;
    if (!is_of_pages(len) || !fault_strikes(FAULT_READ))
        return file_system.pread(fd, to, len, offset);
    if (fault.error != 0)
        return -1;
    return file_system.pread(fd, to, len < KV_PAGE_BYTES ? len : KV_PAGE_BYTES, offset);
}

static int fault_fallocate(int fd, int mode, off_t offset, off_t len)
{
    return fault_strikes(FAULT_RESERVE) ? -1 : file_system.fallocate(fd, mode, offset, len);
}

static int fault_ftruncate(int fd, off_t len)
{
    return fault_strikes(FAULT_CUT) ? -1 : file_system.ftruncate(fd, len);
}

static int fault_fdatasync(int fd)
{
    return fault_strikes(FAULT_SYNC) ? -1 : file_system.fdatasync(fd);
}

static int fault_rename(const char *from, const char *to)
{
    return !is_beside(from) && fault_strikes(FAULT_RENAME) ? -1 : file_system.rename(from, to);
}

static int fault_unlink(const char *path)
{
    return is_segment_path(path) && fault_strikes(FAULT_UNLINK) ? -1 : file_system.unlink(path);
}

/* The nth call of the watched kinds fails, and so do `repeats` - 1 behind it. */
static inline void plan_fault(unsigned watched, int error, int nth, int repeats)
{
    fault.watched = 0;
    fault.error = error;
    fault.countdown = nth;
    fault.repeats = repeats;
    fault.failed = 0;
    fault.watched = watched;
}

static inline const struct file_ops *faulty_disk(void)
{
    static struct file_ops faulty;

    faulty = file_system;
    faulty.open = fault_open;
    faulty.pwritev = fault_pwritev;
    faulty.pread = fault_pread;
    faulty.fallocate = fault_fallocate;
    faulty.ftruncate = fault_ftruncate;
    faulty.fdatasync = fault_fdatasync;
    faulty.rename = fault_rename;
    faulty.unlink = fault_unlink;
    return &faulty;
}

/* A store on that disk, with nothing planned yet. */
static inline void fault_start(struct fixture *fixture)
{
    plan_fault(0, 0, 0, 0);
    fixture_start(fixture);
    fixture_stop(fixture);
    fixture->options.disk = faulty_disk();
    fixture_open(fixture);
}

/* Several segments, a gap, and everything durable in the end. */
enum { FAULT_FRAMES = 200 };

static inline void fault_write_all(struct fixture *fixture, struct stream *stream)
{
    struct stream_gap gap = { .to_seq = 105, .from_seq = 100, .reason = "away" };
    struct fixture_writer writer;

    fixture_attach(fixture, stream, &writer);
    fixture_append_init(fixture, stream);
    fixture_append(fixture, stream, 100);
    CHECK_OK(stream_append_gap(stream, &gap, &fixture->st), fixture->st);
    fixture_append(fixture, stream, FAULT_FRAMES - 105);
    fixture_wait_durable(fixture, stream);
    CHECK_EQ(stream->next_seq, FAULT_FRAMES);
    stream_detach(stream, &writer.base);
}

static inline void fault_check_all(struct fixture *fixture, struct stream *stream)
{
    CHECK_EQ(stream->next_seq, FAULT_FRAMES);
    CHECK_EQ(stream->gap_frames, 5);
    CHECK_EQ(stream_frame_count(stream), FAULT_FRAMES - 5);
    fixture_check_all(fixture, stream, 0, 100);
    CHECK_EQ(fixture_read_layer(fixture, stream, 102, 0), FRAME_GAP);
    fixture_check_all(fixture, stream, 105, FAULT_FRAMES);
}

/* Returns how many were taken before the store had no room; the loop turns now and then. */
static inline uint64_t fault_append_until_refused(struct fixture *fixture, struct stream *stream)
{
    uint64_t taken = 0;

    for (;;) {
        struct stream_block block = fixture_block(stream, stream->next_seq);

        if (!fixture_append_block(fixture, stream, &block, &fixture->st))
            break;
        if (++taken % 20 == 0)
            loop_run_once(fixture->loop);
    }
    CHECK_EQ(fixture->st.code, STATUS_EXHAUSTED);
    return taken;
}

#endif
