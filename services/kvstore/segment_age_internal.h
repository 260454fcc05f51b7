/* segment_age_internal.h - the steps of segment_age.c that are in segment_age_plan.c and segment_age_swap.c. */
#ifndef REELKV_KVSTORE_SEGMENT_AGE_INTERNAL_H
#define REELKV_KVSTORE_SEGMENT_AGE_INTERNAL_H

#include "kvstore/segment_age.h"

/* What has been done when both have. */
struct kv_aged segment_age_merge(const struct kv_aged *a, const struct kv_aged *b);

/* What the new file has, in memory. NULL: no memory. */
struct segment *segment_age_adopt(struct segment_age *age, struct status *st);

/* age->made, which has its name, stands for age->segment from now on. */
void segment_age_swap(struct segment_age *age);

#endif
