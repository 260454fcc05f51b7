/* Bounds of sketches: no key's score is above its bound, whatever the numbers; every variant gives the same; and they are near
 * enough to be of use. */
#include "kv/kv_sketch.h"

#include <float.h>
#include <malloc.h>
#include <stdlib.h>

#include "base/number.h"
#include "kv/kv_score.h"
#include "kv/kv_sketch_simd.h"
#include "support/test.h"

enum { DIMS_MAX = 1024, SIDES = KV_SKETCH_SIDE };

/* How the numbers of keys and queries are made. */
enum pattern { BELL, COMMON, SPIKE, ALIKE, SIGNS, TINY, SUBNORMAL, LARGE, ZERO, PATTERNS };

struct scene {
    struct kv_geometry geometry;
    uint32_t dims;
    uint8_t *keys;     /* [SIDES][KV_SKETCH_KEYS][dims] of its dtype */
    uint8_t *sketches; /* [SIDES] */
    float query[DIMS_MAX];
    struct kv_sketch_run run;
};

static uint32_t state = 777;

static float even(void)
{
    state = state * 1664525 + 1013904223;
    return (float)(state >> 8) / (float)(1 << 24) - 0.5f;
}

static float bell(void)
{
    return even() + even() + even() + even();
}

static float made_number(enum pattern pattern, uint32_t key, uint32_t at)
{
    switch (pattern) {
    case COMMON: /* what keys share is large beside what tells them apart */
        return 30 * sinf((float)at) + bell() / 4;
    case SPIKE:
        return at == key ? 1000 : bell() / 100;
    case ALIKE:
        return 0.37f;
    case SIGNS:
        return (at * 2654435761u >> 13 & 1) != 0 ? 1 : -1;
    case TINY:
        return bell() * 1e-25f;
    case SUBNORMAL:
        return bell() * 1e-41f;
    case LARGE:
        return bell() * 1e15f;
    case ZERO:
        return 0;
    default:
        return bell();
    }
}

static size_t key_bytes(const struct scene *scene)
{
    return (size_t)kv_key_bytes(&scene->geometry);
}

static uint8_t *key_at(const struct scene *scene, uint32_t side, uint32_t key)
{
    return scene->keys + ((size_t)side * KV_SKETCH_KEYS + key) * key_bytes(scene);
}

static void put_number(const struct scene *scene, uint8_t *key, uint32_t at, float number)
{
    uint16_t half = scene->geometry.dtype == KV_DTYPE_F16 ? number_f16_of_f32(number)
                                                          : (uint16_t)(number_bits_of_f32(number) >> 16);

    if (scene->geometry.dtype == KV_DTYPE_F32)
        memcpy(key + 4 * (size_t)at, &number, sizeof number);
    else
        memcpy(key + 2 * (size_t)at, &half, sizeof half);
}

static void scene_start(struct scene *scene, enum kv_dtype dtype, uint32_t dims)
{
    uint64_t bytes;

    *scene = (struct scene){ .geometry = { .layers = 1, .kv_heads = 1, .head_dim = dims, .dtype = dtype },
                             .dims = dims };
    bytes = kv_sketch_bytes(&scene->geometry);
    CHECK(bytes > 0 && bytes % 64 == 0);
    scene->keys = malloc(SIDES * KV_SKETCH_KEYS * key_bytes(scene));
    scene->sketches = aligned_alloc(64, SIDES * bytes);
    CHECK(scene->keys != NULL && scene->sketches != NULL);
    for (uint32_t i = 0; i < SIDES; i++)
        scene->run.at[i] = scene->run.ahead[i] = scene->sketches + i * bytes;
    scene->run.count = SIDES;
}

static void scene_stop(struct scene *scene)
{
    free(scene->keys);
    free(scene->sketches);
}

/* What makes them: this processor's way, or every processor's. */
static bool (*make)(const struct kv_geometry *geometry, const void *keys, uint32_t count,
                    void *sketch) = kv_sketch_make;

