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
#include "kvstore/stream_rival.h"

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
    segment_find_times(segment);
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

static void base_of(const char *path, char base[PATH_MAX])
{
    snprintf(base, PATH_MAX, "%.*s", (int)(strrchr(path, '.') - path), path);
}

/* *segment_p: NULL when nothing of the file is served. False when memory or descriptors are short: the file may be sound; or when
 * it was removed, and not for sure. */
static bool load_segment(struct stream *stream, const char *folder, const struct segment_twin *file,
                         uint64_t below_seq, struct lost *lost, struct segment **segment_p, struct status *st)
{
    char base[PATH_MAX], path[PATH_MAX + 8];
    struct segment *segment;
    struct segment_load load = { .below_seq = below_seq };

    *segment_p = NULL;
    if (snprintf(path, sizeof path, "%s/%s", folder, file->name) >= PATH_MAX)
        return true;
    base_of(path, base);
    if (!segment_load(stream, base, file->file.is_open, &segment, &load, st)) {
        if (st->code == STATUS_EXHAUSTED || load.is_unsynced)
            return false;
        count_unusable(stream, path, &file->file, lost, st);
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
    *segment_p = segment;
    return true;
}

/* Those that begin with one number. */
struct twins {
    struct segment_twin *list;
    struct segment **segments; /* of each; NULL: nothing of it is served */
    uint32_t count;
    uint64_t below_seq; /* the next file begins with it; UINT64_MAX: there is none */
};

/* The names from the n-th on, as far as they begin with the same number. Returns the one behind them. */
static uint32_t end_of_twins(const struct file_names *files, uint32_t n)
{
    struct kv_file_name first = { 0 }, file;
    bool any = false;

    for (; n < files->count; n++) {
        if (!kv_file_name_get(&file, files->list[n]))
            continue;
        if (any && file.first_seq != first.first_seq)
            break;
        first = file;
        any = true;
    }
    return n;
}

static bool make_twins(const struct stream *stream, const struct file_names *files, uint32_t n, uint32_t end,
                       struct twins *twins, struct status *st)
{
    struct kv_file_name file;

    *twins = (struct twins){ .list = calloc(end - n, sizeof *twins->list),
                             .segments = calloc(end - n, sizeof(struct segment *)),
                             .below_seq = UINT64_MAX };
    if (twins->list == NULL || twins->segments == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the files of stream %s", stream->name);
    for (; n < end; n++)
        if (kv_file_name_get(&file, files->list[n]))
            twins->list[twins->count++] = (struct segment_twin){ .name = files->list[n], .file = file };
    if (end < files->count && kv_file_name_get(&file, files->list[end]))
        twins->below_seq = file.first_seq;
    return true;
}

static void free_twins(struct twins *twins)
{
    free(twins->list);
    free(twins->segments);
}

static const struct segment_twin *unread_one(const struct twins *twins)
{
    for (uint32_t i = 0; i < twins->count; i++)
        if (twins->list[i].unread.code != STATUS_OK)
            return &twins->list[i];
    return NULL;
}

/* Nobody can tell whether it was replaced: a later start can. */
static void leave_unknown(struct stream *stream, const char *path, const struct twins *twins,
                          const struct segment_twin *twin, struct lost *lost)
{
    const struct segment_twin *unread = unread_one(twins);
    struct status why;

    status_fail(&why, unread->unread.code, "%s: whether %s was made from it cannot be told: %s", path,
                unread->name, unread->unread.text);
    count_unusable(stream, path, &twin->file, lost, &why);
}

/* It was replaced, and it is there. What counts instead keeps it from coming back, and is told when it has gone. */
static void leave_replaced(struct stream *stream, const char *path, const struct twins *twins,
                           const struct segment_twin *twin, struct lost *lost)
{
    const struct log_context context = { .stream = stream->name };
    const struct segment_twin *heir = segment_heir(twins->list, twins->count, twin);
    struct segment *segment = heir == NULL ? NULL : twins->segments[heir - twins->list];
    uint64_t disk_bytes = 0;
    char base[PATH_MAX];
    struct stat info;

    if (stream->store->disk->stat(path, &info) == 0)
        disk_bytes = (uint64_t)info.st_blocks * 512;
    lost->disk_bytes += disk_bytes;
    base_of(path, base);
    if (segment != NULL && unread_one(twins) == NULL) {
        stream_rival_add(segment, base, disk_bytes);
        return;
    }
    text_copy(stream->unusable, sizeof stream->unusable, path + strlen(stream->folder) + 1);
    log_error(&context, "segment_not_removed", "%s was replaced; the next start tries again", path);
}

static bool load_those_that_count(struct stream *stream, const char *folder, struct twins *twins,
                                  struct lost *lost, struct status *st)
{
    bool any_unread = unread_one(twins) != NULL;

    for (uint32_t i = 0; i < twins->count; i++) {
        const struct segment_twin *twin = &twins->list[i];
        bool is_elsewhere = segment_was_written_again(twins->list, twins->count, twin);
        struct segment **segment_p = &twins->segments[i];

        if (twin->verdict != SEGMENT_COUNTS)
            continue;
        if (!load_segment(stream, folder, twin, is_elsewhere ? twin->file.first_seq : twins->below_seq, lost,
                          segment_p, st))
            return false;
        if (*segment_p != NULL && any_unread)
            (*segment_p)->has_rival = true; /* what may go, and when, the next start can tell */
    }
    return true;
}

/* What was made of others is loaded before it is told of them; of these the oldest first, as they may go. */
static bool load_twins(struct stream *stream, const char *folder, struct twins *twins, struct lost *lost,
                       struct status *st)
{
    char path[PATH_MAX + 8];

    if (twins->count > 1 && !segment_judge_twins(stream, folder, twins->list, twins->count, st))
        return false;
    if (!load_those_that_count(stream, folder, twins, lost, st))
        return false;
    for (uint32_t i = 0; i < twins->count; i++) {
        const struct segment_twin *twin = &twins->list[i];

        if (snprintf(path, sizeof path, "%s/%s", folder, twin->name) >= PATH_MAX)
            continue;
        if (twin->verdict == SEGMENT_UNKNOWN)
            leave_unknown(stream, path, twins, twin, lost);
        else if (twin->verdict == SEGMENT_LEFT)
            leave_replaced(stream, path, twins, twin, lost);
    }
    return true;
}

static bool load_epoch(struct stream *stream, const char *folder, const struct file_names *files,
                       struct lost *lost, struct status *st)
{
    bool ok = true;

    for (uint32_t n = 0, end; ok && n < files->count; n = end) {
        struct twins twins;

        end = end_of_twins(files, n);
        ok = make_twins(stream, files, n, end, &twins, st) && load_twins(stream, folder, &twins, lost, st);
        free_twins(&twins);
    }
    return ok;
}

static bool load_epochs(struct stream *stream, struct lost *lost, struct status *st)
{
    struct file_names epochs, files;
    char folder[PATH_MAX];
    uint64_t epoch;
    bool ok = file_list_synced_on(stream->store->disk, stream->folder, &epochs, st);

    for (uint32_t i = 0; ok && i < epochs.count; i++) {
        if (!kv_epoch_name_get(&epoch, epochs.list[i]))
            continue;
        snprintf(folder, sizeof folder, "%s/%s", stream->folder, epochs.list[i]);
        ok = file_list_synced_on(stream->store->disk, folder, &files, st);
        ok = ok && load_epoch(stream, folder, &files, lost, st);
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
