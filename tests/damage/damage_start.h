/* damage_start.h - damage that is there when a store starts.
 *
 * Owner:  the program. Thread: its own. Fails: the program, at once. */
#ifndef REELKV_TEST_DAMAGE_START_H
#define REELKV_TEST_DAMAGE_START_H

#include "damage_ask.h"
#include "damage_files.h"

struct start_round {
    struct host *host; /* its store is closed, before and after */
    struct client *client;
    struct damage_files *files;
    int log; /* what stderr writes to */
    struct sim_random *random;
    /* found */
    uint64_t samples[KIND_COUNT];
    uint64_t frames_served;
};

/* Damages half of the files, opens the store, asks, judges, closes it and puts the files back. *harmless_p grows by damages
 * that cannot be told from none, and did no harm. */
void start_round(struct start_round *round, uint64_t *harmless_p);

#endif
