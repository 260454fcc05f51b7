#include "kvstore/segment_replaced.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kvstore/store.h"

static bool read_super(const struct store *store, const char *path, struct kv_super *super)
{
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    struct status st;
    int fd = page == NULL ? -1 : disk_open(store->disk, path, O_RDONLY, &st);
    bool ok =
        fd >= 0 && disk_read(store->disk, fd, page, KV_PAGE_BYTES, 0, &st) && kv_super_get(super, page, &st);

    if (fd >= 0)
        store->disk->close(fd);
    free(page);
    return ok;
}

static bool is_replaced(const struct stream *stream, const char *folder, const struct file_names *files,
                        uint32_t n)
{
    struct kv_file_name file, other;
    char path[PATH_MAX];
    struct kv_super super;
    uint32_t i = n;

    if (!kv_file_name_get(&file, files->list[n]))
        return false;
    while (i > 0 && kv_file_name_get(&other, files->list[i - 1]) && other.first_seq == file.first_seq)
        i--;
    for (; i < files->count && kv_file_name_get(&other, files->list[i]) && other.first_seq == file.first_seq;
         i++)
        if (i != n && !other.is_open &&
            snprintf(path, sizeof path, "%s/%s", folder, files->list[i]) < PATH_MAX &&
            read_super(stream->store, path, &super) && super.replaces == file.salt)
            return true;
    return false;
}

static void remove_file(const struct stream *stream, const char *folder, const char *name,
                        uint64_t *disk_bytes_p)
{
    const struct log_context context = { .stream = stream->name };
    struct store *store = stream->store;
    char path[PATH_MAX];
    struct stat info;
    struct status st;

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= PATH_MAX)
        return;
    if (store->disk->unlink(path) == 0) {
        if (!file_sync_folder_on(store->disk, folder, &st))
            log_warn(&context, "removal_not_synced", "%s; a power cut may bring %s back", st.text, path);
        return;
    }
    log_error(&context, "segment_not_removed", "remove %s: %m; the next start tries again", path);
    if (store->disk->stat(path, &info) == 0)
        *disk_bytes_p += (uint64_t)info.st_blocks * 512;
}

bool segment_drop_replaced(const struct stream *stream, const char *folder, const struct file_names *files,
                           uint32_t n, uint64_t *disk_bytes_p)
{
    if (!is_replaced(stream, folder, files, n))
        return false;
    remove_file(stream, folder, files->list[n], disk_bytes_p);
    return true;
}
