/* questions.h - questions about a world, each with exactly one right answer and the samples that prove it. */
#ifndef TRUTHCAM_QUESTIONS_H
#define TRUTHCAM_QUESTIONS_H

#include <stdio.h>

#include "world.h"

enum question_kind {
    ASK_COLOR,
    ASK_SHAPE,
    ASK_WHERE,
    ASK_DID,
    ASK_COUNT,
    ASK_FIRST,
    ASK_NOW,
    QUESTION_KINDS
};
extern const char *const question_kind_names[QUESTION_KINDS];

enum { QUESTION_TEXT_BYTES = 128, ANSWER_TEXT_BYTES = 32, EVIDENCE_MAX = 8 };

struct question {
    enum question_kind kind;
    char text[QUESTION_TEXT_BYTES];
    char answer[ANSWER_TEXT_BYTES];
    bool has_as_of;
    uint32_t as_of_sample; /* asked just after this sample was taken */
    uint32_t
        evidence[EVIDENCE_MAX]; /* objects whose spans prove the answer; none for a true "no" or "nothing" */
    uint32_t evidence_count;
    bool distractors; /* another object shares the shape or the colour of what is asked about */
};

/* Up to `wanted` (at most QUESTIONS_MAX) questions, the kinds in turn, into `questions` (room for `wanted`). A
 * kind for which the world has no further unambiguous question drops out; when most kinds have, asking ends,
 * so that no kind outweighs the rest. Returns how many were made. Questions do not repeat. */
uint32_t questions_make(const struct world *world, uint32_t wanted, struct question *questions);

/* Every question text and every answer there can be, one a line: what a tokenizer must know. */
void vocabulary_print(FILE *out);

#endif
