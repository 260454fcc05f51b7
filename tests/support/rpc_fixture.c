#include "support/rpc_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/process.h"
#include "support/test.h"

uint64_t fixture_sum(const void *data, size_t len)
{
    const uint8_t *bytes = data;
    uint64_t a = 1, b = 0;

    for (size_t i = 0; i < len; i++) {
        a += bytes[i];
        b += a;
    }
    return (b << 24) ^ a;
}

bool fixture_wait(const atomic_uint *counter, unsigned want)
{
    for (int i = 0; i < 4000 && atomic_load(counter) < want; i++)
        test_pause_ms(5);
    return atomic_load(counter) >= want;
}

/* ---- unary ---- */

static void get_server_info(struct rpc_call *call, void *state)
{
    Reelkv__V1__ServerInfo reply = REELKV__V1__SERVER_INFO__INIT;
    struct fixture *fixture = state;

    reply.ram_used_bytes = atomic_load(&fixture->opened);
    reply.disk_used_bytes = atomic_load(&fixture->ended);
    reply.frames = atomic_load(&fixture->cancelled);
    reply.name = (char *)rpc_call_request_id(call);
    reply.version = (char *)rpc_call_peer(call);
    rpc_call_reply(call, &reply.base, NULL);
}

static void open_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__OpenStreamRequest *request = (const void *)rpc_call_request(call)->body;
    struct status st = { 0 };

    status_fail(&st, (enum status_code)(request->geometry != NULL ? request->geometry->layers : 2), "%s",
                request->writer);
    st.retry_after_ms = (uint32_t)request->expected_frames;
    rpc_call_finish(call, &st);
}

static void count_end(struct rpc_call *call, void *user)
{
    struct fixture *fixture = user;

    if (rpc_call_was_cancelled(call))
        atomic_fetch_add(&fixture->cancelled, 1);
    atomic_fetch_add(&fixture->ended, 1);
}

static void held_ended(struct rpc_call *call, void *user)
{
    struct fixture *fixture = user;

    for (uint32_t i = 0; i < fixture->held_count; i++)
        if (fixture->held[i] == call)
            fixture->held[i] = NULL;
    count_end(call, user);
}

static void answer_held(struct rpc_call *call)
{
    Reelkv__V1__ScoreReply reply = REELKV__V1__SCORE_REPLY__INIT;

    rpc_call_reply(call, &reply.base, NULL);
}

static void score(struct rpc_call *call, void *state)
{
    struct fixture *fixture = state;

    atomic_fetch_add(&fixture->opened, 1);
    rpc_call_on_end(call, held_ended);
    if (fixture->released) {
        answer_held(call);
        return;
    }
    REQUIRE(fixture->held_count < FIXTURE_HELD);
    fixture->held[fixture->held_count++] = call;
}

/* Something for the fixture's thread to do. */
struct errand {
    struct letter letter;
    struct fixture *fixture;
    void (*run)(struct fixture *fixture, const struct errand *errand);
    uint32_t lame_ms, drain_ms;
};

static void errand_opened(struct letter *letter)
{
    struct errand *errand = container_of(letter, struct errand, letter);

    errand->run(errand->fixture, errand);
    free(errand);
}

static void send_errand(struct fixture *fixture, struct errand wanted)
{
    struct errand *errand = malloc(sizeof *errand);

    REQUIRE(errand != NULL);
    *errand = wanted;
    errand->letter.open = errand_opened;
    errand->fixture = fixture;
    loop_post(fixture->loop, &errand->letter);
}

static void release_held(struct fixture *fixture, const struct errand *errand)
{
    for (uint32_t i = 0; i < fixture->held_count; i++)
        if (fixture->held[i] != NULL)
            answer_held(fixture->held[i]);
    fixture->held_count = 0;
    fixture->released = true;
}

