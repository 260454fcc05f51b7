#include "sim_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kvstore/store.h"
#include "sim_tree.h"

enum { FDS_MAX = 64, FD_FIRST = 1000 };

static struct {
    struct sim_random *random;
    struct sim_node *root;
    struct sim_node *open[FDS_MAX];
    uint64_t crash_in, bytes_max;
    uint64_t fail_in, fail_times, failed, calls;
    uint64_t keep_times, kept;
    int error; /* 0: a part only */
    unsigned some_calls;
    uint32_t some_of_10000;
    uint32_t part_percent;
    bool is_off, is_kill; /* the machine stays on */
    bool is_part;         /* of what this call could move */
    const char *left_out;
} disk;

static struct {
    char *kinds[SIM_SYNC_KINDS_MAX];
    uint32_t count;
} met;

/* --- the machine --- */

void sim_disk_start(struct sim_random *random)
{
    disk.random = random;
    disk.root = sim_node_new(disk.root, true, "root");
    disk.crash_in = disk.bytes_max = disk.fail_in = disk.failed = disk.calls = 0;
    disk.keep_times = disk.kept = 0;
    disk.part_percent = disk.some_of_10000 = 0;
    disk.is_off = false;
}

void sim_disk_stop(void)
{
    sim_tree_free(disk.root);
    disk.root = NULL;
}

void sim_disk_crash_at(uint64_t n)
{
    disk.crash_in = n;
    disk.is_kill = false;
}

void sim_disk_kill_at(uint64_t n)
{
    disk.crash_in = n;
    disk.is_kill = true;
}

bool sim_disk_is_off(void)
{
    return disk.is_off;
}

bool sim_disk_was_cut(void)
{
    return disk.is_off && !disk.is_kill;
}

void sim_disk_go_on(void)
{
    for (uint32_t i = 0; i < FDS_MAX; i++)
        REQUIRE(disk.open[i] == NULL);
    disk.is_off = false;
    disk.crash_in = disk.fail_in = disk.failed = disk.calls = disk.keep_times = disk.kept = 0;
    disk.some_of_10000 = 0;
}

void sim_disk_boot(void)
{
    struct sim_node *root =
        disk.is_off ? sim_tree_after_crash(disk.root, disk.random) : sim_tree_copy(disk.root);

    sim_disk_go_on();
    sim_tree_free(disk.root);
    disk.root = root;
}

void sim_disk_fail_at(uint64_t n, uint64_t times, int error)
{
    disk.fail_in = n;
    disk.fail_times = times;
    disk.error = error;
}

void sim_disk_fail_some(unsigned calls, uint32_t of_10000)
{
    disk.some_calls = calls;
    disk.some_of_10000 = of_10000;
}

uint64_t sim_disk_failed(void)
{
    return disk.failed;
}

void sim_disk_keep_sealed(uint64_t times)
{
    disk.keep_times = times;
}

uint64_t sim_disk_kept(void)
{
    return disk.kept;
}

uint64_t sim_disk_calls(void)
{
    return disk.calls;
}

void sim_disk_move_parts(uint32_t percent)
{
    disk.part_percent = percent;
}

void sim_disk_leave_out(const char *sync_kind)
{
    disk.left_out = sync_kind;
}

const char *sim_disk_sync_kind(uint32_t n)
{
    return n < met.count ? met.kinds[n] : NULL;
}

uint64_t sim_disk_bytes_max(void)
{
    return disk.bytes_max;
}

static int fails_with(int error)
{
    errno = error;
    return -1;
}

/* Without room for even the history a file goes before it is written (store_budget.c): what a crash in between leaves, nobody
 * promises. */
static bool may_want_room(enum sim_call call, const char *name)
{
    return call == SIM_CALL_FOLDER_SYNC ||
           ((call == SIM_CALL_WRITE || call == SIM_CALL_FILE_SYNC) && strcmp(name, "history.json.new") != 0);
}

