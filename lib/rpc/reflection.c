#include "rpc/reflection.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "rpc/descriptor_index.h"

/* Made by reelkv_descriptor_set() of cmake/reelkv_protobuf_c.cmake. */
extern const uint8_t reelkv_descriptor_set[], reelkv_descriptor_set_end[];

enum { VERSIONS = 2 };

struct stream {
    struct stream *next, **link;
    struct rpc_call *call;
    struct reflection *reflection;
};

struct reflection {
    struct descriptor_index *index;
    struct rpc_handler handlers[VERSIONS];
    struct rpc_service services[VERSIONS];
    const char *names[RPC_SERVICES + 1 + VERSIONS]; /* of all services here */
    size_t name_count;
    struct stream *streams;
};

/* The two versions differ in name only; their messages are the same on the wire. */
static const struct rpc_method methods[VERSIONS] = {
    {
        .path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        .shape = RPC_BIDI,
        .request = &grpc__reflection__v1__server_reflection_request__descriptor,
        .reply = &grpc__reflection__v1__server_reflection_response__descriptor,
    },
    {
        .path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        .shape = RPC_BIDI,
        .request = &grpc__reflection__v1__server_reflection_request__descriptor,
        .reply = &grpc__reflection__v1__server_reflection_response__descriptor,
    },
};

static void asked(struct rpc_call *call, const struct rpc_message *message, void *user);

/* A client that does not read its answers is not asked for more questions: on_writable comes here again. */
static void read_next(struct rpc_call *call, void *user)
{
    if (rpc_call_can_write(call))
        rpc_call_read(call, asked);
}

static void send(struct stream *stream, Grpc__Reflection__V1__ServerReflectionResponse *reply,
                 const Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    reply->valid_host = request->host;
    reply->original_request = (Grpc__Reflection__V1__ServerReflectionRequest *)request;
    rpc_call_write(stream->call, &reply->base, NULL); /* there is room: read_next() saw to it */
    read_next(stream->call, stream);
}

static void send_error(struct stream *stream, const Grpc__Reflection__V1__ServerReflectionRequest *request,
                       enum status_code code, const char *text)
{
    Grpc__Reflection__V1__ServerReflectionResponse reply =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

    error.error_code = (int32_t)code;
    error.error_message = (char *)text;
    reply.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    reply.error_response = &error;
    send(stream, &reply, request);
}

static void send_services(struct stream *stream, const Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    const struct reflection *reflection = stream->reflection;
    Grpc__Reflection__V1__ServerReflectionResponse reply =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ListServiceResponse list = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse rows[ARRAY_LEN(reflection->names)];
    Grpc__Reflection__V1__ServiceResponse *pointers[ARRAY_LEN(reflection->names)];

    for (size_t i = 0; i < reflection->name_count; i++) {
        grpc__reflection__v1__service_response__init(&rows[i]);
        rows[i].name = (char *)reflection->names[i];
        pointers[i] = &rows[i];
    }
    list.service = pointers;
    list.n_service = reflection->name_count;
    reply.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    reply.list_services_response = &list;
    send(stream, &reply, request);
}

static void send_file(struct stream *stream, const Grpc__Reflection__V1__ServerReflectionRequest *request,
                      const struct descriptor_file *file)
{
    Grpc__Reflection__V1__ServerReflectionResponse reply =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__FileDescriptorResponse files = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    const struct descriptor_file *closure[DESCRIPTOR_FILES];
    ProtobufCBinaryData raw[DESCRIPTOR_FILES];

    if (file == NULL) {
        send_error(stream, request, STATUS_NOT_FOUND, "no such file or symbol here");
        return;
    }
    files.n_file_descriptor_proto = descriptor_file_closure(stream->reflection->index, file, closure);
    files.file_descriptor_proto = raw;
    for (size_t i = 0; i < files.n_file_descriptor_proto; i++)
        raw[i] = (ProtobufCBinaryData){ closure[i]->raw.len, (uint8_t *)closure[i]->raw.data };
    reply.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    reply.file_descriptor_response = &files;
    send(stream, &reply, request);
}

