#include "loop/work_pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "loop/signals.h"

struct work_list {
    struct work *first;
    struct work **last_link;
};

struct work_pool {
    struct loop *loop;
    struct letter letter; /* tells the loop of `announced` */
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t more;
    struct work_list queue;
    struct work_list finished; /* since the letter was posted; what they posted may lie behind it */
    struct work *announced;    /* had finished when the letter was posted */
    uint32_t waiting;
    bool told;     /* the letter is on its way */
    bool stopping; /* no more submissions; threads end when the queue is empty */
    uint32_t queue_max;
    uint32_t threads_running;
    char name[16];
    pthread_t threads[];
};

static void list_init(struct work_list *list)
{
    list->first = NULL;
    list->last_link = &list->first;
}

static void list_append(struct work_list *list, struct work *work)
{
    work->next = NULL;
    *list->last_link = work;
    list->last_link = &work->next;
}

static struct work *list_take(struct work_list *list)
{
    struct work *work = list->first;

    list->first = work->next;
    if (list->first == NULL)
        list->last_link = &list->first;
    return work;
}

/* With the lock held. A work's own letters were posted before it came into `finished`, so they lie before this
 * one: whatever a work posted is opened before its done(). */
static void announce(struct work_pool *pool)
{
    pool->told = pool->finished.first != NULL;
    if (!pool->told)
        return;
    pool->announced = pool->finished.first;
    list_init(&pool->finished);
    loop_post(pool->loop, &pool->letter);
}

static void finished_letter(struct letter *letter)
{
    struct work_pool *pool = container_of(letter, struct work_pool, letter);
    struct work *work;

    pthread_mutex_lock(&pool->lock);
    work = pool->announced;
    announce(pool);
    pthread_mutex_unlock(&pool->lock);
    while (work != NULL) {
        struct work *next = work->next;

        work->done(work);
        work = next;
    }
}

static void *pool_thread(void *arg)
{
    struct work_pool *pool = arg;

    pthread_setname_np(pthread_self(), pool->name);
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct work *work;

        while (pool->queue.first == NULL && !pool->stopping)
            pthread_cond_wait(&pool->more, &pool->lock);
        if (pool->queue.first == NULL)
            break;
        work = list_take(&pool->queue);
        pool->waiting--;
        pthread_mutex_unlock(&pool->lock);
        work->run(work);
        pthread_mutex_lock(&pool->lock);
        list_append(&pool->finished, work);
        if (!pool->told)
            announce(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int thread_start(struct work_pool *pool, pthread_t *thread)
{
    sigset_t before;
    int error;

    loop_signals_block(&before);
    error = pthread_create(thread, NULL, pool_thread, pool);
    loop_signals_restore(&before);
    return error;
}

bool work_pool_create(struct work_pool **pool_p, struct loop *loop, const struct work_pool_options *options,
                      struct status *st)
{
    struct work_pool *pool;

    REQUIRE(loop_is_here(loop) && options->threads > 0 && options->queue_max > 0);
    pool = calloc(1, sizeof *pool + options->threads * sizeof pool->threads[0]);
    if (pool == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %u threads", options->threads);
    pool->loop = loop;
    pool->letter.open = finished_letter;
    pool->queue_max = options->queue_max;
    for (size_t i = 0; i < sizeof pool->name - 1 && options->name[i] != '\0'; i++)
        pool->name[i] = options->name[i];
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    list_init(&pool->queue);
    list_init(&pool->finished);
    for (; pool->threads_running < options->threads; pool->threads_running++) {
        int error = thread_start(pool, &pool->threads[pool->threads_running]);

        if (error != 0) {
            work_pool_destroy(pool);
            return status_fail(st, STATUS_EXHAUSTED, "start %u %s threads: %s", options->threads,
                               options->name, strerror(error));
        }
    }
    *pool_p = pool;
    return true;
}

bool work_pool_submit(struct work_pool *pool, struct work *work)
{
    bool taken;

    REQUIRE(loop_is_here(pool->loop));
    pthread_mutex_lock(&pool->lock);
    taken = pool->waiting < pool->queue_max && !pool->stopping;
    if (taken) {
        list_append(&pool->queue, work);
        pool->waiting++;
    }
    pthread_mutex_unlock(&pool->lock);
    /* Not before: a thread that wakes would wait for the lock at once. */
    if (taken)
        pthread_cond_signal(&pool->more);
    return taken;
}

bool work_pool_withdraw(struct work_pool *pool, struct work *work)
{
    struct work **link;
    bool found;

    pthread_mutex_lock(&pool->lock);
    for (link = &pool->queue.first; *link != NULL && *link != work; link = &(*link)->next)
        ;
    found = *link != NULL;
    if (found) {
        *link = work->next;
        if (work->next == NULL)
            pool->queue.last_link = link;
        pool->waiting--;
    }
    pthread_mutex_unlock(&pool->lock);
    return found;
}

uint32_t work_pool_waiting(struct work_pool *pool)
{
    uint32_t waiting;

    pthread_mutex_lock(&pool->lock);
    waiting = pool->waiting;
    pthread_mutex_unlock(&pool->lock);
    return waiting;
}

void work_pool_destroy(struct work_pool *pool)
{
    if (pool == NULL)
        return;
    REQUIRE(loop_is_here(pool->loop));
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->threads_running; i++)
        pthread_join(pool->threads[i], NULL);
    while (pool->told)
        loop_open_letters(pool->loop);
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
