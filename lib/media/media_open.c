/* Opening a source: deadlines, what FFmpeg may touch, and plain sentences for what goes wrong. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/name.h"
#include "base/require.h"
#include "media/media_internal.h"
#include "media/media_url.h"

/* A file that claims a longer video does not know. */
#define EXPECTED_FRAMES_MAX 1e12

/* Containers that cameras and recorders write. Not on the list, on purpose: what names other files (concat,
 * image patterns), what takes any text for a picture (tty), devices. Sound formats are here so that a sound
 * file is refused as one. */
static const char formats[] =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,live_flv,asf,ogg,"
    "h264,hevc,m4v,mjpeg,mpjpeg,ivf,obu,av1,rtsp,rtp,sdp,hls,"
    "wav,mp3,aac,flac,ac3,eac3";

/* A list of segments may name only what is of its own kind: a remote one no local file, a local one no host.
 */
static const char protocols_local[] = "file,crypto";
#define AND_COMMA(scheme, live) scheme ","
static const char protocols_remote[] = MEDIA_URL_SCHEMES(AND_COMMA) "httpproxy,hls,crypto";
#undef AND_COMMA

/* FFmpeg's own messages hold URLs with their passwords, so none is printed. Two facts are taken from them,
 * which it says in no other way. One source at a time opens and reads on a thread. */
static _Thread_local bool index_is_missing, data_is_missing;

static void watch_messages(void *context, int level, const char *format, va_list args)
{
    if ((level & 0xff) > AV_LOG_ERROR)
        return;
    index_is_missing |= strstr(format, "moov atom not found") != NULL;
    data_is_missing |=
        strstr(format, "partial file") != NULL || strstr(format, "File ended prematurely") != NULL;
}

bool media_data_is_missing(void)
{
    return data_is_missing;
}

static void silence(void)
{
    av_log_set_callback(watch_messages);
}

void media_deadline_start(struct media_deadline *deadline, uint32_t timeout_ms)
{
    deadline->due_ns = clock_mono_ns() + (uint64_t)timeout_ms * 1000000;
    deadline->expired = false;
}

static int must_end(void *arg)
{
    struct media_deadline *deadline = arg;

    if (deadline->stop != NULL && *deadline->stop)
        return 1;
    if (clock_mono_ns() >= deadline->due_ns)
        deadline->expired = true;
    return deadline->expired;
}

static enum status_code code_of(int error)
{
    switch (error) {
    case AVERROR_HTTP_NOT_FOUND:
    case AVERROR_STREAM_NOT_FOUND:
        return STATUS_NOT_FOUND;
    case AVERROR_DECODER_NOT_FOUND:
    case AVERROR_DEMUXER_NOT_FOUND:
    case AVERROR_PATCHWELCOME:
        return STATUS_UNIMPLEMENTED;
    case AVERROR(ENOMEM):
        return STATUS_EXHAUSTED;
    default:
        return STATUS_UNAVAILABLE;
    }
}

/* A file is taken for an MP4 by its name alone; only one that begins like one can have lost its index. */
static bool begins_as_mp4(const struct media_source *source)
{
    static const char *const first_boxes[] = { "ftyp", "mdat", "wide", "free", "skip" };
    char head[8] = "";
    FILE *file = source->is_path ? fopen(source->url, "rbe") : NULL;
    bool known = false;

    if (file == NULL)
        return false;
    if (fread(head, 1, sizeof head, file) == sizeof head)
        for (size_t i = 0; i < ARRAY_LEN(first_boxes); i++)
            known |= memcmp(head + 4, first_boxes[i], 4) == 0;
    fclose(file);
    return known;
}

static const char *broken_words(const struct media_source *source)
{
    if (source->is_path)
        return "the disk cannot be read";
    if (source->io != NULL && (source->io->seekable & AVIO_SEEKABLE_NORMAL) == 0)
        return "the connection failed, or the video needs to be read out of order, as an MP4 whose index is at its "
               "end, and the server gives no parts of a file (Range)";
    return "the connection failed; are the host's name and the network right?";
}

