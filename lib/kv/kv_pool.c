#include "kv/kv_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/require.h"
#include "kv/kv_crc.h"

#define POOL_MAGIC 0x314c4f4f50564b52ull /* "RKVPOOL1" */
#define SEALS      (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* Of small pools the kernel's work is not worth it. */
enum { LARGE_PAGE_BYTES = 2 << 20, LARGE_POOL_BYTES = 256 << 20 };

/* Where things lie in a pool of a given size and granule. */
struct shape {
    uint64_t bytes, granule, table, data;
};

struct kv_pool {
    int fd;
    struct shape shape;
    uint8_t *base;
};

struct kv_pool_reader {
    struct shape shape;
    const uint8_t *base;
};

static struct shape shape_of(uint64_t bytes, uint64_t granule)
{
    struct shape shape = { .granule = granule, .table = KV_POOL_GRANULE_MIN };

    shape.bytes = bytes / granule * granule;
    shape.data = round_up(shape.table + shape.bytes / granule * sizeof(uint64_t), granule);
    return shape;
}

static _Atomic uint64_t *generation_at(const uint8_t *base, const struct shape *shape, uint64_t offset)
{
    uint64_t at = shape->table + offset / shape->granule * sizeof(uint64_t);

    return (_Atomic uint64_t *)(uintptr_t)(base + at);
}

/* --- the maker's side --- */

