/* export_file.h - what one camera saw, as one file: written and read front to back. docs/export-format.md has the layout.
 *
 * An item is a message (enum export_kind says of which type) and, of a block, its payload.
 *
 * Owner:  the caller's struct; the deinit functions also after a failure, which has then removed what was begun.
 * Thread: one at a time; blocks on the disk.
 * Fails:  DATA_LOSS with the byte where the file is not what was written; EXISTS for a file that is there.
 * Bounds: EXPORT_MESSAGE_BYTES_MAX of memory for a message; payloads pass through the caller's. */
#ifndef REELKV_CLI_EXPORT_FILE_H
#define REELKV_CLI_EXPORT_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { EXPORT_MESSAGE_BYTES_MAX = 1 << 20 };

enum export_kind { EXPORT_HEAD = 1, EXPORT_BLOCK = 2, EXPORT_GAP = 3, EXPORT_END = 4 };

/* What the last bytes of the file say of the rest. */
struct export_sum {
    uint64_t items, frames, payload_bytes, file_bytes;
};

struct export_writer {
    char path[PATH_MAX], partial[PATH_MAX];
    int fd;
    uint64_t at;
    struct export_sum sum;
    uint32_t chain;
    uint64_t payload_left; /* of the item at hand */
    uint32_t payload_crc, payload_crc_wanted;
};

/* Begins a file beside `path`, which must not be there. */
bool export_writer_begin(struct export_writer *writer, const char *path, struct status *st);
/* The payload's bytes and plain CRC32C are told first; they follow by export_writer_payload(). */
bool export_writer_item(struct export_writer *writer, enum export_kind kind, const void *message, size_t len,
                        uint64_t payload_bytes, uint32_t payload_crc, struct status *st);
bool export_writer_payload(struct export_writer *writer, const void *bytes, size_t len, struct status *st);
/* Durable under its name when this returns. */
bool export_writer_finish(struct export_writer *writer, struct status *st);
void export_writer_deinit(struct export_writer *writer); /* unfinished: it is removed */

struct export_reader {
    const char *path;
    int fd;
    uint64_t at;
    struct export_sum sum; /* as the file's end says it */
    uint64_t items, frames, payload_bytes;
    uint32_t chain, chain_wanted;
    uint8_t *message;
    size_t message_bytes;
    uint64_t payload_bytes_left;
    uint32_t payload_crc, payload_crc_wanted;
};

/* Checks both ends of the file. */
bool export_reader_begin(struct export_reader *reader, const char *path, struct status *st);
/* The next item; its message is valid until the next. *kind_p 0: all have been read, and the file is whole. The payload is
 * read before by export_reader_payload(). */
bool export_reader_item(struct export_reader *reader, enum export_kind *kind_p, uint64_t *payload_bytes_p,
                        struct status *st);
/* `len` bytes of it, at most what is left; with the last ones its checksum is compared. */
bool export_reader_payload(struct export_reader *reader, void *to, size_t len, struct status *st);
void export_reader_deinit(struct export_reader *reader);

#endif
