/* encoder_world.h - a kvstore and an analyzer that an encoder's streams can talk to, in the test's own process and
 * under its thumb: they remember what came, check what must hold at every message, and fail when told to.
 *
 * What is "durable" survives a break of the call. What was only received does when the store `remembers`, and else not: then
 * each break stands for a store that was killed with the call. */
#ifndef REELKV_TEST_ENCODER_WORLD_H
#define REELKV_TEST_ENCODER_WORLD_H

#include "encoder/stream.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "rpc/server.h"

enum { WORLD_FRAMES_MAX = 1000, WORLD_TOKENS = 2, WORLD_HIDDEN = 8, WORLD_STREAMS_MAX = 8 };

/* One stream as the world has it. */
struct world_stream {
    char name[64];
    char source[400];
    bool live;
    double sample_fps;
    int64_t origin_ns; /* start time of a file, creation of a live stream */
    bool missing;      /* the store does not know it */
    Reelkv__V1__StreamState state;
    /* What has come, by number: 0 nothing, 1 frame, 2 gap. */
    uint8_t kind[WORLD_FRAMES_MAX];
    uint32_t number[WORLD_FRAMES_MAX]; /* that the frame's picture shows */
    int64_t pts_ns[WORLD_FRAMES_MAX];
    uint64_t received, durable;
    uint64_t expected_frames;
    uint32_t hellos, frames_in_all, most_in_flight, gaps, ends;
    uint32_t reports;
    char end_trouble[600], gap_reason[600], reported[600];
    char encoder[64]; /* that said Hello last */
    bool over;
    enum stream_end end;
    struct rpc_call *call; /* of the push under way */
    struct stream *stream;
};

struct world {
    struct loop *loop;
    struct rpc *rpc;
    struct rpc_server *server;
    char address[DIRECTORY_ADDRESS_BYTES];
    struct vision vision;
    struct encoder encoder;
    struct world_stream streams[WORLD_STREAMS_MAX];
    uint32_t stream_count;
    /* How the analyzer behaves. */
    uint32_t credits;
    uint32_t break_after; /* frames, then UNAVAILABLE; 0: never */
    uint32_t durable_lag; /* frames that are stored and not yet durable */
    uint32_t ack_ms;      /* until frames are stored, those that came meanwhile with them; 0: each at once */
    bool remembers;       /* the store lives through a break of the call */
    bool silent;          /* acknowledges nothing */
    bool lie;             /* acknowledges more than came */
    bool absent;          /* there is no analyzer */
    struct status refuse; /* not OK: what every Hello gets */
    uint32_t encode_ms;   /* the vision tower's time for a batch */
    /* Looks at a frame in place of the usual checks, which are those of the world's own vision tower. */
    void (*inspect)(struct world *world, const Reelkv__V1__IngestFrame *frame,
                    const struct rpc_payload *embeddings);
    uint32_t encode_fails;      /* so many batches fail */
    uint32_t bad_picture;       /* the one of this number never can be encoded; 0: each can */
    uint64_t refuse_seq;        /* what the frame of this number gets: */
    struct status refuse_frame; /* OK: it is taken */
};

struct world *world_create(void);
void world_destroy(struct world *world);

/* A file stream at 25 frames a second of `source`, unless changed before world_start(). */
struct world_stream *world_add(struct world *world, const char *name, const char *source);
void world_start(struct world *world, struct world_stream *stream);

/* Turns the loop until the condition holds; fails the test after timeout_ms. */
void world_until(struct world *world, bool (*holds)(struct world *world), uint32_t timeout_ms);
void world_for(struct world *world, uint32_t ms);
bool world_all_over(struct world *world);

/* The analyzer dies: the call breaks. */
void world_break(struct world_stream *stream);
/* The store lost all from `seq` on; the call breaks. */
void world_forget(struct world *world, struct world_stream *stream, uint64_t seq);

/* Everything below `count` has come: frames number k * step, or gaps. Returns how many frames. */
uint32_t world_check(const struct world_stream *stream, uint64_t count, uint32_t step);

#endif
