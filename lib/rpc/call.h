/* call.h - a call as the server's handler sees it. See docs/rpc-call.md.
 *
 *                 read -> on_message ... on_message(NULL): the client has said everything
 *   open(call) <                                                                            > on_end, once,
 * always write -> (full: on_writable) ... finish
 *
 * Owner:  rpc; the pointer is valid until on_end returns, longer for whoever holds a reference.
 * Thread: the loop's, handlers and functions alike. Handlers never block: work goes elsewhere and comes back
 *         as a letter.
 * Fails:  a call that is over takes nothing more and says so by false; on_end tells the handler.
 * Bounds: LIMIT_CALL_BYTES that a message unpacks into and as many from rpc_call_arena(), each counted without
 *         the ends of chunks that stay unused, at most as much again; RPC_QUEUED_MESSAGES and RPC_QUEUED_BYTES
 *         waiting to be sent; one message read ahead of the handler. */
#ifndef REELKV_RPC_CALL_H
#define REELKV_RPC_CALL_H

#include "base/arena.h"
#include "base/log.h"
#include "rpc/message.h"

struct rpc_call;

/* The request of a unary or server-stream call; NULL for the other shapes. Valid as long as the call. */
const struct rpc_message *rpc_call_request(const struct rpc_call *call);

/* Asks for exactly one more message of a client-stream or bidi call; not asking stalls the sender. One read
 * at a time. on_message(NULL): the client closed its side. No call of on_message when the call ends first. A
 * message is valid until the next rpc_call_read() or the end of the call (references included). A malformed
 * one never arrives: the call ends with INVALID. */
typedef void rpc_call_message_fn(struct rpc_call *call, const struct rpc_message *message, void *user);
void rpc_call_read(struct rpc_call *call, rpc_call_message_fn *on_message);

/* Packs the message now, sends in order. False: not taken (no room, or the call is over), the attachment is
 * still the caller's. `attachment` NULL: no payload. A message beyond the size limit ends the call with
 * EXHAUSTED. */
bool rpc_call_write(struct rpc_call *call, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment);

/* Room for one more write? After the write that took the last of it, on_writable is called once there is again. */
bool rpc_call_can_write(const struct rpc_call *call);
void rpc_call_on_writable(struct rpc_call *call, void (*on_writable)(struct rpc_call *call, void *user));

/* What is written between the two leaves together afterwards. Pairs may stand in each other; the outer one counts. */
void rpc_call_cork(struct rpc_call *call);
void rpc_call_uncork(struct rpc_call *call);

/* The end: everything written is sent, then the status (NULL: OK). Once; later ones and those on a call that
 * is over do nothing. rpc_call_reply() is write and finish in one, for unary and client-stream calls; the
 * attachment is released also when the call is over. */
void rpc_call_finish(struct rpc_call *call, const struct status *status);
void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment);

/* Called exactly once when the call is over for whatever reason: finished, cancelled, deadline, connection
 * lost, forced by drain. The handler's last word about it; what it holds for the call ends here. */
void rpc_call_on_end(struct rpc_call *call, void (*on_end)(struct rpc_call *call, void *user));
bool rpc_call_was_cancelled(
    const struct rpc_call *call); /* in on_end: it did not end as the handler wanted */

/* Handed to on_message, on_writable, on_end. Starts as the service's `state`. */
void rpc_call_set_user(struct rpc_call *call, void *user);

/* Memory that lives as long as the call; LIMIT_CALL_BYTES. */
struct arena *rpc_call_arena(struct rpc_call *call);

/* Keeps the call's memory (messages, arena) while work on another thread uses it; the call may be over
 * meanwhile. */
void rpc_call_ref(struct rpc_call *call);
void rpc_call_unref(struct rpc_call *call);

const char *rpc_call_peer(const struct rpc_call *call);       /* an address, not an identity */
const char *rpc_call_request_id(const struct rpc_call *call); /* the client's x-request-id, or a new one */

#endif
