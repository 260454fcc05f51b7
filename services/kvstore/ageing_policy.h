/* ageing_policy.h - what becomes of frames as they grow older, by class of stream.
 *
 *   CLASS=STEP:TIME,STEP:TIME,...;CLASS=...          default=full:24h,thin/4:72h,8bit:14d,keys:90d
 *
 * A step holds until frames are TIME old (s, m, h, d), and times rise: full; thin/N, of the frames one in N; 8bit, K and V in
 * 8 bits; keys, only keys and thumbnails. What an earlier step did stays done. After the last step they go. A class
 * without steps keeps everything until the budget removes it, as does `default` when it is not named.
 *
 * Thread: any. Fails: INVALID with the word that is wrong. Bounds: AGEING_CLASSES_MAX, AGEING_STEPS_MAX. */
#ifndef REELKV_KVSTORE_AGEING_POLICY_H
#define REELKV_KVSTORE_AGEING_POLICY_H

#include "base/limits.h"
#include "kv/kv_format.h"

enum { AGEING_CLASSES_MAX = 32, AGEING_STEPS_MAX = 8, AGEING_THIN_MAX = 1 << 20 };

struct ageing_step {
    struct kv_aged aged; /* with what the steps before did */
    int64_t until_ns;    /* age */
};

struct ageing_class {
    char name[LIMIT_NAME_BYTES + 1];
    struct ageing_step steps[AGEING_STEPS_MAX];
    uint32_t count; /* 0: no steps */
};

struct ageing_policy {
    struct ageing_class classes[AGEING_CLASSES_MAX];
    uint32_t count;
};

/* "": nothing but `default`, without steps. */
bool ageing_policy_parse(struct ageing_policy *policy, const char *text, struct status *st);

/* "": default. NULL: there is no such class. */
const struct ageing_class *ageing_policy_find(const struct ageing_policy *policy, const char *name);

/* The step of frames so old, `further` steps on; count: they go. The class has steps. */
uint32_t ageing_class_step(const struct ageing_class *class, int64_t age_ns, uint32_t further);

/* The least time between two steps, or of the first; INT64_MAX when no class has any. */
int64_t ageing_policy_shortest_ns(const struct ageing_policy *policy);

#endif
