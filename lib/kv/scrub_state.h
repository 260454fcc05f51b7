/* scrub_state.h - how far the scrub of a store has come, and which frames it has found damaged.
 *
 * JSON in <root>/scrub.json (checked_json.h):
 *   { "format": 2, "file": "scrub.json", "full_ns": N, "pass_ns": N, "cursor_ns": N,
 *     "damage": [{ "salt": S, "from_seq": N, "to_seq": N, "found_ns": N }, ...] }
 * `salt` is that of a segment's superblock, in 16 hex digits; `to_seq` is exclusive. A file without `damage` has none.
 *
 * Thread: any. Fails: as checked_json.h; INVALID or DATA_LOSS, with the path, for members that are missing or make no sense.
 * Bounds: SCRUB_DAMAGE_MAX; SCRUB_STATE_BYTES_MAX of a file. */
#ifndef REELKV_KV_SCRUB_STATE_H
#define REELKV_KV_SCRUB_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/checked_json.h"

enum { SCRUB_STATE_BYTES_MAX = 16 << 10, SCRUB_DAMAGE_MAX = 128 };

/* Of one segment, found at one time. */
struct scrub_damage {
    uint64_t salt, from_seq, to_seq;
    int64_t found_ns;
};

struct scrub_damages {
    uint32_t count;
    struct scrub_damage list[SCRUB_DAMAGE_MAX]; /* by when it was found */
};

/* Neighbours of one segment become one. False: there are as many as there can be. */
bool scrub_damages_add(struct scrub_damages *damages, const struct scrub_damage *damage);
void scrub_damages_drop(struct scrub_damages *damages, uint64_t salt);
void scrub_damages_drop_older(struct scrub_damages *damages, int64_t than_ns);

/* UTC. */
struct scrub_state {
    int64_t full_ns;   /* when the last whole pass ended; 0: never */
    int64_t pass_ns;   /* when this one began; 0: there is none */
    int64_t cursor_ns; /* the age of the segment up to which it has come; 0: nothing */
    struct scrub_damages damages;
};

/* free(); NULL: no memory. */
char *scrub_state_text(const struct scrub_state *state);

/* Of the store's folder; zeroed when it fails. NOT_FOUND when there is no such file. */
bool scrub_state_read(struct scrub_state *state, const struct file_ops *disk, const char *root,
                      struct status *st);

#endif
