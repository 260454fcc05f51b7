/* limits.h - the limits that more than one part of the system shares. What an operator tunes is an option. */
#ifndef REELKV_BASE_LIMITS_H
#define REELKV_BASE_LIMITS_H

#include <assert.h>
#include <stdint.h>

enum {
    LIMIT_NAME_BYTES = 63,            /* namespace, stream and worker names: [a-z0-9][a-z0-9._-]{0,62} */
    LIMIT_STREAMS = 4096,             /* streams one process holds */
    LIMIT_STREAMS_PER_QUESTION = 64,  /* cameras asked at once */
    LIMIT_LAYERS = 128,               /* decoder layers of a model */
    LIMIT_FRAME_TOKENS = 4096,        /* tokens of one block */
    LIMIT_TOP_BLOCKS = 4096,          /* blocks one layer may retrieve */
    LIMIT_TOP_R = 3072,               /* of these, by their scores, as an option says */
    LIMIT_RECENT_WINDOW = 1024,       /* and for being the newest */
    LIMIT_QUESTION_BYTES = 4096,      /* UTF-8 text of a question */
    LIMIT_ANSWER_TOKENS = 1024,       /* tokens of one answer */
    LIMIT_CREDITS = 64,               /* frames an encoder may have in flight per stream */
    LIMIT_THUMBNAIL_BYTES = 64 << 10, /* JPEG kept with a block */
    LIMIT_CALL_BYTES = 8 << 20,       /* memory a request may unpack into */
    LIMIT_MESSAGE_BYTES = 16 << 20,   /* one gRPC message, both ends */
    LIMIT_CHUNK_BYTES = 1 << 20,      /* payload of one message of a chunked transfer */
    LIMIT_SOCKET_PATH_BYTES = 107,    /* sun_path without its NUL */
    LIMIT_URL_BYTES = 2048,           /* source of a stream */
};

static_assert(LIMIT_CHUNK_BYTES * 2 <= LIMIT_MESSAGE_BYTES, "a chunk and its head must fit one message");
static_assert(LIMIT_TOP_R + LIMIT_RECENT_WINDOW <= LIMIT_TOP_BLOCKS, "a layer's blocks must fit one choice");
static_assert(LIMIT_THUMBNAIL_BYTES <= LIMIT_CHUNK_BYTES, "a thumbnail must fit one chunk");

#endif
