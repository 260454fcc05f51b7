/* Whole files on a disk that does what disks do: calls that are interrupted or move a part go on, those that fail say which
 * and why, and nothing half done is left. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/disk.h"
#include "support/test.h"

static struct status st;

/* --- a disk on which chosen calls behave otherwise --- */

enum trick { GOES_WELL, IS_INTERRUPTED, MOVES_A_PART, MOVES_NOTHING, FAILS };

static struct {
    enum trick open, pread, pwritev, fsync, stat, lstat, mkdir, rmdir, unlink, rename, fallocate;
    int error;
    uint32_t interruptions;
} trick;

/* Every second call is interrupted. */
static bool is_tricked(enum trick kind)
{
    if (kind == IS_INTERRUPTED && trick.interruptions++ % 2 == 0) {
        errno = EINTR;
        return true;
    }
    if (kind == FAILS)
        errno = trick.error;
    return kind == FAILS;
}

static int tricky_open(const char *path, int flags, mode_t mode)
{
    return is_tricked(trick.open) ? -1 : file_system.open(path, flags, mode);
}

static ssize_t tricky_pread(int fd, void *to, size_t len, off_t offset)
{
    if (trick.pread == MOVES_NOTHING)
        return 0;
    return is_tricked(trick.pread) ? -1
                                   : file_system.pread(fd, to, trick.pread == MOVES_A_PART ? 1 : len, offset);
}

static ssize_t tricky_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    struct iovec part = { pieces[0].iov_base, 1 };

    if (trick.pwritev == MOVES_NOTHING)
        return 0;
    if (is_tricked(trick.pwritev))
        return -1;
    return trick.pwritev == MOVES_A_PART ? file_system.pwritev(fd, &part, 1, offset)
                                         : file_system.pwritev(fd, pieces, count, offset);
}

static int tricky_fsync(int fd)
{
    return is_tricked(trick.fsync) ? -1 : file_system.fsync(fd);
}

static int tricky_stat(const char *path, struct stat *info)
{
    return is_tricked(trick.stat) ? -1 : file_system.stat(path, info);
}

static int tricky_lstat(const char *path, struct stat *info)
{
    return is_tricked(trick.lstat) ? -1 : file_system.lstat(path, info);
}

static int tricky_mkdir(const char *path, mode_t mode)
{
    return is_tricked(trick.mkdir) ? -1 : file_system.mkdir(path, mode);
}

static int tricky_rmdir(const char *path)
{
    return is_tricked(trick.rmdir) ? -1 : file_system.rmdir(path);
}

static int tricky_unlink(const char *path)
{
    return is_tricked(trick.unlink) ? -1 : file_system.unlink(path);
}

static int tricky_rename(const char *from, const char *to)
{
    return is_tricked(trick.rename) ? -1 : file_system.rename(from, to);
}

static int tricky_fallocate(int fd, int mode, off_t offset, off_t len)
{
    return is_tricked(trick.fallocate) ? -1 : file_system.fallocate(fd, mode, offset, len);
}

static const struct file_ops *tricky(void)
{
    static struct file_ops disk;

    memset(&trick, 0, sizeof trick);
    trick.error = EIO;
    disk = file_system;
    disk.open = tricky_open;
    disk.pread = tricky_pread;
    disk.pwritev = tricky_pwritev;
    disk.fsync = tricky_fsync;
    disk.stat = tricky_stat;
    disk.lstat = tricky_lstat;
    disk.mkdir = tricky_mkdir;
    disk.rmdir = tricky_rmdir;
    disk.unlink = tricky_unlink;
    disk.rename = tricky_rename;
    disk.fallocate = tricky_fallocate;
    return &disk;
}

static const char *in_folder(const char *name)
{
    static char path[2][PATH_MAX];
    static unsigned turn;

    snprintf(path[++turn % 2], PATH_MAX, "%s/%s", test_folder(), name);
    return path[turn % 2];
}

static const char *long_path(size_t len)
{
    static char path[2 * PATH_MAX];

    memset(path, 'a', len);
    path[0] = '/';
    path[len] = '\0';
    return path;
}

