/* keys_later.h - keys and checksums that a start has left on the disk, read while the store serves already.
 *
 * A start reads of a sealed segment only what appends and timelines need: superblock, trailer, table, notes. Its chunks are
 * blank (index.h), and counted in the index's memory as if they were not. From then on KEYS_AT_ONCE segments at a time are
 * read, the newest first, but those before all others that a question waits for.
 *
 *   blank --read--> there                  a footer that does not fit: the same from its records; what does not fit
 *     ^      |                             there either is quarantined
 *     +------+ the disk's own failure: again after KEYS_AGAIN_MS, and after twice as long each time; who asks is told UNAVAILABLE
 *
 * What has not been read KEYS_TRIES times is taken as damaged, if the disk reads a page of the file, or of another one: the
 * keys come from its records, and frames whose record cannot be read either are quarantined until the next start. A disk that
 * reads nothing says nothing of what is on it: it is asked again, at least every KEYS_AGAIN_MS_MAX.
 *
 * Owner:  the store. Thread: loop; files are read on the reading threads. */
#ifndef REELKV_KVSTORE_KEYS_LATER_H
#define REELKV_KVSTORE_KEYS_LATER_H

#include <stdbool.h>
#include <stdint.h>

struct segment;
struct store;

enum { KEYS_AT_ONCE = 4, KEYS_AGAIN_MS = 1000, KEYS_AGAIN_MS_MAX = 16000, KEYS_TRIES = 4 };

struct segment_blank;

struct keys_waiter {
    bool (*retry)(struct keys_waiter *waiter); /* something was read, or failed; true: it waits no more */
    struct keys_waiter *next;
};

struct keys_later {
    struct segment_blank *first, *last; /* in the order of reading */
    struct keys_waiter *waiters;
    uint32_t running;
    uint64_t paused_until_ns;      /* a read has failed */
    uint64_t segments, started_ns; /* for the log */
};

/* At start, in the order of reading; false: no memory. */
bool keys_add(struct store *store, struct segment *segment);
void keys_start(struct store *store);
bool keys_are_coming(const struct store *store); /* some are on their way for the first time */

/* This one next. False: its file cannot be read now. */
bool keys_want(struct segment *segment);
void keys_wait(struct store *store, struct keys_waiter *waiter);
void keys_retry(struct store *store); /* who waits asks again */

/* The segment goes. */
void keys_forget(struct segment *segment);

#endif
