/* client_internal.h - inside lib/rpc: what the two clients (client.c on the loop, sync.c blocking) share. */
#ifndef REELKV_RPC_CLIENT_INTERNAL_H
#define REELKV_RPC_CLIENT_INTERNAL_H

#include "rpc/client.h"
#include "rpc/rpc_internal.h"

enum { RPC_ADDRESS_BYTES = 256 };

struct rpc_channel {
    struct rpc *rpc; /* NULL: of a blocking client */
    grpc_channel *grpc;
    uint32_t max_message_bytes;
    char address[RPC_ADDRESS_BYTES];
};

/* rpc NULL for a blocking client's. */
bool channel_open(struct rpc_channel **channel_p, struct rpc *rpc, const char *address,
                  const struct rpc_channel_options *options, struct status *st);

/* How a call is made: its deadline from the timeout, parent from the options. */
grpc_call *channel_call(struct rpc_channel *channel, const struct rpc_method *method,
                        const struct rpc_stream_options *options, grpc_completion_queue *cq);

/* What a client call receives besides messages; zero it, init, deinit. */
struct call_outcome {
    grpc_metadata_array initial, trailers;
    grpc_status_code code;
    grpc_slice text;
};
void call_outcome_init(struct call_outcome *outcome);
void call_outcome_deinit(struct call_outcome *outcome);

/* Operations of a client call; everything they point at must outlive their tag. */
grpc_op op_send_initial(const struct rpc_stream_options *options, grpc_metadata *request_id);
grpc_op op_recv_initial(struct call_outcome *outcome);
grpc_op op_recv_status(struct call_outcome *outcome);

#endif
