/* Reading videos: every frame in order with its number and time, size changes, and one plain sentence for
 * each way a file can be bad. The frames show their numbers (support/video.h), so order is seen and not
 * believed. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "media/media_sampling.h"
#include "media/media_source.h"
#include "support/process.h"
#include "support/test.h"
#include "support/video.h"

static uint8_t rgb[1280 * 720 * 3 + MEDIA_RGB_SLACK_BYTES];

static struct media_source *open_file(const char *path)
{
    struct media_options options = { .url = path, .open_timeout_ms = 10000, .stall_timeout_ms = 10000 };
    struct media_source *source;
    struct status st = { 0 };

    CHECK_OK(media_source_open(&source, &options, &st), st);
    return source;
}

/* The sentence with which opening or reading to the first frame fails. */
static struct status refusal(const char *path)
{
    struct media_options options = { .url = path, .open_timeout_ms = 3000, .stall_timeout_ms = 3000 };
    struct media_source *source;
    struct media_frame frame;
    struct status st = { 0 };

    if (media_source_open(&source, &options, &st)) {
        CHECK_EQ(media_source_next(source, &frame, &st), MEDIA_FAILED);
        media_source_close(source);
    }
    return st;
}

static const char *path_of(const char *name)
{
    static char path[VIDEO_PATH_BYTES];

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static const char *write_file(const char *name, const void *data, size_t len)
{
    const char *path = path_of(name);
    struct status st = { 0 };

    CHECK_OK(file_write_durable(path, data, len, &st), st);
    return path;
}

/* Cuts a file to a part of its length. */
static void cut(const char *path, double part)
{
    struct stat info;

    CHECK(stat(path, &info) == 0);
    CHECK(truncate(path, (off_t)((double)info.st_size * part)) == 0);
}

/* Reads to the end; checks that numbers go up by one and times go up. Returns how many frames. */
static uint32_t read_all(struct media_source *source, uint32_t first)
{
    struct media_frame frame;
    struct status st = { 0 };
    int64_t last_ns = -1;
    uint32_t count = 0;
    enum media_outcome outcome;

    while ((outcome = media_source_next(source, &frame, &st)) == MEDIA_FRAME) {
        CHECK_EQ(frame.index, count);
        CHECK(frame.has_time && frame.media_ns > last_ns);
        last_ns = frame.media_ns;
        CHECK_OK(media_source_rgb(source, rgb, sizeof rgb, &st), st);
        CHECK_EQ(video_number(rgb, frame.width, frame.height), first + count);
        count++;
    }
    CHECK_OK(outcome == MEDIA_END, st);
    return count;
}

/* Reads to the end, whatever is missing between. */
static uint32_t count_all(struct media_source *source)
{
    struct media_frame frame;
    struct status st = { 0 };
    enum media_outcome outcome;
    uint32_t count = 0;

    while ((outcome = media_source_next(source, &frame, &st)) == MEDIA_FRAME)
        count++;
    CHECK_OK(outcome == MEDIA_END, st);
    return count;
}

/* The frames taken by the rule are the ones a count in Python would take, at three rates, with B-frames. */
TEST(every_frame_comes_in_order_and_the_rule_takes_the_published_ones)
{
    static const struct {
        const char *rate, *name;
        double sample_fps;
        uint32_t step;
        double frame_ms;
    } rows[] = {
        { "30", "a.mp4", 2, 15, 1000.0 / 30 },
        { "30000/1001", "b.mp4", 0.5, 60, 1001.0 / 30 },
        { "25", "c.mkv", 2, 12, 40 },
        { "25", "d.ts", 1, 25, 40 },
        { "24000/1001", "e.mp4", 1, 24, 1001.0 / 24 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct video_numbered video = { rows[i].name, rows[i].rate, 0, 130, 192, 64, "-bf 2" };
        const char *path = video_make_numbered(&video);
        struct media_source *source = open_file(path);
        struct media_frame frame;
        struct status st = { 0 };
        uint64_t step = media_sample_step(media_source_info(source)->average_fps, rows[i].sample_fps);
        uint32_t taken = 0;

        CHECK_EQ(step, rows[i].step);
        while (media_source_next(source, &frame, &st) == MEDIA_FRAME) {
            CHECK_NEAR((double)frame.media_ns / 1e6, (double)frame.index * rows[i].frame_ms, 1.01);
            if (frame.index % step != 0)
                continue;
            CHECK_OK(media_source_rgb(source, rgb, sizeof rgb, &st), st);
            CHECK_EQ(video_number(rgb, frame.width, frame.height), taken * rows[i].step);
            taken++;
        }
        CHECK_EQ(taken, (130 + rows[i].step - 1) / rows[i].step);
        CHECK_STR(media_source_trouble(source), "");
        CHECK_STR(media_source_info(source)->codec, "h264");
        media_source_close(source);
    }
}

/* One frame in three dropped and the rest stretched: times come from the file, as ffprobe says them too. */
TEST(variable_frame_rate_keeps_the_files_own_times)
{
    struct video_numbered video = {
        "vfr.mp4", "30", 0, 90, 192, 64, "-vf setpts='if(gt(N,40),PTS+2/TB,PTS)' -fps_mode vfr"
    };
    const char *path = video_make_numbered(&video);
    struct media_source *source = open_file(path);
    double times[100];
    uint32_t count = video_probe(path, times, 100);
    struct media_frame frame;
    struct status st = { 0 };

    CHECK_EQ(count, 90);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(media_source_next(source, &frame, &st), MEDIA_FRAME);
        CHECK_NEAR((double)frame.media_ns / 1e9, times[i] - times[0], 1e-6);
    }
    CHECK(times[89] > 4.5);
    CHECK_EQ(media_source_next(source, &frame, &st), MEDIA_END);
    media_source_close(source);
}

TEST(expected_frames_are_known_from_the_header_or_the_length)
{
    static const char *const names[] = { "a.mp4", "b.mkv", "c.ts" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct video_numbered video = { names[i], "25", 0, 75, 192, 64, "" };
        struct media_source *source = open_file(video_make_numbered(&video));

        CHECK_NEAR((double)media_source_info(source)->expected_frames, 75, i == 0 ? 0 : 1);
        CHECK_EQ(read_all(source, 0), 75);
        media_source_close(source);
    }
}

/* 2.ts of another size behind `part` of 1.ts: the counters jump, and the clock goes back. */
static struct media_source *open_joined(double part)
{
    struct video_numbered second = { "2.ts", "25", 30, 30, 322, 182, "" };
    struct file_text one, two;
    struct status st = { 0 };
    FILE *joined;

    CHECK_OK(file_read_all(path_of("1.ts"), 1 << 22, &one, &st), st);
    CHECK_OK(file_read_all(video_make_numbered(&second), 1 << 22, &two, &st), st);
    one.len = (size_t)((double)one.len * part);
    joined = fopen(path_of("joined.ts"), "wb");
    CHECK(joined != NULL && fwrite(one.data, 1, one.len, joined) == one.len);
    CHECK(fwrite(two.data, 1, two.len, joined) == two.len && fclose(joined) == 0);
    free(one.data);
    free(two.data);
    return open_file(path_of("joined.ts"));
}

/* The frames go on, and the joint is no damage. */
TEST(the_size_may_change_and_the_clock_jump_back_midway)
{
    struct video_numbered first = { "1.ts", "25", 0, 30, 192, 64, "" };
    struct media_source *source;
    struct media_frame frame;
    struct status st = { 0 };
    uint32_t count = 0;

    video_make_numbered(&first);
    source = open_joined(1);
    while (media_source_next(source, &frame, &st) == MEDIA_FRAME) {
        CHECK_OK(media_source_rgb(source, rgb, sizeof rgb, &st), st);
        CHECK_EQ(frame.width, count < 30 ? 192 : 322);
        CHECK_EQ(frame.height, count < 30 ? 64 : 182);
        CHECK_EQ(video_number(rgb, frame.width, frame.height), count);
        CHECK_NEAR((double)frame.media_ns / 1e6, count * 40.0, 1.01);
        count++;
    }
    CHECK_EQ(count, 60);
    CHECK_STR(media_source_trouble(source), "");
    media_source_close(source);
}

/* The first has large pictures and is cut within one, which the decoder completes by guessing. */
TEST(a_joint_behind_a_torn_picture_is_told)
{
    struct media_source *source;
    uint32_t frames;

    video_ffmpeg("-f lavfi -i testsrc=s=192x64:r=25 -frames:v 30 -c:v libx264 -preset ultrafast %/1.ts");
    source = open_joined(0.503);
    frames = count_all(source);
    CHECK(frames > 30 && frames < 60);
    CHECK_HAS(media_source_trouble(source), "is cut short or damaged");
    media_source_close(source);
}

/* Odd sizes under the address sanitizer: the converter stays within its slack. Twice the same bytes. */
TEST(conversion_stays_in_bounds_and_repeats_exactly)
{
    static const uint32_t sizes[][2] = { { 66, 34 }, { 130, 50 }, { 98, 98 }, { 1000, 562 } };

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct video_numbered video = { "odd.mp4", "25", 0, 3, sizes[i][0], sizes[i][1], "" };
        size_t bytes = media_rgb_bytes(sizes[i][0] - 1, sizes[i][1] - 1);
        uint8_t *once = malloc(bytes), *twice = malloc(bytes);
        struct media_source *source;
        struct media_frame frame;
        struct status st = { 0 };

        video_make_numbered(&video);
        video_ffmpeg("-i %/odd.mp4 -vf crop=iw-1:ih-1:exact=1,format=yuv444p -c:v libx264 %/odd2.mp4");
        source = open_file(path_of("odd2.mp4"));
        CHECK_EQ(media_source_next(source, &frame, &st), MEDIA_FRAME);
        CHECK_EQ(frame.width, sizes[i][0] - 1);
        CHECK(!media_source_rgb(source, once, bytes - 1, &st));
        CHECK_EQ(st.code, STATUS_OUT_OF_RANGE);
        CHECK_OK(media_source_rgb(source, once, bytes, &st), st);
        CHECK_OK(media_source_rgb(source, twice, bytes, &st), st);
        CHECK_MEM(once, twice, bytes - MEDIA_RGB_SLACK_BYTES);
        media_source_close(source);
        free(once);
        free(twice);
    }
}

