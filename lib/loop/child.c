#include "loop/child.h"

#include <signal.h>
#include <stdlib.h>

#include "base/require.h"
#include "loop/loop_internal.h"

struct loop_child {
    uv_process_t uv; /* first: freed through it */
    struct loop *loop;
    void (*ended)(struct loop_child *child, int exit_code, int signal, void *user);
    void *user;
    bool running;
    bool orphan; /* destroyed while running: wait for it, tell nobody */
};

static void child_exited(uv_process_t *uv, int64_t exit_code, int signal)
{
    struct loop_child *child = container_of(uv, struct loop_child, uv);

    child->running = false;
    if (!child->orphan) {
        child->ended(child, (int)exit_code, signal, child->user);
        return;
    }
    child->loop->orphans--;
    uv_close((uv_handle_t *)uv, loop_free_closed);
}

static unsigned fill_stdio(uv_stdio_container_t *stdio, const struct loop_child_options *options)
{
    unsigned count = options->fd_count > 3 ? options->fd_count : 3;

    REQUIRE(options->fd_count <= LOOP_CHILD_FDS);
    for (unsigned i = 0; i < count; i++) {
        int fd = i < options->fd_count ? options->fds[i] : (int)i;

        stdio[i].flags = fd < 0 ? UV_IGNORE : UV_INHERIT_FD;
        stdio[i].data.fd = fd;
    }
    return count;
}

bool loop_child_spawn(struct loop_child **child_p, struct loop *loop,
                      const struct loop_child_options *options, struct status *st)
{
    struct loop_child *child = calloc(1, sizeof *child);
    uv_stdio_container_t stdio[LOOP_CHILD_FDS];
    uv_process_options_t uv = { 0 };
    int error;

    REQUIRE(loop_is_here(loop));
    if (child == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to start %s", options->path);
    child->loop = loop;
    child->ended = options->ended;
    child->user = options->user;
    uv.exit_cb = child_exited;
    uv.file = options->path;
    uv.args = (char **)options->argv;
    uv.env = (char **)options->envp;
    uv.stdio_count = (int)fill_stdio(stdio, options);
    uv.stdio = stdio;
    uv.flags = options->own_group ? UV_PROCESS_DETACHED : 0;
    error = uv_spawn(&loop->uv, &child->uv, &uv);
    if (error != 0) {
        uv_close((uv_handle_t *)&child->uv, loop_free_closed);
        return status_fail(st, status_code_of_errno(-error), "start %s: %s", options->path,
                           uv_strerror(error));
    }
    child->running = true;
    *child_p = child;
    return true;
}

int loop_child_pid(const struct loop_child *child)
{
    return uv_process_get_pid(&child->uv);
}

void loop_child_kill(struct loop_child *child, int number)
{
    if (child->running)
        uv_process_kill(&child->uv, number); /* fails only when it has just died: `ended` follows */
}

void loop_child_destroy(struct loop_child *child)
{
    if (child == NULL)
        return;
    if (!child->running) {
        uv_close((uv_handle_t *)&child->uv, loop_free_closed);
        return;
    }
    child->orphan = true;
    child->loop->orphans++;
    uv_process_kill(&child->uv, SIGKILL);
}
