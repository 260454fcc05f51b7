/* directory_reply.h - inside lib/redis: from hiredis replies to views. */
#ifndef REELKV_REDIS_DIRECTORY_REPLY_H
#define REELKV_REDIS_DIRECTORY_REPLY_H

#include <hiredis/hiredis.h>

#include "redis/directory_view.h"

/* Adds what an HGETALL of a workers hash or of the streams hash said. now_ms decides who is too old. UNAVAILABLE for
 * an error (Redis is loading, wants a password) or another shape; EXHAUSTED when memory is out. */
bool directory_reply_workers(const redisReply *reply, enum worker_kind kind, int64_t now_ms,
                             struct directory_view *view, struct status *st);
bool directory_reply_streams(const redisReply *reply, struct directory_view *view, struct status *st);

/* Once, after all replies: sorts, so that views can be searched. */
void directory_view_finish(struct directory_view *view);

#endif
