/* model.h - a streaming Video-LLM from a Hugging Face checkpoint folder, behind four verbs:
 *
 *   model_encode_frames()      pictures -> token embeddings                          (encoder)
 *   model_window_push()        embeddings -> K and V of one block, over many streams (analyzer)
 *   model_question_retrieve()  question -> which blocks, layer by layer              (qa)
 *   model_question_prompt(), _next()  -> the answer's tokens                         (qa)
 *
 * The method is ReKV's (docs/model.md): keys are stored before the rotary embedding; a token sees the n_local
 * newest tokens at their true distance, and the system prompt's tokens always: at their distance while it is
 * below n_local, from then on as if n_local - 1 away; one softmax over both.
 *
 * Owner:  model_open() makes one, model_close() frees it after its windows and questions.
 * Thread: an open model is read only and shared. model_encode_frames() runs on one thread at a time, and so does
 *         what makes or fills windows (model_window_create(), _restore(), _push() share one scratch memory); a
 *         question belongs to one thread at a time, and many questions may run at once.
 * Fails:  INVALID for a checkpoint that does not fit, naming tensor, file and what was expected; EXHAUSTED
 * without memory; CANCELLED when a question's flag was set. Bounds: base/limits.h and MODEL_* below.
 *
 * Results never depend on what else shares a call, on the number of threads, or on restarts: on one backend
 * and instruction set (model_numerics()) equal streams give equal bytes. */
#ifndef REELKV_MODEL_MODEL_H
#define REELKV_MODEL_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"
#include "model/tokenizer.h"
#include "tensor/tensor.h"

enum {
    MODEL_FINGERPRINT_BYTES = 16,
    MODEL_NAME_BYTES = 64,
    MODEL_BATCH_FRAMES_MAX = 256,
    MODEL_INIT_TOKENS_MAX = 256,
    MODEL_N_LOCAL_MAX = 1 << 20,
    MODEL_CONTEXT_TOKENS_MAX = 1 << 22,
};

/* Angles are computed in double: up to this index (22 years of a camera at 0.5 frames/s and 196 tokens a
 * frame) they are off by less than 4e-6 radians, so none needs a base of its own. Longer streams are refused.
 */
#define MODEL_TOKEN_INDEX_MAX (INT64_C(1) << 36)

enum model_parts { MODEL_VISION = 1, MODEL_LANGUAGE = 2 };

struct model_options {
    const struct tensor_ops *ops;
    uint32_t threads;          /* workers of the device; 0: one per CPU */
    enum tensor_dtype dtype;   /* F32 or BF16: of weights, activations and stored K and V */
    uint32_t n_local;          /* tokens of the window */
    unsigned parts;            /* MODEL_VISION | MODEL_LANGUAGE: what is loaded */
    uint32_t batch_frames;     /* frames computed at once by one call; more are taken in turns */
    uint32_t block_tokens_max; /* of one pushed block; 0: the tokens of a frame */
    const char *compressor;    /* a name of model/compressor.h; NULL: "none" */
};

/* The same in every process that opens the same folder with the same options, whatever parts it loads. */
struct model_geometry {
    char family[MODEL_NAME_BYTES]; /* "llava_onevision" */
    uint32_t layers, heads, kv_heads, head_dim, hidden, vocabulary;
    uint32_t frame_tokens; /* embeddings of one picture */
    uint32_t image_side;   /* pixels, after resizing */
    uint32_t init_tokens;  /* the system prompt's */
    uint32_t n_local;
    enum tensor_dtype dtype;
    uint64_t token_bytes; /* K and V of one token over all layers */
    uint8_t fingerprint[MODEL_FINGERPRINT_BYTES];
};

struct model;

bool model_open(struct model **model_p, const char *folder, const struct model_options *options,
                struct status *st);

/* "f32" or "bf16", as people write it. INVALID for another word. */
bool model_dtype_read(enum tensor_dtype *dtype_p, const char *word, struct status *st);

/* A model as options and settings name it, to be computed on the CPU. */
struct model_spec {
    const char *folder, *dtype;
    uint32_t threads, n_local;
    unsigned parts;
    uint32_t batch_frames;
};

/* From a service's options struct whose .def includes model/model_options.def. */
#define MODEL_SPEC(options, model_parts, frames)                                              \
    {                                                                                         \
        .folder = (options)->model, .dtype = (options)->dtype, .threads = (options)->threads, \
        .n_local = (options)->n_local, .parts = (model_parts), .batch_frames = (frames)       \
    }

bool model_open_spec(struct model **model_p, const struct model_spec *spec, struct status *st);
void model_close(struct model *model); /* NULL is fine */

const struct model_geometry *model_geometry(const struct model *model);

/* Backend and instruction set: what must be equal for equal bytes. */
const char *model_numerics(const struct model *model);

/* ------------------------------------------------------------------------------------------- vision */

struct model_picture {
    const uint8_t *rgb; /* [height, width, 3], as decoded */
    uint32_t height, width;
};

/* Resizes and normalises as the model's processor does, then vision tower, projector, pooling.
 * out: f32 [count, frame_tokens, hidden]. */
bool model_encode_frames(struct model *model, const struct model_picture *pictures, uint32_t count,
                         float *out, struct status *st);

/* What the model's compressor keeps of a frame's embeddings f32 [tokens, hidden], in place, before they are
 * pushed; *tokens_p is how many are left, at least 1. */
bool model_compress_frame(const struct model *model, float *embeddings, uint32_t *tokens_p,
                          struct status *st);

