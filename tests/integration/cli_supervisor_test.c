/* `reelkv up`, `down`, `logs`, `node ls` and the supervisor behind them, with stand-ins for the services
 * (cli_double_service.sh) and a real redis-server: readiness, restarts, the order of stopping, what is left behind. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/name.h"
#include "leftovers.h"
#include "support/process.h"
#include "support/test.h"

enum { READY_MS = 60000, STOP_MS = 60000, HELD_FD = 20 };

static char data[512], reelkv[512], double_log[512];

static struct cluster_file last; /* as the newest cluster was when it was ready */

/* A test that fails between a supervisor's death and the next `down` must not leave its processes behind. */
static void end_leftovers(void)
{
    if (process_is_alive(&last.supervisor))
        return;
    leftovers_clear(data, &last, 1000);
    leftovers_find(data, &last); /* what had not been written down yet */
    leftovers_clear(data, &last, 1000);
}

static void copy_file(const char *from, const char *to)
{
    struct file_text text;
    struct status st;

    CHECK_OK(file_read_all(from, 512 << 20, &text, &st), st);
    CHECK_OK(file_write_durable(to, text.data, text.len, &st), st);
    free(text.data);
    CHECK(chmod(to, 0755) == 0);
}

/* A folder of executables: the real reelkv, and the stand-in under the services' names. */
static void set_up(void)
{
    static const char *const services[] = { "kvstore", "analyzer", "encoder", "qa" };
    char bin[256], path[512];
    struct status st;

    snprintf(bin, sizeof bin, "%s/bin", test_folder());
    snprintf(data, sizeof data, "%s/data", test_folder());
    snprintf(reelkv, sizeof reelkv, "%s/reelkv", bin);
    snprintf(double_log, sizeof double_log, "%s/double.log", test_folder());
    CHECK_OK(file_make_folders(bin, &st), st);
    copy_file(REELKV_BIN_DIR "/reelkv", reelkv);
    for (size_t i = 0; i < ARRAY_LEN(services); i++) {
        snprintf(path, sizeof path, "%s/reelkv-%s", bin, services[i]);
        copy_file(REELKV_SOURCE_DIR "/tests/integration/cli_double_service.sh", path);
    }
    setenv("DOUBLE_LOG", double_log, 1);
    unsetenv("DOUBLE_BROKEN");
}

/* The cluster that runs now ends with the test's program whatever happens. */
static void remember_cluster(void)
{
    static bool at_exit_set;
    struct status st;

    CHECK_OK(cluster_file_read(data, &last, &st), st);
    if (!at_exit_set)
        atexit(end_leftovers);
    at_exit_set = true;
}

/* The supervisor follows `up --foreground`. */
static void start_cluster(struct process *up, const char *name)
{
    process_start(up, name,
                  PROCESS_ARGS(reelkv, "up", "--data", data, "--model",
                               REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "--dtype", "f32", "--n-local",
                               "512", "--ram", "64M", "--disk", "256M", "--foreground"));
    if (!process_wait_text(up, "ReelKV is ready.", READY_MS))
        test_fail(__FILE__, __LINE__, "not ready: %s", process_log(up));
    remember_cluster();
}

static int run_verb(struct process *process, const char *verb, const char *noun)
{
    return process_run(process, verb,
                       noun != NULL ? PROCESS_ARGS(reelkv, verb, noun, "--data", data)
                                    : PROCESS_ARGS(reelkv, verb, "--data", data),
                       STOP_MS);
}

static const char *double_said(void)
{
    static char text[4096];
    FILE *file = fopen(double_log, "r");
    size_t len = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;

    if (file != NULL)
        fclose(file);
    text[len] = '\0';
    return text;
}

static struct cluster_process find_process(const char *name)
{
    static struct cluster_file file;
    struct status st;

    CHECK_OK(cluster_file_read(data, &file, &st), st);
    for (uint32_t i = 0; i < file.process_count; i++)
        if (strcmp(file.processes[i].name, name) == 0)
            return file.processes[i];
    test_fail(__FILE__, __LINE__, "no process %s in cluster.json", name);
}

static bool path_exists(const char *name)
{
    char path[1024];

    snprintf(path, sizeof path, "%s/%s", data, name);
    return access(path, F_OK) == 0;
}

