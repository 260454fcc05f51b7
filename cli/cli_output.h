/* cli_output.h - what the command line shows: tables for people, JSON for programs, a progress bar on stderr.
 *
 * Thread: main thread only. */
#ifndef REELKV_CLI_OUTPUT_H
#define REELKV_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

/* Exit codes, documented in docs/cli.md and --help. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,      /* anything without a code of its own */
    CLI_USAGE = 2,       /* unknown option, bad value, invalid name or question */
    CLI_NOT_FOUND = 3,   /* no such camera, file or cluster folder; nothing at that time */
    CLI_UNAVAILABLE = 4, /* the cluster is not running, or a part of it does not answer */
    CLI_EXISTS = 5,      /* name taken, folder or port in use */
    CLI_EXHAUSTED = 6,   /* no room: memory, disk, queue */
    CLI_TIMEOUT = 7,
    CLI_DATA_LOSS = STATUS_EXIT_DATA_LOSS, /* something stored is damaged */
    CLI_INTERRUPTED = 130,
};

enum cli_exit cli_exit_of(enum status_code code);

/* "reelkv: <sentence>" on stderr, or {"error":{"code","message"}} on stdout with `as_json`. Returns the exit
 * code. */
enum cli_exit cli_fail(const struct status *st, bool as_json);

/* What cli_fail() would print; free(). */
char *cli_fail_text(const struct status *st, bool as_json);

/* As with `as_json`, on one line: where objects are printed a line each. */
enum cli_exit cli_fail_line(const struct status *st);

/* In place: what others named (URLs, answers, troubles) must not move a terminal's cursor. Returns text. */
char *cli_make_safe(char *text);

/* As a shell takes it for one word: text itself, or in quotes where it has spaces or what a shell would read. Static storage
 * for the last two; longer than a path it is cut. For commands that a sentence tells to run. */
const char *cli_quote(const char *text);

/* A table grows row by row and is printed with columns wide enough; a cell is made safe, and cut at 200 bytes.
 * Numbers are the caller's text; columns whose title starts with '>' are right-aligned. */
struct cli_table;
struct cli_table *cli_table_create(const char *const *titles, size_t columns);
void cli_table_cell(struct cli_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_table_print(struct cli_table *table);   /* and frees it */
void cli_table_destroy(struct cli_table *table); /* without printing */

/* Prints value, on several lines or on one, and a newline, then frees it. */
void cli_print_json(struct json *value);
void cli_print_json_line(struct json *value);

/* Text of a size ("1.5 GiB"), a span ("3 h 12 min"), a rate ("1220"), a UTC time ("2026-11-21 14:05:00.500Z"). Static
 * storage for the last eight calls together. */
const char *cli_bytes(uint64_t bytes);
const char *cli_span(double seconds);
const char *cli_rate(double per_s);
const char *cli_time(int64_t utc_ns);

/* As cli_time(), in RFC 3339's form ("2026-11-21T14:05:00.500Z"), with the nanoseconds that are not zero. */
const char *cli_rfc3339(int64_t utc_ns);

/* RFC 3339 ("2026-11-21T14:05:00Z", "...+02:00", fractions; a space for the T), seconds since 1970, "now", "-90s" "-5m" "-2h"
 * "-1d" before now_ns, or as much after it ("+30d"). INVALID says which forms are taken, or that the time is not between 1970 and 2115. */
bool cli_parse_time(const char *text, int64_t now_ns, int64_t *utc_ns_p, struct status *st);

/* One line on stderr, redrawn in place, when stderr is a terminal that can; elsewhere a line each ten seconds. */
struct cli_progress {
    uint64_t started_ns, first_done; /* at the first look */
    uint64_t drawn_ns;
    bool shown;
};
void cli_progress_draw(struct cli_progress *progress, const char *label, uint64_t done, uint64_t total);
void cli_progress_end(struct cli_progress *progress); /* erases the line */

/* Words in place of the bar, where nothing can be counted; nothing where a line cannot be erased again. */
void cli_progress_say(struct cli_progress *progress, const char *words);

#endif
