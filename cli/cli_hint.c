#include "cli_hint.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "cli_command.h"

enum { HINT_SLOTS = 4, HINT_BYTES = 8800 };

/* They say whose cameras, and of which cluster. */
static const struct {
    const char *option, *flag, *environment;
} carried[] = { { "data", "--data", "REELKV_DATA" },
                { "redis", "--redis", "REELKV_REDIS" },
                { "namespace", "--namespace", "REELKV_NAMESPACE" } };

static const struct option_table *given_table;
static const void *given_options;

void cli_hint_carry(const struct option_table *table, const void *options)
{
    given_table = table;
    given_options = options;
}

static const struct option_row *find_row(const struct option_table *table, const char *name)
{
    for (size_t i = 0; table != NULL && i < table->count; i++)
        if (strcmp(table->rows[i].name, name) == 0)
            return &table->rows[i];
    return NULL;
}

/* The options of the verb that the command begins with. */
static const struct option_table *table_of(const char *command)
{
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const char *path = cli_command_at(i)->path;
        size_t len = strlen(path);

        if (strncmp(command, path, len) == 0 && (command[len] == ' ' || command[len] == '\0'))
            return &cli_command_at(i)->table;
    }
    return NULL;
}

const char *cli_hint(const char *format, ...)
{
    static char slots[HINT_SLOTS][HINT_BYTES];
    static unsigned next;
    char *hint = slots[next++ % HINT_SLOTS];
    size_t used = (size_t)snprintf(hint, HINT_BYTES, "reelkv ");
    const struct option_table *takes;
    va_list args;

    va_start(args, format);
    vsnprintf(hint + used, HINT_BYTES - used, format, args);
    va_end(args);
    takes = table_of(hint + used);
    for (size_t i = 0; i < ARRAY_LEN(carried); i++) {
        const struct option_row *row = find_row(given_table, carried[i].option);
        const char *unsaid = getenv(carried[i].environment), *value;

        if (row == NULL || find_row(takes, carried[i].option) == NULL)
            continue;
        value = *(const char *const *)((const char *)given_options + row->offset);
        if (strcmp(value, unsaid != NULL ? unsaid : row->initial) == 0)
            continue;
        used = strlen(hint);
        snprintf(hint + used, HINT_BYTES - used, " %s %s", carried[i].flag, cli_quote(value));
    }
    return hint;
}
