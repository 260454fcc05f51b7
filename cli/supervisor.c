#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "loop/child.h"
#include "supervisor_log.h"
#include "supervisor_plan.h"
#include "up_plan.h"

enum {
    READY_LINE_BYTES = 4096,
    PLAN_BYTES_MAX = 4 << 20,
    PROBE_MS = 25,
    WRITE_DELAY_MS = 20,
    ROTATE_MS = 3000,
};

static const enum cluster_kind stop_order[CLUSTER_KINDS] = { CLUSTER_ENCODER, CLUSTER_ANALYZER, CLUSTER_QA,
                                                             CLUSTER_KVSTORE, CLUSTER_REDIS };

struct supervisor;

struct worker {
    struct supervisor *supervisor;
    const struct plan_row *row;
    struct cluster_process *shown; /* its row in the written file */
    struct loop_child *child;      /* NULL: not running */
    struct loop_timer timer;       /* backoff while down, probing while redis starts */
    struct loop_poll *ready_poll;  /* of ready_fd, until the ready line has come */
    int ready_fd;
    char line[READY_LINE_BYTES];
    size_t line_len;
    uint64_t started_ns;
    uint32_t backoff_ms;
};

struct supervisor {
    const char *data;
    struct loop *loop;
    struct loop_signal *terminate, *interrupt;
    struct loop_timer write_timer, rotate_timer, drain_timer;
    struct arena arena;
    struct cluster_file file;
    struct worker *workers;
    uint32_t count;
    size_t stop_step; /* index into stop_order while stopping */
    bool services_started;
};

static void start(struct worker *worker);

/* ------------------------------------------------------------------------------------ what is written */

static void write_now(struct loop_timer *timer)
{
    struct supervisor *supervisor = container_of(timer, struct supervisor, write_timer);
    struct status st;

    if (!cluster_file_write(supervisor->data, &supervisor->file, &st))
        log_warn(NULL, "cluster_file_failed", "%s", st.text);
}

static void changed(struct supervisor *supervisor)
{
    if (!loop_timer_is_running(&supervisor->write_timer))
        loop_timer_start(supervisor->loop, &supervisor->write_timer, WRITE_DELAY_MS, write_now);
}

static void rotate_logs(struct loop_timer *timer)
{
    struct supervisor *supervisor = container_of(timer, struct supervisor, rotate_timer);

    for (uint32_t i = 0; i < supervisor->count; i++)
        supervisor_log_rotate(supervisor->data, supervisor->workers[i].row->name, SUPERVISOR_LOG_BYTES);
    supervisor_log_rotate(supervisor->data, "supervisor", SUPERVISOR_LOG_BYTES);
    loop_timer_start(supervisor->loop, timer, ROTATE_MS, rotate_logs);
}

/* ------------------------------------------------------------------------------------------- readiness */

static void start_services(struct supervisor *supervisor)
{
    if (supervisor->services_started || supervisor->file.stopping)
        return;
    supervisor->services_started = true;
    for (uint32_t i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].row->kind != CLUSTER_REDIS)
            start(&supervisor->workers[i]);
}

static void became_ready(struct worker *worker)
{
    worker->shown->state = PROCESS_READY;
    worker->shown->trouble[0] = '\0';
    log_info(NULL, "ready", "%s, process %d, after %llu ms", worker->row->name, worker->shown->id.pid,
             (unsigned long long)((clock_mono_ns() - worker->started_ns) / 1000000));
    changed(worker->supervisor);
    if (worker->row->kind == CLUSTER_REDIS)
        start_services(worker->supervisor);
}

static bool redis_answers(const char *run)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok;

    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/redis.sock", run);
    ok = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static void probe_redis(struct loop_timer *timer)
{
    struct worker *worker = container_of(timer, struct worker, timer);

    if (worker->shown->state != PROCESS_STARTING)
        return;
    if (redis_answers(worker->supervisor->file.plan.run))
        became_ready(worker);
    else
        loop_timer_start(worker->supervisor->loop, timer, PROBE_MS, probe_redis);
}

