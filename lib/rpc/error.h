/* error.h - inside lib/rpc: struct status to and from what gRPC sends.
 *
 * Code and sentence travel in gRPC's own fields; with advice to retry, a google.rpc.Status (code, message,
 * RetryInfo) goes along in the trailer grpc-status-details-bin, as other languages' libraries expect it. */
#ifndef REELKV_RPC_ERROR_H
#define REELKV_RPC_ERROR_H

#include "rpc/rpc_internal.h"

/* The trailer's bytes. The caller unrefs it. */
grpc_slice error_details_pack(const struct status *status);

/* How a client's call ended. A server that is shutting down drops what it has not accepted yet as CANCELLED; unless
 * that came from this side it is UNAVAILABLE: trying again helps. `trailers` may hold details; what did not come from the server's own code is
 * told with the peer's address. */
struct error_source {
    const grpc_metadata_array *trailers;
    const char *address;
    const char *method;
    uint32_t timeout_ms;
    bool cancelled_here; /* by us, or by the parent call */
};
void error_from_call(struct status *status, grpc_status_code code, grpc_slice text,
                     const struct error_source *source);

#endif
