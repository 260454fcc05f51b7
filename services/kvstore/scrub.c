#include "kvstore/scrub.h"

#include <linux/ioprio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/require.h"
#include "kv/kv_check.h"
#include "kv/scrub_state.h"
#include "kvstore/store.h"

enum { WATCH_MS = 100, AHEAD_MS_MAX = 3600 * 1000 };

struct scrub_range {
    uint64_t from_seq, to_seq; /* exclusive */
};

/* One segment, or scrub.json (segment NULL). */
struct scrub_job {
    struct work work;
    struct store *store;
    struct segment *segment;
    atomic_bool is_unwanted;
    struct kv_check check;
    char path[PATH_MAX + 8];
    uint64_t read_bytes, due_ns; /* due: the bytes so far are allowed by then */
    struct scrub_range *ranges;
    uint32_t range_count, range_room, damaged;
    bool ok;
    struct status st;
    char *text; /* of scrub.json */
};

/* --- on the scrubbing thread --- */

static void sleep_until(const struct scrub_job *job)
{
    const struct timespec slice = { .tv_nsec = SCRUB_SLICE_MS * 1000000 };

    while (!job->is_unwanted && clock_mono_ns() < job->due_ns)
        nanosleep(&slice, NULL);
}

static bool advance(struct kv_check *check, uint64_t bytes)
{
    struct scrub_job *job = container_of(check, struct scrub_job, check);
    uint64_t rate = job->store->options.scrub_bytes_per_second;

    job->read_bytes += bytes;
    job->due_ns += (uint64_t)((double)bytes * 1e9 / (double)rate);
    sleep_until(job);
    return !job->is_unwanted;
}

static bool add_range(struct scrub_job *job, uint64_t from_seq, uint64_t to_seq)
{
    uint32_t room = job->range_room == 0 ? 16 : 2 * job->range_room;
    struct scrub_range *ranges = job->ranges;

    if (job->range_count == job->range_room) {
        ranges = realloc(ranges, room * sizeof *ranges);
        if (ranges == NULL)
            return false;
        job->ranges = ranges;
        job->range_room = room;
    }
    ranges[job->range_count++] = (struct scrub_range){ from_seq, to_seq };
    return true;
}

static void found(struct kv_check *check, const struct kv_finding *finding)
{
    struct scrub_job *job = container_of(check, struct scrub_job, check);
    const struct log_context context = { .stream = check->super.stream };

    if (finding->kind == KV_FOUND_KNOWN)
        return;
    if (finding->kind == KV_FOUND_UNREAD) {
        log_warn(&context, "scrub_unread", "%s: %s", check->path, finding->text);
        return;
    }
    job->damaged++;
    log_error(&context, "scrub_found_damage", "%s: %llu bytes at %llu: %s", check->path,
              (unsigned long long)finding->bytes, (unsigned long long)finding->offset, finding->text);
    if (finding->from_seq < finding->to_seq && !add_range(job, finding->from_seq, finding->to_seq))
        log_error(&context, "frames_not_marked", "%s: no memory; its readers find them", check->path);
}

static void accounts(struct kv_check *check, uint64_t from_seq, uint64_t to_seq)
{
    (void)check;
    (void)from_seq;
    (void)to_seq;
}

/* Below everything else that reads this disk. Where it is not allowed, the rate alone holds it back. */
static void step_back(void)
{
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
}

static void job_run(struct work *work)
{
    struct scrub_job *job = container_of(work, struct scrub_job, work);

    step_back();
    if (job->segment == NULL) {
        job->ok = file_write_durable_on(job->store->disk, job->path, job->text, strlen(job->text), &job->st);
        return;
    }
    job->due_ns = clock_mono_ns();
    job->ok = kv_check_run(&job->check, &job->st);
}

/* --- on the loop --- */

static void wait_for(struct store *store, uint64_t ms);
static void next(struct store *store);

