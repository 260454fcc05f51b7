#include "questions.h"

#include <string.h>

const char *const question_kind_names[QUESTION_KINDS] = { "color", "shape", "where", "did",
                                                          "count", "first", "now" };

enum { ATTEMPTS = 3000, ANY = 255, PARAPHRASES = 3, KINDS_SPENT_MAX = 3 };

/* Which question of its kind is wanted. Answers take turns, so that none is worth guessing; a picky attempt
 * insists on the answer whose turn it is, a later one takes what the world has. */
struct turn {
    uint32_t round; /* questions of this kind before this one */
    bool picky;
};

static const char *const numbers[] = { "zero", "one", "two", "three" };

/* Texts, with what goes where: color and shape name the thing, place is "" or " at the top left". */
static const char *const color_texts[PARAPHRASES] = { "What color was the %s%s?",
                                                      "Which color did the %s%s have?",
                                                      "Tell me the color of the %s%s." };
static const char *const shape_texts[PARAPHRASES] = { "What shape was the %s one%s?",
                                                      "Which shape did the %s one%s have?",
                                                      "Tell me the shape of the %s one%s." };
static const char *const where_texts[PARAPHRASES] = { "Where was the %s %s?", "In which place was the %s %s?",
                                                      "Where did the %s %s show up?" };
static const char *const did_texts[PARAPHRASES] = { "Did a %s %s appear?", "Was there a %s %s?",
                                                    "Have you seen a %s %s?" };
static const char *const with_texts[PARAPHRASES] = { "How many other shapes were there with the %s %s?",
                                                     "How many shapes were beside the %s %s?",
                                                     "With how many others was the %s %s?" };
static const char *const times_texts[PARAPHRASES] = { "How many times did the %s %s appear?",
                                                      "How often was the %s %s there?",
                                                      "How often did the %s %s show up?" };
static const char *const first_texts[PARAPHRASES] = { "Which came first, the %s %s or the %s %s?",
                                                      "What was there first, the %s %s or the %s %s?",
                                                      "Which was earlier, the %s %s or the %s %s?" };
static const char *const now_texts[PARAPHRASES] = { "What is in view now?", "What is there right now?",
                                                    "What do you see now?" };

/* Objects of the given shape, colour and place (ANY: whatever) become the evidence. False when there are
 * none, too many, or together more samples than one retrieval brings. */
static bool gather(const struct world *world, uint8_t shape, uint8_t color, uint8_t place, struct question *q)
{
    uint32_t samples = 0;

    q->evidence_count = 0;
    for (uint32_t i = 0; i < world->object_count; i++) {
        const struct object *object = &world->objects[i];

        if ((shape != ANY && object->shape != shape) || (color != ANY && object->color != color) ||
            (place != ANY && object->place != place))
            continue;
        if (q->evidence_count == EVIDENCE_MAX)
            return false;
        samples += object->last - object->first + 1;
        q->evidence[q->evidence_count++] = i;
    }
    return q->evidence_count > 0 && samples <= EVIDENCE_SAMPLES_MAX;
}

static bool shares_a_trait(const struct world *world, uint8_t shape, uint8_t color)
{
    for (uint32_t i = 0; i < world->object_count; i++) {
        const struct object *object = &world->objects[i];

        if ((object->shape == shape) != (object->color == color))
            return true;
    }
    return false;
}

enum trait { TRAIT_SHAPE, TRAIT_COLOR, TRAIT_PLACE };

static bool evidence_agrees(const struct world *world, const struct question *q, enum trait trait)
{
    const struct object *first = &world->objects[q->evidence[0]];

    for (uint32_t i = 1; i < q->evidence_count; i++) {
        const struct object *object = &world->objects[q->evidence[i]];

        if ((trait == TRAIT_SHAPE && object->shape != first->shape) ||
            (trait == TRAIT_COLOR && object->color != first->color) ||
            (trait == TRAIT_PLACE && object->place != first->place))
            return false;
    }
    return true;
}

static const struct object *any_object(const struct world *world, struct dice *dice)
{
    return &world->objects[dice_below(dice, world->object_count)];
}

/* "the star", and when other stars had other colours, "the star at the top left". */
static bool ask_color(const struct world *world, struct dice *dice, struct turn turn, struct question *q)
{
    const struct object *object = any_object(world, dice);
    char place[40] = "";

    if (!gather(world, object->shape, ANY, ANY, q) || !evidence_agrees(world, q, TRAIT_COLOR)) {
        snprintf(place, sizeof place, " %s", place_phrases[object->place]);
        if (!gather(world, object->shape, ANY, object->place, q) || !evidence_agrees(world, q, TRAIT_COLOR))
            return false;
    }
    q->distractors = shares_a_trait(world, object->shape, object->color);
    snprintf(q->text, sizeof q->text, color_texts[dice_below(dice, PARAPHRASES)], shape_names[object->shape],
             place);
    snprintf(q->answer, sizeof q->answer, "%s", color_names[object->color]);
    return true;
}

