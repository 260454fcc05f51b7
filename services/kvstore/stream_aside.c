/* A stream of which a small file is damaged, or stream.json has gone: nobody knows which numbers were given, what is held, what
 * is to be forgotten. Nothing of it is believed, served, changed or removed; its bytes count, its name is taken, and whoever
 * asks for it is told what to do. The others are served. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "kvstore/store.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

#define ADVICE                                                                                              \
    "it is set aside: put the file back as it was, or move the folder it is in, this camera's, out of the " \
    "data folder, and start the store again"

/* Of a folder and the folders in it. */
static bool add_bytes(const struct file_ops *disk, const char *folder, bool has_folders, uint64_t *bytes_p,
                      struct status *st)
{
    struct file_names names;
    bool ok = file_list_on(disk, folder, &names, st);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        char path[PATH_MAX];
        struct stat info;

        if (snprintf(path, sizeof path, "%s/%s", folder, names.list[i]) >= (int)sizeof path ||
            disk->lstat(path, &info) != 0)
            continue;
        if (S_ISREG(info.st_mode))
            *bytes_p += (uint64_t)info.st_blocks * 512;
        else if (S_ISDIR(info.st_mode) && has_folders)
            ok = add_bytes(disk, path, false, bytes_p, st);
    }
    file_names_free(&names);
    return ok;
}

static void forget_what_was_read(struct stream *stream)
{
    stream_forget_free(stream);
    free(stream->holds);
    stream->forgets = NULL;
    stream->holds = NULL;
    memset(&stream->history, 0, sizeof stream->history);
}

bool stream_set_aside(struct stream *stream, bool *is_there_p, struct status *st)
{
    const struct log_context context = { .stream = stream->name };
    struct status why = *st;
    struct status told;

    if (why.code != STATUS_NOT_FOUND && why.code != STATUS_DATA_LOSS && why.code != STATUS_INVALID)
        return false;
    if (!stream_folder_has_files(stream->store->disk, stream->folder, is_there_p, st))
        return false;
    if (!*is_there_p)
        return true;
    forget_what_was_read(stream);
    stream->is_set_aside = stream->is_ready = stream->has_ended = true;
    status_fail(&told, STATUS_DATA_LOSS, "%.*s; " ADVICE, STREAM_TROUBLE_BYTES - (int)sizeof ADVICE - 2,
                why.text);
    stream_set_trouble(stream, told.text);
    log_error(&context, "stream_set_aside", "%s", told.text);
    return add_bytes(stream->store->disk, stream->folder, true, &stream->aside_bytes, st);
}