bool media_fail(const struct media_source *source, const char *deed, int error, struct status *st)
{
    char words[AV_ERROR_MAX_STRING_SIZE];

    if (source->deadline.stop != NULL && *source->deadline.stop)
        return status_fail(st, STATUS_CANCELLED, "%s %s: stopped", deed, source->label);
    if (source->deadline.expired)
        return status_fail(st, STATUS_DEADLINE,
                           "%s %s: no picture came in time; is the camera on and its network up?", deed,
                           source->label);
    switch (error) {
    case AVERROR_HTTP_UNAUTHORIZED:
    case AVERROR_HTTP_FORBIDDEN:
        return status_fail(st, STATUS_DENIED,
                           "%s %s: the server wants a user and password, or refuses the ones given", deed,
                           source->label);
    case AVERROR_PROTOCOL_NOT_FOUND:
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "%s %s: the FFmpeg installed here cannot read this kind of URL", deed,
                           source->label);
    case AVERROR(EIO):
        return status_fail(st, STATUS_UNAVAILABLE, "%s %s: %s", deed, source->label, broken_words(source));
    case AVERROR_EOF:
        return status_fail(st, STATUS_INVALID, "%s %s: it ends before its first frame", deed, source->label);
    case AVERROR_INVALIDDATA:
    case AVERROR(EINVAL): /* a container that is not on the list */
        if (index_is_missing && begins_as_mp4(source))
            return status_fail(
                st, STATUS_INVALID,
                "%s %s: the file is cut short: its index (moov) is missing, and nothing can be read "
                "without it",
                deed, source->label);
        return status_fail(st, STATUS_INVALID, "%s %s: this is not a video (no container known here fits)",
                           deed, source->label);
    default:
        /* av_strerror() knows errno too; it never quotes the URL. */
        av_strerror(error, words, sizeof words);
        return status_fail(st, code_of(error), "%s %s: %s", deed, source->label, words);
    }
}

static bool check_path(const struct media_source *source, struct status *st)
{
    struct stat info;

    if (stat(source->url, &info) < 0)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", source->label);
    if (S_ISDIR(info.st_mode))
        return status_fail(st, STATUS_INVALID, "open %s: this is a folder, not a video", source->label);
    if (!S_ISREG(info.st_mode))
        return status_fail(st, STATUS_INVALID, "open %s: this is not a regular file", source->label);
    if (info.st_size == 0)
        return status_fail(st, STATUS_INVALID, "open %s: the file is empty", source->label);
    if (access(source->url, R_OK) < 0)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", source->label);
    return true;
}

static void fill_dictionary(const struct media_source *source, AVDictionary **options)
{
    av_dict_set(options, "protocol_whitelist", source->is_path ? protocols_local : protocols_remote, 0);
    av_dict_set(options, "format_whitelist", formats, 0);
    av_dict_set_int(options, "probesize", MEDIA_PROBE_BYTES, 0);
    av_dict_set_int(options, "formatprobesize", MEDIA_PROBE_BYTES / 4, 0);
    av_dict_set_int(options, "analyzeduration", source->live ? 2000000 : 5000000, 0);
    av_dict_set_int(options, "max_streams", 64, 0);
    if (strncmp(source->url, "rtsp", 4) == 0)
        av_dict_set(options, "rtsp_flags", "prefer_tcp", 0); /* over UDP lost packets tear pictures */
    if (strncmp(source->url, "udp:", 4) == 0)
        av_dict_set_int(options, "overrun_nonfatal", 1, 0);
}

/* Probing opens decoders of its own; they obey the same limits. */
static int probe_streams(AVFormatContext *format)
{
    unsigned count = format->nb_streams;
    AVDictionary *limits[64] = { NULL };
    int error;

    for (unsigned i = 0; i < count; i++) {
        av_dict_set_int(&limits[i], "max_pixels", (int64_t)MEDIA_SIDE_MAX * MEDIA_SIDE_MAX, 0);
        av_dict_set_int(&limits[i], "threads", 1, 0);
    }
    error = avformat_find_stream_info(format, limits);
    for (unsigned i = 0; i < count; i++)
        av_dict_free(&limits[i]);
    return error;
}

int media_true_error(const struct media_source *source, int error)
{
    return source->io != NULL && source->io->error < 0 ? source->io->error : error;
}

/* Of a file on a web server it is opened here: one that a demultiplexer opened is gone when that fails, and with it what
 * broke it. */
static int open_connection(struct media_source *source)
{
    AVDictionary *options = NULL;
    int error;

    av_dict_set(&options, "protocol_whitelist", protocols_remote, 0);
    error =
        avio_open2(&source->io, source->url, AVIO_FLAG_READ, &source->format->interrupt_callback, &options);
    av_dict_free(&options);
    source->format->pb = source->io;
    return error;
}