/* No file here extends another's messages: every known type has the empty list. */
static void send_extensions(struct stream *stream,
                            const Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    Grpc__Reflection__V1__ServerReflectionResponse reply =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ExtensionNumberResponse numbers =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;

    if (descriptor_file_with_symbol(stream->reflection->index, request->all_extension_numbers_of_type) ==
        NULL) {
        send_error(stream, request, STATUS_NOT_FOUND, "no such type here");
        return;
    }
    numbers.base_type_name = request->all_extension_numbers_of_type;
    reply.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    reply.all_extension_numbers_response = &numbers;
    send(stream, &reply, request);
}

static void asked(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct stream *stream = user;
    const struct descriptor_index *index = stream->reflection->index;
    const Grpc__Reflection__V1__ServerReflectionRequest *request;

    if (message == NULL) {
        rpc_call_finish(call, NULL);
        return;
    }
    request = (const Grpc__Reflection__V1__ServerReflectionRequest *)message->body;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        send_file(stream, request,
                  descriptor_file_named(index, (struct bytes){ (const uint8_t *)request->file_by_filename,
                                                               strlen(request->file_by_filename) }));
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        send_file(stream, request, descriptor_file_with_symbol(index, request->file_containing_symbol));
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        send_error(stream, request, STATUS_NOT_FOUND, "no extensions here");
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        send_extensions(stream, request);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        send_services(stream, request);
        break;
    default:
        send_error(stream, request, STATUS_INVALID, "the request asks for nothing that is known here");
    }
}

static void ended(struct rpc_call *call, void *user)
{
    struct stream *stream = user;

    *stream->link = stream->next;
    if (stream->next != NULL)
        stream->next->link = stream->link;
}

static void opened(struct rpc_call *call, void *state)
{
    struct reflection *reflection = state;
    struct stream *stream = arena_alloc(rpc_call_arena(call), sizeof *stream);

    REQUIRE(stream != NULL); /* a new call's arena is empty */
    stream->call = call;
    stream->reflection = reflection;
    stream->next = reflection->streams;
    stream->link = &reflection->streams;
    if (stream->next != NULL)
        stream->next->link = &stream->next;
    reflection->streams = stream;
    rpc_call_set_user(call, stream);
    rpc_call_on_end(call, ended);
    rpc_call_on_writable(call, read_next);
    read_next(call, stream);
}

bool reflection_create(struct reflection **reflection_p, const struct rpc_service *services, size_t count,
                       struct status *st)
{
    struct reflection *reflection = calloc(1, sizeof *reflection);
    struct bytes set = { reelkv_descriptor_set, (size_t)(reelkv_descriptor_set_end - reelkv_descriptor_set) };

    REQUIRE(count <= RPC_SERVICES);
    if (reflection == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a server's reflection");
    if (!descriptor_index_create(&reflection->index, set, st)) {
        free(reflection);
        return status_wrap(st, "reflection");
    }
    for (size_t i = 0; i < VERSIONS; i++) {
        reflection->handlers[i] = (struct rpc_handler){ &methods[i], opened };
        reflection->services[i].handlers = &reflection->handlers[i];
        reflection->services[i].handler_count = 1;
        reflection->services[i].state = reflection;
    }
    reflection->services[0].name = "grpc.reflection.v1.ServerReflection";
    reflection->services[1].name = "grpc.reflection.v1alpha.ServerReflection";
    for (size_t i = 0; i < count; i++)
        reflection->names[reflection->name_count++] = services[i].name;
    reflection->names[reflection->name_count++] = "grpc.health.v1.Health";
    for (size_t i = 0; i < VERSIONS; i++)
        reflection->names[reflection->name_count++] = reflection->services[i].name;
    *reflection_p = reflection;
    return true;
}

void reflection_destroy(struct reflection *reflection)
{
    if (reflection == NULL)
        return;
    REQUIRE(reflection->streams == NULL);
    descriptor_index_destroy(reflection->index);
    free(reflection);
}

const struct rpc_service *reflection_services(struct reflection *reflection)
{
    return reflection->services;
}

void reflection_end_streams(struct reflection *reflection)
{
    struct status st = { 0 };

    status_fail(&st, STATUS_UNAVAILABLE, "the server is going away");
    for (struct stream *stream = reflection->streams; stream != NULL; stream = stream->next)
        rpc_call_finish(stream->call, &st);
}
