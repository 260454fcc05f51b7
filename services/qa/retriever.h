/* retriever.h - one question's conversation with the stores that hold its streams: layer by layer, send the folded
 * query, learn which blocks won, get their bytes.
 *
 * With selector external the frames are named by the asker, and only fetched. With one store the store chooses and
 * sends at once. With several, each offers its best, the choices are merged exactly (kv/kv_select.h), and each sends
 * what was picked from it.
 *
 * Owner:  the question. Thread: the question's, blocking.
 * Fails:  the store's status with its name; INVALID for more blocks than the context holds; INTERNAL for a query
 *         that is not finite; CANCELLED. A single block that cannot be had (evicted between choosing and reading,
 *         damaged) is left out of that layer and counted: wrong bytes never come back.
 * Bounds: LIMIT_STREAMS_PER_QUESTION streams, LIMIT_TOP_BLOCKS blocks and tokens_max tokens a layer, timeout_ms for all
 *         layers and what the model does between them. */
#ifndef REELKV_QA_RETRIEVER_H
#define REELKV_QA_RETRIEVER_H

#include "kv/kv_geometry.h"
#include "kv/kv_select.h"
#include "model/model.h"
#include "store/store_link.h"
#include "store_calls.h"

struct retriever;

/* One stream of the question and where it is. The link is held by the question. */
struct retriever_stream {
    const char *name;
    struct store_link *link;
};

struct retriever_frame {
    uint32_t stream; /* index into options->streams */
    uint64_t seq;
};

struct retriever_options {
    const char *ns;
    const struct retriever_stream *streams;
    uint32_t stream_count;
    const uint8_t *fingerprint; /* MODEL_FINGERPRINT_BYTES */
    struct kv_geometry geometry;
    int64_t from_ns, to_ns, as_of_ns; /* 0: no bound */
    struct kv_selection selection;    /* unless external */
    bool external;                    /* the frames below, in every layer; none: no frames at all */
    const struct retriever_frame *frames;
    uint32_t frame_count; /* at most LIMIT_TOP_BLOCKS, none twice */
    uint32_t tokens_max;
    uint32_t timeout_ms;
    struct store_calls *calls; /* every call is one of these */
    const char *request_id;
};

/* What the view holds, over all stores. */
struct retriever_view {
    uint64_t frames, evicted_frames, gap_frames, damaged_frames;
};

/* Opens the calls and fixes the view for all layers. `options` and what it points to outlive the retriever. */
bool retriever_open(struct retriever **retriever_p, const struct retriever_options *options,
                    struct retriever_view *view, struct status *st);
void retriever_close(struct retriever *retriever); /* NULL is fine */

/* model_retriever.retrieve: layers in order. The chosen bytes stay as they are until the next call. */
bool retriever_layer(void *retriever, uint32_t layer, const float *folded,
                     const struct model_chosen **chosen_p, size_t *count_p, struct status *st);

/* Behind chosen[] of the last layer: its hits, `stream` an index into options->streams. */
const struct kv_hit *retriever_hits(const struct retriever *retriever, uint32_t *count_p);

struct retriever_totals {
    uint64_t fetched_bytes, took_ns;
    uint64_t missing[16]; /* blocks left out, by proto FrameResult, over all layers */
    uint64_t derived;     /* blocks read from copies in fewer bits, over all layers */
};
const struct retriever_totals *retriever_totals(const struct retriever *retriever);

/* No more layers: the stores need not keep the blocks for this question any longer. */
void retriever_let_go(struct retriever *retriever);

/* Thumbnails of up to `count` frames: thumbnails[i] is malloc'd bytes of frames[i], NULL when there is none. */
struct retriever_thumbnail {
    uint8_t *data;
    uint32_t len;
};
bool retriever_thumbnails(struct retriever *retriever, const struct kv_hit *frames, uint32_t count,
                          struct retriever_thumbnail *thumbnails, struct status *st);

#endif
