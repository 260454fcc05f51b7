/* Superblocks and marks, as they are and with a checksum that fits. */
#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"
#include "kv/kv_crc.h"
#include "kv/kv_format.h"

static uint8_t page[KV_PAGE_BYTES];

static bool is_equal(const struct kv_super *a, const struct kv_super *b)
{
    return a->compat == b->compat && a->salt == b->salt && a->epoch == b->epoch &&
           memcmp(a->fingerprint, b->fingerprint, KV_FINGERPRINT_BYTES) == 0 &&
           kv_geometry_is_equal(&a->geometry, &b->geometry) && a->created_ns == b->created_ns &&
           a->first_seq == b->first_seq && strcmp(a->ns, b->ns) == 0 && strcmp(a->stream, b->stream) == 0;
}

static void try_super(uint64_t bit)
{
    struct kv_super super, again;
    struct status st;

    if (!kv_super_get(&super, page, &st))
        return;
    kv_super_put(&super, page);
    REQUIRE(kv_super_get(&again, page, &st) && is_equal(&super, &again));
    bit %= KV_PAGE_BYTES * 8;
    page[bit / 8] ^= (uint8_t)(1 << bit % 8);
    REQUIRE(!kv_super_get(&again, page, &st));
}

static void try_mark(void)
{
    uint64_t salt = get_u64(page + 8), synced, again;

    if (!kv_mark_get(salt, &synced, page))
        return;
    kv_mark_put(salt, synced, page);
    REQUIRE(kv_mark_get(salt, &again, page) && again == synced);
    REQUIRE(!kv_mark_get(salt + 1, &again, page));
}

static void take(const uint8_t *data, size_t len, bool fits)
{
    memset(page, 0, sizeof page);
    memcpy(page, data, len < sizeof page ? len : sizeof page);
    if (fits)
        put_u32(page + KV_PAGE_BYTES - 4, kv_crc(0, page, KV_PAGE_BYTES - 4));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t bit = len >= 4 ? get_u32(data + len - 4) : 0;

    for (int fits = 0; fits < 2; fits++) {
        take(data, len, fits);
        try_mark();
        take(data, len, fits);
        try_super(bit);
    }
    return 0;
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    struct kv_super super = {
        .salt = 0x5a17,
        .epoch = 3,
        .geometry = { .layers = 2, .kv_heads = 1, .head_dim = 8, .dtype = KV_DTYPE_F16 },
        .created_ns = 1700000000000000000ll,
        .first_seq = 12,
        .ns = "default",
        .stream = "cam-1"
    };

    kv_super_put(&super, page);
    add("super", page, 224);
    kv_mark_put(super.salt, 8192, page);
    add("mark", page, 24);
}
