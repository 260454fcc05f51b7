/* A capture child that was taken over: a script in its place says what it must not. The encoder ends it with a
 * sentence every time, and never hangs, spins or believes it. */
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "capture_watch.h"
#include "support/process.h"
#include "support/test.h"

/* Python with a socket to the encoder in `s`, the job in `job`, and m() that packs a message. */
static const char *write_child(const char *body)
{
    static const char head[] =
        "#!/usr/bin/python3\n"
        "import socket, struct, sys, time, os\n"
        "s = socket.socket(fileno=0)\n"
        "job = s.recv(65536)\n"
        "def m(kind, slot=0, seq=0, to=0, pts=0, topts=0, w=0, h=0, code=0, text=b''):\n"
        "    return struct.pack('<4sHHIIQQqqIIII', b'RKC1', 1, kind, 64 + len(text), slot, seq, to, pts, topts, w, "
        "h, code, 0) + text\n"
        "OPENED, FRAME, GAP, TROUBLE, END, FAILED, RELEASE = range(1, 8)\n";
    static char path[400];
    char text[4096];
    struct status st = { 0 };

    snprintf(path, sizeof path, "%s/child.py", test_folder());
    snprintf(text, sizeof text, "%s%s", head, body);
    CHECK_OK(file_write_durable(path, text, strlen(text), &st), st);
    CHECK(chmod(path, 0700) == 0);
    return path;
}

static struct watch *run(const char *body, bool live)
{
    struct capture_job job = watch_job("/any", 1);
    struct watch *watch;

    job.live = live;
    watch = watch_start(&job, write_child(body));
    CHECK(watch_until(watch, watch_has_ended, 10000));
    return watch;
}

TEST(what_a_child_must_not_say_ends_it)
{
    static const struct {
        const char *body, *why;
        bool live;
    } rows[] = {
        { "s.send(b'hello'); time.sleep(60)", "a packet of 5 bytes", false },
        { "s.send(os.urandom(64)); time.sleep(60)", "another protocol", false },
        { "s.send(m(OPENED) + bytes(5000)); time.sleep(60)", "a packet of 576 bytes", false },
        { "s.send(b'RKC2' + m(OPENED)[4:]); time.sleep(60)", "another protocol", false },
        { "s.send(m(9)); time.sleep(60)", "unknown kind", false },
        { "s.send(m(FRAME, pts=1, w=8, h=8)); time.sleep(60)", "before its source was opened", false },
        { "s.send(m(OPENED)); s.send(m(FRAME, slot=3, pts=1, w=8, h=8)); time.sleep(60)", "not free", false },
        { "s.send(m(OPENED)); s.send(m(FRAME, pts=1, w=60000, h=60000)); time.sleep(60)", "no slot can hold",
          false },
        { "s.send(m(OPENED)); s.send(m(FRAME, seq=5, pts=1, w=8, h=8)); time.sleep(60)", "where 0 comes next",
          false },
        { "s.send(m(GAP, to=2**63)); time.sleep(60)", "a gap from 0 to 9223372036854775808", true },
        { "s.send(m(GAP, to=2)); time.sleep(60)", "a gap in a file", false },
        { "s.send(m(FAILED, code=3, text=b'\\xff')); time.sleep(60)", "not UTF-8", false },
        { "s.send(m(OPENED)); s.send(m(END, seq=7)); time.sleep(60)",
          "an end after 7 frames where 0 were sent", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct watch *watch = run(rows[i].body, rows[i].live);

        CHECK_EQ(watch->outcome, CAPTURE_BROKEN);
        CHECK_HAS(watch->st.text, "sent what it must not");
        CHECK_HAS(watch->st.text, rows[i].why);
        watch_end(watch);
    }
}

TEST(children_that_just_end_or_fall_silent_are_noticed)
{
    struct watch *watch = run("sys.exit(3)", false);
    struct rusage usage;
    double cpu;

    CHECK_EQ(watch->outcome, CAPTURE_BROKEN);
    CHECK_HAS(watch->st.text, "ended early with code 3");
    watch_end(watch);
    /* It closes its socket and stays: killed, and not waited for in a busy loop. */
    getrusage(RUSAGE_SELF, &usage);
    cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6;
    watch = run("s.close(); time.sleep(60)", false);
    CHECK_EQ(watch->outcome, CAPTURE_BROKEN);
    watch_end(watch);
    getrusage(RUSAGE_SELF, &usage);
    CHECK((double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 - cpu < 1);
}

/* A flood of allowed messages neither starves the loop nor grows anything. */
TEST(a_flood_leaves_others_their_turn)
{
    struct capture_job job = watch_job("/any", 1);
    struct watch *watch;
    uint32_t seen;

    job.live = true;
    watch = watch_start(&job, write_child("while True: s.send(m(TROUBLE, code=14, text=b'lost'))"));
    watch_for(watch, 500); /* comes back only because the loop's timers get their turn */
    seen = watch->trouble_count;
    CHECK(seen > 10);
    CHECK(!watch->ended);
    capture_stop(watch->capture);
    CHECK(watch_until(watch, watch_has_ended, 5000));
    CHECK_EQ(watch->outcome, CAPTURE_STOPPED);
    watch_end(watch);
}

TEST(a_child_that_ignores_the_stop_is_killed)
{
    struct capture_job job = watch_job("/any", 1);
    struct watch *watch;

    watch = watch_start(&job, write_child("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                                          "s.send(m(OPENED)); time.sleep(60)"));
    watch_for(watch, 1000);
    CHECK_EQ(watch->opened_count, 1);
    capture_stop(watch->capture);
    CHECK(watch_until(watch, watch_has_ended, CAPTURE_GOODBYE_MS + 3000));
    CHECK_EQ(watch->outcome, CAPTURE_STOPPED);
    watch_end(watch);
}

TEST(a_missing_program_is_an_error_at_once)
{
    struct capture_job job = watch_job("/any", 1);
    struct capture_options options = { .program = "/nowhere/reelkv-capture", .job = &job };
    struct capture *capture;
    struct loop *loop;
    struct status st = { 0 };

    CHECK_OK(loop_create(&loop, &st), st);
    CHECK(!capture_create(&capture, loop, &options, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "/nowhere/reelkv-capture");
    loop_destroy(loop);
}

TEST_MAIN()
