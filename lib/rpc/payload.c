#include "rpc/payload.h"

#include <string.h>

#include "base/require.h"

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5, VARINT_BYTES_MAX = 10 };

static size_t varint_size(uint64_t value)
{
    size_t size = 1;

    for (; value >= 0x80; value >>= 7)
        size++;
    return size;
}

static uint8_t *put_varint(uint8_t *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

static uint64_t tag_of(uint16_t field)
{
    return (uint64_t)field << 3 | WIRE_BYTES;
}

static uint32_t path_depth(const struct rpc_payload_path *path)
{
    uint32_t depth = 0;

    while (depth < RPC_PAYLOAD_DEPTH && path->field[depth] != 0)
        depth++;
    return depth;
}

/* The field's value within the message, or NULL when it is a oneof's and another one is set. */
static void *field_value(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    char *base = (char *)message;

    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        uint32_t set;

        memcpy(&set, base + field->quantifier_offset, sizeof set);
        if (set != field->id)
            return NULL;
    }
    return base + field->offset;
}

static const ProtobufCFieldDescriptor *last_field(const ProtobufCMessageDescriptor *type, uint16_t number)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, number);

    REQUIRE(field != NULL && field == &type->fields[type->n_fields - 1]);
    return field;
}

/* ---- sending ---- */

/* What is packed of each message on the way: packed[0] of the outermost, ... */
struct levels {
    uint32_t depth;
    size_t packed[RPC_PAYLOAD_DEPTH]; /* without the payload */
    size_t full[RPC_PAYLOAD_DEPTH];   /* with it */
};

/* Of the part of a packed message that comes before its last field, the next level. */
static size_t prefix_bytes(const struct levels *levels, const struct rpc_payload_path *path, uint32_t level)
{
    size_t inner;

    if (level + 1 == levels->depth)
        return levels->packed[level];
    inner = levels->packed[level + 1];
    return levels->packed[level] - varint_size(tag_of(path->field[level])) - varint_size(inner) - inner;
}

static void measure(const ProtobufCMessage *message, const struct rpc_payload_path *path, size_t len,
                    struct levels *levels)
{
    levels->depth = path_depth(path);
    REQUIRE(levels->depth > 0);
    for (uint32_t i = 0; i < levels->depth; i++) {
        const ProtobufCFieldDescriptor *field = last_field(message->descriptor, path->field[i]);
        void *value = field_value(message, field);

        REQUIRE(message->n_unknown_fields == 0);
        levels->packed[i] = protobuf_c_message_get_packed_size(message);
        if (i + 1 == levels->depth) {
            REQUIRE(field->type == PROTOBUF_C_TYPE_BYTES);
            REQUIRE(value == NULL || ((ProtobufCBinaryData *)value)->len == 0);
        } else {
            REQUIRE(field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED);
            REQUIRE(value != NULL);
            message = *(ProtobufCMessage **)value;
            REQUIRE(message != NULL);
        }
    }
    for (uint32_t i = levels->depth; i-- > 0;) {
        size_t inner = i + 1 == levels->depth ? len : levels->full[i + 1];

        levels->full[i] =
            prefix_bytes(levels, path, i) + varint_size(tag_of(path->field[i])) + varint_size(inner) + inner;
    }
}

size_t payload_head_bytes(const ProtobufCMessage *message, const struct rpc_payload_path *path, size_t len)
{
    struct levels levels;

    if (path == NULL)
        return protobuf_c_message_get_packed_size(message);
    measure(message, path, len, &levels);
    return levels.full[0] - len;
}

/* Packs at the end of the head's room, then moves each level's prefix forward: what is written is never
 * longer than what has been read plus the room in front. */
void payload_write_head(const ProtobufCMessage *message, const struct rpc_payload_path *path, size_t len,
                        uint8_t *head, size_t head_bytes)
{
    struct levels levels;
    const uint8_t *from;
    uint8_t *to = head;

    if (path == NULL) {
        protobuf_c_message_pack(message, head);
        return;
    }
    measure(message, path, len, &levels);
    from = head + head_bytes - levels.packed[0];
    protobuf_c_message_pack(message, (uint8_t *)from);
    for (uint32_t i = 0; i < levels.depth; i++) {
        size_t prefix = prefix_bytes(&levels, path, i);
        bool last = i + 1 == levels.depth;

        memmove(to, from, prefix);
        to += prefix;
        from += prefix;
        if (!last)
            from += varint_size(tag_of(path->field[i])) + varint_size(levels.packed[i + 1]);
        to = put_varint(to, tag_of(path->field[i]));
        to = put_varint(to, last ? len : levels.full[i + 1]);
    }
    REQUIRE(to == head + head_bytes);
}

/* ---- receiving ---- */

struct cursor {
    const struct bytes *pieces;
    uint32_t piece;
    size_t in_piece; /* < pieces[piece].len unless at the very end */
    size_t at;       /* since the first byte */
    size_t total;
};

