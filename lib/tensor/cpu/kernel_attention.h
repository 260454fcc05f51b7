/* kernel_attention.h - softmax attention over runs of keys, static in each cpu/kernels_*.c.
 *
 * After "FlashAttention" (Dao et al. 2022): keys come in tiles, each query row keeps its largest score, the
 * sum of its weights and the weighted sum of values, and rescales both when a larger score turns up. Query
 * rows are the lanes of a vector (a "strip" is two vectors of rows), so that every maximum, sum and product
 * of a row stays in its own lane, in ascending order of keys: no neighbour, no strip boundary and no thread
 * can change a bit of it.
 *
 * Tiles start at multiples of CPU_KEYS_TILE of the token index, wherever segments are cut. A key that a row
 * does not see gets the score -inf, hence the weight 0.0: it adds nothing, as if it were not there.
 *
 * Everything is transposed: scores are [key][row], values' sums [dim][row]; then both products are the tile
 * of kernel_tile.h. With bf16 queries, keys and values and a dot product for them, a unit of its inner loop
 * is a pair of dims (scores) or a pair of keys (values); weights are then rounded to bf16, their sum is not.
 */
#ifndef REELKV_TENSOR_CPU_KERNEL_ATTENTION_H
#define REELKV_TENSOR_CPU_KERNEL_ATTENTION_H

#include <math.h>

#include "tensor/cpu/cpu.h"
#include "tensor/cpu/kernel_tile.h"

enum {
    STRIP = 2 * LANES,
    STRIPS_MAX = CPU_QUERIES_BLOCK / STRIP,
};

/* What is scored below this is not seen; rows start here. */
#define SCORE_NONE (-1e30f)

_Static_assert(CPU_KEYS_TILE % 2 == 0, "pairs of keys must not straddle tiles");
_Static_assert(CPU_KEYS_CHUNK % CPU_KEYS_TILE == 0, "chunks must hold whole tiles");
_Static_assert(CPU_QUERIES_BLOCK % STRIP == 0 && CPU_QUERIES_FEW % STRIP == 0,
               "blocks must hold whole strips");

/* State of STRIP query rows; [..][STRIP] arrays follow each other in scratch. */
struct strip {
    float *q[2];      /* near, far: [units of dim][STRIP] */
    float *best;      /* [STRIP] largest score so far, unscaled */
    float *total;     /* [STRIP] sum of weights */
    float *values;    /* [head_dim][STRIP] weighted sum of values */
    uint32_t columns; /* vectors in use: 1 or 2 */
};

struct attention {
    const struct cpu_attention_task *task;
    uint32_t head_dim, dim_units;
    bool pairs;   /* bf16 dot product */
    float scale2; /* scale * log2(e) */
    uint32_t strip_count;
    struct strip strips[STRIPS_MAX];
    float *keys;    /* [CPU_KEYS_TILE][dim_units] */
    float *tile;    /* values: [CPU_KEYS_TILE][head_dim], or pairs of keys [CPU_KEYS_TILE / 2][head_dim] */
    float *scores;  /* [CPU_KEYS_TILE][STRIP], then weights */
    float *weights; /* pairs: [CPU_KEYS_TILE / 2][STRIP] */
};

/* Keys [from, to) of the tile that starts at index `base` are loaded; the window rule cuts further. */
struct key_tile {
    int64_t base;
    uint32_t from, to;
    int64_t min_distance, max_distance;
    bool far;
};

static size_t strip_floats(uint32_t head_dim)
{
    return (size_t)STRIP * (2 + head_dim);
}

static size_t attention_partial_floats(uint32_t rows, uint32_t head_dim)
{
    return (rows + STRIP - 1) / STRIP * strip_floats(head_dim);
}

INLINE float number_at(const void *from, enum tensor_dtype dtype, size_t i)
{
    if (dtype == TENSOR_F32)
        return ((const float *)from)[i];
    return dtype == TENSOR_BF16 ? number_f32_of_bf16(((const uint16_t *)from)[i])
                                : number_f32_of_f16(((const uint16_t *)from)[i]);
}

INLINE uint32_t rows_in_strip(const struct cpu_attention_task *task, uint32_t strip)
{
    uint32_t left = task->rows.to - task->rows.from - strip * STRIP;

    return left < STRIP ? left : STRIP;
}

