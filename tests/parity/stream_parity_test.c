/* Streaming and answering equal the reference: K and V of every layer, representative keys, the blocks each layer
 * chooses, and greedy ids, with a window much smaller than the stream. */
#include <stdlib.h>

#include "parity.h"

enum { ANSWER_IDS = 64 };

/* ------------------------------------------------------------------------------------------------ answers */

/* Ids of the question and of its prompt are the tokenizer's own, equal to the fixture's. */
static size_t check_prompt(const struct model *model, const struct json *run, bool prompt, uint32_t *ids,
                           size_t room)
{
    const char *words = json_str(json_get(run, "question"));
    struct token_ids out = { ids, room, 0 };
    uint32_t want[LIMIT_QUESTION_BYTES];
    struct status st;
    size_t count;

    CHECK_OK((prompt ? model_prompt_ids : model_question_ids)(model, words, strlen(words), &out, &st), st);
    if (json_get(run, prompt ? "answer_prompt_ids" : "question_ids") == NULL)
        return out.count; /* stock fixtures have no first pass */
    count = fixture_ids(json_get(run, prompt ? "answer_prompt_ids" : "question_ids"), want, ARRAY_LEN(want));
    CHECK_EQ(out.count, count);
    CHECK_MEM(ids, want, count * sizeof *want);
    return out.count;
}

/* Equal, but in bf16 where the scores on both sides of the cut are nearer than rounding moves them. */
static void check_chosen(const struct memory_view *view, const struct json *run)
{
    const struct model_geometry *geometry = model_geometry(view->model);
    const struct json *chosen = json_get(run, "chosen");

    CHECK_EQ(json_len(chosen), geometry->layers);
    for (uint32_t layer = 0; layer < geometry->layers; layer++) {
        const struct json *gap = json_at(json_get(run, "gaps"), layer);
        uint32_t want[PARITY_FRAMES_MAX];
        size_t count = fixture_ids(json_at(chosen, layer), want, PARITY_FRAMES_MAX);

        if (geometry->dtype == TENSOR_BF16 && json_is_number(gap) &&
            json_number(gap) < 4 * PARITY_BF16_TOLERANCE)
            continue;
        if (view->chosen_count[layer] != count ||
            memcmp(view->chosen[layer], want, count * sizeof *want) != 0)
            test_fail(__FILE__, __LINE__, "run %u chose other blocks in layer %u", fixture_u32(run, "run"),
                      layer);
    }
}

/* One question of a fixture: both passes up to the first id, the prompt followed by `forced` answer ids. */
static struct model_question *asked(struct memory_view *view, const struct json *run, size_t forced,
                                    uint32_t *id_p)
{
    struct model *model = (struct model *)(uintptr_t)view->model;
    struct model_question_options options = { .retriever = memory_retriever(view),
                                              .context_tokens_max = 8192,
                                              .answer_tokens_max = ANSWER_IDS };
    struct model_question *question = NULL;
    uint32_t ids[LIMIT_QUESTION_BYTES], answer[ANSWER_IDS];
    struct status st;
    size_t count;

    CHECK_OK(model_question_create(&question, model, &options, &st), st);
    count = check_prompt(model, run, false, ids, ARRAY_LEN(ids));
    CHECK_OK(model_question_retrieve(question, ids, count, &st), st);
    count = check_prompt(model, run, true, ids, ARRAY_LEN(ids));
    fixture_ids(json_get(run, "ids"), answer, ANSWER_IDS);
    memcpy(ids + count, answer, forced * sizeof *ids);
    CHECK_OK(model_question_prompt(question, ids, count + forced, id_p, &st), st);
    return question;
}

/* All ids equal in f32. In bf16 each step whose margin exceeds the tolerance agrees along the fixture's ids: where a
 * near tie went the other way the question is asked again with the fixture's ids so far. */
static void check_answer(struct model_question **question_p, struct memory_view *view, const struct json *run,
                         uint32_t got)
{
    bool is_exact = model_geometry(view->model)->dtype == TENSOR_F32;
    uint32_t want[ANSWER_IDS];
    struct status st;

    CHECK_EQ(fixture_ids(json_get(run, "ids"), want, ANSWER_IDS), ANSWER_IDS);
    for (size_t i = 0; i < ANSWER_IDS; i++) {
        double margin = json_number(json_at(json_get(run, "margins"), i));

        if (got != want[i] && (is_exact || margin > PARITY_BF16_TOLERANCE))
            test_fail(__FILE__, __LINE__, "answer id %zu is %u, not %u (margin %.3g)", i, got, want[i],
                      margin);
        if (i + 1 == ANSWER_IDS)
            break;
        if (got == want[i])
            CHECK_OK(model_question_next(*question_p, &got, &st), st);
        else {
            model_question_destroy(*question_p);
            *question_p = asked(view, run, i + 1, &got);
        }
    }
}

