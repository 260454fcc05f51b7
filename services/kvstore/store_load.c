/* The store at start: the lock, then everything the folder holds. The files are the truth: a stream is what its
 * stream.json, its history and its segments say. */
#include "kvstore/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/segment_load.h"
#include "kvstore/segment_replaced.h"
#include "kvstore/segment_scan.h"

enum { RAM_BYTES_MIN = 8 << 20, DISK_BYTES_MIN = 8 << 20 };

/* --- segments of a stream --- */

/* Files that cannot be used. Of one that cannot be looked into either, a later one tells where it ends at the latest. */
struct lost {
    struct segment_scan_end end; /* of their numbers and tokens */
    bool is_last;                /* the stream's last file is a sealed one of them, or without its footer */
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

    lost->is_last = !file->is_open;
    log_error(&context, "segment_unusable", "%s; it stays where it is and is not served", why->text);
    if (!segment_scan_end(stream->store->disk, path, file->salt, &end, &lost->unknown))
        lost->unknown_from_seq = file->first_seq;
    if (!file->is_open && end.seq == 0 && lost->unknown.code == STATUS_OK)
        end.seq = file->first_seq + 1; /* no header of it fits: what it had began with this number */
    stream->store->disk_used_bytes += stream->store->disk->stat(path, &info) == 0
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
    while (keep > 0 && index_part_at(&segment->index, keep - 1)->seq >= seq)
        keep--;
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
static void push_in_order(struct stream *stream, struct segment *segment)
{
    uint32_t at = stream->segment_count;

    REQUIRE(stream_push_segment(stream, segment));
    for (; at > 0; at--) {
        const struct kv_super *before = &stream->segments[at - 1]->super;

        if (before->first_seq != segment->super.first_seq || before->created_ns <= segment->super.created_ns)
            break;
        stream->segments[at] = stream->segments[at - 1];
        stream->segments[at - 1] = segment;
    }
}

static void report(const struct stream *stream, const char *base, const struct segment_load *load)
{
    const struct log_context context = { .stream = stream->name };

    if (load->was_scanned)
        log_event(load->damaged_frames > 0 ? LOG_ERROR : LOG_INFO, &context, "segment_recovered",
                  "%s%s: %llu torn bytes cut, %llu frames damaged", base, load->is_empty ? " was empty" : "",
                  (unsigned long long)load->torn_bytes, (unsigned long long)load->damaged_frames);
}

/* False when memory or descriptors are short: the file may be sound. */
static bool load_segment(struct stream *stream, const char *folder, const char *name, struct lost *lost,
                         struct status *st)
{
    char base[PATH_MAX], path[PATH_MAX + 8];
    struct kv_file_name file;
    struct segment *segment;
    struct segment_load load;

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
    lost->is_last = load.was_scanned && !load.was_open;
    if (segment == NULL)
        return true;
    if (segment->super.first_seq > lost->unknown_from_seq)
        lost->unknown.code = STATUS_OK;
    push_in_order(stream, segment);
    stream->store->disk_used_bytes += segment->disk_bytes;
    store_segment_sealed(stream->store, segment);
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
            if (!segment_drop_replaced(stream, folder, &files, n))
                ok = load_segment(stream, folder, files.list[n], lost, st);
        file_names_free(&files);
    }
    file_names_free(&epochs);
    return ok;
}

/* What follows from the segments, and behind them from files that cannot be used. The history may count one whose file
 * could not be removed any more. */
static void sum_up(struct stream *stream, const struct lost *lost)
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
    if (lost->is_last && stream->saved_seq > stream->next_seq)
        stream->next_seq = stream->saved_seq;
    if (lost->end.token_index > stream->next_token_index)
        stream->next_token_index = lost->end.token_index;
    stream_find_lost(stream);
}

