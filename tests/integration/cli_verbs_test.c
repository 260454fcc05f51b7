/* The verbs that talk to a cluster, against a stand-in (cli_double_cluster.c) found by --redis: what they print for
 * people and for programs, what they refuse before calling anybody, cancelling, breaking off. */
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "cli_stage.h"
#include "support/test.h"

TEST(cameras_are_added_listed_waited_for_and_removed)
{
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "ls"), 0);
    CHECK_HAS(process_log(&verb), "No cameras yet");
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video, "--start-time", "2026-01-01T00:00:00Z"), 0);
    CHECK_HAS(process_log(&verb), "Camera dock added");
    CHECK_HAS(process_log(&verb), "`reelkv cam wait dock --redis ");
    CHECK_EQ(RUN(&verb, "cam", "add", "gate", "rtsp://user:secret@host/live", "--fps", "2"), 0);
    CHECK_HAS(process_log(&verb), "`reelkv cam show gate --redis "); /* `cam wait` refuses what never ends */
    CHECK_HAS(process_log(&verb), "rtsp://***@host/live");
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 5);
    CHECK_HAS(process_log(&verb), "`reelkv cam rm dock --redis ");
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video, "--namespace", "other"), 5);
    CHECK_HAS(process_log(&verb), " --namespace other`"); /* without it the other dock was removed */

    CHECK_EQ(RUN(&verb, "cam", "ls", "--json"), 0);
    value = printed(&verb);
    CHECK_EQ(json_len(json_get(value, "cameras")), 2);
    CHECK_STR(json_str(json_get(json_at(json_get(value, "cameras"), 0), "start_time")),
              "2026-01-01T00:00:00Z");
    CHECK_STR(json_str(json_get(json_at(json_get(value, "cameras"), 1), "kind")), "live");
    CHECK_NEAR(json_number(json_get(json_at(json_get(value, "cameras"), 0), "sample_fps")), 0.5, 0);
    json_free(value);

    CHECK_EQ(RUN(&verb, "cam", "wait", "dock"), 0);
    CHECK_HAS(process_log(&verb), "dock: ended, 10 frames on disk");
    CHECK_EQ(RUN(&verb, "cam", "wait", "dock", "dock"), 2); /* it counted its frames twice */
    CHECK_HAS(process_log(&verb), "camera dock is named twice");
    CHECK_EQ(RUN(&verb, "cam", "wait", "gate"), 2);
    CHECK_HAS(process_log(&verb), "--frames");
    CHECK_EQ(RUN(&verb, "cam", "wait", "gate", "--frames", "5"), 0);
    CHECK_EQ(RUN(&verb, "cam", "wait", "gate", "--frames", "50", "--timeout", "1"), 7);
    CHECK_HAS(process_log(&verb), " of 50 frames are on disk");
    CHECK_EQ(RUN(&verb, "cam", "ls", "--namespace", "No!"), 2);
    CHECK_EQ(RUN(&verb, "cam", "show", "nobody"), 3);
    CHECK_EQ(RUN(&verb, "cam", "rm", "dock"), 0);
    CHECK_EQ(RUN(&verb, "cam", "rm", "dock"), 3);
    tear_down();
}

/* Without --start-time a file's frames have the times from when it was last changed. */
TEST(a_file_begins_when_it_was_changed_unless_told_otherwise)
{
    const struct timespec changed[2] = { { 1767225660, 0 }, { 1767225660, 0 } };
    struct process verb;
    struct json *value;

    set_up();
    CHECK(utimensat(AT_FDCWD, video, changed, 0) == 0);
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "cam", "ls", "--json"), 0);
    value = printed(&verb);
    CHECK_STR(json_str(json_get(json_at(json_get(value, "cameras"), 0), "start_time")),
              "2026-01-01T00:01:00Z");
    json_free(value);
    tear_down();
}

