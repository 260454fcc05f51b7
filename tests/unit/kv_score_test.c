/* Scores: every variant gives the portable one's bits, which are right. */
#include "kv/kv_score.h"

#include <stdlib.h>

#include "support/test.h"

enum { COUNT = 37 };

static uint32_t state = 12345;

static float next_number(void)
{
    state = state * 1664525 + 1013904223;
    return ((float)(state >> 8) / (float)(1 << 24) - 0.5f) * 4;
}

static uint16_t f16_of(float value)
{
    uint32_t bits;
    int exponent;

    memcpy(&bits, &value, sizeof bits);
    exponent = (int)(bits >> 23 & 255) - 127;
    if (exponent < -14)
        return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)(exponent + 15) << 10 | (bits >> 13 & 1023));
}

static float float_of(const void *keys, enum kv_dtype dtype, size_t index)
{
    uint16_t half;
    uint32_t bits;
    float value;

    if (dtype == KV_DTYPE_F32) {
        memcpy(&value, (const char *)keys + 4 * index, 4);
        return value;
    }
    memcpy(&half, (const char *)keys + 2 * index, 2);
    if (dtype == KV_DTYPE_BF16) {
        bits = (uint32_t)half << 16;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    value = ldexpf((float)(half & 1023), -24);
    if ((half >> 10 & 31) != 0)
        value = ldexpf((float)(1024 + (half & 1023)), (half >> 10 & 31) - 25);
    return half & 0x8000 ? -value : value;
}

static void fill(void *keys, enum kv_dtype dtype, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = next_number();
        uint32_t bits;
        uint16_t half;

        memcpy(&bits, &value, sizeof bits);
        half = dtype == KV_DTYPE_F16 ? f16_of(value) : (uint16_t)(bits >> 16);
        if (i % 97 == 0)
            half = (uint16_t)(i & 0x83ff); /* subnormal f16, tiny bf16 */
        if (dtype == KV_DTYPE_F32)
            memcpy((char *)keys + 4 * i, &value, 4);
        else
            memcpy((char *)keys + 2 * i, &half, 2);
    }
}

/* Keys that stand one behind the other, what comes next being `ahead`. */
static void score(const struct kv_score_ops *ops, enum kv_dtype dtype, const float *query,
                  const uint8_t *keys, uint32_t dims, const void *const *ahead, float *scores)
{
    const void *at[COUNT];

    for (uint32_t i = 0; i < COUNT; i++)
        at[i] = keys + (size_t)i * dims * kv_dtype_bytes(dtype);
    ops->of_dtype[dtype](query, &(struct kv_score_keys){ at, ahead, COUNT, dims }, scores);
}

/* Dimensions around the vector widths, all dtypes, keys at an odd address: equal bits, and near the sum in
 * double. */
TEST(score_is_the_same_in_every_variant)
{
    static const uint32_t all_dims[] = { 1, 7, 63, 64, 65, 128, 130, 512, 513 };
    uint8_t *room = malloc(COUNT * 513 * 4 + 1);
    const void *nowhere[COUNT]; /* what comes next need not be there */
    float query[513], want[COUNT], got[COUNT];

    CHECK(room != NULL);
    for (uint32_t i = 0; i < COUNT; i++)
        nowhere[i] = (const void *)(uintptr_t)(i % 2 == 0 ? 64 * i : UINT64_MAX - 4096);
    for (size_t d = 0; d < ARRAY_LEN(all_dims); d++)
        for (int dtype = KV_DTYPE_F32; dtype <= KV_DTYPE_BF16; dtype++) {
            uint32_t dims = all_dims[d];
            uint8_t *keys = room + 1;

            for (uint32_t i = 0; i < dims; i++)
                query[i] = next_number();
            fill(keys, dtype, (size_t)COUNT * dims);
            score(kv_score_ops_at(0), dtype, query, keys, dims, NULL, want);
            for (uint32_t i = 0; i < COUNT; i++) {
                double sum = 0, size = 0;

                for (uint32_t j = 0; j < dims; j++) {
                    double term = (double)query[j] * (double)float_of(keys, dtype, (size_t)i * dims + j);

                    sum += term;
                    size += fabs(term);
                }
                CHECK_NEAR(want[i], sum, size * 1e-6 + 1e-30);
            }
            for (size_t v = 1; kv_score_ops_at(v) != NULL; v++) {
                score(kv_score_ops_at(v), dtype, query, keys, dims, NULL, got);
                CHECK_MEM(got, want, sizeof got);
                score(kv_score_ops_at(v), dtype, query, keys, dims, nowhere, got);
                CHECK_MEM(got, want, sizeof got);
            }
        }
    free(room);
}

/* A key of NaNs (a model that overflowed) can never win, and poisons nothing else. */
TEST(score_of_a_broken_key_is_minus_infinity)
{
    float query[64], keys[3 * 64], scores[3];
    const void *const at[] = { keys, keys + 64, keys + 128 };

    for (unsigned i = 0; i < 64; i++) {
        query[i] = 1;
        keys[i] = keys[128 + i] = 0.5f;
        keys[64 + i] = NAN;
    }
    for (size_t v = 0; kv_score_ops_at(v) != NULL; v++) {
        kv_score_ops_at(v)->of_dtype[KV_DTYPE_F32](query, &(struct kv_score_keys){ at, NULL, 3, 64 }, scores);
        CHECK_EQ(scores[0], 32);
        CHECK(isinf(scores[1]) && scores[1] < 0);
        CHECK_EQ(scores[2], 32);
    }
}

TEST(score_query_must_have_the_models_shape_and_be_finite)
{
    struct kv_geometry geometry = { .layers = 2, .kv_heads = 2, .head_dim = 4, .dtype = KV_DTYPE_F16 };
    float sent[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, query[8];
    struct status st;

    CHECK_OK(kv_query_read(&geometry, sent, sizeof sent, query, &st), st);
    CHECK_MEM(query, sent, sizeof sent);
    CHECK(!kv_query_read(&geometry, sent, sizeof sent - 4, query, &st));
    CHECK_HAS(st.text, "2 x 4");
    sent[5] = INFINITY;
    CHECK(!kv_query_read(&geometry, sent, sizeof sent, query, &st));
    CHECK_HAS(st.text, "number 5");
}

TEST_MAIN()
