#include "fsck.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/name.h"
#include "base/require.h"
#include "kv/history.h"
#include "kv/hold_list.h"
#include "kv/receipt_list.h"
#include "kv/scrub_state.h"
#include "kv/stream_state.h"

enum { LINE_BYTES = 256, NAMES_BYTES = 512 };

struct span {
    uint64_t from, to; /* exclusive */
};

/* What is known of the camera whose folder is being looked at. */
struct fsck_stream {
    char folder[PATH_MAX];
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    uint64_t next_seq; /* as stream.json has it: so many were durable */
    bool is_unknown;   /* not all of it can be read: nobody can say which numbers are missing */
    struct span *spans;
    size_t span_count, span_room;
};

/* A file of it, while it is checked. */
struct file_check {
    struct kv_check base;
    struct fsck *fsck;
    uint64_t epoch; /* of its folder; 0: not known */
    uint64_t unread;
};

/* Paths that were given leave room for the names of a store (fsck_path()). */
static void join(char out[PATH_MAX], const char *folder, const char *name)
{
    REQUIRE(snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX);
}

/* --- telling --- */

static void tell(struct fsck *fsck, const char *path, const struct kv_finding *finding)
{
    fsck->found_count[finding->kind]++;
    fsck->found(fsck, path, finding);
}

__attribute__((format(printf, 4, 5))) static void tell_of(struct fsck *fsck, const char *path,
                                                          struct kv_finding finding, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vsnprintf(finding.text, sizeof finding.text, format, list);
    va_end(list);
    tell(fsck, path, &finding);
}

static const struct kv_finding damage = { .kind = KV_FOUND_DAMAGE };

/* --- is a store running? --- */

/* By the kernel's list of locks: asking for the lock would keep a store from starting. */
static bool is_locked(const char *root)
{
    char path[PATH_MAX], line[LINE_BYTES];
    struct stat info;
    bool is_found = false;
    FILE *locks;

    join(path, root, "lock");
    locks = stat(path, &info) == 0 ? fopen("/proc/locks", "re") : NULL;
    while (locks != NULL && !is_found && fgets(line, sizeof line, locks) != NULL) {
        const char *place = strrchr(line, ':');

        is_found = strstr(line, " FLOCK ") != NULL && strstr(line, " WRITE ") != NULL && place != NULL &&
                   strtoull(place + 1, NULL, 10) == (uint64_t)info.st_ino;
    }
    if (locks != NULL)
        fclose(locks);
    return is_found;
}

static bool has_part(const char *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat info;

    join(path, folder, name);
    return stat(path, &info) == 0;
}

/* The store's folder that `path` (absolute) lies in or is. */
static bool find_root(const char *path, char root[PATH_MAX])
{
    char *slash;

    for (snprintf(root, PATH_MAX, "%s", path); !has_part(root, "lock") || !has_part(root, "v1");
         *slash = '\0') {
        slash = strrchr(root, '/');
        if (slash == NULL || slash == root)
            return false;
    }
    return true;
}

/* --- one file --- */

static void file_found(struct kv_check *check, const struct kv_finding *finding)
{
    struct file_check *file = container_of(check, struct file_check, base);

    /* A running store seals its files and removes them. */
    if (finding->kind == KV_FOUND_UNREAD && file->fsck->is_running && access(check->path, F_OK) != 0)
        return;
    file->unread += finding->kind == KV_FOUND_UNREAD;
    tell(file->fsck, check->path, finding);
}

static void file_accounts(struct kv_check *check, uint64_t from, uint64_t to)
{
    struct fsck_stream *stream = container_of(check, struct file_check, base)->fsck->stream;
    struct span *last;

    if (stream == NULL)
        return;
    last = stream->span_count > 0 ? &stream->spans[stream->span_count - 1] : NULL;
    if (last != NULL && from >= last->from && from <= last->to) {
        last->to = to > last->to ? to : last->to;
        return;
    }
    if (stream->span_count == stream->span_room) {
        stream->span_room = stream->span_room == 0 ? 64 : 2 * stream->span_room;
        stream->spans = realloc(stream->spans, stream->span_room * sizeof *stream->spans);
        REQUIRE(stream->spans != NULL);
    }
    stream->spans[stream->span_count++] = (struct span){ from, to };
}

