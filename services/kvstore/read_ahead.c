#include "kvstore/read_ahead.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/require.h"
#include "kvstore/keys_later.h"

struct ahead_item {
    struct read_ahead *owner; /* NULL: dropped while it was read */
    struct ahead_item *next;  /* of the owner */
    struct ahead_item *line_next;
    struct store *store;
    enum read_ahead_kind kind;
    struct index_frame *frame;
    struct index_chunk *chunk; /* until it is read: then the read has it */
    uint32_t layer;
    uint64_t bytes;
    bool is_in_line, is_running;
    struct slice_read read;
};

static uint64_t room_of(const struct store *store, enum read_ahead_kind kind)
{
    uint64_t region = ram_region_bytes(store->arena, RAM_SLICES);

    return kind == READ_AHEAD_GUESSES ? region / 8 : region / 4;
}

static void item_free(struct ahead_item *item)
{
    item->store->ahead.held_bytes[item->kind] -= item->bytes;
    if (item->chunk != NULL)
        index_chunk_unref(item->chunk);
    else
        slice_read_release(&item->read);
    free(item);
}

/* --- the line --- */

static void line_add(struct ahead_item *item)
{
    struct read_ahead_line *line = &item->store->ahead;

    item->is_in_line = true;
    if (line->last[item->kind] != NULL)
        line->last[item->kind]->line_next = item;
    else
        line->first[item->kind] = item;
    line->last[item->kind] = item;
}

/* After a start its checksums may still be on the disk (keys_later.h): then the line is asked again when they are there. */
static bool waits_for_keys(const struct ahead_item *item)
{
    struct segment *segment = item->chunk->segment;

    return item->chunk->is_blank && segment != NULL && !segment->is_leaving && keys_want(segment);
}

static struct ahead_item *line_take(struct read_ahead_line *line)
{
    enum read_ahead_kind kind =
        line->first[READ_AHEAD_GUESSES] != NULL ? READ_AHEAD_GUESSES : READ_AHEAD_TICKETS;
    struct ahead_item *item = line->first[kind];

    if (item == NULL || waits_for_keys(item))
        return NULL;
    line->first[kind] = item->line_next;
    if (line->first[kind] == NULL)
        line->last[kind] = NULL;
    item->line_next = NULL;
    item->is_in_line = false;
    return item;
}

/* All of an owner's at once: the line is gone through once. */
static void line_leave(const struct read_ahead *ahead)
{
    struct read_ahead_line *line = &ahead->store->ahead;
    struct ahead_item **link = &line->first[ahead->kind], *last = NULL;

    while (*link != NULL) {
        struct ahead_item *item = *link;

        if (item->owner == ahead) {
            *link = item->line_next;
            item->line_next = NULL;
            item->is_in_line = false;
        } else {
            last = item;
            link = &item->line_next;
        }
    }
    line->last[ahead->kind] = last;
}

/* --- reading --- */

static void forget(struct ahead_item *item)
{
    struct ahead_item **link = &item->owner->items;

    while (*link != item)
        link = &(*link)->next;
    *link = item->next;
    item_free(item);
}

/* The read has its answer. */
static void settle(struct ahead_item *item)
{
    struct read_ahead *owner = item->owner;

    if (owner == NULL) {
        item_free(item);
        return;
    }
    owner->waiting--;
    if (frame_result_has_bytes(item->read.result)) {
        owner->read++;
        if (item->kind == READ_AHEAD_GUESSES)
            item->store->ahead.slices++;
    } else {
        owner->failed++;
        forget(item);
    }
    if (owner->waiting == 0 && owner->settled != NULL)
        owner->settled(owner);
}

static void leave_running(struct ahead_item *item)
{
    struct read_ahead_line *line = &item->store->ahead;
    struct ahead_item **link = &line->running;

    while (*link != item)
        link = &(*link)->line_next;
    *link = item->line_next;
    item->line_next = NULL;
    item->is_running = false;
    line->running_count--;
}

static void read_came(struct slice_read *read)
{
    struct ahead_item *item = container_of(read, struct ahead_item, read);
    struct store *store = item->store;

    leave_running(item);
    settle(item);
    if (store->read_waiters != NULL) /* perhaps for this one */
        store_reads_retry(store);
}