static void wait_for_restart(const char *name, int old_pid)
{
    for (int i = 0; i < 1000; i++) {
        struct cluster_process now = find_process(name);

        if (now.state == PROCESS_READY && now.id.pid != old_pid)
            return;
        test_pause_ms(10);
    }
    test_fail(__FILE__, __LINE__, "%s did not come back", name);
}

/* Everything is started after redis, a second `up` is refused with who has the folder, `down` stops the kinds in the
 * order that lets each hand on what it holds, and nothing is left. */
TEST(up_starts_and_down_stops_in_order)
{
    struct process up, other, down;
    struct cluster_process redis;
    const char *said;

    set_up();
    start_cluster(&up, "up");
    CHECK_HAS(process_log(&up), "kvstore-0");
    CHECK_HAS(process_log(&up), "fingerprint");
    CHECK(
        process_wait_text(&up, "export REELKV_DATA=/", READY_MS)); /* or the verbs it names find no cluster */
    redis = find_process("redis");
    CHECK(process_is_alive(&redis.id));

    CHECK_EQ(run_verb(&other, "up", NULL), 5);
    CHECK_HAS(process_log(&other), "a cluster already runs on");

    CHECK_EQ(run_verb(&down, "down", NULL), 0);
    CHECK_EQ(process_wait(&up, STOP_MS), 4);
    CHECK_HAS(process_log(&up), "the cluster was stopped");
    said = strstr(double_said(), "stop");
    CHECK_STR(said, "stop encoder-0\nstop analyzer-0\nstop qa-0\nstop kvstore-0\n");
    CHECK(!process_is_alive(&redis.id));
    CHECK(!path_exists("cluster.json"));
    CHECK(!path_exists("run"));
    CHECK(path_exists("settings.json"));
    CHECK_EQ(run_verb(&other, "down", NULL), 3);
    CHECK_HAS(process_log(&other), "start one with `reelkv up");
}

static void wait_until_stopping(void)
{
    static struct cluster_file file;

    for (int i = 0; i < READY_MS / 20 && !file.stopping; i++) {
        test_pause_ms(20);
        if (!cluster_file_read(data, &file, NULL))
            file.stopping = false;
    }
    CHECK(file.stopping);
}

/* Why it ended was a second document on stdout. */
TEST(up_that_stays_prints_one_document)
{
    static const char script[] =
        "exec $1 up --data $2 --model $3 --dtype f32 --n-local 512 --ram 64M --disk 256M "
        "--foreground --json 2>/dev/null";
    struct process up, down;
    struct json *value;
    const char *text;

    set_up();
    process_start(&up, "document",
                  PROCESS_ARGS("sh", "-c", script, "sh", reelkv, data,
                               REELKV_SOURCE_DIR "/tests/data/parity/tiny-a"));
    CHECK(process_wait_text(&up, "\"ready\": true", READY_MS));
    remember_cluster();
    CHECK_EQ(run_verb(&down, "down", NULL), 0);
    CHECK_EQ(process_wait(&up, STOP_MS), 4);
    text = process_log(&up);
    value = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, NULL);
    CHECK(json_get(value, "ready") != NULL);
    json_free(value);
}

/* It ended the verb without a word, as if the cluster had been left running. */
TEST(ctrl_c_ends_the_wait_for_down_only)
{
    struct process up, down, other;
    struct cluster_process encoder;

    set_up();
    start_cluster(&up, "up");
    encoder = find_process("encoder-0");
    CHECK(process_signal(&encoder.id, SIGSTOP)); /* so that nothing ends before the signal comes */
    process_start(&down, "down", PROCESS_ARGS(reelkv, "down", "--data", data));
    wait_until_stopping();
    CHECK_EQ(process_stop(&down, SIGINT, STOP_MS), 130);
    CHECK_HAS(process_log(&down), "interrupted; the cluster goes on stopping");
    CHECK_EQ(run_verb(&other, "up", NULL), 5);
    CHECK_HAS(process_log(&other), "is still stopping; try again"); /* was told to run `down` */
    CHECK(process_signal(&encoder.id, SIGCONT));
    CHECK_EQ(process_wait(&up, STOP_MS), 4);
    CHECK(!path_exists("cluster.json"));
}

