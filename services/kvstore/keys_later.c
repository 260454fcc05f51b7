#include "kvstore/keys_later.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/require.h"
#include "kvstore/segment_keys.h"
#include "kvstore/store.h"

/* A segment whose chunks are blank. */
struct segment_blank {
    struct segment *segment;
    struct segment_blank *next, *prev;
    bool is_running;
    uint64_t failed_until_ns; /* whoever wants it meanwhile is told so */
};

struct keys_read {
    struct work work;
    struct segment *segment;
    bool ok, was_damaged;
    bool *is_damaged; /* [frames], of those read from records */
    struct status st;
};

/* --- the list --- */

static void unlink_blank(struct keys_later *later, struct segment_blank *blank)
{
    if (blank->prev != NULL)
        blank->prev->next = blank->next;
    else
        later->first = blank->next;
    if (blank->next != NULL)
        blank->next->prev = blank->prev;
    else
        later->last = blank->prev;
    blank->next = blank->prev = NULL;
}

static void push_first(struct keys_later *later, struct segment_blank *blank)
{
    blank->next = later->first;
    if (later->first != NULL)
        later->first->prev = blank;
    else
        later->last = blank;
    later->first = blank;
}

static void push_last(struct keys_later *later, struct segment_blank *blank)
{
    blank->prev = later->last;
    if (later->last != NULL)
        later->last->next = blank;
    else
        later->first = blank;
    later->last = blank;
}

bool keys_add(struct store *store, struct segment *segment)
{
    struct segment_blank *blank = calloc(1, sizeof *blank);

    if (blank == NULL)
        return false;
    blank->segment = segment;
    segment->blank = blank;
    push_last(&store->keys_later, blank);
    store->keys_later.segments++;
    return true;
}

void keys_forget(struct segment *segment)
{
    struct segment_blank *blank = segment->blank;

    if (blank == NULL)
        return;
    REQUIRE(!blank->is_running);
    unlink_blank(&segment->stream->store->keys_later, blank);
    free(blank);
    segment->blank = NULL;
}

/* --- on a reading thread --- */

static bool read_from_footer(struct keys_read *read, const struct file_ops *disk, int fd)
{
    const struct segment *segment = read->segment;
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    struct kv_footer footer;
    uint64_t bytes;
    bool ok = page != NULL || status_fail(&read->st, STATUS_EXHAUSTED, "no memory for a trailer");

    ok = ok && disk_length(disk, fd, &bytes, &read->st) &&
         (bytes >= 2 * KV_PAGE_BYTES || status_fail(&read->st, STATUS_DATA_LOSS, "the file was cut")) &&
         disk_read(disk, fd, page, KV_PAGE_BYTES, bytes - KV_PAGE_BYTES, &read->st) &&
         kv_footer_get(&footer, &segment->super, bytes, page, &read->st) &&
         segment_keys_read(disk, fd, &footer, &segment->index, &read->st);
    free(page);
    return ok;
}

static void read_run(struct work *work)
{
    struct keys_read *read = container_of(work, struct keys_read, work);
    const struct segment *segment = read->segment;
    const struct file_ops *disk = segment->stream->store->disk;
    char path[PATH_MAX + 8];
    struct status why;
    int fd;

    snprintf(path, sizeof path, "%s.seg", segment->base);
    fd = disk_open(disk, path, O_RDONLY, &read->st);
    if (fd < 0)
        return;
    read->ok = read_from_footer(read, disk, fd);
    read->was_damaged = !read->ok && read->st.code == STATUS_DATA_LOSS;
    if (read->was_damaged) {
        read->is_damaged = calloc(segment->index.frame_count, sizeof *read->is_damaged);
        read->ok = read->is_damaged != NULL && segment_keys_repair(disk, fd, segment, read->is_damaged, &why);
        if (!read->ok && read->is_damaged != NULL)
            read->st = why;
    }
    disk->close(fd);
}

/* --- on the loop --- */

static void quarantine(struct segment *segment, const bool *is_damaged)
{
    for (uint64_t n = 0; n < segment->index.frame_count; n++)
        if (is_damaged[n])
            stream_quarantine(segment, index_part_at(&segment->index, n));
}

