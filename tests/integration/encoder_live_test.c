/* The capture child on live sources that no one here wrote: MPEG-TS from ffmpeg over UDP and TCP, RTSP from
 * GStreamer's server. Frames come on the grid, near their true time; silence, loss and slowness become gaps that say
 * why; and the camera is found again when it is back. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "capture_watch.h"
#include "support/process.h"
#include "support/test.h"
#include "support/video.h"

/* A port that was free a moment ago. */
static int free_port(int type)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, type, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* A camera of 25 frames a second for 160 s, numbered, with a key frame every half second. */
static const char *make_tape(const char *name)
{
    struct video_numbered video = { name, "25", 0, 4000, 96, 32, "-g 12 -bf 0" };

    return video_make_numbered(&video);
}

static void send_tape(struct process *ffmpeg, const char *url)
{
    char tape[VIDEO_PATH_BYTES];
    const char *argv[] = { "ffmpeg", "-nostdin", "-loglevel", "error",  "-re", "-i", tape,
                           "-c",     "copy",     "-f",        "mpegts", url,   NULL };

    snprintf(tape, sizeof tape, "%s/tape.ts", test_folder());
    process_start(ffmpeg, "camera", argv);
}

static void start_rtsp(struct process *server, const char *user, const char *password)
{
    char tape[VIDEO_PATH_BYTES];
    const char *argv[] = {
        "/usr/bin/python3", REELKV_SOURCE_DIR "/tests/support/rtsp_server.py", tape, user, password, NULL
    };

    snprintf(tape, sizeof tape, "%s/tape.mp4", test_folder());
    process_start(server, "rtsp", argv);
    CHECK(process_wait_text(server, "port ", 10000));
}

static int rtsp_port(const struct process *server)
{
    int port = 0;

    CHECK(sscanf(process_log(server), "port %d", &port) == 1 && port > 0);
    return port;
}

static struct watch *start(const char *url)
{
    struct capture_job job = watch_job(url, 5);

    job.live = true;
    job.origin_ns = clock_utc_ns();
    job.open_timeout_ms = 5000;
    job.stall_timeout_ms = 1500;
    return watch_start(&job, NULL);
}

static uint32_t wanted_frames;
static bool has_wanted_frames(const struct watch *watch)
{
    return watch->frame_count >= wanted_frames;
}

/* Waits for that many more frames. */
static void more_frames(struct watch *watch, uint32_t count, uint32_t timeout_ms)
{
    wanted_frames = watch->frame_count + count;
    if (!watch_until(watch, has_wanted_frames, timeout_ms))
        test_fail(__FILE__, __LINE__, "%u of %u frames came within %u ms; the last trouble: %s",
                  watch->frame_count, wanted_frames, timeout_ms, watch->trouble);
}

/* The newest frame was taken a moment ago, and the last `count` frames lie about 5 pictures apart. */
static void check_steady(const struct watch *watch, uint32_t count)
{
    const struct watched_frame *last = &watch->frames[watch->frame_count - 1];

    CHECK_NEAR((double)(clock_utc_ns() - last->pts_ns) / 1e9, 0.3, 1.2);
    for (uint32_t i = 1; i < count; i++) {
        const struct watched_frame *frame = last - i + 1, *before = last - i;

        CHECK_NEAR(frame->number - before->number, (double)(frame->seq - before->seq) * 5, 2);
        CHECK_NEAR((double)(frame->pts_ns - before->pts_ns) / 40e6, frame->number - before->number, 0.6);
    }
}

static bool gap_says(const struct watch *watch, const char *reason)
{
    for (uint32_t i = 0; i < watch->gap_count; i++)
        if (strstr(watch->gaps[i].reason, reason) != NULL)
            return true;
    return false;
}

TEST(udp_frames_come_on_the_grid_at_their_time)
{
    struct process camera;
    struct watch *watch;
    char url[64];

    make_tape("tape.ts");
    snprintf(url, sizeof url, "udp://127.0.0.1:%d", free_port(SOCK_DGRAM));
    watch = start(url);
    send_tape(&camera, url);
    more_frames(watch, 15, 15000);
    check_steady(watch, 10);
    watch_check_whole(watch, 0);
    CHECK_STR(watch->codec, "h264");
    watch_end(watch);
    process_stop(&camera, SIGKILL, 1000);
}

/* The camera goes and comes back: the end of its data is a loss, never an end. */
TEST(a_lost_camera_is_found_again_and_the_time_between_is_a_gap)
{
    struct process camera;
    struct watch *watch;
    char listen_url[64], url[64];
    int port = free_port(SOCK_STREAM);
    uint64_t lost_seq;

    make_tape("tape.ts");
    snprintf(listen_url, sizeof listen_url, "tcp://127.0.0.1:%d?listen=1", port);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", port);
    send_tape(&camera, listen_url);
    watch = start(url);
    more_frames(watch, 8, 15000);
    lost_seq = watch->frames[watch->frame_count - 1].seq;
    process_stop(&camera, SIGKILL, 1000);
    watch_for(watch, 2500);
    CHECK(!watch->ended);
    CHECK(watch->trouble_count >= 1);
    CHECK(gap_says(watch, "ended") || gap_says(watch, "refused"));
    CHECK(watch->gaps[watch->gap_count - 1].to_seq > lost_seq + 5); /* told while it lasts */
    send_tape(&camera, listen_url);
    more_frames(watch, 8, 25000);
    CHECK(watch->opened_count >= 2);
    watch_check_whole(watch, 0);
    check_steady(watch, 5);
    watch_end(watch);
    process_stop(&camera, SIGKILL, 1000);
}