static void close_ready(struct worker *worker)
{
    loop_poll_destroy(worker->ready_poll);
    worker->ready_poll = NULL;
    if (worker->ready_fd >= 0)
        close(worker->ready_fd);
    worker->ready_fd = -1;
}

/* One line of JSON: {"ready":true,"service":...,"addresses":[...]} */
static bool is_ready_line(const char *line, size_t len)
{
    struct json *value = json_parse((struct bytes){ (const uint8_t *)line, len }, NULL);
    bool ready = json_bool(json_get(value, "ready"));

    json_free(value);
    return ready;
}

static void said_something(struct loop_poll *poll, unsigned events, void *user)
{
    struct worker *worker = user;
    ssize_t len =
        read(worker->ready_fd, worker->line + worker->line_len, sizeof worker->line - worker->line_len);
    char *end;

    if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
        loop_poll_want(poll, LOOP_READABLE);
        return;
    }
    if (len > 0)
        worker->line_len += (size_t)len;
    end = memchr(worker->line, '\n', worker->line_len);
    if (end == NULL && len > 0 && worker->line_len < sizeof worker->line) {
        loop_poll_want(poll, LOOP_READABLE);
        return;
    }
    if (end != NULL && is_ready_line(worker->line, (size_t)(end - worker->line)))
        became_ready(worker);
    else if (len > 0)
        log_warn(NULL, "ready_line_bad", "%s said something else first: %.80s", worker->row->name,
                 worker->line);
    close_ready(worker); /* a process that is gone is noticed by its end, not here */
}

/* ---------------------------------------------------------------------------------------- the children */

static void stop_next(struct supervisor *supervisor);

static void retry(struct loop_timer *timer)
{
    start(container_of(timer, struct worker, timer));
}

static void go_down(struct worker *worker)
{
    struct supervisor *supervisor = worker->supervisor;
    uint64_t ran_ms = (clock_mono_ns() - worker->started_ns) / 1000000;

    worker->shown->state = PROCESS_DOWN;
    worker->shown->id = (struct process_id){ 0 };
    if (ran_ms >= SUPERVISOR_STEADY_MS || worker->backoff_ms == 0)
        worker->backoff_ms = SUPERVISOR_BACKOFF_MS;
    log_warn(NULL, "ended", "%s %s after %llu ms; it is started again in %u ms", worker->row->name,
             worker->shown->trouble, (unsigned long long)ran_ms, worker->backoff_ms);
    loop_timer_start(supervisor->loop, &worker->timer, worker->backoff_ms, retry);
    worker->backoff_ms *= 2;
    if (worker->backoff_ms > SUPERVISOR_BACKOFF_MS_MAX)
        worker->backoff_ms = SUPERVISOR_BACKOFF_MS_MAX;
    worker->shown->restarts++;
    changed(supervisor);
}

static void child_ended(struct loop_child *child, int exit_code, int number, void *user)
{
    struct worker *worker = user;
    struct supervisor *supervisor = worker->supervisor;

    loop_child_destroy(child);
    worker->child = NULL;
    loop_timer_stop(&worker->timer);
    close_ready(worker);
    if (number != 0)
        snprintf(worker->shown->trouble, sizeof worker->shown->trouble, "was ended by signal %d (%s)", number,
                 strsignal(number));
    else
        snprintf(worker->shown->trouble, sizeof worker->shown->trouble, "ended with exit code %d", exit_code);
    worker->shown->exit_code = number != 0 ? 0 : (uint32_t)exit_code;
    if (!supervisor->file.stopping) {
        go_down(worker);
        return;
    }
    worker->shown->state = PROCESS_STOPPED;
    worker->shown->id = (struct process_id){ 0 };
    log_info(NULL, "stopped", "%s %s", worker->row->name, worker->shown->trouble);
    stop_next(supervisor);
}

