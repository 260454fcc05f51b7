/* The written layout: round trips, the golden file, and that no flipped bit passes. */
#include "kv/kv_format.h"

#include "base/file.h"
#include "kv_golden.h"
#include "support/payload.h"
#include "support/test.h"

static struct status st;

/* Reads a whole sealed segment as the store does: superblock, trailer, table, notes, columns, records.
 * False: something did not fit. */
static bool read_segment(const uint8_t *bytes, uint64_t len)
{
    struct kv_super super;
    struct kv_footer footer;
    const uint8_t *at;
    uint32_t chain;

    if (!kv_super_get(&super, bytes, &st) ||
        !kv_footer_get(&footer, &super, len, bytes + len - KV_PAGE_BYTES, &st))
        return false;
    if (kv_crc(0, bytes + footer.table, footer.notes - footer.table) != footer.table_crc ||
        kv_crc(0, bytes + footer.notes, footer.sums - footer.notes) != footer.notes_crc ||
        kv_crc(0, bytes + footer.sums, footer.columns - footer.sums) != footer.sums_crc)
        return false;
    for (uint32_t layer = 0; layer < footer.layers; layer++) {
        uint64_t start = footer.columns + layer * footer.column_stride;

        if (kv_crc(0, bytes + start, kv_footer_column_end(&footer, layer) - start) !=
            footer.column_crc[layer])
            return false;
    }
    at = bytes + KV_PAGE_BYTES;
    chain = super.crc;
    for (uint32_t i = 0; i < footer.records; i++) {
        struct kv_record record;
        struct kv_entry entry;
        struct kv_layout layout;
        uint32_t crc;

        if (!kv_entry_get(&entry, &super.geometry, bytes + footer.table + i * KV_ENTRY_BYTES, &st) ||
            !kv_record_get(&record, &crc, &super, at, &st) || !kv_record_verify(&record, at, &st))
            return false;
        kv_record_layout(&record, &layout);
        if (record.chain != chain || entry.header_crc != crc || entry.offset != (uint64_t)(at - bytes))
            return false;
        chain = crc;
        at += layout.record_bytes;
    }
    return chain == footer.chain && at == bytes + footer.table;
}

TEST(format_superblock_round_trips)
{
    struct golden golden;
    struct kv_super super;

    golden_compose(&golden);
    CHECK_OK(kv_super_get(&super, golden.bytes, &st), st);
    CHECK_EQ(super.salt, golden.super.salt);
    CHECK_EQ(super.epoch, 3);
    CHECK_EQ(super.first_seq, 40);
    CHECK_STR(super.ns, "default");
    CHECK_STR(super.stream, "dock-2");
    CHECK_EQ(super.replaces, 0xfedcba9876543210);
    CHECK_EQ(super.aged.thin, 4);
    CHECK_EQ(super.aged.bits, 8);
    CHECK(super.aged.keys_only);
    CHECK(kv_geometry_is_equal(&super.geometry, &golden_geometry));
    CHECK_MEM(super.fingerprint, golden.super.fingerprint, KV_FINGERPRINT_BYTES);
    free(golden.bytes);
}

/* Every field of every record comes back, the payload byte by byte, and from its entry where the parts lie. */
TEST(format_records_round_trip)
{
    struct golden golden;

    golden_compose(&golden);
    for (uint32_t i = 0; i < GOLDEN_RECORDS; i++) {
        const struct kv_entry *entry = &golden.entries[i];
        const uint8_t *image = golden.bytes + entry->offset;
        uint8_t payload[GOLDEN_PAYLOAD_MAX];
        struct kv_layout layout, entry_layout;
        struct kv_entry got_entry;
        uint8_t bytes[KV_ENTRY_BYTES];
        struct kv_record got;
        uint32_t crc;

        CHECK_EQ(kv_record_header_bytes(image), KV_PAGE_BYTES);
        CHECK_OK(kv_record_get(&got, &crc, &golden.super, image, &st), st);
        CHECK_OK(kv_record_verify(&got, image, &st), st);
        CHECK_MEM(&got, &golden.records[i], sizeof got);
        if (got.keys_bytes == 0)
            continue;
        golden_payload(&got, payload);
        for (uint64_t at = 0; at < kv_record_payload_bytes(&got); at++)
            CHECK_EQ(image[kv_record_run(&got, at).image], payload[at]);
        kv_entry_put(entry, bytes);
        CHECK_OK(kv_entry_get(&got_entry, &golden_geometry, bytes, &st), st);
        kv_entry_layout(&got_entry, &golden_geometry, &entry_layout);
        kv_record_layout(&got, &layout);
        CHECK_EQ(entry_layout.slices, layout.slices);
        CHECK_EQ(entry_layout.record_bytes, layout.record_bytes);
    }
    free(golden.bytes);
}

