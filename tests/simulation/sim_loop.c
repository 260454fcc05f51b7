#include "sim_loop.h"

#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/require.h"
#include "loop/work_pool.h"

enum {
    CALL_NS = 1000,     /* what asking for the time takes */
    WORK_NS = 50000000, /* what a work takes, at most: no later timer comes before it */
};

static struct {
    bool is_running;
    struct sim_random random;
    uint64_t now_ns;
} sim;

struct loop {
    struct letter *letters, **letters_end;
    struct loop_timer *timers; /* linked by next */
    struct work_pool *pools;
};

struct work_pool {
    struct loop *loop;
    struct work_pool *next;
    struct work *waiting, *finished, **finished_end;
    uint32_t threads, count, queue_max;
};

/* --- the world --- */

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
ssize_t __real_getrandom(void *to, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *to, size_t len, unsigned flags);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_madvise(void *at, size_t len, int advice);
int __real_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_setpriority(__priority_which_t which, id_t who, int value);
long __wrap_syscall(long number, ...);

void sim_start(uint64_t seed)
{
    sim.random.state = seed;
    sim.now_ns = 1000000000ull;
    sim.is_running = true;
}

void sim_stop(void)
{
    sim.is_running = false;
}

void sim_go_on(uint64_t seed)
{
    sim.random.state = seed;
    sim.is_running = true;
}

struct sim_random *sim_random(void)
{
    return &sim.random;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    const uint64_t utc_s = clock == CLOCK_REALTIME ? 1700000000 : 0;

    if (!sim.is_running)
        return __real_clock_gettime(clock, now);
    sim.now_ns += CALL_NS;
    now->tv_sec = (time_t)(utc_s + sim.now_ns / 1000000000u);
    now->tv_nsec = (long)(sim.now_ns % 1000000000u);
    return 0;
}

ssize_t __wrap_getrandom(void *to, size_t len, unsigned flags)
{
    if (!sim.is_running)
        return __real_getrandom(to, len, flags);
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)to)[i] = (uint8_t)sim_next(&sim.random);
    return (ssize_t)len;
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
    if (!sim.is_running)
        return __real_nanosleep(time, left);
    sim.now_ns += (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
    return 0;
}

/* A thread that steps back behind the others (scrub.c): here all are one. */
int __wrap_setpriority(__priority_which_t which, id_t who, int value)
{
    return 0;
}

long __wrap_syscall(long number, ...)
{
    return 0;
}

/* The store's arena: its pages come as they are used, which is a third of the time of a short story. */
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
    return ftruncate(fd, offset + len);
}

int __wrap_madvise(void *at, size_t len, int advice)
{
    return 0;
}

/* --- the loop --- */

bool loop_create(struct loop **loop_p, struct status *st)
{
    struct loop *loop = calloc(1, sizeof *loop);

    if (loop == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for an event loop");
    loop->letters_end = &loop->letters;
    *loop_p = loop;
    return true;
}

void loop_open_letters(struct loop *loop)
{
    struct letter *letter = loop->letters;

    loop->letters = NULL;
    loop->letters_end = &loop->letters;
    while (letter != NULL) {
        struct letter *next = letter->next;

        letter->open(letter);
        letter = next;
    }
}

void loop_destroy(struct loop *loop)
{
    if (loop == NULL)
        return;
    while (loop->letters != NULL)
        loop_open_letters(loop);
    REQUIRE(loop->timers == NULL && loop->pools == NULL);
    free(loop);
}

bool loop_is_here(const struct loop *loop)
{
    return true;
}

void loop_post(struct loop *loop, struct letter *letter)
{
    letter->next = NULL;
    *loop->letters_end = letter;
    loop->letters_end = &letter->next;
}

/* --- timers --- */

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms,
                      void (*fire)(struct loop_timer *timer))
{
    loop_timer_stop(timer);
    timer->loop = loop;
    timer->fire = fire;
    timer->due_ns = sim.now_ns + delay_ms * 1000000u;
    timer->next = loop->timers;
    loop->timers = timer;
}

void loop_timer_stop(struct loop_timer *timer)
{
    struct loop_timer **link;

    if (timer->loop == NULL)
        return;
    for (link = &timer->loop->timers; *link != timer; link = &(*link)->next)
        ;
    *link = timer->next;
    timer->loop = NULL;
}

bool loop_timer_is_running(const struct loop_timer *timer)
{
    return timer->loop != NULL;
}

static struct loop_timer *next_timer(const struct loop *loop)
{
    struct loop_timer *first = loop->timers;

