#include "encode.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

enum { UDP_BYTES = 7 * 188 };

struct encoder {
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *stream;
    AVFrame *frame;
    AVPacket *packet;
    bool live;
    uint64_t started_ns;
    int64_t frames;
};

static bool fail_av(struct status *st, int code, const char *deed)
{
    char why[AV_ERROR_MAX_STRING_SIZE] = "";

    av_strerror(code, why, sizeof why);
    return status_fail(st, status_code_of_errno(AVUNERROR(code)), "%s: %s", deed, why);
}

static bool open_codec(struct encoder *encoder, struct status *st)
{
    const AVCodec *codec = avcodec_find_encoder_by_name("libx264");
    AVDictionary *options = NULL;
    int code;

    if (codec == NULL)
        return status_fail(st, STATUS_UNIMPLEMENTED, "this FFmpeg has no libx264");
    encoder->codec = avcodec_alloc_context3(codec);
    if (encoder->codec == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for an encoder");
    encoder->codec->width = VIDEO_WIDTH;
    encoder->codec->height = VIDEO_HEIGHT;
    encoder->codec->pix_fmt = AV_PIX_FMT_YUV420P;
    encoder->codec->time_base = (AVRational){ 1, VIDEO_FPS };
    encoder->codec->framerate = (AVRational){ VIDEO_FPS, 1 };
    encoder->codec->gop_size = encoder->live ? VIDEO_FPS : 2 * VIDEO_FPS; /* who joins live waits a second */
    encoder->codec->colorspace = AVCOL_SPC_SMPTE170M;
    encoder->codec->color_range = AVCOL_RANGE_MPEG;
    encoder->codec->thread_count = 1; /* the same bytes on every machine with this libx264 */
    if (encoder->format->oformat->flags & AVFMT_GLOBALHEADER)
        encoder->codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    av_dict_set(&options, "preset", "superfast", 0);
    av_dict_set(&options, "crf", "27", 0);
    if (encoder->live) {
        av_dict_set(&options, "tune", "zerolatency", 0);
        /* key frames on whole seconds only: counted from one, the samples are where the truth has them */
        av_dict_set(&options, "sc_threshold", "0", 0);
    }
    code = avcodec_open2(encoder->codec, codec, &options);
    av_dict_free(&options);
    return code >= 0 || fail_av(st, code, "open libx264");
}

static bool open_output(struct encoder *encoder, const char *target, struct status *st)
{
    const char *url = strcmp(target, "-") == 0 ? "pipe:1" : target;
    AVDictionary *options = NULL;
    int code;

    if (strncmp(url, "udp:", 4) == 0) /* whole MPEG-TS packets in every datagram, as receivers expect */
        av_dict_set_int(&options, "pkt_size", UDP_BYTES, 0);
    code = avio_open2(&encoder->format->pb, url, AVIO_FLAG_WRITE, NULL, &options);
    av_dict_free(&options);
    if (code < 0)
        return fail_av(st, code, target);
    encoder->stream = avformat_new_stream(encoder->format, NULL);
    if (encoder->stream == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a stream");
    encoder->stream->time_base = encoder->codec->time_base;
    encoder->stream->avg_frame_rate = encoder->codec->framerate;
    avcodec_parameters_from_context(encoder->stream->codecpar, encoder->codec);
    code = avformat_write_header(encoder->format, NULL);
    return code >= 0 || fail_av(st, code, target);
}

bool encoder_open(struct encoder **encoder_p, const char *target, bool live, struct status *st)
{
    struct encoder *encoder = calloc(1, sizeof *encoder);
    int code;

    if (encoder == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for an encoder");
    av_log_set_level(AV_LOG_ERROR);
    encoder->live = live;
    code =
        avformat_alloc_output_context2(&encoder->format, NULL, live ? "mpegts" : NULL, live ? NULL : target);
    if (code < 0) {
        status_fail(st, STATUS_INVALID, "%s: which container? end the name in .mp4 or .ts", target);
        goto fail;
    }
    encoder->frame = av_frame_alloc();
    encoder->packet = av_packet_alloc();
    if (encoder->frame == NULL || encoder->packet == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for a frame");
        goto fail;
    }
    if (!open_codec(encoder, st) || !open_output(encoder, target, st))
        goto fail;
    encoder->frame->format = AV_PIX_FMT_YUV420P;
    encoder->frame->width = VIDEO_WIDTH;
    encoder->frame->height = VIDEO_HEIGHT;
    encoder->started_ns = clock_mono_ns();
    *encoder_p = encoder;
    return true;
fail:
    encoder_close(encoder);
    return false;
}

bool encoder_picture(struct encoder *encoder, struct picture *picture, struct status *st)
{
    int code = encoder->frame->data[0] == NULL ? av_frame_get_buffer(encoder->frame, 0)
                                               : av_frame_make_writable(encoder->frame);

    if (code < 0)
        return fail_av(st, code, "get a frame");
    for (int i = 0; i < 3; i++) {
        picture->plane[i] = encoder->frame->data[i];
        picture->stride[i] = encoder->frame->linesize[i];
    }
    return true;
}

/* Hands a frame (NULL: the end) to the codec and writes the packets that come out. */
static bool push(struct encoder *encoder, AVFrame *frame, struct status *st)
{
    int code = avcodec_send_frame(encoder->codec, frame);

    if (code < 0)
        return fail_av(st, code, "encode a frame");
    while ((code = avcodec_receive_packet(encoder->codec, encoder->packet)) >= 0) {
        encoder->packet->stream_index = 0;
        encoder->packet->duration = 1;
        av_packet_rescale_ts(encoder->packet, encoder->codec->time_base, encoder->stream->time_base);
        code = av_interleaved_write_frame(encoder->format, encoder->packet);
        if (code < 0)
            return fail_av(st, code, "write a packet");
    }
    return code == AVERROR(EAGAIN) || code == AVERROR_EOF || fail_av(st, code, "encode a frame");
}

bool encoder_put(struct encoder *encoder, struct status *st)
{
    uint64_t due_ns = encoder->started_ns + (uint64_t)encoder->frames * 1000000000u / VIDEO_FPS;
    uint64_t now_ns = clock_mono_ns();

    if (encoder->live && now_ns < due_ns) {
        struct timespec wait = { (time_t)((due_ns - now_ns) / 1000000000),
                                 (long)((due_ns - now_ns) % 1000000000) };

        nanosleep(&wait, NULL);
    }
    encoder->frame->pts = encoder->frames++;
    return push(encoder, encoder->frame, st);
}

bool encoder_finish(struct encoder *encoder, struct status *st)
{
    int code;

    if (!push(encoder, NULL, st))
        return false;
    code = av_write_trailer(encoder->format);
    return code >= 0 || fail_av(st, code, "write the trailer");
}

void encoder_close(struct encoder *encoder)
{
    if (encoder == NULL)
        return;
    avcodec_free_context(&encoder->codec);
    av_frame_free(&encoder->frame);
    av_packet_free(&encoder->packet);
    if (encoder->format != NULL && encoder->format->pb != NULL)
        avio_closep(&encoder->format->pb);
    avformat_free_context(encoder->format);
    free(encoder);
}
