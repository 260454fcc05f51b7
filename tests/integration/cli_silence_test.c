/* Verbs and stores that do not answer, or not rightly: gone, silent, hung, broken off in the middle. What is known is shown, what
 * is missing is named, and nothing is taken for known that is not. */
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "cli_stage.h"
#include "support/test.h"

/* A kvstore as it announces itself: on "double.sock" the stand-in once more, on any other nobody. */
static void announce_store(const char *name, const char *socket)
{
    const int64_t now_ms = clock_utc_ns() / 1000000;
    struct process announce;
    char record[400];

    snprintf(record, sizeof record,
             "{\"address\":\"unix:%s/%s\",\"pid\":1,\"started_ms\":%lld,\"seen_ms\":%lld,\"streams\":0,"
             "\"capacity\":0,\"draining\":false}",
             test_folder(), socket, (long long)now_ms, (long long)now_ms + VERB_MS);
    CHECK_EQ(process_run(&announce, "announce",
                         PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "hset",
                                      "reelkv:1:workers:kvstore", name, record),
                         VERB_MS),
             0);
}

/* It may have the camera: "there is no camera" was not known. Which store a name would go to first is by chance. */
TEST(a_silent_store_is_not_a_missing_camera)
{
    static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h" };
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "show", "a"), 3);
    announce_store("kvstore-9", "nobody.sock");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        CHECK_EQ(RUN(&verb, "cam", "show", names[i]), 4);
        CHECK_HAS(process_log(&verb), "kvstore-9 does not answer now, see `reelkv doctor --redis ");
    }
    tear_down();
}

/* A store that answers, if not well, was said not to answer. */
TEST(a_store_that_fails_is_not_a_silent_one)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "show", "damaged"), 8);
    CHECK_HAS(process_log(&verb), "camera 'damaged' may be with kvstore-0: the catalog is damaged");
    CHECK(strstr(process_log(&verb), "does not answer") == NULL);
    tear_down();
}

/* A store that is gone for long is no longer among the workers: its cameras were left out without a word. */
TEST(a_store_that_is_gone_is_missed_by_its_cameras)
{
    struct process verb, announce;

    set_up();
    CHECK_EQ(process_run(&announce, "announce",
                         PROCESS_ARGS("redis-cli", "-s", redis_address() + strlen("unix:"), "hset",
                                      "reelkv:1:streams", "default/yard",
                                      "{\"store\":\"kvstore-7\",\"phase\":2,\"seen_ms\":1}"),
                         VERB_MS),
             0);
    CHECK_EQ(RUN(&verb, "cam", "ls"), 4);
    CHECK_HAS(process_log(&verb), "reelkv: kvstore-7 does not answer: its cameras are missing here");
    CHECK_EQ(RUN(&verb, "cam", "ls", "--namespace", "other"), 0);
    CHECK_EQ(RUN(&verb, "cam", "show", "yard"), 4);
    CHECK_HAS(process_log(&verb), "kept by kvstore-7, which is not running now");
    tear_down();
}

/* Their names were one text, cut at 256 bytes, in JSON too. */
TEST(silent_stores_are_named_one_by_one)
{
    static const char *const listings[][2] = { { "cam", "ls" }, { "mem", "ls" } };
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "cam", "ls", "--json"), 0);
    value = printed(&verb);
    CHECK(json_is_array(json_get(value, "silent_stores")));
    CHECK_EQ(json_len(json_get(value, "silent_stores")), 0);
    json_free(value);
    announce_store("kvstore-8", "nobody.sock");
    announce_store("kvstore-9", "nobody.sock");
    for (size_t i = 0; i < ARRAY_LEN(listings); i++) {
        CHECK_EQ(RUN(&verb, listings[i][0], listings[i][1]), 4);
        CHECK_HAS(process_log(&verb),
                  "reelkv: kvstore-8, kvstore-9 do not answer: their cameras are missing");
        CHECK_EQ(RUN(&verb, listings[i][0], listings[i][1], "--json"), 4);
        value = printed(&verb);
        CHECK_EQ(json_len(json_get(value, "cameras")), 1);
        CHECK_STR(json_str(json_at(json_get(value, "silent_stores"), 0)), "kvstore-8");
        CHECK_STR(json_str(json_at(json_get(value, "silent_stores"), 1)), "kvstore-9");
        json_free(value);
    }
    tear_down();
}

