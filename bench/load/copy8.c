/* copy8 - what an 8-bit copy of the keys would save when they are scored, beside a pass of reading and the exact scores.
 *
 *   copy8 [--frames 43200] [--layers 28] [--dims 512] [--top 64]
 *
 * Keys are made: numbers as a bell curve has them, nothing in common from frame to frame. The copy keeps each key in 8 bits
 * with a scale of its own, and the length of what rounding left. A question's score by the copy is right but for the query's
 * length times that; what may then be one of the best is scored from the key itself, so that the best are the same. How many
 * that are with a model's keys, `prune` counts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/large.h"
#include "base/number.h"
#include "base/options.h"
#include "base/require.h"
#include "kv/kv_score.h"
#include "kv/kv_select.h"

enum {
    RUN_FRAMES = 16,
    SIDE = 4,
    GROUP = SIDE * RUN_FRAMES,
    POOL = 1 << 20,
    DIMS_MAX = 4096,
    LINE_BYTES = 64
};

/* As wide as this processor adds. */
#if defined(__x86_64__)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), optimize("O3")))
#else
#define WIDE
#endif

struct copy8_options {
    uint32_t frames, layers, dims, top, rounds;
};

static const struct option_row rows[] = {
    OPTION_ROW(copy8_options, frames, U32, "43200", "1024", "1000000", "frames that are scored"),
    OPTION_ROW(copy8_options, layers, U32, "28", "1", "128", "layers, each with its own query"),
    OPTION_ROW(copy8_options, dims, U32, "512", "64", "4096", "numbers in a layer's key"),
    OPTION_ROW(copy8_options, top, U32, "64", "1", "128", "frames chosen"),
    OPTION_ROW(copy8_options, rounds, U32, "5", "1", "100", "rounds; the quickest is shown"),
};

/* Of one key of the copy: its numbers are scale * (byte - 128), and this far away. */
struct measure {
    float scale, lost;
};

/* A query in two parts of 7 bits: number = scale * (128 * high + low), and this far away. */
struct query8 {
    int8_t high[DIMS_MAX], low[DIMS_MAX];
    float scale, lost, length;
    int64_t sum; /* of 128 * high + low */
};

struct bench {
    struct copy8_options options;
    uint8_t *keys;            /* [layers][frames][dims] f16 */
    uint8_t *copy;            /* [layers][frames][dims] */
    struct measure *measures; /* [layers][frames] */
    float *queries;           /* [layers][dims] */
    uint64_t exact;           /* frames scored exactly in the last pass over the copy */
    volatile uint64_t sink;
};

static void *large(size_t bytes)
{
    struct large_region *region;
    void *memory = large_alloc(bytes, &region);

    if (memory == NULL) {
        fprintf(stderr, "copy8: no memory\n");
        exit(1);
    }
    return memory;
}

/* Of this thread's processor: others on the machine count little. */
static double own_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- keys --- */

static uint32_t next_random(void)
{
    static uint64_t state = 88172645463325252ull;

    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 32);
}

static float bell(void)
{
    double sum = 0;

    for (unsigned i = 0; i < 6; i++)
        sum += (double)next_random() / UINT32_MAX - 0.5;
    return (float)sum;
}

static struct measure make_key(const float *numbers, uint32_t dims, uint16_t *key, uint8_t *copy)
{
    struct measure measure = { 0 };
    double lost = 0;
    float largest = 0;

    for (uint32_t i = 0; i < dims; i++) {
        key[i] = number_f16_of_f32(numbers[i]);
        largest = fmaxf(largest, fabsf(number_f32_of_f16(key[i])));
    }
    measure.scale = largest / 127;
    for (uint32_t i = 0; i < dims; i++) {
        double number = (double)number_f32_of_f16(key[i]), kept = rint(number / measure.scale);

        copy[i] = (uint8_t)(128 + (int)kept);
        lost += (number - kept * measure.scale) * (number - kept * measure.scale);
    }
    measure.lost = (float)sqrt(lost);
    return measure;
}

static void make_keys(struct bench *bench)
{
    size_t dims = bench->options.dims, keys = (size_t)bench->options.frames * bench->options.layers;
    float *pool = malloc(POOL * sizeof *pool);

    REQUIRE(pool != NULL);
    bench->keys = large(2 * keys * dims);
    bench->copy = large(keys * dims);
    bench->measures = large(keys * sizeof *bench->measures);
    bench->queries = large(bench->options.layers * dims * sizeof *bench->queries);
    for (uint32_t i = 0; i < POOL; i++)
        pool[i] = bell();
    for (size_t i = 0; i < bench->options.layers * dims; i++)
        bench->queries[i] = bell();
    for (size_t i = 0; i < keys; i++)
        bench->measures[i] =
            make_key(pool + next_random() % (POOL - dims), (uint32_t)dims,
                     (uint16_t *)(void *)(bench->keys + 2 * i * dims), bench->copy + i * dims);
    free(pool);
}

