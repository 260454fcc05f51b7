/* mem hold, holds, release: against a kvstore that is a process. */
#include "joined_store.h"

#include <dirent.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "reelkv/v1/retention.pb-c.h"

static struct json *printed(void)
{
    const char *text = process_log(&verb);
    struct json *value = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, &st);

    if (value == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", st.text, text);
    return value;
}

static void set_up(uint64_t frames)
{
    redis_start(&redis);
    start_store(NULL);
    client_fill(&store, "cam-1", frames);
}

static void tear_down(void)
{
    server_stop(&store);
    process_stop(&redis, SIGTERM, 10000);
}

TEST(a_hold_is_durable_and_keeps_its_camera)
{
    const struct json *row;
    struct json *value;

    set_up(10);
    CHECK_EQ(RUN("mem", "holds"), 0);
    CHECK_HAS(process_log(&verb), "Nothing is held");
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--owner", "police"), 2);
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:13:20Z",
                 "--owner", "police", "--reason", "case 17"),
             2);
    CHECK_EQ(RUN("mem", "hold", "cam-2", "--owner", "police", "--reason", "case 17"), 3);
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--from", "2023-11-14T22:13:20Z", "--to", "2023-11-14T22:13:30Z",
                 "--owner", "police", "--reason", "case 17"),
             0);
    CHECK_HAS(process_log(&verb), "reelkv mem release cam-1 1");
    CHECK_EQ(RUN("cam", "show", "cam-1"), 0);
    CHECK_HAS(process_log(&verb), "holds     1");
    server_kill(&store);
    start_store(NULL);
    CHECK_EQ(RUN("mem", "holds", "--json"), 0);
    value = printed();
    row = json_at(json_get(value, "holds"), 0);
    CHECK_EQ(json_len(json_get(value, "holds")), 1);
    CHECK_STR(json_str(json_get(row, "cam")), "cam-1");
    CHECK_STR(json_str(json_get(row, "from")), "2023-11-14T22:13:20Z");
    CHECK_STR(json_str(json_get(row, "owner")), "police");
    CHECK_STR(json_str(json_get(row, "reason")), "case 17");
    CHECK(json_get(row, "until") == NULL);
    json_free(value);
    CHECK_EQ(RUN("cam", "rm", "cam-1"), 1);
    CHECK_HAS(process_log(&verb), "held by police (case 17)");
    CHECK_EQ(RUN("mem", "release", "cam-1", "2"), 3);
    CHECK_EQ(RUN("mem", "release", "cam-1", "one"), 2);
    CHECK_EQ(RUN("mem", "release", "cam-1", "1"), 0);
    CHECK_EQ(RUN("mem", "holds", "cam-1"), 0);
    CHECK_HAS(process_log(&verb), "Nothing is held");
    CHECK_EQ(RUN("cam", "rm", "cam-1"), 0);
    tear_down();
}

/* A hold whose end had passed was acknowledged, and held nothing. */
TEST(a_hold_that_would_be_over_is_refused)
{
    set_up(10);
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--owner", "police", "--reason", "case 17", "--until", "-1h"), 2);
    CHECK_HAS(process_log(&verb), "its end has passed");
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--owner", "police", "--reason", "case 17", "--until", "now"), 2);
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--owner", "police", "--reason", "case 17", "--until", "+30d"), 0);
    CHECK_HAS(process_log(&verb), "from the beginning on, until 2");
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--owner", "police", "--reason", "case 17", "--from", "now"), 0);
    CHECK_HAS(process_log(&verb), "nothing of that range is stored now");
    tear_down();
}

/* --- forgetting --- */

enum { FRAMES = 200, FORGET_FROM = 40, FORGET_TO = 160, SAMPLE_BYTES = 160 };

/* K and V of a layer of the frame begin so: no other frame here has bytes like them. */
static bool is_in(const char *name, uint64_t seq, const struct file_text *text)
{
    uint64_t at = payload_layer_offset(&client_geometry, CLIENT_TOKENS, 2);
    uint8_t sample[SAMPLE_BYTES];

    for (unsigned i = 0; i < SAMPLE_BYTES; i++)
        sample[i] = client_byte(name, seq, at + i);
    return memmem(text->data, text->len, sample, sizeof sample) != NULL;
}

/* How many of the frames that were forgotten are in a file below the folder. */
static unsigned count_in_files(const char *folder)
{
    struct dirent *entry;
    DIR *dir = opendir(folder);
    unsigned count = 0;
    char path[1200];

    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        struct file_text text;

        if (entry->d_name[0] == '.')
            continue;
        CHECK(snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path);
        if (entry->d_type == DT_DIR) {
            count += count_in_files(path);
        } else if (entry->d_type == DT_REG && file_read_all(path, 64 << 20, &text, &st)) {
            for (uint64_t seq = FORGET_FROM; seq < FORGET_TO; seq += 7)
                count += is_in("cam-1", seq, &text);
            free(text.data);
        }
    }
    closedir(dir);
    return count;
}

static const char *seconds_of(uint64_t seq)
{
    static char texts[2][32];
    static unsigned next;
    char *text = texts[next++ % 2];

    snprintf(text, sizeof texts[0], "%lld", (long long)client_pts(seq) / 1000000000);
    return text;
}

