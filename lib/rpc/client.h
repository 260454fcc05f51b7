/* client.h - calls to others, on the loop.
 *
 * One channel per peer; it connects when first used and again when lost. Every shape is a stream: open,
 * write, half-close, read; rpc_unary() does it in one.
 *
 * Owner:  the channel: its creator. A stream: rpc; the pointer is valid until on_end returns.
 * Thread: the loop's.
 * Fails:  on_end's status: the server's own (with its retry_after_ms), or UNAVAILABLE, DEADLINE, CANCELLED
 *         with a sentence naming the peer. Opening itself cannot fail.
 * Bounds: as in call.h; every call has a timeout or says RPC_NO_TIMEOUT. */
#ifndef REELKV_RPC_CLIENT_H
#define REELKV_RPC_CLIENT_H

#include "rpc/message.h"
#include "rpc/rpc.h"

struct rpc_channel;
struct rpc_stream;

struct rpc_channel_options {
    uint32_t max_message_bytes;    /* 0: LIMIT_MESSAGE_BYTES */
    uint32_t keepalive_ms;         /* 0: 5000; a dead peer is noticed within this and keepalive_timeout_ms */
    uint32_t keepalive_timeout_ms; /* 0: 3000 */
};

/* "host:port" or "unix:/path". options NULL: all defaults. */
bool rpc_channel_create(struct rpc_channel **channel_p, struct rpc *rpc, const char *address,
                        const struct rpc_channel_options *options, struct status *st);

/* Open streams go on to their end. NULL is fine. */
void rpc_channel_destroy(struct rpc_channel *channel);

const char *rpc_channel_address(const struct rpc_channel *channel);

struct rpc_stream_options {
    uint32_t timeout_ms;    /* of the whole call; RPC_NO_TIMEOUT */
    const char *request_id; /* x-request-id to pass on; NULL: none */
};

/* on_message: one for each rpc_stream_read(), valid until the next read or the end. on_end: exactly once,
 * last; status->code OK, or what went wrong. Any may be NULL except on_end. */
struct rpc_stream_events {
    void (*on_message)(struct rpc_stream *stream, const struct rpc_message *message, void *user);
    void (*on_writable)(struct rpc_stream *stream, void *user);
    void (*on_end)(struct rpc_stream *stream, const struct status *status, void *user);
};

/* `events` is copied, `method` is borrowed for the stream's life. Never calls back before it returns. */
struct rpc_stream *rpc_stream_open(struct rpc_channel *channel, const struct rpc_method *method,
                                   const struct rpc_stream_options *options,
                                   const struct rpc_stream_events *events, void *user);

/* Asks for exactly one more message; on_message or on_end follows. One read at a time. A reader who stops
 * asking stalls the server, and the end too: ask until on_end, or cancel. */
void rpc_stream_read(struct rpc_stream *stream);

/* As rpc_call_write(): false while there is no room (on_writable follows) and when the call is over. */
bool rpc_stream_write(struct rpc_stream *stream, const ProtobufCMessage *message,
                      const struct rpc_attachment *attachment);
bool rpc_stream_can_write(const struct rpc_stream *stream);

/* No more writes; what is queued still goes out. */
void rpc_stream_half_close(struct rpc_stream *stream);

/* on_end follows, with CANCELLED unless the call had ended already. */
void rpc_stream_cancel(struct rpc_stream *stream);

/* One request, one reply: on_reply exactly once; `reply` is NULL unless status->code is OK. The stream can be
 * used to cancel until then. */
typedef void rpc_reply_fn(const struct status *status, const struct rpc_message *reply, void *user);
struct rpc_stream *rpc_unary(struct rpc_channel *channel, const struct rpc_method *method,
                             const struct rpc_stream_options *options, const ProtobufCMessage *request,
                             rpc_reply_fn *on_reply, void *user);

#endif