/* Every verb waited as long for it as a question does. The question here was asked before, and waits still. */
TEST(a_verb_does_not_wait_for_a_qa_it_does_not_need)
{
    struct process up, forget, asking, nodes;
    struct cluster_process qa;
    char redis[CLUSTER_ADDRESS_BYTES];

    set_up();
    start_cluster(&up, "up");
    qa = find_process("qa-0");
    CHECK(process_signal(&qa.id, SIGSTOP)); /* hung: it does not announce itself any more */
    test_pause_ms(300);                     /* but for what is on its way */
    cluster_address(&last.plan, "redis", redis);
    CHECK_EQ(process_run(&forget, "forget",
                         PROCESS_ARGS("redis-cli", "-s", redis + strlen("unix:"), "hdel",
                                      "reelkv:1:workers:qa", "qa-0"),
                         READY_MS),
             0);
    process_start(&asking, "asking", PROCESS_ARGS(reelkv, "ask", "What?", "--cam", "a", "--data", data));
    CHECK_EQ(run_verb(&nodes, "node", "ls"), 0);
    CHECK(strstr(process_log(&nodes), "qa-0") == NULL);
    CHECK_EQ(waitpid(asking.pid, NULL, WNOHANG), 0);
    CHECK_EQ(process_wait(&asking, READY_MS), 4);
    CHECK_HAS(process_log(&asking), "no qa is running to answer");
    CHECK(process_signal(&qa.id, SIGCONT));
    CHECK_EQ(process_stop(&up, SIGTERM, STOP_MS), 0);
}

/* A process that is killed is started again, redis too; the cluster is found all the while. */
TEST(killed_processes_come_back)
{
    struct process up, nodes;
    struct cluster_process analyzer, redis;

    set_up();
    start_cluster(&up, "up");
    analyzer = find_process("analyzer-0");
    redis = find_process("redis");
    CHECK(process_signal(&analyzer.id, SIGKILL));
    wait_for_restart("analyzer-0", analyzer.id.pid);
    CHECK_EQ(find_process("analyzer-0").restarts, 1);
    CHECK(process_signal(&redis.id, SIGKILL));
    wait_for_restart("redis", redis.id.pid);
    for (int i = 0; i < 500; i++) {
        if (run_verb(&nodes, "node", "ls") == 0 && strstr(process_log(&nodes), "kvstore-0") != NULL)
            break;
        test_pause_ms(20);
    }
    CHECK_HAS(process_log(&nodes), "kvstore-0");
    CHECK_EQ(process_stop(&up, SIGTERM, STOP_MS), 0);
    CHECK(!path_exists("cluster.json"));
}

/* A service that cannot start: `up` says which, shows the last line of its log, and takes everything down again. */
TEST(up_fails_with_the_log_of_what_broke)
{
    struct process up;

    set_up();
    setenv("DOUBLE_BROKEN", "qa", 1);
    CHECK_EQ(process_run(&up, "broken",
                         PROCESS_ARGS(reelkv, "up", "--data", data, "--model",
                                      REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "--dtype", "f32",
                                      "--n-local", "512", "--ram", "64M", "--disk", "256M"),
                         READY_MS),
             4);
    CHECK_HAS(process_log(&up), "qa-0 ended with exit code 3");
    CHECK_HAS(process_log(&up), "cannot go on: the test wants it so");
    CHECK(!path_exists("cluster.json"));
    CHECK(!path_exists("run"));
    CHECK(!path_exists("settings.json"));
}

/* A full disk, say: `up` said that it had failed, and left everything running. */
TEST(up_that_cannot_keep_its_settings_leaves_nothing_running)
{
    struct process up, down;
    char in_the_way[600];
    struct status st;

    set_up();
    snprintf(in_the_way, sizeof in_the_way, "%s/settings.json.new", data);
    CHECK_OK(file_make_folders(in_the_way, &st), st);
    CHECK_EQ(process_run(&up, "up",
                         PROCESS_ARGS(reelkv, "up", "--data", data, "--model",
                                      REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "--dtype", "f32",
                                      "--n-local", "512", "--ram", "64M", "--disk", "256M"),
                         READY_MS),
             1);
    CHECK_EQ(run_verb(&down, "down", NULL), 3);
    CHECK_HAS(process_log(&up), "everything was stopped again: create ");
    CHECK_HAS(double_said(), "stop kvstore-0");
    CHECK(!path_exists("cluster.json"));
    CHECK(!path_exists("run"));
}

