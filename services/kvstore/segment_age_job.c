#include "kvstore/segment_age_job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/require.h"
#include "kvstore/segment_job.h"

/* --- what becomes of what --- */

static bool is_forgotten(const struct segment_transform *transform, uint64_t end_seq, int64_t from_ns,
                         int64_t to_ns)
{
    return transform->forgets && end_seq <= transform->below_seq && from_ns >= transform->from_ns &&
           to_ns < transform->to_ns;
}

enum age_fate age_fate_of(const struct segment_transform *transform, const struct index_frame *frame)
{
    if (is_forgotten(transform, frame->seq + 1, frame->pts_ns, frame->pts_ns))
        return AGE_FORGOTTEN;
    return transform->aged.thin > 1 && frame->seq % transform->aged.thin != 0 ? AGE_THINNED : AGE_KEPT;
}

struct kv_encoding age_encoding_of(const struct segment_transform *transform, const struct index_frame *frame)
{
    if (frame->encoding.bits != 0 || transform->aged.bits == 0)
        return frame->encoding;
    return kv_quant_encoding(&frame->chunk->geometry, transform->aged.bits);
}

/* --- writing --- */

static bool no_memory(struct age_job *job)
{
    return status_fail(&job->st, STATUS_EXHAUSTED, "no memory to write %s", job->base);
}

static bool make_image(struct age_job *job, struct segment_image *image, uint64_t bytes)
{
    return segment_image_make(image, bytes) || no_memory(job);
}

static bool index_record(struct age_job *job, const struct kv_layout *layout)
{
    const struct kv_record *record = &job->record;
    const struct index_frame frame = { .seq = record->seq,
                                       .pts_ns = record->pts_ns,
                                       .token_index = record->token_index,
                                       .offset = job->end,
                                       .record_bytes = (uint32_t)layout->record_bytes,
                                       .tokens = record->tokens,
                                       .thumbnail_at = (uint32_t)layout->thumbnail,
                                       .thumbnail_bytes = record->thumbnail_bytes,
                                       .slices_at = (uint32_t)layout->slices,
                                       .encoding = kv_record_encoding(record),
                                       .has_slices = record->layers > 0 };
    struct index_frame *added = index_part_add(&job->index, NULL, &job->memory, &job->super.geometry, &frame);

    if (added == NULL)
        return no_memory(job);
    index_frame_fill(added, &job->super, record, job->out.bytes);
    return true;
}

static bool has_room(struct age_job *job, const struct kv_layout *layout)
{
    uint64_t footer = segment_footer_bytes(&job->super.geometry, job->list.entry_count + 1,
                                           (uint32_t)job->index.frame_count + 1,
                                           job->list.notes_bytes + job->record.note_bytes);

    job->is_larger = job->end + layout->record_bytes + footer > job->capacity;
    return !job->is_larger || status_fail(&job->st, STATUS_EXHAUSTED, "%s becomes larger than %llu bytes",
                                          job->base, (unsigned long long)job->capacity);
}

/* The record at hand, whose image is complete but for its header. */
static bool write_record(struct age_job *job)
{
    struct kv_record *record = &job->record;
    struct kv_layout layout;
    struct kv_entry entry;
    struct iovec piece;

    kv_record_layout(record, &layout);
    if (!has_room(job, &layout))
        return false;
    record->epoch = job->super.epoch;
    record->chain = job->chain;
    kv_record_checksum(record, job->out.bytes);
    job->chain = kv_record_put(record, &job->super, job->out.bytes);
    kv_entry_of_record(&entry, record, job->end, job->chain);
    if (!segment_list_add(&job->list, &entry, job->out.bytes + layout.note) ||
        (record->type == KV_RECORD_FRAME && !index_record(job, &layout)))
        return false;
    piece = (struct iovec){ .iov_base = job->out.bytes, .iov_len = layout.record_bytes };
    if (!disk_write(job->disk, job->fd, &piece, 1, job->end, &job->st))
        return false;
    job->end += layout.record_bytes;
    job->unsynced_bytes += layout.record_bytes;
    return true;
}

