/* A real store whose files change while a stream is being exported: what cannot be read any more ends the call, and says so. */
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "kvstore_client.h"
#include "reelkv/v1/retention.pb-c.h"

enum { FRAMES = 600, READ_FIRST = 5, FORGOTTEN_FROM = 590, FORGOTTEN_TO = 595 };

static struct server server;
static struct status st;

/* Few of the blocks are on their way: the others wait until they are asked for. */
static struct rpc_sync_stream *begin_export(void)
{
    const struct rpc_stream_options options = { .timeout_ms = CLIENT_TIMEOUT_MS };
    Reelkv__V1__ExportRequest request = REELKV__V1__EXPORT_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    const struct rpc_message *message;
    struct rpc_sync_stream *call;

    request.id = &id;
    CHECK_OK(rpc_sync_open(&call, server.client, &api_export, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    for (int i = 0; i < READ_FIRST; i++)
        CHECK_OK(rpc_sync_read(call, &message, &st) && message != NULL, st);
    return call;
}

/* The stream's only segment is written anew; the receipt may wait for the export. */
static struct rpc_sync_stream *forget_some(void)
{
    const struct rpc_stream_options options = { .timeout_ms = 3 * CLIENT_TIMEOUT_MS };
    Reelkv__V1__ForgetRequest request = REELKV__V1__FORGET_REQUEST__INIT;
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    struct rpc_sync_stream *call;

    range.from_ns = client_pts(FORGOTTEN_FROM);
    range.to_ns = client_pts(FORGOTTEN_TO);
    request.id = &id;
    request.range = &range;
    CHECK_OK(rpc_sync_open(&call, server.client, &api_forget, &options, &st), st);
    CHECK_OK(rpc_sync_write(call, &request.base, NULL, &st), st);
    CHECK_OK(rpc_sync_half_close(call, &st), st);
    return call;
}

/* False: not one, or it has a name of before. */
static bool has_only_segment(const char *before, char path[700])
{
    struct file_names names;
    char folder[600];
    bool ok;

    snprintf(folder, sizeof folder, "%s/v1/default/cam-1/%020d", server.path, 1);
    CHECK_OK(file_list_on(&file_system, folder, &names, &st), st);
    ok = names.count == 1 && strstr(names.list[0], ".seg") != NULL;
    if (ok)
        snprintf(path, 700, "%s/%.90s", folder, names.list[0]);
    file_names_free(&names);
    return ok && strcmp(path, before) != 0;
}

TEST(export_ends_when_a_rewritten_segment_cannot_be_read)
{
    static const char *const options[] = { "--segment-bytes=16M", NULL };
    const struct rpc_message *message;
    struct rpc_sync_stream *call, *forget;
    char before[700], path[700], hidden[720];
    uint64_t limit_ns;

    server_start(&server, "kv-a", options);
    client_fill(&server, "cam-1", FRAMES);
    server_stop(&server);
    server_start(&server, "kv-a", options); /* nothing of it is in RAM */
    call = begin_export();
    CHECK(has_only_segment("", before));
    forget = forget_some();
    for (limit_ns = clock_mono_ns() + 20000000000ull; !has_only_segment(before, path); usleep(10000))
        CHECK(clock_mono_ns() < limit_ns);
    snprintf(hidden, sizeof hidden, "%s.hidden", path);
    CHECK_EQ(rename(path, hidden), 0);
    while (rpc_sync_read(call, &message, &st) && message != NULL)
        ;
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "a block cannot be read now");
    CHECK_EQ(rename(hidden, path), 0);
    rpc_sync_stream_destroy(call);
    CHECK_OK(rpc_sync_finish(forget, &st), st);
    rpc_sync_stream_destroy(forget);
    server_stop(&server);
}

TEST_MAIN()
