/* options.h - an option exists once: one row of a .def file becomes the struct field, the default, the
 * bounds,
 * --flag, REELKV_FLAG in the environment, --help and docs/options.md.
 *
 *   OPT(ram_budget_bytes, BYTES, "8G", "64M", "4T", "KV kept in memory before it spills to disk")
 *
 * Types: STR (min and max are lengths), U32, BYTES (uint64_t, with K M G T), F64, BOOL (--flag or
 * --flag=false). The command line wins over the environment, the environment over the default. A STR that may
 * not be empty and whose default is, must be given. What takes a value may be given once.
 *
 * Owner:  STR values borrow argv, the environment or the row; all outlive main().
 * Fails:  INVALID with the flag, the value (of a URL, without its password) and what is allowed; an unknown flag names
 *         the nearest known one.
 */
#ifndef REELKV_BASE_OPTIONS_H
#define REELKV_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

enum option_type { OPTION_STR, OPTION_U32, OPTION_BYTES, OPTION_F64, OPTION_BOOL };

struct option_row {
    const char *name; /* as the field; flags have '-' for '_' */
    enum option_type type;
    size_t offset;       /* of the field in the options struct */
    const char *initial; /* default, as text */
    const char *min, *max;
    const char *help;
};

struct option_table {
    const char *program; /* reelkv-kvstore */
    const char *summary; /* one sentence */
    const char
        *arguments; /* what follows the options, for people ("NAME SOURCE"); NULL: nothing may follow */
    size_t arguments_min, arguments_max;
    const struct option_row *rows;
    size_t count;
};

#define OPTION_CTYPE_STR   const char *
#define OPTION_CTYPE_U32   uint32_t
#define OPTION_CTYPE_BYTES uint64_t
#define OPTION_CTYPE_F64   double
#define OPTION_CTYPE_BOOL  bool

/* For `#define OPT OPTION_FIELD` inside a struct, and a row of the table. */
#define OPTION_FIELD(name, type, initial, min, max, help) OPTION_CTYPE_##type name;
#define OPTION_ROW(strukt, name, type, initial, min, max, help)                      \
    {                                                                                \
#name, OPTION_##type, offsetof(struct strukt, name), initial, min, max, help \
    }

enum options_outcome {
    OPTIONS_RUN,  /* go on */
    OPTIONS_DONE, /* --help was printed: exit 0 */
    OPTIONS_BAD,  /* *st says why, or that the help could not be written: exit 2 */
};

/* Fills `options` from defaults, environment and argv (argv[0] is skipped). Arguments that are not options,
 * and all after "--", are moved in order to argv[1..]; their number goes to *arguments_p (NULL when there can
 * be none). */
enum options_outcome options_parse(const struct option_table *table, void *options, int argc, char **argv,
                                   int *arguments_p, struct status *st);

/* Sets one option from text, checked against its row; `row` names it in errors. */
bool option_set(const struct option_row *row, void *options, const char *text, struct status *st);

/* "8G" -> 8589934592; bare numbers are bytes. */
bool option_parse_bytes(const char *text, uint64_t *bytes_p);

/* The help text a person reads, and the table docs/options.md includes. */
void options_print_help(const struct option_table *table, FILE *out);
void options_print_markdown(const struct option_table *table, FILE *out);

#endif
