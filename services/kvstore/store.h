/* store.h - the kvstore without its RPCs: all streams of one data folder, their blocks in RAM and on disk.
 *
 *   <root>/lock                                       one store at a time
 *   <root>/scrub.json                                 how far all has been read again
 *   <root>/v1/<ns>/<stream>/stream.json               definition, epoch, state; durable before anything is acked
 *   <root>/v1/<ns>/<stream>/history.json              what has been removed to keep the budget
 *   <root>/v1/<ns>/<stream>/holds.json                what must stay
 *   <root>/v1/<ns>/<stream>/forget.json               what was taken out, and what is being taken out
 *   <root>/v1/<ns>/<stream>/<epoch>/<seq>-<salt>.seg  segments (docs/kv-format.md)
 *
 * Threads: the loop owns everything in these headers. Five pools work for it: `writing` (makes, writes, syncs,
 * seals, removes files), `reading` (reads and checks slices and blocks), `reading_ahead`, `ageing` (one thread, rewrites
 * segments), and `computing`, as many as there are processors, for what does not wait for a disk (checks and copies what is
 * in RAM, scores): there a thread goes from one work to the next, where of many each would be woken for one. Results come
 * back as letters. Where io_uring may be used it reads slices and blocks, and `computing` checks them (segment_fetch.h). The
 * loop itself never touches a file once store_open() has returned, but to close one that was read.
 *
 * Budgets. RAM: three quarters of ram_bytes are the arena (reserved at start, mapped in the background), at most a
 * quarter the index, gaps and events included. On top of it each stream has one INIT image, and at most
 * STREAM_NOTES_WAITING records of gaps and ends that wait for the disk. Disk: the file system's own count of blocks of
 * everything under root, preallocation included, never passes disk_bytes; the oldest sealed segments of all streams go
 * first, by the time they were begun.
 *
 * Owner:  main. Fails: store_open() with the path and what to do. */
#ifndef REELKV_KVSTORE_STORE_H
#define REELKV_KVSTORE_STORE_H

#include "kv/disk.h"
#include "kv/hold_list.h"
#include "kv/receipt_list.h"
#include "kvstore/index.h"
#include "kvstore/keys_later.h"
#include "kvstore/ram_arena.h"
#include "kvstore/scrub.h"
#include "kvstore/sketches.h"
#include "kvstore/segment.h"
#include "kvstore/store_ageing.h"
#include "kvstore/stream.h"
#include "loop/loop.h"
#include "loop/work_pool.h"
#include "uring/uring.h"

/* How slices and blocks are read. AUTO: by io_uring where it may be used and the disk is the real one. */
enum store_reads { STORE_READS_AUTO, STORE_READS_BY_RING, STORE_READS_BY_THREADS };

struct store_options {
    const char *name; /* of this store, in definitions */
    const char *root;
    uint64_t ram_bytes, disk_bytes;
    uint64_t segment_bytes_max;
    uint32_t commit_ms; /* at most this long from RAM to disk */
    enum store_reads reads;
    uint32_t reading_threads, writing_threads;
    uint32_t computing_threads;      /* 0: as many as there are processors */
    const char *ageing;              /* ageing_policy.h; NULL: "" */
    uint64_t scrub_bytes_per_second; /* 0: off */
    const struct file_ops *disk;     /* NULL: the real one */
};

enum {
    /* Folders and small files of a stream, counted for each from the beginning: a hold or a forget must not be refused, nor
     * push anything out, because the disk is full. */
    STORE_STREAM_DISK_BYTES = 224 << 10,
    STORE_FILE_SLACK_BYTES = 64 << 10, /* what a file system may add to a segment (extents, its folder) */
    STORE_READS_QUEUED = 1024,
    /* Under way at once. That many bytes keep a disk busy that gives 6 GB/s after half a millisecond; more only wait there,
     * and come later: some disks tell of reads only when they have nothing left to do. */
    STORE_RING_READS = 128,
    STORE_RING_BYTES = 3 << 20,
};
_Static_assert(2 * (HISTORY_SPANS_MAX * HISTORY_SPAN_BYTES + HISTORY_REST_BYTES + HOLDS_BYTES_MAX +
                    RECEIPTS_BYTES_MAX) +
                       5 * KV_PAGE_BYTES <=
                   STORE_STREAM_DISK_BYTES,
               "the folder and all small files must fit, the files twice while they are replaced");

/* Those who wait for reads that nobody has asked for yet, and what these keep (read_ahead.h). */
enum read_ahead_kind { READ_AHEAD_GUESSES, READ_AHEAD_TICKETS, READ_AHEAD_KINDS };
struct read_ahead_line {
    struct ahead_item *first[READ_AHEAD_KINDS], *last[READ_AHEAD_KINDS];
    struct ahead_item *running;
    uint32_t running_count;
    uint32_t asked; /* reads from the disk that somebody waits for, under way */
    uint64_t held_bytes[READ_AHEAD_KINDS];
    uint64_t slices, used; /* guesses that were read, and those that were right, since the start */
};

/* Segments whose files stay open, the one read longest ago first. */
struct segment_files {
    struct segment *first, *last;
    uint32_t count, max;
};