static bool file_advance(struct kv_check *check, uint64_t bytes)
{
    struct fsck *fsck = container_of(check, struct file_check, base)->fsck;

    fsck->bytes += bytes;
    return fsck->advance(fsck);
}

static bool cut(struct fsck *fsck, const struct kv_check *check, struct status *st)
{
    if (!fsck->is_repairing || check->torn_bytes == 0)
        return true;
    if (!kv_check_cut(check, st))
        return false;
    fsck->cut_files++;
    return true;
}

/* Where the file says that it belongs, and where it lies. */
static void check_place(struct file_check *file)
{
    const struct fsck_stream *stream = file->fsck->stream;
    const struct kv_super *super = &file->base.super;

    if (!file->base.has_super || stream == NULL)
        return;
    if (strcmp(super->ns, stream->ns) != 0 || strcmp(super->stream, stream->name) != 0)
        tell_of(file->fsck, file->base.path, damage, "it belongs to camera %s of namespace %s", super->stream,
                super->ns);
    else if (super->epoch != file->epoch)
        tell_of(file->fsck, file->base.path, damage, "it belongs to epoch %llu",
                (unsigned long long)super->epoch);
}

static bool check_file(struct fsck *fsck, const char *path, const struct kv_file_name *name, uint64_t epoch,
                       struct status *st)
{
    struct file_check file = { .base = { .disk = &file_system,
                                         .path = path,
                                         .name = *name,
                                         .found = file_found,
                                         .accounts = file_accounts,
                                         .advance = file_advance },
                               .fsck = fsck,
                               .epoch = epoch };
    struct stat info;

    fsck->files++;
    if (fsck->is_only_counting) {
        fsck->bytes += stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
        return true;
    }
    if (name->is_open && fsck->is_running) {
        fsck->skipped_files++;
        if (fsck->stream != NULL)
            fsck->stream->is_unknown = true;
        return true;
    }
    if (!kv_check_run(&file.base, st))
        return false;
    check_place(&file);
    fsck->frames += file.base.frames;
    fsck->gap_frames += file.base.gap_frames;
    fsck->damaged_frames += file.base.damaged_frames;
    if (fsck->stream != NULL)
        fsck->stream->is_unknown |= file.unread > 0;
    return cut(fsck, &file.base, st);
}

/* --- one camera --- */

static bool check_files(struct fsck *fsck, const char *folder, uint64_t epoch, struct status *st)
{
    struct file_names names;
    char path[PATH_MAX];
    bool ok = file_list_on(&file_system, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        struct kv_file_name name;

        join(path, folder, names.list[i]);
        if (kv_file_name_get(&name, names.list[i]))
            ok = check_file(fsck, path, &name, epoch, st);
    }
    file_names_free(&names);
    return ok;
}

static bool check_epochs(struct fsck *fsck, const char *folder, struct status *st)
{
    struct file_names names;
    char path[PATH_MAX];
    bool ok = file_list_on(&file_system, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        uint64_t epoch;

        if (!kv_epoch_name_get(&epoch, names.list[i]))
            continue;
        join(path, folder, names.list[i]);
        ok = check_files(fsck, path, epoch, st);
    }
    file_names_free(&names);
    return ok;
}

/* What a start of the store sets a camera aside for is damage; what it cannot read, it stops at. */
static void check_read(struct fsck *fsck, const char *path, bool is_read, const struct status *why)
{
    bool is_damage =
        why->code == STATUS_NOT_FOUND || why->code == STATUS_DATA_LOSS || why->code == STATUS_INVALID;
    const struct kv_finding finding = { .kind = is_damage ? KV_FOUND_DAMAGE : KV_FOUND_UNREAD };

    if (!is_read)
        tell_of(fsck, path, finding, "%s", why->text);
}

/* One that may be missing. */
static void check_optional(struct fsck *fsck, const char *folder, const char *name, bool is_read,
                           const struct status *why)
{
    char path[PATH_MAX];

    join(path, folder, name);
    check_read(fsck, path, is_read || why->code == STATUS_NOT_FOUND, why);
}