static void take(struct keys_read *read)
{
    struct segment *segment = read->segment;
    const struct log_context context = { .stream = segment->super.stream };

    for (uint32_t i = 0; i < segment->index.chunk_count; i++)
        segment->index.chunks[i]->is_blank = false;
    keys_forget(segment);
    if (!read->was_damaged)
        return;
    quarantine(segment, read->is_damaged);
    log_error(&context, "footer_damaged",
              "%s.seg: %s; its keys come from its records, %llu of them are damaged", segment->base,
              read->st.text, (unsigned long long)segment->quarantined_frames);
}

/* Last in the list; and no other at once, for the disk may be ill. */
static void put_off(struct store *store, struct keys_read *read)
{
    struct segment_blank *blank = read->segment->blank;
    const struct log_context context = { .stream = read->segment->super.stream };

    log_warn(&context, "keys_not_read", "%s.seg: %s; trying again", read->segment->base, read->st.text);
    blank->failed_until_ns = store->keys_later.paused_until_ns = clock_mono_ns() + KEYS_AGAIN_MS * 1000000ull;
    unlink_blank(&store->keys_later, blank);
    push_last(&store->keys_later, blank);
    store_retry_later(store);
}

static void read_done(struct work *work)
{
    struct keys_read *read = container_of(work, struct keys_read, work);
    struct segment *segment = read->segment;
    struct stream *stream = segment->stream;
    struct store *store = stream->store;
    struct keys_later *later = &store->keys_later;

    segment->reads--;
    segment->blank->is_running = false;
    later->running--;
    if (read->ok && !segment->is_leaving) /* what leaves stays blank: questions go by it */
        take(read);
    else if (!read->ok)
        put_off(store, read);
    free(read->is_damaged);
    free(read);
    keys_start(store);
    if (later->first == NULL && later->running == 0)
        log_info(NULL, "keys_read", "of %llu segments, in %llu ms", (unsigned long long)later->segments,
                 (unsigned long long)(clock_mono_ns() - later->started_ns) / 1000000);
    stream_progress(stream);
    keys_retry(store);
    store_reads_retry(store);
}

static bool start_read(struct store *store, struct segment_blank *blank)
{
    struct keys_read *read = calloc(1, sizeof *read);

    if (read == NULL)
        return false;
    read->segment = blank->segment;
    read->work = (struct work){ .run = read_run, .done = read_done };
    if (!work_pool_submit(store->reading, &read->work)) {
        free(read);
        return false;
    }
    blank->is_running = true;
    blank->segment->reads++;
    store->keys_later.running++;
    return true;
}

/* Those that run stand among the first. */
static struct segment_blank *next_blank(const struct store *store)
{
    struct segment_blank *blank = store->keys_later.first;

    if (clock_mono_ns() < store->keys_later.paused_until_ns)
        return NULL;
    while (blank != NULL && (blank->is_running || blank->segment->is_leaving))
        blank = blank->next;
    return blank;
}

void keys_start(struct store *store)
{
    struct keys_later *later = &store->keys_later;

    if (later->started_ns == 0)
        later->started_ns = clock_mono_ns();
    while (!store->is_closing && later->running < KEYS_AT_ONCE) {
        struct segment_blank *blank = next_blank(store);

        if (blank == NULL)
            return;
        if (!start_read(store, blank)) {
            store_retry_later(store);
            return;
        }
    }
}

bool keys_want(struct segment *segment)
{
    struct store *store = segment->stream->store;
    struct segment_blank *blank = segment->blank;

    if (blank->is_running)
        return true;
    if (blank->failed_until_ns > clock_mono_ns())
        return false;
    unlink_blank(&store->keys_later, blank);
    push_first(&store->keys_later, blank);
    keys_start(store);
    return true;
}

void keys_wait(struct store *store, struct keys_waiter *waiter)
{
    waiter->next = store->keys_later.waiters;
    store->keys_later.waiters = waiter;
    store_retry_later(store);
}

void keys_retry(struct store *store)
{
    struct keys_waiter *waiters = store->keys_later.waiters;

    store->keys_later.waiters = NULL;
    while (waiters != NULL) {
        struct keys_waiter *waiter = waiters;

        waiters = waiter->next;
        if (!waiter->retry(waiter))
            keys_wait(store, waiter);
    }
}
