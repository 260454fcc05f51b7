#include "model/family.h"

#include <stddef.h>
#include <string.h>

static const struct model_family families[] = {
    {
        .name = "llava_onevision",
        .architecture = "LlavaOnevisionForConditionalGeneration",
        .text_type = "qwen2",
        .vision_type = "siglip_vision_model",
        /* ReKV's wording: a space after "system", no newline after <|im_end|>, a space after "user". */
        .init_prompt = "<|im_start|>system \nYou are a helpful assistant.<|im_end|><|im_start|>user ",
        .ask_before = "\n",
        .ask_after = "<|im_end|><|im_start|>assistant\n",
        .end_token = "<|im_end|>",
        .vision_prefix = "vision_tower.vision_model.",
        .projector_prefix = "multi_modal_projector.",
        .text_prefix = "language_model.",
    },
};

const struct model_family *family_find(const struct json *config, struct status *st)
{
    const char *architecture = json_str(json_at(json_get(config, "architectures"), 0));
    const char *type = json_str(json_get(config, "model_type"));
    bool is_both = architecture != NULL && type != NULL;

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const struct model_family *family = &families[i];

        if ((architecture != NULL || type != NULL) &&
            (architecture == NULL || strcmp(architecture, family->architecture) == 0) &&
            (type == NULL || strcmp(type, family->name) == 0))
            return family;
    }
    status_fail(st, STATUS_UNIMPLEMENTED,
                "model family '%.64s'%s%.64s is unknown; known: llava_onevision "
                "(LlavaOnevisionForConditionalGeneration)",
                architecture != NULL ? architecture
                : type != NULL       ? type
                                     : "(config.json names neither architectures nor model_type)",
                is_both ? " of model_type " : "", is_both ? type : "");
    return NULL;
}
