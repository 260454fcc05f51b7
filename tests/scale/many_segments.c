#include "many_segments.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "kv/kv_crc.h"
#include "kv/kv_footer.h"
#include "support/test.h"

enum { INIT_TOKENS = 5, FRAME_NS = 2000000000 };

static const int64_t begun_ns = 1700000000000000000ll;

/* One file on its way. */
struct made {
    const struct many_segments *shape;
    struct kv_super super;
    uint64_t end; /* of what has been placed */
    bool is_last;
    int fd;
};

static void put(const struct made *made, const void *bytes, uint64_t len, uint64_t at)
{
    CHECK_EQ(pwrite(made->fd, bytes, len, (off_t)at), len);
}

static void *pages(uint64_t bytes)
{
    void *memory = calloc(1, bytes);

    REQUIRE(memory != NULL);
    return memory;
}

/* The system prompt's block: zeros, like the frames, but there. */
static void place_init(struct made *made, struct kv_entry *entry, uint32_t *chain)
{
    struct kv_record record;
    struct kv_layout layout;
    uint8_t *image;

    kv_record_init_block(&record, KV_RECORD_INIT, &made->shape->geometry, INIT_TOKENS);
    record.seq = record.end_seq = made->super.first_seq;
    record.epoch = made->super.epoch;
    record.chain = *chain;
    kv_record_layout(&record, &layout);
    image = pages(layout.record_bytes);
    kv_record_checksum(&record, image);
    *chain = kv_record_put(&record, &made->super, image);
    kv_entry_of_record(entry, &record, made->end, *chain);
    if (made->is_last)
        put(made, image, layout.record_bytes, made->end);
    made->end += layout.record_bytes;
    free(image);
}

static void place_frame(struct made *made, uint64_t seq, struct kv_entry *entry)
{
    struct kv_record record;

    kv_record_init_block(&record, KV_RECORD_FRAME, &made->shape->geometry, made->shape->tokens);
    record.seq = seq;
    record.end_seq = seq + 1;
    record.pts_ns = record.end_pts_ns = begun_ns + (int64_t)seq * FRAME_NS;
    record.token_index = INIT_TOKENS + seq * made->shape->tokens;
    record.epoch = made->super.epoch;
    kv_entry_of_record(entry, &record, made->end, 0);
    made->end += entry->record_bytes;
}

/* Of zeros, without their being anywhere. */
static uint32_t zeros_crc(uint64_t bytes)
{
    void *zeros = pages(bytes);
    uint32_t crc = kv_crc(0, zeros, bytes);

    free(zeros);
    return crc;
}

static void put_footer(const struct made *made, struct kv_footer *footer, const uint8_t *table)
{
    uint8_t page[KV_PAGE_BYTES];

    kv_footer_place(footer, made->end, kv_key_bytes(&made->shape->geometry));
    put(made, table, footer->notes - footer->table, footer->table);
    footer->table_crc = kv_crc(0, table, footer->notes - footer->table);
    footer->notes_crc = zeros_crc(footer->sums - footer->notes);
    footer->sums_crc = zeros_crc(footer->columns - footer->sums);
    for (uint32_t layer = 0; layer < footer->layers; layer++) {
        uint64_t start = footer->columns + layer * footer->column_stride;

        footer->column_crc[layer] = zeros_crc(kv_footer_column_end(footer, layer) - start);
    }
    kv_footer_put(footer, page);
    put(made, page, sizeof page, footer->file_bytes - sizeof page);
}

static void fill_file(struct made *made)
{
    const struct many_segments *shape = made->shape;
    struct kv_footer footer = { .records = shape->frames + 1,
                                .frames = shape->frames,
                                .layers = shape->geometry.layers,
                                .salt = made->super.salt,
                                .end_seq = made->super.first_seq + shape->frames };
    uint8_t page[KV_PAGE_BYTES];
    uint8_t *table = pages(round_up((uint64_t)footer.records * KV_ENTRY_BYTES, KV_PAGE_BYTES));
    struct kv_entry entry;

    kv_super_put(&made->super, page);
    put(made, page, sizeof page, 0);
    made->end = KV_PAGE_BYTES;
    footer.super_crc = footer.chain = made->super.crc;
    place_init(made, &entry, &footer.chain);
    kv_entry_put(&entry, table);
    for (uint32_t i = 0; i < shape->frames; i++) {
        place_frame(made, made->super.first_seq + i, &entry);
        kv_entry_put(&entry, table + (i + 1ull) * KV_ENTRY_BYTES);
    }
    put_footer(made, &footer, table);
    free(table);
}

static void make_file(const struct many_segments *shape, const char *folder, const char *stream, uint32_t at)
{
    struct made made = { .shape = shape,
                         .is_last = at + 1 == shape->segments,
                         .super = { .epoch = 1,
                                    .geometry = shape->geometry,
                                    .first_seq = (uint64_t)at * shape->frames,
                                    .ns = "default" } };
    char path[PATH_MAX + 64];

    snprintf(made.super.stream, sizeof made.super.stream, "%s", stream);
    memcpy(made.super.fingerprint, shape->fingerprint, sizeof made.super.fingerprint);
    made.super.salt = kv_crc(at, stream, strlen(stream)) * 0x9e3779b97f4a7c15ull;
    made.super.created_ns = begun_ns + (int64_t)made.super.first_seq * FRAME_NS;
    snprintf(path, sizeof path, "%s/%020llu-%016llx.seg", folder, (unsigned long long)made.super.first_seq,
             (unsigned long long)made.super.salt);
    made.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(made.fd >= 0);
    fill_file(&made);
    close(made.fd);
}

static void make_stream(const struct many_segments *shape, const char *root, uint32_t number)
{
    char name[32], folder[PATH_MAX], path[PATH_MAX + 64], text[1024];
    struct status st;
    int len;

    snprintf(name, sizeof name, "cam-%05u", number);
    snprintf(folder, sizeof folder, "%s/v1/default/%s/%020u", root, name, 1);
    CHECK_OK(file_make_folders(folder, &st), st);
    snprintf(path, sizeof path, "%s/v1/default/%s/stream.json", root, name);
    len = snprintf(text, sizeof text,
                   "{ \"namespace\": \"default\", \"name\": \"%s\", \"source\": \"rtsp://cam/1\", \"kind\": "
                   "\"live\", \"sample_fps\": 0.5, \"start_time_ns\": 0, \"created_ns\": 0, \"epoch\": 1, "
                   "\"next_seq\": 0, \"writer\": \"analyzer-0\", \"expected_frames\": 0, \"ended\": false, "
                   "\"trouble\": \"\" }",
                   name);
    CHECK_OK(file_write_through(path, text, (size_t)len, &st), st);
    for (uint32_t at = 0; at < shape->segments; at++)
        make_file(shape, folder, name, at);
}

/* A store has sealed them long ago: a start must not pay for writing them. */
static void sync_all(const char *root)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    CHECK(fd >= 0);
    CHECK_EQ(syncfs(fd), 0);
    close(fd);
}

void many_segments_make(const struct many_segments *shape, const char *root)
{
    for (uint32_t i = 0; i < shape->streams; i++)
        make_stream(shape, root, i);
    if (shape->streams > 0)
        sync_all(root);
}
