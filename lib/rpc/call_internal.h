/* call_internal.h - inside lib/rpc: the server's call, as call.c, server.c, health.c and reflection.c see it.
 *
 *   armed -> accepted -> (request read) -> open -> ... -> over -> on_end -> ops back -> off the server's list
 *
 * "Over" is what RECV_CLOSE_ON_SERVER says: the status was sent, or the call was cancelled, or the connection
 * is gone. The memory goes with the last reference; each op in flight and the handler's use are covered by
 * one of rpc's own, held until the call is off the list. */
#ifndef REELKV_RPC_CALL_INTERNAL_H
#define REELKV_RPC_CALL_INTERNAL_H

#include "rpc/call.h"
#include "rpc/rpc_internal.h"
#include "rpc/server.h"

/* How many calls of one kind are open at once. */
struct call_limit {
    const char *what; /* "calls": "128 ... are open, which is the limit" */
    uint32_t open, max;
};

struct rpc_call {
    struct rpc_server *server;
    struct rpc *rpc;
    struct rpc_call *next, **link; /* in server->calls */
    grpc_call *grpc;
    grpc_call_details details;
    grpc_metadata_array metadata;
    const struct rpc_handler *handler; /* NULL: unknown method */
    struct call_limit *limit;          /* the server's, that it counts in; NULL: none, or refused */
    void *user;
    struct rpc_op accept_op, close_op, read_op, send_op;
    uint32_t ops; /* in flight */
    uint32_t refs;

    grpc_byte_buffer *arriving;
    struct rpc_received received;
    rpc_call_message_fn *on_message; /* of the read in flight; NULL: the request of a unary shape */
    void (*on_writable)(struct rpc_call *call, void *user);
    void (*on_end)(struct rpc_call *call, void *user);

    struct rpc_outbox outbox;
    uint32_t corks; /* above 0: what is written waits */
    bool reading, sending, sending_message, sending_status;
    bool initial_wanted, initial_sent;
    bool filled; /* a write took the last room: on_writable is owed */
    bool opened; /* the handler knows of it */
    bool finishing, over, listed;
    int cancelled; /* by RECV_CLOSE_ON_SERVER */

    struct status status; /* to be sent */
    grpc_metadata request_id_header, details_trailer;
    grpc_slice status_text;

    struct arena arena;
    char *peer;
    char path[128];
    char request_id[RPC_REQUEST_ID_BYTES + 1];
};

/* The server's side (server.c). */
const struct rpc_handler *server_find(struct rpc_server *server, grpc_slice path, void **state_p,
                                      struct call_limit **limit_p);
void server_call_accepted(struct rpc_server *server, struct rpc_call *call, bool ok);
bool server_admits(struct rpc_server *server, struct rpc_call *call, struct status *st);
void server_call_left(struct rpc_server *server, struct rpc_call *call); /* may be the server's last moment */
uint32_t server_max_message_bytes(const struct rpc_server *server);

/* The call's side (call.c). Arms one accept slot. */
void call_arm(struct rpc_server *server, struct rpc *rpc, grpc_server *grpc);

#endif
