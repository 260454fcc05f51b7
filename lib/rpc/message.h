/* message.h - what travels: methods, messages and their one big field.
 *
 * Some messages carry one large `bytes` field (video, tensors, KV). It is numbered highest at every level, so
 * it comes last on the wire, and the method names the way to it ("payload path": {15, 15} is field 15 of the
 * message in field 15). Such bytes are sent from where they lie and received as the pieces gRPC read them
 * into: they are copied once, by whoever wants them, to where they belong. Peers see ordinary protobuf.
 *
 * In `body` the payload field reads as empty, also when a peer put it elsewhere in the message. */
#ifndef REELKV_RPC_MESSAGE_H
#define REELKV_RPC_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

enum rpc_shape { RPC_UNARY, RPC_SERVER_STREAM, RPC_CLIENT_STREAM, RPC_BIDI };

enum { RPC_PAYLOAD_DEPTH = 4 };

/* Field numbers from the outside in, then 0. All zero: the message has no payload. */
struct rpc_payload_path {
    uint16_t field[RPC_PAYLOAD_DEPTH];
};

/* One method, as both ends know it. The services' own are in rpc/api.h. */
struct rpc_method {
    const char *path; /* "/reelkv.v1.KvStore/Append" */
    enum rpc_shape shape;
    const ProtobufCMessageDescriptor *request, *reply;
    struct rpc_payload_path request_payload, reply_payload;
};

/* Received bytes, in pieces. */
struct rpc_payload {
    bool present; /* the sender wrote the field, or (empty) the message that holds it */
    size_t len;   /* of all pieces */
    const struct bytes *pieces;
    uint32_t piece_count;
};

/* Bytes [offset, offset + len) to `to`; they must lie within the payload. Any thread. */
void rpc_payload_copy(const struct rpc_payload *payload, size_t offset, void *to, size_t len);

struct rpc_message {
    const ProtobufCMessage *body; /* of the method's request or reply type: cast it */
    struct rpc_payload payload;
};

/* Bytes to send as the payload. With `release` they are not copied: they must stay as they are until release(arg)
 * is called, once, whatever becomes of the call, and perhaps after its end: on the loop's thread (rpc/call.h,
 * rpc/client.h), on any thread (rpc/sync.h). Without it they are copied before the sending function returns. */
struct rpc_attachment {
    const void *data;
    size_t len;
    void (*release)(void *arg);
    void *arg;
};

#endif
