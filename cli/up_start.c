#include "up_start.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/require.h"
#include "cli_output.h"
#include "leftovers.h"
#include "redis/directory_view.h"
#include "supervisor.h"
#include "supervisor_log.h"
#include "up_plan.h"

enum { LOOK_MS = 50, DIRECTORY_MS = 500, STOP_MS = 6 * SUPERVISOR_DRAIN_MS };

extern char **environ;

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    interrupted = number;
}

static void watch_signals(void)
{
    struct sigaction action = { .sa_handler = interrupt }; /* no SA_RESTART: waits end early */

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static bool spawn_supervisor(const struct up_start *start, pid_t *pid_p, struct status *st)
{
    char own[CLUSTER_PATH_BYTES], starter[32];
    char *argv[] = { "reelkv", "supervise", "--data", (char *)start->data, starter, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int log_fd, error;

    snprintf(starter, sizeof starter, "--starter=%d", start->foreground ? getpid() : 0);
    leftovers_mark(start->data);
    if (!up_plan_own_path(own, st) || !supervisor_log_open(start->data, "supervisor", &log_fd, st))
        return false;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, log_fd, 1);
    posix_spawn_file_actions_adddup2(&actions, log_fd, 2);
    posix_spawn_file_actions_adddup2(&actions, start->lock_fd, SUPERVISOR_LOCK_FD);
    /* What the caller holds open (a lock, a pipe) must not stay open for as long as the cluster lives. */
    posix_spawn_file_actions_addclosefrom_np(&actions, SUPERVISOR_LOCK_FD + 1);
    posix_spawn_file_actions_addchdir_np(&actions, start->data);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    error = posix_spawn(pid_p, own, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(log_fd);
    errno = error;
    return error == 0 || status_fail(st, status_code_of_errno(error), "start %s: %m", own);
}

/* Reaps the supervisor when it has ended. It is this process' child, so a dead one is a zombie until then. */
static bool has_ended(const struct cluster_file *file)
{
    waitpid(file->supervisor.pid, NULL, WNOHANG);
    return !process_is_alive(&file->supervisor);
}

bool up_stop(const struct cluster_file *file, struct status *st)
{
    uint64_t deadline = clock_mono_ns() + STOP_MS * 1000000ull;

    process_signal(&file->supervisor, SIGTERM);
    while (!has_ended(file)) {
        if (clock_mono_ns() > deadline)
            return status_fail(st, STATUS_DEADLINE, "the supervisor (process %d) has not ended in %d s",
                               file->supervisor.pid, STOP_MS / 1000);
        usleep(LOOK_MS * 1000);
    }
    return true;
}

/* The sentence of a service that could not start, or all of the last line of its log. */
static const char *last_words(const char *line)
{
    static const char event[] = " start_failed ";
    const char *at = strstr(line, event);

    return at != NULL ? at + strlen(event) : line[0] != '\0' ? line : "its log is empty";
}

/* A process that ended before it was ever ready will not do better the next time. */
static bool check_processes(const char *data, const struct cluster_file *file, uint32_t *ready_p,
                            struct status *st)
{
    *ready_p = 0;
    for (uint32_t i = 0; i < file->process_count; i++) {
        const struct cluster_process *process = &file->processes[i];
        char line[STATUS_TEXT_BYTES + 128];

        *ready_p += process->state == PROCESS_READY;
        if (process->restarts == 0)
            continue;
        supervisor_log_last_line(data, process->name, line, sizeof line);
        return status_fail(st,
                           process->exit_code == STATUS_EXIT_DATA_LOSS ? STATUS_DATA_LOSS
                           : process->exit_code == STATUS_EXIT_USAGE   ? STATUS_INVALID
                                                                       : STATUS_UNAVAILABLE,
                           "%s %s: %s; its log is %s/log/%s.log", process->name,
                           process->trouble[0] != '\0' ? process->trouble : "ended while starting",
                           last_words(line), data, process->name);
    }
    return true;
}

static bool is_in_directory(const struct cluster_file *file)
{
    static const enum worker_kind kinds[CLUSTER_KINDS] = { [CLUSTER_KVSTORE] = WORKER_KVSTORE,
                                                           [CLUSTER_ANALYZER] = WORKER_ANALYZER,
                                                           [CLUSTER_ENCODER] = WORKER_ENCODER,
                                                           [CLUSTER_QA] = WORKER_QA };
    struct directory_view view = { 0 };
    char redis[CLUSTER_ADDRESS_BYTES];
    bool all;

    cluster_address(&file->plan, "redis", redis);
    all = directory_read_once(redis, DIRECTORY_MS, &view, NULL);
    for (uint32_t i = 0; all && i < file->process_count; i++) {
        const struct cluster_process *process = &file->processes[i];

        all = process->kind == CLUSTER_REDIS ||
              directory_view_worker(&view, kinds[process->kind], process->name) != NULL;
    }
    directory_view_deinit(&view);
    return all;
}

static bool say_interrupted(struct status *st)
{
    return status_fail(st, STATUS_CANCELLED, "interrupted; everything was stopped again");
}

static bool wait_until_ready(const struct up_start *start, struct cluster_file *file, struct status *st)
{
    uint64_t deadline = clock_mono_ns() + start->timeout_ms * 1000000ull;
    struct process_id supervisor = file->supervisor;
    struct cli_progress progress = { 0 };
    bool ok = true, all = false;
    uint32_t ready = 0;

    while (ok && !all) {
        usleep(LOOK_MS * 1000);
        if (interrupted != 0)
            ok = say_interrupted(st);
        else if (clock_mono_ns() > deadline)
            ok = status_fail(st, STATUS_DEADLINE,
                             "not everything was ready in %u s; see %s/log, or give it more with "
                             "--timeout",
                             start->timeout_ms / 1000, start->data);
        else if (has_ended(file))
            ok = status_fail(st, STATUS_UNAVAILABLE, "the supervisor has ended; see %s/log/supervisor.log",
                             start->data);
        else if (!cluster_file_read(start->data, file, NULL) || file->process_count == 0)
            file->supervisor = supervisor; /* not written yet */
        else
            ok = check_processes(start->data, file, &ready, st);
        cli_progress_draw(&progress, "starting", ready, file->process_count);
        all = ok && file->process_count > 0 && ready == file->process_count && is_in_directory(file);
    }
    cli_progress_end(&progress);
    file->supervisor = supervisor;
    return ok;
}

static bool follow(const struct up_start *start, pid_t pid, struct cluster_file *file, struct status *st)
{
    if (!process_identify(pid, &file->supervisor)) {
        waitpid(pid, NULL, 0);
        return interrupted != 0
                   ? say_interrupted(st)
                   : status_fail(st, STATUS_UNAVAILABLE,
                                 "the supervisor ended at once; see %s/log/supervisor.log", start->data);
    }
    if (wait_until_ready(start, file, st))
        return true;
    up_stop(file, NULL);
    return false;
}

bool up_start(const struct up_start *start, struct cluster_file *file, struct status *st)
{
    const struct cluster_plan plan = file->plan; /* *file is read again and again */
    pid_t pid = 0;
    bool ok;

    watch_signals();
    ok = cluster_file_write(start->data, file, st) && spawn_supervisor(start, &pid, st) &&
         follow(start, pid, file, st);
    if (!ok) { /* a supervisor that was killed, by Ctrl-C too before it heeds that, has stopped nothing */
        leftovers_sweep(start->data);
        up_plan_remove_run(start->data, &plan);
    }
    close(start->lock_fd); /* not before: what is swept is ours */
    return ok;
}

bool up_stay(const struct cluster_file *file, struct status *st)
{
    while (interrupted == 0)
        if (has_ended(file))
            return status_fail(st, STATUS_UNAVAILABLE, "the cluster was stopped");
        else
            usleep(LOOK_MS * 1000);
    return up_stop(file, st);
}
