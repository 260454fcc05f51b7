/* What a truth camera wrote is read back as any player would, and says the same as the world it was painted
 * from: every frame is there, every object's color can be read in its place after H.264, and moves; the background has
 * texture and noise, and changes. */
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encode.h"
#include "support/process.h"
#include "support/test.h"

enum { SECONDS = 40, PATCH = 8, NO_COLOR = COLORS };

static struct world world;

static void write_video(const char *path)
{
    struct renderer *renderer;
    struct encoder *encoder;
    struct picture picture;
    struct status st = { 0 };

    CHECK_OK(renderer_create(&renderer, &world, &st), st);
    CHECK_OK(encoder_open(&encoder, path, false, &st), st);
    for (uint32_t frame = 0; frame < world.seconds * VIDEO_FPS; frame++) {
        CHECK_OK(encoder_picture(encoder, &picture, &st), st);
        render_frame(renderer, frame, &picture);
        CHECK_OK(encoder_put(encoder, &st), st);
    }
    CHECK_OK(encoder_finish(encoder, &st), st);
    encoder_close(encoder);
    renderer_destroy(renderer);
}

static int mean_of(const AVFrame *frame, int plane, int x, int y, int size)
{
    int sum = 0;

    for (int row = y - size / 2; row < y + size / 2; row++)
        for (int column = x - size / 2; column < x + size / 2; column++)
            sum += frame->data[plane][row * frame->linesize[plane] + column];
    return sum / (size * size);
}

/* The color that fills the middle of a place, or NO_COLOR. The reference values are BT.601 by hand from the
 * names' colors; the background is grey: no chroma, and never nearly white. */
static uint8_t color_in(const AVFrame *frame, uint8_t place)
{
    static const int centre[PLACES][2] = {
        { 150, 88 }, { 490, 88 }, { 150, 272 }, { 490, 272 }, { 320, 180 }
    };
    static const int yuv[COLORS][3] = { { 94, 102, 205 }, { 118, 100, 76 }, { 90, 197, 104 },
                                        { 189, 46, 150 }, { 99, 177, 165 }, { 227, 128, 128 } };
    int luma = mean_of(frame, 0, centre[place][0], centre[place][1], PATCH);
    int u = mean_of(frame, 1, centre[place][0] / 2, centre[place][1] / 2, PATCH / 2);
    int v = mean_of(frame, 2, centre[place][0] / 2, centre[place][1] / 2, PATCH / 2);

    for (uint8_t color = 0; color < COLORS; color++)
        if (abs(luma - yuv[color][0]) < 20 && abs(u - yuv[color][1]) < 10 && abs(v - yuv[color][2]) < 10)
            return color;
    return NO_COLOR;
}

static void check_sample(const AVFrame *frame, uint32_t sample)
{
    uint8_t want[PLACES] = { NO_COLOR, NO_COLOR, NO_COLOR, NO_COLOR, NO_COLOR };

    for (uint32_t i = 0; i < world.object_count; i++)
        if (world.objects[i].first <= sample && sample <= world.objects[i].last)
            want[world.objects[i].place] = world.objects[i].color;
    for (uint8_t place = 0; place < PLACES; place++)
        CHECK_EQ(color_in(frame, place), want[place]);
}

/* A video as a player sees it, picture after picture; `frame` is the newest. */
struct film {
    AVFormatContext *format;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    uint32_t frames;
    int64_t started; /* MPEG-TS begins where the codec's reordering lets it, MP4 at nought */
    bool is_read;
};

static void film_open(struct film *film, const char *path)
{
    *film = (struct film){ .codec = avcodec_alloc_context3(avcodec_find_decoder(AV_CODEC_ID_H264)),
                           .packet = av_packet_alloc(),
                           .frame = av_frame_alloc() };
    CHECK(avformat_open_input(&film->format, path, NULL, NULL) >= 0);
    CHECK(avformat_find_stream_info(film->format, NULL) >= 0);
    CHECK_EQ(film->format->nb_streams, 1);
    CHECK_EQ(av_cmp_q(film->format->streams[0]->avg_frame_rate, (AVRational){ VIDEO_FPS, 1 }), 0);
    CHECK(avcodec_parameters_to_context(film->codec, film->format->streams[0]->codecpar) >= 0);
    CHECK(avcodec_open2(film->codec, NULL, NULL) >= 0);
}

