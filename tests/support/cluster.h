/* cluster.h - the real services in tests: each a process of its own, found through a real redis-server.
 *
 * Everything listens on Unix sockets in the test's folder; whatever still runs at the end is killed (process.h). */
#ifndef REELKV_TEST_CLUSTER_H
#define REELKV_TEST_CLUSTER_H

#include "support/process.h"

enum { CLUSTER_SERVICES_MAX = 16, CLUSTER_FLAGS_MAX = 24 };

struct cluster_service {
    struct process process;
    char name[32];     /* kvstore-0 */
    char address[320]; /* unix:<folder>/kvstore-0.sock */
};

struct cluster {
    struct process redis;
    const char *model; /* checkpoint folder */
    const char *dtype;
    uint32_t n_local;
    struct cluster_service services[CLUSTER_SERVICES_MAX];
    uint32_t count;
};

/* Nothing runs yet; services may be started, and redis_start(&cluster->redis) may come later. */
void cluster_init(struct cluster *cluster, const char *model, const char *dtype, uint32_t n_local);

/* The same, with redis-server. */
void cluster_start(struct cluster *cluster, const char *model, const char *dtype, uint32_t n_local);

/* Starts reelkv-<kind> as <kind>-<index> with the flags it needs and `extra` ("--flag", "value", ..., NULL; may be
 * NULL), and waits until it is ready. Fails the test with its log otherwise. Starting one that was killed starts it
 * again with the same name, address and folder. */
struct cluster_service *cluster_service_start(struct cluster *cluster, const char *kind, uint32_t index,
                                              const char *const *extra);

/* SIGTERM, or SIGKILL for a crash; returns the exit code. */
int cluster_service_stop(struct cluster_service *service, int signal);

/* Waits until the directory shows every started service. */
void cluster_wait_joined(const struct cluster *cluster);

/* Ends every service that still runs, the newest first, and redis, with SIGTERM: each must say 0. */
void cluster_stop(struct cluster *cluster);

#endif
