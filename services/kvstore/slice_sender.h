/* slice_sender.h - sends layers of frames over a call, in order: by their place in shared memory, or inline.
 *
 *   add targets -> start -> write() for each message, in order -> finished(), once
 *
 * Up to SLICE_SENDER_WINDOW reads run ahead of what is being sent; those that lie in shared memory are no reads, and up to
 * SLICE_SENDER_PLACES of them go in one message. A call that stalls stalls only its own reads.
 * Leases on shared memory last until the next start, or deinit: who asks for more has read what came. What would keep more than a quarter of a
 * region for one call, or half of it for all, goes inline: the rest is for those who wait.
 *
 * Owner:  the call's handler; after deinit, reads under way end by themselves.
 * Thread: the loop's.
 * Bounds: SLICE_SENDER_WINDOW reads under way, SLICE_SENDER_PLACES items that wait to be sent; one that was sent stays for
 *         each slot leased; messages of LIMIT_CHUNK_BYTES. */
#ifndef REELKV_KVSTORE_SLICE_SENDER_H
#define REELKV_KVSTORE_SLICE_SENDER_H

#include "kvstore/kvstore.h"
#include "kvstore/slice_read.h"

enum { SLICE_SENDER_WINDOW = 16, SLICE_SENDER_PLACES = 64 };

struct slice_target {
    struct index_frame *frame; /* its chunk is the view's; NULL: absence says why */
    enum stream_absence absence;
    uint32_t index, layer;
    enum slice_parts parts;
    bool wants_slice, wants_thumbnail;
};

struct slice_item;

struct slice_sender {
    struct kvstore *kvstore;
    struct rpc_call *call;
    /* False: no room now; start() again from on_writable. */
    bool (*write)(struct slice_sender *sender, const Reelkv__V1__SliceReply *reply,
                  const struct rpc_attachment *attachment);
    void (*finished)(struct slice_sender *sender);
    uint64_t shm_session; /* 0: inline */
    /* its own */
    const struct slice_target *targets;
    uint32_t count, next_read;
    struct slice_item *first, **last_link; /* not sent yet, in order */
    uint32_t ahead, reading;               /* of these: all, and those that were not there at once */
    struct slice_item *leases;             /* sent by their place: the first of each slot */
    uint64_t leased_bytes[RAM_REGIONS];    /* of slots this call keeps */
    bool is_busy, is_running;
};

void slice_sender_init(struct slice_sender *sender);

/* Ends the leases on what was sent before. The targets stay the caller's and as they are until finished(). Not while one is under way. */
void slice_sender_start(struct slice_sender *sender, const struct slice_target *targets, uint32_t count);

/* Goes on after on_writable. */
void slice_sender_resume(struct slice_sender *sender);

void slice_sender_deinit(struct slice_sender *sender);

#endif
