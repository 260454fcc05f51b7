#include "encoder_world.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "rpc/api.h"
#include "support/test.h"
#include "support/video.h"

/* ------------------------------------------------------------------------------------------- vision */

static uint32_t picture_number(const struct model_picture *picture)
{
    return video_number(picture->rgb, picture->width, picture->height);
}

static bool encode(void *arg, const struct model_picture *pictures, uint32_t count, float *out,
                   struct status *st)
{
    struct world *world = arg;

    if (world->encode_ms > 0)
        usleep(world->encode_ms * 1000);
    if (world->encode_fails > 0) {
        world->encode_fails--;
        return status_fail(st, STATUS_EXHAUSTED, "the vision tower is told to fail");
    }
    for (uint32_t i = 0; i < count; i++)
        if (world->bad_picture > 0 && picture_number(&pictures[i]) == world->bad_picture)
            return status_fail(st, STATUS_INTERNAL, "the vision tower cannot bear this picture");
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < WORLD_TOKENS * WORLD_HIDDEN; j++)
            *out++ = (float)(picture_number(&pictures[i]) * 100 + j);
    return true;
}

static bool compress(void *arg, float *embeddings, uint32_t *tokens_p, struct status *st)
{
    return true;
}

/* -------------------------------------------------------------------------------------------- store */

static struct world_stream *find(struct world *world, const Reelkv__V1__StreamId *id)
{
    for (uint32_t i = 0; i < world->stream_count; i++)
        if (strcmp(world->streams[i].name, id->name) == 0 && !world->streams[i].missing)
            return &world->streams[i];
    return NULL;
}

static void get_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__GetStreamRequest *request =
        (const Reelkv__V1__GetStreamRequest *)rpc_call_request(call)->body;
    struct world_stream *stream = find(state, request->id);
    Reelkv__V1__StreamStatus status = REELKV__V1__STREAM_STATUS__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    struct status st = { 0 };

    CHECK(request->with_secret);
    if (stream == NULL) {
        status_fail(&st, STATUS_NOT_FOUND, "no such stream");
        rpc_call_finish(call, &st);
        return;
    }
    definition.id = request->id;
    definition.source = stream->source;
    definition.kind =
        stream->live ? REELKV__V1__SOURCE_KIND__SOURCE_KIND_LIVE : REELKV__V1__SOURCE_KIND__SOURCE_KIND_FILE;
    definition.sample_fps =
        stream->sample_fps > 0 ? stream->sample_fps : 25; /* a store fills in its own rate */
    definition.start_time_ns = stream->live ? 0 : stream->origin_ns;
    definition.created_ns = stream->live ? stream->origin_ns : 1;
    status.definition = &definition;
    status.state = stream->state;
    status.next_seq = stream->durable;
    rpc_call_reply(call, &status.base, NULL);
}

static void report_trouble(struct rpc_call *call, void *state)
{
    const Reelkv__V1__ReportTroubleRequest *request =
        (const Reelkv__V1__ReportTroubleRequest *)rpc_call_request(call)->body;
    Reelkv__V1__ReportTroubleReply reply = REELKV__V1__REPORT_TROUBLE_REPLY__INIT;
    struct world_stream *stream = find(state, request->id);

    CHECK(stream != NULL);
    snprintf(stream->reported, sizeof stream->reported, "%s", request->trouble);
    stream->reports++;
    rpc_call_reply(call, &reply.base, NULL);
}

/* ----------------------------------------------------------------------------------------- analyzer */

struct world_push {
    struct world *world;
    struct world_stream *stream;
    uint32_t frames;
    struct rpc_call *call;
    struct loop_timer ack_timer;
};

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user);

static void send_ack(struct rpc_call *call, struct world_push *push, uint64_t durable)
{
    Reelkv__V1__IngestAck ack = REELKV__V1__INGEST_ACK__INIT;
    Reelkv__V1__PushReply reply = REELKV__V1__PUSH_REPLY__INIT;

    push->stream->durable = durable;
    ack.stored_seq = push->stream->received + (push->world->lie ? 100 : 0);
    ack.durable_seq = durable;
    ack.credits = push->world->credits;
    reply.item_case = REELKV__V1__PUSH_REPLY__ITEM_ACK;
    reply.ack = &ack;
    CHECK(rpc_call_write(call, &reply.base, NULL));
}

static void ack_frames(struct world_push *push)
{
    struct world_stream *stream = push->stream;
    uint32_t lag = push->world->durable_lag;

    send_ack(push->call, push,
             stream->received - stream->durable > lag ? stream->received - lag : stream->durable);
}

