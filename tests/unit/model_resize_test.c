/* Pillow's bicubic: expected pixels were printed by Pillow 10 (Image.resize, BICUBIC) for these inputs. */
#include "model/resize.h"
#include "support/test.h"

static void resized(const uint8_t *rgb, struct resize_size from, struct resize_size to, uint8_t *out)
{
    struct resize resize;
    struct status st;

    CHECK_OK(resize_init(&resize, from, to, &st), st);
    CHECK_OK(resize_rgb(&resize, rgb, out, &st), st);
    resize_deinit(&resize);
}

TEST(enlarging_overshoots_and_clips_as_pillow_does)
{
    static const uint8_t row[] = { 0, 255, 7, 255, 0, 7, 10, 0, 7, 200, 255, 8 };
    static const uint8_t want[3][7] = { { 0, 86, 251, 137, 11, 133, 215 },
                                        { 255, 178, 12, 0, 12, 178, 255 },
                                        { 7, 7, 7, 7, 7, 8, 8 } };
    uint8_t out[7 * 3];

    resized(row, (struct resize_size){ 1, 4 }, (struct resize_size){ 1, 7 }, out);
    for (int x = 0; x < 7; x++)
        for (int c = 0; c < 3; c++)
            CHECK_EQ(out[x * 3 + c], want[c][x]);
}

TEST(shrinking_in_two_passes_equals_pillow)
{
    static const uint8_t want[2 * 3 * 3] = { 94,  120, 136, 119, 157, 127, 139, 145, 140,
                                             108, 136, 150, 120, 128, 131, 108, 147, 108 };
    uint8_t picture[5 * 6 * 3], out[2 * 3 * 3];

    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 6; x++)
            for (int c = 0; c < 3; c++)
                picture[(y * 6 + x) * 3 + c] = (uint8_t)(x * 37 + y * 91 + c * 53);
    resized(picture, (struct resize_size){ 5, 6 }, (struct resize_size){ 2, 3 }, out);
    CHECK_MEM(out, want, sizeof want);
}

TEST(an_axis_that_keeps_its_size_is_not_filtered)
{
    uint8_t picture[4 * 4 * 3], out[4 * 4 * 3];

    for (size_t i = 0; i < sizeof picture; i++)
        picture[i] = (uint8_t)(i * 77);
    resized(picture, (struct resize_size){ 4, 4 }, (struct resize_size){ 4, 4 }, out);
    CHECK_MEM(out, picture, sizeof out);
}

TEST(sides_of_zero_or_too_many_pixels_are_refused)
{
    struct resize resize;
    struct status st;

    CHECK(!resize_init(&resize, (struct resize_size){ 0, 4 }, (struct resize_size){ 4, 4 }, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, "1 to 16384");
    CHECK(!resize_init(&resize, (struct resize_size){ 4, RESIZE_SIDE_MAX + 1 }, (struct resize_size){ 4, 4 },
                       &st));
}

TEST_MAIN()