#define FAILS_WITH(call, code_, words) \
    do {                               \
        CHECK(!(call));                \
        CHECK_EQ(st.code, code_);      \
        CHECK_HAS(st.text, words);     \
    } while (0)

static bool holds(const char *path, const char *want)
{
    struct file_text text;
    bool is_same;

    CHECK_OK(file_read_all(path, 100, &text, &st), st);
    is_same = strcmp(text.data, want) == 0;
    free(text.data);
    return is_same;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* --- reading and writing --- */

TEST(file_is_read_through_interruptions_and_in_parts)
{
    const struct file_ops *disk = tricky();
    const char *path = in_folder("a");
    struct file_text text;

    CHECK_OK(file_write_durable(path, "hello", 5, &st), st);
    for (trick.pread = IS_INTERRUPTED; trick.pread <= MOVES_A_PART; trick.pread++) {
        CHECK_OK(file_read_all_on(disk, path, 5, &text, &st), st);
        CHECK_EQ(text.len, 5);
        CHECK_STR(text.data, "hello");
        free(text.data);
    }
    FAILS_WITH(file_read_all_on(disk, path, 5, &text, &st), STATUS_DATA_LOSS,
               "it became shorter while being read");
    trick.pread = FAILS;
    FAILS_WITH(file_read_all_on(disk, path, 5, &text, &st), status_code_of_errno(EIO), "read ");
    FAILS_WITH(file_read_all(path, 4, &text, &st), STATUS_INVALID, "has 5 bytes; at most 4 are read");
    FAILS_WITH(file_read_all(test_folder(), 4, &text, &st), STATUS_INVALID, "is not a regular file");
}

TEST(file_is_written_through_interruptions_and_in_parts)
{
    const struct file_ops *disk = tricky();
    const char *path = in_folder("a");

    for (trick.pwritev = IS_INTERRUPTED; trick.pwritev <= MOVES_A_PART; trick.pwritev++) {
        const char *text = trick.pwritev == IS_INTERRUPTED ? "one" : "two";

        CHECK_OK(file_write_durable_on(disk, path, text, 3, &st), st);
        CHECK(holds(path, text));
    }
}

/* The old content stays, and what was written beside it goes. */
TEST(file_that_cannot_be_replaced_is_as_it_was)
{
    const struct file_ops *disk = tricky();
    enum trick *const calls[] = { &trick.open, &trick.pwritev, &trick.fsync, &trick.rename };
    const char *const words[] = { "create ", "write", "sync ", "rename to " };
    char path[PATH_MAX], beside[PATH_MAX + 4];

    snprintf(path, sizeof path, "%s", in_folder("a"));
    snprintf(beside, sizeof beside, "%s.new", path);
    CHECK_OK(file_write_durable(path, "old", 3, &st), st);
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        *calls[i] = FAILS;
        FAILS_WITH(file_write_durable_on(disk, path, "new", 3, &st), status_code_of_errno(EIO), words[i]);
        CHECK_EQ(errno, EIO);
        *calls[i] = GOES_WELL;
        CHECK(holds(path, "old") && !is_there(beside));
    }
    trick.pwritev = MOVES_NOTHING;
    FAILS_WITH(file_write_durable_on(disk, path, "new", 3, &st), STATUS_EXHAUSTED, "the disk took nothing");
    CHECK(holds(path, "old") && !is_there(beside));
}

TEST(file_paths_have_a_limit)
{
    struct file_names names;

    FAILS_WITH(file_write_durable(long_path(2 * PATH_MAX - 1), "", 0, &st), STATUS_INVALID, "is too long");
    FAILS_WITH(file_write_durable(long_path(PATH_MAX - 2), "", 0, &st), STATUS_INVALID, "is too long");
    FAILS_WITH(file_make_folders(long_path(PATH_MAX), &st), STATUS_INVALID, "empty or too long");
    FAILS_WITH(file_make_folders("", &st), STATUS_INVALID, "empty or too long");
    FAILS_WITH(file_remove_tree(long_path(PATH_MAX), &st), STATUS_INVALID, "is too long");
    FAILS_WITH(file_list_on(&file_system, in_folder("nothing"), &names, &st), STATUS_NOT_FOUND,
               "open folder");
    file_names_free(&names);
}

