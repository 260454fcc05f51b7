/* question.h - one Ask call from request to last token.
 *
 *   loop thread    check -> find the stores -> shared memory -> submit                    replies -> finish -> free
 *   question thread                                            \-> retrieve -> answer -> /
 *
 * Pass 1 runs the bare question; each layer's own query chooses that layer's frames. The evidence goes out. Pass 2
 * runs the prompt over what was chosen, then decodes greedily; text goes out in whole UTF-8 sequences.
 *
 * Owner:  itself, from question_open() until its call is over and its thread is done.
 * Thread: as drawn. Between the two go letters: the replies.
 * Fails:  INVALID with what to change, NOT_FOUND for unknown streams, OUT_OF_RANGE for views with nothing in them,
 *         EXHAUSTED when max_waiting questions wait, UNAVAILABLE naming the store.
 * Bounds: max_questions at once; a cancelled one stops at the next layer or token, and waits for no store. */
#ifndef REELKV_QA_QUESTION_H
#define REELKV_QA_QUESTION_H

#include "qa.h"

/* Takes a new Ask call. */
void question_open(struct rpc_call *call, void *qa);

#endif
