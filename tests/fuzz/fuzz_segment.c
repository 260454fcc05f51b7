#include "fuzz_segment.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"
#include "fuzz_file.h"
#include "kv/kv_crc.h"
#include "kvstore/segment_job.h"
#include "kvstore/segment_keys.h"
#include "kvstore/segment_scan.h"
#include "kvstore/store.h"

enum { SALT = 0x5a17, EPOCH = 3, PAGES_MAX = 26 };

#define BASE "/m/00000000000000000003/00000000000000000000-0000000000005a17"

static struct store store = { .disk = &fuzz_disk, .index_memory = { .limit_bytes = 512 << 10 } };
static struct stream stream = { .store = &store, .ns = "default", .name = "cam-1", .folder = "/m" };

/* --- checksums that fit --- */

static void fit_record(uint8_t *at, uint64_t room, const struct kv_super *super)
{
    uint32_t bytes = kv_record_header_bytes(at);
    struct kv_record record;
    struct kv_layout layout;
    struct status st;
    uint32_t crc;

    if (bytes == 0 || bytes > room)
        return;
    put_u64(at + 8, super->salt);
    put_u32(at + bytes - 4, kv_crc(0, at, bytes - 4));
    if (!kv_record_get(&record, &crc, super, at, &st))
        return;
    kv_record_layout(&record, &layout);
    if (layout.record_bytes > room)
        return;
    kv_record_checksum(&record, at);
    kv_record_put(&record, super, at);
}

static uint32_t crc_between(const uint8_t *file, uint64_t from, uint64_t to, uint64_t len)
{
    return from <= to && to <= len ? kv_crc(0, file + from, to - from) : 0;
}

static void fit_trailer(uint8_t *file, uint64_t len, const struct kv_super *super)
{
    uint8_t *page = file + len - KV_PAGE_BYTES;
    uint64_t table = get_u64(page + 40), notes = get_u64(page + 48), columns = get_u64(page + 64);
    uint64_t stride = get_u64(page + 80), sums = get_u64(page + 104);
    uint32_t layers = super->geometry.layers;

    put_u64(page + 16, super->salt);
    put_u32(page + 100, super->crc);
    put_u32(page + 88, crc_between(file, table, notes, len));
    put_u32(page + 92, crc_between(file, notes, sums, len));
    put_u32(page + 112, crc_between(file, sums, columns, len));
    for (uint32_t i = 0; i < layers && columns <= len && stride <= len; i++)
        put_u32(page + 128 + 4 * i,
                crc_between(file, columns + i * stride,
                            i + 1 < layers ? columns + (i + 1) * stride : len - KV_PAGE_BYTES, len));
    put_u32(page + KV_PAGE_BYTES - 4, kv_crc(0, page, KV_PAGE_BYTES - 4));
}

static void fit(uint8_t *file, uint64_t len)
{
    struct kv_super super;
    struct status st;

    put_u64(file + 32, SALT);
    put_u64(file + 56, EPOCH);
    put_u64(file + 88, 0);
    put_u32(file + KV_PAGE_BYTES - 4, kv_crc(0, file, KV_PAGE_BYTES - 4));
    if (!kv_super_get(&super, file, &st))
        return;
    for (uint64_t at = KV_PAGE_BYTES; at + KV_PAGE_BYTES <= len; at += KV_PAGE_BYTES)
        fit_record(file + at, len - at, &super);
    if (len >= 2 * KV_PAGE_BYTES)
        fit_trailer(file, len, &super);
}

/* --- what was found --- */

/* As the store does when it has started: from the footer, or from the records. */
static bool read_keys(const struct segment *segment, const uint8_t *file, uint64_t bytes)
{
    struct kv_footer footer;
    struct status st;
    bool *is_damaged;
    int fd;
    bool ok;

    if (segment->index.chunk_count == 0 || !segment->index.chunks[0]->is_blank)
        return true;
    fd = disk_open(&fuzz_disk, BASE ".seg", O_RDONLY, &st);
    REQUIRE(fd >= 0 && kv_footer_get(&footer, &segment->super, bytes, file + bytes - KV_PAGE_BYTES, &st));
    ok = segment_keys_read(&fuzz_disk, fd, &footer, &segment->index, &st);
    if (!ok) {
        is_damaged = calloc(segment->index.frame_count, sizeof *is_damaged);
        ok = is_damaged != NULL && segment_keys_repair(&fuzz_disk, fd, segment, false, is_damaged, &st);
        free(is_damaged);
    }
    fuzz_disk.close(fd);
    return ok;
}