/* The writer of this epoch may come back; the system prompt's block must open its next segments too. */
static void find_init(struct stream *stream)
{
    const struct segment *last = stream_last_segment(stream);
    const struct log_context context = { .stream = stream->name };
    struct status st;

    if (last == NULL || last->super.epoch != stream->epoch || last->init_offset == 0 || stream->has_ended)
        return;
    stream->init_image = segment_load_init(last, &stream->init_record, &st);
    if (stream->init_image == NULL) {
        stream->init_record.layers = 0;
        log_error(&context, "init_unusable", "%s", st.text);
    }
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

bool stream_load(struct stream *stream, struct status *st)
{
    struct lost lost = { 0 };

    if (!load_epochs(stream, &lost, st))
        return false;
    if (lost.unknown.code != STATUS_OK) { /* they must not be given again */
        *st = lost.unknown;
        return false;
    }
    cut_overlaps(stream);
    sum_up(stream, &lost);
    find_end(stream);
    find_init(stream);
    return true;
}

/* --- streams of the store --- */

/* Without it nobody knows which numbers were given: the store does not start. What is wrong with the file is said already. */
static bool refuse_damaged_file(struct status *st)
{
    size_t used = strlen(st->text);

    if (st->code != STATUS_INVALID && st->code != STATUS_DATA_LOSS)
        return false;
    st->code = STATUS_DATA_LOSS;
    snprintf(
        st->text + used, sizeof st->text - used,
        "; move the folder it is in, this camera's, out of the data folder: all others start without it");
    return false;
}

static bool load_stream(struct store *store, const char *ns, const char *name, struct status *st)
{
    struct stream *stream;
    struct stat info;

    if (!stream_create(&stream, store, ns, name, st))
        return false;
    if (store->disk->stat(stream->folder, &info) == 0 && !S_ISDIR(info.st_mode)) {
        stream_free(stream);
        return true;
    }
    if (!stream_load_file(stream, st)) {
        /* Killed while it was being defined: nobody was told that it exists. Anything else is for a person. */
        bool is_unfinished = st->code == STATUS_NOT_FOUND;

        stream_free(stream);
        return is_unfinished || refuse_damaged_file(st);
    }
    if (!store_add_stream(store, stream, st)) {
        stream_free(stream);
        return false;
    }
    return stream_load(stream, st);
}

static bool load_namespace(struct store *store, const char *folder, const char *ns, struct status *st)
{
    struct file_names names;
    bool ok = file_list_on(store->disk, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        char gone[PATH_MAX];

        if (strncmp(names.list[i], ".gone-", 6) == 0 &&
            snprintf(gone, sizeof gone, "%s/%s", folder, names.list[i]) < PATH_MAX)
            ok = file_remove_tree_on(store->disk, gone, st);
        else if (name_check("stream", names.list[i], NULL))
            ok = load_stream(store, ns, names.list[i], st);
    }
    file_names_free(&names);
    return ok;
}

static bool load_all(struct store *store, struct status *st)
{
    char root[PATH_MAX], folder[PATH_MAX];
    struct file_names spaces;
    bool ok;

    snprintf(root, sizeof root, "%s/v1", store->options.root);
    ok = file_list_on(store->disk, root, &spaces, st);
    for (uint32_t i = 0; ok && i < spaces.count; i++)
        if (name_check("namespace", spaces.list[i], NULL) &&
            snprintf(folder, sizeof folder, "%s/%s", root, spaces.list[i]) < PATH_MAX)
            ok = load_namespace(store, folder, spaces.list[i], st);
    file_names_free(&spaces);
    return ok;
}

/* --- opening --- */

/* Who made a folder above may have been killed before its name was safe. Where others' folders must not be read, nothing
 * was made. */
static bool sync_names_of_folders(const struct file_ops *disk, const char *path, struct status *st)
{
    char part[PATH_MAX];
    struct status why;

    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strrchr(part, '/'); slash != NULL; slash = strrchr(part, '/')) {
        slash[slash == part] = '\0'; /* "/" is the last */
        if (!file_sync_folder_on(disk, part, &why) && why.code != STATUS_DENIED)
            return status_fail(st, why.code, "%s", why.text);
        if (slash == part)
            return true;
    }
    return file_sync_folder_on(disk, ".", st);
}

static bool take_lock(struct store *store, struct status *st)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/v1", store->options.root) >= PATH_MAX - 256)
        return status_fail(st, STATUS_INVALID, "data folder: its path is too long");
    if (!file_make_folders_on(store->disk, path, st) || !sync_names_of_folders(store->disk, path, st))
        return false;
    snprintf(path, sizeof path, "%s/lock", store->options.root);
    store->lock_fd = store->disk->open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", path);
    if (store->disk->flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (errno == EWOULDBLOCK)
        return status_fail(st, STATUS_EXISTS,
                           "data folder %s is in use by another kvstore; stop it, or give another folder",
                           store->options.root);
    return status_fail(st, status_code_of_errno(errno), "lock %s: %m", path);
}

