/* store_simulation - stories of the store on a disk whose machine loses its power, one a seed (store_story.h).
 *
 *   store_simulation [--from SEED] [--seeds COUNT]      all of them must hold; prints what happened in them
 *   store_simulation --without KIND ...                 power cuts alone, with one kind of sync left out
 *   store_simulation --without-each ...                 each kind in turn: every one must make some story fail
 *
 *   --log                                               with the store's own log, on stderr
 *
 * A failing seed is printed, and fails again when it is run alone. Exit code: 0 as promised, 1 not. */
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
static bool is_quiet, only_cuts;

/* In place of the one of tests/support: a story that fails ends the program. */
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    if (!is_quiet) {
        printf("seed %llu: %s:%d: ", (unsigned long long)seed, file, line);
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
        store_story_run(seed, only_cuts, &story);
        if ((seed - from + 1) % 10000 == 0)
            printf("%llu of %llu seeds\n", (unsigned long long)(seed - from + 1), (unsigned long long)count);
    }
    if (!is_quiet)
        printf("%llu seeds: %llu crashes, %llu failed calls, %llu frames written, %llu segments rewritten, "
               "%llu ranges forgotten, %llu answers of evicted ones\n",
               (unsigned long long)count, (unsigned long long)story.crashes,
               (unsigned long long)story.failed_calls, (unsigned long long)story.frames,
               (unsigned long long)story.rewritten, (unsigned long long)story.forgotten,
               (unsigned long long)story.evicted);
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

    only_cuts = true;
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
    bool each = false, with_log = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
            from = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
            count = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--without") == 0 && i + 1 < argc)
            without = argv[++i];
        else if (strcmp(argv[i], "--without-each") == 0)
            each = true;
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
    only_cuts = without != NULL;
    sim_disk_leave_out(without);
    if (each)
        return each_matters(from, count) ? EXIT_SUCCESS : EXIT_FAILURE;
    run(from, count);
    return EXIT_SUCCESS;
}
