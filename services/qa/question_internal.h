/* question_internal.h - the question's struct, shared by question.c (the call, loop thread) and answer.c (the work,
 * question thread). */
#ifndef REELKV_QA_QUESTION_INTERNAL_H
#define REELKV_QA_QUESTION_INTERNAL_H

#include "evidence.h"
#include "question.h"
#include "reelkv/v1/qa.pb-c.h"
#include "retriever.h"
#include "rpc/api.h"

enum { EVIDENCE_THUMBNAILS_MAX = 32, NOTES_MAX = 10, NOTE_BYTES = 192 };

struct question {
    struct qa *qa;
    struct rpc_call *call;             /* held until the thread is done */
    const Reelkv__V1__AskRequest *ask; /* as long as the call */
    struct log_context log;
    bool over; /* the call has ended */
    struct store_calls calls;

    struct retriever_stream streams[LIMIT_STREAMS_PER_QUESTION];
    uint32_t stream_count;
    uint32_t links_missing; /* handshakes not answered yet */
    struct retriever_options retrieve;
    uint32_t max_tokens;

    struct work work;
    bool running; /* submitted and not done */
    bool ok;
    struct status failure;
    struct reply *first; /* replies the call has no room for yet, in order */
    struct reply **last_link;

    /* The question thread's own. */
    struct retriever *retriever;
    struct retriever_view view;
    struct model_question *model_question;
    struct evidence evidence;
    uint64_t started_ns, pass1_ns, prompt_ns, decode_ns;
    uint32_t question_tokens, answer_tokens;
    uint32_t *answer_ids;
};

/* Something to send; `data` owns what the message points to. Posted by the question thread, sent by the loop. */
struct reply {
    struct letter letter;
    struct question *question;
    Reelkv__V1__AskReply message;
    struct arena memory; /* of the message's parts */
    struct reply *next;
};

/* question.c: hands the reply to the loop; it is the loop's from here. */
void question_post(struct reply *reply);
void reply_free(struct reply *reply);

/* answer.c: the whole work, on a question thread. False: question->failure says why. */
bool question_answer(struct question *question);

#endif
