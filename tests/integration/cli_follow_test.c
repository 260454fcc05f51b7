/* `cam follow` against a stand-in (cli_double_cluster.c), which breaks off the first call. */
#include <signal.h>
#include <string.h>

#include "cli_stage.h"
#include "support/test.h"

static unsigned lines_of(const char *text)
{
    unsigned count = 0;

    for (; *text != '\0'; text++)
        count += *text == '\n';
    return count;
}

TEST(follow_tells_every_change_of_a_file_to_its_end_across_a_restart_of_its_store)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video, "--start-time", "2026-01-01T00:00:00Z"), 0);
    CHECK_EQ(RUN(&verb, "cam", "follow", "dock"), 0);
    CHECK_HAS(process_log(&verb), "still waiting: ");
    CHECK_HAS(process_log(&verb), "running  10 offered of 10, 4 on disk, 0 in gaps\n");
    CHECK_HAS(process_log(&verb), "ended  10 offered of 10, 10 on disk, 0 in gaps\n");
    CHECK(lines_of(process_log(&verb)) >= 9);
    tear_down();
}

TEST(follow_prints_an_object_a_line)
{
    struct process verb;
    struct json *value;
    struct status st;
    const char *last;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video, "--start-time", "2026-01-01T00:00:00Z"), 0);
    CHECK_EQ(RUN(&verb, "cam", "follow", "dock", "--json"), 0);
    last = strstr(process_log(&verb), "{\"namespace\"");
    CHECK(last != NULL);
    for (const char *next = last; next != NULL; next = strstr(next + 1, "{\"namespace\""))
        last = next;
    value = json_parse((struct bytes){ (const uint8_t *)last, strcspn(last, "\n") }, &st);
    CHECK(value != NULL);
    CHECK_STR(json_str(json_get(value, "state")), "ended");
    CHECK_EQ(json_number(json_get(value, "frames_on_disk")), 10);
    json_free(value);
    tear_down();
}

TEST(follow_of_a_live_camera_ends_with_ctrl_c_and_of_none_at_once)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "follow", "nobody"), 3);
    CHECK_EQ(RUN(&verb, "cam", "add", "gate", "rtsp://user:secret@host/live"), 0);
    process_start(&verb, "follow",
                  PROCESS_ARGS("reelkv", "cam", "follow", "gate", "--redis", redis_address()));
    CHECK(process_wait_text(&verb, "10 on disk", VERB_MS));
    CHECK_EQ(process_stop(&verb, SIGINT, VERB_MS), 130);
    CHECK_HAS(process_log(&verb), "interrupted; the camera is read on");
    CHECK(strstr(process_log(&verb), "secret") == NULL);
    process_start(&verb, "follow-json",
                  PROCESS_ARGS("reelkv", "cam", "follow", "gate", "--json", "--redis", redis_address()));
    CHECK(process_wait_text(&verb, "{\"namespace\"", VERB_MS));
    CHECK_EQ(process_stop(&verb, SIGINT, VERB_MS), 130);
    CHECK_HAS(process_log(&verb), "\n{\"error\":"); /* it was an object of five lines */
    tear_down();
}

TEST_MAIN()