/* Query rows as columns; lanes without a row hold zeros. */
static void load_queries(const struct attention *at, float *to, const struct tensor_heads *q, uint32_t strip)
{
    const struct cpu_attention_task *task = at->task;
    uint32_t rows = rows_in_strip(task, strip);

    memset(to, 0, (size_t)at->dim_units * STRIP * sizeof *to);
    for (uint32_t lane = 0; lane < rows; lane++) {
        uint32_t row = task->rows.from + strip * STRIP + lane;
        const void *from =
            cpu_heads_at(q, task->kv_head * task->group + row % task->group, row / task->group);

        for (uint32_t d = 0; d < at->head_dim; d++) {
            if (at->pairs)
                ((uint16_t *)to)[((size_t)(d / 2) * STRIP + lane) * 2 + d % 2] = ((const uint16_t *)from)[d];
            else
                to[(size_t)d * STRIP + lane] = number_at(from, q->dtype, d);
        }
    }
}

static bool any_far(const struct cpu_attention_task *task)
{
    for (uint32_t i = 0; i < task->run_count; i++)
        if (task->runs[i].segments->far)
            return true;
    return false;
}

static bool pairs_possible(const struct cpu_attention_task *task)
{
    if (!HAS_DOT || task->item->q.dtype != TENSOR_BF16)
        return false;
    for (uint32_t i = 0; i < task->item->segment_count; i++)
        if (task->item->segments[i].keys.dtype != TENSOR_BF16)
            return false;
    return true;
}

static void attention_begin(struct attention *at, const struct cpu_attention_task *task, uint8_t *scratch)
{
    const struct tensor_attention_item *item = task->item;
    uint32_t head_dim = item->q.head_dim, rows = task->rows.to - task->rows.from;
    float *next = (float *)scratch;

    at->task = task;
    at->head_dim = head_dim;
    at->pairs = pairs_possible(task);
    at->dim_units = at->pairs ? (head_dim + 1) / 2 : head_dim;
    at->scale2 = task->scale * 1.44269504f;
    at->strip_count = (rows + STRIP - 1) / STRIP;
    at->keys = next;
    at->tile = at->keys + (size_t)CPU_KEYS_TILE * at->dim_units;
    at->scores = at->tile + (size_t)CPU_KEYS_TILE * head_dim;
    at->weights = at->scores + (size_t)CPU_KEYS_TILE * STRIP;
    next = at->weights + (size_t)CPU_KEYS_TILE / 2 * STRIP;
    for (uint32_t s = 0; s < at->strip_count; s++) {
        struct strip *strip = &at->strips[s];

        strip->columns = rows_in_strip(task, s) > LANES ? 2 : 1;
        strip->q[0] = next;
        strip->q[1] = next + (size_t)at->dim_units * STRIP;
        next = strip->q[1] + (size_t)at->dim_units * STRIP;
        load_queries(at, strip->q[0], &item->q, s);
        if (any_far(task))
            load_queries(at, strip->q[1], &item->q_far, s);
        strip->best = next;
        strip->total = strip->best + STRIP;
        strip->values = strip->total + STRIP;
        next += strip_floats(head_dim);
        for (uint32_t i = 0; i < STRIP; i++)
            strip->best[i] = SCORE_NONE;
        memset(strip->total, 0, (size_t)STRIP * (1 + head_dim) * sizeof(float));
    }
}

/* One key's row into the tile. */
INLINE void load_key(const struct attention *at, const struct tensor_heads *keys, uint32_t token,
                     uint32_t slot)
{
    const uint8_t *from = cpu_heads_at(keys, at->task->kv_head, token);
    float *to = at->keys + (size_t)slot * at->dim_units;

    if (at->pairs) {
        to[at->dim_units - 1] = 0.0f;
        memcpy(to, from, at->head_dim * sizeof(uint16_t));
    } else if (keys->dtype == TENSOR_F32) {
        memcpy(to, from, at->head_dim * sizeof(float));
    } else {
        for (uint32_t d = 0; d < at->head_dim; d++)
            to[d] = number_at(from, keys->dtype, d);
    }
}

