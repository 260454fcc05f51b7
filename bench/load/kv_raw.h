/* kv_raw.h - slices over bare gRPC, without a store: the limit of what a store can send inline on this machine.
 *
 * A process of its own sends the same bytes in messages of one slice each, straight from where they lie; this one
 * receives them on several channels and puts each into one piece, as every receiver must; nothing is checked.
 *
 * Thread: the main one; start before anything else of this process uses gRPC. */
#ifndef REELKV_BENCH_KV_RAW_H
#define REELKV_BENCH_KV_RAW_H

#include <stddef.h>

#include "kv_figures.h"

/* Forks the sender, which ends with this process. */
void kv_raw_start(size_t slices, size_t slice_bytes);

/* Every channel gets its share of the slices. */
struct kv_limit kv_raw_receive(unsigned channels);

#endif
