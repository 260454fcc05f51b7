#include "parity.h"

#include <stdlib.h>
#include <unistd.h>

#define PARITY_FOLDER REELKV_SOURCE_DIR "/tests/data/parity"

struct fixture fixture_open(const char *name)
{
    struct fixture fixture = { 0 };
    char path[512], link[600], target[600];
    struct status st;

    snprintf(path, sizeof path, PARITY_FOLDER "/%s/manifest.json", name);
    fixture.manifest = json_parse_file(path, 16 << 20, &st);
    if (fixture.manifest == NULL)
        test_fail(__FILE__, __LINE__, "%s", st.text);
    /* The reader knows checkpoints' names: the fixture's file gets one. */
    snprintf(target, sizeof target, PARITY_FOLDER "/%s/tensors.safetensors", name);
    snprintf(link, sizeof link, "%s/model.safetensors", test_folder());
    unlink(link);
    CHECK(symlink(target, link) == 0);
    CHECK_OK(safetensors_open(&fixture.tensors, test_folder(), &st), st);
    return fixture;
}

void fixture_close(struct fixture *fixture)
{
    json_free(fixture->manifest);
    safetensors_close(fixture->tensors);
}

float *fixture_floats(const struct fixture *fixture, const char *name, size_t *count_p)
{
    const struct safetensors_tensor *tensor = safetensors_find(fixture->tensors, name);
    enum tensor_dtype dtype;
    size_t count;
    float *floats;

    if (tensor == NULL)
        test_fail(__FILE__, __LINE__, "the fixture has no tensor '%s'", name);
    CHECK(tensor->dtype == SAFETENSORS_F32 || tensor->dtype == SAFETENSORS_BF16);
    dtype = tensor->dtype == SAFETENSORS_F32 ? TENSOR_F32 : TENSOR_BF16;
    count = tensor->bytes / tensor_dtype_bytes(dtype);
    floats = malloc(count * sizeof *floats);
    tensor_convert_host(floats, TENSOR_F32, tensor->data, dtype, count);
    if (count_p != NULL)
        *count_p = count;
    return floats;
}

uint32_t fixture_u32(const struct json *object, const char *key)
{
    uint32_t value = 0;
    struct status st;

    CHECK_OK(json_read_u32(object, key, &value, &st), st);
    return value;
}

size_t fixture_ids(const struct json *list, uint32_t *ids, size_t room)
{
    CHECK(json_is_array(list) && json_len(list) <= room);
    for (size_t i = 0; i < json_len(list); i++)
        ids[i] = (uint32_t)json_number(json_at(list, i));
    return json_len(list);
}

double worst_of(const float *got, const float *want, size_t count)
{
    double off = 0, largest = 0;

    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)got[i] - want[i]);

        if (!(difference <= off)) /* also takes a NaN up */
            off = difference;
        largest = fabs(want[i]) > largest ? fabs(want[i]) : largest;
    }
    return off / largest;
}

struct model *parity_model(const struct parity_options *options)
{
    struct model_options open = {
        .ops = &tensor_ops_cpu,
        .threads = options->threads,
        .dtype = options->dtype,
        .n_local = options->n_local == 0 ? 16384 : options->n_local,
        .parts = options->parts == 0 ? MODEL_VISION | MODEL_LANGUAGE : options->parts,
        .batch_frames = options->batch_frames == 0 ? 4 : options->batch_frames,
    };
    struct model *model = NULL;
    char folder[512];
    struct status st;

    snprintf(folder, sizeof folder, PARITY_FOLDER "/%s", options->checkpoint);
    CHECK_OK(model_open(&model, options->folder != NULL ? options->folder : folder, &open, &st), st);
    return model;
}