INLINE void load_value(const struct attention *at, const struct tensor_heads *values, uint32_t token,
                       uint32_t slot)
{
    const uint8_t *from = cpu_heads_at(values, at->task->kv_head, token);

    if (at->pairs) {
        uint16_t *to = (uint16_t *)(at->tile + (size_t)(slot / 2) * at->head_dim) + slot % 2;

        for (uint32_t d = 0; d < at->head_dim; d++)
            to[2 * d] = ((const uint16_t *)from)[d];
    } else {
        float *to = at->tile + (size_t)slot * at->head_dim;

        for (uint32_t d = 0; d < at->head_dim; d++)
            to[d] = number_at(from, values->dtype, d);
    }
}

/* Fills slots [from, to) of the tile from the segments of the run; in pairs an odd edge gets a zero key. */
static void load_tile(const struct attention *at, const struct cpu_run *run, const struct key_tile *tile,
                      uint32_t *segment_p)
{
    uint32_t slot = tile->from, segment = *segment_p;

    if (at->pairs && tile->from % 2 == 1) {
        memset(at->keys + (size_t)(tile->from - 1) * at->dim_units, 0, at->dim_units * sizeof(float));
        memset(at->tile + (size_t)(tile->from / 2) * at->head_dim, 0, at->head_dim * sizeof(float));
    }
    if (at->pairs && tile->to % 2 == 1) {
        memset(at->keys + (size_t)tile->to * at->dim_units, 0, at->dim_units * sizeof(float));
        memset(at->tile + (size_t)(tile->to / 2) * at->head_dim, 0, at->head_dim * sizeof(float));
    }
    while (slot < tile->to) {
        const struct tensor_segment *from = &run->segments[segment];
        int64_t token = tile->base + slot - from->first_index;

        if (token >= from->keys.tokens) {
            segment++;
            continue;
        }
        load_key(at, &from->keys, (uint32_t)token, slot);
        load_value(at, &from->values, (uint32_t)token, slot);
        slot++;
    }
    *segment_p = segment;
}

/* Per lane, the slots [first, last) of the tile that its row sees. True when some lane does not see all. */
static bool window_of(const struct attention *at, const struct key_tile *tile, uint32_t strip, float *first,
                      float *last)
{
    const struct cpu_attention_task *task = at->task;
    uint32_t rows = rows_in_strip(task, strip);
    bool partial = false;

    for (uint32_t lane = 0; lane < STRIP; lane++) {
        uint32_t row = task->rows.from + strip * STRIP + (lane < rows ? lane : rows - 1);
        __int128 i = (__int128)task->item->first_index + row / task->group - tile->base;
        __int128 lo = i - tile->max_distance + 1, hi = i - tile->min_distance + 1;

        lo = lo < tile->from ? tile->from : lo > CPU_KEYS_TILE ? CPU_KEYS_TILE : lo;
        hi = hi < 0 ? 0 : hi > tile->to ? tile->to : hi;
        first[lane] = (float)(int)lo;
        last[lane] = (float)(int)hi;
        partial = partial || lo > tile->from || hi < tile->to;
    }
    return partial;
}

INLINE void hide_unseen(float *scores, uint32_t from, uint32_t to, uint32_t columns, const float *first,
                        const float *last)
{
    for (uint32_t n = 0; n < columns; n++) {
        vec lo = v_load(first + n * LANES), hi = v_load(last + n * LANES);

        for (uint32_t slot = from; slot < to; slot++) {
            vec key = v_all((float)slot);
            float *score = scores + (size_t)slot * STRIP + n * LANES;

            v_store(score, v_select((key >= lo) & (key < hi), v_load(score), v_all(-INFINITY)));
        }
    }
}

