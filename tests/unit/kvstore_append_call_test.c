/* A writer that says what makes no sense, or for which there is no room, is told so; what it had stored stays, and the next
 * one goes on from there. */
#include "kvstore_calls.h"

static struct calls calls;
static struct stream *stream;
static Reelkv__V1__AppendRequest message;
static uint8_t payload[64 << 10];

static void start(void)
{
    calls_start(&calls);
    calls_messages();
    stream = fixture_define(&calls.fixture, "cam-1");
}

static struct rpc_call *begin(void)
{
    struct rpc_call *call = calls_begin(&calls, CALLS_HANDLER(append), NULL);
    Reelkv__V1__AppendBegin begin = REELKV__V1__APPEND_BEGIN__INIT;

    CHECK_OK(fixture_take(&calls.fixture, stream, &calls.fixture.st), calls.fixture.st);
    begin.id = &calls_id;
    begin.epoch = stream->epoch;
    message = (Reelkv__V1__AppendRequest)REELKV__V1__APPEND_REQUEST__INIT;
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    message.begin = &begin;
    calls_send(&calls, call, &message.base);
    CHECK(!fuzz_call_is_over(call));
    return call;
}

static void send_chunk(struct rpc_call *call, size_t len)
{
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;

    chunk.data = (ProtobufCBinaryData){ len, payload };
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    message.chunk = &chunk;
    calls_send(&calls, call, &message.base);
}

static Reelkv__V1__Block next_block(void)
{
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;

    block.seq = stream->next_seq;
    block.pts_ns = fixture_pts(block.seq);
    block.tokens = FIXTURE_TOKENS;
    block.token_index = stream->next_token_index;
    block.payload_bytes = kv_payload_bytes(&stream->geometry, FIXTURE_TOKENS);
    fixture_fill("cam-1", block.seq, 0, payload, kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS));
    block.payload_crc32c = kv_crc(0, payload, kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS));
    return block;
}

static void send_block(struct rpc_call *call, Reelkv__V1__Block *block)
{
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    message.block = block;
    calls_send(&calls, call, &message.base);
}

static void send_frame(struct rpc_call *call)
{
    Reelkv__V1__Block block = next_block();

    send_block(call, &block);
    send_chunk(call, block.payload_bytes);
}

static void ended(struct rpc_call *call, enum status_code code, const char *words)
{
    CHECK_EQ(calls_end(&calls, call), code);
    CHECK_HAS(said.end.text, words);
}

TEST(append_of_messages_in_the_wrong_order_is_refused)
{
    Reelkv__V1__Block block;
    struct rpc_call *call;

    start();
    call = calls_begin(&calls, CALLS_HANDLER(append), NULL);
    message = (Reelkv__V1__AppendRequest)REELKV__V1__APPEND_REQUEST__INIT;
    send_chunk(call, 8);
    ended(call, STATUS_INVALID, "Begin comes first, and once");
    call = begin();
    send_frame(call);
    calls_send(&calls, call, &(Reelkv__V1__AppendRequest)REELKV__V1__APPEND_REQUEST__INIT.base);
    ended(call, STATUS_INVALID, "an item that this version does not know");
    call = begin();
    send_chunk(call, 8);
    ended(call, STATUS_INVALID, "a chunk without a block");
    call = begin();
    block = next_block();
    send_block(call, &block);
    send_block(call, &block);
    ended(call, STATUS_INVALID, "chunks of the block before are missing");
    call = begin();
    block = next_block();
    send_block(call, &block);
    send_chunk(call, block.payload_bytes - 8);
    send_chunk(call, 16);
    ended(call, STATUS_INVALID, "a chunk of 16 bytes, 8 were to come");
    call = begin();
    send_block(call, &block);
    CHECK_EQ(calls_finish(&calls, call), STATUS_INVALID);
    CHECK_HAS(said.end.text, "the writer ended in the middle of a block");
    call = calls_begin(&calls, CALLS_HANDLER(append), NULL);
    CHECK_EQ(calls_finish(&calls, call), STATUS_OK); /* nothing was said */
    CHECK_EQ(stream->next_seq, 1);
    CHECK_EQ(fixture_read_layer(&calls.fixture, stream, 0, 2), FRAME_OK);
    calls_close_store(&calls);
}

/* Its bytes are asked for and dropped: the writer may not know that they came. */
TEST(append_of_a_block_that_is_there_changes_nothing)
{
    Reelkv__V1__Block block;
    struct rpc_call *call;

    start();
    call = begin();
    block = next_block();
    send_frame(call);
    memset(payload, 0, sizeof payload);
    send_block(call, &block);
    send_chunk(call, block.payload_bytes / 2);
    send_chunk(call, block.payload_bytes / 2);
    CHECK_EQ(calls_finish(&calls, call), STATUS_OK);
    CHECK_EQ(stream->next_seq, 1);
    CHECK_EQ(fixture_read_layer(&calls.fixture, stream, 0, 0), FRAME_OK);
    calls_close_store(&calls);
}