/* Pure colours through full-range, BT.709 and plain BT.601 files come back as themselves. */
TEST(colours_follow_the_files_range_and_matrix)
{
    static const char *const ways[] = {
        "-pix_fmt yuvj420p -c:v mjpeg -q:v 2",
        "-vf scale=out_color_matrix=bt709 -colorspace bt709 -pix_fmt yuv420p -c:v libx264 -crf 8",
        "-vf scale=out_color_matrix=bt601 -pix_fmt yuv420p -c:v libx264 -crf 8",
    };

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        char arguments[400];
        struct media_source *source;
        struct media_frame frame;
        struct status st = { 0 };

        snprintf(arguments, sizeof arguments, "-f lavfi -i color=c=0xC81E32:s=64x64:r=25:d=0.2 %s %%/c.mkv",
                 ways[i]);
        video_ffmpeg(arguments);
        source = open_file(path_of("c.mkv"));
        CHECK_EQ(media_source_next(source, &frame, &st), MEDIA_FRAME);
        CHECK_OK(media_source_rgb(source, rgb, sizeof rgb, &st), st);
        CHECK_NEAR(rgb[0], 0xC8, 4);
        CHECK_NEAR(rgb[1], 0x1E, 4);
        CHECK_NEAR(rgb[2], 0x32, 4);
        media_source_close(source);
    }
}