/* Scores become weights; rows' best, total and values are brought up to date with them. */
INLINE void weigh(const struct attention *at, const struct strip *strip, uint32_t from, uint32_t to)
{
    vec scale2 = v_all(at->scale2);

    for (uint32_t n = 0; n < strip->columns; n++) {
        float *score = at->scores + n * LANES;
        vec old = v_load(strip->best + n * LANES), best = old, total = v_all(0.0f), shrink, offset;

        for (uint32_t slot = from; slot < to; slot++)
            best = v_max(v_load(score + (size_t)slot * STRIP), best);
        shrink = v_exp2((old - best) * scale2);
        offset = -best * scale2;
        for (uint32_t slot = from; slot < to; slot += 2) {
            vec even = v_exp2(v_fma(v_load(score + (size_t)slot * STRIP), scale2, offset)), odd = v_all(0.0f);

            if (slot + 1 < to)
                odd = v_exp2(v_fma(v_load(score + (size_t)(slot + 1) * STRIP), scale2, offset));
            total += even;
            total += odd;
            if (at->pairs) {
                v_store_pairs(at->weights + (size_t)(slot / 2) * STRIP + n * LANES, even, odd);
            } else {
                v_store(score + (size_t)slot * STRIP, even);
                if (slot + 1 < to)
                    v_store(score + (size_t)(slot + 1) * STRIP, odd);
            }
        }
        v_store(strip->best + n * LANES, best);
        v_store(strip->total + n * LANES, v_load(strip->total + n * LANES) * shrink + total);
        for (uint32_t d = 0; d < at->head_dim; d++) {
            float *values = strip->values + (size_t)d * STRIP + n * LANES;

            v_store(values, v_load(values) * shrink);
        }
    }
}

INLINE void tile_product(const struct attention *at, struct tile *tile, uint32_t rows, uint32_t columns)
{
    const float *a = tile->a;
    float *c = tile->c;

    for (uint32_t row = 0; row < rows; row += TILE_ROWS) {
        uint32_t tall = rows - row < TILE_ROWS ? rows - row : TILE_ROWS;

        tile->a = a + row * tile->a_row;
        tile->c = c + row * tile->c_row;
        if (at->pairs)
            tile_bf16(tile, tall, columns);
        else
            tile_f32(tile, tall, columns);
    }
}

static void attend_tile(const struct attention *at, const struct key_tile *keys, uint32_t s)
{
    const struct strip *strip = &at->strips[s];
    uint32_t from = at->pairs ? keys->from & ~1u : keys->from,
             to = at->pairs ? (keys->to + 1) & ~1u : keys->to;
    uint32_t unit = at->pairs ? 2 : 1;
    float first[STRIP], last[STRIP], *q = strip->q[keys->far],
                                     *weights = at->pairs ? at->weights : at->scores;
    struct tile scores = { .a = at->keys + (size_t)from * at->dim_units,
                           .a_row = at->dim_units,
                           .a_step = 1,
                           .b = { q, q + LANES },
                           .b_step = STRIP,
                           .depth = at->dim_units,
                           .c = at->scores + (size_t)from * STRIP,
                           .c_row = STRIP };
    struct tile values = { .a = at->tile + (size_t)(from / unit) * at->head_dim,
                           .a_row = 1,
                           .a_step = at->head_dim,
                           .b = { weights + (size_t)(from / unit) * STRIP,
                                  weights + (size_t)(from / unit) * STRIP + LANES },
                           .b_step = STRIP,
                           .depth = (to - from) / unit,
                           .c = strip->values,
                           .c_row = STRIP,
                           .resume = true };

    tile_product(at, &scores, to - from, strip->columns);
    if (window_of(at, keys, s, first, last) || from < keys->from || to > keys->to)
        hide_unseen(at->scores, from, to, strip->columns, first, last);
    weigh(at, strip, from, to);
    tile_product(at, &values, at->head_dim, strip->columns);
}

static int64_t clamp_index(__int128 index)
{
    return index < INT64_MIN ? INT64_MIN : index > INT64_MAX ? INT64_MAX : (int64_t)index;
}

/* The keys of a run that some row of the task sees, further cut to the task's share. */
static bool visible_range(const struct cpu_attention_task *task, const struct cpu_run *run, int64_t *from_p,
                          int64_t *to_p)
{
    const struct tensor_segment *rule = run->segments;
    __int128 i = task->item->first_index;
    int64_t from = clamp_index(i + task->rows.from / task->group - rule->max_distance + 1);
    int64_t to = clamp_index(i + (task->rows.to - 1) / task->group - rule->min_distance + 1);

    from = from < run->first ? run->first : from;
    from = from < task->from ? task->from : from;
    to = to > run->end ? run->end : to;
    to = to > task->to ? task->to : to;
    *from_p = from;
    *to_p = to;
    return from < to;
}

static int64_t tile_start(int64_t index)
{
    int64_t rest = index % CPU_KEYS_TILE;

    return index - (rest < 0 ? rest + CPU_KEYS_TILE : rest);
}

