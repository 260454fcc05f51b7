#include "kvstore/segment_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/require.h"

void segment_folder_of(const char *path, char folder[PATH_MAX])
{
    size_t len = (size_t)(strrchr(path, '/') - path);

    memmove(folder, path, len);
    folder[len] = '\0';
}

bool segment_file_unlink(const struct file_ops *disk, const char *base, struct status *st)
{
    static const char *const suffixes[] = { ".seg", ".open" };
    char path[PATH_MAX + 8];

    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        snprintf(path, sizeof path, "%s%s", base, suffixes[i]);
        if (disk->unlink(path) == 0)
            return true;
        if (errno != ENOENT)
            return status_fail(st, status_code_of_errno(errno), "remove %s: %m", path);
    }
    return true;
}

bool segment_file_sync_removal(const struct file_ops *disk, const char *base, struct status *st)
{
    char folder[PATH_MAX];

    segment_folder_of(base, folder);
    if (disk->rmdir(folder) == 0 || errno == ENOENT)
        segment_folder_of(folder, folder);
    return file_sync_folder_on(disk, folder, st);
}

bool segment_file_remove(const struct file_ops *disk, const char *base, struct status *st)
{
    char folder[PATH_MAX];

    segment_folder_of(base, folder);
    return segment_file_unlink(disk, base, st) && file_sync_folder_on(disk, folder, st);
}

char *segment_notes_grow(char *notes, uint64_t bytes, uint64_t room)
{
    char *grown = malloc(room);

    if (grown == NULL)
        return NULL;
    if (bytes > 0)
        memcpy(grown, notes, bytes);
    segment_notes_free(notes, bytes);
    return grown;
}

void segment_notes_free(char *notes, uint64_t bytes)
{
    if (notes != NULL)
        explicit_bzero(notes, bytes);
    free(notes);
}

bool segment_list_add(struct segment_list *list, const struct kv_entry *entry, const void *note)
{
    uint32_t room = list->entry_room == 0 ? 64 : 2 * list->entry_room;

    if (list->entry_count == list->entry_room) {
        struct kv_entry *entries = realloc(list->entries, room * sizeof *entries);

        if (entries == NULL)
            return false;
        list->entries = entries;
        list->entry_room = room;
    }
    if (list->notes_bytes + entry->note_bytes > list->notes_room) {
        uint64_t notes_room = 2 * (list->notes_bytes + entry->note_bytes);
        char *notes = segment_notes_grow(list->notes, list->notes_bytes, notes_room);

        if (notes == NULL)
            return false;
        list->notes = notes;
        list->notes_room = notes_room;
    }
    list->entries[list->entry_count++] = *entry;
    if (entry->note_bytes > 0)
        memcpy(list->notes + list->notes_bytes, note, entry->note_bytes);
    list->notes_bytes += entry->note_bytes;
    return true;
}

void segment_list_free(struct segment_list *list)
{
    free(list->entries);
    segment_notes_free(list->notes, list->notes_bytes);
    *list = (struct segment_list){ 0 };
}

bool segment_image_make(struct segment_image *image, uint64_t bytes)
{
    if (bytes <= image->room)
        return true;
    segment_image_free(image);
    image->bytes = disk_buffer(bytes);
    image->room = image->bytes == NULL ? 0 : bytes;
    return image->bytes != NULL;
}

void segment_image_free(struct segment_image *image)
{
    disk_buffer_free(image->bytes, image->room);
    *image = (struct segment_image){ 0 };
}
