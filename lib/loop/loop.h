/* loop.h - one thread's events: letters, timers, signals, file descriptors, the end of each turn.
 *
 * Everything a loop calls runs on the thread that runs it, one thing at a time; that thread owns the state.
 *
 * Owner:  whoever created it; destroyed after everything that uses it.
 * Thread: loop_post() from any; all else from the loop's thread: the one in loop_run(), else the one that
 *         made it.
 * Fails:  only creating things fails (EXHAUSTED: descriptors or memory).
 * Bounds: none; timers and letters are embedded in bounded things. */
#ifndef REELKV_LOOP_LOOP_H
#define REELKV_LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "loop/mailbox.h"

struct loop;

bool loop_create(struct loop **loop_p, struct status *st);

/* Opens letters still in the box, then frees. Polls, signals, turns and children made on it must be
 * destroyed before. */
void loop_destroy(struct loop *loop); /* NULL is fine */

/* Until loop_stop(). May be run again. */
void loop_run(struct loop *loop);

/* Waits for events once and handles them; for tests and for closing down. Not from within a callback. */
void loop_run_once(struct loop *loop);

void loop_stop(struct loop *loop);
bool loop_is_here(const struct loop *loop);    /* called on the loop's thread? */
bool loop_is_running(const struct loop *loop); /* inside loop_run() or loop_run_once()? loop thread */

/* Any thread. Wakes the loop only when its box was empty. */
void loop_post(struct loop *loop, struct letter *letter);

/* Opens what was posted so far; for closing down. Not while the loop runs. */
void loop_open_letters(struct loop *loop);

/* A timer fires once. Zeroed memory is a stopped timer; a stopped timer's memory may be freed at once. */
struct loop_timer {
    void (*fire)(struct loop_timer *timer);
    struct loop *loop; /* NULL: stopped */
    uint64_t due_ns;   /* clock_mono_ns() */
    struct loop_timer *child, *next, *prev;
};

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms,
                      void (*fire)(struct loop_timer *timer)); /* running: starts anew */
void loop_timer_stop(struct loop_timer *timer);                /* stopped: nothing */
bool loop_timer_is_running(const struct loop_timer *timer);

/* Calls `arrived` on the loop's thread for each (coalesced) arrival of a signal. */
struct loop_signal;
bool loop_signal_create(struct loop_signal **signal_p, struct loop *loop, int number,
                        void (*arrived)(int number, void *user), void *user, struct status *st);
void loop_signal_destroy(struct loop_signal *signal); /* NULL is fine */

/* Readiness of a descriptor. An error on it (refused connect, hang-up) is reported as LOOP_ERROR together
 * with the events that were wanted, so that a reader or writer that ignores LOOP_ERROR still meets the
 * failure. */
enum loop_events { LOOP_READABLE = 1, LOOP_WRITABLE = 2, LOOP_ERROR = 4 };

struct loop_poll;
bool loop_poll_create(struct loop_poll **poll_p, struct loop *loop, int fd,
                      void (*ready)(struct loop_poll *poll, unsigned events, void *user), void *user,
                      struct status *st);

/* Level-triggered; 0 pauses. After LOOP_ERROR it is paused until asked again. */
void loop_poll_want(struct loop_poll *poll, unsigned events);

/* No call of `ready` afterwards; the fd stays the caller's and may be closed right after. NULL is fine. */
void loop_poll_destroy(struct loop_poll *poll);

/* Calls `ends` whenever the loop is about to wait for events: what was gathered in its turn can leave at once. It must not
 * wait itself. */
struct loop_turn;
bool loop_turn_create(struct loop_turn **turn_p, struct loop *loop, void (*ends)(void *user), void *user,
                      struct status *st);
void loop_turn_destroy(struct loop_turn *turn); /* NULL is fine */

#endif