    for (struct loop_timer *timer = first; timer != NULL; timer = timer->next)
        if (timer->due_ns < first->due_ns)
            first = timer;
    return first;
}

static void fire(struct loop_timer *timer)
{
    if (timer->due_ns > sim.now_ns)
        sim.now_ns = timer->due_ns;
    loop_timer_stop(timer);
    timer->fire(timer);
}

/* --- descriptors: there are none --- */

bool loop_poll_create(struct loop_poll **poll_p, struct loop *loop, int fd,
                      void (*ready)(struct loop_poll *poll, unsigned events, void *user), void *user,
                      struct status *st)
{
    return status_fail(st, STATUS_UNIMPLEMENTED, "there are no descriptors");
}

void loop_poll_want(struct loop_poll *poll, unsigned events)
{
}

void loop_poll_destroy(struct loop_poll *poll)
{
}

/* --- pools --- */

bool work_pool_create(struct work_pool **pool_p, struct loop *loop, const struct work_pool_options *options,
                      struct status *st)
{
    struct work_pool *pool = calloc(1, sizeof *pool);

    if (pool == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a pool");
    pool->loop = loop;
    pool->threads = options->threads;
    pool->queue_max = options->queue_max;
    pool->finished_end = &pool->finished;
    pool->next = loop->pools;
    loop->pools = pool;
    *pool_p = pool;
    return true;
}

bool work_pool_submit(struct work_pool *pool, struct work *work)
{
    struct work **link = &pool->waiting;

    if (pool->count >= pool->queue_max + pool->threads)
        return false;
    while (*link != NULL)
        link = &(*link)->next;
    *link = work;
    work->next = NULL;
    pool->count++;
    return true;
}

/* The first ones count as started. */
bool work_pool_withdraw(struct work_pool *pool, struct work *work)
{
    struct work **link = &pool->waiting;

    for (uint32_t i = 0; *link != NULL; i++, link = &(*link)->next)
        if (*link == work) {
            if (i < pool->threads)
                return false;
            *link = work->next;
            pool->count--;
            return true;
        }
    return false;
}

uint32_t work_pool_waiting(struct work_pool *pool)
{
    return pool->count > pool->threads ? pool->count - pool->threads : 0;
}

static void run_one(struct work_pool *pool)
{
    uint32_t started = pool->count < pool->threads ? pool->count : pool->threads;
    struct work **link = &pool->waiting, *work;

    for (uint32_t i = sim_pick(&sim.random, started); i > 0; i--)
        link = &(*link)->next;
    work = *link;
    *link = work->next;
    pool->count--;
    work->run(work);
    work->next = NULL;
    *pool->finished_end = work;
    pool->finished_end = &work->next;
}

static void finish_all(struct work_pool *pool)
{
    struct work *work = pool->finished;

    pool->finished = NULL;
    pool->finished_end = &pool->finished;
    loop_open_letters(pool->loop); /* what the works posted comes first */
    while (work != NULL) {
        struct work *next = work->next;

        work->done(work);
        work = next;
    }
}

void work_pool_destroy(struct work_pool *pool)
{
    struct work_pool **link;

    if (pool == NULL)
        return;
    while (pool->waiting != NULL || pool->finished != NULL) {
        if (pool->waiting != NULL)
            run_one(pool);
        finish_all(pool);
    }
    for (link = &pool->loop->pools; *link != pool; link = &(*link)->next)
        ;
    *link = pool->next;
    free(pool);
}

/* --- what happens next --- */

/* Does the n-th of the things that may happen; false: there are only *count_p. */
static bool happen(struct loop *loop, uint32_t n, uint32_t *count_p)
{
    struct loop_timer *timer;
    uint32_t count = 0;

    if (loop->letters != NULL && count++ == n) {
        loop_open_letters(loop);
        return true;
    }
    for (struct work_pool *pool = loop->pools; pool != NULL; pool = pool->next) {
        if (pool->waiting != NULL && count++ == n) {
            run_one(pool);
            return true;
        }
        if (pool->finished != NULL && count++ == n) {
            finish_all(pool);
            return true;
        }
    }
    timer = next_timer(loop);
    if (timer != NULL && (count == 0 || timer->due_ns <= sim.now_ns + WORK_NS) && count++ == n) {
        fire(timer);
        return true;
    }
    *count_p = count;
    return false;
}

void loop_run_once(struct loop *loop)
{
    uint32_t count;

    happen(loop, UINT32_MAX, &count);
    REQUIRE(count > 0); /* else it would wait for ever */
    happen(loop, sim_pick(&sim.random, count), &count);
}