static void check_run(const struct fixture *fixture, struct memory_view *view, const struct json *run,
                      size_t index)
{
    const struct model_geometry *geometry = model_geometry(view->model);
    uint32_t first = 0;
    struct model_question *question = asked(view, run, 0, &first);
    float *want = fixture_floats(fixture, "logits", NULL), *got = malloc(geometry->vocabulary * sizeof *got);
    struct status st;

    if (json_get(run, "chosen") != NULL)
        check_chosen(view, run);
    CHECK_OK(model_question_logits(question, got, &st), st);
    CHECK_CLOSE(got, want + index * geometry->vocabulary, geometry->vocabulary,
                parity_tolerance(geometry->dtype));
    check_answer(&question, view, run, first);
    model_question_destroy(question);
    free(want);
    free(got);
}

/* A score multiplies two numbers, in bf16 each off by up to the tolerance. */
static void check_scores(const struct fixture *fixture, const struct memory_view *view, size_t run,
                         uint32_t layers)
{
    double tolerance =
        model_geometry(view->model)->dtype == TENSOR_F32 ? PARITY_F32_TOLERANCE : 2 * PARITY_BF16_TOLERANCE;
    char name[32];
    size_t count;
    float *want;

    snprintf(name, sizeof name, "scores.%zu", run);
    want = fixture_floats(fixture, name, &count);
    CHECK_EQ(count, (size_t)layers * view->count);
    for (uint32_t layer = 0; layer < layers; layer++)
        CHECK_CLOSE(view->scores[layer], want + (size_t)layer * view->count, view->count, tolerance);
    free(want);
}

static struct memory_view view_of(const struct memory_stream *stream, const struct json *run)
{
    struct memory_view view = { .model = stream->model,
                                .count = fixture_u32(run, "frames"),
                                .selector = json_str(json_get(run, "selector")) };

    CHECK(view.count <= stream->count);
    if (view.selector == NULL)
        view.selector = "all";
    else {
        view.top_r = fixture_u32(run, "top_r");
        view.recent_window = fixture_u32(run, "recent_window");
    }
    if (model_geometry(stream->model)->dtype == TENSOR_BF16)
        view.given = json_get(run, "chosen");
    memcpy(view.payloads, stream->payloads, sizeof view.payloads);
    return view;
}

static void check_stream(const char *checkpoint, enum tensor_dtype dtype)
{
    struct parity_options options = { .checkpoint = checkpoint, .dtype = dtype };
    struct memory_stream stream;
    struct fixture fixture;
    const struct json *runs;
    struct model *model;
    float *embeddings;
    char name[64];

    snprintf(name, sizeof name, "stream-%s", checkpoint);
    fixture = fixture_open(name);
    options.n_local = fixture_u32(fixture.manifest, "n_local");
    model = parity_model(&options);
    CHECK_EQ(model_geometry(model)->init_tokens, fixture_u32(fixture.manifest, "n_init"));
    embeddings = clip_embeddings(model, 0, fixture_u32(fixture.manifest, "frames"));
    stream = stream_open(model);
    for (uint32_t i = 0; i < fixture_u32(fixture.manifest, "frames"); i++)
        stream_push(&stream, embeddings + (size_t)i * model_geometry(model)->frame_tokens *
                                              model_geometry(model)->hidden);
    check_blocks(&fixture, model, stream.payloads, model_init_block(model)->payload);
    check_representatives(&fixture, model, stream.payloads);
    runs = json_get(fixture.manifest, "runs");
    for (size_t i = 0; i < json_len(runs); i++) {
        struct memory_view view = view_of(&stream, json_at(runs, i));

        check_run(&fixture, &view, json_at(runs, i), i);
        check_scores(&fixture, &view, i, model_geometry(model)->layers);
    }
    stream_close(&stream);
    free(embeddings);
    fixture_close(&fixture);
    model_close(model);
}