/* The only receipt's; 0: it is under way. */
static bool is_done(uint64_t *frames_p)
{
    const struct json *row;
    struct json *value;
    bool is_done;

    CHECK_EQ(RUN("mem", "forget", "cam-1", "--receipts", "--json"), 0);
    value = printed();
    row = json_at(json_get(value, "receipts"), 0);
    is_done = json_get(row, "done") != NULL;
    if (row != NULL)
        CHECK_OK(json_read_u64(row, "frames", frames_p, &st), st);
    json_free(value);
    return is_done;
}

static void check_left(void)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    const Reelkv__V1__StreamStatus *status;
    struct reply reply;

    request.id = &id;
    client_call(&store, &reply, &api_get_stream, &request.base);
    CHECK_OK(reply.ok, reply.st);
    status = reply.body;
    CHECK_EQ(status->stored_frames, FRAMES);
    CHECK_EQ(status->evicted_frames, FORGET_TO - FORGET_FROM);
    CHECK_EQ(status->damaged_frames, 0);
    client_done(&reply);
    CHECK_EQ(count_in_files(store.path), 0);
    CHECK_EQ(RUN("mem", "export", "cam-1", "--output", in_folder("left")), 0);
    CHECK_HAS(process_log(&verb), "80 frames");
    CHECK_EQ(unlink(in_folder("left")), 0);
}

TEST(forgetting_gives_a_receipt)
{
    uint64_t frames = 0, limit = clock_mono_ns() + 20000000000ull;

    set_up(FRAMES);
    while (count_in_files(store.path) != 18 && clock_mono_ns() < limit) /* one may be getting its last name */
        test_pause_ms(10);
    CHECK_EQ(count_in_files(store.path), 18);
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--yes"), 2);
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--from", "-1h"), 2); /* nobody is there to ask */
    CHECK_HAS(process_log(&verb), "say --yes");
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--receipts"), 0);
    CHECK_HAS(process_log(&verb), "Nothing was forgotten");
    CHECK_EQ(RUN("mem", "hold", "cam-1", "--to", seconds_of(50), "--owner", "police", "--reason", "case 17"),
             0);
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--from", seconds_of(FORGET_FROM), "--to", seconds_of(FORGET_TO),
                 "--yes"),
             1);
    CHECK_HAS(process_log(&verb), "held in that range by police (case 17)");
    CHECK_EQ(RUN("mem", "release", "cam-1", "1"), 0);
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--from", seconds_of(FORGET_FROM), "--to", seconds_of(FORGET_TO),
                 "--yes"),
             0);
    CHECK_HAS(process_log(&verb), "Forgotten: 120 frames");
    CHECK(is_done(&frames));
    CHECK_EQ(frames, FORGET_TO - FORGET_FROM);
    check_left();
    server_stop(&store);
    CHECK_EQ(run_alone(PROCESS_ARGS("reelkv", "mem", "fsck", store.path)), 0);
    start_store(NULL);
    check_left();
    tear_down();
}

/* Its last frame's time was told still as that of the newest. */
TEST(a_camera_whose_end_was_forgotten_ends_before_it)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = client_id("cam-1");
    const Reelkv__V1__StreamStatus *status;
    struct reply reply;

    set_up(FRAMES);
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--from", seconds_of(FORGET_TO), "--to", "+1h", "--yes"), 2);
    CHECK_HAS(process_log(&verb), "lies in the future");
    setenv("REELKV_YES", "true", 1);
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--from", seconds_of(FORGET_TO)), 2);
    CHECK_HAS(process_log(&verb), "not by REELKV_YES");
    unsetenv("REELKV_YES");
    CHECK_EQ(RUN("mem", "forget", "cam-1", "--from", seconds_of(FORGET_TO), "--yes"), 0);
    request.id = &id;
    client_call(&store, &reply, &api_get_stream, &request.base);
    CHECK_OK(reply.ok, reply.st);
    status = reply.body;
    CHECK_EQ(status->first_pts_ns, client_pts(0));
    CHECK_EQ(status->last_pts_ns, client_pts(FORGET_TO - 1));
    client_done(&reply);
    tear_down();
}

/* Killed at any moment after it was asked: either nothing of it was promised, or the next start carries it on. */
TEST(forgetting_survives_kills)
{
    uint64_t frames = 0, limit;

    set_up(FRAMES);
    for (unsigned round = 0; round < 40 && !is_done(&frames); round++) {
        const struct rpc_stream_options options = { .timeout_ms = RPC_NO_TIMEOUT };
        Reelkv__V1__ForgetRequest request = REELKV__V1__FORGET_REQUEST__INIT;
        Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
        Reelkv__V1__StreamId id = client_id("cam-1");
        struct rpc_sync_stream *call;

        id.namespace_ = (char *)"default";
        range.from_ns = client_pts(FORGET_FROM);
        range.to_ns = client_pts(FORGET_TO);
        request.id = &id;
        request.range = &range;
        CHECK_OK(rpc_sync_open(&call, store.client, &api_forget, &options, &st), st);
        if (frames == 0)
            CHECK(rpc_sync_write(call, &request.base, NULL, &st) && rpc_sync_half_close(call, &st));
        usleep(2000 + 2500 * round % 30000);
        process_stop(&store.process, SIGKILL, 10000);
        rpc_sync_stream_destroy(call);
        rpc_sync_destroy(store.client);
        start_store(NULL);
    }
    limit = clock_mono_ns() + 20000000000ull;
    while (!is_done(&frames) && clock_mono_ns() < limit)
        test_pause_ms(10);
    CHECK(is_done(&frames));
    CHECK_EQ(frames, FORGET_TO - FORGET_FROM);
    check_left();
    tear_down();
}

TEST_MAIN()