static bool open_ready_pipe(struct worker *worker, int *write_fd_p, struct status *st)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0)
        return status_fail(st, status_code_of_errno(errno), "make a pipe: %m");
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    worker->ready_fd = fds[0];
    worker->line_len = 0;
    if (!loop_poll_create(&worker->ready_poll, worker->supervisor->loop, fds[0], said_something, worker,
                          st)) {
        close(fds[1]);
        return false;
    }
    loop_poll_want(worker->ready_poll, LOOP_READABLE);
    *write_fd_p = fds[1];
    return true;
}

static bool spawn(struct worker *worker, struct status *st)
{
    bool is_redis = worker->row->kind == CLUSTER_REDIS;
    int fds[3] = { -1, -1, -1 };
    struct loop_child_options options = { .path = worker->row->argv[0],
                                          .argv = worker->row->argv,
                                          .fds = fds,
                                          .fd_count = 3,
                                          .own_group = true,
                                          .ended = child_ended,
                                          .user = worker };
    bool ok;

    if (!supervisor_log_open(worker->supervisor->data, worker->row->name, &fds[2], st))
        return false;
    fds[1] = fds[2];
    ok = (is_redis || open_ready_pipe(worker, &fds[1], st)) &&
         loop_child_spawn(&worker->child, worker->supervisor->loop, &options, st);
    if (fds[1] != fds[2] && fds[1] >= 0)
        close(fds[1]);
    close(fds[2]);
    if (!ok)
        close_ready(worker);
    return ok;
}

static void start(struct worker *worker)
{
    struct supervisor *supervisor = worker->supervisor;
    struct status st;

    worker->started_ns = clock_mono_ns();
    if (!spawn(worker, &st)) {
        snprintf(worker->shown->trouble, sizeof worker->shown->trouble, "could not be started: %.200s",
                 st.text);
        log_error(NULL, "start_failed", "%s: %s", worker->row->name, st.text);
        go_down(worker);
        return;
    }
    worker->shown->state = PROCESS_STARTING;
    if (!process_identify(loop_child_pid(worker->child), &worker->shown->id))
        worker->shown->id = (struct process_id){ 0 }; /* has ended already: child_ended() follows */
    changed(supervisor);
    if (worker->row->kind == CLUSTER_REDIS)
        loop_timer_start(supervisor->loop, &worker->timer, PROBE_MS, probe_redis);
}

/* --------------------------------------------------------------------------------------------- the end */

static uint32_t running_of(const struct supervisor *supervisor, enum cluster_kind kind, int number)
{
    uint32_t running = 0;

    for (uint32_t i = 0; i < supervisor->count; i++) {
        struct worker *worker = &supervisor->workers[i];

        if (worker->row->kind != kind || worker->child == NULL)
            continue;
        running++;
        if (number != 0)
            loop_child_kill(worker->child, number);
    }
    return running;
}

static void drain_is_late(struct loop_timer *timer)
{
    struct supervisor *supervisor = container_of(timer, struct supervisor, drain_timer);
    enum cluster_kind kind = stop_order[supervisor->stop_step];

    log_warn(NULL, "drain_late", "%u processes of kind %s did not end in %d ms and are killed",
             running_of(supervisor, kind, SIGKILL), cluster_kind_names[kind], SUPERVISOR_DRAIN_MS);
}

/* Goes on to the first kind that still runs; each is told once, when its turn comes. */
static void stop_next(struct supervisor *supervisor)
{
    if (running_of(supervisor, stop_order[supervisor->stop_step], 0) > 0)
        return;
    loop_timer_stop(&supervisor->drain_timer);
    while (++supervisor->stop_step < CLUSTER_KINDS) {
        if (running_of(supervisor, stop_order[supervisor->stop_step], SIGTERM) > 0) {
            loop_timer_start(supervisor->loop, &supervisor->drain_timer, SUPERVISOR_DRAIN_MS, drain_is_late);
            changed(supervisor);
            return;
        }
    }
    loop_stop(supervisor->loop);
}

