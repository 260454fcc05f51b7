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
/* As attention_begin() lays it out: keys, values, scores and weights of a tile, then queries and state of the strips. */
_Static_assert((CPU_KEYS_TILE * (2 * TENSOR_HEAD_DIM_MAX + STRIP + STRIP / 2) +
                CPU_QUERIES_BLOCK * (2 * TENSOR_HEAD_DIM_MAX + 2 + TENSOR_HEAD_DIM_MAX)) *
                       4 <=
                   CPU_WORKER_BYTES,
               "an attention task must fit its scratch");

/* State of STRIP query rows; [..][STRIP] arrays follow each other in scratch. */
struct strip {
    float *q[2];      /* near, far: [units of dim][STRIP] */
    float *best;      /* [STRIP] largest score so far, unscaled */
    float *total;     /* [STRIP] sum of weights */
    float *values;    /* [head_dim][STRIP] weighted sum of values */
    uint32_t columns; /* vectors in use: 1 or 2 */
};

/* Where a tile's keys and values lie in memory. */
struct tile_rows {
    const void *keys[CPU_KEYS_TILE], *values[CPU_KEYS_TILE];
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
    struct tile_rows rows[2]; /* of this tile and of the next, which is fetched meanwhile */
};

/* Keys [from, to) of the tile that starts at index `base` are loaded; the window rule cuts further. */
struct key_tile {
    int64_t base;
    uint32_t from, to;
    uint32_t segment; /* of the run, where the tile begins */
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

INLINE void widen_row(float *to, const void *from, enum tensor_dtype dtype, uint32_t count)
{
    uint32_t d = 0;

    if (dtype == TENSOR_F32) {
        memcpy(to, from, count * sizeof(float));
        return;
    }
    for (; d + LANES <= count; d += LANES) {
        const uint16_t *half = (const uint16_t *)from + d;

        v_store(to + d, dtype == TENSOR_BF16 ? v_of_bf16(half) : v_of_f16(half));
    }
    for (; d < count; d++)
        to[d] = number_at(from, dtype, d);
}

/* Query rows as columns; lanes without a row hold zeros. */
static void load_queries(const struct attention *at, float *to, const struct tensor_heads *q, uint32_t strip)
{
    const struct cpu_attention_task *task = at->task;
    uint32_t rows = rows_in_strip(task, strip);
    float row_units[TENSOR_HEAD_DIM_MAX];

    if (rows < STRIP)
        memset(to, 0, (size_t)at->dim_units * STRIP * sizeof *to);
    for (uint32_t lane = 0; lane < rows; lane++) {
        uint32_t row = task->rows.from + strip * STRIP + lane;
        const void *from =
            cpu_heads_at(q, task->kv_head * task->group + row % task->group, row / task->group);

        row_units[at->dim_units - 1] = 0.0f;
        if (at->pairs)
            memcpy(row_units, from, at->head_dim * sizeof(uint16_t));
        else
            widen_row(row_units, from, q->dtype, at->head_dim);
        for (uint32_t d = 0; d < at->dim_units; d++)
            to[(size_t)d * STRIP + lane] = row_units[d];
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

/* Stands in for a key that is not there, at an odd edge of pairs. */
static const uint16_t no_key[TENSOR_HEAD_DIM_MAX];

INLINE void copy_row_of_pairs(const struct attention *at, uint32_t slot, const void *from)
{
    float *to = at->keys + (size_t)slot * at->dim_units;
    uint32_t d = 0, whole = at->head_dim / 2;

    for (; d + LANES <= whole; d += LANES)
        v_store(to + d, v_load((const float *)from + d));
    for (; d < at->dim_units; d++) {
        const uint16_t *half = (const uint16_t *)from + 2 * d;

        ((uint16_t *)to)[2 * d] = half[0];
        ((uint16_t *)to)[2 * d + 1] = 2 * d + 1 < at->head_dim ? half[1] : 0;
    }
}

INLINE void pair_rows(float *to, const uint16_t *even, const uint16_t *odd, uint32_t count)
{
    uint32_t d = 0;

    for (; d + LANES <= count; d += LANES)
        v_store(to + d, v_pairs_of(even + d, odd + d));
    for (; d < count; d++) {
        ((uint16_t *)to)[2 * d] = even[d];
        ((uint16_t *)to)[2 * d + 1] = odd[d];
    }
}

/* Fills `rows` for the tile; returns the segment that holds its last key. */
static uint32_t find_rows(const struct attention *at, struct tile_rows *rows, const struct cpu_run *run,
                          const struct key_tile *tile)
{
    uint32_t slot = tile->from, segment = tile->segment;

    while (slot < tile->to) {
        const struct tensor_segment *from = &run->segments[segment];
        int64_t token = tile->base + slot - from->first_index;
        size_t key_bytes, value_bytes;
        const uint8_t *key, *value;

        if (token >= from->keys.tokens) {
            segment++;
            continue;
        }
        key = cpu_heads_at(&from->keys, at->task->kv_head, (uint32_t)token);
        value = cpu_heads_at(&from->values, at->task->kv_head, (uint32_t)token);
        key_bytes = from->keys.token_stride * tensor_dtype_bytes(from->keys.dtype);
        value_bytes = from->values.token_stride * tensor_dtype_bytes(from->values.dtype);
        for (; slot < tile->to && token < from->keys.tokens; slot++, token++) {
            rows->keys[slot] = key;
            rows->values[slot] = value;
            key += key_bytes;
            value += value_bytes;
        }
    }
    if (tile->from % 2 == 1)
        rows->keys[tile->from - 1] = rows->values[tile->from - 1] = no_key;
    if (tile->to % 2 == 1)
        rows->keys[tile->to] = rows->values[tile->to] = no_key;
    return segment;
}

/* Brings keys and values of the tile together, in the form the products want. */
static void load_tile(const struct attention *at, const struct tile_rows *rows, const struct key_tile *tile,
                      enum tensor_dtype dtype)
{
    if (!at->pairs) {
        for (uint32_t slot = tile->from; slot < tile->to; slot++) {
            widen_row(at->keys + (size_t)slot * at->dim_units, rows->keys[slot], dtype, at->head_dim);
            widen_row(at->tile + (size_t)slot * at->head_dim, rows->values[slot], dtype, at->head_dim);
        }
        return;
    }
    for (uint32_t slot = tile->from & ~1u; slot < tile->to; slot += 2) {
        copy_row_of_pairs(at, slot, rows->keys[slot]);
        copy_row_of_pairs(at, slot + 1, rows->keys[slot + 1]);
        pair_rows(at->tile + (size_t)(slot / 2) * at->head_dim, rows->values[slot], rows->values[slot + 1],
                  at->head_dim);
    }
}

/* The slots of the tile that query row `row` sees: [*first_p, *last_p). */
INLINE void seen_by(const struct cpu_attention_task *task, const struct key_tile *tile, uint32_t row,
                    int *first_p, int *last_p)
{
    __int128 i = (__int128)task->item->first_index + row / task->group - tile->base;
    __int128 first = i - tile->max_distance + 1, last = i - tile->min_distance + 1;

    *first_p = first < tile->from ? (int)tile->from : first > CPU_KEYS_TILE ? CPU_KEYS_TILE : (int)first;
    *last_p = last < 0 ? 0 : last > tile->to ? (int)tile->to : (int)last;
}

/* Per lane, the slots its row sees. False when every row of the strip sees the whole tile: then the oldest
 * and the newest row do. */
static bool window_of(const struct attention *at, const struct key_tile *tile, uint32_t strip, float *first,
                      float *last)
{
    const struct cpu_attention_task *task = at->task;
    uint32_t rows = rows_in_strip(task, strip), from = task->rows.from + strip * STRIP;
    int oldest[2], newest[2];

    seen_by(task, tile, from, &oldest[0], &oldest[1]);
    seen_by(task, tile, from + rows - 1, &newest[0], &newest[1]);
    if (newest[0] == (int)tile->from && oldest[1] == (int)tile->to && tile->from % 2 == 0 &&
        tile->to % 2 == 0)
        return false;
    for (uint32_t lane = 0; lane < STRIP; lane++) {
        int slots[2];

        seen_by(task, tile, from + (lane < rows ? lane : rows - 1), &slots[0], &slots[1]);
        first[lane] = (float)slots[0];
        last[lane] = (float)slots[1];
    }
    return true;
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

/* The largest of each column's scores and what was the largest before. Order does not matter here: four chains. */
INLINE void raise_best(const float *scores, uint32_t from, uint32_t to, vec best[2], const int columns)
{
    vec other[2] = { best[0], best[1] };
    uint32_t slot = from;

    for (; slot + 2 <= to; slot += 2) {
        for (int n = 0; n < columns; n++) {
            best[n] = v_max(v_load(scores + (size_t)slot * STRIP + n * LANES), best[n]);
            other[n] = v_max(v_load(scores + (size_t)(slot + 1) * STRIP + n * LANES), other[n]);
        }
    }
    for (int n = 0; n < columns; n++) {
        if (slot < to)
            best[n] = v_max(v_load(scores + (size_t)slot * STRIP + n * LANES), best[n]);
        best[n] = v_max(best[n], other[n]);
    }
}

/* Scores become weights, two keys at a time; their sums go to `total`. */
INLINE void weigh_keys(const struct attention *at, struct cpu_range slots, const vec offset[2], vec total[2],
                       const int columns, const bool pairs)
{
    vec scale2 = v_all(at->scale2);

    for (uint32_t slot = slots.from; slot < slots.to; slot += 2) {
        float *first = at->scores + (size_t)slot * STRIP, *second = first + STRIP;
        bool alone = slot + 1 == slots.to;

        for (int n = 0; n < columns; n++) {
            vec even = v_fma(v_load(first + n * LANES), scale2, offset[n]), odd = v_all(0.0f);

            even = v_exp2_to(even, pairs ? 4 : 6);
            if (!alone)
                odd = v_exp2_to(v_fma(v_load(second + n * LANES), scale2, offset[n]), pairs ? 4 : 6);
            total[n] += even;
            total[n] += odd;
            if (pairs) {
                v_store_pairs(at->weights + (size_t)(slot / 2) * STRIP + n * LANES, even, odd);
            } else {
                v_store(first + n * LANES, even);
                if (!alone)
                    v_store(second + n * LANES, odd);
            }
        }
    }
}

/* Rows' best and total take the tile's scores in; what values have summed up shrinks to match. */
INLINE void weigh_columns(const struct attention *at, const struct strip *strip, struct cpu_range slots,
                          const int columns, const bool pairs)
{
    vec old[2], best[2], shrink[2], offset[2], total[2];

    for (int n = 0; n < columns; n++)
        old[n] = best[n] = v_load(strip->best + n * LANES);
    raise_best(at->scores, slots.from, slots.to, best, columns);
    for (int n = 0; n < columns; n++) {
        shrink[n] = v_exp2((old[n] - best[n]) * at->scale2);
        offset[n] = -best[n] * at->scale2;
        total[n] = v_all(0.0f);
    }
    weigh_keys(at, slots, offset, total, columns, pairs);
    for (int n = 0; n < columns; n++) {
        v_store(strip->best + n * LANES, best[n]);
        v_store(strip->total + n * LANES, v_load(strip->total + n * LANES) * shrink[n] + total[n]);
    }
    if (memcmp(old, best, (size_t)columns * sizeof *old) == 0)
        return; /* shrinking by exactly 1 */
    for (uint32_t d = 0; d < at->head_dim; d++) {
        for (int n = 0; n < columns; n++) {
            float *values = strip->values + (size_t)d * STRIP + n * LANES;

            v_store(values, v_load(values) * shrink[n]);
        }
    }
}

static void weigh(const struct attention *at, const struct strip *strip, uint32_t from, uint32_t to)
{
    struct cpu_range slots = { from, to };

    if (at->pairs && strip->columns == 2)
        weigh_columns(at, strip, slots, 2, true);
    else if (at->pairs)
        weigh_columns(at, strip, slots, 1, true);
    else if (strip->columns == 2)
        weigh_columns(at, strip, slots, 2, false);
    else
        weigh_columns(at, strip, slots, 1, false);
}

/* `tile` times its rows, in tiles of equal height. `ahead` are the rows of memory to fetch meanwhile, spread
 * evenly; NULL: none. */
INLINE void tile_product(const struct attention *at, struct tile *tile, struct cpu_range shape,
                         const void *const *ahead)
{
    const float *a = tile->a;
    float *c = tile->c;
    uint32_t rows = shape.from, columns = shape.to, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, row = 0;

    for (uint32_t i = 0; i < tiles; i++) {
        uint32_t next = rows * (i + 1) / tiles;

        tile->a = a + row * tile->a_row;
        tile->c = c + row * tile->c_row;
        tile->ahead = ahead != NULL ? ahead[CPU_KEYS_TILE * i / tiles] : (const void *)c;
        tile->ahead_step = ahead != NULL ? 64 : 0;
        if (at->pairs)
            tile_bf16(tile, next - row, columns);
        else
            tile_f32(tile, next - row, columns);
        row = next;
    }
}

static void attend_tile(const struct attention *at, const struct key_tile *keys, uint32_t s,
                        const struct tile_rows *ahead)
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

    tile_product(at, &scores, (struct cpu_range){ to - from, strip->columns },
                 ahead != NULL ? ahead->keys : NULL);
    if (window_of(at, keys, s, first, last))
        hide_unseen(at->scores, from, to, strip->columns, first, last);
    weigh(at, strip, from, to);
    tile_product(at, &values, (struct cpu_range){ at->head_dim, strip->columns },
                 ahead != NULL ? ahead->values : NULL);
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

static void set_bounds(struct key_tile *tile, int64_t from, int64_t to)
{
    tile->from = from > tile->base ? (uint32_t)(from - tile->base) : 0;
    tile->to = to - tile->base < CPU_KEYS_TILE ? (uint32_t)(to - tile->base) : CPU_KEYS_TILE;
}

static void attend_run(struct attention *at, const struct cpu_run *run)
{
    struct key_tile tile = { .min_distance = run->segments->min_distance,
                             .max_distance = run->segments->max_distance,
                             .far = run->segments->far };
    struct tile_rows *now = &at->rows[0], *ahead = &at->rows[1];
    int64_t from, to;

    if (!visible_range(at->task, run, &from, &to))
        return;
    tile.base = tile_start(from);
    set_bounds(&tile, from, to);
    tile.segment = find_rows(at, now, run, &tile);
    while (tile.base < to) {
        struct key_tile next = tile;
        struct tile_rows *swap = now;
        bool whole;

        next.base += CPU_KEYS_TILE;
        if (next.base < to) {
            set_bounds(&next, from, to);
            next.segment = find_rows(at, ahead, run, &next);
        }
        whole = next.base < to && next.to == CPU_KEYS_TILE;
        load_tile(at, now, &tile, run->segments->keys.dtype);
        for (uint32_t s = 0; s < at->strip_count; s++)
            attend_tile(at, &tile, s, s == 0 && whole ? ahead : NULL);
        tile = next;
        now = ahead;
        ahead = swap;
    }
}

/* Weighted sums over totals, back to rows; a row that saw nothing is zero. `strip` is best, total, values. */
static void finish_rows(const struct tensor_attention_item *item, struct cpu_range rows, uint32_t first_head,
                        uint32_t group, const float *strip)
{
    const float *total = strip + STRIP, *values = total + STRIP;
    uint32_t head_dim = item->out.head_dim;
    float row_values[TENSOR_HEAD_DIM_MAX];

    for (uint32_t row = rows.from; row < rows.to; row++) {
        uint32_t lane = row - rows.from, d = 0;
        void *out = cpu_heads_at(&item->out, first_head + row % group, row / group);
        float share = total[lane] > 0.0f ? 1.0f / total[lane] : 0.0f;

        for (uint32_t i = 0; i < head_dim; i++)
            row_values[i] = values[(size_t)i * STRIP + lane] * share;
        if (item->out.dtype == TENSOR_F32) {
            memcpy(out, row_values, head_dim * sizeof(float));
            continue;
        }
        for (; d + LANES <= head_dim; d += LANES)
            v_to_bf16((uint16_t *)out + d, v_load(row_values + d));
        for (; d < head_dim; d++)
            ((uint16_t *)out)[d] = number_bf16_of_f32(row_values[d]);
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