/* A gap's range has more numbers than anybody could count. Returns how many frames it has. */
static uint64_t quarantine(struct segment *segment, uint64_t from_seq, uint64_t to_seq,
                           void (*mark)(struct segment *segment, struct index_frame *frame))
{
    const struct index_part *index = &segment->index;
    uint64_t first = index_part_place(index, from_seq), n = first;

    for (; n < index->frame_count && index_part_at(index, n)->seq < to_seq; n++)
        mark(segment, index_part_at(index, n));
    return n - first;
}

/* What of it is no frame the next start finds by itself, or nobody asks for. */
static void take_range(struct scrub_job *job, const struct scrub_range *range)
{
    struct segment *segment = job->segment;
    struct scrub *scrub = &job->store->scrub;
    const struct scrub_damage damage = { .salt = segment->super.salt,
                                         .from_seq = range->from_seq,
                                         .to_seq = range->to_seq < segment->end_seq ? range->to_seq
                                                                                    : segment->end_seq,
                                         .found_ns = clock_utc_ns() };

    if (quarantine(segment, range->from_seq, range->to_seq, stream_quarantine) == 0)
        return;
    scrub->has_news = true;
    if (!scrub_damages_add(&scrub->damages, &damage))
        log_warn(NULL, "scrub_forgets", "%s: more is damaged than is kept for the next start", job->path);
}

/* In place of what was found in the segment before, when it was read to its end. */
static void take_damage(struct scrub_job *job)
{
    struct scrub *scrub = &job->store->scrub;
    uint32_t before = scrub->damages.count;

    if (job->ok)
        scrub_damages_drop(&scrub->damages, job->segment->super.salt);
    scrub->has_news |= scrub->damages.count != before;
    for (uint32_t i = 0; i < job->range_count && !job->segment->is_leaving; i++)
        take_range(job, &job->ranges[i]);
}

/* False: it could not be read for want of memory or files; it is read again. */
static bool segment_read(struct scrub_job *job)
{
    struct store *store = job->store;
    struct segment *segment = job->segment;
    struct stream *stream = segment->stream;
    const struct log_context context = { .stream = segment->super.stream };
    bool is_read = job->ok || job->st.code != STATUS_EXHAUSTED;

    segment->reads--;
    take_damage(job);
    store->scrub.read_bytes += job->read_bytes;
    store->scrub.damaged += job->damaged;
    if (!is_read)
        log_warn(&context, "scrub_waits", "%s: %s; read again in a minute", job->path, job->st.text);
    if (is_read && !store->is_closing) { /* else the next life reads it again */
        store->scrub.cursor_ns = segment->super.created_ns;
        store->scrub.cursor_salt = segment->super.salt;
    }
    stream_progress(stream);
    store_room_changed(store);
    return is_read;
}

static void job_free(struct scrub_job *job)
{
    if (job != NULL) {
        free(job->ranges);
        free(job->text);
    }
    free(job);
}

static void job_done(struct work *work)
{
    struct scrub_job *job = container_of(work, struct scrub_job, work);
    struct store *store = job->store;
    bool goes_on = true;

    store->scrub.job = NULL;
    if (job->segment != NULL)
        goes_on = segment_read(job);
    else if (!job->ok)
        log_warn(NULL, "scrub_not_saved", "%s", job->st.text);
    job_free(job);
    if (store->is_closing)
        return;
    if (goes_on)
        next(store);
    else
        wait_for(store, SCRUB_AFTER_MS);
}

static struct scrub_job *job_create(struct store *store, struct segment *segment)
{
    struct scrub_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->store = store;
    job->segment = segment;
    job->work = (struct work){ .run = job_run, .done = job_done };
    return job;
}

static bool submit(struct store *store, struct scrub_job *job)
{
    if (job == NULL || !work_pool_submit(store->scrub.pool, &job->work)) {
        job_free(job);
        wait_for(store, SCRUB_AFTER_MS);
        return false;
    }
    store->scrub.job = job;
    return true;
}

