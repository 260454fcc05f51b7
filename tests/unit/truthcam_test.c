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
    CHECK_EQ(sum, 6136936695416920872ll);
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

static const char *const numbers[] = { "zero", "one", "two", "three" };

/* "How many times" and "how often" count appearances; the other wordings count who shared the one scene. */
static void check_count(const struct question *q)
{
    uint32_t times = count_matching(q->text), others = 0;

    if (strstr(q->text, "times") != NULL || strstr(q->text, "often") != NULL) {
        CHECK(times >= 1 && times <= APPEARANCES_MAX);
        CHECK_STR(q->answer, numbers[times]);
        return;
    }
    CHECK_EQ(times, 1);
    for (uint32_t i = 0; i < world.object_count; i++) {
        const struct object *one = &world.objects[q->evidence[0]], *two = &world.objects[i];

        others += one != two && one->first <= two->last && two->first <= one->last;
    }
    CHECK_STR(q->answer, numbers[others]);
}

/* The earliest object that either name in the text fits is the answer, and each name fits one object only. */
static void check_first(const struct question *q)
{
    const struct object *early = NULL;
    uint32_t named = 0;
    char name[ANSWER_TEXT_BYTES];

    for (uint32_t i = 0; i < world.object_count; i++) {
        const struct object *object = &world.objects[i];

        snprintf(name, sizeof name, "%s %s", color_names[object->color], shape_names[object->shape]);
        if (strstr(q->text, name) == NULL)
            continue;
        named++;
        if (early == NULL || object->first < early->first)
            early = object;
    }
    CHECK_EQ(named, 2);
    snprintf(name, sizeof name, "%s %s", color_names[early->color], shape_names[early->shape]);
    CHECK_STR(q->answer, name);
}

static void check_now(const struct question *q)
{
    char in_view[ANSWER_TEXT_BYTES] = "nothing";
    uint32_t count = 0;

    CHECK(q->has_as_of);
    for (uint32_t i = 0; i < world.object_count; i++) {
        const struct object *object = &world.objects[i];

        if (q->as_of_sample < object->first || q->as_of_sample > object->last)
            continue;
        snprintf(in_view, sizeof in_view, "%s %s", color_names[object->color], shape_names[object->shape]);
        count++;
    }
    CHECK(count <= 1);
    CHECK_STR(q->answer, in_view);
}

TEST(answers_follow_from_the_objects_and_only_one_is_right)
{
    for (uint32_t seed = 0; seed < 30; seed++) {
        uint32_t count;

        world_make(&world, seed, seed % 3 == 2 ? 5000 : 150, (enum profile)(seed % PROFILES));
        count = questions_make(&world, 140, questions);
        CHECK(count >= 50);
        for (uint32_t i = 0; i < count; i++) {
            const struct question *q = &questions[i];

            if (q->kind == ASK_COLOR || q->kind == ASK_SHAPE || q->kind == ASK_WHERE)
                CHECK(only_answer(q));
            else if (q->kind == ASK_DID)
                CHECK_STR(q->answer, count_matching(q->text) > 0 ? "yes" : "no");
            else if (q->kind == ASK_COUNT)
                check_count(q);
            else if (q->kind == ASK_FIRST)
                check_first(q);
            else
                check_now(q);
        }
    }
}

/* Ask for far more than a world can give: no kind takes over, nothing is asked twice. */
TEST(no_kind_outweighs_the_rest_and_no_question_repeats)
{
    for (uint32_t seed = 0; seed < 6; seed++) {
        uint32_t count, of_kind[QUESTION_KINDS] = { 0 };

        world_make(&world, seed, 1000, (enum profile)(seed % PROFILES));
        count = questions_make(&world, QUESTIONS_MAX, questions);
        for (uint32_t i = 0; i < count; i++) {
            of_kind[questions[i].kind]++;
            for (uint32_t j = 0; j < i; j++)
                CHECK(strcmp(questions[i].text, questions[j].text) != 0 ||
                      questions[i].as_of_sample != questions[j].as_of_sample);
        }
        for (uint32_t kind = 0; kind < QUESTION_KINDS; kind++)
            CHECK(of_kind[kind] > 0 && of_kind[kind] * 3 <= count);
    }
}

