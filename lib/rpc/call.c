#include "rpc/call.h"

#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/require.h"
#include "rpc/call_internal.h"
#include "rpc/error.h"

static void call_send(struct rpc_call *call);

static void call_free(struct rpc_call *call)
{
    rpc_received_reset(&call->received);
    arena_reset(&call->arena);
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    if (call->grpc != NULL)
        grpc_call_unref(call->grpc);
    grpc_slice_unref(call->status_text);
    if (call->initial_sent)
        grpc_slice_unref(call->request_id_header.value);
    gpr_free(call->peer);
    free(call);
}

void rpc_call_ref(struct rpc_call *call)
{
    call->refs++;
}

void rpc_call_unref(struct rpc_call *call)
{
    REQUIRE(call->refs > 0);
    if (--call->refs == 0)
        call_free(call);
}

/* The last thing of every op's done: the call, and a server that drains, may be gone after it. */
static void op_over(struct rpc_call *call)
{
    struct rpc_server *server = call->server;

    if (--call->ops > 0 || !call->over)
        return;
    rpc_outbox_clear(&call->outbox);
    server_call_left(server, call);
}

static void start(struct rpc_call *call, const grpc_op *ops, size_t count, struct rpc_op *op,
                  void (*done)(struct rpc_op *op, bool ok))
{
    call->ops++;
    rpc_batch_start(call->rpc, call->grpc, ops, count, op, done);
}

/* ---- accepting ---- */

static void take_request_id(struct rpc_call *call)
{
    static uint64_t last; /* loop thread; two loops in one process would only share the numbers */
    const grpc_slice *id = rpc_metadata_get(&call->metadata, "x-request-id");

    if (id != NULL &&
        rpc_request_id_is_fine((const char *)GRPC_SLICE_START_PTR(*id), GRPC_SLICE_LENGTH(*id))) {
        memcpy(call->request_id, GRPC_SLICE_START_PTR(*id), GRPC_SLICE_LENGTH(*id));
        return;
    }
    /* Odd multiplier: 2^64 calls before one comes twice in a process; the clock tells processes apart. */
    if (last == 0)
        last = (uint64_t)clock_utc_ns();
    last += 0x9e3779b97f4a7c15u;
    snprintf(call->request_id, sizeof call->request_id, "%016llx", (unsigned long long)last);
}

static void read_message(struct rpc_call *call);

static void close_done(struct rpc_op *op, bool ok)
{
    struct rpc_call *call = container_of(op, struct rpc_call, close_op);

    call->over = true;
    if (call->opened && call->on_end != NULL)
        call->on_end(call, call->user);
    op_over(call);
}

static void open_handler(struct rpc_call *call)
{
    enum rpc_shape shape = call->handler->method->shape;
    void *state = call->user;

    call->opened = true;
    if (shape != RPC_UNARY) {
        call->initial_wanted = true; /* the client learns at once that its call was taken */
        call_send(call);
    }
    call->handler->open(call, state);
}

static void accept_done(struct rpc_op *op, bool ok)
{
    struct rpc_call *call = container_of(op, struct rpc_call, accept_op);
    grpc_op close = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER };
    struct status st = { 0 };

    call->ops--;
    if (!ok) {
        struct rpc_server *server = call->server;

        call_free(call);
        server_call_accepted(server, NULL, false);
        return;
    }
    snprintf(call->path, sizeof call->path, "%.*s", (int)GRPC_SLICE_LENGTH(call->details.method),
             (const char *)GRPC_SLICE_START_PTR(call->details.method));
    take_request_id(call);
    call->handler = server_find(call->server, call->details.method, &call->user, &call->limit);
    server_call_accepted(call->server, call, true);
    close.data.recv_close_on_server.cancelled = &call->cancelled;
    start(call, &close, 1, &call->close_op, close_done);
    if (call->handler == NULL) {
        status_fail(&st, STATUS_UNIMPLEMENTED, "there is no method %s here", call->path);
        rpc_call_finish(call, &st);
    } else if (!server_admits(call->server, call, &st)) {
        rpc_call_finish(call, &st);
    } else if (call->handler->method->shape == RPC_UNARY ||
               call->handler->method->shape == RPC_SERVER_STREAM) {
        read_message(call);
    } else {
        open_handler(call);
    }
}

