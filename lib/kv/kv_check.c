#include "kv/kv_check_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kv/kv_crc.h"

/* --- telling --- */

void kv_check_tell(struct kv_check *check, struct kv_finding finding, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vsnprintf(finding.text, sizeof finding.text, format, list);
    va_end(list);
    check->is_derivable = false;
    check->found(check, &finding);
}

struct kv_finding kv_check_damage_at(uint64_t offset, uint64_t bytes)
{
    return (struct kv_finding){ .kind = KV_FOUND_DAMAGE, .offset = offset, .bytes = bytes };
}

enum kv_finding_kind kv_check_kind_of(const struct status *why)
{
    return why->code == STATUS_DATA_LOSS || why->code == STATUS_INVALID ? KV_FOUND_DAMAGE : KV_FOUND_UNREAD;
}

bool kv_check_go_on(struct kv_check *check, uint64_t bytes, struct status *st)
{
    return check->advance(check, bytes) || status_fail(st, STATUS_CANCELLED, "interrupted");
}

/* --- superblock, mark, footer --- */

/* Killed while it was being made: the superblock never arrived. */
static bool is_unborn(struct kv_check *check)
{
    uint64_t bytes =
        check->reader.bytes < KV_HEADER_BYTES_MAX ? check->reader.bytes : (uint64_t)KV_HEADER_BYTES_MAX;
    bool is_zero = false;

    return check->name.is_open && kv_reader_is_zero(&check->reader, 0, bytes, &is_zero, NULL) && is_zero;
}

static bool check_super(struct kv_check *check)
{
    struct kv_finding finding = kv_check_damage_at(0, KV_PAGE_BYTES);
    struct status why;
    const uint8_t *page;

    if (is_unborn(check)) {
        finding.kind = KV_FOUND_TORN;
        kv_check_tell(check, finding,
                      "nothing was written to it before its writer died; the next start removes it");
        return false;
    }
    if (check->reader.bytes < KV_PAGE_BYTES) {
        kv_check_tell(check, finding, "it is too short for a segment");
        return false;
    }
    page = kv_reader_view(&check->reader, 0, KV_PAGE_BYTES, &why);
    if (page == NULL || !kv_super_get(&check->super, page, &why)) {
        finding.kind = kv_check_kind_of(&why);
        kv_check_tell(check, finding, "%s", why.text);
        return false;
    }
    check->has_super = true;
    if (check->super.salt != check->name.salt || check->super.first_seq != check->name.first_seq)
        kv_check_tell(check, finding, "its name is not the one it was given: %020llu-%016llx",
                      (unsigned long long)check->super.first_seq, (unsigned long long)check->super.salt);
    check->chain = check->super.crc;
    check->is_chained = true;
    check->end = KV_PAGE_BYTES;
    check->end_seq = check->super.first_seq;
    return true;
}

/* The last page of a file that was growing: up to where all was synced. When the disk does not read it nobody can tell what
 * is torn. */
static void read_mark(struct kv_check *check)
{
    uint64_t at = check->reader.bytes - KV_PAGE_BYTES;
    struct kv_finding finding = kv_check_damage_at(at, KV_PAGE_BYTES);
    const uint8_t *page;
    struct status why;

    check->synced = 0;
    if (check->super.minor < KV_FORMAT_MINOR_MARK) {
        check->synced = UINT64_MAX;
        return;
    }
    if (at < KV_PAGE_BYTES)
        return;
    page = kv_reader_view(&check->reader, at, KV_PAGE_BYTES, &why);
    if (page == NULL) {
        check->is_mark_unread = true;
        check->synced = UINT64_MAX;
        check->records_end = at;
        finding.kind = KV_FOUND_UNREAD;
        kv_check_tell(check, finding, "%s", why.text);
    } else if (kv_mark_get(check->super.salt, &check->synced, page)) {
        check->records_end = at;
    }
}

static bool check_footer_part(struct kv_check *check, const char *what, uint64_t from, uint64_t to,
                              uint32_t want)
{
    struct kv_finding finding = kv_check_damage_at(from, to - from);
    struct status why;
    uint32_t crc = 0;

    if (!kv_reader_crc(&check->reader, from, to - from, &crc, &why)) {
        finding.kind = kv_check_kind_of(&why);
        kv_check_tell(check, finding, "%s", why.text);
        return false;
    }
    if (crc == want)
        return true;
    kv_check_tell(check, finding, "footer: the checksum of the %s does not fit", what);
    return false;
}

/* The footer by itself. *has_table_p: its table can be gone by. */
static bool check_footer(struct kv_check *check, bool *has_table_p, struct status *st)
{
    const struct kv_footer *footer = &check->footer;
    uint64_t trailer = check->reader.bytes - KV_PAGE_BYTES;
    struct kv_finding finding = kv_check_damage_at(trailer, KV_PAGE_BYTES);
    struct status why;
    const uint8_t *page = kv_reader_view(&check->reader, trailer, KV_PAGE_BYTES, &why);

    if (page == NULL || !kv_footer_get(&check->footer, &check->super, check->reader.bytes, page, &why)) {
        finding.kind = kv_check_kind_of(&why);
        kv_check_tell(check, finding, "%s", why.text);
        return true;
    }
    check->has_footer = true;
    check->records_end = footer->table;
    *has_table_p = check_footer_part(check, "table", footer->table, footer->notes, footer->table_crc);
    check_footer_part(check, "notes", footer->notes, footer->sums, footer->notes_crc);
    check_footer_part(check, "sums", footer->sums, footer->columns, footer->sums_crc);
    for (uint32_t layer = 0; layer < footer->layers; layer++) {
        uint64_t start = footer->columns + layer * footer->column_stride;

        check_footer_part(check, "keys", start, kv_footer_column_end(footer, layer),
                          footer->column_crc[layer]);
    }
    return kv_check_go_on(check, check->reader.bytes - footer->table, st);
}

