/* kv - how much of this machine's own limits the store reaches: appending, retrieving, scoring, and both at once, against
 * a real reelkv-kvstore, by shared memory and by inline gRPC.
 *
 *   kv [--mode all] [--rounds 5] [--folder DIR] [--json]
 *
 * The shape is the 7B model's: a layer of a block is 392 KiB, a block 11.2 MB. Every figure of a round has its limit
 * measured in the same round: copying the same slices between memories, writing and reading the same disk past the page
 * cache, the same slices over bare gRPC, reading the keys' bytes. Each reader copies and checks every slice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/require.h"
#include "base/file.h"
#include "base/options.h"
#include "kv_figures.h"
#include "kv_limits.h"
#include "kv_raw.h"
#include "kv_read.h"
#include "kv_write.h"

enum { DISK_PIECE = 1 << 20, DISK_DEPTH = 8, READ_DEPTH = 16, TOKENS = 196 };

static const struct kv_geometry geometry = {
    .layers = 28, .kv_heads = 4, .head_dim = 128, .dtype = KV_DTYPE_F16
};

struct kv_options {
    const char *mode, *folder, *store;
    uint32_t rounds, streams, channels, top, frames, score_frames, pause_us, alike;
    bool json;
};

static const struct option_row rows[] = {
    OPTION_ROW(kv_options, mode, STR, "all", "1", "16", "append, retrieve, score, mixed or all"),
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

struct bench {
    struct kv_options options;
    char folder[3100];
    struct kv_server server;
    uint64_t slice, block;
    uint8_t *source; /* as many bytes as a question copies */
    size_t source_bytes;
    unsigned cores;
    double copy, copy_all, disk_write, disk_read, wire; /* of this round */
};

static bool is_on(const struct bench *bench, const char *mode)
{
    return strcmp(bench->options.mode, "all") == 0 || strcmp(bench->options.mode, mode) == 0;
}

/* --- stores --- */

static void start(struct bench *bench, const char *name, uint64_t ram_bytes)
{
    const struct kv_server_limits limits = { ram_bytes, 24ull << 30 };

    snprintf(bench->server.folder, sizeof bench->server.folder, "%.3000s/%.60s", bench->folder, name);
    bench->server.program = bench->options.store;
    kv_server_start(&bench->server, &limits);
    kv_server_wait_quiet(&bench->server);
}

static void stop(struct bench *bench, bool remove)
{
    struct status st;

    kv_server_stop(&bench->server);
    if (remove && !file_remove_tree(bench->server.folder, &st))
        kv_die("%s", st.text);
}

static void copy_limits(struct bench *bench)
{
    size_t room = bench->options.top * bench->slice;

    bench->copy = kv_limit_copy(bench->source, bench->source_bytes, bench->slice, room, 1);
    bench->copy_all = kv_limit_copy(bench->source, bench->source_bytes, bench->slice, room, bench->cores);
    kv_add_limit("copying slices, one thread", bench->copy);
    kv_add_limit("copying slices, as many threads as cores", bench->copy_all);
    kv_add_limit("CRC32C of slices, one thread",
                 kv_limit_crc(bench->source, bench->source_bytes, bench->slice));
}

static double disk_write_limit(struct bench *bench)
{
    double found = kv_limit_disk_write(bench->folder, 1ull << 30, DISK_PIECE, DISK_DEPTH);

    kv_add_limit("disk, writing in order, 1 MiB, 8 at once", found);
    return found;
}

static double disk_read_limit(struct bench *bench)
{
    double found = kv_limit_disk_read(bench->folder, 1ull << 30, bench->slice, READ_DEPTH);

    kv_add_limit("disk, reading slices anywhere, 16 at once", found);
    return found;
}

/* What was written or read, beside its limit. */
static void add_written(const struct kv_writing *writing, double seconds, const struct kv_sample *what)
{
    struct kv_sample sample = *what;

    sample.value = writing->bytes / seconds;
    sample.own_cpu = writing->own_cpu_s / writing->bytes * 1e9;
    sample.store_cpu = writing->store_cpu_s / writing->bytes * 1e9;
    kv_add(&sample);
}

static void add_read(const struct kv_reading *reading, const struct kv_sample *what)
{
    struct kv_sample sample = *what;

    sample.value = reading->bytes / reading->seconds;
    sample.own_cpu = reading->own_cpu_s / reading->bytes * 1e9;
    sample.store_cpu = reading->store_cpu_s / reading->bytes * 1e9;
    kv_add(&sample);
}

static double wire_limit(struct bench *bench, unsigned channels)
{
    struct kv_sample sample = { .name = "bare gRPC, slices on several channels", .limit = "itself" };

    sample.value = sample.bound = kv_raw_receive(channels, &sample.own_cpu, &sample.store_cpu);
    if (channels == bench->options.channels)
        kv_add(&sample);
    return sample.value;
}

