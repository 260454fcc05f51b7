/* sim_random.h - numbers that follow from a seed (splitmix64: Steele, Lea, Flood, OOPSLA 2014). */
#ifndef REELKV_TEST_SIM_RANDOM_H
#define REELKV_TEST_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_next(struct sim_random *random)
{
    uint64_t mix = random->state += 0x9e3779b97f4a7c15ull;

    mix = (mix ^ (mix >> 30)) * 0xbf58476d1ce4e5b9ull;
    mix = (mix ^ (mix >> 27)) * 0x94d049bb133111ebull;
    return mix ^ (mix >> 31);
}

/* 0 to n - 1. */
static inline uint32_t sim_pick(struct sim_random *random, uint32_t n)
{
    return (uint32_t)(sim_next(random) % n);
}

static inline bool sim_chance(struct sim_random *random, uint32_t percent)
{
    return sim_pick(random, 100) < percent;
}

#endif
