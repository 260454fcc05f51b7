/* Sealed segments: their footer, and their records where it does not fit. */
#include "fuzz_segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_segment_run(data, len, false);
    return 0;
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    fuzz_segment_seeds(add, false);
}
