#include "base/name.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/require.h"

enum { SHOWN_BYTES = 81 };

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool name_check(const char *what, const char *name, struct status *st)
{
    size_t len = strlen(name);
    bool ok = len >= 1 && len <= LIMIT_NAME_BYTES && is_lower_or_digit(name[0]);
    char shown[SHOWN_BYTES];

    for (size_t i = 1; ok && i < len; i++)
        ok = is_lower_or_digit(name[i]) || strchr("._-", name[i]) != NULL;
    if (ok)
        return true;
    text_show(name, shown, sizeof shown); /* `cam add URL NAME` */
    return status_fail(
        st, STATUS_INVALID,
        "%s name '%s' is not valid: use 1 to %d of a-z 0-9 . _ -, starting with a letter or digit", what,
        shown, LIMIT_NAME_BYTES);
}

/* "user:password@host": an address whose scheme was left away. A path begins with '/'. */
static bool has_user(const char *text)
{
    const char *colon = strchr(text, ':');

    return text[0] != '/' && colon != NULL && strchr(colon, '@') != NULL;
}

/* A password may hold '@', '/', '#' or '?' that should have been written %40, %2F, %23 or %3F: all is hidden up to the last
 * '@'. With a '?' before that, nobody can tell which of the two is in a password: of what stands before the '?' nothing
 * is shown when it may hold one, of what follows it nothing ever. */
void url_mask(const char *url, char *out, size_t out_bytes)
{
    const char *scheme = strstr(url, "://");
    const char *rest = scheme != NULL ? scheme + 3 : url, *at = strrchr(rest, '@');
    size_t open = strcspn(rest, "?"), hidden = 0;

    if (scheme == NULL && !has_user(url)) {
        snprintf(out, out_bytes, "%s", url);
        return;
    }
    if (at != NULL && at < rest + open)
        hidden = (size_t)(at - rest);
    else if (at != NULL && (memchr(rest, ':', open) != NULL || memchr(rest, '@', open) != NULL))
        hidden = open;
    snprintf(out, out_bytes, "%.*s%s%.*s%s", (int)(rest - url), url, hidden > 0 ? "***" : "",
             (int)(open - hidden), rest + hidden, rest[open] != '\0' ? "?***" : "");
}

void text_show(const char *text, char *out, size_t out_bytes)
{
    url_mask(text, out, out_bytes);
    for (; *out != '\0'; out++)
        if ((unsigned char)*out < 0x20 || *out == 0x7F)
            *out = '?';
}

/* Length of the well-formed sequence at `s` (Unicode table 3-7), 0 when there is none. */
static size_t sequence_len(const uint8_t *s, size_t left)
{
    uint8_t lo = 0x80, hi = 0xBF;
    size_t len;

    if (s[0] < 0x80)
        return s[0] != 0;
    if (s[0] >= 0xC2 && s[0] <= 0xDF)
        len = 2;
    else if (s[0] >= 0xE0 && s[0] <= 0xEF)
        len = 3;
    else if (s[0] >= 0xF0 && s[0] <= 0xF4)
        len = 4;
    else
        return 0;
    if (s[0] == 0xE0)
        lo = 0xA0;
    else if (s[0] == 0xED)
        hi = 0x9F;
    else if (s[0] == 0xF0)
        lo = 0x90;
    else if (s[0] == 0xF4)
        hi = 0x8F;
    if (left < len || s[1] < lo || s[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if (s[i] < 0x80 || s[i] > 0xBF)
            return 0;
    return len;
}

bool utf8_is_valid(const char *text, size_t len)
{
    for (size_t i = 0, step; i < len; i += step) {
        step = sequence_len((const uint8_t *)text + i, len - i);
        if (step == 0)
            return false;
    }
    return true;
}

void utf8_repair(char *text)
{
    size_t len = strlen(text);

    for (size_t i = 0, step; i < len; i += step) {
        step = sequence_len((const uint8_t *)text + i, len - i);
        if (step > 0)
            continue;
        text[i] = '?';
        step = 1;
    }
}

void size_text(uint64_t bytes, char out[SIZE_TEXT_BYTES])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1000 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, SIZE_TEXT_BYTES, unit > 0 && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

bool text_copy(char *out, size_t out_bytes, const char *text)
{
    size_t len = strlen(text);
    bool fits = len < out_bytes;

    if (fits)
        memcpy(out, text, len + 1);
    else
        out[0] = '\0';
    return fits;
}

void hex_write(const void *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;

    for (size_t i = 0; i < len; i++) {
        *out++ = digits[from[i] >> 4];
        *out++ = digits[from[i] & 15];
    }
    *out = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool hex_read(const char *text, void *bytes, size_t len)
{
    uint8_t *to = bytes;

    if (strlen(text) != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