void call_arm(struct rpc_server *server, struct rpc *rpc, grpc_server *grpc)
{
    struct rpc_call *call = calloc(1, sizeof *call);
    grpc_call_error error;
    sigset_t before;

    REQUIRE(call != NULL);
    call->server = server;
    call->rpc = rpc;
    call->refs = 1;
    call->arena.limit_bytes = LIMIT_CALL_BYTES;
    call->status_text = grpc_empty_slice();
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    call->ops++;
    rpc_op_start(rpc, &call->accept_op, accept_done);
    loop_signals_block(&before);
    error = grpc_server_request_call(grpc, &call->grpc, &call->details, &call->metadata, rpc->cq, rpc->cq,
                                     &call->accept_op);
    loop_signals_restore(&before);
    REQUIRE(error == GRPC_CALL_OK);
}

/* ---- reading ---- */

static void read_done(struct rpc_op *op, bool ok)
{
    struct rpc_call *call = container_of(op, struct rpc_call, read_op);
    const struct rpc_method *method = call->handler->method;
    grpc_byte_buffer *buffer = call->arriving;
    struct status st = { 0 };

    call->reading = false;
    call->arriving = NULL;
    if (call->over || call->finishing || !ok) {
        if (buffer != NULL)
            grpc_byte_buffer_destroy(buffer);
    } else if (buffer == NULL && call->opened) {
        call->on_message(call, NULL, call->user);
    } else if (buffer == NULL) {
        status_fail(&st, STATUS_INVALID, "%s was called without a request", call->path);
        rpc_call_finish(call, &st);
    } else if (!rpc_received_take(&call->received, buffer, method->request, &method->request_payload, &st)) {
        rpc_call_finish(call, &st);
    } else if (call->opened) {
        call->on_message(call, &call->received.message, call->user);
    } else {
        open_handler(call);
    }
    op_over(call);
}

static void read_message(struct rpc_call *call)
{
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };

    op.data.recv_message.recv_message = &call->arriving;
    call->reading = true;
    start(call, &op, 1, &call->read_op, read_done);
}

void rpc_call_read(struct rpc_call *call, rpc_call_message_fn *on_message)
{
    REQUIRE(loop_is_here(call->rpc->loop) && !call->reading);
    REQUIRE(call->handler->method->shape == RPC_CLIENT_STREAM || call->handler->method->shape == RPC_BIDI);
    if (call->over || call->finishing)
        return;
    rpc_received_reset(&call->received);
    call->on_message = on_message;
    read_message(call);
}

const struct rpc_message *rpc_call_request(const struct rpc_call *call)
{
    enum rpc_shape shape = call->handler->method->shape;

    return shape == RPC_UNARY || shape == RPC_SERVER_STREAM ? &call->received.message : NULL;
}

/* ---- writing ---- */

static void send_done(struct rpc_op *op, bool ok)
{
    struct rpc_call *call = container_of(op, struct rpc_call, send_op);

    call->sending = false;
    if (call->sending_message)
        rpc_outbox_drop_first(&call->outbox);
    call->sending_message = false;
    if (!call->over && ok)
        call_send(call);
    if (call->filled && call->on_writable != NULL && rpc_call_can_write(call)) {
        call->filled = false;
        call->on_writable(call, call->user);
    }
    op_over(call);
}

static grpc_op op_initial(struct rpc_call *call)
{
    grpc_op op = { .op = GRPC_OP_SEND_INITIAL_METADATA };

    call->request_id_header.key = grpc_slice_from_static_string("x-request-id");
    call->request_id_header.value = grpc_slice_from_copied_string(call->request_id);
    op.data.send_initial_metadata.metadata = &call->request_id_header;
    op.data.send_initial_metadata.count = 1;
    call->initial_sent = true;
    return op;
}

static grpc_op op_status(struct rpc_call *call)
{
    grpc_op op = { .op = GRPC_OP_SEND_STATUS_FROM_SERVER };

    op.data.send_status_from_server.status = (grpc_status_code)call->status.code;
    if (call->status.code != STATUS_OK) {
        call->status_text = grpc_slice_from_copied_string(call->status.text);
        call->details_trailer.key = grpc_slice_from_static_string("grpc-status-details-bin");
        call->details_trailer.value = error_details_pack(&call->status);
        op.data.send_status_from_server.status_details = &call->status_text;
        op.data.send_status_from_server.trailing_metadata = &call->details_trailer;
        op.data.send_status_from_server.trailing_metadata_count = 1;
    }
    call->sending_status = true;
    return op;
}

