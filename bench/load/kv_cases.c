#include "kv_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/require.h"
#include "kv_limits.h"
#include "kv_raw.h"
#include "kv_read.h"
#include "kv_write.h"

enum { DISK_PIECE = 1 << 20, DISK_DEPTH = 8, READ_DEPTH = 16, TOKENS = 196, CORES_MAX = 16 };
enum { STORED_FRAMES = 64, DURABLE_FRAMES = 256, MIXED_FRAMES = 128 };

static const struct kv_geometry geometry = {
    .layers = 28, .kv_heads = 4, .head_dim = 128, .dtype = KV_DTYPE_F16
};

/* --- stores --- */

static void start(struct bench *bench, const char *name, uint64_t ram_bytes)
{
    const struct kv_server_limits limits = { ram_bytes, 24ull << 30 };

    snprintf(bench->server.folder, sizeof bench->server.folder, "%.3000s/%.60s", bench->folder, name);
    bench->server.program = bench->options.store;
    kv_server_start(&bench->server, &limits);
    kv_server_wait_quiet(&bench->server);
}

static void stop(struct bench *bench)
{
    struct status st;

    kv_server_stop(&bench->server);
    if (!file_remove_tree(bench->server.folder, &st))
        kv_die("%s", st.text);
}

/* --- limits --- */

static struct kv_limit limit_told(const char *name, struct kv_limit limit)
{
    kv_add_limit(name, limit);
    return limit;
}

/* To a question's room, again and again. */
static struct kv_limit copy_limit(struct bench *bench, unsigned threads)
{
    return kv_limit_copy(bench->source, bench->source_bytes, bench->slice, bench->options.top * bench->slice,
                         threads);
}

static struct kv_limit limit_copy(struct bench *bench)
{
    return limit_told("copying slices, one thread", copy_limit(bench, 1));
}

static struct kv_limit limit_copy_all(struct bench *bench)
{
    return limit_told("copying slices, as many threads as cores", copy_limit(bench, bench->cores));
}

/* To memory that is not in a cache, as an arena is not: every byte goes to another place. */
static struct kv_limit limit_copy_blocks(struct bench *bench)
{
    return limit_told("copying to as much memory, as many threads as cores",
                      kv_limit_copy(bench->source, bench->source_bytes, bench->slice,
                                    bench->source_bytes / bench->cores, bench->cores));
}

static struct kv_limit limit_disk_write(struct bench *bench)
{
    return limit_told("disk, writing in order, 1 MiB, 8 at once",
                      kv_limit_disk_write(bench->folder, 1ull << 30, DISK_PIECE, DISK_DEPTH));
}

static struct kv_limit limit_disk_read(struct bench *bench)
{
    return limit_told("disk, reading slices anywhere, 16 at once",
                      kv_limit_disk_read(bench->folder, 1ull << 30, bench->slice, READ_DEPTH));
}

static struct kv_limit limit_read(struct bench *bench)
{
    return limit_told("reading memory, one thread, of its own time",
                      kv_limit_read(bench->source, bench->source_bytes));
}

static struct kv_limit limit_wire_writers(struct bench *bench)
{
    return limit_told("bare gRPC, a channel a writer", kv_raw_receive(bench->options.streams));
}

static struct kv_limit limit_wire(struct bench *bench)
{
    return limit_told("bare gRPC, a channel a question", kv_raw_receive(bench->options.channels));
}

/* --- append --- */

static struct kv_writing writing_of(struct bench *bench, const char *prefix, uint64_t frames)
{
    return (struct kv_writing){ .server = &bench->server,
                                .geometry = &geometry,
                                .tokens = TOKENS,
                                .frames = frames / bench->options.streams,
                                .streams = bench->options.streams,
                                .prefix = prefix };
}

static void take_writing(const struct kv_writing *writing, double seconds, struct kv_sample *sample)
{
    *sample = (struct kv_sample){ .bytes = writing->bytes,
                                  .seconds = seconds,
                                  .own_cpu_s = writing->own_cpu_s,
                                  .store_cpu_s = writing->store_cpu_s };
}

static void open_append(struct bench *bench)
{
    start(bench, "append", 2ull << 30);
}

static void append_ram(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct kv_writing writing = writing_of(bench, "ram", STORED_FRAMES);

    kv_write(&writing);
    take_writing(&writing, writing.stored_s, sample);
}

