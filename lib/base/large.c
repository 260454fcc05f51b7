#include "base/large.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/require.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

struct large_region {
    uint8_t *memory;
    size_t bytes, used; /* used: handed out, whether given back or not */
    uint32_t pieces;    /* not given back */
};

/* `open` is the region that is being filled; NULL: none. A region without pieces is freed, this one too. */
static struct {
    pthread_mutex_t lock;
    struct large_region *open;
} large = { .lock = PTHREAD_MUTEX_INITIALIZER };

size_t large_bytes(size_t bytes)
{
    return round_up(bytes, LARGE_ALIGN);
}

static struct large_region *region_create(size_t bytes)
{
    struct large_region *region = calloc(1, sizeof *region);
    void *memory;

    if (region == NULL)
        return NULL;
    region->bytes = bytes < LARGE_REGION_BYTES ? LARGE_REGION_BYTES : round_up(bytes, LARGE_PAGE_BYTES);
    if (posix_memalign(&memory, LARGE_PAGE_BYTES, region->bytes) != 0) {
        free(region);
        return NULL;
    }
    region->memory = memory;
    (void)madvise(memory, region->bytes, MADV_HUGEPAGE); /* only speed is at stake */
    ASAN_POISON_MEMORY_REGION(memory, region->bytes);
    return region;
}

static void region_destroy(struct large_region *region)
{
    ASAN_UNPOISON_MEMORY_REGION(region->memory, region->bytes);
    free(region->memory);
    free(region);
}

void *large_alloc(size_t bytes, struct large_region **region_p)
{
    struct large_region *region;
    uint8_t *memory = NULL;

    bytes = large_bytes(bytes);
    pthread_mutex_lock(&large.lock);
    region = large.open;
    if (region == NULL || region->bytes - region->used < bytes)
        region = region_create(bytes);
    if (region != NULL) {
        large.open = region;
        memory = region->memory + region->used;
        region->used += bytes;
        region->pieces++;
        *region_p = region;
    }
    pthread_mutex_unlock(&large.lock);
    if (memory != NULL)
        ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    return memory;
}

void large_free(struct large_region *region, void *memory, size_t bytes)
{
    bool is_last;

    bytes = large_bytes(bytes);
    (void)madvise(memory, bytes, MADV_DONTNEED); /* where not, it goes with its region */
    ASAN_POISON_MEMORY_REGION(memory, bytes);
    pthread_mutex_lock(&large.lock);
    REQUIRE(region->pieces > 0);
    is_last = --region->pieces == 0;
    if (is_last && large.open == region)
        large.open = NULL;
    pthread_mutex_unlock(&large.lock);
    if (is_last)
        region_destroy(region);
}
