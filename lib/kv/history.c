#include "kv/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_mergeable(const struct history_span *a, const struct history_span *b)
{
    return a->to_seq == b->from_seq && (a->frames == 0) == (b->frames == 0);
}

static void merge_into(struct history_span *a, const struct history_span *b)
{
    a->to_seq = b->to_seq;
    if (b->from_pts_ns < a->from_pts_ns)
        a->from_pts_ns = b->from_pts_ns;
    if (b->to_pts_ns > a->to_pts_ns)
        a->to_pts_ns = b->to_pts_ns;
    a->frames += b->frames;
}

static void remove_at(struct history *history, uint32_t at)
{
    history->count--;
    memmove(&history->spans[at], &history->spans[at + 1], (history->count - at) * sizeof history->spans[0]);
}

static void make_room(struct history *history)
{
    struct history_span *spans = history->spans;
    uint32_t at = 1;

    if (history->count < HISTORY_SPANS_MAX)
        return;
    while (at < history->count && spans[at - 1].to_seq != spans[at].from_seq)
        at++;
    if (at == history->count) {
        at = 1;
        if (history->rough_below_seq < spans[1].to_seq)
            history->rough_below_seq = spans[1].to_seq;
    }
    merge_into(&spans[at - 1], &spans[at]);
    remove_at(history, at);
}

void history_add(struct history *history, const struct history_span *span)
{
    struct history_span *spans = history->spans;
    uint32_t at;

    if (span->from_seq == span->to_seq)
        return;
    make_room(history);
    for (at = history->count; at > 0 && spans[at - 1].from_seq > span->from_seq; at--)
        ;
    if (at > 0 && span->to_seq <= spans[at - 1].to_seq) { /* it lay between two that became one */
        spans[at - 1].frames += span->frames;
        return;
    }
    if (at > 0 && is_mergeable(&spans[at - 1], span)) {
        merge_into(&spans[--at], span);
    } else {
        memmove(&spans[at + 1], &spans[at], (history->count - at) * sizeof *spans);
        spans[at] = *span;
        history->count++;
    }
    if (at + 1 < history->count && is_mergeable(&spans[at], &spans[at + 1])) {
        merge_into(&spans[at], &spans[at + 1]);
        remove_at(history, at + 1);
    }
}

/* The span's numbers [from, to), with their share of its frames; when exactly they were is not known any more. */
static struct history_span part_of(const struct history_span *span, uint64_t from, uint64_t to)
{
    struct history_span part = *span;

    part.from_seq = from;
    part.to_seq = to;
    part.frames =
        (uint64_t)((double)span->frames * (double)(to - from) / (double)(span->to_seq - span->from_seq) +
                   0.5);
    return part;
}

void history_take_back(struct history *history, uint64_t from_seq, uint64_t to_seq)
{
    const struct history before = *history;

    history->count = 0;
    for (uint32_t i = 0; i < before.count; i++) {
        const struct history_span *span = &before.spans[i];
        struct history_span part;

        if (span->to_seq <= from_seq || span->from_seq >= to_seq) {
            history_add(history, span);
            continue;
        }
        if (span->from_seq < from_seq) {
            part = part_of(span, span->from_seq, from_seq);
            history_add(history, &part);
        }
        if (span->to_seq > to_seq) {
            part = part_of(span, to_seq, span->to_seq);
            history_add(history, &part);
        }
    }
}

const struct history_span *history_find(const struct history *history, uint64_t seq)
{
    for (uint32_t i = 0; i < history->count; i++)
        if (seq >= history->spans[i].from_seq && seq < history->spans[i].to_seq)
            return &history->spans[i];
    return NULL;
}

bool history_has(const struct history *history, uint64_t seq)
{
    return seq >= history->rough_below_seq && history_find(history, seq) != NULL;
}

uint64_t history_frames(const struct history *history)
{
    uint64_t frames = 0;

    for (uint32_t i = 0; i < history->count; i++)
        frames += history->spans[i].frames;
    return frames;
}

uint64_t history_gap_frames(const struct history *history)
{
    uint64_t frames = 0;

    for (uint32_t i = 0; i < history->count; i++)
        frames += history->spans[i].to_seq - history->spans[i].from_seq - history->spans[i].frames;
    return frames;
}

