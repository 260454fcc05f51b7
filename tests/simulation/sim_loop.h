/* sim_loop.h - the loop and its pools (loop/loop.h, loop/work_pool.h) as one thread and one seed: which of the things that
 * may happen next does, the seed says; time passes only when a timer is waited for.
 *
 * A program that links this instead of lib/loop runs the code above it unchanged, with the same events in the same order
 * for the same seed. Works of a pool of n threads start in order and end in any order among the n oldest.
 *
 * Thread: one. Bounds: as the real ones. Fails: a loop that waits with nothing left to happen is a failed REQUIRE. */
#ifndef REELKV_TEST_SIM_LOOP_H
#define REELKV_TEST_SIM_LOOP_H

#include "loop/loop.h"
#include "sim_random.h"

/* From now on clocks, getrandom() and the order of events follow from the seed. */
void sim_start(uint64_t seed);
void sim_stop(void);
/* After sim_stop(): time goes on from where it was, what happens next follows from this seed. */
void sim_go_on(uint64_t seed);

/* What the simulation itself draws from. */
struct sim_random *sim_random(void);

#endif
