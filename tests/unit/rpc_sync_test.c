#include "rpc/sync.h"

#include <stdlib.h>

#include "base/limits.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/rpc_calls.h"
#include "support/test.h"

static struct fixture fixture;
static struct rpc_sync *client;

/* The id of the request goes there and comes back; the server sees the peer and the time that is left. */
TEST(a_unary_call_is_answered)
{
    struct rpc_stream_options options = { .timeout_ms = 30000, .request_id = "req-17" };
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    const Reelkv__V1__ServerInfo *info;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_unary(&stream, client, &api_get_server_info, &options, &request.base, &reply, &st), st);
    info = (const Reelkv__V1__ServerInfo *)reply->body;
    CHECK_STR(info->name, "req-17");
    CHECK_HAS(info->version, "127.0.0.1");
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

static uint8_t *pattern(size_t len)
{
    uint8_t *data = malloc(len + 1);

    REQUIRE(data != NULL);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 131 + (i >> 10));
    return data;
}

static atomic_uint released;

static void count_release(void *arg)
{
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static void append_chunk(struct rpc_sync_stream *stream, const uint8_t *data, size_t len, bool borrow)
{
    struct rpc_attachment attachment = { data, len, borrow ? count_release : NULL, &released };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    struct status st = { 0 };

    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    CHECK_OK(rpc_sync_write(stream, &request.base, &attachment, &st), st);
}

/* Chunks of many sizes go out from where they lie (every second one copied) and arrive whole; each borrowed
 * one is given back exactly once. */
TEST(payloads_of_all_sizes_arrive_whole_and_are_given_back_once)
{
    static const size_t sizes[] = { 1, 0, 127, 128, 16383, 16384, 100000, 1 << 20, 4 << 20, 15 << 20, 3 };
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    unsigned borrowed = 0;
    struct status st = { 0 };

    atomic_store(&released, 0);
    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&stream, client, &api_append, &patient, &st), st);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint8_t *data = pattern(sizes[i]);
        const Reelkv__V1__AppendReply *reply;

        borrowed += i % 2 == 0;
        append_chunk(stream, data, sizes[i], i % 2 == 0);
        CHECK_OK(rpc_sync_read(stream, &message, &st), st);
        CHECK(message != NULL);
        reply = (const Reelkv__V1__AppendReply *)message->body;
        CHECK_EQ(reply->stored_seq, sizes[i]);
        CHECK_EQ(reply->durable_seq, fixture_sum(data, sizes[i]));
        CHECK_EQ(reply->credit_bytes, REELKV__V1__APPEND_REQUEST__ITEM_CHUNK);
        CHECK(fixture_wait(&released, borrowed));
        free(data);
    }
    CHECK_OK(rpc_sync_finish(stream, &st), st);
    CHECK_EQ(atomic_load(&released), borrowed);
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

/* The server sends 40 slices of 300 KiB from one buffer: all arrive whole and in order, and the buffer is
 * given back as often as it was lent. */
TEST(a_server_stream_brings_payloads_in_order)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    struct status st = { 0 };
    uint32_t count = 0;

    client = calls_begin(&fixture, NULL, NULL);
    request.first_layer = 40;
    request.layers = 300;
    stream = calls_open(client, &api_fetch, &request.base);
    for (;; count++) {
        const Reelkv__V1__SliceReply *reply;
        uint8_t *copy;

        CHECK_OK(rpc_sync_read(stream, &message, &st), st);
        if (message == NULL)
            break;
        reply = (const Reelkv__V1__SliceReply *)message->body;
        CHECK_EQ(reply->head->index, count);
        CHECK_EQ(reply->data.len, 0);
        CHECK_EQ(message->payload.len, 300 << 10);
        copy = malloc(message->payload.len);
        REQUIRE(copy != NULL);
        rpc_payload_copy(&message->payload, 0, copy, message->payload.len);
        for (size_t i = 0; i < message->payload.len; i += 1021)
            CHECK_EQ(copy[i], (uint8_t)(i * 7 + (i >> 8)));
        free(copy);
    }
    CHECK_EQ(count, 40);
    rpc_sync_stream_destroy(stream);
    CHECK(fixture_wait(&fixture.releases, 40));
    CHECK_EQ(atomic_load(&fixture.releases), atomic_load(&fixture.writes));
    calls_end(&fixture, client);
}

