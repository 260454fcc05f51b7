#include <stdlib.h>

#include "base/limits.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/process.h"
#include "support/rpc_calls.h"
#include "support/test.h"

static struct fixture fixture;
static struct rpc_sync *client;

/* Sends one chunk and reads the answer; the status' code. */
static enum status_code send_chunk(size_t len, struct status *st)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    struct rpc_attachment attachment = { .len = len };
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    void *data = calloc(1, len);

    REQUIRE(data != NULL);
    st->code = STATUS_OK;
    attachment.data = data;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    if (rpc_sync_open(&stream, client, &api_append, &patient, st) &&
        rpc_sync_write(stream, &request.base, &attachment, st) && rpc_sync_read(stream, &message, st))
        CHECK_EQ(((const Reelkv__V1__AppendReply *)message->body)->stored_seq, len);
    rpc_sync_stream_destroy(stream);
    free(data);
    return st->code;
}

/* gRPC's own limit is 4 MiB, protobuf's own bytes included, and must be lifted on both ends. */
TEST(messages_up_to_the_limit_pass_and_not_a_byte_more)
{
    size_t head = 2 * 5; /* two tags of one byte, two lengths of four */
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_EQ(send_chunk((4 << 20) + 1, &st), STATUS_OK);
    CHECK_EQ(send_chunk(LIMIT_MESSAGE_BYTES - head, &st), STATUS_OK);
    CHECK_EQ(send_chunk(LIMIT_MESSAGE_BYTES - head + 1, &st), STATUS_EXHAUSTED);
    CHECK_HAS(st.text, "a reelkv.v1.AppendRequest of 16777217 bytes is larger than the limit of 16777216");
    CHECK_EQ(atomic_load(&fixture.messages), 2);
    calls_end(&fixture, client);
}

TEST(a_server_refuses_what_a_generous_client_sends)
{
    struct rpc_server_options small = { .max_message_bytes = 100000 };
    struct status st = { 0 };

    client = calls_begin(&fixture, &small, NULL);
    CHECK_EQ(send_chunk(90000, &st), STATUS_OK);
    CHECK_EQ(send_chunk(100001, &st), STATUS_EXHAUSTED);
    CHECK_HAS(st.text, "100000");
    CHECK_EQ(atomic_load(&fixture.messages), 1);
    calls_end(&fixture, client);
}

static enum status_code ask_spans(uint32_t count, struct status *st)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;

    st->code = STATUS_OK;
    request.page_size = count;
    if (rpc_sync_unary(&stream, client, &api_timeline, &patient, &request.base, &reply, st))
        CHECK_EQ(((const Reelkv__V1__TimelineReply *)reply->body)->n_spans, count);
    rpc_sync_stream_destroy(stream);
    return st->code;
}

TEST(a_reply_beyond_either_ends_limit_is_an_error_not_a_hang)
{
    struct rpc_server_options server = { .max_message_bytes = 100000 };
    struct rpc_channel_options channel = { .max_message_bytes = 30000 };
    struct status st = { 0 };

    client = calls_begin(&fixture, &server, &channel);
    CHECK_EQ(ask_spans(100, &st), STATUS_OK);
    CHECK_EQ(ask_spans(2000, &st), STATUS_EXHAUSTED);  /* 46 kB: too large for us */
    CHECK_EQ(ask_spans(10000, &st), STATUS_EXHAUSTED); /* 230 kB: too large for the server */
    CHECK_HAS(st.text, "reelkv.v1.TimelineReply of 230000 bytes is larger than the limit of 100000");
    calls_end(&fixture, client);
}