/* Files without loss that hold RGB come back byte for byte. */
TEST(lossless_rgb_passes_unchanged)
{
    static const char *const ways[] = {
        "-c:v ffv1 -pix_fmt bgr0 %/l.mkv",
        "-c:v libx264rgb -qp 0 -pix_fmt rgb24 %/l.mkv",
        "-c:v ffv1 -pix_fmt gbrp %/l.mkv",
    };
    const size_t bytes = 101 * 67 * 3;
    uint8_t noise[101 * 67 * 3];
    uint32_t state = 1;

    for (size_t i = 0; i < sizeof noise; i++) {
        state = state * 1664525 + 1013904223;
        noise[i] = (uint8_t)(state >> 24);
    }
    write_file("l.rgb", noise, bytes);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        char arguments[400];
        struct media_source *source;
        struct media_frame frame;
        struct status st = { 0 };

        snprintf(arguments, sizeof arguments, "-f rawvideo -pix_fmt rgb24 -s 101x67 -r 2 -i %%/l.rgb %s",
                 ways[i]);
        video_ffmpeg(arguments);
        source = open_file(path_of("l.mkv"));
        CHECK_EQ(media_source_next(source, &frame, &st), MEDIA_FRAME);
        CHECK_OK(media_source_rgb(source, rgb, sizeof rgb, &st), st);
        CHECK_MEM(rgb, noise, bytes);
        media_source_close(source);
    }
}

