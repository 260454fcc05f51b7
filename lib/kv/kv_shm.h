/* kv_shm.h - the handshake that shares pools between a kvstore and processes on its host.
 *
 *   peer  -> store  hello    24 bytes, with the peer's pool (one descriptor) when it wants to write
 *   store -> peer   welcome  40 bytes and a sentence, with the store's arena (one descriptor)
 *
 * over a Unix SEQPACKET socket that then stays open: when it closes, by whatever end, the store forgets the
 * session and unmaps the peer's pool. Layouts are in docs/shared-memory.md. The socket's path may be longer than its
 * address holds.
 *
 * Owner:  as said at each function.
 * Thread: any, one at a time for each object.
 * Fails:  NOT_FOUND when there is no such socket here; UNAVAILABLE when nobody listens or answers in time; DENIED,
 *         EXHAUSTED or INVALID with the store's own sentence.
 * Bounds: KV_SHM_POOL_BYTES_MAX a pool. */
#ifndef REELKV_KV_KV_SHM_H
#define REELKV_KV_KV_SHM_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/kv_pool.h"

#define KV_SHM_POOL_BYTES_MAX (1ull << 42)

/* --- the peer's side --- */

struct kv_shm_peer;

/* Blocks for at most timeout_ms. `own`: the pool to hand over, NULL for readers; it stays the caller's and
 * must outlive the peer. */
bool kv_shm_peer_create(struct kv_shm_peer **peer_p, const char *socket_path, const struct kv_pool *own,
                        uint32_t timeout_ms, struct status *st);
void kv_shm_peer_destroy(struct kv_shm_peer *peer); /* NULL is fine */

uint64_t kv_shm_peer_session(const struct kv_shm_peer *peer); /* for FetchRequest.shm_session */
uint64_t kv_shm_peer_pool(const struct kv_shm_peer *peer);    /* for AppendBegin.shm_pool; 0 without `own` */

/* The store's arena, and the number ShmPlace.pool names it by; valid until destroy. */
const struct kv_pool_reader *kv_shm_peer_arena(const struct kv_shm_peer *peer);
uint64_t kv_shm_peer_arena_pool(const struct kv_shm_peer *peer);

/* False once the store has closed the socket (it ended, or was restarted). */
bool kv_shm_peer_is_alive(const struct kv_shm_peer *peer);

/* --- the store's side; descriptors are non-blocking --- */

/* Replaces a socket that nobody listens on; mode 0600. Returns the descriptor, or -1. */
int kv_shm_listen(const char *socket_path, struct status *st);

/* Reads the one hello. *pool_fd_p: the peer's pool, the caller's to close; -1 when it brought none. */
bool kv_shm_read_hello(int fd, int *pool_fd_p, struct status *st);

/* Sends the welcome; or, with `refusal`, why not. */
struct kv_shm_welcome {
    uint64_t session;
    uint64_t pool;       /* the peer's own; 0: it brought none */
    uint64_t arena_pool; /* the store's */
};
bool kv_shm_send_welcome(int fd, const struct kv_shm_welcome *welcome, int arena_fd, struct status *st);
void kv_shm_send_refusal(int fd, const struct status *refusal);

#endif