/* The best that can be done without looking: for every kind always the commonest answer; of two, the first. */
TEST(guessing_the_commonest_answer_is_right_in_at_most_35_of_100)
{
    enum { ANSWERS_MAX = 64 };
    static char answers[QUESTION_KINDS][ANSWERS_MAX][ANSWER_TEXT_BYTES];
    uint32_t times[QUESTION_KINDS][ANSWERS_MAX] = { 0 }, total = 0, guessed = 0;

    for (uint32_t seed = 0; seed < 40; seed++) {
        uint32_t count;

        world_make(&world, seed, 150, PROFILE_SCORE);
        count = questions_make(&world, 70, questions);
        total += count;
        for (uint32_t i = 0; i < count; i++) {
            const struct question *q = &questions[i];
            const char *comma = strchr(q->text, ',');
            const char *answer = q->answer;
            uint32_t at = 0;

            if (q->kind == ASK_FIRST) /* the name behind the comma is the first of the two */
                answer = strncmp(comma + sizeof ", the", answer, strlen(answer)) == 0 ? "first named"
                                                                                      : "second named";
            while (times[q->kind][at] > 0 && strcmp(answers[q->kind][at], answer) != 0)
                at++;
            CHECK(at < ANSWERS_MAX - 1);
            snprintf(answers[q->kind][at], ANSWER_TEXT_BYTES, "%s", answer);
            times[q->kind][at]++;
        }
    }
    for (uint32_t kind = 0; kind < QUESTION_KINDS; kind++) {
        uint32_t most = 0;

        for (uint32_t at = 0; at < ANSWERS_MAX; at++)
            most = times[kind][at] > most ? times[kind][at] : most;
        guessed += most;
    }
    CHECK(total > 2000);
    CHECK(guessed * 100 <= total * 35);
}

/* A lively video goes on being lively, however long. */
TEST(a_long_demo_does_not_run_out_of_objects)
{
    world_make(&world, 5, 3000, PROFILE_DEMO);
    CHECK(world.objects[world.object_count - 1].last + 2 * QUIET_END_SAMPLES > world.samples);
    for (uint32_t i = 1; i < world.object_count; i++)
        CHECK(world.objects[i].first - world.objects[i - 1].first < 60);
}

/* The longest stretch of samples between two scenes. */
static uint32_t longest_pause(void)
{
    uint32_t longest = 0, end = 0;

    for (uint32_t i = 0; i < world.object_count; i++) {
        const struct object *object = &world.objects[i];

        if (object->first > end && object->first - end > longest)
            longest = object->first - end;
        end = object->last + 1;
    }
    return longest;
}

/* Kinds of object that are there a second time, after they had gone. */
static uint32_t count_repeats(void)
{
    uint32_t times[KINDS_OF_OBJECT] = { 0 }, repeats = 0;

    for (uint32_t i = 0; i < world.object_count; i++)
        repeats += ++times[world.objects[i].shape * COLORS + world.objects[i].color] == 2;
    return repeats;
}

/* Every video is empty for some seconds on end, most of those for scoring for a quarter of a minute, and a long one for
 * minutes; in every one some objects come twice. */