bool media_open_format(struct media_source *source, uint32_t timeout_ms, struct status *st)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    AVDictionary *options = NULL;
    char *address;
    int error = 0;

    pthread_once(&once, silence);
    index_is_missing = false;
    data_is_missing = false;
    if (source->is_path && !check_path(source, st))
        return false;
    source->format = avformat_alloc_context();
    /* "file:" keeps a path with a colon in it from being taken for a protocol. */
    address = av_asprintf("%s%s", source->is_path ? "file:" : "", source->url);
    if (source->format == NULL || address == NULL) {
        av_free(address);
        return status_fail(st, STATUS_EXHAUSTED, "open %s: no memory", source->label);
    }
    source->format->interrupt_callback = (AVIOInterruptCB){ must_end, &source->deadline };
    media_deadline_start(&source->deadline, timeout_ms);
    fill_dictionary(source, &options);
    if (media_is_remote_file(source) && strncmp(source->url, "http", 4) == 0)
        error = open_connection(source);
    if (error >= 0) /* frees the context on failure */
        error = avformat_open_input(&source->format, address, NULL, &options);
    av_dict_free(&options);
    av_free(address);
    if (error >= 0)
        error = probe_streams(source->format);
    if (error < 0)
        return media_fail(source, "open", media_true_error(source, error), st);
    return true;
}

/* The first video stream that is not the cover picture of a sound file. */
static int find_video(const AVFormatContext *format)
{
    for (unsigned i = 0; i < format->nb_streams; i++) {
        const AVStream *stream = format->streams[i];

        if (stream->codecpar->codec_type == AVMEDIA_TYPE_VIDEO &&
            (stream->disposition & AV_DISPOSITION_ATTACHED_PIC) == 0)
            return (int)i;
    }
    return -1;
}

static bool fail_without_video(const struct media_source *source, struct status *st)
{
    for (unsigned i = 0; i < source->format->nb_streams; i++)
        if (source->format->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_AUDIO)
            return status_fail(st, STATUS_INVALID, "open %s: it has sound but no picture", source->label);
    if (source->deadline.expired || media_true_error(source, 0) < 0)
        return media_fail(source, "open", media_true_error(source, AVERROR_EXIT), st);
    return status_fail(st, STATUS_INVALID, "open %s: there is no picture in it", source->label);
}

static void fill_info(struct media_source *source, const AVStream *stream)
{
    AVRational rate = stream->avg_frame_rate.num > 0 ? stream->avg_frame_rate : stream->r_frame_rate;
    struct media_info *info = &source->info;
    double frames;

    text_copy(info->codec, sizeof info->codec, avcodec_get_name(stream->codecpar->codec_id));
    info->width = stream->codecpar->width > 0 ? (uint32_t)stream->codecpar->width : 0;
    info->height = stream->codecpar->height > 0 ? (uint32_t)stream->codecpar->height : 0;
    info->average_fps = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
    if (source->live)
        return;
    frames = (double)source->format->duration / AV_TIME_BASE * info->average_fps + 0.5;
    if (stream->nb_frames > 0)
        info->expected_frames = (uint64_t)stream->nb_frames;
    else if (source->format->duration > 0 && frames < EXPECTED_FRAMES_MAX)
        info->expected_frames = (uint64_t)frames;
}

bool media_open_decoder(struct media_source *source, struct status *st)
{
    const AVCodec *decoder;
    AVStream *stream;
    int error;

    source->stream = find_video(source->format);
    if (source->stream < 0)
        return fail_without_video(source, st);
    for (unsigned i = 0; i < source->format->nb_streams; i++)
        if ((int)i != source->stream)
            source->format->streams[i]->discard = AVDISCARD_ALL;
    stream = source->format->streams[source->stream];
    fill_info(source, stream);
    decoder = avcodec_find_decoder(stream->codecpar->codec_id);
    if (decoder == NULL) {
        char tag[AV_FOURCC_MAX_STRING_SIZE];

        av_fourcc_make_string(tag, stream->codecpar->codec_tag);
        return status_fail(
            st, STATUS_UNIMPLEMENTED,
            "open %s: its pictures are coded as '%s' (%s), which cannot be decoded here; convert it, "
            "for example to H.264",
            source->label, source->info.codec, tag);
    }
    source->codec = avcodec_alloc_context3(decoder);
    if (source->codec == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "open %s: no memory", source->label);
    error = avcodec_parameters_to_context(source->codec, stream->codecpar);
    source->codec->pkt_timebase = stream->time_base;
    source->codec->thread_count = 1; /* one process a camera: cameras are what runs in parallel */
    source->codec->max_pixels = (int64_t)MEDIA_SIDE_MAX * MEDIA_SIDE_MAX;
    if (error >= 0)
        error = avcodec_open2(source->codec, decoder, NULL);
    if (error < 0)
        return media_fail(source, "open the decoder of", error, st);
    return true;
}
