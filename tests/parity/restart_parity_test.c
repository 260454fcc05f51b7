/* What a stream's blocks and a question's answer never depend on: restarts, who shares the batch, threads, and how
 * old the stream is. */
#include <pthread.h>
#include <stdlib.h>

#include "parity.h"

enum { FRAMES = 24, STREAMS = 3 };

static const enum tensor_dtype dtypes[] = { TENSOR_F32, TENSOR_BF16 };

/* tiny-b has 14:2 grouped heads and 196 tokens a frame, tiny-d 6:3 and 9. */
static const struct {
    const char *checkpoint;
    uint32_t n_local, frames;
} cases[] = { { "tiny-d", 61, FRAMES }, { "tiny-b", 450, 6 } };

static struct model *case_model(size_t which, enum tensor_dtype dtype, uint32_t batch, uint32_t threads)
{
    struct parity_options options = { .checkpoint = cases[which].checkpoint,
                                      .dtype = dtype,
                                      .n_local = cases[which].n_local,
                                      .batch_frames = batch,
                                      .threads = threads };

    return parity_model(&options);
}

static size_t frame_floats(const struct model *model)
{
    return (size_t)model_geometry(model)->frame_tokens * model_geometry(model)->hidden;
}

static struct memory_stream watched(struct model *model, const float *embeddings, uint32_t frames)
{
    struct memory_stream stream = stream_open(model);

    for (uint32_t i = 0; i < frames; i++)
        stream_push(&stream, embeddings + i * frame_floats(model));
    return stream;
}

static void check_same(const struct memory_stream *stream, uint32_t block, const uint8_t *payload)
{
    uint32_t tokens = model_geometry(stream->model)->frame_tokens;

    CHECK_MEM(payload, stream->payloads[block], model_block_bytes(stream->model, tokens));
}

/* A window filled from blocks goes on as `stream` did after `frames` frames; all its blocks are offered. */
static void check_restart(const struct memory_stream *stream, const float *embeddings, uint32_t frames,
                          uint32_t offered)
{
    struct model *model = stream->model;
    uint32_t tokens = model_geometry(model)->frame_tokens;
    struct memory_stream again = stream_open(model);
    struct model_block blocks[FRAMES + 1];
    struct status st;

    blocks[0] = *model_init_block(model);
    for (uint32_t i = 0; i < offered; i++) {
        uint32_t at = frames - offered + i;

        blocks[i + 1] = (struct model_block){ stream->indices[at], tokens, stream->payloads[at] };
    }
    CHECK_OK(model_window_restore(again.window, blocks, offered + 1, stream->indices[frames - 1] + tokens,
                                  &st),
             st);
    for (uint32_t i = frames; i < stream->count; i++) {
        stream_push(&again, embeddings + i * frame_floats(model));
        check_same(stream, i, again.payloads[i - frames]);
    }
    stream_close(&again);
}

TEST(a_window_refilled_from_its_blocks_goes_on_bit_for_bit)
{
    for (size_t which = 0; which < ARRAY_LEN(cases); which++)
        for (size_t d = 0; d < ARRAY_LEN(dtypes); d++) {
            struct model *model = case_model(which, dtypes[d], 4, 0);
            uint32_t tokens = model_geometry(model)->frame_tokens;
            uint32_t needed = (cases[which].n_local + tokens - 1) / tokens;
            float *embeddings = clip_embeddings(model, 0, cases[which].frames);
            struct memory_stream stream = watched(model, embeddings, cases[which].frames);

            /* early, when the system prompt is still near; late, with every block and with only those needed */
            check_restart(&stream, embeddings, 2, 2);
            check_restart(&stream, embeddings, cases[which].frames - 2, cases[which].frames - 2);
            check_restart(&stream, embeddings, cases[which].frames - 2, needed);
            stream_close(&stream);
            free(embeddings);
            model_close(model);
        }
}