static void look_at_keys(const struct index_frame *frame)
{
    const struct kv_geometry *geometry = &frame->chunk->geometry;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < 2 * geometry->layers; i++)
        sum += index_frame_sums(frame)[i];
    for (uint32_t i = 0; i < geometry->layers; i++)
        sum += index_frame_key(frame, i)[kv_key_bytes(geometry) - 1];
    REQUIRE(sum < UINT64_MAX);
}

static void look_at_frame(const struct index_frame *frame, uint64_t file_bytes)
{
    const struct kv_geometry *geometry = &frame->chunk->geometry;
    uint64_t pair = round_up(2 * kv_encoding_bytes(geometry, frame->encoding, frame->tokens), KV_PART_ALIGN);

    REQUIRE(frame->offset <= file_bytes && frame->record_bytes <= file_bytes - frame->offset);
    REQUIRE((uint64_t)frame->thumbnail_at + frame->thumbnail_bytes <= frame->record_bytes);
    REQUIRE(!frame->has_slices || frame->slices_at + geometry->layers * pair <= frame->record_bytes);
}

static void look_at(struct segment *segment, uint64_t file_bytes, bool has_keys)
{
    struct segment_cursor cursor = { 0 };
    const struct index_frame *frame;
    const struct segment_mark *mark;
    uint64_t seq = 0;
    struct kv_record record;
    struct status st;

    while (segment_next(segment, &cursor, &frame, &mark)) {
        REQUIRE((frame != NULL ? frame->seq : mark->seq) >= seq);
        seq = frame != NULL ? frame->seq + 1 : mark->end_seq;
        if (frame != NULL)
            look_at_frame(frame, file_bytes);
        if (frame != NULL && has_keys)
            look_at_keys(frame);
    }
    REQUIRE(segment->end_seq >= seq);
    segment_count_marks(segment);
    if (segment->init_offset != 0)
        free(segment_load_init(segment, &record, &st));
}

/* What was sealed after a scan is read from its footer from then on, and is the same. */
static void load_again(const struct segment *segment)
{
    struct segment_load load = { .below_seq = UINT64_MAX };
    struct segment *again;
    struct status st;

    REQUIRE(segment_load(&stream, BASE, false, &again, &load, &st));
    REQUIRE(!load.was_scanned && again->state == SEGMENT_SEALED);
    REQUIRE(again->end_seq == segment->end_seq && again->mark_count == segment->mark_count &&
            again->index.frame_count == segment->index.frame_count);
    segment_destroy(again);
}

void fuzz_segment_run(const uint8_t *data, size_t len, bool is_open)
{
    const char *path = is_open ? BASE ".open" : BASE ".seg";
    struct segment_scan_end end;
    struct segment_load load = { .below_seq = UINT64_MAX };
    struct segment *segment;
    struct status st;
    uint64_t bytes;
    uint8_t *file;

    if (len < 2)
        return;
    log_init("fuzz", LOG_ERROR);
    bytes = (uint64_t)(data[1] % PAGES_MAX) * KV_PAGE_BYTES + (data[0] & FUZZ_ODD_BYTES ? 100 : 0);
    fuzz_disk_clear();
    file = fuzz_disk_put(path, bytes);
    fuzz_expand(data + 2, len - 2, file, bytes);
    if ((data[0] & FUZZ_FITS) != 0 && bytes >= KV_PAGE_BYTES && bytes % KV_PAGE_BYTES == 0)
        fit(file, bytes);
    segment_scan_end(&fuzz_disk, path, SALT, &end, &st);
    if (segment_load(&stream, BASE, is_open, &segment, &load, &st) && segment != NULL) {
        look_at(segment, bytes, read_keys(segment, file, bytes));
        if (is_open && segment->state == SEGMENT_SEALED)
            load_again(segment);
        segment_destroy(segment);
    }
    REQUIRE(store.index_memory.used_bytes == 0);
}

/* --- seeds --- */

