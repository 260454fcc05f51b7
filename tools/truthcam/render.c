#include "render.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TILE_WIDTH = 1024, TILE_HEIGHT = 512, GRAIN_BYTES = 1 << 16, GRAIN_LEVEL = 3 };

struct renderer {
    const struct world *world;
    uint8_t tile[2][TILE_HEIGHT][TILE_WIDTH]; /* two textures; what is seen drifts between them */
    int8_t grain[GRAIN_BYTES + VIDEO_WIDTH];
    uint32_t next_object; /* first object that has not wholly gone at the last frame painted */
    uint32_t last_frame;
};

/* Full-range RGB of the six colours, chosen to stay apart after 4:2:0 and a 10:1 reduction. */
static const uint8_t color_rgb[COLORS][3] = { { 214, 38, 38 },  { 36, 172, 62 },  { 48, 78, 226 },
                                              { 238, 216, 36 }, { 156, 48, 196 }, { 246, 246, 246 } };

/* Centres of the five places, in pixels. */
static const float place_centre[PLACES][2] = {
    { 150, 88 }, { 490, 88 }, { 150, 272 }, { 490, 272 }, { 320, 180 }
};

static uint8_t clamp_u8(float value)
{
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)lrintf(value);
}

/* Value noise: a coarse grid of random heights, joined smoothly; three octaves. Wraps at the tile's edges. */
static bool paint_tile(uint8_t tile[TILE_HEIGHT][TILE_WIDTH], struct dice *dice)
{
    static const struct {
        int cell;
        float weight;
    } octaves[3] = { { 128, 46 }, { 32, 16 }, { 8, 6 } };
    float(*sum)[TILE_WIDTH] = calloc(TILE_HEIGHT, sizeof *sum);

    if (sum == NULL)
        return false;
    for (int o = 0; o < 3; o++) {
        int cell = octaves[o].cell, nx = TILE_WIDTH / cell, ny = TILE_HEIGHT / cell;
        float heights[64 * 128];

        for (int i = 0; i < nx * ny; i++)
            heights[i] = (float)dice_below(dice, 2001) / 1000 - 1;
        for (int y = 0; y < TILE_HEIGHT; y++) {
            for (int x = 0; x < TILE_WIDTH; x++) {
                int x0 = x / cell, y0 = y / cell, x1 = (x0 + 1) % nx, y1 = (y0 + 1) % ny;
                float fx = (float)(x % cell) / (float)cell, fy = (float)(y % cell) / (float)cell;
                float sx = fx * fx * (3 - 2 * fx), sy = fy * fy * (3 - 2 * fy);
                float top = heights[y0 * nx + x0] * (1 - sx) + heights[y0 * nx + x1] * sx;
                float low = heights[y1 * nx + x0] * (1 - sx) + heights[y1 * nx + x1] * sx;

                sum[y][x] += octaves[o].weight * (top * (1 - sy) + low * sy);
            }
        }
    }
    for (int y = 0; y < TILE_HEIGHT; y++)
        for (int x = 0; x < TILE_WIDTH; x++)
            tile[y][x] = clamp_u8(106 + sum[y][x]);
    free(sum);
    return true;
}

