/* The verbs: found by their words, guessed when mistyped, and every one written down in docs/cli.md. */
#include <stdlib.h>

#include "base/file.h"
#include "base/limits.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "support/test.h"

static const char *found(int argc, char **argv)
{
    int words;
    const struct cli_command *command = cli_command_find(argc, argv, &words);

    return command != NULL ? command->path : "nothing";
}

struct stream_options {
    CLI_STREAM_OPTIONS(OPTION_FIELD)
};

TEST(verbs_are_found_by_all_their_words)
{
    int words;

    CHECK_STR(found(1, (char *[]){ "up" }), "up");
    CHECK_STR(found(3, (char *[]){ "cam", "add", "x" }), "cam add");
    CHECK_STR(found(1, (char *[]){ "cam" }), "nothing");
    CHECK_STR(found(2, (char *[]){ "cam", "adds" }), "nothing");
    CHECK_STR(found(1, (char *[]){ "supervise" }), "supervise");
    CHECK_STR(found(0, NULL), "nothing");
    CHECK(cli_command_find(3, (char *[]){ "cam", "add", "x" }, &words) != NULL);
    CHECK_EQ(words, 2);
}

TEST(typing_errors_find_their_verb)
{
    CHECK_STR(cli_command_nearest("cam ad")->path, "cam add");
    CHECK_STR(cli_command_nearest("camls")->path, "cam ls");
    CHECK_STR(cli_command_nearest("ak")->path, "ask");
    CHECK_STR(cli_command_nearest("docter")->path, "doctor");
    CHECK(cli_command_nearest("frobnicate") == NULL);
    CHECK(cli_command_nearest("foo") == NULL); /* three letters away from "down", as every short word is */
    CHECK(cli_command_nearest("a very long line that is no verb at all and goes on and on and on and on") ==
          NULL);
}

/* Each verb takes --json, has a summary, and its defaults fit its own bounds. */
TEST(every_verb_has_json_and_good_defaults)
{
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const struct cli_command *command = cli_command_at(i);
        char *argv[] = { "reelkv", "--json", "one", "two", NULL };
        void *options = calloc(1, command->options_bytes);
        int arguments;
        struct status st;

        CHECK(options != NULL);
        CHECK_EQ(options_parse(&command->table, options, 2 + (int)command->table.arguments_min, argv,
                               &arguments, &st),
                 OPTIONS_RUN);
        CHECK(command->table.summary[0] != '\0' && command->group[0] != '\0');
        free(options);
    }
}

/* `up` took a number of frames that, with the newest ones, was more than a layer may read: then every question failed. */
TEST(frames_asked_for_fit_one_choice)
{
    const struct option_table *tables[] = { &cli_up.table, &cli_ask.table };

    for (size_t i = 0; i < ARRAY_LEN(tables); i++)
        for (size_t r = 0; r < tables[i]->count; r++)
            if (strcmp(tables[i]->rows[r].name, "top_r") == 0)
                CHECK_EQ(strtol(tables[i]->rows[r].max, NULL, 10), LIMIT_TOP_R);
}

static const struct option_row *same_row(const struct option_table *table, const char *name)
{
    for (size_t r = 0; r < table->count; r++)
        if (strcmp(table->rows[r].name, name) == 0)
            return &table->rows[r];
    return NULL;
}

/* REELKV_TIMEOUT is of every verb that has a --timeout: one of a day, for `ask`, made `down` fail. */
TEST(what_the_environment_may_say_for_one_verb_suits_all)
{
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const struct option_table *table = &cli_command_at(i)->table;

        for (size_t r = 0; r < table->count; r++)
            for (size_t other = 0; other < i; other++) {
                const struct option_row *row = &table->rows[r],
                                        *same = same_row(&cli_command_at(other)->table, row->name);

                if (same != NULL && (same->type != row->type || strcmp(same->min, row->min) != 0 ||
                                     strcmp(same->max, row->max) != 0))
                    test_fail(__FILE__, __LINE__, "--%s of %s and %s differ", row->name,
                              cli_command_at(i)->path, cli_command_at(other)->path);
            }
    }
}

static bool has_words(const char *text, const char *before, const char *words, const char *after)
{
    char wanted[128];

    snprintf(wanted, sizeof wanted, "%s%s%s", before, words, after);
    return strstr(text, wanted) != NULL;
}

/* What a verb told to run was for the usual folder and namespace: pasted, it removed another camera. */
TEST(hints_carry_whose_cameras_and_which_cluster)
{
    static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(stream_options, __VA_ARGS__),
        CLI_STREAM_OPTIONS(ROW)
#undef ROW
    };
    static const struct option_table table = { .program = "x", .rows = rows, .count = ARRAY_LEN(rows) };
    struct stream_options options = { .data = "/my data", .redis = "", .namespace = "other" };

    CHECK_STR(cli_hint("cam rm %s", "yard"), "reelkv cam rm yard");
    cli_hint_carry(&table, &options);
    CHECK_STR(cli_hint("cam rm %s", "yard"), "reelkv cam rm yard --data '/my data' --namespace other");
    CHECK_STR(cli_hint("logs"), "reelkv logs --data '/my data'"); /* it has no namespace */
    CHECK_STR(cli_hint("help"), "reelkv help");
    options.redis = "host:6379";
    CHECK_STR(cli_hint("doctor"), "reelkv doctor --data '/my data' --redis host:6379");
    options = (struct stream_options){ .data = "", .redis = "", .namespace = "default" };
    CHECK_STR(cli_hint("mem ls"), "reelkv mem ls");
    setenv("REELKV_NAMESPACE", "other", 1);
    CHECK_STR(cli_hint("mem ls"), "reelkv mem ls --namespace default");
    options.namespace = "other";
    CHECK_STR(cli_hint("mem ls"), "reelkv mem ls");
    unsetenv("REELKV_NAMESPACE");
    cli_hint_carry(NULL, NULL);
}

/* docs/cli.md names every verb, every option (with dashes), and every exit code. */
TEST(documentation_names_every_verb_and_option)
{
    struct file_text doc;
    struct status st;

    CHECK_OK(file_read_all(REELKV_SOURCE_DIR "/docs/cli.md", 1 << 20, &doc, &st), st);
    for (size_t i = 0; cli_command_at(i) != NULL; i++) {
        const struct cli_command *command = cli_command_at(i);

        if (!has_words(doc.data, "`reelkv ", command->path, ""))
            test_fail(__FILE__, __LINE__, "docs/cli.md lacks `reelkv %s`", command->path);
        for (size_t r = 0; r < command->table.count; r++) {
            char flag[64];

            snprintf(flag, sizeof flag, "%s", command->table.rows[r].name);
            for (char *c = flag; *c != '\0'; c++)
                *c = *c == '_' ? '-' : *c;
            if (!has_words(doc.data, "`--", flag, ""))
                test_fail(__FILE__, __LINE__, "docs/cli.md lacks --%s of `reelkv %s`", flag, command->path);
        }
    }
    for (int code = CLI_OK; code <= CLI_DATA_LOSS; code++) {
        char row[16];

        snprintf(row, sizeof row, "\n| %d |", code);
        CHECK_HAS(doc.data, row);
    }
    CHECK_HAS(doc.data, "\n| 130 |");
    free(doc.data);
}

TEST_MAIN()
