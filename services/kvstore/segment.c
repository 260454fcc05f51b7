/* A segment in memory, and the records that wait in it. Its file is written in segment_write.c. */
#include "kvstore/segment_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kvstore/keys_later.h"
#include "kvstore/segment_fetch.h"
#include "kvstore/segment_file.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"

uint64_t segment_bytes_min(const struct kv_geometry *geometry, uint64_t record_bytes, uint64_t init_bytes)
{
    return KV_PAGE_BYTES + init_bytes + record_bytes +
           segment_footer_bytes(geometry, 4, 1, 2 * KV_NOTE_BYTES_MAX) + 2 * (2 * KV_PAGE_BYTES) +
           KV_PAGE_BYTES; /* its mark */
}

struct segment *segment_create(struct stream *stream, const struct kv_super *super, uint64_t capacity)
{
    struct segment *segment = calloc(1, sizeof *segment);
    uint8_t page[KV_PAGE_BYTES];

    if (segment == NULL)
        return NULL;
    segment->writer = calloc(1, sizeof *segment->writer);
    if (segment->writer == NULL) {
        free(segment);
        return NULL;
    }
    segment->stream = stream;
    segment->super = *super;
    kv_super_put(&segment->super, page); /* for its CRC, the first record's chain */
    segment->capacity = capacity;
    segment->end_seq = segment->durable_end_seq = super->first_seq;
    segment_find_times(segment);
    if (asprintf(&segment->base, "%s/%020llu/%020llu-%016llx", stream->folder,
                 (unsigned long long)super->epoch, (unsigned long long)super->first_seq,
                 (unsigned long long)super->salt) < 0) {
        free(segment->writer);
        free(segment);
        return NULL;
    }
    segment->writer->segment = segment;
    segment->writer->fd = -1;
    segment->writer->end = KV_PAGE_BYTES;
    segment->writer->chain = segment->super.crc;
    return segment;
}

void segment_record_free(struct ram_arena *arena, struct segment_record *record)
{
    if (record->slot != NULL) {
        ram_unpin(arena, record->slot);
        ram_unref(arena, record->slot);
    }
    disk_buffer_free(record->buffer, record->buffer_bytes);
    free(record);
}

static struct ram_arena *arena_of(const struct segment *segment)
{
    return segment->stream->store->arena;
}

void segment_queue_free(struct segment *segment, struct segment_queue *queue)
{
    struct segment_record *record;

    while ((record = segment_queue_take(queue)) != NULL)
        segment_record_free(arena_of(segment), record);
}

void segment_writer_free(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;

    if (writer == NULL)
        return;
    REQUIRE(writer->job == JOB_NONE);
    segment_queue_free(segment, &writer->written);
    segment_queue_free(segment, &writer->writing);
    segment_queue_free(segment, &writer->unwritten);
    if (writer->fd >= 0)
        segment->stream->store->disk->close(writer->fd);
    free(writer->entries);
    segment_notes_free(writer->notes, writer->notes_bytes);
    free(writer);
    segment->writer = NULL;
}

bool segment_drop_writer(struct segment *segment, const char *base)
{
    segment_writer_free(segment);
    free(segment->base);
    segment->base = strdup(base);
    return segment->base != NULL;
}

void segment_destroy(struct segment *segment)
{
    if (segment == NULL)
        return;
    REQUIRE(!segment_is_busy(segment));
    segment_fetch_close(segment);
    segment_writer_free(segment);
    index_part_drop(&segment->index, arena_of(segment));
    segment_drop_marks(segment, 0);
    keys_forget(segment);
    free(segment->marks);
    free(segment->base);
    free(segment);
}

bool segment_is_busy(const struct segment *segment)
{
    return segment->reads > 0 || (segment->writer != NULL && segment->writer->job != JOB_NONE);
}

bool segment_is_open(const struct segment *segment)
{
    return segment->writer != NULL && !segment->writer->close_wanted &&
           (segment->state == SEGMENT_CREATING || segment->state == SEGMENT_OPEN);
}

bool segment_is_creating(const struct segment *segment)
{
    return segment->state == SEGMENT_CREATING;
}

bool segment_is_durable(const struct segment *segment)
{
    const struct segment_writer *writer = segment->writer;

    return writer == NULL || writer->unwritten.count + writer->writing.count + writer->written.count == 0;
}

uint64_t segment_waits_since_ns(const struct segment *segment)
{
    const struct segment_writer *writer = segment->writer;
    const struct segment_record *oldest;

    if (segment_is_durable(segment))
        return 0;
    oldest = writer->written.first != NULL   ? writer->written.first
             : writer->writing.first != NULL ? writer->writing.first
                                             : writer->unwritten.first;
    return oldest->queued_ns;
}

uint32_t segment_waiting_notes(const struct segment *segment)
{
    const struct segment_writer *writer = segment->writer;

    return writer == NULL ? 0 : writer->unwritten.notes + writer->writing.notes + writer->written.notes;
}

static struct segment_record **append_queue(struct segment_record **link, struct segment_queue *queue)
{
    struct segment_record *record;

    while ((record = segment_queue_take(queue)) != NULL) {
        *link = record;
        link = &record->next;
    }
    return link;
}

struct segment_record *segment_take_undurable(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    struct segment_record *first = NULL, **link = &first;

    link = append_queue(link, &writer->written);
    link = append_queue(link, &writer->writing);
    link = append_queue(link, &writer->unwritten);
    *link = NULL;
    return first;
}

void segment_put_back(struct segment *segment, struct segment_record *record)
{
    struct segment_record *next;

    for (; record != NULL; record = next) {
        next = record->next;
        segment_queue_add(&segment->writer->unwritten, record);
    }
}

void segment_give_back(struct segment *segment, const struct kv_super *super)
{
    for (struct segment_record *queued = segment->writer->unwritten.first; queued != NULL;
         queued = queued->next) {
        uint8_t *image = queued->slot != NULL ? ram_bytes(arena_of(segment), queued->slot) : queued->buffer;
        struct kv_record record;
        uint32_t crc;
        struct status st;

        if (queued->entry.type == KV_RECORD_INIT) /* a copy of its own */
            continue;
        REQUIRE(kv_record_get(&record, &crc, &segment->super, image, &st));
        kv_record_put(&record, super, image);
        queued->buffer = NULL;
    }
}
