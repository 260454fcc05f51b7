/* store_simulation - stories of the store on a disk whose machine loses its power, one a seed (store_story.h).
 *
 *   store_simulation [--from SEED] [--seeds COUNT]      all of them must hold; prints what happened in them
 *   store_simulation --walk ...                         of each seed's story, every call of the disk fails once, in each
 *                                                       way, and every allocation
 *   store_simulation --without KIND ...                 power cuts alone, with one kind of sync left out
 *   store_simulation --without-each ...                 each kind in turn: every one must make some story fail
 *
 *   --log                                               with the store's own log, on stderr
 *
 * A failing seed is printed, and fails again when it is run alone. Exit code: 0 as promised, 1 not. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "sim_disk.h"
#include "store_story.h"
#include "support/test.h"

static uint64_t seed;
static struct store_plan plan;
static const char *way = ""; /* of a walk */
static bool is_quiet;

/* In place of the one of tests/support: a story that fails ends the program. */
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    if (!is_quiet) {
        printf("seed %llu: ", (unsigned long long)seed);
        if (plan.n > 0)
            printf("%s %llu: ", way, (unsigned long long)plan.n);
        printf("%s:%d: ", file, line);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
    }
    fflush(stdout);
    _exit(EXIT_FAILURE);
}

static void run(uint64_t from, uint64_t count)
{
    struct store_story story = { 0 };

    for (seed = from; seed < from + count; seed++) {
        store_story_run(seed, &plan, &story);
        if ((seed - from + 1) % 10000 == 0)
            printf("%llu of %llu seeds\n", (unsigned long long)(seed - from + 1), (unsigned long long)count);
    }
    if (!is_quiet)
        printf(
            "%llu seeds: %llu crashes, %llu failed calls, %llu removals that failed, %llu refused allocations, "
            "%llu frames written, %llu segments rewritten, %llu ranges forgotten, %llu frames rotten, "
            "%llu times one found by the scrub, %llu answers of evicted ones\n",
            (unsigned long long)count, (unsigned long long)story.crashes,
            (unsigned long long)story.failed_calls, (unsigned long long)story.kept,
            (unsigned long long)story.refused, (unsigned long long)story.frames,
            (unsigned long long)story.rewritten, (unsigned long long)story.forgotten,
            (unsigned long long)story.rotten, (unsigned long long)story.scrubbed,
            (unsigned long long)story.evicted);
}

/* Each call or allocation of the story's second life, alone. Returns how many there are. No failure may cost a frame. What
 * happens behind it is another story, which may take more of the disk. */
static uint64_t walk_one_way(void)
{
    struct store_story story = { 0 };
    uint64_t total;

    plan.n = 0;
    store_story_run(seed, &plan, &story);
    total = plan.trouble == STORE_TROUBLE_MEMORY ? story.asked : story.calls;
    while (plan.n++ < total) {
        story.evicted = 0;
        store_story_run(seed, &plan, &story);
        if (story.had_room && story.evicted > 0)
            test_fail(__FILE__, __LINE__, "a frame has gone, and there was room");
    }
    plan.n = 0;
    return total;
}

static void walk(uint64_t from, uint64_t count)
{
    static const struct {
        const char *words;
        struct store_plan plan;
    } ways[] = { { "EIO of call", { STORE_TROUBLE_DISK, 0, EIO } },
                 { "ENOSPC of call", { STORE_TROUBLE_DISK, 0, ENOSPC } },
                 { "EMFILE of call", { STORE_TROUBLE_DISK, 0, EMFILE } },
                 { "a part of call", { STORE_TROUBLE_DISK, 0, 0 } },
                 { "no memory for allocation", { STORE_TROUBLE_MEMORY, 0, 0 } } };
    uint64_t totals[ARRAY_LEN(ways)] = { 0 };

    for (seed = from; seed < from + count; seed++)
        for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
            plan = ways[i].plan;
            way = ways[i].words;
            totals[i] += walk_one_way();
        }
    printf("%llu seeds, one after the other:", (unsigned long long)count);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++)
        printf("%s %llu times \"%s\"", i == 0 ? "" : ",", (unsigned long long)totals[i], ways[i].words);
    printf("\n");
}

static bool fails_without(const char *kind, uint64_t from, uint64_t count)
{
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        is_quiet = true;
        sim_disk_leave_out(kind);
        run(from, count);
        _exit(EXIT_SUCCESS);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS;
}

/* The kinds are those met when all syncs work. */
static bool each_matters(uint64_t from, uint64_t count)
{
    const char *kind;
    bool ok = true;

    plan.trouble = STORE_TROUBLE_CUTS;
    run(from, count < 300 ? count : 300);
    for (uint32_t i = 0; (kind = sim_disk_sync_kind(i)) != NULL; i++) {
        bool fails = fails_without(kind, from, count);

        printf("%s without \"%s\"\n", fails ? "fails" : "NOTHING IS LOST", kind);
        ok &= fails;
    }
    return ok;
}

int main(int argc, char **argv)
{
    uint64_t from = 0, count = 100;
    const char *without = NULL;
    bool each = false, with_log = false, walks = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
            from = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
            count = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--without") == 0 && i + 1 < argc)
            without = argv[++i];
        else if (strcmp(argv[i], "--without-each") == 0)
            each = true;
        else if (strcmp(argv[i], "--walk") == 0)
            walks = true;
        else if (strcmp(argv[i], "--log") == 0)
            with_log = true;
        else
            return fprintf(stderr, "%s: unknown argument %s; see the top of the source\n", argv[0], argv[i]),
                   2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_init("kvstore", LOG_ERROR);
    if (!with_log && freopen("/dev/null", "w", stderr) == NULL)
        return EXIT_FAILURE;
    if (without != NULL)
        plan.trouble = STORE_TROUBLE_CUTS;
    sim_disk_leave_out(without);
    if (each)
        return each_matters(from, count) ? EXIT_SUCCESS : EXIT_FAILURE;
    if (walks)
        walk(from, count);
    else
        run(from, count);
    return EXIT_SUCCESS;
}
