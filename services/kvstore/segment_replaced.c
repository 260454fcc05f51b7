#include "kvstore/segment_replaced.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "kvstore/store.h"

/* --- what they say --- */

static bool read_super(const struct file_ops *disk, const char *path, struct kv_super *super,
                       struct status *st)
{
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    int fd;
    bool ok;

    if (page == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a superblock");
    fd = disk_open(disk, path, O_RDONLY, st);
    ok = fd >= 0 && disk_read(disk, fd, page, KV_PAGE_BYTES, 0, st) && kv_super_get(super, page, st);
    if (fd >= 0)
        disk->close(fd);
    free(page);
    return ok;
}

/* One that is not sealed replaces nothing, and is nothing when it was to. A damaged superblock says nothing, today or tomorrow. */
static bool look_into(const struct stream *stream, const char *folder, struct segment_twin *twin,
                      struct status *st)
{
    char path[PATH_MAX];
    struct kv_super super;

    if (snprintf(path, sizeof path, "%s/%s", folder, twin->name) >= PATH_MAX)
        return true;
    if (read_super(stream->store->disk, path, &super, st)) {
        twin->replaces = twin->file.is_open ? 0 : super.replaces;
        twin->created_ns = twin->file.is_open && super.replaces != 0 ? 0 : super.created_ns;
        return true;
    }
    if (st->code == STATUS_EXHAUSTED)
        return status_wrap(st, "%s", path);
    if (st->code != STATUS_DATA_LOSS && !twin->file.is_open)
        twin->unread = *st;
    return true;
}

/* The one made from it; NULL: none. */
static const struct segment_twin *next_heir(const struct segment_twin *twins, uint32_t count,
                                            const struct segment_twin *twin)
{
    for (uint32_t i = 0; i < count; i++)
        if (&twins[i] != twin && twins[i].replaces != 0 && twins[i].replaces == twin->file.salt)
            return &twins[i];
    return NULL;
}

const struct segment_twin *segment_heir(const struct segment_twin *twins, uint32_t count,
                                        const struct segment_twin *twin)
{
    for (uint32_t i = 0; i < count && twin != NULL && twin->verdict != SEGMENT_COUNTS; i++)
        twin = next_heir(twins, count, twin);
    return twin != NULL && twin->verdict == SEGMENT_COUNTS ? twin : NULL;
}

/* Whether `twin` was made from `older`, or from what was made from it. */
static bool descends(const struct segment_twin *twins, uint32_t count, const struct segment_twin *twin,
                     const struct segment_twin *older)
{
    for (uint32_t i = 0; i < count && older != NULL; i++) {
        older = next_heir(twins, count, older);
        if (older == twin)
            return true;
    }
    return false;
}

bool segment_was_written_again(const struct segment_twin *twins, uint32_t count,
                               const struct segment_twin *twin)
{
    for (uint32_t i = 0; i < count && twin->file.is_open && twin->created_ns != 0; i++)
        if (twins[i].created_ns > twin->created_ns && !descends(twins, count, &twins[i], twin))
            return true;
    return false;
}

static void put_oldest_first(struct segment_twin *twins, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t oldest = i;

        for (uint32_t n = i + 1; n < count; n++)
            if (descends(twins, count, &twins[oldest], &twins[n]))
                oldest = n;
        if (oldest != i) {
            struct segment_twin first = twins[oldest];

            twins[oldest] = twins[i];
            twins[i] = first;
        }
    }
}

static void judge(struct segment_twin *twins, uint32_t count, struct segment_twin *twin)
{
    twin->verdict = next_heir(twins, count, twin) != NULL ? SEGMENT_LEFT : SEGMENT_COUNTS;
    for (uint32_t i = 0; i < count; i++)
        if (twin->verdict == SEGMENT_COUNTS && &twins[i] != twin && twins[i].unread.code != STATUS_OK &&
            !descends(twins, count, twin, &twins[i]))
            twin->verdict = SEGMENT_UNKNOWN;
}

/* Synced each by itself: a power cut must not bring the older one back without the one that was made from it. */
static bool remove_file(const struct stream *stream, const char *folder, const char *name)
{
    const struct log_context context = { .stream = stream->name };
    const struct file_ops *disk = stream->store->disk;
    char path[PATH_MAX];
    struct status st;

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= PATH_MAX)
        return false;
    if (disk->unlink(path) != 0)
        status_fail(&st, status_code_of_errno(errno), "remove %s: %m", path);
    else if (file_sync_folder_on(disk, folder, &st))
        return true;
    log_error(&context, "segment_not_removed", "%s; what was made from it counts; trying again", st.text);
    return false;
}

/* Where one stays, those behind it stay that may have been made from it. */
static void remove_replaced(const struct stream *stream, const char *folder, struct segment_twin *twins,
                            uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (segment_heir(twins, count, &twins[i]) == &twins[i])
            continue;
        if (segment_heir(twins, count, &twins[i]) == NULL || !remove_file(stream, folder, twins[i].name))
            return;
        twins[i].verdict = SEGMENT_REMOVED;
    }
}

bool segment_judge_twins(const struct stream *stream, const char *folder, struct segment_twin *twins,
                         uint32_t count, struct status *st)
{
    bool all_read = true;

    for (uint32_t i = 0; i < count; i++) {
        if (!look_into(stream, folder, &twins[i], st))
            return false;
        all_read &= twins[i].unread.code == STATUS_OK;
    }
    put_oldest_first(twins, count);
    for (uint32_t i = 0; i < count; i++)
        judge(twins, count, &twins[i]);
    if (all_read)
        remove_replaced(stream, folder, twins, count);
    return true;
}
