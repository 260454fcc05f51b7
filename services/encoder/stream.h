/* stream.h - one stream on its way through the encoder: its definition, its capture child, its call to an analyzer.
 *
 *            GetStream                 capture child                      Ingest.Push
 *   DEFINING ---------> RUNNING: pictures, gaps -> items -> batch -> sent, kept until durable -> freed
 *                          |         ^ restarted when it breaks            ^ opened again when it is lost
 *                          '--- file read to its end, all of it durable ---> over
 *
 * Nothing that was captured is lost by a break of the call: every item is kept until the store's durable watermark
 * passes it and sent again, from where the next Ready says. What is no longer here (the encoder restarted) a file
 * gives again, from the same number on; of a live source it becomes a gap.
 *
 * Backpressure: keep_frames items with embeddings; beyond, pictures stay in their slots, and the capture waits (file)
 * or loses whole frames and says so (live).
 *
 * Owner:  whoever started it. Thread: the loop's.
 * Fails:  never as a whole: trouble is logged and tried again (0.5 s, doubling to 10 s), until `over`. One frame that
 *         fails for good becomes a gap; a stream that can have no more, or cannot be read, ends with the sentence.
 * Bounds: keep_frames + slots frames with their embeddings, and gaps between them; above ENCODER_ITEMS_MANY items gaps
 *         that touch become one, whatever their reasons. */
#ifndef REELKV_ENCODER_STREAM_H
#define REELKV_ENCODER_STREAM_H

#include "encoder/batch.h"
#include "encoder/peers.h"
#include "redis/directory_record.h"

enum { ENCODER_ITEMS_MANY = 256 };

struct stream;

/* Where the others are. UNAVAILABLE with a sentence while nobody is there. */
struct encoder_places {
    bool (*store)(void *user, const char *store, char address[DIRECTORY_ADDRESS_BYTES], struct status *st);
    bool (*analyzer)(void *user, const char *ns, const char *name, char address[DIRECTORY_ADDRESS_BYTES],
                     struct status *st);
    void *user;
};

/* What all streams share. Filled by the server (or a test); outlives them. */
struct encoder {
    const char *name; /* of this worker */
    const char *capture_program;
    uint32_t slots, keep_frames;
    uint64_t picture_bytes_max; /* RGB */
    uint32_t open_timeout_ms, stall_timeout_ms;
    struct loop *loop;
    const struct vision *vision;
    struct batch *batch;
    struct peers peers;
    struct encoder_places places;
    uint32_t retired; /* children of ended streams that still say goodbye to their cameras */
};

enum stream_end {
    STREAM_END_DONE, /* a file was read to its end (or cannot be read): the store knows */
    STREAM_END_GONE, /* the store does not know it, or says it has ended */
};

struct stream_options {
    const char *ns, *name;
    const char *store; /* name of the kvstore that owns it */
    /* Once; destroy it then (from within is fine). */
    void (*over)(struct stream *stream, enum stream_end end, void *user);
    void *user;
};

bool stream_start(struct stream **stream_p, struct encoder *encoder, const struct stream_options *options,
                  struct status *st);

/* No more pictures; what was captured is still sent, by another call where this one is lost, and the call ends when it is
 * durable. */
void stream_drain(struct stream *stream);
bool stream_is_drained(const struct stream *stream);

/* At once. What is not durable is lost to this encoder: the next one reads it again, or finds a gap. NULL is fine. */
void stream_destroy(struct stream *stream);

/* For tests and measurement. */
struct stream_progress {
    uint64_t durable_seq, captured_seq;
    uint32_t kept_frames;
    bool connected;  /* Ready came */
    int capture_pid; /* 0: none */
};
struct stream_progress stream_progress(const struct stream *stream);

#endif
