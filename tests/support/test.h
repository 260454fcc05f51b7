/* test.h - tests read as claims.
 *
 *   TEST(index_full_refuses_and_keeps) { CHECK(...); CHECK_EQ(a, b); CHECK_STR(text, "x"); }
 *   TEST_MAIN()
 *
 * A failed CHECK prints file, line and both values and ends that test; the others still run. The program
 * prints one line a test and ends with the closing line "N passed, N failed, N skipped". `prog name` runs one
 * test. test_skip(reason) ends the running test as skipped; when every test was skipped the exit code is 77.
 *
 * test_folder() gives the running test a fresh folder; it is removed with its content when the test ends. */
#ifndef REELKV_TEST_H
#define REELKV_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/require.h"
#include "base/status.h"

struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
};

void test_register(struct test_case *test);
int test_main(int argc, char **argv);
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *reason);
const char *test_folder(void);

#define TEST(test_name)                                                 \
    static void test_name(void);                                        \
    __attribute__((constructor)) static void register_##test_name(void) \
    {                                                                   \
        static struct test_case test = { #test_name, test_name, NULL }; \
        test_register(&test);                                           \
    }                                                                   \
    static void test_name(void)

#define TEST_MAIN()                   \
    int main(int argc, char **argv)   \
    {                                 \
        return test_main(argc, argv); \
    }

#define CHECK(fact)                                            \
    do {                                                       \
        if (!(fact))                                           \
            test_fail(__FILE__, __LINE__, "CHECK(%s)", #fact); \
    } while (0)

/* For calls that fill a status: prints its sentence when they fail. */
#define CHECK_OK(call, st)                                                        \
    do {                                                                          \
        if (!(call))                                                              \
            test_fail(__FILE__, __LINE__, "%s failed: %s (%s)", #call, (st).text, \
                      status_code_words((st).code));                              \
    } while (0)

#define CHECK_EQ(got, want)                                                                       \
    do {                                                                                          \
        long long got_ = (long long)(got), want_ = (long long)(want);                             \
        if (got_ != want_)                                                                        \
            test_fail(__FILE__, __LINE__, "%s is %lld, not %lld (%s)", #got, got_, want_, #want); \
    } while (0)

#define CHECK_STR(got, want)                                                                                \
    do {                                                                                                    \
        const char *got_ = (got), *want_ = (want);                                                          \
        if (got_ == NULL || strcmp(got_, want_) != 0)                                                       \
            test_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", #got, got_ ? got_ : "(null)", want_); \
    } while (0)

/* `got` contains `part`: for sentences meant for people. */
#define CHECK_HAS(got, part)                                                                            \
    do {                                                                                                \
        const char *got_ = (got), *part_ = (part);                                                      \
        if (got_ == NULL || strstr(got_, part_) == NULL)                                                \
            test_fail(__FILE__, __LINE__, "%s is \"%s\", without \"%s\"", #got, got_ ? got_ : "(null)", \
                      part_);                                                                           \
    } while (0)

#define CHECK_NEAR(got, want, tolerance)                                                       \
    do {                                                                                       \
        double got_ = (got), want_ = (want);                                                   \
        if (!(fabs(got_ - want_) <= (tolerance)))                                              \
            test_fail(__FILE__, __LINE__, "%s is %.9g, not %.9g within %g", #got, got_, want_, \
                      (double)(tolerance));                                                    \
    } while (0)

#define CHECK_MEM(got, want, len)                                                             \
    do {                                                                                      \
        if (memcmp(got, want, len) != 0)                                                      \
            test_fail(__FILE__, __LINE__, "%s differs from %s within %zu bytes", #got, #want, \
                      (size_t)(len));                                                         \
    } while (0)

#endif