static void save(struct store *store)
{
    struct scrub_job *job = job_create(store, NULL);

    if (job != NULL) {
        snprintf(job->path, sizeof job->path, "%s/scrub.json", store->options.root);
        job->text = scrub_state_text(&(struct scrub_state){ store->scrub.full_ns, store->scrub.pass_ns,
                                                            store->scrub.cursor_ns, store->scrub.damages });
    }
    if (job != NULL && job->text == NULL) {
        job_free(job);
        job = NULL;
    }
    store->scrub.saved_ns = clock_mono_ns();
    store->scrub.has_news = false;
    submit(store, job);
}

static bool is_ahead(const struct scrub *scrub, const struct segment *segment)
{
    int64_t age_ns = segment->super.created_ns;

    return age_ns > scrub->cursor_ns ||
           (age_ns == scrub->cursor_ns && segment->super.salt > scrub->cursor_salt);
}

/* The one that comes next in this pass; of one age by salt. */
static struct segment *next_segment(const struct store *store)
{
    struct segment *best = NULL;

    for (struct segment *segment = store->oldest; segment != NULL; segment = segment->newer) {
        int64_t age_ns = segment->super.created_ns;

        if (age_ns > store->scrub.pass_ns || (best != NULL && age_ns > best->super.created_ns))
            break;
        if (segment->state == SEGMENT_SEALED && !segment->is_leaving && segment->stream->deletion == NULL &&
            is_ahead(&store->scrub, segment) && (best == NULL || segment->super.salt < best->super.salt))
            best = segment;
    }
    return best;
}

static void read_segment(struct store *store, struct segment *segment)
{
    struct scrub_job *job = job_create(store, segment);

    if (job != NULL) {
        snprintf(job->path, sizeof job->path, "%s.seg", segment->base);
        job->check = (struct kv_check){ .disk = store->disk,
                                        .path = job->path,
                                        .name = { segment->super.first_seq, segment->super.salt, false },
                                        .found = found,
                                        .accounts = accounts,
                                        .advance = advance };
    }
    if (!submit(store, job))
        return;
    segment->reads++;
    wait_for(store, WATCH_MS);
}

static void end_pass(struct store *store)
{
    struct scrub *scrub = &store->scrub;

    scrub_damages_drop_older(&scrub->damages, scrub->pass_ns); /* of segments that are no more */
    scrub->full_ns = clock_utc_ns();
    scrub->pass_ns = scrub->cursor_ns = 0;
    scrub->cursor_salt = 0;
    log_info(NULL, "scrubbed", "all sealed segments; %llu bytes and %llu damaged places since the start",
             (unsigned long long)scrub->read_bytes, (unsigned long long)scrub->damaged);
    save(store);
}

static void next(struct store *store)
{
    struct scrub *scrub = &store->scrub;
    struct segment *segment;

    if (scrub->pass_ns == 0) {
        wait_for(store, SCRUB_AFTER_MS);
        return;
    }
    segment = next_segment(store);
    if (segment == NULL)
        end_pass(store);
    else if (scrub->has_news || clock_mono_ns() - scrub->saved_ns > SCRUB_SAVE_MS * 1000000ull)
        save(store);
    else
        read_segment(store, segment);
}

/* The clock went back since: who would wait for it might wait for years. */
static bool is_ahead_of_clock(int64_t full_ns)
{
    return full_ns > clock_utc_ns() + AHEAD_MS_MAX * 1000000ll;
}

static bool is_due(const struct scrub *scrub)
{
    return scrub->pass_ns != 0 || is_ahead_of_clock(scrub->full_ns) ||
           clock_utc_ns() >= scrub->full_ns + SCRUB_EVERY_MS * 1000000ll;
}

