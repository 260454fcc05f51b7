/* A stream at start: what its folder holds. The files are the truth: a stream is what its stream.json, its history and its
 * segments say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "base/name.h"
#include "kvstore/segment_load.h"
#include "kvstore/segment_replaced.h"
#include "kvstore/segment_scan.h"
#include "kvstore/store.h"

/* Files that cannot be used. Of one that cannot be looked into either, a later one tells where it ends at the latest. */
struct lost {
    uint64_t disk_bytes;         /* of all files, those that can be used too */
    struct segment_scan_end end; /* of their numbers and tokens */
    struct status unknown;       /* why nobody can tell where the stream's numbers end; OK: it is known */
    uint64_t unknown_from_seq;
};

/* Its frames are not served, but their numbers are not given to others. */
static void count_unusable(struct stream *stream, const char *path, const struct kv_file_name *file,
                           struct lost *lost, const struct status *why)
{
    const struct log_context context = { .stream = stream->name };
    struct segment_scan_end end = { 0 };
    struct stat info;

    log_error(&context, "segment_unusable", "%s; it stays where it is and is not served", why->text);
    text_copy(stream->unusable, sizeof stream->unusable, path + strlen(stream->folder) + 1);
    if (!segment_scan_end(stream->store->disk, path, file->salt, &end, &lost->unknown))
        lost->unknown_from_seq = file->first_seq;
    if (!file->is_open && !end.is_told && end.seq <= file->first_seq && lost->unknown.code == STATUS_OK)
        end.seq = file->first_seq + 1; /* no header of it fits: what it had began with this number */
    lost->disk_bytes += stream->store->disk->stat(path, &info) == 0
                            ? (uint64_t)info.st_blocks * 512
                            : stream->store->options.segment_bytes_max;
    if (end.seq > lost->end.seq)
        lost->end.seq = end.seq;
    if (end.token_index > lost->end.token_index)
        lost->end.token_index = end.token_index;
}

/* From this number on a later segment has the records. */
static void cut_segment(struct segment *segment, uint64_t seq)
{
    uint64_t keep = segment->index.frame_count;
    uint32_t marks = segment->mark_count;

    if (segment->end_seq <= seq)
        return;
    for (; keep > 0 && index_part_at(&segment->index, keep - 1)->seq >= seq; keep--)
        segment_leave_bytes(segment, index_part_at(&segment->index, keep - 1)->pts_ns);
    index_part_cut(&segment->index, keep);
    while (marks > 0 && segment->marks[marks - 1].seq >= seq)
        marks--;
    segment_drop_marks(segment, marks);
    if (marks > 0 && segment->marks[marks - 1].end_seq > seq)
        segment->marks[marks - 1].end_seq = seq;
    segment->end_seq = segment->durable_end_seq = seq;
    segment->end_token_index = 0;
    if (keep > 0) {
        const struct index_frame *last = index_part_at(&segment->index, keep - 1);

        segment->end_token_index = last->token_index + last->tokens;
    }
}

/* Records written again after their file failed are in two segments: the one that was begun later counts. */
static void cut_overlaps(struct stream *stream)
{
    for (uint32_t i = 1; i < stream->segment_count; i++)
        cut_segment(stream->segments[i - 1], stream->segments[i]->super.first_seq);
}

/* Names come in the order of first numbers; those that share one go by when they were begun. */
static bool push_in_order(struct stream *stream, struct segment *segment)
{
    uint32_t at = stream->segment_count;

    if (!stream_push_segment(stream, segment))
        return false;
    for (; at > 0; at--) {
        const struct kv_super *before = &stream->segments[at - 1]->super;

        if (before->first_seq != segment->super.first_seq || before->created_ns <= segment->super.created_ns)
            break;
        stream->segments[at] = stream->segments[at - 1];
        stream->segments[at - 1] = segment;
    }
    return true;
}

static void report(const struct stream *stream, const char *base, const struct segment_load *load)
{
    const struct log_context context = { .stream = stream->name };

    if (load->was_scanned)
        log_event(load->damaged_bytes > 0 ? LOG_ERROR : LOG_INFO, &context, "segment_recovered",
                  "%s%s: %llu torn bytes cut, %llu bytes and %llu frames damaged", base,
                  load->is_empty      ? " was empty"
                  : load->has_no_mark ? " has no mark of what was synced"
                                      : "",
                  (unsigned long long)load->torn_bytes, (unsigned long long)load->damaged_bytes,
                  (unsigned long long)load->damaged_frames);
}

/* Names are in the order of first numbers. */
static uint64_t next_first_seq(const struct file_names *files, uint32_t n)
{
    struct kv_file_name file, next;

    if (kv_file_name_get(&file, files->list[n]))
        for (uint32_t i = n + 1; i < files->count; i++)
            if (kv_file_name_get(&next, files->list[i]) && next.first_seq > file.first_seq)
                return next.first_seq;
    return 0;
}

