#include "encoder/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/require.h"
#include "loop/child.h"
#include "media/media_sampling.h"

struct capture_pool {
    const uint8_t *data; /* [slots, slot_bytes], to read */
    size_t bytes;
    uint32_t refs;
};

struct capture {
    struct loop *loop;
    struct capture_events events;
    struct capture_session session;
    struct capture_pool *pool;
    struct loop_child *child;
    struct loop_poll *poll;
    struct loop_timer goodbye;
    int socket;
    bool stopping;
    bool over;      /* `ended` was called */
    bool in_events; /* destroy waits until the callback has returned */
    bool destroyed;
    uint32_t *left; /* of a retired one */
    /* Where a live source's grid and clock stood at the start: what it says later is measured against them. */
    double sample_fps;
    struct live_grid grid;
    uint64_t start_mono_ns, start_seq;
    int64_t start_utc_ns;
};

struct capture_pool *capture_pool_ref(struct capture *capture)
{
    capture->pool->refs++;
    return capture->pool;
}

void capture_pool_unref(struct capture_pool *pool)
{
    if (pool == NULL || --pool->refs > 0)
        return;
    munmap((void *)pool->data, pool->bytes);
    free(pool);
}

/* The slots: a file in memory whose size nobody can change, so that reading it cannot fault. Returns its
 * descriptor, or -1. */
static int create_pool(const struct capture_job *job, struct capture_pool **pool_p, struct status *st)
{
    struct capture_pool *pool = calloc(1, sizeof *pool);
    int fd = memfd_create("reelkv-capture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *data = MAP_FAILED;

    if (pool != NULL && fd >= 0) {
        pool->bytes = job->slots * job->slot_bytes;
        if (ftruncate(fd, (off_t)pool->bytes) == 0 &&
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
            data = mmap(NULL, pool->bytes, PROT_READ, MAP_SHARED, fd, 0);
    }
    if (data == MAP_FAILED) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for %u pictures of %llu bytes: %m", job->slots,
                    (unsigned long long)job->slot_bytes);
        free(pool);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    pool->data = data;
    pool->refs = 1;
    *pool_p = pool;
    return fd;
}

static struct capture_limits limits_now(const struct capture *capture)
{
    double elapsed_s = (double)(clock_mono_ns() - capture->start_mono_ns) / 1e9;
    int64_t utc_ns = clock_utc_ns(), by_mono_ns = capture->start_utc_ns + (int64_t)(elapsed_s * 1e9);
    uint64_t slot = live_grid_slot(&capture->grid, utc_ns);
    uint64_t by_mono = capture->start_seq + (uint64_t)(elapsed_s * capture->sample_fps);
    int64_t periods_ns = (int64_t)(2e9 / capture->sample_fps);

    if (!capture->session.live)
        return (struct capture_limits){ UINT64_MAX, INT64_MAX };
    return (struct capture_limits){
        .seq_limit = (slot > by_mono ? slot : by_mono) + (uint64_t)(60 * capture->sample_fps) + 16,
        .pts_limit_ns = (utc_ns > by_mono_ns ? utc_ns : by_mono_ns) + 60000000000 + periods_ns,
    };
}

/* Calls `ended` once. The capture may be gone afterwards only if the caller is not within in_events. */
static void end_with(struct capture *capture, enum capture_outcome outcome, const struct capture_message *end,
                     const struct status *st)
{
    static const struct capture_message nothing;
    static const struct status ok;

    if (capture->over)
        return;
    capture->over = true;
    loop_poll_want(capture->poll, 0);
    if (capture->stopping && outcome == CAPTURE_BROKEN) {
        outcome = CAPTURE_STOPPED;
        st = NULL;
    }
    capture->events.ended(capture, outcome, end != NULL ? end : &nothing, st != NULL ? st : &ok,
                          capture->events.user);
}

static void break_off(struct capture *capture, const struct status *st)
{
    loop_child_kill(capture->child, SIGKILL);
    end_with(capture, CAPTURE_BROKEN, NULL, st);
}

static void take_packet(struct capture *capture, struct bytes packet)
{
    struct capture_limits limits = limits_now(capture);
    struct capture_message message = { 0 };
    struct status st = { 0 };

    if (!capture_session_accept(&capture->session, packet, &limits, &message, &st)) {
        status_wrap(&st, "the capture process sent what it must not");
        break_off(capture, &st);
    } else if (message.kind == CAPTURE_END) {
        end_with(capture, CAPTURE_DONE, &message, NULL);
    } else if (message.kind == CAPTURE_FAILED) {
        status_fail(&st, message.code, "%s", message.text);
        end_with(capture, CAPTURE_REFUSED, &message, &st);
    } else {
        capture->events.message(capture, &message, capture->events.user);
    }
}

static void goodbye_is_over(struct loop_timer *timer)
{
    struct capture *capture = container_of(timer, struct capture, goodbye);

    loop_child_kill(capture->child, SIGKILL);
}

/* At most `packets`; true when there are no more for now. */
static bool listen_to(struct capture *capture, unsigned packets)
{
    /* One byte more than the longest, so that a longer packet shows. */
    uint8_t packet[CAPTURE_MESSAGE_BYTES + 1];

    while (packets-- > 0 && !capture->over && !capture->destroyed) {
        ssize_t len = recv(capture->socket, packet, sizeof packet, MSG_DONTWAIT);

        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 && errno == EAGAIN)
            return true;
        if (len <= 0) {
            /* Closed: it is ending, or pretends to. Its exit, which tells why, follows soon. */
            loop_poll_want(capture->poll, 0);
            if (!loop_timer_is_running(&capture->goodbye))
                loop_timer_start(capture->loop, &capture->goodbye, CAPTURE_GOODBYE_MS, goodbye_is_over);
            return true;
        }
        take_packet(capture, (struct bytes){ packet, (size_t)len });
    }
    return capture->over || capture->destroyed;
}