/* --- append --- */

static struct kv_writing writing_of(struct bench *bench, const char *prefix, uint64_t frames)
{
    return (struct kv_writing){ .server = &bench->server,
                                .geometry = &geometry,
                                .tokens = TOKENS,
                                .frames = frames,
                                .streams = bench->options.streams,
                                .prefix = prefix };
}

static void append_round(struct bench *bench)
{
    struct kv_writing writing = writing_of(bench, "ram", 64 / bench->options.streams);
    double before;

    start(bench, "append", 2ull << 30);
    copy_limits(bench);
    kv_write(&writing);
    add_written(&writing, writing.stored_s,
                &(struct kv_sample){ .name = "append, shared memory, until in the store's RAM",
                                     .limit = "copying, all cores",
                                     .bound = bench->copy_all,
                                     .goal = 0.9 });
    writing = writing_of(bench, "wire", 64 / bench->options.streams);
    writing.is_inline = true;
    bench->wire = wire_limit(bench, bench->options.streams);
    kv_write(&writing);
    add_written(&writing, writing.stored_s,
                &(struct kv_sample){ .name = "append, inline, until in the store's RAM",
                                     .limit = "bare gRPC slices",
                                     .bound = bench->wire,
                                     .goal = 0 });
    before = disk_write_limit(bench);
    writing = writing_of(bench, "disk", 256 / bench->options.streams);
    kv_write(&writing);
    add_written(&writing, writing.durable_s,
                &(struct kv_sample){ .name = "append, shared memory, until durable",
                                     .limit = "disk, writing in order",
                                     .bound = (before + disk_write_limit(bench)) / 2,
                                     0.9,
                                     false });
    stop(bench, true);
}

/* --- retrieve --- */

static struct kv_reading reading_of(struct bench *bench, unsigned round)
{
    return (struct kv_reading){ .server = &bench->server,
                                .geometry = &geometry,
                                .stream = "cam0",
                                .tokens = TOKENS,
                                .top = bench->options.top,
                                .questions = 1,
                                .pause_us = bench->options.pause_us,
                                .alike = bench->options.alike,
                                .seed = round };
}

static void write_camera(struct bench *bench, uint64_t frames)
{
    struct kv_writing writing = writing_of(bench, "cam", frames);

    writing.streams = 1;
    kv_write(&writing);
}

static void retrieve_from_ram(struct bench *bench)
{
    start(bench, "ram", 3ull << 30);
    write_camera(bench, bench->options.top);
    for (unsigned round = 0; round < bench->options.rounds; round++) {
        struct kv_reading reading = reading_of(bench, round);

        copy_limits(bench);
        kv_read(&reading);
        add_read(&reading, &(struct kv_sample){ .name = "retrieve, shared memory, from RAM, one question",
                                                .limit = "copying, one thread",
                                                .bound = bench->copy,
                                                .goal = 0.9 });
        reading.questions = bench->cores;
        kv_read(&reading);
        add_read(&reading, &(struct kv_sample){ .name = "retrieve, shared memory, from RAM, one a core",
                                                .limit = "copying, all cores",
                                                .bound = bench->copy_all });
        bench->wire = wire_limit(bench, bench->options.channels);
        reading.questions = bench->options.channels;
        reading.is_inline = true;
        kv_read(&reading);
        bench->wire = (bench->wire + wire_limit(bench, bench->options.channels)) / 2;
        add_read(&reading, &(struct kv_sample){ .name = "retrieve, inline, from RAM, several channels",
                                                .limit = "bare gRPC slices",
                                                .bound = bench->wire,
                                                .goal = 0.8 });
    }
    stop(bench, true);
}

/* A store of little memory, so that hardly anything of a question is there from the one before. */
static void retrieve_from_disk(struct bench *bench)
{
    Reelkv__V1__ServerInfo info;

    start(bench, "disk", 2ull << 30);
    write_camera(bench, bench->options.frames);
    stop(bench, false);
    start(bench, "disk", 384ull << 20);
    for (unsigned round = 0; round < bench->options.rounds; round++) {
        struct kv_reading reading = reading_of(bench, round);
        double before = disk_read_limit(bench);

        kv_read(&reading);
        add_read(&reading, &(struct kv_sample){ .name = "retrieve, shared memory, from disk, one question",
                                                .limit = "disk, reading slices",
                                                .bound = (before + disk_read_limit(bench)) / 2,
                                                .goal = 0.9 });
    }
    kv_server_info(&bench->server, &info);
    if (!bench->options.json)
        printf("guesses: %llu slices read ahead, %llu of them wanted\n",
               (unsigned long long)info.read_ahead_slices, (unsigned long long)info.read_ahead_used);
    stop(bench, true);
}

/* --- score --- */

