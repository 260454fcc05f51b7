/* kv_server.h - a reelkv-kvstore of the benchmark's own, as a real process, and its streams.
 *
 * Owner:  the main thread. Thread: clients of a server may be made and used on any.
 * Fails:  never; a benchmark that cannot go on ends with a sentence. What it started ends with it. */
#ifndef REELKV_BENCH_KV_SERVER_H
#define REELKV_BENCH_KV_SERVER_H

#include <limits.h>
#include <sys/types.h>

#include "kv/kv_geometry.h"
#include "kv/kv_shm.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/sync.h"

struct kv_server {
    pid_t pid;
    const char *program; /* path of reelkv-kvstore */
    char folder[PATH_MAX], address[64], socket[PATH_MAX];
    struct rpc_sync *client;
};

/* What a process may use; the rest as by default. */
struct kv_server_limits {
    uint64_t ram_bytes, disk_bytes;
};

/* Waits until it answers. The folder is made when it is not there. */
void kv_server_start(struct kv_server *server, const struct kv_server_limits *limits);
void kv_server_wait_quiet(const struct kv_server *server); /* until the pages of its memory are mapped */
void kv_server_stop(struct kv_server *server);             /* SIGTERM: all is written and sealed */

void kv_server_info(struct kv_server *server, Reelkv__V1__ServerInfo *info); /* its texts are not set */

/* Processor time used so far, in seconds: hardly disturbed by others on the machine. */
double kv_cpu_of(pid_t process);
double kv_cpu_of_threads(pid_t process, const char *name); /* those of the name */
double kv_own_cpu(void);

struct rpc_sync *kv_server_connect(const struct kv_server *server);

/* With the pool of a writer, or NULL. */
struct kv_shm_peer *kv_server_share(const struct kv_server *server, const struct kv_pool *own);

void kv_stream_create(struct kv_server *server, const char *name);
uint64_t kv_stream_open(struct rpc_sync *client, const char *name, const struct kv_geometry *geometry);

/* One stream's view, from its first frame up to `frames` of it (0: all). */
struct kv_view {
    Reelkv__V1__View view;
    Reelkv__V1__StreamId id, *list[1];
    Reelkv__V1__TimeRange range;
};
void kv_view_fill(struct kv_view *view, const char *name, uint64_t frames);

int64_t kv_frame_pts(uint64_t seq);

#endif