TEST(sources_are_checked_before_anybody_is_called)
{
    struct process verb;
    char empty[600];
    struct status st;

    set_up();
    snprintf(empty, sizeof empty, "%s/empty.mp4", test_folder());
    CHECK_OK(file_write_durable(empty, "", 0, &st), st);
    CHECK_EQ(RUN(&verb, "cam", "add", "a", "no/such.mp4"), 3);
    CHECK_HAS(process_log(&verb), "by its whole path");
    CHECK_EQ(RUN(&verb, "cam", "add", "a", empty), 2);
    CHECK_HAS(process_log(&verb), "is empty");
    CHECK_EQ(RUN(&verb, "cam", "add", "A b", video), 2);
    CHECK_EQ(RUN(&verb, "cam", "add", "a", video, "--start-time", "yesterday"), 2);
    CHECK_HAS(process_log(&verb), "2026-11-21T14:05:00Z");
    CHECK_EQ(RUN(&verb, "cam", "add", "a", "rtsp://host/x", "--start-time", "now"), 2);
    CHECK_EQ(RUN(&verb, "cam", "add", "a", "gopher://user:geheim@host/x"), 2);
    CHECK_HAS(process_log(&verb), "a source is rtsp://, rtsps://, rtmp://");
    CHECK(strstr(process_log(&verb), "geheim") == NULL);
    CHECK_EQ(RUN(&verb, "cam", "add", "a", video, "--fps", "-1"), 2);
    CHECK_EQ(RUN(&verb, "cam", "add", "a", video, "--fps", "0.0001"), 2);
    CHECK_HAS(process_log(&verb), "0.001 to 60");
    CHECK_EQ(RUN(&verb, "cam", "add", "a", video, "--start-time", "1960-01-01T00:00:00Z"), 2);
    CHECK_HAS(process_log(&verb), "--start-time: ");
    CHECK_EQ(RUN(&verb, "cam", "add", "a"), 2);
    CHECK_EQ(RUN(&verb, "cam", "add", "a", video, "--namespace", "No!"), 2);
    tear_down();
}

/* Each of these became a camera: one that failed a moment later, or one that tried for ever. */
TEST(addresses_nobody_can_open_are_refused)
{
    static const struct {
        const char *source, *says;
    } rows[] = {
        { "", "the source is empty" },
        { "/dev/null", "not a regular file" },
        { "foo://user:secret@host/x", "this kind of URL cannot be read; a source is rtsp://" },
        { "HTTP:/user:secret@host/x", "two slashes" },
        { "rtsp://:554/", "names no host" },
        { "rtsp://user:secret@host:99999/x", "port must be a number from 1 to 65535" },
        { "rtsp://user:secret#x@host/x", "# %23" },
        { "rtsp://", "names no host" },
        { "http:///x.mp4", "names no host" },
        { "rtsp:/user:secret@host/x", "two slashes" },
        { "http:user:secret@host", "two slashes" },
        { "rtsp://user:secret@ host/x", "%20" },
    };
    struct process verb;

    set_up();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        CHECK_EQ(RUN(&verb, "cam", "add", "a", rows[i].source), 2);
        CHECK_HAS(process_log(&verb), rows[i].says);
        CHECK(strstr(process_log(&verb), "secret") == NULL);
    }
    CHECK_EQ(RUN(&verb, "cam", "add", "a", "udp://:5000"), 0); /* any sender */
    CHECK_EQ(RUN(&verb, "cam", "add", "b", "RTSP://host/x"), 0);
    tear_down();
}

/* What a URL reader takes for the end of the host may be in a password that nobody escaped: it was shown in full. */
TEST(passwords_with_signs_in_them_are_not_shown)
{
    static const char *const sources[] = { "rtsp://user:12#s3cret@127.0.0.1:1/live",
                                           "rtsp://user:12?s3cret@127.0.0.1:1/live",
                                           "rtsp://user:12/s3cret@127.0.0.1:1/live" };
    struct process verb;

    set_up();
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        CHECK_EQ(RUN(&verb, "cam", "add", "yard", sources[i]), 0);
        CHECK(strstr(process_log(&verb), "cret") == NULL);
        CHECK_EQ(RUN(&verb, "cam", "show", "yard", "--json"), 0);
        CHECK_HAS(process_log(&verb), "rtsp://***");
        CHECK(strstr(process_log(&verb), "cret") == NULL);
        CHECK_EQ(RUN(&verb, "cam", "rm", "yard"), 0);
    }
    CHECK_EQ(RUN(&verb, "cam", "add", "yard", "user:s3cret@127.0.0.1/live"), 3);
    CHECK_HAS(process_log(&verb), "video ***@127.0.0.1/live: ");
    tear_down();
}