TEST(append_of_bytes_that_are_not_what_the_writer_said_is_refused)
{
    Reelkv__V1__Block block;
    struct rpc_call *call;

    start();
    call = begin();
    block = next_block();
    payload[100] ^= 1;
    send_block(call, &block);
    send_chunk(call, block.payload_bytes);
    ended(call, STATUS_DATA_LOSS, "its checksum is");
    CHECK_EQ(stream->next_seq, 0);
    calls_close_store(&calls);
}

/* A block that no RAM of this store, and one that no file, could ever take. */
TEST(append_of_a_block_that_is_too_large_is_refused)
{
    Reelkv__V1__OpenStreamRequest take = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin_large = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__Block block;
    struct rpc_call *call;

    start();
    calls_geometry.layers = LIMIT_LAYERS;
    calls_geometry.kv_heads = 32;
    calls_geometry.head_dim = 128;
    take.id = begin_large.id = &calls_id;
    take.geometry = &calls_geometry;
    take.fingerprint = calls_fingerprint();
    take.writer = (char *)"w";
    for (unsigned i = 0; i < 2; i++) {
        CALLS_OK(&calls, open_stream, &take);
        call = calls_begin(&calls, CALLS_HANDLER(append), NULL);
        begin_large.epoch = stream->epoch;
        message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
        message.begin = &begin_large;
        calls_send(&calls, call, &message.base);
        block = next_block();
        block.tokens = i == 0 ? 8 : LIMIT_FRAME_TOKENS;
        block.payload_bytes = kv_payload_bytes(&stream->geometry, block.tokens);
        send_block(call, &block);
        if (i == 0)
            ended(call, STATUS_PRECONDITION, "ram_budget_bytes takes blocks up to");
        else
            ended(call, STATUS_INVALID, "at most 2 GiB");
    }
    calls_close_store(&calls);
}

/* No number is left behind the last one. */
TEST(append_behind_the_last_number_is_refused)
{
    Reelkv__V1__AppendGap gap = REELKV__V1__APPEND_GAP__INIT;
    Reelkv__V1__Block block;
    struct rpc_call *call;

    start();
    call = begin();
    block = next_block();
    block.seq = STREAM_NUMBER_MAX;
    gap.to_seq = STREAM_NUMBER_MAX;
    gap.to_pts_ns = 5;
    gap.reason = (char *)"away";
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
    message.gap = &gap;
    calls_send(&calls, call, &message.base);
    send_block(call, &block);
    ended(call, STATUS_INVALID, "a stream has no more numbers than");
    calls_close_store(&calls);
}

/* All of the arena is held: the block waits append_wait_ms, and goes on at once when something is given back. */
TEST(append_waits_for_room_and_no_longer_than_it_may)
{
    struct ram_arena *arena;
    struct ram_slot *slots[64], *slot;
    Reelkv__V1__Block block;
    struct rpc_call *call;
    uint32_t count = 0;

    start();
    arena = calls.fixture.store->arena;
    call = begin();
    for (uint64_t bytes = ram_slot_bytes_max(arena, RAM_IMAGES); bytes >= 4096; bytes /= 2)
        while ((slot = ram_take(arena, RAM_IMAGES, bytes)) != NULL) {
            CHECK(count < ARRAY_LEN(slots));
            slots[count++] = slot;
        }
    block = next_block();
    send_block(call, &block);
    CHECK_EQ(calls_end(&calls, call), STATUS_EXHAUSTED);
    CHECK_HAS(said.end.text, "has no room for a block now: its disk is behind");
    CHECK(said.end.retry_after_ms > 0);
    calls.options.append_wait_ms = 60000;
    call = begin();
    block = next_block();
    message.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    message.block = &block;
    calls_post(call, &message.base);
    CHECK(!fuzz_call_is_idle(call)); /* it waits */
    while (count > 0)
        ram_unref(arena, slots[--count]);
    store_ram_freed(calls.fixture.store);
    FIXTURE_TURN_UNTIL(&calls.fixture, fuzz_call_is_idle(call));
    send_chunk(call, block.payload_bytes);
    CHECK_EQ(calls_finish(&calls, call), STATUS_OK);
    CHECK_EQ(stream->next_seq, 1);
    CHECK_EQ(fixture_read_layer(&calls.fixture, stream, 0, 0), FRAME_OK);
    calls_close_store(&calls);
}

TEST_MAIN()
