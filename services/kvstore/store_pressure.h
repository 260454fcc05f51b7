/* store_pressure.h - how hard the store is pressed by what is written to it, for those who write and those who watch.
 *
 * Thread: loop. */
#ifndef REELKV_KVSTORE_STORE_PRESSURE_H
#define REELKV_KVSTORE_STORE_PRESSURE_H

#include "kvstore/store.h"

/* Numbers of proto Pressure. */
enum store_pressure {
    STORE_GREEN = 1,
    STORE_YELLOW = 2, /* blocks that wait for the disk fill four fifths of their room in RAM */
    STORE_RED = 3,    /* appends wait for RAM, or a stream for room on the disk, or the disk takes nothing */
};

enum store_pressure store_pressure(const struct store *store);

/* Payload that one more writer may send now: its share of the room, half of it when YELLOW, an eighth when RED. */
uint64_t store_credit_bytes(const struct store *store);

#endif
