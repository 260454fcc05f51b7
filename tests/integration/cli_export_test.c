/* mem export and mem import with a kvstore that is a process: what comes out goes in again as it was, whole or not at all. */
#include <unistd.h>

#include "base/file.h"
#include "export_file.h"
#include "joined_store.h"

enum { FRAMES = 40 };

/* A camera with frames, a gap, frames and its end. */
static void fill(const char *name)
{
    struct writer writer = { 0 };

    client_create(&store, name);
    CHECK_OK(writer_open(&writer, &store, name), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_frames(&writer, FRAMES / 2), writer.st);
    CHECK_OK(writer_gap(&writer, 3, "the camera was away"), writer.st);
    CHECK_OK(writer_frames(&writer, FRAMES / 2), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
}

static void set_up(void)
{
    redis_start(&redis);
    start_store(NULL);
    fill("cam-1");
}

static void tear_down(void)
{
    server_stop(&store);
    process_stop(&redis, SIGTERM, 10000);
}

/* What the store says of a camera; false: there is none. */
static bool look(const char *name, uint64_t *frames_p, uint64_t *gaps_p)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(name);
    const Reelkv__V1__StreamStatus *status;
    struct reply reply;
    bool ok;

    request.id = &id;
    client_call(&store, &reply, &api_get_stream, &request.base);
    ok = reply.ok;
    if (ok) {
        status = reply.body;
        *frames_p = status->stored_frames;
        *gaps_p = status->gap_frames;
        if (strncmp(name, "cam-", 4) != 0) /* nobody writes what was imported */
            CHECK_EQ(status->state, REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED);
    } else {
        CHECK_EQ(reply.st.code, STATUS_NOT_FOUND);
    }
    client_done(&reply);
    return ok;
}

static bool is_there(const char *name)
{
    uint64_t frames, gaps;

    return look(name, &frames, &gaps);
}

static uint64_t disk_used(void)
{
    Reelkv__V1__GetServerInfoRequest request = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct reply reply;
    uint64_t bytes;

    client_call(&store, &reply, &api_get_server_info, &request.base);
    CHECK_OK(reply.ok, reply.st);
    bytes = ((const Reelkv__V1__ServerInfo *)reply.body)->disk_used_bytes;
    client_done(&reply);
    return bytes;
}

/* Removing what was begun comes after the call. */
static void wait_disk(uint64_t bytes)
{
    uint64_t limit = clock_mono_ns() + 10000000000ull;

    while (disk_used() != bytes && clock_mono_ns() < limit)
        test_pause_ms(10);
    CHECK_EQ(disk_used(), bytes);
}

/* Everything behind the head is the same, byte for byte. */
static void check_same_items(const char *left, const char *right)
{
    struct export_reader readers[2];
    static uint8_t payloads[2][1 << 20];

    CHECK_OK(export_reader_begin(&readers[0], left, &st), st);
    CHECK_OK(export_reader_begin(&readers[1], right, &st), st);
    CHECK_EQ(readers[0].sum.items, readers[1].sum.items);
    for (uint64_t item = 0;; item++) {
        enum export_kind kinds[2];
        uint64_t bytes[2] = { 0 };

        for (unsigned i = 0; i < 2; i++) {
            CHECK_OK(export_reader_item(&readers[i], &kinds[i], &bytes[i], &st), st);
            CHECK(bytes[i] <= sizeof payloads[0]);
            if (kinds[i] != 0)
                CHECK_OK(export_reader_payload(&readers[i], payloads[i], bytes[i], &st), st);
        }
        CHECK_EQ(kinds[0], kinds[1]);
        CHECK_EQ(bytes[0], bytes[1]);
        if (kinds[0] == 0)
            break;
        CHECK_EQ(kinds[0] == EXPORT_HEAD, item == 0);
        if (item == 0)
            continue;
        CHECK_EQ(readers[0].message_bytes, readers[1].message_bytes);
        CHECK_MEM(readers[0].message, readers[1].message, readers[0].message_bytes);
        CHECK_MEM(payloads[0], payloads[1], bytes[0]);
    }
    export_reader_deinit(&readers[0]);
    export_reader_deinit(&readers[1]);
}

