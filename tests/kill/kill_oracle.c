#include "kill_oracle.h"

#include "simulation/sim_random.h"

enum { RUN = 16 }; /* numbers that share a dice: whether some of them are a gap */

struct kill_counts kill_counts;
static uint64_t budget_bytes;
static _Atomic uint64_t offered_bytes;

static uint64_t mix(uint64_t a, uint64_t b)
{
    struct sim_random random = { .state = a ^ (b * 0xd1342543de82ef95ull) };

    return sim_next(&random);
}

void kill_stream_init(struct kill_stream *stream, uint64_t seed, uint32_t number)
{
    *stream = (struct kill_stream){ .seed = mix(seed, number) };
    snprintf(stream->name, sizeof stream->name, "cam-%u", number);
}

void kill_stream_is_gone(struct kill_stream *stream)
{
    stream->is_there = stream->is_making = false;
    stream->epoch = stream->tokens_seq = stream->tokens = 0;
    stream->offered = stream->stored = stream->durable = 0;
    stream->life++;
    stream->is_removing = false;
}

static uint64_t key_of(const struct kill_stream *stream)
{
    return mix(stream->seed, stream->life);
}

bool kill_is_gap(const struct kill_stream *stream, uint64_t seq)
{
    uint64_t dice = mix(key_of(stream), seq / RUN), at = seq % RUN;

    return dice % 4 == 0 && at >= 3 && at < 4 + (dice >> 8) % 6;
}

uint32_t kill_tokens(const struct kill_stream *stream, uint64_t seq)
{
    return 1 + (uint32_t)(mix(key_of(stream) + 1, seq) % KILL_TOKENS_MAX);
}

uint64_t kill_token_index(struct kill_stream *stream, uint64_t seq)
{
    if (seq < stream->tokens_seq)
        stream->tokens_seq = stream->tokens = 0;
    for (; stream->tokens_seq < seq; stream->tokens_seq++)
        if (!kill_is_gap(stream, stream->tokens_seq))
            stream->tokens += kill_tokens(stream, stream->tokens_seq);
    return KILL_INIT_TOKENS + stream->tokens;
}

uint64_t kill_frames_below(const struct kill_stream *stream, uint64_t seq)
{
    uint64_t frames = 0;

    for (uint64_t i = 0; i < seq; i++)
        frames += !kill_is_gap(stream, i);
    return frames;
}

/* f16 numbers between -2 and 2. */
void kill_payload(const struct kill_stream *stream, uint64_t seq, uint8_t *payload, uint64_t bytes)
{
    struct sim_random random = { .state = mix(key_of(stream) + 2, seq) };

    for (uint64_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t word = (sim_next(&random) & 0x83ff83ff83ff83ffull) | 0x3800380038003800ull;

        memcpy(payload + at, &word, bytes - at < sizeof word ? bytes - at : sizeof word);
    }
}

void kill_ask(struct kill_question *question, struct kill_stream *stream)
{
    question->stream = stream;
    question->life = stream->life;
    question->durable = stream->durable;
    question->was_removing = stream->is_removing;
}

bool kill_counts_still(const struct kill_question *question)
{
    const struct kill_stream *stream = question->stream;

    return !question->was_removing && !stream->is_removing && question->life == stream->life;
}

static void check_bytes(const struct kill_question *question, uint64_t seq, uint32_t layer,
                        const uint8_t *got, uint64_t bytes)
{
    static _Thread_local uint8_t want[1 << 16];
    const struct kill_stream *stream = question->stream;
    uint32_t tokens = kill_tokens(stream, seq);
    uint64_t all = kv_payload_bytes(&client_geometry, tokens);
    uint64_t at = payload_layer_offset(&client_geometry, tokens, layer);

    REQUIRE(all <= sizeof want);
    CHECK_EQ(bytes, 2 * kv_slice_bytes(&client_geometry, tokens));
    kill_payload(stream, seq, want, all);
    if (memcmp(got, want + at, bytes) != 0 && kill_counts_still(question))
        test_fail(__FILE__, __LINE__, "WRONG: %s number %llu layer %u", stream->name, (unsigned long long)seq,
                  layer);
}

static bool may_be_evicted(void)
{
    return budget_bytes > 0 && offered_bytes >= budget_bytes / 4;
}

void kill_check_answer(const struct kill_question *question, uint64_t seq, Reelkv__V1__FrameResult result,
                       uint32_t at, const uint8_t *layer, uint64_t bytes)
{
    const struct kill_stream *stream = question->stream;
    bool is_gap, is_right;

    if (!kill_counts_still(question))
        return;
    is_gap = kill_is_gap(stream, seq);
    switch (result) {
    case REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK:
        is_right = !is_gap && seq < stream->offered;
        break;
    case REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP:
        is_right = is_gap && seq < stream->offered;
        break;
    case REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED: /* gaps too, when what is remembered of them has become one */
        is_right = seq < stream->offered && may_be_evicted();
        kill_counts.evicted++;
        break;
    case REELKV__V1__FRAME_RESULT__FRAME_RESULT_NOT_FOUND:
        is_right = seq >= question->durable;
        break;
    default:
        is_right = false;
    }
    if (!kill_counts_still(question))
        return;
    if (!is_right)
        test_fail(__FILE__, __LINE__,
                  "%s: %s number %llu, a %s, answers %d; acked durable below %llu, offered below %llu",
                  result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_NOT_FOUND ? "LOST" : "WRONG", stream->name,
                  (unsigned long long)seq, is_gap ? "gap" : "frame", (int)result,
                  (unsigned long long)question->durable, (unsigned long long)stream->offered);
    kill_counts.compared++;
    if (layer != NULL)
        check_bytes(question, seq, at, layer, bytes);
}

void kill_budget(uint64_t disk_bytes)
{
    budget_bytes = disk_bytes;
    offered_bytes = 0;
}

void kill_offer(struct kill_stream *stream, uint64_t to_seq, uint64_t bytes)
{
    static const uint64_t header_bytes = 4096;

    if (to_seq > stream->offered)
        stream->offered = to_seq;
    offered_bytes += bytes + header_bytes;
}
