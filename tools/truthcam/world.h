/* world.h - what a truth camera sees: coloured shapes that come, stay a moment in one place, and go.
 *
 * Time is counted in samples of the scoring rate (2 a second, 15 video frames each). An object is wholly in
 * its place at samples first..last and wholly absent at all others, so what a sampled frame shows is never in
 * doubt.
 *
 * All decisions are integer arithmetic from the seed: the same seed gives the same world on every machine. */
#ifndef TRUTHCAM_WORLD_H
#define TRUTHCAM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

enum { VIDEO_WIDTH = 640, VIDEO_HEIGHT = 360, VIDEO_FPS = 30, FRAMES_PER_SAMPLE = 15 };
enum { ENTER_FRAMES = 5, LEAVE_FRAMES = 5, STAY_FRAMES = 3 }; /* around the first and after the last sample */
enum { SHAPES = 5, COLORS = 6, PLACES = 5, KINDS_OF_OBJECT = SHAPES * COLORS };
enum { SCENE_SAMPLES_MAX = 4, SCENE_OBJECTS_MAX = 3, APPEARANCES_MAX = 3, EVIDENCE_SAMPLES_MAX = 8 };
enum {
    QUIET_END_SAMPLES = 24
}; /* nothing new in the last seconds: questions about the past are about the past */
enum { SECONDS_MAX = 20000, OBJECTS_MAX = 8192, QUESTIONS_MAX = 10000 };

extern const char *const shape_names[SHAPES];
extern const char *const color_names[COLORS];
extern const char *const place_names[PLACES];   /* "top left" */
extern const char *const place_phrases[PLACES]; /* "at the top left", "in the center" */

enum profile { PROFILE_DEMO, PROFILE_SCORE, PROFILE_LONG, PROFILES };
extern const char *const profile_names[PROFILES];

struct object {
    uint8_t shape, color, place;
    uint32_t first, last; /* samples in which it is in view, inclusive */
};

struct world {
    uint64_t seed;
    uint32_t seconds;
    uint32_t samples; /* seconds * 2 */
    enum profile profile;
    struct object objects[OBJECTS_MAX]; /* by first sample; those of one scene share first and last */
    uint32_t object_count;
};

/* splitmix64 */
struct dice {
    uint64_t state;
};
uint64_t dice_roll(struct dice *dice);
uint32_t dice_below(struct dice *dice, uint32_t bound); /* 0..bound-1; bound >= 1 */

/* Fills *world; seconds is at most SECONDS_MAX. */
void world_make(struct world *world, uint64_t seed, uint32_t seconds, enum profile profile);

/* Video frames [*begin, *end) in which any part of the object shows. */
void object_frames(const struct object *object, uint32_t *begin, uint32_t *end);

#endif
