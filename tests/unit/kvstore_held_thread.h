/* kvstore_held_thread.h - a store's one computing thread, which does nothing until the test lets it: what was submitted to it
 * since waits behind. */
#ifndef REELKV_TEST_KVSTORE_HELD_THREAD_H
#define REELKV_TEST_KVSTORE_HELD_THREAD_H

#include <semaphore.h>

#include "kvstore_fixture.h"

struct held_thread {
    struct work work;
    sem_t may_go;
    bool is_done;
};

static void held_run(struct work *work)
{
    sem_wait(&container_of(work, struct held_thread, work)->may_go);
}

static void held_done(struct work *work)
{
    container_of(work, struct held_thread, work)->is_done = true;
}

static inline void hold_thread(struct fixture *fixture, struct held_thread *held)
{
    *held = (struct held_thread){ .work = { .run = held_run, .done = held_done } };
    sem_init(&held->may_go, 0, 0);
    CHECK(work_pool_submit(fixture->store->computing, &held->work));
}

#endif
