/* evidence.h - which frames an answer rests on: each layer chose its own, so frames are ranked by the number of
 * layers that chose them, then by their mean rank there (1 is best), newer first when equal.
 *
 * Owner: the question. Thread: the question's. Fails: EXHAUSTED without memory. */
#ifndef REELKV_QA_EVIDENCE_H
#define REELKV_QA_EVIDENCE_H

#include "base/status.h"
#include "kv/kv_select.h"

struct evidence_choice {
    struct kv_hit hit;
    uint32_t layer;
    uint32_t rank; /* in its layer by score, from 1; the frames of the recent window come after the others */
};

/* Zeroed memory is empty. */
struct evidence {
    struct evidence_choice *choices; /* by layer, then rank */
    uint32_t count, room;
};

struct evidence_frame {
    struct kv_hit hit; /* of the layer that ranked it best */
    uint32_t layers;
    double mean_rank;
    double mean_score;
};

void evidence_deinit(struct evidence *evidence);

/* One layer's choice, in any order. */
bool evidence_add(struct evidence *evidence, uint32_t layer, const struct kv_hit *hits, uint32_t count,
                  struct status *st);

/* The ranking; *frames_p is malloc'd, the caller's. */
bool evidence_rank(const struct evidence *evidence, struct evidence_frame **frames_p, uint32_t *count_p,
                   struct status *st);

#endif
