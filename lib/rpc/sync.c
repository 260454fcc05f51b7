/* Blocking calls: each has a completion queue of its own, and each operation is waited for by the thread that
 * started it. The status is one operation in flight from the start; whoever needs it first waits for it. */
#include "rpc/sync.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/require.h"
#include "rpc/client_internal.h"
#include "rpc/error.h"

struct rpc_sync {
    struct rpc_channel *channel;
};

/* A message that a writer had to receive to learn of the end; the reader's next. */
struct unread {
    struct unread *next;
    grpc_byte_buffer *buffer;
};

struct rpc_sync_stream {
    const struct rpc_method *method;
    const char *address;
    uint32_t max_message_bytes;
    uint32_t timeout_ms;
    grpc_completion_queue *cq;
    grpc_call *grpc;
    char tag_open, tag_initial, tag_status, tag_read, tag_send; /* only their addresses matter */
    struct call_outcome outcome;
    grpc_metadata request_id;
    grpc_op send_initial;
    bool opened_early;              /* the initial metadata went by themselves, with tag_open */
    bool initial_sent, half_closed; /* the writer's */
    struct rpc_received received;   /* the reader's */
    pthread_mutex_t read_lock;      /* one receive at a time; guards what follows */
    struct unread *unread, **unread_last;
    pthread_mutex_t batch_lock;  /* gRPC wants batches started one at a time */
    pthread_mutex_t status_lock; /* guards what follows */
    atomic_bool status_known;    /* set under the lock */
    atomic_bool cancelled;       /* by us */
    struct status failure;       /* ours, goes before the server's */
};

