/* store_story.h - one run of the store on the simulated disk: cameras are defined, written, ended and removed; the
 * power fails at some call, or some calls fail; the store starts again, and what it then says is held against what it had
 * acked.
 *
 * What must hold after every crash: a stream whose definition was acked is there, one whose removal was acked is not; a
 * frame or gap that was durable is there, byte for byte, or answers that it was evicted; a frame is right or is not there,
 * never damaged; numbers and epochs go on; the disk never holds more than its budget. */
#ifndef REELKV_TEST_STORE_STORY_H
#define REELKV_TEST_STORE_STORY_H

#include <stdbool.h>
#include <stdint.h>

/* What happened: so that stories in which nothing does are seen. */
struct store_story {
    uint64_t crashes, failed_calls, frames, rewritten, evicted, forgotten;
};

/* Fails the running test (support/test.h) when something does not hold. `only_cuts`: no call fails while there is power. */
void store_story_run(uint64_t seed, bool only_cuts, struct store_story *story);

#endif
