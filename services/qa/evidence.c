#include "evidence.h"

#include <stdlib.h>
#include <string.h>

void evidence_deinit(struct evidence *evidence)
{
    free(evidence->choices);
    memset(evidence, 0, sizeof *evidence);
}

static int newer_first(const struct kv_hit *a, const struct kv_hit *b)
{
    return kv_hit_compare_time(b, a);
}

static int by_score(const void *left, const void *right)
{
    const struct kv_hit *a = &((const struct evidence_choice *)left)->hit;
    const struct kv_hit *b = &((const struct evidence_choice *)right)->hit;

    if (a->recent != b->recent)
        return a->recent ? 1 : -1;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return newer_first(a, b);
}

bool evidence_add(struct evidence *evidence, uint32_t layer, const struct kv_hit *hits, uint32_t count,
                  struct status *st)
{
    struct evidence_choice *mine;

    if (count > evidence->room - evidence->count) {
        uint32_t room = 2 * evidence->room + count;
        struct evidence_choice *grown = realloc(evidence->choices, room * sizeof *grown);

        if (grown == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for the evidence");
        evidence->choices = grown;
        evidence->room = room;
    }
    mine = evidence->choices + evidence->count;
    for (uint32_t i = 0; i < count; i++)
        mine[i] = (struct evidence_choice){ .hit = hits[i], .layer = layer };
    if (count > 0)
        qsort(mine, count, sizeof *mine, by_score);
    for (uint32_t i = 0; i < count; i++)
        mine[i].rank = i + 1;
    evidence->count += count;
    return true;
}

static int by_frame(const void *left, const void *right)
{
    const struct evidence_choice *a = left, *b = right;
    int frame = newer_first(&a->hit, &b->hit);

    return frame != 0           ? frame
           : a->rank != b->rank ? (a->rank < b->rank ? -1 : 1)
                                : (int)a->layer - (int)b->layer;
}

static int by_weight(const void *left, const void *right)
{
    const struct evidence_frame *a = left, *b = right;

    if (a->layers != b->layers)
        return a->layers > b->layers ? -1 : 1;
    if (a->mean_rank != b->mean_rank)
        return a->mean_rank < b->mean_rank ? -1 : 1;
    return newer_first(&a->hit, &b->hit);
}

bool evidence_rank(const struct evidence *evidence, struct evidence_frame **frames_p, uint32_t *count_p,
                   struct status *st)
{
    struct evidence_choice *sorted = calloc(evidence->count + 1, sizeof *sorted);
    struct evidence_frame *frames = calloc(evidence->count + 1, sizeof *frames);
    uint32_t count = 0;

    if (sorted == NULL || frames == NULL) {
        free(sorted);
        free(frames);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the evidence");
    }
    if (evidence->count > 0) {
        memcpy(sorted, evidence->choices, evidence->count * sizeof *sorted);
        qsort(sorted, evidence->count, sizeof *sorted, by_frame);
    }
    for (uint32_t i = 0; i < evidence->count; i++) {
        struct evidence_frame *frame;

        if (i == 0 || newer_first(&sorted[i].hit, &sorted[i - 1].hit) != 0)
            frames[count++].hit = sorted[i].hit;
        frame = &frames[count - 1];
        frame->layers++;
        frame->mean_rank += sorted[i].rank;
        frame->mean_score += (double)sorted[i].hit.score;
    }
    for (uint32_t i = 0; i < count; i++) {
        frames[i].mean_rank /= frames[i].layers;
        frames[i].mean_score /= frames[i].layers;
    }
    if (count > 0)
        qsort(frames, count, sizeof *frames, by_weight);
    free(sorted);
    *frames_p = frames;
    *count_p = count;
    return true;
}
