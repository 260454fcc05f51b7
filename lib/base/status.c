#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool status_fail(struct status *st, enum status_code code, const char *format, ...)
{
    va_list args;

    if (st == NULL)
        return false;
    st->code = code;
    st->retry_after_ms = 0;
    va_start(args, format);
    vsnprintf(st->text, sizeof st->text, format, args);
    va_end(args);
    return false;
}

bool status_wrap(struct status *st, const char *format, ...)
{
    char inner[STATUS_TEXT_BYTES];
    va_list args;
    size_t used;

    if (st == NULL)
        return false;
    memcpy(inner, st->text, sizeof inner);
    va_start(args, format);
    vsnprintf(st->text, sizeof st->text, format, args);
    va_end(args);
    used = strlen(st->text);
    snprintf(st->text + used, sizeof st->text - used, ": %s", inner);
    return false;
}

enum status_code status_code_of_errno(int error)
{
    switch (error) {
    case 0:
        return STATUS_OK;
    case ENOENT:
    case ENOTDIR:
        return STATUS_NOT_FOUND;
    case EEXIST:
        return STATUS_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return STATUS_DENIED;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return STATUS_EXHAUSTED;
    case EINVAL:
    case ENAMETOOLONG:
        return STATUS_INVALID;
    case EIO:
        return STATUS_DATA_LOSS;
    case ETIMEDOUT:
        return STATUS_DEADLINE;
    case ECANCELED:
        return STATUS_CANCELLED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EADDRINUSE:
        return STATUS_UNAVAILABLE;
    default:
        return STATUS_UNKNOWN;
    }
}

static const struct {
    const char *words;
    bool retry;
} codes[] = {
#define STATUS_ROW(name, words, grpc, retry) [grpc] = { words, retry },
    STATUS_TABLE(STATUS_ROW)
#undef STATUS_ROW
};

static bool code_is_known(enum status_code code)
{
    return (unsigned)code < sizeof codes / sizeof codes[0];
}

const char *status_code_words(enum status_code code)
{
    return codes[code_is_known(code) ? code : STATUS_UNKNOWN].words;
}

bool status_code_is_retryable(enum status_code code)
{
    return code_is_known(code) && codes[code].retry;
}