static bool make_sketch(const struct scene *scene, uint32_t side)
{
    return make(&scene->geometry, key_at(scene, side, 0), KV_SKETCH_KEYS,
                (void *)(uintptr_t)scene->run.at[side]);
}

static void make_scene(struct scene *scene, enum pattern keys, enum pattern query)
{
    for (uint32_t side = 0; side < SIDES; side++) {
        for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
            for (uint32_t i = 0; i < scene->dims; i++)
                put_number(scene, key_at(scene, side, key), i, made_number(keys, key, i));
        CHECK(make_sketch(scene, side));
    }
    for (uint32_t i = 0; i < scene->dims; i++)
        scene->query[i] = made_number(query, 3, i);
}

static void score_exactly(const struct scene *scene, uint32_t side, float scores[KV_SKETCH_KEYS])
{
    const void *at[KV_SKETCH_KEYS];

    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
        at[key] = key_at(scene, side, key);
    kv_score_ops()->of_dtype[scene->geometry.dtype](
        scene->query, &(struct kv_score_keys){ at, NULL, KV_SKETCH_KEYS, scene->dims }, scores);
}

/* The least and the most that bounds are above scores, when they are refined. */
static void check_bounds(const struct scene *scene, double *least, double *most)
{
    struct kv_sketch_query *query = kv_sketch_query_create(scene->query, scene->dims);
    const struct kv_sketch_ops *ops = kv_sketch_ops();
    float bounds[SIDES][KV_SKETCH_KEYS], scores[KV_SKETCH_KEYS];
    struct kv_sketch_run run = scene->run;

    CHECK(query != NULL);
    *least = INFINITY;
    *most = 0;
    for (uint32_t side = 0; side < SIDES; side++)
        run.bounds[side] = bounds[side];
    ops->bounds(query, &run);
    for (uint32_t side = 0; side < SIDES; side++) {
        score_exactly(scene, side, scores);
        for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++) {
            float refined = ops->refine(query, run.at[side], key, bounds[side][key]);
            double above = (double)refined - (double)scores[key];

            CHECK(bounds[side][key] >= scores[key] && refined >= scores[key]);
            *least = fmin(*least, above);
            *most = fmax(*most, above);
        }
    }
    kv_sketch_query_destroy(query);
}

static void check_all_patterns(void)
{
    static const uint32_t all_dims[] = { 256, 512, 1000, 1024 };
    struct scene scene;
    double least, most;

    for (size_t d = 0; d < ARRAY_LEN(all_dims); d++)
        for (int dtype = KV_DTYPE_F32; dtype <= KV_DTYPE_BF16; dtype++) {
            scene_start(&scene, dtype, all_dims[d]);
            for (int keys = 0; keys < PATTERNS; keys++)
                for (int query = 0; query < PATTERNS; query++) {
                    if (keys == LARGE && dtype == KV_DTYPE_F16)
                        continue; /* it has no such numbers */
                    make_scene(&scene, keys, query);
                    check_bounds(&scene, &least, &most);
                }
            scene_stop(&scene);
        }
}

TEST(no_score_is_above_its_bound)
{
    check_all_patterns();
}

TEST(no_score_is_above_its_bound_on_any_processor)
{
    make = kv_sketch_make_portable;
    check_all_patterns();
    make = kv_sketch_make;
}

/* The query points from what a sketch keeps to the key itself, where the bound is hardest to keep. */
TEST(no_score_is_above_its_bound_where_rounding_is_what_is_asked_for)
{
    struct scene scene;
    double least, most;

    scene_start(&scene, KV_DTYPE_F32, 512);
    for (unsigned round = 0; round < 200; round++) {
        float step;

        make_scene(&scene, BELL, BELL);
        step = 2.0f / 63;
        for (uint32_t i = 0; i < scene.dims;
             i++) { /* codes of numbers from -1 to 1, each off by almost half a step */
            float kept = -1 + step * floorf((even() + 0.5f) * 62);

            scene.query[i] = even() > 0 ? 1 : -1;
            for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
                put_number(&scene, key_at(&scene, 0, key), i,
                           i == 0   ? 1
                           : i == 1 ? -1
                                    : kept + scene.query[i] * step * 0.4999f);
        }
        CHECK(make_sketch(&scene, 0));
        check_bounds(&scene, &least, &most);
    }
    scene_stop(&scene);
}

