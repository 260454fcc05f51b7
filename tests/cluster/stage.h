/* stage.h - one of each service over the checkpoint tiny-a; a test kills any of them and starts it again, with the same
 * name, address, folder and flags. Everything ends the running test when it fails. */
#ifndef REELKV_TEST_STAGE_H
#define REELKV_TEST_STAGE_H

#include "clip_cluster.h"

enum stage_part { STAGE_KVSTORE, STAGE_ANALYZER, STAGE_ENCODER, STAGE_QA, STAGE_PARTS };
enum { STAGE_N_LOCAL = 60 };

#define STAGE_MODEL REELKV_SOURCE_DIR "/tests/data/parity/tiny-a"

/* Zeroed before stage_open(), but for what the test wants otherwise: the first three. */
struct stage {
    const char *const *flags[STAGE_PARTS];
    uint32_t n_local;   /* 0: STAGE_N_LOCAL */
    bool without_redis; /* the test starts it: redis_start(&stage->cluster.redis) */
    struct cluster cluster;
    struct cluster_service *parts[STAGE_PARTS];
    struct rpc_sync *store, *qa;
    struct model *model; /* for its geometry */
};

/* All parts run; with Redis, all have joined it too. */
void stage_open(struct stage *stage);
void stage_start(struct stage *stage, enum stage_part part);
void stage_kill(struct stage *stage, enum stage_part part); /* -9 */
void stage_close(struct stage *stage);

/* Waits until the part's log has these words. */
void stage_wait_told(const struct stage *stage, enum stage_part part, const char *words);

/* A question about one camera; what is 0 is not said. */
struct question {
    const char *ns;     /* NULL: default */
    const char *camera; /* NULL: none is named */
    const char *words;
    int64_t from_ns, to_ns;
    uint32_t top_r, max_tokens;
};
struct rpc_sync_stream *stage_ask_open(struct stage *stage,
                                       const struct question *question); /* then ask_read() */

/* Asked again until it is answered: who was just started needs a moment to find the others. */
void stage_ask(struct stage *stage, const struct question *question, struct asked *asked);

/* CRCs of all layers of the camera's first `frames` frames; free(). */
uint32_t *stage_crcs(struct stage *stage, const char *name, uint64_t frames);

/* Adds the film as a camera that nothing disturbs, waits until it has ended, and gives its CRCs; free(). */
uint32_t *stage_undisturbed(struct stage *stage, const char *name, const char *film, uint64_t frames);

/* The first `frames` frames of the camera are, byte for byte, those the CRCs are of. */
void stage_check_crcs(struct stage *stage, const char *name, const uint32_t *crcs, uint64_t frames);

/* A video of `frames` frames without loss, 2 a second; static storage. */
const char *stage_film(uint32_t frames);

#endif
