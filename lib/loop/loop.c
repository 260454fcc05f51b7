#include <stdlib.h>

#include "base/require.h"
#include "loop/loop_internal.h"

static void wake_arrived(uv_async_t *wake)
{
    struct loop *loop = container_of(wake, struct loop, wake);

    mailbox_open_all(&loop->box);
}

static void box_wakes(struct mailbox *box)
{
    uv_async_send(&container_of(box, struct loop, box)->wake);
}

bool loop_uv_fail(struct status *st, int error, const char *what)
{
    return status_fail(st, status_code_of_errno(-error), "%s: %s", what, uv_strerror(error));
}

void loop_free_closed(uv_handle_t *handle)
{
    free(handle);
}

bool loop_create(struct loop **loop_p, struct status *st)
{
    struct loop *loop = calloc(1, sizeof *loop);
    int error;

    if (loop == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for an event loop");
    error = uv_loop_init(&loop->uv);
    if (error != 0) {
        free(loop);
        return loop_uv_fail(st, error, "make an event loop");
    }
    error = uv_async_init(&loop->uv, &loop->wake, wake_arrived);
    if (error != 0) {
        uv_loop_close(&loop->uv);
        free(loop);
        return loop_uv_fail(st, error, "make an event loop's wake-up");
    }
    uv_timer_init(&loop->uv, &loop->clock);
    uv_unref((uv_handle_t *)&loop->clock);
    mailbox_init(&loop->box, box_wakes);
    loop->thread = pthread_self();
    *loop_p = loop;
    return true;
}

void loop_destroy(struct loop *loop)
{
    if (loop == NULL)
        return;
    REQUIRE(loop_is_here(loop) && !loop->running);
    while (loop->orphans > 0)
        loop_run_once(loop);
    while (loop->box.first != NULL)
        mailbox_open_all(&loop->box);
    REQUIRE(loop->timers == NULL);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->clock, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    REQUIRE(uv_loop_close(&loop->uv) == 0); /* else a poll, signal or child was not destroyed */
    mailbox_deinit(&loop->box);
    free(loop);
}

static void run(struct loop *loop, uv_run_mode mode)
{
    REQUIRE(!loop->running);
    loop->thread = pthread_self();
    loop->running = true;
    uv_run(&loop->uv, mode);
    loop->running = false;
}

void loop_run(struct loop *loop)
{
    run(loop, UV_RUN_DEFAULT);
}

void loop_run_once(struct loop *loop)
{
    run(loop, UV_RUN_ONCE);
}

void loop_stop(struct loop *loop)
{
    REQUIRE(loop_is_here(loop));
    uv_stop(&loop->uv);
}

bool loop_is_here(const struct loop *loop)
{
    return pthread_equal(loop->thread, pthread_self());
}

bool loop_is_running(const struct loop *loop)
{
    return loop->running;
}

void loop_post(struct loop *loop, struct letter *letter)
{
    mailbox_post(&loop->box, letter);
}

void loop_open_letters(struct loop *loop)
{
    REQUIRE(loop_is_here(loop) && !loop->running);
    mailbox_open_all(&loop->box);
}
