/* media_url.h - which addresses can be read, for whoever takes one from a person: a source that cannot be read is
 * refused before it is kept. Needs nothing of FFmpeg. Thread: any. */
#ifndef REELKV_MEDIA_MEDIA_URL_H
#define REELKV_MEDIA_MEDIA_URL_H

#include <stdbool.h>

#include "base/status.h"

/* How a URL may begin. */
#define MEDIA_URL_SCHEMES(SCHEME) \
    SCHEME("rtsp")                \
    SCHEME("rtsps")               \
    SCHEME("rtmp")                \
    SCHEME("rtmps")               \
    SCHEME("http")                \
    SCHEME("https")               \
    SCHEME("udp")                 \
    SCHEME("tcp")                 \
    SCHEME("tls")                 \
    SCHEME("rtp")                 \
    SCHEME("srt")

/* A path is fine. UNIMPLEMENTED with the list for a URL of another kind, INVALID for one without a host or with spaces; no
 * sentence holds anything of the URL. */
bool media_url_check(const char *source, struct status *st);

#endif