static void cursor_settle(struct cursor *c)
{
    while (c->at < c->total && c->in_piece == c->pieces[c->piece].len) {
        c->piece++;
        c->in_piece = 0;
    }
}

/* `len` must be there. `to` NULL: only skips. */
static void cursor_take(struct cursor *c, uint8_t *to, size_t len)
{
    while (len > 0) {
        size_t here = c->pieces[c->piece].len - c->in_piece, part = len < here ? len : here;

        if (to != NULL) {
            memcpy(to, c->pieces[c->piece].data + c->in_piece, part);
            to += part;
        }
        c->in_piece += part;
        c->at += part;
        len -= part;
        cursor_settle(c);
    }
}

static bool take_varint(struct cursor *c, size_t end, uint64_t *value_p)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < VARINT_BYTES_MAX && c->at < end; i++) {
        uint8_t byte;

        cursor_take(c, &byte, 1);
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *value_p = value;
            return true;
        }
    }
    return false;
}

/* Past the value that follows a tag; false when it does not fit or is of a kind no one writes (groups). */
static bool skip_value(struct cursor *c, uint64_t tag, size_t end)
{
    uint64_t len;

    switch (tag & 7) {
    case WIRE_VARINT:
        return take_varint(c, end, &len);
    case WIRE_FIXED64:
        len = 8;
        break;
    case WIRE_FIXED32:
        len = 4;
        break;
    case WIRE_BYTES:
        if (!take_varint(c, end, &len))
            return false;
        break;
    default:
        return false;
    }
    if (len > end - c->at)
        return false;
    cursor_take(c, NULL, (size_t)len);
    return true;
}

/* Where each level's last field begins (its tag) and where its content does. */
struct layout {
    uint32_t depth;
    struct cursor start[RPC_PAYLOAD_DEPTH]; /* first byte of the level's message */
    size_t tag_at[RPC_PAYLOAD_DEPTH];
    struct cursor payload; /* its first byte; it ends where the message ends */
};

/* Finds field `number` at the end of the message that `c` is at: then true, and `c` is at the field's
 * content. */
static bool find_last(struct cursor *c, uint16_t number, size_t *tag_at)
{
    while (c->at < c->total) {
        uint64_t tag, len;

        *tag_at = c->at;
        if (!take_varint(c, c->total, &tag))
            return false;
        if (tag != tag_of(number)) {
            if (!skip_value(c, tag, c->total))
                return false;
            continue;
        }
        return take_varint(c, c->total, &len) && len == c->total - c->at;
    }
    return false;
}

static bool find_layout(struct cursor c, const struct rpc_payload_path *path, struct layout *layout)
{
    layout->depth = path_depth(path);
    for (uint32_t i = 0; i < layout->depth; i++) {
        layout->start[i] = c;
        if (!find_last(&c, path->field[i], &layout->tag_at[i]))
            return false;
    }
    layout->payload = c;
    return layout->depth > 0;
}

/* The message as if its payload field had not been sent; NULL when the arena is spent. */
static uint8_t *rebuild_head(const struct layout *layout, const struct rpc_payload_path *path,
                             struct arena *arena, size_t *len_p)
{
    size_t prefix[RPC_PAYLOAD_DEPTH], full[RPC_PAYLOAD_DEPTH];
    uint8_t *head, *to;

    for (uint32_t i = layout->depth; i-- > 0;) {
        prefix[i] = full[i] = layout->tag_at[i] - layout->start[i].at;
        if (i + 1 < layout->depth)
            full[i] += varint_size(tag_of(path->field[i])) + varint_size(full[i + 1]) + full[i + 1];
    }
    to = head = arena_alloc(arena, full[0] + 1);
    if (head == NULL)
        return NULL;
    for (uint32_t i = 0; i < layout->depth; i++) {
        struct cursor c = layout->start[i];

        cursor_take(&c, to, prefix[i]);
        to += prefix[i];
        if (i + 1 < layout->depth) {
            to = put_varint(to, tag_of(path->field[i]));
            to = put_varint(to, full[i + 1]);
        }
    }
    *len_p = full[0];
    return head;
}

/* protobuf-c says only "NULL"; this tells a spent arena from a malformed message. */
struct unpack_memory {
    ProtobufCAllocator allocator;
    struct arena *arena;
    bool spent;
};

static void *unpack_alloc(void *arg, size_t bytes)
{
    struct unpack_memory *memory = arg;
    void *out = arena_alloc(memory->arena, bytes);

    memory->spent = memory->spent || out == NULL;
    return out;
}

static void unpack_free(void *arg, void *pointer)
{
}

static bool fail_spent(const ProtobufCMessageDescriptor *type, const struct arena *arena, struct status *st)
{
    return status_fail(st, STATUS_EXHAUSTED,
                       "a %s needs more than %zu bytes of memory; send less in one message", type->name,
                       arena->limit_bytes);
}

