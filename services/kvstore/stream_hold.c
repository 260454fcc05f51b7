#include "kvstore/stream_hold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/segment_age.h"
#include "kvstore/store.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_rival.h"

static const struct hold_list *holds_of(const struct stream *stream)
{
    return stream->holds == NULL ? NULL : &stream->holds->all;
}

const struct stream_hold *stream_held(const struct stream *stream, int64_t from_ns, int64_t to_ns)
{
    const struct hold_list *holds = holds_of(stream);
    int64_t now_ns = holds == NULL ? 0 : store_now_ns(stream->store);

    for (uint32_t i = 0; holds != NULL && i < holds->count; i++) {
        const struct stream_hold *hold = &holds->list[i];

        if (hold->from_ns < to_ns && hold->to_ns > from_ns && stream_hold_counts(hold, now_ns))
            return hold;
    }
    return NULL;
}

/* Of frames, gaps and the end: the first and the last time. False: it has nothing. */
static bool times_of(const struct segment *segment, int64_t *from_ns_p, int64_t *to_ns_p)
{
    *from_ns_p = segment->least_ns;
    *to_ns_p = segment->greatest_ns == INT64_MAX ? INT64_MAX : segment->greatest_ns + 1;
    return segment->least_ns <= segment->greatest_ns;
}

static bool segment_meets(const struct segment *segment, const struct stream_hold *hold)
{
    int64_t from_ns, to_ns;

    return times_of(segment, &from_ns, &to_ns) && hold->from_ns < to_ns && hold->to_ns > from_ns;
}

const struct stream_hold *segment_held(const struct segment *segment)
{
    int64_t from_ns, to_ns;

    return segment->stream->holds != NULL && times_of(segment, &from_ns, &to_ns)
               ? stream_held(segment->stream, from_ns, to_ns)
               : NULL;
}

const struct stream_hold *stream_hold_at(const struct stream *stream, uint32_t n)
{
    const struct hold_list *holds = holds_of(stream);
    int64_t now_ns = store_now_ns(stream->store);

    for (uint32_t i = 0; holds != NULL && i < holds->count; i++)
        if (stream_hold_counts(&holds->list[i], now_ns) && n-- == 0)
            return &holds->list[i];
    return NULL;
}

/* --- changes --- */

static char *text_of(const struct stream *stream, const struct hold_list *holds)
{
    char file[CHECKED_JSON_FILE_BYTES];

    stream_file_of(stream, "holds.json", file);
    return hold_list_text(holds, file, store_now_ns(stream->store));
}

static void drop_at(struct hold_list *holds, uint32_t at)
{
    holds->count--;
    memmove(&holds->list[at], &holds->list[at + 1], (holds->count - at) * sizeof holds->list[0]);
}

static void drop_expired(struct hold_list *holds, int64_t now_ns)
{
    for (uint32_t i = holds->count; i > 0; i--)
        if (!stream_hold_counts(&holds->list[i - 1], now_ns))
            drop_at(holds, i - 1);
}

static void drop(struct hold_list *holds, uint64_t number)
{
    for (uint32_t i = 0; i < holds->count; i++)
        if (holds->list[i].number == number) {
            drop_at(holds, i);
            return;
        }
}

static bool make_holds(struct stream *stream, struct status *st)
{
    stream->holds = calloc(1, sizeof *stream->holds);
    if (stream->holds == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for holds of stream %s", stream->name);
    stream->holds->all.next = 1;
    return true;
}

/* What is being written, and what to do to the list in memory when it is, or is not. */
struct hold_change {
    struct stream *stream;
    uint64_t number;
    bool is_release;
    struct status refused; /* in the end: it is being taken out of the file again; OK: it is not */
    stream_done_fn *done;
    void *user;
};

static void tell(struct hold_change *change, struct stream *stream, const struct status *failure)
{
    struct stream_holds *holds = change->stream->holds;

    holds->is_changing = false;
    if (change->is_release == (failure == NULL))
        drop(&holds->all, change->number);
    if (change->is_release && failure == NULL) { /* what waited for room may go now */
        change->stream->waits_because[0] = '\0';
        store_room_changed(change->stream->store);
    }
    change->done(change->user, stream, failure);
    free(change);
}

static void say_rival(const struct segment *segment, struct status *st)
{
    uint64_t ms = stream_rival_retry_ms(segment);
    char when[48] = "the next start sees to it";

    if (ms > 0)
        snprintf(when, sizeof when, "that is tried again within %llu s", (unsigned long long)ms / 1000);
    status_fail(st, STATUS_UNAVAILABLE,
                "stream %s: a file that stands for the same frames as %s.seg could not be removed; %s: "
                "hold it then",
                segment->stream->name, segment->base, when);
    st->retry_after_ms = (uint32_t)ms;
}

/* A file that may take its segment's place at a start, whatever is held then. */
static bool has_rival(const struct stream *stream, const struct stream_hold *hold, struct status *st)
{
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];

        if (!segment->has_rival || !segment_meets(segment, hold))
            continue;
        say_rival(segment, st);
        return true;
    }
    return false;
}