/* A request of 9 MB fits a message but not a call's memory (it is no payload: protobuf-c copies it). */
TEST(a_request_that_needs_too_much_memory_is_refused)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    request.query.len = 9 << 20;
    request.query.data = calloc(1, request.query.len);
    REQUIRE(request.query.data != NULL);
    CHECK(!rpc_sync_unary(&stream, client, &api_score, &patient, &request.base, &reply, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_HAS(st.text, "needs more than 8388608 bytes of memory");
    rpc_sync_stream_destroy(stream);
    free(request.query.data);
    calls_end(&fixture, client);
}

/* Four calls may be open. The fifth is told so, and when to come back, while it could still wait: it does not hang.
 * A place that gets free can be taken. */
TEST(overload_is_refused_with_a_time_to_retry)
{
    struct rpc_server_options options = { .max_calls = 4, .retry_after_ms = 250 };
    struct rpc_sync_stream *held[4];
    const struct rpc_message *message;
    struct status st = { 0 };

    client = calls_begin(&fixture, &options, NULL);
    for (int i = 0; i < 4; i++)
        held[i] = calls_hold(client);
    CHECK(fixture_wait(&fixture.opened, 4));
    CHECK_EQ(ask_spans(1, &st), STATUS_EXHAUSTED);
    CHECK_HAS(st.text, "4 calls are open, which is the limit; try again later");
    CHECK_EQ(st.retry_after_ms, 250);
    rpc_sync_cancel(held[0]);
    CHECK(!rpc_sync_read(held[0], &message, &st));
    CHECK(fixture_wait(&fixture.ended, 1));
    for (int i = 0; i < 200 && ask_spans(1, &st) != STATUS_OK; i++)
        test_pause_ms(5); /* the call's last operations may still be on their way */
    CHECK_EQ(st.code, STATUS_OK);
    for (int i = 0; i < 4; i++)
        rpc_sync_stream_destroy(held[i]);
    calls_end(&fixture, client);
}

/* More calls than one connection may carry wait for a place; none is lost. */
TEST(calls_beyond_a_connections_streams_wait_their_turn)
{
    struct rpc_server_options options = { .max_streams = 2 };
    struct rpc_sync_stream *held[3];
    const struct rpc_message *message;
    struct status st = { 0 };

    client = calls_begin(&fixture, &options, NULL);
    for (int i = 0; i < 2; i++)
        held[i] = calls_hold(client);
    CHECK(fixture_wait(&fixture.opened, 2));
    CHECK_OK(rpc_sync_open(&held[2], client, &api_append, &patient, &st), st);
    rpc_sync_cancel(held[0]);
    CHECK_OK(rpc_sync_half_close(held[2], &st), st);
    CHECK_OK(rpc_sync_read(held[2], &message, &st), st);
    CHECK(message == NULL);
    for (int i = 0; i < 3; i++)
        rpc_sync_stream_destroy(held[i]);
    calls_end(&fixture, client);
}

enum { FLOOD_CALLS = 30, FLOOD_BYTES = 3 << 20, FLOOD_QUOTA = 64 << 20 };

struct flood_call {
    pthread_t thread;
    atomic_uint *done;
    enum status_code code;
};

static void *flood(void *arg)
{
    struct flood_call *call = arg;
    struct rpc_stream_options forever = { .timeout_ms = RPC_NO_TIMEOUT };
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    request.query.len = FLOOD_BYTES;
    request.query.data = calloc(1, FLOOD_BYTES);
    REQUIRE(request.query.data != NULL);
    rpc_sync_unary(&stream, client, &api_score, &forever, &request.base, &reply, &st);
    call->code = st.code;
    rpc_sync_stream_destroy(stream);
    free(request.query.data);
    atomic_fetch_add(call->done, 1);
    return NULL;
}

static unsigned held_calls(void)
{
    return atomic_load(&fixture.opened) - atomic_load(&fixture.ended);
}

/* 30 calls bring 3 MiB each, which the handler keeps, and the server may take 64 MiB. What does not fit is refused, in
 * gRPC's rough way: it may end more calls than it must. The server goes on and answers. */
TEST(a_flood_of_large_requests_is_held_within_the_memory_or_refused)
{
    struct rpc_server_options options = { .memory_bytes = FLOOD_QUOTA };
    struct flood_call calls[FLOOD_CALLS] = { 0 };
    unsigned refused = 0;
    atomic_uint done = 0;
    struct status st = { 0 };

    client = calls_begin(&fixture, &options, NULL);
    for (size_t i = 0; i < FLOOD_CALLS; i++) {
        calls[i].done = &done;
        REQUIRE(pthread_create(&calls[i].thread, NULL, flood, &calls[i]) == 0);
    }
    for (int i = 0; i < 4000 && held_calls() + atomic_load(&done) < FLOOD_CALLS; i++)
        test_pause_ms(5);
    for (int i = 0; i < 4000 && held_calls() * FLOOD_BYTES > FLOOD_QUOTA; i++)
        test_pause_ms(5);
    printf("  %u of %d calls are held\n", held_calls(), FLOOD_CALLS);
    CHECK(held_calls() * FLOOD_BYTES <= FLOOD_QUOTA);
    fixture_release_held(&fixture);
    for (size_t i = 0; i < FLOOD_CALLS; i++) {
        pthread_join(calls[i].thread, NULL);
        refused += calls[i].code == STATUS_EXHAUSTED;
        CHECK(calls[i].code == STATUS_OK || calls[i].code == STATUS_EXHAUSTED);
    }
    CHECK(refused >= FLOOD_CALLS - FLOOD_QUOTA / FLOOD_BYTES);
    for (int i = 0; i < 4000 && ask_spans(1, &st) != STATUS_OK; i++)
        test_pause_ms(5); /* the connection may have been closed as an idle one */
    CHECK_EQ(st.code, STATUS_OK);
    calls_end(&fixture, client);
}

struct pusher {
    struct rpc_sync_stream *stream;
    atomic_uint written;
    unsigned want;
    struct status st;
};

enum { PUSH_BYTES = 256 << 10 };

static void *push_all(void *arg)
{
    struct pusher *pusher = arg;
    Reelkv__V1__PushRequest request = REELKV__V1__PUSH_REQUEST__INIT;
    Reelkv__V1__IngestFrame frame = REELKV__V1__INGEST_FRAME__INIT;
    void *data = calloc(1, PUSH_BYTES);
    struct rpc_attachment attachment = { .data = data, .len = PUSH_BYTES };

    request.item_case = REELKV__V1__PUSH_REQUEST__ITEM_FRAME;
    request.frame = &frame;
    while (atomic_load(&pusher->written) < pusher->want &&
           rpc_sync_write(pusher->stream, &request.base, &attachment, &pusher->st))
        atomic_fetch_add(&pusher->written, 1);
    free(data);
    return NULL;
}

/* The server reads one message and no more. A sender of 64 MiB must stall after about the look-ahead (1 MiB), and go
 * on when the server does. */
TEST(a_server_that_does_not_read_stalls_the_sender)
{
    struct pusher pusher = { .want = 256 };
    unsigned before, after;
    pthread_t thread;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&pusher.stream, client, &api_push, &patient, &st), st);
    REQUIRE(pthread_create(&thread, NULL, push_all, &pusher) == 0);
    CHECK(fixture_wait(&fixture.messages, 1));
    do {
        before = atomic_load(&pusher.written);
        test_pause_ms(300);
        after = atomic_load(&pusher.written);
    } while (after != before);
    printf("  stalled after %u messages of 256 KiB\n", after);
    CHECK(after >= 1 && after <= 24);
    CHECK_EQ(atomic_load(&fixture.messages), 1);
    fixture_read_on(&fixture);
    pthread_join(thread, NULL);
    CHECK_EQ(atomic_load(&pusher.written), 256);
    CHECK_OK(rpc_sync_finish(pusher.stream, &st), st);
    CHECK_EQ(atomic_load(&fixture.messages), 256);
    rpc_sync_stream_destroy(pusher.stream);
    calls_end(&fixture, client);
}

/* The other way round: the client does not read, so the handler's endless writing meets "no room" and stays there. */
TEST(a_client_that_does_not_read_stalls_the_server)
{
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    struct status st = { 0 };
    unsigned before, after;

    client = calls_begin(&fixture, NULL, NULL);
    request.tokens = 256;
    CHECK_OK(rpc_sync_open(&stream, client, &api_load_window, &patient, &st), st);
    CHECK_OK(rpc_sync_write(stream, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    do {
        before = atomic_load(&fixture.writes);
        test_pause_ms(300);
        after = atomic_load(&fixture.writes);
    } while (after != before);
    printf("  stalled after %u messages of 256 KiB\n", after);
    CHECK(after <= RPC_QUEUED_MESSAGES + 24);
    for (unsigned i = 0; i < 2 * after; i++)
        CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    CHECK(atomic_load(&fixture.writes) > after);
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

TEST_MAIN()
