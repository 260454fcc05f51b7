/* The kvstore where io_uring is refused, as containers' default seccomp profiles do. The filter stays on this process and
 * all that it starts, so this program has nothing else. */
#include "kvstore_cold.h"
#include "support/no_uring.h"

static struct server server;

TEST(kvstore_reads_with_threads_where_io_uring_is_refused)
{
    CHECK(refuse_call(__NR_io_uring_setup, EPERM));
    cold_start(&server, NULL);
    CHECK_HAS(process_log(&server.process), "io_uring: set up: Operation not permitted");
    CHECK_HAS(process_log(&server.process), "read by threads");
    cold_expect_all(&server);
    server_stop(&server);
}

TEST(kvstore_that_must_read_with_io_uring_does_not_start_without)
{
    static const char *const options[] = { "--read-with=io_uring", NULL };

    CHECK(refuse_call(__NR_io_uring_setup, ENOSYS));
    server_begin(&server, "kv-a", options);
    CHECK_EQ(process_wait(&server.process, 20000), 1);
    CHECK_HAS(process_log(&server.process), "open store: io_uring: set up:");
}

TEST_MAIN()