/* False: there is none, and nothing else of a camera: it was being defined when its store was killed. */
static bool check_definition(struct fsck *fsck, struct stream_state *state)
{
    const struct fsck_stream *stream = fsck->stream;
    char path[PATH_MAX];
    struct status why, no_list;
    bool is_there = true;
    bool ok = stream_state_read(state, &file_system, stream->folder, stream->ns, stream->name, &why);

    join(path, stream->folder, "stream.json");
    if (!ok && why.code == STATUS_NOT_FOUND &&
        !stream_folder_has_files(&file_system, stream->folder, &is_there, &no_list)) {
        check_read(fsck, stream->folder, false, &no_list);
        return true;
    }
    check_read(fsck, path, ok || !is_there, &why);
    return is_there;
}

static int compare_spans(const void *left, const void *right)
{
    const struct span *a = left, *b = right;

    return a->from < b->from ? -1 : a->from > b->from;
}

static void miss(struct fsck *fsck, uint64_t from, uint64_t to)
{
    struct kv_finding finding = damage;

    finding.from_seq = from;
    finding.to_seq = to;
    fsck->damaged_frames += to - from;
    tell_of(fsck, fsck->stream->folder, finding, "frames %llu to %llu were stored, and no file has them",
            (unsigned long long)from, (unsigned long long)to - 1);
}

/* Every number below the last one, and below those of stream.json and the history, is in a file, or in the history of what was
 * removed. */
static void check_numbers(struct fsck *fsck, const struct history *history)
{
    struct fsck_stream *stream = fsck->stream;
    struct file_check history_file = { .fsck = fsck };
    uint64_t at = 0, next_seq = history->next_seq > stream->next_seq ? history->next_seq : stream->next_seq;

    for (uint32_t i = 0; i < history->count; i++)
        file_accounts(&history_file.base, history->spans[i].from_seq, history->spans[i].to_seq);
    if (stream->span_count > 0)
        qsort(stream->spans, stream->span_count, sizeof *stream->spans, compare_spans);
    for (size_t i = 0; i < stream->span_count; i++) {
        if (stream->spans[i].from > at)
            miss(fsck, at, stream->spans[i].from);
        at = stream->spans[i].to > at ? stream->spans[i].to : at;
    }
    if (next_seq > at)
        miss(fsck, at, next_seq);
}

/* As a start of the store reads them. Of an import that did not end it reads stream.json alone, and removes the camera. */
static void check_small_files(struct fsck *fsck)
{
    struct fsck_stream *stream = fsck->stream;
    struct small_files {
        struct stream_state state;
        struct history history;
        struct hold_list holds;
        struct receipt_list receipts;
    } *files = calloc(1, sizeof *files);
    char path[PATH_MAX];
    struct status why;
    bool ok;

    REQUIRE(files != NULL);
    if (!check_definition(fsck, &files->state) || files->state.is_importing) {
        free(files);
        return;
    }
    stream->next_seq = files->state.next_seq;
    ok = hold_list_read(&files->holds, &file_system, stream->folder, &why);
    check_optional(fsck, stream->folder, "holds.json", ok, &why);
    ok = receipt_list_read(&files->receipts, &file_system, stream->folder, &why);
    check_optional(fsck, stream->folder, "forget.json", ok, &why);
    join(path, stream->folder, "history.json");
    ok = history_read(&files->history, &file_system, path, &why);
    check_optional(fsck, stream->folder, "history.json", ok, &why);
    if (ok && !stream->is_unknown)
        check_numbers(fsck, &files->history);
    free(files);
}

static bool check_stream(struct fsck *fsck, const char *folder, struct status *st)
{
    struct fsck_stream stream = { 0 };
    const char *name = strrchr(folder, '/') + 1, *ns = name - 1;
    bool ok;

    while (ns > folder && ns[-1] != '/')
        ns--;
    snprintf(stream.folder, sizeof stream.folder, "%s", folder);
    snprintf(stream.name, sizeof stream.name, "%s", name);
    snprintf(stream.ns, sizeof stream.ns, "%.*s", (int)(name - 1 - ns), ns);
    fsck->stream = &stream;
    fsck->streams++;
    ok = check_epochs(fsck, folder, st);
    if (ok && !fsck->is_only_counting)
        check_small_files(fsck);
    fsck->stream = NULL;
    free(stream.spans);
    return ok;
}

/* --- stores --- */