/* What a sketch has of a number, by five bits or by six. */
static double kept_number(const struct scene *scene, uint32_t key, uint32_t at, bool by_six)
{
    const uint8_t *sketch = scene->run.at[0];
    uint32_t filled = kv_sketch_fill_up(scene->dims), half = at % KV_SKETCH_BLOCK / 128, lane = at % 128;
    const struct kv_sketch_measures *measures = kv_sketch_measures_of(sketch, filled);
    uint64_t byte = kv_sketch_upper_at(filled, key) + at / KV_SKETCH_BLOCK * 128 + half * 64 + lane % 64;
    unsigned fifth = sketch[kv_sketch_fifth_at(filled, key) + at / 8] >> at % 8 & 1,
             sixth = sketch[kv_sketch_sixth_at(filled, key) + at / 8] >> at % 8 & 1;
    unsigned five = (sketch[byte] >> (lane < 64 ? 0 : 4) & 15) * 2 + fifth;
    int centre = sketch[kv_sketch_centre_at(filled) + at] - KV_SKETCH_CENTRE_ZERO;

    return (double)measures->centre_scale * centre +
           (double)number_f32_of_bf16(measures->scale[key]) * (2 * five + (by_six ? sixth : 0.5) - 31.5);
}

/* Towards what the sketch has not of the key, in whole codes: nothing of the query is lost. */
static void ask_for_the_rest(struct scene *scene, uint32_t key, bool by_six)
{
    float largest = 0;

    for (uint32_t i = 0; i < scene->dims; i++) {
        float number = number_f32_of_bits(get_u32(key_at(scene, 0, key) + 4 * (size_t)i));

        scene->query[i] = (float)((double)number - kept_number(scene, key, i, by_six));
        largest = fmaxf(largest, fabsf(scene->query[i]));
    }
    for (uint32_t i = 0; i < scene->dims && largest > 0; i++)
        scene->query[i] = rintf(scene->query[i] / largest * 127);
}

/* There the bound is the score but for what its parts are rounded up by. */
TEST(no_score_is_above_its_bound_by_a_query_for_all_that_was_lost)
{
    static const enum pattern patterns[] = { SPIKE, BELL, COMMON, SIGNS };
    struct scene scene;
    double least, most;

    scene_start(&scene, KV_DTYPE_F32, 512);
    for (size_t i = 0; i < 2 * ARRAY_LEN(patterns); i++) {
        make = i % 2 == 0 ? kv_sketch_make : kv_sketch_make_portable;
        make_scene(&scene, patterns[i / 2], BELL);
        for (uint32_t key = 0; key < 2 * KV_SKETCH_KEYS; key++) {
            ask_for_the_rest(&scene, key / 2, key % 2 == 0);
            check_bounds(&scene, &least, &most);
        }
    }
    make = kv_sketch_make;
    scene_stop(&scene);
}

/* Lengths of so few units of the least number are rounded by tenths. */
TEST(no_score_is_above_its_bound_by_a_query_of_the_least_numbers)
{
    struct scene scene;
    double least, most;

    scene_start(&scene, KV_DTYPE_F32, 256);
    make_scene(&scene, LARGE, ZERO);
    for (uint32_t count = 1; count < 40; count++) {
        for (uint32_t side = 0; side < SIDES; side++)
            for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
                for (uint32_t i = 0; i < scene.dims; i++)
                    put_number(&scene, key_at(&scene, side, key), i, i < count ? 1e15f : 0);
        for (uint32_t side = 0; side < SIDES; side++)
            CHECK(make_sketch(&scene, side));
        for (uint32_t i = 0; i < count; i++)
            scene.query[i] = 1e-45f * (float)(1 + count % 5);
        check_bounds(&scene, &least, &most);
    }
    scene_stop(&scene);
}

