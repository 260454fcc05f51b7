#include "peak.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/require.h"

enum {
    READ_BYTES = 192 << 20,
    THREADS_MAX = 256,
    READ_STEP = 1 << 20,
    READ_AHEAD = 64 /* lines */,
    LOOP_STEPS = 4000
};

uint64_t bench_now_ns(uint32_t threads)
{
    struct timespec now;

    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct sampler {
    enum peak_kind kind;
    const char *isa;
    const uint64_t *memory; /* this thread's part */
    size_t words;
    uint32_t threads;
    uint64_t lasts_ns;
    double done, seconds;
    uint64_t sink;
};

static double loop_once(const struct sampler *me, float *sink)
{
#ifdef REELKV_BENCH_X86
    if (me->kind == PEAK_BF16 && strcmp(me->isa, "avx512bf16") == 0)
        return peak_loop_bf16(LOOP_STEPS, sink);
    if (strncmp(me->isa, "avx512", 6) == 0)
        return peak_loop_avx512(LOOP_STEPS, sink);
    if (strcmp(me->isa, "avx2") == 0)
        return peak_loop_avx2(LOOP_STEPS, sink);
#endif
    return peak_loop_portable(LOOP_STEPS, sink);
}

/* Wide loads, sums that do not wait for one another, and memory asked for a page ahead. */
static uint64_t read_once(const uint64_t *words, size_t count)
{
    typedef uint64_t wide __attribute__((vector_size(64)));
    const wide *from = (const wide *)words;
    wide sums[4] = { 0 };

    for (size_t i = 0; i + 4 <= count / 8; i += 4) {
        for (int k = 0; k < 4; k++) {
            __builtin_prefetch(from + i + k + READ_AHEAD, 0, 2);
            sums[k] ^= from[i + k];
        }
    }
    sums[0] ^= sums[1] ^ sums[2] ^ sums[3];
    return sums[0][0] + sums[0][7];
}

static void *sample_thread(void *argument)
{
    struct sampler *me = argument;
    uint64_t start = bench_now_ns(me->threads), now;
    size_t at = 0;
    float sink = 1;

    do {
        if (me->kind == PEAK_READ) {
            size_t count = me->words - at < READ_STEP / 8 ? me->words - at : READ_STEP / 8;

            me->sink += read_once(me->memory + at, count);
            me->done += (double)count * 8;
            at = at + count == me->words ? 0 : at + count;
        } else {
            me->done += loop_once(me, &sink);
        }
        now = bench_now_ns(me->threads);
    } while (now - start < me->lasts_ns);
    me->sink += sink > 1;
    me->seconds = (double)(now - start) * 1e-9;
    return NULL;
}

static const uint64_t *read_memory(void)
{
    static uint64_t *memory;

    if (memory == NULL) {
        memory = aligned_alloc(64, READ_BYTES);
        REQUIRE(memory != NULL);
        memset(memory, 1, READ_BYTES);
    }
    return memory;
}

double peak_sample(enum peak_kind kind, const char *isa, uint32_t threads, double seconds)
{
    struct sampler samplers[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    const uint64_t *memory = kind == PEAK_READ ? read_memory() : NULL;
    size_t words = READ_BYTES / 8 / threads / 8 * 8;
    double rate = 0;

    REQUIRE(threads >= 1 && threads <= THREADS_MAX);
    for (uint32_t i = 0; i < threads; i++) {
        samplers[i] = (struct sampler){ .kind = kind, .isa = isa, .words = words, .threads = threads };
        samplers[i].lasts_ns = (uint64_t)(seconds * 1e9);
        samplers[i].memory = memory != NULL ? memory + i * words : NULL;
        if (i > 0)
            REQUIRE(pthread_create(&ids[i], NULL, sample_thread, &samplers[i]) == 0);
    }
    sample_thread(&samplers[0]);
    for (uint32_t i = 0; i < threads; i++) {
        if (i > 0)
            pthread_join(ids[i], NULL);
        rate += samplers[i].done / samplers[i].seconds;
    }
    return rate;
}
