#include "kvstore/stream_forget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/arena_wipe.h"
#include "kvstore/forget_marks.h"
#include "kvstore/segment_age.h"
#include "kvstore/store.h"
#include "kvstore/stream_hold.h"
#include "kvstore/stream_rival.h"

enum {
    SOON_MS = 1,
    LATER_MS = 20,
    AGAIN_MS = 1000,
};

struct stream_forgets {
    struct stream *stream;
    struct receipt_list all;
    /* under way: the last of the list */
    bool is_pending, is_saving, is_ageing;
    bool is_intended; /* durable */
    bool is_refused;  /* the intent could not be written for sure: it is taken back */
    bool has_oldest;
    struct forget_receipt oldest;  /* that the newest pushed out */
    struct forget_receipt refused; /* not in the list any more */
    struct segment_age age;
    uint64_t seen_seq;            /* files before it have nothing of it any more */
    bool is_rewritten, is_wiping; /* no file has anything of it; what is free is being zeroed */
    struct arena_wipe wipe;
    struct loop_timer timer;
    char waits_because[STATUS_TEXT_BYTES]; /* "": it goes on */
    stream_done_fn *done;                  /* NULL: nobody waits */
    void *user;
};

const struct forget_receipt *stream_receipt_at(const struct stream *stream, uint32_t n)
{
    return stream->forgets != NULL && n < stream->forgets->all.count ? &stream->forgets->all.list[n] : NULL;
}

static struct forget_receipt *newest(struct stream_forgets *forgets)
{
    return &forgets->all.list[forgets->all.count - 1];
}

bool stream_forgets_below(const struct stream *stream, uint64_t seq)
{
    const struct stream_forgets *forgets = stream->forgets;

    return forgets != NULL && forgets->is_pending && !forgets->is_refused &&
           forgets->all.list[forgets->all.count - 1].next_seq == seq;
}

bool stream_is_being_forgotten(const struct stream *stream, int64_t from_ns, int64_t to_ns)
{
    struct stream_forgets *forgets = stream->forgets;
    const struct forget_receipt *receipt;

    if (forgets == NULL || !forgets->is_pending)
        return false;
    receipt = forgets->is_refused ? &forgets->refused : newest(forgets);
    return receipt->from_ns < to_ns && receipt->to_ns > from_ns;
}

/* --- the file --- */