static void read_golden(const char *version, struct file_text *file)
{
    char path[512];

    snprintf(path, sizeof path, "%s/tests/data/kv_segment_%s.seg", REELKV_SOURCE_DIR, version);
    CHECK_OK(file_read_all(path, GOLDEN_BYTES_MAX, file, &st), st);
}

TEST(format_golden_files_of_older_versions_are_read)
{
    static const char *const versions[] = { "0_1", "0_2" };

    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct file_text file;

        read_golden(versions[i], &file);
        CHECK(read_segment((const uint8_t *)file.data, file.len));
        free(file.data);
    }
}

/* What this version writes is what it wrote when the golden file was made, and it reads it. */
TEST(format_golden_file_is_what_is_written)
{
    struct golden golden;
    struct file_text file;

    golden_compose(&golden);
    read_golden("0_3", &file);
    CHECK_EQ(file.len, golden.len);
    CHECK_MEM(file.data, golden.bytes, golden.len);
    CHECK(read_segment((const uint8_t *)file.data, file.len));
    free(file.data);
    free(golden.bytes);
}

/* One bit of every byte of the file in turn; the padding between parts and after them too. */
TEST(format_no_flipped_bit_passes)
{
    struct golden golden;

    golden_compose(&golden);
    CHECK(read_segment(golden.bytes, golden.len));
    for (uint64_t at = 0; at < golden.len; at++) {
        unsigned bit = (unsigned)(at * 5 % 8);

        golden.bytes[at] ^= (uint8_t)(1u << bit);
        if (read_segment(golden.bytes, golden.len))
            test_fail(__FILE__, __LINE__, "bit %u of byte %llu was flipped and not found", bit,
                      (unsigned long long)at);
        golden.bytes[at] ^= (uint8_t)(1u << bit);
    }
    CHECK(read_segment(golden.bytes, golden.len));
    free(golden.bytes);
}

TEST(format_mark_round_trips_and_fits_only_its_file)
{
    uint8_t page[KV_PAGE_BYTES];
    uint64_t synced = 0;

    kv_mark_put(7, 12345, page);
    CHECK(kv_mark_get(7, &synced, page));
    CHECK_EQ(synced, 12345);
    CHECK(!kv_mark_get(8, &synced, page));
    for (uint32_t at = 0; at < KV_PAGE_BYTES; at++) {
        page[at] ^= 8;
        CHECK(!kv_mark_get(7, &synced, page));
        page[at] ^= 8;
    }
}

/* Intact bytes in the wrong place: two records of the same length change places; a record of another
 * segment; a slice of one frame in another. */
TEST(format_intact_bytes_elsewhere_do_not_pass)
{
    struct golden golden;
    struct kv_super other;
    struct kv_record record, second;
    const uint8_t *first_image;
    uint32_t crc;

    golden_compose(&golden);
    other = golden.super;
    other.salt++;
    first_image = golden.bytes + golden.entries[1].offset;
    CHECK(!kv_record_get(&record, &crc, &other, first_image, &st));
    CHECK_HAS(st.text, "another segment");

    kv_record_init_block(&record, KV_RECORD_FRAME, &golden_geometry, 2);
    record.seq = 1;
    record.end_seq = 2;
    record.epoch = golden.super.epoch;
    second = record;
    second.seq = 2;
    second.end_seq = 3;
    {
        uint8_t a[4 * KV_PAGE_BYTES] = { 0 }, b[4 * KV_PAGE_BYTES] = { 0 };
        struct kv_run layer = kv_record_run(&record, payload_layer_offset(&golden_geometry, 2, 1));

        /* The same payload, sealed as two different frames: slices hold the same bytes, but exchanged headers
         * give exchanged CRCs, which do not fit the frame they now stand in. */
        memset(a + layer.image, 1, layer.bytes);
        memset(b + layer.image, 2, layer.bytes);
        kv_record_checksum(&record, a);
        kv_record_checksum(&second, b);
        kv_record_put(&record, &golden.super, a);
        kv_record_put(&second, &golden.super, b);
        CHECK_OK(kv_record_get(&record, &crc, &golden.super, a, &st), st);
        CHECK_OK(kv_record_verify(&record, a, &st), st);
        CHECK(!kv_record_verify(&record, b, &st));
        CHECK_EQ(st.code, STATUS_DATA_LOSS);
    }
    free(golden.bytes);
}

