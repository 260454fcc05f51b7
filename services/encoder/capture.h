/* capture.h - one capture child as the encoder sees it: started, listened to, ended.
 *
 * The child is an own program, reelkv-capture, so that a hostile or broken stream takes down nothing but itself;
 * capture_wire.h says what passes between the two and what is believed.
 *
 *   create -> opened, frame | gap | trouble ... -> ended (once, last) -> destroy (at any time)
 *
 * Backpressure: a child has as many frames out as it has slots; who releases none stops a file and makes a live
 * source report gaps.
 *
 * Owner:  the creator. A frame's pixels are valid until capture_pool_unref(), also after destroy.
 * Thread: the loop's; pixels may be read by any.
 * Fails:  create when the program or the slots cannot be had. Later everything is told by `ended`.
 * Bounds: job.slots frames of job.slot_bytes; CAPTURE_PACKETS_AT_ONCE packets before others get their turn. */
#ifndef REELKV_ENCODER_CAPTURE_H
#define REELKV_ENCODER_CAPTURE_H

#include "encoder/capture_wire.h"
#include "loop/loop.h"

struct capture;
struct capture_pool;

enum { CAPTURE_PACKETS_AT_ONCE = 32 };

enum capture_outcome {
    CAPTURE_DONE,    /* a file ended; seq: its number of frames; text: "", or what could not be read */
    CAPTURE_REFUSED, /* the source cannot be read: the status says why, and whether another try may help */
    CAPTURE_BROKEN,  /* the child died or spoke nonsense: start another */
    CAPTURE_STOPPED, /* as asked */
};

struct capture_events {
    /* OPENED, FRAME, GAP and TROUBLE, as accepted. A FRAME's slot is held until capture_release(). */
    void (*message)(struct capture *capture, const struct capture_message *message, void *user);
    /* st: OK, or the sentence. */
    void (*ended)(struct capture *capture, enum capture_outcome outcome, const struct capture_message *end,
                  const struct status *st, void *user);
    void *user;
};

struct capture_options {
    const char *program; /* path of reelkv-capture */
    const struct capture_job *job;
    struct capture_events events;
};

bool capture_create(struct capture **capture_p, struct loop *loop, const struct capture_options *options,
                    struct status *st);

/* Asks the child to end, so that it says goodbye to its camera (many have few sessions to give), and kills it after
 * CAPTURE_GOODBYE_MS. `ended` comes with CAPTURE_STOPPED. */
void capture_stop(struct capture *capture);
enum { CAPTURE_GOODBYE_MS = 1500 };

/* No more events; stops, and destroys itself when the child has ended. *left counts those that have not. */
void capture_retire(struct capture *capture, uint32_t *left);

/* Kills what still runs; no more events. From within its events too. NULL is fine. */
void capture_destroy(struct capture *capture);

int capture_pid(const struct capture *capture);

/* The frame in a held slot: [height, width, 3]. */
const uint8_t *capture_rgb(const struct capture *capture, uint32_t slot);
void capture_release(struct capture *capture, uint32_t slot);

/* Keeps the pixels mapped while another thread reads them. */
struct capture_pool *capture_pool_ref(struct capture *capture);
void capture_pool_unref(struct capture_pool *pool);

#endif