float *clip_embeddings(struct model *model, uint32_t from, uint32_t to)
{
    const struct model_geometry *geometry = model_geometry(model);
    struct fixture clip = fixture_open("clip");
    uint32_t height = fixture_u32(clip.manifest, "height"), width = fixture_u32(clip.manifest, "width");
    const uint8_t *frames = safetensors_find(clip.tensors, "frames")->data;
    struct model_picture pictures[64];
    struct status st;
    float *out = malloc((size_t)(to - from) * geometry->frame_tokens * geometry->hidden * sizeof *out);

    CHECK(to <= fixture_u32(clip.manifest, "frames"));
    for (uint32_t i = from; i < to; i++)
        pictures[i - from] = (struct model_picture){ frames + (size_t)i * height * width * 3, height, width };
    CHECK_OK(model_encode_frames(model, pictures, to - from, out, &st), st);
    fixture_close(&clip);
    return out;
}

struct memory_stream stream_open(struct model *model)
{
    struct memory_stream stream = { .model = model };
    struct status st;

    CHECK_OK(model_window_create(&stream.window, model, &st), st);
    return stream;
}

void stream_close(struct memory_stream *stream)
{
    for (uint32_t i = 0; i < stream->count; i++)
        free(stream->payloads[i]);
    model_window_destroy(stream->window);
}

void stream_push(struct memory_stream *stream, const float *embeddings)
{
    uint32_t tokens = model_geometry(stream->model)->frame_tokens;
    struct model_push push = { stream->window, embeddings, tokens,
                               malloc(model_block_bytes(stream->model, tokens)) };
    struct status st;

    CHECK(stream->count < ARRAY_LEN(stream->payloads));
    stream->indices[stream->count] = model_window_next_index(stream->window);
    stream->payloads[stream->count++] = push.payload;
    CHECK_OK(model_window_push(stream->model, &push, 1, &st), st);
}

float *payload_slice(const struct model *model, const uint8_t *payload, uint32_t tokens, uint32_t layer,
                     bool value)
{
    const struct model_geometry *geometry = model_geometry(model);
    size_t count = (size_t)geometry->kv_heads * tokens * geometry->head_dim;
    float *floats = malloc(count * sizeof *floats);

    payload +=
        model_slice_offset(model, tokens, layer) + (value ? count * tensor_dtype_bytes(geometry->dtype) : 0);
    tensor_convert_host(floats, TENSOR_F32, payload, geometry->dtype, count);
    return floats;
}

float *payload_representative(const struct model *model, const uint8_t *payload, uint32_t layer)
{
    const struct model_geometry *geometry = model_geometry(model);
    size_t count = (size_t)geometry->kv_heads * geometry->head_dim;
    float *floats = malloc(count * sizeof *floats);

    tensor_convert_host(floats, TENSOR_F32, payload + layer * count * tensor_dtype_bytes(geometry->dtype),
                        geometry->dtype, count);
    return floats;
}

double parity_tolerance(enum tensor_dtype dtype)
{
    return dtype == TENSOR_F32 ? PARITY_F32_TOLERANCE : PARITY_BF16_TOLERANCE;
}

/* fixture tensor [layers, blocks, kv_heads, tokens, D] against payloads; `blocks` 1 for the system prompt. */
static void check_slices(const struct fixture *fixture, const struct model *model, const char *name,
                         const uint8_t *const *payloads, size_t blocks, uint32_t tokens)
{
    const struct model_geometry *geometry = model_geometry(model);
    size_t slice = (size_t)geometry->kv_heads * tokens * geometry->head_dim, count;
    float *want = fixture_floats(fixture, name, &count);
    float *got = malloc(blocks * slice * sizeof *got);
    bool value = strstr(name, "values") != NULL;

    CHECK_EQ(count, geometry->layers * blocks * slice);
    for (uint32_t layer = 0; layer < geometry->layers; layer++) {
        for (size_t i = 0; i < blocks; i++) {
            float *floats = payload_slice(model, payloads[i], tokens, layer, value);

            memcpy(got + i * slice, floats, slice * sizeof *got);
            free(floats);
        }
        CHECK_CLOSE(got, want + layer * blocks * slice, blocks * slice, parity_tolerance(geometry->dtype));
    }
    free(got);
    free(want);
}