/* ------------------------------------------------------------------------------------------- blocks
 * A block's payload, of the model's dtype, without padding (the store's, docs/kv-format.md):
 *   [layers][kv_heads, head_dim]                        representative keys: means of the block's keys
 *   [layers] x { K [kv_heads, tokens, head_dim], V [kv_heads, tokens, head_dim] }   keys before rotation */

size_t model_block_bytes(const struct model *model, uint32_t tokens);
size_t model_slice_offset(const struct model *model, uint32_t tokens, uint32_t layer); /* of the layer's K */

struct model_block {
    uint64_t token_index; /* of the first token; the system prompt begins at 0 */
    uint32_t tokens;
    const uint8_t *payload;
};

/* The system prompt's block (token_index 0), computed when the model was opened. Needs MODEL_LANGUAGE.
 * Valid until model_close(). */
const struct model_block *model_init_block(const struct model *model);

/* ------------------------------------------------------------------------------------------- windows */

struct model_window; /* the newest n_local tokens of one stream, ready to attend to */

/* A new stream's window: it holds the system prompt. Needs MODEL_LANGUAGE. */
bool model_window_create(struct model_window **window_p, struct model *model, struct status *st);
void model_window_destroy(struct model_window *window); /* NULL is fine */

/* Fills a window from the store: the system prompt's block first, then the newest blocks, oldest first, at
 * least n_local tokens of them if the stream has that many. The window then goes on, bit for bit, as the one
 * that made the blocks. Holes between blocks are kept as holes. next_index is the stream's next token index:
 * at least the end of the last block. Only a window without pushes; after a failure destroy it. */
bool model_window_restore(struct model_window *window, const struct model_block *blocks, size_t count,
                          uint64_t next_index, struct status *st);

/* Token index that the next pushed block gets. */
uint64_t model_window_next_index(const struct model_window *window);

struct model_push {
    struct model_window *window; /* of each window at most one push a call */
    const float *embeddings;     /* [tokens, hidden] */
    uint32_t tokens;             /* 1 to block_tokens_max */
    uint8_t *payload;            /* out, model_block_bytes(tokens) */
};

/* Runs the decoder over one new block of each window. On failure the windows are as they were. */
bool model_window_push(struct model *model, const struct model_push *pushes, size_t count, struct status *st);

/* ----------------------------------------------------------------------------------------- questions */

/* One chosen block of one layer. */
struct model_chosen {
    const uint8_t *slices; /* K then V, each [kv_heads, tokens, head_dim] of the model's dtype */
    uint32_t tokens;
};

/* Who answers "which blocks?", once per layer in order, on the question's thread. */
struct model_retriever {
    void *arg;
    /* folded: f32 [kv_heads, head_dim], the mean over the question's tokens of its queries before rotation,
     * those of a KV head's group summed. Sets *chosen_p (in time order) and *count_p; both and the bytes are
     * the retriever's and stay as they are until the next call. */
    bool (*retrieve)(void *arg, uint32_t layer, const float *folded, const struct model_chosen **chosen_p,
                     size_t *count_p, struct status *st);
};

struct model_question_options {
    struct model_retriever retriever;
    bool full_attention;         /* every token of the context is seen, however far (selector `all`) */
    uint32_t context_tokens_max; /* chosen blocks, prompt and answer together */
    uint32_t answer_tokens_max;  /* room kept for the answer, 1 to LIMIT_ANSWER_TOKENS */
    const atomic_bool *cancel;   /* looked at between layers; NULL: never cancelled */
};

struct model_question;

bool model_question_create(struct model_question **question_p, struct model *model,
                           const struct model_question_options *options, struct status *st);
void model_question_destroy(struct model_question *question); /* NULL is fine */

/* The words a person typed, as ids: special tokens spelled in them are plain text. `out` holds
 * LIMIT_QUESTION_BYTES ids at most. The prompt is the family's template around the same words. */
bool model_question_ids(const struct model *model, const char *words, size_t len, struct token_ids *out,
                        struct status *st);
bool model_prompt_ids(const struct model *model, const char *words, size_t len, struct token_ids *out,
                      struct status *st);

/* Pass 1, once: the question alone, over the blocks its own queries choose. Its tokens leave no trace but the
 * context: per layer the system prompt and the chosen blocks at consecutive positions. */
bool model_question_retrieve(struct model_question *question, const uint32_t *ids, size_t count,
                             struct status *st);

/* Blocks in front of the context that no token behind it sees, because they end n_local tokens before it or earlier; of
 * the layer that has most of them. None with full_attention. */
uint32_t model_question_unseen_blocks(const struct model_question *question);

/* Pass 2, once: the prompt on that context; *id_p is the answer's first token. */
bool model_question_prompt(struct model_question *question, const uint32_t *ids, size_t count, uint32_t *id_p,
                           struct status *st);

/* Takes the last token into the context; *id_p is the next one (greedy). At most answer_tokens_max - 1 times.
 */
bool model_question_next(struct model_question *question, uint32_t *id_p, struct status *st);

/* The scores behind the last *id_p: f32 [vocabulary]. */
bool model_question_logits(struct model_question *question, float *out, struct status *st);

/* Tokens of the longest layer's context, prompt and answer included. */
uint32_t model_question_context_tokens(const struct model_question *question);

/* This token ends an answer. */
bool model_is_end(const struct model *model, uint32_t id);

/* Borrowed until model_close(). */
const struct tokenizer *model_tokenizer(const struct model *model);

/* --------------------------------------------------------------------------------------- measurement */

struct model_speed {
    double vision_frames_per_s;   /* 0 when not loaded */
    double language_frames_per_s; /* at a full window; 0 when not loaded */
};

/* Times a few frames of noise, within about `seconds`. */
bool model_measure(struct model *model, double seconds, struct model_speed *speed_p, struct status *st);

#endif
