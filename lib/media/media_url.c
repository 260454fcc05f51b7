#include "media/media_url.h"

#include <string.h>

#include "base/require.h"

struct scheme {
    const char *beginning;
    bool is_live;
};

/* NULL: of no known kind, or a path. */
static const struct scheme *find_scheme(const char *source)
{
#define ROW(scheme, live) { scheme "://", live },
    static const struct scheme schemes[] = { MEDIA_URL_SCHEMES(ROW) };
#undef ROW

    for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
        if (strncmp(source, schemes[i].beginning, strlen(schemes[i].beginning)) == 0)
            return &schemes[i];
    return NULL;
}

static bool check_rest(const char *host, struct status *st)
{
    if (*host == '\0' || *host == '/')
        return status_fail(st, STATUS_INVALID, "the URL names no host");
    return host[strcspn(host, " \t\r\n")] == '\0' ||
           status_fail(st, STATUS_INVALID, "a URL has no spaces; write %%20 where one is meant");
}

bool media_url_check(const char *source, struct status *st)
{
    const struct scheme *scheme = find_scheme(source);

    if (strstr(source, "://") == NULL)
        return true;
    if (scheme != NULL)
        return check_rest(source + strlen(scheme->beginning), st);
#define WORDS(scheme, live) scheme "://, "
    return status_fail(st, STATUS_INVALID,
                       "this kind of URL cannot be read; a source is " MEDIA_URL_SCHEMES(
                           WORDS) "or the path of a file");
#undef WORDS
}

bool media_url_is_live(const char *source)
{
    const struct scheme *scheme = find_scheme(source);
    const char *list = strstr(source, ".m3u8");

    return scheme != NULL && (scheme->is_live || (list != NULL && (list[5] == '\0' || list[5] == '?')));
}