static bool is_one_of_some(enum sim_call call, const char *name)
{
    if ((disk.some_calls & call) == 0 || disk.some_of_10000 == 0 ||
        sim_pick(disk.random, 10000) >= disk.some_of_10000)
        return false;
    disk.failed++;
    errno = may_want_room(call, name) && sim_chance(disk.random, 50) ? ENOSPC : EIO;
    return true;
}

/* Before a call does its work; errno says why. */
static bool fails(enum sim_call call, const char *name)
{
    if (disk.is_off) {
        errno = EIO;
        return true;
    }
    disk.calls++;
    if (is_one_of_some(call, name))
        return true;
    disk.is_part = disk.part_percent > 0 && sim_chance(disk.random, disk.part_percent);
    if (disk.fail_in == 0 || --disk.fail_in > 0)
        return false;
    disk.fail_in = --disk.fail_times > 0;
    disk.is_part |= disk.error == 0;
    disk.failed += disk.error != 0;
    errno = disk.error;
    return disk.error != 0;
}

/* What a read or write moves. Whole sectors, where there are some. */
static size_t moved(size_t bytes)
{
    if (!disk.is_part || bytes < 2)
        return bytes;
    if (bytes <= SIM_SECTOR_BYTES)
        return 1 + sim_pick(disk.random, (uint32_t)bytes - 1);
    return SIM_SECTOR_BYTES * (1 + sim_pick(disk.random, (uint32_t)((bytes - 1) / SIM_SECTOR_BYTES)));
}

/* A call has done its work, and the power may go before anybody hears of it. */
static int done(void)
{
    uint64_t bytes = sim_tree_bytes(disk.root, STORE_STREAM_DISK_BYTES);

    if (bytes > disk.bytes_max)
        disk.bytes_max = bytes;
    if (disk.crash_in > 0 && --disk.crash_in == 0)
        disk.is_off = true;
    return disk.is_off ? fails_with(EIO) : 0;
}

static struct sim_node *node_of(int fd)
{
    REQUIRE(fd >= FD_FIRST && fd < FD_FIRST + FDS_MAX && disk.open[fd - FD_FIRST] != NULL);
    return disk.open[fd - FD_FIRST];
}

/* --- names --- */

static struct sim_node *node_at(const char *path)
{
    const char *name;
    const struct sim_node *folder = sim_tree_parent(disk.root, path, &name);

    return folder == NULL ? NULL : sim_folder_get(folder, name);
}

static int open_node(struct sim_node *node)
{
    for (int i = 0; i < FDS_MAX; i++)
        if (disk.open[i] == NULL) {
            disk.open[i] = node;
            return done() == 0 ? FD_FIRST + i : (disk.open[i] = NULL, -1);
        }
    return fails_with(EMFILE);
}

static int disk_open_path(const char *path, int flags, mode_t mode)
{
    const char *name;
    struct sim_node *folder = sim_tree_parent(disk.root, path, &name);
    struct sim_node *node = folder == NULL ? NULL : sim_folder_get(folder, name);

    if (fails((flags & O_CREAT) != 0 ? SIM_CALL_WRITE : SIM_CALL_OTHER, name))
        return -1;
    if (folder == NULL || (node == NULL && (flags & O_CREAT) == 0))
        return fails_with(ENOENT);
    if (node != NULL && (flags & O_CREAT) != 0 && (flags & O_EXCL) != 0)
        return fails_with(EEXIST);
    if (node != NULL && (flags & O_DIRECTORY) != 0 && !node->is_folder)
        return fails_with(ENOTDIR);
    if (node == NULL) {
        node = sim_node_new(disk.root, false, name);
        sim_folder_change(folder, SIM_MADE, NULL, name, node);
    } else if ((flags & O_TRUNC) != 0) {
        sim_file_resize(node, 0);
    }
    return open_node(node);
}

static int disk_close(int fd)
{
    node_of(fd);
    disk.open[fd - FD_FIRST] = NULL;
    return 0;
}

static int disk_stat(const char *path, struct stat *info)
{
    struct sim_node *node = node_at(path);

    if (fails(SIM_CALL_OTHER, ""))
        return -1;
    if (node == NULL)
        return fails_with(ENOENT);
    sim_node_stat(node, info);
    return done();
}