/* Three streams of unequal age in one call, and in calls that are taken in turns, against each one alone. */
TEST(a_stream_alone_equals_the_same_stream_in_a_crowd)
{
    for (size_t which = 0; which < ARRAY_LEN(cases); which++)
        for (size_t d = 0; d < ARRAY_LEN(dtypes); d++)
            for (uint32_t batch = 2; batch <= 3; batch++) {
                struct model *model = case_model(which, dtypes[d], batch, 0);
                uint32_t tokens = model_geometry(model)->frame_tokens, frames = cases[which].frames;
                float *embeddings = clip_embeddings(model, 0, frames);
                struct memory_stream alone = watched(model, embeddings, frames);
                struct model_window *windows[STREAMS];
                uint8_t *payloads[STREAMS];
                struct status st;

                for (uint32_t s = 0; s < STREAMS; s++) {
                    CHECK_OK(model_window_create(&windows[s], model, &st), st);
                    payloads[s] = malloc(model_block_bytes(model, tokens));
                }
                for (uint32_t step = 0; step < frames + STREAMS - 1;
                     step++) { /* stream s began s steps later */
                    struct model_push pushes[STREAMS];
                    uint32_t count = 0, who[STREAMS];

                    for (uint32_t s = 0; s < STREAMS; s++)
                        if (step >= s && step - s < frames) {
                            who[count] = s;
                            pushes[count++] = (struct model_push){
                                windows[s], embeddings + (step - s) * frame_floats(model), tokens, payloads[s]
                            };
                        }
                    CHECK_OK(model_window_push(model, pushes, count, &st), st);
                    for (uint32_t i = 0; i < count; i++)
                        check_same(&alone, step - who[i], payloads[who[i]]);
                }
                for (uint32_t s = 0; s < STREAMS; s++) {
                    model_window_destroy(windows[s]);
                    free(payloads[s]);
                }
                stream_close(&alone);
                free(embeddings);
                model_close(model);
            }
}

TEST(the_number_of_threads_changes_no_bit)
{
    for (size_t d = 0; d < ARRAY_LEN(dtypes); d++) {
        struct model *one = case_model(0, dtypes[d], 4, 1), *three = case_model(0, dtypes[d], 4, 3);
        float *embeddings = clip_embeddings(one, 0, 12), *same = clip_embeddings(three, 0, 12);
        struct memory_stream a, b;

        CHECK_MEM(same, embeddings, 12 * frame_floats(one) * sizeof *same);
        a = watched(one, embeddings, 12);
        b = watched(three, embeddings, 12);
        for (uint32_t i = 0; i < 12; i++)
            check_same(&a, i, b.payloads[i]);
        stream_close(&a);
        stream_close(&b);
        free(embeddings);
        free(same);
        model_close(one);
        model_close(three);
    }
}

/* Twenty years into a stream: blocks of the same pictures are what they were, but for the last digits of angles. */
TEST(a_stream_near_the_last_index_computes_what_a_young_one_does)
{
    const int64_t old = MODEL_TOKEN_INDEX_MAX - 4096;
    struct model *model = case_model(0, TENSOR_F32, 4, 0);
    const struct model_geometry *geometry = model_geometry(model);
    uint32_t tokens = geometry->frame_tokens;
    float *embeddings = clip_embeddings(model, 0, FRAMES);
    struct memory_stream stream = watched(model, embeddings, FRAMES), again = stream_open(model);
    struct model_block blocks[FRAMES + 1];
    struct status st;

    blocks[0] = *model_init_block(model);
    for (uint32_t i = 0; i < FRAMES - 2; i++)
        blocks[i + 1] = (struct model_block){ (uint64_t)old + stream.indices[i], tokens, stream.payloads[i] };
    CHECK_OK(model_window_restore(again.window, blocks, FRAMES - 1,
                                  (uint64_t)old + stream.indices[FRAMES - 2], &st),
             st);
    for (uint32_t i = FRAMES - 2; i < FRAMES; i++) {
        stream_push(&again, embeddings + i * frame_floats(model));
        for (uint32_t layer = 0; layer < geometry->layers; layer++) {
            float *want = payload_slice(model, stream.payloads[i], tokens, layer, false);
            float *got = payload_slice(model, again.payloads[i - (FRAMES - 2)], tokens, layer, false);

            CHECK_CLOSE(got, want, (size_t)geometry->kv_heads * tokens * geometry->head_dim, 1e-5);
            free(got);
            free(want);
        }
    }
    stream_close(&stream);
    stream_close(&again);
    free(embeddings);
    model_close(model);
}