TEST(streams_and_answers_equal_the_reference_in_f32)
{
    check_stream("tiny-a", TENSOR_F32);
    check_stream("tiny-c", TENSOR_F32);
    check_stream("tiny-d", TENSOR_F32);
}

TEST(grouped_heads_and_a_27_grid_equal_the_reference_in_f32)
{
    check_stream("tiny-b", TENSOR_F32);
}

TEST(streams_and_answers_are_near_the_reference_in_bf16)
{
    check_stream("tiny-b", TENSOR_BF16);
    check_stream("tiny-d", TENSOR_BF16);
}

/* ------------------------------------------------------------------------------------------ stock and cameras */

static void check_stock(const char *checkpoint)
{
    struct parity_options options = { .checkpoint = checkpoint, .dtype = TENSOR_F32 };
    struct model *model = parity_model(&options);
    struct memory_stream stream = stream_open(model);
    struct fixture fixture;
    const struct json *runs;
    uint32_t frames;
    float *embeddings;
    char name[64];

    snprintf(name, sizeof name, "stock-%s", checkpoint);
    fixture = fixture_open(name);
    runs = json_get(fixture.manifest, "runs");
    frames = fixture_u32(json_at(runs, 1), "frames");
    embeddings = clip_embeddings(model, 0, frames);
    for (uint32_t i = 0; i < frames; i++)
        stream_push(&stream, embeddings + (size_t)i * model_geometry(model)->frame_tokens *
                                              model_geometry(model)->hidden);
    check_blocks(&fixture, model, stream.payloads, model_init_block(model)->payload);
    for (size_t i = 0; i < json_len(runs); i++) {
        struct memory_view view = view_of(&stream, json_at(runs, i));

        check_run(&fixture, &view, json_at(runs, i), i);
    }
    stream_close(&stream);
    free(embeddings);
    fixture_close(&fixture);
    model_close(model);
}

/* Code that nobody here wrote: with a window longer than the stream and every block chosen, blocks, logits and answer
 * are those of stock transformers' generate(). */
TEST(a_long_window_and_all_blocks_equal_stock_transformers)
{
    static const char *const checkpoints[] = { "tiny-a", "tiny-b", "tiny-c", "tiny-d" };

    for (size_t i = 0; i < ARRAY_LEN(checkpoints); i++)
        check_stock(checkpoints[i]);
}

TEST(a_question_over_two_cameras_equals_the_reference)
{
    struct fixture fixture = fixture_open("cameras-tiny-d");
    struct parity_options options = { .checkpoint = "tiny-d",
                                      .dtype = TENSOR_F32,
                                      .n_local = fixture_u32(fixture.manifest, "n_local") };
    const struct json *cameras = json_get(fixture.manifest, "cameras"),
                      *order = json_get(fixture.manifest, "order");
    struct model *model = parity_model(&options);
    size_t frame = (size_t)model_geometry(model)->frame_tokens * model_geometry(model)->hidden;
    const struct json *runs = json_get(fixture.manifest, "runs");
    struct memory_stream streams[2];

    for (size_t i = 0; i < 2; i++) {
        uint32_t range[2];
        float *embeddings;

        fixture_ids(json_at(cameras, i), range, 2);
        embeddings = clip_embeddings(model, range[0], range[1]);
        streams[i] = stream_open(model);
        for (uint32_t at = 0; at < range[1] - range[0]; at++)
            stream_push(&streams[i], embeddings + at * frame);
        free(embeddings);
    }
    for (size_t i = 0; i < json_len(runs); i++) {
        struct memory_view view = { .model = model,
                                    .count = (uint32_t)json_len(order),
                                    .selector = json_str(json_get(json_at(runs, i), "selector")),
                                    .top_r = fixture_u32(json_at(runs, i), "top_r"),
                                    .recent_window = fixture_u32(json_at(runs, i), "recent_window") };

        for (uint32_t at = 0; at < view.count; at++) {
            uint32_t entry[2];

            fixture_ids(json_at(order, at), entry, 2);
            view.payloads[at] = streams[entry[0]].payloads[entry[1]];
        }
        check_run(&fixture, &view, json_at(runs, i), i);
        check_scores(&fixture, &view, i, model_geometry(model)->layers);
    }
    stream_close(&streams[0]);
    stream_close(&streams[1]);
    fixture_close(&fixture);
    model_close(model);
}

TEST_MAIN()
