/* The whole job is one word, `state`: a generation in the upper half, tasks not yet started in the lower. A
 * worker starts a task by taking one off by compare-and-swap. What it reads of the job afterwards cannot
 * change under it, because the next job is published only when every started task has counted itself in
 * `finished`. A worker that wakes late finds nothing left, or the next job, and is waited for in neither
 * case.
 *
 * Sleeping: a worker raises `sleepers` and then looks at `state`; the caller publishes `state` and then looks
 * at `sleepers`. Both are sequentially consistent, so one of them sees the other. The same holds for the
 * caller's own sleep with `caller_sleeps` and `finished`. */
#include "tensor/cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"

struct pool_worker {
    struct pool *pool;
    uint32_t index;
    pthread_t thread;
};

/* Callers get their turns in the order they came, one at a time. A mutex would let the one that has just had its turn
 * take the next before a sleeping one wakes. */
struct turns {
    pthread_mutex_t lock;
    pthread_cond_t passed;
    uint64_t next, serving; /* tickets; equal: nobody has a turn */
};

struct pool {
    struct turns turns; /* whose job runs */
    _Alignas(64) atomic_uint_fast64_t state;
    _Alignas(64) atomic_uint_fast32_t finished;
    _Alignas(64) pool_task run;
    void *context;
    uint32_t count;

    pthread_mutex_t lock; /* guards sleeping and waking only */
    pthread_cond_t work_came, job_done;
    atomic_uint_fast32_t sleepers;
    atomic_bool caller_sleeps;
    atomic_bool ending;

    uint32_t threads, started;
    struct pool_worker workers[]; /* [threads - 1] */
};

static void turn_take(struct turns *turns)
{
    uint64_t ticket;

    pthread_mutex_lock(&turns->lock);
    ticket = turns->next++;
    while (turns->serving != ticket)
        pthread_cond_wait(&turns->passed, &turns->lock);
    pthread_mutex_unlock(&turns->lock);
}

static void turn_pass(struct turns *turns)
{
    pthread_mutex_lock(&turns->lock);
    turns->serving++;
    if (turns->serving != turns->next)
        pthread_cond_broadcast(&turns->passed);
    pthread_mutex_unlock(&turns->lock);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Starts and finishes tasks until none is left; false when there was none. */
static bool work(struct pool *pool, uint32_t worker)
{
    uint_fast64_t state = atomic_load_explicit(&pool->state, memory_order_acquire);
    bool any = false;

    while ((uint32_t)state > 0) {
        uint32_t count, task;

        if (!atomic_compare_exchange_weak(&pool->state, &state, state - 1))
            continue;
        count = pool->count;
        task = count - (uint32_t)state;
        pool->run(pool->context, task, worker);
        any = true;
        if (atomic_fetch_add(&pool->finished, 1) + 1 == count && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->job_done);
            pthread_mutex_unlock(&pool->lock);
        }
        state = atomic_load_explicit(&pool->state, memory_order_acquire);
    }
    return any;
}

static void sleep_until_work(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while ((uint32_t)atomic_load(&pool->state) == 0 && !atomic_load(&pool->ending))
        pthread_cond_wait(&pool->work_came, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument)
{
    struct pool_worker *me = argument;
    struct pool *pool = me->pool;
    uint64_t idle_since = clock_mono_ns();

    while (!atomic_load(&pool->ending)) {
        if (work(pool, me->index)) {
            idle_since = clock_mono_ns();
        } else if (clock_mono_ns() - idle_since < POOL_SPIN_NS) {
            for (int i = 0; i < 32; i++)
                relax();
        } else {
            sleep_until_work(pool);
            idle_since = clock_mono_ns();
        }
    }
    return NULL;
}

bool pool_create(struct pool **pool_p, uint32_t threads, struct status *st)
{
    size_t bytes = sizeof(struct pool) + (threads - 1) * sizeof(struct pool_worker);
    struct pool *pool;

    REQUIRE(threads >= 1);
    pool = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (pool == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %u compute threads", threads);
    memset(pool, 0, bytes);
    pthread_mutex_init(&pool->turns.lock, NULL);
    pthread_cond_init(&pool->turns.passed, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work_came, NULL);
    pthread_cond_init(&pool->job_done, NULL);
    pool->threads = threads;
    for (uint32_t i = 0; i + 1 < threads; i++) {
        struct pool_worker *worker = &pool->workers[i];
        int error;

        *worker = (struct pool_worker){ .pool = pool, .index = i + 1 };
        error = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (error != 0) {
            pool_destroy(pool);
            return status_fail(st, STATUS_EXHAUSTED, "start compute thread %u of %u: %s", i + 1, threads,
                               strerror(error));
        }
        pool->started++;
    }
    *pool_p = pool;
    return true;
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->ending, true);
    pthread_cond_broadcast(&pool->work_came);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->job_done);
    pthread_cond_destroy(&pool->work_came);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->turns.passed);
    pthread_mutex_destroy(&pool->turns.lock);
    free(pool);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->threads;
}

static void wait_until_finished(struct pool *pool, uint32_t count)
{
    uint64_t since = clock_mono_ns();

    while (atomic_load_explicit(&pool->finished, memory_order_acquire) != count) {
        if (clock_mono_ns() - since < POOL_SPIN_NS) {
            relax();
            continue;
        }
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->caller_sleeps, true);
        while (atomic_load(&pool->finished) != count)
            pthread_cond_wait(&pool->job_done, &pool->lock);
        atomic_store(&pool->caller_sleeps, false);
        pthread_mutex_unlock(&pool->lock);
    }
}

void pool_run(struct pool *pool, pool_task run, void *context, uint32_t count)
{
    uint_fast64_t generation;

    if (count == 0)
        return;
    turn_take(&pool->turns);
    pool->run = run;
    pool->context = context;
    pool->count = count;
    atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
    generation = (atomic_load_explicit(&pool->state, memory_order_relaxed) >> 32) + 1;
    atomic_store(&pool->state, generation << 32 | count);
    if (count > 1 && atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->work_came);
        pthread_mutex_unlock(&pool->lock);
    }
    work(pool, 0);
    wait_until_finished(pool, count);
    turn_pass(&pool->turns);
}
