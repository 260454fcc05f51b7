/* stream_internal.h - what the files of a stream share.
 *
 * Items stand in one list in the order of their numbers, without holes:
 *
 *   items: [kept: sent, not durable] ... unsent -> [ready | being encoded ...] last; capture_seq comes next */
#ifndef REELKV_ENCODER_STREAM_INTERNAL_H
#define REELKV_ENCODER_STREAM_INTERNAL_H

#include "base/log.h"
#include "encoder/capture.h"
#include "encoder/stream.h"

enum { RETRY_FIRST_MS = 500, RETRY_MAX_MS = 10000, RETRY_MISMATCH_MS = 30000 };

enum item_kind { ITEM_FRAME, ITEM_GAP, ITEM_END };

struct item {
    enum item_kind kind;
    uint64_t seq, to_seq; /* to_seq: the number after it; of an end: seq */
    int64_t pts_ns, to_pts_ns;
    char *text;    /* why there is a gap; what was wrong at the end */
    uint32_t refs; /* the list's, the batch's, and one for each message under way */
    struct item *next;
    /* Frames only. */
    struct stream *stream; /* NULL: nobody wants it any more */
    struct batch_item work;
    bool encoded;
    uint32_t encode_tries;     /* that failed */
    bool encode_again;         /* waits for encode_timer */
    struct capture_pool *pool; /* holds the picture until it is encoded */
    struct capture *capture;   /* whose slot is still held; NULL: none is */
    uint32_t slot;
};

struct push; /* one Ingest.Push call; stream_push.c */

struct stream {
    struct encoder *encoder;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1], store[LIMIT_NAME_BYTES + 1];
    char log_name[2 * LIMIT_NAME_BYTES + 2];
    struct log_context log;
    void (*over)(struct stream *stream, enum stream_end end, void *user);
    void *user;
    bool defined, draining, is_over;

    /* stream.c: the definition */
    struct store_call *definition_call, *report_call;
    char reported[STATUS_TEXT_BYTES]; /* what the store was told last; "": nothing that still holds */
    struct loop_timer define_timer;
    uint32_t define_retry_ms;
    struct capture_job job;

    /* stream_capture.c */
    struct capture *capture;
    struct loop_timer capture_timer;
    struct loop_timer encode_timer;
    uint32_t capture_retry_ms, capture_breaks; /* in a row, without a frame between */
    uint64_t capture_seq;                      /* the number the capture gives next */
    bool source_known;                         /* opened, or refused: how long it is is as clear as it gets */
    uint64_t expected_frames;
    char trouble[CAPTURE_TEXT_BYTES + 1]; /* of a live source, as last logged */

    /* items.c */
    struct item *first, *unsent;
    struct item **last_link;
    struct item *last;
    uint32_t item_count, frame_count;
    bool has_end;

    /* stream_push.c */
    struct push *push;
    struct loop_timer push_timer;
    uint32_t push_retry_ms;
    uint64_t durable_seq;
    uint64_t refused_seq; /* the frame, or one before it, that the analyzer refused last, */
    uint32_t refusals;    /* and how often in a row; 0: none is in doubt */
};

/* items.c */
struct item *item_create(struct stream *stream,
                         enum item_kind kind); /* NULL without memory; not in the list */
void item_unref(struct item *item);
void items_append(struct stream *stream, struct item *item);
/* A gap before everything, or after everything; joins the one beside it when it can. False: no memory. */
bool items_append_gap(struct stream *stream, const struct capture_message *gap);
void items_prepend(struct stream *stream, struct item *item);
/* A frame that will never be sent; joins the gaps beside it when it can, so it may be gone. False: no memory. */
bool item_become_gap(struct item *item, const char *reason);
void items_free_below(struct stream *stream, uint64_t seq); /* what ends at or before it */
void items_free_all(struct stream *stream);
void item_release_slot(struct item *item);
/* Slots of encoded frames are given back as long as there is room for more. */
void items_release_slots(struct stream *stream);
uint64_t items_next_seq(const struct stream *stream); /* of the first item, else capture_seq */
/* The first item that does not end at or before it; NULL: there is none. */
struct item *items_at(const struct stream *stream, uint64_t seq);

/* stream_capture.c */
void stream_capture_start(struct stream *stream, uint64_t from_seq);
void stream_capture_stop(struct stream *stream); /* and forgets which slots were held */
/* There is nothing more to come, for better or worse: the store is told behind the last frame. */
void stream_append_end(struct stream *stream, const char *trouble);

/* stream_push.c */
void stream_push_open(struct stream *stream);
void stream_push_advance(struct stream *stream);
void stream_push_abandon(struct stream *stream);
bool stream_push_is_ready(const struct stream *stream);

/* stream.c */
void stream_define(struct stream *stream);
void stream_finish(struct stream *stream, enum stream_end end);
/* Tells the store what keeps the stream from going on, for whoever asks it. Once, until it has gone on. */
void stream_report(struct stream *stream, const char *trouble);
static inline uint32_t retry_next(uint32_t ms)
{
    return 2 * ms < RETRY_MAX_MS ? 2 * ms : RETRY_MAX_MS;
}

#endif
