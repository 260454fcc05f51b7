#include "kvstore/segment_age.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/require.h"
#include "kvstore/segment_age_internal.h"
#include "kvstore/segment_age_job.h"
#include "kvstore/segment_fetch.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"
#include "kvstore/stream_hold.h"
#include "kvstore/stream_rival.h"

enum { YIELD_MS = 5, AGAIN_MS = 1000, ROOM_WAIT_MS = 30 * 1000 };

/* --- the one at hand --- */

bool segment_age_is_idle(const struct store *store)
{
    return store->ages == NULL;
}

bool segment_age_is_of(const struct store *store, const struct stream *stream)
{
    for (const struct segment_age *age = store->ages; age != NULL; age = age->next)
        if (age->stream == stream)
            return true;
    return false;
}

bool segment_age_is_naming(const struct store *store, const struct stream *stream)
{
    return store->ages != NULL && store->ages->stream == stream && store->ages->step == AGE_NAMING;
}

bool segment_age_is_leaving(const struct store *store, const struct stream *stream)
{
    return store->ages != NULL && store->ages->stream == stream && store->ages->step >= AGE_LEAVING;
}

static void push_last(struct store *store, struct segment_age *age)
{
    struct segment_age **link = &store->ages;

    while (*link != NULL)
        link = &(*link)->next;
    *link = age;
    age->next = NULL;
}

void segment_age_submit(struct store *store, struct segment_age *age)
{
    age->store = store;
    age->stream = age->segment->stream;
    age->step = AGE_WAITING;
    age->ok = false;
    age->waits_since_ns = 0;
    age->segment->reads++; /* its file stays */
    push_last(store, age);
    segment_age_pump(store);
}

static void pump_later(struct loop_timer *timer)
{
    segment_age_pump(container_of(timer, struct store, age_timer));
}

static void again_in(struct store *store, uint64_t ms)
{
    if (!loop_timer_is_running(&store->age_timer))
        loop_timer_start(store->loop, &store->age_timer, ms, pump_later);
}

static void end(struct segment_age *age)
{
    struct store *store = age->store;
    struct stream *stream = age->stream;

    store->disk_used_bytes -= age->reserved_bytes;
    store->index_memory.used_bytes -= age->reserved_index_bytes;
    age_job_free(age->job, store->arena);
    age->job = NULL;
    age->reserved_bytes = age->reserved_index_bytes = 0;
    store->ages = age->next;
    stream_hold_settle(stream);
    (age->ok ? age->made : age->segment)->reads--;
    age->done(age);
    if (stream->deletion != NULL)
        stream_continue_deletion(stream);
    store_room_changed(store);
    segment_age_pump(store);
}

/* Room may come at any time; a disk that has failed will rather fail again. */
static void count_failure(const struct segment_age *age)
{
    struct segment *segment = age->segment;

    if (age->st.code == STATUS_EXHAUSTED || age->st.code == STATUS_ABORTED)
        return;
    segment->age_failures++;
    if (age->job->is_unread && segment->unread_since_ns == 0)
        segment->unread_since_ns = clock_mono_ns();
}

static void give_up(struct segment_age *age, const struct status *why)
{
    const struct log_context context = { .stream = age->segment->super.stream };

    age->st = *why;
    count_failure(age);
    if (age->job->is_left) {
        log_error(&context, "rewritten_segment_left", "%s could not be removed; trying again",
                  age->job->base);
        stream_rival_add(age->segment, age->job->base, age->reserved_bytes);
        stream_rivals_start(age->stream);
        age->reserved_bytes = 0; /* they stay counted */
    }
    end(age);
}

/* --- beginning --- */

/* The chunks of what is kept; those of the old file go when no question holds them. */
static uint64_t index_bytes_of(const struct age_job *job)
{
    const struct index_part *index = &job->from->index;
    uint64_t kept = 0;

    for (uint64_t n = 0; n < index->frame_count; n++)
        kept += age_fate_of(&job->transform, index_part_at(index, n)) == AGE_KEPT;
    return (kept + INDEX_CHUNK_FRAMES - 1) / INDEX_CHUNK_FRAMES * index_chunk_bytes(&job->super.geometry);
}

static bool has_index_room(const struct segment_age *age, uint64_t bytes)
{
    const struct index_memory *memory = &age->store->index_memory;

    return age->makes_room ? store_has_index_room(age->store, bytes)
                           : memory->used_bytes + bytes <= memory->limit_bytes;
}

