/* store_ageing.h - when which segment ages: by its class's policy, or earlier when the disk fills; and how far back the store
 * will remember.
 *
 * A segment is as old as its newest frame, but not older than it has been here: a film of last year begins to age when it is
 * read. It ages as a whole, the oldest first, one at a time (segment_age.h). Above STORE_PRESSED_PERCENT of the disk's budget
 * segments go one step further than their age says; what that does not free, the budget's removal does (store_budget.c).
 *
 * All segments are looked at when something is due, not before: a look that finds nothing knows when something will be, and
 * a segment that is added says so for itself. What is due and cannot be done (held, being removed) is looked at again
 * after BLOCKED_LOOKS.
 *
 * Ages follow from UTC as long as it goes as the clock goes that nobody sets. When UTC steps ahead of that by more than
 * STORE_CLOCK_STEP_S it is not believed: that is logged, and segments age, and holds end, by the steady clock until UTC has come
 * back or the store is started again. A step back is believed: nothing goes for it. At start there is nothing to hold UTC against.
 *
 * Owner:  the store. Thread: loop. */
#ifndef REELKV_KVSTORE_STORE_AGEING_H
#define REELKV_KVSTORE_STORE_AGEING_H

#include "kvstore/ageing_policy.h"
#include "kvstore/segment_age.h"
#include "loop/loop.h"

enum { STORE_PRESSED_PERCENT = 80, STORE_CLOCK_STEP_S = 3600 };

struct store_ageing {
    struct ageing_policy policy;
    struct segment_age age;
    struct loop_timer timer;
    int64_t utc_offset_ns;     /* of believed UTC to clock_boot_ns(); 0: not known yet */
    bool is_utc_ahead;         /* it is not believed now */
    int64_t quiet_until_ns[2]; /* UTC; nothing is due before, as its age says, and one step further */
    uint64_t rewritten_segments;
    /* how far back, when everything goes on as it does: asked for often, found now and then */
    int64_t horizon_ns;
    uint64_t horizon_at_ns;
};

void store_ageing_start(struct store *store);
void store_ageing_stop(struct store *store);

/* UTC as it is believed. */
int64_t store_now_ns(struct store *store);

/* Among the sealed ones from now on. */
void store_ageing_add(struct store *store, const struct segment *segment);

/* That of the stream's definition; default, when the policy does not know it (any more). */
const struct ageing_class *store_class_of(const struct stream *stream);

/* For how long the stream's frames will be there, in whatever step; 0: nobody can tell, for nothing is being written to it. */
int64_t store_remembers_ns(struct store *store, const struct stream *stream);

#endif