static void ack_later(struct loop_timer *timer)
{
    ack_frames(container_of(timer, struct world_push, ack_timer));
}

static void take_hello(struct rpc_call *call, struct world_push *push, const Reelkv__V1__IngestHello *hello)
{
    Reelkv__V1__IngestReady ready = REELKV__V1__INGEST_READY__INIT;
    Reelkv__V1__PushReply reply = REELKV__V1__PUSH_REPLY__INIT;

    CHECK(push->stream == NULL);
    push->stream = find(push->world, hello->id);
    CHECK(push->stream != NULL);
    CHECK_STR(hello->store, "store-0");
    snprintf(push->stream->encoder, sizeof push->stream->encoder, "%s", hello->encoder);
    CHECK_EQ(hello->fingerprint.len, MODEL_FINGERPRINT_BYTES);
    CHECK_MEM(hello->fingerprint.data, push->world->vision.fingerprint, MODEL_FINGERPRINT_BYTES);
    push->stream->hellos++;
    push->stream->expected_frames = hello->expected_frames;
    if (push->world->refuse.code != STATUS_OK) {
        rpc_call_finish(call, &push->world->refuse);
        return;
    }
    push->stream->call = call;
    if (!push->world->remembers)
        push->stream->received = push->stream->durable;
    ready.epoch = push->stream->hellos;
    ready.next_seq = push->stream->received;
    ready.durable_seq = push->stream->durable;
    ready.credits = push->world->credits;
    reply.item_case = REELKV__V1__PUSH_REPLY__ITEM_READY;
    reply.ready = &ready;
    CHECK(rpc_call_write(call, &reply.base, NULL));
}

/* A frame of the world's own vision tower: it knows the number that the picture shows. */
static void check_frame(struct world_stream *stream, const Reelkv__V1__IngestFrame *frame,
                        const struct rpc_payload *payload)
{
    float embeddings[WORLD_TOKENS * WORLD_HIDDEN];
    uint32_t number;

    CHECK_EQ(frame->tokens, WORLD_TOKENS);
    CHECK_EQ(frame->hidden, WORLD_HIDDEN);
    CHECK_EQ(payload->len, sizeof embeddings);
    rpc_payload_copy(payload, 0, embeddings, sizeof embeddings);
    for (uint32_t j = 1; j < WORLD_TOKENS * WORLD_HIDDEN; j++)
        CHECK_EQ(embeddings[j], embeddings[0] + (float)j);
    number = (uint32_t)embeddings[0] / 100;
    /* A frame that comes again is the same frame. */
    CHECK(stream->kind[frame->seq] != 1 ||
          (stream->number[frame->seq] == number && stream->pts_ns[frame->seq] == frame->pts_ns));
    stream->number[frame->seq] = number;
}

static void take_frame(struct rpc_call *call, struct world_push *push, const Reelkv__V1__IngestFrame *frame,
                       const struct rpc_payload *payload)
{
    struct world_stream *stream = push->stream;
    struct status st = { 0 };
    uint64_t in_flight;

    CHECK_EQ(frame->seq, stream->received);
    CHECK(frame->seq < WORLD_FRAMES_MAX);
    if (push->world->refuse_frame.code != STATUS_OK && frame->seq == push->world->refuse_seq) {
        rpc_call_finish(call, &push->world->refuse_frame);
        return;
    }
    CHECK(frame->thumbnail.len > 4 && frame->thumbnail.len <= LIMIT_THUMBNAIL_BYTES);
    CHECK(frame->thumbnail.data[0] == 0xff && frame->thumbnail.data[1] == 0xd8);
    if (push->world->inspect != NULL)
        push->world->inspect(push->world, frame, payload);
    else
        check_frame(stream, frame, payload);
    stream->kind[frame->seq] = 1;
    stream->pts_ns[frame->seq] = frame->pts_ns;
    stream->received = frame->seq + 1;
    stream->frames_in_all++;
    in_flight = stream->received - (push->world->silent ? stream->durable : stream->received - 1);
    if (in_flight > stream->most_in_flight)
        stream->most_in_flight = (uint32_t)in_flight;
    if (push->world->break_after > 0 && ++push->frames >= push->world->break_after) {
        status_fail(&st, STATUS_UNAVAILABLE, "the analyzer is told to break");
        rpc_call_finish(call, &st);
        return;
    }
    if (push->world->ack_ms > 0 && !loop_timer_is_running(&push->ack_timer))
        loop_timer_start(push->world->loop, &push->ack_timer, push->world->ack_ms, ack_later);
    else if (push->world->ack_ms == 0 && !push->world->silent)
        ack_frames(push);
}

