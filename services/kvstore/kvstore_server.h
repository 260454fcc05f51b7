/* kvstore_server.h - the kvstore's RPCs (proto/reelkv/v1/catalog.proto, kvstore.proto) over its store.
 *
 * Owner:  main: after the host, before its destroy.
 * Thread: the loop's.
 * Fails:  create: with the folder, socket or address, and what to do. */
#ifndef REELKV_KVSTORE_KVSTORE_SERVER_H
#define REELKV_KVSTORE_KVSTORE_SERVER_H

#include "base/options.h"
#include "rpc/host.h"

struct kvstore_options {
#define OPT OPTION_FIELD
#include "kvstore_options.def"
#undef OPT
};
extern const struct option_table kvstore_option_table;

struct kvstore;
bool kvstore_server_create(struct kvstore **kvstore_p, struct rpc_host *host,
                           const struct kvstore_options *options, struct status *st);

/* After rpc_host_run(): writes and seals what is open. NULL is fine. */
void kvstore_server_destroy(struct kvstore *kvstore);

#endif