/* Without a slash it is in the folder at hand. */
TEST(file_is_written_where_the_process_is)
{
    char before[PATH_MAX];

    CHECK(getcwd(before, sizeof before) != NULL);
    CHECK_EQ(chdir(test_folder()), 0);
    CHECK_OK(file_write_durable("a", "here", 4, &st), st);
    CHECK_EQ(chdir(before), 0);
    CHECK(holds(in_folder("a"), "here"));
}

TEST(file_written_through_says_what_was_not_taken)
{
    const char *path = in_folder("a");

    CHECK_OK(file_write_through(path, "long", 4, &st), st);
    CHECK_OK(file_write_through(path, "new", 3, &st), st);
    CHECK(holds(path, "new"));
    FAILS_WITH(file_write_through(in_folder("nothing/a"), "x", 1, &st), STATUS_NOT_FOUND, "open ");
    FAILS_WITH(file_write_through("/dev/full", "x", 1, &st), STATUS_EXHAUSTED, "/dev/full: write");
}

/* --- folders --- */

TEST(folders_that_cannot_be_made)
{
    const struct file_ops *disk = tricky();

    CHECK_OK(file_write_durable(in_folder("file"), "", 0, &st), st);
    FAILS_WITH(file_make_folders(in_folder("file"), &st), STATUS_EXISTS, "a file has that name");
    CHECK(!file_make_folders(in_folder("file/under"), &st));
    trick.mkdir = FAILS;
    trick.error = ENOSPC;
    FAILS_WITH(file_make_folders_on(disk, in_folder("new"), &st), STATUS_EXHAUSTED, "make folder");
    CHECK(!is_there(in_folder("new")));
    trick.mkdir = GOES_WELL;
    trick.stat = FAILS;
    FAILS_WITH(file_make_folders_on(disk, in_folder("new"), &st), STATUS_EXHAUSTED, "make folder");
    trick.fsync = FAILS;
    FAILS_WITH(file_sync_folder_on(disk, test_folder(), &st), STATUS_EXHAUSTED, "sync folder");
    trick.open = FAILS;
    FAILS_WITH(file_sync_folder_on(disk, test_folder(), &st), STATUS_EXHAUSTED, "open folder");
}

/* What somebody else removed meanwhile is gone, which was all that was wanted. */
TEST(folders_are_removed_or_it_is_said_why_not)
{
    const struct file_ops *disk = tricky();
    enum trick *const calls[] = { &trick.lstat, &trick.rmdir, &trick.unlink };

    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        CHECK_OK(file_make_folders(in_folder("tree/a"), &st), st);
        CHECK_OK(file_write_durable(in_folder("tree/a/file"), "", 0, &st), st);
        *calls[i] = FAILS;
        trick.error = EBUSY;
        FAILS_WITH(file_remove_tree_on(disk, in_folder("tree"), &st), status_code_of_errno(EBUSY), "remove ");
        CHECK(is_there(in_folder("tree/a")));
        trick.error = ENOENT;
        if (calls[i] != &trick.unlink) /* the folder around it is not empty then */
            CHECK_OK(file_remove_tree_on(disk, in_folder("tree"), &st), st);
        *calls[i] = GOES_WELL;
    }
    CHECK_OK(file_remove_tree_on(disk, in_folder("tree"), &st), st);
    CHECK(!is_there(in_folder("tree")));
    CHECK_OK(file_remove_tree_on(disk, in_folder("tree"), &st), st);
}

static bool first_only(const char *name, void *user)
{
    ++*(uint32_t *)user;
    return false;
}

TEST(folder_is_listed_until_enough_is_seen)
{
    struct file_names names;
    uint32_t seen = 0;
    char name[8];

    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "n%02u", i);
        CHECK_OK(file_write_durable(in_folder(name), "", 0, &st), st);
    }
    CHECK_EQ(file_system.list(test_folder(), first_only, &seen), 0);
    CHECK_EQ(seen, 1);
    CHECK_OK(file_list_on(&file_system, test_folder(), &names, &st), st);
    CHECK_EQ(names.count, 20);
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "n%02u", i);
        CHECK_STR(names.list[i], name);
    }
    file_names_free(&names);
}

