#include "media/media_url.h"

#include <string.h>

#include "base/require.h"

static bool check_rest(const char *host, struct status *st)
{
    if (*host == '\0' || *host == '/')
        return status_fail(st, STATUS_INVALID, "the URL names no host");
    return host[strcspn(host, " \t\r\n")] == '\0' ||
           status_fail(st, STATUS_INVALID, "a URL has no spaces; write %%20 where one is meant");
}

bool media_url_check(const char *source, struct status *st)
{
#define BEGINNING(scheme) scheme "://",
    static const char *const beginnings[] = { MEDIA_URL_SCHEMES(BEGINNING) };
#undef BEGINNING
#define WORDS(scheme) scheme "://, "

    if (strstr(source, "://") == NULL)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(beginnings); i++)
        if (strncmp(source, beginnings[i], strlen(beginnings[i])) == 0)
            return check_rest(source + strlen(beginnings[i]), st);
    return status_fail(st, STATUS_UNIMPLEMENTED,
                       "this kind of URL cannot be read; a source is " MEDIA_URL_SCHEMES(
                           WORDS) "or the path of a file");
#undef WORDS
}
