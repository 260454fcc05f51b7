/* clip_cluster.h - the fixtures' clip as cameras of a real cluster, and the fixtures' questions asked of it.
 *
 * The clip becomes lossless video, so that the encoder decodes what PyTorch saw, bit for bit. Everything ends the
 * running test when it fails. */
#ifndef REELKV_TEST_CLIP_CLUSTER_H
#define REELKV_TEST_CLIP_CLUSTER_H

#include "parity/parity.h"
#include "rpc/sync.h"
#include "support/cluster.h"

enum { CLIP_FPS = 2 };

/* The clip's frames [from, to) as FFV1. */
void write_clip(const char *path, uint32_t from, uint32_t to);

struct rpc_sync *connect_to(const struct cluster_service *service);

/* Adds a file as camera `name` of namespace "default" to this store; wait_ended() until it has `frames` frames. */
void add_camera(struct rpc_sync *store, const char *name, const char *path);
void wait_ended(struct rpc_sync *store, const char *name, uint64_t frames);

/* Frames of the camera in the store's memory now; *ended_p: the file's end is recorded too. */
uint64_t stored_frames(struct rpc_sync *store, const char *name, bool *ended_p);

/* CRC32C of K and V of every layer of frames [0, frames), checked against what was received: crcs
 * [frames * layers], malloc'd. Every frame must be there. */
uint32_t *block_crcs(struct rpc_sync *store, const char *name, const struct model_geometry *geometry,
                     uint64_t frames);

/* What qa said: the answer's ids, and per layer the chosen frames in the order of (time, stream). */
struct asked {
    uint32_t ids[64];
    size_t id_count;
    uint64_t chosen[LIMIT_LAYERS][64]; /* seq */
    uint32_t streams[LIMIT_LAYERS][64];
    size_t chosen_count[LIMIT_LAYERS];
};

/* A run of a fixture, about the first `frames` frames of one stream or all frames of several. */
void ask(struct rpc_sync *qa, char **streams, size_t stream_count, const struct json *run,
         struct asked *asked);

/* The answer's ids are the fixture's up to the first <|im_end|>, where qa stops. */
void check_ids(const struct asked *asked, const struct json *run);

#endif
