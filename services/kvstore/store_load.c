/* The store at start: the lock, then every stream the folder holds (stream_load.c), several beside each other. */
#include "kvstore/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/read_ahead.h"
#include "kvstore/segment_fetch.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_rival.h"

enum {
    RAM_BYTES_MIN = 8 << 20,
    DISK_BYTES_MIN = 8 << 20,
    LOADS_AT_ONCE = 16, /* streams; a file that is scanned has one record in memory */
};

/* --- streams of the store --- */

/* One stream's files, read and scanned on a reading thread: it alone knows of the stream meanwhile. */
struct stream_loading {
    struct work work;
    struct stream_loading *next;
    struct store_loading *all;
    struct stream *stream;
    uint64_t disk_bytes;
    bool is_there, ok;
    struct status st;
};

struct store_loading {
    struct store *store;
    struct stream_loading *first, **end; /* in the order of names */
    struct stream_loading *next;         /* to be started */
    uint32_t running;
};

static void load_run(struct work *work)
{
    struct stream_loading *loading = container_of(work, struct stream_loading, work);
    struct stream *stream = loading->stream;
    struct status *st = &loading->st;
    struct stat info;

    loading->ok = true;
    if (stream->store->disk->stat(stream->folder, &info) == 0 && !S_ISDIR(info.st_mode))
        return;
    loading->is_there = stream_load_file(stream, st);
    if (loading->is_there && stream->is_importing) { /* nobody was told that all of it is there */
        loading->is_there = false;
        loading->ok = stream_remove_folder(stream, st);
    } else if (loading->is_there) {
        loading->ok = stream_load(stream, &loading->disk_bytes, st);
    } else {
        loading->ok = stream_set_aside(stream, &loading->is_there, st);
        loading->disk_bytes = stream->aside_bytes;
    }
}

static void start_next(struct store_loading *all);

static void load_done(struct work *work)
{
    struct stream_loading *loading = container_of(work, struct stream_loading, work);

    loading->all->running--;
    start_next(loading->all);
}

static void start_next(struct store_loading *all)
{
    while (all->next != NULL && all->running < LOADS_AT_ONCE) {
        struct stream_loading *loading = all->next;

        loading->work = (struct work){ .run = load_run, .done = load_done };
        REQUIRE(work_pool_submit(all->store->reading, &loading->work)); /* nothing else is queued yet */
        all->running++;
        all->next = loading->next;
    }
}

