/* One camera: each byte of its files, its small files, and whether every number that was given is accounted for. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/require.h"
#include "fsck_internal.h"
#include "kv/history.h"
#include "kv/hold_list.h"
#include "kv/kv_crc.h"
#include "kv/receipt_list.h"
#include "kv/stream_state.h"

struct span {
    uint64_t from, to; /* exclusive */
};

/* What is known of the camera whose folder is being looked at. */
struct fsck_stream {
    char folder[PATH_MAX];
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    uint64_t next_seq; /* as stream.json has it: so many were durable */
    bool is_unknown;   /* not all of it can be read: nobody can say which numbers are missing */
    uint32_t names;    /* of its files, summed up */
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

/* --- one file --- */

static void file_found(struct kv_check *check, const struct kv_finding *finding)
{
    struct file_check *file = container_of(check, struct file_check, base);

    file->unread += finding->kind == KV_FOUND_UNREAD;
    /* A running store seals its files and removes them. */
    if (finding->kind == KV_FOUND_UNREAD && file->fsck->is_running && access(check->path, F_OK) != 0)
        return;
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

bool fsck_check_file(struct fsck *fsck, const char *path, const struct kv_file_name *name, uint64_t epoch,
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

        fsck_join(path, folder, names.list[i]);
        if (kv_file_name_get(&name, names.list[i]))
            ok = fsck_check_file(fsck, path, &name, epoch, st);
    }
    file_names_free(&names);
    return ok;
}

static bool sum_names(struct fsck *fsck, const char *folder, uint64_t epoch, struct status *st)
{
    struct file_names names;
    bool ok = file_list_on(&file_system, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++)
        fsck->stream->names = kv_crc(fsck->stream->names, names.list[i], strlen(names.list[i]) + 1);
    file_names_free(&names);
    return ok;
}

static bool each_epoch(struct fsck *fsck, const char *folder,
                       bool (*look)(struct fsck *fsck, const char *folder, uint64_t epoch, struct status *st),
                       struct status *st)
{
    struct file_names names;
    char path[PATH_MAX];
    bool ok = file_list_on(&file_system, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        uint64_t epoch;

        if (!kv_epoch_name_get(&epoch, names.list[i]))
            continue;
        fsck_join(path, folder, names.list[i]);
        ok = look(fsck, path, epoch, st);
    }
    file_names_free(&names);
    return ok;
}

/* False: a store that runs has made files, or removed some, since their names were summed up. */
static bool has_same_files(struct fsck *fsck)
{
    uint32_t before = fsck->stream->names;
    struct status st;

    fsck->stream->names = 0;
    return each_epoch(fsck, fsck->stream->folder, sum_names, &st) && fsck->stream->names == before;
}

/* What a start of the store sets a camera aside for is damage; what it cannot read, it stops at. */
static void check_read(struct fsck *fsck, const char *path, bool is_read, const struct status *why)
{
    bool is_damage =
        why->code == STATUS_NOT_FOUND || why->code == STATUS_DATA_LOSS || why->code == STATUS_INVALID;
    const struct kv_finding finding = { .kind = is_damage ? KV_FOUND_DAMAGE : KV_FOUND_UNREAD };
    size_t len = strlen(path);
    bool names_path = strncmp(why->text, path, len) == 0 && strncmp(why->text + len, ": ", 2) == 0;

    if (!is_read)
        tell_of(fsck, path, finding, "%s", why->text + (names_path ? len + 2 : 0));
}

void fsck_check_optional(struct fsck *fsck, const char *folder, const char *name, bool is_read,
                         const struct status *why)
{
    char path[PATH_MAX];

    fsck_join(path, folder, name);
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

    fsck_join(path, stream->folder, "stream.json");
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
    fsck_check_optional(fsck, stream->folder, "holds.json", ok, &why);
    ok = receipt_list_read(&files->receipts, &file_system, stream->folder, &why);
    fsck_check_optional(fsck, stream->folder, "forget.json", ok, &why);
    fsck_join(path, stream->folder, "history.json");
    ok = history_read(&files->history, &file_system, path, &why);
    fsck_check_optional(fsck, stream->folder, "history.json", ok, &why);
    if (ok && !stream->is_unknown && (!fsck->is_running || has_same_files(fsck)))
        check_numbers(fsck, &files->history);
    free(files);
}

bool fsck_check_stream(struct fsck *fsck, const char *folder, struct status *st)
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
    ok = each_epoch(fsck, folder, sum_names, st) && each_epoch(fsck, folder, check_files, st);
    if (ok && !fsck->is_only_counting)
        check_small_files(fsck);
    fsck->stream = NULL;
    free(stream.spans);
    return ok;
}
