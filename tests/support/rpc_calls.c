#include "support/rpc_calls.h"

#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/test.h"

const struct rpc_stream_options patient = { .timeout_ms = 30000 };

static const struct rpc_method check_method = {
    .path = "/grpc.health.v1.Health/Check",
    .shape = RPC_UNARY,
    .request = &grpc__health__v1__health_check_request__descriptor,
    .reply = &grpc__health__v1__health_check_response__descriptor,
};

struct rpc_sync *calls_begin(struct fixture *fixture, const struct rpc_server_options *server,
                             const struct rpc_channel_options *channel)
{
    struct rpc_sync *client = NULL;
    struct status st = { 0 };

    fixture_start(fixture, server);
    CHECK_OK(rpc_sync_create(&client, fixture_address(fixture), channel, &st), st);
    return client;
}

void calls_end(struct fixture *fixture, struct rpc_sync *client)
{
    rpc_sync_destroy(client);
    fixture_stop(fixture);
}

bool calls_info(struct rpc_sync *client, struct status *st)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    bool ok;

    st->code = STATUS_OK;
    ok = rpc_sync_unary(&stream, client, &api_get_server_info, &patient, &request.base, &reply, st);
    rpc_sync_stream_destroy(stream);
    return ok;
}

bool calls_info_at(const char *address, struct status *st)
{
    struct rpc_sync *client = NULL;
    bool ok = rpc_sync_create(&client, address, NULL, st) && calls_info(client, st);

    rpc_sync_destroy(client);
    return ok;
}

struct rpc_sync_stream *calls_open(struct rpc_sync *client, const struct rpc_method *method,
                                   const ProtobufCMessage *request)
{
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    CHECK_OK(rpc_sync_open(&stream, client, method, &patient, &st), st);
    CHECK_OK(rpc_sync_write(stream, request, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    return stream;
}

struct rpc_sync_stream *calls_hold(struct rpc_sync *client)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;

    return calls_open(client, &api_score, &request.base);
}

int calls_health(struct rpc_sync *client, const char *service, struct status *st)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    int state = -1;

    request.service = (char *)(uintptr_t)service;
    if (rpc_sync_unary(&stream, client, &check_method, &patient, &request.base, &reply, st))
        state = (int)((const Grpc__Health__V1__HealthCheckResponse *)reply->body)->status;
    rpc_sync_stream_destroy(stream);
    return state;
}
