/* damage_small.h - damage to the small files of cameras (kv/checked_json.h), that is there when a store starts.
 *
 * Each round changes one of most cameras, opens the store, and looks: a camera with a changed file must be set aside, and the log
 * name the file; the others must be as they were. An older file that was sound is not sampled: it cannot be told from the right
 * one. Nor is a missing one but stream.json, which a unit test takes away.
 *
 * Owner:  the program. Thread: its own. Fails: the program, at once. */
#ifndef REELKV_TEST_DAMAGE_SMALL_H
#define REELKV_TEST_DAMAGE_SMALL_H

#include "damage_files.h"

enum { SMALL_KINDS = 4 };

struct small_files {
    struct small_file {
        char path[600];
        char *text;
        size_t len;
    } list[DAMAGE_STREAMS][SMALL_KINDS];
};

/* As they stand in the store's folder, which is closed; what is not there is made. */
void small_files_read(struct small_files *files, const char *root);
void small_files_free(struct small_files *files);

struct small_round {
    struct host *host; /* its store is closed, before and after */
    const struct small_files *files;
    int log; /* what stderr writes to */
    struct sim_random *random;
    uint64_t samples[KIND_COUNT]; /* found */
};
void small_round(struct small_round *round);

#endif
