/* family.h - what differs from one family of checkpoints to the next and is in no file of theirs. */
#ifndef REELKV_MODEL_FAMILY_H
#define REELKV_MODEL_FAMILY_H

#include "base/json.h"
#include "base/status.h"

struct model_family {
    const char *name;         /* config.json's model_type */
    const char *architecture; /* config.json's architectures[0] */
    const char *text_type;    /* text_config's model_type */
    const char *vision_type;  /* vision_config's model_type */
    const char *init_prompt;  /* before the first frame */
    const char *ask_before;   /* the question's words stand between these two */
    const char *ask_after;
    const char *end_token;     /* ends an answer */
    const char *vision_prefix; /* of the tensors' names */
    const char *projector_prefix;
    const char *text_prefix;
};

/* The family a config.json names; NULL and UNIMPLEMENTED with the known ones when there is none. */
const struct model_family *family_find(const struct json *config, struct status *st);

#endif
