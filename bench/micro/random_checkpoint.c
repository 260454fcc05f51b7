#include "random_checkpoint.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"

enum { CHUNK_BYTES = 1 << 20, TOKENIZER_BYTES_MAX = 64 << 20 };

/* A file's header as it grows, and the end of the data so far. */
struct header {
    struct json *root;
    uint64_t end;
};

static void add(struct header *header, const char *prefix, const char *name, const uint32_t *shape,
                uint32_t dims)
{
    struct json *entry = json_make_object(), *sizes = json_make_array(), *offsets = json_make_array();
    uint64_t bytes = 2;
    char full[256];

    for (uint32_t i = 0; i < dims; i++) {
        json_append_u64(sizes, shape[i]);
        bytes *= shape[i];
    }
    json_append_u64(offsets, header->end);
    json_append_u64(offsets, header->end + bytes);
    json_set_str(entry, "dtype", "BF16");
    json_set(entry, "shape", sizes);
    json_set(entry, "data_offsets", offsets);
    snprintf(full, sizeof full, "%s%s", prefix, name);
    json_set(header->root, full, entry);
    header->end += bytes;
}

static void add_matrix(struct header *header, const char *prefix, const char *name, uint32_t rows,
                       uint32_t cols)
{
    add(header, prefix, name, (uint32_t[]){ rows, cols }, 2);
}

static void add_vector(struct header *header, const char *prefix, const char *name, uint32_t count)
{
    add(header, prefix, name, &count, 1);
}

static void add_linear(struct header *header, const char *prefix, const char *name, uint32_t rows,
                       uint32_t cols)
{
    char full[128];

    snprintf(full, sizeof full, "%s.weight", name);
    add_matrix(header, prefix, full, rows, cols);
    snprintf(full, sizeof full, "%s.bias", name);
    add_vector(header, prefix, full, rows);
}

static void add_text(struct header *header, const struct checkpoint_shape *shape)
{
    uint32_t kv = shape->hidden / shape->heads * shape->kv_heads;
    char prefix[128];

    add_matrix(header, "language_model.model.", "embed_tokens.weight", shape->vocabulary, shape->hidden);
    add_vector(header, "language_model.model.", "norm.weight", shape->hidden);
    if (!shape->tied)
        add_matrix(header, "language_model.", "lm_head.weight", shape->vocabulary, shape->hidden);
    for (uint32_t i = 0; i < shape->layers; i++) {
        snprintf(prefix, sizeof prefix, "language_model.model.layers.%u.", i);
        add_vector(header, prefix, "input_layernorm.weight", shape->hidden);
        add_vector(header, prefix, "post_attention_layernorm.weight", shape->hidden);
        add_linear(header, prefix, "self_attn.q_proj", shape->hidden, shape->hidden);
        add_linear(header, prefix, "self_attn.k_proj", kv, shape->hidden);
        add_linear(header, prefix, "self_attn.v_proj", kv, shape->hidden);
        add_matrix(header, prefix, "self_attn.o_proj.weight", shape->hidden, shape->hidden);
        add_matrix(header, prefix, "mlp.gate_proj.weight", shape->mlp, shape->hidden);
        add_matrix(header, prefix, "mlp.up_proj.weight", shape->mlp, shape->hidden);
        add_matrix(header, prefix, "mlp.down_proj.weight", shape->hidden, shape->mlp);
    }
}

static void add_vision(struct header *header, const struct checkpoint_shape *shape)
{
    uint32_t hidden = shape->v_hidden, grid = shape->image / shape->patch;
    uint32_t convolution[] = { hidden, 3, shape->patch, shape->patch };
    const char *tower = "vision_tower.vision_model.";
    char prefix[128];

    add(header, tower, "embeddings.patch_embedding.weight", convolution, 4);
    add_vector(header, tower, "embeddings.patch_embedding.bias", hidden);
    add_matrix(header, tower, "embeddings.position_embedding.weight", grid * grid, hidden);
    add_linear(header, "multi_modal_projector.", "linear_1", shape->hidden, hidden);
    add_linear(header, "multi_modal_projector.", "linear_2", shape->hidden, shape->hidden);
    for (uint32_t i = 0; i < shape->v_layers; i++) {
        snprintf(prefix, sizeof prefix, "%sencoder.layers.%u.", tower, i);
        add_vector(header, prefix, "layer_norm1.weight", hidden);
        add_vector(header, prefix, "layer_norm1.bias", hidden);
        add_vector(header, prefix, "layer_norm2.weight", hidden);
        add_vector(header, prefix, "layer_norm2.bias", hidden);
        add_linear(header, prefix, "self_attn.q_proj", hidden, hidden);
        add_linear(header, prefix, "self_attn.k_proj", hidden, hidden);
        add_linear(header, prefix, "self_attn.v_proj", hidden, hidden);
        add_linear(header, prefix, "self_attn.out_proj", hidden, hidden);
        add_linear(header, prefix, "mlp.fc1", shape->v_mlp, hidden);
        add_linear(header, prefix, "mlp.fc2", hidden, shape->v_mlp);
    }
}

