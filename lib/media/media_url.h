/* media_url.h - which addresses can be read, for whoever takes one from a person: a source that cannot be read is
 * refused before it is kept. Needs nothing of FFmpeg. Thread: any. */
#ifndef REELKV_MEDIA_MEDIA_URL_H
#define REELKV_MEDIA_MEDIA_URL_H

#include <stdbool.h>

#include "base/status.h"

/* How a URL may begin, and whether what it names goes on for ever. */
#define MEDIA_URL_SCHEMES(SCHEME) \
    SCHEME("rtsp", true)          \
    SCHEME("rtsps", true)         \
    SCHEME("rtmp", true)          \
    SCHEME("rtmps", true)         \
    SCHEME("http", false)         \
    SCHEME("https", false)        \
    SCHEME("udp", true)           \
    SCHEME("tcp", true)           \
    SCHEME("tls", true)           \
    SCHEME("rtp", true)           \
    SCHEME("srt", true)

/* A path is fine. INVALID for a URL of another kind, with the list, for one without a host, with a port that is none, or
 * with spaces; no sentence holds anything of the URL. "RTSP://" is as good as "rtsp://". */
bool media_url_check(const char *source, struct status *st);

/* In place: "RTSP://Host" to "rtsp://Host", the form that FFmpeg knows; a path stays as it is. */
void media_url_lower_scheme(char *source);

/* Whether a source is taken for a live one unless a person says: by its scheme, or because it is a playlist (.m3u8) of
 * another host. */
bool media_url_is_live(const char *source);

#endif
