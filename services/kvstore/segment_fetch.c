#include "kvstore/segment_fetch.h"

#include <string.h>

#include "base/require.h"
#include "kvstore/read_ahead.h"
#include "kvstore/segment_job.h"

static struct store *store_of(const struct segment_fetch *fetch)
{
    return fetch->segment->stream->store;
}

/* --- files that stay open --- */

static void unlink_file(struct store *store, struct segment *segment)
{
    struct segment_file *file = &segment->file;

    if (file->prev != NULL)
        file->prev->file.next = file->next;
    else
        store->files.first = file->next;
    if (file->next != NULL)
        file->next->file.prev = file->prev;
    else
        store->files.last = file->prev;
    store->files.count--;
}

static void push_file(struct store *store, struct segment *segment)
{
    struct segment_file *file = &segment->file;

    file->next = NULL;
    file->prev = store->files.last;
    if (file->prev != NULL)
        file->prev->file.next = segment;
    else
        store->files.first = segment;
    store->files.last = segment;
    store->files.count++;
}

void segment_fetch_close(struct segment *segment)
{
    if (!segment->file.is_open)
        return;
    REQUIRE(segment->file.reads == 0);
    unlink_file(segment->stream->store, segment);
    segment->file.is_open = false;
    segment->stream->store->disk->close(segment->file.fd);
}

/* Of those that the ring is not reading the one that was read longest ago. */
static bool make_room(struct store *store)
{
    struct segment *segment = store->files.first;

    if (store->files.count < store->files.max)
        return true;
    while (segment != NULL && segment->file.reads > 0)
        segment = segment->file.next;
    if (segment != NULL)
        segment_fetch_close(segment);
    return segment != NULL;
}

static void keep_open(struct segment_fetch *fetch)
{
    struct segment *segment = fetch->segment;
    struct store *store = store_of(fetch);

    if (segment->file.is_open || segment->is_leaving || !make_room(store)) {
        store->disk->close(fetch->fd);
        return;
    }
    segment->file = (struct segment_file){ .fd = fetch->fd, .is_open = true };
    push_file(store, segment);
}

/* --- a fetch ends --- */

static void finish(struct segment_fetch *fetch)
{
    struct store *store = store_of(fetch);

    fetch->segment->reads--;
    if (fetch->bytes > 0 && !fetch->is_ahead)
        read_ahead_asked(store, -1);
    fetch->done(fetch);
}

static void work_done(struct work *work)
{
    struct segment_fetch *fetch = container_of(work, struct segment_fetch, work);

    if (fetch->fd >= 0)
        keep_open(fetch);
    finish(fetch);
}

/* --- by threads --- */

static void check_run(struct work *work)
{
    struct segment_fetch *fetch = container_of(work, struct segment_fetch, work);

    fetch->ok = fetch->check(fetch);
}

static void read_run(struct work *work)
{
    struct segment_fetch *fetch = container_of(work, struct segment_fetch, work);
    const struct file_ops *disk = store_of(fetch)->disk;
    int fd = segment_job_open(disk, fetch->segment->base, &fetch->st);

    if (fd < 0)
        return;
    fetch->ok = disk_read(disk, fd, fetch->to, fetch->bytes, fetch->offset, &fetch->st);
    if (fetch->ok && store_of(fetch)->ring != NULL)
        fetch->fd = fd;
    else
        disk->close(fd);
    fetch->ok = fetch->ok && fetch->check(fetch);
}

static bool start_work(struct segment_fetch *fetch)
{
    struct store *store = store_of(fetch);

    fetch->work = (struct work){ .run = fetch->bytes > 0 ? read_run : check_run, .done = work_done };
    if (fetch->bytes == 0)
        return work_pool_submit(store->computing, &fetch->work);
    return work_pool_submit(fetch->is_ahead ? store->reading_ahead : store->reading, &fetch->work);
}

/* --- by the ring --- */

static bool has_come(struct segment_fetch *fetch)
{
    if (fetch->read.error != 0)
        return status_fail(&fetch->st, STATUS_UNAVAILABLE, "read: %s", strerror(fetch->read.error));
    return fetch->read.came == fetch->bytes ||
           status_fail(&fetch->st, STATUS_DATA_LOSS, "read: the file ends before byte %llu",
                       (unsigned long long)(fetch->offset + fetch->bytes));
}

static void read_done(struct uring_read *read)
{
    struct segment_fetch *fetch = container_of(read, struct segment_fetch, read);

    fetch->segment->file.reads--;
    if (!has_come(fetch)) {
        finish(fetch);
        return;
    }
    fetch->work = (struct work){ .run = check_run, .done = work_done };
    if (work_pool_submit(store_of(fetch)->computing, &fetch->work))
        return;
    check_run(&fetch->work); /* the threads have more to do than they may; it is not refused any more */
    work_done(&fetch->work);
}

static bool start_read(struct segment_fetch *fetch)
{
    struct segment *segment = fetch->segment;
    struct store *store = store_of(fetch);

    fetch->read = (struct uring_read){ .fd = segment->file.fd,
                                       .to = fetch->to,
                                       .bytes = fetch->bytes,
                                       .offset = fetch->offset,
                                       .done = read_done };
    if (!uring_read(store->ring, &fetch->read))
        return false;
    segment->file.reads++;
    unlink_file(store, segment);
    push_file(store, segment);
    return true;
}

bool segment_fetch_start(struct segment_fetch *fetch)
{
    bool by_ring = fetch->bytes > 0 && fetch->segment->file.is_open;

    fetch->ok = false;
    fetch->fd = -1;
    fetch->st = (struct status){ 0 };
    if (!(by_ring ? start_read(fetch) : start_work(fetch)))
        return false;
    fetch->segment->reads++;
    if (fetch->bytes > 0 && !fetch->is_ahead)
        read_ahead_asked(store_of(fetch), 1);
    return true;
}