static void timeline(struct rpc_call *call, void *state)
{
    const Reelkv__V1__TimelineRequest *request = (const void *)rpc_call_request(call)->body;
    Reelkv__V1__TimelineReply reply = REELKV__V1__TIMELINE_REPLY__INIT;
    Reelkv__V1__TimelineSpan span = REELKV__V1__TIMELINE_SPAN__INIT;

    span.from_seq = UINT64_MAX;
    span.reason = (char *)"a reason";
    reply.n_spans = request->page_size;
    reply.spans = calloc(request->page_size + 1, sizeof *reply.spans);
    REQUIRE(reply.spans != NULL);
    for (uint32_t i = 0; i < request->page_size; i++)
        reply.spans[i] = &span;
    rpc_call_reply(call, &reply.base, NULL);
    free(reply.spans);
}

/* ---- payloads out ---- */

struct sending {
    struct fixture *fixture;
    bool (*send_one)(struct rpc_call *call, const struct sending *sending,
                     const struct rpc_attachment *attachment);
    uint8_t *data;
    size_t len;
    uint32_t left; /* UINT32_MAX: endless */
    uint32_t next;
    uint32_t out; /* payloads not given back */
    bool over;
};

static void sending_free(struct sending *sending)
{
    if (!sending->over || sending->out > 0)
        return;
    free(sending->data);
    free(sending);
}

static void payload_back(void *arg)
{
    struct sending *sending = arg;

    REQUIRE(loop_is_here(sending->fixture->loop));
    atomic_fetch_add(&sending->fixture->releases, 1);
    sending->out--;
    sending_free(sending);
}

static bool send_slice(struct rpc_call *call, const struct sending *sending,
                       const struct rpc_attachment *attachment)
{
    Reelkv__V1__SliceReply reply = REELKV__V1__SLICE_REPLY__INIT;
    Reelkv__V1__SliceHead head = REELKV__V1__SLICE_HEAD__INIT;

    head.index = sending->next;
    head.length = sending->len;
    reply.head = &head;
    return rpc_call_write(call, &reply.base, attachment);
}

static bool send_chunk(struct rpc_call *call, const struct sending *sending,
                       const struct rpc_attachment *attachment)
{
    Reelkv__V1__LoadWindowReply reply = REELKV__V1__LOAD_WINDOW_REPLY__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;

    reply.item_case = REELKV__V1__LOAD_WINDOW_REPLY__ITEM_CHUNK;
    reply.chunk = &chunk;
    return rpc_call_write(call, &reply.base, attachment);
}

static void send_on(struct rpc_call *call, void *user)
{
    struct sending *sending = user;
    struct rpc_attachment attachment = { sending->data, sending->len, payload_back, sending };

    rpc_call_cork(call);
    while (sending->left > 0 && sending->send_one(call, sending, &attachment)) {
        atomic_fetch_add(&sending->fixture->writes, 1);
        sending->out++;
        sending->next++;
        sending->left -= sending->left != UINT32_MAX;
    }
    if (sending->left == 0)
        rpc_call_finish(call, NULL);
    rpc_call_uncork(call);
}

static void sending_ended(struct rpc_call *call, void *user)
{
    struct sending *sending = user;

    count_end(call, sending->fixture);
    sending->over = true;
    sending_free(sending);
}

static void start_sending(struct rpc_call *call, const struct sending *wanted)
{
    struct sending *sending = calloc(1, sizeof *sending);

    REQUIRE(sending != NULL);
    *sending = *wanted;
    sending->data = malloc(sending->len + 1);
    REQUIRE(sending->data != NULL);
    for (size_t i = 0; i < sending->len; i++)
        sending->data[i] = (uint8_t)(i * 7 + (i >> 8));
    rpc_call_set_user(call, sending);
    rpc_call_on_end(call, sending_ended);
    rpc_call_on_writable(call, send_on);
    atomic_fetch_add(&sending->fixture->opened, 1);
    send_on(call, sending);
}

static void fetch(struct rpc_call *call, void *state)
{
    const Reelkv__V1__FetchRequest *request = (const void *)rpc_call_request(call)->body;

    start_sending(call, &(struct sending){ .fixture = state,
                                           .send_one = send_slice,
                                           .len = (size_t)request->layers << 10,
                                           .left = request->first_layer });
}

