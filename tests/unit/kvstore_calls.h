/* kvstore_calls.h - the handlers of a store in the test's own folder, asked as a client asks them and without gRPC
 * (fuzz/fuzz_call.h): what they reply is kept, to be looked at. */
#ifndef REELKV_TEST_KVSTORE_CALLS_H
#define REELKV_TEST_KVSTORE_CALLS_H

#include "fuzz/fuzz_call.h"
#include "kvstore/kvstore.h"
#include "kvstore/kvstore_watch.h"
#include "kvstore_faulty_disk.h"

struct calls {
    struct fixture fixture;
    struct kvstore kvstore;
    struct kvstore_options options;
    uint32_t open; /* calls */
};

enum { SAID_MAX = 512 };

/* Of the call that was made last. */
static struct said {
    ProtobufCMessage *replies[SAID_MAX];
    uint32_t count;
    uint64_t bytes; /* that followed replies */
    uint32_t crc;   /* of these */
    struct status end;
} said;

#define CALLS_HANDLER(name) (&(const struct rpc_handler){ &api_##name, kvstore_##name })

static void calls_saw(const ProtobufCMessage *message, const struct rpc_attachment *attachment)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(len + 1);

    CHECK(bytes != NULL && said.count < SAID_MAX);
    protobuf_c_message_pack(message, bytes);
    said.replies[said.count] = protobuf_c_message_unpack(message->descriptor, NULL, len, bytes);
    CHECK(said.replies[said.count++] != NULL);
    free(bytes);
    if (attachment == NULL)
        return;
    said.crc = kv_crc(said.crc, attachment->data, attachment->len);
    said.bytes += attachment->len;
}

static inline void calls_forget_said(void)
{
    for (uint32_t i = 0; i < said.count; i++)
        protobuf_c_message_free_unpacked(said.replies[i], NULL);
    said = (struct said){ 0 };
}

static inline void calls_open_store(struct calls *calls)
{
    fixture_open(&calls->fixture);
    calls->kvstore = (struct kvstore){ .options = &calls->options,
                                       .loop = calls->fixture.loop,
                                       .store = calls->fixture.store };
    CHECK_OK(kvstore_watches_create(&calls->kvstore.watches, &calls->kvstore, &calls->fixture.st),
             calls->fixture.st);
}

static inline void calls_close_store(struct calls *calls)
{
    calls_forget_said();
    kvstore_watches_destroy(calls->kvstore.watches);
    fixture_stop(&calls->fixture);
}

/* Small files (stream.json and its like) do not get their names: EIO, so many times, behind so many that do. */
static atomic_int calls_small_files_pass, calls_small_files_fail;

static int calls_rename(const char *from, const char *to)
{
    if (!is_beside(from) || atomic_fetch_sub(&calls_small_files_pass, 1) > 0 ||
        atomic_fetch_sub(&calls_small_files_fail, 1) <= 0)
        return fault_rename(from, to);
    errno = EIO;
    return -1;
}

static inline const struct file_ops *calls_disk(void)
{
    static struct file_ops disk;

    disk = *faulty_disk();
    disk.rename = calls_rename;
    calls_small_files_pass = calls_small_files_fail = 0;
    return &disk;
}

/* On the faulty disk, with nothing planned. */
static inline void calls_start(struct calls *calls)
{
    plan_fault(0, 0, 0, 0);
    memset(calls, 0, sizeof *calls);
    calls->options = (struct kvstore_options){
        .name = "kv-a", .disk_budget_bytes = 64 << 20, .append_wait_ms = 20, .sample_fps = 1
    };
    fixture_start(&calls->fixture);
    fixture_stop(&calls->fixture);
    calls->fixture.options.disk = calls_disk();
    calls_open_store(calls);
    fuzz_call_show(calls_saw);
}

/* --- a call with one request --- */

static inline struct rpc_call *calls_begin(struct calls *calls, const struct rpc_handler *handler,
                                           const ProtobufCMessage *request)
{
    size_t len = request == NULL ? 0 : protobuf_c_message_get_packed_size(request);
    uint8_t *bytes = malloc(len + 1);
    struct rpc_call *call;

    CHECK(bytes != NULL);
    calls_forget_said();
    if (request != NULL)
        protobuf_c_message_pack(request, bytes);
    call = fuzz_call_open(calls->fixture.loop, handler, &calls->kvstore, bytes, len);
    free(bytes);
    CHECK(call != NULL);
    calls->open++;
    return call;
}

