/* mem hold, holds, release: against a kvstore that is a process. */
#include "joined_store.h"

#include "base/json.h"

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

TEST_MAIN()
