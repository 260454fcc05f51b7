/* media_internal.h - inside lib/media: the parts of a source that its files share. */
#ifndef REELKV_MEDIA_MEDIA_INTERNAL_H
#define REELKV_MEDIA_MEDIA_INTERNAL_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/avstring.h>
#include <libswscale/swscale.h>

#include "media/media_source.h"

/* Every blocking call of FFmpeg asks this one, a few times a second, whether to go on. Its own timeouts are
 * not enough: a frozen RTSP server was noticed only after five of them in a row. */
struct media_deadline {
    const volatile sig_atomic_t *stop; /* may be NULL */
    uint64_t due_ns;                   /* monotonic */
    bool expired;
};

struct media_source {
    char *url;
    char label[MEDIA_LABEL_BYTES];
    char trouble[STATUS_TEXT_BYTES];
    bool live, is_path;
    uint32_t stall_timeout_ms;
    struct media_info info;
    struct media_deadline deadline;
    AVIOContext *io; /* of a file on a web server: its connection */
    AVFormatContext *format;
    AVCodecContext *codec;
    AVPacket *packet;
    AVPacket *ahead; /* of a remote file: the packet behind it */
    int ahead_error; /* what reading that one gave */
    AVFrame *frame;
    int stream; /* index of the video stream */
    uint64_t frames;
    bool draining;       /* the file's data has ended; the decoder still holds frames */
    bool cut_short;      /* data was missing where the file's own index says there is some */
    bool saw_bad_packet; /* one that the decoder made nothing of */
    /* Whether data is missing at a packet so marked shows a packet or two later: media_source.c. */
    uint32_t marked_packets;    /* since the newest mark, it included; 0: none is in doubt */
    bool is_joined;             /* a mark was the joint of two recordings */
    bool saw_torn_picture;      /* the decoder made up parts of one */
    int64_t torn_pts;           /* of the newest such, */
    uint64_t torn_frame;        /* and its number */
    int64_t last_dts, last_pts; /* of the newest packet, in the stream's time base */
    /* File time: media_ns = timestamp - zero_ns, as long as that goes forward. */
    int64_t zero_ns, last_ns;
    struct SwsContext *scaler;
    /* What the scaler was told about the colours; told again when a frame differs. */
    int scaler_space, scaler_range;
};

/* media_open.c: everything up to an opened decoder. */
bool media_open_format(struct media_source *source, uint32_t timeout_ms, struct status *st);
bool media_open_decoder(struct media_source *source, struct status *st);

/* Whether since media_open_format() a container said that data it announces is not there. */
bool media_data_is_missing(void);

static inline bool media_is_remote_file(const struct media_source *source)
{
    return !source->live && !source->is_path;
}

/* What broke a web server's connection, else `error`: what a demultiplexer makes of that is its own affair, mostly an
 * end, or no video. */
int media_true_error(const struct media_source *source, int error);

void media_deadline_start(struct media_deadline *deadline, uint32_t timeout_ms);

/* A sentence for an FFmpeg error while doing `deed` ("open", "read"); returns false. */
bool media_fail(const struct media_source *source, const char *deed, int error, struct status *st);

#endif
