/* LoadWindow of a kvstore that is a process: what a writer gets that starts again, whatever its stream holds and whatever
 * becomes of it meanwhile. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvstore_client.h"

static struct server servers[1];
static struct status st;

/* One call; its blocks are compared with what was written as they come. */
struct window {
    const char *name;
    struct rpc_sync_stream *call;
    uint32_t inits, frames;
    uint64_t first_seq, last_seq;
    bool is_cut; /* the call was over in the middle of a block */
};

static void window_open(struct window *window, const struct writer *writer, uint32_t tokens)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id(writer->name);

    *window = (struct window){ .name = writer->name };
    request.id = &id;
    request.fingerprint = client_fingerprint();
    request.epoch = writer->epoch;
    request.tokens = tokens;
    CHECK_OK(rpc_sync_open(&window->call, servers[0].client, &api_load_window, &options, &st), st);
    CHECK_OK(rpc_sync_write(window->call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(window->call, &st), st);
}

/* False: the call is over. */
static bool window_message(struct window *window, const struct rpc_message **message_p)
{
    return rpc_sync_read(window->call, message_p, &st) && *message_p != NULL;
}

static void count_block(struct window *window, const Reelkv__V1__Block *block)
{
    if (block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT) {
        CHECK_EQ(window->inits + window->frames, 0);
        window->inits++;
        return;
    }
    CHECK(window->frames == 0 || block->seq == window->last_seq + 1);
    CHECK_EQ(block->token_index, 5 + block->seq * CLIENT_TOKENS);
    if (window->frames++ == 0)
        window->first_seq = block->seq;
    window->last_seq = block->seq;
}

/* The next block with all its bytes; false: the call is over. */
static bool window_block(struct window *window)
{
    const struct rpc_message *message;
    const Reelkv__V1__Block *block;
    uint64_t seq, bytes;
    uint8_t *payload, *want;
    uint32_t crc;
    bool is_init, ok = true;

    if (!window_message(window, &message))
        return false;
    block = ((const Reelkv__V1__LoadWindowReply *)message->body)->block;
    CHECK(block != NULL);
    count_block(window, block);
    is_init = block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT;
    seq = is_init ? 1 << 30 : block->seq;
    bytes = block->payload_bytes;
    crc = block->payload_crc32c;
    CHECK_EQ(bytes, kv_payload_bytes(&client_geometry, is_init ? 5 : CLIENT_TOKENS));
    payload = malloc(bytes);
    want = malloc(bytes);
    CHECK(payload != NULL && want != NULL);
    for (uint64_t got = 0; ok && got < bytes;) {
        ok = window_message(window, &message);
        if (!ok)
            break;
        CHECK(message->payload.len > 0 && message->payload.len <= bytes - got);
        rpc_payload_copy(&message->payload, 0, payload + got, message->payload.len);
        got += message->payload.len;
    }
    window->is_cut = !ok;
    if (ok) {
        client_payload(window->name, seq, want, bytes);
        CHECK_MEM(payload, want, bytes);
        CHECK_EQ(kv_crc(0, payload, bytes), crc);
    }
    free(payload);
    free(want);
    return ok;
}

/* All blocks; the call's end goes to `st`. */
static bool window_finish(struct window *window)
{
    bool ok;

    while (window_block(window))
        ;
    ok = rpc_sync_finish(window->call, &st);
    CHECK(!ok || !window->is_cut);
    rpc_sync_stream_destroy(window->call);
    return ok;
}

static void restart_and_open(struct writer *writer)
{
    server_stop(&servers[0]);
    server_start(&servers[0], "kv-a", NULL);
    CHECK_OK(writer_open(writer, &servers[0], "cam-1"), writer->st);
}

/* The newest blocks and the system prompt's, byte for byte, for a writer that starts again. */
TEST(kvstore_loads_the_window)
{
    struct writer writer = { 0 };
    struct window window;

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], "cam-1", 40);
    restart_and_open(&writer);
    window_open(&window, &writer, 10 * CLIENT_TOKENS - 3);
    CHECK_OK(window_finish(&window), st);
    CHECK_EQ(window.inits, 1);
    CHECK_EQ(window.frames, 10);
    CHECK_EQ(window.first_seq, 30);
    server_stop(&servers[0]);
}

