#include "leftovers.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/name.h"
#include "base/require.h"
#include "supervisor.h"
#include "up_plan.h"

enum { ENVIRON_BYTES_MAX = 256 << 10, LOOK_MS = 20 };

/* One name for one folder, whatever way it was reached. */
static void full_path(const char *data, char out[PATH_MAX])
{
    if (realpath(data, out) == NULL)
        snprintf(out, PATH_MAX, "%s", data);
}

void leftovers_mark(const char *data)
{
    char full[PATH_MAX];

    full_path(data, full);
    REQUIRE(setenv(LEFTOVERS_MARK, full, 1) == 0);
}

/* Reads /proc/PID/<what>; 0 when it is not there or not ours. */
static size_t read_proc(int pid, const char *what, char *out, size_t out_bytes)
{
    char path[64];
    size_t used = 0;
    ssize_t len;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && used + 1 < out_bytes && (len = read(fd, out + used, out_bytes - used - 1)) > 0)
        used += (size_t)len;
    if (fd >= 0)
        close(fd);
    out[used] = '\0';
    return used;
}

static bool has_mark(int pid, const char *mark)
{
    static char environ_text[ENVIRON_BYTES_MAX];
    size_t len = read_proc(pid, "environ", environ_text, sizeof environ_text);

    for (size_t at = 0; at < len; at += strlen(environ_text + at) + 1)
        if (strcmp(environ_text + at, mark) == 0)
            return true;
    return false;
}

/* By the program's name; false for what ends with its parent (captures), or is none of ours. */
static bool kind_of(const char *program, enum cluster_kind *kind_p)
{
    static const char prefix[] = "reelkv-";
    bool ours = strncmp(program, prefix, strlen(prefix)) == 0;

    if (strcmp(program, "redis-server") == 0) {
        *kind_p = CLUSTER_REDIS;
        return true;
    }
    for (int kind = CLUSTER_KVSTORE; ours && kind < CLUSTER_KINDS; kind++) {
        if (strcmp(program + strlen(prefix), cluster_kind_names[kind]) == 0) {
            *kind_p = (enum cluster_kind)kind;
            return true;
        }
    }
    return false;
}

static bool is_listed(const struct cluster_file *file, int pid)
{
    for (uint32_t i = 0; i < file->process_count; i++)
        if (file->processes[i].id.pid == pid && process_is_alive(&file->processes[i].id))
            return true;
    return false;
}

/* Where the cluster's sockets are, from what one of its processes was told: --redis unix:<run>/redis.sock */
static void learn_run(int pid, struct cluster_plan *plan)
{
    static const char scheme[] = "unix:", name[] = "/redis.sock";
    char args[16 << 10];
    size_t len = read_proc(pid, "cmdline", args, sizeof args);

    for (size_t at = 0; plan->run[0] == '\0' && at < len; at += strlen(args + at) + 1) {
        char *end = strstr(args + at, name);

        if (strncmp(args + at, scheme, strlen(scheme)) == 0 && end != NULL && strcmp(end, name) == 0)
            snprintf(plan->run, sizeof plan->run, "%.*s", (int)(end - args - at - strlen(scheme)),
                     args + at + strlen(scheme));
    }
}

static bool works_in(int pid, const char *folder)
{
    char path[64], where[PATH_MAX];
    ssize_t len;

    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    len = readlink(path, where, sizeof where);
    return len > 0 && (size_t)len == strlen(folder) && memcmp(where, folder, (size_t)len) == 0;
}

static void note(struct cluster_file *file, int pid, const char *mark)
{
    enum cluster_kind kind = CLUSTER_KINDS;
    char program[64];
    struct process_id id;
    bool is_supervisor;

    read_proc(pid, "comm", program, sizeof program);
    program[strcspn(program, "\n")] = '\0';
    is_supervisor = strcmp(program, "reelkv") == 0;
    if (!is_supervisor && !kind_of(program, &kind))
        return;
    if (kind == CLUSTER_REDIS ? !works_in(pid, file->plan.run) : !has_mark(pid, mark))
        return;
    learn_run(pid, &file->plan);
    if (!process_identify(pid, &id))
        return;
    if (is_supervisor) {
        file->supervisor = id;
    } else if (!is_listed(file, pid) && file->process_count < CLUSTER_PROCESSES_MAX) {
        struct cluster_process *process = &file->processes[file->process_count++];

        *process = (struct cluster_process){ .kind = kind, .state = PROCESS_READY, .id = id };
        text_copy(process->name, sizeof process->name, program);
    }
}

static void look_around(struct cluster_file *file, const char *mark)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int pid = isdigit((unsigned char)entry->d_name[0]) ? (int)strtol(entry->d_name, NULL, 10) : 0;

        if (pid > 0 && pid != getpid())
            note(file, pid, mark);
    }
    if (dir != NULL)
        closedir(dir);
}

bool leftovers_find(const char *data, struct cluster_file *file)
{
    char full[PATH_MAX], mark[PATH_MAX + sizeof LEFTOVERS_MARK + 1];
    bool is_written = cluster_file_read(data, file, NULL);

    if (!is_written)
        memset(file, 0, sizeof *file);
    full_path(data, full);
    snprintf(mark, sizeof mark, LEFTOVERS_MARK "=%s", full);
    look_around(file, mark);
    look_around(file, mark); /* redis is known by what the first round has learned */
    return is_written || file->process_count > 0 || file->supervisor.pid != 0;
}

static uint32_t signal_kind(const struct cluster_file *file, enum cluster_kind kind, int number)
{
    uint32_t alive = 0;

    for (uint32_t i = 0; i < file->process_count; i++) {
        const struct cluster_process *process = &file->processes[i];

        if (process->kind == kind && process_is_alive(&process->id)) {
            alive++;
            if (number != 0)
                process_signal(&process->id, number);
        }
    }
    return alive;
}

void leftovers_clear(const char *data, const struct cluster_file *file, uint32_t timeout_ms)
{
    static const enum cluster_kind order[] = { CLUSTER_ENCODER, CLUSTER_ANALYZER, CLUSTER_QA, CLUSTER_KVSTORE,
                                               CLUSTER_REDIS };

    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        uint64_t deadline = clock_mono_ns() + timeout_ms * 1000000ull;

        if (signal_kind(file, order[i], SIGTERM) == 0)
            continue;
        while (signal_kind(file, order[i], 0) > 0 && clock_mono_ns() < deadline)
            usleep(LOOK_MS * 1000);
        while (signal_kind(file, order[i], SIGKILL) > 0) /* ends: nothing outlives it but a stuck disk */
            usleep(LOOK_MS * 1000);
    }
    up_plan_remove_run(data, &file->plan);
    cluster_file_remove(data);
}

void leftovers_sweep(const char *data)
{
    struct cluster_file *file = calloc(1, sizeof *file);

    REQUIRE(file != NULL);
    leftovers_find(data, file);
    leftovers_clear(data, file, SUPERVISOR_DRAIN_MS);
    free(file);
}
