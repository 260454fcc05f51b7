/* What a question may see: a time range holds for every frame of the evidence, and for every layer's choice. */
#include "stage.h"

enum { FRAMES = 40 };

#define SECOND_NS 1000000000ll
static const int64_t start_ns = 1767225600 * SECOND_NS; /* as add_camera() has it */

/* ---------------------------------------------------------------------------------------------- time */

/* Frames [first, last] and no others: each is evidence, and of each layer's choice none is another. */
static void check_only(const struct asked *asked, uint32_t layers, uint64_t first, uint64_t last)
{
    CHECK_EQ(asked->evidence_count, last - first + 1);
    for (size_t i = 0; i < asked->evidence_count; i++) {
        uint64_t seq = asked->evidence[i].seq;

        CHECK(seq >= first && seq <= last);
        CHECK_EQ(asked->evidence[i].pts_ns, start_ns + (int64_t)seq * SECOND_NS / CLIP_FPS);
        for (size_t other = 0; other < i; other++)
            CHECK(asked->evidence[other].seq != seq);
    }
    for (uint32_t layer = 0; layer < layers; layer++) {
        CHECK(asked->chosen_count[layer] > 0);
        for (size_t i = 0; i < asked->chosen_count[layer]; i++)
            CHECK(asked->chosen[layer][i] >= first && asked->chosen[layer][i] <= last);
    }
}

/* A question that may read every frame reads those of its range, all of them: from the first moment, without the last. */
TEST(evidence_lies_inside_the_range_asked_for)
{
    static const struct {
        int64_t from_ns, to_ns; /* after the film's start */
        uint64_t first, last;
    } cases[] = {
        { 5 * SECOND_NS, 10 * SECOND_NS, 10, 19 },
        { 5 * SECOND_NS + 1, 10 * SECOND_NS + 1, 11, 20 },
        { -60 * SECOND_NS, 2 * SECOND_NS, 0, 3 },
        { 18 * SECOND_NS, 3600 * SECOND_NS, 36, FRAMES - 1 },
    };
    struct stage stage = { 0 };
    struct asked asked;

    stage_open(&stage);
    add_camera(stage.store, "dock", stage_film(FRAMES));
    wait_ended(stage.store, "dock", FRAMES);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        stage_ask(&stage,
                  &(struct question){ .camera = "dock",
                                      .words = "what is there?",
                                      .from_ns = start_ns + cases[i].from_ns,
                                      .to_ns = start_ns + cases[i].to_ns,
                                      .top_r = FRAMES,
                                      .max_tokens = 1 },
                  &asked);
        check_only(&asked, model_geometry(stage.model)->layers, cases[i].first, cases[i].last);
    }
    stage_close(&stage);
}

TEST_MAIN()
