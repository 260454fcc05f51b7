/* rpc_internal.h - what the files of lib/rpc share: operations, received messages, queues of messages to
 * send. Includes gRPC: never include it elsewhere.
 *
 * An rpc_op is one thing in flight on the completion queue. It is embedded in a call, one for each kind, and
 * comes back exactly once:
 *
 *   rpc_op_start() -> gRPC -> queue thread -> letter -> done(op, ok) on the loop */
#ifndef REELKV_RPC_INTERNAL_H
#define REELKV_RPC_INTERNAL_H

#include <grpc/grpc.h>

#include "base/arena.h"
#include "loop/signals.h" /* gRPC starts threads as it needs them, from whichever thread calls it */
#include "rpc/message.h"
#include "rpc/rpc.h"

struct rpc_stream;

struct rpc {
    struct loop *loop;
    grpc_completion_queue *cq;
    pthread_t thread;
    size_t in_flight;           /* ops and attachments that will come back; loop thread */
    uint32_t servers;           /* not destroyed yet */
    struct rpc_stream *streams; /* client calls not ended; see client.c */
};

struct rpc_op {
    struct letter letter;
    struct rpc *rpc;
    void (*done)(struct rpc_op *op, bool ok);
    bool ok;
};

/* Marks the op as in flight; call it right before handing it to gRPC. */
void rpc_op_start(struct rpc *rpc, struct rpc_op *op, void (*done)(struct rpc_op *op, bool ok));

/* Starts a batch whose tag is the op. */
void rpc_batch_start(struct rpc *rpc, grpc_call *call, const grpc_op *ops, size_t count, struct rpc_op *op,
                     void (*done)(struct rpc_op *op, bool ok));

void streams_cancel(struct rpc *rpc); /* client.c: all that are open */

static inline uint32_t or_default(uint32_t value, uint32_t initial)
{
    return value != 0 ? value : initial;
}

/* A channel's or server's argument with a number. */
struct rpc_arg {
    const char *key;
    uint32_t value;
};
void rpc_args_fill(grpc_arg *args, const struct rpc_arg *rows, size_t count);

/* gRPC's share of the process: malloc thresholds, SIGPIPE, grpc_init() with signals blocked. Counted. Any
 * thread. */
void rpc_library_ref(void);
void rpc_library_unref(void);

/* ThreadSanitizer cannot see gRPC's own locks: hand-overs through it are told. Empty in other builds. */
void rpc_handing_over(void *what);
void rpc_taken_over(void *what);

/* ---- messages ---- */

/* A message to send as gRPC wants it. With `rpc` the attachment is released on its loop, else on any thread.
 * NULL: larger than max_bytes, *st says so, and the attachment is still the caller's. */
grpc_byte_buffer *rpc_pack(struct rpc *rpc, const ProtobufCMessage *message,
                           const struct rpc_payload_path *path, const struct rpc_attachment *attachment,
                           size_t max_bytes, struct status *st);

/* A received message and the memory it lies in. Zeroed memory is an empty one. */
struct rpc_received {
    grpc_byte_buffer *buffer;
    struct arena arena;
    struct rpc_message message;
};

/* Takes the buffer, also when it fails. Resets what was received before. */
bool rpc_received_take(struct rpc_received *received, grpc_byte_buffer *buffer,
                       const ProtobufCMessageDescriptor *type, const struct rpc_payload_path *path,
                       struct status *st);
void rpc_received_reset(struct rpc_received *received);

/* Messages waiting to be sent, bounded by RPC_QUEUED_MESSAGES and RPC_QUEUED_BYTES. */
struct rpc_outbox {
    grpc_byte_buffer *buffers[RPC_QUEUED_MESSAGES];
    size_t sizes[RPC_QUEUED_MESSAGES]; /* gRPC empties a buffer as it sends it */
    uint32_t first, count;
    size_t bytes;
};

bool rpc_outbox_has_room(const struct rpc_outbox *box);
void rpc_outbox_put(struct rpc_outbox *box, grpc_byte_buffer *buffer); /* takes it; there must be room */
grpc_byte_buffer *rpc_outbox_first(const struct rpc_outbox *box);      /* NULL: empty */
void rpc_outbox_drop_first(struct rpc_outbox *box);                    /* destroys it */
void rpc_outbox_clear(struct rpc_outbox *box);

/* ---- request ids ---- */

/* 1 to RPC_REQUEST_ID_BYTES printable characters without spaces. */
bool rpc_request_id_is_fine(const char *id, size_t len);

/* The value of a header, or NULL. */
const grpc_slice *rpc_metadata_get(const grpc_metadata_array *metadata, const char *key);

#endif