TEST(a_frozen_rtsp_camera_is_noticed_by_our_own_deadline)
{
    struct process server;
    struct watch *watch;
    char url[64];
    uint64_t frozen_ns;

    make_tape("tape.mp4");
    start_rtsp(&server, NULL, NULL);
    snprintf(url, sizeof url, "rtsp://127.0.0.1:%d/live", rtsp_port(&server));
    watch = start(url);
    more_frames(watch, 8, 20000);
    check_steady(watch, 5);
    CHECK_EQ(watch->trouble_count, 0);
    kill(server.pid, SIGSTOP);
    frozen_ns = clock_mono_ns();
    while (watch->trouble_count == 0 && clock_mono_ns() - frozen_ns < 10000000000)
        watch_for(watch, 50);
    CHECK_NEAR((double)(clock_mono_ns() - frozen_ns) / 1e9, 2.2, 1.8);
    CHECK_HAS(watch->trouble, "no picture came in time");
    kill(server.pid, SIGCONT);
    more_frames(watch, 5, 30000);
    CHECK(gap_says(watch, "no picture came in time"));
    watch_check_whole(watch, 0);
    watch_end(watch);
    process_stop(&server, SIGKILL, 1000);
}

TEST(a_killed_rtsp_camera_is_a_loss_with_a_reason)
{
    struct process server;
    struct watch *watch;
    char url[64];

    make_tape("tape.mp4");
    start_rtsp(&server, NULL, NULL);
    snprintf(url, sizeof url, "rtsp://127.0.0.1:%d/live", rtsp_port(&server));
    watch = start(url);
    more_frames(watch, 5, 20000);
    process_stop(&server, SIGKILL, 1000);
    watch_for(watch, 2500);
    CHECK(!watch->ended);
    CHECK(watch->trouble_count >= 1);
    CHECK(watch->gap_count >= 1);
    watch_check_whole(watch, 0);
    capture_stop(watch->capture);
    CHECK(watch_until(watch, watch_has_ended, 5000));
    CHECK_EQ(watch->outcome, CAPTURE_STOPPED);
    watch_end(watch);
}

/* The right password opens; a wrong one is refused in a sentence; neither is ever shown. */
TEST(rtsp_passwords_are_used_and_never_shown)
{
    struct process server;
    struct watch *watch;
    char url[96];

    make_tape("tape.mp4");
    start_rtsp(&server, "admin", "s3cret");
    snprintf(url, sizeof url, "rtsp://admin:s3cret@127.0.0.1:%d/live", rtsp_port(&server));
    watch = start(url);
    more_frames(watch, 3, 20000);
    watch_end(watch);
    snprintf(url, sizeof url, "rtsp://admin:wr0ng@127.0.0.1:%d/live", rtsp_port(&server));
    watch = start(url);
    watch_for(watch, 2000);
    CHECK(watch->trouble_count >= 1);
    CHECK_HAS(watch->trouble, "wants a user and password, or refuses the ones given");
    CHECK(strstr(watch->trouble, "admin") == NULL && strstr(watch->trouble, "wr0ng") == NULL);
    watch_end(watch);
    process_stop(&server, SIGKILL, 1000);
}

/* An encoder that cannot keep up loses whole frames, knows which, and goes on when it can. */
TEST(a_slow_encoder_loses_whole_frames_and_knows_which)
{
    struct process camera;
    struct watch *watch;
    char url[64];

    make_tape("tape.ts");
    snprintf(url, sizeof url, "udp://127.0.0.1:%d", free_port(SOCK_DGRAM));
    watch = start(url);
    send_tape(&camera, url);
    more_frames(watch, 3, 15000);
    watch->hold = true;
    watch_for(watch, 2000);
    CHECK_EQ(watch->held_count, 3);
    watch_release_all(watch);
    more_frames(watch, 5, 10000);
    CHECK(gap_says(watch, "the system is slower than the camera"));
    watch_check_whole(watch, 0);
    check_steady(watch, 4);
    watch_end(watch);
    process_stop(&camera, SIGKILL, 1000);
}

TEST(a_camera_that_never_speaks_is_a_gap_that_grows)
{
    struct watch *watch;
    char url[64];

    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", free_port(SOCK_STREAM));
    watch = start(url);
    watch_for(watch, 3200);
    CHECK_EQ(watch->frame_count, 0);
    CHECK(watch->gap_count >= 2);
    CHECK(gap_says(watch, "Connection refused"));
    CHECK(watch->gaps[watch->gap_count - 1].to_seq >= 5 && watch->gaps[watch->gap_count - 1].to_seq <= 17);
    watch_for(watch, 4800);
    CHECK(watch->gap_count <= 5); /* one a second filled the store's disk, a page each */
    watch_check_whole(watch, 0);
    watch_end(watch);
}

TEST_MAIN()
