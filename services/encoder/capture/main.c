/* reelkv-capture - decodes one source for an encoder. Started by it and by nobody else: descriptor 0 is their
 * socket, 3 the slots for pictures (encoder/capture_wire.h). It takes no arguments, so that no address with a
 * password is ever in the list of processes, and prints nothing but what keeps it from starting. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "encoder/capture/capture_run.h"

/* Above the slots: FFmpeg's own need, for pictures of the largest size. A hostile file may ask for more. */
#define CAPTURE_MEMORY_BYTES (4ull << 30)

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    stop = 1;
}

static void set_limit(int what, rlim_t value)
{
    struct rlimit limit = { value, value };

    setrlimit(what, &limit);
}

/* What a decoder that has been taken over may still do, and that this process is the first to go when memory is
 * short. None of it can fail in a way that matters: a limit above the present one is refused and not needed. */
static void confine(const struct capture_job *job)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        file_write_fully(fd, "500", 3, NULL);
        close(fd);
    }
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    set_limit(RLIMIT_CORE, 0); /* the source's password would be in it */
    set_limit(RLIMIT_NOFILE, 64);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they map terabytes */
    set_limit(RLIMIT_AS, CAPTURE_MEMORY_BYTES + job->slots * job->slot_bytes);
#endif
}

static bool read_job(struct capture_job *job, struct status *st)
{
    static uint8_t text[CAPTURE_JOB_BYTES];
    ssize_t len;

    do
        len = recv(CAPTURE_FD_SOCKET, text, sizeof text, MSG_TRUNC);
    while (len < 0 && errno == EINTR && !stop);
    if (len < 0)
        return status_fail(st, STATUS_INVALID, "descriptor 0 is not an encoder's socket: %m");
    if (len == 0 || (size_t)len > sizeof text)
        return status_fail(st, STATUS_INVALID, "no job came");
    return capture_job_read((struct bytes){ text, (size_t)len }, job, st);
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = on_signal };
    struct capture_link link = { 0 };
    struct capture_job job;
    struct status st = { 0 };

    /* The encoder's death closes the socket, too; this also reaches a child that is deep in a decoder. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    sigaction(SIGTERM, &action, NULL);
    if (argc > 1 || !read_job(&job, &st) || !capture_link_open(&link, &job, &stop, &st)) {
        fprintf(stderr, "%s: started by reelkv-encoder only: %s\n", argv[0],
                st.code != STATUS_OK ? st.text : "it takes no arguments");
        return 2;
    }
    confine(&job);
    if (job.live)
        capture_run_live(&link, &job);
    else
        capture_run_file(&link, &job);
    return 0;
}
