#include "export_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/require.h"
#include "kv/kv_crc.h"

#define HEAD_MAGIC 0x5452505845564b52ull /* "RKVEXPRT" */
#define END_MAGIC  0x444e455845564b52ull /* "RKVEXEND" */
#define ITEM_MAGIC 0x49564b52u           /* "RKVI" */

enum { HEAD_BYTES = 64, ITEM_BYTES = 40, END_BYTES = 64, MAJOR = 0, MINOR = 1 };

static bool is_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/* --- writing --- */

static bool put(struct export_writer *writer, const void *bytes, size_t len, struct status *st)
{
    if (!file_write_fully(writer->fd, bytes, len, st))
        return status_wrap(st, "%s", writer->path);
    writer->at += len;
    return true;
}

bool export_writer_begin(struct export_writer *writer, const char *path, struct status *st)
{
    uint8_t head[HEAD_BYTES] = { 0 };
    struct stat info;
    int len;

    *writer = (struct export_writer){ .fd = -1 };
    len = snprintf(writer->partial, sizeof writer->partial, "%s.part-XXXXXX", path);
    if (len < 0 || len >= PATH_MAX)
        return status_fail(st, STATUS_INVALID, "the path is too long: %.80s...", path);
    snprintf(writer->path, sizeof writer->path, "%s", path);
    if (lstat(path, &info) == 0)
        return status_fail(st, STATUS_EXISTS, "%s is there already; name another file", path);
    writer->fd = mkostemp(writer->partial, O_CLOEXEC);
    if (writer->fd < 0)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", path);
    put_u64(head, HEAD_MAGIC);
    put_u16(head + 8, MAJOR);
    put_u16(head + 10, MINOR);
    put_u32(head + HEAD_BYTES - 4, kv_crc(0, head, HEAD_BYTES - 4));
    writer->chain = get_u32(head + HEAD_BYTES - 4);
    return put(writer, head, sizeof head, st);
}

bool export_writer_item(struct export_writer *writer, enum export_kind kind, const void *message, size_t len,
                        uint64_t payload_bytes, uint32_t payload_crc, struct status *st)
{
    uint8_t item[ITEM_BYTES] = { 0 };

    REQUIRE(len <= EXPORT_MESSAGE_BYTES_MAX && writer->payload_left == 0);
    put_u32(item, ITEM_MAGIC);
    put_u32(item + 4, (uint32_t)kind);
    put_u64(item + 8, writer->sum.items);
    put_u32(item + 16, (uint32_t)len);
    put_u32(item + 20, kv_crc(0, message, len));
    put_u64(item + 24, payload_bytes);
    put_u32(item + 32, payload_crc);
    writer->chain = kv_crc(writer->chain, item, ITEM_BYTES - 4);
    put_u32(item + ITEM_BYTES - 4, writer->chain);
    writer->sum.items++;
    writer->sum.frames += kind == EXPORT_BLOCK;
    writer->sum.payload_bytes += payload_bytes;
    writer->payload_left = payload_bytes;
    writer->payload_crc = 0;
    writer->payload_crc_wanted = payload_crc;
    return put(writer, item, sizeof item, st) && put(writer, message, len, st);
}

bool export_writer_payload(struct export_writer *writer, const void *bytes, size_t len, struct status *st)
{
    REQUIRE(len <= writer->payload_left);
    writer->payload_crc = kv_crc(writer->payload_crc, bytes, len);
    writer->payload_left -= len;
    if (writer->payload_left == 0 && writer->payload_crc != writer->payload_crc_wanted)
        return status_fail(st, STATUS_DATA_LOSS, "a block came with another checksum than its store said");
    return put(writer, bytes, len, st);
}

/* Not over what was put there meanwhile. File systems without such a rename have second names; FAT has the one only. */
static bool give_name(const struct export_writer *writer)
{
    if (renameat2(AT_FDCWD, writer->partial, AT_FDCWD, writer->path, RENAME_NOREPLACE) == 0)
        return true;
    return (errno == EINVAL || errno == ENOSYS) && link(writer->partial, writer->path) == 0;
}

