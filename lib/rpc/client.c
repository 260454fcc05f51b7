/* A client's call on the loop.
 *
 *   open: recv_initial, recv_status, send (initial metadata, then messages one at a time, then half-close)
 *   rpc_stream_read(): recv_message -> on_message
 *   all ops returned, which the status guarantees to happen -> on_end -> freed
 *
 * The status op is in flight from the start, so "no op in flight" means the call is over. */
#include "rpc/client.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "rpc/client_internal.h"
#include "rpc/error.h"

struct rpc_stream {
    struct rpc *rpc;
    struct rpc_stream *next, **link; /* in rpc->streams until the end */
    const struct rpc_method *method;
    struct rpc_stream_events events;
    void *user;
    rpc_reply_fn *on_reply; /* of rpc_unary() */
    grpc_call *grpc;
    struct rpc_op initial_op, status_op, read_op, send_op;
    uint32_t ops; /* in flight */
    struct call_outcome outcome;
    grpc_op send_initial; /* of the first batch */
    grpc_metadata request_id;
    grpc_byte_buffer *arriving;
    struct rpc_received received;
    struct rpc_outbox outbox;
    struct status failure; /* ours, goes before what gRPC says; code OK: none */
    uint32_t max_message_bytes;
    uint32_t timeout_ms;
    bool initial_sent;
    bool sending, sending_message, reading;
    bool half_close_wanted, half_close_sent;
    bool filled; /* a write took the last room: on_writable is owed */
    bool status_known;
    bool cancelled; /* by us */
    bool ended;
    char address[RPC_ADDRESS_BYTES];
};

static void stream_send(struct rpc_stream *stream);

static void stream_free(struct rpc_stream *stream)
{
    rpc_received_reset(&stream->received);
    grpc_call_unref(stream->grpc);
    call_outcome_deinit(&stream->outcome);
    if (stream->send_initial.data.send_initial_metadata.count > 0)
        grpc_slice_unref(stream->request_id.value);
    free(stream);
}

static void stream_end(struct rpc_stream *stream)
{
    const struct error_source source = { &stream->outcome.trailers, stream->address, stream->method->path,
                                         stream->timeout_ms, stream->cancelled };
    const struct rpc_message *reply =
        stream->received.message.body != NULL ? &stream->received.message : NULL;
    struct status status;

    error_from_call(&status, stream->outcome.code, stream->outcome.text, &source);
    if (stream->failure.code != STATUS_OK)
        status = stream->failure;
    else if (stream->on_reply != NULL && status.code == STATUS_OK && reply == NULL)
        status_fail(&status, STATUS_INTERNAL, "%s at %s: OK without a reply", stream->method->path,
                    stream->address);
    stream->ended = true;
    *stream->link = stream->next;
    if (stream->next != NULL)
        stream->next->link = stream->link;
    rpc_outbox_clear(&stream->outbox);
    if (stream->on_reply != NULL)
        stream->on_reply(&status, status.code == STATUS_OK ? reply : NULL, stream->user);
    else
        stream->events.on_end(stream, &status, stream->user);
    stream_free(stream);
}

/* The last thing of every op's done: the stream may be gone after it. */
static void op_over(struct rpc_stream *stream)
{
    if (--stream->ops == 0)
        stream_end(stream);
}

static void start(struct rpc_stream *stream, const grpc_op *ops, size_t count, struct rpc_op *op,
                  void (*done)(struct rpc_op *op, bool ok))
{
    stream->ops++;
    rpc_batch_start(stream->rpc, stream->grpc, ops, count, op, done);
}

static void initial_done(struct rpc_op *op, bool ok)
{
    op_over(container_of(op, struct rpc_stream, initial_op));
}

static void status_done(struct rpc_op *op, bool ok)
{
    struct rpc_stream *stream = container_of(op, struct rpc_stream, status_op);

    stream->status_known = true;
    op_over(stream);
}

/* Ends the call for a reason of ours. */
static void stream_fail(struct rpc_stream *stream, const struct status *why)
{
    if (stream->failure.code == STATUS_OK)
        stream->failure = *why;
    grpc_call_cancel(stream->grpc, NULL);
}

static void send_done(struct rpc_op *op, bool ok)
{
    struct rpc_stream *stream = container_of(op, struct rpc_stream, send_op);

    stream->sending = false;
    if (stream->sending_message)
        rpc_outbox_drop_first(&stream->outbox);
    stream->sending_message = false;
    if (!ok)
        rpc_outbox_clear(&stream->outbox); /* the call is dead; its status says why */
    else if (!stream->status_known)
        stream_send(stream);
    if (stream->filled && rpc_stream_can_write(stream) && stream->events.on_writable != NULL) {
        stream->filled = false;
        stream->events.on_writable(stream, stream->user);
    }
    op_over(stream);
}

/* Starts the next batch of what is to be sent, if none is in flight. */
static void stream_send(struct rpc_stream *stream)
{
    grpc_byte_buffer *buffer = rpc_outbox_first(&stream->outbox);
    bool closing = stream->half_close_wanted && !stream->half_close_sent && stream->outbox.count <= 1;
    grpc_op ops[3];
    size_t count = 0;

    if (stream->sending)
        return;
    if (!stream->initial_sent)
        ops[count++] = stream->send_initial;
    if (buffer != NULL) {
        ops[count] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE };
        ops[count++].data.send_message.send_message = buffer;
    }
    if (closing)
        ops[count++] = (grpc_op){ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };
    if (count == 0)
        return;
    stream->initial_sent = true;
    stream->half_close_sent = stream->half_close_sent || closing;
    stream->sending = true;
    stream->sending_message = buffer != NULL;
    start(stream, ops, count, &stream->send_op, send_done);
}

