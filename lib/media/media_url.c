#include "media/media_url.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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
        if (strncasecmp(source, schemes[i].beginning, strlen(schemes[i].beginning)) == 0)
            return &schemes[i];
    return NULL;
}

/* The others can also wait for whoever sends: udp://:5000. */
static bool needs_host(const struct scheme *scheme)
{
    static const char *const kinds[] = { "rtsp", "rtmp", "http" };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strncmp(scheme->beginning, kinds[i], 4) == 0)
            return true;
    return false;
}

/* What follows the host: "" or ":554". */
static bool check_port(const char *text, size_t len, bool has_more_at, struct status *st)
{
    size_t digits = len > 0 ? strspn(text + 1, "0123456789") : 0;
    unsigned long port = len > 0 ? strtoul(text + 1, NULL, 10) : 1;

    if (len == 0 ||
        (*text == ':' && digits > 0 && digits == len - 1 && digits <= 5 && port >= 1 && port <= 65535))
        return true;
    if (has_more_at)
        return status_fail(st, STATUS_INVALID,
                           "in a URL's user and password / is written %%2F, ? %%3F, # %%23 and @ %%40");
    return status_fail(
        st, STATUS_INVALID,
        "the URL's port must be a number from 1 to 65535; an IPv6 address stands in brackets, as in http://[::1]/x");
}

static bool check_rest(const struct scheme *scheme, const char *rest, struct status *st)
{
    size_t len = strcspn(rest, "/?#");
    const char *end = rest + len, *at = memrchr(rest, '@', len), *host = at != NULL ? at + 1 : rest,
               *host_end;

    if (rest[0] == '\0' || (host == end && needs_host(scheme)))
        return status_fail(st, STATUS_INVALID, "the URL names no host");
    if (rest[strcspn(rest, " \t\r\n")] != '\0')
        return status_fail(st, STATUS_INVALID, "a URL has no spaces; write %%20 where one is meant");
    host_end = memchr(host, *host == '[' ? ']' : ':', (size_t)(end - host));
    if (*host == '[' && host_end == NULL)
        return status_fail(st, STATUS_INVALID, "the URL's IPv6 address lacks its closing bracket");
    host_end = host_end == NULL ? end : host_end + (*host == '[');
    if (host_end == host && needs_host(scheme))
        return status_fail(st, STATUS_INVALID, "the URL names no host");
    return check_port(host_end, (size_t)(end - host_end), strchr(end, '@') != NULL, st);
}

bool media_url_check(const char *source, struct status *st)
{
    const struct scheme *scheme = find_scheme(source);

    if (strstr(source, "://") == NULL)
        return true;
    if (scheme != NULL)
        return check_rest(scheme, source + strlen(scheme->beginning), st);
#define WORDS(scheme, live) scheme "://, "
    return status_fail(st, STATUS_INVALID,
                       "this kind of URL cannot be read; a source is " MEDIA_URL_SCHEMES(
                           WORDS) "or the path of a file");
#undef WORDS
}

void media_url_lower_scheme(char *source)
{
    if (find_scheme(source) != NULL)
        for (; *source != ':'; source++)
            *source = (char)tolower((unsigned char)*source);
}

bool media_url_is_live(const char *source)
{
    const struct scheme *scheme = find_scheme(source);
    const char *list = strstr(source, ".m3u8");

    return scheme != NULL && (scheme->is_live || (list != NULL && (list[5] == '\0' || list[5] == '?')));
}
