#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "encoder/stream_internal.h"

struct item *item_create(struct stream *stream, enum item_kind kind)
{
    struct item *item = calloc(1, sizeof *item);

    if (item == NULL)
        return NULL;
    item->kind = kind;
    item->refs = 1;
    item->stream = stream;
    return item;
}

void item_unref(struct item *item)
{
    if (item == NULL || --item->refs > 0)
        return;
    capture_pool_unref(item->pool);
    free(item->work.embeddings);
    free(item->work.thumbnail);
    free(item->text);
    free(item);
}

void item_release_slot(struct item *item)
{
    if (item->capture != NULL)
        capture_release(item->capture, item->slot);
    item->capture = NULL;
}

void items_append(struct stream *stream, struct item *item)
{
    REQUIRE(!stream->has_end);
    *stream->last_link = item;
    stream->last_link = &item->next;
    stream->last = item;
    stream->item_count++;
    stream->frame_count += item->kind == ITEM_FRAME;
    stream->has_end = item->kind == ITEM_END;
    if (stream->unsent == NULL)
        stream->unsent = item;
}

void items_prepend(struct stream *stream, struct item *item)
{
    REQUIRE(item->kind == ITEM_GAP && stream->unsent == stream->first);
    item->next = stream->first;
    if (stream->first == NULL) {
        stream->last_link = &item->next;
        stream->last = item;
    }
    stream->first = item;
    stream->unsent = item;
    stream->item_count++;
}

/* Whether a gap that begins behind this item is one with it: both for the same reason, or there are many. */
static bool may_grow(const struct stream *stream, const struct item *item, const char *reason)
{
    return item->kind == ITEM_GAP &&
           (strcmp(item->text, reason) == 0 || stream->item_count > ENCODER_ITEMS_MANY);
}

bool items_append_gap(struct stream *stream, const struct capture_message *gap)
{
    struct item *item;

    if (stream->unsent != NULL && stream->last->to_seq == gap->seq &&
        may_grow(stream, stream->last, gap->text)) {
        stream->last->to_seq = gap->to_seq;
        stream->last->to_pts_ns = gap->to_pts_ns;
        return true;
    }
    item = item_create(stream, ITEM_GAP);
    if (item == NULL || (item->text = strdup(gap->text)) == NULL) {
        item_unref(item);
        return false;
    }
    item->seq = gap->seq;
    item->to_seq = gap->to_seq;
    item->pts_ns = gap->pts_ns;
    item->to_pts_ns = gap->to_pts_ns;
    items_append(stream, item);
    return true;
}

static void absorb_next(struct stream *stream, struct item *gap)
{
    struct item *next = gap->next;

    gap->to_seq = next->to_seq;
    gap->to_pts_ns = next->to_pts_ns;
    gap->next = next->next;
    if (stream->last == next) {
        stream->last = gap;
        stream->last_link = &gap->next;
    }
    stream->item_count--;
    next->stream = NULL;
    next->next = NULL;
    item_unref(next);
}

bool item_become_gap(struct item *item, const char *reason)
{
    struct stream *stream = item->stream;

    REQUIRE(item->kind == ITEM_FRAME && item->text == NULL);
    item->text = strdup(reason);
    if (item->text == NULL)
        return false;
    item->kind = ITEM_GAP;
    item->to_pts_ns = item->pts_ns;
    stream->frame_count--;
    item_release_slot(item);
    capture_pool_unref(item->pool);
    item->pool = NULL;
    for (struct item *at = stream->unsent; at != NULL && at->next != NULL;) {
        if (at->next->kind == ITEM_GAP && may_grow(stream, at, at->next->text))
            absorb_next(stream, at);
        else
            at = at->next;
    }
    return true;
}

static void free_first(struct stream *stream)
{
    struct item *item = stream->first;

    stream->first = item->next;
    if (stream->unsent == item)
        stream->unsent = item->next;
    if (stream->first == NULL) {
        stream->last_link = &stream->first;
        stream->last = NULL;
    }
    stream->item_count--;
    stream->frame_count -= item->kind == ITEM_FRAME;
    if (item->kind == ITEM_END)
        stream->has_end = false;
    /* The batch may still read the picture while the child draws the next one there: nobody wants the result. */
    item_release_slot(item);
    item->stream = NULL;
    item->next = NULL;
    item_unref(item);
}

void items_free_below(struct stream *stream, uint64_t seq)
{
    while (stream->first != NULL && stream->first->kind != ITEM_END && stream->first->to_seq <= seq)
        free_first(stream);
    items_release_slots(stream);
}

void items_free_all(struct stream *stream)
{
    while (stream->first != NULL)
        free_first(stream);
}

void items_release_slots(struct stream *stream)
{
    uint32_t frames = 0;

    for (struct item *item = stream->first; item != NULL; item = item->next) {
        frames += item->kind == ITEM_FRAME;
        if (item->encoded && frames <= stream->encoder->keep_frames)
            item_release_slot(item);
    }
}

uint64_t items_next_seq(const struct stream *stream)
{
    return stream->first != NULL ? stream->first->seq : stream->capture_seq;
}

struct item *items_at(const struct stream *stream, uint64_t seq)
{
    struct item *item = stream->first;

    while (item != NULL && item->kind != ITEM_END && item->to_seq <= seq)
        item = item->next;
    return item;
}
