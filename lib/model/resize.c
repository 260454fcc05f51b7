#include "model/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FRACTION_BITS = 22 };

static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static int32_t to_fixed(double weight)
{
    return (int32_t)(weight * (1 << FRACTION_BITS) + (weight < 0 ? -0.5 : 0.5));
}

static void axis_deinit(struct resize_axis *axis)
{
    free(axis->firsts);
    free(axis->counts);
    free(axis->weights);
    memset(axis, 0, sizeof *axis);
}

/* Weights of one output position; `room` holds axis->width doubles. */
static void axis_place(struct resize_axis *axis, uint32_t x, double *room)
{
    double scale = (double)axis->in / axis->out;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * filter_scale;
    double center = (x + 0.5) * scale;
    int64_t first = (int64_t)(center - support + 0.5);
    int64_t end = (int64_t)(center + support + 0.5);
    double inverse = 1.0 / filter_scale, total = 0;

    first = first < 0 ? 0 : first;
    end = end > axis->in ? axis->in : end;
    for (int64_t k = 0; k < end - first; k++) {
        room[k] = bicubic(((double)(k + first) - center + 0.5) * inverse);
        total += room[k];
    }
    for (int64_t k = 0; k < end - first; k++)
        axis->weights[(size_t)x * axis->width + (size_t)k] = to_fixed(total != 0 ? room[k] / total : room[k]);
    axis->firsts[x] = (uint32_t)first;
    axis->counts[x] = (uint32_t)(end - first);
}

static bool axis_init(struct resize_axis *axis, uint32_t in, uint32_t out, struct status *st)
{
    double scale = (double)in / out;
    double *room;

    axis->in = in;
    axis->out = out;
    axis->width = (uint32_t)ceil(2.0 * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    axis->firsts = calloc(out, sizeof *axis->firsts);
    axis->counts = calloc(out, sizeof *axis->counts);
    axis->weights = calloc((size_t)out * axis->width, sizeof *axis->weights);
    room = calloc(axis->width, sizeof *room);
    if (axis->firsts == NULL || axis->counts == NULL || axis->weights == NULL || room == NULL) {
        free(room);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a resize table");
    }
    for (uint32_t x = 0; x < out; x++)
        axis_place(axis, x, room);
    free(room);
    return true;
}

static bool side_is_good(uint32_t side)
{
    return side > 0 && side <= RESIZE_SIDE_MAX;
}

bool resize_init(struct resize *resize, struct resize_size from, struct resize_size to, struct status *st)
{
    memset(resize, 0, sizeof *resize);
    if (!side_is_good(from.height) || !side_is_good(from.width) || !side_is_good(to.height) ||
        !side_is_good(to.width))
        return status_fail(st, STATUS_INVALID, "cannot resize %ux%u to %ux%u: sides are 1 to %d pixels",
                           from.width, from.height, to.width, to.height, RESIZE_SIDE_MAX);
    if (axis_init(&resize->across, from.width, to.width, st) &&
        axis_init(&resize->down, from.height, to.height, st))
        return true;
    resize_deinit(resize);
    return false;
}

void resize_deinit(struct resize *resize)
{
    axis_deinit(&resize->across);
    axis_deinit(&resize->down);
}

static uint8_t clip(int32_t sum)
{
    int32_t value = sum >> FRACTION_BITS;

    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

static void pass_across(const struct resize_axis *axis, const uint8_t *in, uint8_t *out, uint32_t rows)
{
    for (uint32_t y = 0; y < rows; y++) {
        const uint8_t *row = in + (size_t)y * axis->in * 3;

        for (uint32_t x = 0; x < axis->out; x++, out += 3) {
            const int32_t *weights = axis->weights + (size_t)x * axis->width;
            const uint8_t *from = row + (size_t)axis->firsts[x] * 3;
            int32_t r = 1 << (FRACTION_BITS - 1), g = r, b = r;

            for (uint32_t k = 0; k < axis->counts[x]; k++, from += 3) {
                r += from[0] * weights[k];
                g += from[1] * weights[k];
                b += from[2] * weights[k];
            }
            out[0] = clip(r);
            out[1] = clip(g);
            out[2] = clip(b);
        }
    }
}

/* `sums` holds one row of `bytes` accumulators: whole rows are added, which the compiler turns into vectors.
 */
static void pass_down(const struct resize_axis *axis, const uint8_t *in, uint8_t *out, uint32_t bytes,
                      int32_t *sums)
{
    for (uint32_t y = 0; y < axis->out; y++, out += bytes) {
        const int32_t *weights = axis->weights + (size_t)y * axis->width;
        const uint8_t *from = in + (size_t)axis->firsts[y] * bytes;

        for (uint32_t i = 0; i < bytes; i++)
            sums[i] = 1 << (FRACTION_BITS - 1);
        for (uint32_t k = 0; k < axis->counts[y]; k++, from += bytes)
            for (uint32_t i = 0; i < bytes; i++)
                sums[i] += from[i] * weights[k];
        for (uint32_t i = 0; i < bytes; i++)
            out[i] = clip(sums[i]);
    }
}

bool resize_rgb(const struct resize *resize, const uint8_t *rgb, uint8_t *out, struct status *st)
{
    const struct resize_axis *across = &resize->across, *down = &resize->down;
    uint32_t bytes = across->out * 3;
    uint8_t *half = NULL;
    int32_t *sums = NULL;
    bool ok = false;

    /* As Pillow does, an axis whose size does not change is not filtered. */
    if (down->in == down->out) {
        if (across->in == across->out)
            memcpy(out, rgb, (size_t)down->out * bytes);
        else
            pass_across(across, rgb, out, down->in);
        return true;
    }
    sums = calloc(bytes, sizeof *sums);
    if (across->in != across->out)
        half = malloc((size_t)down->in * bytes);
    if (sums == NULL || (half == NULL && across->in != across->out)) {
        status_fail(st, STATUS_EXHAUSTED, "no memory to resize a picture");
        goto out;
    }
    if (half != NULL)
        pass_across(across, rgb, half, down->in);
    pass_down(down, half != NULL ? half : rgb, out, bytes, sums);
    ok = true;
out:
    free(half);
    free(sums);
    return ok;
}
