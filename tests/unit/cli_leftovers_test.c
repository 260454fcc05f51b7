/* Processes of a cluster that nothing on the disk names: found by their mark, ended, and no folder but the cluster's
 * own is removed. They are copies of sleep(1) under the services' names. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "leftovers.h"
#include "support/test.h"

static pid_t start(const char *program, const char *mark)
{
    char path[512], env[600];
    pid_t pid;

    snprintf(path, sizeof path, "%s/%s", test_folder(), program);
    CHECK(symlink("/bin/sleep", path) == 0);
    snprintf(env, sizeof env, LEFTOVERS_MARK "=%s", mark);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        execle(path, path, "60", NULL, (char *[]){ env, NULL });
        _exit(1);
    }
    return pid;
}

static bool has(const struct cluster_file *file, pid_t pid)
{
    for (uint32_t i = 0; i < file->process_count; i++)
        if (file->processes[i].id.pid == pid)
            return true;
    return false;
}

/* Until the child has become its program. */
static void find(struct cluster_file *file, pid_t pid)
{
    for (int i = 0; i < 500; i++) {
        leftovers_find(test_folder(), file);
        if (has(file, pid) || file->supervisor.pid == pid)
            return;
        usleep(10000);
    }
    test_fail(__FILE__, __LINE__, "process %d was not found", (int)pid);
}

TEST(marked_processes_are_found_and_ended)
{
    static struct cluster_file file;
    pid_t store, supervisor, stranger;
    int how;

    CHECK(!leftovers_find(test_folder(), &file));
    store = start("reelkv-kvstore", test_folder());
    supervisor = start("reelkv", test_folder());
    stranger = start("reelkv-qa", "/another/folder");
    find(&file, store);
    find(&file, supervisor);
    CHECK_EQ(file.process_count, 1);
    CHECK_EQ(file.processes[0].kind, CLUSTER_KVSTORE);
    CHECK_EQ(file.supervisor.pid, supervisor);
    leftovers_clear(test_folder(), &file, 10000);
    CHECK(!process_is_alive(&file.processes[0].id));
    CHECK(process_is_alive(&file.supervisor));
    CHECK_EQ(waitpid(stranger, &how, WNOHANG), 0);
    for (int i = 0; i < 2; i++)
        kill(i == 0 ? supervisor : stranger, SIGKILL);
    while (wait(NULL) > 0)
        continue;
}

/* A cluster.json that was written by accident, or by an enemy, cannot have a folder removed. */
TEST(no_folder_but_the_clusters_own_is_removed)
{
    static struct cluster_file file;
    char precious[512], run[520], data[512];
    struct status st;

    snprintf(precious, sizeof precious, "%s/p", test_folder());
    snprintf(data, sizeof data, "%s/data", test_folder());
    snprintf(run, sizeof run, "%s/run", data);
    CHECK_OK(file_make_folders(precious, &st), st);
    CHECK_OK(file_make_folders(run, &st), st);
    snprintf(file.plan.run, sizeof file.plan.run, "%.100s", precious);
    leftovers_clear(data, &file, 0);
    CHECK(access(run, F_OK) != 0);
    CHECK(access(precious, F_OK) == 0);
    snprintf(file.plan.run, sizeof file.plan.run, "/tmp/reelkv-/../%.80s", precious);
    leftovers_clear(data, &file, 0);
    CHECK(access(precious, F_OK) == 0);
}

TEST_MAIN()
