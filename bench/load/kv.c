/* kv - how much of this machine's own limits the store reaches: appending, retrieving, scoring, and both at once, against
 * a real reelkv-kvstore, by shared memory and by inline gRPC.
 *
 *   kv [--list] [--only NAME,...] [--rounds 5] [--folder DIR] [--json]
 *
 * The shape is the 7B model's: a layer of a block is 392 KiB, a block 11.2 MB. Every figure of a round has its limit
 * measured right before it and right after it: copying the same slices between memories, writing and reading the same disk
 * past the page cache, the same slices over bare gRPC, reading the keys' bytes. Each reader copies and checks every slice.
 * What is measured now is told on stderr. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/options.h"
#include "base/require.h"
#include "kv_cases.h"

static const struct option_row rows[] = {
    OPTION_ROW(kv_options, list, BOOL, "false", "", "", "prints the names of all figures, and ends"),
    OPTION_ROW(kv_options, only, STR, "", "0", "1000",
               "names of figures, comma-separated; empty: all of them"),
    OPTION_ROW(kv_options, folder, STR, "", "0", "3000",
               "where the disk to be measured is; empty: $TMPDIR or /tmp"),
    OPTION_ROW(kv_options, store, STR, REELKV_BIN_DIR "/reelkv-kvstore", "1", "3000", "the store's program"),
    OPTION_ROW(kv_options, rounds, U32, "5", "1", "32", "rounds; medians of them are shown"),
    OPTION_ROW(kv_options, streams, U32, "2", "1", "16", "streams written at once"),
    OPTION_ROW(kv_options, channels, U32, "4", "1", "16",
               "channels, and questions at once, of inline reading"),
    OPTION_ROW(kv_options, top, U32, "32", "1", "128", "blocks a layer reads"),
    OPTION_ROW(kv_options, frames, U32, "192", "8", "4096", "blocks on the disk that questions choose from"),
    OPTION_ROW(kv_options, score_frames, U32, "43200", "1024", "1000000", "frames that are scored"),
    OPTION_ROW(kv_options, pause_us, U32, "0", "0", "1000000", "what a caller computes between two layers"),
    OPTION_ROW(kv_options, alike, U32, "0", "0", "100", "percent of a query that all its layers share"),
    OPTION_ROW(kv_options, json, BOOL, "false", "", "", "JSON rather than a table"),
};

/* --- which figures --- */

static const struct kv_figure *find_figure(const char *name, size_t len)
{
    for (unsigned s = 0; s < kv_scene_count; s++)
        for (unsigned i = 0; i < kv_scenes[s].count; i++) {
            const struct kv_figure *figure = &kv_scenes[s].cases[i].figure;

            if (strlen(figure->name) == len && strncmp(figure->name, name, len) == 0)
                return figure;
        }
    return NULL;
}

static bool check_only(const char *only, struct status *st)
{
    for (const char *at = only; *at != '\0'; at += *at == ',') {
        size_t len = strcspn(at, ",");

        if (find_figure(at, len) == NULL)
            return status_fail(st, STATUS_INVALID, "there is no figure \"%.*s\"; --list names them", (int)len,
                               at);
        at += len;
    }
    return true;
}

static bool is_wanted(const struct bench *bench, const struct kv_figure *figure)
{
    size_t len = strlen(figure->name);

    for (const char *at = bench->options.only; *at != '\0'; at += *at == ',') {
        size_t named = strcspn(at, ",");

        if (named == len && strncmp(at, figure->name, len) == 0)
            return true;
        at += named;
    }
    return bench->options.only[0] == '\0';
}

static void print_list(void)
{
    for (unsigned s = 0; s < kv_scene_count; s++)
        for (unsigned i = 0; i < kv_scenes[s].count; i++)
            printf("%-18s %s\n", kv_scenes[s].cases[i].figure.name, kv_scenes[s].cases[i].figure.title);
}

/* --- measuring --- */

static void measure_round(struct bench *bench, const struct kv_scene *scene, unsigned round)
{
    for (unsigned i = 0; i < scene->count; i++) {
        const struct kv_case *what = &scene->cases[i];
        struct kv_limit limits[2];
        struct kv_sample sample;
        char found[80];

        if (!is_wanted(bench, &what->figure))
            continue;
        fprintf(stderr, "kv: round %u of %u, %s: ", round + 1, bench->options.rounds, what->figure.name);
        limits[0] = what->limit(bench);
        what->measure(bench, round, &sample);
        limits[1] = what->limit(bench);
        kv_add(&what->figure, &sample, limits);
        kv_print_last(&what->figure, found, sizeof found);
        fprintf(stderr, "%s\n", found);
    }
}

static void open_scene(struct bench *bench, const struct kv_scene *scene)
{
    fprintf(stderr, "kv: %s\n", scene->doing);
    scene->open(bench);
}

static void measure_scene(struct bench *bench, const struct kv_scene *scene)
{
    bool wanted = false;

    for (unsigned i = 0; i < scene->count; i++)
        wanted = wanted || is_wanted(bench, &scene->cases[i].figure);
    if (!wanted)
        return;
    if (!scene->each_round)
        open_scene(bench, scene);
    for (unsigned round = 0; round < bench->options.rounds; round++) {
        if (scene->each_round)
            open_scene(bench, scene);
        measure_round(bench, scene, round);
        if (scene->each_round)
            scene->close(bench);
    }
    if (!scene->each_round)
        scene->close(bench);
}

/* --- its folder --- */

/* Also when the benchmark ends early; the process that sends bare slices is another. */
static char scratch[sizeof((struct bench){ 0 }.folder)];
static pid_t scratch_owner;

static void remove_scratch(void)
{
    struct status st;

    if (getpid() == scratch_owner && !file_remove_tree(scratch, &st))
        fprintf(stderr, "kv: %s\n", st.text);
}

static void make_folder(struct bench *bench)
{
    const char *temporary = getenv("TMPDIR");

    if (bench->options.folder[0] != '\0')
        temporary = bench->options.folder;
    snprintf(bench->folder, sizeof bench->folder, "%.3000s/reelkv-kv-XXXXXX",
             temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(bench->folder) == NULL)
        kv_die("make %s: %m", bench->folder);
    snprintf(scratch, sizeof scratch, "%s", bench->folder);
    scratch_owner = getpid();
    atexit(remove_scratch);
}

int main(int argc, char **argv)
{
    static const struct option_table table = { .program = "kv",
                                               .summary = "Measures the store against the machine's own "
                                                          "limits; says on stderr what it measures now.",
                                               .rows = rows,
                                               .count = ARRAY_LEN(rows) };
    static struct bench bench;
    struct status st = { 0 };
    enum options_outcome outcome = options_parse(&table, &bench.options, argc, argv, NULL, &st);

    if (outcome == OPTIONS_DONE)
        return 0;
    if (outcome == OPTIONS_BAD || !check_only(bench.options.only, &st)) {
        fprintf(stderr, "kv: %s\n", st.text);
        return 2;
    }
    if (bench.options.list) {
        print_list();
        return 0;
    }
    make_folder(&bench);
    kv_cases_prepare(&bench);
    for (unsigned s = 0; s < kv_scene_count; s++)
        measure_scene(&bench, &kv_scenes[s]);
    kv_report(bench.options.json);
    return 0;
}
