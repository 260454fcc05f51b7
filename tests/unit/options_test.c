#include "base/options.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/test.h"

struct sample_options {
    const char *listen;
    uint32_t port;
    uint64_t budget_bytes;
    double fps;
    bool verbose;
};

static const struct option_row rows[] = {
    OPTION_ROW(sample_options, listen, STR, "127.0.0.1", "1", "20", "address to listen on"),
    OPTION_ROW(sample_options, port, U32, "7304", "1", "65535", "TCP port"),
    OPTION_ROW(sample_options, budget_bytes, BYTES, "8G", "64M", "4T", "memory"),
    OPTION_ROW(sample_options, fps, F64, "0.5", "0.01", "60", "frames a second"),
    OPTION_ROW(sample_options, verbose, BOOL, "false", "", "", "say more"),
};
static const struct option_table table = {
    .program = "sample", .summary = "A sample.", .rows = rows, .count = ARRAY_LEN(rows)
};

static enum options_outcome parse(struct sample_options *options, struct status *st, char **argv)
{
    int argc = 0;

    while (argv[argc] != NULL)
        argc++;
    return options_parse(&table, options, argc, argv, NULL, st);
}
#define ARGV(...) ((char *[]){ "sample", __VA_ARGS__, NULL })

TEST(options_take_defaults_then_environment_then_flags)
{
    struct sample_options options;
    struct status st = { 0 };

    setenv("REELKV_PORT", "99", 1);
    setenv("REELKV_FPS", "2", 1);
    CHECK_EQ(parse(&options, &st, ARGV("--budget-bytes", "1G", "--fps=4", "--verbose")), OPTIONS_RUN);
    unsetenv("REELKV_PORT");
    unsetenv("REELKV_FPS");
    CHECK_STR(options.listen, "127.0.0.1");
    CHECK_EQ(options.port, 99);
    CHECK_EQ(options.budget_bytes, 1ll << 30);
    CHECK_NEAR(options.fps, 4, 0);
    CHECK(options.verbose);
}

/* Each refusal names the option, what is allowed and what was given. */
TEST(options_refuse_what_is_out_of_bounds_or_unknown)
{
    static const struct {
        const char *flag, *value, *words;
    } table_of[] = {
        { "--port", "99999", "port must be 1 to 65535, not '99999'" },
        { "--port", "80x", "port must be 1 to 65535, not '80x'" },
        { "--port", "1.5", "port must be" },
        { "--budget-bytes", "5T",
          "budget_bytes must be 64M to 4T (whole bytes, or with one of K, M, G, T), not '5T'" },
        { "--budget-bytes", "-1", "budget_bytes must be" },
        { "--fps", "nan", "fps must be" },
        { "--fps", "0x2", "fps must be" },
        { "--fps", " 2", "fps must be" },
        { "--listen", "a name that is far too long", "listen must be 1 to 20 characters" },
        { "--bugdet-bytes", "1G", "unknown option --bugdet-bytes; did you mean --budget-bytes?" },
        { "--bogus", "1", "unknown option --bogus; see --help" },
        { "--verbose=maybe", NULL, "verbose must be true or false" },
        { "--port", NULL, "--port needs a value" },
        { "loose", NULL, "unexpected argument 'loose'" },
    };

    for (size_t i = 0; i < ARRAY_LEN(table_of); i++) {
        struct sample_options options;
        struct status st = { 0 };

        CHECK_EQ(parse(&options, &st, ARGV((char *)table_of[i].flag, (char *)table_of[i].value)),
                 OPTIONS_BAD);
        CHECK_HAS(st.text, table_of[i].words);
    }
}

/* The last of two values won, and nothing was said of the first: `--cam yard --cam dock` asked about one camera. */
TEST(options_that_take_a_value_may_be_given_once)
{
    struct sample_options options;
    struct status st = { 0 };

    CHECK_EQ(parse(&options, &st, ARGV("--port", "80", "--fps", "2", "--port=81")), OPTIONS_BAD);
    CHECK_HAS(st.text, "--port may be given once");
    CHECK_EQ(parse(&options, &st, ARGV("--verbose", "--port", "80", "--verbose")), OPTIONS_RUN);
    setenv("REELKV_PORT", "99", 1);
    CHECK_EQ(parse(&options, &st, ARGV("--port", "80")), OPTIONS_RUN);
    unsetenv("REELKV_PORT");
    CHECK_EQ(options.port, 80);
}

