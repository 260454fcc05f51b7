/* The bytes of every request and reply, as lib/rpc receives them: in pieces, the payload apart. What is accepted can be
 * sent again and is then the same.
 *
 * An input: which method, and request (even) or reply; how long the pieces are; the message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/limits.h"
#include "fuzz.h"
#include "rpc/api.h"
#include "rpc/payload.h"

enum { PIECES_MAX = 64 };

static const struct rpc_method *const methods[] = {
    &api_create_stream, &api_get_stream,      &api_list_streams,    &api_delete_stream, &api_report_trouble,
    &api_push,          &api_get_server_info, &api_open_stream,     &api_append,        &api_load_window,
    &api_score,         &api_fetch,           &api_retrieve,        &api_timeline,      &api_ask,
    &api_watch_stream,  &api_prefetch,        &api_cancel_prefetch, &api_export,        &api_hold,
    &api_list_holds,    &api_release_hold,    &api_forget,          &api_list_receipts,
};

static uint32_t split(const uint8_t *data, size_t len, size_t piece_bytes, struct bytes pieces[PIECES_MAX])
{
    uint32_t count = 0;

    while (len > 0) {
        size_t part = count + 1 == PIECES_MAX || piece_bytes > len ? len : piece_bytes;

        pieces[count++] = (struct bytes){ data, part };
        data += part;
        len -= part;
    }
    return count;
}

/* Fields that this version does not know go nowhere. */
static bool has_unknown_fields(const ProtobufCMessage *message, const struct rpc_payload_path *path)
{
    for (uint32_t i = 0;
         message->n_unknown_fields == 0 && i + 1 < RPC_PAYLOAD_DEPTH && path->field[i + 1] != 0; i++) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(message->descriptor, path->field[i]);

        message = *(ProtobufCMessage *const *)((const char *)message + field->offset);
    }
    return message->n_unknown_fields > 0;
}

/* protobuf-c takes a field number of 0 when it is written in more bytes than it needs, as one it does not know, and refuses
 * what it then writes itself. Nothing of it reaches a handler. */
static bool has_field_zero(const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++)
        if (message->unknown_fields[i].tag == 0)
            return true;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *at = (const char *)message + field->offset,
                   *count = (const char *)message + field->quantifier_offset;
        bool is_repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
        size_t n = is_repeated ? *(const size_t *)(const void *)count : 1;
        bool is_other = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
                        *(const uint32_t *)(const void *)count != field->id;
        ProtobufCMessage *const *list = is_repeated ? *(ProtobufCMessage *const *const *)(const void *)at
                                                    : (ProtobufCMessage *const *)(const void *)at;

        for (size_t k = 0; field->type == PROTOBUF_C_TYPE_MESSAGE && !is_other && k < n; k++)
            if (list[k] != NULL && has_field_zero(list[k]))
                return true;
    }
    return false;
}

/* Copied to memory of exactly its length. */
static uint8_t *copy_payload(const struct rpc_payload *payload)
{
    uint8_t *copy = malloc(payload->len + 1);

    REQUIRE(copy != NULL);
    rpc_payload_copy(payload, 0, copy, payload->len);
    return copy;
}

static uint8_t *send(const struct rpc_message *message, const struct rpc_payload_path *path,
                     const uint8_t *payload, size_t *len_p)
{
    const struct rpc_payload_path *used = message->payload.present ? path : NULL;
    size_t len = used == NULL ? 0 : message->payload.len;
    size_t head = payload_head_bytes(message->body, used, len);
    uint8_t *bytes = malloc(head + len + 1);

    REQUIRE(bytes != NULL);
    payload_write_head(message->body, used, len, bytes, head);
    if (len > 0)
        memcpy(bytes + head, payload, len);
    *len_p = head + len;
    return bytes;
}