/* A record of a note only. */
static bool write_note(struct age_job *job, const char *note)
{
    struct kv_layout layout;

    job->record.note_bytes = (uint32_t)strlen(note);
    kv_record_layout(&job->record, &layout);
    if (!make_image(job, &job->out, layout.record_bytes))
        return false;
    memcpy(job->out.bytes + layout.note, note, job->record.note_bytes);
    return write_record(job);
}

static bool write_tombstone(struct age_job *job)
{
    if (job->tombstone.type == 0)
        return true;
    job->record = job->tombstone;
    job->tombstone.type = 0;
    return write_note(job, "");
}

/* Runs of numbers become one. */
static bool add_tombstone(struct age_job *job, enum kv_tombstone kind, const struct segment_mark *what)
{
    struct kv_record *tombstone = &job->tombstone;

    if (tombstone->type == 0 || tombstone->event != kind || tombstone->end_seq != what->seq) {
        if (!write_tombstone(job))
            return false;
        *tombstone = (struct kv_record){
            .type = KV_RECORD_TOMBSTONE, .event = (uint16_t)kind, .seq = what->seq, .pts_ns = what->pts_ns
        };
    }
    tombstone->end_seq = what->end_seq;
    tombstone->end_pts_ns = what->end_pts_ns;
    if (what->end_token_index > tombstone->token_index)
        tombstone->token_index = what->end_token_index;
    return true;
}

/* --- reading --- */

/* The record at hand, whole and checked; frame NULL: INIT. */
static bool read_once(struct age_job *job, const struct index_frame *frame)
{
    uint64_t offset = frame == NULL ? job->from->init_offset : frame->offset;
    uint64_t bytes = frame == NULL ? job->from->init_bytes : frame->record_bytes;
    struct kv_layout layout;
    uint32_t crc;

    if (!make_image(job, &job->in, bytes))
        return false;
    job->read_bytes += bytes;
    if (!segment_job_read(job->disk, job->from->base, job->in.bytes, bytes, offset, &job->st) ||
        !kv_record_get(&job->record, &crc, &job->from->super, job->in.bytes, &job->st))
        return false;
    kv_record_layout(&job->record, &layout);
    if (layout.record_bytes != bytes || (frame != NULL && job->record.seq != frame->seq))
        return status_fail(&job->st, STATUS_DATA_LOSS, "another record stands there");
    return kv_record_verify(&job->record, job->in.bytes, &job->st);
}

/* Else the disk may be away. */
static bool has_first_page(struct age_job *job)
{
    struct status why;

    return make_image(job, &job->in, KV_PAGE_BYTES) &&
           segment_job_read(job->disk, job->from->base, job->in.bytes, KV_PAGE_BYTES, 0, &why);
}

/* *is_damaged_p: what stands there is not what was written, or will not be read. The new file is the last that is heard of
 * it, so it is read twice. */
static bool read_record(struct age_job *job, const struct index_frame *frame, bool *is_damaged_p)
{
    enum { READS = 2 };
    bool ok = false;

    *is_damaged_p = false;
    for (int i = 0; !ok && !job->is_unread && i < READS; i++) {
        ok = read_once(job, frame);
        if (!ok && job->st.code == STATUS_EXHAUSTED)
            return false;
        job->is_unread = !ok && job->st.code != STATUS_DATA_LOSS && !job->takes_unread;
    }
    if (ok || job->is_unread)
        return ok;
    job->lost_to = job->st;
    *is_damaged_p = job->st.code == STATUS_DATA_LOSS || has_first_page(job);
    job->is_unread = !*is_damaged_p;
    if (*is_damaged_p)
        job->st = (struct status){ 0 };
    return *is_damaged_p;
}

/* Each slice of the image read into its place in the one to be written. False: a number is not finite. */
static bool encode_slices(struct age_job *job, const struct kv_layout *from, const struct kv_record *read,
                          uint64_t at)
{
    uint64_t source = from->slices;

    for (uint32_t i = 0; i < 2 * read->layers; i++) {
        if (!kv_quant_encode(&job->super.geometry, job->record.slices[i].encoding, read->slices[i].tokens,
                             job->in.bytes + source, job->out.bytes + at))
            return false;
        source += read->slices[i].bytes;
        at += job->record.slices[i].bytes;
        if (i % 2 == 1) {
            source = round_up(source, KV_PART_ALIGN);
            at = round_up(at, KV_PART_ALIGN);
        }
    }
    return true;
}