TEST(a_cut_file_gives_what_it_has_and_says_so)
{
    static const char *const names[] = { "a.mp4", "b.mkv" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct video_numbered video = { names[i], "25", 0, 100, 192, 64, "-movflags +faststart" };
        const char *path;
        struct media_source *source;
        uint32_t frames;

        if (i == 1)
            video.more = "";
        path = video_make_numbered(&video);
        cut(path, 0.6);
        source = open_file(path);
        frames = read_all(source, 0);
        CHECK(frames > 20 && frames < 90);
        CHECK_HAS(media_source_trouble(source), "is cut short or damaged");
        CHECK_HAS(media_source_trouble(source), "frames could be read");
        media_source_close(source);
    }
}

/* A transport stream has no end mark: what is there is read. */
TEST(a_cut_transport_stream_is_a_shorter_one)
{
    struct video_numbered video = { "a.ts", "25", 0, 100, 192, 64, "" };
    const char *path = video_make_numbered(&video);
    struct media_source *source;
    uint32_t frames;

    cut(path, 0.503);
    source = open_file(path);
    frames = read_all(source, 0);
    CHECK(frames > 30 && frames < 70);
    media_source_close(source);
}

/* The decoder makes up what is missing, so the picture came as if whole. A picture takes four packets of 188 bytes here: of
 * eight cuts one after the other most tear one, and some lie between two. */
TEST(a_transport_stream_cut_within_its_last_picture_is_told)
{
    struct file_text whole;
    struct media_source *source;
    struct status st = { 0 };
    uint32_t told = 0;

    video_ffmpeg("-f lavfi -i testsrc=s=192x64:r=25 -frames:v 30 -c:v libx264 -preset ultrafast %/1.ts");
    CHECK_OK(file_read_all(path_of("1.ts"), 1 << 22, &whole, &st), st);
    source = open_file(path_of("1.ts"));
    CHECK_EQ(count_all(source), 30);
    CHECK_STR(media_source_trouble(source), "");
    media_source_close(source);
    for (size_t packet = 0; packet < 8; packet++) {
        source = open_file(write_file("2.ts", whole.data, (whole.len / 376 + packet) * 188));
        CHECK(count_all(source) < 30);
        told += strstr(media_source_trouble(source), "is cut short or damaged") != NULL;
        media_source_close(source);
    }
    CHECK(told >= 4 && told < 8);
    free(whole.data);
}

/* Its packets have no times: a torn picture anywhere in it was taken for the last one. One that is the last is still told. */
TEST(of_a_raw_stream_only_a_torn_end_is_told)
{
    struct media_source *source;
    struct file_text whole;
    struct status st = { 0 };
    uint32_t told = 0;

    video_ffmpeg("-f lavfi -i testsrc=s=192x64:r=25 -frames:v 30 -c:v libx264 -preset ultrafast %/1.h264");
    CHECK_OK(file_read_all(path_of("1.h264"), 1 << 22, &whole, &st), st);
    for (size_t i = 0; i < 8; i++) {
        char *at = whole.data + whole.len / 2 + i * 200, before = *at;

        *at ^= 0x5a;
        source = open_file(write_file("2.h264", whole.data, whole.len));
        CHECK(count_all(source) > 15);
        CHECK_STR(media_source_trouble(source), "");
        media_source_close(source);
        *at = before;
        source = open_file(write_file("3.h264", whole.data, whole.len / 2 + i * 200));
        CHECK(count_all(source) < 30);
        told += strstr(media_source_trouble(source), "is cut short or damaged") != NULL;
        media_source_close(source);
    }
    CHECK(told >= 4);
    free(whole.data);
}

