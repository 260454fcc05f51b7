#include <grpc/byte_buffer_reader.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/require.h"
#include "rpc/payload.h"
#include "rpc/rpc_internal.h"

/* ---- sending ---- */

/* Brings an attachment's release from whatever thread gRPC drops it on to the loop. */
struct attachment_return {
    struct letter letter;
    struct rpc *rpc;
    void (*release)(void *arg);
    void *arg;
};

static void attachment_came_back(struct letter *letter)
{
    struct attachment_return *back = container_of(letter, struct attachment_return, letter);

    back->rpc->in_flight--;
    back->release(back->arg);
    free(back);
}

static void attachment_dropped(void *arg)
{
    struct attachment_return *back = arg;

    rpc_taken_over(back);
    loop_post(back->rpc->loop, &back->letter);
}

static grpc_slice attachment_slice(struct rpc *rpc, const struct rpc_attachment *attachment)
{
    struct attachment_return *back;

    if (rpc == NULL)
        return grpc_slice_new_with_user_data((void *)attachment->data, attachment->len, attachment->release,
                                             attachment->arg);
    back = calloc(1, sizeof *back);
    REQUIRE(back != NULL);
    back->letter.open = attachment_came_back;
    back->rpc = rpc;
    back->release = attachment->release;
    back->arg = attachment->arg;
    rpc->in_flight++;
    rpc_handing_over(back);
    return grpc_slice_new_with_user_data((void *)attachment->data, attachment->len, attachment_dropped, back);
}

grpc_byte_buffer *rpc_pack(struct rpc *rpc, const ProtobufCMessage *message,
                           const struct rpc_payload_path *path, const struct rpc_attachment *attachment,
                           size_t max_bytes, struct status *st)
{
    size_t len = attachment != NULL ? attachment->len : 0;
    bool borrow = len > 0 && attachment->release != NULL;
    size_t head_bytes = payload_head_bytes(message, len > 0 ? path : NULL, len);
    grpc_slice slices[2];
    grpc_byte_buffer *buffer;
    uint8_t *head;

    if (head_bytes > max_bytes || len > max_bytes - head_bytes) {
        status_fail(st, STATUS_EXHAUSTED, "a %s of %zu bytes is larger than the limit of %zu",
                    message->descriptor->name, head_bytes + len, max_bytes);
        return NULL;
    }
    slices[0] = grpc_slice_malloc(head_bytes + (borrow ? 0 : len));
    head = GRPC_SLICE_START_PTR(slices[0]);
    payload_write_head(message, len > 0 ? path : NULL, len, head, head_bytes);
    if (borrow)
        slices[1] = attachment_slice(rpc, attachment);
    else if (len > 0)
        memcpy(head + head_bytes, attachment->data, len);
    buffer = grpc_raw_byte_buffer_create(slices, borrow ? 2 : 1);
    grpc_slice_unref(slices[0]);
    if (borrow)
        grpc_slice_unref(slices[1]);
    else if (attachment != NULL && attachment->release != NULL)
        attachment->release(attachment->arg); /* nothing in it to wait for */
    return buffer;
}

bool rpc_outbox_has_room(const struct rpc_outbox *box)
{
    return box->count < RPC_QUEUED_MESSAGES && box->bytes < RPC_QUEUED_BYTES;
}

void rpc_outbox_put(struct rpc_outbox *box, grpc_byte_buffer *buffer)
{
    uint32_t at = (box->first + box->count) % RPC_QUEUED_MESSAGES;

    REQUIRE(rpc_outbox_has_room(box));
    box->buffers[at] = buffer;
    box->sizes[at] = grpc_byte_buffer_length(buffer);
    box->bytes += box->sizes[at];
    box->count++;
}

grpc_byte_buffer *rpc_outbox_first(const struct rpc_outbox *box)
{
    return box->count > 0 ? box->buffers[box->first] : NULL;
}

void rpc_outbox_drop_first(struct rpc_outbox *box)
{
    grpc_byte_buffer *buffer = rpc_outbox_first(box);

    REQUIRE(buffer != NULL);
    box->bytes -= box->sizes[box->first];
    box->first = (box->first + 1) % RPC_QUEUED_MESSAGES;
    box->count--;
    grpc_byte_buffer_destroy(buffer);
}

void rpc_outbox_clear(struct rpc_outbox *box)
{
    while (box->count > 0)
        rpc_outbox_drop_first(box);
}

/* ---- receiving ---- */

void rpc_received_reset(struct rpc_received *received)
{
    arena_reset(&received->arena);
    received->message = (struct rpc_message){ 0 };
    if (received->buffer != NULL)
        grpc_byte_buffer_destroy(received->buffer);
    received->buffer = NULL;
}

/* The buffer's slices as plain ranges; they stay valid as long as the buffer. NULL: arena spent. */
static struct bytes *pieces_of(grpc_byte_buffer *buffer, struct arena *arena, uint32_t *count_p)
{
    grpc_byte_buffer_reader reader;
    struct bytes *pieces;
    grpc_slice *slice;
    uint32_t count = 0;

    REQUIRE(grpc_byte_buffer_reader_init(&reader, buffer));
    while (grpc_byte_buffer_reader_peek(&reader, &slice))
        count++;
    grpc_byte_buffer_reader_destroy(&reader);
    pieces = arena_alloc(arena, (count + 1) * sizeof *pieces);
    if (pieces == NULL)
        return NULL;
    REQUIRE(grpc_byte_buffer_reader_init(&reader, buffer));
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(grpc_byte_buffer_reader_peek(&reader, &slice));
        pieces[i] = (struct bytes){ GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice) };
    }
    grpc_byte_buffer_reader_destroy(&reader);
    *count_p = count;
    return pieces;
}

bool rpc_received_take(struct rpc_received *received, grpc_byte_buffer *buffer,
                       const ProtobufCMessageDescriptor *type, const struct rpc_payload_path *path,
                       struct status *st)
{
    struct bytes *pieces;
    uint32_t count;

    rpc_received_reset(received);
    received->buffer = buffer;
    if (buffer->data.raw.compression != GRPC_COMPRESS_NONE)
        return status_fail(st, STATUS_UNIMPLEMENTED, "a %s came compressed, which is not accepted",
                           type->name);
    received->arena.limit_bytes = LIMIT_CALL_BYTES;
    pieces = pieces_of(buffer, &received->arena, &count);
    if (pieces == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "a %s came in more pieces than a call's memory holds",
                           type->name);
    return payload_unpack(type, path, pieces, count, &received->arena, &received->message, st);
}
