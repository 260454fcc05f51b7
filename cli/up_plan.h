/* up_plan.h - from what was asked of `up` to a complete plan: defaults, remembered settings, budgets.
 *
 * What decides whether stored blocks can be read again (model, dtype, n_local, number of kvstores) is taken from
 * the options, else from what the folder was last started with (as is how blocks age), else from the model folder's reelkv.json
 * ({"dtype","n_local","top_r","recent_window","sample_fps"}, each optional), else from the default.
 *
 * Thread: main thread. */
#ifndef REELKV_CLI_UP_PLAN_H
#define REELKV_CLI_UP_PLAN_H

#include "cluster_file.h"

struct up_request {
    const char *data;                 /* absolute; need not exist */
    const char *model, *dtype;        /* "": not said */
    const char *ageing;               /* "": not said; "none": no ageing */
    uint32_t n_local, top_r, threads; /* 0: not said */
    uint32_t recent_window;           /* UINT32_MAX: not said */
    uint64_t ram_bytes, disk_bytes;   /* 0: not said */
    uint32_t counts[CLUSTER_KINDS];   /* kvstores 0: not said; redis is always 1 */
};

/* Everything but plan->run and ->fingerprint; `last` is what cluster_settings_read() gave. NOT_FOUND for executables or
 * a model that are not there; INVALID for what does not fit the folder. */
bool up_plan_resolve(const struct up_request *request, const struct cluster_plan *last,
                     struct cluster_plan *plan, struct status *st);

/* Makes <data>/run, or a private folder in /tmp when sockets in the former would have too long a path. */
bool up_plan_make_run(const char *data, struct cluster_plan *plan, struct status *st);

/* Removes what up_plan_make_run() made, and no other folder, whatever the plan of a damaged file says. */
void up_plan_remove_run(const char *data, const struct cluster_plan *plan);

/* Path of the running executable. */
bool up_plan_own_path(char out[CLUSTER_PATH_BYTES], struct status *st);

#endif
