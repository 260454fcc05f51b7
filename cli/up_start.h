/* up_start.h - starts the supervisor of a cluster and waits until everything is there.
 *
 * Thread: main thread, before any gRPC: the supervisor is forked. */
#ifndef REELKV_CLI_UP_START_H
#define REELKV_CLI_UP_START_H

#include "cluster_file.h"

struct up_start {
    const char *data;
    int lock_fd;     /* handed on to the supervisor, closed here at the end */
    bool foreground; /* the supervisor ends with this process */
    uint32_t timeout_ms;
};

/* Writes `file` (its plan), starts `reelkv supervise` and waits until every process is ready and seen in the
 * directory; *file then says what runs. Whatever goes wrong (also Ctrl-C: CANCELLED), everything is stopped again. */
bool up_start(const struct up_start *start, struct cluster_file *file, struct status *st);

/* Waits for the supervisor started by up_start(); Ctrl-C or SIGTERM stop it. */
bool up_stay(const struct cluster_file *file, struct status *st);

/* TERM to the supervisor, and waits for its end; DEADLINE when it does not come. */
bool up_stop(const struct cluster_file *file, struct status *st);

#endif
