/* A store that cannot start says why and ends with a code that tells damage and words it does not know from all else; one that can leaves by SIGTERM. */
#include <signal.h>
#include <sys/resource.h>

#include "base/file.h"
#include "kvstore_client.h"

static struct status st;

static struct process process;
static char data[300];

/* Ends by itself; returns its exit code. */
static int run(const char *const *flags)
{
    const char *argv[24] = { "reelkv-kvstore", "--name",      "kv-a",
                             "--redis",        "127.0.0.1:1", "--ram-budget-bytes=24M" };
    static unsigned starts;
    char listen[360], path[360], log_name[16];

    snprintf(listen, sizeof listen, "--listen=unix:%s/second.sock", test_folder());
    snprintf(path, sizeof path, "--path=%s", data);
    argv[6] = listen;
    argv[7] = path;
    process_args_change(argv, ARRAY_LEN(argv), flags);
    snprintf(log_name, sizeof log_name, "run-%u", starts++);
    return process_run(&process, log_name, argv, 20000);
}
#define RUN(...) run(PROCESS_ARGS(__VA_ARGS__))

static void start(void)
{
    snprintf(data, sizeof data, "%s/data", test_folder());
    CHECK_OK(file_make_folders(data, &st), st);
}

TEST(start_with_words_it_does_not_know)
{
    start();
    CHECK_EQ(RUN("--help"), 0);
    CHECK_HAS(process_log(&process), "--disk-budget-bytes");
    CHECK_EQ(RUN("--no-such-option", "1"), 2);
    CHECK_HAS(process_log(&process), "reelkv-kvstore: ");
    CHECK_EQ(RUN("--ram-budget-bytes", "7"), 2);
    CHECK_EQ(RUN("--name", "No Name"), 2);
    CHECK_HAS(process_log(&process), "start_failed");
    CHECK_EQ(RUN("--ageing", "default=thin/1:4d"), 2);
    CHECK_HAS(process_log(&process), "thin/N keeps one frame in N");
    CHECK_EQ(RUN("--read-with", "foo"), 2);
    CHECK_HAS(process_log(&process), "io_uring");
    CHECK_EQ(RUN("--shm-socket", "/nowhere/shm.sock"), 1);
    CHECK_HAS(process_log(&process), "start_failed");
}

/* A file's limit keeps one that takes it at its word from the machine's memory. */
TEST(start_with_more_memory_than_the_machine_has)
{
    struct rlimit before, limit;

    start();
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){ 64 << 20, before.rlim_max };
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_EQ(RUN("--ram-budget-bytes", "16T", "--shm-socket", "none"), 1);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK_HAS(process_log(&process), "this machine, or its cgroup, has");
}

TEST(start_in_a_folder_that_another_store_has)
{
    static struct server first;
    const char *options[] = { "--shm-socket", "none", NULL };

    start();
    server_start(&first, "kv-a", options);
    snprintf(data, sizeof data, "%s", first.path);
    CHECK_EQ(RUN("--shm-socket", "none"), 1);
    CHECK_HAS(process_log(&process), "start_failed");
    server_stop(&first);
}

TEST_MAIN()
