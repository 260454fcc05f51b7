/* random.h - numbers that nobody can guess. Thread: any. */
#ifndef REELKV_BASE_RANDOM_H
#define REELKV_BASE_RANDOM_H

#include <stdint.h>
#include <sys/random.h>

#include "base/require.h"

static inline uint64_t random_u64(void)
{
    uint64_t value;

    REQUIRE(getrandom(&value, sizeof value, 0) == sizeof value);
    return value;
}

#endif
