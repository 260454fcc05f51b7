/* store_link.h - a kvstore as its clients reach it: a channel for the loop, a blocking client for worker threads,
 * and shared memory when the store is on this host.
 *
 * Owner:  one link for each process of a store; it lives while somebody holds a reference. A store that moved or
 *         was restarted gets a new link.
 * Thread: the loop's, except store_link_sync() and, once a share is ready, store_link_peer(): any thread may use
 *         these while a reference is held for it. The handshake with the shared-memory socket blocks on a work
 *         pool's thread.
 * Fails:  UNAVAILABLE with the store's name while the directory knows no such store.
 * Bounds: one link a live store in use. */
#ifndef REELKV_STORE_STORE_LINK_H
#define REELKV_STORE_STORE_LINK_H

#include "base/limits.h"
#include "kv/kv_shm.h"
#include "loop/work_pool.h"
#include "redis/directory_view.h"
#include "rpc/client.h"
#include "rpc/sync.h"

struct store_links {
    struct rpc *rpc;
    struct work_pool *pool;
    const struct kv_pool *memory; /* a writer's, handed to stores on this host; NULL: reads only */
    struct store_link *first;
};

struct store_link;

/* The link to `store` at the address the view gives, with a reference for the caller. */
struct store_link *store_link_get(struct store_links *links, const struct directory_view *view,
                                  const char *store, struct status *st);
void store_link_unref(struct store_link *link); /* NULL is fine */

struct rpc_channel *store_link_channel(const struct store_link *link);

struct rpc_sync *store_link_sync(const struct store_link *link);

/* The session with the store's arena; NULL when bytes travel inline. A later share may bring one, none takes it away. */
const struct kv_shm_peer *store_link_peer(const struct store_link *link);

/* Makes sure of the handshake, then calls ready(user, pool) on the loop, never before it returns. pool: the number
 * `memory` has at the store, or 0 when bytes must travel inline: for good (another host, no socket, no memory), or
 * because the store did not answer in time; then the next share tries again. A waiter may be forgotten by
 * store_link_forget() with the same user. */
void store_link_share(struct store_link *link, void (*ready)(void *user, uint64_t pool), void *user);
void store_link_forget(struct store_link *link, void *user);

#endif
