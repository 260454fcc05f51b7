/* read_ahead.h - layers of frames read into RAM before somebody asks for them, while nobody waits for the disk.
 *
 *   add -> (waits in the store's line -> is read ->) settled -> kept -> drop
 *
 * Two kinds: guesses, the next layer of the blocks that a question was just sent, and tickets, what a Prefetch call names.
 * Such a read starts only while no read that somebody asked for is under way or waits, by the ring or on threads of its own
 * (segment_fetch.h); at most READ_AHEAD_THREADS that have started come to their end. A read that is asked for meanwhile waits for its own instead of
 * reading the same bytes twice. What has come is kept in RAM until dropped.
 *
 * Owner:  the caller's memory; after drop, reads under way end by themselves.
 * Thread: loop; reading and checking as segment_fetch.h says.
 * Fails:  a read that fails is forgotten: whoever asks for the slice then learns why.
 * Bounds: bytes in RAM, of all guesses an eighth of the slices' region, of all tickets a quarter; what is more is refused. */
#ifndef REELKV_KVSTORE_READ_AHEAD_H
#define REELKV_KVSTORE_READ_AHEAD_H

#include "kvstore/slice_read.h"

enum { READ_AHEAD_THREADS = 4 };

struct ahead_item;

struct read_ahead {
    struct store *store;
    enum read_ahead_kind kind;
    void (*settled)(
        struct read_ahead *ahead); /* nothing is left to be read; not from within add; NULL: nobody asks */
    /* its own */
    struct ahead_item *items;
    uint32_t waiting; /* in line or being read */
    uint32_t read, failed;
};

/* What became of it. The frame's chunk is held from here on. */
enum read_ahead_answer { READ_AHEAD_WILL_READ, READ_AHEAD_IS_THERE, READ_AHEAD_REFUSED };
enum read_ahead_answer read_ahead_add(struct read_ahead *ahead, struct index_frame *frame, uint32_t layer);

/* Of what has been read, or is just being read, how many are of these frames. Sorts them. */
uint32_t read_ahead_count(const struct read_ahead *ahead, const struct index_frame **frames, uint32_t count,
                          uint32_t layer);

bool read_ahead_has_forgotten(const struct read_ahead *ahead); /* of its frames, one that is to be nowhere */

void read_ahead_stop(struct read_ahead *ahead); /* what has not started is not read any more */
void read_ahead_drop(struct read_ahead *ahead); /* and what has come is for eviction to decide on */

/* --- for those who read (slice_read.c, block_read.c) --- */

bool read_ahead_is_reading(const struct store *store, const struct index_frame *frame, uint32_t layer);
void read_ahead_asked(struct store *store, int change); /* reads from the disk that somebody waits for */
void read_ahead_pump(struct store *store);

#endif
