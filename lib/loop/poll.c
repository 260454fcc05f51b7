#include <stdlib.h>

#include "base/require.h"
#include "loop/loop_internal.h"

struct loop_poll {
    uv_poll_t uv; /* first: freed through it */
    void (*ready)(struct loop_poll *poll, unsigned events, void *user);
    void *user;
    unsigned wanted;
};

struct loop_signal {
    uv_signal_t uv; /* first: freed through it */
    void (*arrived)(int number, void *user);
    void *user;
};

struct loop_turn {
    uv_prepare_t uv; /* first: freed through it */
    void (*ends)(void *user);
    void *user;
};

static void poll_ready(uv_poll_t *uv, int error, int uv_events)
{
    struct loop_poll *poll = container_of(uv, struct loop_poll, uv);
    unsigned events = 0;

    if (error != 0) {
        events = poll->wanted | LOOP_ERROR; /* libuv has stopped watching */
        poll->wanted = 0;
    } else {
        events |= uv_events & UV_READABLE ? LOOP_READABLE : 0;
        events |= uv_events & UV_WRITABLE ? LOOP_WRITABLE : 0;
    }
    poll->ready(poll, events, poll->user);
}

bool loop_poll_create(struct loop_poll **poll_p, struct loop *loop, int fd,
                      void (*ready)(struct loop_poll *poll, unsigned events, void *user), void *user,
                      struct status *st)
{
    struct loop_poll *poll = calloc(1, sizeof *poll);
    int error;

    REQUIRE(loop_is_here(loop));
    if (poll == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to watch a descriptor");
    error = uv_poll_init(&loop->uv, &poll->uv, fd);
    if (error != 0) {
        free(poll);
        return loop_uv_fail(st, error, "watch a descriptor");
    }
    poll->ready = ready;
    poll->user = user;
    *poll_p = poll;
    return true;
}

void loop_poll_want(struct loop_poll *poll, unsigned events)
{
    int uv_events = 0;

    if (events == poll->wanted)
        return;
    poll->wanted = events & (LOOP_READABLE | LOOP_WRITABLE);
    uv_events |= events & LOOP_READABLE ? UV_READABLE : 0;
    uv_events |= events & LOOP_WRITABLE ? UV_WRITABLE : 0;
    if (uv_events == 0)
        uv_poll_stop(&poll->uv);
    else
        REQUIRE(uv_poll_start(&poll->uv, uv_events, poll_ready) == 0);
}

void loop_poll_destroy(struct loop_poll *poll)
{
    if (poll == NULL)
        return;
    uv_poll_stop(&poll->uv);
    uv_close((uv_handle_t *)&poll->uv, loop_free_closed);
}

static void signal_arrived(uv_signal_t *uv, int number)
{
    struct loop_signal *signal = container_of(uv, struct loop_signal, uv);

    signal->arrived(number, signal->user);
}

bool loop_signal_create(struct loop_signal **signal_p, struct loop *loop, int number,
                        void (*arrived)(int number, void *user), void *user, struct status *st)
{
    struct loop_signal *signal = calloc(1, sizeof *signal);
    int error;

    REQUIRE(loop_is_here(loop));
    if (signal == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to watch signal %d", number);
    error = uv_signal_init(&loop->uv, &signal->uv);
    if (error != 0) {
        free(signal);
        return loop_uv_fail(st, error, "watch a signal");
    }
    signal->arrived = arrived;
    signal->user = user;
    error = uv_signal_start(&signal->uv, signal_arrived, number);
    if (error != 0) {
        loop_signal_destroy(signal);
        return loop_uv_fail(st, error, "watch a signal");
    }
    *signal_p = signal;
    return true;
}

void loop_signal_destroy(struct loop_signal *signal)
{
    if (signal == NULL)
        return;
    uv_signal_stop(&signal->uv);
    uv_close((uv_handle_t *)&signal->uv, loop_free_closed);
}

static void turn_ends(uv_prepare_t *uv)
{
    struct loop_turn *turn = container_of(uv, struct loop_turn, uv);

    turn->ends(turn->user);
}

bool loop_turn_create(struct loop_turn **turn_p, struct loop *loop, void (*ends)(void *user), void *user,
                      struct status *st)
{
    struct loop_turn *turn = calloc(1, sizeof *turn);

    REQUIRE(loop_is_here(loop));
    if (turn == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to watch a loop's turns");
    uv_prepare_init(&loop->uv, &turn->uv);
    turn->ends = ends;
    turn->user = user;
    uv_prepare_start(&turn->uv, turn_ends);
    *turn_p = turn;
    return true;
}

void loop_turn_destroy(struct loop_turn *turn)
{
    if (turn == NULL)
        return;
    uv_prepare_stop(&turn->uv);
    uv_close((uv_handle_t *)&turn->uv, loop_free_closed);
}