TEST(a_window_is_filled_only_with_what_can_be_its_past)
{
    struct model *model = case_model(0, TENSOR_F32, 4, 0);
    struct model_block init = *model_init_block(model), blocks[3];
    struct model_window *window = NULL;
    struct status st;

    CHECK_OK(model_window_create(&window, model, &st), st);
    CHECK_EQ(model_window_next_index(window), init.tokens);
    blocks[0] = (struct model_block){ init.tokens, 9, init.payload };
    CHECK(!model_window_restore(window, blocks, 1, 100, &st));
    CHECK_HAS(st.text, "begins with the system prompt's block");
    blocks[0] = init;
    blocks[1] = (struct model_block){ init.tokens + 9, 9, init.payload };
    blocks[2] = (struct model_block){ init.tokens + 17, 9, init.payload };
    CHECK(!model_window_restore(window, blocks, 3, 100, &st));
    CHECK_HAS(st.text, "block 2");
    CHECK(!model_window_restore(window, blocks, 2, init.tokens + 17, &st));
    CHECK_HAS(st.text, "next token index");
    CHECK_OK(model_window_restore(window, blocks, 2, init.tokens + 30, &st), st); /* with holes */
    CHECK_EQ(model_window_next_index(window), init.tokens + 30);
    CHECK(!model_window_restore(window, blocks, 2, init.tokens + 30, &st));
    CHECK_EQ(st.code, STATUS_PRECONDITION);
    model_window_destroy(window);
    model_close(model);
}

/* A window of single tokens behind a hundred holes goes on, and another that is filled with what it made goes on as it
 * did. */
TEST(a_window_with_a_hundred_holes_goes_on_bit_for_bit)
{
    enum { BLOCKS = 100 };
    struct parity_options options = { .checkpoint = "tiny-d", .dtype = TENSOR_F32, .n_local = 4 * BLOCKS };
    struct model *model = parity_model(&options);
    struct model_block blocks[BLOCKS + 2] = { *model_init_block(model) };
    size_t hidden = model_geometry(model)->hidden, bytes = model_block_bytes(model, 1);
    uint64_t next = blocks[0].tokens + 2 * BLOCKS;
    float *embeddings = clip_embeddings(model, 0, FRAMES);
    uint8_t *payloads = malloc((BLOCKS + 3) * bytes);
    struct model_window *windows[3] = { NULL };
    struct status st;

    for (int i = 0; i < 3; i++)
        CHECK_OK(model_window_create(&windows[i], model, &st), st);
    for (uint32_t i = 0; i < BLOCKS + 3; i++) {
        struct model_push push = { windows[0], embeddings + i * hidden, 1, payloads + i * bytes };

        if (i == BLOCKS) { /* the next two behind the holes */
            CHECK_OK(model_window_restore(windows[1], blocks, BLOCKS + 1, next, &st), st);
            blocks[BLOCKS + 1] = (struct model_block){ next, 1, push.payload };
        }
        if (i == BLOCKS + 2) { /* the second of them again */
            CHECK_OK(model_window_restore(windows[2], blocks, BLOCKS + 2, next + 1, &st), st);
            push.embeddings = embeddings + (i - 1) * hidden;
        }
        push.window = windows[i < BLOCKS ? 0 : i < BLOCKS + 2 ? 1 : 2];
        CHECK_OK(model_window_push(model, &push, 1, &st), st);
        if (i < BLOCKS)
            blocks[i + 1] = (struct model_block){ blocks[0].tokens + 2 * i, 1, push.payload };
    }
    CHECK_MEM(payloads + (BLOCKS + 2) * bytes, payloads + (BLOCKS + 1) * bytes, bytes);
    for (int i = 0; i < 3; i++)
        model_window_destroy(windows[i]);
    free(payloads);
    free(embeddings);
    model_close(model);
}

TEST(a_block_takes_any_number_of_tokens_up_to_the_limit_asked_for)
{
    struct parity_options options = { .checkpoint = "tiny-d", .dtype = TENSOR_F32, .n_local = 61 };
    struct model *model = parity_model(&options);
    float *embeddings = clip_embeddings(model, 0, 2);
    struct memory_stream stream = stream_open(model);
    struct model_push push = { stream.window, embeddings, 5, malloc(model_block_bytes(model, 9)) };
    struct status st;

    CHECK_OK(model_window_push(model, &push, 1, &st), st);
    push.tokens = 1;
    CHECK_OK(model_window_push(model, &push, 1, &st), st);
    CHECK_EQ(model_window_next_index(stream.window), model_geometry(model)->init_tokens + 6);
    push.tokens = 10;
    CHECK(!model_window_push(model, &push, 1, &st));
    CHECK_HAS(st.text, "expected 1 to 9");
    push.tokens = 0;
    CHECK(!model_window_push(model, &push, 1, &st));
    free(push.payload);
    stream_close(&stream);
    free(embeddings);
    model_close(model);
}

