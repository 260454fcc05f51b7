/* mem fsck: whether everything that was stored is as it was written. Needs no cluster. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/require.h"
#include "cli_cluster.h"
#include "cli_command.h"
#include "fsck.h"
#include "interrupt.h"

enum { FINDINGS_MAX = 1000, PATHS_MAX = 64 };

#define MEM_FSCK_OPTIONS(OPT)          \
    CLI_DATA_OPTIONS(OPT)              \
    OPT(repair, BOOL, "false", "", "", \
        "cut torn tails of files that were being written; no store may be running")

struct mem_fsck_options {
    MEM_FSCK_OPTIONS(OPTION_FIELD)
};
static const struct option_row rows[] = {
#define ROW(...) OPTION_ROW(mem_fsck_options, __VA_ARGS__),
    MEM_FSCK_OPTIONS(ROW)
#undef ROW
};

static const char *const kind_names[] = { "damage", "known", "torn", "unread" };
static const char *const kind_words[] = { "damaged", "damaged, as its footer says", "torn tail", "not read" };

struct run {
    struct fsck fsck;
    struct interrupt *interrupt;
    struct cli_progress progress;
    struct json *findings; /* NULL: for people */
    uint64_t told, total_bytes;
};

static void print_finding(struct run *run, const char *path, const struct kv_finding *finding)
{
    char shown[PATH_MAX + 64], text[STATUS_TEXT_BYTES];

    snprintf(shown, sizeof shown, "%s", path);
    snprintf(text, sizeof text, "%s", finding->text);
    cli_progress_end(&run->progress);
    printf("%s: ", cli_make_safe(shown));
    if (finding->bytes > 0)
        printf("%llu bytes at %llu: ", (unsigned long long)finding->bytes,
               (unsigned long long)finding->offset);
    printf("%s: %s", kind_words[finding->kind], cli_make_safe(text));
    if (finding->bytes > 0 && finding->to_seq > finding->from_seq)
        printf(" (frames %llu to %llu)", (unsigned long long)finding->from_seq,
               (unsigned long long)finding->to_seq - 1);
    printf("\n");
}

static void found(struct fsck *fsck, const char *path, const struct kv_finding *finding)
{
    struct run *run = container_of(fsck, struct run, fsck);
    struct json *row;

    if (run->told++ >= FINDINGS_MAX)
        return;
    if (run->findings == NULL) {
        print_finding(run, path, finding);
        return;
    }
    row = json_make_object();
    json_set_str(row, "path", path);
    json_set_str(row, "kind", kind_names[finding->kind]);
    json_set_u64(row, "offset", finding->offset);
    json_set_u64(row, "bytes", finding->bytes);
    json_set_u64(row, "from_seq", finding->from_seq);
    json_set_u64(row, "to_seq", finding->to_seq);
    json_set_str(row, "text", finding->text);
    json_append(run->findings, row);
}

static bool advance(struct fsck *fsck)
{
    struct run *run = container_of(fsck, struct run, fsck);

    cli_progress_draw(&run->progress, "checking, MiB", fsck->bytes >> 20, run->total_bytes >> 20);
    return !interrupt_has_come(run->interrupt);
}

static bool check_all(struct run *run, const struct cli_run *cli, struct status *st)
{
    const struct mem_fsck_options *options = cli->options;
    char data[CLUSTER_PATH_BYTES];
    struct fsck counted = { .is_only_counting = true };
    bool ok = cli->count > 0 || cluster_data_folder(options->data, data, st);

    for (int i = 0; ok && i < cli->count; i++)
        ok = fsck_path(&counted, cli->arguments[i], st);
    if (ok && cli->count == 0)
        ok = fsck_path(&counted, data, st);
    run->total_bytes = counted.bytes;
    for (int i = 0; ok && i < cli->count; i++)
        ok = fsck_path(&run->fsck, cli->arguments[i], st);
    return ok && (cli->count > 0 || fsck_path(&run->fsck, data, st));
}