/* False when memory or descriptors are short: the file may be sound. */
static bool load_segment(struct stream *stream, const char *folder, const struct file_names *files,
                         uint32_t n, struct lost *lost, struct status *st)
{
    const char *name = files->list[n];
    char base[PATH_MAX], path[PATH_MAX + 8];
    struct kv_file_name file;
    struct segment *segment;
    struct segment_load load = { .below_seq = next_first_seq(files, n) };

    if (!kv_file_name_get(&file, name) || snprintf(path, sizeof path, "%s/%s", folder, name) >= PATH_MAX)
        return true;
    snprintf(base, sizeof base, "%.*s", (int)(strrchr(path, '.') - path), path);
    if (!segment_load(stream, base, file.is_open, &segment, &load, st)) {
        if (st->code == STATUS_EXHAUSTED)
            return false;
        count_unusable(stream, path, &file, lost, st);
        return true;
    }
    report(stream, base, &load);
    if (segment == NULL)
        return true;
    if (segment->super.first_seq > lost->unknown_from_seq)
        lost->unknown.code = STATUS_OK;
    if (!push_in_order(stream, segment)) {
        segment_destroy(segment);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the segments of stream %s", stream->name);
    }
    lost->disk_bytes += segment->disk_bytes;
    return true;
}

static bool load_epochs(struct stream *stream, struct lost *lost, struct status *st)
{
    struct file_names epochs, files;
    char folder[PATH_MAX];
    uint64_t epoch;
    bool ok = file_list_on(stream->store->disk, stream->folder, &epochs, st);

    for (uint32_t i = 0; ok && i < epochs.count; i++) {
        if (!kv_epoch_name_get(&epoch, epochs.list[i]))
            continue;
        snprintf(folder, sizeof folder, "%s/%s", stream->folder, epochs.list[i]);
        ok = file_list_on(stream->store->disk, folder, &files, st);
        for (uint32_t n = 0; ok && n < files.count; n++)
            if (!segment_drop_replaced(stream, folder, &files, n, &lost->disk_bytes))
                ok = load_segment(stream, folder, &files, n, lost, st);
        file_names_free(&files);
    }
    file_names_free(&epochs);
    return ok;
}

/* What follows from the segments, and behind them from files that cannot be used. The history may count one whose file
 * could not be removed any more. */
static bool sum_up(struct stream *stream, const struct lost *lost, struct status *st)
{
    stream->next_seq = stream->history.next_seq;
    stream->next_token_index = stream->history.next_token_index;
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];
        const struct segment_counts counts = segment_count_marks(segment);

        history_take_back(&stream->history, segment->super.first_seq, segment->end_seq);
        stream->gap_frames += counts.gap_frames;
        stream->damaged_frames += counts.damaged_frames;
        stream->evicted_frames += counts.evicted_frames;
        stream->stored_frames += segment->index.frame_count;
        if (segment->end_seq > stream->next_seq)
            stream->next_seq = segment->end_seq;
        if (segment->end_token_index > stream->next_token_index)
            stream->next_token_index = segment->end_token_index;
        if (segment->super.epoch > stream->epoch)
            stream->epoch = segment->super.epoch;
        if (segment->index.frame_count > 0)
            stream->last_pts_ns = segment->end_pts_ns;
        stream->has_shape = true;
        stream->geometry = segment->super.geometry;
        memcpy(stream->fingerprint, segment->super.fingerprint, KV_FINGERPRINT_BYTES);
    }
    if (lost->end.seq > stream->next_seq)
        stream->next_seq = lost->end.seq;
    if (stream->saved_seq > stream->next_seq)
        stream->next_seq = stream->saved_seq;
    if (lost->end.token_index > stream->next_token_index)
        stream->next_token_index = lost->end.token_index;
    return stream_find_lost(stream, st);
}

/* The writer of this epoch may come back; the system prompt's block must open its next segments too. False when memory or
 * descriptors are short. */
static bool find_init(struct stream *stream, struct status *st)
{
    const struct segment *last = stream_last_segment(stream);
    const struct log_context context = { .stream = stream->name };

    if (last == NULL || last->super.epoch != stream->epoch || last->init_offset == 0 || stream->has_ended)
        return true;
    stream->init_image = segment_load_init(last, &stream->init_record, st);
    if (stream->init_image != NULL)
        return true;
    stream->init_record.layers = 0;
    log_error(&context, "init_unusable", "%s", st->text);
    return st->code != STATUS_EXHAUSTED;
}

/* The end may be in the last segment and not in stream.json. */
static void find_end(struct stream *stream)
{
    const struct segment *last = stream_last_segment(stream);
    const struct segment_mark *mark =
        last == NULL || last->mark_count == 0 ? NULL : &last->marks[last->mark_count - 1];

    if (mark == NULL || mark->type != KV_RECORD_EVENT || mark->event != KV_EVENT_END ||
        mark->seq != stream->next_seq)
        return;
    stream->has_ended = true;
    stream_set_trouble(stream, mark->note == NULL ? "" : mark->note);
}

bool stream_load(struct stream *stream, uint64_t *disk_bytes_p, struct status *st)
{
    struct lost lost = { 0 };

    if (!load_epochs(stream, &lost, st))
        return false;
    if (lost.unknown.code != STATUS_OK) { /* they must not be given again */
        *st = lost.unknown;
        return false;
    }
    cut_overlaps(stream);
    if (!sum_up(stream, &lost, st))
        return false;
    find_end(stream);
    if (!find_init(stream, st))
        return false;
    *disk_bytes_p = lost.disk_bytes;
    return true;
}