static void take_gap(struct rpc_call *call, struct world_push *push, const Reelkv__V1__IngestGap *gap)
{
    struct world_stream *stream = push->stream;

    CHECK_EQ(gap->from_seq, stream->received);
    CHECK(gap->to_seq > gap->from_seq && gap->to_seq <= WORLD_FRAMES_MAX);
    CHECK(gap->from_pts_ns <= gap->to_pts_ns);
    memset(stream->kind + gap->from_seq, 2, gap->to_seq - gap->from_seq);
    snprintf(stream->gap_reason, sizeof stream->gap_reason, "%s", gap->reason);
    stream->received = gap->to_seq;
    stream->gaps++;
    if (!push->world->silent)
        send_ack(call, push, stream->received);
}

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct world_push *push = user;
    const Reelkv__V1__PushRequest *request =
        message != NULL ? (const Reelkv__V1__PushRequest *)message->body : NULL;

    if (request == NULL) {
        loop_timer_stop(&push->ack_timer);
        send_ack(call, push, push->stream->received);
        rpc_call_finish(call, NULL);
        return;
    }
    switch (request->item_case) {
    case REELKV__V1__PUSH_REQUEST__ITEM_HELLO:
        take_hello(call, push, request->hello);
        break;
    case REELKV__V1__PUSH_REQUEST__ITEM_FRAME:
        take_frame(call, push, request->frame, &message->payload);
        break;
    case REELKV__V1__PUSH_REQUEST__ITEM_GAP:
        take_gap(call, push, request->gap);
        break;
    case REELKV__V1__PUSH_REQUEST__ITEM_END:
        push->stream->ends++;
        snprintf(push->stream->end_trouble, sizeof push->stream->end_trouble, "%s", request->end->trouble);
        break;
    default:
        CHECK(!"a message with nothing in it");
    }
    rpc_call_read(call, on_message);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct world_push *push = user;

    if (push->stream != NULL && push->stream->call == call)
        push->stream->call = NULL;
    loop_timer_stop(&push->ack_timer);
    free(push);
}

static void open_push(struct rpc_call *call, void *state)
{
    struct world_push *push = calloc(1, sizeof *push);

    CHECK(push != NULL);
    push->world = state;
    push->call = call;
    rpc_call_set_user(call, push);
    rpc_call_on_end(call, on_end);
    rpc_call_read(call, on_message);
}

/* ------------------------------------------------------------------------------------------- places */

static bool find_store(void *user, const char *store, char address[DIRECTORY_ADDRESS_BYTES],
                       struct status *st)
{
    struct world *world = user;

    CHECK_STR(store, "store-0");
    snprintf(address, DIRECTORY_ADDRESS_BYTES, "%s", world->address);
    return true;
}

static bool find_analyzer(void *user, const char *ns, const char *name, char address[DIRECTORY_ADDRESS_BYTES],
                          struct status *st)
{
    struct world *world = user;

    if (world->absent)
        return status_fail(st, STATUS_UNAVAILABLE, "there is no analyzer in the directory now");
    snprintf(address, DIRECTORY_ADDRESS_BYTES, "%s", world->address);
    return true;
}

/* -------------------------------------------------------------------------------------------- world */

struct world *world_create(void)
{
    static const struct rpc_handler catalog[] = { { &api_get_stream, get_stream },
                                                  { &api_report_trouble, report_trouble } };
    static const struct rpc_handler ingest[] = { { &api_push, open_push } };
    struct world *world = calloc(1, sizeof *world);
    struct rpc_service services[] = { { "reelkv.v1.Catalog", catalog, ARRAY_LEN(catalog), world },
                                      { "reelkv.v1.Ingest", ingest, 1, world } };
    static struct rpc_service kept[2];
    const char *addresses[] = { "127.0.0.1:0" };
    struct rpc_server_options server = {
        .addresses = addresses, .address_count = 1, .services = kept, .service_count = 2
    };
    struct status st = { 0 };

