/* Memory in large pages: pieces do not touch each other, whoever takes and gives them; what is given back is the kernel's. */
#include "base/large.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "support/test.h"

enum { THREADS = 4, PIECES = 48, PIECE_BYTES_MAX = 3 << 20 };

struct piece {
    uint8_t *memory;
    size_t bytes;
    struct large_region *region;
};

struct taker {
    pthread_t thread;
    uint32_t state;
    uint32_t wrong; /* pieces that were not as they were left */
};

static uint32_t next(struct taker *taker, uint32_t below)
{
    taker->state = taker->state * 1664525 + 1013904223;
    return (taker->state >> 8) % below;
}

static bool take(struct piece *piece, size_t bytes)
{
    piece->bytes = bytes;
    piece->memory = large_alloc(bytes, &piece->region);
    return piece->memory != NULL;
}

static void give(struct piece *piece)
{
    large_free(piece->region, piece->memory, piece->bytes);
    piece->memory = NULL;
}

static bool is_filled(const struct piece *piece, uint8_t with)
{
    for (size_t i = 0; i < piece->bytes; i++)
        if (piece->memory[i] != with)
            return false;
    return true;
}

/* Takes pieces and gives them back in any order; what it wrote to one must be there until then. */
static void *take_and_give(void *arg)
{
    struct taker *taker = arg;
    struct piece pieces[PIECES] = { 0 };

    for (uint32_t turn = 0; turn < 8 * PIECES; turn++) {
        uint32_t n = next(taker, PIECES);
        struct piece *piece = &pieces[n];

        if (piece->memory == NULL) {
            if (!take(piece, 1 + next(taker, turn % 8 == 0 ? PIECE_BYTES_MAX : 100000)))
                taker->wrong++;
            else
                memset(piece->memory, (int)n + 1, piece->bytes);
        } else {
            taker->wrong += !is_filled(piece, (uint8_t)(n + 1));
            give(piece);
        }
    }
    for (uint32_t n = 0; n < PIECES; n++)
        if (pieces[n].memory != NULL) {
            taker->wrong += !is_filled(&pieces[n], (uint8_t)(n + 1));
            give(&pieces[n]);
        }
    return NULL;
}

TEST(pieces_of_many_threads_do_not_touch_each_other)
{
    struct taker takers[THREADS] = { 0 };

    for (uint32_t i = 0; i < THREADS; i++) {
        takers[i].state = i;
        CHECK_EQ(pthread_create(&takers[i].thread, NULL, take_and_give, &takers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(takers[i].thread, NULL);
        CHECK_EQ(takers[i].wrong, 0);
    }
}

TEST(pieces_stand_one_behind_the_other_on_pages_of_their_own)
{
    struct piece a, b, c;

    CHECK(take(&a, 458752) && take(&b, 100001) && take(&c, 1));
    CHECK_EQ((uintptr_t)a.memory % LARGE_PAGE_BYTES, 0);
    CHECK_EQ(b.memory - a.memory, 458752);
    CHECK_EQ(c.memory - b.memory, (ptrdiff_t)large_bytes(100001));
    CHECK_EQ(large_bytes(100001), 102400);
    CHECK(a.region == b.region && b.region == c.region);
    give(&b);
    give(&a);
    give(&c);
}

/* Pages of [at, at + bytes) that are in memory. */
static uint32_t resident_pages(void *at, size_t bytes)
{
    unsigned char pages[PIECE_BYTES_MAX / LARGE_ALIGN];
    uint32_t count = 0;

    CHECK_EQ(mincore(at, bytes, pages), 0);
    for (size_t i = 0; i < bytes / LARGE_ALIGN; i++)
        count += pages[i] & 1;
    return count;
}

TEST(what_is_given_back_is_the_kernels_at_once)
{
    struct piece before, piece, behind;
    size_t bytes = 40 * LARGE_ALIGN;

    CHECK(take(&before, bytes) && take(&piece, bytes) && take(&behind, bytes));
    memset(before.memory, 1, bytes);
    memset(piece.memory, 2, bytes);
    memset(behind.memory, 3, bytes);
    CHECK_EQ(resident_pages(piece.memory, bytes), 40);
    give(&piece);
    CHECK_EQ(resident_pages(before.memory + bytes, bytes), 0);
    CHECK(is_filled(&before, 1) && is_filled(&behind, 3));
    give(&before);
    give(&behind);
}

TEST(what_is_larger_than_a_region_has_one_of_its_own)
{
    struct piece small, large, next;

    CHECK(take(&small, 1 << 20) && take(&large, LARGE_REGION_BYTES + 1) && take(&next, 1 << 20));
    memset(large.memory, 7, large.bytes);
    CHECK(large.region != small.region);
    CHECK_EQ((uintptr_t)large.memory % LARGE_PAGE_BYTES, 0);
    CHECK(is_filled(&large, 7));
    give(&next);
    give(&small);
    give(&large);
}

TEST_MAIN()
