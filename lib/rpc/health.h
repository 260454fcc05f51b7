/* health.h - inside lib/rpc: grpc.health.v1 for one server.
 *
 * Check answers NOT_FOUND for a name it does not know; Watch says SERVICE_UNKNOWN for it and stays, as the
 * protocol wants.
 *
 * Thread: the loop's. Bounds: RPC_SERVICES + 1 names; RPC_WATCHES watchers, which the server counts. */
#ifndef REELKV_RPC_HEALTH_H
#define REELKV_RPC_HEALTH_H

#include "rpc/server.h"

struct health;

bool health_create(struct health **health_p, const struct rpc_service *services, size_t count,
                   struct status *st);
void health_destroy(struct health *health); /* no watchers left; NULL is fine */

const struct rpc_service *health_service(struct health *health); /* valid as long as the health */

/* The server and all its services serve from the beginning until this. */
void health_stop_serving(struct health *health);

/* Ends every Watch, for a server that goes away; also one whose request was still on its way. */
void health_end_watches(struct health *health);

#endif