/* --- the footer against the records --- */

static uint32_t crc_zeros(uint32_t crc, uint64_t bytes)
{
    static const uint8_t zeros[KV_PAGE_BYTES];
    uint64_t part;

    for (; bytes > 0; bytes -= part) {
        part = bytes < KV_PAGE_BYTES ? bytes : (uint64_t)KV_PAGE_BYTES;
        crc = kv_crc(crc, zeros, part);
    }
    return crc;
}

/* Records and footer fit by themselves: what is in the footer is what follows from the records. */
static void check_derived(struct kv_check *check)
{
    const struct kv_footer *footer = &check->footer;
    struct kv_footer *derived = &check->derived;
    uint64_t columns_bytes = check->frames * kv_key_bytes(&check->super.geometry);
    bool is_same = footer->records == check->records && footer->frames == check->frames &&
                   footer->end_seq == check->end_seq && footer->chain == check->chain &&
                   footer->notes_bytes == derived->notes_bytes;

    if (is_same) {
        derived->table_crc =
            crc_zeros(derived->table_crc, footer->notes - footer->table - check->records * KV_ENTRY_BYTES);
        derived->notes_crc =
            crc_zeros(derived->notes_crc, footer->sums - footer->notes - footer->notes_bytes);
        derived->sums_crc =
            crc_zeros(derived->sums_crc,
                      footer->columns - footer->sums - check->frames * 2 * footer->layers * sizeof(uint32_t));
        is_same = footer->table_crc == derived->table_crc && footer->notes_crc == derived->notes_crc &&
                  footer->sums_crc == derived->sums_crc;
    }
    for (uint32_t layer = 0; is_same && layer < footer->layers; layer++) {
        uint64_t start = footer->columns + layer * footer->column_stride;

        is_same = crc_zeros(derived->column_crc[layer], kv_footer_column_end(footer, layer) - start -
                                                            columns_bytes) == footer->column_crc[layer];
    }
    if (!is_same)
        kv_check_tell(check, kv_check_damage_at(footer->table, footer->file_bytes - footer->table),
                      "the footer fits by itself, and not its records");
}

static void check_rest(struct kv_check *check)
{
    struct kv_finding finding = kv_check_damage_at(check->reader.bytes, check->reader.rest);

    if (check->reader.rest == 0)
        return;
    if (check->name.is_open)
        finding.kind = KV_FOUND_TORN;
    kv_check_tell(check, finding, "it ends in the middle of a page");
}

static bool check_content(struct kv_check *check, struct status *st)
{
    bool has_table = false;

    check->is_derivable = true;
    check->records_end = check->reader.bytes;
    check->synced = UINT64_MAX;
    check_rest(check);
    if (!check_super(check))
        return kv_check_go_on(check, check->reader.bytes, st);
    if (!kv_check_go_on(check, KV_PAGE_BYTES, st))
        return false;
    if (check->name.is_open)
        read_mark(check);
    else if (!check_footer(check, &has_table, st))
        return false;
    if (!(has_table ? kv_check_walk_table(check, st) : kv_check_walk_records(check, st)))
        return false;
    if (check->has_footer && check->is_derivable)
        check_derived(check);
    return true;
}

bool kv_check_run(struct kv_check *check, struct status *st)
{
    struct status why;
    bool ok = kv_reader_open(&check->reader, check->disk, check->path, &why) &&
              kv_reader_open(&check->table, check->disk, check->path, &why);

    if (ok) {
        ok = check_content(check, st);
    } else if (why.code == STATUS_EXHAUSTED) {
        ok = status_fail(st, why.code, "%s", why.text);
    } else {
        struct kv_finding finding = kv_check_damage_at(0, 0);

        finding.kind = KV_FOUND_UNREAD;
        kv_check_tell(check, finding, "%s", why.text);
        ok = true;
    }
    kv_reader_close(&check->reader);
    kv_reader_close(&check->table);
    return ok;
}

bool kv_check_cut(const struct kv_check *check, struct status *st)
{
    const struct file_ops *disk = check->disk;
    bool has_mark = check->super.minor >= KV_FORMAT_MINOR_MARK;
    int fd = disk_open(disk, check->path, O_RDWR, st);
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    struct iovec piece = { .iov_base = page, .iov_len = KV_PAGE_BYTES };
    bool ok = fd >= 0 && page != NULL;

    if (fd >= 0 && page == NULL)
        status_fail(st, STATUS_EXHAUSTED, "no memory for a page");
    if (ok && has_mark) {
        kv_mark_put(check->super.salt, check->end, page);
        ok = disk_write(disk, fd, &piece, 1, check->end, st);
    }
    /* The records and the new mark first: a power cut between them and the cut leaves the old one in its place. */
    if (ok && disk->fdatasync(fd) != 0)
        ok = status_fail(st, status_code_of_errno(errno), "sync %s: %m", check->path);
    if (ok && (disk->ftruncate(fd, (off_t)(check->end + (has_mark ? KV_PAGE_BYTES : 0))) != 0 ||
               disk->fsync(fd) != 0))
        ok = status_fail(st, status_code_of_errno(errno), "cut %s: %m", check->path);
    if (fd >= 0)
        disk->close(fd);
    free(page);
    return ok;
}
