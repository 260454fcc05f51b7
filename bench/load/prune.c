/* prune - how many chunks of frames an exact bound would let a question skip, layer by layer, with the demo model's own
 * keys and queries: a truth camera is watched, questions about it are asked, and for each layer's query it is counted how
 * many chunks could hold one of the best.
 *
 *   prune [--frames 4096] [--questions 64] [--busy]
 *
 * Two bounds of a chunk's best score: a box, the least and greatest of each of the keys' numbers, and a ball, their mean
 * and the greatest distance from it. A chunk has to be scanned when its bound is not below the worst of the best scores;
 * in the best of orders no more are. What the bounds themselves cost is not counted.
 *
 * And how many frames sketches (kv/kv_sketch.h) leave to be scored exactly: of each key the difference to its chunk's mean
 * (chunks of 16) in 6 bits with a scale of its own, and in the upper 5 of them. Its exact score is its score by that, give or take
 * the query's length times that of what rounding left. (The query is not rounded here: keys of this model are too short to have sketches.) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/require.h"
#include "model/model.h"
#include "questions.h"
#include "render.h"

enum {
    CHUNK_KINDS = 3,
    TOP_KINDS = 2,
    BOUNDS = 3,
    SKETCHES = 2,
    LAYERS_MAX = 64,
    QUESTIONS_ASKED_MAX = 1024,
    BATCH = 16,
    DIMS_MAX = 1024
};

static const uint32_t chunk_frames[CHUNK_KINDS] = { 16, 128, 1024 };
static const uint32_t tops[TOP_KINDS] = { 8, 64 };
static const char *const bound_names[BOUNDS] = { "box", "ball", "both" };

struct prune_options {
    uint32_t frames, questions, seed;
    bool busy;
};

static const struct option_row rows[] = {
    OPTION_ROW(prune_options, frames, U32, "4096", "1024", "40000", "frames that the camera was watched"),
    OPTION_ROW(prune_options, questions, U32, "64", "1", "1024", "questions about it"),
    OPTION_ROW(prune_options, seed, U32, "7", "0", "4294967295", "which world the camera sees"),
    OPTION_ROW(prune_options, busy, BOOL, "false", "", "",
               "something is always in view, rather than now and then"),
};

struct pruning {
    struct prune_options options;
    struct model *model;
    const struct model_geometry *geometry;
    uint8_t **payloads; /* [frames] */
    uint32_t dims;
    double scanned[LAYERS_MAX][CHUNK_KINDS][TOP_KINDS][BOUNDS]; /* shares, added up */
    double left[LAYERS_MAX][TOP_KINDS][SKETCHES];               /* by 5 bits, by 6; shares of frames */
    uint32_t asked[LAYERS_MAX];
    struct model_chosen *chosen;
    float *scores, *sorted;
};

static void die(const char *what)
{
    fprintf(stderr, "prune: %s\n", what);
    exit(1);
}

static void *memory(size_t bytes)
{
    void *bytes_p = calloc(1, bytes);

    if (bytes_p == NULL)
        die("no memory");
    return bytes_p;
}

/* --- the camera --- */

