/* rpc_calls.h - what most tests of lib/rpc begin with, and the blocking calls they make of a fixture (rpc_fixture.h) or of
 * any server of ours. Nothing here fails the test unless it says so. */
#ifndef REELKV_TEST_RPC_CALLS_H
#define REELKV_TEST_RPC_CALLS_H

#include "grpc/health/v1/health.pb-c.h"
#include "rpc/sync.h"
#include "support/rpc_fixture.h"

enum {
    HEALTH_UNKNOWN = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN,
    HEALTH_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING,
    HEALTH_NOT_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING,
};

extern const struct rpc_stream_options patient; /* 30 s */

/* A fixture on a thread of its own and a client of it; either options may be NULL. Fails the test. */
struct rpc_sync *calls_begin(struct fixture *fixture, const struct rpc_server_options *server,
                             const struct rpc_channel_options *channel);
void calls_end(struct fixture *fixture, struct rpc_sync *client);

/* GetServerInfo, of a client or of an address. *st is OK when true. */
bool calls_info(struct rpc_sync *client, struct status *st);
bool calls_info_at(const char *address, struct status *st);

/* Opens a call with its one request, half-closed. Fails the test. */
struct rpc_sync_stream *calls_open(struct rpc_sync *client, const struct rpc_method *method,
                                   const ProtobufCMessage *request);

/* A Score, which the fixture holds. Fails the test. */
struct rpc_sync_stream *calls_hold(struct rpc_sync *client);

/* grpc.health.v1 Check: the state, or -1. */
int calls_health(struct rpc_sync *client, const char *service, struct status *st);

#endif
