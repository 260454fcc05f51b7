/* segment_load.h - segment files that are there when the store starts.
 *
 * A .seg is known from its footer; its chunks are blank (index.h), keys_later.h reads the rest. An .open one (its writer was killed), or one whose footer does not fit, is
 * scanned record by record:
 *
 *   a record that fits                                    is indexed
 *   one that does not, with none behind it that does,     is a torn tail: cut
 *   in an .open file and behind what was synced
 *   any other one that does not                           is damage: marked, never served, as far as headers and
 *                                                         trailer tell its numbers
 *
 * and an .open one is sealed afterwards, so that this happens once.
 *
 * Thread: blocks; at start, one for each stream. Fails: DATA_LOSS when nothing of the file can be used (it stays where it
 * is, and is counted, and its numbers stay taken), UNIMPLEMENTED for another version's, and for the disk's own failures. */
#ifndef REELKV_KVSTORE_SEGMENT_LOAD_H
#define REELKV_KVSTORE_SEGMENT_LOAD_H

#include "kvstore/segment.h"

struct segment_load {
    uint64_t
        below_seq; /* asked for: the first number of a later file; UINT64_MAX: there is none (segment_scan.h) */
    uint64_t torn_bytes; /* written behind the last record that fits, and cut; of the .open */
    uint64_t damaged_bytes,
        damaged_frames; /* what stood in a scanned file and cannot be read; its numbers are marked */
    bool has_no_mark;   /* of one that was open: what of it was synced is not known */
    bool was_open, was_scanned, is_empty; /* empty: no record; the file was removed */
    bool is_unsynced; /* it was, and a power cut may bring it back: segment_load() fails */
};

/* base: the path without suffix. *segment_p: NULL when empty, which only an .open one may be. */
bool segment_load(struct stream *stream, const char *base, bool is_open, struct segment **segment_p,
                  struct segment_load *load, struct status *st);

/* The whole image of the segment's INIT record, verified; free(). NULL with *st. */
uint8_t *segment_load_init(const struct segment *segment, struct kv_record *record, struct status *st);

#endif