static bool ask_shape(const struct world *world, struct dice *dice, struct turn turn, struct question *q)
{
    const struct object *object = any_object(world, dice);
    char place[40] = "";

    if (!gather(world, ANY, object->color, ANY, q) || !evidence_agrees(world, q, TRAIT_SHAPE)) {
        snprintf(place, sizeof place, " %s", place_phrases[object->place]);
        if (!gather(world, ANY, object->color, object->place, q) || !evidence_agrees(world, q, TRAIT_SHAPE))
            return false;
    }
    q->distractors = shares_a_trait(world, object->shape, object->color);
    snprintf(q->text, sizeof q->text, shape_texts[dice_below(dice, PARAPHRASES)], color_names[object->color],
             place);
    snprintf(q->answer, sizeof q->answer, "%s", shape_names[object->shape]);
    return true;
}

static bool ask_where(const struct world *world, struct dice *dice, struct turn turn, struct question *q)
{
    const struct object *object = any_object(world, dice);

    if (!gather(world, object->shape, object->color, ANY, q) || !evidence_agrees(world, q, TRAIT_PLACE))
        return false;
    q->distractors = shares_a_trait(world, object->shape, object->color);
    snprintf(q->text, sizeof q->text, where_texts[dice_below(dice, PARAPHRASES)], color_names[object->color],
             shape_names[object->shape]);
    snprintf(q->answer, sizeof q->answer, "%s", place_names[object->place]);
    return true;
}

/* A true "no" pairs a shape that was seen with a colour that was seen, never together. Every second one is.
 */
static bool ask_did(const struct world *world, struct dice *dice, struct turn turn, struct question *q)
{
    bool yes = turn.round % 2 == 0;
    const struct object *object = any_object(world, dice), *other = any_object(world, dice);
    uint8_t color = yes ? object->color : other->color;

    if (gather(world, object->shape, color, ANY, q) != yes)
        return false;
    if (!yes && q->evidence_count > 0) /* it did appear, too often to gather */
        return false;
    q->distractors = shares_a_trait(world, object->shape, color);
    snprintf(q->text, sizeof q->text, did_texts[dice_below(dice, PARAPHRASES)], color_names[color],
             shape_names[object->shape]);
    snprintf(q->answer, sizeof q->answer, yes ? "yes" : "no");
    return true;
}

static bool ask_count(const struct world *world, struct dice *dice, struct turn turn, struct question *q)
{
    const struct object *object = any_object(world, dice);
    bool times = turn.picky ? turn.round % 2 == 0 : dice_below(dice, 2) == 0;
    uint32_t answer = 0, in_turn = (uint32_t)((turn.round / 2 + world->seed) % 3) + times;

    if (!gather(world, object->shape, object->color, ANY, q))
        return false;
    if (times) {
        if (q->evidence_count > APPEARANCES_MAX)
            return false;
        answer = q->evidence_count;
    } else {
        if (q->evidence_count != 1)
            return false;
        for (uint32_t i = 0; i < world->object_count; i++)
            answer += world->objects[i].first == object->first && &world->objects[i] != object;
    }
    if (turn.picky && answer != in_turn)
        return false;
    q->distractors = shares_a_trait(world, object->shape, object->color);
    snprintf(q->text, sizeof q->text, (times ? times_texts : with_texts)[dice_below(dice, PARAPHRASES)],
             color_names[object->color], shape_names[object->shape]);
    snprintf(q->answer, sizeof q->answer, "%s", numbers[answer]);
    return true;
}

/* An object whose kind appears once: the next one from a random place on. NULL when there is none. */
static const struct object *any_single(const struct world *world, struct dice *dice, struct question *q)
{
    uint32_t start = dice_below(dice, world->object_count);

    for (uint32_t i = 0; i < world->object_count; i++) {
        const struct object *object = &world->objects[(start + i) % world->object_count];

        if (gather(world, object->shape, object->color, ANY, q) && q->evidence_count == 1)
            return object;
    }
    return NULL;
}

static bool ask_first(const struct world *world, struct dice *dice, struct turn turn, struct question *q)
{
    struct question other = { 0 };
    const struct object *one = any_single(world, dice, q), *two = any_single(world, dice, &other), *early;

    if (one == NULL || two == NULL || one->first == two->first)
        return false;
    q->evidence[q->evidence_count++] = other.evidence[0];
    early = one->first < two->first ? one : two;
    q->distractors =
        shares_a_trait(world, one->shape, one->color) || shares_a_trait(world, two->shape, two->color);
    snprintf(q->text, sizeof q->text, first_texts[dice_below(dice, PARAPHRASES)], color_names[one->color],
             shape_names[one->shape], color_names[two->color], shape_names[two->shape]);
    snprintf(q->answer, sizeof q->answer, "%s %s", color_names[early->color], shape_names[early->shape]);
    return true;
}

