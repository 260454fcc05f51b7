/* peers.h - one channel for each address the streams talk to, shared while somebody uses it.
 *
 * Thread: the loop's. Bounds: as many as there are streams, twice. */
#ifndef REELKV_ENCODER_PEERS_H
#define REELKV_ENCODER_PEERS_H

#include "rpc/client.h"

struct peer;

struct peers {
    struct rpc *rpc;
    struct peer *first;
};

/* With a reference for the caller. */
bool peer_get(struct peer **peer_p, struct peers *peers, const char *address, struct status *st);
void peer_unref(struct peer *peer); /* NULL is fine */
struct rpc_channel *peer_channel(const struct peer *peer);
const char *peer_address(const struct peer *peer);

#endif
