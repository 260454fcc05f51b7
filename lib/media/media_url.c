#include "media/media_url.h"

#include <string.h>

#include "base/require.h"

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
            return true;
    return status_fail(st, STATUS_UNIMPLEMENTED,
                       "this kind of URL cannot be read; a source is " MEDIA_URL_SCHEMES(
                           WORDS) "or the path of a file");
#undef WORDS
}
