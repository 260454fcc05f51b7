/* kill_calls.h - calls of a store that may be killed during any of them; what comes is held against the oracle.
 *
 * Each returns false when the call was cut or its stream went, which is for the caller to judge; an answer that must not be
 * ends the program. Thread: any; each with calls of its own. */
#ifndef REELKV_TEST_KILL_CALLS_H
#define REELKV_TEST_KILL_CALLS_H

#include "kill_oracle.h"

enum { KILL_FETCH_MAX = 128, KILL_SLOTS = 32, KILL_SLOT_BYTES = 64 << 10 };

/* --- reading --- */

/* One layer of these numbers. `peer` NULL: the bytes come in the call. */
bool kill_fetch(struct server *server, struct kill_stream *stream, const uint64_t *seqs, uint32_t count,
                uint32_t layer, struct kv_shm_peer *peer, struct status *st);

/* Two layers of the best eight by a query, and the newest two. */
bool kill_retrieve(struct server *server, struct kill_stream *stream, uint64_t dice, struct status *st);

/* All numbers without a hole. *end_p: behind the last. */
bool kill_timeline(struct server *server, struct kill_stream *stream, uint64_t *end_p, struct status *st);

/* --- writing --- */

bool kill_create(struct server *server, struct kill_stream *stream, struct status *st);
bool kill_remove(struct server *server, struct kill_stream *stream, struct status *st);

/* The next number or gap. With a pool, in the slot of its number. */
bool kill_write_next(struct writer *writer, struct kill_stream *stream);
bool kill_write_init(struct writer *writer, struct kill_stream *stream);
bool kill_hear(struct writer *writer, struct kill_stream *stream); /* one reply */

#endif
