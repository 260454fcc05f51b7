#include "kvstore/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"

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

void history_add(struct history *history, const struct history_span *span)
{
    struct history_span *last = history->count == 0 ? NULL : &history->spans[history->count - 1];

    if (span->from_seq == span->to_seq)
        return;
    if (last != NULL && is_mergeable(last, span)) {
        merge_into(last, span);
        return;
    }
    if (history->count == HISTORY_SPANS_MAX) {
        merge_into(&history->spans[0], &history->spans[1]);
        history->count--;
        memmove(&history->spans[1], &history->spans[2], (history->count - 1) * sizeof *span);
    }
    history->spans[history->count++] = *span;
}

const struct history_span *history_find(const struct history *history, uint64_t seq)
{
    for (uint32_t i = 0; i < history->count; i++)
        if (seq >= history->spans[i].from_seq && seq < history->spans[i].to_seq)
            return &history->spans[i];
    return NULL;
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

/* The part of [a, b] that lies in [from, to). */
static double share_of(const struct history_span *span, int64_t from_ns, int64_t to_ns)
{
    double a = (double)span->from_pts_ns, b = (double)span->to_pts_ns, from = (double)from_ns,
           to = (double)to_ns;

    if (span->to_pts_ns < from_ns || span->from_pts_ns >= to_ns)
        return 0;
    if (span->from_pts_ns >= from_ns && span->to_pts_ns < to_ns)
        return 1;
    return ((to < b ? to : b) - (from > a ? from : a)) / (b - a);
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

char *history_text(const struct history *history)
{
    struct json *object = json_make_object(), *spans = json_make_array();
    char *text;

    json_set_u64(object, "next_seq", history->next_seq);
    json_set_u64(object, "next_token_index", history->next_token_index);
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
    text = json_text(object, 0);
    json_free(object);
    return text;
}

static bool read_span(const struct json *row, struct history_span *span, struct status *st)
{
    if (!json_read_u64(row, "from_seq", &span->from_seq, st) ||
        !json_read_u64(row, "to_seq", &span->to_seq, st) ||
        !json_read_i64(row, "from_pts_ns", &span->from_pts_ns, st) ||
        !json_read_i64(row, "to_pts_ns", &span->to_pts_ns, st) ||
        !json_read_u64(row, "frames", &span->frames, st))
        return false;
    if (span->to_seq <= span->from_seq || span->frames > span->to_seq - span->from_seq)
        return status_fail(st, STATUS_DATA_LOSS, "a span makes no sense");
    return true;
}

static bool read_spans(struct history *history, const struct json *rows, struct status *st)
{
    for (size_t i = 0; i < json_len(rows); i++) {
        struct history_span span;

        if (!read_span(json_at(rows, i), &span, st))
            return false;
        history_add(history, &span);
    }
    return true;
}

bool history_read(struct history *history, const char *path, struct status *st)
{
    struct stat info;
    struct json *object;
    bool ok;

    memset(history, 0, sizeof *history);
    if (stat(path, &info) != 0)
        return errno == ENOENT || status_fail(st, status_code_of_errno(errno), "stat %s: %m", path);
    object = json_parse_file(path, HISTORY_BYTES_MAX, st);
    if (object == NULL)
        return false;
    ok = json_read_u64(object, "next_seq", &history->next_seq, st) &&
         json_read_u64(object, "next_token_index", &history->next_token_index, st) &&
         read_spans(history, json_get(object, "spans"), st);
    json_free(object);
    return ok || status_wrap(st, "%s", path);
}
