/* Trailers and entries, as they are and with checksums that fit: a footer that is accepted lies within its file. */
#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"
#include "kv/kv_crc.h"
#include "kv/kv_footer.h"

static const struct kv_super super = {
    .salt = 0x5a17,
    .epoch = 3,
    .geometry = { .layers = 2, .kv_heads = 1, .head_dim = 8, .dtype = KV_DTYPE_F16 },
    .crc = 0x1234abcd
};
static uint8_t page[KV_PAGE_BYTES];

static void try_trailer(uint64_t file_bytes)
{
    struct kv_footer footer, again;
    struct status st;

    if (!kv_footer_get(&footer, &super, file_bytes, page, &st))
        return;
    REQUIRE(footer.table < footer.file_bytes && footer.file_bytes == file_bytes);
    REQUIRE(footer.table <= footer.notes && footer.notes <= footer.sums && footer.sums <= footer.columns);
    REQUIRE(footer.notes - footer.table >= (uint64_t)footer.records * KV_ENTRY_BYTES);
    for (uint32_t layer = 0; layer < footer.layers; layer++)
        REQUIRE(kv_footer_column_end(&footer, layer) <= file_bytes - KV_PAGE_BYTES);
    kv_footer_put(&footer, page);
    REQUIRE(kv_footer_get(&again, &super, file_bytes, page, &st));
}

static void try_entry(const uint8_t bytes[KV_ENTRY_BYTES])
{
    struct kv_entry entry, again;
    uint8_t written[KV_ENTRY_BYTES], rewritten[KV_ENTRY_BYTES];
    struct kv_layout layout;
    struct status st;

    if (!kv_entry_get(&entry, &super.geometry, bytes, &st))
        return;
    kv_entry_put(&entry, written);
    REQUIRE(kv_entry_get(&again, &super.geometry, written, &st));
    kv_entry_put(&again, rewritten);
    REQUIRE(memcmp(written, rewritten, sizeof written) == 0);
    kv_entry_layout(&entry, &super.geometry, &layout);
    REQUIRE(layout.slices <= layout.record_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    memset(page, 0, sizeof page);
    memcpy(page, data, len < sizeof page ? len : sizeof page);
    for (size_t at = 0; at + KV_ENTRY_BYTES <= len && at < sizeof page; at += KV_ENTRY_BYTES)
        try_entry(data + at);
    try_trailer(get_u64(page + 72));
    put_u64(page + 16, super.salt);
    put_u32(page + 28, super.geometry.layers);
    put_u32(page + 100, super.crc);
    put_u32(page + KV_PAGE_BYTES - 4, kv_crc(0, page, KV_PAGE_BYTES - 4));
    try_trailer(get_u64(page + 72));
    return 0;
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    struct kv_footer footer = { .records = 5,
                                .frames = 3,
                                .layers = super.geometry.layers,
                                .salt = super.salt,
                                .end_seq = 9,
                                .notes_bytes = 12,
                                .super_crc = super.crc };
    const struct kv_entry entry = { .offset = KV_PAGE_BYTES,
                                    .record_bytes = 2 * KV_PAGE_BYTES,
                                    .seq = 7,
                                    .end_seq = 8,
                                    .tokens = 9,
                                    .type = KV_RECORD_FRAME,
                                    .thumbnail_bytes = 100 };

    kv_footer_place(&footer, 4 * KV_PAGE_BYTES, kv_key_bytes(&super.geometry));
    kv_footer_put(&footer, page);
    add("trailer", page, 136);
    kv_entry_put(&entry, page);
    add("entry", page, KV_ENTRY_BYTES);
}