/* --- passes --- */

/* The n-th frame in the order of scoring: runs of RUN_FRAMES, SIDE of them beside each other. */
static uint32_t frame_at(uint32_t n)
{
    return n / GROUP * GROUP + n % SIDE * RUN_FRAMES + n % GROUP / SIDE;
}

WIDE static void read_pass(struct bench *bench, const uint8_t *from, size_t bytes)
{
    size_t run_bytes = bytes / SIDE / LINE_BYTES * LINE_BYTES;
    uint64_t sums[LINE_BYTES / sizeof(uint64_t)] = { 0 };

    for (size_t at = 0; at < run_bytes; at += LINE_BYTES)
        for (unsigned run = 0; run < SIDE; run++)
            for (unsigned i = 0; i < ARRAY_LEN(sums); i++)
                sums[i] += ((const uint64_t *)(const void *)(from + run * run_bytes + at))[i];
    for (unsigned i = 0; i < ARRAY_LEN(sums); i++)
        bench->sink += sums[i];
}

static void offer(struct kv_select *select, uint32_t frame, float score)
{
    const struct kv_hit hit = { .score = score, .seq = frame, .pts_ns = frame };

    if (score >= kv_select_floor(select).score)
        kv_select_offer(select, &hit, 1);
}

static void score_exactly(const struct bench *bench, uint32_t layer, struct kv_select *select)
{
    kv_score_fn *score = kv_score_ops()->of_dtype[KV_DTYPE_F16];
    uint32_t dims = bench->options.dims, frames = bench->options.frames;
    const uint8_t *keys = bench->keys + 2 * (size_t)layer * frames * dims;
    const void *at[2][GROUP];
    float scores[GROUP];

    for (uint32_t i = 0; i < GROUP; i++)
        at[0][i] = keys + 2 * (size_t)frame_at(i) * dims;
    for (uint32_t n = 0; n < frames; n += GROUP) {
        const void **now = at[n / GROUP % 2], **next = at[1 - n / GROUP % 2];

        for (uint32_t i = 0; i < GROUP; i++)
            next[i] = keys + 2 * (size_t)frame_at((n + GROUP + i) % frames) * dims;
        score(bench->queries + (size_t)layer * dims, &(struct kv_score_keys){ now, next, GROUP, dims },
              scores);
        for (uint32_t i = 0; i < GROUP; i++)
            offer(select, frame_at(n + i), scores[i]);
    }
}

static void make_query8(const float *query, uint32_t dims, struct query8 *made)
{
    double lost = 0, length = 0;
    float largest = 0;

    for (uint32_t i = 0; i < dims; i++)
        largest = fmaxf(largest, fabsf(query[i]));
    made->scale = largest / (127 * 128);
    made->sum = 0;
    for (uint32_t i = 0; i < dims; i++) {
        int number = (int)rintf(query[i] / made->scale);
        double off = (double)query[i] - (double)made->scale * number;

        made->high[i] = (int8_t)(number >> 7);
        made->low[i] = (int8_t)(number & 127);
        made->sum += number;
        lost += off * off;
        length += (double)query[i] * (double)query[i];
    }
    made->lost = (float)sqrt(lost);
    made->length = (float)sqrt(length);
}

/* The loop that the compiler makes multiply-and-add instructions of, for bytes. */
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,prefer-vector-width=512"), optimize("O3")))
#endif
static int64_t
dot8(const struct query8 *query, const uint8_t *key, const uint8_t *ahead, uint32_t dims)
{
    int32_t high = 0, low = 0;

    for (uint32_t at = 0; at < dims; at += LINE_BYTES)
        __builtin_prefetch(ahead + at, 0, 2);
    for (uint32_t i = 0; i < dims; i++)
        high += (int32_t)key[i] * query->high[i];
    for (uint32_t i = 0; i < dims; i++)
        low += (int32_t)key[i] * query->low[i];
    return 128ll * high + low - 128 * query->sum;
}

/* At least what the key's exact score is. */
static float greatest(const struct query8 *query, const struct measure *measure, int64_t dot, uint32_t dims)
{
    float score = query->scale * measure->scale * (float)dot,
          length = 127 * measure->scale * sqrtf((float)dims);

    return score + (query->length + query->lost) * measure->lost + query->lost * length +
           1e-5f * query->length * length; /* the last: what adding rounds */
}

