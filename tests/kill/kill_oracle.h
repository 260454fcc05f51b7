/* kill_oracle.h - what a store that is killed again and again was offered and what it acked, and what it may say then.
 *
 * Every number of a stream is a frame or part of a gap, and every byte of a frame is given, by the seed, the stream and
 * the number. A stream that is removed and made again is another one (`life`): what the old one had must not be seen.
 *
 * Thread: numbers that grow while the store runs are atomic; the rest changes in its writer's thread, or while none runs.
 * Fails:  test_fail() ends the program. */
#ifndef REELKV_TEST_KILL_ORACLE_H
#define REELKV_TEST_KILL_ORACLE_H

#include <stdatomic.h>

#include "integration/kvstore_client.h"

enum { KILL_STREAMS = 4, KILL_TOKENS_MAX = CLIENT_TOKENS, KILL_INIT_TOKENS = 5 };

struct kill_stream {
    char name[32];
    uint64_t seed;
    atomic_uint life;
    atomic_bool is_there;        /* its definition was acked, its removal was not asked for */
    bool is_making;              /* nobody knows: the call was cut */
    atomic_bool is_removing;     /* nobody knows since the call began */
    uint64_t epoch;              /* acked */
    _Atomic uint64_t offered;    /* every number below was sent, or is there */
    _Atomic uint64_t stored;     /* acked, in memory; this life of the store */
    _Atomic uint64_t durable;    /* acked, on the disk; ever */
    uint64_t tokens_seq, tokens; /* of the numbers below tokens_seq; for kill_token_index() */
};

/* What happened, over all seeds. */
struct kill_counts {
    _Atomic uint64_t kills, kills_at_start, kills_at_end, frames, gaps, resent, removed, compared, evicted;
};
extern struct kill_counts kill_counts;

void kill_stream_init(struct kill_stream *stream, uint64_t seed, uint32_t number);
void kill_stream_is_gone(struct kill_stream *stream); /* what comes is another one */

bool kill_is_gap(const struct kill_stream *stream, uint64_t seq);
uint32_t kill_tokens(const struct kill_stream *stream, uint64_t seq);
/* The first token's of this number; numbers are asked for in any order. */
uint64_t kill_token_index(struct kill_stream *stream, uint64_t seq);
uint64_t kill_frames_below(const struct kill_stream *stream, uint64_t seq);

/* `seq` KILL_INIT: the system prompt's. */
#define KILL_INIT UINT64_MAX
void kill_payload(const struct kill_stream *stream, uint64_t seq, uint8_t *payload, uint64_t bytes);

/* A reader's question of one stream: what was acked before it was asked. What it hears counts only when the stream was
 * neither removed nor made meanwhile. */
struct kill_question {
    struct kill_stream *stream;
    unsigned life;
    uint64_t durable;
    bool was_removing;
};
void kill_ask(struct kill_question *question, struct kill_stream *stream);
bool kill_counts_still(const struct kill_question *question);

/* Whether this may be the answer for the number; `layer` (NULL: none came) is K and V of layer `at`. */
void kill_check_answer(const struct kill_question *question, uint64_t seq, Reelkv__V1__FrameResult result,
                       uint32_t at, const uint8_t *layer, uint64_t bytes);

/* Bytes that were offered of all streams since kill_budget() was said: nothing is evicted below a quarter of it. 0: nothing
 * is ever evicted. */
void kill_budget(uint64_t disk_bytes);
void kill_offer(struct kill_stream *stream, uint64_t to_seq, uint64_t bytes);

#endif