/* Where large pages of the file may be mapped as such: at a multiple of their size. MAP_FAILED and errno when it cannot be. */
static uint8_t *map_for_large_pages(int fd, uint64_t bytes)
{
    uint8_t *room =
        mmap(NULL, bytes + LARGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *at, *mapped;

    if (room == MAP_FAILED)
        return MAP_FAILED;
    at = room + -(uintptr_t)room % LARGE_PAGE_BYTES;
    mapped = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (mapped == MAP_FAILED) {
        munmap(room, bytes + LARGE_PAGE_BYTES);
        return MAP_FAILED;
    }
    if (at > room)
        munmap(room, (size_t)(at - room));
    at += round_up(bytes, (uint64_t)getpagesize());
    if (at < room + bytes + LARGE_PAGE_BYTES)
        munmap(at, (size_t)(room + bytes + LARGE_PAGE_BYTES - at));
    return mapped;
}

static bool pool_make_file(struct kv_pool *pool, const char *name, struct status *st)
{
    pool->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (pool->fd < 0)
        return status_fail(st, STATUS_EXHAUSTED, "memfd %s: %m", name);
    /* Reserves every page now: a pool that is short of memory fails here and not in a reader. */
    if (fallocate(pool->fd, 0, 0, (off_t)pool->shape.bytes) != 0)
        return status_fail(st, STATUS_EXHAUSTED, "memory pool %s of %llu bytes: %m; lower its budget", name,
                           (unsigned long long)pool->shape.bytes);
    pool->base = map_for_large_pages(pool->fd, pool->shape.bytes);
    if (pool->base == MAP_FAILED) {
        pool->base = NULL;
        return status_fail(st, STATUS_EXHAUSTED, "map memory pool %s: %m", name);
    }
    /* From here nobody, this process included, can map it for writing again or change its size. */
    if (fcntl(pool->fd, F_ADD_SEALS, SEALS) != 0)
        return status_fail(st, STATUS_INTERNAL, "seal memory pool %s: %m (Linux 5.1 or newer is needed)",
                           name);
    return true;
}

static void pool_write_header(const struct kv_pool *pool)
{
    put_u64(pool->base, POOL_MAGIC);
    put_u64(pool->base + 8, pool->shape.bytes);
    put_u64(pool->base + 16, pool->shape.granule);
    put_u64(pool->base + 24, pool->shape.table);
    put_u64(pool->base + 32, pool->shape.data);
}

bool kv_pool_create(struct kv_pool **pool_p, const char *name, uint64_t bytes, struct status *st)
{
    struct kv_pool *pool;
    uint64_t granule = KV_POOL_GRANULE_MIN, available = memory_available();

    if (available > 0 && bytes > available)
        return status_fail(
            st, STATUS_EXHAUSTED,
            "memory pool %s of %llu bytes: this machine, or its cgroup, has %llu left; lower its budget",
            name, (unsigned long long)bytes, (unsigned long long)available);
    while (bytes / granule > KV_POOL_GRANULES_MAX)
        granule *= 2;
    if (shape_of(bytes, granule).data >= shape_of(bytes, granule).bytes)
        return status_fail(st, STATUS_INVALID, "memory pool %s: %llu bytes are too few", name,
                           (unsigned long long)bytes);
    pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for pool %s", name);
    pool->shape = shape_of(bytes, granule);
    pool->fd = -1;
    if (!pool_make_file(pool, name, st)) {
        kv_pool_destroy(pool);
        return false;
    }
    pool_write_header(pool);
    *pool_p = pool;
    return true;
}

void kv_pool_destroy(struct kv_pool *pool)
{
    if (pool == NULL)
        return;
    if (pool->base != NULL)
        munmap(pool->base, pool->shape.bytes);
    if (pool->fd >= 0)
        close(pool->fd);
    free(pool);
}

void kv_pool_populate(const struct kv_pool *pool, uint64_t offset, uint64_t bytes)
{
    REQUIRE(offset <= pool->shape.bytes);
    REQUIRE(bytes <= pool->shape.bytes - offset);
    /* Only speed is at stake: the pages are reserved. Large ones first: small ones that are mapped already are unmapped one
     * by one for them, which takes three times as long. */
    if (pool->shape.bytes >= LARGE_POOL_BYTES)
        (void)madvise(pool->base + offset, bytes, MADV_COLLAPSE);
    (void)madvise(pool->base + offset, bytes, MADV_POPULATE_WRITE);
}

uint8_t *kv_pool_base(const struct kv_pool *pool)
{
    return pool->base;
}

uint64_t kv_pool_bytes(const struct kv_pool *pool)
{
    return pool->shape.bytes;
}

uint64_t kv_pool_granule(const struct kv_pool *pool)
{
    return pool->shape.granule;
}

uint64_t kv_pool_data_offset(const struct kv_pool *pool)
{
    return pool->shape.data;
}

int kv_pool_fd(const struct kv_pool *pool)
{
    return pool->fd;
}

static void set_generations(struct kv_pool *pool, uint64_t offset, uint64_t length, uint64_t generation,
                            memory_order order)
{
    REQUIRE(offset % pool->shape.granule == 0);
    REQUIRE(length % pool->shape.granule == 0);
    REQUIRE(offset >= pool->shape.data);
    REQUIRE(offset <= pool->shape.bytes);
    REQUIRE(length <= pool->shape.bytes - offset);
    for (uint64_t at = 0; at < length; at += pool->shape.granule)
        atomic_store_explicit(generation_at(pool->base, &pool->shape, offset + at), generation, order);
}

void kv_pool_publish(struct kv_pool *pool, uint64_t offset, uint64_t length, uint64_t generation)
{
    REQUIRE(generation != 0);
    set_generations(pool, offset, length, generation, memory_order_release);
}

void kv_pool_retire(struct kv_pool *pool, uint64_t offset, uint64_t length)
{
    set_generations(pool, offset, length, 0, memory_order_relaxed);
    /* What is written there next must not be seen before the zero: a reader that copied new bytes then finds
     * the generation changed. */
    atomic_thread_fence(memory_order_seq_cst);
}

/* --- the reader's side --- */

static bool check_file(int fd, uint64_t limit_bytes, uint64_t *bytes_p, struct status *st)
{
    struct stat info;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || fstat(fd, &info) != 0)
        return status_fail(st, STATUS_INVALID, "shared pool: not a memory file: %m");
    if ((seals & SEALS) != SEALS)
        return status_fail(st, STATUS_INVALID,
                           "shared pool: seals are 0x%x; SHRINK, GROW, FUTURE_WRITE and SEAL are required",
                           (unsigned)seals);
    if (info.st_size < 2 * KV_POOL_GRANULE_MIN || (uint64_t)info.st_size > limit_bytes)
        return status_fail(st, STATUS_INVALID, "shared pool: %lld bytes; %d to %llu are taken",
                           (long long)info.st_size, 2 * KV_POOL_GRANULE_MIN, (unsigned long long)limit_bytes);
    /* A hole would be filled at the reader's expense, or kill it when memory is out. */
    if ((uint64_t)info.st_blocks * 512 < (uint64_t)info.st_size)
        return status_fail(st, STATUS_INVALID, "shared pool: its maker has not filled all pages");
    *bytes_p = (uint64_t)info.st_size;
    return true;
}