TEST(every_video_has_a_long_empty_stretch_and_objects_that_come_twice)
{
    static const uint32_t least[PROFILES] = {
        [PROFILE_DEMO] = 12, [PROFILE_SCORE] = 16, [PROFILE_LONG] = 400
    };
    uint32_t quiet = 0;

    for (uint32_t seed = 0; seed < 20; seed++)
        for (int profile = 0; profile < PROFILES; profile++) {
            world_make(&world, seed, profile == PROFILE_LONG ? 5000 : 150, (enum profile)profile);
            CHECK(longest_pause() >= least[profile]);
            CHECK(count_repeats() >= 2);
            quiet += profile == PROFILE_SCORE && longest_pause() >= 30;
        }
    CHECK(quiet >= 15);
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

/* A place is a box about its centre; boxes do not meet, so that what changes there says where it was. */
static bool in_zone(uint8_t place, int x, int y)
{
    static const int centre[PLACES][2] = {
        { 150, 88 }, { 490, 88 }, { 150, 272 }, { 490, 272 }, { 320, 180 }
    };

    return abs(x - centre[place][0]) < 85 && abs(y - centre[place][1]) < 88;
}

enum { NOWHERE = PLACES };
static uint8_t planes[2][3][VIDEO_HEIGHT * VIDEO_WIDTH];

static struct picture picture_of(int which)
{
    return (struct picture){ { planes[which][0], planes[which][1], planes[which][2] },
                             { VIDEO_WIDTH, VIDEO_WIDTH / 2, VIDEO_WIDTH / 2 } };
}

/* How many pixels of each place differ between the two pictures, and how many of none. */
static void count_changes(uint32_t changes[PLACES + 1])
{
    memset(changes, 0, (PLACES + 1) * sizeof changes[0]);
    for (int y = 0; y < VIDEO_HEIGHT; y++) {
        for (int x = 0; x < VIDEO_WIDTH; x++) {
            int luma = y * VIDEO_WIDTH + x, chroma = y / 2 * (VIDEO_WIDTH / 2) + x / 2;
            uint8_t place = 0;

            if (planes[0][0][luma] == planes[1][0][luma] && planes[0][1][chroma] == planes[1][1][chroma] &&
                planes[0][2][chroma] == planes[1][2][chroma])
                continue;
            while (place < PLACES && !in_zone(place, x, y))
                place++;
            changes[place]++;
        }
    }
}

/* At every sample an object is wholly in its place or wholly absent, and the rest is background: paint with
 * the objects and without, compare place by place; and two frames on, where it must show just as much. */
TEST(pictures_show_objects_in_their_places_at_their_samples_and_nothing_else)
{
    struct picture full = picture_of(0), bare = picture_of(1);
    static struct world empty;
    struct renderer *full_painter, *bare_painter;
    struct status st = { 0 };

    world_make(&world, 3, 60, PROFILE_DEMO);
    empty = world;
    empty.object_count = 0;
    CHECK_OK(renderer_create(&full_painter, &world, &st), st);
    CHECK_OK(renderer_create(&bare_painter, &empty, &st), st);
    for (uint32_t sample = 0; sample < world.samples; sample++) {
        uint32_t changes[2][PLACES + 1];
        bool taken[PLACES] = { false };

        for (uint32_t i = 0; i < world.object_count; i++)
            if (world.objects[i].first <= sample && sample <= world.objects[i].last)
                taken[world.objects[i].place] = true;
        for (uint32_t late = 0; late < 2; late++) {
            render_frame(full_painter, sample * FRAMES_PER_SAMPLE + 2 * late, &full);
            render_frame(bare_painter, sample * FRAMES_PER_SAMPLE + 2 * late, &bare);
            count_changes(changes[late]);
            CHECK_EQ(changes[late][NOWHERE], 0);
        }
        for (uint32_t place = 0; place < PLACES; place++) {
            CHECK_EQ(changes[0][place] > 0, taken[place]);
            CHECK(!taken[place] || changes[0][place] > 3000);
            CHECK(abs((int)changes[0][place] - (int)changes[1][place]) < 150);
        }
    }
    renderer_destroy(full_painter);
    renderer_destroy(bare_painter);
}

/* What a pixel of the painted luma differs from its four neighbours' mean. */
static double grain_at(int which, int x, int y)
{
    const uint8_t *at = &planes[which][0][y * VIDEO_WIDTH + x];

    return *at - (at[-1] + at[1] + at[-VIDEO_WIDTH] + at[VIDEO_WIDTH]) / 4.0;
}

/* Two pictures on end are grained, and the grain of one says nothing of the other's. */
TEST(noise_is_new_in_every_picture)
{
    struct picture one = picture_of(0), two = picture_of(1);
    struct renderer *painter;
    double first = 0, second = 0, both = 0, count = 0;
    struct status st = { 0 };

    world_make(&world, 3, 60, PROFILE_DEMO);
    CHECK_OK(renderer_create(&painter, &world, &st), st);
    render_frame(painter, 0, &one); /* nobody has come yet */
    render_frame(painter, 1, &two);
    for (int y = 1; y < VIDEO_HEIGHT - 1; y++)
        for (int x = 1; x < VIDEO_WIDTH - 1; x++) {
            double a = grain_at(0, x, y), b = grain_at(1, x, y);

            first += a * a;
            second += b * b;
            both += a * b;
            count++;
        }
    CHECK(sqrt(first / count) > 1.5);
    CHECK(sqrt(second / count) > 1.5);
    CHECK(fabs(both) < 0.2 * sqrt(first * second));
    renderer_destroy(painter);
}

TEST_MAIN()