/* Those of its first page stood there as if they were all it has. */
TEST(a_store_that_breaks_off_its_list_is_silent)
{
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "cam", "add", "tape", "http://host/torn.mp4"), 0);
    announce_store("kvstore-9", "double.sock");
    CHECK_EQ(RUN(&verb, "cam", "ls", "--json"), 4);
    value = printed(&verb);
    CHECK_EQ(json_len(json_get(value, "silent_stores")), 1);
    CHECK_EQ(json_len(json_get(value, "cameras")), 2); /* all of the other store, none of the broken walk */
    json_free(value);
    tear_down();
}

/* It counted on, "frames 0", without a word of why. */
TEST(a_wait_tells_of_a_store_that_is_away)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "gate", "rtsp://host/live"), 0);
    process_start(&verb, "waiting",
                  PROCESS_ARGS("reelkv", "cam", "wait", "gate", "--frames", "50", "--redis",
                               redis_address()));
    wait_until_blocked(&verb, SIGINT);
    CHECK_EQ(process_stop(&cluster, SIGKILL, VERB_MS), 128 + SIGKILL);
    CHECK(process_wait_text(&verb, "reelkv: still waiting: ", VERB_MS));
    CHECK_EQ(process_stop(&verb, SIGINT, VERB_MS), 130);
    CHECK_EQ(process_stop(&redis, SIGTERM, VERB_MS), 0);
}

/* Its connection lives, its calls do not end: verbs said that their own time was over, and a wait gave up an hour early. */
TEST(a_store_that_hangs_does_not_answer)
{
    struct process waiting, showing, listing;

    set_up();
    CHECK_EQ(RUN(&showing, "cam", "add", "gate", "rtsp://host/mute"), 0);
    process_start(&waiting, "waiting",
                  PROCESS_ARGS("reelkv", "cam", "wait", "gate", "--frames", "5", "--redis", redis_address()));
    process_start(&showing, "showing",
                  PROCESS_ARGS("reelkv", "cam", "show", "gate", "--redis", redis_address()));
    process_start(&listing, "listing", PROCESS_ARGS("reelkv", "cam", "ls", "--redis", redis_address()));
    CHECK_EQ(process_wait(&showing, VERB_MS), 4);
    CHECK_HAS(process_log(&showing), "kvstore-0 does not answer now, see `reelkv doctor --redis ");
    CHECK_EQ(process_wait(&listing, VERB_MS), 4);
    CHECK_HAS(process_log(&listing), "no kvstore answers now, see `reelkv doctor --redis ");
    CHECK(process_wait_text(&waiting, "reelkv: still waiting: kvstore-0 does not answer now", VERB_MS));
    CHECK_EQ(process_stop(&waiting, SIGINT, VERB_MS), 130);
    tear_down();
}

/* A cluster that is away is a sentence and a code, not a wait without end. */
TEST(an_absent_cluster_is_told)
{
    struct process verb;

    set_up();
    CHECK_EQ(process_stop(&cluster, SIGKILL, VERB_MS), 128 + SIGKILL);
    CHECK_EQ(RUN(&verb, "cam", "ls"), 4);
    CHECK_HAS(process_log(&verb), "no kvstore answers now, see `reelkv doctor --redis ");
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 4);
    CHECK_HAS(process_log(&verb), "kvstore-0 does not answer now, see `reelkv doctor --redis ");
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--cam", "dock"), 4);
    CHECK_HAS(process_log(&verb), "no answer now, see `reelkv doctor --redis ");
    CHECK_EQ(process_stop(&redis, SIGTERM, VERB_MS), 0);
    CHECK_EQ(RUN(&verb, "cam", "ls", "--json"), 4);
    CHECK_HAS(process_log(&verb), "\"unavailable\"");
    CHECK_EQ(process_run(&verb, "nowhere", PROCESS_ARGS("reelkv", "cam", "ls", "--redis", "nonsense"),
                         VERB_MS),
             2);
}

TEST_MAIN()
