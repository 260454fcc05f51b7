/* kv_crc.h - CRC32C (Castagnoli), by the processor's instructions where it has them.
 *
 * On disk every checksum is seeded with what the bytes are: the segment's salt, the sequence number and the
 * part of the record. Bytes that are intact but somewhere else, or of another time, do not pass.
 *
 * CRCs of neighbouring pieces join without touching the bytes again (kv_crc_join()), so that one pass over a
 * block gives the seeded CRC of each slice and the plain one of the whole payload.
 *
 * Thread: any. */
#ifndef REELKV_KV_KV_CRC_H
#define REELKV_KV_KV_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Of "123456789": 0xe3069283. Start with 0; pass an earlier result to go on. */
uint32_t kv_crc(uint32_t crc, const void *data, size_t len);

/* Copies, and returns the CRC of what was copied, in one pass: of the very bytes that stand at `to` then, whatever becomes
 * of those at `from` meanwhile. */
uint32_t kv_crc_copy(uint32_t crc, void *to, const void *from, size_t len);

/* Of A then B, from the CRC of each and B's length. */
uint32_t kv_crc_join(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

/* What a part of a record is, as a start for its CRC. `part`: a slice (2 * layer + (V ? 1 : 0)) or one of
 * enum kv_part. */
uint32_t kv_crc_identity(uint64_t salt, uint64_t seq, uint32_t part);

/* The plain CRC of bytes whose seeded CRC is known: the inverse of kv_crc_join(identity, plain, len). */
uint32_t kv_crc_unseed(uint32_t seeded, uint32_t identity, uint64_t len);

#endif
