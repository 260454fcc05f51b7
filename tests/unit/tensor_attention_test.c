#include <stdlib.h>

#include "support/tensor_rig.h"

enum { PIECES_MAX = 64 };

/* A scene: one item in host numbers, from which any rig can be fed and the truth computed. */
struct scene {
    uint32_t heads, kv_heads, head_dim, tokens;
    int64_t first_index;
    enum tensor_dtype q_dtype, kv_dtype, out_dtype;
    struct {
        uint32_t tokens;
        int64_t first_index, min_distance, max_distance;
        bool far;
    } pieces[PIECES_MAX];
    uint32_t piece_count;
    uint64_t seed;
};

/* Numbers belong to (token index, far), so that cutting a window elsewhere keeps them. */
static float number_of(const struct scene *scene, uint64_t what, uint32_t head, int64_t index, uint32_t d)
{
    return rig_number(scene->seed + what, ((uint64_t)(index + 1000000) * 64 + head) * 512 + d);
}

static float rounded(float number, enum tensor_dtype dtype)
{
    uint8_t bytes[4];

    tensor_convert_host(bytes, dtype, &number, TENSOR_F32, 1);
    tensor_convert_host(&number, TENSOR_F32, bytes, dtype, 1);
    return number;
}

static float key_of(const struct scene *scene, bool value, uint32_t head, int64_t index, uint32_t d)
{
    return rounded(number_of(scene, value ? 2 : 1, head, index, d), scene->kv_dtype);
}

static float query_of(const struct scene *scene, bool far, uint32_t head, int64_t index, uint32_t d)
{
    return rounded(3 * number_of(scene, far ? 4 : 3, head, index, d), scene->q_dtype);
}

static struct tensor_heads put_heads(struct rig *rig, const struct scene *scene, int what, uint32_t heads,
                                     uint32_t tokens, int64_t first_index)
{
    uint32_t dim = scene->head_dim;
    float *numbers = malloc((size_t)heads * tokens * dim * sizeof *numbers);
    enum tensor_dtype dtype = what < 2 ? scene->kv_dtype : scene->q_dtype;
    struct tensor made;

    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t t = 0; t < tokens; t++)
            for (uint32_t d = 0; d < dim; d++)
                numbers[((size_t)h * tokens + t) * dim + d] =
                    what < 2 ? key_of(scene, what == 1, h, first_index + t, d)
                             : query_of(scene, what == 3, h, first_index + t, d);
    made = rig_put(rig, numbers, dtype, heads * tokens, dim);
    free(numbers);
    return tensor_heads_at(made.buffer, 0, dtype, heads, tokens, dim);
}

/* A scene on the device, ready to be one item among others. */
static struct tensor_attention_item put_scene(struct rig *rig, const struct scene *scene,
                                              struct tensor_segment *segments)
{
    struct tensor_attention_item item = { .first_index = scene->first_index,
                                          .segments = segments,
                                          .segment_count = scene->piece_count };
    struct tensor out = rig_empty(rig, scene->out_dtype, scene->tokens, scene->heads * scene->head_dim);

    item.out = tensor_heads_of(out, scene->heads); /* token-major, as the next gemm wants it */
    item.q = put_heads(rig, scene, 2, scene->heads, scene->tokens, scene->first_index);
    item.q_far = put_heads(rig, scene, 3, scene->heads, scene->tokens, scene->first_index);
    for (uint32_t i = 0; i < scene->piece_count; i++) {
        uint32_t tokens = scene->pieces[i].tokens;
        int64_t first = scene->pieces[i].first_index;

        segments[i] = (struct tensor_segment){
            .keys = put_heads(rig, scene, 0, scene->kv_heads, tokens, first),
            .values = put_heads(rig, scene, 1, scene->kv_heads, tokens, first),
            .first_index = first,
            .min_distance = scene->pieces[i].min_distance,
            .max_distance = scene->pieces[i].max_distance,
            .far = scene->pieces[i].far,
        };
    }
    return item;
}