/* The parts in front of the slices are where they were, or one page nearer when the slices' table goes with them. */
static void copy_parts(struct age_job *job, const struct kv_layout *from, const struct kv_layout *to)
{
    memcpy(job->out.bytes + to->note, job->in.bytes + from->note, from->slices - from->note);
}

/* What was read, as it is to be: in `out`, and the record at hand. */
static bool transform_record(struct age_job *job, struct kv_encoding encoding)
{
    struct kv_record read = job->record;
    struct kv_layout from, to;

    kv_record_layout(&read, &from);
    if (job->transform.aged.keys_only && read.type == KV_RECORD_FRAME)
        kv_record_drop_slices(&job->record);
    else if (encoding.bits != kv_record_encoding(&read).bits)
        kv_record_encode(&job->record, &job->super.geometry, encoding);
    kv_record_layout(&job->record, &to);
    if (!make_image(job, &job->out, from.record_bytes))
        return false;
    copy_parts(job, &from, &to);
    if (job->record.layers == 0)
        return true;
    if (encoding.bits == kv_record_encoding(&read).bits) {
        memcpy(job->out.bytes + to.slices, job->in.bytes + from.slices, from.record_bytes - from.slices);
        return true;
    }
    if (encode_slices(job, &from, &read, to.slices))
        return true;
    job->record = read;
    memcpy(job->out.bytes, job->in.bytes, from.record_bytes);
    return true;
}

/* --- one after the other --- */

static bool write_init(struct age_job *job)
{
    bool is_damaged;

    if (job->from->init_offset == 0)
        return true;
    if (!read_record(job, NULL, &is_damaged))
        return false;
    job->has_lost_init = is_damaged; /* other segments have it too */
    if (is_damaged)
        return true;
    return transform_record(job, kv_record_encoding(&job->record)) && write_record(job);
}

static bool add_lost(struct age_job *job, uint64_t seq)
{
    uint32_t room = job->lost_room == 0 ? 16 : 2 * job->lost_room;
    uint64_t *lost = job->lost;

    if (job->lost_count == job->lost_room) {
        lost = realloc(lost, room * sizeof *lost);
        if (lost == NULL)
            return no_memory(job);
        job->lost = lost;
        job->lost_room = room;
    }
    lost[job->lost_count++] = seq;
    return true;
}

/* The n-th frame of the segment does not fit; its mark says when, by those around it. */
static bool lose_frame(struct age_job *job, uint64_t n)
{
    const struct index_part *index = &job->from->index;
    const struct index_frame *frame = index_part_at(index, n);
    struct segment_mark mark = { .seq = frame->seq,
                                 .end_seq = frame->seq + 1,
                                 .pts_ns = n == 0 ? 0 : index_part_at(index, n - 1)->pts_ns,
                                 .end_token_index = frame->token_index + frame->tokens };

    mark.end_pts_ns = n + 1 == index->frame_count ? mark.pts_ns : index_part_at(index, n + 1)->pts_ns;
    return add_lost(job, frame->seq) && add_tombstone(job, KV_TOMBSTONE_DAMAGED, &mark);
}

static bool rewrite_frame(struct age_job *job, const struct index_frame *frame, uint64_t n)
{
    const struct segment_mark mark = { .seq = frame->seq,
                                       .end_seq = frame->seq + 1,
                                       .pts_ns = frame->pts_ns,
                                       .end_pts_ns = frame->pts_ns,
                                       .end_token_index = frame->token_index + frame->tokens };
    enum age_fate fate = age_fate_of(&job->transform, frame);
    bool is_damaged;

    if (fate != AGE_KEPT) {
        job->dropped_frames++;
        return add_tombstone(job, fate == AGE_THINNED ? KV_TOMBSTONE_THINNED : KV_TOMBSTONE_FORGOTTEN, &mark);
    }
    if (!write_tombstone(job) || !read_record(job, frame, &is_damaged))
        return false;
    if (is_damaged)
        return lose_frame(job, n);
    return transform_record(job, age_encoding_of(&job->transform, frame)) && write_record(job);
}

