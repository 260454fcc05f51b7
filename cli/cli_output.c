#include "cli_output.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"

enum { CELL_BYTES = 200, TEXT_SLOTS = 8, TEXT_BYTES = 48, PROGRESS_COLUMNS = 30 };
enum { PROGRESS_COLUMNS_MIN = 5, PROGRESS_STEPS_MIN = 10 };
enum { QUOTE_SLOTS = 2, QUOTE_BYTES = 4200 };

enum cli_exit cli_exit_of(enum status_code code)
{
    switch (code) {
    case STATUS_OK:
        return CLI_OK;
    case STATUS_INVALID:
        return CLI_USAGE;
    case STATUS_NOT_FOUND:
    case STATUS_OUT_OF_RANGE: /* nothing was seen at that time */
        return CLI_NOT_FOUND;
    case STATUS_UNAVAILABLE:
        return CLI_UNAVAILABLE;
    case STATUS_EXISTS:
        return CLI_EXISTS;
    case STATUS_EXHAUSTED:
        return CLI_EXHAUSTED;
    case STATUS_DEADLINE:
        return CLI_TIMEOUT;
    case STATUS_DATA_LOSS:
        return CLI_DATA_LOSS;
    case STATUS_CANCELLED:
        return CLI_INTERRUPTED;
    default:
        return CLI_FAILED;
    }
}

char *cli_make_safe(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++)
        if ((*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7F)
            *c = ' ';
    return text;
}

static bool is_plain(const char *text)
{
    bool plain = *text != '\0';

    for (; plain && *text != '\0'; text++)
        plain = isalnum((unsigned char)*text) || (*text & 0x80) != 0 || strchr("_-./:@%+=,", *text) != NULL;
    return plain;
}

const char *cli_quote(const char *text)
{
    static char slots[QUOTE_SLOTS][QUOTE_BYTES];
    static unsigned next;
    static const char quote[] = "'\\''";
    char *quoted, *end;

    if (is_plain(text))
        return text;
    quoted = end = slots[next++ % QUOTE_SLOTS];
    *end++ = '\'';
    for (; *text != '\0' && (size_t)(end - quoted) + sizeof quote + 1 < QUOTE_BYTES; text++) {
        if (*text == '\'')
            end = mempcpy(end, quote, sizeof quote - 1);
        else
            *end++ = *text;
    }
    *end++ = '\'';
    *end = '\0';
    return quoted;
}

static struct json *error_object(const struct status *st)
{
    struct json *value = json_make_object(), *error = json_make_object();

    json_set_str(error, "code", status_code_words(st->code));
    json_set_str(error, "message", st->text);
    json_set(value, "error", error);
    return value;
}

char *cli_fail_text(const struct status *st, bool as_json)
{
    struct status shown = *st;
    struct json *value = as_json ? error_object(st) : NULL;
    char *json = as_json ? json_text(value, 2) : NULL, *text = NULL;

    REQUIRE(asprintf(&text, "%s%s\n",
                     as_json ? json : "reelkv: ", as_json ? "" : cli_make_safe(shown.text)) >= 0);
    json_free(value);
    free(json);
    return text;
}

enum cli_exit cli_fail(const struct status *st, bool as_json)
{
    char *text = cli_fail_text(st, as_json);

    fflush(stdout); /* what was said before comes before */
    fputs(text, as_json ? stdout : stderr);
    free(text);
    return cli_exit_of(st->code);
}

enum cli_exit cli_fail_line(const struct status *st)
{
    cli_print_json_line(error_object(st));
    return cli_exit_of(st->code);
}

struct cli_table {
    size_t columns;
    size_t cells; /* titles included */
    char (*texts)[CELL_BYTES];
};

struct cli_table *cli_table_create(const char *const *titles, size_t columns)
{
    struct cli_table *table = calloc(1, sizeof *table);

    REQUIRE(table != NULL && columns > 0);
    table->columns = columns;
    for (size_t i = 0; i < columns; i++)
        cli_table_cell(table, "%s", titles[i]);
    return table;
}

