/* loop_internal.h - what the files of lib/loop share. Includes libuv: never include it elsewhere. */
#ifndef REELKV_LOOP_INTERNAL_H
#define REELKV_LOOP_INTERNAL_H

#include <uv.h>

#include "loop/loop.h"

struct loop {
    uv_loop_t uv;
    uv_async_t wake;
    struct mailbox box;
    uv_timer_t clock;          /* rings for the first of `timers` */
    struct loop_timer *timers; /* root of a pairing heap by due_ns */
    _Atomic pthread_t thread;
    bool running;
    bool ringing;     /* timers are firing */
    unsigned orphans; /* children killed by loop_child_destroy() and not reaped yet */
};

void loop_clock_rang(uv_timer_t *clock);

/* Fills *st from a libuv error and returns false. */
bool loop_uv_fail(struct status *st, int error, const char *what);

/* A close callback for handles that are the first member of their malloc'd struct. */
void loop_free_closed(uv_handle_t *handle);

#endif
