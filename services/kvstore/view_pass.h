/* view_pass.h - a layer of a view, scored and chosen from, on a computing thread.
 *
 * Exactly: chunks from the newest to the oldest, some of them beside each other, for runs of memory come faster so than one
 * after the other; what may be among the best is offered to the selection.
 *
 * Where chunks have sketches (kv/kv_sketch.h) and the best are asked for: bounds of all their frames first, from five bits a
 * number; then, exactly, the frames with the highest bounds, which are mostly the best; then those whose bound is not below the
 * worst of the chosen by then, neither by five bits nor by six. What is left out has a score below all that are chosen, so that
 * hits and scores are those of the other way.
 *
 * Thread: a computing one; the view's entries, and what stands in its chunks, do not change meanwhile. */
#ifndef REELKV_KVSTORE_VIEW_PASS_H
#define REELKV_KVSTORE_VIEW_PASS_H

#include "kvstore/view.h"

/* Fills in what view_score has found. */
void view_pass(struct view_score *score);

#endif