static float *run_scene(struct rig *rig, const struct scene *scene)
{
    struct tensor_segment segments[PIECES_MAX];
    struct tensor_attention_item item = put_scene(rig, scene, segments);
    struct tensor_attention args = { 1 / sqrtf((float)scene->head_dim), &item, 1 };
    struct status st = { 0 };

    CHECK_OK(rig->ops->attention(rig->queue, &args, &st), st);
    return rig_get_heads(rig, item.out);
}

/* One query row by the definition, in double. */
static void expect_row(const struct scene *scene, uint32_t head, uint32_t token, double *want)
{
    uint32_t kv_head = head / (scene->heads / scene->kv_heads), dim = scene->head_dim;
    int64_t i = scene->first_index + token;
    double total = 0;

    for (uint32_t d = 0; d < dim; d++)
        want[d] = 0;
    for (uint32_t p = 0; p < scene->piece_count; p++) {
        for (uint32_t k = 0; k < scene->pieces[p].tokens; k++) {
            int64_t t = scene->pieces[p].first_index + k;
            double score = 0, weight;

            if (scene->pieces[p].min_distance > i - t || i - t >= scene->pieces[p].max_distance)
                continue;
            for (uint32_t d = 0; d < dim; d++)
                score += (double)query_of(scene, scene->pieces[p].far, head, i, d) *
                         key_of(scene, false, kv_head, t, d);
            weight = exp(score / sqrt(dim));
            total += weight;
            for (uint32_t d = 0; d < dim; d++)
                want[d] += weight * key_of(scene, true, kv_head, t, d);
        }
    }
    for (uint32_t d = 0; d < dim && total > 0; d++)
        want[d] /= total;
}

static void check_scene(struct rig *rig, const struct scene *scene)
{
    size_t count = (size_t)scene->heads * scene->tokens * scene->head_dim;
    double *want = malloc(count * sizeof *want), error;
    bool bf16 = scene->q_dtype == TENSOR_BF16 || scene->out_dtype == TENSOR_BF16;
    float *got = run_scene(rig, scene);

    for (uint32_t h = 0; h < scene->heads; h++)
        for (uint32_t t = 0; t < scene->tokens; t++)
            expect_row(scene, h, t, want + ((size_t)h * scene->tokens + t) * scene->head_dim);
    error = rig_error(got, want, count);
    if (!(error <= (bf16 ? 8e-3 : 3e-6)))
        test_fail(__FILE__, __LINE__, "%s: heads %u:%u of %u, %u queries, %u pieces, types %d %d: off by %g",
                  rig->label, scene->heads, scene->kv_heads, scene->head_dim, scene->tokens,
                  scene->piece_count, (int)scene->q_dtype, (int)scene->kv_dtype, error);
    free(got);
    free(want);
}

/* Fills a scene: a causal window of n_local over `window` older tokens, cut at random, plus prompt keys from
 * afar when `prompt` > 0. */
static struct scene window_scene(uint64_t seed, uint32_t tokens, uint32_t window, int64_t n_local,
                                 uint32_t prompt)
{
    struct scene scene = { .heads = 4, .kv_heads = 2, .head_dim = 16, .tokens = tokens, .seed = seed };
    int64_t at = 5000 - window, end = 5000 + tokens;

    scene.first_index = 5000;
    scene.q_dtype = scene.kv_dtype = scene.out_dtype = TENSOR_F32;
    for (uint32_t i = 0; at < end; i++) {
        uint32_t step = rig_pick(seed, i, 1, 90);

        step = at + step > end || scene.piece_count == PIECES_MAX - 2 ? (uint32_t)(end - at) : step;
        scene.pieces[scene.piece_count].tokens = step;
        scene.pieces[scene.piece_count].first_index = at;
        scene.pieces[scene.piece_count++].max_distance = n_local;
        at += step;
    }
    if (prompt > 0) {
        scene.pieces[scene.piece_count].tokens = prompt;
        scene.pieces[scene.piece_count].min_distance = n_local;
        scene.pieces[scene.piece_count].max_distance = TENSOR_DISTANCE_MAX;
        scene.pieces[scene.piece_count++].far = true;
    }
    return scene;
}