void cli_table_cell(struct cli_table *table, const char *format, ...)
{
    char *text;
    va_list args;

    if ((table->cells & (table->cells - 1)) == 0) {
        size_t room = table->cells == 0 ? 1 : 2 * table->cells;

        table->texts = realloc(table->texts, room * sizeof *table->texts);
        REQUIRE(table->texts != NULL);
    }
    text = table->texts[table->cells++];
    va_start(args, format);
    vsnprintf(text, CELL_BYTES, format, args);
    va_end(args);
    cli_make_safe(text);
    for (; *text != '\0'; text++)
        if (*text == '\n' || *text == '\t') /* a file's name may hold them; a row is one line */
            *text = ' ';
}

/* Columns a terminal shows for UTF-8 text: continuation bytes take none. */
static int shown_width(const char *text)
{
    int width = 0;

    for (; *text != '\0'; text++)
        width += (*text & 0xC0) != 0x80;
    return width;
}

static int column_width(const struct cli_table *table, size_t column)
{
    int width = 0;

    for (size_t i = column; i < table->cells; i += table->columns) {
        const char *text = table->texts[i] + (i == column && table->texts[i][0] == '>');
        int here = shown_width(text);

        width = here > width ? here : width;
    }
    return width;
}

void cli_table_print(struct cli_table *table)
{
    for (size_t i = 0; i < table->cells; i++) {
        size_t column = i % table->columns;
        bool right = table->texts[column][0] == '>';
        const char *text = table->texts[i] + (i == column && right);
        int pad = column_width(table, column) - shown_width(text);
        bool last = column + 1 == table->columns;

        printf("%*s%s%*s%s", right ? pad : 0, "", text, right || last ? 0 : pad, "", last ? "\n" : "  ");
    }
    cli_table_destroy(table);
}

void cli_table_destroy(struct cli_table *table)
{
    free(table->texts);
    free(table);
}

static void print_json(struct json *value, unsigned indent)
{
    char *text = json_text(value, indent);

    puts(text);
    free(text);
    json_free(value);
}

void cli_print_json(struct json *value)
{
    print_json(value, 2);
}

void cli_print_json_line(struct json *value)
{
    print_json(value, 0);
}

static char *text_slot(void)
{
    static char slots[TEXT_SLOTS][TEXT_BYTES];
    static unsigned next;

    return slots[next++ % TEXT_SLOTS];
}

const char *cli_bytes(uint64_t bytes)
{
    char *text = text_slot();

    size_text(bytes, text);
    return text;
}

const char *cli_span(double seconds)
{
    char *text = text_slot();

    if (!(seconds >= 0))
        seconds = 0;
    if (seconds < 60)
        snprintf(text, TEXT_BYTES, seconds < 10 ? "%.1f s" : "%.0f s", seconds);
    else if (seconds < 3600)
        snprintf(text, TEXT_BYTES, "%.0f min %.0f s", floor(seconds / 60), fmod(floor(seconds), 60));
    else if (seconds < 48 * 3600)
        snprintf(text, TEXT_BYTES, "%.0f h %.0f min", floor(seconds / 3600), fmod(floor(seconds / 60), 60));
    else
        snprintf(text, TEXT_BYTES, "%.0f d %.0f h", floor(seconds / 86400), fmod(floor(seconds / 3600), 24));
    return text;
}

const char *cli_rate(double per_s)
{
    char *text = text_slot();

    snprintf(text, TEXT_BYTES, per_s < 1 ? "%.2f" : per_s < 10 ? "%.1f" : "%.0f", per_s);
    return text;
}

const char *cli_time(int64_t utc_ns)
{
    char *text = text_slot();
    time_t seconds = (time_t)(utc_ns / 1000000000);
    int ms = (int)(utc_ns / 1000000 % 1000);
    struct tm utc;
    size_t used;

    if (gmtime_r(&seconds, &utc) == NULL)
        return "?";
    used = strftime(text, TEXT_BYTES, "%Y-%m-%d %H:%M:%S", &utc);
    if (ms > 0)
        used += (size_t)snprintf(text + used, TEXT_BYTES - used, ".%03d", ms);
    snprintf(text + used, TEXT_BYTES - used, "Z");
    return text;
}

