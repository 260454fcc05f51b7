/* vdpbf16ps: two multiply-adds a lane. */
typedef short pairs __attribute__((vector_size(64)));

#define LOOP_NAME                     peak_loop_bf16
#define LOOP_LANES                    16
#define LOOP_CHAINS                   24
#define LOOP_OPERATIONS               2
#define LOOP_STEP(sums, factor, term) sums = __builtin_ia32_dpbf16ps_v16sf(sums, (pairs)factor, (pairs)term)
#include "peak_loop.h"
