/* The superblock and the mark. Records are in kv_record.c and kv_record_header.c, footers in kv_footer.c; the layout of all is in
 * kv_format.h. */
#include "kv/kv_format.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/name.h"
#include "kv/kv_crc.h"

#define SUPER_MAGIC 0x5245505553564b52ull /* "RKVSUPER" */
#define MARK_MAGIC  0x204b52414d564b52ull /* "RKVMARK " */

enum { NAME_DIGITS = 20, SALT_DIGITS = 16 };

void kv_super_put(struct kv_super *super, uint8_t page[KV_PAGE_BYTES])
{
    super->minor = KV_FORMAT_MINOR;
    memset(page, 0, KV_PAGE_BYTES);
    put_u64(page, SUPER_MAGIC);
    put_u16(page + 8, KV_FORMAT_MAJOR);
    put_u16(page + 10, KV_FORMAT_MINOR);
    put_u32(page + 12, KV_PAGE_BYTES);
    put_u64(page + 16, super->replaces != 0 ? KV_INCOMPAT_REPLACES : 0);
    put_u64(page + 24, super->compat);
    put_u64(page + 32, super->salt);
    memcpy(page + 40, super->fingerprint, KV_FINGERPRINT_BYTES);
    put_u64(page + 56, super->epoch);
    put_u32(page + 64, super->geometry.layers);
    put_u32(page + 68, super->geometry.kv_heads);
    put_u32(page + 72, super->geometry.head_dim);
    put_u32(page + 76, super->geometry.dtype);
    put_u64(page + 80, (uint64_t)super->created_ns);
    put_u64(page + 88, super->first_seq);
    memcpy(page + 96, super->ns, sizeof super->ns);
    memcpy(page + 160, super->stream, sizeof super->stream);
    put_u64(page + 224, super->replaces);
    put_u32(page + 232, super->aged.thin);
    put_u16(page + 236, super->aged.bits);
    put_u16(page + 238, super->aged.keys_only);
    super->crc = kv_crc(0, page, KV_PAGE_BYTES - 4);
    put_u32(page + KV_PAGE_BYTES - 4, super->crc);
}

static bool check_versions(const uint8_t *page, struct status *st)
{
    uint16_t major = get_u16(page + 8), minor = get_u16(page + 10);
    uint64_t incompat = get_u64(page + 16);

    if (major != KV_FORMAT_MAJOR || minor < 1 || minor > KV_FORMAT_MINOR)
        return status_fail(
            st, STATUS_UNIMPLEMENTED,
            "segment format %u.%u; this version reads up to %u.%u: use the release that wrote it", major,
            minor, KV_FORMAT_MAJOR, KV_FORMAT_MINOR);
    if ((incompat & ~(uint64_t)KV_INCOMPAT_REPLACES) != 0)
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "segment needs features 0x%llx that this version does not have",
                           (unsigned long long)(incompat & ~(uint64_t)KV_INCOMPAT_REPLACES));
    return true;
}

static bool read_name(const uint8_t *from, const char *what, char *name, struct status *st)
{
    memcpy(name, from, LIMIT_NAME_BYTES + 1);
    if (name[LIMIT_NAME_BYTES] != '\0')
        return status_fail(st, STATUS_DATA_LOSS, "superblock: %s has no end", what);
    return name_check(what, name, st);
}

bool kv_super_get(struct kv_super *super, const uint8_t page[KV_PAGE_BYTES], struct status *st)
{
    struct kv_super got = { .crc = kv_crc(0, page, KV_PAGE_BYTES - 4) };

    if (get_u64(page) != SUPER_MAGIC)
        return status_fail(st, STATUS_DATA_LOSS, "no superblock: this is no segment file");
    if (got.crc != get_u32(page + KV_PAGE_BYTES - 4))
        return status_fail(st, STATUS_DATA_LOSS, "superblock: checksum does not fit");
    if (!check_versions(page, st))
        return false;
    got.minor = get_u16(page + 10);
    got.compat = get_u64(page + 24);
    got.salt = get_u64(page + 32);
    memcpy(got.fingerprint, page + 40, KV_FINGERPRINT_BYTES);
    got.epoch = get_u64(page + 56);
    got.geometry = (struct kv_geometry){ .layers = get_u32(page + 64),
                                         .kv_heads = get_u32(page + 68),
                                         .head_dim = get_u32(page + 72),
                                         .dtype = (enum kv_dtype)get_u32(page + 76) };
    got.created_ns = (int64_t)get_u64(page + 80);
    got.first_seq = get_u64(page + 88);
    got.replaces = get_u64(page + 224);
    got.aged = (struct kv_aged){ .thin = get_u32(page + 232),
                                 .bits = get_u16(page + 236),
                                 .keys_only = get_u16(page + 238) != 0 };
    if ((got.replaces != 0) != (get_u64(page + 16) == KV_INCOMPAT_REPLACES))
        return status_fail(st, STATUS_DATA_LOSS,
                           "superblock: its flags do not say whether it replaces a file");
    if (!kv_geometry_check(&got.geometry, st) || !read_name(page + 96, "namespace", got.ns, st) ||
        !read_name(page + 160, "stream", got.stream, st))
        return status_wrap(st, "superblock");
    *super = got;
    return true;
}

bool kv_epoch_name_get(uint64_t *epoch, const char *name)
{
    if (strlen(name) != NAME_DIGITS || strspn(name, "0123456789") != NAME_DIGITS)
        return false;
    *epoch = strtoull(name, NULL, 10);
    return true;
}

bool kv_file_name_get(struct kv_file_name *file, const char *name)
{
    const char *salt = name + NAME_DIGITS + 1, *suffix;

    if (strspn(name, "0123456789") != NAME_DIGITS || name[NAME_DIGITS] != '-' ||
        strspn(salt, "0123456789abcdef") != SALT_DIGITS)
        return false;
    suffix = salt + SALT_DIGITS;
    if (strcmp(suffix, ".open") != 0 && strcmp(suffix, ".seg") != 0)
        return false;
    *file = (struct kv_file_name){ .first_seq = strtoull(name, NULL, 10),
                                   .salt = strtoull(salt, NULL, 16),
                                   .is_open = suffix[1] == 'o' };
    return true;
}

void kv_mark_put(uint64_t salt, uint64_t synced, uint8_t page[KV_PAGE_BYTES])
{
    memset(page, 0, KV_PAGE_BYTES);
    put_u64(page, MARK_MAGIC);
    put_u64(page + 8, salt);
    put_u64(page + 16, synced);
    put_u32(page + KV_PAGE_BYTES - 4, kv_crc(0, page, KV_PAGE_BYTES - 4));
}

bool kv_mark_get(uint64_t salt, uint64_t *synced_p, const uint8_t page[KV_PAGE_BYTES])
{
    if (get_u64(page) != MARK_MAGIC || get_u64(page + 8) != salt ||
        get_u32(page + KV_PAGE_BYTES - 4) != kv_crc(0, page, KV_PAGE_BYTES - 4))
        return false;
    *synced_p = get_u64(page + 16);
    return true;
}