/* As many layers as a model may have: the slice table goes on in a second page. */
TEST(format_header_holds_any_number_of_layers)
{
    struct kv_geometry geometry = { .kv_heads = 1, .head_dim = 8, .dtype = KV_DTYPE_F32 };
    uint8_t *image = calloc(1, 1 << 20);

    CHECK(image != NULL);
    for (geometry.layers = 1; geometry.layers <= LIMIT_LAYERS; geometry.layers++) {
        struct kv_super super = { .salt = 9, .geometry = geometry, .ns = "n", .stream = "s" };
        struct kv_record record, got;
        struct kv_layout layout;
        uint32_t crc;

        kv_record_init_block(&record, KV_RECORD_FRAME, &geometry, 3);
        record.end_seq = 1;
        kv_record_layout(&record, &layout);
        CHECK(layout.record_bytes < 1 << 20);
        CHECK_EQ(layout.header_bytes, geometry.layers <= 119 ? KV_PAGE_BYTES : KV_HEADER_BYTES_MAX);
        memset(image + layout.keys, 5, layout.record_bytes - layout.keys);
        kv_record_checksum(&record, image);
        kv_record_put(&record, &super, image);
        CHECK_EQ(kv_record_header_bytes(image), layout.header_bytes);
        CHECK_OK(kv_record_get(&got, &crc, &super, image, &st), st);
        CHECK_OK(kv_record_verify(&got, image, &st), st);
    }
    free(image);
}

/* As it comes over a wire: in pieces that heed no part's end, some of them empty. */
static uint32_t take_in_pieces(struct kv_record *record, const uint8_t *payload, uint64_t bytes,
                               uint8_t *image)
{
    struct kv_record_intake intake;

    kv_record_intake_begin(record, &intake);
    for (uint64_t at = 0, piece = 0; at < bytes; piece = (piece * 7 + 5) % 10007) {
        uint64_t here = piece < bytes - at ? piece : bytes - at;

        kv_record_intake_add(record, &intake, payload + at, here, image);
        at += here;
    }
    return kv_record_intake_end(record, &intake, image);
}

/* A payload taken in one pass gives the image, the checksums and the payload's checksum that copying and then checking
 * give, over memory that held something else. */
TEST(format_takes_a_payload_in_one_pass)
{
    static const struct kv_geometry shapes[] = { { 3, 4, 128, KV_DTYPE_BF16 }, { 5, 1, 7, KV_DTYPE_F16 } };

    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (uint32_t tokens = 1; tokens < 200; tokens += 65) {
            uint64_t bytes = kv_payload_bytes(&shapes[i], tokens);
            uint8_t *payload = malloc(bytes), *a, *b;
            struct kv_record record, taken;
            struct kv_layout layout;

            kv_record_init_block(&record, KV_RECORD_FRAME, &shapes[i], tokens);
            taken = record;
            kv_record_layout(&record, &layout);
            a = calloc(1, layout.record_bytes);
            b = calloc(1, layout.record_bytes);
            CHECK(payload != NULL && a != NULL && b != NULL);
            memset(b + layout.note, 0x77, layout.record_bytes - layout.note);
            for (uint64_t at = 0; at < bytes; at++)
                payload[at] = (uint8_t)(at * 2654435761u >> 9);
            kv_record_scatter(&record, 0, payload, bytes, a);
            CHECK_EQ(kv_record_take(&taken, payload, b), kv_record_checksum(&record, a));
            CHECK_EQ(kv_crc(0, payload, bytes), kv_record_payload_crc(&taken));
            CHECK(memcmp(&taken, &record, sizeof record) == 0 && memcmp(a, b, layout.record_bytes) == 0);
            memset(b + layout.note, 0x77, layout.record_bytes - layout.note);
            CHECK_EQ(take_in_pieces(&taken, payload, bytes, b), kv_crc(0, payload, bytes));
            CHECK(memcmp(&taken, &record, sizeof record) == 0 && memcmp(a, b, layout.record_bytes) == 0);
            free(payload);
            free(a);
            free(b);
        }
}