/* An end has no numbers that a tombstone could stand for: it keeps its place, and loses its words. */
static bool rewrite_mark(struct age_job *job, const struct segment_mark *mark)
{
    bool goes = is_forgotten(&job->transform, mark->end_seq, mark->pts_ns, mark->end_pts_ns);
    const char *note = mark->note == NULL ? "" : mark->note;

    if (mark->is_damaged)
        return add_tombstone(job, KV_TOMBSTONE_DAMAGED, mark);
    if (goes && mark->type != KV_RECORD_EVENT)
        return add_tombstone(job, KV_TOMBSTONE_FORGOTTEN, mark);
    if (mark->type == KV_RECORD_TOMBSTONE)
        return add_tombstone(job, (enum kv_tombstone)mark->event, mark);
    if (!write_tombstone(job))
        return false;
    job->record = (struct kv_record){ .type = mark->type,
                                      .event = mark->event,
                                      .seq = mark->seq,
                                      .end_seq = mark->end_seq,
                                      .pts_ns = mark->pts_ns,
                                      .end_pts_ns = mark->end_pts_ns };
    return write_note(job, goes ? "" : note);
}

/* --- the file --- */

static bool create(struct age_job *job)
{
    uint64_t taken;

    job->fd = segment_job_create(job->disk, job->base, &job->super, job->capacity, &taken, &job->st);
    if (job->fd < 0) {
        job->is_left = taken > 0;
        return false;
    }
    job->end = KV_PAGE_BYTES;
    job->chain = job->super.crc;
    return write_init(job);
}

static bool finish(struct age_job *job)
{
    const struct segment_footer_parts parts = { .super = &job->super,
                                                .entries = job->list.entries,
                                                .entry_count = job->list.entry_count,
                                                .notes = job->list.notes,
                                                .notes_bytes = job->list.notes_bytes,
                                                .index = &job->index,
                                                .chain = job->chain };

    if (!segment_job_finish(job->disk, job->fd, job->base, &parts, job->end, &job->st) ||
        !disk_taken(job->disk, job->fd, &job->taken, &job->st))
        return false;
    job->disk->close(job->fd);
    job->fd = -1;
    job->is_finished = true;
    return true;
}

/* What is written is synced as it comes, so that no writer waits for all of it at the end. */
static bool sync_some(struct age_job *job)
{
    if (job->unsynced_bytes < SEGMENT_SYNC_BYTES)
        return true;
    job->unsynced_bytes = 0;
    return job->disk->fdatasync(job->fd) == 0 ||
           status_fail(&job->st, status_code_of_errno(errno), "sync %s: %m", job->base);
}

static bool step(struct age_job *job)
{
    const struct index_frame *frame;
    const struct segment_mark *mark;

    job->read_bytes = 0;
    if (job->fd < 0 && !create(job))
        return false;
    while (job->read_bytes < AGE_STEP_BYTES) {
        if (!segment_next(job->from, &job->cursor, &frame, &mark))
            return write_tombstone(job) && finish(job);
        if (frame != NULL ? !rewrite_frame(job, frame, job->cursor.frame - 1) : !rewrite_mark(job, mark))
            return false;
    }
    return sync_some(job);
}

void age_job_cancel(struct age_job *job)
{
    struct status st;

    if (job->fd < 0 && !job->is_finished)
        return;
    if (job->fd >= 0)
        job->disk->close(job->fd);
    job->fd = -1;
    job->is_left = !segment_file_remove(job->disk, job->base, &st);
}

bool age_job_step(struct age_job *job)
{
    if (step(job))
        return true;
    age_job_cancel(job);
    return false;
}

bool age_job_name(struct age_job *job)
{
    char folder[PATH_MAX];

    segment_folder_of(job->base, folder);
    if (segment_job_name(job->disk, job->base, &job->st) && file_sync_folder_on(job->disk, folder, &job->st))
        return true;
    age_job_cancel(job);
    return false;
}

void age_job_free(struct age_job *job, struct ram_arena *arena)
{
    if (job == NULL)
        return;
    REQUIRE(job->fd < 0);
    index_part_drop(&job->index, arena);
    segment_list_free(&job->list);
    free(job->lost);
    segment_image_free(&job->in);
    segment_image_free(&job->out);
    free(job);
}
