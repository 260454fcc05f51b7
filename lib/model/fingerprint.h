/* fingerprint.h - 16 bytes that are equal exactly when blocks of two processes may be mixed.
 *
 * XXH3-128 over: the layout's and the preprocessing's version, the numbers of config.h, dtype, n_local, the
 * system prompt's ids, the compressor's name, and name, dtype, shape and bytes of every tensor of the
 * checkpoint. Shards do not matter, nor what part of the model a process loads.
 *
 * Thread: any; reads the whole checkpoint once (about 10 GB/s when it is in memory, else at the disk's
 * speed). */
#ifndef REELKV_MODEL_FINGERPRINT_H
#define REELKV_MODEL_FINGERPRINT_H

#include "model/config.h"
#include "model/model.h"
#include "model/safetensors.h"

struct fingerprint_parts {
    const struct model_config *config;
    const struct safetensors *checkpoint;
    enum tensor_dtype dtype;
    uint32_t n_local;
    const uint32_t *init_ids;
    size_t init_count;
    const char *compressor;
};

bool fingerprint_make(uint8_t out[MODEL_FINGERPRINT_BYTES], const struct fingerprint_parts *parts,
                      struct status *st);

#endif
