/* model_facts.h - what `up` tells about a model: its shape, the bytes a frame costs, how fast this machine runs it.
 *
 * Thread: main thread; computes for a second or two, before the cluster is started.
 * Fails:  INVALID or NOT_FOUND for a checkpoint that does not fit, before any process has been started for it. */
#ifndef REELKV_CLI_MODEL_FACTS_H
#define REELKV_CLI_MODEL_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "cluster_file.h"

struct model_facts {
    char family[64];
    char fingerprint[33];
    char numerics[64];
    uint32_t layers, frame_tokens, n_local;
    uint64_t frame_bytes;         /* a frame's KV on disk, header and thumbnail included */
    double vision_frames_per_s;   /* 0: not measured */
    double language_frames_per_s; /* 0: not measured */
};

/* Of the speed, where both are 0. */
#define MODEL_NOT_MEASURED "not measured: the model takes too much of the free memory to load it once more"

/* A checkpoint larger than a quarter of the free memory is not measured: it would have to be loaded twice. INVALID also
 * when a budget of the plan holds less than one window; that is told before the measuring makes a window of that size. */
bool model_facts_read(const struct cluster_plan *plan, struct model_facts *facts, struct status *st);

#endif