bool renderer_create(struct renderer **renderer_p, const struct world *world, struct status *st)
{
    struct renderer *renderer = calloc(1, sizeof *renderer);
    struct dice dice = { world->seed ^ 0x7465787475726573u };

    if (renderer == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a renderer");
    renderer->world = world;
    if (!paint_tile(renderer->tile[0], &dice) || !paint_tile(renderer->tile[1], &dice)) {
        renderer_destroy(renderer);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the background");
    }
    for (int i = 0; i < GRAIN_BYTES + VIDEO_WIDTH; i++)
        renderer->grain[i] = (int8_t)((int)dice_below(&dice, 2 * GRAIN_LEVEL + 1) - GRAIN_LEVEL);
    *renderer_p = renderer;
    return true;
}

void renderer_destroy(struct renderer *renderer)
{
    free(renderer);
}

static void paint_row(uint8_t *restrict out, const uint8_t *restrict a, const uint8_t *restrict b,
                      const int8_t *restrict grain, int share)
{
    for (int x = 0; x < VIDEO_WIDTH; x++)
        out[x] = (uint8_t)(((a[x] * share + b[x] * (256 - share)) >> 8) + grain[x]);
}

static void paint_background(struct renderer *renderer, uint32_t frame, struct picture *picture)
{
    float t = (float)frame / VIDEO_FPS;
    int share = 128 + (int)(120 * sinf(t / 19));
    int dx = (int)(180 + 180 * sinf(t / 31)), dy = (int)(70 + 70 * sinf(t / 23));
    struct dice dice = { renderer->world->seed + frame * 977 };

    for (int y = 0; y < VIDEO_HEIGHT; y++)
        paint_row(picture->plane[0] + y * picture->stride[0], renderer->tile[0][y + dy] + dx,
                  renderer->tile[1][y + 140 - dy] + 360 - dx,
                  renderer->grain + dice_below(&dice, GRAIN_BYTES), share);
    for (int p = 1; p < 3; p++)
        for (int y = 0; y < VIDEO_HEIGHT / 2; y++)
            memset(picture->plane[p] + y * picture->stride[p], 128 + (int)(4 * sinf(t / 27 + (float)p * 2)),
                   VIDEO_WIDTH / 2);
}

/* How far inside the shape's edge (u, v) lies, in units of its radius; negative outside. v points up. */
static float depth_of(uint8_t shape, float u, float v)
{
    float au = fabsf(u), av = fabsf(v);

    switch (shape) {
    case 0: /* circle */
        return 0.95f - sqrtf(u * u + v * v);
    case 1: /* square */
        return 0.84f - fmaxf(au, av);
    case 2: /* triangle */
        return 0.55f - fmaxf(au * 0.866f + v * 0.5f, -v);
    case 3: { /* star: the edge from a tip to the next notch, angles folded onto a tenth of the circle */
        const float tenth = (float)M_PI / 5, notch = 0.46f, tip = 1.08f;
        float r = sqrtf(u * u + v * v), angle = fabsf(remainderf(atan2f(u, v), 2 * tenth));
        float bx = notch * cosf(tenth) - tip, by = notch * sinf(tenth);
        float px = r * cosf(angle) - tip, py = r * sinf(angle);

        return (bx * py - by * px) / -sqrtf(bx * bx + by * by) * -1.0f;
    }
    default: /* cross */
        return fmaxf(fminf(0.31f - au, 0.98f - av), fminf(0.31f - av, 0.98f - au));
    }
}

struct pose {
    float x, y, radius, turn_cos, turn_sin;
};

static struct pose pose_at(const struct object *object, uint32_t frame, uint32_t begin, uint32_t end)
{
    float t = (float)frame / VIDEO_FPS, id = (float)(object->first % 97) + (float)object->place * 1.7f;
    float grown = fminf(1, (float)(frame - begin + 1) / ENTER_FRAMES);
    float left = fminf(1, (float)(end - frame) / LEAVE_FRAMES);
    float turn = 0.2f * sinf(t * 1.9f + id);

    return (struct pose){
        .x = place_centre[object->place][0] + 14 * sinf(t * 1.3f + id),
        .y = place_centre[object->place][1] + 9 * sinf(t * 1.7f + id * 2),
        .radius = (58 + 5 * sinf(id * 3)) * grown * left,
        .turn_cos = cosf(turn),
        .turn_sin = sinf(turn),
    };
}

static float coverage_at(const struct pose *pose, uint8_t shape, float x, float y)
{
    float dx = (x - pose->x) / pose->radius, dy = (pose->y - y) / pose->radius;
    float u = dx * pose->turn_cos + dy * pose->turn_sin, v = dy * pose->turn_cos - dx * pose->turn_sin;
    float coverage = depth_of(shape, u, v) * pose->radius + 0.5f;

    return coverage < 0 ? 0 : coverage > 1 ? 1 : coverage;
}

static void blend(uint8_t *out, float value, float share)
{
    *out = clamp_u8((float)*out * (1 - share) + value * share);
}

static void paint_object(const struct object *object, const struct pose *pose, struct picture *picture)
{
    const uint8_t *rgb = color_rgb[object->color];
    float luma = 16 + (65.481f * rgb[0] + 128.553f * rgb[1] + 24.966f * rgb[2]) / 255;
    float cb = 128 + (-37.797f * rgb[0] - 74.203f * rgb[1] + 112.0f * rgb[2]) / 255;
    float cr = 128 + (112.0f * rgb[0] - 93.786f * rgb[1] - 18.214f * rgb[2]) / 255;
    int reach = (int)(pose->radius * 1.15f) + 2;
    int x0 = (int)pose->x - reach, x1 = (int)pose->x + reach, y0 = (int)pose->y - reach,
        y1 = (int)pose->y + reach;

    x0 = x0 < 0 ? 0 : x0 & ~1;
    y0 = y0 < 0 ? 0 : y0 & ~1;
    x1 = x1 > VIDEO_WIDTH ? VIDEO_WIDTH : x1;
    y1 = y1 > VIDEO_HEIGHT ? VIDEO_HEIGHT : y1;
    for (int y = y0; y < y1; y++) {
        float shade = 9 * (pose->y - (float)y) / pose->radius; /* lit from above */

        for (int x = x0; x < x1; x++)
            blend(picture->plane[0] + y * picture->stride[0] + x, luma + shade,
                  coverage_at(pose, object->shape, (float)x, (float)y));
    }
    for (int y = y0 / 2; y < y1 / 2; y++) {
        for (int x = x0 / 2; x < x1 / 2; x++) {
            float share = coverage_at(pose, object->shape, (float)x * 2 + 0.5f, (float)y * 2 + 0.5f);

            blend(picture->plane[1] + y * picture->stride[1] + x, cb, share);
            blend(picture->plane[2] + y * picture->stride[2] + x, cr, share);
        }
    }
}

void render_frame(struct renderer *renderer, uint32_t frame, struct picture *picture)
{
    const struct world *world = renderer->world;
    uint32_t begin, end;

    paint_background(renderer, frame, picture);
    if (frame < renderer->last_frame)
        renderer->next_object = 0;
    renderer->last_frame = frame;
    for (uint32_t i = renderer->next_object; i < world->object_count; i++) {
        const struct object *object = &world->objects[i];
        struct pose pose;

        object_frames(object, &begin, &end);
        if (end <= frame && i == renderer->next_object)
            renderer->next_object++;
        if (begin > frame)
            break;
        if (end <= frame)
            continue;
        pose = pose_at(object, frame, begin, end);
        paint_object(object, &pose, picture);
    }
}
