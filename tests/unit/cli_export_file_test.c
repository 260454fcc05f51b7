/* The file of an export gets its name when it is whole, never over another, on whatever file system; else nothing stays. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "export_file.h"
#include "support/test.h"

/* What the file system is like, and how many syncs work. */
static int rename_error, link_error, good_syncs;

int __real_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __real_fsync(int fd);
int __wrap_fsync(int fd);

static int fails_with(int error)
{
    errno = error;
    return -1;
}

int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    return rename_error != 0 ? fails_with(rename_error) : __real_renameat2(from_fd, from, to_fd, to, flags);
}

int __wrap_link(const char *from, const char *to)
{
    return link_error != 0 ? fails_with(link_error) : __real_link(from, to);
}

int __wrap_fsync(int fd)
{
    return good_syncs-- > 0 ? __real_fsync(fd) : fails_with(EIO);
}

static struct status st;

static const char *in_folder(const char *name)
{
    static char path[600];

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static bool write_one(bool puts_another)
{
    struct export_writer writer;
    bool ok;

    CHECK_OK(export_writer_begin(&writer, in_folder("a"), &st), st);
    CHECK_OK(export_writer_item(&writer, EXPORT_END, "x", 1, 0, 0, &st), st);
    if (puts_another)
        CHECK_OK(file_write_through(in_folder("a"), "mine", 4, &st), st);
    ok = export_writer_finish(&writer, &st);
    export_writer_deinit(&writer);
    return ok;
}

static unsigned files_there(void)
{
    DIR *dir = opendir(test_folder());
    unsigned count = 0;

    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_type == DT_REG;
    closedir(dir);
    return count;
}

static void check_whole(void)
{
    struct export_reader reader;
    uint64_t payload_bytes;
    enum export_kind kind;

    CHECK_EQ(files_there(), 1);
    CHECK_OK(export_reader_begin(&reader, in_folder("a"), &st), st);
    CHECK_OK(export_reader_item(&reader, &kind, &payload_bytes, &st), st);
    CHECK_EQ(kind, EXPORT_END);
    CHECK_OK(export_reader_item(&reader, &kind, &payload_bytes, &st), st);
    CHECK_EQ((int)kind, 0);
    export_reader_deinit(&reader);
    CHECK_EQ(unlink(in_folder("a")), 0);
}

static const struct {
    int rename_error, link_error;
} file_systems[] = { { 0, EPERM }, { EINVAL, 0 }, { ENOSYS, 0 } }; /* FAT has no links: it took no export */

TEST(export_is_named_on_every_file_system)
{
    for (size_t i = 0; i < ARRAY_LEN(file_systems); i++) {
        rename_error = file_systems[i].rename_error;
        link_error = file_systems[i].link_error;
        good_syncs = 2;
        CHECK_OK(write_one(false), st);
        check_whole();
    }
}

TEST(export_takes_no_place_that_was_taken_meanwhile)
{
    for (size_t i = 0; i < ARRAY_LEN(file_systems); i++) {
        struct file_text text;

        rename_error = file_systems[i].rename_error;
        link_error = file_systems[i].link_error;
        good_syncs = 2;
        CHECK(!write_one(true));
        CHECK_EQ(st.code, STATUS_EXISTS);
        CHECK_EQ(files_there(), 1);
        CHECK_OK(file_read_all(in_folder("a"), 100, &text, &st), st);
        CHECK_STR(text.data, "mine");
        free(text.data);
        CHECK_EQ(unlink(in_folder("a")), 0);
    }
}

/* Of the file, and of its name: that stayed, and counted as an export that was there. */
TEST(export_that_is_not_durable_is_not_there)
{
    rename_error = link_error = 0;
    for (int syncs = 0; syncs < 2; syncs++) {
        good_syncs = syncs;
        CHECK(!write_one(false));
        CHECK_EQ(st.code, status_code_of_errno(EIO));
        CHECK_EQ(files_there(), 0);
    }
}

TEST_MAIN()
