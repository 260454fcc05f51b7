/* supervisor_plan.h - which processes a cluster is made of, and their command lines.
 *
 * Owner: command lines live in the caller's arena. Thread: any. */
#ifndef REELKV_CLI_SUPERVISOR_PLAN_H
#define REELKV_CLI_SUPERVISOR_PLAN_H

#include "base/arena.h"
#include "cluster_file.h"

enum { PLAN_ARGS_MAX = 40 };

struct plan_row {
    char name[LIMIT_NAME_BYTES + 1]; /* "kvstore-0"; "redis" */
    enum cluster_kind kind;
    char *argv[PLAN_ARGS_MAX + 1]; /* argv[0] is the executable's path; redis-server's is looked up in PATH */
};

/* In the order of starting; *count_p is at most CLUSTER_PROCESSES_MAX. EXHAUSTED when the arena is full. */
bool supervisor_plan_rows(const struct cluster_plan *plan, const char *data, struct arena *arena,
                          struct plan_row **rows_p, uint32_t *count_p, struct status *st);

#endif
