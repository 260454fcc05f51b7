#include "support/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/test.h"

static pid_t running[PROCESS_MAX];

static void forget(pid_t pid)
{
    for (int i = 0; i < PROCESS_MAX; i++)
        if (running[i] == pid)
            running[i] = 0;
}

static void kill_all(void)
{
    for (int i = 0; i < PROCESS_MAX; i++) {
        if (running[i] == 0)
            continue;
        kill(running[i], SIGKILL);
        waitpid(running[i], NULL, 0);
        running[i] = 0;
    }
}

static void remember(pid_t pid)
{
    static bool at_exit_set;

    if (!at_exit_set)
        atexit(kill_all);
    at_exit_set = true;
    for (int i = 0; i < PROCESS_MAX; i++) {
        if (running[i] == 0) {
            running[i] = pid;
            return;
        }
    }
    REQUIRE(!"no more than PROCESS_MAX processes at once");
}

void test_pause_ms(uint32_t ms)
{
    struct timespec pause = { ms / 1000, (long)(ms % 1000) * 1000000 };

    nanosleep(&pause, NULL);
}

static void run_child(const struct process *process, const char *const *argv)
{
    char path[512];
    int log = open(process->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int null = open("/dev/null", O_RDONLY);

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves nothing behind */
    if (log < 0 || null < 0)
        _exit(126);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    snprintf(path, sizeof path, "%s/%s", REELKV_BIN_DIR, argv[0]);
    if (strchr(argv[0], '/') == NULL && access(path, X_OK) == 0)
        execv(path, (char *const *)argv);
    execvp(argv[0], (char *const *)argv);
    dprintf(2, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

void process_start(struct process *process, const char *name, const char *const *argv)
{
    snprintf(process->name, sizeof process->name, "%s", name);
    snprintf(process->log_path, sizeof process->log_path, "%s/%s.log", test_folder(), name);
    fflush(NULL);
    process->pid = fork();
    REQUIRE(process->pid >= 0);
    if (process->pid == 0)
        run_child(process, argv);
    remember(process->pid);
}

static bool is_flag(const char *word, const char *flag)
{
    size_t len = strcspn(flag, "=");

    return strncmp(word, flag, len) == 0 && (word[len] == '\0' || word[len] == '=');
}

void process_args_change(const char **argv, size_t room, const char *const *flags)
{
    size_t count = 0;

    while (argv[count] != NULL)
        count++;
    for (; flags != NULL && *flags != NULL; flags++) {
        size_t kept = 0;

        for (size_t i = 0; strncmp(*flags, "--", 2) == 0 && i < count; i++) {
            bool changed = is_flag(argv[i], *flags);

            argv[kept] = argv[i];
            kept += !changed;
            i += changed && strchr(argv[i], '=') == NULL;
        }
        count = kept > 0 ? kept : count;
        REQUIRE(count + 1 < room);
        argv[count++] = *flags;
        argv[count] = NULL;
    }
}

const char *process_log(const struct process *process)
{
    static char text[PROCESS_LOG_BYTES];
    int fd = open(process->log_path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static bool has_ended(pid_t pid)
{
    siginfo_t info = { 0 };

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == pid;
}

bool process_wait_text(const struct process *process, const char *text, uint32_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * 1000000ull;

    while (strstr(process_log(process), text) == NULL) {
        if (clock_mono_ns() > end_ns || has_ended(process->pid))
            return strstr(process_log(process), text) != NULL;
        test_pause_ms(10);
    }
    return true;
}

int process_wait(struct process *process, uint32_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * 1000000ull;
    bool in_time = true;
    int status = 0;

    REQUIRE(process->pid > 0);
    while (!has_ended(process->pid) && in_time) {
        in_time = clock_mono_ns() < end_ns;
        test_pause_ms(5);
    }
    if (!in_time)
        kill(process->pid, SIGKILL);
    waitpid(process->pid, &status, 0);
    forget(process->pid);
    process->pid = 0;
    if (!in_time)
        return -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int process_stop(struct process *process, int signal, uint32_t timeout_ms)
{
    kill(process->pid, signal);
    return process_wait(process, timeout_ms);
}

int process_run(struct process *process, const char *name, const char *const *argv, uint32_t timeout_ms)
{
    process_start(process, name, argv);
    return process_wait(process, timeout_ms);
}

const char *redis_address(void)
{
    static char address[300];

    snprintf(address, sizeof address, "unix:%s/redis.sock", test_folder());
    return address;
}

void redis_start(struct process *process)
{
    process_start(process, "redis",
                  PROCESS_ARGS("redis-server", "--port", "0", "--unixsocket",
                               redis_address() + strlen("unix:"), "--save", "", "--appendonly", "no", "--dir",
                               test_folder()));
    if (!process_wait_text(process, "ready to accept connections", 10000))
        test_fail(__FILE__, __LINE__, "redis-server did not start: %s", process_log(process));
}
