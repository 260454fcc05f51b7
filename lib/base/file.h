/* file.h - whole files, durable small files, folders. Those that end in _on make their calls through a table
 * (file_ops.h); the others call the file system.
 *
 * Thread: any; blocks on the disk. Fails with the path and the reason in the sentence. */
#ifndef REELKV_BASE_FILE_H
#define REELKV_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file_ops.h"
#include "base/status.h"

struct file_text {
    char *data; /* malloc'd, NUL-terminated */
    size_t len;
};

/* Reads a regular file of at most limit_bytes. The caller frees out->data. */
bool file_read_all(const char *path, size_t limit_bytes, struct file_text *out, struct status *st);
bool file_read_all_on(const struct file_ops *ops, const char *path, size_t limit_bytes, struct file_text *out,
                      struct status *st);

/* Replaces `path`, a regular file if it is there, so that a crash leaves the old or the new content, and the new one is
 * on the disk when this returns: write beside, fsync, rename, fsync the folder. When a call failed, errno is as it left it. */
bool file_write_durable(const char *path, const void *data, size_t len, struct status *st);
bool file_write_durable_on(const struct file_ops *ops, const char *path, const void *data, size_t len,
                           struct status *st);

/* Writes to what a person named, whatever is there: a file is emptied first, a link followed, a device or pipe written to;
 * what is new has mode 0666 less the umask. Not durable; after a failure a part may be there. */
bool file_write_through(const char *path, const void *data, size_t len, struct status *st);

/* fsync of a folder, so that a created, renamed or removed name is durable. */
bool file_sync_folder_on(const struct file_ops *ops, const char *path, struct status *st);

/* mkdir -p with mode 0700 for what is made. */
bool file_make_folders(const char *path, struct status *st);
bool file_make_folders_on(const struct file_ops *ops, const char *path, struct status *st);

/* Removes a folder and what is in it; a missing one is fine, also when somebody else removes it at the same time. Does not
 * follow links. */
bool file_remove_tree(const char *path, struct status *st);
bool file_remove_tree_on(const struct file_ops *ops, const char *path, struct status *st);

/* The names in a folder, sorted as strcmp does. file_names_free() also after a failure. */
struct file_names {
    char **list;
    uint32_t count, room;
};
bool file_list_on(const struct file_ops *ops, const char *path, struct file_names *names, struct status *st);
/* Synced first: what a process before has changed and not lived to sync is safe. */
bool file_list_synced_on(const struct file_ops *ops, const char *path, struct file_names *names,
                         struct status *st);
void file_names_free(struct file_names *names);

/* All bytes, or a failure: short writes and EINTR are continued. */
bool file_write_fully(int fd, const void *data, size_t len, struct status *st);

/* What was printed on stdout is with whoever reads it. A reader that has gone has seen enough (`... | head`): true. */
bool file_flush_output(struct status *st);

/* A read-only map of a whole file; madvise(WILLNEED) is the caller's choice. Empty files are refused. */
struct file_map {
    const uint8_t *data;
    size_t len;
};
bool file_map_open(const char *path, struct file_map *map, struct status *st);
void file_map_close(struct file_map *map); /* NULL data is fine */

#endif
