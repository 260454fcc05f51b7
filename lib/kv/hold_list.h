/* hold_list.h - ranges of time of a stream that somebody wants kept.
 *
 * JSON in <stream>/holds.json (checked_json.h), durable before a change is acknowledged:
 *   { "format": 2, "file": S, "next": N, "holds": [{ "number": N, "from_ns": N, "to_ns": N, "owner": S, "reason": S, "until_ns": N,
 *     "created_ns": N }, ...] }
 * One whose end has come counts no more, and leaves the file with the next change. Numbers rise, and `next` is above them.
 *
 * Thread: any. Fails: as checked_json.h; INVALID or DATA_LOSS, with the path, for what makes no sense.
 * Bounds: STREAM_HOLDS_MAX; HOLDS_BYTES_MAX of a file. */
#ifndef REELKV_KV_HOLD_LIST_H
#define REELKV_KV_HOLD_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "kv/checked_json.h"

enum { STREAM_HOLDS_MAX = 64, HOLD_REASON_BYTES = 200, HOLDS_BYTES_MAX = 64 << 10 };

struct stream_hold {
    uint64_t number;                              /* of this stream, from 1; never given again */
    int64_t from_ns, to_ns, until_ns, created_ns; /* to: exclusive; until 0: for ever */
    char owner[LIMIT_NAME_BYTES + 1], reason[HOLD_REASON_BYTES + 1];
};

struct hold_list {
    uint64_t next;
    uint32_t count;
    struct stream_hold list[STREAM_HOLDS_MAX]; /* by number */
};

/* Its end has not come. */
bool stream_hold_counts(const struct stream_hold *hold, int64_t now_ns);

/* Those that count; `file` as checked_json_make() has it. free(); NULL: no memory. */
char *hold_list_text(const struct hold_list *holds, const char *file, int64_t now_ns);

/* Of the stream's folder. NOT_FOUND, and none, when there is no such file. */
bool hold_list_read(struct hold_list *holds, const struct file_ops *disk, const char *folder,
                    struct status *st);

#endif
