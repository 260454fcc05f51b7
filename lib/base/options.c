#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/name.h"
#include "base/require.h"

enum { OPTION_NAME_BYTES = 64, SHOWN_BYTES = 81 };

bool option_parse_bytes(const char *text, uint64_t *bytes_p)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t value;
    unsigned shift = 0;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    if (*end != '\0') {
        const char *unit = strchr(units, toupper((unsigned char)*end));

        if (unit == NULL || end[1] != '\0')
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (value > UINT64_MAX >> shift)
        return false;
    *bytes_p = value << shift;
    return true;
}

static bool parse_number(const char *text, double *value_p)
{
    char *end;

    if (text[0] == '\0' || text[strspn(text, "0123456789.eE+-")] != '\0') /* strtod() takes 0x2, inf, nan */
        return false;
    errno = 0;
    *value_p = strtod(text, &end);
    return *end == '\0' && errno == 0 && isfinite(*value_p);
}

static bool in_bounds(const struct option_row *row, double value, double (*read_bound)(const char *))
{
    return value >= read_bound(row->min) && value <= read_bound(row->max);
}

static double bound_number(const char *text)
{
    double value = 0;

    REQUIRE(parse_number(text, &value));
    return value;
}

static double bound_bytes(const char *text)
{
    uint64_t value = 0;

    REQUIRE(option_parse_bytes(text, &value));
    return (double)value;
}

static bool refuse(const struct option_row *row, const char *text, struct status *st)
{
    const char *what = row->type == OPTION_STR     ? " characters"
                       : row->type == OPTION_BYTES ? " (whole bytes, or with one of K, M, G, T)"
                                                   : "";
    char shown[SHOWN_BYTES];

    text_show(text, shown, sizeof shown);
    if (row->type == OPTION_BOOL)
        return status_fail(st, STATUS_INVALID, "%s must be true or false, not '%s'", row->name, shown);
    return status_fail(st, STATUS_INVALID, "%s must be %s to %s%s, not '%s'", row->name, row->min, row->max,
                       what, shown);
}

static bool set_bool(bool *field, const char *text)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0)
        *field = true;
    else if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0)
        *field = false;
    else
        return false;
    return true;
}

bool option_set(const struct option_row *row, void *options, const char *text, struct status *st)
{
    void *field = (char *)options + row->offset;
    double number;
    uint64_t bytes;

    switch (row->type) {
    case OPTION_STR:
        if (!in_bounds(row, (double)strlen(text), bound_number))
            return refuse(row, text, st);
        *(const char **)field = text;
        return true;
    case OPTION_U32:
        if (!parse_number(text, &number) || number != floor(number) || !in_bounds(row, number, bound_number))
            return refuse(row, text, st);
        *(uint32_t *)field = (uint32_t)number;
        return true;
    case OPTION_BYTES:
        if (!option_parse_bytes(text, &bytes) || !in_bounds(row, (double)bytes, bound_bytes))
            return refuse(row, text, st);
        *(uint64_t *)field = bytes;
        return true;
    case OPTION_F64:
        if (!parse_number(text, &number) || !in_bounds(row, number, bound_number))
            return refuse(row, text, st);
        *(double *)field = number;
        return true;
    case OPTION_BOOL:
        return set_bool(field, text) || refuse(row, text, st);
    }
    REQUIRE(!"every option type is handled");
    return false;
}

/* listen_address -> listen-address, or REELKV_LISTEN_ADDRESS */
static void flag_name(const char *name, char out[OPTION_NAME_BYTES])
{
    size_t i;

    for (i = 0; name[i] != '\0' && i < OPTION_NAME_BYTES - 1; i++)
        out[i] = name[i] == '_' ? '-' : name[i];
    out[i] = '\0';
}

static void env_name(const char *name, char out[OPTION_NAME_BYTES])
{
    size_t used = (size_t)snprintf(out, OPTION_NAME_BYTES, "REELKV_");

    for (; *name != '\0' && used < OPTION_NAME_BYTES - 1; name++)
        out[used++] = (char)toupper((unsigned char)*name);
    out[used] = '\0';
}