/* The machine that asks need not be the one that reads: such a file could not be added at all. */
TEST(a_file_of_another_machine_is_taken_as_it_is)
{
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", "/no/such folder/a.mp4"), 0);
    CHECK_HAS(process_log(&verb),
              "/no/such folder/a.mp4 is not on this machine: the encoder must be able to read it");
    CHECK_HAS(process_log(&verb), "--start-time");
    CHECK_EQ(RUN(&verb, "cam", "add", "gate", "/no/such.mp4", "--start-time", "2026-01-01T00:00:00Z"), 0);
    CHECK_HAS(process_log(&verb), "is not on this machine");
    CHECK(strstr(process_log(&verb), "--start-time") == NULL);
    CHECK_EQ(RUN(&verb, "cam", "show", "dock", "--json"), 0);
    value = printed(&verb);
    CHECK_STR(json_str(json_get(value, "source")), "/no/such folder/a.mp4");
    CHECK(json_str(json_get(value, "start_time")) != NULL);
    json_free(value);
    tear_down();
}

/* A file's name may hold a line's end; a row of a table that breaks there can be read by nobody. */
TEST(a_row_is_one_line)
{
    struct process verb;
    char path[600];
    struct status st;

    set_up();
    snprintf(path, sizeof path, "%s/two\nlines.mp4", test_folder());
    CHECK_OK(file_write_durable(path, "video", 5, &st), st);
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", path), 0);
    CHECK_EQ(RUN(&verb, "cam", "ls"), 0);
    CHECK_HAS(process_log(&verb), "/two lines.mp4\n");
    tear_down();
}

/* A camera that cannot be read ends the wait with the reason. */
TEST(waiting_for_a_broken_camera_says_why)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "bad", "http://host/broken.mp4"), 0);
    CHECK_EQ(RUN(&verb, "cam", "wait", "bad", "--json"), 1);
    CHECK_HAS(process_log(&verb), "it is not a video");
    tear_down();
}

/* A gap is no frame: waiting for frames counted the slots in which a camera did not answer, and said nothing of it. */
TEST(waiting_for_frames_does_not_count_gaps)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "yard", "rtsp://host/gappy"), 0);
    CHECK_EQ(RUN(&verb, "cam", "wait", "yard", "--frames", "6"), 0);
    CHECK_HAS(process_log(&verb), "yard: running, 6 frames on disk");
    CHECK_EQ(RUN(&verb, "cam", "wait", "yard", "--frames", "8", "--timeout", "1"), 7);
    CHECK_HAS(process_log(&verb), "6 of 8 frames are on disk; yard: nobody answers there");
    CHECK_EQ(RUN(&verb, "cam", "show", "yard"), 0);
    CHECK_HAS(process_log(&verb), "gap now   nobody answers there");
    CHECK_HAS(process_log(&verb), "6 stored (6 of them on disk), 4 in gaps"); /* was: 6 stored, 10 durable */
    tear_down();
}

/* Every verb showed a camera as whole whose frames the disk had not kept. */
TEST(damaged_frames_are_shown_by_every_verb)
{
    static const char *const listings[][2] = { { "cam", "ls" }, { "mem", "ls" } };
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "tape", "http://host/spoilt.mp4"), 0);
    CHECK_EQ(RUN(&verb, "cam", "wait", "tape"), 0);
    CHECK_HAS(process_log(&verb), "tape: ended, 7 frames on disk, 3 damaged");
    CHECK_EQ(RUN(&verb, "cam", "show", "tape"), 0);
    CHECK_HAS(process_log(&verb), "10 stored (7 of them on disk), 0 in gaps, 0 evicted, 3 damaged");
    CHECK_EQ(RUN(&verb, "cam", "show", "tape", "--json"), 0);
    value = printed(&verb);
    CHECK_EQ(json_number(json_get(value, "frames_damaged")), 3);
    CHECK_EQ(json_number(json_get(value, "frames_on_disk")), 7);
    json_free(value);
    for (size_t i = 0; i < ARRAY_LEN(listings); i++) {
        CHECK_EQ(RUN(&verb, listings[i][0], listings[i][1]), 0);
        CHECK_HAS(process_log(&verb), "DAMAGED");
    }
    RUN(&verb, "doctor");
    CHECK_HAS(process_log(&verb), "warn  tape");
    CHECK_HAS(process_log(&verb), "3 of 10 frames stored are damaged on disk");
    tear_down();
}