bool rpc_sync_create(struct rpc_sync **client_p, const char *address,
                     const struct rpc_channel_options *options, struct status *st)
{
    struct rpc_sync *client = calloc(1, sizeof *client);

    if (client == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a client of %s", address);
    rpc_library_ref();
    if (!channel_open(&client->channel, NULL, address, options, st)) {
        rpc_sync_destroy(client);
        return false;
    }
    *client_p = client;
    return true;
}

void rpc_sync_destroy(struct rpc_sync *client)
{
    if (client == NULL)
        return;
    rpc_channel_destroy(client->channel);
    rpc_library_unref();
    free(client);
}

static void batch(struct rpc_sync_stream *stream, const grpc_op *ops, size_t count, void *tag)
{
    grpc_call_error error;
    sigset_t before;

    pthread_mutex_lock(&stream->batch_lock);
    rpc_handing_over(tag);
    loop_signals_block(&before);
    error = grpc_call_start_batch(stream->grpc, ops, count, tag, NULL);
    loop_signals_restore(&before);
    pthread_mutex_unlock(&stream->batch_lock);
    REQUIRE(error == GRPC_CALL_OK);
}

static bool wait_for(struct rpc_sync_stream *stream, void *tag)
{
    grpc_event event;

    do
        event = grpc_completion_queue_pluck(stream->cq, tag, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    while (event.type == GRPC_QUEUE_TIMEOUT);
    rpc_taken_over(tag);
    return event.success != 0;
}

/* Waits for the end of the call. True: OK. */
static bool final_status(struct rpc_sync_stream *stream, struct status *st)
{
    struct error_source source = { &stream->outcome.trailers, stream->address, stream->method->path,
                                   stream->timeout_ms, false };
    struct status status;

    pthread_mutex_lock(&stream->status_lock);
    if (!stream->status_known)
        wait_for(stream, &stream->tag_status);
    stream->status_known = true;
    source.cancelled_here = stream->cancelled; /* perhaps while it was waited for */
    if (stream->failure.code != STATUS_OK)
        status = stream->failure;
    else
        error_from_call(&status, stream->outcome.code, stream->outcome.text, &source);
    pthread_mutex_unlock(&stream->status_lock);
    if (status.code != STATUS_OK && st != NULL)
        *st = status;
    return status.code == STATUS_OK;
}

/* Ends the call for a reason of ours, which is there before another thread can learn of the end. That thread waits with
 * the lock only for a call that is ending by itself. */
static bool fail(struct rpc_sync_stream *stream, const struct status *why, struct status *st)
{
    pthread_mutex_lock(&stream->status_lock);
    if (stream->failure.code == STATUS_OK)
        stream->failure = *why;
    pthread_mutex_unlock(&stream->status_lock);
    grpc_call_cancel(stream->grpc, NULL);
    return final_status(stream, st);
}

bool rpc_sync_open(struct rpc_sync_stream **stream_p, struct rpc_sync *client,
                   const struct rpc_method *method, const struct rpc_stream_options *options,
                   struct status *st)
{
    struct rpc_sync_stream *stream = calloc(1, sizeof *stream);
    grpc_op op;

    if (stream == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to call %s", method->path);
    stream->method = method;
    stream->address = client->channel->address;
    stream->max_message_bytes = client->channel->max_message_bytes;
    stream->timeout_ms = options->timeout_ms;
    stream->unread_last = &stream->unread;
    pthread_mutex_init(&stream->read_lock, NULL);
    pthread_mutex_init(&stream->batch_lock, NULL);
    pthread_mutex_init(&stream->status_lock, NULL);
    call_outcome_init(&stream->outcome);
    stream->cq = grpc_completion_queue_create_for_pluck(NULL);
    stream->grpc = channel_call(client->channel, method, options, stream->cq);
    stream->send_initial = op_send_initial(options, &stream->request_id);
    op = op_recv_initial(&stream->outcome);
    batch(stream, &op, 1, &stream->tag_initial);
    op = op_recv_status(&stream->outcome);
    batch(stream, &op, 1, &stream->tag_status);
    if (method->shape == RPC_BIDI || method->shape == RPC_CLIENT_STREAM) {
        stream->opened_early = stream->initial_sent = true; /* such a server may speak first */
        batch(stream, &stream->send_initial, 1, &stream->tag_open);
    }
    *stream_p = stream;
    return true;
}

/* The next message, or NULL: there are no more. The caller holds read_lock. */
static grpc_byte_buffer *receive(struct rpc_sync_stream *stream)
{
    grpc_byte_buffer *buffer = NULL;
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };

    op.data.recv_message.recv_message = &buffer;
    batch(stream, &op, 1, &stream->tag_read);
    wait_for(stream, &stream->tag_read);
    return buffer;
}

static grpc_byte_buffer *take_unread(struct rpc_sync_stream *stream)
{
    struct unread *first = stream->unread;
    grpc_byte_buffer *buffer = first->buffer;

    stream->unread = first->next;
    if (stream->unread == NULL)
        stream->unread_last = &stream->unread;
    free(first);
    return buffer;
}

/* gRPC tells the status only when every message has been received, and the writer may be the reader, too. Of a call
 * that is over: what still comes is what flow control let through, RPC_LOOKAHEAD_BYTES. */
static void set_unread_aside(struct rpc_sync_stream *stream)
{
    bool more = true;

    while (more) {
        struct unread *one = calloc(1, sizeof *one);

        REQUIRE(one != NULL);
        pthread_mutex_lock(&stream->read_lock);
        one->buffer = receive(stream);
        more = one->buffer != NULL;
        if (more) {
            *stream->unread_last = one;
            stream->unread_last = &one->next;
        }
        pthread_mutex_unlock(&stream->read_lock);
        if (!more)
            free(one);
    }
}

/* Sends what is given, the initial metadata before it the first time. False: the call is dead. gRPC itself may take what
 * is sent after the end. */
static bool send(struct rpc_sync_stream *stream, grpc_byte_buffer *buffer, bool close)
{
    grpc_op ops[3];
    size_t count = 0;

    if (stream->status_known)
        return false;
    if (!stream->initial_sent)
        ops[count++] = stream->send_initial;
    if (buffer != NULL) {
        ops[count] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE };
        ops[count++].data.send_message.send_message = buffer;
    }
    if (close)
        ops[count++] = (grpc_op){ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };
    stream->initial_sent = true;
    batch(stream, ops, count, &stream->tag_send);
    return wait_for(stream, &stream->tag_send);
}

static bool write_message(struct rpc_sync_stream *stream, const ProtobufCMessage *message,
                          const struct rpc_attachment *attachment, bool close, struct status *st)
{
    struct status why = { 0 };
    grpc_byte_buffer *buffer;
    bool sent;

    REQUIRE(!stream->half_closed && message->descriptor == stream->method->request);
    buffer = rpc_pack(NULL, message, &stream->method->request_payload, attachment, stream->max_message_bytes,
                      &why);
    if (buffer == NULL) {
        if (attachment != NULL && attachment->release != NULL)
            attachment->release(attachment->arg);
        return fail(stream, &why, st);
    }
    stream->half_closed = close;
    sent = send(stream, buffer, close);
    grpc_byte_buffer_destroy(buffer);
    if (sent)
        return true;
    set_unread_aside(stream);
    if (final_status(stream, st)) /* the server ended the call and did not want more */
        return status_fail(st, STATUS_ABORTED, "%s at %s ended before everything was sent",
                           stream->method->path, stream->address);
    return false;
}

bool rpc_sync_write(struct rpc_sync_stream *stream, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment, struct status *st)
{
    return write_message(stream, message, attachment, false, st);
}

bool rpc_sync_half_close(struct rpc_sync_stream *stream, struct status *st)
{
    if (stream->half_closed && !stream->status_known)
        return true;
    stream->half_closed = true;
    if (send(stream, NULL, true))
        return true;
    set_unread_aside(stream);
    return final_status(stream, st);
}

bool rpc_sync_read(struct rpc_sync_stream *stream, const struct rpc_message **message_p, struct status *st)
{
    grpc_byte_buffer *buffer;
    struct status why = { 0 };

    *message_p = NULL;
    rpc_received_reset(&stream->received);
    pthread_mutex_lock(&stream->read_lock);
    buffer = stream->unread != NULL ? take_unread(stream) : receive(stream);
    pthread_mutex_unlock(&stream->read_lock);
    if (buffer == NULL)
        return final_status(stream, st);
    if (!rpc_received_take(&stream->received, buffer, stream->method->reply, &stream->method->reply_payload,
                           &why)) {
        why.code = why.code == STATUS_INVALID ? STATUS_INTERNAL : why.code;
        status_wrap(&why, "reply of %s", stream->address);
        return fail(stream, &why, st);
    }
    *message_p = &stream->received.message;
    return true;
}

bool rpc_sync_finish(struct rpc_sync_stream *stream, struct status *st)
{
    const struct rpc_message *message;

    if (!rpc_sync_half_close(stream, st))
        return false;
    do
        if (!rpc_sync_read(stream, &message, st))
            return false;
    while (message != NULL);
    return true;
}

void rpc_sync_cancel(struct rpc_sync_stream *stream)
{
    stream->cancelled = true;
    grpc_call_cancel(stream->grpc, NULL);
}

void rpc_sync_stream_destroy(struct rpc_sync_stream *stream)
{
    if (stream == NULL)
        return;
    rpc_sync_cancel(stream); /* nothing when it is over */
    final_status(stream, NULL);
    wait_for(stream, &stream->tag_initial);
    if (stream->opened_early)
        wait_for(stream, &stream->tag_open);
    grpc_call_unref(stream->grpc);
    grpc_completion_queue_shutdown(stream->cq);
    while (grpc_completion_queue_pluck(stream->cq, NULL, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_completion_queue_destroy(stream->cq);
    while (stream->unread != NULL)
        grpc_byte_buffer_destroy(take_unread(stream));
    rpc_received_reset(&stream->received);
    call_outcome_deinit(&stream->outcome);
    if (stream->send_initial.data.send_initial_metadata.count > 0)
        grpc_slice_unref(stream->request_id.value);
    pthread_mutex_destroy(&stream->read_lock);
    pthread_mutex_destroy(&stream->batch_lock);
    pthread_mutex_destroy(&stream->status_lock);
    free(stream);
}

bool rpc_sync_unary(struct rpc_sync_stream **stream_p, struct rpc_sync *client,
                    const struct rpc_method *method, const struct rpc_stream_options *options,
                    const ProtobufCMessage *request, const struct rpc_message **reply_p, struct status *st)
{
    struct rpc_sync_stream *stream = NULL;

    *stream_p = NULL;
    if (!rpc_sync_open(&stream, client, method, options, st))
        return false;
    *stream_p = stream;
    if (!write_message(stream, request, NULL, true, st) || !rpc_sync_read(stream, reply_p, st) ||
        !final_status(stream, st))
        return false;
    if (*reply_p == NULL)
        return status_fail(st, STATUS_INTERNAL, "%s at %s: OK without a reply", method->path,
                           stream->address);
    return true;
}
