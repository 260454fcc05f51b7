/* joined_store.h - a kvstore that is a process, in the directory of a Redis of the test's own, and verbs run against it. */
#ifndef REELKV_TEST_JOINED_STORE_H
#define REELKV_TEST_JOINED_STORE_H

#include "base/clock.h"
#include "kvstore_client.h"
#include "redis/directory_view.h"

enum { VERB_MS = 60000 };

static struct server store;
static struct process redis, verb;
static struct status st;

/* A log of its own for each. */
static inline int run_alone(const char *const *argv)
{
    static unsigned count;
    char name[32];

    snprintf(name, sizeof name, "verb-%u", count++);
    return process_run(&verb, name, argv, VERB_MS);
}

static inline int run_words(const char *const *words)
{
    const char *argv[16] = { "reelkv" };
    size_t at = 1;

    while (*words != NULL)
        argv[at++] = *words++;
    argv[at++] = "--redis";
    argv[at++] = redis_address();
    return run_alone(argv);
}
#define RUN(...) run_words(PROCESS_ARGS(__VA_ARGS__))

static inline const char *in_folder(const char *name)
{
    static char paths[4][400];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", test_folder(), name);
    return path;
}

static inline bool is_joined(void)
{
    static struct directory_view view;

    return directory_read_once(redis_address(), 5000, &view, &st) &&
           directory_view_worker(&view, WORKER_KVSTORE, "kv-a") != NULL;
}

static inline void start_store(const char *budget)
{
    uint64_t limit = clock_mono_ns() + 20000000000ull;
    const char *options[] = { "--redis", redis_address(), budget, NULL };

    server_start(&store, "kv-a", options);
    while (!is_joined() && clock_mono_ns() < limit)
        test_pause_ms(10);
    CHECK(is_joined());
}

#endif
