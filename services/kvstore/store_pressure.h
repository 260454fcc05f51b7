/* store_pressure.h - how hard the store is pressed by what is written to it, for those who write and those who watch.
 *
 * Thread: loop. */
#ifndef REELKV_KVSTORE_STORE_PRESSURE_H
#define REELKV_KVSTORE_STORE_PRESSURE_H

#include "kvstore/store.h"

/* Numbers of proto Pressure. */
enum store_pressure {
    STORE_GREEN = 1,
    STORE_YELLOW =
        2, /* blocks that wait for the disk fill four fifths of their room in RAM, or the oldest of them has waited
                         STORE_SLOW_MS longer than commit_ms: the disk is slow */
    STORE_RED = 3, /* appends wait for RAM, or a stream for room on the disk, or the disk takes nothing */
};

enum { STORE_SLOW_MS = 200, STORE_SLOW_SEEN_MS = 20 /* how old what is known of the disk may be */ };

enum store_pressure store_pressure(struct store *store);

/* Payload that one more writer may send now: its share of the room, half of it when YELLOW, an eighth when RED. */
uint64_t store_credit_bytes(struct store *store);

#endif