static void attend_run(struct attention *at, const struct cpu_run *run)
{
    struct key_tile tile = { .min_distance = run->segments->min_distance,
                             .max_distance = run->segments->max_distance,
                             .far = run->segments->far };
    uint32_t segment = 0;
    int64_t from, to;

    if (!visible_range(at->task, run, &from, &to))
        return;
    for (tile.base = tile_start(from); tile.base < to; tile.base += CPU_KEYS_TILE) {
        tile.from = from > tile.base ? (uint32_t)(from - tile.base) : 0;
        tile.to = to - tile.base < CPU_KEYS_TILE ? (uint32_t)(to - tile.base) : CPU_KEYS_TILE;
        load_tile(at, run, &tile, &segment);
        for (uint32_t s = 0; s < at->strip_count; s++)
            attend_tile(at, &tile, s);
    }
}

/* Weighted sums over totals, back to rows; a row that saw nothing is zero. */
static void finish_rows(const struct tensor_attention_item *item, struct cpu_range rows, uint32_t first_head,
                        uint32_t group, const float *strip)
{
    const float *total = strip + STRIP, *values = total + STRIP;
    uint32_t head_dim = item->out.head_dim;

    for (uint32_t row = rows.from; row < rows.to; row++) {
        uint32_t lane = row - rows.from;
        void *out = cpu_heads_at(&item->out, first_head + row % group, row / group);
        float share = total[lane] > 0.0f ? 1.0f / total[lane] : 0.0f;

        for (uint32_t d = 0; d < head_dim; d++) {
            float value = values[(size_t)d * STRIP + lane] * share;

            if (item->out.dtype == TENSOR_F32)
                ((float *)out)[d] = value;
            else
                ((uint16_t *)out)[d] = number_bf16_of_f32(value);
        }
    }
}

static void attention_task(const struct cpu_attention_task *task, uint8_t *scratch)
{
    struct attention at;
    uint32_t head_dim = task->item->q.head_dim;

    attention_begin(&at, task, scratch);
    for (uint32_t i = 0; i < task->run_count; i++)
        attend_run(&at, &task->runs[i]);
    for (uint32_t s = 0; s < at.strip_count; s++) {
        struct cpu_range rows = { .from = task->rows.from + s * STRIP };

        rows.to = rows.from + rows_in_strip(task, s);
        if (task->partial != NULL)
            memcpy(task->partial + s * strip_floats(head_dim), at.strips[s].best,
                   strip_floats(head_dim) * sizeof(float));
        else
            finish_rows(task->item, rows, task->kv_head * task->group, task->group, at.strips[s].best);
    }
}

/* Joins the shares of a row's keys, in the order of the keys. */
static void attention_join(const struct cpu_merge *merge, uint8_t *scratch)
{
    uint32_t head_dim = merge->item->q.head_dim, rows = merge->rows.to - merge->rows.from;
    size_t floats = strip_floats(head_dim), stride = attention_partial_floats(rows, head_dim);
    float *sum = (float *)scratch;
    vec scale2 = v_all(merge->scale * 1.44269504f);

    for (uint32_t s = 0; s * STRIP < rows; s++) {
        struct cpu_range part = { .from = merge->rows.from + s * STRIP };

        part.to = part.from + STRIP < merge->rows.to ? part.from + STRIP : merge->rows.to;
        memset(sum, 0, floats * sizeof *sum);
        for (uint32_t n = 0; n < STRIP; n += LANES) {
            vec best = v_all(SCORE_NONE);

            for (uint32_t i = 0; i < merge->count; i++)
                best = v_max(best, v_load(merge->partials + i * stride + s * floats + n));
            for (uint32_t i = 0; i < merge->count; i++) {
                const float *from = merge->partials + i * stride + s * floats;
                vec share = v_exp2((v_load(from + n) - best) * scale2);

                for (uint32_t d = 1; d < 2 + head_dim; d++) /* the total, then the values */
                    v_store(sum + (size_t)d * STRIP + n, v_load(sum + (size_t)d * STRIP + n) +
                                                             v_load(from + (size_t)d * STRIP + n) * share);
            }
        }
        finish_rows(merge->item, part, merge->kv_head * merge->group, merge->group, sum);
    }
}

#endif
