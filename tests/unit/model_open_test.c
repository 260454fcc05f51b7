/* A checkpoint folder with one thing wrong is refused by name, and leaves nothing behind. The folders are copies of
 * the fixtures' tiny-a and tiny-d, damaged here. */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/file.h"
#include "model/model.h"
#include "support/test.h"

#define PARITY_FOLDER REELKV_SOURCE_DIR "/tests/data/parity"

static const char *const tiny_a[] = { "config.json", "model.safetensors", "preprocessor_config.json",
                                      "tokenizer.json", NULL };
static const char *const tiny_d[] = { "config.json",
                                      "model-00001-of-00004.safetensors",
                                      "model-00002-of-00004.safetensors",
                                      "model-00003-of-00004.safetensors",
                                      "model-00004-of-00004.safetensors",
                                      "model.safetensors.index.json",
                                      "preprocessor_config.json",
                                      "tokenizer.json",
                                      NULL };

static struct file_text read_file(const char *folder, const char *name)
{
    struct file_text text;
    char path[1024];
    struct status st;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(file_read_all(path, 64 << 20, &text, &st), st);
    return text;
}

static void write_file(const char *name, const void *data, size_t len)
{
    char path[512];
    struct status st;

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    CHECK_OK(file_write_durable(path, data, len, &st), st);
}

/* A whole copy in test_folder(). */
static void copy_checkpoint(const char *checkpoint, const char *const *files)
{
    char folder[512];
    struct status st;

    file_remove_tree(test_folder(), &st);
    CHECK_OK(file_make_folders(test_folder(), &st), st);
    snprintf(folder, sizeof folder, PARITY_FOLDER "/%s", checkpoint);
    for (; *files != NULL; files++) {
        struct file_text text = read_file(folder, *files);

        write_file(*files, text.data, text.len);
        free(text.data);
    }
}

/* Replaces the first `from` by `to`, of the same length, in a file of the copy. */
static void replace(const char *name, const char *from, const char *to)
{
    struct file_text text = read_file(test_folder(), name);
    char *at = memmem(text.data, text.len, from, strlen(from));

    CHECK_EQ(strlen(from), strlen(to));
    CHECK(at != NULL);
    memcpy(at, to, strlen(to));
    write_file(name, text.data, text.len);
    free(text.data);
}

static struct model_options options_of(unsigned parts)
{
    return (struct model_options){ .ops = &tensor_ops_cpu,
                                   .threads = 1,
                                   .dtype = TENSOR_F32,
                                   .n_local = 100,
                                   .parts = parts,
                                   .batch_frames = 2 };
}

static void check_refused(const char *sentence)
{
    struct model_options options = options_of(MODEL_VISION | MODEL_LANGUAGE);
    struct model *model = NULL;
    struct status st = { 0 };

    CHECK(!model_open(&model, test_folder(), &options, &st));
    CHECK_HAS(st.text, sentence);
    CHECK(model == NULL);
}

TEST(a_whole_copy_opens_and_says_its_shape)
{
    struct model_options options = options_of(MODEL_VISION | MODEL_LANGUAGE);
    struct model *model = NULL;
    struct status st;

    copy_checkpoint("tiny-a", tiny_a);
    CHECK_OK(model_open(&model, test_folder(), &options, &st), st);
    CHECK_EQ(model_geometry(model)->layers, 3);
    CHECK_EQ(model_geometry(model)->frame_tokens, 4);
    CHECK_EQ(model_geometry(model)->token_bytes, 3 * 2 * 2 * 16 * 4);
    CHECK_EQ(model_block_bytes(model, 4), 3 * 2 * 16 * 4 + 4 * model_geometry(model)->token_bytes);
    model_close(model);
}

static void read_fingerprint(uint8_t out[MODEL_FINGERPRINT_BYTES], const char *folder)
{
    struct model_options options = options_of(MODEL_VISION | MODEL_LANGUAGE);
    struct model *model = NULL;
    struct status st;

    CHECK_OK(model_open(&model, folder, &options, &st), st);
    memcpy(out, model_geometry(model)->fingerprint, MODEL_FINGERPRINT_BYTES);
    model_close(model);
}