static void tick(struct loop_timer *timer)
{
    struct store *store = container_of(timer, struct store, scrub.timer);
    struct scrub *scrub = &store->scrub;

    if (scrub->job != NULL) {
        const struct segment *segment = scrub->job->segment;

        if (segment != NULL && (segment->is_leaving || segment->stream->deletion != NULL))
            scrub->job->is_unwanted = true;
        wait_for(store, WATCH_MS);
    } else if (is_due(scrub) && !keys_are_coming(store)) {
        scrub_begin(store);
    } else {
        wait_for(store, SCRUB_AFTER_MS);
    }
}

static void wait_for(struct store *store, uint64_t ms)
{
    loop_timer_start(store->loop, &store->scrub.timer, ms, tick);
}

void scrub_begin(struct store *store)
{
    struct scrub *scrub = &store->scrub;

    if (scrub->job != NULL)
        return;
    if (is_ahead_of_clock(scrub->full_ns)) {
        log_warn(NULL, "scrub_clock_back",
                 "the last whole pass ended, by its clock, in the future; one more begins now");
        scrub->full_ns = 0;
    }
    if (scrub->pass_ns == 0)
        scrub->pass_ns = clock_utc_ns();
    next(store);
}

bool scrub_yield(struct store *store, const struct segment *segment)
{
    if (store->scrub.job == NULL || store->scrub.job->segment != segment)
        return false;
    store->scrub.job->is_unwanted = true;
    return true;
}

/* --- beginning and end --- */

static void quarantine_known(const struct scrub_damage *damage, struct segment *segment)
{
    const struct log_context context = { .stream = segment->super.stream };
    uint64_t frames = quarantine(segment, damage->from_seq, damage->to_seq, stream_quarantine_known);

    if (frames > 0)
        log_warn(&context, "damage_known",
                 "%s: %llu frames from %llu on, which the scrub found damaged before", segment->base,
                 (unsigned long long)frames, (unsigned long long)damage->from_seq);
}

static void quarantine_all_known(const struct store *store)
{
    const struct scrub_damages *damages = &store->scrub.damages;

    for (struct segment *segment = store->oldest; segment != NULL && damages->count > 0;
         segment = segment->newer)
        for (uint32_t i = 0; i < damages->count; i++)
            if (damages->list[i].salt == segment->super.salt)
                quarantine_known(&damages->list[i], segment);
}

/* False: there is none. */
static bool read_file(struct store *store)
{
    struct scrub_state state;
    struct status st = { 0 };

    if (!scrub_state_read(&state, store->disk, store->options.root, &st) && st.code != STATUS_NOT_FOUND)
        log_warn(NULL, "scrub_starts_anew", "%s", st.text);
    store->scrub.full_ns = state.full_ns;
    store->scrub.pass_ns = state.pass_ns;
    store->scrub.cursor_ns = state.cursor_ns;
    store->scrub.damages = state.damages;
    quarantine_all_known(store);
    return st.code != STATUS_NOT_FOUND;
}

bool scrub_open(struct store *store, struct status *st)
{
    const struct work_pool_options options = { .name = "kv-scrubbing", .threads = 1, .queue_max = 1 };

    if (read_file(store) || store->options.scrub_bytes_per_second > 0)
        store->disk_used_bytes += SCRUB_FILE_BYTES;
    if (store->options.scrub_bytes_per_second == 0)
        return true;
    if (!work_pool_create(&store->scrub.pool, store->loop, &options, st))
        return false;
    store->scrub.saved_ns = clock_mono_ns();
    wait_for(store, SCRUB_AFTER_MS);
    return true;
}

void scrub_stop(struct store *store)
{
    loop_timer_stop(&store->scrub.timer); /* nothing starts it again: next() is not called any more */
    if (store->scrub.job != NULL)
        store->scrub.job->is_unwanted = true;
}

void scrub_close(struct store *store)
{
    work_pool_destroy(store->scrub.pool);
}
