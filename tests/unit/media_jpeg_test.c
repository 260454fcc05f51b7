/* Thumbnails: size, aspect, bytes, and that the picture in them is the picture. The JPEGs are read back by
 * the ffmpeg program, which shares no code with their writer. */
#include <stdlib.h>

#include "base/file.h"
#include "media/media_jpeg.h"
#include "support/process.h"
#include "support/test.h"
#include "support/video.h"

/* Decodes a JPEG to RGB of the stated size; *len_p is what came out. */
static uint8_t *decode(struct bytes jpeg, size_t *len_p)
{
    struct file_text raw;
    struct status st = { 0 };
    char path[VIDEO_PATH_BYTES];

    snprintf(path, sizeof path, "%s/t.jpg", test_folder());
    CHECK_OK(file_write_durable(path, jpeg.data, jpeg.len, &st), st);
    video_ffmpeg("-i %/t.jpg -f rawvideo -pix_fmt rgb24 %/t.rgb");
    snprintf(path, sizeof path, "%s/t.rgb", test_folder());
    CHECK_OK(file_read_all(path, 1 << 20, &raw, &st), st);
    *len_p = raw.len;
    return (uint8_t *)raw.data;
}

TEST(thumbnails_fit_the_box_and_keep_the_aspect)
{
    static const struct {
        uint32_t width, height, out_width, out_height;
    } rows[] = {
        { 1920, 1080, 320, 180 }, { 640, 480, 240, 180 }, { 1080, 1920, 101, 180 }, { 160, 90, 160, 90 },
        { 1, 1, 1, 1 },           { 8192, 16, 320, 1 },   { 2, 8192, 1, 180 },      { 321, 180, 320, 179 },
    };
    struct media_jpeg *jpeg;
    struct status st = { 0 };

    CHECK_OK(media_jpeg_create(&jpeg, &st), st);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct media_picture picture = { NULL, rows[i].width, rows[i].height };
        size_t bytes = (size_t)rows[i].width * rows[i].height * 3, len;
        uint8_t *rgb = malloc(bytes), *back;
        struct bytes out;

        memset(rgb, 200, bytes);
        picture.rgb = rgb;
        CHECK_OK(media_jpeg_thumbnail(jpeg, &picture, &out, &st), st);
        back = decode(out, &len);
        CHECK_EQ(len, (size_t)rows[i].out_width * rows[i].out_height * 3);
        CHECK_NEAR(back[0], 200, 2);
        free(back);
        free(rgb);
    }
    media_jpeg_destroy(jpeg);
}

/* Left red, right blue, at 640 x 360. */
TEST(the_picture_is_the_picture)
{
    struct media_picture picture = { NULL, 640, 360 };
    uint8_t *rgb = calloc(640 * 360, 3), *back;
    struct media_jpeg *jpeg;
    struct status st = { 0 };
    struct bytes out;
    size_t len;

    for (size_t i = 0; i < 640 * 360; i++)
        rgb[3 * i + (i % 640 < 320 ? 0 : 2)] = 255;
    picture.rgb = rgb;
    CHECK_OK(media_jpeg_create(&jpeg, &st), st);
    CHECK_OK(media_jpeg_thumbnail(jpeg, &picture, &out, &st), st);
    back = decode(out, &len);
    CHECK_EQ(len, 320 * 180 * 3);
    CHECK(back[90 * 960 + 80 * 3] > 240 && back[90 * 960 + 80 * 3 + 2] < 15);
    CHECK(back[90 * 960 + 240 * 3] < 15 && back[90 * 960 + 240 * 3 + 2] > 240);
    free(back);
    free(rgb);
    media_jpeg_destroy(jpeg);
}

/* Noise is the worst picture for JPEG; the quality goes down until it fits. */
TEST(the_worst_picture_fits_its_limit)
{
    struct media_picture picture = { NULL, 320, 180 };
    uint8_t *rgb = malloc(320 * 180 * 3);
    struct media_jpeg *jpeg;
    struct status st = { 0 };
    struct bytes out;
    uint32_t noise = 7;

    for (size_t i = 0; i < 320 * 180 * 3; i++) {
        noise = noise * 1664525 + 1013904223;
        rgb[i] = noise >> 31 ? 255 : 0;
    }
    picture.rgb = rgb;
    CHECK_OK(media_jpeg_create(&jpeg, &st), st);
    CHECK_OK(media_jpeg_thumbnail(jpeg, &picture, &out, &st), st);
    CHECK(out.len > 1000 && out.len <= LIMIT_THUMBNAIL_BYTES);
    free(rgb);
    media_jpeg_destroy(jpeg);
}

TEST_MAIN()