static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *type, struct bytes data,
                                struct arena *arena, struct status *st)
{
    struct unpack_memory memory = { .arena = arena };
    ProtobufCMessage *body;

    memory.allocator.alloc = unpack_alloc;
    memory.allocator.free = unpack_free;
    memory.allocator.allocator_data = &memory;
    body = protobuf_c_message_unpack(type, &memory.allocator, data.len, data.data);
    if (body == NULL && memory.spent)
        fail_spent(type, arena, st);
    else if (body == NULL)
        status_fail(st, STATUS_INVALID, "the message is not a well-formed %s", type->name);
    return body;
}

static bool split(const struct layout *layout, struct arena *arena, struct rpc_payload *payload)
{
    const struct cursor *from = &layout->payload;
    uint32_t pieces_max = 0;
    size_t left = from->total - from->at;
    struct bytes *pieces;

    for (size_t n = 0; n < left; pieces_max++)
        n += from->pieces[from->piece + pieces_max].len - (pieces_max == 0 ? from->in_piece : 0);
    pieces = arena_alloc(arena, (pieces_max + 1) * sizeof *pieces);
    if (pieces == NULL)
        return false;
    for (uint32_t i = 0; i < pieces_max; i++) {
        pieces[i] = from->pieces[from->piece + i];
        if (i == 0) {
            pieces[i].data += from->in_piece;
            pieces[i].len -= from->in_piece;
        }
    }
    *payload =
        (struct rpc_payload){ .present = true, .len = left, .pieces = pieces, .piece_count = pieces_max };
    return true;
}

/* After plain unpacking: takes the field's bytes out of the body. */
static bool take_from_body(ProtobufCMessage *body, const struct rpc_payload_path *path, struct arena *arena,
                           struct rpc_payload *payload)
{
    uint32_t depth = path_depth(path);
    ProtobufCBinaryData *data = NULL;
    struct bytes *piece;

    for (uint32_t i = 0; i < depth; i++) {
        void *value = field_value(body, last_field(body->descriptor, path->field[i]));

        if (value == NULL)
            return true;
        if (i + 1 == depth)
            data = value;
        else
            body = *(ProtobufCMessage **)value;
        if (body == NULL)
            return true;
    }
    if (data == NULL)
        return true;
    piece = arena_alloc(arena, sizeof *piece);
    if (piece == NULL)
        return false;
    *piece = (struct bytes){ data->data, data->len };
    *payload = (struct rpc_payload){
        .present = depth > 1 || data->len > 0, .len = data->len, .pieces = piece, .piece_count = data->len > 0
    };
    *data = (ProtobufCBinaryData){ 0 };
    return true;
}

static bool unpack_plain(const ProtobufCMessageDescriptor *type, const struct rpc_payload_path *path,
                         struct cursor c, struct arena *arena, struct rpc_message *message, struct status *st)
{
    struct bytes data = { (const uint8_t *)"", c.total };
    ProtobufCMessage *body;

    if (c.total > 0 && c.pieces[c.piece].len == c.total) {
        data.data = c.pieces[c.piece].data;
    } else if (c.total > 0) {
        uint8_t *copy = arena_alloc(arena, c.total);

        if (copy == NULL)
            return fail_spent(type, arena, st);
        cursor_take(&c, copy, c.total);
        data.data = copy;
    }
    body = unpack(type, data, arena, st);
    if (body == NULL)
        return false;
    message->body = body;
    if (!take_from_body(body, path, arena, &message->payload))
        return fail_spent(type, arena, st);
    return true;
}

bool payload_unpack(const ProtobufCMessageDescriptor *type, const struct rpc_payload_path *path,
                    const struct bytes *pieces, uint32_t piece_count, struct arena *arena,
                    struct rpc_message *message, struct status *st)
{
    struct cursor c = { .pieces = pieces };
    struct layout layout;
    struct bytes head;
    uint8_t *data;

    for (uint32_t i = 0; i < piece_count; i++)
        c.total += pieces[i].len;
    cursor_settle(&c);
    *message = (struct rpc_message){ 0 };
    if (!find_layout(c, path, &layout))
        return unpack_plain(type, path, c, arena, message, st);
    data = rebuild_head(&layout, path, arena, &head.len);
    if (data == NULL || !split(&layout, arena, &message->payload))
        return fail_spent(type, arena, st);
    head.data = data;
    message->body = unpack(type, head, arena, st);
    return message->body != NULL;
}

void rpc_payload_copy(const struct rpc_payload *payload, size_t offset, void *to, size_t len)
{
    uint8_t *out = to;

    REQUIRE(offset <= payload->len && len <= payload->len - offset);
    for (uint32_t i = 0; len > 0; i++) {
        size_t here = payload->pieces[i].len, part;

        if (offset >= here) {
            offset -= here;
            continue;
        }
        part = here - offset < len ? here - offset : len;
        memcpy(out, payload->pieces[i].data + offset, part);
        out += part;
        len -= part;
        offset = 0;
    }
}
