/* kv_pool.h - memory that one process writes and others can only read. See docs/shared-memory.md.
 *
 * A pool is a memfd: a header page, a table with one generation for each granule, then data. Its maker
 * reserves every page, maps it, and seals it: nobody can shrink it, grow it, or map it for writing again. Others
 * get the descriptor (kv_shm.h), check the seals and the size, and map it read-only.
 *
 *   offset  size
 *        0     8  magic "RKVPOOL1"
 *        8     8  bytes of the whole file, a multiple of granule
 *       16     8  granule: a power of two, at least 4096
 *       24     8  offset of the table: bytes / granule generations of 8 bytes, little endian; 0: nothing there
 *       32     8  offset of the first data granule
 *
 * What is published stands at one generation over all granules it covers. A reader (under a lease, which
 * keeps the bytes) checks the place, copies, looks whether the generation is still the same, and verifies the
 * CRC.
 *
 * Owner:  the creator; destroying unmaps. Readers keep the memory alive until they unmap too.
 * Thread: publish and retire one thread; reading any.
 * Fails:  EXHAUSTED when the memory is not there; INVALID for a descriptor that is no sealed pool.
 * Bounds: the size given; KV_POOL_GRANULES_MAX table entries. */
#ifndef REELKV_KV_KV_POOL_H
#define REELKV_KV_KV_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { KV_POOL_GRANULES_MAX = 1 << 22, KV_POOL_GRANULE_MIN = 4096 };

/* As proto ShmPlace, without the pool's number. */
struct kv_place {
    uint64_t offset; /* from the pool's start */
    uint64_t length;
    uint64_t generation;
};

struct kv_pool;

/* At most `bytes` in all, header and table included; at least one granule of data. The granule is chosen. */
bool kv_pool_create(struct kv_pool **pool_p, const char *name, uint64_t bytes, struct status *st);
void kv_pool_destroy(struct kv_pool *pool); /* NULL is fine */

/* Maps a part's pages before somebody has to wait for them, in a pool of 256 MiB or more as large pages: the kernel pins
 * each page of what is read from a disk and written to it, which took as long as the check of its checksum. Any thread;
 * what is in them stays. Where the kernel cannot (before Linux 5.14, and 6.1) they come small, and as they are used. */
void kv_pool_populate(const struct kv_pool *pool, uint64_t offset, uint64_t bytes);

uint8_t *kv_pool_base(const struct kv_pool *pool); /* of the whole file, where offsets count from */
uint64_t kv_pool_bytes(const struct kv_pool *pool);
uint64_t kv_pool_granule(const struct kv_pool *pool);
uint64_t kv_pool_data_offset(const struct kv_pool *pool);
int kv_pool_fd(const struct kv_pool *pool); /* stays the pool's */

/* The bytes are written and stay as they are until retired. offset and length are multiples of the granule.
 */
void kv_pool_publish(struct kv_pool *pool, uint64_t offset, uint64_t length, uint64_t generation);
void kv_pool_retire(struct kv_pool *pool, uint64_t offset, uint64_t length);

/* Somebody else's pool, read-only. */
struct kv_pool_reader;

/* Checks seals, size (at most limit_bytes), that all pages are there, and the header. `fd` stays the
 * caller's. */
bool kv_pool_reader_create(struct kv_pool_reader **reader_p, int fd, uint64_t limit_bytes, struct status *st);
void kv_pool_reader_destroy(struct kv_pool_reader *reader); /* NULL is fine */

/* INVALID unless the place lies within the pool's data. Says nothing of generations. */
bool kv_pool_reader_check(const struct kv_pool_reader *reader, const struct kv_place *place,
                          struct status *st);

/* The bytes where they lie, of a checked place. Whoever uses them in place asks kv_pool_reader_is_current()
 * after the last use, and throws the result away when it says no. */
const uint8_t *kv_pool_reader_at(const struct kv_pool_reader *reader, const struct kv_place *place);
bool kv_pool_reader_is_current(const struct kv_pool_reader *reader, const struct kv_place *place);

/* Check, copy, look again, verify. ABORTED: no longer there, fetch again; DATA_LOSS: the CRC does not fit,
 * fetch inline. `to` has place->length bytes and is undefined on failure. */
bool kv_pool_reader_copy(const struct kv_pool_reader *reader, const struct kv_place *place, uint32_t crc32c,
                         void *to, struct status *st);

#endif