/* It, and what was sent with its replies, is let go. */
static inline void calls_let_go(struct calls *calls, struct rpc_call *call)
{
    fuzz_call_let_go(call);
    calls->open--;
    FIXTURE_TURN_UNTIL(&calls->fixture, fuzz_calls_alive() == calls->open);
}

/* Lets it end. */
static inline enum status_code calls_end(struct calls *calls, struct rpc_call *call)
{
    FIXTURE_TURN_UNTIL(&calls->fixture, fuzz_call_is_over(call));
    said.end = *fuzz_call_end(call);
    calls_let_go(calls, call);
    return said.end.code;
}

static inline enum status_code calls_ask(struct calls *calls, const struct rpc_handler *handler,
                                         const ProtobufCMessage *request)
{
    return calls_end(calls, calls_begin(calls, handler, request));
}

#define CALLS_OK(calls, name, request)                                             \
    do {                                                                           \
        if (calls_ask(calls, CALLS_HANDLER(name), &(request)->base) != STATUS_OK)  \
            test_fail(__FILE__, __LINE__, "%s answers: %s", #name, said.end.text); \
    } while (0)

#define CALLS_REFUSED(calls, name, request, why, words)                         \
    do {                                                                        \
        CHECK_EQ(calls_ask(calls, CALLS_HANDLER(name), &(request)->base), why); \
        CHECK_HAS(said.end.text, words);                                        \
        CHECK_EQ(said.count, 0);                                                \
    } while (0)

/* --- a call with many --- */

static inline void calls_post(struct rpc_call *call, const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(len + 1);

    CHECK(bytes != NULL);
    protobuf_c_message_pack(message, bytes);
    CHECK(!fuzz_call_is_over(call));
    fuzz_call_send(call, bytes, len);
    free(bytes);
}

/* Sends it, and waits until the handler wants the next, or has ended. */
static inline void calls_send(struct calls *calls, struct rpc_call *call, const ProtobufCMessage *message)
{
    calls_post(call, message);
    FIXTURE_TURN_UNTIL(&calls->fixture, fuzz_call_is_idle(call));
}

/* The client has said everything. */
static inline enum status_code calls_finish(struct calls *calls, struct rpc_call *call)
{
    if (!fuzz_call_is_over(call))
        fuzz_call_half_close(call);
    return calls_end(calls, call);
}

/* --- messages that make sense, of stream default/cam-1 --- */

static Reelkv__V1__StreamId calls_id, *calls_ids[] = { &calls_id };
static uint8_t calls_print[KV_FINGERPRINT_BYTES];
static Reelkv__V1__View calls_view;
static Reelkv__V1__Selection calls_selection;
static Reelkv__V1__TimeRange calls_range;
static Reelkv__V1__Geometry calls_geometry;

static inline ProtobufCBinaryData calls_fingerprint(void)
{
    return (ProtobufCBinaryData){ sizeof calls_print, calls_print };
}

static inline ProtobufCBinaryData calls_query(void)
{
    static float query[32]; /* of zeros: all keys are as near */

    return (ProtobufCBinaryData){ sizeof query, (uint8_t *)query };
}

static inline void calls_messages(void)
{
    calls_id = (Reelkv__V1__StreamId)REELKV__V1__STREAM_ID__INIT;
    calls_id.namespace_ = (char *)"default";
    calls_id.name = (char *)"cam-1";
    memset(calls_print, 7, sizeof calls_print); /* as the fixture's */
    calls_view = (Reelkv__V1__View)REELKV__V1__VIEW__INIT;
    calls_view.streams = calls_ids;
    calls_view.n_streams = 1;
    calls_view.fingerprint = calls_fingerprint();
    calls_selection = (Reelkv__V1__Selection)REELKV__V1__SELECTION__INIT;
    calls_selection.kind = REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_REKV;
    calls_selection.top_r = 2;
    calls_range = (Reelkv__V1__TimeRange)REELKV__V1__TIME_RANGE__INIT;
    calls_geometry = (Reelkv__V1__Geometry)REELKV__V1__GEOMETRY__INIT;
    calls_geometry.layers = fixture_geometry.layers;
    calls_geometry.kv_heads = fixture_geometry.kv_heads;
    calls_geometry.head_dim = fixture_geometry.head_dim;
    calls_geometry.dtype = (Reelkv__V1__Dtype)fixture_geometry.dtype;
}

#endif
