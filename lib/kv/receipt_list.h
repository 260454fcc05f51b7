/* receipt_list.h - what was forgotten of a stream, and when it was asked for.
 *
 * JSON in <stream>/forget.json (checked_json.h), the last FORGET_RECEIPTS_MAX, of which the newest may be an intent
 * ("done_ns": 0): a start carries it on.
 *   { "format": 2, "file": S, "next": N, "receipts": [{ "number": N, "from_ns": N, "to_ns": N, "next_seq": N, "asked_ns": N, "done_ns": N,
 *     "frames": N, "bytes": N, "files": N, "store": S, "version": S }, ...] }
 * Numbers rise, and `next` is above them.
 *
 * Thread: any. Fails: as checked_json.h; INVALID or DATA_LOSS, with the path, for what makes no sense.
 * Bounds: FORGET_RECEIPTS_MAX; RECEIPTS_BYTES_MAX of a file. */
#ifndef REELKV_KV_RECEIPT_LIST_H
#define REELKV_KV_RECEIPT_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "kv/checked_json.h"

enum { FORGET_RECEIPTS_MAX = 16, FORGET_VERSION_BYTES = 16, RECEIPTS_BYTES_MAX = 16 << 10 };

struct forget_receipt {
    uint64_t number;   /* of this stream, from 1 */
    uint64_t next_seq; /* of the stream when it was asked for: what comes later stays */
    int64_t from_ns, to_ns, asked_ns, done_ns; /* to: exclusive; done 0: under way */
    uint64_t frames, bytes, files;             /* frames and what they took in files; files written anew */
    char store[LIMIT_NAME_BYTES + 1], version[FORGET_VERSION_BYTES];
};

struct receipt_list {
    uint64_t next;
    uint32_t count;
    struct forget_receipt list[FORGET_RECEIPTS_MAX]; /* by number */
};

/* `file` as checked_json_make() has it. free(); NULL: no memory. */
char *receipt_list_text(const struct receipt_list *receipts, const char *file);

/* Of the stream's folder. NOT_FOUND, and none, when there is no such file. */
bool receipt_list_read(struct receipt_list *receipts, const struct file_ops *disk, const char *folder,
                       struct status *st);

#endif