/* All of its frames had gone for the budget, and all of them were said to be on the disk. */
TEST(evicted_frames_are_not_on_disk)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "tape", "http://host/forgotten.mp4"), 0);
    CHECK_EQ(RUN(&verb, "cam", "wait", "tape"), 0);
    CHECK_HAS(process_log(&verb), "tape: ended, 0 frames on disk, 10 evicted");
    CHECK_EQ(RUN(&verb, "cam", "wait", "tape", "--frames", "10"), 0); /* they came there */
    CHECK_EQ(RUN(&verb, "cam", "show", "tape"), 0);
    CHECK_HAS(process_log(&verb), "10 stored (0 of them on disk), 0 in gaps, 10 evicted");
    CHECK_EQ(RUN(&verb, "cam", "ls"), 0);
    CHECK_HAS(process_log(&verb), "GONE");
    tear_down();
}

/* A file's gaps lie behind what came after them. */
TEST(show_says_why_the_newest_gap_is_there)
{
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "tape", "http://host/gappy.mp4"), 0);
    CHECK_EQ(RUN(&verb, "cam", "wait", "tape"), 0);
    CHECK_EQ(RUN(&verb, "cam", "show", "tape"), 0);
    CHECK_HAS(process_log(&verb), "last gap  frames 6 to 9, 2026-01-01 00:00:03Z: nobody answers there");
    CHECK_EQ(RUN(&verb, "cam", "show", "tape", "--json"), 0);
    value = printed(&verb);
    CHECK_STR(json_str(json_get(json_get(value, "last_gap"), "reason")), "nobody answers there");
    json_free(value);
    tear_down();
}

/* The gaps of the pages before were shown as the newest. */
TEST(a_timeline_that_breaks_off_shows_no_last_gap)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "tape", "http://host/gappy-torn.mp4"), 0);
    CHECK_EQ(RUN(&verb, "cam", "wait", "tape"), 0);
    CHECK_EQ(RUN(&verb, "cam", "show", "tape"), 0);
    CHECK_HAS(process_log(&verb), "4 in gaps");
    CHECK(strstr(process_log(&verb), "last gap") == NULL);
    tear_down();
}

TEST(ctrl_c_ends_a_wait_with_a_sentence)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "gate", "rtsp://host/live"), 0);
    process_start(&verb, "waiting",
                  PROCESS_ARGS("reelkv", "cam", "wait", "gate", "--frames", "50", "--json", "--redis",
                               redis_address()));
    wait_until_blocked(&verb, SIGINT);
    CHECK_EQ(process_stop(&verb, SIGINT, VERB_MS), 130);
    CHECK_HAS(process_log(&verb), "interrupted");
    CHECK_HAS(process_log(&verb), "\"cancelled\"");
    tear_down();
}

/* The answer first, then its frames; nothing a model says reaches the terminal as a control sequence. */
TEST(answers_come_with_their_evidence)
{
    struct process verb;
    struct json *value, *frame;
    char pictures[600], path[700];

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--cam", "dock"), 0);
    CHECK(strncmp(process_log(&verb), "A red st [31mar\n", 16) == 0);
    CHECK_HAS(process_log(&verb), "2026-01-01 00:00:02.500Z");
    CHECK_HAS(process_log(&verb), "Note: 12 frames of dock [2J are gone");

    snprintf(pictures, sizeof pictures, "%s/pictures", test_folder());
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--json", "--thumbnails", pictures), 0);
    value = printed(&verb);
    CHECK_STR(json_str(json_get(value, "answer")), "A red st\x1b[31mar");
    frame = (struct json *)(uintptr_t)json_at(json_get(value, "evidence"), 0);
    CHECK_STR(json_str(json_get(frame, "cam")), "dock");
    CHECK_STR(json_str(json_get(frame, "pts")), "2026-01-01T00:00:02Z");
    CHECK_EQ(json_number(json_get(frame, "seq")), 4);
    CHECK_EQ(json_number(json_get(frame, "layers")), 3);
    CHECK_NEAR(json_number(json_get(frame, "mean_rank")), 1.5, 0);
    CHECK_NEAR(json_number(json_get(frame, "score")), 0.25, 0);
    snprintf(path, sizeof path, "%s/dock-000004.jpg", pictures);
    CHECK_STR(json_str(json_get(frame, "thumbnail")), path);
    CHECK(access(path, R_OK) == 0);
    CHECK_STR(json_str(json_get(json_get(value, "usage"), "stop")), "end");
    json_free(value);
    tear_down();
}

