/* feed_internal.h - the feed's struct, shared by feed.c (the call and the queue), feed_window.c (opening the
 * stream and filling its window) and feed_append.c (blocks to the store). */
#ifndef REELKV_ANALYZER_FEED_INTERNAL_H
#define REELKV_ANALYZER_FEED_INTERNAL_H

#include "feed.h"
#include "kv/kv_geometry.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"

enum feed_state {
    FEED_HELLO,
    FEED_SHARING,
    FEED_OPENING,
    FEED_LOADING,
    FEED_RESTORING,
    FEED_RUNNING,
    FEED_ENDING
};

enum item_kind { ITEM_FRAME, ITEM_GAP, ITEM_END };

/* What the encoder sent and the store has not taken yet, in order. */
struct feed_item {
    enum item_kind kind;
    uint64_t seq, to_seq; /* a frame's, or a gap's range */
    int64_t pts_ns, to_pts_ns;
    uint32_t tokens;
    float *embeddings; /* [tokens, hidden] */
    char *text;        /* a gap's reason, the end's trouble */
    uint8_t *thumbnail;
    uint32_t thumbnail_bytes;
    struct feed_item *next;
};

/* A block given to the store and not yet stored. */
struct feed_sent {
    uint64_t seq;
    struct block_slot *slot;
    struct feed_sent *next;
};

struct feed_load; /* LoadWindow's blocks while they arrive; feed_window.c */

struct feed {
    struct analyzer *analyzer;
    struct feed *next, **link;
    enum feed_state state;
    struct rpc_call *call; /* NULL: over */
    struct loop_timer hello;
    bool over;
    struct log_context log;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1], store[LIMIT_NAME_BYTES + 1];
    char log_name[2 * LIMIT_NAME_BYTES + 2];
    char encoder[LIMIT_NAME_BYTES + 1];
    uint64_t expected_frames;

    struct store_link *store_link;
    uint64_t shm_pool;
    struct rpc_stream *store_call; /* the one open call to the store: OpenStream, LoadWindow or Append */
    uint64_t epoch, next_token_index;
    struct feed_load *load;
    struct work restore;
    bool restoring, restore_ok;
    struct status restore_failure;
    struct model_window *window;

    uint64_t received_seq; /* the next seq the encoder must send */
    uint64_t appended_seq; /* every seq below it is on its way to the store */
    uint64_t stored_seq, durable_seq;
    struct feed_item *first;
    struct feed_item **last_link;
    uint32_t queued;
    bool reading;          /* a read of the call is under way */
    bool half_closed;      /* the encoder says no more */
    bool ack_due;          /* the call had no room for the newest one */
    bool finished;         /* the store has everything: the call ends with the last Ack */
    uint64_t slot_ticket;  /* in the queue for a slot; 0: does not wait */
    struct engine_job job; /* the first item's frame, while the engine has it */
    struct block_slot *job_slot;
    struct feed_sent *sent;
    struct feed_sent **sent_link;
    struct feed_chunks {
        struct block_slot *slot; /* NULL: no block is half sent */
        uint64_t done, total;
    } chunks;
};

/* feed.c */
void feed_fail(struct feed *feed, const struct status *failure); /* ends the call; the feed ends soon after */
bool feed_fail_now(struct feed *feed, enum status_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void feed_running(struct feed *feed); /* the window is ready: tell the encoder, start the queue */
void feed_advance(struct feed *feed); /* moves what can be moved */
void feed_acknowledge(struct feed *feed);
void feed_finished(struct feed *feed); /* the store has everything and said so */
void feed_release(struct feed *feed);  /* frees it, once nothing holds it any more */
void feed_item_free(struct feed_item *item);

/* feed_window.c */
void feed_window_open(struct feed *feed);
void feed_window_abandon(struct feed *feed); /* lets go of everything but a restore that is running */

/* feed_append.c */
void feed_append_open(struct feed *feed);
bool feed_append_ready(const struct feed *feed); /* nothing is half sent and there is room */
void feed_append_block(struct feed *feed, const struct feed_item *item,
                       struct block_slot *slot); /* takes slot */
void feed_append_gap(struct feed *feed, const struct feed_item *item);
void feed_append_end(struct feed *feed, const struct feed_item *item); /* NULL item: half-close alone */
void feed_append_abandon(struct feed *feed);

#endif
