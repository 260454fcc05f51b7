/* The cameras tell the truth: worlds are reproducible, and every answer follows from the objects alone. */
#include <stdlib.h>

#include "base/json.h"
#include "questions.h"
#include "render.h"
#include "support/test.h"
#include "truth_json.h"

static struct world world;
static struct question questions[QUESTIONS_MAX];

/* Golden: the truth of seed 7 may only change together with this sum, on purpose. */
TEST(truth_is_the_same_bytes_for_the_same_seed)
{
    uint64_t sum = 14695981039346656037u;
    struct json *truth;
    char *text;

    world_make(&world, 7, 150, PROFILE_SCORE);
    truth = truth_json(&world, questions, questions_make(&world, 70, questions));
    text = json_text(truth, 1);
    for (const char *at = text; *at != '\0'; at++)
        sum = (sum ^ (uint8_t)*at) * 1099511628211u;
    free(text);
    json_free(truth);
    CHECK_EQ(sum, 4905736529433208767ll);
}

TEST(objects_stay_at_most_four_samples_and_leave_the_end_quiet)
{
    for (uint32_t seed = 0; seed < 50; seed++) {
        enum profile profile = (enum profile)(seed % PROFILES);

        world_make(&world, seed, profile == PROFILE_LONG ? 5000 : 150, profile);
        CHECK(world.object_count > 8);
        for (uint32_t i = 0; i < world.object_count; i++) {
            const struct object *object = &world.objects[i];

            CHECK(object->last - object->first < SCENE_SAMPLES_MAX);
            CHECK(object->last + QUIET_END_SAMPLES < world.samples);
            CHECK(i == 0 || object->first >= world.objects[i - 1].first);
            for (uint32_t j = 0; j < i; j++) /* never two in one place at once */
                CHECK(world.objects[j].last < object->first || world.objects[j].place != object->place);
        }
    }
}

static bool matches(const struct object *object, const char *text)
{
    return strstr(text, shape_names[object->shape]) != NULL &&
           strstr(text, color_names[object->color]) != NULL;
}

static uint32_t count_matching(const char *text)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < world.object_count; i++)
        count += matches(&world.objects[i], text);
    return count;
}

/* Of the objects a text speaks of (by shape, colour or place named in it), is `answer` the only one it can
 * be? */
static bool only_answer(const struct question *q)
{
    bool found = false;

    for (uint32_t i = 0; i < world.object_count; i++) {
        const struct object *object = &world.objects[i];
        const char *trait = q->kind == ASK_COLOR   ? color_names[object->color]
                            : q->kind == ASK_SHAPE ? shape_names[object->shape]
                                                   : place_names[object->place];
        bool spoken = q->kind == ASK_COLOR   ? strstr(q->text, shape_names[object->shape]) != NULL
                      : q->kind == ASK_SHAPE ? strstr(q->text, color_names[object->color]) != NULL
                                             : matches(object, q->text);

        for (int place = 0; spoken && q->kind != ASK_WHERE && place < PLACES; place++)
            if (strstr(q->text, place_phrases[place]) != NULL)
                spoken = object->place == place;
        if (!spoken)
            continue;
        if (strcmp(trait, q->answer) != 0)
            return false;
        found = true;
    }
    return found;
}

TEST(answers_follow_from_the_objects_and_only_one_is_right)
{
    for (uint32_t seed = 0; seed < 30; seed++) {
        uint32_t count;

        world_make(&world, seed, seed % 3 == 2 ? 5000 : 150, (enum profile)(seed % PROFILES));
        count = questions_make(&world, 140, questions);
        CHECK(count >= 70);
        for (uint32_t i = 0; i < count; i++) {
            const struct question *q = &questions[i];

            if (q->kind == ASK_COLOR || q->kind == ASK_SHAPE || q->kind == ASK_WHERE)
                CHECK(only_answer(q));
            else if (q->kind == ASK_DID)
                CHECK_STR(q->answer, count_matching(q->text) > 0 ? "yes" : "no");
            else if (q->kind ==
                     ASK_FIRST) /* two objects named, each there once, the answer's evidence earlier */
                CHECK(matches(&world.objects[q->evidence[world.objects[q->evidence[0]].first >
                                                         world.objects[q->evidence[1]].first]],
                              q->answer));
        }
    }
}

TEST(evidence_fits_one_retrieval_and_most_questions_have_distractors)
{
    uint32_t total = 0, distractors = 0, yes = 0, no = 0;

    for (uint32_t seed = 0; seed < 20; seed++) {
        uint32_t count;

        world_make(&world, seed, 150, PROFILE_SCORE);
        count = questions_make(&world, 70, questions);
        for (uint32_t i = 0; i < count; i++) {
            const struct question *q = &questions[i];
            uint32_t samples = 0;

            for (uint32_t e = 0; e < q->evidence_count; e++)
                samples += world.objects[q->evidence[e]].last - world.objects[q->evidence[e]].first + 1;
            CHECK(samples <= EVIDENCE_SAMPLES_MAX);
            total++;
            distractors += q->distractors;
            yes += strcmp(q->answer, "yes") == 0;
            no += strcmp(q->answer, "no") == 0;
        }
    }
    CHECK(distractors * 10 >= total * 6);
    CHECK(yes > 0 && no * 10 >= yes * 9 && no * 9 <= yes * 10);
}

/* At every sample an object is wholly there or wholly absent: paint with it and without, compare. */
TEST(pictures_show_an_object_at_its_samples_and_at_no_others)
{
    static uint8_t with[3][VIDEO_HEIGHT * VIDEO_WIDTH], without[3][VIDEO_HEIGHT * VIDEO_WIDTH];
    struct picture one = { { with[0], with[1], with[2] }, { VIDEO_WIDTH, VIDEO_WIDTH / 2, VIDEO_WIDTH / 2 } };
    struct picture two = { { without[0], without[1], without[2] },
                           { VIDEO_WIDTH, VIDEO_WIDTH / 2, VIDEO_WIDTH / 2 } };
    static struct world empty;
    struct renderer *full_painter, *empty_painter;
    struct status st = { 0 };
    const struct object *object;

    world_make(&world, 3, 60, PROFILE_DEMO);
    empty = world;
    empty.object_count = 0;
    object = &world.objects[0];
    CHECK_OK(renderer_create(&full_painter, &world, &st), st);
    CHECK_OK(renderer_create(&empty_painter, &empty, &st), st);
    for (uint32_t sample = object->first - 1; sample <= object->last + 1; sample++) {
        uint32_t changed = 0;

        render_frame(full_painter, sample * FRAMES_PER_SAMPLE, &one);
        render_frame(empty_painter, sample * FRAMES_PER_SAMPLE, &two);
        for (int i = 0; i < VIDEO_WIDTH * VIDEO_HEIGHT; i++)
            changed += with[0][i] != without[0][i];
        if (sample >= object->first && sample <= object->last)
            CHECK(changed > 2500);
        else
            CHECK_EQ(changed, 0);
    }
    renderer_destroy(full_painter);
    renderer_destroy(empty_painter);
}

TEST_MAIN()
