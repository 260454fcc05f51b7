/* store_double.h - a kvstore that a test makes up: its handlers, served by a thread of their own (served.h), and in the
 * directory as "store-0" until it is stopped. The test's redis-server runs meanwhile.
 *
 * Owner:  the test. Thread: as served.h. */
#ifndef REELKV_TEST_STORE_DOUBLE_H
#define REELKV_TEST_STORE_DOUBLE_H

#include "redis/directory.h"
#include "rpc/server.h"
#include "support/served.h"

struct store_double {
    const struct rpc_handler *handlers; /* of reelkv.v1.KvStore; set by the test, with what follows */
    size_t handler_count;
    void *state;
    const char *stream; /* of namespace "default", which the directory says is here; NULL: none */
    struct rpc_service service;
    struct served served;
    struct directory *directory;
};

void store_double_start(struct store_double *store);
void store_double_stop(struct store_double *store);

/* A handler: GetServerInfo of a store that shares no memory. */
void store_double_info(struct rpc_call *call, void *state);

#endif