static void changed(void *user, struct stream *stream, const struct status *failure);

void stream_hold_settle(struct stream *stream)
{
    struct stream_holds *holds = stream->holds;
    struct hold_change *change = holds == NULL ? NULL : holds->settling;
    struct status st;

    if (change == NULL || segment_age_is_naming(stream->store, stream))
        return;
    holds->settling = NULL;
    if (!has_rival(stream, &holds->all.list[holds->all.count - 1], &change->refused)) {
        tell(change, stream, NULL);
        return;
    }
    drop(&holds->all, change->number);
    if (!stream_save_text(stream, "holds.json", text_of(stream, &holds->all), changed, change, &st))
        tell(change, NULL, &change->refused);
}

static void changed(void *user, struct stream *stream, const struct status *failure)
{
    struct hold_change *change = user;

    if (change->refused.code != STATUS_OK) { /* if the disk did not take that, the next start has the hold */
        tell(change, NULL, &change->refused);
        return;
    }
    if (change->is_release || failure != NULL) {
        tell(change, stream, failure);
        return;
    }
    change->stream->holds->settling = change;
    stream_hold_settle(change->stream);
}

static bool write_change(struct stream *stream, const struct hold_list *then, const struct hold_change *what,
                         struct status *st)
{
    struct hold_change *change = malloc(sizeof *change);

    if (change == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to change holds of stream %s", stream->name);
    *change = *what;
    stream->holds->is_changing = true;
    if (stream_save_text(stream, "holds.json", text_of(stream, then), changed, change, st))
        return true;
    stream->holds->is_changing = false;
    free(change);
    return false;
}

static bool check_quiet(const struct stream *stream, struct status *st)
{
    if (stream->deletion != NULL)
        return status_fail(st, STATUS_NOT_FOUND, "stream %s is being removed", stream->name);
    return stream->holds == NULL || !stream->holds->is_changing ||
           status_fail(st, STATUS_UNAVAILABLE,
                       "stream %s: another change of its holds is being written; try again", stream->name);
}

bool stream_hold_add(struct stream *stream, struct stream_hold *hold, stream_done_fn *done, void *user,
                     struct status *st)
{
    struct hold_change change = { .stream = stream, .done = done, .user = user };
    struct hold_list *holds;

    if (!check_quiet(stream, st) || has_rival(stream, hold, st))
        return false;
    if (stream_is_being_forgotten(stream, hold->from_ns, hold->to_ns))
        return status_fail(st, STATUS_ABORTED, "stream %s: something of that range is being forgotten",
                           stream->name);
    if (stream->holds == NULL && !make_holds(stream, st))
        return false;
    holds = &stream->holds->all;
    drop_expired(holds, store_now_ns(stream->store));
    if (holds->count == STREAM_HOLDS_MAX)
        return status_fail(st, STATUS_EXHAUSTED, "stream %s has %d holds, the most there can be",
                           stream->name, STREAM_HOLDS_MAX);
    change.number = hold->number = holds->next++;
    hold->created_ns = clock_utc_ns();
    holds->list[holds->count++] = *hold;
    if (write_change(stream, holds, &change, st))
        return true;
    drop(holds, hold->number);
    return false;
}

bool stream_hold_release(struct stream *stream, uint64_t number, stream_done_fn *done, void *user,
                         struct status *st)
{
    struct hold_change change = {
        .stream = stream, .number = number, .is_release = true, .done = done, .user = user
    };
    struct hold_list *then;
    uint32_t before;
    bool ok;

    if (!check_quiet(stream, st))
        return false;
    then = malloc(sizeof *then);
    if (then == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to change holds of stream %s", stream->name);
    if (stream->holds != NULL)
        *then = stream->holds->all;
    else
        then->count = 0;
    before = then->count;
    drop(then, number);
    ok = then->count < before || status_fail(st, STATUS_NOT_FOUND, "stream %s has no hold of number %llu",
                                             stream->name, (unsigned long long)number);
    ok = ok && write_change(stream, then, &change, st);
    free(then);
    return ok;
}

/* --- at start --- */

bool stream_holds_load(struct stream *stream, struct status *st)
{
    if (!make_holds(stream, st))
        return false;
    if (hold_list_read(&stream->holds->all, stream->store->disk, stream->folder, st))
        return true;
    free(stream->holds);
    stream->holds = NULL;
    return st->code == STATUS_NOT_FOUND;
}
