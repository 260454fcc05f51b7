/* directory.h - a worker's membership in the cluster: it announces itself, sees the others, holds leases.
 *
 * Every DIRECTORY_HEARTBEAT_MS: the worker's record (and, for a kvstore, its streams') is written, held
 * leases are renewed and the whole directory is read. Redis may be away, at start or later: nothing here
 * fails then, leases stay as they were, the last view stays, and all is written again when Redis is back,
 * even when it comes back empty. What must not happen twice at once is guarded by the store's epochs, not by
 * these leases.
 *
 * Owner:  the service; destroyed before its loop.
 * Thread: the loop's, callbacks included.
 * Bounds: those of directory_view.h, and LIMIT_STREAMS streams recalled. */
#ifndef REELKV_REDIS_DIRECTORY_H
#define REELKV_REDIS_DIRECTORY_H

#include "loop/loop.h"
#include "redis/directory_view.h"

struct directory;

struct directory_events {
    /* Completes the record (zeroed, but for what directory fills: seen_ms). NULL: an observer, not a worker.
     */
    void (*describe)(struct worker_record *record, void *user);
    /* Writes up to `max` records of the streams this worker owns, returns how many; directory fills seen_ms.
     * NULL: owns none. Called every fifth heartbeat and on each connect; changes between are sent by
     * directory_put_stream(). */
    uint32_t (*streams)(struct stream_record *records, uint32_t max, void *user);
    /* After each reading. The view is directory_view()'s. May be NULL. */
    void (*refreshed)(const struct directory_view *view, void *user);
    void *user;
};

bool directory_create(struct directory **directory_p, struct loop *loop, const char *redis,
                      const struct directory_events *events, struct status *st);
void directory_destroy(struct directory *directory); /* NULL is fine */

/* The latest reading; empty before the first. Valid until the next time events are handled. */
const struct directory_view *directory_view(const struct directory *directory);

bool directory_is_reachable(const struct directory *directory);

/* False until the first reading: an empty view then says nothing. */
bool directory_is_known(const struct directory *directory);

/* The stream in the latest reading; or, for DIRECTORY_RECALL_MS after it vanished from there, as it was then: either it was
 * removed, or Redis was emptied and the stream's store has not written it again yet. The store knows. NULL: neither.
 * Valid until the next time events are handled. */
const struct stream_record *directory_recall_stream(const struct directory *directory, const char *ns,
                                                    const char *name);
enum { DIRECTORY_RECALL_MS = 10000 };

/* Writes or removes one stream record at once. While Redis is away this does nothing: what exists is written
 * again on connect, and a record that should have gone is removed by its owner when it next sees it. */
void directory_put_stream(struct directory *directory, const struct stream_record *record);
void directory_remove_stream(struct directory *directory, const char *ns, const char *name);

/* Removes the worker's own record, so that others stop choosing it at once. Before a drain. */
void directory_leave(struct directory *directory);

/* A lease on reading one stream's source. Zeroed memory is a lease that is not asked for. */
struct directory_lease {
    char ns[LIMIT_NAME_BYTES + 1];
    char name[LIMIT_NAME_BYTES + 1];
    bool held; /* as last heard; read only */
    /* Called when the answer to the first claim comes, and whenever held changes. */
    void (*changed)(struct directory_lease *lease, bool held);
    struct directory *directory;
    struct directory_lease *next, **link;
    bool answered;
};

/* Claims and then renews with each heartbeat until released. `holder` is the worker's name; the same name
 * takes its own lease again at once after a restart. */
void directory_lease_claim(struct directory *directory, struct directory_lease *lease, const char *holder);
void directory_lease_release(struct directory_lease *lease); /* not asked for: nothing */

#endif