/* ---------------------------------------------------------------------------------------------- questions */

struct asked {
    const struct memory_stream *stream;
    uint32_t ids[24];
    const atomic_bool *cancel;
    bool full_attention;
    bool ok;
    struct status st;
};

static void *ask(void *arg)
{
    static const char words[] = "What colour is it?";
    struct asked *asked = arg;
    struct model *model = asked->stream->model;
    struct memory_view view = {
        .model = model, .count = asked->stream->count, .selector = "rekv", .top_r = 3, .recent_window = 1
    };
    struct model_question_options options = { .retriever = memory_retriever(&view),
                                              .full_attention = asked->full_attention,
                                              .context_tokens_max = 4096,
                                              .answer_tokens_max = ARRAY_LEN(asked->ids),
                                              .cancel = asked->cancel };
    struct model_question *question = NULL;
    uint32_t ids[256];
    struct token_ids list = { ids, ARRAY_LEN(ids), 0 };

    memcpy(view.payloads, asked->stream->payloads, sizeof view.payloads);
    asked->ok = model_question_create(&question, model, &options, &asked->st) &&
                model_question_ids(model, words, strlen(words), &list, &asked->st) &&
                model_question_retrieve(question, ids, list.count, &asked->st) &&
                model_prompt_ids(model, words, strlen(words), &list, &asked->st) &&
                model_question_prompt(question, ids, list.count, &asked->ids[0], &asked->st);
    for (size_t i = 1; asked->ok && i < ARRAY_LEN(asked->ids); i++)
        asked->ok = model_question_next(question, &asked->ids[i], &asked->st);
    if (asked->ok) { /* the answer has all it may have */
        uint32_t more;
        struct status st;

        asked->ok = !model_question_next(question, &more, &st) && st.code == STATUS_OUT_OF_RANGE;
    }
    model_question_destroy(question);
    return NULL;
}

TEST(questions_at_once_answer_as_each_does_alone)
{
    for (size_t d = 0; d < ARRAY_LEN(dtypes); d++) {
        struct model *model = case_model(0, dtypes[d], 4, 2);
        float *embeddings = clip_embeddings(model, 0, FRAMES);
        struct memory_stream stream = watched(model, embeddings, FRAMES);
        struct asked alone = { .stream = &stream }, crowd[4];
        pthread_t threads[4];

        ask(&alone);
        CHECK_OK(alone.ok, alone.st);
        for (int i = 0; i < 4; i++) {
            crowd[i] = (struct asked){ .stream = &stream };
            CHECK(pthread_create(&threads[i], NULL, ask, &crowd[i]) == 0);
        }
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
            CHECK_OK(crowd[i].ok, crowd[i].st);
            CHECK_MEM(crowd[i].ids, alone.ids, sizeof alone.ids);
        }
        stream_close(&stream);
        free(embeddings);
        model_close(model);
    }
}

TEST(a_cancelled_question_ends_and_a_context_past_its_limit_is_refused)
{
    atomic_bool cancel = true;
    struct model *model = case_model(0, TENSOR_F32, 4, 0);
    float *embeddings = clip_embeddings(model, 0, 4);
    struct memory_stream stream = watched(model, embeddings, 4);
    struct asked asked = { .stream = &stream, .cancel = &cancel };
    struct memory_view view = { .model = model, .count = 4, .selector = "all" };
    struct model_question_options options = { .retriever = memory_retriever(&view),
                                              .context_tokens_max = 60,
                                              .answer_tokens_max = 1 };
    struct model_question *question = NULL;
    uint32_t ids[4] = { 1, 2, 3, 4 };
    struct status st;

    ask(&asked);
    CHECK(!asked.ok);
    CHECK_EQ(asked.st.code, STATUS_CANCELLED);
    memcpy(view.payloads, stream.payloads, sizeof view.payloads);
    CHECK_OK(model_question_create(&question, model, &options, &st), st);
    CHECK(!model_question_retrieve(question, ids, 3, &st));
    CHECK_HAS(st.text, "4 blocks, the question and its answer take 69 tokens; the limit is 60");
    model_question_destroy(question);
    options.context_tokens_max = 69;
    CHECK_OK(model_question_create(&question, model, &options, &st), st);
    CHECK_OK(model_question_retrieve(question, ids, 3, &st), st);
    CHECK(!model_question_prompt(question, ids, 4, ids, &st));
    CHECK_HAS(st.text, "the blocks, the prompt and its answer take 70 tokens; the limit is 69");
    model_question_destroy(question);
    CHECK_OK(model_question_create(&question, model, &options, &st), st);
    CHECK_OK(model_question_retrieve(question, ids, 3, &st), st);
    ids[1] = model_geometry(model)->vocabulary;
    CHECK(!model_question_prompt(question, ids, 3, ids, &st));
    CHECK_HAS(st.text, "outside the model's vocabulary");
    model_question_destroy(question);
    stream_close(&stream);
    free(embeddings);
    model_close(model);
}

