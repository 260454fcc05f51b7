#include "kvstore/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/require.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"

enum { MAKE_AGAIN_MS = 100 };

enum job { JOB_NONE, JOB_CREATE, JOB_WRITE, JOB_SYNC, JOB_SEAL };

struct segment_writer {
    struct work work;
    struct segment *segment;
    enum job job; /* running */
    int fd;
    bool has_disk; /* its capacity is counted in the budget */
    bool sync_wanted, close_wanted, is_abandoned;
    uint64_t make_at_ns; /* not before */
    uint64_t end;        /* of the last record added, in the file */
    uint64_t unsynced_bytes;
    uint32_t chain;
    struct kv_entry *entries;
    uint32_t entry_count, entry_room;
    char *notes;
    uint64_t notes_bytes;
    struct segment_queue unwritten, writing, written;
    struct iovec pieces[SEGMENT_WRITE_RECORDS];
    struct segment_footer_parts parts;
    /* what the job found */
    bool ok;
    uint64_t taken;
    struct status st;
};

uint64_t segment_bytes_min(const struct kv_geometry *geometry, uint64_t record_bytes, uint64_t init_bytes)
{
    return KV_PAGE_BYTES + init_bytes + record_bytes +
           segment_footer_bytes(geometry, 4, 1, 2 * KV_NOTE_BYTES_MAX) + 2 * (2 * KV_PAGE_BYTES);
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
    snprintf(segment->base, sizeof segment->base, "%s/%020llu/%020llu-%016llx", stream->folder,
             (unsigned long long)super->epoch, (unsigned long long)super->first_seq,
             (unsigned long long)super->salt);
    segment->writer->segment = segment;
    segment->writer->fd = -1;
    segment->writer->end = KV_PAGE_BYTES;
    segment->writer->chain = segment->super.crc;
    return segment;
}

static void queue_add(struct segment_queue *queue, struct segment_record *record)
{
    record->next = NULL;
    if (queue->last != NULL)
        queue->last->next = record;
    else
        queue->first = record;
    queue->last = record;
    queue->count++;
}

static struct segment_record *queue_take(struct segment_queue *queue)
{
    struct segment_record *record = queue->first;

    if (record == NULL)
        return NULL;
    queue->first = record->next;
    if (queue->first == NULL)
        queue->last = NULL;
    queue->count--;
    return record;
}

void segment_record_free(struct ram_arena *arena, struct segment_record *record)
{
    if (record->slot != NULL) {
        ram_unpin(arena, record->slot);
        ram_unref(arena, record->slot);
    }
    free(record->buffer);
    free(record);
}

static struct ram_arena *arena_of(const struct segment *segment)
{
    return segment->stream->store->arena;
}

static void queue_free(struct segment *segment, struct segment_queue *queue)
{
    struct segment_record *record;

    while ((record = queue_take(queue)) != NULL)
        segment_record_free(arena_of(segment), record);
}

static void writer_free(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;

    if (writer == NULL)
        return;
    REQUIRE(writer->job == JOB_NONE);
    queue_free(segment, &writer->written);
    queue_free(segment, &writer->writing);
    queue_free(segment, &writer->unwritten);
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer->entries);
    free(writer->notes);
    free(writer);
    segment->writer = NULL;
}

void segment_drop_writer(struct segment *segment, const char *base)
{
    writer_free(segment);
    snprintf(segment->base, sizeof segment->base, "%s", base);
}

