/* fuzz.h - a target: bytes in, and nothing that they say may crash, hang, or be believed wrongly.
 *
 * Each fuzz_NAME.c is built twice: with libFuzzer by the preset `fuzz`, and by all others with fuzz_replay.c, which runs
 * tests/fuzz/corpus/NAME. A finding is fixed and leaves a file there that is named after it.
 *
 * Thread: one. Fails: by REQUIRE, or a sanitizer. */
#ifndef REELKV_TEST_FUZZ_H
#define REELKV_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Bytes to start from, made from what the code itself writes; `add` keeps none of them. */
typedef void fuzz_seed_fn(const char *name, const void *data, size_t len);
void fuzz_seeds(fuzz_seed_fn *add);

#endif
