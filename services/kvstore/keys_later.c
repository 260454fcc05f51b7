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
    uint32_t failures;
    uint64_t failed_until_ns; /* whoever wants it meanwhile is told so */
};

struct keys_read {
    struct work work;
    struct segment *segment;
    bool takes_unread; /* as damaged */
    char other[PATH_MAX +
               8]; /* a file that the disk may read where it does not read this one; "": there is none */
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

static bool has_first_page(const struct file_ops *disk, const char *path)
{
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    struct status why;
    int fd = page == NULL ? -1 : disk_open(disk, path, O_RDONLY, &why);
    bool ok = fd >= 0 && disk_read(disk, fd, page, KV_PAGE_BYTES, 0, &why);

    if (fd >= 0)
        disk->close(fd);
    free(page);
    return ok;
}

/* What has failed is this file's, and not the whole disk's or memory's. */
static bool is_damage(const struct keys_read *read, const struct file_ops *disk, const char *path)
{
    if (read->st.code == STATUS_DATA_LOSS)
        return true;
    return read->takes_unread && read->st.code != STATUS_EXHAUSTED &&
           (has_first_page(disk, path) || (read->other[0] != '\0' && has_first_page(disk, read->other)));
}

/* fd -1: the file cannot be opened. */
static void read_from_records(struct keys_read *read, const struct file_ops *disk, int fd)
{
    const struct segment *segment = read->segment;
    struct status why;

    read->is_damaged = calloc(segment->index.frame_count, sizeof *read->is_damaged);
    if (read->is_damaged == NULL) {
        status_fail(&read->st, STATUS_EXHAUSTED, "no memory for its frames");
        return;
    }
    read->ok = segment_keys_repair(disk, fd, segment, read->takes_unread, read->is_damaged, &why);
    if (!read->ok)
        read->st = why;
}

static void read_run(struct work *work)
{
    struct keys_read *read = container_of(work, struct keys_read, work);
    const struct file_ops *disk = read->segment->stream->store->disk;
    char path[PATH_MAX + 8];
    int fd;

    snprintf(path, sizeof path, "%s.seg", read->segment->base);
    fd = disk_open(disk, path, O_RDONLY, &read->st);
    read->ok = fd >= 0 && read_from_footer(read, disk, fd);
    read->was_damaged = !read->ok && is_damage(read, disk, path);
    if (read->was_damaged)
        read_from_records(read, disk, fd);
    if (fd >= 0)
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
              "%s.seg: %s; its keys come from its records, %llu of them are damaged, or cannot be read",
              segment->base, read->st.text, (unsigned long long)segment->quarantined_frames);
}

/* Last in the list; and no other at once, for the disk may be ill. */
static void put_off(struct store *store, struct keys_read *read)
{
    struct segment_blank *blank = read->segment->blank;
    const struct log_context context = { .stream = read->segment->super.stream };
    uint64_t now_ns = clock_mono_ns(), ms = KEYS_AGAIN_MS;

    for (uint32_t i = 0; i < blank->failures && ms < KEYS_AGAIN_MS_MAX; i++)
        ms *= 2;
    if (read->st.code != STATUS_EXHAUSTED) /* that tells nothing of the disk */
        blank->failures++;
    log_warn(&context, "keys_not_read", "%s.seg: %s; trying again in %llu ms", read->segment->base,
             read->st.text, (unsigned long long)ms);
    blank->failed_until_ns = now_ns + ms * 1000000;
    store->keys_later.paused_until_ns = now_ns + KEYS_AGAIN_MS * 1000000ull;
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

static const struct segment *other_than(const struct store *store, const struct segment *segment)
{
    const struct segment *other = store->newest;

    while (other != NULL && (other == segment || other->state != SEGMENT_SEALED))
        other = other->older;
    return other;
}

static bool start_read(struct store *store, struct segment_blank *blank)
{
    struct keys_read *read = calloc(1, sizeof *read);
    const struct segment *other = NULL;

    if (read == NULL)
        return false;
    read->segment = blank->segment;
    read->takes_unread = blank->failures >= KEYS_TRIES;
    if (read->takes_unread)
        other = other_than(store, blank->segment);
    if (other != NULL)
        snprintf(read->other, sizeof read->other, "%s.seg", other->base);
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
    uint64_t now_ns = clock_mono_ns();

    if (now_ns < store->keys_later.paused_until_ns)
        return NULL;
    while (blank != NULL &&
           (blank->is_running || blank->segment->is_leaving || blank->failed_until_ns > now_ns))
        blank = blank->next;
    return blank;
}

bool keys_are_coming(const struct store *store)
{
    const struct segment_blank *blank = store->keys_later.first;

    while (blank != NULL && blank->failures > 0)
        blank = blank->next;
    return blank != NULL;
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
