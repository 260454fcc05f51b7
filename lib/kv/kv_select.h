/* kv_select.h - which blocks a layer reads: a table of selectors, the union with the newest blocks, and the
 * merge of what several stores chose.
 *
 *   create -> offer (every block in view once, any order, any number of calls) -> finish -> hits -> destroy
 *
 * The selector chooses from all blocks in view; the newest `recent_window` of them are then added, on top of
 * top_r, unless they were chosen anyway. With recent_window 0 and KV_SELECT_REKV the choice is ReKV's.
 *
 * Time order of blocks is (pts, stream, seq); of equal scores the newer in time order is the better, so a
 * choice never depends on the order of offering.
 *
 * Merging the choices of several stores is offering them all to one more kv_select with the same selection.
 * That is exact: what is among the best (or the newest) over all stores is so in its own.
 *
 * Owner:  the creator. Thread: one at a time.
 * Fails:  INVALID for a selection that makes no sense; EXHAUSTED when `all` meets too many blocks.
 * Bounds: LIMIT_TOP_BLOCKS hits. */
#ifndef REELKV_KV_KV_SELECT_H
#define REELKV_KV_KV_SELECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Numbers of proto SelectorKind. */
enum kv_selector_kind { KV_SELECT_REKV = 1, KV_SELECT_RECENT = 2, KV_SELECT_ALL = 3 };

struct kv_selection {
    enum kv_selector_kind kind;
    uint32_t top_r;         /* ignored by `all` */
    uint32_t recent_window; /* top_r + recent_window is at most LIMIT_TOP_BLOCKS */
};

struct kv_hit {
    float score;
    uint32_t stream; /* index in the question's list of streams */
    uint64_t seq;
    int64_t pts_ns;
    uint32_t tokens;
    bool recent; /* added by recent_window */
    void *tag;   /* the offerer's own; kept with the hit */
};

/* Time order: above 0 when `a` is the newer, 0 for the same block. */
int kv_hit_compare_time(const struct kv_hit *a, const struct kv_hit *b);

bool kv_selection_check(const struct kv_selection *selection, struct status *st);

/* Whether the choice depends on scores; where not, they may be 0. */
bool kv_selection_uses_scores(const struct kv_selection *selection);

struct kv_select;
bool kv_select_create(struct kv_select **select_p, const struct kv_selection *selection, struct status *st);
void kv_select_destroy(struct kv_select *select); /* NULL is fine */

/* Each block once. `recent` of the hits is ignored. */
void kv_select_offer(struct kv_select *select, const struct kv_hit *hits, uint32_t count);

/* A hit below both changes nothing any more: it need not be offered. Rises with what is offered; fastest when the newest and
 * the best come first. */
struct kv_floor {
    float score;
    int64_t pts_ns;
};
struct kv_floor kv_select_floor(const struct kv_select *select);

/* Best first, ties newest first; then the recent ones, newest first. Valid until destroy. Call once. */
bool kv_select_finish(struct kv_select *select, const struct kv_hit **hits_p, uint32_t *count_p,
                      struct status *st);

/* Into time order, as they are attended to. */
void kv_hits_sort_by_time(struct kv_hit *hits, uint32_t count);

#endif
