#include "encoder/peers.h"

#include <stdlib.h>
#include <string.h>

struct peer {
    struct peers *peers;
    struct peer *next;
    struct rpc_channel *channel;
    uint32_t refs;
};

bool peer_get(struct peer **peer_p, struct peers *peers, const char *address, struct status *st)
{
    struct peer *peer = peers->first;

    while (peer != NULL && strcmp(rpc_channel_address(peer->channel), address) != 0)
        peer = peer->next;
    if (peer == NULL) {
        peer = calloc(1, sizeof *peer);
        if (peer == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for a channel to %s", address);
        if (!rpc_channel_create(&peer->channel, peers->rpc, address, NULL, st)) {
            free(peer);
            return false;
        }
        peer->peers = peers;
        peer->next = peers->first;
        peers->first = peer;
    }
    peer->refs++;
    *peer_p = peer;
    return true;
}

void peer_unref(struct peer *peer)
{
    if (peer == NULL || --peer->refs > 0)
        return;
    for (struct peer **at = &peer->peers->first; *at != NULL; at = &(*at)->next) {
        if (*at == peer) {
            *at = peer->next;
            break;
        }
    }
    rpc_channel_destroy(peer->channel);
    free(peer);
}

struct rpc_channel *peer_channel(const struct peer *peer)
{
    return peer->channel;
}

const char *peer_address(const struct peer *peer)
{
    return rpc_channel_address(peer->channel);
}