static bool check_namespace(struct fsck *fsck, const char *folder, struct status *st)
{
    struct file_names names;
    char path[PATH_MAX];
    struct stat info;
    bool ok = file_list_on(&file_system, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        join(path, folder, names.list[i]);
        if (name_check("stream", names.list[i], NULL) && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            ok = check_stream(fsck, path, st);
    }
    file_names_free(&names);
    return ok;
}

static bool check_store(struct fsck *fsck, const char *root, struct status *st)
{
    struct file_names names;
    char folder[PATH_MAX], path[PATH_MAX];
    struct scrub_state scrub;
    struct status why;
    struct stat info;
    bool ok;

    if (!fsck->is_only_counting)
        check_optional(fsck, root, "scrub.json", scrub_state_read(&scrub, &file_system, root, &why), &why);
    join(folder, root, "v1");
    ok = file_list_on(&file_system, folder, &names, st);
    for (uint32_t i = 0; ok && i < names.count; i++) {
        join(path, folder, names.list[i]);
        if (name_check("namespace", names.list[i], NULL) && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            ok = check_namespace(fsck, path, st);
    }
    file_names_free(&names);
    return ok;
}

/* A repair has the store's own lock while it lasts. */
static bool take_lock(const char *root, int *fd_p, struct status *st)
{
    char path[PATH_MAX];

    join(path, root, "lock");
    *fd_p = open(path, O_RDWR | O_CLOEXEC);
    if (*fd_p >= 0 && flock(*fd_p, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (*fd_p >= 0 && errno == EWOULDBLOCK)
        return status_fail(st, STATUS_EXISTS, "a kvstore runs on %s: stop it before its files are repaired",
                           root);
    return status_fail(st, status_code_of_errno(errno), "lock %s: %m", path);
}

static bool check_within(struct fsck *fsck, const char *path,
                         bool (*run)(struct fsck *, const char *, struct status *), struct status *st)
{
    char root[PATH_MAX];
    bool has_root = find_root(path, root), ok = true;
    int lock_fd = -1;

    fsck->is_running = has_root && is_locked(root);
    fsck->found_running |= fsck->is_running;
    if (has_root && fsck->is_repairing && !fsck->is_only_counting)
        ok = take_lock(root, &lock_fd, st);
    ok = ok && run(fsck, path, st);
    if (lock_fd >= 0)
        close(lock_fd);
    return ok;
}

static bool check_lone_file(struct fsck *fsck, const char *path, struct status *st)
{
    struct kv_file_name name;

    if (!kv_file_name_get(&name, strrchr(path, '/') + 1))
        return status_fail(st, STATUS_INVALID,
                           "%s is not named as a segment file is, <first number>-<salt>.seg or .open", path);
    return check_file(fsck, path, &name, 0, st);
}

/* The stores of a cluster's data folder. */
static bool check_cluster(struct fsck *fsck, const char *data, struct status *st)
{
    struct file_names names;
    char folder[PATH_MAX], path[PATH_MAX];
    bool ok;

    join(folder, data, "store");
    ok = file_list_on(&file_system, folder, &names, st);
    for (uint32_t i = 0; ok && i < names.count; i++) {
        join(path, folder, names.list[i]);
        if (has_part(path, "v1"))
            ok = check_within(fsck, path, check_store, st);
    }
    file_names_free(&names);
    return ok;
}

bool fsck_path(struct fsck *fsck, const char *path, struct status *st)
{
    char *full = realpath(path, NULL);
    struct stat info;
    bool ok;

    if (full == NULL || stat(full, &info) != 0) {
        free(full);
        return status_fail(st, status_code_of_errno(errno), "%s: %m", path);
    }
    if (access(full, S_ISDIR(info.st_mode) ? R_OK | X_OK : R_OK) != 0)
        ok = status_fail(st, status_code_of_errno(errno), "%s: %m", path);
    else if (strlen(full) > PATH_MAX - NAMES_BYTES)
        ok = status_fail(st, STATUS_INVALID, "the path is too long: %.80s...", path);
    else if (!S_ISDIR(info.st_mode))
        ok = check_within(fsck, full, check_lone_file, st);
    else if (has_part(full, "v1"))
        ok = check_within(fsck, full, check_store, st);
    else if (has_part(full, "store"))
        ok = check_cluster(fsck, full, st);
    else if (has_part(full, "stream.json"))
        ok = check_within(fsck, full, check_stream, st);
    else
        ok = status_fail(st, STATUS_NOT_FOUND, "there is nothing of a store in %s", path);
    free(full);
    return ok;
}