static int disk_mkdir(const char *path, mode_t mode)
{
    const char *name;
    struct sim_node *folder = sim_tree_parent(disk.root, path, &name);

    if (fails(SIM_CALL_WRITE, name))
        return -1;
    if (folder == NULL)
        return fails_with(ENOENT);
    if (sim_folder_get(folder, name) != NULL)
        return fails_with(EEXIST);
    sim_folder_change(folder, SIM_MADE, NULL, name, sim_node_new(disk.root, true, name));
    return done();
}

static int remove_name(const char *path, bool is_folder)
{
    const char *name;
    struct sim_node *folder = sim_tree_parent(disk.root, path, &name);
    struct sim_node *node = folder == NULL ? NULL : sim_folder_get(folder, name);

    if (fails(SIM_CALL_REMOVAL, name))
        return -1;
    if (node == NULL)
        return fails_with(ENOENT);
    if (node->is_folder != is_folder)
        return fails_with(is_folder ? ENOTDIR : EISDIR);
    if (is_folder && node->names.count > 0)
        return fails_with(ENOTEMPTY);
    sim_folder_change(folder, SIM_REMOVED, name, NULL, node);
    return done();
}

static int disk_rmdir(const char *path)
{
    return remove_name(path, true);
}

static int disk_unlink(const char *path)
{
    const char *dot = strrchr(path, '.');

    if (disk.keep_times == 0 || disk.is_off || dot == NULL || strcmp(dot, ".seg") != 0 ||
        node_at(path) == NULL)
        return remove_name(path, false);
    disk.keep_times--;
    disk.kept++;
    return fails_with(EIO);
}

static int disk_rename(const char *from, const char *to)
{
    const char *from_name, *to_name;
    struct sim_node *folder = sim_tree_parent(disk.root, from, &from_name);
    struct sim_node *node = folder == NULL ? NULL : sim_folder_get(folder, from_name);

    if (fails(SIM_CALL_WRITE, from_name))
        return -1;
    if (node == NULL)
        return fails_with(ENOENT);
    REQUIRE(sim_tree_parent(disk.root, to, &to_name) == folder); /* no other is simulated */
    sim_folder_change(folder, SIM_RENAMED, from_name, to_name, node);
    return done();
}

static int disk_list(const char *path, bool (*visit)(const char *name, void *user), void *user)
{
    struct sim_node *node = node_at(path);

    if (fails(SIM_CALL_OTHER, ""))
        return -1;
    if (node == NULL || !node->is_folder)
        return fails_with(node == NULL ? ENOENT : ENOTDIR);
    for (uint32_t i = 0; i < node->names.count && visit(node->names.list[i].name, user); i++)
        ;
    return done();
}

/* --- what is in files --- */

static ssize_t disk_pread(int fd, void *to, size_t len, off_t offset)
{
    if (fails(SIM_CALL_OTHER, "") || done() != 0)
        return -1;
    return (ssize_t)sim_file_read(node_of(fd), to, moved(len), (uint64_t)offset);
}

static ssize_t disk_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    struct sim_node *node = node_of(fd);
    uint64_t at = (uint64_t)offset;
    size_t left = 0;

    if (fails(SIM_CALL_WRITE, node->name))
        return -1;
    for (int i = 0; i < count; i++)
        left += pieces[i].iov_len;
    left = moved(left);
    for (int i = 0; i < count && left > 0; i++) {
        size_t bytes = pieces[i].iov_len < left ? pieces[i].iov_len : left;

        sim_file_write(node, pieces[i].iov_base, bytes, at);
        at += bytes;
        left -= bytes;
    }
    return done() == 0 ? (ssize_t)(at - (uint64_t)offset) : -1;
}

static off_t disk_lseek(int fd, off_t offset, int whence)
{
    uint64_t at = (uint64_t)offset;

    REQUIRE(whence == SEEK_DATA);
    if (fails(SIM_CALL_OTHER, "") || done() != 0)
        return -1;
    return sim_file_next_data(node_of(fd), &at) ? (off_t)at : fails_with(ENXIO);
}