    CHECK(world != NULL);
    memcpy(kept, services, sizeof kept);
    CHECK_OK(loop_create(&world->loop, &st), st);
    CHECK_OK(rpc_create(&world->rpc, world->loop, &st), st);
    CHECK_OK(rpc_server_create(&world->server, world->rpc, &server, &st), st);
    snprintf(world->address, sizeof world->address, "%s", rpc_server_address(world->server, 0));
    world->credits = 8;
    world->vision = (struct vision){ WORLD_TOKENS, WORLD_HIDDEN, { 7 }, encode, compress, world };
    world->encoder = (struct encoder){
        .name = "encoder-0",
        .capture_program = REELKV_BIN_DIR "/reelkv-capture",
        .slots = 3,
        .keep_frames = 16,
        .picture_bytes_max = 4 << 20,
        .open_timeout_ms = 5000,
        .stall_timeout_ms = 3000,
        .loop = world->loop,
        .vision = &world->vision,
        .peers = { .rpc = world->rpc },
        .places = { find_store, find_analyzer, world },
    };
    CHECK_OK(batch_create(&world->encoder.batch, world->loop, &world->vision, 4, &st), st);
    return world;
}

void world_destroy(struct world *world)
{
    for (uint32_t i = 0; i < world->stream_count; i++)
        stream_destroy(world->streams[i].stream);
    while (world->encoder.retired > 0 || world->encoder.peers.first != NULL)
        loop_run_once(world->loop);
    batch_destroy(world->encoder.batch);
    rpc_server_destroy(world->server);
    rpc_destroy(world->rpc);
    loop_destroy(world->loop);
    free(world);
}

struct world_stream *world_add(struct world *world, const char *name, const char *source)
{
    struct world_stream *stream = &world->streams[world->stream_count++];

    CHECK(world->stream_count <= WORLD_STREAMS_MAX);
    snprintf(stream->name, sizeof stream->name, "%s", name);
    snprintf(stream->source, sizeof stream->source, "%s", source);
    stream->origin_ns = 1700000000000000000;
    stream->state = REELKV__V1__STREAM_STATE__STREAM_STATE_WAITING;
    return stream;
}

static void over(struct stream *stream, enum stream_end end, void *user)
{
    struct world_stream *own = user;

    CHECK(!own->over);
    own->over = true;
    own->end = end;
    stream_destroy(stream);
    own->stream = NULL;
}

void world_start(struct world *world, struct world_stream *stream)
{
    const struct stream_options options = { "default", stream->name, "store-0", over, stream };
    struct status st = { 0 };

    stream->over = false;
    CHECK_OK(stream_start(&stream->stream, &world->encoder, &options, &st), st);
}

struct ticker {
    struct loop_timer timer;
    struct loop *loop;
};

static void tick(struct loop_timer *timer)
{
    loop_timer_start(container_of(timer, struct ticker, timer)->loop, timer, 10, tick);
}

static bool turn_until(struct world *world, bool (*holds)(struct world *world), uint32_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)timeout_ms * 1000000;
    struct ticker ticker = { .loop = world->loop };
    bool held;

    tick(&ticker.timer);
    while (!(held = holds(world)) && clock_mono_ns() < end_ns)
        loop_run_once(world->loop);
    loop_timer_stop(&ticker.timer);
    return held;
}

void world_until(struct world *world, bool (*holds)(struct world *world), uint32_t timeout_ms)
{
    if (!turn_until(world, holds, timeout_ms))
        test_fail(__FILE__, __LINE__,
                  "what was waited for did not come in %u ms (%llu received, %llu durable)", timeout_ms,
                  (unsigned long long)world->streams[0].received,
                  (unsigned long long)world->streams[0].durable);
}

static bool never(struct world *world)
{
    return false;
}

void world_for(struct world *world, uint32_t ms)
{
    turn_until(world, never, ms);
}

bool world_all_over(struct world *world)
{
    for (uint32_t i = 0; i < world->stream_count; i++)
        if (!world->streams[i].over)
            return false;
    return true;
}

void world_break(struct world_stream *stream)
{
    struct status st = { 0 };

    status_fail(&st, STATUS_UNAVAILABLE, "the analyzer is gone");
    if (stream->call != NULL)
        rpc_call_finish(stream->call, &st);
}

void world_forget(struct world *world, struct world_stream *stream, uint64_t seq)
{
    stream->durable = seq;
    stream->received = seq;
    world_break(stream);
}

uint32_t world_check(const struct world_stream *stream, uint64_t count, uint32_t step)
{
    uint32_t frames = 0;

    CHECK_EQ(stream->durable, count);
    for (uint64_t seq = 0; seq < count; seq++) {
        CHECK(stream->kind[seq] != 0);
        if (stream->kind[seq] != 1)
            continue;
        if (step > 0)
            CHECK_EQ(stream->number[seq], seq * step);
        frames++;
    }
    return frames;
}
