/* The committed demo model answers as stock transformers does when both are given the same embeddings: logits and id of
 * every step, up to the end of each answer. */
#include <stdlib.h>

#include "parity.h"

#define DEMO_MODEL "models/reelkv-demo"

enum { IDS_MAX = 64 };

static void check_checkpoint(const struct fixture *fixture)
{
    const struct safetensors_tensor *made_from = safetensors_find(fixture->tensors, "witness"), *here;
    struct safetensors *checkpoint;
    struct status st;

    CHECK_OK(safetensors_open(&checkpoint, REELKV_SOURCE_DIR "/" DEMO_MODEL, &st), st);
    here = safetensors_find(checkpoint, "language_model.model.norm.weight");
    CHECK(made_from != NULL && here != NULL);
    if (here->bytes != made_from->bytes || memcmp(here->data, made_from->data, here->bytes) != 0)
        test_fail(__FILE__, __LINE__,
                  DEMO_MODEL " has changed: run tools/fixtures/demo.py (docs/fixtures.md)");
    safetensors_close(checkpoint);
}

/* A stream of the run's frames, all of them chosen in every layer. */
static struct model_question *ask(struct model *model, const struct json *run, const float *embeddings,
                                  struct memory_stream *stream, struct memory_view *view, uint32_t *id_p)
{
    const struct model_geometry *geometry = model_geometry(model);
    struct model_question_options options = { .retriever = memory_retriever(view),
                                              .context_tokens_max = 8192,
                                              .answer_tokens_max = IDS_MAX };
    const char *words = json_str(json_get(run, "question"));
    uint32_t ids[LIMIT_QUESTION_BYTES], want[LIMIT_QUESTION_BYTES];
    struct token_ids out = { ids, ARRAY_LEN(ids), 0 };
    struct model_question *question;
    struct status st;

    for (uint32_t i = fixture_u32(run, "from"); i < fixture_u32(run, "to"); i++)
        stream_push(stream, embeddings + (size_t)i * geometry->frame_tokens * geometry->hidden);
    *view = (struct memory_view){ .model = model, .count = stream->count, .selector = "all" };
    memcpy(view->payloads, stream->payloads, sizeof view->payloads);
    CHECK_OK(model_question_create(&question, model, &options, &st), st);
    CHECK_OK(model_question_ids(model, words, strlen(words), &out, &st), st);
    CHECK_OK(model_question_retrieve(question, ids, out.count, &st), st);
    out.count = 0;
    CHECK_OK(model_prompt_ids(model, words, strlen(words), &out, &st), st);
    CHECK_EQ(fixture_ids(json_get(run, "answer_prompt_ids"), want, ARRAY_LEN(want)), out.count);
    CHECK_MEM(ids, want, out.count * sizeof *want);
    CHECK_OK(model_question_prompt(question, ids, out.count, id_p, &st), st);
    return question;
}

/* *logits_p: of the run's first step; moved behind those of its last. */
static void check_run(struct model *model, const struct json *run, const float *embeddings,
                      const float **logits_p)
{
    uint32_t want[IDS_MAX], got, vocabulary = model_geometry(model)->vocabulary;
    size_t count = fixture_ids(json_get(run, "ids"), want, IDS_MAX);
    struct memory_stream stream = stream_open(model);
    float *logits = malloc(vocabulary * sizeof *logits);
    static struct memory_view view;
    struct model_question *question = ask(model, run, embeddings, &stream, &view, &got);
    struct status st;

    CHECK(count > 0);
    for (size_t i = 0; i < count; i++, *logits_p += vocabulary) {
        if (i > 0)
            CHECK_OK(model_question_next(question, &got, &st), st);
        CHECK_OK(model_question_logits(question, logits, &st), st);
        CHECK_CLOSE(logits, *logits_p, vocabulary, PARITY_F32_TOLERANCE);
        if (got != want[i])
            test_fail(__FILE__, __LINE__, "'%s': id %zu is %u, not %u", json_str(json_get(run, "question")),
                      i, got, want[i]);
    }
    CHECK(model_is_end(model, got));
    model_question_destroy(question);
    stream_close(&stream);
    free(logits);
}

TEST(the_demo_model_answers_as_in_stock_transformers)
{
    struct fixture fixture = fixture_open("demo");
    struct model *model = parity_model(&(struct parity_options){
        .checkpoint = "../../../" DEMO_MODEL, .dtype = TENSOR_F32, .parts = MODEL_LANGUAGE });
    const struct json *runs = json_get(fixture.manifest, "runs");
    float *embeddings = fixture_floats(&fixture, "embeddings", NULL);
    size_t count;
    float *logits = fixture_floats(&fixture, "logits", &count);
    const float *next = logits;

    check_checkpoint(&fixture);
    CHECK_EQ(model_geometry(model)->init_tokens, fixture_u32(fixture.manifest, "n_init"));
    for (size_t i = 0; i < json_len(runs); i++)
        check_run(model, json_at(runs, i), embeddings, &next);
    CHECK_EQ(next - logits, count);
    free(embeddings);
    free(logits);
    model_close(model);
    fixture_close(&fixture);
}

TEST_MAIN()
