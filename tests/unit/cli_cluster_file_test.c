/* cluster.json: written and read back, damaged, from another boot; processes told apart; the lock of a folder. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "cluster_file.h"
#include "support/test.h"

static void fill(struct cluster_file *file)
{
    memset(file, 0, sizeof *file);
    snprintf(file->plan.bin, sizeof file->plan.bin, "/usr/bin");
    snprintf(file->plan.run, sizeof file->plan.run, "/run/reelkv");
    snprintf(file->plan.model, sizeof file->plan.model, "/models/one");
    snprintf(file->plan.dtype, sizeof file->plan.dtype, "f32");
    snprintf(file->plan.fingerprint, sizeof file->plan.fingerprint, "%032d", 7);
    file->plan.n_local = 512;
    snprintf(file->plan.ageing, sizeof file->plan.ageing, "default=full:24h");
    file->plan.recent_window = UINT32_MAX;
    file->plan.sample_fps = 0.5;
    file->plan.ram_bytes = 1ull << 40;
    file->plan.counts[CLUSTER_KVSTORE] = 2;
    file->process_count = 1;
    snprintf(file->processes[0].name, sizeof file->processes[0].name, "qa-0");
    file->processes[0].kind = CLUSTER_QA;
    file->processes[0].state = PROCESS_DOWN;
    file->processes[0].restarts = 3;
    snprintf(file->processes[0].trouble, sizeof file->processes[0].trouble,
             "was ended by signal 9 (\"Killed\")");
    CHECK(process_identify(getpid(), &file->supervisor));
}

static void write_text(const char *name, const char *text)
{
    char path[512];
    struct status st;

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
}

TEST(what_is_written_is_read_back)
{
    static struct cluster_file out, in;
    struct status st;

    fill(&out);
    CHECK_OK(cluster_file_write(test_folder(), &out, &st), st);
    CHECK_OK(cluster_file_read(test_folder(), &in, &st), st);
    CHECK_MEM(&in, &out, sizeof in);
    CHECK(process_is_alive(&in.supervisor));
    cluster_file_remove(test_folder());
    CHECK(!cluster_file_read(test_folder(), &in, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "reelkv up --data");
    CHECK(!cluster_file_read("/no/my data", &in, &st));
    CHECK_HAS(st.text, "in /no/my data: start one with `reelkv up --data '/no/my data'`");
}

/* A file that may not be read is not a damaged one. */
TEST(files_of_others_are_not_called_damaged)
{
    static struct cluster_file file;
    struct status st = { 0 };
    char path[512];

    fill(&file);
    CHECK_OK(cluster_file_write(test_folder(), &file, &st), st);
    snprintf(path, sizeof path, "%s/cluster.json", test_folder());
    CHECK(chmod(path, 0) == 0);
    if (access(path, R_OK) == 0)
        test_skip("root may read everything");
    CHECK(!cluster_file_read(test_folder(), &file, &st));
    CHECK_EQ(st.code, STATUS_DENIED);
}

/* After a reboot the numbers of old processes belong to others: they read as nobody. */
TEST(processes_of_another_boot_are_nobody)
{
    static struct cluster_file file;
    struct file_text text;
    char path[512], *boot;
    struct status st;

    fill(&file);
    CHECK_OK(cluster_file_write(test_folder(), &file, &st), st);
    snprintf(path, sizeof path, "%s/cluster.json", test_folder());
    CHECK_OK(file_read_all(path, 1 << 20, &text, &st), st);
    boot = strstr(text.data, "\"boot_id\": \"");
    CHECK(boot != NULL);
    boot[12] = boot[12] == '0' ? '1' : '0';
    write_text("cluster.json", text.data);
    free(text.data);
    CHECK_OK(cluster_file_read(test_folder(), &file, &st), st);
    CHECK_EQ(file.supervisor.pid, 0);
    CHECK(!process_is_alive(&file.supervisor));
    CHECK(!process_signal(&file.supervisor, SIGKILL));
}

TEST(damaged_files_are_told_by_name)
{
    static const char *const bad[] = {
        "", "{", "[]", "{\"version\": 9, \"boot_id\": \"x\"}",
        "{\"version\": 1, \"boot_id\": \"x\", \"supervisor\": {\"pid\": \"one\"}}"
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        static struct cluster_file file;
        struct status st = { 0 };

        write_text("cluster.json", bad[i]);
        CHECK(!cluster_file_read(test_folder(), &file, &st));
        CHECK_EQ(st.code, STATUS_DATA_LOSS);
        CHECK_HAS(st.text, "cluster.json");
        CHECK_HAS(st.text, "reelkv down");
    }
}

