/* peak_loop.h - the register-only loop in the vector width of the file that includes it; chains enough to hide latency, few enough
 * for the registers. */
#include "peak.h"

typedef float wide __attribute__((vector_size(4 * LOOP_LANES)));

double LOOP_NAME(uint64_t steps, float *sink)
{
    wide sums[LOOP_CHAINS], factor = { 0 }, term = { 0 };

    for (int i = 0; i < LOOP_LANES; i++) {
        factor[i] = 0.5f;
        term[i] = *sink;
    }
#pragma GCC unroll 24
    for (int i = 0; i < LOOP_CHAINS; i++)
        sums[i] = term + (float)i;
    for (uint64_t step = 0; step < steps; step++) {
#pragma GCC unroll 24
        for (int i = 0; i < LOOP_CHAINS; i++)
            LOOP_STEP(sums[i], factor, term);
    }
    for (int i = 1; i < LOOP_CHAINS; i++)
        sums[0] += sums[i];
    *sink = sums[0][0];
    return 2.0 * LOOP_OPERATIONS * LOOP_LANES * LOOP_CHAINS * (double)steps;
}