const char *cli_rfc3339(int64_t utc_ns)
{
    char *text = text_slot();
    time_t seconds = (time_t)(utc_ns / 1000000000 - (utc_ns % 1000000000 < 0));
    int64_t ns = utc_ns - (int64_t)seconds * 1000000000;
    struct tm utc;
    size_t used;

    if (gmtime_r(&seconds, &utc) == NULL)
        return "?";
    used = strftime(text, TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    if (ns % 1000000 != 0)
        used += (size_t)snprintf(text + used, TEXT_BYTES - used, ".%09lld", (long long)ns);
    else if (ns != 0)
        used += (size_t)snprintf(text + used, TEXT_BYTES - used, ".%03lld", (long long)(ns / 1000000));
    snprintf(text + used, TEXT_BYTES - used, "Z");
    return text;
}

/* Times are nanoseconds in 64 bits, of which encoders take the lower half; and 0 says everywhere that there is none. */
#define SECONDS_MAX 4.6e9L

/* "-2h" or "+30d" from now. */
static bool parse_relative(const char *text, long double now, long double *utc_p)
{
    static const struct {
        char unit;
        long double length;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    char *end;
    long double amount = strtold(text + 1, &end);

    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (!isdigit((unsigned char)text[1]) || end[0] != units[i].unit || end[1] != '\0')
            continue;
        *utc_p = now + (text[0] == '-' ? -amount : amount) * units[i].length;
        return true;
    }
    return false;
}

/* "Z", "+02:00" or "-05:30" to seconds. */
static bool parse_zone(const char *text, int *seconds_p)
{
    int hours, minutes;

    if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0) {
        *seconds_p = 0;
        return true;
    }
    if ((text[0] != '+' && text[0] != '-') || strlen(text) != 6 || strspn(text + 1, "0123456789") != 2 ||
        strspn(text + 4, "0123456789") != 2 || sscanf(text + 1, "%d:%d", &hours, &minutes) != 2 ||
        hours > 14 || minutes > 59)
        return false;
    *seconds_p = (hours * 60 + minutes) * (text[0] == '-' ? -60 : 60);
    return true;
}

