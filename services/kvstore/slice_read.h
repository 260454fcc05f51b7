/* slice_read.h - K and V of one layer of one frame, or its thumbnail: from RAM or from disk, checked.
 *
 *   start -> (ready now, or done() later on the loop) -> used -> release
 *
 * What comes back is leased until released: the bytes stay where they are. Bytes from the disk are checked before
 * anybody sees them, and kept in RAM for the next question. Bytes from RAM are checked here too when they will be
 * sent inline; whoever reads them in shared memory checks its own copy (`is_shared`). A slice that is written in fewer
 * bits is checked as it is written, then decoded: what comes back, and stays in RAM, is of the geometry's dtype, and the
 * result is DERIVED.
 *
 * Owner:  the caller's memory; not freed while the read is under way.
 * Thread: loop; reading and checking as segment_fetch.h says.
 * Fails:  by `result`, never otherwise: a frame that does not fit its checksum is marked and answers QUARANTINED
 *         from then on.
 * Bounds: waits, in order, while RAM or the threads' queue are full. */
#ifndef REELKV_KVSTORE_SLICE_READ_H
#define REELKV_KVSTORE_SLICE_READ_H

#include "kvstore/segment_fetch.h"
#include "kvstore/store.h"

/* Numbers of proto FrameResult. */
enum frame_result {
    FRAME_OK = 1,
    FRAME_DERIVED = 2,
    FRAME_EVICTED = 3,
    FRAME_GAP = 4,
    FRAME_QUARANTINED = 5,
    FRAME_UNAVAILABLE = 6,
    FRAME_DEADLINE = 7,
    FRAME_NOT_FOUND = 8,
};

/* Bytes come with it. */
static inline bool frame_result_has_bytes(enum frame_result result)
{
    return result == FRAME_OK || result == FRAME_DERIVED;
}

enum { SLICE_THUMBNAIL = UINT32_MAX }; /* as `layer` */

enum slice_parts { SLICE_BOTH, SLICE_K, SLICE_V }; /* numbers of proto SliceParts */

struct slice_read {
    /* asked for */
    struct store *store;
    struct index_frame *frame; /* its chunk is held: by the caller until start returns, by the read then */
    uint32_t layer;
    enum slice_parts parts; /* of a layer: K then V, or one of them */
    bool is_shared;
    bool
        is_ahead; /* nobody waits for it (read_ahead.h): it never waits itself, and answers UNAVAILABLE instead */
    void (*done)(struct slice_read *read);
    /* answered */
    enum frame_result result;
    const uint8_t *bytes;
    uint64_t length;
    uint32_t crc;          /* plain, of the bytes */
    struct ram_slot *slot; /* that holds them; NULL: a buffer of the read's own */
    /* under way */
    struct segment_fetch fetch;
    struct slice_read *next_waiter;
    struct index_chunk *chunk;
    struct segment *segment;
    struct kv_record *header; /* a thumbnail's */
    uint64_t buffer_bytes;
    uint8_t *buffer; /* a thumbnail's record; a layer as it is written */
    bool is_from_disk, is_waiting, is_running, has_header;
};

/* True: the answer is there, done() will not be called. */
bool slice_read_start(struct slice_read *read);

/* Ends the lease; also while it waits. Not while it runs: wait for done(). */
void slice_read_release(struct slice_read *read);
bool slice_read_cancel(struct slice_read *read); /* true: it was waiting; done() will not be called */

enum frame_result frame_result_of_absence(enum stream_absence absence);

#endif
