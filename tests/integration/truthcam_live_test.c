/* The truthcam program as people start it: a live camera over UDP keeps real time and can be joined, and what
 * makes no sense is refused with a sentence. */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/process.h"
#include "support/test.h"

enum { TS_PACKET = 188, VIDEO_PID = 256, WATCH_MS = 2500, SILENCE_MS_MAX = 1000 };

struct watch {
    uint32_t pictures, key_pictures;
};

static int open_port(uint16_t *port_p)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port_p = ntohs(address.sin_port);
    return fd;
}

/* ISO 13818-1: a payload start on the video's PID is one picture; the adaptation field's 0x40 marks one that
 * decoding can begin with. */
static void look_at(struct watch *watch, const uint8_t *packet)
{
    bool starts = packet[1] & 0x40, has_adaptation = packet[3] & 0x20;

    CHECK_EQ(packet[0], 0x47);
    if (!starts || ((packet[1] & 0x1f) << 8 | packet[2]) != VIDEO_PID)
        return;
    watch->pictures++;
    watch->key_pictures += has_adaptation && packet[4] > 0 && (packet[5] & 0x40);
}

TEST(a_live_camera_sends_thirty_pictures_a_second_and_can_be_joined_within_one)
{
    struct process camera = { 0 };
    struct watch watch = { 0 };
    struct pollfd poll_fd = { .events = POLLIN };
    uint8_t datagram[2048];
    char url[64];
    uint16_t port;
    uint64_t end_ns;

    poll_fd.fd = open_port(&port);
    snprintf(url, sizeof url, "udp://127.0.0.1:%u", port);
    process_start(&camera, "camera", PROCESS_ARGS("truthcam", "--seed", "3", "--live", url));
    CHECK(poll(&poll_fd, 1, 10000) == 1);
    end_ns = clock_mono_ns() + WATCH_MS * 1000000ull;
    while (clock_mono_ns() < end_ns) {
        ssize_t len;

        CHECK(poll(&poll_fd, 1, SILENCE_MS_MAX) == 1); /* pictures come as they are made, not in heaps */
        len = recv(poll_fd.fd, datagram, sizeof datagram, 0);
        CHECK(len > 0 && len % TS_PACKET == 0);
        for (ssize_t at = 0; at < len; at += TS_PACKET)
            look_at(&watch, datagram + at);
    }
    CHECK_EQ(process_stop(&camera, SIGTERM, 5000), 128 + SIGTERM);
    close(poll_fd.fd);
    CHECK(watch.pictures <= 30 * WATCH_MS / 1000 + 15); /* not faster than time, but for what was late */
    CHECK(watch.pictures >= 30);
    CHECK(watch.key_pictures >= 1 && watch.key_pictures <= 4);
}

TEST(a_reader_that_goes_away_ends_the_camera_with_a_reason)
{
    struct process camera = { 0 };

    CHECK_EQ(
        process_run(&camera, "camera",
                    PROCESS_ARGS("sh", "-c",
                                 "{ \"$0\"/truthcam --live -; echo ended $? >&2; } | head -c 1000 >/dev/null",
                                 REELKV_BIN_DIR),
                    10000),
        0);
    CHECK_HAS(process_log(&camera), "truthcam: write a packet: Broken pipe");
    CHECK_HAS(process_log(&camera), "ended 1");
}

TEST(what_makes_no_sense_is_refused_with_a_sentence)
{
    static const struct {
        const char *const argv[6];
        const char *sentence;
    } cases[] = {
        { { "truthcam" }, "nothing to do" },
        { { "truthcam", "--out", "a.mp4", "--live", "-" }, "give one of them" },
        { { "truthcam", "--profile", "lively", "--truth", "a.json" }, "demo, score or long, not 'lively'" },
        { { "truthcam", "--seconds", "5", "--truth", "a.json" }, "20 to 20000" },
    };

    for (uint32_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct process tool = { 0 };

        CHECK_EQ(process_run(&tool, "tool", cases[i].argv, 10000), 2);
        CHECK_HAS(process_log(&tool), cases[i].sentence);
    }
}

TEST_MAIN()