static void send_again(const ProtobufCMessageDescriptor *type, const struct rpc_payload_path *path,
                       const struct rpc_message *message)
{
    struct arena arena = { .limit_bytes = LIMIT_CALL_BYTES };
    uint8_t *payload = copy_payload(&message->payload), *sent, *resent, *copy;
    struct rpc_message again;
    size_t len, relen;
    struct bytes piece;
    struct status st;

    sent = send(message, path, payload, &len);
    piece = (struct bytes){ sent, len };
    REQUIRE(payload_unpack(type, path, &piece, 1, &arena, &again, &st));
    REQUIRE(again.payload.len == message->payload.len);
    copy = copy_payload(&again.payload);
    REQUIRE(memcmp(copy, payload, again.payload.len) == 0);
    resent = send(&again, path, copy, &relen);
    REQUIRE(relen == len && memcmp(sent, resent, len) == 0);
    free(copy);
    free(resent);
    free(sent);
    free(payload);
    arena_reset(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena arena = { .limit_bytes = LIMIT_CALL_BYTES };
    const ProtobufCMessageDescriptor *type;
    const struct rpc_payload_path *path;
    struct bytes pieces[PIECES_MAX];
    const struct rpc_method *method;
    struct rpc_message message;
    struct status st = { 0 };
    uint32_t count;

    if (len < 2)
        return 0;
    method = methods[data[0] / 2 % ARRAY_LEN(methods)];
    type = data[0] % 2 == 0 ? method->request : method->reply;
    path = data[0] % 2 == 0 ? &method->request_payload : &method->reply_payload;
    count = split(data + 2, len - 2, data[1] + 1u, pieces);
    if (!payload_unpack(type, path, pieces, count, &arena, &message, &st))
        REQUIRE(st.code == STATUS_INVALID || st.code == STATUS_EXHAUSTED);
    else if (!has_field_zero(message.body) &&
             !has_unknown_fields(message.body,
                                 message.payload.present ? path : &(struct rpc_payload_path){ 0 }))
        send_again(type, path, &message);
    arena_reset(&arena);
    return 0;
}

/* --- seeds --- */

enum { SEED_DEPTH = 3, SEED_BYTES = 4096 };

/* A message with something in every field; of a oneof the one that is wanted. */
static void fill(ProtobufCMessage *message, struct arena *arena, uint32_t choice, uint32_t depth);

static void fill_value(const ProtobufCFieldDescriptor *field, void *at, struct arena *arena, uint32_t choice,
                       uint32_t depth)
{
    const ProtobufCMessageDescriptor *type = field->descriptor;
    ProtobufCMessage *inner;

    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = (char *)"cam-1";
        break;
    case PROTOBUF_C_TYPE_BYTES:
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){ 16, (uint8_t *)"0123456789abcdef" };
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        inner = arena_alloc(arena, type->sizeof_message);
        REQUIRE(inner != NULL);
        protobuf_c_message_init(type, inner);
        fill(inner, arena, choice, depth + 1);
        *(ProtobufCMessage **)at = inner;
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
        *(uint64_t *)at = 3;
        break;
    default:
        *(uint32_t *)at = 1;
    }
}

static void fill(ProtobufCMessage *message, struct arena *arena, uint32_t choice, uint32_t depth)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;

    for (unsigned i = 0; i < type->n_fields && depth < SEED_DEPTH; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        char *base = (char *)message;

        if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            if (i != choice % type->n_fields)
                continue;
            *(uint32_t *)(base + field->quantifier_offset) = field->id;
        }
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            fill_value(field, base + field->offset, arena, choice, depth);
        } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
            *(size_t *)(base + field->quantifier_offset) = 1;
            *(void **)(base + field->offset) = arena_alloc(arena, sizeof(void *));
            fill_value(field, *(void **)(base + field->offset), arena, choice, depth);
        }
    }
}

static void add_seed(fuzz_seed_fn *add, uint32_t index, bool is_reply, uint32_t choice)
{
    const struct rpc_method *method = methods[index];
    const ProtobufCMessageDescriptor *type = is_reply ? method->reply : method->request;
    struct arena arena = { .limit_bytes = LIMIT_CALL_BYTES };
    ProtobufCMessage *message = arena_alloc(&arena, type->sizeof_message);
    uint8_t input[SEED_BYTES];
    char name[64];

    REQUIRE(message != NULL);
    protobuf_c_message_init(type, message);
    fill(message, &arena, choice, 0);
    REQUIRE(protobuf_c_message_get_packed_size(message) + 2 <= sizeof input);
    input[0] = (uint8_t)(2 * index + is_reply);
    input[1] = 6;
    snprintf(name, sizeof name, "%s-%s-%u", strrchr(method->path, '/') + 1, is_reply ? "reply" : "request",
             choice);
    add(name, input, 2 + protobuf_c_message_pack(message, input + 2));
    arena_reset(&arena);
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    for (uint32_t i = 0; i < ARRAY_LEN(methods); i++)
        for (uint32_t choice = 0; choice < 5; choice++) {
            add_seed(add, i, false, choice);
            add_seed(add, i, true, choice);
        }
}