static bool make(struct stream *stream, struct status *st)
{
    stream->forgets = calloc(1, sizeof *stream->forgets);
    if (stream->forgets == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to forget something of stream %s", stream->name);
    stream->forgets->stream = stream;
    stream->forgets->all.next = 1;
    return true;
}

bool stream_forget_load(struct stream *stream, struct status *st)
{
    struct stream_forgets *forgets;

    if (!make(stream, st))
        return false;
    forgets = stream->forgets;
    if (receipt_list_read(&forgets->all, stream->store->disk, stream->folder, st)) {
        forgets->is_pending = forgets->all.count > 0 && newest(forgets)->done_ns == 0;
        return true;
    }
    free(forgets);
    stream->forgets = NULL;
    return st->code == STATUS_NOT_FOUND;
}

static bool save(struct stream_forgets *forgets, stream_done_fn *done, struct status *st)
{
    struct stream *stream = forgets->stream;
    char file[CHECKED_JSON_FILE_BYTES];

    stream_file_of(stream, "forget.json", file);
    forgets->is_saving =
        stream_save_text(stream, "forget.json", receipt_list_text(&forgets->all, file), done, forgets, st);
    return forgets->is_saving;
}

/* --- steps --- */

static void step(struct stream_forgets *forgets);

static void step_is_due(struct loop_timer *timer)
{
    step(container_of(timer, struct stream_forgets, timer));
}

static void step_in(struct stream_forgets *forgets, uint64_t ms)
{
    loop_timer_start(forgets->stream->store->loop, &forgets->timer, ms, step_is_due);
}

static void say_why(struct stream_forgets *forgets, const char *why)
{
    char *text = forgets->waits_because;

    text[stream_copy_text(text, sizeof forgets->waits_because - 1, why)] = '\0';
}

/* Something is in its way. */
static void wait_for(struct stream_forgets *forgets, uint64_t ms, const char *why)
{
    say_why(forgets, why);
    step_in(forgets, ms);
}

const char *stream_forget_waits_because(const struct stream *stream)
{
    const struct stream_forgets *forgets = stream->forgets;

    if (forgets == NULL || !forgets->is_pending)
        return "";
    return forgets->is_ageing && forgets->age.waits_since_ns != 0 ? forgets->age.st.text
                                                                  : forgets->waits_because;
}

/* It has waited for room, and nothing else can make any: it would be the next to go for a writer, too. A disk that was full, or
 * memory that was short, while it was written is another thing. */
static bool is_last_to_go(const struct segment_age *age)
{
    const struct segment *segment = age->segment;

    if (age->waits_since_ns == 0)
        return false;
    for (const struct segment *other = segment->stream->store->oldest; other != NULL; other = other->newer)
        if (other != segment && segment_held(other) == NULL)
            return false;
    return segment_held(segment) == NULL;
}

static void aged(struct segment_age *age)
{
    struct stream_forgets *forgets = container_of(age, struct stream_forgets, age);
    const struct log_context context = { .stream = forgets->stream->name };

    forgets->is_ageing = false;
    if (age->ok) {
        forgets->waits_because[0] = '\0';
        step_in(forgets, SOON_MS);
        return;
    }
    if (age->st.code == STATUS_EXHAUSTED && is_last_to_go(age) &&
        store_remove_segment(forgets->stream->store, age->segment)) {
        log_warn(&context, "forget_removes", "%s; all else is held, so %s goes as a whole", age->st.text,
                 age->segment->base);
        step_in(forgets, LATER_MS);
        return;
    }
    log_warn(&context, "forget_waits", "%s; trying again", age->st.text);
    wait_for(forgets, AGAIN_MS, age->st.text);
}

/* A file that is sealed, or will never be: its copies in RAM go, then it is written anew. */
static void rewrite(struct stream_forgets *forgets, struct segment *segment)
{
    const struct forget_receipt *receipt = newest(forgets);

    for (uint64_t n = 0; n < segment->index.frame_count; n++) {
        struct index_frame *frame = index_part_at(&segment->index, n);

        if (frame->is_forgotten)
            index_frame_drop_copies(frame, forgets->stream->store->arena);
    }
    forgets->age = (struct segment_age){
        .segment = segment,
        .transform = { .forgets = true,
                       .from_ns = receipt->from_ns,
                       .to_ns = receipt->to_ns,
                       .below_seq = receipt->next_seq },
        .makes_room = true,
        .done = aged,
    };
    forgets->is_ageing = true;
    segment_age_submit(forgets->stream->store, &forgets->age);
}

/* It is as it will be, and had nothing when it was looked at. */
static bool was_seen(const struct stream_forgets *forgets, const struct segment *segment)
{
    return segment->end_seq <= forgets->seen_seq && segment->super.first_seq < forgets->seen_seq;
}

/* True: a file still has something; it is seen to. Files whose turn has been are not looked at again. */
static bool rewrite_next(struct stream_forgets *forgets)
{
    struct stream *stream = forgets->stream;
    bool waits = false;

    for (uint32_t i = 0; i < stream->segment_count; i++) {
        struct segment *segment = stream->segments[i];

        if (was_seen(forgets, segment))
            continue;
        if (!forget_has_something(newest(forgets), segment)) {
            if (!waits && segment->writer == NULL && !segment->is_leaving)
                forgets->seen_seq = segment->end_seq;
            continue;
        }
        if (segment->writer == NULL && !segment->is_leaving) {
            rewrite(forgets, segment);
            return true;
        }
        if (segment->writer != NULL && segment_is_open(segment))
            segment_close(segment);
        waits = true;
    }
    if (waits)
        wait_for(forgets, LATER_MS, "a file that has some of it is still being written");
    return waits;
}

static void received(void *user, struct stream *stream, const struct status *failure)
{
    struct stream_forgets *forgets = user;
    const struct log_context context = { .stream = forgets->stream->name };
    stream_done_fn *done = forgets->done;

    forgets->is_saving = false;
    if (failure != NULL) {
        newest(forgets)->done_ns = 0;
        wait_for(forgets, AGAIN_MS, failure->text);
        return;
    }
    forgets->is_pending = false;
    forgets->done = NULL;
    log_info(&context, "forgotten", "%llu frames, %llu bytes, from %llu files",
             (unsigned long long)newest(forgets)->frames, (unsigned long long)newest(forgets)->bytes,
             (unsigned long long)newest(forgets)->files);
    if (done != NULL)
        done(forgets->user, stream, NULL);
}

/* Also when the stream's folder could not be removed as a whole: nothing is written to it any more. */
static bool is_over(const struct stream_forgets *forgets)
{
    const struct stream *stream = forgets->stream;

    return !forgets->is_pending || stream->deletion != NULL || !stream->is_ready || stream->store->is_closing;
}

/* --- the intent --- */

static void taken_back(void *user, struct stream *stream, const struct status *failure)
{
    struct stream_forgets *forgets = user;

    (void)stream;
    forgets->is_saving = false;
    if (failure != NULL)
        step_in(forgets, AGAIN_MS);
    else
        forgets->is_pending = forgets->is_refused = false;
}

static void refuse(struct stream_forgets *forgets, const struct status *why)
{
    struct receipt_list *all = &forgets->all;
    stream_done_fn *done = forgets->done;

    forget_unmark_frames(forgets->stream);
    forgets->refused = *newest(forgets);
    forgets->is_refused = true;
    all->count--;
    if (forgets->has_oldest) {
        memmove(&all->list[1], &all->list[0], all->count++ * sizeof all->list[0]);
        all->list[0] = forgets->oldest;
    }
    forgets->done = NULL;
    step_in(forgets, SOON_MS);
    if (done != NULL)
        done(forgets->user, NULL, why);
}

static void intended(void *user, struct stream *stream, const struct status *failure)
{
    struct stream_forgets *forgets = user;

    (void)stream;
    forgets->is_saving = false;
    forgets->is_intended = failure == NULL;
    if (failure == NULL)
        step_in(forgets, SOON_MS);
    else
        refuse(forgets, failure);
}

/* Writes it, once what it counts is durable; or takes it back. */
static void note(struct stream_forgets *forgets)
{
    struct stream *stream = forgets->stream;
    struct status st;

    if (!forgets->is_refused && stream_durable_seq(stream) < newest(forgets)->next_seq) {
        stream_commit(stream);
        wait_for(forgets, LATER_MS, "what came just before is not on the disk yet");
        return;
    }
    if (save(forgets, forgets->is_refused ? taken_back : intended, &st))
        return;
    if (forgets->is_refused)
        step_in(forgets, AGAIN_MS);
    else
        refuse(forgets, &st);
}

static void give_receipt(struct stream_forgets *forgets)
{
    struct status st;

    newest(forgets)->done_ns = clock_utc_ns();
    if (!save(forgets, received, &st)) {
        newest(forgets)->done_ns = 0;
        wait_for(forgets, AGAIN_MS, st.text);
    }
}

static void wiped(struct arena_wipe *wipe)
{
    struct stream_forgets *forgets = container_of(wipe, struct stream_forgets, wipe);

    forgets->is_wiping = false;
    if (forgets->stream->deletion != NULL)
        stream_continue_deletion(forgets->stream);
    else if (!is_over(forgets))
        give_receipt(forgets);
}

static void step(struct stream_forgets *forgets)
{
    struct store *store = forgets->stream->store;

    if (is_over(forgets) || forgets->is_saving || forgets->is_ageing || forgets->is_wiping)
        return;
    if (forgets->is_refused || !forgets->is_intended) {
        note(forgets);
        return;
    }
    if (stream_has_rivals(forgets->stream)) { /* they have what their segments had */
        wait_for(forgets, AGAIN_MS,
                 "a file that was removed or written anew before may still be on the disk");
        return;
    }
    if (!forgets->is_rewritten) {
        if (rewrite_next(forgets))
            return;
        if (segment_age_is_leaving(store, forgets->stream)) { /* it has what was thinned or reduced */
            step_in(forgets, LATER_MS);
            return;
        }
        forgets->is_rewritten = true;
        ram_make_loose_secret(store->arena);
    }
    if (ram_has_secrets(store->arena) ||
        store->index_memory.secret_chunks > 0) { /* somebody reads it still */
        wait_for(forgets, LATER_MS, "somebody reads it still");
        return;
    }
    forgets->waits_because[0] = '\0';
    forgets->is_wiping = true;
    forgets->wipe = (struct arena_wipe){ .store = store, .done = wiped };
    arena_wipe_start(&forgets->wipe);
}

/* --- asking --- */

/* What is in such a file would be back with a start that can use it. */
static bool knows_all(const struct stream *stream, struct status *st)
{
    return stream->unusable[0] == '\0' ||
           status_fail(
               st, STATUS_PRECONDITION,
               "nothing of stream %s can be forgotten: the store could not use %s, so nobody knows what is in it; start "
               "it again when the disk can be read, or without that file",
               stream->name, stream->unusable);
}

static bool check(struct stream *stream, int64_t from_ns, int64_t to_ns, struct status *st)
{
    const struct stream_hold *hold = stream_held(stream, from_ns, to_ns);

    if (stream->deletion != NULL)
        return status_fail(st, STATUS_NOT_FOUND, "stream %s is being removed", stream->name);
    if (from_ns >= to_ns)
        return status_fail(st, STATUS_INVALID, "the range to forget ends before it begins");
    if (hold != NULL)
        return status_fail(st, STATUS_PRECONDITION,
                           "stream %s is held in that range by %s (%s): release the hold first", stream->name,
                           hold->owner, hold->reason);
    if (!knows_all(stream, st))
        return false;
    return stream->forgets == NULL || !stream->forgets->is_pending ||
           status_fail(st, STATUS_ABORTED,
                       "stream %s: another range is being forgotten; ask again when it is", stream->name);
}

bool stream_forget(struct stream *stream, int64_t from_ns, int64_t to_ns, stream_done_fn *done, void *user,
                   struct status *st)
{
    struct stream_forgets *forgets;
    struct receipt_list *all;

    if (!check(stream, from_ns, to_ns, st))
        return false;
    if (stream->forgets == NULL && !make(stream, st))
        return false;
    forgets = stream->forgets;
    all = &forgets->all;
    forgets->has_oldest = all->count == FORGET_RECEIPTS_MAX;
    if (forgets->has_oldest) {
        forgets->oldest = all->list[0];
        memmove(&all->list[0], &all->list[1], --all->count * sizeof all->list[0]);
    }
    all->list[all->count++] = (struct forget_receipt){ .number = all->next++,
                                                       .next_seq = stream->next_seq,
                                                       .from_ns = from_ns,
                                                       .to_ns = to_ns,
                                                       .asked_ns = clock_utc_ns() };
    snprintf(newest(forgets)->store, sizeof newest(forgets)->store, "%s", stream->store->options.name);
    snprintf(newest(forgets)->version, sizeof newest(forgets)->version, "%s", REELKV_VERSION);
    forgets->waits_because[0] = '\0';
    forgets->is_pending = true;
    forgets->is_intended = false;
    forgets->is_rewritten = false;
    forgets->seen_seq = 0;
    forgets->done = done;
    forgets->user = user;
    forget_mark_frames(stream, newest(forgets), true);
    step(forgets);
    return true;
}

void stream_forget_resume(struct stream *stream)
{
    const struct log_context context = { .stream = stream->name };
    struct status st;

    if (stream->forgets == NULL || !stream->forgets->is_pending)
        return;
    stream->forgets->is_intended = true;
    forget_mark_frames(stream, newest(stream->forgets), false);
    if (knows_all(stream, &st)) {
        step_in(stream->forgets, SOON_MS);
        return;
    }
    log_error(&context, "forget_waits", "%s", st.text);
    say_why(stream->forgets, st.text);
}

void stream_forget_leave(struct stream *stream, const struct status *why)
{
    struct stream_forgets *forgets = stream->forgets;
    stream_done_fn *done = forgets == NULL ? NULL : forgets->done;

    if (done == NULL)
        return;
    forgets->done = NULL;
    done(forgets->user, NULL, why);
}

bool stream_forget_is_idle(const struct stream *stream)
{
    return stream->forgets == NULL || !stream->forgets->is_wiping;
}

void stream_forget_free(struct stream *stream)
{
    if (stream->forgets == NULL)
        return;
    loop_timer_stop(&stream->forgets->timer);
    free(stream->forgets);
}