/* Against the definition in double: head sizes, grouping, windows, far keys, types, on every backend. */
TEST(attention_is_the_softmax_it_claims_to_be)
{
    static const struct {
        uint32_t heads, kv_heads, head_dim, tokens;
    } shapes[] = { { 1, 1, 1, 1 },   { 2, 1, 8, 3 },    { 14, 2, 64, 20 }, { 4, 2, 32, 16 },
                   { 3, 3, 72, 40 }, { 28, 4, 128, 1 }, { 6, 2, 27, 9 },   { 2, 2, 256, 5 } };
    static const enum tensor_dtype types[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16 };

    RIG_EACH(rig)
    {
        for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
            for (size_t k = 0; k < 2 * ARRAY_LEN(types); k++) {
                struct scene scene = window_scene(i + 1, shapes[i].tokens, 130, 100, 5);

                scene.heads = shapes[i].heads;
                scene.kv_heads = shapes[i].kv_heads;
                scene.head_dim = shapes[i].head_dim;
                scene.kv_dtype = types[k / 2];
                scene.q_dtype = scene.out_dtype = k % 2 ? TENSOR_BF16 : TENSOR_F32;
                check_scene(&rig, &scene);
                rig.ops->queue_finish(rig.queue, NULL);
                for (uint32_t b = 0; b < rig.buffer_count; b++)
                    rig.ops->buffer_destroy(rig.buffers[b]);
                rig.buffer_count = 0;
            }
        }
    }
}

/* Vision: every query sees every key, before and after it. */
TEST(attention_can_look_both_ways)
{
    RIG_EACH(rig)
    {
        struct scene scene = { .heads = 2, .kv_heads = 2, .head_dim = 72, .tokens = 150, .piece_count = 1 };

        scene.q_dtype = scene.kv_dtype = scene.out_dtype = TENSOR_F32;
        scene.pieces[0].tokens = 150;
        scene.pieces[0].min_distance = TENSOR_DISTANCE_MIN;
        scene.pieces[0].max_distance = TENSOR_DISTANCE_MAX;
        check_scene(&rig, &scene);
        scene.q_dtype = scene.kv_dtype = scene.out_dtype = TENSOR_BF16;
        check_scene(&rig, &scene);
    }
}

/* Decoding: one query over more keys than one chunk holds, indices on both sides of zero. */
TEST(attention_of_one_query_over_many_keys)
{
    RIG_EACH(rig)
    {
        struct scene scene = window_scene(9, 1, 4900, TENSOR_DISTANCE_MAX, 0);

        scene.first_index -= 7000;
        for (uint32_t i = 0; i < scene.piece_count; i++)
            scene.pieces[i].first_index -= 7000;
        check_scene(&rig, &scene);
        scene.q_dtype = scene.kv_dtype = TENSOR_BF16;
        check_scene(&rig, &scene);
    }
}

/* A query that sees no key gets zeros; the others are as if it were not there. */
TEST(attention_of_a_query_that_sees_nothing_is_zero)
{
    RIG_EACH(rig)
    {
        struct scene scene = window_scene(11, 4, 0, 100, 0);
        float *got;

        scene.first_index -= 2; /* the first two queries are older than every key */
        check_scene(&rig, &scene);
        got = run_scene(&rig, &scene);
        for (uint32_t d = 0; d < 2 * scene.head_dim; d++)
            CHECK_EQ(got[d] == 0.0f, 1);
        free(got);
    }
}

/* The same window held in other pieces, and with more old keys that no query sees, is the same to the last
 * bit: that is what lets an analyzer restart. Short and long, f32 and bf16. */
