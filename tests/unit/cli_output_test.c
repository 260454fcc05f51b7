/* What people type and read: times in and out, sizes, spans, progress, exit codes. */
#include "cli_output.h"

#include <pty.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/test.h"

#define NOON_NS 1763726400000000000ll /* 2025-11-21T12:00:00Z */

static int64_t parsed(const char *text)
{
    int64_t utc_ns = -1;
    struct status st;

    CHECK_OK(cli_parse_time(text, NOON_NS, &utc_ns, &st), st);
    return utc_ns;
}

TEST(times_are_read_in_every_form)
{
    CHECK_EQ(parsed("2025-11-21T12:00:00Z"), NOON_NS);
    CHECK_EQ(parsed("2025-11-21T14:00:00+02:00"), NOON_NS);
    CHECK_EQ(parsed("2025-11-21T06:30:00-05:30"), NOON_NS);
    CHECK_EQ(parsed("2025-11-21T12:00:00.5Z"), NOON_NS + 500000000);
    CHECK_EQ(parsed("1763726400"), NOON_NS);
    CHECK_EQ(parsed("now"), NOON_NS);
    CHECK_EQ(parsed("-90s"), NOON_NS - 90000000000ll);
    CHECK_EQ(parsed("-2h"), NOON_NS - 7200000000000ll);
    CHECK_EQ(parsed("+30d"), NOON_NS + 30 * 86400000000000ll);
}

TEST(other_times_are_refused_with_the_forms)
{
    static const char *const bad[] = { "",
                                       "yesterday",
                                       "12:00",
                                       "2025-11-21",
                                       "2025-11-21T12:00:00",
                                       "-5",
                                       "-5w",
                                       "+5",
                                       "+-5h",
                                       "2025-11-21T12:00:00+99:00",
                                       "2025-11-21T12:00:00+-5:30",
                                       "2025-11-21T12:00:00.5e3Z",
                                       "2025-02-30T12:00:00Z",
                                       "2025-11-21T12:00:00Z!" };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct status st = { 0 };
        int64_t utc_ns;

        if (cli_parse_time(bad[i], NOON_NS, &utc_ns, &st))
            test_fail(__FILE__, __LINE__, "'%s' was taken", bad[i]);
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK_HAS(st.text, "-90s");
    }
}

/* Such times overflowed the nanoseconds they are kept in, or read as "no time given", and the question or the camera
 * went on without them. */
TEST(times_nobody_can_keep_are_refused)
{
    static const char *const bad[] = { "0",
                                       "1970-01-01T00:00:00Z",
                                       "1960-01-01T00:00:00Z",
                                       "9999-12-31T23:59:59Z",
                                       "1e99",
                                       "4600000000",
                                       "-999999d" };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct status st = { 0 };
        int64_t utc_ns;

        if (cli_parse_time(bad[i], NOON_NS, &utc_ns, &st))
            test_fail(__FILE__, __LINE__, "'%s' was taken", bad[i]);
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK_HAS(st.text, "1970");
    }
    CHECK_EQ(parsed("2115-10-01T00:00:00Z"), 4599331200000000000ll);
}

TEST(what_others_named_cannot_move_the_cursor)
{
    char text[] = "a\x1b[31mb\x7f\tc\nd\xc3\xa9";

    CHECK_STR(cli_make_safe(text), "a [31mb \tc\nd\xc3\xa9");
}

