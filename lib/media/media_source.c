#include "media/media_source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>

#include "base/name.h"
#include "base/require.h"
#include "media/media_internal.h"
#include "media/media_url.h"

static const AVRational nanoseconds = { 1, 1000000000 };

/* Between the packet a demultiplexer marks and the one behind the jump: the parser holds a picture back. */
enum { MARKED_PACKETS_MAX = 2 };

bool media_source_open(struct media_source **source_p, const struct media_options *options, struct status *st)
{
    struct media_source *source = calloc(1, sizeof *source);

    if (source == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a source");
    source->url = strdup(options->url);
    source->packet = av_packet_alloc();
    source->ahead = av_packet_alloc();
    source->frame = av_frame_alloc();
    if (source->url == NULL || source->packet == NULL || source->ahead == NULL || source->frame == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for a source");
        goto failed;
    }
    source->live = options->live;
    media_url_lower_scheme(source->url);
    source->last_dts = AV_NOPTS_VALUE;
    source->is_path = strstr(source->url, "://") == NULL;
    source->stall_timeout_ms = options->stall_timeout_ms;
    source->deadline.stop = options->stop;
    url_mask(source->url, source->label, sizeof source->label);
    if (!media_open_format(source, options->open_timeout_ms, st) || !media_open_decoder(source, st))
        goto failed;
    *source_p = source;
    return true;
failed:
    media_source_close(source);
    return false;
}

void media_source_close(struct media_source *source)
{
    if (source == NULL)
        return;
    source->deadline.stop = NULL;
    media_deadline_start(&source->deadline, 1000);
    sws_freeContext(source->scaler);
    avcodec_free_context(&source->codec);
    avformat_close_input(&source->format);
    avio_closep(&source->io);
    av_packet_free(&source->packet);
    av_packet_free(&source->ahead);
    av_frame_free(&source->frame);
    free(source->url);
    free(source);
}

const struct media_info *media_source_info(const struct media_source *source)
{
    return &source->info;
}

const char *media_source_trouble(const struct media_source *source)
{
    return source->trouble;
}

/* A file may claim any time; this many years apart, sums of two still fit. */
static int64_t clamped(int64_t stamp_ns)
{
    const int64_t most_ns = INT64_MAX / 4;

    return stamp_ns > most_ns ? most_ns : stamp_ns < -most_ns ? -most_ns : stamp_ns;
}

static int64_t frame_distance_ns(const struct media_source *source)
{
    double fps = source->info.average_fps >= 0.001 ? source->info.average_fps : 25;

    return (int64_t)(1e9 / fps + 0.5);
}

/* The file's clock may jump back (recordings joined end to end): from there on one average frame distance
 * after the last frame is the new beginning. */
static int64_t file_time(struct media_source *source, int64_t stamp_ns, bool has_stamp)
{
    int64_t next_ns = source->last_ns + frame_distance_ns(source);

    if (source->frames == 0) {
        source->zero_ns = has_stamp ? stamp_ns : 0;
        source->last_ns = 0;
    } else if (!has_stamp) {
        source->last_ns = next_ns;
    } else if (stamp_ns - source->zero_ns <= source->last_ns) {
        source->zero_ns = stamp_ns - next_ns;
        source->last_ns = next_ns;
    } else {
        source->last_ns = clamped(stamp_ns - source->zero_ns);
    }
    return source->last_ns;
}

static bool fill_frame(struct media_source *source, struct media_frame *out, struct status *st)
{
    const AVFrame *frame = source->frame;
    const AVStream *stream = source->format->streams[source->stream];
    bool has_stamp = frame->best_effort_timestamp != AV_NOPTS_VALUE;
    int64_t stamp_ns =
        has_stamp ? clamped(av_rescale_q(frame->best_effort_timestamp, stream->time_base, nanoseconds)) : 0;

    if (frame->width < 1 || frame->height < 1 || frame->width > MEDIA_SIDE_MAX ||
        frame->height > MEDIA_SIDE_MAX)
        return status_fail(st, STATUS_OUT_OF_RANGE,
                           "decode %s: a picture of %d x %d; sides of 1 to %d pixels can be read",
                           source->label, frame->width, frame->height, MEDIA_SIDE_MAX);
    *out = (struct media_frame){
        .index = source->frames,
        .has_time = source->live ? has_stamp : true,
        .media_ns = source->live ? stamp_ns : file_time(source, stamp_ns, has_stamp),
        .width = (uint32_t)frame->width,
        .height = (uint32_t)frame->height,
    };
    if ((frame->decode_error_flags & ~FF_DECODE_ERROR_MISSING_REFERENCE) != 0) {
        source->saw_torn_picture = true;
        source->torn_pts = frame->pts;
        source->torn_frame = source->frames;
    }
    source->frames++;
    return true;
}

/* Whether nothing can be missing before this packet: a picture that stands alone, its time the next one, or
 * an earlier one as where another recording begins. */
static bool starts_anew(const struct media_source *source, const AVPacket *packet)
{
    const AVStream *stream = source->format->streams[source->stream];
    int64_t most = av_rescale_q(frame_distance_ns(source) * 3 / 2, nanoseconds, stream->time_base);

    return (packet->flags & AV_PKT_FLAG_KEY) != 0 && packet->dts != AV_NOPTS_VALUE &&
           source->last_dts != AV_NOPTS_VALUE &&
           (packet->dts <= source->last_dts ||
            (uint64_t)packet->dts - (uint64_t)source->last_dts <= (uint64_t)most);
}

/* A transport stream's packets are marked where its counters jump: data was lost there, or two recordings
 * were joined. A joint is no damage, as long as every picture around it could be decoded. */
static void look_for_loss(struct media_source *source, const AVPacket *packet)
{
    bool is_marked = (packet->flags & AV_PKT_FLAG_CORRUPT) != 0;

    if (source->live || !source->is_path || source->cut_short)
        return;
    if (source->marked_packets > 0 && starts_anew(source, packet)) {
        source->is_joined = true;
        source->marked_packets = 0;
    } else if (source->marked_packets > 0 && (is_marked || ++source->marked_packets > MARKED_PACKETS_MAX)) {
        source->cut_short = true;
    }
    if (is_marked)
        source->marked_packets = 1;
    source->last_dts = packet->dts;
}

/* The next packet of the video stream. */
static int read_packet(const struct media_source *source, AVPacket *packet)
{
    int error;

    do {
        av_packet_unref(packet);
        error = av_read_frame(source->format, packet);
    } while (error >= 0 && packet->stream_index != source->stream);
    return error < 0 ? media_true_error(source, error) : error;
}

/* Neither an end nor damage: the same data may be had at another time. */
static bool is_broken_off(const struct media_source *source, int error)
{
    return error == AVERROR(ENOMEM) || (media_is_remote_file(source) && error < 0 && error != AVERROR_EOF &&
                                        error != AVERROR_INVALIDDATA);
}

/* Into source->packet. Of a remote file one more is read ahead: where a connection breaks, the packet before the break is
 * a part of one, and comes whole when the file is read again. */
static int next_packet(struct media_source *source)
{
    if (!media_is_remote_file(source))
        return read_packet(source, source->packet);
    if (source->ahead_error == 0 && source->ahead->buf == NULL)
        source->ahead_error = read_packet(source, source->ahead);
    if (source->ahead_error < 0)
        return source->ahead_error;
    av_packet_unref(source->packet);
    av_packet_move_ref(source->packet, source->ahead);
    source->ahead_error = read_packet(source, source->ahead);
    return is_broken_off(source, source->ahead_error) ? source->ahead_error : 0;
}

/* Gives the decoder the next packet, or the end of the data. */
static bool feed(struct media_source *source, struct status *st)
{
    int error = next_packet(source);

    if (error < 0) {
        bool ended = !source->deadline.expired && (source->deadline.stop == NULL || !*source->deadline.stop);

        if (source->live && error == AVERROR_EOF)
            return status_fail(st, STATUS_UNAVAILABLE, "read %s: the camera's stream ended", source->label);
        if (source->live || !ended || is_broken_off(source, error))
            return media_fail(source, "read", error, st);
        source->cut_short |= error != AVERROR_EOF || media_data_is_missing() || source->marked_packets > 0;
        source->draining = true;
        avcodec_send_packet(source->codec, NULL);
        return true;
    }
    look_for_loss(source, source->packet);
    source->last_pts = source->packet->pts;
    /* A packet that makes no sense is the decoder's to skip; the picture goes on at the next one that does.
     */
    error = avcodec_send_packet(source->codec, source->packet);
    source->saw_bad_packet |= error == AVERROR_INVALIDDATA;
    av_packet_unref(source->packet);
    if (error == AVERROR(ENOMEM))
        return media_fail(source, "decode", error, st);
    return true;
}

/* Whether the newest torn picture is that of the last packet; in a raw stream, whose packets have no times, the one that
 * came last. */
static bool last_is_torn(const struct media_source *source)
{
    return source->torn_pts != AV_NOPTS_VALUE ? source->torn_pts == source->last_pts
                                              : source->torn_frame + 1 == source->frames;
}

/* A recording may begin within a picture, and its length be a guess: only an index that counts the pictures tells that
 * those which made no sense were some. */
static bool lacks_pictures(const struct media_source *source)
{
    int64_t counted = source->format->streams[source->stream]->nb_frames;

    return source->saw_bad_packet && counted > 0 && source->frames < (uint64_t)counted;
}

static enum media_outcome end_of_file(struct media_source *source, struct status *st)
{
    uint64_t expected = source->info.expected_frames;

    source->cut_short |= lacks_pictures(source);
    source->cut_short |= source->saw_torn_picture && (source->is_joined || last_is_torn(source));
    if (source->frames == 0) {
        status_fail(st, STATUS_INVALID,
                    "read %s: it has a video stream but not one frame that can be decoded", source->label);
        return MEDIA_FAILED;
    }
    if (source->cut_short && expected > source->frames)
        snprintf(source->trouble, sizeof source->trouble,
                 "%s is cut short or damaged: %" PRIu64 " of about %" PRIu64 " frames could be read",
                 source->label, source->frames, expected);
    else if (source->cut_short)
        snprintf(source->trouble, sizeof source->trouble,
                 "%s is cut short or damaged: %" PRIu64 " frames could be read", source->label,
                 source->frames);
    return MEDIA_END;
}

enum media_outcome media_source_next(struct media_source *source, struct media_frame *frame,
                                     struct status *st)
{
    media_deadline_start(&source->deadline, source->stall_timeout_ms);
    for (;;) {
        int error = avcodec_receive_frame(source->codec, source->frame);

        if (error == 0)
            return fill_frame(source, frame, st) ? MEDIA_FRAME : MEDIA_FAILED;
        if (error == AVERROR_EOF || (source->draining && error == AVERROR(EAGAIN)))
            return end_of_file(source, st);
        /* Any other error belongs to the picture just decoded; the next packet starts anew. */
        if (error == AVERROR(ENOMEM)) {
            media_fail(source, "decode", error, st);
            return MEDIA_FAILED;
        }
        source->saw_bad_packet |= error == AVERROR_INVALIDDATA;
        if (!source->draining && !feed(source, st))
            return MEDIA_FAILED;
    }
}

/* The "j" formats say full range by their name and are otherwise the plain ones; the scaler wants the plain
 * name. */
static enum AVPixelFormat plain_format(enum AVPixelFormat format, bool *full_range_p)
{
    static const struct {
        enum AVPixelFormat from, to;
    } names[] = {
        { AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUV420P }, { AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUV422P },
        { AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_YUV444P }, { AV_PIX_FMT_YUVJ440P, AV_PIX_FMT_YUV440P },
        { AV_PIX_FMT_YUVJ411P, AV_PIX_FMT_YUV411P },
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (names[i].from == format) {
            *full_range_p = true;
            return names[i].to;
        }
    }
    return format;
}

/* Conversion that gives the same bytes on every machine: no approximate vector code, full chroma. */
static bool prepare_scaler(struct media_source *source, struct status *st)
{
    const AVFrame *frame = source->frame;
    bool full = frame->color_range == AVCOL_RANGE_JPEG;
    enum AVPixelFormat format = plain_format((enum AVPixelFormat)frame->format, &full);
    int space = frame->colorspace == AVCOL_SPC_UNSPECIFIED || frame->colorspace == AVCOL_SPC_RGB
                    ? SWS_CS_DEFAULT
                    : (int)frame->colorspace;
    struct SwsContext *before = source->scaler;

    if (!sws_isSupportedInput(format))
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "decode %s: pictures in the format %s cannot be converted", source->label,
                           av_get_pix_fmt_name((enum AVPixelFormat)frame->format));
    source->scaler = sws_getCachedContext(before, frame->width, frame->height, format, frame->width,
                                          frame->height, AV_PIX_FMT_RGB24,
                                          SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT,
                                          NULL, NULL, NULL);
    if (source->scaler == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "decode %s: no memory to convert a picture of %d x %d",
                           source->label, frame->width, frame->height);
    if (source->scaler != before || space != source->scaler_space || full != source->scaler_range) {
        sws_setColorspaceDetails(source->scaler, sws_getCoefficients(space), full, sws_getCoefficients(space),
                                 1, 0, 1 << 16, 1 << 16);
        source->scaler_space = space;
        source->scaler_range = full;
    }
    return true;
}

bool media_source_rgb(struct media_source *source, uint8_t *out, size_t out_bytes, struct status *st)
{
    const AVFrame *frame = source->frame;
    uint8_t *planes[4] = { out, NULL, NULL, NULL };
    int strides[4] = { frame->width * 3, 0, 0, 0 };

    REQUIRE(source->frames > 0 && frame->width > 0);
    if (out_bytes < media_rgb_bytes((uint32_t)frame->width, (uint32_t)frame->height))
        return status_fail(st, STATUS_OUT_OF_RANGE,
                           "decode %s: a picture of %d x %d is larger than the %zu bytes set aside",
                           source->label, frame->width, frame->height, out_bytes);
    if (!prepare_scaler(source, st))
        return false;
    if (sws_scale(source->scaler, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height,
                  planes, strides) != frame->height)
        return status_fail(st, STATUS_INTERNAL, "decode %s: a picture of %d x %d could not be converted",
                           source->label, frame->width, frame->height);
    return true;
}