/* Code, sentence and advice travel; they are the server's own words, without our address in front. */
TEST(errors_carry_code_sentence_and_when_to_retry)
{
    Reelkv__V1__OpenStreamRequest request = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    static const enum status_code codes[] = { STATUS_NOT_FOUND, STATUS_EXHAUSTED, STATUS_UNAVAILABLE,
                                              STATUS_DEADLINE, STATUS_DATA_LOSS };

    client = calls_begin(&fixture, NULL, NULL);
    request.geometry = &geometry;
    request.writer = (char *)"the dock\xc3\xa9 is full: 100% \"now\"";
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        const struct rpc_message *reply = NULL;
        struct rpc_sync_stream *stream = NULL;
        struct status st = { 0 };

        geometry.layers = codes[i];
        request.expected_frames = i * 1750;
        CHECK(!rpc_sync_unary(&stream, client, &api_open_stream, &patient, &request.base, &reply, &st));
        CHECK_EQ(st.code, codes[i]);
        CHECK_STR(st.text, request.writer);
        CHECK_EQ(st.retry_after_ms, i * 1750);
        CHECK(reply == NULL);
        rpc_sync_stream_destroy(stream);
    }
    calls_end(&fixture, client);
}

TEST(a_peer_that_is_not_there_is_named_with_the_cause)
{
    char address[400];
    struct status st = { 0 };

    snprintf(address, sizeof address, "unix:%s/nobody.sock", test_folder());
    CHECK(!calls_info_at(address, &st));
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, address);
    CHECK_HAS(st.text, "No such file or directory");
}

TEST(addresses_that_make_no_sense_are_refused)
{
    static const struct {
        const char *address, *part;
    } rows[] = {
        { "localhost", "use host:port or unix:/path" },
        { ":80", "use host:port or unix:/path" },
        { "::1:80", "use host:port or unix:/path" },
        { "host:", "use host:port or unix:/path" },
        { "host:70000", "from 0 to 65535" },
        { "host:80x", "from 0 to 65535" },
        { "unix:relative.sock", "from the root on" },
        { "unix:/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
          "has 108 bytes, at most 107" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct status st = { 0 };

        CHECK(!rpc_sync_create(&client, rows[i].address, NULL, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK_HAS(st.text, rows[i].part);
    }
}

static void *cancel_soon(void *arg)
{
    if (fixture_wait(&fixture.opened, 1))
        rpc_sync_cancel(arg);
    return NULL;
}

/* One thread waits for an answer that does not come; another cancels; the server's handler is told. */
TEST(cancel_from_another_thread_ends_the_wait_and_reaches_the_work)
{
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message;
    struct status st = { 0 };
    pthread_t thread;

    client = calls_begin(&fixture, NULL, NULL);
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    CHECK_OK(rpc_sync_open(&stream, client, &api_score, &patient, &st), st);
    CHECK_OK(rpc_sync_write(stream, &request.base, NULL, &st), st);
    REQUIRE(pthread_create(&thread, NULL, cancel_soon, stream) == 0);
    CHECK(!rpc_sync_read(stream, &message, &st));
    CHECK_EQ(st.code, STATUS_CANCELLED);
    pthread_join(thread, NULL);
    rpc_sync_stream_destroy(stream);
    CHECK(fixture_wait(&fixture.ended, 1));
    CHECK_EQ(atomic_load(&fixture.cancelled), 1);
    calls_end(&fixture, client);
}

struct reader {
    struct rpc_sync_stream *stream;
    struct status st;
};

static void *read_to_the_end(void *arg)
{
    struct reader *reader = arg;
    const struct rpc_message *message;

    while (rpc_sync_read(reader->stream, &message, &reader->st) && message != NULL)
        ;
    return NULL;
}

/* One thread waits for replies, the other's write is too large and ends the call: both are told why. Which of them learns
 * of the end first is a race, hence the rounds. */
TEST(who_reads_meanwhile_hears_why_a_write_failed)
{
    static uint8_t too_much[LIMIT_MESSAGE_BYTES + 1];
    const struct rpc_attachment attachment = { .data = too_much, .len = sizeof too_much };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;

    client = calls_begin(&fixture, NULL, NULL);
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    request.chunk = &chunk;
    for (unsigned round = 1; round <= 100; round++) {
        struct reader reader = { 0 };
        struct status st = { 0 };
        pthread_t thread;

        CHECK_OK(rpc_sync_open(&reader.stream, client, &api_append, &patient, &st), st);
        CHECK(fixture_wait(&fixture.opened, round));
        REQUIRE(pthread_create(&thread, NULL, read_to_the_end, &reader) == 0);
        CHECK(!rpc_sync_write(reader.stream, &request.base, &attachment, &st));
        pthread_join(thread, NULL);
        CHECK_EQ(st.code, STATUS_EXHAUSTED);
        CHECK_EQ(reader.st.code, STATUS_EXHAUSTED);
        CHECK_STR(reader.st.text, st.text);
        rpc_sync_stream_destroy(reader.stream);
    }
    calls_end(&fixture, client);
}

/* The client's patience ends; the handler hears of it although nobody cancelled. */
TEST(a_deadline_ends_the_call_on_both_sides)
{
    struct rpc_stream_options options = { .timeout_ms = 200 };
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK(!rpc_sync_unary(&stream, client, &api_score, &options, &request.base, &reply, &st));
    CHECK_EQ(st.code, STATUS_DEADLINE);
    CHECK_HAS(st.text, "did not answer /reelkv.v1.KvStore/Score within 200 ms");
    CHECK_HAS(st.text, fixture_address(&fixture));
    rpc_sync_stream_destroy(stream);
    CHECK(fixture_wait(&fixture.ended, 1));
    CHECK_EQ(atomic_load(&fixture.cancelled), 1);
    calls_end(&fixture, client);
}

/* On a bidirectional call the server may be the first to speak: it must know of the call before anything is written.
 */
TEST(a_bidirectional_call_reaches_the_server_before_its_first_message)
{
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&stream, client, &api_append, &patient, &st), st);
    CHECK(fixture_wait(&fixture.opened, 1));
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

/* Half-close without a message: the server says what it has to say and ends with OK. */
TEST(half_close_ends_a_stream_from_the_clients_side)
{
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&stream, client, &api_append, &patient, &st), st);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    CHECK(message == NULL);
    CHECK_OK(rpc_sync_finish(stream, &st), st);
    rpc_sync_stream_destroy(stream);
    CHECK(fixture_wait(&fixture.ended, 1));
    CHECK_EQ(atomic_load(&fixture.cancelled), 0);
    calls_end(&fixture, client);
}