static uint8_t clamp(int value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* BT.601, limited range. */
static void to_rgb(const struct picture *picture, uint8_t *rgb)
{
    for (int y = 0; y < VIDEO_HEIGHT; y++)
        for (int x = 0; x < VIDEO_WIDTH; x++) {
            int luma = 298 * (picture->plane[0][y * picture->stride[0] + x] - 16);
            int u = picture->plane[1][y / 2 * picture->stride[1] + x / 2] - 128,
                v = picture->plane[2][y / 2 * picture->stride[2] + x / 2] - 128;

            *rgb++ = clamp((luma + 409 * v + 128) >> 8);
            *rgb++ = clamp((luma - 100 * u - 208 * v + 128) >> 8);
            *rgb++ = clamp((luma + 516 * u + 128) >> 8);
        }
}

static void watch(struct pruning *pruning, const struct world *world)
{
    size_t pixels = (size_t)VIDEO_WIDTH * VIDEO_HEIGHT, tokens = pruning->geometry->frame_tokens,
           numbers = tokens * pruning->geometry->hidden;
    uint8_t *planes = memory(pixels * 3 / 2), *rgb = memory(BATCH * pixels * 3);
    struct picture picture = { { planes, planes + pixels, planes + pixels * 5 / 4 },
                               { VIDEO_WIDTH, VIDEO_WIDTH / 2, VIDEO_WIDTH / 2 } };
    float *embeddings = memory(BATCH * numbers * sizeof *embeddings);
    struct model_picture pictures[BATCH];
    struct model_window *window;
    struct renderer *renderer;
    struct status st;

    if (!renderer_create(&renderer, world, &st) || !model_window_create(&window, pruning->model, &st))
        die(st.text);
    for (uint32_t first = 0; first < pruning->options.frames; first += BATCH) {
        for (uint32_t i = 0; i < BATCH; i++) {
            render_frame(renderer, (first + i) * FRAMES_PER_SAMPLE, &picture);
            to_rgb(&picture, rgb + i * pixels * 3);
            pictures[i] = (struct model_picture){ rgb + i * pixels * 3, VIDEO_HEIGHT, VIDEO_WIDTH };
        }
        if (!model_encode_frames(pruning->model, pictures, BATCH, embeddings, &st))
            die(st.text);
        for (uint32_t i = 0; i < BATCH && first + i < pruning->options.frames; i++) {
            struct model_push push = { window, embeddings + i * numbers, (uint32_t)tokens,
                                       memory(model_block_bytes(pruning->model, (uint32_t)tokens)) };

            pruning->payloads[first + i] = push.payload;
            if (!model_window_push(pruning->model, &push, 1, &st))
                die(st.text);
        }
    }
    model_window_destroy(window);
    renderer_destroy(renderer);
    free(embeddings);
    free(planes);
    free(rgb);
}

/* --- a layer's question --- */

static const float *key_of(const struct pruning *pruning, uint32_t frame, uint32_t layer)
{
    return (const float *)(const void *)pruning->payloads[frame] + (size_t)layer * pruning->dims;
}

static int greatest_first(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

static void mean_of(const struct pruning *pruning, uint32_t layer, uint32_t first, uint32_t count,
                    float *mean)
{
    for (uint32_t d = 0; d < pruning->dims; d++) {
        mean[d] = 0;
        for (uint32_t i = first; i < first + count; i++)
            mean[d] += key_of(pruning, i, layer)[d] / (float)count;
    }
}

static void bound_chunk(const struct pruning *pruning, const float *query, uint32_t layer, uint32_t first,
                        uint32_t count, double bounds[BOUNDS])
{
    double box = 0, dot = 0, norm = 0, radius = 0;
    float mean[DIMS_MAX];

    mean_of(pruning, layer, first, count, mean);
    for (uint32_t d = 0; d < pruning->dims; d++) {
        float least = INFINITY, greatest = -INFINITY;

        for (uint32_t i = first; i < first + count; i++) {
            float number = key_of(pruning, i, layer)[d];

            least = fminf(least, number);
            greatest = fmaxf(greatest, number);
        }
        box += query[d] * (query[d] > 0 ? greatest : least);
        dot += query[d] * mean[d];
        norm += query[d] * query[d];
    }
    for (uint32_t i = first; i < first + count; i++) {
        double far = 0;

        for (uint32_t d = 0; d < pruning->dims; d++) {
            double off = key_of(pruning, i, layer)[d] - mean[d];

            far += off * off;
        }
        radius = fmax(radius, far);
    }
    bounds[0] = box;
    bounds[1] = dot + sqrt(norm) * sqrt(radius);
    bounds[2] = fmin(bounds[0], bounds[1]);
}

static void count_chunks(struct pruning *pruning, const float *query, uint32_t layer, uint32_t kind)
{
    uint32_t size = chunk_frames[kind], chunks = pruning->options.frames / size;

    for (uint32_t n = 0; n < chunks; n++) {
        double bounds[BOUNDS];

        bound_chunk(pruning, query, layer, n * size, size, bounds);
        for (uint32_t top = 0; top < TOP_KINDS; top++)
            for (uint32_t b = 0; b < BOUNDS; b++)
                pruning->scanned[layer][kind][top][b] +=
                    (bounds[b] >= pruning->sorted[tops[top] - 1]) / (double)chunks;
    }
}

/* The greatest that the frame's score may be, by so many bits of its sketch. */
static double greatest_by_sketch(const struct pruning *pruning, const float *query, const float *key,
                                 const float *mean, unsigned bits)
{
    double step = bits == 6 ? 1 : 2;
    double largest = 0, dot = 0, lost = 0, norm = 0, scale;

    for (uint32_t d = 0; d < pruning->dims; d++)
        largest = fmax(largest, fabs((double)key[d] - mean[d]));
    scale = largest * 2 / 63;
    for (uint32_t d = 0; d < pruning->dims; d++) {
        double off = (double)key[d] - mean[d], code = scale > 0 ? fmin(floor(off / scale + 32), 63) : 0,
               kept = (floor(code / step) * step + (step - 1) / 2 - 31.5) * scale;

        dot += query[d] * (mean[d] + kept);
        lost += (off - kept) * (off - kept);
        norm += (double)query[d] * query[d];
    }
    return dot + sqrt(norm) * sqrt(lost);
}

static void count_left(struct pruning *pruning, const float *query, uint32_t layer)
{
    uint32_t size = chunk_frames[0];

    for (uint32_t i = 0; i < pruning->options.frames / size * size; i++) {
        float mean[DIMS_MAX];

        mean_of(pruning, layer, i / size * size, size, mean);
        for (uint32_t n = 0; n < SKETCHES; n++) {
            double greatest = greatest_by_sketch(pruning, query, key_of(pruning, i, layer), mean, 5 + n);

            for (uint32_t top = 0; top < TOP_KINDS; top++)
                pruning->left[layer][top][n] +=
                    (greatest >= pruning->sorted[tops[top] - 1]) / (double)pruning->options.frames;
        }
    }
}

static bool retrieve(void *arg, uint32_t layer, const float *folded, const struct model_chosen **chosen_p,
                     size_t *count_p, struct status *st)
{
    struct pruning *pruning = arg;
    uint32_t tokens = pruning->geometry->frame_tokens, count = 0;

    for (uint32_t i = 0; i < pruning->options.frames; i++) {
        double sum = 0;

        for (uint32_t d = 0; d < pruning->dims; d++)
            sum += folded[d] * key_of(pruning, i, layer)[d];
        pruning->scores[i] = pruning->sorted[i] = (float)sum;
    }
    qsort(pruning->sorted, pruning->options.frames, sizeof *pruning->sorted, greatest_first);
    for (uint32_t kind = 0; kind < CHUNK_KINDS; kind++)
        count_chunks(pruning, folded, layer, kind);
    count_left(pruning, folded, layer);
    pruning->asked[layer]++;
    for (uint32_t i = 0; i < pruning->options.frames && count < tops[0]; i++)
        if (pruning->scores[i] >= pruning->sorted[tops[0] - 1])
            pruning->chosen[count++] = (struct model_chosen){
                pruning->payloads[i] + model_slice_offset(pruning->model, tokens, layer), tokens
            };
    *chosen_p = pruning->chosen;
    *count_p = count;
    return true;
}

static void ask(struct pruning *pruning, const char *words)
{
    const struct model_question_options options = { .retriever = { pruning, retrieve },
                                                    .context_tokens_max = 1 << 16,
                                                    .answer_tokens_max = 1 };
    uint32_t ids[LIMIT_QUESTION_BYTES];
    struct token_ids out = { ids, ARRAY_LEN(ids), 0 };
    struct model_question *question;
    struct status st;

    if (!model_question_create(&question, pruning->model, &options, &st) ||
        !model_question_ids(pruning->model, words, strlen(words), &out, &st) ||
        !model_question_retrieve(question, ids, out.count, &st))
        die(st.text);
    model_question_destroy(question);
}

static void report(const struct pruning *pruning, uint32_t questions)
{
    printf("chunks that have to be scanned, %u frames, %u questions, keys of %u numbers\n\n",
           pruning->options.frames, questions, pruning->dims);
    printf("%5s %5s %5s", "layer", "chunk", "top");
    for (uint32_t b = 0; b < BOUNDS; b++)
        printf(" %8s", bound_names[b]);
    printf("\n");
    for (uint32_t layer = 0; layer < pruning->geometry->layers; layer++)
        for (uint32_t kind = 0; kind < CHUNK_KINDS; kind++)
            for (uint32_t top = 0; top < TOP_KINDS; top++) {
                printf("%5u %5u %5u", layer, chunk_frames[kind], tops[top]);
                for (uint32_t b = 0; b < BOUNDS; b++)
                    printf(" %6.1f %%", 100 * pruning->scanned[layer][kind][top][b] / pruning->asked[layer]);
                printf("\n");
            }
    printf("\nframes that five bits of their keys leave, and six, which are then scored exactly\n\n");
    for (uint32_t layer = 0; layer < pruning->geometry->layers; layer++)
        for (uint32_t top = 0; top < TOP_KINDS; top++)
            printf("%5u       %5u %6.2f %% %6.2f %%\n", layer, tops[top],
                   100 * pruning->left[layer][top][0] / pruning->asked[layer],
                   100 * pruning->left[layer][top][1] / pruning->asked[layer]);
}

static void run(struct pruning *pruning)
{
    static struct world world;
    static struct question questions[QUESTIONS_ASKED_MAX];
    uint32_t count;

    world_make(&world, pruning->options.seed, pruning->options.frames / 2 + 1,
               pruning->options.busy ? PROFILE_DEMO : PROFILE_LONG);
    count = questions_make(&world, pruning->options.questions, questions);
    pruning->payloads = memory(pruning->options.frames * sizeof *pruning->payloads);
    pruning->scores = memory(pruning->options.frames * sizeof *pruning->scores);
    pruning->sorted = memory(pruning->options.frames * sizeof *pruning->sorted);
    pruning->chosen = memory(tops[0] * sizeof *pruning->chosen);
    watch(pruning, &world);
    for (uint32_t i = 0; i < count; i++)
        ask(pruning, questions[i].text);
    report(pruning, count);
    for (uint32_t i = 0; i < pruning->options.frames; i++)
        free(pruning->payloads[i]);
    free(pruning->payloads);
    free(pruning->scores);
    free(pruning->sorted);
    free(pruning->chosen);
}

int main(int argc, char **argv)
{
    static const struct option_table table = {
        .program = "prune",
        .summary = "Counts the chunks that an exact bound lets a question skip.",
        .rows = rows,
        .count = ARRAY_LEN(rows)
    };
    const struct model_spec spec = { .folder = REELKV_SOURCE_DIR "/models/reelkv-demo",
                                     .dtype = "f32",
                                     .threads = 1,
                                     .n_local = 256,
                                     .parts = MODEL_VISION | MODEL_LANGUAGE,
                                     .batch_frames = BATCH };
    static struct pruning pruning;
    struct status st = { 0 };

    switch (options_parse(&table, &pruning.options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "prune: %s\n", st.text);
        return 2;
    case OPTIONS_RUN:
        break;
    }
    if (!model_open_spec(&pruning.model, &spec, &st))
        die(st.text);
    pruning.geometry = model_geometry(pruning.model);
    pruning.dims = pruning.geometry->kv_heads * pruning.geometry->head_dim;
    if (pruning.dims > DIMS_MAX || pruning.geometry->layers > LAYERS_MAX)
        die("the demo model has another shape");
    run(&pruning);
    model_close(pruning.model);
    return 0;
}
