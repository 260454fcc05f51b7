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

TEST_MAIN()