/* Many messages, one reply, which comes when the client has closed its side. */
TEST(a_client_stream_is_answered_once_at_its_end)
{
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message = NULL;
    const Reelkv__V1__AppendReply *reply;
    uint8_t *data = pattern(100000);
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&stream, client, &fixture_collect, &patient, &st), st);
    for (size_t i = 0; i < 30; i++)
        append_chunk(stream, data, 100000 - i, false);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    CHECK(message != NULL);
    reply = (const Reelkv__V1__AppendReply *)message->body;
    CHECK_EQ(reply->stored_seq, 30);
    CHECK_EQ(reply->durable_seq, 30 * 100000 - 30 * 29 / 2);
    CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    CHECK(message == NULL);
    rpc_sync_stream_destroy(stream);
    free(data);
    calls_end(&fixture, client);
}

/* The fixture answers this by ending the call. */
static bool append_bad_end(struct rpc_sync_stream *stream, const char *trouble, struct status *st)
{
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendEnd bad_end = REELKV__V1__APPEND_END__INIT;

    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_END;
    bad_end.trouble = (char *)trouble;
    request.end = &bad_end;
    return rpc_sync_write(stream, &request.base, NULL, st);
}

/* gRPC keeps a status back as long as a message before it was not received. One thread writes and would read later; the
 * server ends the call: the write that fails must not wait for the reads that its own thread will never come to. */
TEST(a_write_to_an_ended_call_says_how_it_ended_although_replies_are_unread)
{
    struct rpc_stream_options forever = { .timeout_ms = RPC_NO_TIMEOUT };
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&stream, client, &api_append, &forever, &st), st);
    for (size_t i = 1; i <= 3; i++)
        append_chunk(stream, (const uint8_t *)"abc", i, false);
    while (append_bad_end(stream, "the lens fell off", &st))
        ;
    CHECK_EQ(st.code, STATUS_ABORTED);
    CHECK_STR(st.text, "the lens fell off");
    for (size_t i = 1; i <= 3; i++) { /* nothing is lost by it */
        CHECK_OK(rpc_sync_read(stream, &message, &st), st);
        CHECK(message != NULL);
        CHECK_EQ(((const Reelkv__V1__AppendReply *)message->body)->stored_seq, i);
    }
    CHECK(!rpc_sync_read(stream, &message, &st));
    CHECK_EQ(st.code, STATUS_ABORTED);
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

/* gRPC may take what is sent on a call that is over. Whoever was told of the end, here by a read, is told the same by
 * what it does next: by every half-close, and by a write. */
TEST(a_call_known_to_have_failed_takes_no_more_and_says_how_it_ended)
{
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    for (int i = 0; i < 20; i++) {
        struct rpc_sync_stream *stream = NULL;
        const struct rpc_message *message = NULL;

        CHECK_OK(rpc_sync_open(&stream, client, &api_append, &patient, &st), st);
        CHECK(append_bad_end(stream, "the lens fell off", &st));
        CHECK(!rpc_sync_read(stream, &message, &st));
        for (int deed = i % 2; deed < 3; deed++) {
            st = (struct status){ 0 };
            CHECK(deed == 0 ? !append_bad_end(stream, "no", &st) : !rpc_sync_half_close(stream, &st));
            CHECK_EQ(st.code, STATUS_ABORTED);
            CHECK_STR(st.text, "the lens fell off");
        }
        rpc_sync_stream_destroy(stream);
    }
    calls_end(&fixture, client);
}

