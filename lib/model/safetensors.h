/* safetensors.h - the tensors of a Hugging Face checkpoint folder, mapped, not copied.
 *
 * Reads model.safetensors, or the shards that model.safetensors.index.json names. Every byte of the headers
 * is checked: length, JSON, dtype, shape, offsets within the file, no overlap, no hole, no overflow.
 *
 * Owner:  safetensors_open() makes one, safetensors_close() unmaps; views die with it.
 * Thread: any, once open (read only).
 * Fails:  INVALID or NOT_FOUND naming the tensor, the file and what was expected.
 * Bounds: SAFETENSORS_* below. A file cut short while it is mapped ends the process (SIGBUS): replace
 *         checkpoints by renaming, as every downloader does. */
#ifndef REELKV_MODEL_SAFETENSORS_H
#define REELKV_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    SAFETENSORS_DIMS_MAX = 8,
    SAFETENSORS_SHARDS_MAX = 1024,
    SAFETENSORS_TENSORS_MAX = 65536,
    SAFETENSORS_HEADER_BYTES_MAX = 100000000, /* the format's own limit */
};

/*  name     file's word  bytes an element */
#define SAFETENSORS_DTYPE_TABLE(X) \
    X(F32, "F32", 4)               \
    X(F16, "F16", 2)               \
    X(BF16, "BF16", 2)             \
    X(F64, "F64", 8)               \
    X(I64, "I64", 8)               \
    X(I32, "I32", 4)               \
    X(I16, "I16", 2)               \
    X(I8, "I8", 1)                 \
    X(U64, "U64", 8)               \
    X(U32, "U32", 4)               \
    X(U16, "U16", 2)               \
    X(U8, "U8", 1)                 \
    X(BOOL, "BOOL", 1)             \
    X(F8_E4M3, "F8_E4M3", 1)       \
    X(F8_E5M2, "F8_E5M2", 1)

enum safetensors_dtype {
#define SAFETENSORS_ENUM(name, word, bytes) SAFETENSORS_##name,
    SAFETENSORS_DTYPE_TABLE(SAFETENSORS_ENUM)
#undef SAFETENSORS_ENUM
};

struct safetensors_tensor {
    const char *name;
    const char *file; /* the shard's name within the folder */
    enum safetensors_dtype dtype;
    uint32_t dims;
    uint64_t shape[SAFETENSORS_DIMS_MAX];
    const uint8_t *data; /* row major, little endian; not necessarily aligned */
    uint64_t bytes;
};

struct safetensors;

bool safetensors_open(struct safetensors **checkpoint_p, const char *folder, struct status *st);
void safetensors_close(struct safetensors *checkpoint); /* NULL is fine */

/* NULL when the checkpoint has no tensor of that name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *checkpoint, const char *name);

/* All tensors in the order of their names, whatever the shards. */
size_t safetensors_count(const struct safetensors *checkpoint);
const struct safetensors_tensor *safetensors_at(const struct safetensors *checkpoint, size_t index);

const char *safetensors_dtype_word(enum safetensors_dtype dtype);

/* "[4096, 1024]", cut at out_bytes; for sentences. */
void safetensors_shape_text(const uint64_t *shape, uint32_t dims, char *out, size_t out_bytes);

#endif
