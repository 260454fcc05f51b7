/* clip_cluster.h - the fixtures' clip as cameras of a real cluster, and the fixtures' questions asked of it.
 *
 * The clip becomes lossless video, so that the encoder decodes what PyTorch saw, bit for bit. Everything ends the
 * running test when it fails. */
#ifndef REELKV_TEST_CLIP_CLUSTER_H
#define REELKV_TEST_CLIP_CLUSTER_H

#include "parity/parity.h"
#include "reelkv/v1/qa.pb-c.h"
#include "rpc/sync.h"
#include "support/cluster.h"

enum { CLIP_FPS = 2 };

/* The clip's frames [from, to) as FFV1; behind its last the clip begins again. */
void write_clip(const char *path, uint32_t from, uint32_t to);

/* One of each service on a fixture's checkpoint, and its clip, read to the end as camera "clip". Zeroed before
 * clip_cluster_open(), but for what the test wants otherwise: the first two. */
struct clip_cluster {
    uint32_t frames;                /* the video goes on behind the fixture's frames; 0: it ends with them */
    const char *const *store_flags; /* NULL: none */
    struct fixture fixture;
    struct cluster cluster;
    struct cluster_service *store, *qa;
};
void clip_cluster_open(struct clip_cluster *clip,
                       const char *checkpoint); /* "tiny-a": fixture stream-tiny-a */
void clip_cluster_close(struct clip_cluster *clip);

struct rpc_sync *connect_to(const struct cluster_service *service);

/* Adds a file, or a URL that goes on, as camera `name` of namespace "default" to this store. try_add_camera() may be
 * refused: *st says why. */
void add_camera(struct rpc_sync *store, const char *name, const char *path);
void add_live_camera(struct rpc_sync *store, const char *name, const char *url, double fps);
bool try_add_camera(struct rpc_sync *store, const char *name, const char *path, struct status *st);

/* What the store says of a camera now. A store that is being started again is waited for. */
struct camera {
    bool has_ended, has_failed; /* its end is recorded; with a trouble */
    int64_t created_ns;
    uint64_t epoch, next_seq, durable_seq, stored_frames, gap_frames, damaged_frames;
    char trouble[STATUS_TEXT_BYTES];
};
void camera_look(struct rpc_sync *store, const char *name, struct camera *camera);

/* Waits until this camera has so many frames in the store's memory, or has ended with exactly so many. */
void wait_stored(struct rpc_sync *store, const char *name, uint64_t frames);
void wait_ended(struct rpc_sync *store, const char *name, uint64_t frames);

/* CRC32C of K and V of every layer of frames [0, frames), checked against what was received: crcs
 * [frames * layers], malloc'd. A gap's are 0, and counted in *gaps_p; NULL: every frame must be there. */
uint32_t *block_crcs(struct rpc_sync *store, const char *name, const struct model_geometry *geometry,
                     uint64_t frames, uint64_t *gaps_p);

/* What qa said: the answer's ids, the evidence best first, and per layer the chosen frames in the order of
 * (time, stream). */
struct asked {
    uint32_t ids[64];
    size_t id_count;
    struct {
        uint64_t seq;
        int64_t pts_ns;
    } evidence[256];
    size_t evidence_count;
    uint64_t damaged_frames;
    uint64_t chosen[LIMIT_LAYERS][64]; /* seq */
    uint32_t streams[LIMIT_LAYERS][64];
    size_t chosen_count[LIMIT_LAYERS];
};

/* A question in two steps, so that something can happen in between. False: it was not answered whole, *st says why. */
struct rpc_sync_stream *ask_open(struct rpc_sync *qa, const Reelkv__V1__AskRequest *request);
bool ask_read(struct rpc_sync_stream *call, struct asked *asked, struct status *st); /* ends the call */

/* A run of a fixture, about the first `frames` frames of one stream or all frames of several. */
void ask(struct rpc_sync *qa, char **streams, size_t stream_count, const struct json *run,
         struct asked *asked);

/* The answer's ids are the fixture's up to the first <|im_end|>, where qa stops. */
void check_ids(const struct asked *asked, const struct json *run);

#endif
