/* parity.h - fixtures of tests/data/parity (docs/fixtures.md) and a store in memory, for the tests that compare
 * lib/model with the reference. Everything ends the running test when it fails; what a test opens it closes. */
#ifndef REELKV_PARITY_H
#define REELKV_PARITY_H

#include "base/json.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "support/test.h"

#define PARITY_F32_TOLERANCE  1e-4
#define PARITY_BF16_TOLERANCE 2e-2

struct fixture {
    struct json *manifest;
    struct safetensors *tensors;
};

struct fixture fixture_open(const char *name);
void fixture_close(struct fixture *fixture);

/* A tensor as f32 (malloc'd); *count_p (may be NULL) is its number of elements. */
float *fixture_floats(const struct fixture *fixture, const char *name, size_t *count_p);
uint32_t fixture_u32(const struct json *object, const char *key);
size_t fixture_ids(const struct json *list, uint32_t *ids, size_t room);

/* max|got - want| / max|want| */
double worst_of(const float *got, const float *want, size_t count);
#define CHECK_CLOSE(got, want, count, tolerance)                                                         \
    do {                                                                                                 \
        double worst_ = worst_of(got, want, count);                                                      \
        if (!(worst_ <= (tolerance)))                                                                    \
            test_fail(__FILE__, __LINE__, "%s is off by %.3g, more than %.3g", #got, worst_, tolerance); \
    } while (0)

struct parity_options {
    const char *checkpoint; /* a folder of tests/data/parity */
    const char *folder;     /* NULL: that one; else another, by its whole path */
    enum tensor_dtype dtype;
    uint32_t n_local;
    unsigned parts;
    uint32_t batch_frames;
    uint32_t threads;
};
struct model *parity_model(const struct parity_options *options);

/* Embeddings of the clip's frames [from, to): f32 [to - from, frame_tokens, hidden], malloc'd. */
float *clip_embeddings(struct model *model, uint32_t from, uint32_t to);

enum { PARITY_FRAMES_MAX = 64 };

/* A stream's blocks in memory. */
struct memory_stream {
    struct model *model;
    struct model_window *window;
    uint8_t *payloads[PARITY_FRAMES_MAX];
    uint64_t indices[PARITY_FRAMES_MAX];
    uint32_t count;
};

struct memory_stream stream_open(struct model *model);
void stream_close(struct memory_stream *stream);
void stream_push(struct memory_stream *stream, const float *embeddings); /* one frame */
/* K (value false) or V of a layer of block `at` as f32 [kv_heads, tokens, head_dim], malloc'd. */
float *payload_slice(const struct model *model, const uint8_t *payload, uint32_t tokens, uint32_t layer,
                     bool value);
float *payload_representative(const struct model *model, const uint8_t *payload, uint32_t layer);

/* K and V of every layer, of the system prompt's block and of the frames the fixture kept, are the fixture's within the
 * dtype's tolerance; so are the representative keys of all its frames. payloads[i] is frame i's. */
double parity_tolerance(enum tensor_dtype dtype);
void check_blocks(const struct fixture *fixture, const struct model *model, uint8_t *const *payloads,
                  const uint8_t *init);
void check_representatives(const struct fixture *fixture, const struct model *model,
                           uint8_t *const *payloads);

/* What a question may see and how it chooses, scored here in plain C. */
struct memory_view {
    const struct model *model;
    const uint8_t *payloads[64]; /* in time order */
    uint32_t count;
    const char *selector;
    uint32_t top_r, recent_window;
    float scores[LIMIT_LAYERS][64]; /* written */
    uint32_t chosen[LIMIT_LAYERS][64];
    uint32_t chosen_count[LIMIT_LAYERS];
    struct model_chosen blocks[64];
    /* Not NULL: per layer the frames that are given instead of those chosen, [layers][...]. */
    const struct json *given;
};
struct model_retriever memory_retriever(struct memory_view *view);

#endif
