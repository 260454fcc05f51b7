/* The store's handlers: calls and their messages as bytes, against a store that has one stream, with INIT, frames and a gap. The
 * store runs on the loop and disk of tests/simulation: nothing is waited for, and an input does the same each time.
 *
 * An input is steps: a byte that says what, one for the length, the bytes. What: 0 to 61, a call is opened (modulo their
 * number); one that takes many messages becomes the one that later steps send to, one that is not over then stays open beside
 * it; 62 and 63, the newest Prefetch is cancelled by its ticket; 64 to 191, a message; 192 to 223, its client's end; from 224
 * on, it is cancelled. After each step the loop turns until the handler waits for more. */
#include "fuzz_calls.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fuzz.h"
#include "fuzz_call.h"
#include "kvstore/kvstore.h"
#include "kvstore/kvstore_watch.h"
#include "simulation/sim_disk.h"
#include "simulation/sim_loop.h"
#include "unit/kvstore_fixture.h"

enum { FRAMES = 3, TURNS_MAX = 100, STEPS_MAX = 32, CANCEL_NEWEST = 62 };

static struct fixture fixture;
static struct kvstore kvstore;
static struct kvstore_options options;
static struct rpc_call *talk;   /* the call that steps send to; NULL: none */
static struct rpc_call *beside; /* one that takes no more and is not over; NULL: none */
static uint64_t epoch;          /* of the stream, as built */
static uint64_t newest_ticket;  /* of the last PrefetchReply; 0: none came */

static const struct rpc_handler handlers[] = {
#define HANDLER(constant, name) { &api_##name, kvstore_##name },
    FUZZ_CALLS(HANDLER)
#undef HANDLER
};

/* --- the store --- */

static void build(void)
{
    struct fixture_writer writer;
    struct stream *stream;

    sim_disk_start(sim_random());
    fixture_open(&fixture);
    kvstore.loop = fixture.loop;
    kvstore.store = fixture.store;
    stream = fixture_write(&fixture, "cam-1", &writer, FRAMES);
    REQUIRE(fixture_append_gap(stream, 2, "away", &fixture.st));
    fixture_wait_durable(&fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&fixture, stream);
    epoch = stream->epoch;
}

static void hear(const ProtobufCMessage *message, const struct rpc_attachment *attachment)
{
    (void)attachment;
    if (message->descriptor == &reelkv__v1__prefetch_reply__descriptor)
        newest_ticket = ((const Reelkv__V1__PrefetchReply *)message)->ticket;
}

static void start(void)
{
    log_init("fuzz", LOG_ERROR);
    fixture.options = (struct store_options){ .name = "kv-a",
                                              .root = "/data",
                                              .ram_bytes = 8 << 20,
                                              .disk_bytes = 64 << 20,
                                              .segment_bytes_max = 1 << 20,
                                              .commit_ms = 5,
                                              .reading_threads = 2,
                                              .computing_threads = 2,
                                              .writing_threads = 2,
                                              .disk = &sim_disk };
    options = (struct kvstore_options){
        .name = "kv-a", .disk_budget_bytes = 64 << 20, .append_wait_ms = 20, .sample_fps = 1
    };
    kvstore.options = &options;
    fuzz_call_show(hear);
    REQUIRE(kvstore_watches_create(&kvstore.watches, &kvstore, &fixture.st));
    build();
}

/* As it was before the input, which may have written to it, or defined, held and removed. */
static void restore(void)
{
    struct stream *stream = store_find(fixture.store, "default", "cam-1");

    if (fixture.store->stream_count == 1 && stream != NULL && stream->epoch == epoch &&
        stream->holds == NULL && stream->forgets == NULL) {
        stream_set_encoder_says(stream, "");
        return;
    }
    fixture_stop(&fixture);
    sim_disk_stop();
    build();
}

/* --- an input --- */

static void turn_until_idle(const struct rpc_call *call)
{
    struct loop_timer tick = { 0 };

    for (uint32_t i = 0; i < TURNS_MAX && !fuzz_call_is_idle(call); i++) {
        if (!loop_timer_is_running(&tick))
            loop_timer_start(fixture.loop, &tick, 1, fixture_tick);
        loop_run_once(fixture.loop);
    }
    loop_timer_stop(&tick);
}

static void end(struct rpc_call **call_p)
{
    if (*call_p != NULL)
        fuzz_call_let_go(*call_p);
    *call_p = NULL;
}

static void open_call(const struct rpc_handler *handler, const uint8_t *data, size_t len)
{
    struct rpc_call *call = fuzz_call_open(fixture.loop, handler, &kvstore, data, len);
    struct rpc_call **place = handler->method->shape == RPC_BIDI ? &talk : &beside;

    if (call == NULL)
        return;
    turn_until_idle(call);
    if (place == &beside && fuzz_call_is_over(call)) {
        fuzz_call_let_go(call);
        return;
    }
    end(place);
    *place = call;
}

static void cancel_newest(void)
{
    Reelkv__V1__CancelPrefetchRequest request = REELKV__V1__CANCEL_PREFETCH_REQUEST__INIT;
    uint8_t bytes[16];

    request.ticket = newest_ticket;
    open_call(&handlers[FUZZ_CALL_CANCEL_PREFETCH], bytes,
              protobuf_c_message_pack(&request.base, bytes)); /* a number of 64 bits and its tag */
}

static void step(uint8_t what, const uint8_t *data, size_t len)
{
    if (what < CANCEL_NEWEST)
        open_call(&handlers[what % ARRAY_LEN(handlers)], data, len);
    else if (what < FUZZ_STEP_MESSAGE)
        cancel_newest();
    if (what < FUZZ_STEP_MESSAGE || talk == NULL || fuzz_call_is_over(talk) || !fuzz_call_is_idle(talk))
        return;
    if (what < FUZZ_STEP_END)
        fuzz_call_send(talk, data, len);
    else if (what < FUZZ_STEP_CANCEL)
        fuzz_call_half_close(talk);
    else
        end(&talk);
    if (talk != NULL)
        turn_until_idle(talk);
}

static void run(const uint8_t *data, size_t len)
{
    for (uint32_t steps = 0; len >= 2 && steps < STEPS_MAX; steps++) {
        size_t bytes = data[1] < len - 2 ? data[1] : len - 2;

        step(data[0], data + 2, bytes);
        data += 2 + bytes;
        len -= 2 + bytes;
    }
    end(&talk);
    end(&beside);
    FIXTURE_TURN_UNTIL(&fixture, fuzz_calls_alive() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (fixture.store == NULL) {
        sim_start(1);
        start();
    }
    sim_go_on(1);
    run(data, len);
    restore();
    sim_stop(); /* the fuzzer's own clock is the real one */
    return 0;
}
