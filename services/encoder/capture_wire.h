/* capture_wire.h - what a capture child and its encoder say to each other.
 *
 * A SEQPACKET socket pair (the child's descriptor 0) carries messages, a shared memory file (its descriptor 3, cut
 * into equal slots, its size sealed by the encoder) the pictures: [height, width, 3] bytes at the slot's start.
 *
 *   encoder                              child
 *   job (JSON, the first packet) ------> opens the source
 *   <----------------------------------- OPENED
 *   <----------------------------------- FRAME in slot s | GAP | TROUBLE ...
 *   RELEASE s -------------------------> s may be filled again
 *   <----------------------------------- END or FAILED; both close
 *
 * FRAME and GAP name every sequence number from the job's from_seq on exactly once, in order. While no slot is
 * free, a file waits; a live source drops whole frames and reports them as GAP. A message, little endian:
 *
 *    0  u32 magic "RKC1"     16  u64 seq            48  u32 width
 *    4  u16 version 1        24  u64 to_seq         52  u32 height
 *    6  u16 kind             32  i64 pts_ns         56  u32 status code
 *    8  u32 bytes in all     40  i64 to_pts_ns      60  u32 zero
 *   12  u32 slot             64  text, UTF-8, at most CAPTURE_TEXT_BYTES, to the end of the packet
 *
 *   OPENED   seq: sampled frames expected (0: not known); width, height; text: codec
 *   FRAME    seq, pts_ns, slot, width, height
 *   GAP      seq to to_seq (exclusive), pts_ns to to_pts_ns; text: why
 *   TROUBLE  code, text: a live source is lost or not found; the child tries again
 *   END      seq: frames of the whole file; text: empty, or what could not be read of it
 *   FAILED   code, text: nothing (more) can be read
 *   RELEASE  slot
 *
 * The child decodes hostile input, so the encoder believes nothing it says: a packet is accepted only when all of
 * this holds, fields that its kind does not use are zero, and it fits what came before (struct capture_session).
 * Pixels may change while they are read; they are only pixels. */
#ifndef REELKV_ENCODER_CAPTURE_WIRE_H
#define REELKV_ENCODER_CAPTURE_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/status.h"

enum {
    CAPTURE_HEAD_BYTES = 64,
    CAPTURE_TEXT_BYTES = STATUS_TEXT_BYTES - 1,
    CAPTURE_MESSAGE_BYTES = CAPTURE_HEAD_BYTES + CAPTURE_TEXT_BYTES,
    CAPTURE_JOB_BYTES = 16 << 10, /* a URL of LIMIT_URL_BYTES, escaped, and the rest */
    CAPTURE_SLOTS_MAX = 16,
    CAPTURE_FD_SOCKET = 0,
    CAPTURE_FD_POOL = 3,
};
static_assert(CAPTURE_JOB_BYTES > 6 * LIMIT_URL_BYTES + 1024, "every source fits its job");

enum capture_kind {
    CAPTURE_OPENED = 1,
    CAPTURE_FRAME,
    CAPTURE_GAP,
    CAPTURE_TROUBLE,
    CAPTURE_END,
    CAPTURE_FAILED,
    CAPTURE_RELEASE,
};

struct capture_message {
    enum capture_kind kind;
    uint32_t slot;
    uint64_t seq, to_seq;
    int64_t pts_ns, to_pts_ns;
    uint32_t width, height;
    enum status_code code;
    char text[CAPTURE_TEXT_BYTES + 1];
};

/* Returns the bytes used. Text that is too long or not UTF-8 is cut before the first bad byte. */
size_t capture_message_write(const struct capture_message *message, uint8_t out[CAPTURE_MESSAGE_BYTES]);

/* INVALID says what is wrong; *message is then unspecified. Checks the form of one packet. */
bool capture_message_read(struct bytes packet, struct capture_message *message, struct status *st);

struct capture_job {
    char source[LIMIT_URL_BYTES + 1]; /* with its password: never on a command line, never in a log */
    bool live;
    double sample_fps;
    int64_t origin_ns; /* a file: time of its first frame; live: start of slot 0 of its grid */
    uint64_t from_seq;
    uint32_t slots;
    uint64_t slot_bytes;
    uint32_t open_timeout_ms, stall_timeout_ms;
};

/* malloc'd JSON. */
char *capture_job_write(const struct capture_job *job);
bool capture_job_read(struct bytes text, struct capture_job *job, struct status *st);

/* What a child may say next. */
struct capture_session {
    uint32_t slots;
    uint64_t slot_bytes;
    bool live;
    bool opened, over;
    uint32_t held; /* bit s: slot s holds a frame that was not released */
    uint64_t next_seq;
    bool any_pts;
    int64_t last_pts_ns;
};

void capture_session_init(struct capture_session *session, const struct capture_job *job);

/* Form and place of a packet from the child. seq_limit and pts_limit_ns: what cannot have happened yet (a live
 * source's grid and clock; UINT64_MAX and INT64_MAX for a file). INVALID: the child is broken, end it. */
struct capture_limits {
    uint64_t seq_limit;
    int64_t pts_limit_ns;
};
bool capture_session_accept(struct capture_session *session, struct bytes packet,
                            const struct capture_limits *limits, struct capture_message *message,
                            struct status *st);

void capture_session_release(struct capture_session *session, uint32_t slot);

#endif