/* A camera that was off from the start told gaps only: its writer gets the system prompt's block, whole. */
TEST(kvstore_loads_the_window_of_a_stream_with_gaps_only)
{
    struct writer writer = { 0 };
    struct window window;

    server_start(&servers[0], "kv-a", NULL);
    client_create(&servers[0], "cam-1");
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    CHECK_OK(writer_begin(&writer), writer.st);
    CHECK_OK(writer_block(&writer, true, 0), writer.st);
    CHECK_OK(writer_gap(&writer, 5, "nobody answers there"), writer.st);
    CHECK_OK(writer_finish(&writer), writer.st);
    restart_and_open(&writer);
    CHECK_EQ(writer.next_seq, 5);
    window_open(&window, &writer, 10 * CLIENT_TOKENS);
    CHECK_OK(window_finish(&window), st);
    CHECK_EQ(window.inits, 1);
    CHECK_EQ(window.frames, 0);
    server_stop(&servers[0]);
}

/* Zeros over the middle of the stream's one segment file, three pages of it: more than a header and less than a record. */
static void damage_segment(const struct server *server)
{
    static const char zeros[3 * 4096];
    char folder[600], path[1200];
    struct dirent *entry;
    struct stat info;
    unsigned found = 0;
    DIR *dir;
    int fd;

    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", server->path, 1);
    dir = opendir(folder);
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        if (strstr(entry->d_name, ".seg") == NULL)
            continue;
        found++;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    }
    closedir(dir);
    CHECK_EQ(found, 1);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &info) == 0);
    CHECK_EQ(pwrite(fd, zeros, sizeof zeros, info.st_size / 2 / 4096 * 4096), sizeof zeros);
    close(fd);
}

static uint64_t quarantined_frames(struct server *server)
{
    static const Reelkv__V1__GetServerInfoRequest ask = REELKV__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct reply reply;
    uint64_t frames;

    client_call(server, &reply, &api_get_server_info, &ask.base);
    CHECK_OK(reply.ok, reply.st);
    frames = ((const Reelkv__V1__ServerInfo *)reply.body)->quarantined_frames;
    client_done(&reply);
    return frames;
}

/* A window with a hole would not be one: the writer is told when to ask again, and gets what is behind the damage. Each
 * block that was found damaged is counted. */
TEST(kvstore_loads_the_window_behind_a_damaged_block_when_asked_again)
{
    enum { FRAMES = 20, ASKS_MAX = 4 };
    struct writer writer = { 0 };
    struct window window;
    unsigned asks = 0;

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], "cam-1", FRAMES);
    server_stop(&servers[0]);
    damage_segment(&servers[0]);
    server_start(&servers[0], "kv-a", NULL);
    CHECK_OK(writer_open(&writer, &servers[0], "cam-1"), writer.st);
    for (;; asks++) {
        CHECK(asks < ASKS_MAX); /* the pages may lie in two blocks */
        window_open(&window, &writer, FRAMES * CLIENT_TOKENS);
        if (window_finish(&window))
            break;
        CHECK_EQ(st.code, STATUS_ABORTED);
        CHECK_EQ(st.retry_after_ms, 100);
    }
    CHECK(asks > 0);
    CHECK_EQ(quarantined_frames(&servers[0]), asks);
    CHECK_EQ(window.last_seq, FRAMES - 1);
    CHECK(window.first_seq > 5 && window.first_seq < FRAMES - 1);
    server_stop(&servers[0]);
}

/* The stream goes while its window is being sent to a reader that is slow: the reader is told, and the store goes on. */
TEST(kvstore_removes_a_stream_whose_window_is_being_sent)
{
    enum { FRAMES = 400 };
    Reelkv__V1__DeleteStreamRequest delete = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct writer writer = { 0 };
    struct window window;
    struct reply reply;

    server_start(&servers[0], "kv-a", NULL);
    client_fill(&servers[0], "cam-1", FRAMES);
    restart_and_open(&writer);
    window_open(&window, &writer, FRAMES * CLIENT_TOKENS);
    CHECK(window_block(&window));
    delete.id = &id;
    client_call(&servers[0], &reply, &api_delete_stream, &delete.base);
    CHECK_OK(reply.ok, reply.st);
    client_done(&reply);
    CHECK(!window_finish(&window));
    CHECK(st.code == STATUS_NOT_FOUND || (st.code == STATUS_ABORTED && st.retry_after_ms == 100));
    CHECK(window.frames < FRAMES);
    client_fill(&servers[0], "cam-1", 3);
    server_stop(&servers[0]);
}

TEST_MAIN()