static const struct option_row *find_row(const struct option_table *table, const char *flag, size_t len)
{
    char name[OPTION_NAME_BYTES];

    for (size_t i = 0; i < table->count; i++) {
        flag_name(table->rows[i].name, name);
        if (strlen(name) == len && strncmp(name, flag, len) == 0)
            return &table->rows[i];
    }
    return NULL;
}

/* The known flag that shares the longest start with `flag`, good enough for a typing error; "" when no more than a letter
 * is shared. */
static void nearest_flag(const struct option_table *table, const char *flag, char out[OPTION_NAME_BYTES])
{
    size_t best = 1;

    out[0] = '\0';
    for (size_t i = 0; i < table->count; i++) {
        char name[OPTION_NAME_BYTES];
        size_t same = 0;

        flag_name(table->rows[i].name, name);
        while (name[same] != '\0' && name[same] == flag[same])
            same++;
        if (same > best) {
            best = same;
            memcpy(out, name, OPTION_NAME_BYTES);
        }
    }
}

static bool is_required(const struct option_row *row)
{
    return row->type == OPTION_STR && row->initial[0] == '\0' && bound_number(row->min) > 0;
}

static bool set_defaults(const struct option_table *table, void *options, struct status *st)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        char name[OPTION_NAME_BYTES];
        const char *from_env;

        if (is_required(row))
            *(const char **)((char *)options + row->offset) = row->initial;
        else
            REQUIRE(option_set(row, options, row->initial, st));
        env_name(row->name, name);
        from_env = getenv(name);
        if (from_env != NULL && !option_set(row, options, from_env, st))
            return status_wrap(st, "environment %s", name);
    }
    return true;
}

struct parsing {
    const struct option_table *table;
    void *options;
    uint64_t given; /* a bit of each row that stood in argv */
};

/* Of two values one would be lost without a word. A flag without a value loses nothing. */
static bool note_given(struct parsing *parsing, const struct option_row *row, struct status *st)
{
    uint64_t bit = UINT64_C(1) << (row - parsing->table->rows);
    char flag[OPTION_NAME_BYTES];

    flag_name(row->name, flag);
    if ((parsing->given & bit) != 0 && row->type != OPTION_BOOL)
        return status_fail(st, STATUS_INVALID, "--%s may be given once", flag);
    parsing->given |= bit;
    return true;
}

/* One flag of argv; *used_p is how many arguments it took. */
static bool take_flag(struct parsing *parsing, char **argv, int *used_p, struct status *st)
{
    const char *arg = argv[0] + 2;
    size_t len = strcspn(arg, "=");
    const struct option_row *row = find_row(parsing->table, arg, len);
    void *options = parsing->options;
    char near[OPTION_NAME_BYTES];

    *used_p = 1;
    if (row == NULL) {
        nearest_flag(parsing->table, arg, near);
        return status_fail(st, STATUS_INVALID, "unknown option --%.*s; %s%s%s", (int)len, arg,
                           near[0] != '\0' ? "did you mean --" : "", near,
                           near[0] != '\0' ? "? See --help" : "see --help");
    }
    if (!note_given(parsing, row, st))
        return false;
    if (arg[len] == '=')
        return option_set(row, options, arg + len + 1, st);
    if (row->type == OPTION_BOOL)
        return option_set(row, options, "true", st);
    if (argv[1] == NULL)
        return status_fail(st, STATUS_INVALID, "--%s needs a value", arg);
    *used_p = 2;
    return option_set(row, options, argv[1], st);
}

static bool count_arguments(const struct option_table *table, int count, char **argv, struct status *st)
{
    char shown[SHOWN_BYTES];

    if ((size_t)count > table->arguments_max) {
        text_show(argv[1 + table->arguments_max], shown, sizeof shown);
        return status_fail(st, STATUS_INVALID, "unexpected argument '%s'; usage: %s [--option value]...%s%s",
                           shown, table->program, table->arguments != NULL ? " " : "",
                           table->arguments != NULL ? table->arguments : "");
    }
    if ((size_t)count < table->arguments_min)
        return status_fail(st, STATUS_INVALID, "missing argument; usage: %s [--option value]... %s",
                           table->program, table->arguments);
    return true;
}

