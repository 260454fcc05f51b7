/* mailbox.h - letters from any thread to one. See docs/mailbox.md.
 *
 * A letter's link is embedded in what it is about, so posting allocates nothing and cannot fail.
 *
 * Owner:  a posted letter is the box's until its open() starts; then it is the receiver's.
 * Thread: mailbox_post() any; mailbox_open_all() the receiver.
 * Bounds: none of its own: each letter is a piece of something that is bounded. */
#ifndef REELKV_LOOP_MAILBOX_H
#define REELKV_LOOP_MAILBOX_H

#include <pthread.h>

struct letter {
    void (*open)(struct letter *letter); /* on the receiver's thread, once for each post */
    struct letter *next;
};

struct mailbox {
    pthread_mutex_t lock;
    struct letter *first;
    struct letter **last_link;
    void (*wake)(struct mailbox *box);
};

/* `wake` is called by the poster when the box was empty, under the box's lock: so whoever opens a letter
 * knows that its poster is done with the box, and may free it. */
void mailbox_init(struct mailbox *box, void (*wake)(struct mailbox *box));
void mailbox_deinit(struct mailbox *box); /* must be empty */

/* A letter may be posted again once its open() has started, not before. */
void mailbox_post(struct mailbox *box, struct letter *letter);

/* Opens what is in the box now, in the order of posting; letters posted meanwhile wait for the next time. */
void mailbox_open_all(struct mailbox *box);

#endif