static void film_close(struct film *film)
{
    av_frame_free(&film->frame);
    av_packet_free(&film->packet);
    avcodec_free_context(&film->codec);
    avformat_close_input(&film->format);
}

/* False: that was the last. The times of the pictures go on, one thirtieth of a second each. */
static bool film_next(struct film *film)
{
    AVRational base = film->format->streams[0]->time_base, fps = { 1, VIDEO_FPS };

    while (avcodec_receive_frame(film->codec, film->frame) < 0) {
        if (film->is_read)
            return false;
        film->is_read = av_read_frame(film->format, film->packet) < 0;
        CHECK(avcodec_send_packet(film->codec, film->is_read ? NULL : film->packet) >= 0);
        av_packet_unref(film->packet);
    }
    CHECK_EQ(film->frame->width, VIDEO_WIDTH);
    CHECK_EQ(film->frame->height, VIDEO_HEIGHT);
    if (film->frames == 0)
        film->started = film->frame->pts;
    CHECK_EQ(av_rescale_q(film->frame->pts - film->started, base, fps), film->frames);
    film->frames++;
    return true;
}

/* Does a kind of object come again after it was gone? */
static bool has_repeat(void)
{
    for (uint32_t i = 0; i < world.object_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (world.objects[i].shape == world.objects[j].shape &&
                world.objects[i].color == world.objects[j].color &&
                world.objects[i].first > world.objects[j].last)
                return true;
    return false;
}

/* Both containers, and worlds enough for all six colors, each with an object that comes twice. */
TEST(every_sample_of_the_decoded_video_shows_what_the_truth_says)
{
    static const char *const names[] = { "a.mp4", "b.ts" };
    bool seen[COLORS] = { false };

    for (uint32_t i = 0; i < ARRAY_LEN(names); i++) {
        struct film film;
        char path[512];

        snprintf(path, sizeof path, "%s/%s", test_folder(), names[i]);
        world_make(&world, 6 + i, SECONDS, PROFILE_DEMO);
        for (uint32_t object = 0; object < world.object_count; object++)
            seen[world.objects[object].color] = true;
        CHECK(has_repeat());
        write_video(path);
        film_open(&film, path);
        while (film_next(&film))
            if ((film.frames - 1) % FRAMES_PER_SAMPLE == 0)
                check_sample(film.frame, (film.frames - 1) / FRAMES_PER_SAMPLE);
        CHECK_EQ(film.frames, SECONDS * VIDEO_FPS);
        film_close(&film);
    }
    for (uint32_t color = 0; color < COLORS; color++)
        CHECK(seen[color]);
}

/* A live camera is read past the end of its world: the pictures go on without a break, in time too, and show the same
 * world from its beginning, up to and with its first objects. */
TEST(an_endless_camera_shows_its_world_again_with_times_that_go_on)
{
    enum { ROUND_SECONDS = 20 };
    struct process camera = { 0 };
    struct film film;
    char path[400], command[900];
    uint32_t enough;

    world_make(&world, 3, ROUND_SECONDS, PROFILE_DEMO);
    CHECK(world.object_count > 0);
    enough = world.samples + world.objects[0].last + 1;
    snprintf(path, sizeof path, "%s/live.ts", test_folder());
    CHECK(mkfifo(path, 0600) == 0);
    snprintf(command, sizeof command, "exec \"$0\"/truthcam --seed 3 --seconds %d --live - >%s",
             ROUND_SECONDS, path);
    process_start(&camera, "camera", PROCESS_ARGS("sh", "-c", command, REELKV_BIN_DIR));
    film_open(&film, path);
    while (film.frames < enough * FRAMES_PER_SAMPLE) {
        CHECK(film_next(&film));
        if ((film.frames - 1) % FRAMES_PER_SAMPLE == 0)
            check_sample(film.frame, (film.frames - 1) / FRAMES_PER_SAMPLE % world.samples);
    }
    CHECK_EQ(process_stop(&camera, SIGTERM, 5000), 128 + SIGTERM); /* before its reader goes away */
    film_close(&film);
}

/* ---------------------------------------------------------------------------------------------- pictures */

static bool is_empty(uint32_t frame)
{
    for (uint32_t i = 0; i < world.object_count; i++) {
        uint32_t begin, end;

        object_frames(&world.objects[i], &begin, &end);
        if (frame >= begin && frame < end)
            return false;
    }
    return true;
}

/* Standard deviations over the picture: of the luma, and of what each pixel differs from its four neighbours' mean, which
 * the smooth background hardly has and noise has most. */
static void measure(const AVFrame *frame, double *texture_p, double *grain_p)
{
    const int stride = frame->linesize[0];
    double sum = 0, squares = 0, grain = 0, count = 0;

    for (int y = 1; y < VIDEO_HEIGHT - 1; y++)
        for (int x = 1; x < VIDEO_WIDTH - 1; x++) {
            const uint8_t *at = frame->data[0] + y * stride + x;
            double rest = *at - (at[-1] + at[1] + at[-stride] + at[stride]) / 4.0;

            sum += *at;
            squares += (double)*at * *at;
            grain += rest * rest;
            count++;
        }
    *texture_p = sqrt(squares / count - sum / count * (sum / count));
    *grain_p = sqrt(grain / count);
}

/* Mean change of the luma, in grey levels, since the picture `old` [height][width]. */
static double change_since(const AVFrame *frame, const uint8_t *old)
{
    uint64_t sum = 0;

    for (int y = 0; y < VIDEO_HEIGHT; y++)
        for (int x = 0; x < VIDEO_WIDTH; x++)
            sum += (uint64_t)abs(frame->data[0][y * frame->linesize[0] + x] - old[y * VIDEO_WIDTH + x]);
    return (double)sum / (VIDEO_WIDTH * VIDEO_HEIGHT);
}

/* Nobody is there: no pixel has a color, and none is nearly white. */
static void check_bare(const AVFrame *frame)
{
    for (int plane = 0; plane < 3; plane++)
        for (int y = 0; y < (plane == 0 ? VIDEO_HEIGHT : VIDEO_HEIGHT / 2); y++)
            for (int x = 0; x < (plane == 0 ? VIDEO_WIDTH : VIDEO_WIDTH / 2); x++) {
                uint8_t value = frame->data[plane][y * frame->linesize[plane] + x];

                CHECK(plane == 0 ? value < 200 : abs(value - 128) < 20);
            }
}

/* The background after H.264, at the samples where nobody is there: textured in each, grained as only noise makes it, and
 * after some seconds another one; where the truth has no object, the picture has none. */
TEST(empty_pictures_are_textured_noisy_changing_and_empty)
{
    static uint8_t first[VIDEO_HEIGHT * VIDEO_WIDTH];
    struct film film;
    uint32_t empty = 0;
    double noisiest = 0, change = 0;
    char path[512];

    snprintf(path, sizeof path, "%s/a.mp4", test_folder());
    world_make(&world, 6, SECONDS, PROFILE_DEMO);
    write_video(path);
    film_open(&film, path);
    while (film_next(&film)) {
        double texture, grain;

        if ((film.frames - 1) % FRAMES_PER_SAMPLE != 0 || !is_empty(film.frames - 1))
            continue;
        check_bare(film.frame);
        measure(film.frame, &texture, &grain);
        CHECK(texture > 10); /* grey levels */
        noisiest = fmax(noisiest, grain);
        for (int y = 0; empty == 0 && y < VIDEO_HEIGHT; y++)
            memcpy(first + y * VIDEO_WIDTH, film.frame->data[0] + y * film.frame->linesize[0], VIDEO_WIDTH);
        change = change_since(film.frame, first);
        empty++;
    }
    CHECK(empty > world.samples / 2);
    CHECK(noisiest > 0.5); /* without grain it is 0.44 */
    CHECK(change > 8);
    film_close(&film);
}

struct track {
    double left, right, top, bottom; /* of the centre */
};

/* The centre of what is colored in the place, in pixels. */
static void follow(struct track *track, const AVFrame *frame, uint8_t place)
{
    static const int centre[PLACES][2] = {
        { 150, 88 }, { 490, 88 }, { 150, 272 }, { 490, 272 }, { 320, 180 }
    };
    double sum_x = 0, sum_y = 0, count = 0;

    for (int y = centre[place][1] / 2 - 44; y < centre[place][1] / 2 + 44; y++)
        for (int x = centre[place][0] / 2 - 42; x < centre[place][0] / 2 + 42; x++) {
            int u = frame->data[1][y * frame->linesize[1] + x] - 128;
            int v = frame->data[2][y * frame->linesize[2] + x] - 128;

            if (u * u + v * v < 900)
                continue;
            sum_x += 2 * x;
            sum_y += 2 * y;
            count++;
        }
    CHECK(count > 500);
    track->left = fmin(track->left, sum_x / count);
    track->right = fmax(track->right, sum_x / count);
    track->top = fmin(track->top, sum_y / count);
    track->bottom = fmax(track->bottom, sum_y / count);
}

/* Every object that stays for a second or more moves while it is there: its centre goes by some pixels. */
TEST(objects_move_while_they_stay)
{
    static struct track tracks[OBJECTS_MAX];
    struct film film;
    uint32_t moved = 0;
    char path[512];

    snprintf(path, sizeof path, "%s/a.mp4", test_folder());
    world_make(&world, 6, SECONDS, PROFILE_DEMO);
    write_video(path);
    for (uint32_t i = 0; i < world.object_count; i++)
        tracks[i] = (struct track){ VIDEO_WIDTH, 0, VIDEO_HEIGHT, 0 };
    film_open(&film, path);
    while (film_next(&film))
        for (uint32_t i = 0; i < world.object_count; i++) {
            const struct object *object = &world.objects[i];
            uint32_t frame = film.frames - 1;

            if (strcmp(color_names[object->color], "white") != 0 &&
                frame >= object->first * FRAMES_PER_SAMPLE && frame <= object->last * FRAMES_PER_SAMPLE)
                follow(&tracks[i], film.frame, object->place);
        }
    film_close(&film);
    for (uint32_t i = 0; i < world.object_count; i++) {
        if (tracks[i].right < tracks[i].left || world.objects[i].last - world.objects[i].first < 2)
            continue;
        CHECK(hypot(tracks[i].right - tracks[i].left, tracks[i].bottom - tracks[i].top) > 8);
        moved++;
    }
    CHECK(moved >= 3);
}

static bool is_kind(const char *name, mode_t kind)
{
    char path[512];
    struct stat info;

    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return lstat(path, &info) == 0 && (info.st_mode & S_IFMT) == kind &&
           (kind != S_IFREG || info.st_size > 0);
}

/* The truth was written beside and put in the place of whatever was there: of /dev/null, too. */
TEST(a_truth_goes_through_a_pipe_or_a_link_and_leaves_it)
{
    static const char script[] = "cd $1 && mkfifo pipe && ln -s real link && { cat pipe >got & } && "
                                 "$2 --truth pipe && $2 --truth link && wait && cmp got real";
    struct process process;

    CHECK_EQ(process_run(&process, "through",
                         PROCESS_ARGS("sh", "-c", script, "sh", test_folder(), REELKV_BIN_DIR "/truthcam"),
                         60000),
             0);
    CHECK(is_kind("pipe", S_IFIFO));
    CHECK(is_kind("link", S_IFLNK));
    CHECK(is_kind("real", S_IFREG));
}

/* Ctrl-C left a file of 48 bytes that no player takes. */
TEST(a_video_that_is_interrupted_is_removed)
{
    struct process process;
    char path[512];

    snprintf(path, sizeof path, "%s/long.mp4", test_folder());
    process_start(&process, "long",
                  PROCESS_ARGS(REELKV_BIN_DIR "/truthcam", "--seconds", "3600", "--profile", "long", "--out",
                               path));
    for (int i = 0; i < 3000 && access(path, F_OK) != 0; i++)
        test_pause_ms(10);
    CHECK(access(path, F_OK) == 0);
    CHECK_EQ(process_stop(&process, SIGINT, 60000), 130);
    CHECK_HAS(process_log(&process), "interrupted");
    CHECK(access(path, F_OK) != 0);
}

TEST(words_that_cannot_be_printed_are_a_failure)
{
    struct process process;

    for (size_t i = 0; i < 2; i++) {
        CHECK_EQ(process_run(&process, "printing",
                             PROCESS_ARGS("sh", "-c", "$1 $2 >/dev/full", "sh", REELKV_BIN_DIR "/truthcam",
                                          i == 0 ? "--help" : "--vocabulary"),
                             60000),
                 i == 0 ? 2 : 1);
        CHECK_HAS(process_log(&process), "could be written");
    }
}

TEST(a_target_that_cannot_be_written_is_refused_with_a_reason)
{
    struct encoder *encoder = NULL;
    struct status st = { 0 };
    char path[512];

    snprintf(path, sizeof path, "%s/a.shoe", test_folder());
    CHECK(!encoder_open(&encoder, path, false, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, ".mp4");
    snprintf(path, sizeof path, "%s/none/a.mp4", test_folder());
    CHECK(!encoder_open(&encoder, path, false, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "none/a.mp4");
    CHECK(encoder == NULL);
}

TEST_MAIN()
