/* fuzz_segment.h - a segment file of an input, loaded as a store loads it.
 *
 * An input is one byte of flags, one with the number of pages, and the file as fuzz_expand() reads it. With
 * FUZZ_FITS its checksums are made to fit first, so that what they cover is looked at too. */
#ifndef REELKV_TEST_FUZZ_SEGMENT_H
#define REELKV_TEST_FUZZ_SEGMENT_H

#include "fuzz.h"
#include "kvstore/segment_load.h"

enum { FUZZ_FITS = 1, FUZZ_ODD_BYTES = 2 /* and some bytes more than whole pages */ };

/* Loads it as .open or .seg, looks at all that was found, and lets go of it. */
void fuzz_segment_run(const uint8_t *data, size_t len, bool is_open);

/* Small files with each kind of record, and the files of tests/data. */
void fuzz_segment_seeds(fuzz_seed_fn *add, bool is_open);

#endif
