/* cli_command.h - the verbs of `reelkv`: one row each, and the table of all of them.
 *
 * A verb's options are an X-macro in its own file, so that struct, flags, environment and help are one text:
 *   #define CAM_LS_OPTIONS(OPT) CLI_CLUSTER_OPTIONS(OPT) OPT(...)
 *
 * Thread: main thread only. */
#ifndef REELKV_CLI_COMMAND_H
#define REELKV_CLI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/options.h"
#include "cli_output.h"

struct cli_run {
    const void *options; /* of the verb's own type */
    char **arguments;    /* what is not an option */
    int count;
    bool json;
};

struct cli_command {
    const char *path; /* "cam add" */
    const char *group;
    struct option_table table;
    size_t options_bytes;
    enum cli_exit (*run)(const struct cli_run *run);
};

/* Options of verbs that look at a data folder, and of those that talk to a cluster. */
#define CLI_DATA_OPTIONS(OPT)                                                              \
    OPT(json, BOOL, "false", "", "", "print JSON for programs instead of text for people") \
    OPT(data, STR, "", "0", "3800",                                                        \
        "data folder of the cluster; '': reelkv in $XDG_DATA_HOME or ~/.local/share")
#define CLI_CLUSTER_OPTIONS(OPT)    \
    CLI_DATA_OPTIONS(OPT)           \
    OPT(redis, STR, "", "0", "127", \
        "directory of a cluster that was not started here: host:port or unix:/path")
#define CLI_STREAM_OPTIONS(OPT) \
    CLI_CLUSTER_OPTIONS(OPT)    \
    OPT(namespace, STR, "default", "1", "63", "whose cameras are meant")

/* Of verbs that go on for as long as there is something to do. */
#define CLI_TIMEOUT_OPTION(OPT) OPT(timeout, U32, "2592000", "1", "2592000", "seconds it may take")

extern const struct cli_command cli_up, cli_down, cli_logs, cli_doctor, cli_supervise;
extern const struct cli_command cli_cam_add, cli_cam_ls, cli_cam_show, cli_cam_follow, cli_cam_wait,
    cli_cam_rm;
extern const struct cli_command cli_ask, cli_mem_ls, cli_mem_fsck, cli_mem_dump, cli_mem_export,
    cli_mem_import, cli_mem_hold, cli_mem_holds, cli_mem_release, cli_mem_forget, cli_node_ls;

/* Runs argv (argv[0] is the program) and returns its exit code. */
enum cli_exit cli_main(int argc, char **argv);

/* The verb that argv begins with (argv[0] is its first word), or NULL; *words_p is how many words it took. */
const struct cli_command *cli_command_find(int argc, char **argv, int *words_p);

/* The verb most like what was typed, by edit distance; NULL when nothing is near. */
const struct cli_command *cli_command_nearest(const char *typed);

/* Walks the verbs that are shown to people; NULL at the end. */
const struct cli_command *cli_command_at(size_t index);

#endif
