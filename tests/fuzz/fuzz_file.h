/* fuzz_file.h - a file system of a few files in memory, for targets that go through the store's own loading, and inputs
 * that are mostly zeros in few bytes.
 *
 * Owner:  this file; one at a time. Thread: one. Fails: as the calls do (ENOENT, ENOSPC).
 * Bounds: FUZZ_FILES files of FUZZ_FILE_BYTES. */
#ifndef REELKV_TEST_FUZZ_FILE_H
#define REELKV_TEST_FUZZ_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file_ops.h"

enum { FUZZ_FILES = 4, FUZZ_FILE_BYTES = 128 << 10 };

extern const struct file_ops fuzz_disk;

void fuzz_disk_clear(void);
/* A file of `len` zeros, to be written to; it is valid until it is removed or renamed over. */
uint8_t *fuzz_disk_put(const char *path, size_t len);
bool fuzz_disk_has(const char *path);

/* Runs: a byte below 128 says how many bytes, less one, follow as they are; 128..191 leaves 1..64 zeros, 192..255 leaves
 * 64..4096 of them in steps of 64. What does not fit is left out. */
void fuzz_expand(const uint8_t *data, size_t len, uint8_t *to, size_t room);
/* The other way: into `to`, of room for 2 * len + 2; returns the length. */
size_t fuzz_shrink(const uint8_t *from, size_t len, uint8_t *to);

#endif
