/* checked_json.h - the store's small files: one JSON object each, which jq reads, under a checksum.
 *
 *   {"format": 2, "file": "default/cam-1/holds.json", ... ,
 *   "crc32c": "0123abcd"
 *   }
 *
 * The last CHECKED_JSON_TAIL_BYTES bytes are a comma, a newline, `"crc32c": "`, eight hex digits in lower case, `"`, a newline,
 * `}`, a newline. The digits are the CRC32C of all bytes before these. `format` is the first member, `file` the second: the
 * end of the file's own path, so that one of another camera, or of another kind, is not believed.
 * A file of format 1 begins with another member, which each kind of file has, and has no checksum: it is read as it is.
 *
 * Thread: any. Fails: NOT_FOUND; DATA_LOSS for what does not fit, with the path; PRECONDITION for a later format; EXHAUSTED;
 * else as the disk. Bounds: the caller's byte limit. */
#ifndef REELKV_KV_CHECKED_JSON_H
#define REELKV_KV_CHECKED_JSON_H

#include "base/json.h"

enum { CHECKED_JSON_FORMAT = 2, CHECKED_JSON_TAIL_BYTES = 25 };

/* An object to add members to; `file` is of at most CHECKED_JSON_FILE_BYTES. */
enum { CHECKED_JSON_FILE_BYTES = 160 };
struct json *checked_json_make(const char *file);

/* Takes the object, whole; free(). NULL: no memory. */
char *checked_json_text(struct json *object, unsigned indent);

/* The object, which json_free() frees, or NULL. `first_of_old` is the member that a file of format 1 begins with. */
struct json *checked_json_read(const struct file_ops *disk, const char *path, size_t limit_bytes,
                               const char *first_of_old, struct status *st);

#endif
