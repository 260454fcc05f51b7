#include "loop/mailbox.h"

#include <stdbool.h>

#include "base/require.h"

void mailbox_init(struct mailbox *box, void (*wake)(struct mailbox *box))
{
    pthread_mutex_init(&box->lock, NULL);
    box->first = NULL;
    box->last_link = &box->first;
    box->wake = wake;
}

void mailbox_deinit(struct mailbox *box)
{
    REQUIRE(box->first == NULL);
    pthread_mutex_destroy(&box->lock);
}

void mailbox_post(struct mailbox *box, struct letter *letter)
{
    bool was_empty;

    letter->next = NULL;
    pthread_mutex_lock(&box->lock);
    was_empty = box->first == NULL;
    *box->last_link = letter;
    box->last_link = &letter->next;
    if (was_empty)
        box->wake(box);
    pthread_mutex_unlock(&box->lock);
}

void mailbox_open_all(struct mailbox *box)
{
    struct letter *letter;

    pthread_mutex_lock(&box->lock);
    letter = box->first;
    box->first = NULL;
    box->last_link = &box->first;
    pthread_mutex_unlock(&box->lock);
    while (letter != NULL) {
        struct letter *next = letter->next; /* open() may free or post the letter */

        letter->open(letter);
        letter = next;
    }
}
