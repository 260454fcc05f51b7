/* Segments of a writer that was killed: their mark and records, and the footer they are sealed with. */
#include "fuzz_segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_segment_run(data, len, true);
    return 0;
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    fuzz_segment_seeds(add, true);
}