/* ... and again out: blocks, thumbnails, times, gaps and end are those of the first. */
TEST(an_export_comes_back_as_it_was)
{
    uint64_t frames, gaps;

    set_up();
    CHECK_EQ(RUN("mem", "export", "cam-1", "--output", in_folder("a")), 0);
    CHECK_HAS(process_log(&verb), "40 frames");
    CHECK_EQ(RUN("mem", "export", "cam-1", "--output", in_folder("a")), 5);
    CHECK_EQ(RUN("mem", "import", in_folder("a"), "--as", "copy-1"), 0);
    CHECK(look("copy-1", &frames, &gaps));
    CHECK_EQ(frames, FRAMES);
    CHECK_EQ(gaps, 3);
    CHECK_EQ(RUN("mem", "export", "copy-1", "--output", in_folder("b")), 0);
    check_same_items(in_folder("a"), in_folder("b"));
    CHECK_EQ(RUN("mem", "import", in_folder("a"), "--as", "copy-1"), 5);
    CHECK_HAS(process_log(&verb), "there is a camera 'copy-1' already; give it another name with --as");
    CHECK_EQ(RUN("mem", "import", in_folder("a"), "--namespace", "other"), 0);
    server_kill(&store); /* done was durable */
    start_store(NULL);
    CHECK(look("copy-1", &frames, &gaps));
    CHECK_EQ(frames, FRAMES);
    CHECK_EQ(gaps, 3);
    CHECK_EQ(RUN("mem", "export", "copy-1", "--output", in_folder("c")), 0);
    check_same_items(in_folder("a"), in_folder("c"));
    CHECK_EQ(RUN("mem", "export", "cam-1", "--namespace", "other", "--output", in_folder("d")), 0);
    check_same_items(in_folder("a"), in_folder("d"));
    tear_down();
}

/* Numbers before it answer as those that went; numbers stay what they were. */
TEST(a_part_keeps_its_numbers)
{
    uint64_t frames, gaps;
    char from[32], to[32];

    set_up();
    snprintf(from, sizeof from, "%lld", (long long)client_pts(10) / 1000000000);
    snprintf(to, sizeof to, "%lld", (long long)client_pts(30) / 1000000000);
    CHECK_EQ(RUN("mem", "export", "cam-1", "--from", from, "--to", to, "--output", in_folder("part")), 0);
    CHECK_EQ(RUN("mem", "import", in_folder("part"), "--as", "part-1"), 0);
    CHECK(look("part-1", &frames, &gaps));
    CHECK_EQ(frames, 10 + 17); /* what was before counts no more as stored here than as evicted */
    CHECK_EQ(gaps, 3);
    CHECK_EQ(RUN("mem", "export", "part-1", "--output", in_folder("again")), 0);
    check_same_items(in_folder("part"), in_folder("again"));
    CHECK_EQ(RUN("mem", "export", "cam-1", "--from", to, "--to", from), 2);
    CHECK_EQ(RUN("mem", "export", "cam-1", "--from", "2030-01-01T00:00:00Z"), 3);
    CHECK_EQ(RUN("mem", "export", "nobody"), 3);
    CHECK(access("nobody.kvexport", F_OK) != 0);
    tear_down();
}

/* A byte of anything: refused with the place, and nothing stays, on the disk neither. */
TEST(a_damaged_file_is_refused_whole)
{
    struct file_text text;
    uint64_t before;

    set_up();
    CHECK_EQ(RUN("mem", "export", "cam-1", "--output", in_folder("a")), 0);
    CHECK_OK(file_read_all(in_folder("a"), 64 << 20, &text, &st), st);
    before = disk_used();
    for (size_t i = 0; i < 12; i++) {
        size_t at = i < 2 ? 20 * i + 11 : i < 4 ? text.len - 1 - 30 * (i - 2) : text.len / 9 * (i - 3);
        const char *path = in_folder("damaged");

        text.data[at] ^= 0x10;
        unlink(path);
        CHECK_OK(file_write_through(path, text.data, text.len, &st), st);
        text.data[at] ^= 0x10;
        CHECK_EQ(RUN("mem", "import", path, "--as", "bad"), 8);
        CHECK_HAS(process_log(&verb), "is damaged");
        CHECK_EQ(RUN("mem", "import", path, "--check"), 8);
        CHECK_HAS(process_log(&verb), "is damaged");
        CHECK(!is_there("bad"));
        wait_disk(before);
    }
    for (size_t i = 0; i < 4; i++) {
        const char *path = in_folder("cut");

        unlink(path);
        CHECK_OK(file_write_through(path, text.data, text.len / 4 * i + 64 + i, &st), st);
        CHECK_EQ(RUN("mem", "import", path, "--as", "bad"), 8);
        CHECK(!is_there("bad"));
    }
    CHECK_OK(file_write_through(in_folder("text"), "no export", 9, &st), st);
    CHECK_EQ(RUN("mem", "import", in_folder("text")), 2);
    CHECK_EQ(RUN("mem", "import", in_folder("nothing")), 3);
    free(text.data);
    tear_down();
}

/* A file named "-" was written, and of a camera that has seen nothing a range was told that nobody had named. */
TEST(an_export_that_cannot_be_says_why)
{
    set_up();
    CHECK_EQ(RUN("mem", "export", "cam-1", "--output", "-"), 2);
    CHECK_HAS(process_log(&verb), "cannot go to standard output");
    CHECK_EQ(RUN("cam", "add", "new", "udp://127.0.0.1:9"), 0);
    CHECK_EQ(RUN("mem", "export", "new", "--output", in_folder("new")), 3);
    CHECK_HAS(process_log(&verb), "nothing of camera new is stored yet");
    tear_down();
}