/* The server has said all before the client closes its side: nothing to complain of. */
TEST(half_close_of_a_call_that_ended_well_is_fine)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&stream, client, &api_fetch, &patient, &st), st);
    CHECK_OK(rpc_sync_write(stream, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    CHECK(message == NULL);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    CHECK_OK(rpc_sync_half_close(stream, &st), st);
    CHECK_OK(rpc_sync_finish(stream, &st), st);
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

/* The same for half-close: what the server said last is read, then its status, although nothing more could be sent. */
TEST(finishing_a_call_that_the_server_has_ended_does_not_wait)
{
    struct rpc_stream_options forever = { .timeout_ms = RPC_NO_TIMEOUT };
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    CHECK_OK(rpc_sync_open(&stream, client, &api_append, &forever, &st), st);
    append_chunk(stream, (const uint8_t *)"abc", 3, false);
    CHECK(append_bad_end(stream, "no", &st));
    CHECK(fixture_wait(&fixture.ended, 1));
    CHECK(!rpc_sync_finish(stream, &st));
    CHECK_EQ(st.code, STATUS_ABORTED);
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

/* A sentence longer than a status holds is cut, here in the middle of an é; another one quotes bytes that are no text. In
 * google.rpc.Status both must be UTF-8, or a stock client cannot read it (rpc_stock_client_test looks at that). */
TEST(an_error_with_broken_text_keeps_code_and_advice)
{
    Reelkv__V1__OpenStreamRequest request = REELKV__V1__OPEN_STREAM_REQUEST__INIT;
    Reelkv__V1__Geometry geometry = REELKV__V1__GEOMETRY__INIT;
    const struct rpc_message *reply = NULL;
    struct rpc_sync_stream *stream = NULL;
    struct status st = { 0 };
    char text[STATUS_TEXT_BYTES + 10] = "";

    client = calls_begin(&fixture, NULL, NULL);
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 3);
    request.geometry = &geometry;
    request.writer = text;
    request.expected_frames = 70;
    geometry.layers = STATUS_EXHAUSTED;
    CHECK(!rpc_sync_unary(&stream, client, &api_open_stream, &patient, &request.base, &reply, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    CHECK_EQ(st.retry_after_ms, 70);
    CHECK_EQ(strncmp(st.text, text, STATUS_TEXT_BYTES - 2), 0);
    rpc_sync_stream_destroy(stream);
    calls_end(&fixture, client);
}

/* http_proxy in the environment is for browsers; the cluster's own calls go where they are sent. */
TEST(a_proxy_in_the_environment_is_not_used)
{
    struct status st = { 0 };
    bool ok;

    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("grpc_proxy", "http://127.0.0.1:1", 1);
    client = calls_begin(&fixture, NULL, NULL);
    ok = calls_info(client, &st);
    unsetenv("http_proxy");
    unsetenv("grpc_proxy");
    CHECK_OK(ok, st);
    calls_end(&fixture, client);
}

/* gRPC would let equal channels share one connection: then one stalled or lost connection is everybody's. */
TEST(two_clients_of_one_server_have_a_connection_each)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct rpc_sync *clients[2];
    char peers[2][128];
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        const struct rpc_message *reply = NULL;
        struct rpc_sync_stream *stream = NULL;

        CHECK_OK(rpc_sync_create(&clients[i], fixture_address(&fixture), NULL, &st), st);
        CHECK_OK(rpc_sync_unary(&stream, clients[i], &api_get_server_info, &patient, &request.base, &reply,
                                &st),
                 st);
        snprintf(peers[i], sizeof peers[i], "%s", ((const Reelkv__V1__ServerInfo *)reply->body)->version);
        rpc_sync_stream_destroy(stream);
    }
    CHECK(strcmp(peers[0], peers[1]) != 0);
    for (int i = 0; i < 2; i++)
        rpc_sync_destroy(clients[i]);
    calls_end(&fixture, client);
}

/* A stream that is destroyed in the middle is cancelled: the server's endless sending stops and gets its
 * memory back. */
TEST(destroying_a_stream_in_the_middle_stops_the_server)
{
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *message = NULL;
    struct status st = { 0 };

    client = calls_begin(&fixture, NULL, NULL);
    request.tokens = 200;
    stream = calls_open(client, &api_load_window, &request.base);
    for (int i = 0; i < 5; i++)
        CHECK_OK(rpc_sync_read(stream, &message, &st), st);
    rpc_sync_stream_destroy(stream);
    CHECK(fixture_wait(&fixture.ended, 1));
    CHECK(fixture_wait(&fixture.releases, atomic_load(&fixture.writes)));
    calls_end(&fixture, client);
}

TEST_MAIN()
