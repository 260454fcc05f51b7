#include "encoder/vision.h"

#include <string.h>

static bool encode(void *arg, const struct model_picture *pictures, uint32_t count, float *out,
                   struct status *st)
{
    return model_encode_frames(arg, pictures, count, out, st);
}

static bool compress(void *arg, float *embeddings, uint32_t *tokens_p, struct status *st)
{
    return model_compress_frame(arg, embeddings, tokens_p, st);
}

struct vision vision_of_model(struct model *model)
{
    const struct model_geometry *geometry = model_geometry(model);
    struct vision vision = {
        .frame_tokens = geometry->frame_tokens,
        .hidden = geometry->hidden,
        .encode = encode,
        .compress = compress,
        .arg = model,
    };

    memcpy(vision.fingerprint, geometry->fingerprint, sizeof vision.fingerprint);
    return vision;
}