/* A hint was to be typed as it stood, also where a folder's name has a space. */
TEST(hints_are_words_for_a_shell)
{
    char longest[5000];

    CHECK_STR(cli_quote("/srv/reel-kv_1.2"), "/srv/reel-kv_1.2");
    CHECK_STR(cli_quote("/srv/caf\xc3\xa9"), "/srv/caf\xc3\xa9");
    CHECK_STR(cli_quote("/my data"), "'/my data'");
    CHECK_STR(cli_quote("/a;b$c"), "'/a;b$c'");
    CHECK_STR(cli_quote("~"), "'~'");
    CHECK_STR(cli_quote("it's"), "'it'\\''s'");
    CHECK_STR(cli_quote(""), "''");
    memset(longest, '\'', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    CHECK(strlen(cli_quote(longest)) < sizeof longest);
}

TEST(times_are_written_to_be_read_again)
{
    CHECK_STR(cli_rfc3339(NOON_NS), "2025-11-21T12:00:00Z");
    CHECK_STR(cli_rfc3339(NOON_NS + 500000000), "2025-11-21T12:00:00.500Z");
    CHECK_STR(cli_rfc3339(NOON_NS + 1), "2025-11-21T12:00:00.000000001Z");
    CHECK_STR(cli_rfc3339(-500000000), "1969-12-31T23:59:59.500Z");
    CHECK_STR(cli_time(NOON_NS + 500000000), "2025-11-21 12:00:00.500Z");
    CHECK_EQ(parsed(cli_rfc3339(NOON_NS + 33000000)), NOON_NS + 33000000);
    CHECK_EQ(parsed(cli_time(NOON_NS + 33000000)), NOON_NS + 33000000); /* tables show this form */
}

TEST(sizes_and_spans_are_short)
{
    CHECK_STR(cli_bytes(0), "0 B");
    CHECK_STR(cli_bytes(1536), "1.5 KiB");
    CHECK_STR(cli_bytes(20ull << 30), "20 GiB");
    CHECK_STR(cli_span(0.25), "0.2 s");
    CHECK_STR(cli_span(3725), "1 h 2 min");
    CHECK_STR(cli_span(49 * 3600), "2 d 1 h");
    CHECK_STR(cli_rate(0.034), "0.03");
    CHECK_STR(cli_rate(4.25), "4.2");
    CHECK_STR(cli_rate(1218.4), "1218"); /* was 1.22e+03 */
}

/* What cli_progress_draw() puts on a terminal so many columns wide. */
static void drawn(struct cli_progress *progress, unsigned short columns, uint64_t done, char text[256])
{
    struct winsize size = { .ws_row = 24, .ws_col = columns };
    int terminal, ours, before = dup(STDERR_FILENO);
    ssize_t len;

    CHECK(before >= 0 && openpty(&terminal, &ours, NULL, NULL, &size) == 0);
    setenv("TERM", "xterm", 1);
    CHECK(dup2(ours, STDERR_FILENO) == STDERR_FILENO);
    progress->drawn_ns = 0;
    cli_progress_draw(progress, "frames", done, 18000);
    CHECK(dup2(before, STDERR_FILENO) == STDERR_FILENO);
    close(before);
    len = read(terminal, text, 255);
    text[len > 0 ? len : 0] = '\0';
    close(ours);
    close(terminal);
}

/* The frames that were there before the wait were counted as done since its start: 9,000 more were "0.0 s left". */
TEST(what_is_left_is_told_by_what_was_done_since)
{
    struct cli_progress progress = { 0 };
    char text[256];

    drawn(&progress, 80, 9000, text);
    CHECK_HAS(text, "9000/18000");
    CHECK(strstr(text, "left") == NULL);
    progress.started_ns -= 10000000000ull;
    drawn(&progress, 80, 9100, text);
    CHECK_HAS(text, "14 min");
    CHECK_HAS(text, " left");
}

/* A line that wrapped left its beginnings behind at every drawing. */
TEST(progress_fits_the_terminal)
{
    static const unsigned short columns[] = { 10, 20, 30, 40, 80 };

    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        struct cli_progress progress = { 0 };
        char text[256];

        drawn(&progress, columns[i], 9000, text);
        CHECK_HAS(text, "\r\033[K");
        CHECK(strlen(text) - strlen("\r\033[K") < columns[i]);
        CHECK((strstr(text, "[##") != NULL) == (columns[i] >= 30));
    }
}

TEST(every_status_has_an_exit_code)
{
    CHECK_EQ(cli_exit_of(STATUS_OK), CLI_OK);
    CHECK_EQ(cli_exit_of(STATUS_INVALID), CLI_USAGE);
    CHECK_EQ(cli_exit_of(STATUS_NOT_FOUND), CLI_NOT_FOUND);
    CHECK_EQ(cli_exit_of(STATUS_OUT_OF_RANGE), CLI_NOT_FOUND);
    CHECK_EQ(cli_exit_of(STATUS_UNAVAILABLE), CLI_UNAVAILABLE);
    CHECK_EQ(cli_exit_of(STATUS_EXISTS), CLI_EXISTS);
    CHECK_EQ(cli_exit_of(STATUS_EXHAUSTED), CLI_EXHAUSTED);
    CHECK_EQ(cli_exit_of(STATUS_DEADLINE), CLI_TIMEOUT);
    CHECK_EQ(cli_exit_of(STATUS_DATA_LOSS), CLI_DATA_LOSS);
    CHECK_EQ(cli_exit_of(STATUS_CANCELLED), CLI_INTERRUPTED);
    CHECK_EQ(cli_exit_of(STATUS_INTERNAL), CLI_FAILED);
}

TEST_MAIN()
