#include "loop/work_pool.h"

#include <pthread.h>
#include <semaphore.h>

#include "support/test.h"

struct task {
    struct work work;
    struct loop *loop;
    sem_t *gate; /* waited for in run(), when there is one */
    sem_t *started;
    int *order; /* counts runs */
    int ran_as;
    int done;
    int *left; /* stops the loop at 0 */
    bool wrong_thread;
};

static void task_run(struct work *work)
{
    struct task *task = container_of(work, struct task, work);

    if (task->started != NULL)
        sem_post(task->started);
    if (task->gate != NULL)
        while (sem_wait(task->gate) != 0)
            ;
    task->wrong_thread = loop_is_here(task->loop);
    if (task->order != NULL)
        task->ran_as = ++*task->order;
}

static void task_done(struct work *work)
{
    struct task *task = container_of(work, struct task, work);

    task->done++;
    task->wrong_thread = task->wrong_thread || !loop_is_here(task->loop);
    if (task->left != NULL && --*task->left == 0)
        loop_stop(task->loop);
}

static struct loop *loop;
static struct work_pool *pool;

static void pool_of(uint32_t threads, uint32_t queue_max)
{
    struct work_pool_options options = { .name = "test", .threads = threads, .queue_max = queue_max };
    struct status st = { 0 };

    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(work_pool_create(&pool, loop, &options, &st), st);
}

TEST(work_runs_on_the_pool_in_order_and_is_done_on_the_loop)
{
    static struct task tasks[200];
    int order = 0, left = ARRAY_LEN(tasks);

    memset(tasks, 0, sizeof tasks);
    pool_of(1, ARRAY_LEN(tasks));
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        tasks[i] = (struct task){
            .work = { task_run, task_done, NULL }, .loop = loop, .order = &order, .left = &left
        };
        CHECK(work_pool_submit(pool, &tasks[i].work));
    }
    loop_run(loop);
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        CHECK_EQ(tasks[i].ran_as, i + 1);
        CHECK_EQ(tasks[i].done, 1);
        CHECK(!tasks[i].wrong_thread);
    }
    work_pool_destroy(pool);
    loop_destroy(loop);
}

/* One thread held at a gate, two works in the queue: the next is refused and stays the caller's; one of the
 * queued is withdrawn, the running one cannot be. */
TEST(a_full_pool_says_no_and_waiting_work_can_be_withdrawn)
{
    struct task tasks[4] = { 0 };
    sem_t gate, started;
    int left = 2;

    sem_init(&gate, 0, 0);
    sem_init(&started, 0, 0);
    pool_of(1, 2);
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++)
        tasks[i] = (struct task){ .work = { task_run, task_done, NULL }, .loop = loop, .left = &left };
    tasks[0].gate = &gate;
    tasks[0].started = &started;
    CHECK(work_pool_submit(pool, &tasks[0].work));
    while (sem_wait(&started) != 0)
        ;
    CHECK(work_pool_submit(pool, &tasks[1].work));
    CHECK(work_pool_submit(pool, &tasks[2].work));
    CHECK_EQ(work_pool_waiting(pool), 2);
    CHECK(!work_pool_submit(pool, &tasks[3].work));
    CHECK(!work_pool_withdraw(pool, &tasks[0].work));
    CHECK(work_pool_withdraw(pool, &tasks[2].work));
    CHECK(!work_pool_withdraw(pool, &tasks[3].work));
    sem_post(&gate);
    loop_run(loop);
    CHECK_EQ(tasks[0].done, 1);
    CHECK_EQ(tasks[1].done, 1);
    CHECK_EQ(tasks[2].done + tasks[3].done, 0);
    CHECK(work_pool_submit(pool, &tasks[3].work)); /* there is room again */
    work_pool_destroy(pool);
    CHECK_EQ(tasks[3].done, 1);
    loop_destroy(loop);
    sem_destroy(&gate);
    sem_destroy(&started);
}

/* The loop never turns: destroy alone must bring every work to its done(). */
TEST(destroying_a_pool_finishes_what_was_submitted)
{
    struct task tasks[64] = { 0 };
    int order = 0;

    pool_of(3, ARRAY_LEN(tasks));
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        tasks[i] = (struct task){ .work = { task_run, task_done, NULL }, .loop = loop };
        CHECK(work_pool_submit(pool, &tasks[i].work));
    }
    work_pool_destroy(pool);
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++)
        order += tasks[i].done;
    CHECK_EQ(order, ARRAY_LEN(tasks));
    loop_destroy(loop);
}

struct chatty {
    struct work work;
    struct loop *loop;
    struct letter letter;
    sem_t *started; /* may be NULL */
    bool opened, late;
    int *left;
};

static void chatty_opened(struct letter *letter)
{
    container_of(letter, struct chatty, letter)->opened = true;
}

static void chatty_run(struct work *work)
{
    struct chatty *chatty = container_of(work, struct chatty, work);

    if (chatty->started != NULL)
        sem_post(chatty->started);
    loop_post(chatty->loop, &chatty->letter);
}

static void chatty_done(struct work *work)
{
    struct chatty *chatty = container_of(work, struct chatty, work);

    chatty->late = !chatty->opened;
    if (--*chatty->left == 0 && loop_is_running(chatty->loop))
        loop_stop(chatty->loop);
}

static void chatty_works(struct chatty *works, int count, int *left)
{
    *left = count;
    for (int i = 0; i < count; i++) {
        works[i] = (struct chatty){ .work = { chatty_run, chatty_done, NULL }, .loop = loop, .left = left };
        works[i].letter.open = chatty_opened;
    }
}

/* One thread, three works; the third one's start says that the second has ended, while the word of the first
 * one's end lies unread before the second one's letter. No end may overtake a letter. */
TEST(a_works_letters_are_opened_before_its_end_whatever_ended_before)
{
    struct chatty works[3];
    sem_t started;
    int left;

    sem_init(&started, 0, 0);
    pool_of(1, ARRAY_LEN(works));
    chatty_works(works, ARRAY_LEN(works), &left);
    works[2].started = &started;
    for (size_t i = 0; i < ARRAY_LEN(works); i++)
        CHECK(work_pool_submit(pool, &works[i].work));
    while (sem_wait(&started) != 0)
        ;
    loop_run(loop);
    for (size_t i = 0; i < ARRAY_LEN(works); i++)
        CHECK(!works[i].late);
    work_pool_destroy(pool);
    loop_destroy(loop);
    sem_destroy(&started);
}

TEST(destroying_a_pool_opens_its_works_letters_first)
{
    struct chatty works[16];
    int left;

    pool_of(2, ARRAY_LEN(works));
    chatty_works(works, ARRAY_LEN(works), &left);
    for (size_t i = 0; i < ARRAY_LEN(works); i++)
        CHECK(work_pool_submit(pool, &works[i].work));
    work_pool_destroy(pool);
    CHECK_EQ(left, 0);
    for (size_t i = 0; i < ARRAY_LEN(works); i++)
        CHECK(works[i].opened && !works[i].late);
    loop_destroy(loop);
}

TEST_MAIN()
