/* log.h - one line an event on stderr: time, level, service, event name, ids, words.
 *
 *   2026-11-21T03:12:07.123Z W kvstore segment_full stream dock-2 wanted 8388608 bytes
 *
 * The one who decides logs; a caller that merely passes an error on stays silent. Never per frame: count.
 *
 * Thread: any. A line is written by one write(2).
 * Bounds: a line is cut at LOG_LINE_BYTES. Passwords in URLs are the caller's to mask (url_mask()). */
#ifndef REELKV_BASE_LOG_H
#define REELKV_BASE_LOG_H

enum { LOG_LINE_BYTES = 1024 };

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* What is known about the work at hand; any field may be NULL. Borrowed during the call. */
struct log_context {
    const char *request;
    const char *stream;
};

/* Once, before threads start. `service` must outlive the process' logging. */
void log_init(const char *service, enum log_level max_level);

void log_event(enum log_level level, const struct log_context *context, const char *event, const char *format,
               ...) __attribute__((format(printf, 4, 5)));

#define log_error(context, event, ...) log_event(LOG_ERROR, context, event, __VA_ARGS__)
#define log_warn(context, event, ...)  log_event(LOG_WARN, context, event, __VA_ARGS__)
#define log_info(context, event, ...)  log_event(LOG_INFO, context, event, __VA_ARGS__)
#define log_debug(context, event, ...) log_event(LOG_DEBUG, context, event, __VA_ARGS__)

#endif