static void start(struct ahead_item *item)
{
    struct read_ahead_line *line = &item->store->ahead;
    struct index_chunk *chunk = item->chunk;

    item->is_running = true;
    item->line_next = line->running;
    line->running = item;
    line->running_count++;
    item->read = (struct slice_read){ .store = item->store,
                                      .frame = item->frame,
                                      .layer = item->layer,
                                      .is_shared = true,
                                      .is_ahead = true,
                                      .done = read_came };
    if (slice_read_start(&item->read)) {
        leave_running(item);
        item->chunk = NULL;
        settle(item);
    } else {
        item->chunk = NULL;
    }
    index_chunk_unref(chunk);
}

void read_ahead_pump(struct store *store)
{
    struct read_ahead_line *line = &store->ahead;
    struct ahead_item *item;

    while (line->running_count < READ_AHEAD_THREADS && line->asked == 0 && store->read_waiters == NULL &&
           !store->is_closing && (item = line_take(line)) != NULL)
        start(item);
}

void read_ahead_asked(struct store *store, int change)
{
    store->ahead.asked = (uint32_t)((int64_t)store->ahead.asked + change);
}

bool read_ahead_is_reading(const struct store *store, const struct index_frame *frame, uint32_t layer)
{
    for (const struct ahead_item *item = store->ahead.running; item != NULL; item = item->line_next)
        if (item->frame == frame && item->layer == layer)
            return true;
    return false;
}

/* --- what callers want --- */

enum read_ahead_answer read_ahead_add(struct read_ahead *ahead, struct index_frame *frame, uint32_t layer)
{
    struct store *store = ahead->store;
    struct ahead_item *item;
    uint64_t bytes;

    if (frame->image != NULL || (frame->slices != NULL && frame->slices[layer] != NULL))
        return READ_AHEAD_IS_THERE;
    bytes = round_up(2 * kv_slice_bytes(&frame->chunk->geometry, frame->tokens), KV_PAGE_BYTES);
    if (store->ahead.held_bytes[ahead->kind] + bytes > room_of(store, ahead->kind))
        return READ_AHEAD_REFUSED;
    item = calloc(1, sizeof *item);
    if (item == NULL)
        return READ_AHEAD_REFUSED;
    *item = (struct ahead_item){ .owner = ahead,
                                 .next = ahead->items,
                                 .store = store,
                                 .kind = ahead->kind,
                                 .frame = frame,
                                 .chunk = frame->chunk,
                                 .layer = layer,
                                 .bytes = bytes };
    index_chunk_ref(item->chunk);
    store->ahead.held_bytes[ahead->kind] += bytes;
    ahead->items = item;
    ahead->waiting++;
    line_add(item);
    return READ_AHEAD_WILL_READ;
}

static int compare_frames(const void *a, const void *b)
{
    const struct index_frame *left = *(const struct index_frame *const *)a;
    const struct index_frame *right = *(const struct index_frame *const *)b;

    return left < right ? -1 : left > right;
}

uint32_t read_ahead_count(const struct read_ahead *ahead, const struct index_frame **frames, uint32_t count,
                          uint32_t layer)
{
    uint32_t found = 0;

    qsort(frames, count, sizeof(struct index_frame *), compare_frames);
    for (const struct ahead_item *item = ahead->items; item != NULL; item = item->next)
        found += item->layer == layer && !item->is_in_line &&
                 bsearch(&item->frame, frames, count, sizeof(struct index_frame *), compare_frames) != NULL;
    return found;
}

bool read_ahead_has_forgotten(const struct read_ahead *ahead)
{
    for (const struct ahead_item *item = ahead->items; item != NULL; item = item->next)
        if (item->frame->is_forgotten)
            return true;
    return false;
}

void read_ahead_stop(struct read_ahead *ahead)
{
    struct ahead_item **link = &ahead->items;

    if (ahead->waiting == 0)
        return;
    line_leave(ahead);
    while (*link != NULL) {
        struct ahead_item *item = *link;

        if (item->chunk == NULL) { /* read, or being read */
            link = &item->next;
            continue;
        }
        *link = item->next;
        ahead->waiting--;
        item_free(item);
    }
}

void read_ahead_drop(struct read_ahead *ahead)
{
    read_ahead_stop(ahead);
    while (ahead->items != NULL) {
        struct ahead_item *item = ahead->items;

        ahead->items = item->next;
        item->owner = NULL;
        if (!item->is_running)
            item_free(item);
    }
    ahead->waiting = ahead->read = ahead->failed = 0;
}