static bool list_stream(struct store_loading *all, const char *ns, const char *name, struct status *st)
{
    struct stream_loading *loading = calloc(1, sizeof *loading);

    if (loading == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for stream %s", name);
    if (!stream_create(&loading->stream, all->store, ns, name, st)) {
        free(loading);
        return false;
    }
    loading->all = all;
    *all->end = loading;
    all->end = &loading->next;
    return true;
}

static bool list_namespace(struct store_loading *all, const char *folder, const char *ns, struct status *st)
{
    const struct file_ops *disk = all->store->disk;
    struct file_names names;
    bool ok = file_list_synced_on(disk, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        char gone[PATH_MAX];

        if (strncmp(names.list[i], ".gone-", 6) == 0 &&
            snprintf(gone, sizeof gone, "%s/%s", folder, names.list[i]) < PATH_MAX)
            ok = file_remove_tree_on(disk, gone, st) &&
                 file_sync_folder_on(disk, folder, st); /* its bytes are given to others */
        else if (name_check("stream", names.list[i], NULL))
            ok = list_stream(all, ns, names.list[i], st);
    }
    file_names_free(&names);
    return ok;
}

static bool list_all(struct store_loading *all, struct status *st)
{
    char root[PATH_MAX], folder[PATH_MAX];
    struct file_names spaces;
    bool ok;

    snprintf(root, sizeof root, "%s/v1", all->store->options.root);
    ok = file_list_synced_on(all->store->disk, root, &spaces, st);
    for (uint32_t i = 0; ok && i < spaces.count; i++)
        if (name_check("namespace", spaces.list[i], NULL) &&
            snprintf(folder, sizeof folder, "%s/%s", root, spaces.list[i]) < PATH_MAX)
            ok = list_namespace(all, folder, spaces.list[i], st);
    file_names_free(&spaces);
    return ok;
}

/* The stream is the store's, or freed. */
static bool take_loaded(struct store *store, struct stream_loading *loading, struct status *st)
{
    struct stream *stream = loading->stream;

    if (!loading->ok)
        *st = loading->st;
    if (!loading->ok || !loading->is_there || !store_add_stream(store, stream, st)) {
        stream_free(stream);
        return loading->ok && !loading->is_there;
    }
    store->disk_used_bytes += loading->disk_bytes;
    return true;
}

/* Streams are loaded beside each other, and taken in the order of their names; the first that fails says why. */
static bool load_all(struct store *store, struct status *st)
{
    struct store_loading all = { .store = store, .end = &all.first };
    bool ok = list_all(&all, st);

    all.next = ok ? all.first : NULL;
    start_next(&all);
    while (all.running > 0)
        loop_run_once(store->loop);
    while (all.first != NULL) {
        struct stream_loading *loading = all.first;

        all.first = loading->next;
        if (ok)
            ok = take_loaded(store, loading, st);
        else
            stream_free(loading->stream);
        free(loading);
    }
    return ok && store_order_loaded(store, st);
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

/* That this process may use. */
static uint32_t processors(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (uint32_t)CPU_COUNT(&set);
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

    const struct work_pool_options computing = { .name = "kv-computing",
                                                 .threads = store->options.computing_threads == 0
                                                                ? processors()
                                                                : store->options.computing_threads,
                                                 .queue_max = STORE_READS_QUEUED };
    const struct work_pool_options ahead = { .name = "kv-ahead",
                                             .threads = READ_AHEAD_THREADS,
                                             .queue_max = READ_AHEAD_THREADS };

    return work_pool_create(&store->writing, store->loop, &writing, st) &&
           work_pool_create(&store->ageing, store->loop, &ageing, st) &&
           work_pool_create(&store->reading, store->loop, &reading, st) &&
           work_pool_create(&store->computing, store->loop, &computing, st) &&
           work_pool_create(&store->reading_ahead, store->loop, &ahead, st);
}

static const char *reads_name(const struct store *store)
{
    return store->ring != NULL ? "io_uring" : "threads";
}

/* False: it was asked for, and may not be had. */
static bool start_ring(struct store *store, struct status *st)
{
    const struct uring_options options = { .depth = STORE_RING_READS,
                                           .waiting_max = STORE_READS_QUEUED,
                                           .bytes_max = STORE_RING_BYTES };
    enum store_reads reads = store->options.reads;
    struct status why;

    if (reads == STORE_READS_BY_THREADS || (reads == STORE_READS_AUTO && store->disk != &file_system))
        return true;
    if (uring_create(&store->ring, store->loop, &options, &why))
        return true;
    if (reads == STORE_READS_BY_RING) {
        *st = why;
        return false;
    }
    log_info(NULL, "reads_by_threads", "%s", why.text);
    return true;
}

/* Mapping the arena's pages takes a second for every few GB: it is done while calls are served already, and the keys that the
 * start left on the disk have been read. */
enum { WARM_UP_BYTES = 32 << 20, WARM_UP_LATER_MS = 20 };

struct warm_up {
    struct work work;
    struct loop_timer later;
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

static void warm_up_later(struct loop_timer *timer)
{
    warm_up_next(container_of(timer, struct warm_up, later));
}

static void warm_up_next(struct warm_up *warm_up)
{
    struct store *store = warm_up->store;

    if (!store->is_closing && store->keys_later.running > 0) {
        loop_timer_start(store->loop, &warm_up->later, WARM_UP_LATER_MS, warm_up_later);
        return;
    }
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

/* The kernel would end processes of its own choice rather than refuse memory. */
static bool check_budgets(const struct store_options *options, struct status *st)
{
    uint64_t available = memory_available();

    if (options->ram_bytes < RAM_BYTES_MIN)
        return status_fail(st, STATUS_INVALID, "ram_budget_bytes must be at least %d", RAM_BYTES_MIN);
    if (available > 0 && options->ram_bytes > available)
        return status_fail(
            st, STATUS_EXHAUSTED,
            "ram_budget_bytes is %llu, and this machine, or its cgroup, has %llu left: give less",
            (unsigned long long)options->ram_bytes, (unsigned long long)available);
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
    store->files.max = SEGMENT_FILES_OPEN;
    store->index_memory.limit_bytes = options->ram_bytes / 4;
    store->read_waiters_end = &store->read_waiters;
    store->ram_waiters_end = &store->ram_waiters;
    if (!check_budgets(options, st) ||
        !ageing_policy_parse(&store->ageing_state.policy, options->ageing == NULL ? "" : options->ageing,
                             st) ||
        !take_lock(store, st) ||
        !ram_arena_create(&store->arena, options->ram_bytes - options->ram_bytes / 4, st) ||
        !start_pools(store, st) || !start_ring(store, st) || !load_all(store, st) || !scrub_open(store, st) ||
        !store_fit_budget(store, st)) {
        store_close(store);
        return status_wrap(st, "open store");
    }
    if (store->keys_later.first != NULL)
        keys_start(store);
    start_warm_up(store);
    for (struct stream *stream = store->streams; stream != NULL; stream = stream->next) {
        stream_rivals_start(stream);
        stream_forget_resume(stream);
    }
    store_ageing_start(store);
    log_info(NULL, "store_opened", "%s: %u streams, %llu frames, %llu bytes, in %llu ms; read by %s",
             options->root, store->stream_count, (unsigned long long)store_frames(store),
             (unsigned long long)store->disk_used_bytes,
             (unsigned long long)(clock_mono_ns() - started) / 1000000, reads_name(store));
    *store_p = store;
    return true;
}