/* One camera of another model kept every question about all of them from being answered, and nothing said what to do. */
TEST(a_camera_of_other_settings_keeps_no_other_from_being_asked_about)
{
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "cam", "add", "tape", "http://host/foreign.mp4"), 0);
    CHECK_EQ(RUN(&verb, "ask", "What was it?"), 0);
    CHECK_HAS(process_log(&verb),
              "Note: stored with another model, dtype or window than the cluster runs with now");
    CHECK_HAS(process_log(&verb), "and left out (`reelkv cam show NAME --redis ");
    CHECK_HAS(process_log(&verb), "tells more): tape\n");
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--json"), 0);
    value = printed(&verb);
    CHECK_EQ(json_len(json_get(value, "notes")), 2);
    json_free(value);
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--cam", "dock,tape"), 1);
    CHECK_HAS(process_log(&verb), "forget it with `reelkv cam rm tape --redis ");
    CHECK_HAS(process_log(&verb), "`, or it waits until the cluster is started with");
    CHECK_EQ(RUN(&verb, "cam", "show", "tape"), 0);
    CHECK_HAS(process_log(&verb), "settings  stored with another model");
    CHECK_EQ(RUN(&verb, "cam", "show", "dock", "--json"), 0);
    value = printed(&verb);
    CHECK(!json_bool(json_get(value, "other_settings")));
    json_free(value);
    CHECK_EQ(RUN(&verb, "cam", "rm", "dock"), 0);
    CHECK_EQ(RUN(&verb, "ask", "What was it?"), 1);
    CHECK_HAS(process_log(&verb), "`reelkv cam rm tape --redis ");
    tear_down();
}

/* A question about all cameras was answered as if there were no other. */
TEST(an_answer_tells_of_cameras_that_cannot_be_read)
{
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "cam", "add", "bad", "http://host/broken.mp4"), 0);
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--json"), 0);
    value = printed(&verb);
    CHECK_STR(json_str(json_at(json_get(value, "notes"), 0)), "camera bad cannot be read: it is not a video");
    json_free(value);
    tear_down();
}

/* One damaged small file of one camera made every question about all cameras fail. */
TEST(a_camera_set_aside_does_not_keep_others_from_answering)
{
    struct process verb;
    struct json *value;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "cam", "add", "lost", "http://host/aside.mp4"), 0);
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--json"), 0);
    value = printed(&verb);
    CHECK_STR(json_str(json_at(json_get(value, "notes"), 0)),
              "camera lost cannot be read: it is not a video");
    json_free(value);
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--cam", "dock,lost"), 8);
    CHECK_EQ(RUN(&verb, "cam", "rm", "dock"), 0);
    CHECK_EQ(RUN(&verb, "ask", "What was it?"), 8);
    CHECK_HAS(process_log(&verb), "it is set aside");
    tear_down();
}

TEST(questions_are_checked_before_anybody_is_called)
{
    struct process verb;
    char *long_question = calloc(1, 5000);

    set_up();
    CHECK(long_question != NULL);
    memset(long_question, 'a', 4500);
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "ask", ""), 2);
    CHECK_EQ(RUN(&verb, "ask", long_question), 2);
    CHECK_HAS(process_log(&verb), "at most 4096");
    CHECK_EQ(RUN(&verb, "ask", "\xC3\x28"), 2);
    CHECK_EQ(RUN(&verb, "ask", "x", "--cam", "dock,,gate"), 2);
    CHECK_EQ(RUN(&verb, "ask", "x", "--recent", "many"), 2);
    CHECK_EQ(RUN(&verb, "ask", "x", "--layers"), 2);
    CHECK_HAS(process_log(&verb), "needs --json");
    CHECK_EQ(RUN(&verb, "ask", "x", "--as-of", "soon"), 2);
    CHECK_HAS(process_log(&verb), "--as-of");
    CHECK_EQ(RUN(&verb, "ask", "x", "--cam", "nobody"), 3);
    free(long_question);
    tear_down();
}

TEST(ctrl_c_cancels_the_question_in_the_cluster)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    process_start(&verb, "hanging",
                  PROCESS_ARGS("reelkv", "ask", "hang", "--cam", "dock", "--redis", redis_address()));
    CHECK(process_wait_text(&cluster, "hangs", VERB_MS));
    CHECK_EQ(process_stop(&verb, SIGINT, VERB_MS), 130);
    CHECK_HAS(process_log(&verb), "interrupted");
    CHECK(process_wait_text(&cluster, "the question was cancelled", VERB_MS));
    CHECK_EQ(RUN(&verb, "ask", "hang", "--cam", "dock", "--timeout", "1"), 7);
    tear_down();
}

