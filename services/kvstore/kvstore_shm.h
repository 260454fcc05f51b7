/* kvstore_shm.h - sessions of processes on this host that share memory with the store (docs/shared-memory.md).
 *
 * Owner:  the server. Thread: the loop's; a writer's pool may be read by any thread that holds it.
 * Bounds: KVSTORE_SHM_SESSIONS at once, KVSTORE_SHM_HELLO_MS for a hello. */
#ifndef REELKV_KVSTORE_KVSTORE_SHM_H
#define REELKV_KVSTORE_KVSTORE_SHM_H

#include "kv/kv_pool.h"
#include "loop/loop.h"

enum { KVSTORE_SHM_SESSIONS = 256, KVSTORE_SHM_HELLO_MS = 2000 };

struct kvstore_shm;
struct shm_pool; /* a writer's, mapped here */

bool kvstore_shm_create(struct kvstore_shm **shm_p, struct loop *loop, const char *socket_path,
                        const struct kv_pool *arena, struct status *st);
void kvstore_shm_destroy(struct kvstore_shm *shm); /* NULL is fine */

const char *kvstore_shm_path(const struct kvstore_shm *shm);
uint64_t kvstore_shm_arena_pool(const struct kvstore_shm *shm);
bool kvstore_shm_has_session(const struct kvstore_shm *shm, uint64_t session);

/* The pool of this number, with a reference; stays mapped until unref, also when its session ends. NULL: no
 * session has it. */
struct shm_pool *kvstore_shm_pool(struct kvstore_shm *shm, uint64_t number);
void shm_pool_unref(struct shm_pool *pool); /* NULL is fine */
const struct kv_pool_reader *shm_pool_reader(const struct shm_pool *pool);

#endif
