/* config.json as published, with its many gaps, and as strangers might send it. */
#include <stdlib.h>

#include "base/file.h"
#include "model/config.h"
#include "support/test.h"

/* What llava-hf/llava-onevision-qwen2-0.5b-ov-hf says, without the fields that no one computes with. */
#define TEXT_05B                                                                                \
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":896,\"intermediate_size\":4864," \
    "\"model_type\":\"qwen2\",\"num_attention_heads\":14,\"num_hidden_layers\":24,"             \
    "\"num_key_value_heads\":2,\"rope_theta\":1000000.0,\"tie_word_embeddings\":true,\"vocab_size\":152000}"
#define VISION_SO400M                                                                             \
    "{\"hidden_size\":1152,\"image_size\":384,\"intermediate_size\":4304,"                        \
    "\"model_type\":\"siglip_vision_model\",\"num_attention_heads\":16,\"num_hidden_layers\":26," \
    "\"patch_size\":14,\"vision_use_head\":false}"
#define PIXELS_384 \
    "{\"image_mean\":[0.5,0.5,0.5],\"image_std\":[0.5,0.5,0.5],\"size\":{\"height\":384,\"width\":384}}"

static void write_text(const char *name, const char *text)
{
    char path[512];
    struct status st;

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
}

static bool read_config(struct model_config *config, const char *head, const char *text, const char *vision,
                        struct status *st)
{
    char root[4096];

    snprintf(root, sizeof root, "{%s\"text_config\":%s,\"vision_config\":%s}", head, text, vision);
    write_text("config.json", root);
    return config_read(config, test_folder(), st);
}

#define ONEVISION "\"architectures\":[\"LlavaOnevisionForConditionalGeneration\"],"

TEST(a_published_config_reads_with_transformers_defaults)
{
    struct model_config config;
    struct status st;

    write_text("preprocessor_config.json", PIXELS_384);
    CHECK_OK(read_config(&config, ONEVISION, TEXT_05B, VISION_SO400M, &st), st);
    CHECK_STR(config.family->name, "llava_onevision");
    CHECK_EQ(config.text.layers, 24);
    CHECK_EQ(config.text.kv_heads, 2);
    CHECK_EQ(config.text.head_dim, 64);
    CHECK_NEAR(config.text.rms_epsilon, 1e-6, 1e-12); /* not in the file */
    CHECK_NEAR(config.text.rope_theta, 1e6, 0);
    CHECK(config.text.tied);
    CHECK_EQ(config.vision.grid, 27);
    CHECK_EQ(config.vision.layers_run, 26);
    CHECK_NEAR(config.vision.epsilon, 1e-6, 1e-12);
    CHECK_EQ(config.frame_tokens, 196);
    CHECK_NEAR(config.pixel.rescale, 1.0 / 255, 1e-15);
}

/* The larger ones differ in numbers of the decoder alone: Qwen2-7B's and Qwen2-72B's, with a head of their own, behind the
 * same tower. A token's KV in bf16 is what docs and budgets reckon with. */
TEST(the_7b_and_72b_shapes_are_only_configuration)
{
    static const struct {
        uint32_t hidden, mlp, layers, heads, kv_heads;
        uint32_t token_bytes;
    } shapes[] = {
        { 3584, 18944, 28, 28, 4, 57344 },
        { 8192, 29568, 80, 64, 8, 327680 },
    };
    struct model_config config;
    struct status st;
    char text[512];

    write_text("preprocessor_config.json", PIXELS_384);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        snprintf(text, sizeof text,
                 "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":%u,\"intermediate_size\":%u,"
                 "\"model_type\":\"qwen2\",\"num_attention_heads\":%u,\"num_hidden_layers\":%u,"
                 "\"num_key_value_heads\":%u,\"rope_theta\":1000000.0,\"vocab_size\":152064}",
                 shapes[i].hidden, shapes[i].mlp, shapes[i].heads, shapes[i].layers, shapes[i].kv_heads);
        CHECK_OK(read_config(&config, ONEVISION, text, VISION_SO400M, &st), st);
        CHECK_STR(config.family->name, "llava_onevision");
        CHECK_EQ(config.text.hidden, shapes[i].hidden);
        CHECK_EQ(config.text.mlp, shapes[i].mlp);
        CHECK_EQ(config.text.layers, shapes[i].layers);
        CHECK_EQ(config.text.heads, shapes[i].heads);
        CHECK_EQ(config.text.kv_heads, shapes[i].kv_heads);
        CHECK_EQ(config.text.head_dim, 128);
        CHECK(!config.text.tied);
        CHECK_EQ(2 * 2 * config.text.layers * config.text.kv_heads * config.text.head_dim,
                 shapes[i].token_bytes);
        CHECK_EQ(config.vision.layers_run, 26);
        CHECK_EQ(config.frame_tokens, 196);
    }
}

