/* model_bench - frames a second and question time of a published shape with random weights, at a full window, as shares of
 * what the machine can do (peak.h) in the same moments.
 *
 *   model_bench [--shape 0.5b] [--window 15000] [--blocks 64] [--threads 1] [--batch 1] [--f32]
 *
 * A frame's floor is its multiply-adds at the register peak; an answer token's is the bytes of its weights and context
 * at the speed of reading memory. Prints a table on stdout; the random checkpoint is removed at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/options.h"
#include "base/require.h"
#include "model/model.h"
#include "peak.h"
#include "random_checkpoint.h"

static const struct checkpoint_shape shapes[] = {
    { "0.5b", 896, 24, 14, 2, 4864, 151936, 1152, 26, 16, 4304, 384, 14, true },
    { "7b", 3584, 28, 28, 4, 18944, 152064, 1152, 26, 16, 4304, 384, 14, false },
};

enum { QUESTION_TOKENS = 30, PROMPT_TOKENS = 38, ANSWER_TOKENS = 32 };
enum { BLOCKS_MAX = 1024, BATCH_MAX = 64, SAMPLES = 5 };

struct options {
    const char *shape;
    uint32_t window, blocks, threads, batch;
    bool f32;
};

static const struct option_row rows[] = {
    OPTION_ROW(options, shape, STR, "0.5b", "1", "16", "published shape: 0.5b or 7b"),
    OPTION_ROW(options, window, U32, "15000", "1", "1048576", "tokens of the window"),
    OPTION_ROW(options, blocks, U32, "64", "1", "1024", "blocks a question reads in each layer"),
    OPTION_ROW(options, threads, U32, "1", "1", "256",
               "workers; one is timed by its CPU time, which others hardly disturb"),
    OPTION_ROW(options, batch, U32, "1", "1", "64", "frames the vision tower takes at once"),
    OPTION_ROW(options, f32, BOOL, "false", "", "", "compute in f32 rather than bf16"),
};

struct bench {
    const struct checkpoint_shape *shape;
    struct options options;
    struct model *model;
    double peak;  /* multiply-adds x 2 a second */
    double bytes; /* read from memory a second */
};

/* ------------------------------------------------------------------------------------------------- floors */

static double vision_flops(const struct checkpoint_shape *shape)
{
    double patches = (double)(shape->image / shape->patch) * (shape->image / shape->patch),
           h = shape->v_hidden;
    double layer = 2 * patches * (4 * h * h + 2 * h * shape->v_mlp) + 4 * patches * patches * h;

    return shape->v_layers * layer + 2 * patches * h * 3 * shape->patch * shape->patch +
           2 * patches * (h * shape->hidden + (double)shape->hidden * shape->hidden);
}

static double layer_weights(const struct checkpoint_shape *shape)
{
    double kv = (double)shape->hidden / shape->heads * shape->kv_heads;

    return (double)shape->hidden * (2 * shape->hidden + 2 * kv + 3 * (double)shape->mlp);
}

/* `tokens` new ones over a context of `context`. A block and a retrieval pass end at the last layer's projections. */
static double language_flops(const struct checkpoint_shape *shape, double tokens, double context,
                             bool ends_early)
{
    double kv = (double)shape->hidden / shape->heads * shape->kv_heads;
    double layer = 2 * tokens * layer_weights(shape) + 4 * tokens * context * shape->hidden;

    return ends_early ? (shape->layers - 1) * layer + 2 * tokens * shape->hidden * (shape->hidden + 2 * kv)
                      : shape->layers * layer;
}

static double token_bytes(const struct bench *bench, double context)
{
    double element = bench->options.f32 ? 4 : 2;

    return element * (bench->shape->layers * layer_weights(bench->shape) +
                      (double)bench->shape->vocabulary * bench->shape->hidden) +
           context * (double)model_geometry(bench->model)->token_bytes;
}

/* ---------------------------------------------------------------------------------------------- questions */

struct blocks {
    const struct model *model;
    uint8_t *payload; /* one block, chosen again and again */
    struct model_chosen chosen[BLOCKS_MAX];
    uint32_t count;
};

static bool choose(void *arg, uint32_t layer, const float *folded, const struct model_chosen **chosen_p,
                   size_t *count_p, struct status *st)
{
    struct blocks *blocks = arg;
    uint32_t tokens = model_geometry(blocks->model)->frame_tokens;

    for (uint32_t i = 0; i < blocks->count; i++)
        blocks->chosen[i] =
            (struct model_chosen){ blocks->payload + model_slice_offset(blocks->model, tokens, layer),
                                   tokens };
    *chosen_p = blocks->chosen;
    *count_p = blocks->count;
    return true;
}

struct times {
    double retrieve, prompt, token; /* seconds */
};

static double seconds_since(const struct bench *bench, uint64_t start)
{
    return (double)(bench_now_ns(bench->options.threads) - start) * 1e-9;
}

