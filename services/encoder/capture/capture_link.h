/* capture_link.h - the child's end of capture_wire.h: sends messages, fills slots, hears what is released.
 *
 * Owner:  main of the child. Thread: its only one.
 * Fails:  when the encoder is gone or a signal came, *stop is set and everything returns false: unwind and end. */
#ifndef REELKV_ENCODER_CAPTURE_LINK_H
#define REELKV_ENCODER_CAPTURE_LINK_H

#include <signal.h>

#include "encoder/capture_wire.h"

struct capture_link {
    int socket;
    uint8_t *pool; /* [slots, slot_bytes] */
    uint32_t slots;
    uint64_t slot_bytes;
    uint32_t free; /* bit s: slot s may be filled */
    volatile sig_atomic_t *stop;
};

bool capture_link_open(struct capture_link *link, const struct capture_job *job, volatile sig_atomic_t *stop,
                       struct status *st);

/* The wait is for as long as it takes; without it, false means: not now. */
bool capture_link_take_slot(struct capture_link *link, bool wait, uint32_t *slot_p);
bool capture_link_send(struct capture_link *link, const struct capture_message *message, bool wait);

uint8_t *capture_link_slot(const struct capture_link *link, uint32_t slot);

/* Sleeps at most so long; ends early when the encoder goes or a signal comes. */
void capture_link_sleep(struct capture_link *link, uint32_t ms);

/* A failure as a message. */
bool capture_link_send_status(struct capture_link *link, enum capture_kind kind, const struct status *st);

#endif