static void print_sum(const struct run *run)
{
    const struct fsck *fsck = &run->fsck;
    const uint64_t *count = fsck->found_count;

    if (run->told > FINDINGS_MAX)
        printf("and %llu more places\n", (unsigned long long)(run->told - FINDINGS_MAX));
    printf("Checked %llu cameras: %llu files, %s, %llu frames.", (unsigned long long)fsck->streams,
           (unsigned long long)fsck->files, cli_bytes(fsck->bytes), (unsigned long long)fsck->frames);
    if (run->told == 0)
        printf(" All is as it was written.");
    if (count[KV_FOUND_DAMAGE] + count[KV_FOUND_KNOWN] > 0)
        printf(" Damage in %llu places, %llu frames cannot be read.",
               (unsigned long long)(count[KV_FOUND_DAMAGE] + count[KV_FOUND_KNOWN]),
               (unsigned long long)fsck->damaged_frames);
    if (count[KV_FOUND_UNREAD] > 0)
        printf(" %llu places could not be looked at.", (unsigned long long)count[KV_FOUND_UNREAD]);
    if (count[KV_FOUND_TORN] > 0)
        printf(" %llu files end in what was never acknowledged as durable: %s.",
               (unsigned long long)count[KV_FOUND_TORN],
               fsck->is_repairing ? "cut" : "the next start, or --repair, cuts it");
    printf("\n");
    if (fsck->skipped_files > 0)
        fprintf(
            stderr,
            "reelkv: a store is running: %llu files that it is writing were left out, and numbers of their "
            "cameras were not counted\n",
            (unsigned long long)fsck->skipped_files);
    else if (fsck->found_running)
        fprintf(stderr, "reelkv: a store is running: what it writes now was not looked at\n");
}

static void print_json(struct run *run, bool is_clean)
{
    const struct fsck *fsck = &run->fsck;
    struct json *value = json_make_object();

    json_set_bool(value, "clean", is_clean);
    json_set_u64(value, "cameras", fsck->streams);
    json_set_u64(value, "files", fsck->files);
    json_set_u64(value, "bytes", fsck->bytes);
    json_set_u64(value, "frames", fsck->frames);
    json_set_u64(value, "frames_gap", fsck->gap_frames);
    json_set_u64(value, "frames_damaged", fsck->damaged_frames);
    for (size_t i = 0; i < ARRAY_LEN(kind_names); i++)
        json_set_u64(value, kind_names[i], fsck->found_count[i]);
    json_set_u64(value, "cut_files", fsck->cut_files);
    json_set_u64(value, "skipped_files", fsck->skipped_files);
    json_set_u64(value, "findings_left_out", run->told > FINDINGS_MAX ? run->told - FINDINGS_MAX : 0);
    json_set(value, "findings", run->findings);
    cli_print_json(value);
}

static enum cli_exit run_mem_fsck(const struct cli_run *cli)
{
    const struct mem_fsck_options *options = cli->options;
    struct run run = { .fsck = { .is_repairing = options->repair, .found = found, .advance = advance },
                       .interrupt = interrupt_create(),
                       .findings = cli->json ? json_make_array() : NULL };
    const uint64_t *count = run.fsck.found_count;
    enum cli_exit code = CLI_OK;
    struct status st = { 0 };
    bool ok = check_all(&run, cli, &st);

    cli_progress_end(&run.progress);
    interrupt_destroy(run.interrupt);
    if (!ok) {
        json_free(run.findings);
        return cli_fail(&st, cli->json);
    }
    if (count[KV_FOUND_DAMAGE] + count[KV_FOUND_KNOWN] > 0)
        code = CLI_DATA_LOSS;
    else if (count[KV_FOUND_UNREAD] > 0)
        code = CLI_FAILED;
    if (cli->json)
        print_json(&run, code == CLI_OK);
    else
        print_sum(&run);
    return code;
}

const struct cli_command cli_mem_fsck = {
    .path = "mem fsck",
    .group = "What is stored",
    .table = { .program = "reelkv mem fsck",
               .summary = "whether all that is stored is as it was written; needs no cluster",
               .arguments = "[PATH]...",
               .arguments_max = PATHS_MAX,
               .rows = rows,
               .count = ARRAY_LEN(rows) },
    .options_bytes = sizeof(struct mem_fsck_options),
    .run = run_mem_fsck,
};