static bool check_header(const uint8_t *base, uint64_t bytes, struct shape *shape_p, struct status *st)
{
    uint64_t granule = get_u64(base + 16);
    struct shape shape;

    if (get_u64(base) != POOL_MAGIC)
        return status_fail(st, STATUS_INVALID, "shared pool: wrong magic");
    if (granule < KV_POOL_GRANULE_MIN || granule > bytes || (granule & (granule - 1)) != 0)
        return status_fail(st, STATUS_INVALID, "shared pool: granule %llu makes no sense",
                           (unsigned long long)granule);
    shape = shape_of(bytes, granule);
    if (get_u64(base + 8) != bytes || shape.bytes != bytes || get_u64(base + 24) != shape.table ||
        get_u64(base + 32) != shape.data || shape.data >= bytes)
        return status_fail(st, STATUS_INVALID, "shared pool: its header does not fit its size");
    *shape_p = shape;
    return true;
}

bool kv_pool_reader_create(struct kv_pool_reader **reader_p, int fd, uint64_t limit_bytes, struct status *st)
{
    struct kv_pool_reader reader = { 0 }, *made;
    uint64_t bytes = 0;
    void *base;

    if (!check_file(fd, limit_bytes, &bytes, st))
        return false;
    base = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return status_fail(st, STATUS_EXHAUSTED, "map shared pool: %m");
    reader.base = base;
    made = check_header(reader.base, bytes, &reader.shape, st) ? malloc(sizeof *made) : NULL;
    if (made == NULL) {
        munmap(base, bytes);
        return reader.shape.bytes == 0 ? false : status_fail(st, STATUS_EXHAUSTED, "no memory for a pool");
    }
    *made = reader;
    *reader_p = made;
    return true;
}

void kv_pool_reader_destroy(struct kv_pool_reader *reader)
{
    if (reader == NULL)
        return;
    munmap((void *)(uintptr_t)reader->base, reader->shape.bytes);
    free(reader);
}

/* By subtraction: offset + length may wrap. */
bool kv_pool_reader_check(const struct kv_pool_reader *reader, const struct kv_place *place,
                          struct status *st)
{
    const struct shape *shape = &reader->shape;

    if (place->offset < shape->data || place->offset > shape->bytes ||
        place->length > shape->bytes - place->offset || place->length == 0)
        return status_fail(st, STATUS_INVALID, "place %llu + %llu lies outside the pool's data",
                           (unsigned long long)place->offset, (unsigned long long)place->length);
    return true;
}

const uint8_t *kv_pool_reader_at(const struct kv_pool_reader *reader, const struct kv_place *place)
{
    REQUIRE(kv_pool_reader_check(reader, place, NULL));
    return reader->base + place->offset;
}

bool kv_pool_reader_is_current(const struct kv_pool_reader *reader, const struct kv_place *place)
{
    uint64_t generation;

    /* The bytes read before this call must not be read after the generation. */
    atomic_thread_fence(memory_order_acquire);
    generation = atomic_load_explicit(generation_at(reader->base, &reader->shape, place->offset),
                                      memory_order_relaxed);
    return generation != 0 && generation == place->generation;
}

bool kv_pool_reader_copy(const struct kv_pool_reader *reader, const struct kv_place *place, uint32_t crc32c,
                         void *to, struct status *st)
{
    uint32_t found;

    if (!kv_pool_reader_check(reader, place, st))
        return false;
    found = kv_crc_copy(0, to, reader->base + place->offset, place->length);
    if (!kv_pool_reader_is_current(reader, place))
        return status_fail(st, STATUS_ABORTED, "the bytes have left shared memory; fetch them again");
    if (found != crc32c)
        return status_fail(st, STATUS_DATA_LOSS, "shared memory: checksum does not fit; fetch inline");
    return true;
}