/* Writers pad the header to 8 bytes, but the format does not ask for it: with a space more every tensor lies at an
 * odd address. The sanitizers see the difference; the fingerprint, which is of content, must not. */
TEST(tensors_at_odd_addresses_open_with_the_same_fingerprint)
{
    struct file_text whole = read_file(PARITY_FOLDER "/tiny-a", "model.safetensors");
    uint8_t aligned[MODEL_FINGERPRINT_BYTES], odd[MODEL_FINGERPRINT_BYTES], *moved = malloc(whole.len + 1);
    uint64_t header = get_u64((uint8_t *)whole.data);

    put_u64(moved, header + 1);
    memcpy(moved + 8, whole.data + 8, header);
    moved[8 + header] = ' ';
    memcpy(moved + 8 + header + 1, whole.data + 8 + header, whole.len - 8 - header);
    copy_checkpoint("tiny-a", tiny_a);
    write_file("model.safetensors", moved, whole.len + 1);
    read_fingerprint(aligned, PARITY_FOLDER "/tiny-a");
    read_fingerprint(odd, test_folder());
    CHECK_MEM(odd, aligned, sizeof odd);
    free(moved);
    free(whole.data);
}

TEST(one_changed_weight_changes_the_fingerprint)
{
    struct file_text whole = read_file(PARITY_FOLDER "/tiny-a", "model.safetensors");
    uint8_t first[MODEL_FINGERPRINT_BYTES], second[MODEL_FINGERPRINT_BYTES];

    copy_checkpoint("tiny-a", tiny_a);
    whole.data[whole.len - 5000] ^= 1;
    write_file("model.safetensors", whole.data, whole.len);
    read_fingerprint(first, PARITY_FOLDER "/tiny-a");
    read_fingerprint(second, test_folder());
    CHECK(memcmp(first, second, sizeof first) != 0);
    free(whole.data);
}

TEST(a_tensor_that_is_missing_misnamed_or_misshaped_is_named)
{
    static const struct {
        const char *from, *to, *sentence;
    } cases[] = {
        { "layers.1.self_attn.k_proj.bias", "layers.1.self_attn.k_proj.bios",
          "tensor 'language_model.model.layers.1.self_attn.k_proj.bias' is missing from the checkpoint; expected "
          "[32]" },
        { "encoder.layers.1.mlp.fc1.weight", "encoder.layers.9.mlp.fc1.weight",
          "tensor 'vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight' is missing" },
        { "multi_modal_projector.linear_2.bias", "multi_modal_projector.linear_3.bias",
          "linear_2.bias' is missing" },
        { "\"shape\":[1536,64]", "\"shape\":[64,1536]",
          "embed_tokens.weight' in model.safetensors has shape [64, 1536]; config.json asks for [1536, 64]" },
        { "k_proj.weight\":{\"dtype\":\"F32\"", "k_proj.weight\":{\"dtype\":\"I32\"",
          "k_proj.weight' in model.safetensors is I32; expected F32, F16 or BF16" },
        { "\"dtype\":\"F32\",\"shape\":[1536,64]", "\"dtype\":\"F16\",\"shape\":[1536,64]",
          "its shape [1536, 64] of F16 takes 196608" },
        { "input_layernorm.weight\":{\"dtype\":\"F32\",\"shape\":[64]",
          "input_layernorm.weight\":{\"dtype\":\"F32\",\"shape\":[65]", "has 256 bytes" },
        { "\"__metadata__\":{", "\"__metadata__\":[", "malformed JSON" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        copy_checkpoint("tiny-a", tiny_a);
        replace("model.safetensors", cases[i].from, cases[i].to);
        check_refused(cases[i].sentence);
    }
}

TEST(a_truncated_file_is_refused_wherever_it_ends)
{
    struct file_text whole = read_file(PARITY_FOLDER "/tiny-a", "model.safetensors");
    static const double kept[] = { 0.0001, 0.01, 0.5, 0.999 };

    copy_checkpoint("tiny-a", tiny_a);
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        write_file("model.safetensors", whole.data, (size_t)((double)whole.len * kept[i]));
        check_refused("model.safetensors");
    }
    write_file("model.safetensors", whole.data, whole.len - 1);
    check_refused("truncated");
    free(whole.data);
}

