/* Evidence is ranked by how many layers chose a frame, then by how well they ranked it. */
#include "qa/evidence.h"

#include <stdlib.h>

#include "support/test.h"

static struct kv_hit hit(uint64_t seq, float score, bool recent)
{
    return (struct kv_hit){ .seq = seq, .pts_ns = (int64_t)seq * 1000, .score = score, .recent = recent };
}

TEST(frames_chosen_by_more_layers_come_first_then_by_mean_rank)
{
    const struct kv_hit layer0[] = { hit(1, 0.2f, false), hit(2, 0.9f, false), hit(3, 0.5f, false) };
    const struct kv_hit layer1[] = { hit(2, 0.1f, false), hit(3, 0.8f, false), hit(9, 0.7f, false) };
    struct evidence evidence = { 0 };
    struct evidence_frame *frames;
    struct status st = { 0 };
    uint32_t count;

    CHECK_OK(evidence_add(&evidence, 0, layer0, 3, &st), st);
    CHECK_OK(evidence_add(&evidence, 1, layer1, 3, &st), st);
    CHECK_OK(evidence_rank(&evidence, &frames, &count, &st), st);
    CHECK_EQ(count, 4);
    CHECK_EQ(frames[0].hit.seq, 3); /* two layers, ranks 2 and 1 */
    CHECK_NEAR(frames[0].mean_rank, 1.5, 1e-9);
    CHECK_NEAR(frames[0].mean_score, 0.65, 1e-6);
    CHECK_EQ(frames[1].hit.seq, 2); /* two layers, ranks 1 and 3 */
    CHECK_EQ(frames[2].hit.seq, 9); /* one layer, rank 2 */
    CHECK_EQ(frames[3].hit.seq, 1); /* one layer, rank 3 */
    free(frames);
    evidence_deinit(&evidence);
}

/* The recent window is in every layer whatever it scores; it must not push retrieved frames down. */
TEST(frames_of_the_recent_window_rank_behind_the_retrieved_ones)
{
    const struct kv_hit layer0[] = { hit(9, 5.0f, true), hit(1, 0.1f, false) };
    struct evidence evidence = { 0 };
    struct status st = { 0 };

    CHECK_OK(evidence_add(&evidence, 0, layer0, 2, &st), st);
    CHECK_EQ(evidence.choices[0].hit.seq, 1);
    CHECK_EQ(evidence.choices[0].rank, 1);
    CHECK_EQ(evidence.choices[1].rank, 2);
    evidence_deinit(&evidence);
}

/* Two cameras may have frames of one number and one time: they are two frames. */
TEST(frames_of_different_streams_stay_apart)
{
    struct kv_hit both[] = { hit(4, 0.5f, false), hit(4, 0.5f, false) };
    struct evidence evidence = { 0 };
    struct evidence_frame *frames;
    struct status st = { 0 };
    uint32_t count;

    both[1].stream = 1;
    CHECK_OK(evidence_add(&evidence, 0, both, 2, &st), st);
    CHECK_OK(evidence_rank(&evidence, &frames, &count, &st), st);
    CHECK_EQ(count, 2);
    CHECK_EQ(frames[0].hit.stream, 1); /* equal in all: the one later in order */
    free(frames);
    evidence_deinit(&evidence);
}

TEST(no_choice_is_no_evidence)
{
    struct evidence evidence = { 0 };
    struct evidence_frame *frames;
    struct status st = { 0 };
    uint32_t count;

    CHECK_OK(evidence_add(&evidence, 0, NULL, 0, &st), st);
    CHECK_OK(evidence_rank(&evidence, &frames, &count, &st), st);
    CHECK_EQ(count, 0);
    free(frames);
    evidence_deinit(&evidence);
}

TEST_MAIN()
