/* An import is seen by all when it has ended well, and by nobody before: whatever ends it otherwise, the name is free
 * again, here and after a restart. */
#include "kvstore_calls.h"

static struct calls calls;
static Reelkv__V1__AppendRequest message;
static Reelkv__V1__AppendBegin begin;
static Reelkv__V1__ExportHead head;
static Reelkv__V1__StreamDefinition definition;
static Reelkv__V1__ExportGone gone[2], *gone_list[] = { &gone[0], &gone[1] };

/* A head of a stream whose first ten numbers have gone. */
static void start(void)
{
    calls_start(&calls);
    calls_messages();
    message = (Reelkv__V1__AppendRequest)REELKV__V1__APPEND_REQUEST__INIT;
    begin = (Reelkv__V1__AppendBegin)REELKV__V1__APPEND_BEGIN__INIT;
    head = (Reelkv__V1__ExportHead)REELKV__V1__EXPORT_HEAD__INIT;
    definition = (Reelkv__V1__StreamDefinition)REELKV__V1__STREAM_DEFINITION__INIT;
    for (size_t i = 0; i < ARRAY_LEN(gone); i++)
        gone[i] = (Reelkv__V1__ExportGone)REELKV__V1__EXPORT_GONE__INIT;
    gone[0].to_seq = 6;
    gone[0].frames = 6;
    gone[1].from_seq = 6;
    gone[1].to_seq = 10;
    definition.id = begin.id = &calls_id;
    definition.source = (char *)"rtsp://cam/1";
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    head.definition = &definition;
    head.fingerprint = calls_fingerprint();
    head.geometry = &calls_geometry;
    head.gone = gone_list;
    head.n_gone = ARRAY_LEN(gone);
    head.first_seq = 10;
    begin.import = &head;
}

static struct rpc_call *send_begin(void)
{
    struct rpc_call *call = calls_begin(&calls, CALLS_HANDLER(append), NULL);

    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    message.begin = &begin;
    calls_send(&calls, call, &message.base);
    return call;
}

static void send_frame(struct rpc_call *call, uint64_t seq)
{
    uint64_t bytes = kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS);
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    uint8_t *payload = malloc(bytes);

    CHECK(payload != NULL);
    fixture_fill("cam-1", seq, 0, payload, bytes);
    block.seq = seq;
    block.pts_ns = fixture_pts(seq);
    block.tokens = FIXTURE_TOKENS;
    block.token_index = seq * FIXTURE_TOKENS;
    block.payload_bytes = bytes;
    block.payload_crc32c = kv_crc(0, payload, bytes);
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    message.block = &block;
    calls_send(&calls, call, &message.base);
    chunk.data = (ProtobufCBinaryData){ bytes, payload };
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    message.chunk = &chunk;
    calls_send(&calls, call, &message.base);
    free(payload);
}

static void send_end(struct rpc_call *call)
{
    Reelkv__V1__AppendEnd end = REELKV__V1__APPEND_END__INIT;

    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
    message.end = &end;
    calls_send(&calls, call, &message.base);
}

static void check_nothing_there(void)
{
    CHECK(store_find(calls.fixture.store, "default", "cam-1") == NULL);
    FIXTURE_TURN_UNTIL(&calls.fixture, calls.fixture.store->stream_count == 0);
    calls_close_store(&calls);
    calls_open_store(&calls);
    CHECK_EQ(calls.fixture.store->stream_count, 0);
}

static void refused(enum status_code code, const char *words)
{
    CHECK_EQ(calls_end(&calls, send_begin()), code);
    CHECK_HAS(said.end.text, words);
}

TEST(import_whose_head_makes_no_sense_is_refused)
{
    start();
    head.definition = NULL;
    refused(STATUS_INVALID, "no definition");
    head.definition = &definition;
    head.fingerprint.len = 2;
    refused(STATUS_INVALID, "fingerprint has 2 bytes");
    head.fingerprint = calls_fingerprint();
    head.geometry = NULL;
    refused(STATUS_INVALID, "it has no geometry");
    head.geometry = &calls_geometry;
    calls_geometry.head_dim = 0;
    refused(STATUS_INVALID, "head");
    calls_geometry.head_dim = fixture_geometry.head_dim;
    begin.epoch = 1;
    refused(STATUS_INVALID, "and it has no epoch");
    begin.epoch = 0;
    begin.shm_pool = 4;
    refused(STATUS_INVALID, "its blocks come in chunks");
    begin.shm_pool = 0;
    begin.id = NULL;
    refused(STATUS_INVALID, "names no stream");
    begin.id = &calls_id;
    head.bytes = UINT64_MAX;
    refused(STATUS_EXHAUSTED, "an import removes nothing of other streams");
    head.bytes = calls.fixture.store->options.disk_bytes - 1000;
    refused(STATUS_EXHAUSTED, "an import removes nothing of other streams");
    check_nothing_there();
    calls_close_store(&calls);
}