TEST(bounds_are_within_a_twentieth_of_the_lengths)
{
    struct scene scene;
    double least, most, query = 0;

    scene_start(&scene, KV_DTYPE_F16, 512);
    make_scene(&scene, BELL, BELL);
    for (uint32_t i = 0; i < scene.dims; i++)
        query += (double)scene.query[i] * (double)scene.query[i];
    check_bounds(&scene, &least, &most);
    CHECK(most < query / 20);         /* keys are as long as it is */
    make_scene(&scene, COMMON, BELL); /* 80 times as long, in common */
    check_bounds(&scene, &least, &most);
    CHECK(most < query / 20);
    scene_stop(&scene);
}

/* How far all bounds of a scene are above the scores, on average. */
static double mean_above(const struct scene *scene, bool refined)
{
    struct kv_sketch_query *query = kv_sketch_query_create(scene->query, scene->dims);
    float bounds[SIDES][KV_SKETCH_KEYS], scores[KV_SKETCH_KEYS];
    struct kv_sketch_run run = scene->run;
    double sum = 0;

    CHECK(query != NULL);
    for (uint32_t side = 0; side < SIDES; side++)
        run.bounds[side] = bounds[side];
    kv_sketch_ops()->bounds(query, &run);
    for (uint32_t side = 0; side < SIDES; side++) {
        score_exactly(scene, side, scores);
        for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
            sum += (double)(refined ? kv_sketch_ops()->refine(query, run.at[side], key, bounds[side][key])
                                    : bounds[side][key]) -
                   (double)scores[key];
    }
    kv_sketch_query_destroy(query);
    return sum / (SIDES * KV_SKETCH_KEYS);
}

TEST(the_sixth_bits_take_a_third_off_what_bounds_are_above_scores)
{
    static const enum pattern patterns[] = { BELL, COMMON };
    struct scene scene;

    scene_start(&scene, KV_DTYPE_F16, 512);
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        make_scene(&scene, patterns[i], BELL);
        CHECK(3 * mean_above(&scene, true) < 2 * mean_above(&scene, false));
    }
    scene_stop(&scene);
}

/* The rest of the memory is not looked at. */
TEST(a_sketch_may_be_of_fewer_keys)
{
    struct scene scene;
    double least, most;

    scene_start(&scene, KV_DTYPE_F32, 256);
    make_scene(&scene, COMMON, BELL);
    for (uint32_t count = 1; count < KV_SKETCH_KEYS; count++) {
        for (uint32_t i = 0; i < scene.dims; i++)
            put_number(&scene, key_at(&scene, 0, count), i, NAN);
        CHECK(
            kv_sketch_make(&scene.geometry, key_at(&scene, 0, 0), count, (void *)(uintptr_t)scene.run.at[0]));
        for (uint32_t i = 0; i < scene.dims; i++) /* as what stands there when they are compared */
            put_number(&scene, key_at(&scene, 0, count), i, made_number(COMMON, 0, i));
        for (uint32_t key = count; key < KV_SKETCH_KEYS; key++)
            memcpy(key_at(&scene, 0, key), key_at(&scene, 0, key % count), key_bytes(&scene));
        check_bounds(&scene, &least, &most);
        make_scene(&scene, COMMON, BELL);
    }
    scene_stop(&scene);
}