static void score_by_copy(struct bench *bench, uint32_t layer, struct kv_select *select)
{
    kv_score_fn *score = kv_score_ops()->of_dtype[KV_DTYPE_F16];
    uint32_t dims = bench->options.dims, frames = bench->options.frames;
    size_t first = (size_t)layer * frames;
    const float *query = bench->queries + (size_t)layer * dims;
    static struct query8 small;

    make_query8(query, dims, &small);
    for (uint32_t n = 0; n < frames; n++) {
        uint32_t frame = frame_at(n), ahead = frame_at((n + GROUP) % frames);
        int64_t dot =
            dot8(&small, bench->copy + (first + frame) * dims, bench->copy + (first + ahead) * dims, dims);
        const void *key = bench->keys + 2 * (first + frame) * dims;
        float exact;

        if (greatest(&small, &bench->measures[first + frame], dot, dims) < kv_select_floor(select).score)
            continue;
        score(query, &(struct kv_score_keys){ &key, NULL, 1, dims }, &exact);
        offer(select, frame, exact);
        bench->exact++;
    }
}

/* Both ways choose; the same. Seconds. */
static void choose(struct bench *bench, double *exact_s, double *copy_s)
{
    const struct kv_selection selection = { .kind = KV_SELECT_REKV, .top_r = bench->options.top };

    *exact_s = *copy_s = 0;
    bench->exact = 0;
    for (uint32_t layer = 0; layer < bench->options.layers; layer++) {
        struct kv_select *selects[2];
        const struct kv_hit *hits[2];
        uint32_t counts[2];
        struct status st;
        double began_s = own_s(), between_s;

        REQUIRE(kv_select_create(&selects[0], &selection, &st) &&
                kv_select_create(&selects[1], &selection, &st));
        score_exactly(bench, layer, selects[0]);
        between_s = own_s();
        score_by_copy(bench, layer, selects[1]);
        *exact_s += between_s - began_s;
        *copy_s += own_s() - between_s;
        for (unsigned i = 0; i < 2; i++)
            REQUIRE(kv_select_finish(selects[i], &hits[i], &counts[i], &st));
        REQUIRE(counts[0] == counts[1]);
        for (uint32_t i = 0; i < counts[0]; i++)
            REQUIRE(hits[0][i].seq == hits[1][i].seq && hits[0][i].score == hits[1][i].score);
        kv_select_destroy(selects[0]);
        kv_select_destroy(selects[1]);
    }
}

static double read_s(struct bench *bench, const uint8_t *from, size_t bytes)
{
    double began_s = own_s();

    read_pass(bench, from, bytes);
    return own_s() - began_s;
}

int main(int argc, char **argv)
{
    static const struct option_table table = { .program = "copy8",
                                               .summary =
                                                   "Scores keys exactly, and through an 8-bit copy of them.",
                                               .rows = rows,
                                               .count = ARRAY_LEN(rows) };
    static struct bench bench;
    double read_16 = INFINITY, read_8 = INFINITY, exact = INFINITY, copy = INFINITY;
    struct status st = { 0 };
    size_t keys;

    switch (options_parse(&table, &bench.options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "copy8: %s\n", st.text);
        return 2;
    case OPTIONS_RUN:
        break;
    }
    bench.options.frames -= bench.options.frames % GROUP;
    bench.options.dims -= bench.options.dims % LINE_BYTES;
    keys = (size_t)bench.options.frames * bench.options.layers;
    make_keys(&bench);
    for (uint32_t round = 0; round < bench.options.rounds; round++) {
        double exact_s, copy_s;

        read_16 = fmin(read_16, read_s(&bench, bench.keys, 2 * keys * bench.options.dims));
        read_8 = fmin(read_8, read_s(&bench, bench.copy, keys * bench.options.dims));
        choose(&bench, &exact_s, &copy_s);
        exact = fmin(exact, exact_s);
        copy = fmin(copy, copy_s);
    }
    printf(
        "%u frames, %u layers of %u: reading the keys %.1f ms, scoring them %.1f ms; reading the copy %.1f ms, scoring by "
        "it %.1f ms, %.2f %% of the keys exactly\n",
        bench.options.frames, bench.options.layers, bench.options.dims, read_16 * 1e3, exact * 1e3,
        read_8 * 1e3, copy * 1e3, 100 * (double)bench.exact / (double)keys);
    return 0;
}
