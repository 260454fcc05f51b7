/* logs: what the processes of a cluster said. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/name.h"
#include "base/require.h"
#include "cli_cluster.h"
#include "cli_command.h"
#include "cli_hint.h"
#include "supervisor_log.h"

enum { FILES_MAX = CLUSTER_PROCESSES_MAX + 1, LOOK_MS = 200, BLOCK_BYTES = 4096 };

#define LOGS_OPTIONS(OPT)                                                    \
    CLI_DATA_OPTIONS(OPT)                                                    \
    OPT(lines, U32, "20", "0", "1000000", "lines of each log, from its end") \
    OPT(follow, BOOL, "false", "", "", "go on with what is written from now, until Ctrl-C")

struct logs_options {
    LOGS_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(logs_options, __VA_ARGS__),
    LOGS_OPTIONS(ROW)
#undef ROW
};

struct log_file {
    char name[LIMIT_NAME_BYTES + 1];
    char path[CLUSTER_PATH_BYTES];
    off_t at; /* printed so far */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct log_file *)a)->name, ((const struct log_file *)b)->name);
}

static bool no_logs(const char *folder, const char *data, struct status *st)
{
    return status_fail(st, STATUS_NOT_FOUND,
                       "there are no logs in %s: `reelkv up --data %s` starts a cluster", folder,
                       cli_quote(data));
}

/* Every NAME.log of the folder, or the one asked for. */
static bool list_files(const char *data, const char *wanted, struct log_file *files, size_t *count_p,
                       struct status *st)
{
    char folder[CLUSTER_PATH_BYTES], shown[LIMIT_NAME_BYTES + 1];
    struct dirent *entry;
    size_t count = 0;
    DIR *dir;

    if (!cluster_path(data, "log", folder, st))
        return false;
    dir = opendir(folder);
    if (dir == NULL && errno != ENOENT)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", folder);
    if (dir == NULL)
        return no_logs(folder, data, st);
    while (count < FILES_MAX && (entry = readdir(dir)) != NULL) {
        const char *end = strstr(entry->d_name, ".log");
        struct log_file *file = &files[count];

        if (end == NULL || strcmp(end, ".log") != 0 || end - entry->d_name > LIMIT_NAME_BYTES)
            continue;
        snprintf(file->name, sizeof file->name, "%.*s", (int)(end - entry->d_name), entry->d_name);
        if ((wanted == NULL || strcmp(wanted, file->name) == 0) &&
            snprintf(file->path, sizeof file->path, "%s/%.80s", folder, entry->d_name) <
                (int)sizeof file->path)
            count++;
    }
    closedir(dir);
    if (count == 0 && wanted == NULL)
        return no_logs(folder, data, st);
    if (count == 0) {
        text_show(wanted, shown, sizeof shown);
        return status_fail(st, STATUS_NOT_FOUND, "there is no log of '%s' in %s; `%s` alone shows all", shown,
                           folder, cli_hint("logs"));
    }
    qsort(files, count, sizeof *files, by_name);
    *count_p = count;
    return true;
}

/* Where the last `lines` lines begin. */
static off_t tail_start(FILE *file, uint32_t lines)
{
    char block[BLOCK_BYTES];
    uint64_t left = lines + 1ull; /* the newline that ends the last line is not a line */
    off_t end;

    if (fseeko(file, 0, SEEK_END) != 0)
        return 0;
    end = ftello(file);
    for (off_t at = end; at > 0;) {
        size_t part = at < (off_t)sizeof block ? (size_t)at : sizeof block;

        at -= (off_t)part;
        if (fseeko(file, at, SEEK_SET) != 0 || fread(block, 1, part, file) != part)
            return end;
        for (size_t i = part; i > 0; i--)
            if (block[i - 1] == '\n' && --left == 0)
                return at + (off_t)i;
    }
    return 0;
}

static void print_line(const char *name, char *line, size_t len, bool many, bool as_json)
{
    char instead[64], *text;
    struct json *value;

    if (!utf8_is_valid(line, len)) {
        snprintf(instead, sizeof instead, "(%zu bytes that are not text)", len);
        line = instead;
    }
    if (!as_json) {
        printf("%s%s%s\n", many ? name : "", many ? " | " : "", cli_make_safe(line));
        return;
    }
    value = json_make_object();
    json_set_str(value, "name", name);
    json_set_str(value, "line", line);
    text = json_text(value, 0);
    puts(text);
    free(text);
    json_free(value);
}

/* Prints whole lines from file->at on; a line still being written waits. After a power loss a log may hold blocks of
 * NULs. */
static void print_from(struct log_file *log, bool many, bool as_json)
{
    FILE *file = fopen(log->path, "re");
    char *line = NULL;
    size_t room = 0;
    struct stat info;
    ssize_t len;

    if (file == NULL)
        return;
    if (fstat(fileno(file), &info) == 0 && info.st_size < log->at)
        log->at = 0; /* it was rotated */
    fseeko(file, log->at, SEEK_SET);
    while ((len = getline(&line, &room, file)) > 0 && line[len - 1] == '\n') {
        log->at += len;
        line[len - 1] = '\0';
        print_line(log->name, line, (size_t)len - 1, many, as_json);
    }
    free(line);
    fclose(file);
    fflush(stdout);
}

static enum cli_exit run_logs(const struct cli_run *run)
{
    const struct logs_options *options = run->options;
    struct log_file *files = calloc(FILES_MAX, sizeof *files);
    char data[CLUSTER_PATH_BYTES];
    struct status st = { 0 };
    size_t count = 0;

    REQUIRE(files != NULL);
    if (!cluster_data_folder(options->data, data, &st) ||
        !list_files(data, run->count > 0 ? run->arguments[0] : NULL, files, &count, &st)) {
        free(files);
        return cli_fail(&st, run->json);
    }
    for (size_t i = 0; i < count; i++) {
        FILE *file = fopen(files[i].path, "re");

        if (file == NULL)
            continue;
        files[i].at = tail_start(file, options->lines);
        fclose(file);
        print_from(&files[i], count > 1, run->json);
    }
    while (options->follow && !ferror(stdout)) {
        usleep(LOOK_MS * 1000);
        for (size_t i = 0; i < count; i++)
            print_from(&files[i], count > 1, run->json);
    }
    free(files);
    return CLI_OK;
}

const struct cli_command cli_logs = {
    .path = "logs",
    .group = "The cluster on this machine",
    .table = { .program = "reelkv logs",
               .summary = "what its processes said; NAME as in `node ls`, or redis, supervisor",
               .arguments = "[NAME]",
               .arguments_max = 1,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct logs_options),
    .run = run_logs,
};
