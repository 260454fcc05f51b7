/* work_pool.h - threads for work that blocks or computes, with a bounded queue.
 *
 *   submit (loop thread) -> run (a pool thread) -> done (loop thread)
 *
 * Letters that run() posts to the loop are opened before done() is called.
 *
 * Owner:  work is the pool's from a successful submit until its done() starts.
 * Thread: run() on a pool thread, everything else on the loop's.
 * Fails:  submit says no when the queue is full.
 * Bounds: queue_max works waiting; each of `threads` runs one. */
#ifndef REELKV_LOOP_WORK_POOL_H
#define REELKV_LOOP_WORK_POOL_H

#include <stdint.h>

#include "loop/loop.h"

struct work_pool;

struct work {
    void (*run)(struct work *work);  /* pool thread */
    void (*done)(struct work *work); /* loop thread, once */
    struct work *next;
};

struct work_pool_options {
    const char *name; /* of the threads, at most 15 bytes */
    uint32_t threads;
    uint32_t queue_max; /* waiting, not counting the running ones; at least 1 */
};

bool work_pool_create(struct work_pool **pool_p, struct loop *loop, const struct work_pool_options *options,
                      struct status *st);

/* False: full, the work is still the caller's. Works start in the order of submission. */
bool work_pool_submit(struct work_pool *pool, struct work *work);

/* True: it had not started, is the caller's again, and neither run nor done will be called. False: done
 * comes. */
bool work_pool_withdraw(struct work_pool *pool, struct work *work);

uint32_t work_pool_waiting(struct work_pool *pool);

/* Runs what was submitted to its end, opens the loop's letters and so calls every done() before it returns.
 * Not while the loop runs. NULL is fine. */
void work_pool_destroy(struct work_pool *pool);

#endif
