#include "kvstore/segment_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/keys_later.h"
#include "kvstore/segment_fetch.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"

enum { MAKE_AGAIN_MS = 100 };

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

static struct segment_record *queue_take(struct segment_queue *queue)
{
    struct segment_record *record = queue->first;

    if (record == NULL)
        return NULL;
    queue->first = record->next;
    if (queue->first == NULL)
        queue->last = NULL;
    queue->count--;
    queue->notes -= segment_record_is_note(record);
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
        segment->stream->store->disk->close(writer->fd);
    free(writer->entries);
    free(writer->notes);
    free(writer);
    segment->writer = NULL;
}

bool segment_drop_writer(struct segment *segment, const char *base)
{
    writer_free(segment);
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
    writer_free(segment);
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

/* Records, then the mark that says so. */
static bool sync_file(struct segment_writer *writer)
{
    const struct segment *segment = writer->segment;
    const struct file_ops *disk = segment->stream->store->disk;
    const struct kv_entry *last = &writer->written.last->entry;

    if (disk->fdatasync(writer->fd) != 0)
        return status_fail(&writer->st, status_code_of_errno(errno), "sync: %m");
    return segment_job_mark(disk, writer->fd, segment->super.salt, last->offset + last->record_bytes,
                            segment->capacity - KV_PAGE_BYTES, &writer->st);
}

static bool seal_file(struct segment_writer *writer)
{
    const struct segment *segment = writer->segment;

    return segment_job_seal(segment->stream->store->disk, writer->fd, segment->base, &writer->parts,
                            writer->end, &writer->st) &&
           disk_taken(segment->stream->store->disk, writer->fd, &writer->taken, &writer->st);
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

/* Without memory now, again later: the next pump is one. */
static void write_again(struct segment *segment)
{
    struct store *store = segment->stream->store;

    if (!stream_segment_failed(segment->stream, segment)) {
        store_retry_later(store);
        return;
    }
    writer_free(segment);
    store_segment_sealed(store, segment);
}

static void fail(struct segment *segment, const char *deed)
{
    const struct log_context context = { .stream = segment->super.stream };

    log_error(&context, "segment_failed", "%s%s: %s; it keeps what was durable, the rest is written again",
              deed, segment->base, segment->writer->st.text);
    segment->state = SEGMENT_FAILED;
    write_again(segment);
}

static void created(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    struct store *store = segment->stream->store;
    const struct log_context context = { .stream = segment->super.stream };

    if (writer->ok) {
        segment->state = SEGMENT_OPEN;
        segment->stream->waits_because[0] = '\0';
        store_adjust_disk(store, segment,
                          writer->taken > segment->capacity ? writer->taken : segment->capacity);
        return;
    }
    if (strcmp(segment->stream->waits_because, writer->st.text) != 0)
        log_warn(&context, "segment_not_made", "%s; trying again", writer->st.text);
    text_copy(segment->stream->waits_because, STATUS_TEXT_BYTES, writer->st.text);
    writer->make_at_ns = clock_mono_ns() + MAKE_AGAIN_MS * 1000000ull;
    writer->has_disk = writer->taken > 0;
    if (!writer->has_disk)
        store_adjust_disk(store, segment, 0);
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
        segment_queue_add(&writer->written, record);
    }
    if (writer->unsynced_bytes >= SEGMENT_SYNC_BYTES)
        writer->sync_wanted = true;
}

/* If this is the stream's last file and is lost whole, stream.json alone tells which numbers it had. */
static void sealed(struct segment *segment)
{
    struct store *store = segment->stream->store;
    struct status st;

    segment->state = SEGMENT_SEALED;
    store_adjust_disk(store, segment, segment->writer->taken);
    writer_free(segment);
    store_segment_sealed(store, segment);
    if (segment->stream->deletion == NULL && !stream_save(segment->stream, NULL, NULL, &st))
        log_error(NULL, "stream_not_saved", "%s", st.text);
}

static void abandoned(struct segment *segment)
{
    segment->state = SEGMENT_FAILED;
    writer_free(segment);
}

static void job_done(struct work *work)
{
    struct segment_writer *writer = container_of(work, struct segment_writer, work);
    struct segment *segment = writer->segment;
    struct stream *stream = segment->stream;
    enum segment_job job = writer->job;

    writer->job = JOB_NONE;
    if (writer->is_abandoned)
        abandoned(segment);
    else if (job == JOB_CREATE)
        created(segment);
    else if (!writer->ok)
        fail(segment, job == JOB_WRITE ? "write " : job == JOB_SYNC ? "sync " : "seal ");
    else if (job == JOB_WRITE)
        written(segment);
    else if (job == JOB_SYNC)
        synced(segment);
    else
        sealed(segment);
    stream_pump(stream); /* this one, and those that waited for it */
    stream_progress(stream);
}

static void start_job(struct segment *segment, enum segment_job job)
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
            segment_queue_add(&writer->writing, queue_take(&writer->unwritten));
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

bool segment_take_room(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;

    if (!writer->has_disk)
        writer->has_disk =
            store_reserve_disk(segment->stream->store, segment, segment->capacity + STORE_FILE_SLACK_BYTES);
    return writer->has_disk;
}

/* Files are made ahead, but in order: the room that is left goes to the one that must be written first. */
static void make(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    const struct segment *before = stream_segment_before(segment->stream, segment);

    if (writer->make_at_ns > clock_mono_ns() || (before != NULL && segment_is_creating(before)))
        return;
    if (segment_take_room(segment))
        start_job(segment, JOB_CREATE);
}

void segment_pump(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    bool wants_sync;

    if (writer == NULL || writer->job != JOB_NONE || writer->is_abandoned)
        return;
    if (segment->state == SEGMENT_FAILED) {
        write_again(segment);
        return;
    }
    if (segment->state == SEGMENT_CREATING) {
        make(segment);
        return;
    }
    if (segment->state == SEGMENT_SEALING) { /* could not be started before */
        start_seal(segment);
        return;
    }
    /* What a crash leaves has no hole: its writer would not send again what lies below the last number found. */
    if (!stream_is_durable_before(segment->stream, segment))
        return;
    wants_sync = writer->written.count > 0 && (writer->sync_wanted || writer->close_wanted);
    if (writer->unwritten.count > 0 && !(wants_sync && writer->unsynced_bytes >= SEGMENT_SYNC_BYTES)) {
        while (writer->unwritten.count > 0 && writer->writing.count < SEGMENT_WRITE_RECORDS)
            segment_queue_add(&writer->writing, queue_take(&writer->unwritten));
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
