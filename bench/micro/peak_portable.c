#define LOOP_NAME                     peak_loop_portable
#define LOOP_LANES                    4
#define LOOP_CHAINS                   12
#define LOOP_OPERATIONS               1
#define LOOP_STEP(sums, factor, term) sums = sums * factor + term
#include "peak_loop.h"
