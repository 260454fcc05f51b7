/* scrub_state.h - how far the scrub of a store has come.
 *
 * JSON in <root>/scrub.json (checked_json.h):
 *   { "format": 2, "file": "scrub.json", "full_ns": N, "pass_ns": N, "cursor_ns": N }
 *
 * Thread: any. Fails: as checked_json.h; INVALID, with the path, for members that are missing. */
#ifndef REELKV_KV_SCRUB_STATE_H
#define REELKV_KV_SCRUB_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/checked_json.h"

enum { SCRUB_STATE_BYTES_MAX = 4096 };

/* UTC. */
struct scrub_state {
    int64_t full_ns;   /* when the last whole pass ended; 0: never */
    int64_t pass_ns;   /* when this one began; 0: there is none */
    int64_t cursor_ns; /* the age of the segment up to which it has come; 0: nothing */
};

/* free(); NULL: no memory. */
char *scrub_state_text(const struct scrub_state *state);

/* Of the store's folder; zeroed when it fails. NOT_FOUND when there is no such file. */
bool scrub_state_read(struct scrub_state *state, const struct file_ops *disk, const char *root,
                      struct status *st);

#endif