TEST(absurd_sizes_in_a_config_are_refused_before_memory_is_taken)
{
    copy_checkpoint("tiny-a", tiny_a);
    replace("config.json", "\"vocab_size\": 1536", "\"vocab_size\": 9999");
    check_refused("config.json asks for [9999, 64]");
    copy_checkpoint("tiny-a", tiny_a);
    replace("config.json", "\"vocab_size\": 1536", "\"vocab_size\": 1500");
    check_refused("has ids up to 1532; config.json's vocab_size is 1500");
    copy_checkpoint("tiny-a", tiny_a);
    replace("config.json", "LlavaOnevisionForConditionalGeneration",
            "LlavaTwovisionsForConditionGeneration!");
    check_refused("is unknown; known: llava_onevision");
    copy_checkpoint("tiny-a", tiny_a);
    replace("config.json", "\"model_type\": \"llava_onevision\"", "\"model_type\": \"llava_twovision\"");
    check_refused("of model_type llava_twovision is unknown");
}

TEST(a_shard_that_is_gone_or_swapped_is_named)
{
    struct file_text shard;
    char path[512];

    copy_checkpoint("tiny-d", tiny_d);
    snprintf(path, sizeof path, "%s/model-00003-of-00004.safetensors", test_folder());
    CHECK(remove(path) == 0);
    check_refused("model-00003-of-00004.safetensors");
    shard = read_file(PARITY_FOLDER "/tiny-d", "model-00002-of-00004.safetensors");
    write_file("model-00003-of-00004.safetensors", shard.data, shard.len);
    free(shard.data);
    check_refused("is both in");
}

TEST(missing_files_are_named)
{
    for (size_t i = 0; tiny_a[i] != NULL; i++) {
        char path[512];

        copy_checkpoint("tiny-a", tiny_a);
        snprintf(path, sizeof path, "%s/%s", test_folder(), tiny_a[i]);
        CHECK(remove(path) == 0);
        check_refused(tiny_a[i]);
    }
}

TEST(a_tokenizer_without_the_end_token_is_refused)
{
    copy_checkpoint("tiny-a", tiny_a);
    replace("tokenizer.json", "\"content\":\"<|im_end|>\"", "\"content\":\"<|im_fin|>\"");
    check_refused("lacks the added token '<|im_end|>'");
}

TEST(options_out_of_bounds_are_refused)
{
    struct model_options good = options_of(MODEL_LANGUAGE), bad;
    struct model *model = NULL;
    struct status st;

#define CHECK_BAD(field, value, sentence)                               \
    do {                                                                \
        bad = good;                                                     \
        bad.field = (value);                                            \
        CHECK(!model_open(&model, PARITY_FOLDER "/tiny-a", &bad, &st)); \
        CHECK_HAS(st.text, sentence);                                   \
    } while (0)
    CHECK_BAD(n_local, 28, "expected at least 29");
    CHECK_BAD(n_local, MODEL_N_LOCAL_MAX + 1, "expected 1 to");
    CHECK_BAD(dtype, TENSOR_F16, "neither f32 nor bf16");
    CHECK_BAD(parts, 4, "parts");
    CHECK_BAD(batch_frames, 0, "frames at once");
    CHECK_BAD(block_tokens_max, LIMIT_FRAME_TOKENS + 1, "at most 4096");
    CHECK_BAD(compressor, "zip", "compressor 'zip' is unknown");
#undef CHECK_BAD
}

TEST(a_dtype_is_f32_or_bf16_and_nothing_else)
{
    enum tensor_dtype dtype;
    struct status st = { 0 };

    CHECK(model_dtype_read(&dtype, "f32", &st) && dtype == TENSOR_F32);
    CHECK(model_dtype_read(&dtype, "bf16", &st) && dtype == TENSOR_BF16);
    CHECK(!model_dtype_read(&dtype, "f16", &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_STR(st.text, "dtype must be f32 or bf16, not 'f16'");
}

TEST_MAIN()
