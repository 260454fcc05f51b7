/* store_scene.h - the streams of a story: what the store was told of them, and what it acked. For store_story.c.
 *
 * Thread: one. Fails the running test when the store says what it must not. */
#ifndef REELKV_TEST_STORE_SCENE_H
#define REELKV_TEST_STORE_SCENE_H

#include "kvstore/segment_age.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"
#include "store_story.h"
#include "unit/kvstore_fixture.h"

enum { SCENE_STREAMS = 3, SCENE_SEQ_MAX = 2048 };

enum offer { OFFER_NONE, OFFER_FRAME, OFFER_GAP };

/* What may have become of a number since it was offered, and what has for sure. */
enum fate {
    FATE_MAY_GO = 1,
    FATE_MAY_BE_DERIVED = 2,
    FATE_WENT = 4,
    FATE_IS_DERIVED = 8,
    FATE_IS_HELD = 16,        /* it was there when a hold of it was acked, which nobody asked to release */
    FATE_IS_HELD_WHOLE = 32,  /* and in all its bits */
    FATE_ROTTEN = 64,         /* in some of its bytes, in a sealed file */
    FATE_MAY_MAKE_ROOM = 128, /* its segment was asked to go, though it was not the oldest */
};

/* The segment being rewritten. */
struct scene_ageing {
    struct segment_age age;
    struct scene_cast *cast;
    uint64_t from_seq, to_seq;
    bool is_running, was_watched;
};

/* What the store was told of a stream, and what it acked. */
struct scene_cast {
    char name[8];
    bool is_defining, is_defined, is_removing;
    bool may_be_there; /* its definition failed: what is on the disk nobody knows */
    struct fixture_answer defined, removed, opened;
    bool is_opening;
    bool is_forgetting, is_holding, is_releasing;
    struct fixture_answer forgotten, held, released;
    uint64_t forget_from, forget_to, forget_number;
    uint64_t receipt_number; /* acked; 0: none */
    struct stream_hold hold; /* asked for */
    uint64_t hold_number;    /* acked; 0: none */
    bool may_be_held;        /* a change failed: what is on the disk nobody knows */
    struct fixture_writer writer;
    uint64_t epoch;                     /* acked */
    uint64_t durable_seq;               /* acked */
    uint64_t next_seq;                  /* in this life */
    uint64_t offered_seq;               /* ever, and not known to be gone */
    uint8_t offers[SCENE_SEQ_MAX];      /* the last one of each number */
    uint8_t was_offered[SCENE_SEQ_MAX]; /* all of them, as bits */
    uint8_t fates[SCENE_SEQ_MAX];       /* of enum fate */
    uint64_t rotten_in[SCENE_SEQ_MAX];  /* FATE_ROTTEN: the salt of the file */
    /* Never acked as durable, and in a file that a start could not read: what a crash takes of it is damage. */
    bool was_unread[SCENE_SEQ_MAX];
};

struct scene {
    struct fixture fixture;
    struct scene_cast cast[SCENE_STREAMS];
    struct scene_ageing ageing;
    bool keeps;         /* ranges are held and forgotten */
    bool scrubs;        /* sealed segments are read again, and bytes of them rot */
    uint64_t opened_ns; /* monotonic */
    bool ages;          /* segments are rewritten: one that is does not go, others go before it */
    const struct store_plan *plan;
    bool is_long;           /* enough is written for old segments to go */
    uint32_t gone_percent;  /* of what is done to a stream: it is removed */
    uint32_t taken_percent; /* of what is done to one that is written: another analyzer takes it */
    bool is_mixed;          /* calls fail in lives in which the power goes, too */
    bool is_cut;            /* in this life the power goes */
    bool is_cut_last;       /* when all is played, if not before */
    /* Something failed in some life: a segment that could not be removed stays, others go before it. */
    bool has_failed;
    /* A file was not read, in this life or in some: its numbers are taken; what was never durable of it may be back. */
    bool is_unread, was_unread;
    uint64_t used_bytes_max; /* counted in the disk's budget, in all lives */
    struct store_story *story;
};

/* Whether a call or an allocation failed in this life; one for which what is there may not have been read. */
bool scene_has_failures(void);
bool scene_is_unread(void);

struct stream *scene_find(struct scene *scene, const struct scene_cast *cast); /* NULL: it is not there */
void scene_forget(struct scene_cast *cast);                                    /* it has gone */

/* No file has what a receipt was given for. */
void scene_check_nowhere(const struct scene_cast *cast, uint64_t seq);

/* Takes note of what was said of holds and forgotten ranges. */
void scene_hear_retention(struct scene_cast *cast, const struct stream *stream);

/* Something is done to some stream, and the loop turns for a while; or to this one. */
void scene_act(struct scene *scene);
void scene_act_on(struct scene *scene, struct scene_cast *cast, struct stream *stream);
void scene_remove(struct scene *scene, struct scene_cast *cast, struct stream *stream);
void scene_turn(struct scene *scene, uint32_t times);

/* A whole pass of the scrub, and the one under way: it has found what rotted, and has kept to its rate. */
void scene_scrub(struct scene *scene);

/* Layer, thumbnail or block, by its number; what is there is compared. */
enum frame_result scene_read(struct scene *scene, struct stream *stream, uint64_t seq);

#endif