static bool reserve(struct segment_age *age)
{
    struct store *store = age->store;
    const struct segment *segment = age->segment;
    uint64_t bytes = segment_age_bytes(segment, &age->transform), index_bytes = index_bytes_of(age->job);

    if (age->takes_all && bytes < segment->disk_bytes)
        bytes = segment->disk_bytes;
    bytes = round_up(bytes, KV_PAGE_BYTES);
    if (!has_index_room(age, index_bytes))
        return status_fail(&age->st, STATUS_EXHAUSTED, "it takes %llu bytes of the index, which has no room",
                           (unsigned long long)index_bytes);
    if (!store_has_disk_room(store, bytes + STORE_FILE_SLACK_BYTES, age->makes_room))
        return status_fail(&age->st, STATUS_EXHAUSTED,
                           "it takes %llu bytes, and the disk's budget has no room",
                           (unsigned long long)bytes);
    age->job->capacity = bytes;
    age->reserved_bytes = bytes + STORE_FILE_SLACK_BYTES;
    age->reserved_index_bytes = index_bytes;
    store->disk_used_bytes += age->reserved_bytes;
    store->index_memory.used_bytes += index_bytes;
    sketches_trim(&store->index_memory);
    return true;
}

/* Often enough, and for long enough, to be damage. */
static bool takes_unread(const struct segment *segment)
{
    return segment->unread_since_ns != 0 && segment->age_failures >= AGE_UNREAD_TIMES &&
           clock_mono_ns() - segment->unread_since_ns >= AGE_UNREAD_MS * 1000000ull;
}

static struct age_job *make_job(const struct segment_age *age)
{
    const struct segment *segment = age->segment;
    struct age_job *job = calloc(1, sizeof *job);
    uint8_t page[KV_PAGE_BYTES];

    if (job == NULL)
        return NULL;
    job->disk = age->store->disk;
    job->from = segment;
    job->fd = -1;
    job->transform = age->transform;
    job->takes_unread = takes_unread(segment);
    job->super = segment->super;
    job->super.salt = random_u64();
    job->super.replaces = segment->super.salt;
    job->super.aged = job->transform.aged = segment_age_merge(&segment->super.aged, &age->transform.aged);
    kv_super_put(&job->super, page); /* for its CRC */
    snprintf(job->base, sizeof job->base, "%.*s/%020llu-%016llx",
             (int)(strrchr(segment->base, '/') - segment->base), segment->base,
             (unsigned long long)job->super.first_seq, (unsigned long long)job->super.salt);
    return job;
}

/* Old segments go for it meanwhile, as far as any may; those that wait behind it have their turn. */
static void wait_for_room(struct segment_age *age)
{
    struct store *store = age->store;

    if (age->waits_since_ns == 0)
        age->waits_since_ns = clock_mono_ns();
    if (!age->makes_room || clock_mono_ns() - age->waits_since_ns >= ROOM_WAIT_MS * 1000000ull) {
        end(age);
        return;
    }
    store->ages = age->next;
    push_last(store, age);
    again_in(store, store->ages->waits_since_ns == 0 ? YIELD_MS : AGAIN_MS);
}

static void begin(struct segment_age *age)
{
    struct segment *segment = age->segment;

    if (segment->writer != NULL || segment->is_leaving || segment->has_rival ||
        segment->stream->deletion != NULL || age->store->is_closing) {
        status_fail(&age->st, STATUS_ABORTED, "the segment cannot be rewritten now");
        end(age);
        return;
    }
    if (segment->blank != NULL && keys_want(segment)) { /* questions may wait for them */
        again_in(age->store, YIELD_MS);
        return;
    }
    if (segment->blank != NULL) {
        status_fail(&age->st, STATUS_UNAVAILABLE, "%s.seg cannot be read now", segment->base);
        end(age);
        return;
    }
    age->job = make_job(age);
    if (age->job == NULL) {
        status_fail(&age->st, STATUS_EXHAUSTED, "no memory to rewrite %s", segment->base);
    } else if (reserve(age)) {
        age->waits_since_ns = 0;
        age->step = AGE_WRITING;
        return;
    }
    age_job_free(age->job, age->store->arena);
    age->job = NULL;
    wait_for_room(age);
}

/* --- the work --- */

/* Somebody may have asked for it to stay meanwhile. */
static bool may_swap(const struct segment_age *age)
{
    return age->stream->deletion == NULL && (age->transform.forgets || segment_held(age->segment) == NULL);
}

static void write_run(struct work *work)
{
    struct segment_age *age = container_of(work, struct segment_age, work);

    age->ok = age_job_step(age->job);
}

static void cancel_run(struct work *work)
{
    age_job_cancel(container_of(work, struct segment_age, work)->job);
}

static void name_run(struct work *work)
{
    struct segment_age *age = container_of(work, struct segment_age, work);

    age->ok = age_job_name(age->job);
}

