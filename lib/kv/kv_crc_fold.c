/* Checking, and copying and checking in one pass: what is summed is what was loaded and stored, so that the bytes cross the
 * memory bus once each way. Runs of some KiB are stored past the caches, for they are parts of much more: none of it would
 * stay there, and a store that misses would fetch the line first.
 *
 * Memory is what both wait for: the next page is asked for while this one is summed, and to the second cache, which has room
 * for more on their way than the first (measured: 65 ms for a GB, 80 without asking).
 *
 * Sixteen 128-bit sums run side by side, each with every sixteenth piece. Folding moves a sum over the 256 bytes to
 * its next piece: with the bits reflected, its first half is multiplied by x^(2048 + 32), its second by x^(2048 - 32). What
 * is left at the end are 256 bytes with the same remainder as all before them. */
#include <stdbool.h>
#include <string.h>

#include "kv/kv_crc.h"
#include "kv/kv_crc_internal.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <pthread.h>

#define FOLDING __attribute__((target("avx512f,avx512vl,pclmul,vpclmulqdq")))

enum { STEP_BYTES = 256, LINE_BYTES = 64, AHEAD_BYTES = 4096, STREAM_BYTES = 8 << 10 };

/* Where what was loaded goes besides the sum. */
enum target { NOWHERE, CACHES, PAST_CACHES };

static uint64_t fold_by[2];
static bool can_fold;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find_out(void)
{
    const uint32_t one = 1u << 31; /* x^0 */

    fold_by[0] = (uint64_t)kv_crc_join(one, 0, STEP_BYTES + 4) << 1;
    fold_by[1] = (uint64_t)kv_crc_join(one, 0, STEP_BYTES - 4) << 1;
    can_fold = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("vpclmulqdq");
}

FOLDING static inline __m512i fold(__m512i sum, __m512i by, __m512i next)
{
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(sum, by, 0x00),
                                     _mm512_clmulepi64_epi128(sum, by, 0x11), next, 0x96);
}

FOLDING static inline __m512i take(uint8_t *to, size_t at, const uint8_t *from, enum target target)
{
    __m512i bytes = _mm512_loadu_si512(from + at);

    if (target == PAST_CACHES)
        _mm512_stream_si512((void *)(to + at), bytes);
    else if (target == CACHES)
        _mm512_storeu_si512(to + at, bytes);
    return bytes;
}

/* Out of line, as in kv_score_avx512.c: the compiler must know nothing of the array's alignment. */
FOLDING __attribute__((noinline)) static void spill(uint8_t *to, __m512i a, __m512i b, __m512i c, __m512i d)
{
    _mm512_storeu_si512(to, a);
    _mm512_storeu_si512(to + LINE_BYTES, b);
    _mm512_storeu_si512(to + 2 * LINE_BYTES, c);
    _mm512_storeu_si512(to + 3 * LINE_BYTES, d);
}

/* Asks for what is read later, unless it lies behind the end. Always inline: of a function that does nothing else the compiler
 * finds that it has no effect, and leaves out its calls. */
FOLDING __attribute__((always_inline)) static inline void look_ahead(const uint8_t *from, size_t at,
                                                                     size_t len)
{
    if (at + AHEAD_BYTES >= len)
        return;
    for (size_t i = 0; i < STEP_BYTES; i += LINE_BYTES)
        _mm_prefetch((const char *)from + at + AHEAD_BYTES + i, _MM_HINT_T1);
}

/* `len` is a multiple of STEP_BYTES, and not 0; `to` of LINE_BYTES, or not used. */
FOLDING __attribute__((always_inline)) static inline uint32_t
fold_steps(uint32_t crc, uint8_t *to, const uint8_t *from, size_t len, enum target target)
{
    __m512i by = _mm512_broadcast_i32x4(_mm_set_epi64x((long long)fold_by[1], (long long)fold_by[0]));
    __m512i a = take(to, 0, from, target), b = take(to, LINE_BYTES, from, target);
    __m512i c = take(to, 2 * LINE_BYTES, from, target), d = take(to, 3 * LINE_BYTES, from, target);
    uint8_t rest[STEP_BYTES];

    a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)~crc)));
    for (size_t at = STEP_BYTES; at < len; at += STEP_BYTES) {
        look_ahead(from, at, len);
        a = fold(a, by, take(to, at, from, target));
        b = fold(b, by, take(to, at + LINE_BYTES, from, target));
        c = fold(c, by, take(to, at + 2 * LINE_BYTES, from, target));
        d = fold(d, by, take(to, at + 3 * LINE_BYTES, from, target));
    }
    spill(rest, a, b, c, d);
    return kv_crc(UINT32_MAX, rest, sizeof rest);
}

FOLDING static uint32_t sum_folding(uint32_t crc, const uint8_t *from, size_t len)
{
    return fold_steps(crc, NULL, from, len, NOWHERE);
}

FOLDING static uint32_t copy_folding(uint32_t crc, uint8_t *to, const uint8_t *from, size_t len)
{
    size_t steps = len / STEP_BYTES * STEP_BYTES;

    if (len < STREAM_BYTES)
        return fold_steps(crc, to, from, steps, CACHES);
    crc = fold_steps(crc, to, from, steps, PAST_CACHES);
    _mm_sfence();
    return crc;
}

size_t kv_crc_fold(uint32_t *crc, const uint8_t *from, size_t len)
{
    size_t steps = len / STEP_BYTES * STEP_BYTES;

    pthread_once(&once, find_out);
    if (!can_fold || steps == 0)
        return 0;
    *crc = sum_folding(*crc, from, steps);
    return steps;
}

/* How much of it was done, up to where a line begins and then in whole steps. */
static size_t copy_most(uint32_t *crc, uint8_t *to, const uint8_t *from, size_t len)
{
    size_t head = -(uintptr_t)to % LINE_BYTES;

    pthread_once(&once, find_out);
    if (!can_fold || len < head + STEP_BYTES)
        return 0;
    memcpy(to, from, head);
    *crc = kv_crc(*crc, to, head);
    *crc = copy_folding(*crc, to + head, from + head, len - head);
    return head + (len - head) / STEP_BYTES * STEP_BYTES;
}
#else
size_t kv_crc_fold(uint32_t *crc, const uint8_t *from, size_t len)
{
    return 0;
}

static size_t copy_most(uint32_t *crc, uint8_t *to, const uint8_t *from, size_t len)
{
    return 0;
}
#endif

uint32_t kv_crc_copy(uint32_t crc, void *to, const void *from, size_t len)
{
    enum { PIECE_BYTES = 32 << 10 }; /* stays in the nearest cache from the copy to the check */
    uint8_t *out = to;
    const uint8_t *in = from;
    size_t done = copy_most(&crc, out, in, len);

    while (done < len) {
        size_t piece = len - done < PIECE_BYTES ? len - done : PIECE_BYTES;

        memcpy(out + done, in + done, piece);
        crc = kv_crc(crc, out + done, piece);
        done += piece;
    }
    return crc;
}
