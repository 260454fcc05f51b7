/* store_story.h - one run of the store on the simulated disk: cameras are defined, written, rewritten, ended and removed;
 * the power fails at some call, or the process is killed, or some calls or allocations fail, or calls fail and the power goes
 * in the same life (a quarter of the stories); the store starts again, and what it then says is held against what it had acked.
 *
 * What must hold after every crash, whatever failed before it: a stream whose definition was acked is there, one whose removal
 * was acked is not; a frame or gap that was durable is there, byte for byte, or answers that it was evicted; a frame is right or is not there,
 * never damaged, but where a byte of it rotted; the scrub finds each of these and nothing else; no file has what a receipt
 * was given for; numbers and epochs go on; the disk never holds more than its budget; and all memory is given back. */
#ifndef REELKV_TEST_STORE_STORY_H
#define REELKV_TEST_STORE_STORY_H

#include <stdbool.h>
#include <stdint.h>

/* What happened: so that stories in which nothing does are seen. */
struct store_story {
    uint64_t crashes, failed_calls, kept, refused, frames, rewritten, evicted, forgotten, rotten, scrubbed;
    uint64_t calls, asked; /* of the life in which one thing goes wrong: calls of the disk, allocations */
    bool had_room; /* of the last one: there was always room for one more segment, and one rewritten */
};

/* What goes wrong. */
enum store_trouble {
    STORE_TROUBLE_ANY,    /* as the seed says */
    STORE_TROUBLE_CUTS,   /* the power alone */
    STORE_TROUBLE_DISK,   /* in the second life, one call: the n-th */
    STORE_TROUBLE_MEMORY, /* in the second life, one allocation: the n-th */
};

struct store_plan {
    enum store_trouble trouble;
    uint64_t n; /* 0: nothing goes wrong */
    int error;  /* of a call; 0: it moves a part of what it could */
};

/* Fails the running test (support/test.h) when something does not hold. */
void store_story_run(uint64_t seed, const struct store_plan *plan, struct store_story *story);

#endif
