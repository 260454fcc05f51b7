#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "support/test.h"
#include "tensor/cpu/pool.h"

struct count {
    atomic_uint runs[1000];
    atomic_uint bad_workers;
    uint32_t threads;
};

static void count_task(void *context, uint32_t task, uint32_t worker)
{
    struct count *count = context;

    atomic_fetch_add(&count->runs[task], 1);
    if (worker >= count->threads)
        atomic_fetch_add(&count->bad_workers, 1);
}

/* Many jobs of all sizes on pools of all sizes, with pauses long enough that workers fall asleep. */
TEST(pool_runs_every_task_exactly_once)
{
    for (uint32_t threads = 1; threads <= 9; threads += 2) {
        struct count count = { .threads = threads };
        struct pool *pool = NULL;
        struct status st = { 0 };

        CHECK_OK(pool_create(&pool, threads, &st), st);
        CHECK_EQ(pool_threads(pool), threads);
        for (uint32_t job = 0; job < 300; job++) {
            uint32_t tasks = job * 37 % 1000;

            if (job % 100 == 50)
                nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
            pool_run(pool, count_task, &count, tasks);
            for (uint32_t i = 0; i < 1000; i++)
                CHECK_EQ(atomic_exchange(&count.runs[i], 0), i < tasks);
        }
        CHECK_EQ(atomic_load(&count.bad_workers), 0);
        pool_destroy(pool);
    }
    pool_destroy(NULL);
}

enum { CALLERS = 2, JOBS = 200 };

struct caller {
    struct pool *pool;
    atomic_uint *callers, *jobs; /* who has begun; jobs of all since all have */
    unsigned mine;
};

/* Takes long enough for the others to come and wait. */
static void pause_task(void *context, uint32_t task, uint32_t worker)
{
    nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
}

static void *call_again_and_again(void *arg)
{
    struct caller *caller = arg;

    atomic_fetch_add(caller->callers, 1);
    while (atomic_load(caller->jobs) < JOBS) {
        pool_run(caller->pool, pause_task, NULL, 1);
        if (atomic_load(caller->callers) < CALLERS)
            continue;
        caller->mine++;
        atomic_fetch_add(caller->jobs, 1);
    }
    return NULL;
}

/* Two that have always one more job: a mutex let the same one go on for hundreds of them. */
TEST(callers_with_jobs_at_once_get_equal_turns)
{
    atomic_uint callers = 0, jobs = 0;
    struct caller all[CALLERS];
    pthread_t threads[CALLERS];
    struct pool *pool = NULL;
    struct status st = { 0 };

    CHECK_OK(pool_create(&pool, 2, &st), st);
    for (int i = 0; i < CALLERS; i++) {
        all[i] = (struct caller){ .pool = pool, .callers = &callers, .jobs = &jobs };
        CHECK(pthread_create(&threads[i], NULL, call_again_and_again, &all[i]) == 0);
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    CHECK(all[0].mine <= 2 * all[1].mine);
    CHECK(all[1].mine <= 2 * all[0].mine);
    pool_destroy(pool);
}

TEST_MAIN()
