/* supervisor.h - keeps the processes of one cluster running.
 *
 *   starting --ready line--> ready --ended--> down --backoff--> starting ...
 *        `---ended-----------------------------^        SIGTERM: -> stopped, kind by kind
 *
 * redis is started first, the others when it answers. A process that ends is started again after 100 ms,
 * doubling to 10 s; one that has run for 30 s begins with 100 ms again. SIGTERM or SIGINT stop them in the order
 * encoder, analyzer, qa, kvstore, redis, so that what a process holds can still be handed on; one that does not
 * end within SUPERVISOR_DRAIN_MS is killed.
 *
 * Every change is written to <data>/cluster.json; a clean end removes it and the sockets.
 *
 * Owner:  the verb `supervise`. Thread: its main thread.
 * Fails:  before anything is started; later troubles are logged and tried again. */
#ifndef REELKV_CLI_SUPERVISOR_H
#define REELKV_CLI_SUPERVISOR_H

#include "cluster_file.h"

enum {
    SUPERVISOR_LOCK_FD = 3, /* comes open from `up`: the folder's lock */
    SUPERVISOR_DRAIN_MS = 15000,
    SUPERVISOR_BACKOFF_MS = 100,
    SUPERVISOR_BACKOFF_MS_MAX = 10000,
    SUPERVISOR_STEADY_MS = 30000,
};

/* Reads the plan in <data>/cluster.json and runs until told to stop. */
bool supervisor_run(const char *data, struct status *st);

#endif
