/* scrub.h - reads sealed segments front to back, at a capped rate, and says what no longer fits before somebody asks for it.
 *
 * A pass goes over all segments that were sealed when it began, the oldest first, one at a time (lib/kv/kv_check.h: every
 * byte, and the footer against the records). Frames whose record does not fit are quarantined, as when a reader finds them;
 * other damage is logged: the next start goes by the records. A pass begins SCRUB_EVERY_MS after the last one ended, not
 * before SCRUB_AFTER_MS of the store's life; how far it came is in <root>/scrub.json (kv/scrub_state.h), and what it found:
 * those frames are quarantined by every start, until a pass has found their segment whole. What readers found is not kept.
 * A last pass that ended more than an hour from now, by a clock that was wrong then or is now, counts as none.
 *
 * Owner:  the store. Thread: loop; files are read on a thread of its own, at idle I/O priority.
 * Fails:  never: what the disk does not read now is logged, and read in the next pass; what cannot be read for want of memory or
 *         file descriptors is logged and read again after SCRUB_AFTER_MS, before the others.
 * Bounds: SCRUB_DAMAGE_MAX ranges of damage are kept, others are logged, and found again; bytes_per_second; a segment that is to
 *         go, or the store, waits SCRUB_SLICE_MS and one record for it. */
#ifndef REELKV_KVSTORE_SCRUB_H
#define REELKV_KVSTORE_SCRUB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kv/scrub_state.h"
#include "loop/loop.h"

struct segment;
struct store;
struct work_pool;
struct scrub_job;

enum {
    SCRUB_AFTER_MS = 60 * 1000,
    SCRUB_EVERY_MS = 24 * 3600 * 1000,
    SCRUB_SAVE_MS = 60 * 1000,
    SCRUB_SLICE_MS = 20,
    SCRUB_FILE_BYTES = 2 * SCRUB_STATE_BYTES_MAX, /* scrub.json on the disk, also while it is replaced */
};

struct scrub {
    struct work_pool *pool; /* NULL: off */
    struct loop_timer timer;
    struct scrub_job *job;        /* running */
    int64_t full_ns;              /* as in the file */
    int64_t pass_ns, cursor_ns;   /* pass_ns 0: none is under way */
    uint64_t cursor_salt;         /* of those of one age */
    uint64_t saved_ns;            /* monotonic */
    struct scrub_damages damages; /* as in the file */
    bool has_news;                /* of damage, that are not in the file */
    uint64_t read_bytes, damaged; /* since the start; places that do not fit */
};

/* Reads scrub.json, and quarantines what it says is damaged. A damaged one is as none: logged. Rate 0: no passes. */
bool scrub_open(struct store *store, struct status *st);
void scrub_begin(struct store *store); /* a pass, or the rest of one, now; nothing when one runs */

/* The segment is to go. True: it is being read; it is left soon, and those who wait for room ask again. */
bool scrub_yield(struct store *store, const struct segment *segment);
void scrub_stop(struct store *store);  /* the store closes */
void scrub_close(struct store *store); /* after the loop has turned until nothing runs */

#endif
