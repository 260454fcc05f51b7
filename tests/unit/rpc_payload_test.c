#include "rpc/payload.h"

#include <stdlib.h>

#include "base/limits.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "support/test.h"

static const struct rpc_payload_path no_payload;
static const struct rpc_payload_path inner = { { 15, 15 } };
static const struct rpc_payload_path outer = { { 15 } };

static uint8_t *pattern(size_t len)
{
    uint8_t *data = malloc(len + 1);

    REQUIRE(data != NULL);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 37 + (i >> 8));
    return data;
}

/* Head and payload as one block of bytes, as they stand on the wire. */
static uint8_t *on_the_wire(const ProtobufCMessage *message, const struct rpc_payload_path *path,
                            const uint8_t *payload, size_t len, size_t *total_p)
{
    size_t head = payload_head_bytes(message, path, len);
    uint8_t *wire = malloc(head + len + 1);

    REQUIRE(wire != NULL);
    payload_write_head(message, path, len, wire, head);
    memcpy(wire + head, payload, len);
    *total_p = head + len;
    return wire;
}

static Reelkv__V1__IngestFrame frame_of_test(void)
{
    Reelkv__V1__IngestFrame frame = REELKV__V1__INGEST_FRAME__INIT;

    frame.seq = 1234567890123;
    frame.pts_ns = -5;
    frame.tokens = 196;
    frame.hidden = 896;
    frame.thumbnail = (ProtobufCBinaryData){ 9, (uint8_t *)"thumbnail" };
    return frame;
}

/* A stock reader sees the very message that stock code would have written: compare with protobuf-c's own packing,
 * for sizes on both sides of every length of a varint. */
TEST(what_is_sent_is_what_plain_packing_would_send)
{
    static const size_t sizes[] = { 1, 2, 80, 100, 127, 128, 129, 16000, 16383, 16384, 2097151, 2097152 };

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        Reelkv__V1__IngestFrame frame = frame_of_test();
        Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
        uint8_t *payload = pattern(sizes[i]), *wire, *plain;
        size_t total;

        request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_FRAME;
        request.frame = &frame;
        wire = on_the_wire(&request.base, &inner, payload, sizes[i], &total);
        frame.embeddings = (ProtobufCBinaryData){ sizes[i], payload };
        CHECK_EQ(total, reelkv__v1__push_request__get_packed_size(&request));
        plain = malloc(total);
        REQUIRE(plain != NULL);
        reelkv__v1__push_request__pack(&request, plain);
        CHECK_MEM(wire, plain, total);
        free(plain);
        free(wire);
        free(payload);
    }
}

static struct arena arena;

static bool unpack(const ProtobufCMessageDescriptor *type, const struct rpc_payload_path *path,
                   const struct bytes *pieces, uint32_t count, struct rpc_message *message, struct status *st)
{
    arena_reset(&arena);
    arena.limit_bytes = LIMIT_CALL_BYTES;
    return payload_unpack(type, path, pieces, count, &arena, message, st);
}

/* The wire cut into pieces of every size from 1 byte to the whole: head and payload come out the same. */
TEST(a_message_cut_anywhere_reads_the_same)
{
    Reelkv__V1__IngestFrame frame = frame_of_test();
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    uint8_t *payload = pattern(300), *wire;
    struct bytes pieces[600];
    size_t total;

    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_FRAME;
    request.frame = &frame;
    wire = on_the_wire(&request.base, &inner, payload, 300, &total);
    for (size_t step = 1; step <= total; step++) {
        const Reelkv__V1__PushRequest *got;
        struct rpc_message message;
        struct status st = { 0 };
        uint8_t copy[300];
        uint32_t count = 0;

        for (size_t at = 0; at < total; at += step)
            pieces[count++] = (struct bytes){ wire + at, total - at < step ? total - at : step };
        CHECK_OK(unpack(request.base.descriptor, &inner, pieces, count, &message, &st), st);
        got = (const Reelkv__V1__PushRequest *)message.body;
        CHECK_EQ(got->item_case, REELKV__V1__PUSH_REQUEST__ITEM_FRAME);
        CHECK_EQ(got->frame->seq, 1234567890123);
        CHECK_EQ(got->frame->pts_ns, -5);
        CHECK_EQ(got->frame->thumbnail.len, 9);
        CHECK_EQ(got->frame->embeddings.len, 0);
        CHECK(message.payload.present);
        CHECK_EQ(message.payload.len, 300);
        rpc_payload_copy(&message.payload, 0, copy, 300);
        CHECK_MEM(copy, payload, 300);
    }
    arena_reset(&arena);
    free(wire);
    free(payload);
}

TEST(parts_of_a_payload_can_be_copied_across_pieces)
{
    struct bytes pieces[4] = { { (const uint8_t *)"abc", 3 },
                               { (const uint8_t *)"", 0 },
                               { (const uint8_t *)"defg", 4 },
                               { (const uint8_t *)"h", 1 } };
    struct rpc_payload payload = { true, 8, pieces, 4 };

    for (size_t from = 0; from <= 8; from++) {
        for (size_t to = from; to <= 8; to++) {
            char copy[9] = { 0 };

            rpc_payload_copy(&payload, from, copy, to - from);
            CHECK_EQ(strncmp(copy, &"abcdefgh"[from], to - from), 0);
            CHECK_EQ(strlen(copy), to - from);
        }
    }
}