TEST(bad_files_are_refused_in_plain_words)
{
    static const char text[] = "Dear camera,\nthis is not a video. It is a letter.\nYours\n";
    struct video_numbered video = { "moov.mp4", "25", 0, 50, 192, 64, "" };
    struct status st;
    uint8_t noise[60000];
    uint32_t state = 1;

    for (size_t i = 0; i < sizeof noise; i++) {
        state = state * 1664525 + 1013904223;
        noise[i] = (uint8_t)(state >> 24);
    }
    st = refusal("/nowhere/a.mp4");
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_STR(st.text, "open /nowhere/a.mp4: No such file or directory");
    st = refusal(test_folder());
    CHECK_HAS(st.text, "this is a folder, not a video");
    st = refusal("/dev/null");
    CHECK_HAS(st.text, "not a regular file");
    st = refusal(write_file("empty.mp4", "", 0));
    CHECK_HAS(st.text, "the file is empty");
    st = refusal(write_file("letter.txt", text, sizeof text - 1));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, "this is not a video");
    st = refusal(write_file("letter.mp4", text, sizeof text - 1));
    CHECK_HAS(st.text, "this is not a video");
    st = refusal(write_file("noise.mp4", noise, sizeof noise));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, "this is not a video");
    video_make_numbered(&video);
    cut(path_of("moov.mp4"), 0.5);
    st = refusal(path_of("moov.mp4"));
    CHECK_HAS(st.text, "cut short: its index (moov) is missing");
    video_ffmpeg("-f lavfi -i sine=d=1 -c:a aac %/sound.mp4");
    st = refusal(path_of("sound.mp4"));
    CHECK_HAS(st.text, "it has sound but no picture");
    video_ffmpeg("-f lavfi -i sine=d=1 %/sound.wav");
    st = refusal(path_of("sound.wav"));
    CHECK_HAS(st.text, "it has sound but no picture");
}

/* A file that declares a video stream and holds no frame, and one whose codec nobody knows. */
TEST(no_frames_and_unknown_codecs_are_refused)
{
    struct video_numbered video = { "codec.mp4", "25", 0, 10, 192, 64, "" };
    struct file_text text;
    struct status st;
    char *tag;

    video_ffmpeg("-f lavfi -i color=s=64x64:r=25:d=1 -frames:v 0 -c:v libx264 %/none.mkv");
    st = refusal(path_of("none.mkv"));
    CHECK_HAS(st.text, "ends before its first frame");
    CHECK_OK(file_read_all(video_make_numbered(&video), 1 << 22, &text, &st), st);
    tag = memmem(text.data, text.len, "avc1\0\0\0\0", 8);
    CHECK(tag != NULL);
    memcpy(tag, "zzzz", 4);
    st = refusal(write_file("codec.mp4", text.data, text.len));
    CHECK_EQ(st.code, STATUS_UNIMPLEMENTED);
    CHECK_HAS(st.text, "zzzz");
    CHECK_HAS(st.text, "cannot be decoded here");
    free(text.data);
}

/* A playlist on the disk may not make this process fetch something, nor read what only looks like a video. */
TEST(a_local_playlist_reaches_no_host_and_text_is_never_a_picture)
{
    static const char list[] = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"
                               "http://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n";
    static const char concat[] = "ffconcat version 1.0\nfile '/etc/passwd'\n";
    struct status st = refusal(write_file("list.m3u8", list, sizeof list - 1));

    CHECK(st.code != STATUS_OK);
    st = refusal(write_file("list.ffconcat", concat, sizeof concat - 1));
    CHECK_HAS(st.text, "this is not a video");
}

