/* kv_crc_internal.h - the part of a CRC that wide registers do. For kv_crc.c and kv_crc_fold.c. */
#ifndef REELKV_KV_KV_CRC_INTERNAL_H
#define REELKV_KV_KV_CRC_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

/* From here on asking memory ahead pays. */
enum { KV_CRC_FOLD_BYTES = 4096 };

/* Sums what it can from the start, and says how much that was: 0 when this processor cannot. */
size_t kv_crc_fold(uint32_t *crc, const uint8_t *from, size_t len);

#endif
