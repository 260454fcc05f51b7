#include <stdlib.h>

#include "support/tensor_rig.h"

static const uint32_t widths[] = { 1, 7, 8, 15, 16, 33, 128, 897 };

static void check_close(const struct rig *rig, const char *what, const float *got, const double *want,
                        size_t count, double tolerance)
{
    double error = rig_error(got, want, count);

    if (!(error <= tolerance))
        test_fail(__FILE__, __LINE__, "%s: %s of %zu numbers is off by %g", rig->label, what, count, error);
}

static void drop_buffers(struct rig *rig)
{
    struct status st = { 0 };

    CHECK_OK(rig->ops->queue_finish(rig->queue, &st), st);
    for (uint32_t i = 0; i < rig->buffer_count; i++)
        rig->ops->buffer_destroy(rig->buffers[i]);
    rig->buffer_count = 0;
}

static void check_norm(struct rig *rig, uint32_t cols, bool centered, enum tensor_dtype dtype)
{
    enum { ROWS = 5 };
    struct tensor in = rig_random(rig, TENSOR_F32, ROWS, cols, 1),
                  gain = rig_random(rig, TENSOR_F32, 1, cols, 2);
    struct tensor bias = rig_random(rig, TENSOR_F32, 1, cols, 3), out = rig_empty(rig, dtype, ROWS, cols);
    struct tensor_norm args = { out, in, &gain, centered ? &bias : NULL, 1e-6f };
    float *x = rig_get(rig, in), *g = rig_get(rig, gain), *b = rig_get(rig, bias), *got;
    double *want = malloc(ROWS * cols * sizeof *want);
    struct status st = { 0 };

    for (uint32_t r = 0; r < ROWS; r++) {
        double mean = 0, squares = 0;

        for (uint32_t i = 0; i < cols && centered; i++)
            mean += x[r * cols + i] / (double)cols;
        for (uint32_t i = 0; i < cols; i++)
            squares += (x[r * cols + i] - mean) * (x[r * cols + i] - mean) / cols;
        for (uint32_t i = 0; i < cols; i++)
            want[r * cols + i] =
                (x[r * cols + i] - mean) / sqrt(squares + 1e-6) * g[i] + (centered ? b[i] : 0);
    }
    if (centered)
        CHECK_OK(rig->ops->layer_norm(rig->queue, &args, &st), st);
    else
        CHECK_OK(rig->ops->rms_norm(rig->queue, &args, &st), st);
    got = rig_get(rig, out);
    check_close(rig, centered ? "layer_norm" : "rms_norm", got, want, ROWS * cols, rig_tolerance(dtype));
    free(x);
    free(g);
    free(b);
    free(got);
    free(want);
    drop_buffers(rig);
}

TEST(norms_are_their_formulas)
{
    RIG_EACH(rig)
    {
        for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
            check_norm(&rig, widths[i], false, TENSOR_F32);
            check_norm(&rig, widths[i], false, TENSOR_BF16);
            check_norm(&rig, widths[i], true, TENSOR_F32);
            check_norm(&rig, widths[i], true, TENSOR_BF16);
        }
    }
}

/* A row far from zero keeps its variance: two passes, not the difference of large squares. */
TEST(layer_norm_survives_a_large_mean)
{
    RIG_EACH(rig)
    {
        float x[64], one[64], zero[64] = { 0 }, *got;
        double want[64];
        struct tensor in, gain, bias, out = rig_empty(&rig, TENSOR_F32, 1, 64);
        struct status st = { 0 };

        for (int i = 0; i < 64; i++) {
            x[i] = 10000.0f + (float)(i % 2);
            one[i] = 1;
            want[i] = i % 2 ? 1 : -1;
        }
        in = rig_put(&rig, x, TENSOR_F32, 1, 64);
        gain = rig_put(&rig, one, TENSOR_F32, 1, 64);
        bias = rig_put(&rig, zero, TENSOR_F32, 1, 64);
        CHECK_OK(rig.ops->layer_norm(rig.queue, &(struct tensor_norm){ out, in, &gain, &bias, 1e-6f }, &st),
                 st);
        got = rig_get(&rig, out);
        check_close(&rig, "layer_norm", got, want, 64, 1e-4);
        free(got);
    }
}

TEST(embed_and_add_take_the_rows_asked_for)
{
    static const enum tensor_dtype types[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16 };
    static const uint32_t ids[] = { 8, 0, 3, 3, 8, 1 };

    RIG_EACH(rig)
    {
        for (size_t i = 0; i < 3 * ARRAY_LEN(widths); i++) {
            uint32_t cols = widths[i / 3];
            struct tensor table = rig_random(&rig, types[i % 3], 9, cols, 4);
            struct tensor out = rig_empty(&rig, TENSOR_F32, 6, cols);
            struct tensor position = rig_random(&rig, TENSOR_F32, 3, cols, 5);
            float *rows = rig_get(&rig, table), *places = rig_get(&rig, position), *got;
            struct status st = { 0 };

            CHECK_OK(rig.ops->embed(rig.queue, out, table, ids, &st), st);
            CHECK_OK(rig.ops->add(rig.queue, out, out, position, &st), st);
            got = rig_get(&rig, out);
            for (uint32_t r = 0; r < 6; r++)
                for (uint32_t c = 0; c < cols; c++)
                    CHECK_NEAR(got[r * cols + c], rows[ids[r] * cols + c] + places[r % 3 * cols + c], 0);
            free(rows);
            free(places);
            free(got);
            drop_buffers(&rig);
        }
    }
}

