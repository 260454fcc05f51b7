#include <errno.h>

#include "support/test.h"

/* Each level adds its context once, outermost first; the code of the innermost stays. */
TEST(status_wrap_puts_context_in_front_and_keeps_the_code)
{
    struct status st = { 0 };

    errno = ENOENT;
    CHECK(!status_fail(&st, STATUS_NOT_FOUND, "open %s: %m", "/kv/17.seg"));
    CHECK(!status_wrap(&st, "load stream %s", "cam-1"));
    CHECK_STR(st.text, "load stream cam-1: open /kv/17.seg: No such file or directory");
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
}

/* A sentence never outgrows its room: wrap one many times. */
TEST(status_text_is_cut_not_overrun)
{
    struct status st = { 0 };

    status_fail(&st, STATUS_INTERNAL, "inner");
    for (int i = 0; i < 200; i++)
        status_wrap(&st, "a context of some length, number %d", i);
    CHECK_EQ(strlen(st.text), STATUS_TEXT_BYTES - 1);
}

TEST(status_codes_are_the_ones_grpc_uses)
{
    CHECK_EQ(STATUS_UNAVAILABLE, 14);
    CHECK_EQ(STATUS_EXHAUSTED, 8);
    CHECK_STR(status_code_words(STATUS_DATA_LOSS), "data loss");
    CHECK_STR(status_code_words((enum status_code)99), "unknown");
    CHECK(status_code_is_retryable(STATUS_UNAVAILABLE));
    CHECK(!status_code_is_retryable(STATUS_INVALID));
}

TEST(status_may_be_null_when_nobody_asks)
{
    CHECK(!status_fail(NULL, STATUS_INTERNAL, "x"));
    CHECK(!status_wrap(NULL, "y"));
}

TEST_MAIN()