TEST(an_earlier_vision_feature_layer_runs_fewer_layers)
{
    struct model_config config;
    struct status st;

    write_text("preprocessor_config.json", PIXELS_384);
    CHECK_OK(read_config(&config, ONEVISION "\"vision_feature_layer\":-2,", TEXT_05B, VISION_SO400M, &st),
             st);
    CHECK_EQ(config.vision.layers_run, 25);
    CHECK(!read_config(&config, ONEVISION "\"vision_feature_layer\":-28,", TEXT_05B, VISION_SO400M, &st));
    CHECK_HAS(st.text, "vision_feature_layer");
}

TEST(what_does_not_fit_is_refused_by_field)
{
    static const struct {
        const char *head, *text, *vision, *sentence;
    } cases[] = {
        { "\"architectures\":[\"GptForCausalLM\"],", TEXT_05B, VISION_SO400M,
          "family 'GptForCausalLM' is unknown" },
        { "\"model_type\":\"whisper\",", TEXT_05B, VISION_SO400M, "family 'whisper' is unknown" },
        { "", TEXT_05B, VISION_SO400M, "names neither" },
        { ONEVISION, "7", VISION_SO400M, "text_config: is missing or not an object" },
        { ONEVISION, "{\"model_type\":\"llama\"}", VISION_SO400M, "'model_type' is 'llama'" },
        { ONEVISION, "{\"hidden_size\":4000000000}", VISION_SO400M, "'hidden_size' is 4000000000" },
        { ONEVISION, "{\"hidden_size\":-1}", VISION_SO400M, "'hidden_size'" },
        { ONEVISION, "{\"hidden_size\":\"896\"}", VISION_SO400M, "'hidden_size'" },
        { ONEVISION, "{\"num_hidden_layers\":100000}", VISION_SO400M, "'num_hidden_layers' is 100000" },
        { ONEVISION, "{\"num_attention_heads\":0}", VISION_SO400M, "'num_attention_heads' is 0" },
        { ONEVISION, "{\"hidden_size\":100,\"num_attention_heads\":7,\"num_key_value_heads\":7}",
          VISION_SO400M, "do not fit together" },
        { ONEVISION, "{\"num_key_value_heads\":3}", VISION_SO400M, "do not fit together" },
        { ONEVISION, "{\"rope_theta\":0}", VISION_SO400M, "'rope_theta'" },
        { ONEVISION, "{\"rope_scaling\":{\"type\":\"yarn\"}}", VISION_SO400M, "'rope_scaling'" },
        { ONEVISION, "{\"hidden_act\":\"gelu\"}", VISION_SO400M, "'hidden_act' is 'gelu'" },
        { ONEVISION, TEXT_05B, "{\"model_type\":\"clip_vision_model\"}", "'clip_vision_model'" },
        { ONEVISION, TEXT_05B, "{\"patch_size\":500}", "patch_size 500 is larger" },
        { ONEVISION, TEXT_05B, "{\"image_size\":4096,\"patch_size\":1}", "at most 4096" },
        { ONEVISION, TEXT_05B, "{\"num_channels\":4}", "'num_channels'" },
        { ONEVISION "\"vision_feature_select_strategy\":\"default\",", TEXT_05B, VISION_SO400M,
          "'vision_feature_select_strategy' is 'default'" },
    };
    struct model_config config;
    struct status st;

    write_text("preprocessor_config.json", PIXELS_384);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CHECK(!read_config(&config, cases[i].head, cases[i].text, cases[i].vision, &st));
        CHECK_HAS(st.text, cases[i].sentence);
        CHECK_HAS(st.text, "config.json");
    }
}

TEST(a_processor_of_another_kind_is_refused)
{
    static const char *const cases[][2] = {
        { "{\"size\":{\"height\":336,\"width\":336}}", "'size' is 336x336" },
        { "{\"resample\":2}", "'resample' is 2" },
        { "{\"do_normalize\":false}", "'do_normalize'" },
        { "{\"image_std\":[1,0,1]}", "'image_std' has a zero" },
        { "{\"image_mean\":[1]}", "'image_mean'" },
        { "[]", "not a JSON object" },
        { "{\"size\":", "malformed JSON" },
    };
    struct model_config config;
    struct status st;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_text("preprocessor_config.json", cases[i][0]);
        CHECK(!read_config(&config, ONEVISION, TEXT_05B, VISION_SO400M, &st));
        CHECK_HAS(st.text, cases[i][1]);
    }
}

TEST_MAIN()