static bool parse_rfc3339(const char *text, long double *utc_p)
{
    bool spaced = strlen(text) > 10 && text[10] == ' '; /* as cli_time() writes it */
    struct tm when = { 0 }, normal;
    const char *rest = strptime(text, spaced ? "%Y-%m-%d %H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &when);
    long double fraction = 0, unit = 0.1L;
    time_t whole;
    int zone;

    if (rest == NULL)
        return false;
    if (*rest == '.') {
        if (!isdigit((unsigned char)*++rest))
            return false;
        for (; isdigit((unsigned char)*rest); rest++, unit /= 10)
            fraction += unit * (*rest - '0');
    }
    if (!parse_zone(rest, &zone))
        return false;
    normal = when;
    whole = timegm(&normal);
    *utc_p = (long double)(whole - zone) + fraction;
    return normal.tm_mday == when.tm_mday && normal.tm_sec == when.tm_sec; /* there is no 30th of February */
}

static bool parse_epoch(const char *text, long double *utc_p)
{
    char *end;

    *utc_p = strtold(text, &end);
    return isdigit((unsigned char)text[0]) && *end == '\0';
}

bool cli_parse_time(const char *text, int64_t now_ns, int64_t *utc_ns_p, struct status *st)
{
    long double utc = 0, now = (long double)now_ns / 1e9L;

    if (strcmp(text, "now") == 0) {
        *utc_ns_p = now_ns;
        return true;
    }
    if (!((text[0] == '-' || text[0] == '+') && parse_relative(text, now, &utc)) &&
        !parse_rfc3339(text, &utc) && !parse_epoch(text, &utc))
        return status_fail(st, STATUS_INVALID,
                           "time '%.60s' is not understood; use 2026-11-21T14:05:00Z, seconds since 1970, "
                           "now, -90s -5m -2h -1d, or +30d",
                           text);
    if (!(utc > 0 && utc < SECONDS_MAX))
        return status_fail(st, STATUS_INVALID, "time '%.60s' is not between 1970 and 2115", text);
    *utc_ns_p = (int64_t)llroundl(utc * 1e9L);
    return true;
}

/* What is left takes as long as what was done since the first look did. A few steps tell nothing. */
static void describe_rest(const struct cli_progress *progress, uint64_t done, uint64_t total, char *out,
                          size_t out_bytes)
{
    double elapsed = (double)(clock_mono_ns() - progress->started_ns) / 1e9;
    uint64_t steps = done > progress->first_done ? done - progress->first_done : 0;

    out[0] = '\0';
    if (steps >= PROGRESS_STEPS_MIN && done < total)
        snprintf(out, out_bytes, "  %s left", cli_span(elapsed / (double)steps * (double)(total - done)));
}

static int terminal_columns(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* A line that wraps cannot be redrawn in place: the bar takes the columns that the text leaves. */
static void draw_bar(const struct cli_progress *progress, const char *label, uint64_t done, uint64_t total)
{
    char count[48], rest[48], text[160];
    int columns = terminal_columns() - 1, bar, filled;

    if (total > 0)
        snprintf(count, sizeof count, "%llu/%llu", (unsigned long long)done, (unsigned long long)total);
    else
        snprintf(count, sizeof count, "%llu", (unsigned long long)done);
    describe_rest(progress, done, total, rest, sizeof rest);
    bar = columns - snprintf(text, sizeof text, "%s [] %s%s", label, count, rest);
    bar = bar > PROGRESS_COLUMNS ? PROGRESS_COLUMNS : bar;
    filled = bar > 0 && total > 0 ? (int)((double)done / (double)total * bar) : 0;
    if (bar >= PROGRESS_COLUMNS_MIN)
        snprintf(text, sizeof text, "%s [%.*s%*s] %s%s", label, filled, "##############################",
                 bar - filled, "", count, rest);
    else
        snprintf(text, sizeof text, "%s %s%s", label, count, rest);
    fprintf(stderr, "\r\033[K%.*s", columns, text);
}

/* A bar is redrawn only where a line can be. */
static bool is_terminal(void)
{
    const char *name = getenv("TERM");

    return isatty(STDERR_FILENO) && name != NULL && name[0] != '\0' && strcmp(name, "dumb") != 0;
}

void cli_progress_draw(struct cli_progress *progress, const char *label, uint64_t done, uint64_t total)
{
    uint64_t now_ns = clock_mono_ns();
    bool terminal = is_terminal();
    uint64_t wait_ns = terminal ? 100000000ull : 10000000000ull;

    if (progress->started_ns == 0) {
        progress->started_ns = now_ns;
        progress->first_done = done;
        progress->drawn_ns = terminal ? 0 : now_ns; /* lines tell of waits that are long */
    }
    if (progress->drawn_ns != 0 && now_ns - progress->drawn_ns < wait_ns)
        return;
    progress->drawn_ns = now_ns;
    progress->shown = terminal;
    if (total > 0 && done > total)
        done = total;
    if (terminal)
        draw_bar(progress, label, done, total);
    else if (total > 0)
        fprintf(stderr, "%s %llu of %llu\n", label, (unsigned long long)done, (unsigned long long)total);
    else
        fprintf(stderr, "%s %llu\n", label, (unsigned long long)done);
}

void cli_progress_say(struct cli_progress *progress, const char *words)
{
    if (!is_terminal())
        return;
    fprintf(stderr, "\r\033[K%.*s", terminal_columns() - 1, words);
    progress->shown = true;
}

void cli_progress_end(struct cli_progress *progress)
{
    if (progress->shown)
        fprintf(stderr, "\r\033[K");
    progress->shown = false;
}