TEST(import_whose_first_numbers_have_holes_is_refused)
{
    start();
    gone[1].from_seq = 7;
    refused(STATUS_INVALID, "what has gone before its first number has holes");
    gone[1].from_seq = 6;
    gone[1].to_seq = 6;
    refused(STATUS_INVALID, "what has gone before its first number has holes");
    gone[1].to_seq = 10;
    gone[1].frames = 5;
    refused(STATUS_INVALID, "what has gone before its first number has holes");
    gone[1].frames = 4;
    head.first_seq = 11;
    refused(STATUS_INVALID, "it begins with number 11, and numbers before it are told up to 10");
    gone[1].to_seq = head.first_seq = STREAM_NUMBER_MAX;
    refused(STATUS_INVALID, "it begins with number");
    check_nothing_there();
    calls_close_store(&calls);
}

/* Not even its name, until its end is on the disk; then every byte of it, and where it began. */
TEST(import_is_seen_when_it_is_whole)
{
    struct rpc_call *call;
    struct stream *stream;

    start();
    call = send_begin();
    for (uint64_t seq = 10; seq < 14; seq++)
        send_frame(call, seq);
    CHECK(store_find(calls.fixture.store, "default", "cam-1") == NULL);
    send_end(call);
    CHECK_EQ(calls_finish(&calls, call), STATUS_OK);
    for (unsigned round = 0; round < 2; round++) {
        stream = store_find(calls.fixture.store, "default", "cam-1");
        CHECK(stream != NULL && stream->has_ended);
        CHECK_EQ(stream->next_seq, 14);
        CHECK_EQ(fixture_read_layer(&calls.fixture, stream, 5, 0), FRAME_EVICTED);
        for (uint64_t seq = 10; seq < 14; seq++)
            CHECK_EQ(fixture_read_layer(&calls.fixture, stream, seq, 1), FRAME_OK);
        calls_close_store(&calls);
        calls_open_store(&calls);
        fixture_wait_keys(&calls.fixture);
    }
    refused(STATUS_EXISTS, "exists already");
    calls_close_store(&calls);
}

TEST(import_without_an_end_leaves_nothing)
{
    struct rpc_call *call;

    start();
    call = send_begin();
    send_frame(call, 10);
    CHECK_EQ(calls_finish(&calls, call), STATUS_INVALID);
    CHECK_HAS(said.end.text, "it has no end");
    check_nothing_there();
    calls_close_store(&calls);
}

/* The one before failed, and is still being removed: its name was taken for good, as it was said. */
TEST(import_that_comes_early_is_to_come_again)
{
    struct rpc_call *call;
    struct stream *stream;

    start();
    call = send_begin();
    send_frame(call, 10);
    stream = calls.fixture.store->streams;
    CHECK(stream->is_importing && stream->segment_count == 1);
    stream->segments[0]->reads++; /* its file stays for now */
    CHECK_EQ(calls_finish(&calls, call), STATUS_INVALID);
    refused(STATUS_ABORTED, "is still being removed");
    CHECK(said.end.retry_after_ms > 0);
    stream->segments[0]->reads--;
    stream_continue_deletion(stream);
    FIXTURE_TURN_UNTIL(&calls.fixture, calls.fixture.store->stream_count == 0);
    call = send_begin();
    send_frame(call, 10);
    send_end(call);
    CHECK_EQ(calls_finish(&calls, call), STATUS_OK);
    calls_close_store(&calls);
}

TEST(import_whose_caller_leaves_leaves_nothing)
{
    struct rpc_call *call;

    start();
    call = send_begin();
    send_frame(call, 10);
    calls_let_go(&calls, call);
    check_nothing_there();
    call = calls_begin(&calls, CALLS_HANDLER(append), NULL); /* before it has been made */
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    message.begin = &begin;
    calls_post(call, &message.base);
    calls_let_go(&calls, call);
    check_nothing_there();
    calls_close_store(&calls);
}

/* Its first file, or that it is whole. */
TEST(import_that_the_disk_does_not_take_leaves_nothing)
{
    struct rpc_call *call;

    start();
    calls_small_files_fail = 1000;
    refused(status_code_of_errno(EIO), "Input/output error");
    calls_small_files_fail = 0;
    check_nothing_there();
    call = send_begin();
    send_frame(call, 10);
    send_end(call);
    calls_small_files_fail = 1000;
    CHECK_EQ(calls_finish(&calls, call), status_code_of_errno(EIO));
    calls_small_files_fail = 0;
    check_nothing_there();
    calls_close_store(&calls);
}

TEST_MAIN()
