#include "kvstore/slice_waiters.h"

#include "kvstore/read_ahead.h"

void slice_wait(struct slice_read *read)
{
    read->is_waiting = true;
    read->next_waiter = NULL;
    *read->store->read_waiters_end = read;
    read->store->read_waiters_end = &read->next_waiter;
    store_retry_later(read->store);
}

void slice_stop_waiting(struct slice_read *read)
{
    struct slice_read **link = &read->store->read_waiters;

    while (*link != read)
        link = &(*link)->next_waiter;
    *link = read->next_waiter;
    if (*link == NULL)
        read->store->read_waiters_end = link;
    read->is_waiting = false;
}

bool slice_read_cancel(struct slice_read *read)
{
    if (!read->is_waiting)
        return false;
    slice_stop_waiting(read);
    return true;
}

/* In order; one that must wait again ends the round. */
void store_reads_retry(struct store *store)
{
    if (store->is_retrying_reads) /* from a done() below: the loop there goes on */
        return;
    store->is_retrying_reads = true;
    while (store->read_waiters != NULL) {
        struct slice_read *read = store->read_waiters;

        slice_stop_waiting(read);
        if (slice_read_start(read)) {
            read->done(read);
            continue;
        }
        if (!read->is_waiting)
            continue;
        /* It has gone to the end; it was the first. */
        slice_stop_waiting(read);
        read->is_waiting = true;
        read->next_waiter = store->read_waiters;
        if (store->read_waiters == NULL)
            store->read_waiters_end = &read->next_waiter;
        store->read_waiters = read;
        break;
    }
    store->is_retrying_reads = false;
    read_ahead_pump(store);
}