static bool start_pools(struct store *store, struct status *st)
{
    const struct work_pool_options writing = { .name = "kv-writing",
                                               .threads = store->options.writing_threads,
                                               .queue_max = 8 * LIMIT_STREAMS };
    const struct work_pool_options reading = { .name = "kv-reading",
                                               .threads = store->options.reading_threads,
                                               .queue_max = STORE_READS_QUEUED };
    const struct work_pool_options ageing = { .name = "kv-ageing", .threads = 1, .queue_max = 1 };

    return work_pool_create(&store->writing, store->loop, &writing, st) &&
           work_pool_create(&store->ageing, store->loop, &ageing, st) &&
           work_pool_create(&store->reading, store->loop, &reading, st);
}

/* Mapping the arena's pages takes a second for every few GB: it is done while calls are served already. */
enum { WARM_UP_BYTES = 32 << 20 };

struct warm_up {
    struct work work;
    struct store *store;
    uint64_t offset;
};

static void warm_up_next(struct warm_up *warm_up);

static void warm_up_run(struct work *work)
{
    const struct warm_up *warm_up = container_of(work, struct warm_up, work);
    const struct kv_pool *pool = ram_arena_pool(warm_up->store->arena);
    uint64_t left = kv_pool_bytes(pool) - warm_up->offset;

    kv_pool_populate(pool, warm_up->offset, left < WARM_UP_BYTES ? left : WARM_UP_BYTES);
}

static void warm_up_done(struct work *work)
{
    struct warm_up *warm_up = container_of(work, struct warm_up, work);

    warm_up->offset += WARM_UP_BYTES;
    warm_up_next(warm_up);
}

static void warm_up_next(struct warm_up *warm_up)
{
    struct store *store = warm_up->store;

    warm_up->work = (struct work){ .run = warm_up_run, .done = warm_up_done };
    if (!store->is_closing && warm_up->offset < kv_pool_bytes(ram_arena_pool(store->arena)) &&
        work_pool_submit(store->writing, &warm_up->work))
        return;
    store->warm_up = NULL;
    free(warm_up);
}

static void start_warm_up(struct store *store)
{
    store->warm_up = calloc(1, sizeof *store->warm_up);
    if (store->warm_up == NULL)
        return; /* pages come as they are used */
    store->warm_up->store = store;
    warm_up_next(store->warm_up);
}

static bool check_budgets(const struct store_options *options, struct status *st)
{
    if (options->ram_bytes < RAM_BYTES_MIN)
        return status_fail(st, STATUS_INVALID, "ram_budget_bytes must be at least %d", RAM_BYTES_MIN);
    if (options->disk_bytes < DISK_BYTES_MIN)
        return status_fail(st, STATUS_INVALID, "disk_budget_bytes must be at least %d", DISK_BYTES_MIN);
    return true;
}

bool store_open(struct store **store_p, struct loop *loop, const struct store_options *options,
                struct status *st)
{
    struct store *store = calloc(1, sizeof *store);
    uint64_t started = clock_mono_ns();

    if (store == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the store");
    store->options = *options;
    store->loop = loop;
    store->disk = options->disk == NULL ? &file_system : options->disk;
    store->lock_fd = -1;
    store->index_memory.limit_bytes = options->ram_bytes / 4;
    store->read_waiters_end = &store->read_waiters;
    store->ram_waiters_end = &store->ram_waiters;
    if (!check_budgets(options, st) || !take_lock(store, st) ||
        !ram_arena_create(&store->arena, options->ram_bytes - options->ram_bytes / 4, st) ||
        !start_pools(store, st) || !load_all(store, st) || !store_fit_budget(store, st)) {
        store_close(store);
        return status_wrap(st, "open store");
    }
    start_warm_up(store);
    log_info(NULL, "store_opened", "%s: %u streams, %llu frames, %llu bytes, in %llu ms", options->root,
             store->stream_count, (unsigned long long)store_frames(store),
             (unsigned long long)store->disk_used_bytes,
             (unsigned long long)(clock_mono_ns() - started) / 1000000);
    *store_p = store;
    return true;
}