/* Options and arguments may stand in any order; "--" ends the options. */
TEST(options_gather_arguments_in_order)
{
    struct option_table with = table;
    struct sample_options options;
    struct status st = { 0 };
    char *argv[] = { "sample", "dock", "--port", "80", "--", "--odd", NULL };
    int count;

    with.arguments = "NAME SOURCE";
    with.arguments_min = with.arguments_max = 2;
    CHECK_EQ(options_parse(&with, &options, 6, argv, &count, &st), OPTIONS_RUN);
    CHECK_EQ(count, 2);
    CHECK_STR(argv[1], "dock");
    CHECK_STR(argv[2], "--odd");
    CHECK_EQ(options.port, 80);
    CHECK_EQ(options_parse(&with, &options, 2, (char *[]){ "sample", "dock", NULL }, &count, &st),
             OPTIONS_BAD);
    CHECK_HAS(st.text, "missing argument");
    CHECK_EQ(options_parse(&with, &options, 4, (char *[]){ "sample", "a", "b", "c", NULL }, &count, &st),
             OPTIONS_BAD);
    CHECK_HAS(st.text, "unexpected argument 'c'");
}

TEST(option_bytes_know_their_units_and_do_not_overflow)
{
    uint64_t bytes;

    CHECK(option_parse_bytes("3k", &bytes));
    CHECK_EQ(bytes, 3072);
    CHECK(!option_parse_bytes("99999999999T", &bytes));
    CHECK(!option_parse_bytes("8GB", &bytes));
    CHECK(!option_parse_bytes("", &bytes));
}

struct wanting_options {
    const char *model;
};

/* A row that may not be empty and has no default: not given it is refused by name, given it is taken; help does not
 * need it. */
TEST(options_without_a_default_must_be_given)
{
    static const struct option_row wanting[] = {
        OPTION_ROW(wanting_options, model, STR, "", "1", "20", "checkpoint folder"),
    };
    static const struct option_table needs = {
        .program = "needs", .summary = "Needs a model.", .rows = wanting, .count = ARRAY_LEN(wanting)
    };
    struct wanting_options options;
    struct status st = { 0 };

    CHECK_EQ(options_parse(&needs, &options, 1, ARGV(NULL), NULL, &st), OPTIONS_BAD);
    CHECK_HAS(st.text, "--model is needed: checkpoint folder");
    CHECK_EQ(options_parse(&needs, &options, 2, ARGV("--model="), NULL, &st), OPTIONS_BAD);
    CHECK_EQ(options_parse(&needs, &options, 2, ARGV("--model=/m"), NULL, &st), OPTIONS_RUN);
    CHECK_STR(options.model, "/m");
    CHECK_EQ(options_parse(&needs, &options, 2, ARGV("--help-markdown"), NULL, &st), OPTIONS_DONE);
}

/* In a process of its own, whose output goes there. */
static enum options_outcome print_to(const char *path, char *flag)
{
    struct sample_options options;
    struct status st = { 0 };
    pid_t child;
    int status;

    fflush(stdout);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(dup2(open(path, O_WRONLY | O_CLOEXEC), STDOUT_FILENO) == STDOUT_FILENO);
        exit((int)parse(&options, &st, ARGV(flag)));
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    return (enum options_outcome)WEXITSTATUS(status);
}

/* It counted as printed: a script that kept it had an empty page. */
TEST(help_that_cannot_be_written_is_a_failure)
{
    CHECK_EQ(print_to("/dev/null", "--help"), OPTIONS_DONE);
    CHECK_EQ(print_to("/dev/full", "--help"), OPTIONS_BAD);
    CHECK_EQ(print_to("/dev/null", "--help-markdown"), OPTIONS_DONE);
    CHECK_EQ(print_to("/dev/full", "--help-markdown"), OPTIONS_BAD);
}

TEST_MAIN()