TEST(embed_refuses_an_id_outside_the_table)
{
    RIG_EACH(rig)
    {
        struct tensor table = rig_random(&rig, TENSOR_F32, 4, 8, 1), out = rig_empty(&rig, TENSOR_F32, 1, 8);
        struct status st = { 0 };

        CHECK(!(rig.ops->embed(rig.queue, out, table, (const uint32_t[]){ 4 }, &st) &&
                rig.ops->queue_finish(rig.queue, &st)));
        CHECK_HAS(st.text, "token id 4 is not in the embedding table of 4 rows");
    }
}

/* From every type and layout to every other: exact where the type can hold the number, else rounded as
 * tensor_convert_host() rounds. */
TEST(convert_rounds_like_the_host)
{
    RIG_EACH(rig)
    {
        for (uint32_t pair = 0; pair < 9; pair++) {
            enum tensor_dtype from_type = (enum tensor_dtype)(1 + pair % 3),
                              to_type = (enum tensor_dtype)(1 + pair / 3);
            struct tensor wide = rig_random(&rig, from_type, 6, 70, 6);
            struct tensor_heads in = tensor_heads_of(tensor_cols(wide, 4, 54), 3), out;
            struct tensor flat = rig_empty(&rig, to_type, 18, 18);
            float *want = rig_get_heads(&rig, in), *got;
            uint16_t half[3 * 6 * 18 * 2];
            struct status st = { 0 };

            out = tensor_heads_at(flat.buffer, 0, to_type, 3, 6, 18);
            CHECK_OK(rig.ops->convert(rig.queue, out, in, &st), st);
            got = rig_get_heads(&rig, out);
            tensor_convert_host(half, to_type, want, TENSOR_F32, 3 * 6 * 18);
            tensor_convert_host(want, TENSOR_F32, half, to_type, 3 * 6 * 18);
            CHECK_MEM(got, want, 3 * 6 * 18 * sizeof(float));
            free(got);
            free(want);
        }
    }
}

static void check_rotary(struct rig *rig, uint32_t head_dim, int64_t first, bool one_angle,
                         enum tensor_dtype to)
{
    enum { HEADS = 3, TOKENS = 11 };
    uint32_t half = head_dim / 2, positions = one_angle ? 1 : TOKENS;
    struct tensor flat = rig_random(rig, TENSOR_F32, TOKENS, HEADS * head_dim, 7);
    struct tensor turned = rig_empty(rig, to, HEADS * TOKENS, head_dim);
    struct tensor table = rig_empty(rig, TENSOR_F32, positions, head_dim);
    struct tensor_heads in = tensor_heads_of(flat, HEADS);
    struct tensor_heads out = tensor_heads_at(turned.buffer, 0, to, HEADS, TOKENS, head_dim);
    float *x = rig_get_heads(rig, in), *got;
    double *want = malloc(HEADS * TOKENS * head_dim * sizeof *want), frequencies[TENSOR_HEAD_DIM_MAX / 2];
    struct status st = { 0 };

    for (uint32_t d = 0; d < half; d++)
        frequencies[d] = pow(1e6, -2.0 * d / head_dim);
    for (uint32_t row = 0; row < HEADS * TOKENS; row++) {
        for (uint32_t d = 0; d < half; d++) {
            double angle = (double)(first + (one_angle ? 0 : row % TOKENS)) * frequencies[d];
            double x1 = x[row * head_dim + d], x2 = x[row * head_dim + half + d];

            want[row * head_dim + d] = x1 * cos(angle) - x2 * sin(angle);
            want[row * head_dim + half + d] = x2 * cos(angle) + x1 * sin(angle);
        }
    }
    CHECK_OK(rig->ops->rotary_table(rig->queue, table, frequencies, first, &st), st);
    table.stride = one_angle ? 0 : table.stride;
    CHECK_OK(rig->ops->rotary(rig->queue, out, in, table, &st), st);
    got = rig_get_heads(rig, out);
    check_close(rig, "rotary", got, want, HEADS * TOKENS * head_dim, rig_tolerance(to));
    free(x);
    free(got);
    free(want);
    drop_buffers(rig);
}