static void stop_asked(int number, void *user)
{
    struct supervisor *supervisor = user;

    if (supervisor->file.stopping)
        return;
    log_info(NULL, "stopping", "got %s", strsignal(number));
    supervisor->file.stopping = true;
    for (uint32_t i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].child == NULL) {
            loop_timer_stop(&supervisor->workers[i].timer);
            supervisor->workers[i].shown->state = PROCESS_STOPPED;
        }
    changed(supervisor);
    if (running_of(supervisor, stop_order[0], SIGTERM) > 0)
        loop_timer_start(supervisor->loop, &supervisor->drain_timer, SUPERVISOR_DRAIN_MS, drain_is_late);
    else
        stop_next(supervisor);
}

/* ------------------------------------------------------------------------------------------- the whole */

static bool make_workers(struct supervisor *supervisor, struct status *st)
{
    struct cluster_file *file = &supervisor->file;
    struct plan_row *rows;

    if (!supervisor_plan_rows(&file->plan, supervisor->data, &supervisor->arena, &rows, &supervisor->count,
                              st))
        return false;
    supervisor->workers = calloc(supervisor->count, sizeof *supervisor->workers);
    if (supervisor->workers == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the supervisor");
    file->process_count = supervisor->count;
    for (uint32_t i = 0; i < supervisor->count; i++) {
        struct cluster_process *shown = &file->processes[i];

        *shown = (struct cluster_process){ .kind = rows[i].kind, .state = PROCESS_STARTING };
        text_copy(shown->name, sizeof shown->name, rows[i].name);
        cluster_address(&file->plan, rows[i].name, shown->address);
        supervisor->workers[i] =
            (struct worker){ .supervisor = supervisor, .row = &rows[i], .shown = shown, .ready_fd = -1 };
    }
    return true;
}

static bool open_all(struct supervisor *supervisor, struct status *st)
{
    if (!cluster_file_read(supervisor->data, &supervisor->file, st) || !make_workers(supervisor, st) ||
        !loop_create(&supervisor->loop, st) ||
        !loop_signal_create(&supervisor->terminate, supervisor->loop, SIGTERM, stop_asked, supervisor, st) ||
        !loop_signal_create(&supervisor->interrupt, supervisor->loop, SIGINT, stop_asked, supervisor, st))
        return false;
    return process_identify(getpid(), &supervisor->file.supervisor) ||
           status_fail(st, STATUS_INTERNAL, "/proc cannot be read; ReelKV needs it");
}

static void close_all(struct supervisor *supervisor)
{
    loop_signal_destroy(supervisor->interrupt);
    loop_signal_destroy(supervisor->terminate);
    loop_destroy(supervisor->loop);
    arena_reset(&supervisor->arena);
    free(supervisor->workers);
    free(supervisor);
}

bool supervisor_run(const char *data, struct status *st)
{
    struct supervisor *supervisor = calloc(1, sizeof *supervisor);

    if (supervisor == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the supervisor");
    supervisor->data = data;
    supervisor->arena.limit_bytes = PLAN_BYTES_MAX;
    if (!open_all(supervisor, st)) {
        close_all(supervisor);
        return false;
    }
    log_info(NULL, "start", "%u processes on %s", supervisor->count, data);
    rotate_logs(&supervisor->rotate_timer);
    write_now(&supervisor->write_timer);
    start(&supervisor->workers[0]);
    loop_run(supervisor->loop);
    loop_timer_stop(&supervisor->write_timer);
    loop_timer_stop(&supervisor->rotate_timer);
    cluster_file_remove(data);
    up_plan_remove_run(data, &supervisor->file.plan);
    log_info(NULL, "end", "every process has stopped");
    close_all(supervisor);
    return true;
}
