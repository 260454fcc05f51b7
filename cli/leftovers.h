/* leftovers.h - the processes of a cluster whose supervisor, or whose cluster.json, is gone.
 *
 * A supervisor and all it starts carry LEFTOVERS_MARK=<data folder> in their environment, so that they are found
 * also when nothing on the disk names them: a process started in the moment its supervisor was killed, a damaged
 * cluster.json. (redis-server writes its title over its environment; it is known by its working folder.)
 *
 * Thread: main thread. Bounds: CLUSTER_PROCESSES_MAX processes. */
#ifndef REELKV_CLI_LEFTOVERS_H
#define REELKV_CLI_LEFTOVERS_H

#include "cluster_file.h"

#define LEFTOVERS_MARK "REELKV_CLUSTER"

/* Marks this process' children from now on as of the cluster in `data`. */
void leftovers_mark(const char *data);

/* What <data>/cluster.json says, if it can be read, and what else runs with the folder's mark; false when both are
 * nothing. */
bool leftovers_find(const char *data, struct cluster_file *file);

/* Ends the processes in `file`, not its supervisor, in the order of draining: TERM, after timeout_ms KILL; then
 * removes cluster.json and the folder of sockets. */
void leftovers_clear(const char *data, const struct cluster_file *file, uint32_t timeout_ms);

/* Both, for who holds the folder's lock: a supervisor that was killed leaves its processes and its file, which must end
 * before others take their place. */
void leftovers_sweep(const char *data);

#endif