/* The part of the span's time that lies in [from, to). A time may be any number: differences are unsigned. */
static double share_of(const struct history_span *span, int64_t from_ns, int64_t to_ns)
{
    int64_t first = span->from_pts_ns > from_ns ? span->from_pts_ns : from_ns;
    int64_t end = span->to_pts_ns < to_ns ? span->to_pts_ns : to_ns;

    if (span->to_pts_ns < from_ns || span->from_pts_ns >= to_ns)
        return 0;
    if (span->from_pts_ns >= from_ns && span->to_pts_ns < to_ns)
        return 1;
    if (end <= first)
        return 0;
    return (double)((uint64_t)end - (uint64_t)first) /
           (double)((uint64_t)span->to_pts_ns - (uint64_t)span->from_pts_ns);
}

void history_in_range(const struct history *history, int64_t from_ns, int64_t to_ns, uint64_t *frames_p,
                      uint64_t *gaps_p)
{
    double frames = 0, gaps = 0;

    for (uint32_t i = 0; i < history->count; i++) {
        const struct history_span *span = &history->spans[i];
        double share = share_of(span, from_ns, to_ns);

        frames += share * (double)span->frames;
        gaps += share * (double)(span->to_seq - span->from_seq - span->frames);
    }
    *frames_p = (uint64_t)(frames + 0.5);
    *gaps_p = (uint64_t)(gaps + 0.5);
}

char *history_text(const struct history *history, const char *file)
{
    struct json *object = checked_json_make(file), *spans = json_make_array();

    json_set_u64(object, "next_seq", history->next_seq);
    json_set_u64(object, "next_token_index", history->next_token_index);
    if (history->rough_below_seq > 0)
        json_set_u64(object, "rough_below_seq", history->rough_below_seq);
    for (uint32_t i = 0; i < history->count; i++) {
        const struct history_span *span = &history->spans[i];
        struct json *row = json_make_object();

        json_set_u64(row, "from_seq", span->from_seq);
        json_set_u64(row, "to_seq", span->to_seq);
        json_set_i64(row, "from_pts_ns", span->from_pts_ns);
        json_set_i64(row, "to_pts_ns", span->to_pts_ns);
        json_set_u64(row, "frames", span->frames);
        json_append(spans, row);
    }
    json_set(object, "spans", spans);
    return checked_json_text(object, 0);
}

static bool read_span(const struct json *row, struct history_span *span, struct status *st)
{
    if (!json_read_u64(row, "from_seq", &span->from_seq, st) ||
        !json_read_u64(row, "to_seq", &span->to_seq, st) ||
        !json_read_i64(row, "from_pts_ns", &span->from_pts_ns, st) ||
        !json_read_i64(row, "to_pts_ns", &span->to_pts_ns, st) ||
        !json_read_u64(row, "frames", &span->frames, st))
        return false;
    if (span->to_seq <= span->from_seq || span->to_seq > HISTORY_NUMBER_MAX ||
        span->frames > span->to_seq - span->from_seq)
        return status_fail(st, STATUS_DATA_LOSS, "a span makes no sense");
    return true;
}

static bool read_spans(struct history *history, const struct json *rows, struct status *st)
{
    uint64_t end_seq = 0;

    if (!json_is_array(rows))
        return status_fail(st, STATUS_DATA_LOSS, "it has no list of spans");
    for (size_t i = 0; i < json_len(rows); i++) {
        struct history_span span;

        if (!read_span(json_at(rows, i), &span, st))
            return false;
        if (span.from_seq < end_seq)
            return status_fail(st, STATUS_DATA_LOSS, "a span begins before the one before it has ended");
        end_seq = span.to_seq;
        history_add(history, &span);
    }
    return (history->next_seq >= end_seq && history->next_seq <= HISTORY_NUMBER_MAX &&
            history->next_token_index <= HISTORY_NUMBER_MAX) ||
           status_fail(st, STATUS_DATA_LOSS, "its next number makes no sense");
}

bool history_read(struct history *history, const struct file_ops *disk, const char *path, struct status *st)
{
    struct stat info;
    struct json *object;
    bool ok;

    memset(history, 0, sizeof *history);
    if (disk->stat(path, &info) != 0)
        return errno == ENOENT || status_fail(st, status_code_of_errno(errno), "stat %s: %m", path);
    object = checked_json_read(disk, path, HISTORY_BYTES_MAX, "next_seq", st);
    if (object == NULL)
        return false;
    ok = json_read_u64(object, "next_seq", &history->next_seq, st) &&
         json_read_u64(object, "next_token_index", &history->next_token_index, st) &&
         (json_get(object, "rough_below_seq") == NULL ||
          json_read_u64(object, "rough_below_seq", &history->rough_below_seq, st)) &&
         read_spans(history, json_get(object, "spans"), st);
    json_free(object);
    return ok || status_wrap(st, "%s", path);
}
