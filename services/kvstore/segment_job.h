/* segment_job.h - what is done to segment files on the writing threads. Each function blocks, sees only its
 * arguments, and leaves errors to the loop. */
#ifndef REELKV_KVSTORE_SEGMENT_JOB_H
#define REELKV_KVSTORE_SEGMENT_JOB_H

#include "kvstore/segment.h"

/* Makes folders and file, reserves `capacity`, writes the superblock, syncs both. The descriptor, or -1.
 * *taken_p: bytes on the disk; after a failure 0, or capacity when what was begun could not be removed: to be tried again
 * with the same base. */
int segment_job_create(const struct file_ops *disk, const char *base, const struct kv_super *super,
                       uint64_t capacity, uint64_t *taken_p, struct status *st);

/* Writes the mark that says what was synced, at `offset`: the file's last page. */
bool segment_job_mark(const struct file_ops *disk, int fd, uint64_t salt, uint64_t synced, uint64_t offset,
                      struct status *st);

/* For reading, by whichever name the file has now: one that is being sealed changes it. -1: *st says why. */
int segment_job_open(const struct file_ops *disk, const char *base, struct status *st);

/* Reads of the file, opened so and closed. `to`, `bytes` and `offset` as disk_read() wants them. */
bool segment_job_read(const struct file_ops *disk, const char *base, uint8_t *to, uint64_t bytes,
                      uint64_t offset, struct status *st);

/* Everything a footer is made from. */
struct segment_footer_parts {
    const struct kv_super *super;
    const struct kv_entry *entries; /* in the file's order */
    uint32_t entry_count;
    const char *notes; /* of all entries, one after the other */
    uint64_t notes_bytes;
    const struct index_part *index; /* of the FRAME entries that are not damaged, in order */
    uint32_t chain;
};

/* Writes the footer at `end`, cuts the file there and syncs: all but its name. */
bool segment_job_finish(const struct file_ops *disk, int fd, const char *base,
                        const struct segment_footer_parts *parts, uint64_t end, struct status *st);

/* Renames BASE.open to BASE.seg. A name that a power cut takes back costs the next start a scan, nothing else: the folder is
 * synced with its next file. */
bool segment_job_name(const struct file_ops *disk, const char *base, struct status *st);

/* Both. */
bool segment_job_seal(const struct file_ops *disk, int fd, const char *base,
                      const struct segment_footer_parts *parts, uint64_t end, struct status *st);

/* Bytes of the footer that these would get. */
uint64_t segment_footer_bytes(const struct kv_geometry *geometry, uint32_t records, uint32_t frames,
                              uint64_t notes_bytes);

#endif