static bool sync_and_name(struct export_writer *writer, struct status *st)
{
    char folder[PATH_MAX], *slash;

    if (fsync(writer->fd) != 0)
        return status_fail(st, status_code_of_errno(errno), "sync %s: %m", writer->partial);
    if (!give_name(writer))
        return status_fail(st, status_code_of_errno(errno), "%s: %m", writer->path);
    snprintf(folder, sizeof folder, "%s", writer->path);
    slash = strrchr(folder, '/');
    if (slash == NULL)
        snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder] = '\0';
    if (file_sync_folder_on(&file_system, folder, st))
        return true;
    unlink(writer->path);
    return false;
}

bool export_writer_finish(struct export_writer *writer, struct status *st)
{
    uint8_t end[END_BYTES] = { 0 };

    REQUIRE(writer->payload_left == 0);
    writer->sum.file_bytes = writer->at + END_BYTES;
    put_u64(end, END_MAGIC);
    put_u64(end + 8, writer->sum.items);
    put_u64(end + 16, writer->sum.frames);
    put_u64(end + 24, writer->sum.payload_bytes);
    put_u64(end + 32, writer->sum.file_bytes);
    put_u32(end + 40, writer->chain);
    put_u32(end + END_BYTES - 4, kv_crc(0, end, END_BYTES - 4));
    return put(writer, end, sizeof end, st) && sync_and_name(writer, st);
}

void export_writer_deinit(struct export_writer *writer)
{
    if (writer->fd < 0)
        return;
    close(writer->fd);
    unlink(writer->partial);
    writer->fd = -1;
}

/* --- reading --- */

static bool damaged(const struct export_reader *reader, uint64_t at, const char *what, struct status *st)
{
    return status_fail(st, STATUS_DATA_LOSS, "%s is damaged at byte %llu: %s", reader->path,
                       (unsigned long long)at, what);
}

static bool take(struct export_reader *reader, void *to, size_t len, struct status *st)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(reader->fd, (char *)to + done, len - done, (off_t)(reader->at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_fail(st, status_code_of_errno(errno), "read %s: %m", reader->path);
        if (n == 0)
            return damaged(reader, reader->at + done, "it ends there", st);
        done += (size_t)n;
    }
    reader->at += len;
    return true;
}

static bool check_head(struct export_reader *reader, struct status *st)
{
    uint8_t head[HEAD_BYTES];

    if (!take(reader, head, sizeof head, st))
        return false;
    if (get_u64(head) != HEAD_MAGIC)
        return status_fail(st, STATUS_INVALID, "%s is no export of a camera", reader->path);
    if (kv_crc(0, head, HEAD_BYTES - 4) != get_u32(head + HEAD_BYTES - 4))
        return damaged(reader, 0, "the checksum of its beginning does not fit", st);
    if (get_u16(head + 8) != MAJOR || get_u16(head + 10) > MINOR)
        return status_fail(st, STATUS_UNIMPLEMENTED, "%s has format %u.%u; this version reads up to %d.%d",
                           reader->path, get_u16(head + 8), get_u16(head + 10), MAJOR, MINOR);
    if (!is_zero(head + 12, HEAD_BYTES - 16))
        return damaged(reader, 12, "there are no zeros", st);
    reader->chain = get_u32(head + HEAD_BYTES - 4);
    return true;
}

static bool check_end(struct export_reader *reader, uint64_t file_bytes, struct status *st)
{
    uint64_t at = file_bytes - END_BYTES;
    uint8_t end[END_BYTES];

    reader->at = at;
    if (!take(reader, end, sizeof end, st))
        return false;
    reader->at = 0;
    if (get_u64(end) != END_MAGIC || kv_crc(0, end, END_BYTES - 4) != get_u32(end + END_BYTES - 4) ||
        !is_zero(end + 44, END_BYTES - 48) || get_u64(end + 32) != file_bytes)
        return damaged(reader, at, "its end is not the one that was written", st);
    reader->sum = (struct export_sum){ get_u64(end + 8), get_u64(end + 16), get_u64(end + 24), file_bytes };
    reader->chain_wanted = get_u32(end + 40);
    return true;
}