static void unlink_run(struct work *work)
{
    struct segment_age *age = container_of(work, struct segment_age, work);

    age->ok = segment_file_remove(age->store->disk, age->segment->base, &age->st);
}

static void cancelled(struct work *work)
{
    struct segment_age *age = container_of(work, struct segment_age, work);

    age->is_running = false;
    if (age->job->st.code == STATUS_OK)
        status_fail(&age->job->st, STATUS_ABORTED, "the stream or the store goes");
    give_up(age, &age->job->st);
}

static void written(struct work *work)
{
    struct segment_age *age = container_of(work, struct segment_age, work);

    age->is_running = false;
    if (age->ok) {
        age->ok = false;
        if (age->job->is_finished)
            age->step = AGE_NAMING;
        segment_age_pump(age->store);
        return;
    }
    if (!age->job->is_larger || age->job->is_left || age->takes_all) {
        give_up(age, &age->job->st);
        return;
    }
    age->takes_all = true; /* from the beginning */
    age->store->disk_used_bytes -= age->reserved_bytes;
    age->store->index_memory.used_bytes -= age->reserved_index_bytes;
    age->reserved_bytes = age->reserved_index_bytes = 0;
    age_job_free(age->job, age->store->arena);
    age->job = NULL;
    age->step = AGE_WAITING;
    segment_age_pump(age->store);
}

static void named(struct work *work)
{
    struct segment_age *age = container_of(work, struct segment_age, work);

    age->is_running = false;
    if (age->ok) {
        age->ok = false;
        segment_age_swap(age);
        stream_hold_settle(age->stream);
        segment_age_pump(age->store);
        return;
    }
    segment_destroy(age->made);
    age->made = NULL;
    give_up(age, &age->job->st);
}

static void unlinked(struct work *work)
{
    struct segment_age *age = container_of(work, struct segment_age, work);
    const struct log_context context = { .stream = age->made->super.stream };

    age->is_running = false;
    if (!age->ok && !age->store->is_closing) {
        log_error(&context, "segment_not_removed", "%s; trying again", age->st.text);
        again_in(age->store, AGAIN_MS);
        return;
    }
    if (age->ok)
        age->store->disk_used_bytes -= age->segment->disk_bytes;
    else /* while writers end: its room is not theirs */
        log_error(&context, "segment_not_removed", "%s; the next start tries again", age->st.text);
    age->ok = true;
    log_info(&context, "segment_rewritten", "%s: %llu bytes were %llu, %llu frames went", age->made->base,
             (unsigned long long)age->bytes_after, (unsigned long long)age->bytes_before,
             (unsigned long long)age->dropped_frames);
    segment_destroy(age->segment);
    age->segment = NULL;
    end(age);
}

static void start(struct segment_age *age, void (*run)(struct work *work), void (*done)(struct work *work))
{
    age->work = (struct work){ .run = run, .done = done };
    age->is_running = work_pool_submit(age->store->ageing, &age->work);
    if (!age->is_running)
        again_in(age->store, YIELD_MS);
}

/* The next step, when nothing of higher rank waits for the disk. */
static void write_on(struct segment_age *age)
{
    struct store *store = age->store;

    if (store->is_closing || age->stream->deletion != NULL || age->is_cancelled)
        start(age, cancel_run, cancelled);
    else if (work_pool_waiting(store->writing) > 0)
        again_in(store, YIELD_MS);
    else
        start(age, write_run, written);
}

/* From the moment it has its name it counts: what could stop it is looked at before. */
static void name_on(struct segment_age *age)
{
    if (age->made == NULL && may_swap(age))
        age->made = segment_age_adopt(age, &age->job->st);
    if (age->made == NULL || !may_swap(age) || age->store->is_closing) {
        segment_destroy(age->made);
        age->made = NULL;
        age->is_cancelled = true;
        age->step = AGE_WRITING;
        write_on(age);
        return;
    }
    start(age, name_run, named);
}

void segment_age_pump(struct store *store)
{
    struct segment_age *age = store->ages;

    if (age == NULL || age->is_running)
        return;
    if (age->step == AGE_WAITING)
        begin(age);
    if (store->ages != age || age->is_running)
        return;
    if (age->step == AGE_WRITING) {
        write_on(age);
    } else if (age->step == AGE_NAMING) {
        name_on(age);
    } else if (age->step == AGE_LEAVING && age->segment->reads == 0) {
        age->step = AGE_UNLINKING;
        segment_fetch_close(age->segment);
        start(age, unlink_run, unlinked);
    } else if (age->step == AGE_UNLINKING) {
        start(age, unlink_run, unlinked);
    }
}
