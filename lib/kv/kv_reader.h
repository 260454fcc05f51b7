/* kv_reader.h - a file of pages, looked at through one window of memory, whatever its size: for tools that read files front to
 * back.
 *
 * Owner:  the caller's struct; kv_reader_close() also after a failed open.
 * Thread: one at a time; blocks on the disk.
 * Fails:  UNAVAILABLE when the disk does not read now, DATA_LOSS when the file ends before its length of when it was opened.
 * Bounds: KV_READER_BYTES of memory; one view at most half of it. */
#ifndef REELKV_KV_KV_READER_H
#define REELKV_KV_KV_READER_H

#include "kv/disk.h"

enum { KV_READER_BYTES = 1 << 20, KV_VIEW_BYTES_MAX = KV_READER_BYTES / 2 };

struct kv_reader {
    const struct file_ops *disk;
    int fd;
    uint64_t bytes; /* of its whole pages */
    uint64_t rest;  /* behind them; a file of the store has none */
    uint8_t *window;
    uint64_t window_at, window_bytes;
};

/* A regular file, to be read only. */
bool kv_reader_open(struct kv_reader *reader, const struct file_ops *disk, const char *path,
                    struct status *st);
void kv_reader_close(struct kv_reader *reader); /* zeroed is fine */

/* `len` bytes at `offset`, within the file's pages; valid until the next call. NULL with *st. */
const uint8_t *kv_reader_view(struct kv_reader *reader, uint64_t offset, uint64_t len, struct status *st);

/* Of a range within the file's pages: its CRC, going on from *crc; and whether it is all zeros. */
bool kv_reader_crc(struct kv_reader *reader, uint64_t offset, uint64_t len, uint32_t *crc, struct status *st);
bool kv_reader_is_zero(struct kv_reader *reader, uint64_t offset, uint64_t len, bool *is_zero_p,
                       struct status *st);

#endif