/* Starts the next batch of what is to be sent, if none is in flight: the initial metadata before the first,
 * one message, the status with the last. */
static void call_send(struct rpc_call *call)
{
    grpc_byte_buffer *buffer = rpc_outbox_first(&call->outbox);
    bool last = call->finishing && !call->sending_status && call->outbox.count <= 1;
    grpc_op ops[3];
    size_t count = 0;

    if (call->corks > 0 || call->sending || call->over || (buffer == NULL && !last && !call->initial_wanted))
        return;
    if (!call->initial_sent)
        ops[count++] = op_initial(call);
    call->initial_wanted = false;
    if (buffer != NULL) {
        ops[count] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE };
        if (call->outbox.count > 1) /* the next one goes with it */
            ops[count].flags = GRPC_WRITE_BUFFER_HINT;
        ops[count++].data.send_message.send_message = buffer;
    }
    if (last)
        ops[count++] = op_status(call);
    call->sending = true;
    call->sending_message = buffer != NULL;
    start(call, ops, count, &call->send_op, send_done);
    if (last && call->status.code != STATUS_OK)
        grpc_slice_unref(call->details_trailer.value);
}

bool rpc_call_can_write(const struct rpc_call *call)
{
    return !call->over && !call->finishing && rpc_outbox_has_room(&call->outbox);
}

bool rpc_call_write(struct rpc_call *call, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment)
{
    const struct rpc_method *method = call->handler->method;
    grpc_byte_buffer *buffer;
    struct status st = { 0 };

    REQUIRE(loop_is_here(call->rpc->loop) && message->descriptor == method->reply);
    if (!rpc_call_can_write(call))
        return false;
    buffer = rpc_pack(call->rpc, message, &method->reply_payload, attachment,
                      server_max_message_bytes(call->server), &st);
    if (buffer == NULL) {
        rpc_call_finish(call, &st);
        return false;
    }
    rpc_outbox_put(&call->outbox, buffer);
    call->filled = !rpc_outbox_has_room(&call->outbox);
    call_send(call);
    return true;
}

void rpc_call_cork(struct rpc_call *call)
{
    call->corks++;
}

void rpc_call_uncork(struct rpc_call *call)
{
    REQUIRE(call->corks > 0);
    if (--call->corks == 0)
        call_send(call);
}

void rpc_call_on_writable(struct rpc_call *call, void (*on_writable)(struct rpc_call *call, void *user))
{
    call->on_writable = on_writable;
}

void rpc_call_finish(struct rpc_call *call, const struct status *status)
{
    REQUIRE(loop_is_here(call->rpc->loop));
    if (call->finishing || call->over)
        return;
    call->finishing = true;
    if (status != NULL)
        call->status = *status;
    call_send(call);
}

void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment)
{
    const struct rpc_method *method = call->handler->method;
    grpc_byte_buffer *buffer = NULL;
    struct status st = { 0 };

    REQUIRE(loop_is_here(call->rpc->loop) && message->descriptor == method->reply);
    if (rpc_call_can_write(call))
        buffer = rpc_pack(call->rpc, message, &method->reply_payload, attachment,
                          server_max_message_bytes(call->server), &st);
    if (buffer == NULL) {
        if (attachment != NULL && attachment->release != NULL)
            attachment->release(attachment->arg);
        rpc_call_finish(call, &st);
        return;
    }
    rpc_outbox_put(&call->outbox, buffer);
    rpc_call_finish(call, NULL); /* message and status in one batch */
}

/* ---- the end, and what else a handler asks ---- */

void rpc_call_on_end(struct rpc_call *call, void (*on_end)(struct rpc_call *call, void *user))
{
    call->on_end = on_end;
}

bool rpc_call_was_cancelled(const struct rpc_call *call)
{
    return call->over && call->cancelled != 0;
}

void rpc_call_set_user(struct rpc_call *call, void *user)
{
    call->user = user;
}

struct arena *rpc_call_arena(struct rpc_call *call)
{
    return &call->arena;
}

const char *rpc_call_peer(const struct rpc_call *call)
{
    if (call->peer == NULL)
        ((struct rpc_call *)call)->peer = grpc_call_get_peer(call->grpc);
    return call->peer;
}

const char *rpc_call_request_id(const struct rpc_call *call)
{
    return call->request_id;
}