static bool has_required(const struct option_table *table, const void *options, struct status *st)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        char flag[OPTION_NAME_BYTES];

        if (!is_required(row) || (*(const char *const *)((const char *)options + row->offset))[0] != '\0')
            continue;
        flag_name(row->name, flag);
        return status_fail(st, STATUS_INVALID, "--%s is needed: %s", flag, row->help);
    }
    return true;
}

enum options_outcome options_parse(const struct option_table *table, void *options, int argc, char **argv,
                                   int *arguments_p, struct status *st)
{
    struct parsing parsing = { .table = table, .options = options };
    bool only_arguments = false;
    int arguments = 0;

    REQUIRE(table->count <= 8 * sizeof parsing.given);
    if (!set_defaults(table, options, st))
        return OPTIONS_BAD;
    for (int i = 1, used; i < argc; i += used) {
        used = 1;
        if (only_arguments || strncmp(argv[i], "--", 2) != 0) {
            argv[1 + arguments++] = argv[i]; /* never ahead of i */
        } else if (strcmp(argv[i], "--") == 0) {
            only_arguments = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            options_print_help(table, stdout);
            return file_flush_output(st) ? OPTIONS_DONE : OPTIONS_BAD;
        } else if (strcmp(argv[i], "--help-markdown") == 0) {
            options_print_markdown(table, stdout);
            return file_flush_output(st) ? OPTIONS_DONE : OPTIONS_BAD;
        } else if (!take_flag(&parsing, argv + i, &used, st)) {
            return OPTIONS_BAD;
        }
    }
    if (!has_required(table, options, st) || !count_arguments(table, arguments, argv, st))
        return OPTIONS_BAD;
    if (arguments_p != NULL)
        *arguments_p = arguments;
    return OPTIONS_RUN;
}

void options_print_help(const struct option_table *table, FILE *out)
{
    fprintf(out, "usage: %s [--option value]...%s%s\n\n%s\n\n", table->program,
            table->arguments != NULL ? " " : "", table->arguments != NULL ? table->arguments : "",
            table->summary);
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        char flag[OPTION_NAME_BYTES], env[OPTION_NAME_BYTES];

        flag_name(row->name, flag);
        env_name(row->name, env);
        fprintf(out, "  --%-24s %s\n", flag, row->help);
        if (is_required(row))
            fprintf(out, "    %-24s must be given; %s\n", "", env);
        else if (row->type == OPTION_STR || row->type == OPTION_BOOL)
            fprintf(out, "    %-24s default '%s'; %s\n", "", row->initial, env);
        else
            fprintf(out, "    %-24s default %s, %s to %s; %s\n", "", row->initial, row->min, row->max, env);
    }
    fprintf(out, "  --%-24s %s\n", "help", "print this and exit");
}

void options_print_markdown(const struct option_table *table, FILE *out)
{
    fprintf(out, "## %s\n\n%s\n\n", table->program, table->summary);
    if (table->arguments != NULL)
        fprintf(out, "Arguments: `%s`\n\n", table->arguments);
    fprintf(out, "| option | environment | default | bounds | what it does |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < table->count; i++) {
        const struct option_row *row = &table->rows[i];
        char flag[OPTION_NAME_BYTES], env[OPTION_NAME_BYTES];
        bool bounded = row->type != OPTION_STR && row->type != OPTION_BOOL;

        flag_name(row->name, flag);
        env_name(row->name, env);
        fprintf(out, "| `--%s` | `%s` | %s%s%s | %s%s%s | %s |\n", flag, env, is_required(row) ? "" : "`",
                is_required(row) ? "must be given" : row->initial, is_required(row) ? "" : "`",
                bounded ? row->min : "", bounded ? " to " : "", bounded ? row->max : "", row->help);
    }
    fprintf(out, "\n");
}