static void load_window(struct rpc_call *call, void *state)
{
    const Reelkv__V1__LoadWindowRequest *request = (const void *)rpc_call_request(call)->body;

    start_sending(call, &(struct sending){ .fixture = state,
                                           .send_one = send_chunk,
                                           .len = (size_t)request->tokens << 10,
                                           .left = UINT32_MAX });
}

/* ---- payloads in ---- */

static bool ends_badly(const Reelkv__V1__AppendRequest *request, struct status *st)
{
    if (request->item_case != REELKV__V1__APPEND_REQUEST__ITEM_END || request->end->trouble[0] == '\0')
        return false;
    status_fail(st, STATUS_ABORTED, "%s", request->end->trouble);
    return true;
}

static void append_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct fixture *fixture = user;
    Reelkv__V1__AppendReply reply = REELKV__V1__APPEND_REPLY__INIT;
    struct status st = { 0 };
    uint8_t *copy;

    if (message == NULL) {
        rpc_call_finish(call, NULL);
        return;
    }
    if (ends_badly((const Reelkv__V1__AppendRequest *)message->body, &st)) {
        rpc_call_finish(call, &st);
        return;
    }
    copy = malloc(message->payload.len + 1);
    REQUIRE(copy != NULL);
    rpc_payload_copy(&message->payload, 0, copy, message->payload.len);
    reply.stored_seq = message->payload.len;
    reply.durable_seq = fixture_sum(copy, message->payload.len);
    reply.credit_bytes = ((const Reelkv__V1__AppendRequest *)message->body)->item_case;
    free(copy);
    atomic_fetch_add(&fixture->messages, 1);
    if (rpc_call_write(call, &reply.base, NULL))
        rpc_call_read(call, append_message);
}

static void append_writable(struct rpc_call *call, void *user)
{
    rpc_call_read(call, append_message);
}

static void append(struct rpc_call *call, void *state)
{
    struct fixture *fixture = state;

    atomic_fetch_add(&fixture->opened, 1);
    rpc_call_on_end(call, count_end);
    rpc_call_on_writable(call, append_writable);
    rpc_call_read(call, append_message);
}

struct collecting {
    struct fixture *fixture;
    uint64_t messages, bytes;
};

static void collect_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct collecting *collecting = user;
    Reelkv__V1__AppendReply reply = REELKV__V1__APPEND_REPLY__INIT;

    if (message != NULL) {
        collecting->messages++;
        collecting->bytes += message->payload.len;
        rpc_call_read(call, collect_message);
        return;
    }
    reply.stored_seq = collecting->messages;
    reply.durable_seq = collecting->bytes;
    rpc_call_reply(call, &reply.base, NULL);
}

static void collect_ended(struct rpc_call *call, void *user)
{
    count_end(call, ((struct collecting *)user)->fixture);
}

static void collect(struct rpc_call *call, void *state)
{
    struct collecting *collecting = arena_alloc(rpc_call_arena(call), sizeof *collecting);

    REQUIRE(collecting != NULL);
    collecting->fixture = state;
    atomic_fetch_add(&collecting->fixture->opened, 1);
    rpc_call_set_user(call, collecting);
    rpc_call_on_end(call, collect_ended);
    rpc_call_read(call, collect_message);
}

static void push_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct fixture *fixture = user;

    if (message == NULL)
        rpc_call_finish(call, NULL);
    else if (atomic_fetch_add(&fixture->messages, 1) == 0)
        fixture->stalled = call;
    else
        rpc_call_read(call, push_message);
}

static void push_ended(struct rpc_call *call, void *user)
{
    struct fixture *fixture = user;

    fixture->stalled = NULL;
    count_end(call, user);
}

static void push(struct rpc_call *call, void *state)
{
    struct fixture *fixture = state;

    atomic_fetch_add(&fixture->opened, 1);
    rpc_call_on_end(call, push_ended);
    rpc_call_read(call, push_message);
}

/* ---- the server ---- */

