#include "media/media_jpeg.h"

#include <stdlib.h>

#include <turbojpeg.h>

#include "base/require.h"

struct media_jpeg {
    tjhandle compressor;
    uint8_t *out; /* out_bytes, what the library says is enough for any picture of this size */
    unsigned long out_bytes;
    uint8_t small[MEDIA_THUMBNAIL_WIDTH * MEDIA_THUMBNAIL_HEIGHT * 3];
};

bool media_jpeg_create(struct media_jpeg **jpeg_p, struct status *st)
{
    struct media_jpeg *jpeg = calloc(1, sizeof *jpeg);

    if (jpeg == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the thumbnail encoder");
    jpeg->compressor = tjInitCompress();
    jpeg->out_bytes = tjBufSize(MEDIA_THUMBNAIL_WIDTH, MEDIA_THUMBNAIL_HEIGHT, TJSAMP_420);
    jpeg->out = malloc(jpeg->out_bytes);
    if (jpeg->compressor == NULL || jpeg->out == NULL) {
        media_jpeg_destroy(jpeg);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the thumbnail encoder");
    }
    *jpeg_p = jpeg;
    return true;
}

void media_jpeg_destroy(struct media_jpeg *jpeg)
{
    if (jpeg == NULL)
        return;
    if (jpeg->compressor != NULL)
        tjDestroy(jpeg->compressor);
    free(jpeg->out);
    free(jpeg);
}

/* The largest size of the same aspect within the thumbnail's box. */
static void fit(const struct media_picture *picture, uint32_t *width_p, uint32_t *height_p)
{
    uint64_t w = picture->width, h = picture->height;
    uint64_t width = w, height = h;

    if (width > MEDIA_THUMBNAIL_WIDTH) {
        width = MEDIA_THUMBNAIL_WIDTH;
        height = (h * width + w / 2) / w;
    }
    if (height > MEDIA_THUMBNAIL_HEIGHT) {
        height = MEDIA_THUMBNAIL_HEIGHT;
        width = (w * height + h / 2) / h;
    }
    *width_p = width > 0 ? (uint32_t)width : 1;
    *height_p = height > 0 ? (uint32_t)height : 1;
}

/* Mean of the source pixels [x0, x1) x [y0, y1), rounded. */
static void average(const struct media_picture *picture, const uint32_t x[2], const uint32_t y[2],
                    uint8_t *out)
{
    uint64_t sum[3] = { 0 };
    uint64_t count = (uint64_t)(x[1] - x[0]) * (y[1] - y[0]);

    for (uint32_t row = y[0]; row < y[1]; row++) {
        const uint8_t *from = picture->rgb + ((size_t)row * picture->width + x[0]) * 3;

        for (uint32_t i = x[0]; i < x[1]; i++, from += 3)
            for (int c = 0; c < 3; c++)
                sum[c] += from[c];
    }
    for (int c = 0; c < 3; c++)
        out[c] = (uint8_t)((sum[c] + count / 2) / count);
}

static void shrink(const struct media_picture *picture, uint8_t *out, uint32_t width, uint32_t height)
{
    for (uint32_t j = 0; j < height; j++) {
        uint32_t y[2] = { (uint32_t)((uint64_t)j * picture->height / height),
                          (uint32_t)((uint64_t)(j + 1) * picture->height / height) };

        for (uint32_t i = 0; i < width; i++, out += 3) {
            uint32_t x[2] = { (uint32_t)((uint64_t)i * picture->width / width),
                              (uint32_t)((uint64_t)(i + 1) * picture->width / width) };

            average(picture, x, y, out);
        }
    }
}

bool media_jpeg_thumbnail(struct media_jpeg *jpeg, const struct media_picture *picture, struct bytes *jpeg_p,
                          struct status *st)
{
    static const int qualities[] = { 80, 60, 40, 20 };
    uint32_t width, height;

    REQUIRE(picture->width > 0 && picture->height > 0);
    fit(picture, &width, &height);
    shrink(picture, jpeg->small, width, height);
    for (size_t i = 0; i < ARRAY_LEN(qualities); i++) {
        unsigned long len = jpeg->out_bytes;

        if (tjCompress2(jpeg->compressor, jpeg->small, (int)width, 0, (int)height, TJPF_RGB, &jpeg->out, &len,
                        TJSAMP_420, qualities[i], TJFLAG_NOREALLOC) != 0)
            return status_fail(st, STATUS_INTERNAL, "make a thumbnail of %u x %u: %s", picture->width,
                               picture->height, tjGetErrorStr2(jpeg->compressor));
        if (len <= LIMIT_THUMBNAIL_BYTES) {
            *jpeg_p = (struct bytes){ jpeg->out, len };
            return true;
        }
    }
    return status_fail(st, STATUS_INTERNAL, "the thumbnail is larger than %d bytes at the lowest quality",
                       LIMIT_THUMBNAIL_BYTES);
}