/* The K of each layer stands at a multiple of 64, V right behind it, whatever the shape. */
TEST(format_layers_are_aligned)
{
    static const struct kv_geometry shapes[] = { { 28, 4, 128, KV_DTYPE_BF16 },
                                                 { 24, 2, 64, KV_DTYPE_F16 },
                                                 { 5, 1, 7, KV_DTYPE_F16 } };

    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (uint32_t tokens = 1; tokens < 200; tokens += 65) {
            struct kv_record record;

            kv_record_init_block(&record, KV_RECORD_FRAME, &shapes[i], tokens);
            for (uint32_t layer = 0; layer < shapes[i].layers; layer++) {
                struct kv_run run = kv_record_run(&record, payload_layer_offset(&shapes[i], tokens, layer));

                CHECK_EQ(run.image % KV_PART_ALIGN, 0);
                CHECK_EQ(run.bytes, 2 * kv_slice_bytes(&shapes[i], tokens));
            }
        }
}

/* A version or feature this build does not know is named, not guessed at. */
TEST(format_refuses_other_versions_by_name)
{
    struct golden golden;
    struct kv_super super;

    golden_compose(&golden);
    put_u16(golden.bytes + 10, KV_FORMAT_MINOR + 1);
    put_u32(golden.bytes + KV_PAGE_BYTES - 4, kv_crc(0, golden.bytes, KV_PAGE_BYTES - 4));
    CHECK(!kv_super_get(&super, golden.bytes, &st));
    CHECK_EQ(st.code, STATUS_UNIMPLEMENTED);
    CHECK_HAS(st.text, "0.4");
    put_u16(golden.bytes + 10, KV_FORMAT_MINOR);
    put_u64(golden.bytes + 16, KV_INCOMPAT_REPLACES | 4);
    put_u32(golden.bytes + KV_PAGE_BYTES - 4, kv_crc(0, golden.bytes, KV_PAGE_BYTES - 4));
    CHECK(!kv_super_get(&super, golden.bytes, &st));
    CHECK_EQ(st.code, STATUS_UNIMPLEMENTED);
    CHECK_HAS(st.text, "0x4");
    put_u64(golden.bytes + 16, KV_INCOMPAT_REPLACES);
    put_u64(golden.bytes + 24, 4); /* a compat flag is let pass */
    put_u32(golden.bytes + KV_PAGE_BYTES - 4, kv_crc(0, golden.bytes, KV_PAGE_BYTES - 4));
    CHECK_OK(kv_super_get(&super, golden.bytes, &st), st);
    free(golden.bytes);
}

/* Headers with a right CRC and senseless fields: written by a broken program, refused all the same. */
TEST(format_refuses_fields_that_make_no_sense)
{
    static const struct {
        unsigned offset;
        uint32_t value;
    } cases[] = {
        { 4, 9 },              /* type */
        { 4, 5 },              /* one that has its number only */
        { 24, 0 },             /* end seq before seq */
        { 56, 0 },             /* no tokens */
        { 56, 1u << 31 },      /* too many */
        { 60, 8192 },          /* header longer than its layers need */
        { 64, 4096 },          /* record shorter than its parts */
        { 72, 99 },            /* epoch */
        { 96, 1u << 20 },      /* note */
        { 100, 1u << 31 },     /* thumbnail */
        { 108, 2 },            /* layers */
        { 112, 1 },            /* keys */
        { 256, 3 },            /* a slice's tokens */
        { 260, 1 },            /* its encoding */
        { 260, 8 },            /* without a group */
        { 260, 5u << 16 },     /* a group without an encoding */
        { 260, 8 | 3u << 16 }, /* a group that does not divide head_dim */
        { 264, 0xfffffff0 }    /* its bytes */
    };
    struct golden golden;

    golden_compose(&golden);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t header[KV_PAGE_BYTES];
        struct kv_record record;
        uint32_t crc;

        memcpy(header, golden.bytes + golden.entries[2].offset, sizeof header);
        put_u32(header + cases[i].offset, cases[i].value);
        put_u32(header + KV_PAGE_BYTES - 4, kv_crc(0, header, KV_PAGE_BYTES - 4));
        if (kv_record_get(&record, &crc, &golden.super, header, &st))
            test_fail(__FILE__, __LINE__, "case %zu was taken", i);
    }
    free(golden.bytes);
}

TEST_MAIN()
