/* pool.h - the workers of one CPU device: a job is `count` independent tasks, run by all of them.
 *
 * Owner:  cpu/device.c. pool_destroy() takes NULL; no job may be running.
 * Thread: pool_run() from any thread; several callers take turns, a job at a time, in the order they came. The caller
 *         works too, as worker 0, and has returned only when every task has.
 * Bounds: `threads` workers; `worker` is below it. Workers spin for POOL_SPIN_NS between jobs (a model's
 *         operations follow each other within that), then sleep. */
#ifndef REELKV_TENSOR_CPU_POOL_H
#define REELKV_TENSOR_CPU_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { POOL_SPIN_NS = 40000 };

struct pool;

/* Runs one task; tasks of a job are started in ascending order, by any worker. */
typedef void (*pool_task)(void *context, uint32_t task, uint32_t worker);

bool pool_create(struct pool **pool_p, uint32_t threads, struct status *st);
void pool_destroy(struct pool *pool);
uint32_t pool_threads(const struct pool *pool);
void pool_run(struct pool *pool, pool_task run, void *context, uint32_t count);

#endif