/* Some other writer puts fields after the payload, or writes it twice (the last one counts): plain unpacking. */
TEST(a_payload_that_does_not_come_last_is_found_too)
{
    static const uint8_t slice[] = "\x7a\x03old"       /* data = "old" */
                                   "\x7a\x04new!"      /* data = "new!" */
                                   "\x0a\x02\x08\x07"; /* head { index: 7 } */
    static const uint8_t chunk[] = "\x7a\x05\x7a\x03"  /* chunk { data = "abc" } */
                                   "abc"
                                   "\xa2\x06\x01z"; /* field 100, unknown */
    struct bytes whole = { slice, sizeof slice - 1 };
    struct rpc_message message;
    struct status st = { 0 };
    uint8_t copy[4];

    CHECK_OK(unpack(&reelkv__v1__slice_reply__descriptor, &outer, &whole, 1, &message, &st), st);
    CHECK_EQ(((const Reelkv__V1__SliceReply *)message.body)->head->index, 7);
    CHECK_EQ(((const Reelkv__V1__SliceReply *)message.body)->data.len, 0);
    CHECK_EQ(message.payload.len, 4);
    rpc_payload_copy(&message.payload, 0, copy, 4);
    CHECK_MEM(copy, "new!", 4);

    whole = (struct bytes){ chunk, sizeof chunk - 1 };
    CHECK_OK(unpack(&reelkv__v1__append_request__descriptor, &inner, &whole, 1, &message, &st), st);
    CHECK_EQ(message.payload.len, 3);
    rpc_payload_copy(&message.payload, 0, copy, 3);
    CHECK_MEM(copy, "abc", 3);
    arena_reset(&arena);
}

TEST(absent_and_empty_payloads_are_told_apart_from_each_other)
{
    static const uint8_t end[] = "\x22\x00";         /* AppendRequest { end {} } */
    static const uint8_t empty_chunk[] = "\x7a\x00"; /* AppendRequest { chunk {} } */
    struct bytes whole = { end, 2 };
    struct rpc_message message;
    struct status st = { 0 };

    CHECK_OK(unpack(&reelkv__v1__append_request__descriptor, &inner, &whole, 1, &message, &st), st);
    CHECK_EQ(((const Reelkv__V1__AppendRequest *)message.body)->item_case,
             REELKV__V1__APPEND_REQUEST__ITEM_END);
    CHECK(!message.payload.present);
    whole = (struct bytes){ empty_chunk, 2 };
    CHECK_OK(unpack(&reelkv__v1__append_request__descriptor, &inner, &whole, 1, &message, &st), st);
    CHECK_EQ(((const Reelkv__V1__AppendRequest *)message.body)->item_case,
             REELKV__V1__APPEND_REQUEST__ITEM_CHUNK);
    CHECK(message.payload.present);
    CHECK_EQ(message.payload.len, 0);
    CHECK_OK(unpack(&reelkv__v1__append_request__descriptor, &inner, NULL, 0, &message, &st), st);
    CHECK_EQ(((const Reelkv__V1__AppendRequest *)message.body)->item_case,
             REELKV__V1__APPEND_REQUEST__ITEM__NOT_SET);
    CHECK(!message.payload.present);
    arena_reset(&arena);
}

/* Every proper beginning of a message, and every single flipped byte of it, is unpacked or refused, within its memory
 * (the sanitizers watch), and what is refused says so. */
TEST(damaged_messages_are_refused_not_followed)
{
    Reelkv__V1__IngestFrame frame = frame_of_test();
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    uint8_t *payload = pattern(40), *wire;
    struct rpc_message message;
    unsigned refused = 0;
    size_t total;

    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_FRAME;
    request.frame = &frame;
    wire = on_the_wire(&request.base, &inner, payload, 40, &total);
    for (size_t len = 1; len < total; len++) {
        uint8_t *copy = malloc(len); /* exact, so that reading past the end is seen */
        struct status st = { 0 };

        REQUIRE(copy != NULL);
        memcpy(copy, wire, len);
        CHECK(!unpack(request.base.descriptor, &inner, &(struct bytes){ copy, len }, 1, &message, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK_HAS(st.text, "not a well-formed reelkv.v1.PushRequest");
        free(copy);
    }
    for (size_t at = 0; at < total; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t *copy = malloc(total);
            struct status st = { 0 };

            REQUIRE(copy != NULL);
            memcpy(copy, wire, total);
            copy[at] ^= (uint8_t)(1u << bit);
            if (!unpack(request.base.descriptor, &inner, &(struct bytes){ copy, total }, 1, &message, &st))
                refused++;
            free(copy);
        }
    }
    CHECK(refused > 0);
    arena_reset(&arena);
    free(wire);
    free(payload);
}

/* Two bytes on the wire can ask for a struct in memory: many of them meet the ceiling, not the machine's. */
TEST(a_message_that_unpacks_to_too_much_is_refused_as_exhausted)
{
    size_t count = 400000;
    uint8_t *wire = malloc(count * 2);
    struct rpc_message message;
    struct status st = { 0 };

    REQUIRE(wire != NULL);
    for (size_t i = 0; i < count; i++) {
        wire[2 * i] = 0x0a; /* TimelineReply.spans, empty */
        wire[2 * i + 1] = 0;
    }
    CHECK(!unpack(&reelkv__v1__timeline_reply__descriptor, &no_payload, &(struct bytes){ wire, count * 2 }, 1,
                  &message, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_HAS(st.text, "needs more than 8388608 bytes of memory");
    arena_reset(&arena);
    free(wire);
}

TEST_MAIN()