struct store {
    struct store_options options;
    struct loop *loop;
    struct work_pool *writing, *reading, *reading_ahead, *ageing, *computing;
    struct uring *ring; /* NULL: threads read */
    struct segment_files files;
    const struct file_ops *disk;
    struct ram_arena *arena;
    struct index_memory index_memory;
    struct sketches sketches;
    int lock_fd;
    struct stream *streams; /* by namespace, then name */
    uint32_t stream_count;
    uint32_t writer_count; /* streams that are being written */
    uint64_t disk_used_bytes;
    uint64_t unsynced_bytes; /* of these: of files that are unlinked, and may come back (stream_rival.h) */
    struct segment *oldest, *newest; /* sealed segments, by when they were begun */
    struct keys_later keys_later;
    struct scrub scrub;
    struct removal *removal;  /* the one running */
    uint64_t remove_at_ns;    /* the next one not before: the last one failed */
    struct segment_age *ages; /* the segment being rewritten, and those that wait for their turn */
    struct loop_timer age_timer;
    struct store_ageing ageing_state;
    struct slice_read *read_waiters, **read_waiters_end;
    struct ram_waiter *ram_waiters, **ram_waiters_end;
    struct loop_timer commit_timer;
    struct loop_timer wipe_timer;
    struct loop_timer retry_timer;      /* for room that comes from outside, and disks that recover */
    uint64_t disk_wait_ns;              /* of the oldest that is not durable, as seen... */
    uint64_t disk_wait_seen_ns;         /* ...then (store_pressure.c) */
    uint64_t quarantined_frames;        /* found damaged since the start */
    uint64_t leased_bytes[RAM_REGIONS]; /* kept for readers of shared memory */
    struct read_ahead_line ahead;
    struct warm_up *warm_up; /* the arena's pages are being mapped; NULL: all are */
    bool is_retrying_reads, is_closing;
};

/* Takes the lock, loads what is there (sealing what a killed store left open), starts the pools. Blocks. */
bool store_open(struct store **store_p, struct loop *loop, const struct store_options *options,
                struct status *st);

/* Writes, syncs and seals everything, then frees. Turns the loop meanwhile; no calls may be left. NULL is fine. */
void store_close(struct store *store);

/* Which comes first in the order of streams: as strcmp. */
int store_compare(const struct stream *stream, const char *ns, const char *name);

/* Ready ones, and not set aside. */
struct stream *store_find(const struct store *store, const char *ns, const char *name);
/* Why store_find() found none: NOT_FOUND, or DATA_LOSS for one that is set aside. Returns false. */
bool store_say_absent(const struct store *store, const char *ns, const char *name, struct status *st);

/* The first stream after (ns, name), ready or set aside; ns NULL: the first of all. And the one after a stream. */
struct stream *store_next(const struct store *store, const char *ns, const char *name);
struct stream *store_after(const struct stream *stream);

uint64_t store_frames(const struct store *store);
uint64_t store_ram_used(const struct store *store);

/* How large a new segment of a stream should be now. */
uint64_t store_segment_bytes(const struct store *store);

/* Somebody who waits for RAM (an append); asked again, in order, whenever some may be free. `retry` returns true
 * when it got what it wants. Leaving is allowed at any time. */
struct ram_waiter {
    bool (*retry)(struct ram_waiter *waiter);
    struct ram_waiter *next;
    bool is_waiting;
};
void store_wait_for_ram(struct store *store, struct ram_waiter *waiter);
void store_stop_waiting(struct store *store, struct ram_waiter *waiter);
void store_ram_freed(struct store *store); /* a reference, a pin or a segment has gone */

/* --- inside the core --- */

/* Counts `bytes` for the segment when they fit; else starts removing old ones, and the stream is pumped again when
 * there may be room. */
bool store_reserve_disk(struct store *store, struct segment *segment, uint64_t bytes);
void store_adjust_disk(struct store *store, struct segment *segment,
                       uint64_t bytes);                                  /* to what it really takes */
void store_segment_sealed(struct store *store, struct segment *segment); /* may be removed from now on */
bool store_order_loaded(struct store *store, struct status *st);         /* the same of all, at start */
void store_segment_gone(struct store *store, struct segment *segment);   /* its file is no more */
/* The new one has been counted. */
void store_replace_segment(struct store *store, struct segment *old, struct segment *made);
/* Starts to remove it, with its history. False: another is being removed, or it is in use. */
bool store_remove_segment(struct store *store, struct segment *segment);
/* makes_room: when there is not, old segments start to go. */
bool store_has_disk_room(struct store *store, uint64_t bytes, bool makes_room);
/* At start: removes what is beyond the disk's budget, and what damage that was found takes beyond the index's; turns the
 * loop. PRECONDITION when the index is beyond it all the same. */
bool store_fit_budget(struct store *store, struct status *st);
void store_room_changed(struct store *store);
void store_reads_retry(struct store *store); /* slice_waiters.c */
void store_wipe_ram(struct store *store);    /* what is free, when no secret is left (ram_arena.h) */
bool store_is_removing_from(const struct store *store, const struct stream *stream);
void store_retry_later(struct store *store); /* everything that could not be started */
void store_start_commits(struct store *store);

/* Adds a stream to the list, sorted. EXHAUSTED at LIMIT_STREAMS; EXISTS when its name is taken, ABORTED while who has it is being
 * removed. */
bool store_add_stream(struct store *store, struct stream *stream, struct status *st);
void store_remove_stream(struct store *store, struct stream *stream);

/* Room in the index for so many bytes more? Starts removing old segments when not, unless waiting for questions to end
 * will do; writers are asked again. */
bool store_has_index_room(struct store *store, uint64_t bytes);

#endif