static void score(struct bench *bench)
{
    static const char *const names[] = { "score, an eighth of the frames", "score, a quarter of the frames",
                                         "score, half of the frames", "score, all frames" };
    struct kv_writing writing = writing_of(bench, "keys", bench->options.score_frames);
    uint64_t key_bytes = kv_keys_bytes(&geometry);

    writing.streams = 1;
    writing.tokens = 1;
    start(bench, "score", 5 * key_bytes * bench->options.score_frames);
    kv_write(&writing);
    for (unsigned round = 0; round < bench->options.rounds; round++)
        for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
            uint64_t frames = bench->options.score_frames >> (ARRAY_LEN(names) - 1 - i);
            double read = kv_limit_read(bench->source, bench->source_bytes);

            kv_add_limit("reading memory, one thread, of its own time", read);
            kv_add(&(struct kv_sample){ .name = names[i],
                                        .limit = "reading the keys, one thread",
                                        .value = kv_score_all(&bench->server, &geometry, "keys0", frames),
                                        .bound = (double)(key_bytes * frames) / read,
                                        .is_time = true });
        }
    stop(bench, true);
}

/* --- both --- */

struct mixed {
    struct kv_writing writing;
    struct kv_reading reading;
};

static void mixed_thread(unsigned number, void *arg)
{
    struct mixed *mixed = arg;

    if (number == 0)
        kv_write(&mixed->writing);
    else
        kv_read(&mixed->reading);
}

static void mixed_round(struct bench *bench, unsigned round)
{
    struct mixed mixed;
    double disk;

    start(bench, "mixed", 3ull << 30);
    write_camera(bench, bench->options.top);
    copy_limits(bench);
    disk = disk_write_limit(bench);
    mixed.reading = reading_of(bench, round);
    mixed.writing = writing_of(bench, "new", 128 / bench->options.streams);
    kv_threads(2, mixed_thread, &mixed);
    add_written(&mixed.writing, mixed.writing.durable_s,
                &(struct kv_sample){ .name = "both at once: append until durable",
                                     .limit = "disk, writing in order",
                                     .bound = disk,
                                     .goal = 0 });
    add_read(&mixed.reading, &(struct kv_sample){ .name = "both at once: retrieve, shared memory",
                                                  .limit = "copying, one thread",
                                                  .bound = bench->copy,
                                                  .goal = 0 });
    stop(bench, true);
}

/* --- all of it --- */

/* Also when the benchmark ends early; the process that sends bare slices is another. */
static char scratch[sizeof((struct bench){ 0 }.folder)];
static pid_t scratch_owner;

static void remove_scratch(void)
{
    struct status st;

    if (getpid() == scratch_owner && !file_remove_tree(scratch, &st))
        fprintf(stderr, "kv: %s\n", st.text);
}

static void prepare(struct bench *bench)
{
    const char *temporary = getenv("TMPDIR");
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (bench->options.folder[0] != '\0')
        temporary = bench->options.folder;
    snprintf(bench->folder, sizeof bench->folder, "%.3000s/reelkv-kv-XXXXXX",
             temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(bench->folder) == NULL)
        kv_die("make %s: %m", bench->folder);
    snprintf(scratch, sizeof scratch, "%s", bench->folder);
    scratch_owner = getpid();
    atexit(remove_scratch);
    bench->cores = cores > 0 && cores < 16 ? (unsigned)cores : 16;
    bench->slice = 2 * kv_slice_bytes(&geometry, TOKENS);
    bench->source_bytes = geometry.layers * bench->options.top * bench->slice;
    bench->source = mmap(NULL, bench->source_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (bench->source == MAP_FAILED)
        kv_die("no memory for %zu bytes", bench->source_bytes);
    for (size_t i = 0; i < bench->source_bytes; i += 64)
        bench->source[i] = (uint8_t)(i >> 6);
}

static void run(struct bench *bench)
{
    if (is_on(bench, "retrieve")) {
        retrieve_from_ram(bench);
        retrieve_from_disk(bench);
    }
    for (unsigned round = 0; round < bench->options.rounds && is_on(bench, "append"); round++)
        append_round(bench);
    for (unsigned round = 0; round < bench->options.rounds && is_on(bench, "mixed"); round++)
        mixed_round(bench, round);
    if (is_on(bench, "score"))
        score(bench);
}

int main(int argc, char **argv)
{
    static const struct option_table table = { .program = "kv",
                                               .summary =
                                                   "Measures the store against the machine's own limits.",
                                               .rows = rows,
                                               .count = ARRAY_LEN(rows) };
    static struct bench bench;
    struct status st = { 0 };

    switch (options_parse(&table, &bench.options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "kv: %s\n", st.text);
        return 2;
    case OPTIONS_RUN:
        break;
    }
    prepare(&bench);
    kv_raw_start(geometry.layers * bench.options.top, bench.slice);
    run(&bench);
    kv_report(bench.options.json);
    return 0;
}
