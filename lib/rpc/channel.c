#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/require.h"
#include "rpc/address.h"
#include "rpc/client_internal.h"

enum {
    KEEPALIVE_MS = 5000,
    KEEPALIVE_TIMEOUT_MS = 3000,
    CONNECT_TIMEOUT_MS = 5000,
    RECONNECT_FIRST_MS = 200,
    RECONNECT_MAX_MS = 3000,
};

static grpc_channel *grpc_channel_of(const struct rpc_channel *channel,
                                     const struct rpc_channel_options *options)
{
    const struct rpc_arg rows[] = {
        { GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, channel->max_message_bytes },
        { GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, channel->max_message_bytes },
        { GRPC_ARG_KEEPALIVE_TIME_MS, or_default(options->keepalive_ms, KEEPALIVE_MS) },
        { GRPC_ARG_KEEPALIVE_TIMEOUT_MS, or_default(options->keepalive_timeout_ms, KEEPALIVE_TIMEOUT_MS) },
        { GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1 },
        { GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0 }, /* no limit */
        { GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_TIMEOUT_MS },
        { GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_FIRST_MS },
        { GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS },
        { GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 }, /* none: inflating has no limit in gRPC */
        { GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0 },          /* nor for servers that do not heed it */
        { GRPC_ARG_HTTP2_BDP_PROBE, 0 },
        { GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, RPC_LOOKAHEAD_BYTES },
        { GRPC_ARG_HTTP2_MAX_FRAME_SIZE, RPC_FRAME_BYTES },
        { GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1 }, /* equal channels do not share a connection */
        { GRPC_ARG_ENABLE_RETRIES, 0 },            /* they keep copies of what was sent; callers decide */
        { GRPC_ARG_ENABLE_HTTP_PROXY, 0 },         /* http_proxy in the environment is not for us */
        { GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1 },
    };
    grpc_arg args[ARRAY_LEN(rows)];
    grpc_channel_args all = { ARRAY_LEN(rows), args };
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    char target[ADDRESS_TARGET_BYTES];
    grpc_channel *out;
    sigset_t before;

    rpc_args_fill(args, rows, ARRAY_LEN(rows));
    address_target(channel->address, target);
    loop_signals_block(&before);
    out = grpc_channel_create(target, credentials, &all);
    loop_signals_restore(&before);
    grpc_channel_credentials_release(credentials);
    return out;
}

bool channel_open(struct rpc_channel **channel_p, struct rpc *rpc, const char *address,
                  const struct rpc_channel_options *options, struct status *st)
{
    static const struct rpc_channel_options defaults;
    struct rpc_channel *channel;

    if (!address_check(address, st))
        return false;
    channel = calloc(1, sizeof *channel);
    if (channel == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a channel to %s", address);
    options = options != NULL ? options : &defaults;
    channel->rpc = rpc;
    channel->max_message_bytes = or_default(options->max_message_bytes, LIMIT_MESSAGE_BYTES);
    snprintf(channel->address, sizeof channel->address, "%s", address);
    channel->grpc = grpc_channel_of(channel, options);
    *channel_p = channel;
    return true;
}

bool rpc_channel_create(struct rpc_channel **channel_p, struct rpc *rpc, const char *address,
                        const struct rpc_channel_options *options, struct status *st)
{
    REQUIRE(loop_is_here(rpc->loop));
    return channel_open(channel_p, rpc, address, options, st);
}

void rpc_channel_destroy(struct rpc_channel *channel)
{
    if (channel == NULL)
        return;
    grpc_channel_destroy(channel->grpc);
    free(channel);
}

const char *rpc_channel_address(const struct rpc_channel *channel)
{
    return channel->address;
}

grpc_call *channel_call(struct rpc_channel *channel, const struct rpc_method *method,
                        const struct rpc_stream_options *options, grpc_completion_queue *cq)
{
    gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    grpc_call *call;
    sigset_t before;

    REQUIRE(options->timeout_ms > 0);
    if (options->timeout_ms != RPC_NO_TIMEOUT)
        deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                gpr_time_from_millis(options->timeout_ms, GPR_TIMESPAN));
    loop_signals_block(&before);
    call = grpc_channel_create_call(channel->grpc, NULL, GRPC_PROPAGATE_DEFAULTS, cq,
                                    grpc_slice_from_static_string(method->path), NULL, deadline, NULL);
    loop_signals_restore(&before);
    return call;
}

void call_outcome_init(struct call_outcome *outcome)
{
    grpc_metadata_array_init(&outcome->initial);
    grpc_metadata_array_init(&outcome->trailers);
    outcome->text = grpc_empty_slice();
}

void call_outcome_deinit(struct call_outcome *outcome)
{
    grpc_metadata_array_destroy(&outcome->initial);
    grpc_metadata_array_destroy(&outcome->trailers);
    grpc_slice_unref(outcome->text);
}

grpc_op op_send_initial(const struct rpc_stream_options *options, grpc_metadata *request_id)
{
    const char *id = options->request_id;
    grpc_op op = { .op = GRPC_OP_SEND_INITIAL_METADATA };

    if (id != NULL && rpc_request_id_is_fine(id, strlen(id))) {
        request_id->key = grpc_slice_from_static_string("x-request-id");
        request_id->value = grpc_slice_from_copied_string(id);
        op.data.send_initial_metadata.metadata = request_id;
        op.data.send_initial_metadata.count = 1;
    }
    return op;
}

grpc_op op_recv_initial(struct call_outcome *outcome)
{
    grpc_op op = { .op = GRPC_OP_RECV_INITIAL_METADATA };

    op.data.recv_initial_metadata.recv_initial_metadata = &outcome->initial;
    return op;
}

grpc_op op_recv_status(struct call_outcome *outcome)
{
    grpc_op op = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT };

    op.data.recv_status_on_client.trailing_metadata = &outcome->trailers;
    op.data.recv_status_on_client.status = &outcome->code;
    op.data.recv_status_on_client.status_details = &outcome->text;
    return op;
}
