/* Files whose checksums all fit and that lie all the same: nothing is read beyond what was read in, and what the lie does
 * not touch is served. */
#include "base/file.h"
#include "kv/kv_crc.h"
#include "kvstore_fixture.h"

enum { FRAMES = 3, INIT_TOKENS = 40 };

/* A sealed segment that opens with a long INIT; the store is closed. */
static void write_segment(struct fixture *fixture, char *path, size_t room)
{
    struct stream_block init = { .is_init = true,
                                 .tokens = INIT_TOKENS,
                                 .payload_bytes = kv_payload_bytes(&fixture_geometry, INIT_TOKENS) };
    struct fixture_writer writer;
    struct stream *stream;

    fixture_start(fixture);
    stream = fixture_define(fixture, "cam-1");
    fixture_attach(fixture, stream, &writer);
    CHECK_OK(fixture_append_block(fixture, stream, &init, &fixture->st), fixture->st);
    fixture_append(fixture, stream, FRAMES);
    fixture_wait_durable(fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
    snprintf(path, room, "%s.seg", stream->segments[0]->base);
    fixture_stop(fixture);
}

/* What the footer says of the INIT record. */
static void lie_about_init(const char *path, uint32_t tokens, uint64_t record_bytes)
{
    struct file_text file;
    struct kv_footer footer;
    struct kv_entry entry;
    struct kv_super super;
    struct status st;
    uint8_t *bytes, *trailer;

    CHECK_OK(file_read_all(path, 64 << 20, &file, &st), st);
    bytes = (uint8_t *)file.data;
    trailer = bytes + file.len - KV_PAGE_BYTES;
    CHECK_OK(kv_super_get(&super, bytes, &st), st);
    CHECK_OK(kv_footer_get(&footer, &super, file.len, trailer, &st), st);
    CHECK_OK(kv_entry_get(&entry, &super.geometry, bytes + footer.table, &st), st);
    CHECK_EQ(entry.type, KV_RECORD_INIT);
    CHECK(record_bytes < entry.record_bytes);
    entry.tokens = tokens;
    entry.record_bytes = record_bytes;
    kv_entry_put(&entry, bytes + footer.table);
    footer.table_crc = kv_crc(0, bytes + footer.table, footer.notes - footer.table);
    kv_footer_put(&footer, trailer);
    CHECK_OK(file_write_durable(path, file.data, file.len, &st), st);
    free(file.data);
}

/* A record shorter than its tokens make it: the footer is not believed, the records are. */
TEST(crafted_footer_whose_init_has_not_its_shape_is_not_used)
{
    char path[PATH_MAX + 8];
    struct fixture fixture;
    struct stream *stream;

    write_segment(&fixture, path, sizeof path);
    lie_about_init(path, INIT_TOKENS, KV_PAGE_BYTES);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->init_record.tokens, INIT_TOKENS);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
}

/* Fewer tokens than the record has, and their length: the record is not read past it, and is not used. */
TEST(crafted_footer_whose_init_is_too_short_reads_nothing_behind_it)
{
    char path[PATH_MAX + 8];
    struct fixture fixture;
    struct stream *stream;

    write_segment(&fixture, path, sizeof path);
    lie_about_init(path, 5, 2 * KV_PAGE_BYTES);
    fixture_open(&fixture);
    stream = store_find(fixture.store, "default", "cam-1");
    CHECK_EQ(stream->init_record.layers, 0);
    CHECK_EQ(fixture_read_block(&fixture, stream, NULL), FRAME_QUARANTINED);
    fixture_check_all(&fixture, stream, 0, FRAMES);
    fixture_stop(&fixture);
}

TEST_MAIN()
