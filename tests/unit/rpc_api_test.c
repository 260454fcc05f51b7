/* rpc/api.h says again what proto/reelkv/v1 says: protobuf-c's stubs do not carry which side streams. Here the two are
 * held against each other; the .proto files' side comes from the descriptors that reflection serves. */
#include "rpc/api.h"

#include "support/test.h"

extern const uint8_t reelkv_descriptor_set[], reelkv_descriptor_set_end[];

static const struct rpc_method *const table[] = {
    &api_create_stream, &api_get_stream,   &api_list_streams,
    &api_delete_stream, &api_push,         &api_get_server_info,
    &api_open_stream,   &api_append,       &api_load_window,
    &api_score,         &api_fetch,        &api_retrieve,
    &api_timeline,      &api_ask,          &api_report_trouble,
    &api_watch_stream,  &api_export,       &api_hold,
    &api_list_holds,    &api_release_hold, &api_forget,
    &api_list_receipts, &api_prefetch,     &api_cancel_prefetch,
};

static uint64_t take_varint(struct bytes *in)
{
    uint64_t value = 0;

    for (unsigned shift = 0;; shift += 7) {
        REQUIRE(in->len > 0 && shift < 64);
        in->len--;
        value |= (uint64_t)(*in->data & 0x7f) << shift;
        if (*in->data++ < 0x80)
            return value;
    }
}

/* The next field of a descriptor message, which has varints and bytes only; false at its end. */
static bool take_field(struct bytes *in, uint64_t *number_p, uint64_t *value_p, struct bytes *bytes_p)
{
    uint64_t tag;

    if (in->len == 0)
        return false;
    tag = take_varint(in);
    *number_p = tag >> 3;
    *value_p = take_varint(in);
    if ((tag & 7) == 0)
        return true;
    REQUIRE((tag & 7) == 2 && *value_p <= in->len);
    *bytes_p = (struct bytes){ in->data, (size_t)*value_p };
    in->data += *value_p;
    in->len -= (size_t)*value_p;
    return true;
}

struct found_method {
    char path[192], request[64], reply[64];
    bool client_streams, server_streams;
};

static void text_of(struct bytes bytes, char *out, size_t out_bytes)
{
    REQUIRE(bytes.len < out_bytes);
    memcpy(out, bytes.data, bytes.len);
    out[bytes.len] = '\0';
}

static struct found_method method_of(struct bytes message, const char *service)
{
    struct found_method method = { 0 };
    struct bytes bytes = { 0 };
    uint64_t number, value;
    char name[64] = "";

    while (take_field(&message, &number, &value, &bytes)) {
        if (number == 1)
            text_of(bytes, name, sizeof name);
        else if (number == 2) /* ".reelkv.v1.AskRequest" */
            text_of((struct bytes){ bytes.data + 1, bytes.len - 1 }, method.request, sizeof method.request);
        else if (number == 3)
            text_of((struct bytes){ bytes.data + 1, bytes.len - 1 }, method.reply, sizeof method.reply);
        else if (number == 5)
            method.client_streams = value != 0;
        else if (number == 6)
            method.server_streams = value != 0;
    }
    snprintf(method.path, sizeof method.path, "/reelkv.v1.%s/%s", service, name);
    return method;
}

static void check_method(const struct found_method *found)
{
    static const enum rpc_shape shapes[2][2] = { { RPC_UNARY, RPC_SERVER_STREAM },
                                                 { RPC_CLIENT_STREAM, RPC_BIDI } };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (strcmp(table[i]->path, found->path) != 0)
            continue;
        CHECK_STR(table[i]->request->name, found->request);
        CHECK_STR(table[i]->reply->name, found->reply);
        CHECK_EQ(table[i]->shape, shapes[found->client_streams][found->server_streams]);
        return;
    }
    test_fail(__FILE__, __LINE__, "%s is not in rpc/api.h", found->path);
}

static unsigned check_service(struct bytes service)
{
    struct bytes rest = service, bytes = { 0 };
    uint64_t number, value;
    unsigned methods = 0;
    char name[64] = "";

    while (name[0] == '\0' && take_field(&rest, &number, &value, &bytes))
        if (number == 1)
            text_of(bytes, name, sizeof name);
    while (take_field(&service, &number, &value, &bytes)) {
        if (number == 2) {
            struct found_method found = method_of(bytes, name);

            check_method(&found);
            methods++;
        }
    }
    return methods;
}

static unsigned check_file(struct bytes file)
{
    struct bytes bytes = { 0 };
    uint64_t number, value;
    unsigned methods = 0;
    bool ours = false;

    while (take_field(&file, &number, &value, &bytes)) {
        if (number == 2)
            ours = bytes.len == strlen("reelkv.v1") && memcmp(bytes.data, "reelkv.v1", bytes.len) == 0;
        else if (number == 6 && ours)
            methods += check_service(bytes);
    }
    return methods;
}

TEST(the_api_table_has_every_method_as_the_proto_files_say)
{
    struct bytes set = { reelkv_descriptor_set, (size_t)(reelkv_descriptor_set_end - reelkv_descriptor_set) };
    struct bytes bytes = { 0 };
    uint64_t number, value;
    unsigned methods = 0;

    while (take_field(&set, &number, &value, &bytes))
        methods += check_file(bytes);
    CHECK_EQ(methods, ARRAY_LEN(table));
}

/* lib/rpc stops the process over a payload path that does not lead to the last field of every message on the way. */
TEST(every_payload_path_ends_in_the_bytes_field_that_comes_last)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const ProtobufCMessageDescriptor *types[] = { table[i]->request, table[i]->reply };
        const struct rpc_payload_path *paths[] = { &table[i]->request_payload, &table[i]->reply_payload };

        for (size_t side = 0; side < 2; side++) {
            const ProtobufCMessageDescriptor *type = types[side];

            for (size_t at = 0; at < RPC_PAYLOAD_DEPTH && paths[side]->field[at] != 0; at++) {
                const ProtobufCFieldDescriptor *last = &type->fields[type->n_fields - 1];
                bool end = at + 1 == RPC_PAYLOAD_DEPTH || paths[side]->field[at + 1] == 0;

                CHECK_EQ(last->id, paths[side]->field[at]);
                CHECK_EQ(last->type, end ? PROTOBUF_C_TYPE_BYTES : PROTOBUF_C_TYPE_MESSAGE);
                type = last->descriptor;
            }
        }
    }
}

TEST_MAIN()
