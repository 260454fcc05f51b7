#include "cli_command.h"

#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "base/require.h"
#include "cli_hint.h"

enum { TYPED_BYTES = 64, NEAR_EDITS = 3 };

static const struct cli_command *const commands[] = {
    &cli_up,        &cli_down,        &cli_logs,       &cli_doctor,     &cli_cam_add,    &cli_cam_ls,
    &cli_cam_show,  &cli_cam_follow,  &cli_cam_wait,   &cli_cam_rm,     &cli_ask,        &cli_mem_ls,
    &cli_node_ls,   &cli_mem_fsck,    &cli_mem_dump,   &cli_mem_export, &cli_mem_import, &cli_mem_hold,
    &cli_mem_holds, &cli_mem_release, &cli_mem_forget,
};

static const char *const exit_codes =
    "exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 cluster not running or not answering,\n"
    "            5 exists or in use, 6 no room, 7 timeout, 8 stored data damaged, 130 interrupted\n";

const struct cli_command *cli_command_at(size_t index)
{
    return index < ARRAY_LEN(commands) ? commands[index] : NULL;
}

/* How many words of argv the path takes; 0 when argv does not begin with it. */
static int words_matched(const char *path, int argc, char **argv)
{
    int words = 0;

    while (*path != '\0') {
        size_t len = strcspn(path, " ");

        if (words == argc || strlen(argv[words]) != len || strncmp(argv[words], path, len) != 0)
            return 0;
        words++;
        path += len;
        path += *path == ' ';
    }
    return words;
}

const struct cli_command *cli_command_find(int argc, char **argv, int *words_p)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        int words = words_matched(commands[i]->path, argc, argv);

        if (words > 0) {
            *words_p = words;
            return commands[i];
        }
    }
    *words_p = 1;
    return argc > 0 && strcmp(argv[0], cli_supervise.path) == 0 ? &cli_supervise : NULL;
}

/* Levenshtein's distance, both at most TYPED_BYTES - 1 long. */
static unsigned edits_between(const char *a, const char *b)
{
    unsigned row[TYPED_BYTES];
    size_t len = strlen(b);

    for (size_t i = 0; i <= len; i++)
        row[i] = (unsigned)i;
    for (; *a != '\0'; a++) {
        unsigned corner = row[0]++;

        for (size_t i = 0; i < len; i++) {
            unsigned changed = corner + (*a != b[i]);
            unsigned other = (row[i] < row[i + 1] ? row[i] : row[i + 1]) + 1;

            corner = row[i + 1];
            row[i + 1] = changed < other ? changed : other;
        }
    }
    return row[len];
}

const struct cli_command *cli_command_nearest(const char *typed)
{
    const struct cli_command *best = NULL;
    unsigned best_edits = NEAR_EDITS + 1;

    if (strlen(typed) >= TYPED_BYTES)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        unsigned edits = edits_between(typed, commands[i]->path);

        if (edits < best_edits && 2 * edits <= strlen(typed) + 1) {
            best = commands[i];
            best_edits = edits;
        }
    }
    return best;
}

static bool has_prefix(const struct cli_command *command, const char *word)
{
    size_t len = strlen(word);

    return strncmp(command->path, word, len) == 0 && command->path[len] == ' ';
}

/* Every verb, or those that begin with a word ("cam"). */
static void print_help(const char *word)
{
    const char *group = "";

    printf("ReelKV remembers what cameras saw and answers questions about any moment of it.\n\n"
           "usage: reelkv VERB [--option value]... [arguments]\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const struct cli_command *command = commands[i];
        const char *arguments = command->table.arguments != NULL ? command->table.arguments : "";

        if (word != NULL && !has_prefix(command, word))
            continue;
        if (strcmp(group, command->group) != 0)
            printf("\n%s\n", group = command->group);
        printf("  %-11s %-13s %s\n", command->path, arguments, command->table.summary);
    }
    printf("\n  reelkv VERB --help lists a verb's options; every verb takes --json\n\n%s", exit_codes);
}

static void print_help_json(void)
{
    struct json *value = json_make_object(), *verbs = json_make_array();

    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        struct json *row = json_make_object();

        json_set_str(row, "verb", commands[i]->path);
        json_set_str(row, "arguments", commands[i]->table.arguments);
        json_set_str(row, "summary", commands[i]->table.summary);
        json_append(verbs, row);
    }
    json_set(value, "verbs", verbs);
    cli_print_json(value);
}

/* The verbs that begin with a word, as "cam add, cam ls"; "" when none does. */
static void list_verbs(const char *word, char *out, size_t out_bytes)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (has_prefix(commands[i], word) && used < out_bytes)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", used > 0 ? ", " : "",
                                     commands[i]->path);
}

