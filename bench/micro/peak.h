/* peak.h - what this machine can do at most, measured now: multiply-adds that never leave registers, and reading memory
 * that no cache holds. Every figure of the micro benchmarks is a share of these, taken in the same moment,
 * because other work on the machine takes its share of both. */
#ifndef REELKV_BENCH_PEAK_H
#define REELKV_BENCH_PEAK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The clock of every figure: with one thread its CPU time, which others on the machine hardly disturb; with more,
 * the wall's. */
uint64_t bench_now_ns(uint32_t threads);

enum peak_kind { PEAK_F32, PEAK_BF16, PEAK_READ };

/* Operations a second (a multiply-add is two) or bytes a second, over `threads` threads, from one sample of
 * about `seconds`. `isa` is the device's: "avx512bf16", "avx512", "avx2" or "portable". */
double peak_sample(enum peak_kind kind, const char *isa, uint32_t threads, double seconds);

/* One turn of the register-only loop, `steps` rounds of independent vectors. Returns operations done. */
double peak_loop_portable(uint64_t steps, float *sink);
double peak_loop_avx2(uint64_t steps, float *sink);
double peak_loop_avx512(uint64_t steps, float *sink);
double peak_loop_bf16(uint64_t steps, float *sink);

#endif
