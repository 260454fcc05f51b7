#include "truth_json.h"

static struct json *objects_json(const struct world *world)
{
    struct json *list = json_make_array();
    uint32_t begin, end;

    for (uint32_t i = 0; i < world->object_count; i++) {
        const struct object *object = &world->objects[i];
        struct json *item = json_make_object();

        object_frames(object, &begin, &end);
        json_set_u64(item, "id", i);
        json_set_str(item, "shape", shape_names[object->shape]);
        json_set_str(item, "color", color_names[object->color]);
        json_set_str(item, "place", place_names[object->place]);
        json_set_f64(item, "enter_s", (double)begin / VIDEO_FPS);
        json_set_f64(item, "exit_s", (double)end / VIDEO_FPS);
        json_append(list, item);
    }
    return list;
}

static struct json *evidence_json(const struct world *world, const struct question *question)
{
    struct json *list = json_make_array();
    uint32_t begin, end;

    for (uint32_t i = 0; i < question->evidence_count; i++) {
        struct json *span = json_make_array();

        object_frames(&world->objects[question->evidence[i]], &begin, &end);
        json_append_f64(span, (double)begin / VIDEO_FPS);
        json_append_f64(span, (double)end / VIDEO_FPS);
        json_append(list, span);
    }
    return list;
}

static struct json *questions_json(const struct world *world, const struct question *questions,
                                   uint32_t count)
{
    struct json *list = json_make_array();

    for (uint32_t i = 0; i < count; i++) {
        const struct question *question = &questions[i];
        struct json *item = json_make_object();

        json_set_u64(item, "id", i);
        json_set_str(item, "kind", question_kind_names[question->kind]);
        json_set_str(item, "text", question->text);
        json_set_str(item, "answer", question->answer);
        if (question->has_as_of) /* a moment after the sample and well before the next */
            json_set_f64(item, "as_of_s", question->as_of_sample * 0.5 + 0.25);
        else
            json_set_str(item, "as_of_s", NULL);
        json_set(item, "evidence", evidence_json(world, question));
        json_set_bool(item, "distractors", question->distractors);
        json_append(list, item);
    }
    return list;
}

struct json *truth_json(const struct world *world, const struct question *questions, uint32_t count)
{
    struct json *truth = json_make_object();

    json_set_u64(truth, "version", 1);
    json_set_u64(truth, "seed", world->seed);
    json_set_u64(truth, "seconds", world->seconds);
    json_set_u64(truth, "fps", VIDEO_FPS);
    json_set_u64(truth, "width", VIDEO_WIDTH);
    json_set_u64(truth, "height", VIDEO_HEIGHT);
    json_set_str(truth, "profile", profile_names[world->profile]);
    json_set(truth, "objects", objects_json(world));
    json_set(truth, "questions", questions_json(world, questions, count));
    return truth;
}
