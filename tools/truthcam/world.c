#include "world.h"

#include <string.h>

#include "base/require.h"

const char *const shape_names[SHAPES] = { "circle", "square", "triangle", "star", "cross" };
const char *const color_names[COLORS] = { "red", "green", "blue", "yellow", "purple", "white" };
const char *const place_names[PLACES] = { "top left", "top right", "bottom left", "bottom right", "center" };
const char *const place_phrases[PLACES] = { "at the top left", "at the top right", "at the bottom left",
                                            "at the bottom right", "in the center" };
const char *const profile_names[PROFILES] = { "demo", "score", "long" };

/* How dense a profile is. Gaps are the empty samples between scenes; one in eight gaps is a long one. */
static const struct {
    uint32_t gap_min, gap_max, long_gap_min, long_gap_max;
} pace[PROFILES] = {
    [PROFILE_DEMO] = { 4, 9, 12, 18 },
    [PROFILE_SCORE] = { 8, 20, 30, 50 },
    [PROFILE_LONG] = { 30, 120, 200, 600 },
};

uint64_t dice_roll(struct dice *dice)
{
    uint64_t z = dice->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t dice_below(struct dice *dice, uint32_t bound)
{
    return (uint32_t)(((dice_roll(dice) >> 32) * bound) >> 32);
}

static uint32_t dice_between(struct dice *dice, uint32_t low, uint32_t high)
{
    return low + dice_below(dice, high - low + 1);
}

/* Rare kinds fill about this much of a lively video; a longer one needs common kinds to go on. */
enum { RARE_KINDS_LAST_SECONDS = 180 };

/* What may appear how often. In long videos three shapes in four colours (which ones depends on the seed) are
 * common and come again and again; everything else is rare, so that there is something left to ask about.
 * About half of the rare kinds never appear at all, a quarter once. */
struct casting {
    bool common[KINDS_OF_OBJECT];
    uint8_t limit[KINDS_OF_OBJECT]; /* appearances of a rare kind: none, one, or up to APPEARANCES_MAX */
    uint32_t appearances[KINDS_OF_OBJECT];
    uint32_t samples_seen[KINDS_OF_OBJECT];
};

static void shuffle(struct dice *dice, uint8_t *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        list[i] = (uint8_t)i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = dice_below(dice, i);
        uint8_t swap = list[i - 1];

        list[i - 1] = list[j];
        list[j] = swap;
    }
}

static void cast(struct casting *casting, struct dice *dice, bool long_video)
{
    static const uint8_t limits[] = { 0, 0, 0, 0, 1, 1, 2, APPEARANCES_MAX };
    uint8_t shapes[SHAPES], colors[COLORS];

    memset(casting, 0, sizeof *casting);
    shuffle(dice, shapes, SHAPES);
    shuffle(dice, colors, COLORS);
    for (uint32_t s = 0; s < SHAPES; s++) {
        for (uint32_t c = 0; c < COLORS; c++) {
            uint32_t kind = (uint32_t)shapes[s] * COLORS + colors[c];

            casting->common[kind] = long_video && s < 3 && c < 4;
            casting->limit[kind] = limits[dice_below(dice, ARRAY_LEN(limits))];
        }
    }
}

static bool may_appear(const struct casting *casting, uint32_t kind, uint32_t samples)
{
    return casting->common[kind] || (casting->appearances[kind] < casting->limit[kind] &&
                                     casting->samples_seen[kind] + samples <= EVIDENCE_SAMPLES_MAX);
}

/* A kind for the next object of a scene: sometimes one that was here before, else any that may appear. */
static bool pick_kind(struct casting *casting, struct dice *dice, uint32_t samples, const bool *taken,
                      uint32_t *kind_p)
{
    bool again = dice_below(dice, 5) == 0;

    for (int attempt = 0; attempt < 60; attempt++) {
        uint32_t kind = dice_below(dice, KINDS_OF_OBJECT);

        if (taken[kind] || !may_appear(casting, kind, samples))
            continue;
        if (attempt < 40 && again != (casting->appearances[kind] > 0))
            continue;
        *kind_p = kind;
        return true;
    }
    return false;
}

static void add_scene(struct world *world, struct casting *casting, struct dice *dice, uint32_t first)
{
    uint32_t samples = dice_between(dice, 1, SCENE_SAMPLES_MAX), many = dice_below(dice, 10);
    uint32_t count = many < 5 ? 1 : many < 8 ? 2 : SCENE_OBJECTS_MAX, kind;
    bool taken[KINDS_OF_OBJECT] = { false };
    uint8_t places[PLACES];

    shuffle(dice, places, PLACES);
    for (uint32_t i = 0; i < count && world->object_count < OBJECTS_MAX; i++) {
        if (!pick_kind(casting, dice, samples, taken, &kind))
            return;
        taken[kind] = true;
        casting->appearances[kind]++;
        casting->samples_seen[kind] += samples;
        world->objects[world->object_count++] = (struct object){
            .shape = (uint8_t)(kind / COLORS),
            .color = (uint8_t)(kind % COLORS),
            .place = places[i],
            .first = first,
            .last = first + samples - 1,
        };
    }
}

void world_make(struct world *world, uint64_t seed, uint32_t seconds, enum profile profile)
{
    struct dice dice = { seed * 2654435761u + 1 };
    struct casting casting;
    uint32_t at;

    memset(world, 0, sizeof *world);
    world->seed = seed;
    world->seconds = seconds;
    world->samples = seconds * VIDEO_FPS / FRAMES_PER_SAMPLE;
    world->profile = profile;
    cast(&casting, &dice, profile == PROFILE_LONG || seconds > RARE_KINDS_LAST_SECONDS);
    for (at = 2 + dice_below(&dice, 4); at + SCENE_SAMPLES_MAX + QUIET_END_SAMPLES < world->samples;) {
        bool quiet = dice_below(&dice, 8) == 0;

        add_scene(world, &casting, &dice, at);
        at += SCENE_SAMPLES_MAX +
              (quiet ? dice_between(&dice, pace[profile].long_gap_min, pace[profile].long_gap_max)
                     : dice_between(&dice, pace[profile].gap_min, pace[profile].gap_max));
    }
}

void object_frames(const struct object *object, uint32_t *begin, uint32_t *end)
{
    *begin = object->first * FRAMES_PER_SAMPLE - ENTER_FRAMES;
    *end = object->last * FRAMES_PER_SAMPLE + STAY_FRAMES + LEAVE_FRAMES;
}