static uint8_t image[FUZZ_FILE_BYTES];

struct maker {
    struct kv_super super;
    uint64_t end;
    uint32_t chain;
    struct kv_entry entries[8];
    uint32_t count, frames;
};

static void put_record(struct maker *maker, struct kv_record *record)
{
    uint8_t *at = image + maker->end;
    struct kv_layout layout;

    record->epoch = maker->super.epoch;
    record->chain = maker->chain;
    kv_record_layout(record, &layout);
    memset(at + layout.note, 'n', record->note_bytes);
    kv_record_checksum(record, at);
    maker->chain = kv_record_put(record, &maker->super, at);
    kv_entry_of_record(&maker->entries[maker->count++], record, maker->end, maker->chain);
    maker->frames += record->type == KV_RECORD_FRAME;
    maker->end += layout.record_bytes;
}

static void put_footer(struct maker *maker)
{
    struct kv_footer footer = { .records = maker->count,
                                .frames = maker->frames,
                                .layers = maker->super.geometry.layers,
                                .salt = maker->super.salt,
                                .notes_bytes = 8,
                                .end_seq = maker->entries[maker->count - 1].end_seq };

    kv_footer_place(&footer, maker->end, kv_key_bytes(&maker->super.geometry));
    for (uint32_t i = 0; i < maker->count; i++)
        kv_entry_put(&maker->entries[i], image + maker->end + (uint64_t)i * KV_ENTRY_BYTES);
    memset(image + footer.notes, 'n', footer.notes_bytes);
    kv_footer_put(&footer, image + footer.file_bytes - KV_PAGE_BYTES);
    maker->end = footer.file_bytes;
}

static void add_file(fuzz_seed_fn *add, const char *name, const uint8_t *from, uint64_t len)
{
    uint8_t *input = malloc(2 * len + 4);

    REQUIRE(input != NULL);
    input[0] = FUZZ_FITS;
    input[1] = (uint8_t)(len / KV_PAGE_BYTES);
    add(name, input, 2 + fuzz_shrink(from, len, input + 2));
    free(input);
}

static void add_golden(fuzz_seed_fn *add, const char *name)
{
    struct file_text text;
    struct status st;
    char path[4096];

    snprintf(path, sizeof path, REELKV_SOURCE_DIR "/tests/data/%s.seg", name);
    REQUIRE(file_read_all(path, FUZZ_FILE_BYTES, &text, &st));
    add_file(add, name, (const uint8_t *)text.data, text.len);
    free(text.data);
}

void fuzz_segment_seeds(fuzz_seed_fn *add, bool is_open)
{
    struct maker maker = {
        .super = { .salt = SALT,
                   .epoch = EPOCH,
                   .geometry = { .layers = 2, .kv_heads = 1, .head_dim = 8, .dtype = KV_DTYPE_F16 },
                   .ns = "default",
                   .stream = "cam-1" },
        .end = KV_PAGE_BYTES
    };
    struct kv_record record;

    memset(image, 0, sizeof image);
    kv_super_put(&maker.super, image);
    maker.chain = maker.super.crc;
    kv_record_init_block(&record, KV_RECORD_INIT, &maker.super.geometry, 3);
    put_record(&maker, &record);
    kv_record_init_block(&record, KV_RECORD_FRAME, &maker.super.geometry, 5);
    record.end_seq = 1;
    record.token_index = 3;
    record.thumbnail_bytes = 10;
    put_record(&maker, &record);
    record = (struct kv_record){ .type = KV_RECORD_GAP, .seq = 1, .end_seq = 4, .note_bytes = 4 };
    put_record(&maker, &record);
    record = (struct kv_record){
        .type = KV_RECORD_EVENT, .event = KV_EVENT_END, .seq = 4, .end_seq = 4, .note_bytes = 4
    };
    put_record(&maker, &record);
    if (is_open) {
        kv_mark_put(SALT, maker.end, image + maker.end + KV_PAGE_BYTES);
        maker.end += 2 * KV_PAGE_BYTES;
    } else {
        put_footer(&maker);
    }
    add_file(add, "small", image, maker.end);
    add_golden(add, "kv_segment_0_1");
    add_golden(add, "kv_segment_0_2");
    add_golden(add, "kv_segment_0_3");
}
