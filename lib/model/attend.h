/* attend.h - the one attention rule of windows and questions, as segments for tensor ops.
 *
 *   A query at index i sees the key at index j when 0 <= i - j < n_local, turned by i - j; and the system
 * prompt's keys always: those at n_local or farther as if they were n_local - 1 away. One softmax over both.
 *
 * The system prompt is the first init_tokens indices of every sequence. Far segments hold its keys
 * un-rotated, met by queries turned to n_local - 1; near segments hold rotated keys, met by queries turned to
 * their own index. */
#ifndef REELKV_MODEL_ATTEND_H
#define REELKV_MODEL_ATTEND_H

#include "model/decoder.h"

struct attend_rule {
    uint32_t n_local;
    bool unbounded; /* every earlier key is seen at its true distance, none is far */
};

/* Queries with indices from `first`, `count` of them, need the far segment. */
static inline bool attend_needs_far(const struct attend_rule *rule, int64_t first, uint32_t count)
{
    return !rule->unbounded && first + count - 1 >= rule->n_local;
}

static inline struct tensor_segment attend_near(const struct attend_rule *rule, struct tensor_heads keys,
                                                struct tensor_heads values, int64_t first_index)
{
    return (struct tensor_segment){ .keys = keys,
                                    .values = values,
                                    .first_index = first_index,
                                    .min_distance = 0,
                                    .max_distance = rule->unbounded ? TENSOR_DISTANCE_MAX : rule->n_local };
}

/* keys, values: the system prompt's, un-rotated. */
static inline struct tensor_segment attend_far(const struct attend_rule *rule, struct tensor_heads keys,
                                               struct tensor_heads values)
{
    return (struct tensor_segment){ .keys = keys,
                                    .values = values,
                                    .min_distance = rule->n_local,
                                    .max_distance = TENSOR_DISTANCE_MAX,
                                    .far = true };
}

#endif
