/* Compiled with -mfma and contraction: the line below is one vfmadd. */
#define LOOP_NAME                     peak_loop_avx512
#define LOOP_LANES                    16
#define LOOP_CHAINS                   24
#define LOOP_OPERATIONS               1
#define LOOP_STEP(sums, factor, term) sums = sums * factor + term
#include "peak_loop.h"
