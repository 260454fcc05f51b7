/* Append: a writer's blocks, gaps and end; acks back.
 *
 *   Begin -> (Block -> room in RAM -> copied and checked -> stored -> next message) ... -> half-close -> durable -> OK
 *
 * One block at a time for each call (kvstore_append_block.c): while it waits for room nothing more is read, and with
 * the transport's own windows the writer stalls. Acks are sent when they move and the call takes them; several moves
 * make one ack. */
#include "kvstore/kvstore_append.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kvstore/kvstore_directory.h"
#include "kvstore/store_pressure.h"

void append_free(struct append *append)
{
    if (append->call != NULL || append->is_working || append->is_saving)
        return;
    ram_unref(append->kvstore->store->arena, append->slot);
    if (append->slot != NULL)
        store_ram_freed(append->kvstore->store);
    shm_pool_unref(append->pool);
    free(append);
}

void append_finish(struct append *append, const struct status *status)
{
    rpc_call_finish(append->call, status);
}

/* --- acks --- */

void append_send_ack(struct append *append)
{
    Reelkv__V1__AppendReply reply = REELKV__V1__APPEND_REPLY__INIT;

    if (append->call == NULL || append->stream == NULL)
        return;
    if (!rpc_call_can_write(append->call)) {
        append->ack_wanted = true;
        return;
    }
    append->ack_wanted = false;
    reply.stored_seq = append->stream->next_seq;
    reply.durable_seq = stream_durable_seq(append->stream);
    reply.credit_bytes = store_credit_bytes(append->kvstore->store);
    rpc_call_write(append->call, &reply.base, NULL);
}

/* The writer has said everything: the call ends when all of it is on the disk, and the ack that says so is sent. */
static void finish_when_durable(struct append *append)
{
    if (append->call == NULL || append->stream == NULL)
        return;
    append_send_ack(append);
    if (!stream_is_durable(append->stream))
        stream_commit(append->stream);
    else if (append->is_import)
        append_finish_import(append);
    else if (!append->ack_wanted)
        append_finish(append, NULL);
}

static void on_writable(struct rpc_call *call, void *user)
{
    struct append *append = user;

    if (append->ack_wanted && append->has_half_closed)
        finish_when_durable(append);
    else if (append->ack_wanted)
        append_send_ack(append);
}

static void try_note(struct append *append);

static void moved(struct stream_writer *writer)
{
    struct append *append = container_of(writer, struct append, writer);

    if (append->note == NULL && append->has_half_closed) {
        finish_when_durable(append);
        return;
    }
    append_send_ack(append);
    if (append->note != NULL)
        try_note(append);
}

static void fenced(struct stream_writer *writer, const struct status *why)
{
    struct append *append = container_of(writer, struct append, writer);

    append->stream = NULL;
    append_stop_waiting(append); /* there is nothing left to store to */
    append_finish(append, why);
}

/* --- other messages --- */

static bool store_gap(struct append *append, const Reelkv__V1__AppendGap *message, struct status *st)
{
    const struct stream_gap gap = { .from_seq = message->from_seq,
                                    .to_seq = message->to_seq,
                                    .from_pts_ns = message->from_pts_ns,
                                    .to_pts_ns = message->to_pts_ns,
                                    .reason = message->reason };

    return stream_append_gap(append->stream, &gap, st);
}

static bool store_end(struct append *append, const Reelkv__V1__AppendEnd *message, struct status *st)
{
    if (!stream_end(append->stream, message->trouble, st))
        return false;
    kvstore_directory_changed(append->kvstore->directory, append->stream);
    return true;
}

/* When too many wait for the disk, so does this one: until some are durable. */
static void try_note(struct append *append)
{
    const Reelkv__V1__AppendRequest *note = append->note;
    struct status st = { 0 };
    bool ok = note->item_case == REELKV__V1__APPEND_REQUEST__ITEM_GAP ? store_gap(append, note->gap, &st)
                                                                      : store_end(append, note->end, &st);

    if (ok) {
        append_stop_waiting(append);
        append_send_ack(append);
        append_read_next(append);
    } else if (st.code == STATUS_EXHAUSTED) {
        stream_commit(append->stream);
        append_limit_wait(append);
    } else {
        append_stop_waiting(append);
        append_finish(append, &st);
    }
}