TEST(a_file_is_checked_without_a_store)
{
    set_up();
    CHECK_EQ(RUN("mem", "export", "cam-1", "--output", in_folder("a")), 0);
    tear_down();
    CHECK_EQ(RUN("mem", "import", in_folder("a"), "--check"), 0);
    CHECK_HAS(process_log(&verb), "is whole: 40 frames");
    CHECK_HAS(process_log(&verb), "of camera cam-1 (namespace default)");
}

/* --- imports that do not come to their end --- */

/* The head of an export, to begin imports with that the test breaks off. */
static Reelkv__V1__ExportHead *read_head(const char *path)
{
    Reelkv__V1__ExportHead *head;
    struct export_reader reader;
    enum export_kind kind;
    uint64_t bytes;

    CHECK_OK(export_reader_begin(&reader, path, &st), st);
    CHECK_OK(export_reader_item(&reader, &kind, &bytes, &st), st);
    head = reelkv__v1__export_head__unpack(NULL, reader.message_bytes, reader.message);
    CHECK(head != NULL);
    export_reader_deinit(&reader);
    return head;
}

static void begin_import(struct writer *writer, Reelkv__V1__ExportHead *head, uint64_t frames)
{
    const struct rpc_stream_options options = { .timeout_ms = RPC_NO_TIMEOUT };
    Reelkv__V1__AppendRequest request = REELKV__V1__APPEND_REQUEST__INIT;
    Reelkv__V1__AppendBegin begin = REELKV__V1__APPEND_BEGIN__INIT;
    Reelkv__V1__StreamId id = client_id("half-1");

    *writer = (struct writer){ .server = &store, .name = "half-1" };
    CHECK_OK(rpc_sync_open(&writer->call, store.client, &api_append, &options, &st), st);
    begin.id = &id;
    begin.import = head;
    request.item_case = REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    request.begin = &begin;
    CHECK(writer_send(writer, &request, NULL) && writer_read(writer));
    CHECK_OK(writer_block(writer, true, 0), writer->st);
    CHECK_OK(writer_frames(writer, frames), writer->st);
    CHECK(!is_there("half-1"));
}

/* Broken off by its writer, ended without an end, cut off with its store: nothing of it is left, and its name is free. */
TEST(half_an_import_is_none)
{
    Reelkv__V1__ExportHead *head;
    struct writer writer;
    uint64_t before;
    char folder[400];

    set_up();
    CHECK_EQ(RUN("mem", "export", "cam-1", "--output", in_folder("a")), 0);
    head = read_head(in_folder("a"));
    before = disk_used();
    begin_import(&writer, head, 20);
    CHECK(disk_used() > before);
    rpc_sync_stream_destroy(writer.call);
    wait_disk(before);
    begin_import(&writer, head, 20);
    CHECK(!writer_finish(&writer));
    CHECK_HAS(writer.st.text, "no end");
    wait_disk(before);
    begin_import(&writer, head, 20);
    process_stop(&store.process, SIGKILL, 10000);
    rpc_sync_stream_destroy(writer.call);
    rpc_sync_destroy(store.client);
    snprintf(folder, sizeof folder, "%s/v1/default/half-1", store.path);
    CHECK_EQ(access(folder, F_OK), 0);
    start_store(NULL);
    CHECK(!is_there("half-1"));
    CHECK(access(folder, F_OK) != 0);
    begin_import(&writer, head, 5);
    CHECK_EQ(process_stop(&store.process, SIGTERM, 30000), 0); /* a drain does not wait for it */
    rpc_sync_stream_destroy(writer.call);
    rpc_sync_destroy(store.client);
    start_store(NULL);
    CHECK(!is_there("half-1"));
    CHECK_EQ(RUN("mem", "import", in_folder("a"), "--as", "half-1"), 0);
    CHECK(is_there("half-1"));
    reelkv__v1__export_head__free_unpacked(head, NULL);
    tear_down();
}

/* An import takes nothing from cameras that are there. */
TEST(an_import_that_has_no_room_is_refused)
{
    uint64_t frames, gaps;

    set_up();
    client_fill(&store, "big-1", 240);
    CHECK_EQ(RUN("mem", "export", "big-1", "--output", in_folder("big")), 0);
    server_stop(&store);
    start_store("--disk-budget-bytes=8M");
    CHECK_EQ(RUN("mem", "import", in_folder("big"), "--as", "copy-1"), 6);
    CHECK_HAS(process_log(&verb), "removes nothing of other streams");
    CHECK(look("cam-1", &frames, &gaps));
    CHECK_EQ(frames, FRAMES);
    tear_down();
}

TEST_MAIN()