/* Positions of weeks of video too: angles are computed in double. */
TEST(rotary_turns_by_the_angle_of_its_position)
{
    static const uint32_t dims[] = { 2, 8, 30, 32, 64, 128, 256 };
    static const int64_t firsts[] = { 0, -3, 15104, 400000000 };

    RIG_EACH(rig)
    {
        for (size_t i = 0; i < ARRAY_LEN(dims) * ARRAY_LEN(firsts); i++) {
            check_rotary(&rig, dims[i / 4], firsts[i % 4], false, TENSOR_F32);
            check_rotary(&rig, dims[i / 4], firsts[i % 4], true, TENSOR_BF16);
        }
    }
}

TEST(mean_tokens_averages_and_folds)
{
    RIG_EACH(rig)
    {
        for (uint32_t fold = 1; fold <= 4; fold *= 2) {
            struct tensor flat = rig_random(&rig, fold == 2 ? TENSOR_BF16 : TENSOR_F32, 13, 4 * 24, 8);
            struct tensor_heads in = tensor_heads_of(flat, 4);
            struct tensor out = rig_empty(&rig, TENSOR_F32, 4 / fold, 24);
            float *x = rig_get_heads(&rig, in), *got;
            double want[4 * 24] = { 0 };
            struct status st = { 0 };

            for (uint32_t row = 0; row < 4 * 13; row++)
                for (uint32_t d = 0; d < 24; d++)
                    want[row / 13 / fold * 24 + d] += x[row * 24 + d] / 13.0;
            CHECK_OK(rig.ops->mean_tokens(rig.queue, out, in, fold, &st), st);
            got = rig_get(&rig, out);
            check_close(&rig, "mean_tokens", got, want, 4 / fold * 24, 2e-6);
            free(x);
            free(got);
        }
    }
}

/* By the definition: output (y, x) reads at (i + 0.5) * grid / side - 0.5, clamped to the grid. */
TEST(pool_bilinear_is_the_definition)
{
    static const uint32_t grids[] = { 1, 2, 3, 8, 27 };

    RIG_EACH(rig)
    {
        for (size_t i = 0; i < ARRAY_LEN(grids); i++) {
            uint32_t grid = grids[i], side = (grid + 1) / 2, frames = 2, cols = 19;
            struct tensor in = rig_random(&rig, TENSOR_F32, frames * grid * grid, cols, 9);
            struct tensor out = rig_empty(&rig, TENSOR_F32, frames * side * side, cols);
            double *want = malloc(frames * side * side * cols * sizeof *want);
            float *x = rig_get(&rig, in), *got;
            struct status st = { 0 };

            for (uint32_t row = 0; row < frames * side * side; row++) {
                uint32_t frame = row / (side * side);
                double at[2] = { (row / side % side + 0.5) * grid / side - 0.5,
                                 (row % side + 0.5) * grid / side - 0.5 };
                uint32_t low[2], high[2];

                for (int k = 0; k < 2; k++) {
                    at[k] = at[k] < 0 ? 0 : at[k];
                    low[k] = (uint32_t)at[k];
                    high[k] = low[k] + 1 < grid ? low[k] + 1 : grid - 1;
                    at[k] -= low[k];
                }
                for (uint32_t c = 0; c < cols; c++) {
                    double sum = 0;

                    for (int corner = 0; corner < 4; corner++) {
                        uint32_t y = corner / 2 ? high[0] : low[0], z = corner % 2 ? high[1] : low[1];

                        sum += (corner / 2 ? at[0] : 1 - at[0]) * (corner % 2 ? at[1] : 1 - at[1]) *
                               x[(frame * grid * grid + y * grid + z) * cols + c];
                    }
                    want[row * cols + c] = sum;
                }
            }
            CHECK_OK(rig.ops->pool_bilinear(rig.queue, out, in, grid, &st), st);
            got = rig_get(&rig, out);
            check_close(&rig, "pool_bilinear", got, want, frames * side * side * cols, 1e-6);
            free(x);
            free(want);
            free(got);
        }
    }
}

/* The lowest column wins a tie, infinities count, NaN never wins. */
TEST(argmax_breaks_ties_downwards_and_ignores_nan)
{
    static const float rows[5][4] = { { 1, 3, 3, 2 },
                                      { NAN, -2, -1, -1 },
                                      { -INFINITY, -INFINITY, -INFINITY, -INFINITY },
                                      { NAN, NAN, NAN, -INFINITY },
                                      { 0, INFINITY, NAN, INFINITY } };

    RIG_EACH(rig)
    {
        struct tensor in = rig_put(&rig, rows[0], TENSOR_F32, 5, 4);
        uint32_t ids[5];
        struct status st = { 0 };

        CHECK_OK(rig.ops->argmax(rig.queue, ids, in, &st), st);
        CHECK_EQ(ids[0], 1);
        CHECK_EQ(ids[1], 2);
        CHECK_EQ(ids[2], 0);
        CHECK_EQ(ids[3], 3);
        CHECK_EQ(ids[4], 1);
    }
}

TEST_MAIN()
