/* kvstore_cold.h - a store whose blocks are on the disk only, and everything it has asked for once. */
#ifndef REELKV_TEST_KVSTORE_COLD_H
#define REELKV_TEST_KVSTORE_COLD_H

#include "kvstore_client.h"

enum { COLD_FRAMES = 30 };

/* Started again with these options (NULL-terminated) after a camera was written. */
static inline void cold_start(struct server *server, const char *const *options)
{
    server_start(server, "kv-a", NULL);
    client_fill(server, "cam-1", COLD_FRAMES);
    server_stop(server);
    server_start(server, "kv-a", options);
}

static inline void cold_ask(struct retrieval *retrieval, uint32_t layer)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery asked = REELKV__V1__RETRIEVE_QUERY__INIT;
    const float query[CLIENT_DIMS] = { 1 };

    asked.layer = layer;
    asked.query = (ProtobufCBinaryData){ sizeof query, (uint8_t *)(uintptr_t)query };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &asked;
    CHECK_OK(rpc_sync_write(retrieval->call, &request.base, NULL, &retrieval->st), retrieval->st);
}

/* Every layer of every frame comes as it was written. */
static inline void cold_expect_all(struct server *server)
{
    static const char *const names[] = { "cam-1" };
    const struct kv_selection selection = { .kind = KV_SELECT_ALL, .top_r = COLD_FRAMES };
    struct retrieval retrieval = { 0 };
    struct rpc_payload payload;

    retrieval_open(&retrieval, server, names, 1, &selection, false);
    CHECK_EQ(retrieval_read(&retrieval, &payload)->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED);
    for (uint32_t layer = 0; layer < client_geometry.layers; layer++) {
        uint8_t bytes[2 * CLIENT_TOKENS * CLIENT_DIMS * 2];
        uint64_t next = 0;

        cold_ask(&retrieval, layer);
        CHECK_EQ(retrieval_read(&retrieval, &payload)->item_case, REELKV__V1__RETRIEVE_REPLY__ITEM_HITS);
        while (retrieval_read(&retrieval, &payload)->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE) {
            CHECK_EQ(payload.len, sizeof bytes);
            rpc_payload_copy(&payload, 0, bytes, sizeof bytes);
            client_expect_layer("cam-1", next++, layer, bytes, sizeof bytes);
        }
        CHECK_EQ(next, COLD_FRAMES);
    }
    CHECK_OK(rpc_sync_finish(retrieval.call, &retrieval.st), retrieval.st);
    rpc_sync_stream_destroy(retrieval.call);
}

#endif