static void free_capture(struct capture *capture)
{
    loop_poll_destroy(capture->poll);
    loop_child_destroy(capture->child);
    loop_timer_stop(&capture->goodbye);
    if (capture->socket >= 0)
        close(capture->socket);
    capture_pool_unref(capture->pool);
    free(capture);
}

static void leave_events(struct capture *capture)
{
    capture->in_events = false;
    if (capture->destroyed)
        free_capture(capture);
}

static void socket_ready(struct loop_poll *poll, unsigned events, void *user)
{
    struct capture *capture = user;

    capture->in_events = true;
    listen_to(capture, CAPTURE_PACKETS_AT_ONCE);
    leave_events(capture);
}

static void child_ended(struct loop_child *child, int exit_code, int number, void *user)
{
    struct capture *capture = user;
    struct status st = { 0 };

    capture->in_events = true;
    loop_timer_stop(&capture->goodbye);
    while (!listen_to(capture, CAPTURE_PACKETS_AT_ONCE))
        ; /* what it sent before it ended, at most what a socket holds */
    if (number != 0)
        status_fail(&st, STATUS_UNAVAILABLE, "the capture process was ended by signal %d (%s)", number,
                    strsignal(number));
    else
        status_fail(&st, STATUS_UNAVAILABLE, "the capture process ended early with code %d", exit_code);
    if (!capture->destroyed)
        end_with(capture, CAPTURE_BROKEN, NULL, &st);
    leave_events(capture);
}

static bool start_child(struct capture *capture, const char *program, int socket, int pool_fd,
                        struct status *st)
{
    char *const argv[] = { "reelkv-capture", NULL };
    const int fds[] = { [CAPTURE_FD_SOCKET] = socket, [1] = -1, [2] = 2, [CAPTURE_FD_POOL] = pool_fd };
    const struct loop_child_options options = {
        .path = program,
        .argv = argv,
        .fds = fds,
        .fd_count = ARRAY_LEN(fds),
        .own_group = true,
        .ended = child_ended,
        .user = capture,
    };