const struct rpc_method fixture_collect = {
    .path = "/reelkv.v1.KvStore/Collect",
    .shape = RPC_CLIENT_STREAM,
    .request = &reelkv__v1__append_request__descriptor,
    .reply = &reelkv__v1__append_reply__descriptor,
    .request_payload = { { 15, 15 } },
};

static const struct rpc_handler kvstore_rows[] = {
    { &api_get_server_info, get_server_info },
    { &api_open_stream, open_stream },
    { &api_score, score },
    { &api_timeline, timeline },
    { &api_fetch, fetch },
    { &api_append, append },
    { &fixture_collect, collect },
    { &api_load_window, load_window },
};
static const struct rpc_handler ingest_rows[] = { { &api_push, push } };

void fixture_services(struct fixture *fixture)
{
    fixture->services[0] =
        (struct rpc_service){ "reelkv.v1.KvStore", kvstore_rows, ARRAY_LEN(kvstore_rows), fixture };
    fixture->services[1] =
        (struct rpc_service){ "reelkv.v1.Ingest", ingest_rows, ARRAY_LEN(ingest_rows), fixture };
}

static void *serve(void *arg)
{
    struct fixture *fixture = arg;
    bool ok = loop_create(&fixture->loop, &fixture->failure) &&
              rpc_create(&fixture->rpc, fixture->loop, &fixture->failure) &&
              rpc_server_create(&fixture->server, fixture->rpc, &fixture->options, &fixture->failure);

    if (ok)
        snprintf(fixture->address, sizeof fixture->address, "%s", rpc_server_address(fixture->server, 0));
    pthread_barrier_wait(&fixture->started);
    if (ok)
        loop_run(fixture->loop);
    rpc_server_destroy(fixture->server);
    rpc_destroy(fixture->rpc);
    loop_destroy(fixture->loop);
    return NULL;
}

void fixture_start(struct fixture *fixture, const struct rpc_server_options *options)
{
    static const char *const any_port[] = { "127.0.0.1:0" };

    memset(fixture, 0, sizeof *fixture);
    fixture_services(fixture);
    if (options != NULL)
        fixture->options = *options;
    if (fixture->options.addresses == NULL) {
        fixture->options.addresses = any_port;
        fixture->options.address_count = 1;
    }
    fixture->options.services = fixture->services;
    fixture->options.service_count = 2;
    pthread_barrier_init(&fixture->started, NULL, 2);
    REQUIRE(pthread_create(&fixture->thread, NULL, serve, fixture) == 0);
    pthread_barrier_wait(&fixture->started);
    CHECK_OK(fixture->failure.code == STATUS_OK, fixture->failure);
}

const char *fixture_address(const struct fixture *fixture)
{
    return fixture->address;
}

static void stop(struct fixture *fixture, const struct errand *errand)
{
    loop_stop(fixture->loop);
}

void fixture_stop(struct fixture *fixture)
{
    send_errand(fixture, (struct errand){ .run = stop });
    pthread_join(fixture->thread, NULL);
    pthread_barrier_destroy(&fixture->started);
}

void fixture_release_held(struct fixture *fixture)
{
    send_errand(fixture, (struct errand){ .run = release_held });
}

static void read_on(struct fixture *fixture, const struct errand *errand)
{
    if (fixture->stalled != NULL)
        rpc_call_read(fixture->stalled, push_message);
}

void fixture_read_on(struct fixture *fixture)
{
    send_errand(fixture, (struct errand){ .run = read_on });
}

static void drain_done(void *user)
{
    struct fixture *fixture = user;

    fixture->drained = true;
}

static void drain(struct fixture *fixture, const struct errand *errand)
{
    rpc_server_drain(fixture->server, errand->lame_ms, errand->drain_ms, drain_done, fixture);
}

void fixture_drain(struct fixture *fixture, uint32_t lame_ms, uint32_t drain_ms)
{
    send_errand(fixture, (struct errand){ .run = drain, .lame_ms = lame_ms, .drain_ms = drain_ms });
}