TEST(a_cut_in_the_middle_of_the_data_is_skipped_not_fatal)
{
    struct video_numbered video = { "hole.ts", "25", 0, 100, 192, 64, "" };
    const char *path = video_make_numbered(&video);
    struct media_source *source;
    struct stat info;
    uint8_t junk[3000];
    uint32_t frames;
    FILE *file;

    memset(junk, 0x5a, sizeof junk);
    CHECK(stat(path, &info) == 0);
    file = fopen(path, "r+b");
    CHECK(file != NULL && fseek(file, (long)info.st_size / 2, SEEK_SET) == 0);
    CHECK(fwrite(junk, 1, sizeof junk, file) == sizeof junk && fclose(file) == 0);
    source = open_file(path);
    frames = count_all(source);
    CHECK(frames >= 70 && frames <= 100);
    CHECK_HAS(media_source_trouble(source), "is cut short or damaged");
    media_source_close(source);
}

/* Bytes within an MP4 file: the pictures that were lost were missing without a word, the camera had come to its end. */
TEST(pictures_missing_from_the_middle_of_a_file_are_told)
{
    struct video_numbered video = { "bad.mp4", "2", 0, 80, 192, 64, "-movflags +faststart" };
    const char *path = video_make_numbered(&video);
    struct file_text whole;
    struct status st = { 0 };
    uint32_t lacking = 0;

    CHECK_OK(file_read_all(path, 1 << 22, &whole, &st), st);
    for (size_t i = 0; i < 4; i++) {
        struct media_source *source;
        char *at = whole.data + whole.len * (5 + i) / 10, before[400];

        memcpy(before, at, sizeof before);
        memset(at, 0x5a, sizeof before);
        source = open_file(write_file("hole.mp4", whole.data, whole.len));
        memcpy(at, before, sizeof before);
        if (count_all(source) < 80) {
            CHECK_HAS(media_source_trouble(source), "is cut short or damaged");
            CHECK_HAS(media_source_trouble(source), "of about 80 frames could be read");
            lacking++;
        }
        media_source_close(source);
    }
    CHECK(lacking > 0);
    free(whole.data);
}

/* It said "Input/output error". A label this long is no name, so that nobody's name server is asked. */
TEST(a_host_that_is_not_there_is_told)
{
    struct status st =
        refusal("rtsp://cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc/live");

    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "are the host's name and the network right?");
}

/* Its host's name was doubted, though it had answered. */
TEST(a_server_that_gives_no_parts_of_a_file_is_told)
{
    struct video_numbered video = { "behind.mp4", "25", 0, 120, 640, 360, "-c:v mjpeg -q:v 2" };
    struct process server;
    struct status st;
    char url[64];
    int port;

    process_start(&server, "http",
                  PROCESS_ARGS("/usr/bin/python3", REELKV_SOURCE_DIR "/tests/support/http_server.py",
                               video_make_numbered(&video), "whole"));
    CHECK(process_wait_text(&server, "\n", 20000));
    CHECK(sscanf(process_log(&server), "port %d", &port) == 1);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/a.mp4", port);
    st = refusal(url);
    CHECK_EQ(st.code, STATUS_UNAVAILABLE);
    CHECK_HAS(st.text, "gives no parts of a file (Range)");
    process_stop(&server, SIGTERM, 20000);
}

/* Names and passwords are in no sentence, whatever goes wrong and wherever in the address they stand. */
TEST(secrets_are_in_no_sentence)
{
    static const char *const urls[] = {
        "rtsp://admin:s3cret@127.0.0.1:9/live",
        "rtsp://admin:s3cret@no-such-host.invalid/live",
        "http://127.0.0.1:9/video?user=admin&password=s3cret",
        "nonsense://admin:s3cret@127.0.0.1/",
        "tcp://admin:s3cret@127.0.0.1:9",
    };

    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct status st = refusal(urls[i]);

        CHECK(st.code != STATUS_OK);
        CHECK(strstr(st.text, "s3cret") == NULL && strstr(st.text, "admin") == NULL);
        CHECK_HAS(st.text, "***");
    }
}

TEST_MAIN()