static bool ask_once(struct bench *bench, struct blocks *blocks, struct times *times, struct status *st)
{
    uint32_t ids[64], id;
    struct model_question_options options = {
        .retriever = { .arg = blocks, .retrieve = choose },
        .context_tokens_max = MODEL_CONTEXT_TOKENS_MAX,
        .answer_tokens_max = ANSWER_TOKENS + 1,
    };
    struct model_question *question = NULL;
    uint64_t start = bench_now_ns(bench->options.threads);
    bool ok;

    for (uint32_t i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = i * 7 % 1000;
    ok = model_question_create(&question, bench->model, &options, st) &&
         model_question_retrieve(question, ids, QUESTION_TOKENS, st);
    times->retrieve = seconds_since(bench, start);
    start = bench_now_ns(bench->options.threads);
    ok = ok && model_question_prompt(question, ids, PROMPT_TOKENS, &id, st);
    times->prompt = seconds_since(bench, start);
    start = bench_now_ns(bench->options.threads);
    for (int i = 0; ok && i < ANSWER_TOKENS; i++)
        ok = model_question_next(question, &id, st);
    times->token = seconds_since(bench, start) / ANSWER_TOKENS;
    model_question_destroy(question);
    return ok;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

static bool ask(struct bench *bench, struct times *best, struct status *st)
{
    struct blocks blocks = { .model = bench->model, .count = bench->options.blocks };
    size_t bytes = model_block_bytes(bench->model, model_geometry(bench->model)->frame_tokens);
    bool ok = true;

    *best = (struct times){ 1e9, 1e9, 1e9 };
    blocks.payload = calloc(1, bytes);
    REQUIRE(blocks.payload != NULL);
    for (int i = 0; ok && i < SAMPLES; i++) {
        struct times times = { 0 };

        ok = ask_once(bench, &blocks, &times, st);
        *best = (struct times){ least(best->retrieve, times.retrieve), least(best->prompt, times.prompt),
                                least(best->token, times.token) };
    }
    free(blocks.payload);
    return ok;
}

/* ------------------------------------------------------------------------------------------------- frames */

static bool time_vision(struct bench *bench, double *seconds_p, struct status *st)
{
    const struct model_geometry *geometry = model_geometry(bench->model);
    uint32_t side = geometry->image_side, count = bench->options.batch;
    struct model_picture pictures[BATCH_MAX];
    uint8_t *rgb = malloc((size_t)side * side * 3);
    float *out = malloc((size_t)count * geometry->frame_tokens * geometry->hidden * sizeof *out);
    bool ok = true;

    REQUIRE(rgb != NULL && out != NULL);
    for (size_t i = 0; i < (size_t)side * side * 3; i++)
        rgb[i] = (uint8_t)(i * 2654435761u >> 13);
    for (uint32_t i = 0; i < count; i++)
        pictures[i] = (struct model_picture){ rgb, side, side };
    *seconds_p = 1e9;
    for (int i = 0; ok && i < SAMPLES; i++) {
        uint64_t start = bench_now_ns(bench->options.threads);

        ok = model_encode_frames(bench->model, pictures, count, out, st);
        *seconds_p = least(*seconds_p, seconds_since(bench, start) / count);
    }
    free(rgb);
    free(out);
    return ok;
}

/* A window that a store might have filled: the same block again and again. */
static bool fill_window(struct bench *bench, struct model_window *window, const uint8_t *payload,
                        struct status *st)
{
    uint32_t tokens = model_geometry(bench->model)->frame_tokens, count = bench->options.window / tokens + 2;
    struct model_block *blocks = calloc(count, sizeof *blocks);
    bool ok;

    REQUIRE(blocks != NULL);
    blocks[0] = *model_init_block(bench->model);
    for (uint32_t i = 1; i < count; i++)
        blocks[i] = (struct model_block){ blocks[i - 1].token_index + blocks[i - 1].tokens, tokens, payload };
    ok = model_window_restore(window, blocks, count, blocks[count - 1].token_index + tokens, st);
    free(blocks);
    return ok;
}

static bool time_language(struct bench *bench, double *seconds_p, struct status *st)
{
    const struct model_geometry *geometry = model_geometry(bench->model);
    size_t numbers = (size_t)geometry->frame_tokens * geometry->hidden;
    struct model_push push = { .tokens = geometry->frame_tokens,
                               .payload =
                                   calloc(1, model_block_bytes(bench->model, geometry->frame_tokens)) };
    float *embeddings = malloc(numbers * sizeof *embeddings);
    bool ok;

    REQUIRE(push.payload != NULL && embeddings != NULL);
    for (size_t i = 0; i < numbers; i++)
        embeddings[i] = (float)(i * 2654435761u >> 16 & 0xff) / 128 - 1;
    push.embeddings = embeddings;
    ok = model_window_create(&push.window, bench->model, st) &&
         fill_window(bench, push.window, push.payload, st);
    *seconds_p = 1e9;
    for (int i = 0; ok && i < SAMPLES; i++) {
        uint64_t start = bench_now_ns(bench->options.threads);

        ok = model_window_push(bench->model, &push, 1, st);
        *seconds_p = least(*seconds_p, seconds_since(bench, start));
    }
    model_window_destroy(push.window);
    free(embeddings);
    free(push.payload);
    return ok;
}

/* ------------------------------------------------------------------------------------------------- report */

static void sample_peaks(struct bench *bench)
{
    const char *isa = strrchr(model_numerics(bench->model), ' ');
    uint32_t threads = bench->options.threads;
    enum peak_kind kind = bench->options.f32 ? PEAK_F32 : PEAK_BF16;

    for (int i = 0; i < SAMPLES; i++) {
        double peak = peak_sample(kind, isa == NULL ? "portable" : isa + 1, threads, 0.2);
        double bytes = peak_sample(PEAK_READ, "portable", threads, 0.2);

        bench->peak = peak > bench->peak ? peak : bench->peak;
        bench->bytes = bytes > bench->bytes ? bytes : bench->bytes;
    }
}

static void report(const char *what, double seconds, double floor)
{
    printf("%-44s %9.1f ms   floor %8.1f ms   %5.1f %%\n", what, seconds * 1e3, floor * 1e3,
           100 * floor / seconds);
}

/* A pass of several tokens sees half of its own ones on average, the answer's all of the prompt's. */
static void report_question(const struct bench *bench, const struct times *times)
{
    const struct model_geometry *geometry = model_geometry(bench->model);
    double read = (double)bench->options.blocks * geometry->frame_tokens + geometry->init_tokens;
    double retrieval = language_flops(bench->shape, QUESTION_TOKENS, read + QUESTION_TOKENS / 2.0, true);
    double prompt = language_flops(bench->shape, PROMPT_TOKENS, read + PROMPT_TOKENS / 2.0, false);
    double token = token_bytes(bench, read + PROMPT_TOKENS + ANSWER_TOKENS / 2.0);

    report("question: retrieval pass, 30 tokens", times->retrieve, retrieval / bench->peak);
    report("question: prompt pass, 38 tokens", times->prompt, prompt / bench->peak);
    report("question: a token of the answer", times->token, token / bench->bytes);
}

static bool run(struct bench *bench, struct status *st)
{
    uint32_t tokens = model_geometry(bench->model)->frame_tokens;
    double window = bench->options.window;
    double vision = vision_flops(bench->shape), block = language_flops(bench->shape, tokens, window, true);
    double vision_s = 0, block_s = 0;
    struct times times;

    sample_peaks(bench);
    if (!time_vision(bench, &vision_s, st) || !time_language(bench, &block_s, st) || !ask(bench, &times, st))
        return false;
    sample_peaks(bench);
    printf("%s, %s, %s, window %u, %u blocks of %u tokens\n", bench->shape->name,
           bench->options.f32 ? "f32" : "bf16", model_numerics(bench->model), bench->options.window,
           bench->options.blocks, tokens);
    printf("peak %.0f GFLOP/s, memory %.1f GB/s\n\n", bench->peak * 1e-9, bench->bytes * 1e-9);
    report("vision, a frame", vision_s, vision / bench->peak);
    report("language, a frame at a full window", block_s, block / bench->peak);
    report("both", vision_s + block_s, (vision + block) / bench->peak);
    report_question(bench, &times);
    printf("\n%.2f frames/s\n", 1 / (vision_s + block_s));
    return true;
}

static const struct checkpoint_shape *find_shape(const char *name, struct status *st)
{
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    status_fail(st, STATUS_INVALID, "--shape is 0.5b or 7b, not '%s'", name);
    return NULL;
}

static bool prepare(struct bench *bench, struct status *st)
{
    const char *temporary = getenv("TMPDIR");
    struct model_options options = { .ops = &tensor_ops_cpu,
                                     .threads = bench->options.threads,
                                     .dtype = bench->options.f32 ? TENSOR_F32 : TENSOR_BF16,
                                     .n_local = bench->options.window,
                                     .parts = MODEL_VISION | MODEL_LANGUAGE,
                                     .batch_frames = bench->options.batch };
    char folder[256];
    bool ok;

    snprintf(folder, sizeof folder, "%.200s/reelkv-bench-XXXXXX", temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(folder) == NULL)
        return status_fail(st, STATUS_UNAVAILABLE, "make %s: %m", folder);
    ok = random_checkpoint_write(folder, bench->shape,
                                 REELKV_SOURCE_DIR "/tests/data/parity/tiny-a/tokenizer.json", st) &&
         model_open(&bench->model, folder, &options, st);
    file_remove_tree(folder, NULL); /* what is mapped stays readable */
    return ok;
}

int main(int argc, char **argv)
{
    static const struct option_table table = { .program = "model_bench",
                                               .summary =
                                                   "Times a model of random weights against the machine.",
                                               .rows = rows,
                                               .count = ARRAY_LEN(rows) };
    struct bench bench = { 0 };
    struct status st = { 0 };
    bool ok;

    switch (options_parse(&table, &bench.options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "model_bench: %s\n", st.text);
        return 2;
    case OPTIONS_RUN:
        break;
    }
    bench.shape = find_shape(bench.options.shape, &st);
    ok = bench.shape != NULL && prepare(&bench, &st) && run(&bench, &st);
    model_close(bench.model);
    if (!ok)
        fprintf(stderr, "model_bench: %s\n", st.text);
    return ok ? 0 : 1;
}
