/* segment_file.h - what all who make, read and remove segment files need: names, records in memory, removal.
 *
 * Thread: any; nothing here knows of the loop. Removing blocks. */
#ifndef REELKV_KVSTORE_SEGMENT_FILE_H
#define REELKV_KVSTORE_SEGMENT_FILE_H

#include <limits.h>

#include "kv/disk.h"
#include "kv/kv_footer.h"

/* The folder of a path; they may be the same memory. */
void segment_folder_of(const char *path, char folder[PATH_MAX]);

/* Its file, by whichever name it has (BASE.seg or BASE.open); one that is not there is fine. */
bool segment_file_unlink(const struct file_ops *disk, const char *base, struct status *st);
/* What has gone so does not come back with a power cut; the folder goes with its last file. */
bool segment_file_sync_removal(const struct file_ops *disk, const char *base, struct status *st);
/* Unlinked, and so that a power cut does not bring it back. */
bool segment_file_remove(const struct file_ops *disk, const char *base, struct status *st);

/* The records of a file in its order, with the words of all, one after the other. Zeroed: none. */
/* Words one behind the other, which may be forgotten: `room` bytes instead of `bytes`, and nothing of them stays on the heap.
 * NULL: no memory, and nothing has changed. */
char *segment_notes_grow(char *notes, uint64_t bytes, uint64_t room);
void segment_notes_free(char *notes, uint64_t bytes); /* NULL is fine */

struct segment_list {
    struct kv_entry *entries;
    uint32_t entry_count, entry_room;
    char *notes;
    uint64_t notes_bytes, notes_room;
};
bool segment_list_add(struct segment_list *list, const struct kv_entry *entry,
                      const void *note); /* false: no memory */
void segment_list_free(struct segment_list *list);

/* Room for a record as it lies on the disk, for one after the other. Zeroed: none. */
struct segment_image {
    uint8_t *bytes; /* 4 KiB aligned */
    uint64_t room;
};
/* At least so many bytes; what was in it is lost when it grows. False: no memory. */
bool segment_image_make(struct segment_image *image, uint64_t bytes);
void segment_image_free(struct segment_image *image);

#endif
