/* history.h - what a stream no longer has, and where its numbers go on: kept so that a number that was stored and
 * removed answers `evicted`, one that was never stored `gap`, for ever.
 *
 * JSON in <stream>/history.json (checked_json.h), durable before a segment is unlinked:
 *   { "format": 2, "file": S, "next_seq": N, "next_token_index": N, "rough_below_seq": N,
 *     "spans": [{ "from_seq": N, "to_seq": N, "from_pts_ns": N, "to_pts_ns": N, "frames": N }, ...] }
 * A span with frames 0 is a gap. At most HISTORY_SPANS_MAX: then the oldest two that touch become one; where none do, the two
 * oldest, with what lies between: some of these numbers may be in files, and below rough_below_seq (missing: 0) no span says of
 * one number that it has gone.
 *
 * Thread: loop (a copy of the text goes to the disk). */
#ifndef REELKV_KV_HISTORY_H
#define REELKV_KV_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kv/checked_json.h"

/* Numbers and token indices that a stream may reach: no sum of them wraps, and JSON holds them. */
#define HISTORY_NUMBER_MAX (1ull << 56)

enum {
    HISTORY_SPANS_MAX = 128,
    HISTORY_SPAN_BYTES =
        160, /* of JSON, at most; the rest of the file takes no more than HISTORY_REST_BYTES */
    HISTORY_REST_BYTES = 2 * HISTORY_SPAN_BYTES,
    HISTORY_BYTES_MAX = 1 << 20, /* of a file that is read */
};

struct history_span {
    uint64_t from_seq, to_seq; /* exclusive */
    int64_t from_pts_ns, to_pts_ns;
    uint64_t frames; /* that were stored; 0: a gap */
};

struct history {
    uint64_t next_seq, next_token_index; /* behind the last number and token that went; never go back */
    uint64_t rough_below_seq;
    uint32_t count;
    struct history_span spans[HISTORY_SPANS_MAX]; /* by seq */
};

/* Adds, in the order of numbers (segments may go in another); neighbours of one kind become one. */
void history_add(struct history *history, const struct history_span *span);

/* The numbers of a segment that is there after all: its file outlived the process that was removing it. */
void history_take_back(struct history *history, uint64_t from_seq, uint64_t to_seq);

/* The span of this number, or NULL. */
const struct history_span *history_find(const struct history *history, uint64_t seq);

/* Whether this number has gone for sure. */
bool history_has(const struct history *history, uint64_t seq);

uint64_t history_frames(const struct history *history);
uint64_t history_gap_frames(const struct history *history);

/* Frames and gap frames whose times lie in [from, to): of a span that lies there partly, in proportion. */
void history_in_range(const struct history *history, int64_t from_ns, int64_t to_ns, uint64_t *frames_p,
                      uint64_t *gaps_p);

/* `file` as checked_json_make() has it. free(); NULL: no memory. */
char *history_text(const struct history *history, const char *file);

/* A missing file is empty. */
bool history_read(struct history *history, const struct file_ops *disk, const char *path, struct status *st);

#endif
