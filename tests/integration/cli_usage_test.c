/* The command line without a cluster: help, mistakes and where their sentences go, output that cannot be written. */
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "support/process.h"
#include "support/test.h"

enum { VERB_MS = 60000, WORDS_MAX = 8 };

static int run(struct process *process, const char *const *words)
{
    static unsigned runs;
    const char *argv[WORDS_MAX + 2] = { "reelkv" };
    char name[32];

    for (size_t i = 0; i < WORDS_MAX && words[i] != NULL; i++)
        argv[i + 1] = words[i];
    snprintf(name, sizeof name, "run-%u", runs++);
    return process_run(process, name, argv, VERB_MS);
}

TEST(help_is_found_in_every_way)
{
    static const struct {
        const char *words[WORDS_MAX];
        const char *says, *says_not;
    } rows[] = {
        { { NULL }, "usage: reelkv VERB", "reelkv up [" },
        { { "-h" }, "mem ls", "reelkv up [" },
        { { "--help" }, "mem ls", "reelkv up [" },
        { { "help", "cam", "add" }, "usage: reelkv cam add", "mem ls" },
        { { "cam", "add", "-h" }, "usage: reelkv cam add", "mem ls" },
        { { "up", "--help" }, "exit codes:", "mem ls" },
        { { "cam", "--help" }, "cam wait", "mem ls" },
        { { "help", "cam" }, "cam wait", "mem ls" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct process process;

        CHECK_EQ(run(&process, rows[i].words), 0);
        CHECK_HAS(process_log(&process), rows[i].says);
        CHECK(strstr(process_log(&process), rows[i].says_not) == NULL);
    }
}

TEST(the_version_is_text_or_json)
{
    struct process process;
    struct json *value;
    const char *text;

    CHECK_EQ(run(&process, (const char *const[]){ "--version", NULL }), 0);
    CHECK(strncmp(process_log(&process), "reelkv ", 7) == 0);
    CHECK_EQ(run(&process, (const char *const[]){ "--version", "--json", NULL }), 0);
    text = process_log(&process);
    value = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, NULL);
    CHECK(json_str(json_get(value, "version")) != NULL);
    json_free(value);
}

/* `reelkv help --json` was a mistake. */
TEST(the_verbs_are_text_or_json)
{
    static const char *const ways[] = { "help", "--help" };

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        struct process process;
        struct json *value;
        const char *text;

        CHECK_EQ(run(&process, (const char *const[]){ ways[i], "--json", NULL }), 0);
        text = process_log(&process);
        value = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, NULL);
        CHECK_STR(json_str(json_get(json_at(json_get(value, "verbs"), 0), "verb")), "up");
        json_free(value);
    }
}

