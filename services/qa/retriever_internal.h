/* retriever_internal.h - the retriever's struct, shared by retriever.c (what is chosen) and retriever_read.c (how the
 * bytes come in). */
#ifndef REELKV_QA_RETRIEVER_INTERNAL_H
#define REELKV_QA_RETRIEVER_INTERNAL_H

#include "reelkv/v1/kvstore.pb-c.h"
#include "retriever.h"
#include "rpc/api.h"

enum { STORES_MAX = LIMIT_STREAMS_PER_QUESTION };

/* One store of the question. Streams have an index in the question and one in what this store was asked. */
struct retriever_store {
    struct store_link *link;
    uint32_t stream_count;
    uint32_t to_question[LIMIT_STREAMS_PER_QUESTION];
    struct rpc_sync_stream *call;
    uint32_t picked, told;              /* hits of this layer that come from this store; of these, answered */
    uint32_t pick_of[LIMIT_TOP_BLOCKS]; /* index in hits[] of the store's i-th slice */
};

struct retriever {
    const struct retriever_options *options;
    struct retriever_store stores[STORES_MAX];
    uint32_t store_count;
    uint64_t due_ns; /* monotonic: options->timeout_ms are over */
    uint32_t next_layer;
    struct kv_hit hits[LIMIT_TOP_BLOCKS]; /* the layer's choice, in time order; tag: its store */
    uint64_t offset_of[LIMIT_TOP_BLOCKS]; /* in bytes[] */
    bool told[LIMIT_TOP_BLOCKS], have[LIMIT_TOP_BLOCKS];
    uint32_t hit_count;
    struct model_chosen chosen[LIMIT_TOP_BLOCKS]; /* those we have */
    struct kv_hit chosen_hits[LIMIT_TOP_BLOCKS];
    uint32_t chosen_count;
    uint8_t *bytes;
    uint64_t bytes_room;
    struct retriever_totals totals;
};

/* protobuf-c's structs point into this while a request is packed. */
struct view_parts {
    Reelkv__V1__View view;
    Reelkv__V1__TimeRange range;
    Reelkv__V1__StreamId ids[LIMIT_STREAMS_PER_QUESTION];
    Reelkv__V1__StreamId *id_list[LIMIT_STREAMS_PER_QUESTION];
};

/* What a request to this store may see. */
void retriever_fill_view(const struct retriever *retriever, const struct retriever_store *store,
                         struct view_parts *parts);

/* The next reply of a Retrieve call; a call that ends here ended too soon. */
bool retriever_read_reply(struct retriever_store *store, const Reelkv__V1__RetrieveReply **reply_p,
                          const struct rpc_payload **payload_p, struct status *st);

/* retriever_read.c: room for the layer's hits, then their bytes: of a Retrieve call up to its LayerEnd, or all of a
 * Fetch call made for them. */
bool retriever_make_room(struct retriever *retriever, struct status *st);
bool retriever_read_layer(struct retriever *retriever, struct retriever_store *store, uint32_t layer,
                          struct status *st);
bool retriever_fetch_layer(struct retriever *retriever, struct retriever_store *store, uint32_t layer,
                           struct status *st);

/* retriever_read.c: what is left of options->timeout_ms; false: nothing. */
bool retriever_time_left(const struct retriever *retriever, uint32_t *ms_p, struct status *st);

/* retriever_read.c: times and sizes of the hits of a store, which have only stream and seq; those the store does not
 * have get 0 tokens. */
bool retriever_look_up(struct retriever *retriever, struct retriever_store *store, struct status *st);

#endif
