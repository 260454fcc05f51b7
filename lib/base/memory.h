/* memory.h - how much memory this process may take: the machine's, and what its cgroups allow.
 *
 * Thread: any. Nothing here fails: what cannot be found out reads as 0. */
#ifndef REELKV_BASE_MEMORY_H
#define REELKV_BASE_MEMORY_H

#include <stdint.h>

/* Bytes this process' cgroup and the machine's memory allow in all. */
uint64_t memory_limit(void);

/* Of these, bytes that are not in use (page cache counts as free). */
uint64_t memory_available(void);

/* The smallest limit from this process' cgroup up to the root, v2 and v1; UINT64_MAX without one. The paths are
 * /proc/self/cgroup and /sys/fs/cgroup; tests give others. *used_p is the usage beside that limit. */
uint64_t memory_cgroup_limit(const char *self_path, const char *mount, uint64_t *used_p);

#endif