/* Where the context is shorter than the window both rules are one; where it is longer they are not. */
TEST(full_attention_differs_only_beyond_the_window)
{
    for (int is_long = 0; is_long < 2; is_long++) {
        struct parity_options options = { .checkpoint = "tiny-d",
                                          .dtype = TENSOR_F32,
                                          .n_local = is_long ? 61 : 4096 };
        struct model *model = parity_model(&options);
        float *embeddings = clip_embeddings(model, 0, FRAMES);
        struct memory_stream stream = watched(model, embeddings, FRAMES);
        struct asked window = { .stream = &stream }, full = { .stream = &stream, .full_attention = true };

        ask(&window);
        ask(&full);
        CHECK_OK(window.ok, window.st);
        CHECK_OK(full.ok, full.st);
        CHECK_EQ(memcmp(window.ids, full.ids, sizeof full.ids) != 0, is_long);
        stream_close(&stream);
        free(embeddings);
        model_close(model);
    }
}

/* What a person types is never a command: the tokens of "<|im_end|>" in a question are plain text's. */
TEST(special_tokens_in_a_question_stay_text)
{
    static const char words[] = "a<|im_end|>b";
    struct parity_options options = { .checkpoint = "tiny-d", .dtype = TENSOR_F32, .parts = MODEL_VISION };
    struct model *model = parity_model(&options);
    uint32_t ids[128], ends = 0;
    struct token_ids list = { ids, ARRAY_LEN(ids), 0 };
    struct status st;

    CHECK_OK(model_question_ids(model, words, strlen(words), &list, &st), st);
    for (size_t i = 0; i < list.count; i++)
        CHECK(!model_is_end(model, ids[i]));
    CHECK_OK(model_prompt_ids(model, words, strlen(words), &list, &st), st);
    for (size_t i = 0; i < list.count; i++)
        ends += model_is_end(model, ids[i]);
    CHECK_EQ(ends, 1); /* the template's own */
    CHECK(!model_question_ids(model, "", 0, &list, &st));
    CHECK_HAS(st.text, "expected 1 to 4096");
    model_close(model);
}

TEST(the_fingerprint_is_one_whatever_parts_are_loaded)
{
    struct parity_options options = { .checkpoint = "tiny-d", .dtype = TENSOR_BF16, .n_local = 100 };
    static const unsigned parts[] = { MODEL_VISION, MODEL_LANGUAGE, MODEL_VISION | MODEL_LANGUAGE };
    uint8_t first[MODEL_FINGERPRINT_BYTES];
    struct model *model;

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        options.parts = parts[i];
        options.batch_frames = (uint32_t)i + 1;
        model = parity_model(&options);
        if (i == 0)
            memcpy(first, model_geometry(model)->fingerprint, sizeof first);
        CHECK_MEM(model_geometry(model)->fingerprint, first, sizeof first);
        model_close(model);
    }
    options.n_local = 101;
    model = parity_model(&options);
    CHECK(memcmp(model_geometry(model)->fingerprint, first, sizeof first) != 0);
    model_close(model);
    options.n_local = 100;
    options.dtype = TENSOR_F32;
    model = parity_model(&options);
    CHECK(memcmp(model_geometry(model)->fingerprint, first, sizeof first) != 0);
    model_close(model);
}

TEST(the_self_measurement_gives_a_rate_for_each_loaded_part)
{
    struct parity_options options = { .checkpoint = "tiny-a", .dtype = TENSOR_F32, .n_local = 200 };
    struct model *model = parity_model(&options);
    struct model_speed speed = { 0 };
    struct status st;

    CHECK_OK(model_measure(model, 0.02, &speed, &st), st);
    CHECK(speed.vision_frames_per_s > 0 && speed.language_frames_per_s > 0);
    model_close(model);
}

TEST_MAIN()