TEST(attention_does_not_depend_on_how_a_window_is_cut)
{
    static const uint32_t lengths[][2] = { { 20, 300 }, { 1, 4000 }, { 70, 500 } };

    RIG_EACH(rig)
    {
        for (size_t i = 0; i < 2 * ARRAY_LEN(lengths); i++) {
            const uint32_t *length = lengths[i / 2];
            struct scene scene = window_scene(21 + i, length[0], length[1], length[1] - 10, 3), other;
            size_t bytes = (size_t)scene.heads * length[0] * scene.head_dim * sizeof(float);
            float *first, *second;

            scene.q_dtype = scene.kv_dtype = i % 2 ? TENSOR_BF16 : TENSOR_F32;
            other = scene;
            other.piece_count = 2;
            other.pieces[0].tokens = length[0] + length[1] + 77; /* older ones than anyone sees */
            other.pieces[0].first_index = scene.pieces[0].first_index - 77;
            other.pieces[1] = scene.pieces[scene.piece_count - 1];
            first = run_scene(&rig, &scene);
            second = run_scene(&rig, &other);
            CHECK_MEM(first, second, bytes);
            free(first);
            free(second);
        }
    }
}

/* An item among others is what it is alone, on one thread and on several. */
TEST(attention_is_the_same_alone_and_crowded)
{
    RIG_EACH(rig)
    {
        struct scene scenes[5] = { window_scene(31, 30, 200, 150, 4), window_scene(32, 1, 3000, 9999, 0),
                                   window_scene(33, 7, 10, 5, 0), window_scene(34, 64, 100, 90, 2),
                                   window_scene(35, 130, 60, 50, 0) };
        struct tensor_segment segments[5][PIECES_MAX];
        struct tensor_attention_item items[5];
        struct tensor_attention args = { 0.25f, items, 5 };
        struct status st = { 0 };

        for (int i = 0; i < 5; i++) {
            scenes[i].q_dtype = scenes[i].kv_dtype = i % 2 ? TENSOR_F32 : TENSOR_BF16;
            items[i] = put_scene(&rig, &scenes[i], segments[i]);
        }
        CHECK_OK(rig.ops->attention(rig.queue, &args, &st), st);
        for (int i = 0; i < 5; i++) {
            float *among = rig_get_heads(&rig, items[i].out), *alone = run_scene(&rig, &scenes[i]);

            CHECK_MEM(among, alone,
                      (size_t)scenes[i].heads * scenes[i].tokens * scenes[i].head_dim * sizeof(float));
            free(among);
            free(alone);
        }
    }
}

TEST(attention_refuses_what_does_not_fit)
{
    RIG_EACH(rig)
    {
        struct scene scene = window_scene(41, 2, 0, 10, 1);
        struct tensor_segment segments[PIECES_MAX];
        struct tensor_attention_item item = put_scene(&rig, &scene, segments), good = item;
        struct tensor_attention args = { 1, &item, 1 };
        struct status st = { 0 };

        item.q_far.buffer = NULL;
        CHECK(!(rig.ops->attention(rig.queue, &args, &st) && rig.ops->queue_finish(rig.queue, &st)));
        CHECK_HAS(st.text, "a far segment needs far queries");
        item = good;
        segments[0].keys.heads = 1;
        CHECK(!(rig.ops->attention(rig.queue, &args, &st) && rig.ops->queue_finish(rig.queue, &st)));
        CHECK_HAS(st.text, "differ in shape or type");
        segments[0].values.heads = 1;
        item.segment_count = 0;
        CHECK(!(rig.ops->attention(rig.queue, &args, &st) && rig.ops->queue_finish(rig.queue, &st)));
        CHECK_HAS(st.text, "0 segments");
        item = good;
        args.scale = 0;
        CHECK(!(rig.ops->attention(rig.queue, &args, &st) && rig.ops->queue_finish(rig.queue, &st)));
        CHECK_EQ(st.code, STATUS_INVALID);
    }
}

TEST_MAIN()
