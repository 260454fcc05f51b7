/* fuzz_call.h - rpc/call.h without gRPC: what a client sends comes from an input or a test, what it would get is shown and dropped.
 * Handlers meet what they meet in a server: writes that are not taken at once, attachments that come back later, calls that
 * end at any time.
 *
 * Owner:  this file; a call lives until it is over and nobody holds it. Thread: the loop's. */
#ifndef REELKV_TEST_FUZZ_CALL_H
#define REELKV_TEST_FUZZ_CALL_H

#include "loop/loop.h"
#include "rpc/call.h"
#include "rpc/server.h"

/* Opens a call of this method. A unary or server-stream one gets the bytes as its request; the handler is not asked when they
 * are no message. NULL then, or the call, valid until fuzz_call_let_go(). */
struct rpc_call *fuzz_call_open(struct loop *loop, const struct rpc_handler *handler, void *state,
                                const uint8_t *data, size_t len);
/* The handler waits for a message, or the call is over. */
bool fuzz_call_is_idle(const struct rpc_call *call);
bool fuzz_call_is_over(const struct rpc_call *call);
void fuzz_call_send(struct rpc_call *call, const uint8_t *data, size_t len); /* when idle and not over */
void fuzz_call_half_close(struct rpc_call *call);                            /* likewise */
/* Ends it, if it is not over; the memory goes with the last reference. */
void fuzz_call_let_go(struct rpc_call *call);

/* How it ended: its code and sentence; when it is over. */
const struct status *fuzz_call_end(const struct rpc_call *call);
/* What handlers write from now on is shown before it is dropped; NULL: to nobody. */
typedef void fuzz_call_saw_fn(const ProtobufCMessage *message, const struct rpc_attachment *attachment);
void fuzz_call_show(fuzz_call_saw_fn *saw);

uint32_t fuzz_calls_alive(void); /* calls and attachments that are on their way */

#endif