/* Random signs and magnitudes of 2^-6 to 2^-4: sums neither vanish nor overflow. One chunk, repeated. */
static bool write_numbers(int fd, uint64_t bytes, struct status *st)
{
    uint16_t *chunk = malloc(CHUNK_BYTES);
    uint32_t state = 7;
    bool ok = true;

    if (chunk == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for random weights");
    for (size_t i = 0; i < CHUNK_BYTES / 2; i++) {
        state = state * 1664525u + 1013904223u;
        chunk[i] = (uint16_t)((state >> 16 & 0x8000u) | (0x3c80u + (state >> 12 & 0xffu)));
    }
    for (uint64_t done = 0; ok && done < bytes; done += CHUNK_BYTES)
        ok = file_write_fully(fd, chunk, bytes - done < CHUNK_BYTES ? bytes - done : CHUNK_BYTES, st);
    free(chunk);
    return ok;
}

static bool write_tensors(const char *folder, const struct checkpoint_shape *shape, struct status *st)
{
    struct header header = { .root = json_make_object() };
    char path[PATH_MAX], *text;
    uint8_t length[8];
    bool ok;
    int fd;

    add_text(&header, shape);
    add_vision(&header, shape);
    text = json_text(header.root, 0);
    json_free(header.root);
    put_u64(length, strlen(text));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ok = fd >= 0 ? file_write_fully(fd, length, sizeof length, st) &&
                       file_write_fully(fd, text, strlen(text), st) && write_numbers(fd, header.end, st)
                 : status_fail(st, status_code_of_errno(0), "create %s: %m", path);
    free(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool write_text(const char *folder, const char *name, struct json *root, struct status *st)
{
    char path[PATH_MAX], *text = json_text(root, 2);
    bool ok;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    ok = file_write_durable(path, text, strlen(text), st);
    free(text);
    json_free(root);
    return ok;
}

static struct json *config_of(const struct checkpoint_shape *shape)
{
    struct json *root = json_make_object(), *text = json_make_object(), *vision = json_make_object();
    struct json *names = json_make_array();

    json_append_str(names, "LlavaOnevisionForConditionalGeneration");
    json_set_u64(text, "hidden_size", shape->hidden);
    json_set_u64(text, "num_hidden_layers", shape->layers);
    json_set_u64(text, "num_attention_heads", shape->heads);
    json_set_u64(text, "num_key_value_heads", shape->kv_heads);
    json_set_u64(text, "intermediate_size", shape->mlp);
    json_set_u64(text, "vocab_size", shape->vocabulary);
    json_set_f64(text, "rope_theta", 1e6);
    json_set_bool(text, "tie_word_embeddings", shape->tied);
    json_set_u64(vision, "hidden_size", shape->v_hidden);
    json_set_u64(vision, "num_hidden_layers", shape->v_layers);
    json_set_u64(vision, "num_attention_heads", shape->v_heads);
    json_set_u64(vision, "intermediate_size", shape->v_mlp);
    json_set_u64(vision, "image_size", shape->image);
    json_set_u64(vision, "patch_size", shape->patch);
    json_set(root, "architectures", names);
    json_set(root, "text_config", text);
    json_set(root, "vision_config", vision);
    return root;
}

static struct json *pixels_of(const struct checkpoint_shape *shape)
{
    struct json *root = json_make_object(), *size = json_make_object();

    json_set_u64(size, "height", shape->image);
    json_set_u64(size, "width", shape->image);
    json_set(root, "size", size);
    return root;
}

bool random_checkpoint_write(const char *folder, const struct checkpoint_shape *shape, const char *tokenizer,
                             struct status *st)
{
    struct file_text text;
    char path[PATH_MAX];
    bool ok;

    if (!file_make_folders(folder, st) || !file_read_all(tokenizer, TOKENIZER_BYTES_MAX, &text, st))
        return false;
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    ok = file_write_durable(path, text.data, text.len, st);
    free(text.data);
    return ok && write_text(folder, "config.json", config_of(shape), st) &&
           write_text(folder, "preprocessor_config.json", pixels_of(shape), st) &&
           write_tensors(folder, shape, st);
}