static void read_done(struct rpc_op *op, bool ok)
{
    struct rpc_stream *stream = container_of(op, struct rpc_stream, read_op);
    grpc_byte_buffer *buffer = stream->arriving;
    struct status st = { 0 };

    stream->reading = false;
    stream->arriving = NULL;
    if (buffer == NULL) {
        /* the server has said everything: the status follows */
    } else if (!rpc_received_take(&stream->received, buffer, stream->method->reply,
                                  &stream->method->reply_payload, &st)) {
        st.code = st.code == STATUS_INVALID ? STATUS_INTERNAL : st.code;
        status_wrap(&st, "reply of %s", stream->address);
        rpc_received_reset(&stream->received);
        stream_fail(stream, &st);
    } else if (stream->failure.code == STATUS_OK && stream->events.on_message != NULL) {
        stream->events.on_message(stream, &stream->received.message, stream->user);
    }
    op_over(stream);
}

void rpc_stream_read(struct rpc_stream *stream)
{
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };

    REQUIRE(!stream->reading);
    if (stream->ended || (stream->status_known && stream->ops == 0))
        return;
    rpc_received_reset(&stream->received);
    op.data.recv_message.recv_message = &stream->arriving;
    stream->reading = true;
    start(stream, &op, 1, &stream->read_op, read_done);
}

bool rpc_stream_can_write(const struct rpc_stream *stream)
{
    return !stream->half_close_wanted && !stream->status_known && !stream->ended &&
           stream->failure.code == STATUS_OK && rpc_outbox_has_room(&stream->outbox);
}

bool rpc_stream_write(struct rpc_stream *stream, const ProtobufCMessage *message,
                      const struct rpc_attachment *attachment)
{
    grpc_byte_buffer *buffer;
    struct status st = { 0 };

    REQUIRE(loop_is_here(stream->rpc->loop) && message->descriptor == stream->method->request);
    if (!rpc_stream_can_write(stream))
        return false;
    buffer = rpc_pack(stream->rpc, message, &stream->method->request_payload, attachment,
                      stream->max_message_bytes, &st);
    if (buffer == NULL) {
        stream_fail(stream, &st);
        return false;
    }
    rpc_outbox_put(&stream->outbox, buffer);
    stream->filled = !rpc_outbox_has_room(&stream->outbox);
    stream_send(stream);
    return true;
}

void rpc_stream_half_close(struct rpc_stream *stream)
{
    if (stream->half_close_wanted || stream->status_known || stream->ended)
        return;
    stream->half_close_wanted = true;
    stream_send(stream);
}

void rpc_stream_cancel(struct rpc_stream *stream)
{
    if (stream->ended)
        return;
    stream->cancelled = true;
    grpc_call_cancel(stream->grpc, NULL);
}

void streams_cancel(struct rpc *rpc)
{
    for (struct rpc_stream *stream = rpc->streams; stream != NULL; stream = stream->next)
        rpc_stream_cancel(stream);
}

struct rpc_stream *rpc_stream_open(struct rpc_channel *channel, const struct rpc_method *method,
                                   const struct rpc_stream_options *options,
                                   const struct rpc_stream_events *events, void *user)
{
    struct rpc *rpc = channel->rpc;
    struct rpc_stream *stream = calloc(1, sizeof *stream);
    grpc_op op;

    REQUIRE(loop_is_here(rpc->loop) && stream != NULL);
    stream->rpc = rpc;
    stream->method = method;
    stream->events = *events;
    stream->user = user;
    stream->max_message_bytes = channel->max_message_bytes;
    stream->timeout_ms = options->timeout_ms;
    memcpy(stream->address, channel->address, sizeof stream->address);
    stream->next = rpc->streams;
    stream->link = &rpc->streams;
    if (stream->next != NULL)
        stream->next->link = &stream->next;
    rpc->streams = stream;
    call_outcome_init(&stream->outcome);
    stream->grpc = channel_call(channel, method, options, rpc->cq);
    stream->send_initial = op_send_initial(options, &stream->request_id);
    op = op_recv_initial(&stream->outcome);
    start(stream, &op, 1, &stream->initial_op, initial_done);
    op = op_recv_status(&stream->outcome);
    start(stream, &op, 1, &stream->status_op, status_done);
    if (method->shape == RPC_BIDI || method->shape == RPC_CLIENT_STREAM)
        stream_send(stream); /* the server learns of the call now; else with its request */
    return stream;
}

struct rpc_stream *rpc_unary(struct rpc_channel *channel, const struct rpc_method *method,
                             const struct rpc_stream_options *options, const ProtobufCMessage *request,
                             rpc_reply_fn *on_reply, void *user)
{
    static const struct rpc_stream_events none;
    struct rpc_stream *stream = rpc_stream_open(channel, method, options, &none, user);

    stream->on_reply = on_reply;
    rpc_stream_write(stream, request, NULL);
    rpc_stream_half_close(stream);
    rpc_stream_read(stream);
    return stream;
}