void check_representatives(const struct fixture *fixture, const struct model *model, uint8_t *const *payloads)
{
    const struct model_geometry *geometry = model_geometry(model);
    size_t key = (size_t)geometry->kv_heads * geometry->head_dim, count;
    float *want = fixture_floats(fixture, "representative", &count);
    uint32_t frames = fixture_u32(fixture->manifest, "frames");

    CHECK_EQ(count, geometry->layers * frames * key);
    for (uint32_t layer = 0; layer < geometry->layers; layer++) {
        float *got = malloc(frames * key * sizeof *got);

        for (uint32_t i = 0; i < frames; i++) {
            float *floats = payload_representative(model, payloads[i], layer);

            memcpy(got + i * key, floats, key * sizeof *got);
            free(floats);
        }
        CHECK_CLOSE(got, want + layer * frames * key, frames * key, parity_tolerance(geometry->dtype));
        free(got);
    }
    free(want);
}

void check_blocks(const struct fixture *fixture, const struct model *model, uint8_t *const *payloads,
                  const uint8_t *init)
{
    uint32_t tokens = model_geometry(model)->frame_tokens, kept[PARITY_FRAMES_MAX];
    size_t kept_count = fixture_ids(json_get(fixture->manifest, "kept"), kept, PARITY_FRAMES_MAX);
    const uint8_t *chosen[PARITY_FRAMES_MAX];

    for (size_t i = 0; i < kept_count; i++)
        chosen[i] = payloads[kept[i]];
    check_slices(fixture, model, "init_keys", &init, 1, model_geometry(model)->init_tokens);
    check_slices(fixture, model, "init_values", &init, 1, model_geometry(model)->init_tokens);
    check_slices(fixture, model, "keys", chosen, kept_count, tokens);
    check_slices(fixture, model, "values", chosen, kept_count, tokens);
}

/* Frames that `rank` puts before `frame`: higher scores, and newer ones among equals. */
static uint32_t rank_of(const struct memory_view *view, const float *scores, uint32_t frame)
{
    uint32_t rank = 0;

    if (strcmp(view->selector, "recent") == 0)
        return view->count - 1 - frame;
    for (uint32_t other = 0; other < view->count; other++)
        rank += scores[other] > scores[frame] || (scores[other] == scores[frame] && other > frame);
    return rank;
}

static bool retrieve(void *arg, uint32_t layer, const float *folded, const struct model_chosen **chosen_p,
                     size_t *count_p, struct status *st)
{
    struct memory_view *view = arg;
    const struct model_geometry *geometry = model_geometry(view->model);
    bool all = strcmp(view->selector, "all") == 0;
    uint32_t frames[64];
    size_t count;

    for (uint32_t frame = 0; frame < view->count; frame++) {
        float *key = payload_representative(view->model, view->payloads[frame], layer);
        double score = 0;

        for (uint32_t i = 0; i < geometry->kv_heads * geometry->head_dim; i++)
            score += (double)folded[i] * key[i];
        view->scores[layer][frame] = (float)score;
        free(key);
    }
    view->chosen_count[layer] = 0;
    for (uint32_t frame = 0; frame < view->count; frame++)
        if (all || rank_of(view, view->scores[layer], frame) < view->top_r ||
            frame + view->recent_window >= view->count)
            view->chosen[layer][view->chosen_count[layer]++] = frame;
    memcpy(frames, view->chosen[layer], sizeof frames);
    count = view->given == NULL ? view->chosen_count[layer]
                                : fixture_ids(json_at(view->given, layer), frames, ARRAY_LEN(frames));
    for (size_t i = 0; i < count; i++)
        view->blocks[i] =
            (struct model_chosen){ view->payloads[frames[i]] +
                                       model_slice_offset(view->model, geometry->frame_tokens, layer),
                                   geometry->frame_tokens };
    *chosen_p = view->blocks;
    *count_p = count;
    return true;
}

struct model_retriever memory_retriever(struct memory_view *view)
{
    return (struct model_retriever){ .arg = view, .retrieve = retrieve };
}