static void explain_unknown(int argc, char **argv, struct status *st)
{
    char first[TYPED_BYTES], second[TYPED_BYTES] = "", typed[2 * TYPED_BYTES], verbs[256];
    bool two = argc > 1 && argv[1][0] != '-';
    const struct cli_command *near;

    text_show(argv[0], first, sizeof first); /* `reelkv cam URL` */
    if (two)
        text_show(argv[1], second, sizeof second);
    snprintf(typed, sizeof typed, "%s%s%s", first, two ? " " : "", second);
    list_verbs(argv[0], verbs, sizeof verbs);
    near = cli_command_nearest(typed);
    if (near == NULL && verbs[0] == '\0')
        near = cli_command_nearest(argv[0]);
    if (argv[0][0] == '-')
        status_fail(st, STATUS_INVALID, "a verb comes before options such as %.60s; see `reelkv help`",
                    first);
    else if (verbs[0] != '\0' && (near == NULL || !two))
        status_fail(st, STATUS_INVALID, "there is no verb '%.60s'; there are: %s", typed, verbs);
    else if (near != NULL)
        status_fail(st, STATUS_INVALID,
                    "there is no verb '%.60s'; did you mean `reelkv %s`? See `reelkv help`", typed,
                    near->path);
    else
        status_fail(st, STATUS_INVALID, "there is no verb '%.60s'; see `reelkv help`", typed);
}

static bool is_help_flag(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static bool has_json_flag(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

static enum cli_exit unknown_verb(int argc, char **argv)
{
    char verbs[256];
    struct status st = { 0 };

    list_verbs(argv[0], verbs, sizeof verbs);
    if (verbs[0] != '\0' && argc == 2 && is_help_flag(argv[1])) {
        print_help(argv[0]);
        return CLI_OK;
    }
    explain_unknown(argc, argv, &st);
    return cli_fail(&st, has_json_flag(argc, argv));
}

static bool asks_for_json(const struct cli_command *command, const void *options)
{
    for (size_t i = 0; i < command->table.count; i++)
        if (strcmp(command->table.rows[i].name, "json") == 0)
            return *(const bool *)((const char *)options + command->table.rows[i].offset);
    return false;
}

static enum cli_exit run_command(const struct cli_command *command, int argc, char **argv)
{
    void *options = calloc(1, command->options_bytes);
    struct cli_run run = { .options = options, .arguments = argv + 1 };
    struct status st = { 0 };
    enum cli_exit code = CLI_OK;

    REQUIRE(options != NULL);
    switch (options_parse(&command->table, options, argc, argv, &run.count, &st)) {
    case OPTIONS_DONE:
        printf("\n%s", exit_codes);
        break;
    case OPTIONS_BAD:
        /* What was read before the mistake counts too: the environment, --json=true. */
        code = cli_fail(&st, asks_for_json(command, options) || has_json_flag(argc, argv));
        break;
    case OPTIONS_RUN:
        run.json = asks_for_json(command, options);
        cli_hint_carry(&command->table, options);
        code = command->run(&run);
        cli_hint_carry(NULL, NULL);
        break;
    }
    free(options);
    return code;
}

static void print_version(bool as_json)
{
    struct json *value;

    if (!as_json) {
        printf("reelkv %s\n", REELKV_VERSION);
        return;
    }
    value = json_make_object();
    json_set_str(value, "version", REELKV_VERSION);
    cli_print_json(value);
}

enum cli_exit cli_main(int argc, char **argv)
{
    static char help_flag[] = "--help";
    bool json = has_json_flag(argc, argv);
    const struct cli_command *command;
    int words;

    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        print_version(json);
        return CLI_OK;
    }
    if (argc < 2 || is_help_flag(argv[1]) || (argc == 2 + json && strcmp(argv[1], "help") == 0)) {
        if (json)
            print_help_json();
        else
            print_help(NULL);
        return CLI_OK;
    }
    if (strcmp(argv[1], "help") == 0) {
        command = cli_command_find(argc - 2, argv + 2, &words);
        if (command == NULL && argc == 3)
            return unknown_verb(2, (char *[]){ argv[2], help_flag, NULL });
        if (command == NULL)
            return unknown_verb(argc - 2, argv + 2);
        return run_command(command, 2, (char *[]){ argv[0], help_flag, NULL });
    }
    command = cli_command_find(argc - 1, argv + 1, &words);
    if (command == NULL)
        return unknown_verb(argc - 1, argv + 1);
    if (argc == words + 2 && strcmp(argv[words + 1], "-h") == 0)
        argv[words + 1] = help_flag;
    return run_command(command, argc - words, argv + words);
}
