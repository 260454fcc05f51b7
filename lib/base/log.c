#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *log_service = "reelkv";
static enum log_level log_max = LOG_INFO;

void log_init(const char *service, enum log_level max_level)
{
    log_service = service;
    log_max = max_level;
}

static size_t put(char *line, size_t used, const char *format, ...) __attribute__((format(printf, 3, 4)));

static size_t put(char *line, size_t used, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line + used, LOG_LINE_BYTES - used, format, args);
    va_end(args);
    if (n < 0)
        return used;
    return (size_t)n < LOG_LINE_BYTES - used ? used + (size_t)n : LOG_LINE_BYTES - 1;
}

static size_t put_head(char *line, enum log_level level, const struct log_context *context, const char *event)
{
    struct timespec now;
    struct tm utc;
    size_t used;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    used = strftime(line, LOG_LINE_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    used = put(line, used, ".%03ldZ %c %s %s", now.tv_nsec / 1000000, "EWID"[level], log_service, event);
    if (context != NULL && context->request != NULL)
        used = put(line, used, " req %s", context->request);
    if (context != NULL && context->stream != NULL)
        used = put(line, used, " stream %s", context->stream);
    return put(line, used, " ");
}

void log_event(enum log_level level, const struct log_context *context, const char *event, const char *format,
               ...)
{
    int saved_errno = errno; /* %m in the format must mean the caller's error */
    char line[LOG_LINE_BYTES + 1];
    size_t used;
    va_list args;
    int n;

    if (level > log_max)
        return;
    used = put_head(line, level, context, event);
    errno = saved_errno;
    va_start(args, format);
    n = vsnprintf(line + used, LOG_LINE_BYTES - used, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n < LOG_LINE_BYTES - used ? (size_t)n : LOG_LINE_BYTES - used - 1;
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = ' '; /* a line is one line, whatever a peer put into a name */
    line[used++] = '\n';
    while (write(STDERR_FILENO, line, used) < 0 && errno == EINTR)
        ;
    errno = saved_errno;
}
