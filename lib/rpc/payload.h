/* payload.h - inside lib/rpc: messages to and from bytes, the payload apart. No gRPC here.
 *
 * On the wire, for path {15, 15}:
 *
 *   [fields of the outer message][7a][N][fields of the inner][7a][len][payload]
 *   '----------------------------- head -----------------------------'
 *
 * The head is written into one piece; the payload follows from where it lies. On receipt the fields are
 * walked (the payload itself is not touched); when the payload ends the message, as it does from our own
 * senders, the head is put together without it (N corrected, "7a len" left out), unpacked by protobuf-c, and
 * the payload is handed over as ranges of the received pieces. Any other order of fields goes through plain
 * unpacking.
 *
 * Thread: any; pure functions of their arguments. */
#ifndef REELKV_RPC_PAYLOAD_H
#define REELKV_RPC_PAYLOAD_H

#include "base/arena.h"
#include "rpc/message.h"

/* Bytes of the head of `message` with a payload of `len` bytes. `path` NULL: the whole message, no payload.
 * REQUIREs what the sender's code must see to: the path's fields have the highest numbers of their messages,
 * the messages on the way are set, the payload field is empty. */
size_t payload_head_bytes(const ProtobufCMessage *message, const struct rpc_payload_path *path, size_t len);
void payload_write_head(const ProtobufCMessage *message, const struct rpc_payload_path *path, size_t len,
                        uint8_t *head, size_t head_bytes);

/* Unpacks pieces (which must stay) into the arena. INVALID: not a well-formed message. EXHAUSTED: the arena's
 * ceiling. `path` may be all zero. */
bool payload_unpack(const ProtobufCMessageDescriptor *type, const struct rpc_payload_path *path,
                    const struct bytes *pieces, uint32_t piece_count, struct arena *arena,
                    struct rpc_message *message, struct status *st);

#endif
