#include "support/test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"

enum outcome { PASSED, FAILED, SKIPPED };

static struct test_case *first_test;
static struct test_case **last_link = &first_test;
static jmp_buf test_end;
static char folder[256];

void test_register(struct test_case *test)
{
    *last_link = test;
    last_link = &test->next;
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    printf("  %s:%d: ", file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    longjmp(test_end, FAILED);
}

_Noreturn void test_skip(const char *reason)
{
    printf("  skipped: %s\n", reason);
    longjmp(test_end, SKIPPED);
}

const char *test_folder(void)
{
    if (folder[0] == '\0') {
        const char *base = getenv("TMPDIR");

        snprintf(folder, sizeof folder, "%s/reelkv-test-XXXXXX", base != NULL ? base : "/tmp");
        REQUIRE(mkdtemp(folder) != NULL);
    }
    return folder;
}

static enum outcome run_one(struct test_case *test)
{
    int jumped = setjmp(test_end);

    if (jumped == 0)
        test->run();
    if (folder[0] != '\0') {
        file_remove_tree(folder, NULL);
        folder[0] = '\0';
    }
    return (enum outcome)jumped;
}

int test_main(int argc, char **argv)
{
    static const char *const words[] = { "ok", "FAILED", "skipped" };
    int counts[3] = { 0 };

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (struct test_case *test = first_test; test != NULL; test = test->next) {
        enum outcome outcome;

        if (argc > 1 && strcmp(argv[1], test->name) != 0)
            continue;
        outcome = run_one(test);
        counts[outcome]++;
        printf("%s %s\n", words[outcome], test->name);
    }
    printf("%d passed, %d failed, %d skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    if (counts[PASSED] + counts[FAILED] == 0)
        return counts[SKIPPED] > 0 ? 77 : EXIT_FAILURE;
    return counts[FAILED] > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
