#include "loop/child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/test.h"

struct end {
    struct loop *loop;
    int count, exit_code, signal;
};

static void note_end(struct loop_child *child, int exit_code, int signal, void *user)
{
    struct end *end = user;

    end->count++;
    end->exit_code = exit_code;
    end->signal = signal;
    loop_stop(end->loop);
}

static struct loop_child *shell(struct loop *loop, const char *script, struct end *end, const int *fds,
                                unsigned fd_count)
{
    char *argv[] = { "sh", "-c", (char *)script, NULL };
    struct loop_child_options options = { .path = "sh", .argv = argv, .fds = fds, .fd_count = fd_count };
    struct loop_child *child = NULL;
    struct status st = { 0 };

    options.ended = note_end;
    options.user = end;
    CHECK_OK(loop_child_spawn(&child, loop, &options, &st), st);
    return child;
}

TEST(a_childs_exit_code_and_signal_are_told_apart)
{
    struct end end = { 0 };
    struct loop_child *child;
    struct status st = { 0 };

    CHECK_OK(loop_create(&end.loop, &st), st);
    child = shell(end.loop, "exit 7", &end, NULL, 0);
    loop_run(end.loop);
    CHECK_EQ(end.exit_code, 7);
    CHECK_EQ(end.signal, 0);
    loop_child_kill(child, SIGKILL); /* already gone: nothing */
    loop_child_destroy(child);
    child = shell(end.loop, "exec sleep 600", &end, NULL, 0);
    loop_child_kill(child, SIGTERM);
    loop_run(end.loop);
    CHECK_EQ(end.signal, SIGTERM);
    CHECK_EQ(end.count, 2);
    loop_child_destroy(child);
    loop_destroy(end.loop);
}

/* Descriptors 1 and 5 are given; another one of ours (close-on-exec, as all are) must not be there. */
TEST(a_child_has_the_descriptors_it_was_given_and_no_other)
{
    struct end end = { 0 };
    struct loop_child *child;
    struct status st = { 0 };
    char script[128], text[64] = { 0 };
    int out[2], five[2], ours;

    CHECK_OK(loop_create(&end.loop, &st), st);
    REQUIRE(pipe2(out, O_CLOEXEC) == 0 && pipe2(five, O_CLOEXEC) == 0);
    ours = fcntl(out[0], F_DUPFD_CLOEXEC, 100);
    REQUIRE(ours >= 100);
    snprintf(script, sizeof script, "echo one; echo five >&5; test ! -e /proc/self/fd/%d", ours);
    child = shell(end.loop, script, &end, (int[]){ -1, out[1], 2, -1, -1, five[1] }, 6);
    loop_run(end.loop);
    CHECK_EQ(end.exit_code, 0);
    CHECK_EQ(read(out[0], text, sizeof text), 4);
    CHECK_STR(text, "one\n");
    CHECK_EQ(read(five[0], text, sizeof text), 5);
    CHECK_STR(text, "five\n");
    loop_child_destroy(child);
    loop_destroy(end.loop);
    for (int i = 0; i < 2; i++) {
        close(out[i]);
        close(five[i]);
    }
    close(ours);
}

TEST(a_program_that_does_not_exist_is_named)
{
    char *argv[] = { "x", NULL };
    struct loop_child_options options = { .path = "/nowhere/at/all", .argv = argv, .ended = note_end };
    struct loop_child *child = NULL;
    struct loop *loop = NULL;
    struct status st = { 0 };

    CHECK_OK(loop_create(&loop, &st), st);
    CHECK(!loop_child_spawn(&child, loop, &options, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "start /nowhere/at/all: no such file");
    loop_destroy(loop);
}

/* Destroying a running child kills and reaps it without a word; the loop's own destruction waits for that. */
TEST(a_child_destroyed_while_it_runs_is_gone_afterwards)
{
    struct end end = { 0 };
    struct loop_child *child;
    struct status st = { 0 };
    pid_t pid;

    CHECK_OK(loop_create(&end.loop, &st), st);
    child = shell(end.loop, "exec sleep 600", &end, NULL, 0);
    pid = loop_child_pid(child);
    CHECK(kill(pid, 0) == 0);
    loop_child_destroy(child);
    loop_destroy(end.loop);
    CHECK_EQ(end.count, 0);
    CHECK(kill(pid, 0) < 0);
    CHECK(waitpid(pid, NULL, WNOHANG) < 0);
}

TEST_MAIN()
