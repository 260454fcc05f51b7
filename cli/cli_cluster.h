/* cli_cluster.h - finding a cluster and talking to it.
 *
 * A cluster started here is found by its data folder, any other by the address of its Redis.
 *
 * Owner:  the verb; cluster_close() ends connections.
 * Thread: main thread.
 * Fails:  NOT_FOUND for a folder without a cluster, UNAVAILABLE for one that does not answer; the sentence says
 *         what to do.
 * Bounds: CLUSTER_TIMEOUT_MS a call that is not a question, and no transfer. */
#ifndef REELKV_CLI_CLUSTER_H
#define REELKV_CLI_CLUSTER_H

#include "cluster_file.h"
#include "redis/directory_view.h"
#include "rpc/api.h"
#include "rpc/sync.h"

enum { CLUSTER_TIMEOUT_MS = 10000, CLUSTER_DIRECTORY_MS = 3000 };

/* The data folder that --data (or its default) means, absolute; it need not exist. */
bool cluster_data_folder(const char *option, char out[CLUSTER_PATH_BYTES], struct status *st);

struct cluster;

/* `data` and `redis` as the options gave them. Reads the directory; for a cluster that was started here, until it shows
 * those of its kvstores and qas that the verb needs and that run, at most CLUSTER_DIRECTORY_MS. */
enum cluster_need { CLUSTER_NEEDS_NOBODY, CLUSTER_NEEDS_STORES, CLUSTER_NEEDS_STORES_AND_QAS };
bool cluster_open_for(struct cluster **cluster_p, enum cluster_need need, const char *data, const char *redis,
                      struct status *st);

/* For the kvstores. */
bool cluster_open(struct cluster **cluster_p, const char *data, const char *redis, struct status *st);
void cluster_close(struct cluster *cluster); /* NULL is fine */

/* A cluster that was started here and does not run any more; st says how to start it again. False for others. */
bool cluster_is_stopped(const struct cluster *cluster, struct status *st);

/* Reads the directory again. */
bool cluster_refresh(struct cluster *cluster, struct status *st);
const struct directory_view *cluster_view(const struct cluster *cluster);
const char *cluster_redis(const struct cluster *cluster);
const char *cluster_data(const struct cluster *cluster); /* its folder; "": found by its Redis */

/* The connection to a worker, made when first asked for and kept. Borrowed until cluster_close(). */
struct rpc_sync *cluster_connect(struct cluster *cluster, const char *address, struct status *st);

/* So many seconds from now, and what a call may take until then. */
uint64_t cluster_deadline(uint32_t seconds);
uint32_t cluster_left_ms(uint64_t deadline_ns);

/* The live kvstore that has, or by rendezvous would get, the camera. UNAVAILABLE without one. */
const struct worker_record *cluster_store_of(const struct cluster *cluster, const char *ns, const char *name,
                                             struct status *st);

/* After a call that failed: UNAVAILABLE says who does not answer, and what to look at. Returns false. `st` may be NULL. */
bool cluster_blame(const struct worker_record *worker, struct status *st);

/* One call to a worker; *call_p, which holds the reply, is destroyed by the caller also on failure. UNAVAILABLE when it does
 * not answer, or not within CLUSTER_TIMEOUT_MS. */
bool cluster_call(struct cluster *cluster, const struct worker_record *worker,
                  const struct rpc_method *method, const ProtobufCMessage *request,
                  struct rpc_sync_stream **call_p, const ProtobufCMessage **reply_p, struct status *st);

#endif