TEST(mistakes_say_what_there_is)
{
    static const struct {
        const char *words[WORDS_MAX];
        const char *says;
    } rows[] = {
        { { "cam" },
          "there is no verb 'cam'; there are: cam add, cam ls, cam show, cam follow, "
          "cam wait, cam rm" },
        { { "cam", "frobnicate" }, "there are: cam add" },
        { { "cam", "lst" }, "did you mean `reelkv cam ls`" },
        { { "docter" }, "did you mean `reelkv doctor`" },
        { { "frobnicate" }, "see `reelkv help`" },
        { { "--data", "x", "up" }, "a verb comes before options" },
        { { "ask", "what", "color" }, "ask [--option value]... \"QUESTION\"" },
        { { "help", "frobnicate" }, "see `reelkv help`" },
        { { "ask", "What?", "--top-r", "3073" }, "top_r must be 0 to 3072" },
        { { "ask", "What?", "--recent", "1025" }, "recent must be 0 to 1024, not '1025'" },
        { { "ask", "What?", "--recent", "99999999999999999999" }, "recent must be 0 to 1024" },
        { { "up", "--data", "/tmp/\xff\xfe" }, "not valid UTF-8; name another with --data" },
        { { "up", "--top-r", "3073" }, "top_r must be 0 to 3072" },
        { { "ask", "What?", "--cam", "yard", "--cam", "dock" }, "--cam may be given once" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct process process;

        CHECK_EQ(run(&process, rows[i].words), 2);
        CHECK_HAS(process_log(&process), rows[i].says);
    }
}

/* Arguments in the wrong order, or one too many: what is said of them goes to screens and logs. */
TEST(a_mistyped_camera_keeps_its_password)
{
    static const struct {
        const char *words[WORDS_MAX];
        const char *says;
    } rows[] = {
        { { "cam", "add", "rtsp://user:geheim@host/x", "gate" },
          "camera name 'rtsp://***@host/x' is not valid" },
        { { "cam", "add", "my", "gate", "rtsp://user:geheim@host/x" }, "argument 'rtsp://***@host/x'" },
        { { "cam", "rtsp://user:geheim@host/x" }, "no verb 'cam rtsp://***@host/x'" },
        { { "rtsp://user:geheim@host/x", "gate" }, "no verb 'rtsp://***@host/x gate'" },
        { { "cam", "rtsp://a-user-whose-name-fills-all-that-is-shown-of-a-word:geheim@host/x" },
          "***@host/x'" },
        { { "cam", "add", "gate", "x.mp4", "--fps", "rtsp://user:geheim@host/x" },
          "not 'rtsp://***@host/x'" },
        { { "cam", "ls", "--redis", "redis://:geheim@host:6379" }, "without a user and password" },
        { { "cam", "ls", "--redis", "user:geheim@host:1" }, "without a user and password" },
        { { "cam", "ls", "--redis", "geheim@host:1" }, "without a user and password" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct process process;

        CHECK_EQ(run(&process, rows[i].words), 2);
        CHECK_HAS(process_log(&process), rows[i].says);
        CHECK(strstr(process_log(&process), "geheim") == NULL);
    }
}

/* Programs read the error of a command line that was not understood, too: whichever way JSON was asked for, and
 * whatever bytes were typed. */
TEST(errors_are_json_when_json_was_asked_for)
{
    static const struct {
        const char *words[WORDS_MAX];
        const char *environment;
    } rows[] = {
        { { "frobnicate", "--json" }, "" },
        { { "cam", "--json" }, "" },
        { { "--json", "\xff\xfe" }, "" },
        { { "ask", "x", "--top-r", "y", "--json" }, "" },
        { { "ask", "x", "--json=true", "--top-r", "y" }, "" },
        { { "ask", "x", "--top-r", "y" }, "true" },
        { { "cam", "ls", "--data", "/no/such/cluster" }, "1" },
        { { "ask", "\xff\xfe", "--json" }, "" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct process process;
        struct json *value;
        const char *text;

        setenv("REELKV_JSON", rows[i].environment[0] != '\0' ? rows[i].environment : "false", 1);
        CHECK(run(&process, rows[i].words) != 0);
        text = process_log(&process);
        value = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, NULL);
        if (json_str(json_get(json_get(value, "error"), "message")) == NULL)
            test_fail(__FILE__, __LINE__, "row %zu is not an error in JSON: %s", i, text);
        json_free(value);
    }
    unsetenv("REELKV_JSON");
}

static int run_shell(struct process *process, const char *script)
{
    setenv("REELKV", REELKV_BIN_DIR "/reelkv", 1);
    return process_run(process, "shell", PROCESS_ARGS("sh", "-c", script), VERB_MS);
}

/* An answer that nobody got is no success; a reader that has seen enough is. */
TEST(output_that_cannot_be_written_is_a_failure)
{
    struct process process;

    CHECK_EQ(run_shell(&process, "$REELKV help >/dev/full"), 1);
    CHECK_HAS(process_log(&process), "could be written");
    CHECK_EQ(run_shell(&process, "$REELKV mem ls --help >/dev/full"), 1);
    CHECK_EQ(run_shell(&process, "$REELKV-kvstore --help >/dev/full"), 2);
    CHECK_HAS(process_log(&process), "could be written");
    CHECK_EQ(run_shell(&process, "{ $REELKV help; echo code $? >&2; } | true"), 0);
    CHECK_HAS(process_log(&process), "code 0");
    CHECK_EQ(run_shell(&process, "$REELKV help >&-"), 1); /* it was a success */
}

/* Before `up` has ever run there is no folder to measure: doctor found no room for a disk budget. */
TEST(doctor_looks_at_a_folder_that_is_not_made_yet)
{
    struct process process;
    char data[600];

    snprintf(data, sizeof data, "%s/not/yet", test_folder());
    CHECK_EQ(run(&process, (const char *const[]){ "doctor", "--data", data, "--model",
                                                  REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", NULL }),
             0);
    CHECK_HAS(process_log(&process), "made by `reelkv up --data /");
    CHECK_HAS(process_log(&process), "start one with `reelkv up --data /");
}

/* It told of 0.00 frames a second. Of the checkpoint's files, a large one that is all hole counts as any other does. */
TEST(doctor_says_when_a_model_is_too_large_to_measure)
{
    struct process process;
    char model[300], part[400];

    snprintf(model, sizeof model, "%s/model", test_folder());
    snprintf(part, sizeof part, "%s/other.safetensors", model);
    CHECK_EQ(process_run(&process, "cp",
                         PROCESS_ARGS("cp", "-r", REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", model),
                         VERB_MS),
             0);
    CHECK_EQ(process_run(&process, "truncate", PROCESS_ARGS("truncate", "-s", "1T", part), VERB_MS), 0);
    CHECK_EQ(run(&process, (const char *const[]){ "doctor", "--data", model, "--model", model, NULL }), 0);
    CHECK_HAS(process_log(&process), "speed not measured");
    CHECK(strstr(process_log(&process), "frames/s") == NULL);
}

/* A folder of logs that is empty, as after an `up` that was refused, was asked for the log of 'anything'. */
TEST(no_logs_are_told_as_such)
{
    struct process process;
    char path[300];
    struct status st;

    for (int made = 0; made < 2; made++) {
        CHECK_EQ(run(&process, (const char *const[]){ "logs", "--data", test_folder(), NULL }), 3);
        CHECK_HAS(process_log(&process), "there are no logs in /");
        snprintf(path, sizeof path, "%s/log", test_folder());
        CHECK_OK(file_make_folders(path, &st), st);
    }
    CHECK_EQ(run(&process, (const char *const[]){ "logs", "redis", "--data", test_folder(), NULL }), 3);
    CHECK_HAS(process_log(&process), "there is no log of 'redis' in /");
    CHECK_EQ(run(&process,
                 (const char *const[]){ "logs", "rtsp://user:geheim@host/x", "--data", test_folder(), NULL }),
             3);
    CHECK_HAS(process_log(&process),
              "there is no log of 'rtsp://***@host/x' in /"); /* an argument of `cam add` */
}

/* Blocks that were not written before the power went are NULs: a line that began with one was read before its start, one
 * in the middle of a line ended the log there. */
TEST(logs_go_on_behind_what_is_not_text)
{
    static const char log[] = "first\n\0\0\0\0\nbefore\0after\nturned \x1b[31mred\nthird\nnot whole";
    struct process process;
    char data[300], path[400];
    struct status st;

    snprintf(data, sizeof data, "%s/data", test_folder());
    snprintf(path, sizeof path, "%s/log", data);
    CHECK_OK(file_make_folders(path, &st), st);
    snprintf(path, sizeof path, "%s/log/kvstore-0.log", data);
    CHECK_OK(file_write_durable(path, log, sizeof log - 1, &st), st);
    CHECK_EQ(run(&process, (const char *const[]){ "logs", "--data", data, NULL }), 0);
    CHECK_STR(process_log(&process), "first\n(4 bytes that are not text)\n(12 bytes that are not text)\n"
                                     "turned  [31mred\nthird\n");
    CHECK_EQ(run(&process, (const char *const[]){ "logs", "--data", data, "--lines", "1", "--json", NULL }),
             0);
    CHECK_STR(process_log(&process), "{\"name\":\"kvstore-0\",\"line\":\"third\"}\n");
}

TEST_MAIN()
