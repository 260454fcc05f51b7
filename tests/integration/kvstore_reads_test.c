/* The kvstore as a process that reads its disk with io_uring, and with threads: the same comes. */
#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include "kvstore_cold.h"

static struct server server;

/* Segment files that the process has open. */
static unsigned open_segments(const struct server *of)
{
    char folder[64], path[PATH_MAX], target[PATH_MAX];
    unsigned count = 0;
    DIR *dir;

    snprintf(folder, sizeof folder, "/proc/%d/fd", (int)of->process.pid);
    dir = opendir(folder);
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        ssize_t len;

        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        len = readlink(path, target, sizeof target - 1);
        target[len > 0 ? len : 0] = '\0';
        count += strstr(target, ".seg") != NULL;
    }
    closedir(dir);
    return count;
}

/* Files of removed streams would keep their bytes on the disk. */
static void delete_camera(void)
{
    Reelkv__V1__DeleteStreamRequest request = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct reply reply;

    request.id = &id;
    client_call(&server, &reply, &api_delete_stream, &request.base);
    CHECK_OK(reply.ok, reply.st);
    client_done(&reply);
}

TEST(kvstore_reads_with_io_uring_and_keeps_files_open_until_they_go)
{
    static const char *const options[] = { "--read-with=io_uring", NULL };

    server_start(&server, "kv-a", NULL);
    if (strstr(process_log(&server.process), "reads_by_threads") != NULL) {
        server_stop(&server);
        test_skip("this machine does not permit io_uring");
    }
    server_stop(&server);
    cold_start(&server, options);
    CHECK_HAS(process_log(&server.process), "read by io_uring");
    cold_expect_all(&server);
    cold_expect_all(&server);
    CHECK(open_segments(&server) > 0);
    delete_camera();
    CHECK_EQ(open_segments(&server), 0);
    server_stop(&server);
}

TEST(kvstore_reads_with_threads_when_told_to)
{
    static const char *const options[] = { "--read-with=threads", NULL };

    cold_start(&server, options);
    CHECK_HAS(process_log(&server.process), "read by threads");
    cold_expect_all(&server);
    CHECK_EQ(open_segments(&server), 0);
    server_stop(&server);
}

TEST(kvstore_refuses_a_way_of_reading_that_there_is_not)
{
    static const char *const options[] = { "--read-with=libuv", NULL };

    server_begin(&server, "kv-a", options);
    CHECK_EQ(process_wait(&server.process, 20000), 2);
    CHECK_HAS(process_log(&server.process), "--read-with must be auto, io_uring or threads, not libuv");
}

TEST_MAIN()
