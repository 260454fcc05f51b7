/* directory_view.h - one reading of the directory: which workers live, which streams exist.
 *
 * Owner:  the caller; directory_view_deinit() frees. A zeroed view is empty and valid.
 * Thread: one at a time.
 * Bounds: DIRECTORY_WORKERS_MAX and LIMIT_STREAMS records; what is beyond, malformed or too old (a worker
 * whose last heartbeat is more than DIRECTORY_WORKER_TTL_MS ago) is left out and counted in `skipped`. */
#ifndef REELKV_REDIS_DIRECTORY_VIEW_H
#define REELKV_REDIS_DIRECTORY_VIEW_H

#include "redis/directory_record.h"

enum {
    DIRECTORY_WORKERS_MAX = 1024,
    DIRECTORY_HEARTBEAT_MS = 1000,
    DIRECTORY_WORKER_TTL_MS = 5000,
    DIRECTORY_LEASE_TTL_MS = 5000,
    DIRECTORY_FORGET_MS = 24 * 3600 * 1000,
    DIRECTORY_FORGOTTEN_MAX = 8,
};

/* A worker that was not heard of for DIRECTORY_FORGET_MS: it was killed and did not come back, or the clocks disagree. */
struct directory_forgotten {
    enum worker_kind kind;
    char name[LIMIT_NAME_BYTES + 1];
    int64_t seen_ms;
};

struct directory_view {
    struct worker_record *workers; /* by kind, then name */
    uint32_t worker_count;
    struct stream_record *streams; /* by namespace, then name */
    uint32_t stream_count;
    uint32_t skipped;
    struct directory_forgotten forgotten[DIRECTORY_FORGOTTEN_MAX]; /* the first of them; also in `skipped` */
    uint32_t forgotten_count;
};

void directory_view_deinit(struct directory_view *view);

/* The worker of that kind and name, or NULL. Borrowed from the view. */
const struct worker_record *directory_view_worker(const struct directory_view *view, enum worker_kind kind,
                                                  const char *name);

/* The live, undraining worker of `kind` that owns `key` by rendezvous; with `fingerprint` (16 bytes, may be
 * NULL) only workers with that model. NULL when there is none. */
const struct worker_record *directory_view_pick(const struct directory_view *view, enum worker_kind kind,
                                                const char *key, const uint8_t *fingerprint);

const struct stream_record *directory_view_stream(const struct directory_view *view, const char *ns,
                                                  const char *name);

/* "unix:/path" or "host:port" -> parts; INVALID with what is expected, and nothing of a password. */
struct redis_address {
    bool is_unix;
    char host[DIRECTORY_ADDRESS_BYTES]; /* or the socket's path */
    uint16_t port;
};
bool redis_address_read(const char *text, struct redis_address *address, struct status *st);

/* Reads the directory once, blocking, for tools: at most timeout_ms for connecting and as much for each
 * reply. UNAVAILABLE names the address and the cause. */
bool directory_read_once(const char *redis, uint32_t timeout_ms, struct directory_view *view,
                         struct status *st);

#endif