TEST(settings_of_a_fresh_folder_are_empty)
{
    static struct cluster_file file;
    static struct cluster_plan plan;
    struct status st;

    CHECK_OK(cluster_settings_read(test_folder(), &plan, &st), st);
    CHECK_STR(plan.model, "");
    CHECK_EQ(plan.counts[CLUSTER_KVSTORE], 0);
    fill(&file);
    CHECK_OK(cluster_settings_write(test_folder(), &file.plan, &st), st);
    CHECK_OK(cluster_settings_read(test_folder(), &plan, &st), st);
    CHECK_STR(plan.model, "/models/one");
    CHECK_EQ(plan.n_local, 512);
    CHECK_STR(plan.ageing, "default=full:24h");
    CHECK_EQ(plan.counts[CLUSTER_KVSTORE], 2);
    CHECK_STR(plan.fingerprint, file.plan.fingerprint);
    write_text("settings.json", "{}");
    CHECK(!cluster_settings_read(test_folder(), &plan, &st));
    CHECK_EQ(st.code, STATUS_DATA_LOSS);
    CHECK_HAS(st.text, "settings.json");
    CHECK_HAS(st.text, "remove it");
}

TEST(settings_of_before_ageing_are_read)
{
    static struct cluster_plan plan;
    struct status st;

    write_text("settings.json",
               "{\"version\": 1, \"model\": \"/m\", \"dtype\": \"bf16\", \"n_local\": 1, \"kvstores\": 1}");
    CHECK_OK(cluster_settings_read(test_folder(), &plan, &st), st);
    CHECK_STR(plan.model, "/m");
    CHECK_STR(plan.ageing, "");
}

/* With each other model the folder forgot what its cameras had been stored with: only the last time was kept. */
TEST(settings_of_earlier_starts_are_remembered_by_fingerprint)
{
    static struct cluster_file file;
    static struct cluster_plan plan;
    struct status st;

    fill(&file);
    for (int i = 0; i < CLUSTER_SETTINGS_EARLIER + 2; i++) {
        snprintf(file.plan.fingerprint, sizeof file.plan.fingerprint, "%032d", i);
        snprintf(file.plan.model, sizeof file.plan.model, "/models/%d", i);
        for (int again = 0; again < 2; again++)
            CHECK_OK(cluster_settings_write(test_folder(), &file.plan, &st), st);
    }
    CHECK(!cluster_settings_of(test_folder(), "00000000000000000000000000000000", &plan));
    CHECK(cluster_settings_of(test_folder(), "00000000000000000000000000000001", &plan));
    CHECK_STR(plan.model, "/models/1");
    CHECK_STR(plan.dtype, file.plan.dtype);
    CHECK_EQ(plan.n_local, file.plan.n_local);
    CHECK(cluster_settings_of(test_folder(), file.plan.fingerprint, &plan));
    CHECK_STR(plan.model, file.plan.model);
}

/* A process that has ended is nobody, also while its parent has not fetched it; so is one with another start. */
TEST(ended_processes_are_nobody)
{
    struct process_id id, other;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        pause();
        _exit(0);
    }
    CHECK(process_identify(pid, &id));
    CHECK(process_is_alive(&id));
    other = id;
    other.start_ticks++;
    CHECK(!process_is_alive(&other));
    CHECK(!process_signal(&other, SIGKILL));
    CHECK(process_signal(&id, SIGKILL));
    for (int i = 0; i < 500 && process_is_alive(&id); i++)
        usleep(10000);
    CHECK(!process_is_alive(&id)); /* a zombie now */
    waitpid(pid, NULL, 0);
    CHECK(!process_identify(pid, &id));
    CHECK(!process_identify(0, &id));
}

/* The lock belongs to the open file: a second taker is refused with the folder's name, and it is free again when
 * the last holder is gone. */
TEST(a_folder_has_one_holder)
{
    static struct cluster_file file;
    struct status st = { 0 };
    int first, second;

    fill(&file);
    CHECK_OK(cluster_file_write(test_folder(), &file, &st), st);
    CHECK_OK(cluster_lock(test_folder(), &first, &st), st);
    CHECK(!cluster_lock(test_folder(), &second, &st));
    CHECK_EQ(st.code, STATUS_EXISTS);
    CHECK_HAS(st.text, test_folder());
    close(first);
    CHECK_OK(cluster_lock(test_folder(), &second, &st), st);
    close(second);
}

TEST_MAIN()