static void append_inline(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct kv_writing writing = writing_of(bench, "wire", STORED_FRAMES);

    writing.is_inline = true;
    kv_write(&writing);
    take_writing(&writing, writing.stored_s, sample);
}

static void append_durable(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct kv_writing writing = writing_of(bench, "disk", DURABLE_FRAMES);

    kv_write(&writing);
    take_writing(&writing, writing.durable_s, sample);
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

static void take_reading(const struct kv_reading *reading, struct kv_sample *sample)
{
    *sample = (struct kv_sample){ .bytes = reading->bytes,
                                  .seconds = reading->seconds,
                                  .own_cpu_s = reading->own_cpu_s,
                                  .store_cpu_s = reading->store_cpu_s };
}

static void write_camera(struct bench *bench, uint64_t frames)
{
    struct kv_writing writing = writing_of(bench, "cam", frames);

    writing.streams = 1;
    writing.frames = frames;
    kv_write(&writing);
}

static void open_ram(struct bench *bench)
{
    start(bench, "ram", 3ull << 30);
    write_camera(bench, bench->options.top);
}

static void retrieve_ram(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct kv_reading reading = reading_of(bench, round);

    kv_read(&reading);
    take_reading(&reading, sample);
}

static void retrieve_ram_all(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct kv_reading reading = reading_of(bench, round);

    reading.questions = bench->cores;
    kv_read(&reading);
    take_reading(&reading, sample);
}

static void retrieve_inline(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct kv_reading reading = reading_of(bench, round);

    reading.questions = bench->options.channels;
    reading.is_inline = true;
    kv_read(&reading);
    take_reading(&reading, sample);
}

/* A store of little memory, so that hardly anything of a question is there from the one before. */
static void open_disk(struct bench *bench)
{
    start(bench, "disk", 2ull << 30);
    write_camera(bench, bench->options.frames);
    kv_server_stop(&bench->server);
    start(bench, "disk", 384ull << 20);
}

static void close_disk(struct bench *bench)
{
    Reelkv__V1__ServerInfo info;

    kv_server_info(&bench->server, &info);
    if (!bench->options.json)
        printf("guesses: %llu slices read ahead, %llu of them wanted\n",
               (unsigned long long)info.read_ahead_slices, (unsigned long long)info.read_ahead_used);
    stop(bench);
}

/* --- score --- */

static void open_score(struct bench *bench)
{
    struct kv_writing writing = writing_of(bench, "keys", 0);

    start(bench, "score", 7 * kv_keys_bytes(&geometry) * bench->options.score_frames);
    writing.frames = bench->options.score_frames;
    writing.streams = 1;
    writing.tokens = 1;
    kv_write(&writing);
    kv_score_all(&bench->server, &geometry, "keys0", writing.frames); /* the first one has sketches made */
    kv_server_wait_quiet(&bench->server);
}

static void score(struct bench *bench, uint64_t frames, struct kv_sample *sample)
{
    *sample =
        (struct kv_sample){ .bytes = (double)(kv_keys_bytes(&geometry) * frames),
                            .seconds = kv_score_all(&bench->server, &geometry, "keys0", frames).scoring_s,
                            .is_time = true };
}

static void score_eighth(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    score(bench, bench->options.score_frames / 8, sample);
}

static void score_quarter(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    score(bench, bench->options.score_frames / 4, sample);
}

static void score_half(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    score(bench, bench->options.score_frames / 2, sample);
}

static void score_all(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    score(bench, bench->options.score_frames, sample);
}

static void score_calls(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    *sample = (struct kv_sample){ .bytes = (double)(kv_keys_bytes(&geometry) * bench->options.score_frames),
                                  .is_time = true };
    sample->seconds = kv_score_all(&bench->server, &geometry, "keys0", bench->options.score_frames).all_s;
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

static void open_mixed(struct bench *bench)
{
    start(bench, "mixed", 3ull << 30);
    write_camera(bench, bench->options.top);
}

static void run_mixed(struct bench *bench, unsigned round, const char *prefix, struct mixed *mixed)
{
    mixed->reading = reading_of(bench, round);
    mixed->writing = writing_of(bench, prefix, MIXED_FRAMES);
    kv_threads(2, mixed_thread, mixed);
}

static void mixed_append(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct mixed mixed;

    run_mixed(bench, round, "new", &mixed);
    take_writing(&mixed.writing, mixed.writing.durable_s, sample);
}

static void mixed_retrieve(struct bench *bench, unsigned round, struct kv_sample *sample)
{
    struct mixed mixed;

    run_mixed(bench, round, "more", &mixed);
    take_reading(&mixed.reading, sample);
}

/* --- all of it --- */

static const struct kv_case ram_cases[] = {
    { { "retrieve-ram", "retrieve, shared memory, from RAM, one question", "copying, one thread", 0.9 },
      limit_copy,
      retrieve_ram },
    { { "retrieve-ram-all", "retrieve, shared memory, from RAM, one a core", "copying, all cores", 0 },
      limit_copy_all,
      retrieve_ram_all },
    { { "retrieve-inline", "retrieve, inline, from RAM, several channels", "bare gRPC slices", 0.8 },
      limit_wire,
      retrieve_inline },
};

static const struct kv_case disk_cases[] = {
    { { "retrieve-disk", "retrieve, shared memory, from disk, one question", "disk, reading slices", 0.9 },
      limit_disk_read,
      retrieve_ram },
};

static const struct kv_case append_cases[] = {
    { { "append-ram", "append, shared memory, until in the store's RAM", "copying to as much, all cores",
        0.9 },
      limit_copy_blocks,
      append_ram },
    { { "append-inline", "append, inline, until in the store's RAM", "bare gRPC slices", 0 },
      limit_wire_writers,
      append_inline },
    { { "append-durable", "append, shared memory, until durable", "disk, writing in order", 0.9 },
      limit_disk_write,
      append_durable },
};

static const struct kv_case mixed_cases[] = {
    { { "mixed-append", "both at once: append until durable", "disk, writing in order", 0 },
      limit_disk_write,
      mixed_append },
    { { "mixed-retrieve", "both at once: retrieve, shared memory", "copying, one thread", 0 },
      limit_copy,
      mixed_retrieve },
};

static const struct kv_case score_cases[] = {
    { { "score-eighth", "score, an eighth of the frames", "reading the keys, one thread", 0 },
      limit_read,
      score_eighth },
    { { "score-quarter", "score, a quarter of the frames", "reading the keys, one thread", 0 },
      limit_read,
      score_quarter },
    { { "score-half", "score, half of the frames", "reading the keys, one thread", 0 },
      limit_read,
      score_half },
    { { "score-all", "score, all frames", "reading the keys, one thread", 0 }, limit_read, score_all },
    { { "score-calls", "the same, with all that 28 calls take", "reading the keys, one thread", 0 },
      limit_read,
      score_calls },
};

const struct kv_scene kv_scenes[] = {
    { "starting a store of 3 GiB and writing what is asked for", false, open_ram, stop, ram_cases,
      ARRAY_LEN(ram_cases) },
    { "writing blocks to the disk, and starting a store of 384 MiB over them", false, open_disk, close_disk,
      disk_cases, ARRAY_LEN(disk_cases) },
    { "starting a store of 2 GiB", true, open_append, stop, append_cases, ARRAY_LEN(append_cases) },
    { "starting a store of 3 GiB and writing what is asked for", true, open_mixed, stop, mixed_cases,
      ARRAY_LEN(mixed_cases) },
    { "starting a store and writing the keys to be scored", false, open_score, stop, score_cases,
      ARRAY_LEN(score_cases) },
};
const unsigned kv_scene_count = ARRAY_LEN(kv_scenes);

void kv_cases_prepare(struct bench *bench)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    bench->cores = cores > 0 && cores < CORES_MAX ? (unsigned)cores : CORES_MAX;
    bench->slice = 2 * kv_slice_bytes(&geometry, TOKENS);
    bench->source_bytes = geometry.layers * bench->options.top * bench->slice;
    bench->source = mmap(NULL, bench->source_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (bench->source == MAP_FAILED)
        kv_die("no memory for %zu bytes", bench->source_bytes);
    for (size_t i = 0; i < bench->source_bytes; i += 64)
        bench->source[i] = (uint8_t)(i >> 6);
    kv_raw_start((size_t)geometry.layers * bench->options.top, bench->slice);
}
