/* The file of a segment: made, written, synced and sealed, one job at a time (segment.h). */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/segment_internal.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"

enum { MAKE_AGAIN_MS = 100 };

/* --- jobs, on a writing thread --- */

static bool write_queued(struct segment_writer *writer)
{
    const struct segment *segment = writer->segment;
    const struct segment_record *record = writer->writing.first;
    uint64_t offset = record->entry.offset;
    int count = 0;

    for (; record != NULL; record = record->next)
        writer->pieces[count++] =
            (struct iovec){ .iov_base = record->slot != NULL
                                            ? ram_bytes(segment->stream->store->arena, record->slot)
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
    segment_writer_free(segment);
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
    segment_queue_free(segment, &writer->written);
    writer->unsynced_bytes = 0;
    writer->sync_wanted = writer->unwritten.count > 0;
    store_ram_freed(segment->stream->store);
}

static void written(struct segment *segment)
{
    struct segment_writer *writer = segment->writer;
    struct segment_record *record;

    while ((record = segment_queue_take(&writer->writing)) != NULL) {
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
    segment_writer_free(segment);
    store_segment_sealed(store, segment);
    if (segment->stream->deletion == NULL && !stream_save(segment->stream, NULL, NULL, &st))
        log_error(NULL, "stream_not_saved", "%s", st.text);
}

static void abandoned(struct segment *segment)
{
    segment->state = SEGMENT_FAILED;
    segment_writer_free(segment);
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
            segment_queue_add(&writer->writing, segment_queue_take(&writer->unwritten));
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
            segment_queue_add(&writer->writing, segment_queue_take(&writer->unwritten));
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
