/* segment_fetch.h - pages of a segment's file, read, and then worked on by a thread.
 *
 *   start -> read by the store's ring -> check() on a computing thread ---+-> done() on the loop
 *     +----> read and check() on a reading thread ------------------------+
 *     +----> nothing to read: check() on a computing thread --------------+
 *
 * The ring (lib/uring) needs a file that is open: the first read of a segment goes to a thread, which opens it, and with a
 * ring it stays open for those that follow. SEGMENT_FILES_OPEN stay so at most; of the others the one that was read longest
 * ago is closed. A file is closed before it is removed, else its bytes would stay on the disk. Without a ring (STORE_READS_*
 * in store.h) a thread opens the file for each read.
 *
 * Owner:  the caller's memory, not freed before done(); the segment's file stays so long (its `reads`).
 * Thread: loop; check() on a thread.
 * Fails:  `ok` and `st`, as segment_job_read() and check().
 * Bounds: start says no while the queue is full. */
#ifndef REELKV_KVSTORE_SEGMENT_FETCH_H
#define REELKV_KVSTORE_SEGMENT_FETCH_H

#include "kvstore/store.h"

enum { SEGMENT_FILES_OPEN = 256 };

struct segment_fetch {
    /* asked for */
    struct segment *segment;
    uint8_t *to;
    uint64_t offset, bytes; /* pages; 0 bytes: there is nothing to read */
    bool is_ahead;          /* nobody waits for it */
    bool (*check)(struct segment_fetch *fetch);
    void (*done)(struct segment_fetch *fetch);
    /* answered */
    bool ok;
    struct status st;
    /* under way */
    struct work work;
    struct uring_read read;
    int fd; /* opened by a thread; -1: none */
};

/* False: full; nothing happened. */
bool segment_fetch_start(struct segment_fetch *fetch);

/* Before the segment's file goes; nobody may be reading it. */
void segment_fetch_close(struct segment *segment);

#endif
