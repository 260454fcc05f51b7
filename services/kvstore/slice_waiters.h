/* slice_waiters.h - reads of slices that wait until RAM, keys or the threads' queue have room for them, in order.
 *
 *   slice_wait() -> its turn (store_reads_retry(), when something may have become free): started again, from the beginning
 *                -> slice_stop_waiting(): cancelled or released
 *
 * Owner:  the read's. Thread: loop. Fails: never.
 * Bounds: none of its own: who asks for slices has limits (slice_sender.h). */
#ifndef REELKV_KVSTORE_SLICE_WAITERS_H
#define REELKV_KVSTORE_SLICE_WAITERS_H

#include "kvstore/slice_read.h"

void slice_wait(struct slice_read *read); /* holds no slot */
void slice_stop_waiting(struct slice_read *read);

#endif