/* --- output and maps --- */

/* In a process of its own, whose stdout is this: what file_flush_output() says of a line that was printed. */
static bool flushes_to(int out)
{
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        signal(SIGPIPE, SIG_IGN);
        dup2(out, STDOUT_FILENO);
        printf("a line\n");
        exit(file_flush_output(&st) ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status) == EXIT_SUCCESS;
}

/* A reader that has seen enough is no failure; a disk that is full is one. */
TEST(output_that_nobody_takes_is_told_from_one_that_is_lost)
{
    int out[2], full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    CHECK(full >= 0 && pipe(out) == 0);
    CHECK(!flushes_to(full));
    CHECK(flushes_to(out[1]));
    close(out[0]);
    CHECK(flushes_to(out[1]));
    close(out[1]);
    close(full);
}

TEST(file_map_is_the_file)
{
    struct file_map map = { 0 };

    CHECK_OK(file_write_durable(in_folder("a"), "mapped", 6, &st), st);
    CHECK_OK(file_write_durable(in_folder("empty"), "", 0, &st), st);
    CHECK_OK(file_map_open(in_folder("a"), &map, &st), st);
    CHECK_EQ(map.len, 6);
    CHECK_MEM(map.data, "mapped", 6);
    file_map_close(&map);
    file_map_close(&map);
    CHECK(map.data == NULL);
    FAILS_WITH(file_map_open(in_folder("none"), &map, &st), STATUS_NOT_FOUND, "open ");
    FAILS_WITH(file_map_open(in_folder("empty"), &map, &st), STATUS_INVALID,
               "is empty or not a regular file");
    FAILS_WITH(file_map_open(test_folder(), &map, &st), STATUS_INVALID, "is empty or not a regular file");
}

/* --- pages --- */

TEST(pages_are_moved_through_interruptions_or_it_is_said_why_not)
{
    const struct file_ops *disk = tricky();
    uint8_t from[64], to[64];
    struct iovec pieces[2];
    int fd = open(in_folder("a"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    CHECK(fd >= 0);
    for (unsigned i = 0; i < sizeof from; i++)
        from[i] = (uint8_t)(i + 1);
    for (trick.pwritev = GOES_WELL; trick.pwritev <= FAILS; trick.pwritev++) {
        bool goes_well = trick.pwritev <= MOVES_A_PART;

        pieces[0] = (struct iovec){ from, 20 };
        pieces[1] = (struct iovec){ from + 20, 44 };
        CHECK_EQ(disk_write(disk, fd, pieces, 2, 0, &st), goes_well);
        CHECK(goes_well ||
              st.code == (trick.pwritev == FAILS ? status_code_of_errno(EIO) : STATUS_EXHAUSTED));
    }
    trick.pwritev = GOES_WELL;
    for (trick.pread = GOES_WELL; trick.pread <= FAILS; trick.pread++) {
        bool goes_well = trick.pread <= MOVES_A_PART;

        memset(to, 0, sizeof to);
        CHECK_EQ(disk_read(disk, fd, to, sizeof to, 0, &st), goes_well);
        CHECK(!goes_well || memcmp(from, to, sizeof to) == 0);
        CHECK(goes_well || st.code == (trick.pread == FAILS ? STATUS_UNAVAILABLE : STATUS_DATA_LOSS));
    }
    trick.fallocate = IS_INTERRUPTED;
    CHECK_OK(disk_reserve(disk, fd, 4096, &st), st);
    trick.fallocate = FAILS;
    trick.error = EOPNOTSUPP; /* such a file system fails later */
    CHECK_OK(disk_reserve(disk, fd, 4096, &st), st);
    trick.error = ENOSPC;
    FAILS_WITH(disk_reserve(disk, fd, 4096, &st), STATUS_EXHAUSTED, "reserve 4096 bytes");
    close(fd);
}

TEST_MAIN()