/* A question on a terminal of its own; *text has what stands on its stderr, the log what is on stdout. */
static int ask_on_terminal(const char *question, int number, char text[1024])
{
    struct process verb;
    int terminal, ours;
    char script[1200];
    struct pollfd wait = { .events = POLLIN };
    size_t used = 0;
    int code;

    CHECK(openpty(&terminal, &ours, NULL, NULL, NULL) == 0 && fcntl(terminal, F_SETFL, O_NONBLOCK) == 0);
    wait.fd = terminal;
    snprintf(script, sizeof script, "exec " REELKV_BIN_DIR "/reelkv ask '%s' --cam dock --redis %s 2>%s",
             question, redis_address(), ptsname(terminal));
    setenv("TERM", "xterm", 1);
    process_start(&verb, "terminal", PROCESS_ARGS("sh", "-c", script));
    if (number != 0)
        CHECK(process_wait_text(&cluster, "hangs", VERB_MS));
    code = number != 0 ? process_stop(&verb, number, VERB_MS) : process_wait(&verb, VERB_MS);
    while (used < 1023 && poll(&wait, 1, 200) > 0) { /* the kernel hands on what was written in pieces */
        ssize_t len = read(terminal, text + used, 1023 - used);

        if (len <= 0)
            break;
        used += (size_t)len;
    }
    text[used] = '\0';
    close(ours);
    close(terminal);
    return code;
}

/* Until the first word nothing told a person that anything went on. What stood there is gone when it comes. */
TEST(a_question_says_on_a_terminal_that_it_is_asked)
{
    struct process verb;
    char text[1024];

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(ask_on_terminal("What was it?", 0, text), 0);
    CHECK_STR(text, "\r\033[Kasking ...\r\033[K");
    CHECK_EQ(ask_on_terminal("hang", SIGINT, text), 130);
    CHECK_STR(text, "\r\033[Kasking ...\r\033[Kreelkv: interrupted\r\n");
    CHECK_EQ(RUN(&verb, "ask", "What was it?", "--cam", "dock"), 0);
    CHECK(strstr(process_log(&verb), "asking") == NULL);
    tear_down();
}

/* Half an answer is not an answer: what came is shown, the failure is told. */
TEST(a_broken_answer_is_a_failure)
{
    struct process verb;

    set_up();
    CHECK_EQ(RUN(&verb, "cam", "add", "dock", video), 0);
    CHECK_EQ(RUN(&verb, "ask", "break", "--cam", "dock"), 4);
    CHECK_HAS(process_log(&verb), "A red\n");
    CHECK_HAS(process_log(&verb), "the device is gone");
    tear_down();
}

TEST(memory_and_workers_are_shown)
{
    struct process verb;
    struct json *value;
    const struct json *store;

    set_up();
    CHECK_EQ(RUN(&verb, "mem", "ls"), 0);
    CHECK_HAS(process_log(&verb), "512 MiB");
    CHECK_HAS(process_log(&verb), "96 KiB"); /* of sketches */
    CHECK_HAS(process_log(&verb), "75 %");
    CHECK_HAS(process_log(&verb), "FRAMES NOW  FOUND DAMAGED  GUESSED  SCRUBBED");
    CHECK_HAS(process_log(&verb), "2023-11-1"); /* of whatever time zone */
    CHECK_EQ(RUN(&verb, "mem", "ls", "--json"), 0);
    value = printed(&verb);
    store = json_at(json_get(value, "stores"), 0);
    CHECK_EQ(json_number(json_get(store, "frames")), 77);
    CHECK_EQ(json_number(json_get(store, "quarantined_frames")), 2);
    CHECK_EQ(json_number(json_get(store, "sketch_bytes")), 96 << 10);
    CHECK_EQ(json_number(json_get(store, "read_ahead_slices")), 400);
    CHECK_EQ(json_number(json_get(store, "read_ahead_used")), 300);
    CHECK_EQ(json_number(json_get(store, "full_scrub_ns")), 1700000000000000000ll);
    json_free(value);
    CHECK_EQ(RUN(&verb, "node", "ls", "--json"), 0);
    value = printed(&verb);
    CHECK_EQ(json_len(json_get(value, "nodes")), 2);
    json_free(value);
    CHECK_EQ(RUN(&verb, "doctor"), 1);
    CHECK_HAS(process_log(&verb), "kvstore healthy at");
    CHECK_HAS(process_log(&verb), "none has announced itself");
    tear_down();
}

TEST_MAIN()