static int disk_fallocate(int fd, int mode, off_t offset, off_t len)
{
    struct sim_node *node = node_of(fd);

    REQUIRE(mode == 0 && offset == 0);
    if (fails(SIM_CALL_WRITE, node->name))
        return -1;
    if ((uint64_t)len > node->now.length)
        sim_file_resize(node, (uint64_t)len);
    node->now.is_reserved = true;
    return done();
}

static int disk_ftruncate(int fd, off_t len)
{
    if (fails(SIM_CALL_OTHER, ""))
        return -1;
    sim_file_resize(node_of(fd), (uint64_t)len);
    return done();
}

static int disk_fstat(int fd, struct stat *info)
{
    if (fails(SIM_CALL_OTHER, ""))
        return -1;
    sim_node_stat(node_of(fd), info);
    return done();
}

static int disk_flock(int fd, int operation)
{
    return fails(SIM_CALL_OTHER, "") ? -1 : done();
}

bool sim_disk_rot(const char *path, uint64_t offset, uint8_t mask)
{
    const struct sim_node *node = node_at(path);
    uint64_t page = offset / SIM_PAGE_BYTES;

    if (node == NULL || page >= node->now.room || node->now.pages[page] == NULL)
        return false;
    node->now.pages[page]->bytes[offset % SIM_PAGE_BYTES] ^= mask;
    return true;
}

static bool page_has(const struct sim_page *page, const void *bytes, size_t len)
{
    for (size_t at = 0; at < SIM_PAGE_BYTES; at += len)
        if (memcmp(page->bytes + at, bytes, len) == 0)
            return true;
    return false;
}

static bool node_has(const struct sim_node *node, const void *bytes, size_t len)
{
    for (uint32_t i = 0; i < node->names.count; i++)
        if (node_has(node->names.list[i].node, bytes, len))
            return true;
    for (uint32_t i = 0; i < node->now.room; i++)
        if (node->now.pages[i] != NULL && page_has(node->now.pages[i], bytes, len))
            return true;
    return false;
}

bool sim_disk_has(const void *bytes, size_t len)
{
    REQUIRE(SIM_PAGE_BYTES % len == 0);
    return node_has(disk.root, bytes, len);
}

/* --- syncs --- */

static bool is_left_out(const struct sim_node *node)
{
    char kind[SIM_KIND_BYTES];
    uint32_t i = 0;

    if (!sim_sync_kind(node, kind))
        return false;
    while (i < met.count && strcmp(met.kinds[i], kind) != 0)
        i++;
    if (i == met.count) {
        REQUIRE(i < SIM_SYNC_KINDS_MAX);
        met.kinds[met.count++] = strdup(kind);
    }
    return disk.left_out != NULL && strcmp(disk.left_out, kind) == 0;
}

static int disk_sync(int fd)
{
    struct sim_node *node = node_of(fd);

    if (fails(node->is_folder ? SIM_CALL_FOLDER_SYNC : SIM_CALL_FILE_SYNC, node->name)) {
        int error = errno;

        if (!disk.is_off)
            sim_node_lose(node, disk.random);
        return fails_with(error);
    }
    if (done() != 0)
        return -1;
    if (!is_left_out(node))
        sim_node_sync(node);
    return 0;
}

const struct file_ops sim_disk = {
    .open = disk_open_path,
    .close = disk_close,
    .pread = disk_pread,
    .pwritev = disk_pwritev,
    .lseek = disk_lseek,
    .fallocate = disk_fallocate,
    .ftruncate = disk_ftruncate,
    .fstat = disk_fstat,
    .fsync = disk_sync,
    .fdatasync = disk_sync,
    .flock = disk_flock,
    .stat = disk_stat,
    .lstat = disk_stat,
    .mkdir = disk_mkdir,
    .rmdir = disk_rmdir,
    .rename = disk_rename,
    .unlink = disk_unlink,
    .list = disk_list,
};
