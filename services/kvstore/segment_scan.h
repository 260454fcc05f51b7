/* segment_scan.h - finds the records of a file without a footer, and indexes them.
 *
 * Thread: blocks; at start, one for each stream. Bounds: one record in memory. */
#ifndef REELKV_KVSTORE_SEGMENT_SCAN_H
#define REELKV_KVSTORE_SEGMENT_SCAN_H

#include "kvstore/segment.h"
#include "kvstore/segment_file.h"

/* Where numbers and tokens end, as far as headers of records tell; zeros when none of them does. */
struct segment_scan_end {
    uint64_t seq, token_index;
    bool is_told; /* by a record that has a number: not by INIT alone */
};

struct segment_scan {
    const struct file_ops *disk;
    int fd;
    uint64_t file_bytes;
    bool is_open; /* its writer was killed: it may end in what was never synced */
    /* A later file begins with this number: what is behind the mark and has it or one above was written again there, and is
     * torn; so is what the stream's history has, for that file may have gone. UINT64_MAX: none does. */
    uint64_t below_seq;
    /* found */
    struct segment_list list;
    uint64_t end;   /* of the last record that fits */
    uint32_t chain; /* its header's CRC */
    uint64_t torn_bytes, damaged_bytes, damaged_frames;
    struct segment_scan_end told; /* also by records that do not fit */
    uint64_t told_bytes;          /* up to here headers say what stood in the file */
    struct status unwritten;      /* why a record could not be written again; OK: all were */
    uint64_t synced;              /* up to here, by its mark; a file that was sealed: all of it */
    /* on the way */
    struct segment_image image; /* the record at hand */
    struct kv_record record;
    uint32_t header_crc;
};

bool segment_scan_run(struct segment_scan *scan, struct segment *segment, struct status *st);
void segment_scan_free(struct segment_scan *scan);

/* The same of a file that cannot be used, as far as its mark says that it was synced. Its salt is that of the file's name. False: nobody can look into the file now, or
 * not behind the last header that could be read. */
bool segment_scan_end(const struct file_ops *disk, const char *path, uint64_t salt,
                      struct segment_scan_end *end_p, struct status *st);

/* Enters a record into the segment: a frame into the index (its keys and sums are the caller's to fill), the rest
 * as marks. */
bool segment_scan_add(struct segment *segment, const struct kv_entry *entry, const char *note,
                      struct status *st);
/* The rest of that for a frame that is in the index already: where the segment ends. */
void segment_scan_follow(struct segment *segment, const struct kv_entry *entry);

#endif
