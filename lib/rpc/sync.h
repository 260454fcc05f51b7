/* sync.h - calls that block, for worker threads, the command line and tests. Needs no loop.
 *
 * Owner:  the caller; streams are destroyed before their client.
 * Thread: a client may be used by many threads. A stream by one, or by one that reads and one that writes;
 *         rpc_sync_cancel() from any while the stream exists.
 * Fails:  as client.h; a failed call needs only its destroy.
 * Bounds: every call has a timeout or says RPC_NO_TIMEOUT. */
#ifndef REELKV_RPC_SYNC_H
#define REELKV_RPC_SYNC_H

#include "rpc/client.h"
#include "rpc/message.h"

struct rpc_sync;
struct rpc_sync_stream;

/* Makes the channel; connects with the first call. options NULL: all defaults. */
bool rpc_sync_create(struct rpc_sync **client_p, const char *address,
                     const struct rpc_channel_options *options, struct status *st);
void rpc_sync_destroy(struct rpc_sync *client); /* NULL is fine */

/* options->parent must be NULL here. */
bool rpc_sync_open(struct rpc_sync_stream **stream_p, struct rpc_sync *client,
                   const struct rpc_method *method, const struct rpc_stream_options *options,
                   struct status *st);

/* Blocks while the peer does not take more. False: the call is over, *st says how (never OK); what was not read yet can
 * still be. The attachment is the stream's in either case. */
bool rpc_sync_write(struct rpc_sync_stream *stream, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment, struct status *st);

/* False: the call is over and did not end with OK; always false once a write or read has said so. True does not tell that
 * the server heard of it: the call may end meanwhile, and the next read says how. */
bool rpc_sync_half_close(struct rpc_sync_stream *stream, struct status *st);

/* True with a message, valid until the next read or destroy. True with *message_p NULL: the server ended the
 * call with OK. False: it ended otherwise. */
bool rpc_sync_read(struct rpc_sync_stream *stream, const struct rpc_message **message_p, struct status *st);

/* Half-closes, reads what still comes, and waits for the end. True: it was OK. */
bool rpc_sync_finish(struct rpc_sync_stream *stream, struct status *st);

void rpc_sync_cancel(struct rpc_sync_stream *stream);

/* Cancels what is still going on. NULL is fine. */
void rpc_sync_stream_destroy(struct rpc_sync_stream *stream);

/* One request, one reply, taken from *stream_p, which the caller destroys also when this fails; the reply is
 * valid until then. */
bool rpc_sync_unary(struct rpc_sync_stream **stream_p, struct rpc_sync *client,
                    const struct rpc_method *method, const struct rpc_stream_options *options,
                    const ProtobufCMessage *request, const struct rpc_message **reply_p, struct status *st);

#endif
