/* reflection.h - inside lib/rpc: grpc.reflection.v1 and v1alpha for one server, from the descriptors linked
 * into the program (reelkv_descriptor_set). Lists the services this server has; knows all files linked in.
 *
 * Thread: the loop's. Bounds: streams count as built-in calls; one request at a time each. */
#ifndef REELKV_RPC_REFLECTION_H
#define REELKV_RPC_REFLECTION_H

#include "rpc/server.h"

struct reflection;

/* EXHAUSTED; INVALID when the descriptors are damaged. */
bool reflection_create(struct reflection **reflection_p, const struct rpc_service *services, size_t count,
                       struct status *st);
void reflection_destroy(struct reflection *reflection); /* no streams left; NULL is fine */

const struct rpc_service *reflection_services(struct reflection *reflection); /* two: v1, v1alpha */

/* Ends every stream, for a server that goes away. */
void reflection_end_streams(struct reflection *reflection);

#endif