/* Asked while one object is in view, or (every third time) while nothing is. */
static bool ask_now(const struct world *world, struct dice *dice, struct turn turn, struct question *q)
{
    const struct object *object = any_object(world, dice);
    bool nothing = turn.round % 3 == 2;
    uint32_t sample = nothing ? 1 + dice_below(dice, world->samples - 2)
                              : object->first + dice_below(dice, object->last - object->first + 1);
    uint32_t in_view = 0;

    for (uint32_t i = 0; i < world->object_count; i++)
        in_view += world->objects[i].first <= sample && sample <= world->objects[i].last;
    if (in_view != (nothing ? 0 : 1))
        return false;
    q->evidence_count = nothing ? 0 : 1;
    q->evidence[0] = (uint32_t)(object - world->objects);
    q->has_as_of = true;
    q->as_of_sample = sample;
    q->distractors = !nothing && shares_a_trait(world, object->shape, object->color);
    snprintf(q->text, sizeof q->text, "%s", now_texts[dice_below(dice, PARAPHRASES)]);
    if (nothing)
        snprintf(q->answer, sizeof q->answer, "nothing");
    else
        snprintf(q->answer, sizeof q->answer, "%s %s", color_names[object->color],
                 shape_names[object->shape]);
    return true;
}

static bool (*const askers[QUESTION_KINDS])(const struct world *, struct dice *, struct turn,
                                            struct question *) = {
    [ASK_COLOR] = ask_color, [ASK_SHAPE] = ask_shape, [ASK_WHERE] = ask_where, [ASK_DID] = ask_did,
    [ASK_COUNT] = ask_count, [ASK_FIRST] = ask_first, [ASK_NOW] = ask_now,
};

static bool was_asked(const struct question *questions, uint32_t count, const struct question *q)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(questions[i].text, q->text) == 0 && questions[i].as_of_sample == q->as_of_sample)
            return true;
    return false;
}

/* One more question of a kind at questions[count]; false when the world seems to have none left. */
static bool ask(const struct world *world, struct dice *dice, enum question_kind kind,
                struct question *questions, uint32_t count)
{
    struct question *q = &questions[count];
    struct turn turn = { 0 };

    for (uint32_t i = 0; i < count; i++)
        turn.round += questions[i].kind == kind;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        memset(q, 0, sizeof *q);
        q->kind = kind;
        turn.picky = attempt < ATTEMPTS / 2;
        if (askers[kind](world, dice, turn, q) && !was_asked(questions, count, q))
            return true;
    }
    return false;
}

uint32_t questions_make(const struct world *world, uint32_t wanted, struct question *questions)
{
    struct dice dice = { world->seed * 0x2545f4914f6cdd1du + 7 };
    bool spent[QUESTION_KINDS] = { false };
    uint32_t count = 0, kinds_spent = 0;

    for (uint32_t at = 0; world->object_count > 0 && count < wanted && kinds_spent <= KINDS_SPENT_MAX; at++) {
        enum question_kind kind = (enum question_kind)(at % QUESTION_KINDS);

        if (spent[kind])
            continue;
        if (ask(world, &dice, kind, questions, count)) {
            count++;
        } else {
            spent[kind] = true;
            kinds_spent++;
        }
    }
    return count;
}

static void print_pairs(FILE *out, const char *const *texts)
{
    for (int p = 0; p < PARAPHRASES; p++) {
        for (int i = 0; i < KINDS_OF_OBJECT; i++) {
            fprintf(out, texts[p], color_names[i % COLORS], shape_names[i / COLORS]);
            fputc('\n', out);
        }
    }
}

static void print_placed(FILE *out, const char *const *texts, const char *const *names, int count)
{
    for (int p = 0; p < PARAPHRASES; p++) {
        for (int i = 0; i < count; i++) {
            for (int place = -1; place < PLACES; place++) {
                char phrase[40] = "";

                if (place >= 0)
                    snprintf(phrase, sizeof phrase, " %s", place_phrases[place]);
                fprintf(out, texts[p], names[i], phrase);
                fputc('\n', out);
            }
        }
    }
}

void vocabulary_print(FILE *out)
{
    print_placed(out, color_texts, shape_names, SHAPES);
    print_placed(out, shape_texts, color_names, COLORS);
    print_pairs(out, where_texts);
    print_pairs(out, did_texts);
    print_pairs(out, with_texts);
    print_pairs(out, times_texts);
    for (int p = 0; p < PARAPHRASES; p++) {
        for (int i = 0; i < KINDS_OF_OBJECT; i++) {
            int j = (i + 7) % KINDS_OF_OBJECT;

            fprintf(out, first_texts[p], color_names[i % COLORS], shape_names[i / COLORS],
                    color_names[j % COLORS], shape_names[j / COLORS]);
            fputc('\n', out);
        }
        fprintf(out, "%s\n", now_texts[p]);
    }
    for (int i = 0; i < KINDS_OF_OBJECT; i++)
        fprintf(out, "%s %s\n", color_names[i % COLORS], shape_names[i / COLORS]);
    for (int i = 0; i < PLACES; i++)
        fprintf(out, "%s\n", place_names[i]);
    for (int i = 0; i <= APPEARANCES_MAX; i++)
        fprintf(out, "%s\n", numbers[i]);
    fprintf(out, "yes\nno\nnothing\n");
}