    return loop_child_spawn(&capture->child, capture->loop, &options, st);
}

static bool send_job(struct capture *capture, const struct capture_job *job, struct status *st)
{
    char *text = capture_job_write(job);
    size_t len = strlen(text);
    bool sent = send(capture->socket, text, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;

    free(text);
    return sent || status_fail(st, STATUS_UNAVAILABLE, "give the capture process its job: %m");
}

bool capture_create(struct capture **capture_p, struct loop *loop, const struct capture_options *options,
                    struct status *st)
{
    const struct capture_job *job = options->job;
    struct capture *capture = calloc(1, sizeof *capture);
    int sockets[2] = { -1, -1 }, pool_fd = -1;
    bool ok = false;

    if (capture == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a capture");
    capture->loop = loop;
    capture->events = options->events;
    capture->socket = -1;
    capture->sample_fps = job->sample_fps;
    capture->grid = (struct live_grid){ .origin_ns = job->origin_ns, .sample_fps = job->sample_fps };
    capture->start_mono_ns = clock_mono_ns();
    capture->start_utc_ns = clock_utc_ns();
    capture->start_seq = live_grid_slot(&capture->grid, capture->start_utc_ns);
    if (capture->start_seq < job->from_seq)
        capture->start_seq = job->from_seq;
    capture_session_init(&capture->session, job);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
        status_fail(st, status_code_of_errno(errno), "make a socket for a capture: %m");
        goto out;
    }
    capture->socket = sockets[0];
    pool_fd = create_pool(job, &capture->pool, st);
    if (pool_fd < 0 || !loop_poll_create(&capture->poll, loop, capture->socket, socket_ready, capture, st) ||
        !send_job(capture, job, st) || !start_child(capture, options->program, sockets[1], pool_fd, st))
        goto out;
    loop_poll_want(capture->poll, LOOP_READABLE);
    *capture_p = capture;
    capture = NULL;
    ok = true;
out:
    if (sockets[1] >= 0)
        close(sockets[1]);
    if (pool_fd >= 0)
        close(pool_fd);
    if (capture != NULL)
        free_capture(capture);
    return ok;
}

void capture_stop(struct capture *capture)
{
    if (capture->over || capture->stopping)
        return;
    capture->stopping = true;
    loop_child_kill(capture->child, SIGTERM);
    loop_timer_start(capture->loop, &capture->goodbye, CAPTURE_GOODBYE_MS, goodbye_is_over);
}

void capture_destroy(struct capture *capture)
{
    if (capture == NULL)
        return;
    if (capture->in_events)
        capture->destroyed = true; /* whoever called the callback frees it */
    else
        free_capture(capture);
}

static void ignore_message(struct capture *capture, const struct capture_message *message, void *user)
{
}

static void retired_ended(struct capture *capture, enum capture_outcome outcome,
                          const struct capture_message *end, const struct status *st, void *user)
{
    --*capture->left;
    capture_destroy(capture);
}

void capture_retire(struct capture *capture, uint32_t *left)
{
    if (capture->over) {
        capture_destroy(capture);
        return;
    }
    capture->left = left;
    ++*left;
    capture->events = (struct capture_events){ ignore_message, retired_ended, NULL };
    capture_stop(capture);
}

int capture_pid(const struct capture *capture)
{
    return loop_child_pid(capture->child);
}

const uint8_t *capture_rgb(const struct capture *capture, uint32_t slot)
{
    REQUIRE((capture->session.held >> slot & 1) != 0);
    return capture->pool->data + slot * capture->session.slot_bytes;
}

void capture_release(struct capture *capture, uint32_t slot)
{
    const struct capture_message release = { .kind = CAPTURE_RELEASE, .slot = slot };
    uint8_t packet[CAPTURE_MESSAGE_BYTES];
    size_t len = capture_message_write(&release, packet);

    capture_session_release(&capture->session, slot);
    /* The child listens whenever it needs a slot; one that is dead or does not is ended elsewhere. */
    send(capture->socket, packet, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}