TEST(every_variant_gives_the_same_bounds)
{
    struct scene scene;

    scene_start(&scene, KV_DTYPE_F16, 512);
    for (int keys = 0; keys < PATTERNS; keys++) {
        float want[SIDES][KV_SKETCH_KEYS], got[SIDES][KV_SKETCH_KEYS];
        struct kv_sketch_query *query;

        if (keys == LARGE)
            continue;
        make_scene(&scene, keys, BELL);
        query = kv_sketch_query_create(scene.query, scene.dims);
        CHECK(query != NULL);
        for (size_t v = 0; kv_sketch_ops_at(v) != NULL; v++) {
            for (scene.run.count = SIDES; scene.run.count > 0; scene.run.count--) {
                for (uint32_t side = 0; side < SIDES; side++)
                    scene.run.bounds[side] = v == 0 && scene.run.count == SIDES ? want[side] : got[side];
                kv_sketch_ops_at(v)->bounds(query, &scene.run);
                if (v > 0 || scene.run.count < SIDES)
                    CHECK_MEM(got, want, scene.run.count * sizeof *got);
            }
            for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
                CHECK(kv_sketch_ops_at(v)->refine(query, scene.run.at[1], key, want[1][key]) ==
                      kv_sketch_ops_at(0)->refine(query, scene.run.at[1], key, want[1][key]));
        }
        scene.run.count = SIDES;
        kv_sketch_query_destroy(query);
    }
    scene_stop(&scene);
}

/* What comes next need not be there. */
TEST(bounds_do_not_read_what_is_ahead)
{
    struct scene scene;
    double least, most;

    scene_start(&scene, KV_DTYPE_BF16, 256);
    make_scene(&scene, BELL, BELL);
    for (uint32_t i = 0; i < SIDES; i++)
        scene.run.ahead[i] = (const void *)(uintptr_t)(i % 2 == 0 ? 64 * i : UINT64_MAX - 65536);
    check_bounds(&scene, &least, &most);
    scene_stop(&scene);
}

/* Such keys and queries are scored as they are. */
TEST(what_cannot_be_added_up_has_no_sketch)
{
    static const float broken[] = { NAN, INFINITY, -INFINITY, 3e38f, 1e19f };
    struct scene scene;

    scene_start(&scene, KV_DTYPE_F32, 256);
    for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
        make_scene(&scene, BELL, BELL);
        put_number(&scene, key_at(&scene, 1, 7), 100, broken[i]);
        CHECK(!make_sketch(&scene, 1));
        CHECK(make_sketch(&scene, 2));
        scene.query[9] = broken[i];
        CHECK(kv_sketch_query_create(scene.query, scene.dims) == NULL);
    }
    scene_stop(&scene);
}

/* --- what is freed --- */

static const void *searched; /* in all that is freed; NULL: nothing */
static size_t searched_bytes;
static bool was_found;

void __real_free(void *memory);
void __wrap_free(void *memory);

void __wrap_free(void *memory)
{
    if (memory != NULL && searched != NULL)
        was_found |= memmem(memory, malloc_usable_size(memory), searched, searched_bytes) != NULL;
    __real_free(memory);
}

/* The keys stayed on the heap, for whoever got that memory next; a receipt says that they are nowhere. */
TEST(nothing_of_a_key_is_left_on_the_heap)
{
    static bool (*const makers[])(const struct kv_geometry *geometry, const void *keys, uint32_t count,
                                  void *sketch) = { kv_sketch_make, kv_sketch_make_portable };
    struct scene scene;

    scene_start(&scene, KV_DTYPE_F32, 256);
    make_scene(&scene, BELL, BELL); /* no centre: the numbers that are worked with are the key's */
    searched = key_at(&scene, 0, 3);
    searched_bytes = 64;
    for (size_t i = 0; i < ARRAY_LEN(makers); i++)
        CHECK(makers[i](&scene.geometry, key_at(&scene, 0, 0), KV_SKETCH_KEYS,
                        (void *)(uintptr_t)scene.run.at[0]));
    searched = NULL;
    CHECK(!was_found);
    scene_stop(&scene);
}

TEST(keys_too_short_for_a_sketch_have_none)
{
    struct kv_geometry geometry = { .layers = 28, .kv_heads = 4, .head_dim = 128, .dtype = KV_DTYPE_F16 };

    CHECK_EQ(kv_sketch_bytes(&geometry), 6784); /* of 16,384 */
    geometry.kv_heads = 1;
    CHECK_EQ(kv_sketch_bytes(&geometry), 0);
    geometry.dtype = KV_DTYPE_F32;
    CHECK(kv_sketch_bytes(&geometry) > 0);
}

TEST_MAIN()
