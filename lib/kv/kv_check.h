/* kv_check.h - reads every byte of a segment file and says what does not fit: superblock, chain, headers, each part of each
 * record and the zeros between, the mark, and the footer, by itself and against the records.
 *
 * What is wrong is of one of these kinds:
 *   DAMAGE   it is not what was written
 *   KNOWN    damage that was found when the file was sealed, and is marked in its footer
 *   TORN     the end of a file that was being written when its writer died: it was never acknowledged as durable
 *   UNREAD   the disk does not read it now, or this version does not know it: nobody can tell
 *
 * Owner:  the caller's struct, zeroed but for what it gives.
 * Thread: any; blocks on the disk. Reads only, but for kv_check_cut().
 * Fails:  what is wrong with the file is a finding; false is for CANCELLED, and EXHAUSTED without memory.
 * Bounds: three windows of kv_reader.h, whatever the file's size. */
#ifndef REELKV_KV_KV_CHECK_H
#define REELKV_KV_KV_CHECK_H

#include "kv/kv_footer.h"
#include "kv/kv_reader.h"

enum kv_finding_kind { KV_FOUND_DAMAGE, KV_FOUND_KNOWN, KV_FOUND_TORN, KV_FOUND_UNREAD };

struct kv_finding {
    enum kv_finding_kind kind;
    uint64_t offset, bytes;    /* where in the file */
    uint64_t from_seq, to_seq; /* exclusive; the same: which numbers are concerned is not known, or none is */
    char text[STATUS_TEXT_BYTES];
};

struct kv_check {
    /* given */
    const struct file_ops *disk;
    const char *path;
    struct kv_file_name name; /* what the file's name says */
    void (*found)(struct kv_check *check, const struct kv_finding *finding);
    void (*accounts)(struct kv_check *check, uint64_t from_seq,
                     uint64_t to_seq);                       /* numbers that it has, in order */
    bool (*advance)(struct kv_check *check, uint64_t bytes); /* checked since the last call; false: stop */
    /* found */
    bool has_super, has_footer;
    struct kv_super super;
    uint64_t records, frames, gap_frames, damaged_frames;
    uint64_t end;        /* of the last record whose header fits */
    uint64_t end_seq;    /* exclusive */
    uint64_t torn_bytes; /* up to the last one that was written behind it */
    /* on the way */
    struct kv_reader reader, table;
    struct kv_footer footer, derived; /* as read, and its checksums as they follow from the records */
    bool is_derivable;
    uint64_t synced, records_end;
    bool is_mark_unread;
    uint32_t chain; /* of the header before; only while is_chained */
    bool is_chained;
};

bool kv_check_run(struct kv_check *check, struct status *st);

/* Cuts an .open file behind its last record, with a mark that says that it is synced up to there; durable. After
 * kv_check_run() found torn bytes; nobody may be writing to it. */
bool kv_check_cut(const struct kv_check *check, struct status *st);

#endif
