/* What a truth camera wrote is read back as any player would, and says the same as the world it was painted
 * from: every frame is there, and every object's color can be read in its place after H.264. */
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <stdlib.h>

#include "encode.h"
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

static uint32_t read_video(AVFormatContext *format, AVCodecContext *codec)
{
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    AVRational base = format->streams[0]->time_base, fps = { 1, VIDEO_FPS };
    int64_t started = 0; /* MPEG-TS begins where the codec's reordering lets it, MP4 at nought */
    uint32_t frames = 0;
    bool more = true;

    while (more) {
        more = av_read_frame(format, packet) >= 0;
        CHECK(avcodec_send_packet(codec, more ? packet : NULL) >= 0);
        av_packet_unref(packet);
        for (; avcodec_receive_frame(codec, frame) >= 0; frames++) {
            CHECK_EQ(frame->width, VIDEO_WIDTH);
            CHECK_EQ(frame->height, VIDEO_HEIGHT);
            if (frames == 0)
                started = frame->pts;
            CHECK_EQ(av_rescale_q(frame->pts - started, base, fps), frames);
            if (frames % FRAMES_PER_SAMPLE == 0)
                check_sample(frame, frames / FRAMES_PER_SAMPLE);
        }
    }
    av_frame_free(&frame);
    av_packet_free(&packet);
    return frames;
}

/* Both containers, and worlds enough for all six colors. */
TEST(every_sample_of_the_decoded_video_shows_what_the_truth_says)
{
    static const char *const names[] = { "a.mp4", "b.ts" };
    bool seen[COLORS] = { false };

    for (uint32_t i = 0; i < ARRAY_LEN(names); i++) {
        AVFormatContext *format = NULL;
        AVCodecContext *codec = avcodec_alloc_context3(avcodec_find_decoder(AV_CODEC_ID_H264));
        char path[512];

        snprintf(path, sizeof path, "%s/%s", test_folder(), names[i]);
        world_make(&world, 6 + i, SECONDS, PROFILE_DEMO);
        for (uint32_t object = 0; object < world.object_count; object++)
            seen[world.objects[object].color] = true;
        write_video(path);
        CHECK(avformat_open_input(&format, path, NULL, NULL) >= 0);
        CHECK(avformat_find_stream_info(format, NULL) >= 0);
        CHECK_EQ(format->nb_streams, 1);
        CHECK_EQ(av_cmp_q(format->streams[0]->avg_frame_rate, (AVRational){ VIDEO_FPS, 1 }), 0);
        CHECK(avcodec_parameters_to_context(codec, format->streams[0]->codecpar) >= 0);
        CHECK(avcodec_open2(codec, NULL, NULL) >= 0);
        CHECK_EQ(read_video(format, codec), SECONDS * VIDEO_FPS);
        avcodec_free_context(&codec);
        avformat_close_input(&format);
    }
    for (uint32_t color = 0; color < COLORS; color++)
        CHECK(seen[color]);
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