void segment_destroy(struct segment *segment)
{
    if (segment == NULL)
        return;
    REQUIRE(!segment_is_busy(segment));
    writer_free(segment);
    index_part_drop(&segment->index, arena_of(segment));
    for (uint32_t i = 0; i < segment->mark_count; i++)
        free(segment->marks[i].note);
    free(segment->marks);
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

/* --- appending --- */

bool segment_has_room(const struct segment *segment, const struct kv_layout *layout, uint32_t note_bytes,
                      bool is_frame)
{
    const struct segment_writer *writer = segment->writer;
    uint64_t footer = segment_footer_bytes(&segment->super.geometry, writer->entry_count + 1,
                                           (uint32_t)segment->index.frame_count + (is_frame ? 1 : 0),
                                           writer->notes_bytes + note_bytes);

    return writer->entry_count < KV_SEGMENT_RECORDS_MAX && segment->mark_count < SEGMENT_MARKS_MAX &&
           writer->end + layout->record_bytes + footer <= segment->capacity;
}

bool segment_add_mark(struct segment *segment, const struct kv_entry *entry, const char *note)
{
    uint32_t room = segment->mark_room == 0 ? 8 : segment->mark_room * 2;
    struct segment_mark *marks;

    if (segment->mark_count == segment->mark_room) {
        marks = realloc(segment->marks, room * sizeof *marks);
        if (marks == NULL)
            return false;
        segment->marks = marks;
        segment->mark_room = room;
    }
    segment->marks[segment->mark_count++] =
        (struct segment_mark){ .type = entry->type,
                               .event = entry->event,
                               .is_damaged = entry->flags & KV_ENTRY_DAMAGED,
                               .seq = entry->seq,
                               .end_seq = entry->end_seq,
                               .pts_ns = entry->pts_ns,
                               .end_pts_ns = entry->end_pts_ns,
                               .note = entry->note_bytes == 0 ? NULL : strndup(note, entry->note_bytes) };
    return true;
}

/* Room for one more of everything the append needs, so that nothing can fail halfway. */
static bool make_room(struct segment_writer *writer, uint32_t note_bytes)
{
    uint32_t room = writer->entry_room == 0 ? 64 : writer->entry_room * 2;
    struct kv_entry *entries;
    char *notes;

    if (writer->entry_count == writer->entry_room) {
        entries = realloc(writer->entries, room * sizeof *entries);
        if (entries == NULL)
            return false;
        writer->entries = entries;
        writer->entry_room = room;
    }
    if (note_bytes == 0)
        return true;
    notes = realloc(writer->notes, writer->notes_bytes + note_bytes);
    if (notes != NULL)
        writer->notes = notes;
    return notes != NULL;
}

static struct index_frame *index_record(struct segment *segment, const struct kv_record *record,
                                        const struct kv_layout *layout, const uint8_t *image)
{
    const struct index_frame frame = { .seq = record->seq,
                                       .pts_ns = record->pts_ns,
                                       .token_index = record->token_index,
                                       .offset = segment->writer->end,
                                       .record_bytes = (uint32_t)layout->record_bytes,
                                       .tokens = record->tokens,
                                       .thumbnail_at = (uint32_t)layout->thumbnail,
                                       .thumbnail_bytes = record->thumbnail_bytes,
                                       .slices_at = (uint32_t)layout->slices };
    uint32_t key_bytes = kv_key_bytes(&segment->super.geometry);
    struct index_frame *added =
        index_part_add(&segment->index, segment, &segment->stream->store->index_memory,
                       &segment->super.geometry, &frame);
    uint32_t *sums;

    if (added == NULL)
        return NULL;
    sums = index_frame_sums(added);
    for (uint32_t i = 0; i < 2 * record->layers; i++)
        sums[i] = kv_slice_crc_written(&segment->super, record->seq, i, record->slices[i].crc,
                                       record->slices[i].bytes);
    for (uint32_t layer = 0; layer < record->layers; layer++)
        memcpy(index_frame_key(added, layer), image + layout->keys + layer * (uint64_t)key_bytes, key_bytes);
    return added;
}

static bool is_block(const struct kv_record *record)
{
    return record->type == KV_RECORD_FRAME || record->type == KV_RECORD_INIT;
}

static void take_record(struct segment *segment, struct segment_record *queued,
                        const struct kv_record *record, uint8_t *image, const struct kv_layout *layout)
{
    struct segment_writer *writer = segment->writer;
    uint32_t header_crc = kv_record_put(record, &segment->super, image);

    kv_entry_of_record(&queued->entry, record, writer->end, header_crc);
    writer->entries[writer->entry_count++] = queued->entry;
    if (record->note_bytes > 0)
        memcpy(writer->notes + writer->notes_bytes, image + layout->note, record->note_bytes);
    writer->notes_bytes += record->note_bytes;
    writer->chain = header_crc;
    writer->end += layout->record_bytes;
    segment->end_seq = record->end_seq;
    if (record->type == KV_RECORD_INIT) {
        segment->init_offset = queued->entry.offset;
        segment->init_bytes = (uint32_t)queued->entry.record_bytes;
    }
    if (is_block(record)) {
        segment->end_token_index = record->token_index + record->tokens;
        segment->end_pts_ns = record->pts_ns;
    }
    queue_add(&writer->unwritten, queued);
}

bool segment_append(struct segment *segment, const struct segment_append *append,
                    struct index_frame **frame_p, struct status *st)
{
    struct kv_record *record = append->record;
    struct segment_record *queued = calloc(1, sizeof *queued);
    struct index_frame *frame = NULL;
    struct kv_layout layout;
    struct kv_entry mark;
    uint8_t *image =
        append->slot != NULL ? ram_bytes(arena_of(segment), append->slot) : (uint8_t *)append->buffer;

    REQUIRE(segment_is_open(segment));
    record->epoch = segment->super.epoch;
    record->chain = segment->writer->chain;
    kv_record_layout(record, &layout);
    if (queued == NULL || !make_room(segment->writer, record->note_bytes))
        goto no_memory;
    if (record->type == KV_RECORD_FRAME) {
        frame = index_record(segment, record, &layout, image);
        if (frame == NULL)
            goto no_memory;
    } else if (record->type != KV_RECORD_INIT) {
        kv_entry_of_record(&mark, record, 0, 0);
        if (!segment_add_mark(segment, &mark, (const char *)image + layout.note))
            goto no_memory;
    }
    queued->slot = append->slot;
    queued->buffer = append->slot == NULL ? append->buffer : NULL;
    if (queued->slot != NULL) {
        ram_ref(arena_of(segment), queued->slot);
        ram_pin(arena_of(segment), queued->slot);
    }
    take_record(segment, queued, record, image, &layout);
    if (frame_p != NULL)
        *frame_p = frame;
    return true;
no_memory:
    free(queued);
    return status_fail(st, STATUS_EXHAUSTED, "no memory for one more record of stream %s",
                       segment->super.stream);
}

/* --- jobs, on a writing thread --- */

static bool write_queued(struct segment_writer *writer)
{
    const struct segment *segment = writer->segment;
    const struct segment_record *record = writer->writing.first;
    uint64_t offset = record->entry.offset;
    int count = 0;

    for (; record != NULL; record = record->next)
        writer->pieces[count++] =
            (struct iovec){ .iov_base = record->slot != NULL ? ram_bytes(arena_of(segment), record->slot)
                                                             : record->buffer,
                            .iov_len = record->entry.record_bytes };
    return disk_write(segment->stream->store->disk, writer->fd, writer->pieces, count, offset, &writer->st);
}

static bool sync_file(struct segment_writer *writer)
{
    if (writer->segment->stream->store->disk->fdatasync(writer->fd) == 0)
        return true;
    return status_fail(&writer->st, status_code_of_errno(errno), "sync: %m");
}

static bool seal_file(struct segment_writer *writer)
{
    const struct segment *segment = writer->segment;

    return segment_job_seal(segment->stream->store->disk, writer->fd, segment->base, &writer->parts,
                            writer->end, &writer->st) &&
           disk_taken(writer->fd, &writer->taken, &writer->st);
}

static bool create_file(struct segment_writer *writer)
{
    const struct segment *segment = writer->segment;

    writer->fd = segment_job_create(segment->stream->store->disk, segment->base, &segment->super,
                                    segment->capacity, &writer->taken, &writer->st);
    return writer->fd >= 0;
}

static void job_run(struct work *work)
{
    struct segment_writer *writer = container_of(work, struct segment_writer, work);

    switch (writer->job) {
    case JOB_CREATE:
        writer->ok = create_file(writer);
        break;
    case JOB_WRITE:
        writer->ok = write_queued(writer);
        break;
    case JOB_SYNC:
        writer->ok = sync_file(writer);
        break;
    case JOB_SEAL:
        writer->ok = seal_file(writer);
        break;
    case JOB_NONE:
        REQUIRE(!"a job that runs has a kind");
    }
}

/* --- what follows, on the loop --- */

static void fence(struct segment *segment, const char *deed)
{
    const struct log_context context = { .stream = segment->super.stream };

    log_error(&context, "segment_fenced", "%s%s: %s; it keeps what was durable, the rest is written again",
              deed, segment->base, segment->writer->st.text);
    segment->state = SEGMENT_FENCED;
    stream_segment_fenced(segment->stream, segment);
    writer_free(segment);
    store_segment_sealed(segment->stream->store, segment);
}

static void created(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    struct store *store = segment->stream->store;
    const struct log_context context = { .stream = segment->super.stream };

    if (writer->ok) {
        segment->state = SEGMENT_OPEN;
        segment->stream->is_trouble_told = false;
        store_adjust_disk(store, segment,
                          writer->taken > segment->capacity ? writer->taken : segment->capacity);
        return;
    }
    if (!segment->stream->is_trouble_told)
        log_warn(&context, "segment_not_made", "%s; trying again", writer->st.text);
    segment->stream->is_trouble_told = true;
    writer->make_at_ns = clock_mono_ns() + MAKE_AGAIN_MS * 1000000ull;
    store_adjust_disk(store, segment, 0);
    writer->has_disk = false;
    store_retry_later(store);
}

static void synced(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;

    if (writer->written.last != NULL)
        segment->durable_end_seq = writer->written.last->entry.end_seq;
    queue_free(segment, &writer->written);
    writer->unsynced_bytes = 0;
    writer->sync_wanted = writer->unwritten.count > 0;
    store_ram_freed(segment->stream->store);
}

static void written(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    struct segment_record *record;

    while ((record = queue_take(&writer->writing)) != NULL) {
        writer->unsynced_bytes += record->entry.record_bytes;
        queue_add(&writer->written, record);
    }
    if (writer->unsynced_bytes >= SEGMENT_SYNC_BYTES)
        writer->sync_wanted = true;
}

static void sealed(struct segment *segment)
{
    struct store *store = segment->stream->store;

    segment->state = SEGMENT_SEALED;
    store_adjust_disk(store, segment, segment->writer->taken);
    writer_free(segment);
    store_segment_sealed(store, segment);
}

static void abandoned(struct segment *segment)
{
    segment->state = SEGMENT_FENCED;
    writer_free(segment);
}

static void job_done(struct work *work)
{
    struct segment_writer *writer = container_of(work, struct segment_writer, work);
    struct segment *segment = writer->segment;
    struct stream *stream = segment->stream;
    enum job job = writer->job;

    writer->job = JOB_NONE;
    if (writer->is_abandoned)
        abandoned(segment);
    else if (job == JOB_CREATE)
        created(segment);
    else if (!writer->ok)
        fence(segment, job == JOB_WRITE ? "write " : job == JOB_SYNC ? "sync " : "seal ");
    else if (job == JOB_WRITE)
        written(segment);
    else if (job == JOB_SYNC)
        synced(segment);
    else
        sealed(segment);
    segment_pump(segment);
    stream_progress(stream);
}

static void start_job(struct segment *segment, enum job job)
{
    struct segment_writer *writer = segment->writer;

    writer->job = job;
    writer->ok = false;
    writer->work = (struct work){ .run = job_run, .done = job_done };
    if (work_pool_submit(segment->stream->store->writing, &writer->work))
        return;
    writer->job = JOB_NONE;
    if (job == JOB_WRITE) { /* back to the front, in order */
        while (writer->unwritten.count > 0)
            queue_add(&writer->writing, queue_take(&writer->unwritten));
        writer->unwritten = writer->writing;
        writer->writing = (struct segment_queue){ 0 };
    }
    store_retry_later(segment->stream->store);
}

static void start_seal(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;

    segment->state = SEGMENT_SEALING;
    writer->parts = (struct segment_footer_parts){ .super = &segment->super,
                                                   .entries = writer->entries,
                                                   .entry_count = writer->entry_count,
                                                   .notes = writer->notes,
                                                   .notes_bytes = writer->notes_bytes,
                                                   .index = &segment->index,
                                                   .chain = writer->chain };
    start_job(segment, JOB_SEAL);
}

void segment_pump(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    bool wants_sync;

    if (writer == NULL || writer->job != JOB_NONE || writer->is_abandoned || segment->state == SEGMENT_FENCED)
        return;
    if (segment->state == SEGMENT_CREATING) {
        if (writer->make_at_ns > clock_mono_ns())
            return;
        if (!writer->has_disk)
            writer->has_disk = store_reserve_disk(segment->stream->store, segment,
                                                  segment->capacity + STORE_FILE_SLACK_BYTES);
        if (writer->has_disk)
            start_job(segment, JOB_CREATE);
        return;
    }
    if (segment->state == SEGMENT_SEALING) { /* could not be started before */
        start_seal(segment);
        return;
    }
    wants_sync = writer->written.count > 0 && (writer->sync_wanted || writer->close_wanted);
    if (writer->unwritten.count > 0 && !(wants_sync && writer->unsynced_bytes >= SEGMENT_SYNC_BYTES)) {
        while (writer->unwritten.count > 0 && writer->writing.count < SEGMENT_WRITE_RECORDS)
            queue_add(&writer->writing, queue_take(&writer->unwritten));
        start_job(segment, JOB_WRITE);
    } else if (wants_sync) {
        start_job(segment, JOB_SYNC);
    } else if (writer->close_wanted) {
        start_seal(segment);
    }
}

void segment_commit(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;

    if (writer == NULL || segment_is_durable(segment))
        return;
    writer->sync_wanted = true;
    segment_pump(segment);
}

void segment_close(struct segment *segment)
{
    if (segment->writer == NULL)
        return;
    segment->writer->close_wanted = true;
    segment_pump(segment);
}

void segment_abandon(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;

    if (writer == NULL)
        return;
    writer->is_abandoned = true;
    if (writer->job == JOB_NONE)
        abandoned(segment);
}

static struct segment_record **append_queue(struct segment_record **link, struct segment_queue *queue)
{
    struct segment_record *record;

    while ((record = queue_take(queue)) != NULL) {
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
