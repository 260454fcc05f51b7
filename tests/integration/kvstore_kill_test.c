/* The real process, killed with SIGKILL at random moments while three writers append. An oracle (what each writer was
 * told) outlives it: what was acked durable is there, byte for byte; what was only stored is sent again by its writer;
 * nothing else is ever served. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "kvstore_client.h"

enum { CYCLES = 20, WRITERS = 3 };

static struct server server;
static struct status st;

static uint32_t next_random(uint32_t below)
{
    static uint32_t state = 2463534242u;

    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

/* What one writer knows. */
struct oracle {
    char name[32];
    struct writer writer;
    uint64_t durable; /* the most it was ever told */
    bool broke;       /* a call failed while the store was alive */
    pthread_t thread;
};

static atomic_bool is_killed;

/* Appends until the store is gone. */
static void *write_on(void *arg)
{
    struct oracle *oracle = arg;
    struct writer *writer = &oracle->writer;
    bool ok = writer_begin(writer) && writer_block(writer, true, 0);

    while (ok) {
        ok = writer_frames(writer, 1 + writer->next_seq % 5);
        if (ok && writer->next_seq % 7 == 0)
            ok = writer_gap(writer, 2, "the camera was away");
        if (writer->durable_seq > oracle->durable)
            oracle->durable = writer->durable_seq;
    }
    oracle->broke = !is_killed;
    rpc_sync_stream_destroy(writer->call);
    return NULL;
}

static bool is_gap(uint64_t seq, const Reelkv__V1__TimelineReply *timeline)
{
    for (size_t i = 0; i < timeline->n_spans; i++)
        if (seq >= timeline->spans[i]->from_seq && seq < timeline->spans[i]->to_seq)
            return timeline->spans[i]->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP;
    test_fail(__FILE__, __LINE__, "number %llu is in no span", (unsigned long long)seq);
}

/* All frames below `durable`, a layer of each (another in every cycle); wrong bytes and missing frames fail. */
static void check_durable(const struct oracle *oracle, uint64_t from, unsigned cycle)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__TimelineRequest ask = REELKV__V1__TIMELINE_REQUEST__INIT;
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    uint64_t count = oracle->durable - from;
    Reelkv__V1__FrameRef *refs = calloc(count + 1, sizeof *refs), **list = calloc(count + 1, sizeof *list);
    const char *name = oracle->name;
    Reelkv__V1__StreamId id = client_id(name);
    const struct rpc_message *message;
    struct rpc_sync_stream *call;
    struct client_view view;
    struct reply timeline;
    uint64_t heads = 0;

    ask.id = &id;
    client_call(&server, &timeline, &api_timeline, &ask.base);
    CHECK_OK(timeline.ok, timeline.st);
    for (uint64_t i = 0; i < count; i++) {
        reelkv__v1__frame_ref__init(&refs[i]);
        refs[i].seq = from + i;
        list[i] = &refs[i];
    }
    client_make_view(&view, &name, 1);
    request.view = &view.view;
    request.frames = list;
    request.n_frames = count;
    request.first_layer = cycle % client_geometry.layers;
    request.layers = 1;
    CHECK_OK(rpc_sync_open(&call, server.client, &api_fetch, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    while (rpc_sync_read(call, &message, &st) && message != NULL) {
        const Reelkv__V1__SliceHead *head = ((const Reelkv__V1__SliceReply *)message->body)->head;
        uint8_t bytes[2 * CLIENT_TOKENS * CLIENT_DIMS * 2];

        CHECK(head != NULL);
        heads++;
        if (head->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP) {
            CHECK(is_gap(from + head->index, timeline.body));
            continue;
        }
        if (head->result != REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK)
            test_fail(__FILE__, __LINE__, "%s frame %llu was acked durable, and its result is %d", name,
                      (unsigned long long)(from + head->index), (int)head->result);
        CHECK_EQ(message->payload.len, sizeof bytes);
        rpc_payload_copy(&message->payload, 0, bytes, sizeof bytes);
        client_expect_layer(name, from + head->index, head->layer, bytes, sizeof bytes);
    }
    CHECK_OK(rpc_sync_finish(call, &st), st);
    CHECK_EQ(heads, count);
    rpc_sync_stream_destroy(call);
    client_done(&timeline);
    free(refs);
    free(list);
}

TEST(kvstore_killed_at_any_moment_loses_nothing_durable)
{
    static const char *const options[] = { "--disk-budget-bytes=256M", "--segment-bytes=1M", "--commit-ms=5",
                                           NULL };
    static struct oracle oracles[WRITERS];
    uint64_t total = 0;

    server_start(&server, "kv-a", options);
    for (unsigned i = 0; i < WRITERS; i++) {
        snprintf(oracles[i].name, sizeof oracles[i].name, "cam-%u", i);
        client_create(&server, oracles[i].name);
    }
    for (unsigned cycle = 0; cycle < CYCLES; cycle++) {
        is_killed = false;
        for (unsigned i = 0; i < WRITERS; i++) {
            struct oracle *oracle = &oracles[i];

            CHECK_OK(writer_open(&oracle->writer, &server, oracle->name), oracle->writer.st);
            CHECK_EQ(oracle->writer.epoch, cycle + 1);
            CHECK(oracle->writer.next_seq >= oracle->durable);
            check_durable(oracle, oracle->durable < 60 ? 0 : oracle->durable - 60, cycle);
        }
        for (unsigned i = 0; i < WRITERS; i++)
            CHECK_EQ(pthread_create(&oracles[i].thread, NULL, write_on, &oracles[i]), 0);
        usleep(20000 + next_random(130000));
        is_killed = true;
        kill(server.process.pid, SIGKILL);
        for (unsigned i = 0; i < WRITERS; i++)
            pthread_join(oracles[i].thread, NULL);
        server_kill(&server);
        for (unsigned i = 0; i < WRITERS; i++)
            CHECK(!oracles[i].broke);
        server_start(&server, "kv-a", options);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        total += oracles[i].durable;
        check_durable(&oracles[i], 0, i);
    }
    CHECK(total > 0);
    printf("   %d kills, %llu durable frames\n", CYCLES, (unsigned long long)total);
    server_stop(&server);
}

TEST_MAIN()