/* While it looked at the model it died, and whoever reads what it says had no document to read. */
TEST(up_that_is_interrupted_early_says_so)
{
    for (int as_json = 0; as_json < 2; as_json++) {
        struct process up;
        struct status st;

        set_up();
        process_start(&up, "up",
                      PROCESS_ARGS(reelkv, "up", "--data", data, "--model",
                                   REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "--dtype", "f32",
                                   "--n-local", "512", "--ram", "64M", "--disk", "256M",
                                   as_json ? "--json" : "--foreground"));
        for (int i = 0; i < READY_MS / 2 && !path_exists("log"); i++)
            test_pause_ms(2);
        kill(up.pid, SIGINT);
        CHECK_EQ(process_wait(&up, STOP_MS), 130);
        CHECK_HAS(process_log(&up), as_json ? "\"message\": \"interrupted; nothing was started\""
                                            : "reelkv: interrupted; nothing was started\n");
        CHECK(!path_exists("cluster.json"));
        CHECK_OK(file_remove_tree(data, &st), st);
    }
}

/* It said that everything was stopped, or not even that, and left processes and cluster.json to the next. The supervisor of
 * an `up` that is interrupted early enough dies as this one does. */
TEST(up_whose_supervisor_is_killed_leaves_nothing_running)
{
    static const char script[] = "#!/bin/sh\nexec sleep 1000\n";
    static struct cluster_file file;
    struct process up;
    char path[600];
    struct status st;

    set_up();
    snprintf(path, sizeof path, "%s/bin/reelkv-qa", test_folder());
    CHECK_OK(file_write_durable(path, script, strlen(script), &st), st);
    CHECK(chmod(path, 0755) == 0);
    process_start(&up, "up",
                  PROCESS_ARGS(reelkv, "up", "--data", data, "--model",
                               REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "--dtype", "f32", "--n-local",
                               "512", "--ram", "64M", "--disk", "256M", "--foreground"));
    for (int i = 0; i < READY_MS / 20 && strstr(double_said(), "start kvstore-0") == NULL; i++)
        test_pause_ms(20);
    remember_cluster();
    CHECK(process_signal(&last.supervisor, SIGKILL));
    CHECK_EQ(process_wait(&up, STOP_MS), 4);
    CHECK_HAS(process_log(&up), "the supervisor has ended");
    CHECK_HAS(double_said(), "stop kvstore-0");
    CHECK(!cluster_file_read(data, &file, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK(!path_exists("run"));
}

/* What keeps a program from being run is told; it stood in the supervisor's log alone. */
TEST(a_program_that_cannot_be_run_says_why)
{
    static const char script[] = "#!/no/such/shell\n";
    struct process up;
    char path[600];
    struct status st;

    set_up();
    snprintf(path, sizeof path, "%s/bin/reelkv-qa", test_folder());
    CHECK_OK(file_write_durable(path, script, strlen(script), &st), st);
    CHECK(chmod(path, 0755) == 0);
    CHECK_EQ(process_run(&up, "up",
                         PROCESS_ARGS(reelkv, "up", "--data", data, "--model",
                                      REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "--dtype", "f32",
                                      "--n-local", "512", "--ram", "64M", "--disk", "256M"),
                         READY_MS),
             4);
    CHECK_HAS(process_log(&up), "qa-0 could not be started: start ");
    CHECK_HAS(process_log(&up), "no such file or directory");
}

/* Budgets that cannot hold one window of the model, a model that is not there, and a folder that cannot be made are
 * refused before anything is started. */
TEST(what_cannot_work_is_refused_before_it_starts)
{
    static const struct {
        const char *option, *value, *says;
        int code;
    } bad[] = {
        { "--n-local", "1048576", "smaller than one window", 2 },
        { "--ram", "1M", "too small", 6 },
        { "--ram", "60T", "give less with --ram", 6 },
        { "--disk", "1023T", "does not fit", 6 },
        { "--model", "/no/such/model", "--model DIR", 3 },
        { "--dtype", "f64", "f32 or bf16", 2 },
        { "--data", "/proc/no/folder", "name another with --data", 3 },
    };
    struct process up;

    set_up();
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *argv[20] = { reelkv,    "up",      "--data",
                                 data,      "--model", REELKV_SOURCE_DIR "/tests/data/parity/tiny-a",
                                 "--dtype", "f32",     "--n-local",
                                 "512",     "--ram",   "64M",
                                 "--disk",  "256M" };
        char name[32];

        snprintf(name, sizeof name, "bad-%zu", i);
        process_args_change(argv, ARRAY_LEN(argv), PROCESS_ARGS(bad[i].option, bad[i].value));
        CHECK_EQ(process_run(&up, name, argv, READY_MS), bad[i].code);
        CHECK_HAS(process_log(&up), bad[i].says);
        CHECK(!path_exists("cluster.json"));
    }
    CHECK_STR(double_said(), "");
}

/* It would have kept the cluster running with nobody in front of it. Process 1 stands for one that was the supervisor's
 * parent and is no more. */
TEST(a_supervisor_whose_starter_is_gone_starts_nothing)
{
    struct process supervisor;
    char command[2200];

    set_up();
    snprintf(command, sizeof command, "exec 3>%s/lock; exec %s supervise --data %s --starter 1",
             test_folder(), reelkv, data);
    CHECK_EQ(process_run(&supervisor, "supervisor", PROCESS_ARGS("sh", "-c", command), STOP_MS), 130);
    CHECK_HAS(process_log(&supervisor), "process 1, which this was to end with, is gone");
    CHECK_STR(double_said(), "");
}

/* The supervisor itself is killed: its processes go on, `down` ends them, and `up` would have done so too. */
TEST(leftovers_of_a_killed_supervisor_are_ended)
{
    struct process up, again, down;
    struct cluster_file *file = calloc(1, sizeof *file);
    struct process_id store;
    struct status st;

    set_up();
    start_cluster(&up, "up");
    CHECK(file != NULL);
    CHECK_OK(cluster_file_read(data, file, &st), st);
    store = find_process("kvstore-0").id;
    CHECK(process_signal(&file->supervisor, SIGKILL));
    CHECK_EQ(process_wait(&up, STOP_MS), 4);
    CHECK(process_is_alive(&store));

    start_cluster(&again, "again");
    CHECK(!process_is_alive(&store));
    CHECK_OK(cluster_file_read(data, file, &st), st);
    store = find_process("kvstore-0").id;
    CHECK(process_signal(&file->supervisor, SIGKILL));
    CHECK_EQ(process_wait(&again, STOP_MS), 4);
    CHECK_EQ(run_verb(&down, "down", NULL), 0);
    CHECK(!process_is_alive(&store));
    CHECK(!path_exists("cluster.json"));
    free(file);
}

static void damage_cluster_file(void)
{
    char path[600];
    struct status st;

    snprintf(path, sizeof path, "%s/cluster.json", data);
    CHECK_OK(file_write_durable(path, "{\"version\": 1", 13, &st), st);
}

/* A cluster.json that cannot be read left a cluster that no verb could stop: `down` refused it, and `up` started a second
 * one beside the first. */
TEST(a_damaged_cluster_file_keeps_nothing_running)
{
    struct process up, again, verb;
    struct process_id store, redis;

    set_up();
    start_cluster(&up, "up");
    store = find_process("kvstore-0").id;
    redis = find_process("redis").id;
    CHECK(process_signal(&last.supervisor, SIGKILL));
    CHECK_EQ(process_wait(&up, STOP_MS), 4);
    damage_cluster_file();
    CHECK_EQ(run_verb(&verb, "cam", "ls"), 8);
    CHECK_HAS(process_log(&verb), "`reelkv down --data /");
    CHECK_HAS(process_log(&verb), "/data` and `reelkv up --data /");
    start_cluster(&again, "again");
    CHECK(!process_is_alive(&store));
    CHECK(!process_is_alive(&redis));

    store = find_process("kvstore-0").id;
    redis = find_process("redis").id;
    damage_cluster_file();
    CHECK_EQ(run_verb(&verb, "down", NULL), 0); /* its supervisor is still there */
    CHECK_EQ(process_wait(&again, STOP_MS), 4);
    CHECK(!process_is_alive(&store));
    CHECK(!process_is_alive(&redis));
    CHECK(!path_exists("cluster.json"));
    CHECK(!path_exists("run"));
}

/* The folder of sockets was removed whatever cluster.json called so. */
TEST(a_supervisor_removes_no_folder_but_its_own)
{
    static struct cluster_file file;
    struct process supervisor;
    char precious[300], path[600], script[1600];
    struct status st;

    set_up();
    snprintf(precious, sizeof precious, "%s/p", test_folder());
    snprintf(path, sizeof path, "%s/log", data);
    CHECK_OK(file_make_folders(precious, &st), st);
    CHECK_OK(file_make_folders(path, &st), st);
    file.plan = (struct cluster_plan){ .dtype = "f32",
                                       .ram_bytes = 64 << 20,
                                       .disk_bytes = 256 << 20,
                                       .counts = { [CLUSTER_REDIS] = 1, [CLUSTER_KVSTORE] = 1 } };
    snprintf(file.plan.bin, sizeof file.plan.bin, "%s/bin", test_folder());
    CHECK(text_copy(file.plan.run, sizeof file.plan.run, precious));
    CHECK_OK(cluster_file_write(data, &file, &st), st);
    snprintf(script, sizeof script, "exec %s supervise --data %s 3>%s/lock", reelkv, data, data);
    process_start(&supervisor, "supervisor", PROCESS_ARGS("sh", "-c", script));
    for (int i = 0; i < READY_MS / 20 && strstr(double_said(), "start kvstore-0") == NULL; i++)
        test_pause_ms(20);
    remember_cluster();
    CHECK_EQ(process_stop(&supervisor, SIGTERM, STOP_MS), 0);
    CHECK_HAS(double_said(), "stop kvstore-0");
    CHECK(access(precious, F_OK) == 0);
}

/* A lock or a pipe of the caller's that stayed open in the supervisor was held for as long as the cluster lived. */
TEST(the_cluster_keeps_nothing_of_its_caller_open)
{
    struct process up;
    char held[600], path[64], link[600];
    int fd;

    set_up();
    snprintf(held, sizeof held, "%s/held", test_folder());
    fd = open(held, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && dup2(fd, HELD_FD) == HELD_FD);
    start_cluster(&up, "up");
    close(HELD_FD);
    close(fd);
    for (int at = 0; at < 1024; at++) {
        ssize_t len;

        snprintf(path, sizeof path, "/proc/%d/fd/%d", last.supervisor.pid, at);
        len = readlink(path, link, sizeof link - 1);
        link[len > 0 ? len : 0] = '\0';
        CHECK(strcmp(link, held) != 0);
    }
    CHECK_EQ(process_stop(&up, SIGTERM, STOP_MS), 0);
}

/* Without standard input the lock became descriptor 0, which the supervisor's own then replaced: a second cluster was
 * started on the folder. */
TEST(a_closed_standard_input_does_not_lose_the_lock)
{
    struct process up, other, down;
    char script[1400];

    set_up();
    snprintf(script, sizeof script,
             "exec %s up --data %s --model %s --dtype f32 --n-local 512 --ram 64M --disk 256M <&-", reelkv,
             data, REELKV_SOURCE_DIR "/tests/data/parity/tiny-a");
    CHECK_EQ(process_run(&up, "up", PROCESS_ARGS("sh", "-c", script), READY_MS), 0);
    CHECK_EQ(run_verb(&other, "up", NULL), 5);
    CHECK_EQ(run_verb(&down, "down", NULL), 0);
}

/* What a model's folder advises is checked as options are, and what the folder remembers says what to do when it is
 * damaged. */
TEST(bad_advice_and_damaged_settings_are_told)
{
    struct process up;
    char path[700];
    struct status st;

    set_up();
    CHECK_OK(file_make_folders(data, &st), st);
    snprintf(path, sizeof path, "%s/config.json", data);
    CHECK_OK(file_write_durable(path, "{}", 2, &st), st);
    snprintf(path, sizeof path, "%s/reelkv.json", data);
    CHECK_OK(file_write_durable(path, "{\"n_local\": -3}", 15, &st), st);
    CHECK_EQ(process_run(&up, "advice", PROCESS_ARGS(reelkv, "up", "--data", data, "--model", data),
                         READY_MS),
             2);
    CHECK_HAS(process_log(&up), "reelkv.json: n_local must be 1 to 1048576");
    CHECK_OK(file_write_durable(path, "{\"top_k\": 5}", 12, &st), st);
    CHECK_EQ(process_run(&up, "typo", PROCESS_ARGS(reelkv, "up", "--data", data, "--model", data), READY_MS),
             2);
    CHECK_HAS(process_log(&up), "reelkv.json: knows no 'top_k'");

    snprintf(path, sizeof path, "%s/settings.json", data);
    CHECK_OK(file_write_durable(path, "{", 1, &st), st);
    CHECK_EQ(process_run(&up, "settings", PROCESS_ARGS(reelkv, "up", "--data", data), READY_MS), 8);
    CHECK_HAS(process_log(&up), "remove it");
}

/* A model that is too large to be loaded twice was told to read 0 frames a second. Of the checkpoint's files, one that is
 * all hole counts as any other does. */
TEST(a_speed_that_was_not_measured_is_null)
{
    struct process copy, up, down;
    char model[300], part[400];

    set_up();
    snprintf(model, sizeof model, "%s/model", test_folder());
    snprintf(part, sizeof part, "%s/other.safetensors", model);
    CHECK_EQ(process_run(&copy, "cp",
                         PROCESS_ARGS("cp", "-r", REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", model),
                         STOP_MS),
             0);
    CHECK_EQ(process_run(&copy, "truncate", PROCESS_ARGS("truncate", "-s", "1T", part), STOP_MS), 0);
    CHECK_EQ(process_run(&up, "up",
                         PROCESS_ARGS(reelkv, "up", "--data", data, "--model", model, "--dtype", "f32",
                                      "--n-local", "512", "--ram", "64M", "--disk", "256M", "--json"),
                         READY_MS),
             0);
    CHECK_EQ(run_verb(&down, "down", NULL), 0);
    CHECK_HAS(process_log(&up), "\"vision_frames_per_s\": null");
    CHECK_HAS(process_log(&up), "\"frames_per_s\": null");
}

/* A data folder whose sockets would have too long a path gets them in /tmp; they are removed again. */
TEST(long_data_folder_has_its_sockets_elsewhere)
{
    struct process up;
    struct cluster_file *file = calloc(1, sizeof *file);
    size_t len;
    struct status st;

    set_up();
    CHECK(file != NULL);
    len = strlen(data);
    snprintf(data + len, sizeof data - len, "/%0100d", 7);
    start_cluster(&up, "up");
    CHECK_OK(cluster_file_read(data, file, &st), st);
    CHECK(strncmp(file->plan.run, "/tmp/reelkv-", 12) == 0);
    CHECK(strlen(file->plan.run) + CLUSTER_SOCKET_NAME_BYTES <= LIMIT_SOCKET_PATH_BYTES);
    CHECK_EQ(process_stop(&up, SIGTERM, STOP_MS), 0);
    CHECK(access(file->plan.run, F_OK) != 0);
    free(file);
}

/* Logs: each process' own, the last lines, after the cluster is gone too. */
TEST(logs_show_what_was_said)
{
    struct process up, logs;

    set_up();
    start_cluster(&up, "up");
    CHECK_EQ(process_stop(&up, SIGINT, STOP_MS), 0);
    CHECK_EQ(run_verb(&logs, "logs", "encoder-0"), 0);
    CHECK_HAS(process_log(&logs), "hello from encoder-0");
    CHECK(strstr(process_log(&logs), "kvstore") == NULL);
    CHECK_EQ(process_run(&logs, "all", PROCESS_ARGS(reelkv, "logs", "--data", data, "--lines", "3"), STOP_MS),
             0);
    CHECK_HAS(process_log(&logs), "kvstore-0 | hello from kvstore-0");
    CHECK_HAS(process_log(&logs), "every process has stopped");
    CHECK_EQ(run_verb(&logs, "logs", "nobody"), 3);
    CHECK_HAS(process_log(&logs), "there is no log of 'nobody'");
}

TEST_MAIN()