bool export_reader_begin(struct export_reader *reader, const char *path, struct status *st)
{
    struct stat info;

    *reader = (struct export_reader){ .path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) };
    if (reader->fd < 0 || fstat(reader->fd, &info) != 0)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", path);
    if (!S_ISREG(info.st_mode) || info.st_size < HEAD_BYTES)
        return status_fail(st, STATUS_INVALID, "%s is no export of a camera", path);
    reader->message = malloc(EXPORT_MESSAGE_BYTES_MAX);
    REQUIRE(reader->message != NULL);
    if (!check_head(reader, st))
        return false;
    if (info.st_size < HEAD_BYTES + END_BYTES)
        return damaged(reader, HEAD_BYTES, "it ends there", st);
    if (!check_end(reader, (uint64_t)info.st_size, st))
        return false;
    reader->at = HEAD_BYTES;
    return true;
}

/* At the end the sums are those that were read. */
static bool check_sums(const struct export_reader *reader, struct status *st)
{
    const struct export_sum *sum = &reader->sum;

    if (reader->items != sum->items || reader->frames != sum->frames ||
        reader->payload_bytes != sum->payload_bytes || reader->chain != reader->chain_wanted)
        return damaged(reader, reader->at, "its end speaks of other content", st);
    return true;
}

bool export_reader_item(struct export_reader *reader, enum export_kind *kind_p, uint64_t *payload_bytes_p,
                        struct status *st)
{
    uint64_t start = reader->at, left = reader->sum.file_bytes - END_BYTES - start;
    uint8_t item[ITEM_BYTES];

    REQUIRE(reader->payload_bytes_left == 0);
    *kind_p = 0;
    if (left == 0)
        return check_sums(reader, st);
    if (left < ITEM_BYTES)
        return damaged(reader, start, "no item begins there", st);
    if (!take(reader, item, sizeof item, st))
        return false;
    reader->chain = kv_crc(reader->chain, item, ITEM_BYTES - 4);
    if (get_u32(item) != ITEM_MAGIC || get_u32(item + ITEM_BYTES - 4) != reader->chain ||
        get_u64(item + 8) != reader->items)
        return damaged(reader, start, "no item begins there", st);
    reader->message_bytes = get_u32(item + 16);
    reader->payload_bytes_left = get_u64(item + 24);
    left -= ITEM_BYTES;
    if (reader->message_bytes > EXPORT_MESSAGE_BYTES_MAX || reader->message_bytes > left ||
        reader->payload_bytes_left > left - reader->message_bytes)
        return damaged(reader, start, "an item is longer than what is left", st);
    if (!take(reader, reader->message, reader->message_bytes, st))
        return false;
    if (kv_crc(0, reader->message, reader->message_bytes) != get_u32(item + 20))
        return damaged(reader, start + ITEM_BYTES, "the checksum of a message does not fit", st);
    reader->payload_crc = 0;
    reader->payload_crc_wanted = get_u32(item + 32);
    *kind_p = (enum export_kind)get_u32(item + 4);
    *payload_bytes_p = reader->payload_bytes_left;
    reader->items++;
    reader->frames += *kind_p == EXPORT_BLOCK;
    reader->payload_bytes += reader->payload_bytes_left;
    return true;
}

bool export_reader_payload(struct export_reader *reader, void *to, size_t len, struct status *st)
{
    uint64_t start = reader->at;

    REQUIRE(len <= reader->payload_bytes_left);
    if (!take(reader, to, len, st))
        return false;
    reader->payload_crc = kv_crc(reader->payload_crc, to, len);
    reader->payload_bytes_left -= len;
    if (reader->payload_bytes_left == 0 && reader->payload_crc != reader->payload_crc_wanted)
        return damaged(reader, start, "the checksum of a block does not fit", st);
    return true;
}

void export_reader_deinit(struct export_reader *reader)
{
    if (reader->fd >= 0)
        close(reader->fd);
    free(reader->message);
}
