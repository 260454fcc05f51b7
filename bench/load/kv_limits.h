/* kv_limits.h - what this machine can do at most with the same bytes: copy them, check them, write and read them.
 *
 * Thread: the main one; they start threads of their own. */
#ifndef REELKV_BENCH_KV_LIMITS_H
#define REELKV_BENCH_KV_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#include "kv_figures.h"

/* `from` is cut into `piece`s, which go one after the other to the same `room` bytes (as a question copies its slices, or,
 * with as much room as there is to copy, as an arena takes blocks); each thread has its own share of `from`, and room of
 * its own. */
struct kv_limit kv_limit_copy(const uint8_t *from, size_t bytes, size_t piece, size_t room, unsigned threads);

/* A second of this rate is one of a processor: others on the machine hardly disturb it. */
struct kv_limit kv_limit_read(const uint8_t *from, size_t bytes);

/* A new file in `folder`, past the page cache, its blocks reserved: written once from start to end by `threads`, and
 * synced. It is removed. */
struct kv_limit kv_limit_disk_write(const char *folder, size_t bytes, size_t piece, unsigned threads);

/* Random places of a file that is kept from call to call. */
struct kv_limit kv_limit_disk_read(const char *folder, size_t bytes, size_t piece, unsigned threads);

/* Runs `count` threads, each with its number, and waits; returns the seconds it took. */
double kv_threads(unsigned count, void (*run)(unsigned number, void *arg), void *arg);

#endif
