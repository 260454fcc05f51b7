/* Resizing equals Pillow bit for bit, over the sizes and pictures of the fixture. */
#include <stdlib.h>

#include "model/resize.h"
#include "parity.h"

static uint8_t formula_byte(const char *formula, uint32_t x, uint32_t y, uint32_t c)
{
    if (strcmp(formula, "ramp") == 0)
        return (uint8_t)((5 * x + 3 * y + 85 * c) / 2);
    if (strcmp(formula, "mix") == 0)
        return (uint8_t)((7 * x + 13 * y + 29 * c) ^ ((x * y) >> 3));
    CHECK_STR(formula, "edges");
    return (x / 3 + y / 5 + c) % 2 == 1 ? 255 : 0;
}

static void check_hash(const uint8_t *bytes, size_t len, const char *want)
{
    uint64_t hash = 0xcbf29ce484222325u;
    char text[17];

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    CHECK_STR(text, want);
}

static void check_entry(const struct fixture *fixture, const struct json *entry, size_t index)
{
    const char *formula = json_str(json_get(entry, "formula"));
    struct resize_size from = { fixture_u32(entry, "height"), fixture_u32(entry, "width") };
    struct resize_size to = { fixture_u32(entry, "to_height"), fixture_u32(entry, "to_width") };
    size_t in_bytes = (size_t)from.height * from.width * 3, out_bytes = (size_t)to.height * to.width * 3;
    uint8_t *in = malloc(in_bytes), *out = malloc(out_bytes), *at = in;
    struct resize resize;
    struct status st;
    char name[32];

    for (uint32_t y = 0; y < from.height; y++)
        for (uint32_t x = 0; x < from.width; x++)
            for (uint32_t c = 0; c < 3; c++)
                *at++ = formula_byte(formula, x, y, c);
    check_hash(in, in_bytes, json_str(json_get(entry, "source_fnv1a64")));
    CHECK_OK(resize_init(&resize, from, to, &st), st);
    CHECK_OK(resize_rgb(&resize, in, out, &st), st);
    if (json_bool(json_get(entry, "whole"))) {
        snprintf(name, sizeof name, "%zu.image", index);
        CHECK_MEM(out, safetensors_find(fixture->tensors, name)->data, out_bytes);
    }
    check_hash(out, out_bytes, json_str(json_get(entry, "fnv1a64")));
    resize_deinit(&resize);
    free(in);
    free(out);
}

TEST(every_resized_picture_equals_pillows)
{
    struct fixture fixture = fixture_open("resize");
    const struct json *entries = json_get(fixture.manifest, "resizes");

    CHECK(json_len(entries) >= 10);
    for (size_t i = 0; i < json_len(entries); i++)
        check_entry(&fixture, json_at(entries, i), i);
    fixture_close(&fixture);
}

TEST_MAIN()
