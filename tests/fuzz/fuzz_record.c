/* Record headers, as they are and with a checksum that fits: what is accepted has a layout that is its own, can be written
 * again, and no bit of it can flip unseen. */
#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"
#include "kv/kv_format.h"
#include "kv/kv_crc.h"

enum { IMAGE_BYTES = 32 << 10 };

static const struct kv_super super = {
    .salt = 0x5a17,
    .epoch = 3,
    .geometry = { .layers = 2, .kv_heads = 1, .head_dim = 8, .dtype = KV_DTYPE_F16 },
};
static uint8_t image[IMAGE_BYTES];

static bool is_read(void)
{
    struct kv_record record;
    struct status st;
    uint32_t crc;

    return kv_record_header_bytes(image) != 0 && kv_record_get(&record, &crc, &super, image, &st) &&
           kv_record_verify(&record, image, &st);
}

/* A record that was accepted, written with parts that fit its header. */
static void write_and_flip(struct kv_record *record, const struct kv_layout *layout, uint64_t bit)
{
    struct kv_record again;
    struct status st;
    uint32_t crc;

    kv_record_checksum(record, image);
    kv_record_put(record, &super, image);
    REQUIRE(kv_record_get(&again, &crc, &super, image, &st));
    REQUIRE(memcmp(&again, record, sizeof again) == 0);
    REQUIRE(kv_record_verify(&again, image, &st));
    bit %= layout->record_bytes * 8;
    image[bit / 8] ^= (uint8_t)(1 << bit % 8);
    REQUIRE(!is_read());
}

static void try_header(uint64_t bit)
{
    struct kv_record_end end;
    struct kv_record record;
    struct kv_layout layout;
    struct status st;
    uint32_t crc;

    if (kv_record_header_bytes(image) == 0)
        return;
    kv_record_get_end(&end, super.salt, image, &st);
    if (!kv_record_get(&record, &crc, &super, image, &st))
        return;
    kv_record_layout(&record, &layout);
    REQUIRE(layout.record_bytes % KV_PAGE_BYTES == 0 && layout.slices <= layout.record_bytes);
    if (layout.record_bytes <= IMAGE_BYTES)
        write_and_flip(&record, &layout, bit);
}

static void take(const uint8_t *data, size_t len)
{
    memset(image, 0, IMAGE_BYTES);
    memcpy(image, data, len < IMAGE_BYTES ? len : IMAGE_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t bit = 0;
    uint32_t bytes;

    if (len >= 4)
        bit = get_u32(data + len - 4);
    take(data, len);
    try_header(bit);
    take(data, len);
    bytes = kv_record_header_bytes(image);
    if (bytes == 0)
        return 0;
    put_u64(image + 8, super.salt);
    put_u32(image + bytes - 4, kv_crc(0, image, bytes - 4));
    try_header(bit);
    return 0;
}

/* Up to the end of the slices' table. */
static void add_record(fuzz_seed_fn *add, const char *name, struct kv_record *record)
{
    memset(image, 0, IMAGE_BYTES);
    kv_record_checksum(record, image);
    kv_record_put(record, &super, image);
    add(name, image, 256 + 16 * 2 * record->layers + 4);
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    struct kv_record record;

    kv_record_init_block(&record, KV_RECORD_FRAME, &super.geometry, 9);
    record.epoch = super.epoch;
    record.seq = 7;
    record.end_seq = 8;
    record.thumbnail_bytes = 100;
    record.embedding_bytes = 33;
    add_record(add, "frame", &record);
    kv_record_init_block(&record, KV_RECORD_INIT, &super.geometry, 5);
    record.epoch = super.epoch;
    add_record(add, "init", &record);
    record = (struct kv_record){
        .type = KV_RECORD_GAP, .epoch = super.epoch, .seq = 3, .end_seq = 9, .note_bytes = 6
    };
    add_record(add, "gap", &record);
    record.type = KV_RECORD_EVENT;
    record.event = KV_EVENT_END;
    add_record(add, "event", &record);
}