static bool begin(struct append *append, const Reelkv__V1__AppendBegin *message, struct status *st)
{
    struct stream *stream = kvstore_stream_of(append->kvstore, message->id, st);

    if (stream == NULL)
        return false;
    if (message->shm_pool != 0) {
        if (append->kvstore->shm != NULL)
            append->pool = kvstore_shm_pool(append->kvstore->shm, message->shm_pool);
        if (append->pool == NULL)
            return status_fail(st, STATUS_PRECONDITION,
                               "shared memory pool %llx is not known here; shake hands again",
                               (unsigned long long)message->shm_pool);
    }
    if (!stream_attach(stream, message->epoch, &append->writer, st))
        return false;
    append->stream = stream;
    return true;
}

static void on_begin(struct append *append, const Reelkv__V1__AppendBegin *message)
{
    struct status st = { 0 };

    append->is_import = message->import != NULL;
    if (append->is_import ? !append_begin_import(append, message, &st) : !begin(append, message, &st)) {
        append_finish(append, &st);
        return;
    }
    if (append->is_import)
        return;
    kvstore_directory_changed(append->kvstore->directory, append->stream);
    append_send_ack(append);
    append_read_next(append);
}

static bool is_expected(const struct append *append, const Reelkv__V1__AppendRequest *request,
                        struct status *st)
{
    bool is_begin = request->item_case == REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    bool is_chunk = request->item_case == REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    bool wants_chunk = append_wants_chunk(append);

    if (is_begin != (append->stream == NULL))
        return status_fail(st, STATUS_INVALID, "Begin comes first, and once");
    if (!is_begin && is_chunk != wants_chunk)
        return status_fail(st, STATUS_INVALID,
                           wants_chunk ? "chunks of the block before are missing"
                                       : "a chunk without a block");
    return true;
}

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct append *append = user;
    const Reelkv__V1__AppendRequest *request;
    struct status st = { 0 };

    if (message == NULL && append_wants_chunk(append)) {
        status_fail(&st, STATUS_INVALID, "the writer ended in the middle of a block");
        append_finish(append, &st);
        return;
    }
    if (message == NULL) {
        append->has_half_closed = true;
        if (append->stream == NULL)
            append_finish(append, NULL);
        finish_when_durable(append);
        return;
    }
    request = (const Reelkv__V1__AppendRequest *)message->body;
    if (!is_expected(append, request, &st)) {
        append_finish(append, &st);
        return;
    }
    switch (request->item_case) {
    case REELKV__V1__APPEND_REQUEST__ITEM_BEGIN:
        on_begin(append, request->begin);
        return;
    case REELKV__V1__APPEND_REQUEST__ITEM_BLOCK:
        append_on_block(append, request->block);
        return;
    case REELKV__V1__APPEND_REQUEST__ITEM_GAP:
    case REELKV__V1__APPEND_REQUEST__ITEM_END:
        append->note = request;
        try_note(append);
        return;
    case REELKV__V1__APPEND_REQUEST__ITEM_CHUNK:
        append_on_chunk(append, &message->payload);
        return;
    default:
        status_fail(&st, STATUS_INVALID, "an item that this version does not know");
        append_finish(append, &st);
    }
}

void append_read_next(struct append *append)
{
    if (append->call != NULL && append->stream != NULL)
        rpc_call_read(append->call, on_message);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct append *append = user;
    struct stream *stream = append->stream;

    append->call = NULL;
    append->stream = NULL;
    append_stop_waiting(append);
    if (stream != NULL) {
        stream_detach(stream, &append->writer);
        kvstore_directory_changed(append->kvstore->directory, stream);
        if (append->is_import)
            append_leave_import(stream);
    }
    append_free(append);
}

void kvstore_append(struct rpc_call *call, void *state)
{
    struct append *append = calloc(1, sizeof *append);
    struct status st = { 0 };

    if (append == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more writer");
        rpc_call_finish(call, &st);
        return;
    }
    append->kvstore = state;
    append->call = call;
    append->writer = (struct stream_writer){ .moved = moved, .fenced = fenced };
    append->waiter.retry = append_retry;
    rpc_call_set_user(call, append);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    rpc_call_read(call, on_message);
}
