/* Memory that is short where nobody can be told at once: on the threads that read, and in the middle of what is written. It is
 * never taken for damage, and what was begun is whole or nothing. */
#include "kvstore_call_memory.h"

/* Threads that read are short of it too: what they cannot read now is UNAVAILABLE, and never damage. */
TEST(call_memory_that_is_short_is_not_taken_for_damage)
{
    deed_fn *const deeds[] = { score, fetch, retrieve, export, window };

    start();
    memory.on_any_thread = true;
    for (size_t i = 0; i < ARRAY_LEN(deeds); i++) {
        bool was_refused = true;

        for (uint32_t n = 1; was_refused; n++) {
            enum status_code code;

            drop_copies(FRAMES);
            memory.left = n;
            memory.has_refused = false;
            code = deeds[i]();
            memory.is_armed = false;
            was_refused = memory.has_refused;
            if (code != STATUS_OK && code != STATUS_EXHAUSTED && code != STATUS_UNAVAILABLE &&
                code != STATUS_ABORTED)
                test_fail(__FILE__, __LINE__, "without allocation %u: %s", n, said.end.text);
            CHECK_EQ(calls.fixture.store->quarantined_frames, 0);
        }
    }
    drop_copies(FRAMES);
    fixture_check_all(&calls.fixture, stream, 0, FRAMES);
    calls_close_store(&calls);
}

/* --- what is written --- */

static uint8_t payload[8192];

static bool send_frame(struct rpc_call *call, uint64_t seq)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;

    block.seq = seq;
    block.pts_ns = fixture_pts(seq);
    block.tokens = FIXTURE_TOKENS;
    block.token_index = 5 + seq * FIXTURE_TOKENS;
    block.payload_bytes = kv_payload_bytes(&fixture_geometry, FIXTURE_TOKENS);
    CHECK(block.payload_bytes <= sizeof payload);
    fixture_fill("cam-2", seq, 0, payload, block.payload_bytes);
    block.payload_crc32c = kv_crc(0, payload, block.payload_bytes);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BLOCK;
    request.block = &block;
    if (!send_if_asked(call, &request.base))
        return false;
    chunk.data = (ProtobufCBinaryData){ block.payload_bytes, payload };
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    return send_if_asked(call, &request.base);
}

/* A stream of two frames, a gap and an end, from elsewhere. */
static enum status_code import(void)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin_import = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__ExportHead head = REELKV__V1__EXPORT_HEAD__INIT;
    Reelkv__V1__StreamDefinition made = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId other = REELKV__V1__STREAM_ID__INIT;
    Reelkv__V1__AppendGap gap = REELKV__V1__APPEND_GAP__INIT;
    Reelkv__V1__AppendEnd end = REELKV__V1__APPEND_END__INIT;
    struct rpc_call *call = begin(CALLS_HANDLER(append), NULL);
    enum status_code code;

    other.namespace_ = (char *)"default";
    other.name = (char *)"cam-2";
    made.id = begin_import.id = &other;
    made.source = (char *)"rtsp://cam/2";
    made.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE;
    head.definition = &made;
    head.fingerprint = calls_fingerprint();
    head.geometry = &calls_geometry;
    begin_import.import = &head;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin_import;
    if (send_if_asked(call, &request.base) && send_frame(call, 0) && send_frame(call, 1)) {
        gap.from_seq = 2;
        gap.to_seq = 4;
        gap.reason = (char *)"away";
        request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_GAP;
        request.gap = &gap;
        if (send_if_asked(call, &request.base)) {
            request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
            request.end = &end;
            send_if_asked(call, &request.base);
        }
    }
    code = calls_finish(&calls, call);
    memory.is_armed = false;
    if (code != STATUS_OK)
        FIXTURE_TURN_UNTIL(&calls.fixture, calls.fixture.store->stream_count == 1);
    return code;
}

/* How many acks there are is a matter of time. */
TEST(call_memory_of_an_import)
{
    uint32_t n, refused = 0;

    start();
    memory.has_refused = true;
    for (n = 1; memory.has_refused; n++) {
        enum status_code code;

        memory.left = n;
        memory.has_refused = false;
        code = import();
        memory.left = 0;
        CHECK(code == STATUS_OK || (memory.has_refused && code == STATUS_EXHAUSTED));
        refused += code != STATUS_OK;
        if (code != STATUS_OK)
            continue;
        CHECK_EQ(store_find(calls.fixture.store, "default", "cam-2")->next_seq, 4);
        for (uint64_t seq = 0; seq < 2; seq++)
            CHECK_EQ(fixture_read_layer(&calls.fixture, store_find(calls.fixture.store, "default", "cam-2"),
                                        seq, 0),
                     FRAME_OK);
        fixture_remove(&calls.fixture, store_find(calls.fixture.store, "default", "cam-2"));
    }
    CHECK(refused > 5);
    calls_close_store(&calls);
}

TEST_MAIN()
