#include "kv/checked_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "kv/kv_crc.h"

enum { NAME_BYTES = 16 }; /* of "/holds.json" and the like */
_Static_assert(2 * (LIMIT_NAME_BYTES + 1) + NAME_BYTES <= CHECKED_JSON_FILE_BYTES,
               "namespace/stream/file must fit");

static const char tail_format[] = ",\n\"crc32c\": \"%08x\"\n}\n";

struct json *checked_json_make(const char *file)
{
    struct json *object = json_make_object();

    json_set_u64(object, "format", CHECKED_JSON_FORMAT);
    json_set_str(object, "file", file);
    return object;
}

static void put_tail(char tail[CHECKED_JSON_TAIL_BYTES + 1], const char *text, size_t len)
{
    snprintf(tail, CHECKED_JSON_TAIL_BYTES + 1, tail_format, kv_crc(0, text, len));
}

char *checked_json_text(struct json *object, unsigned indent)
{
    char *text = json_try_text(object, indent), *whole = NULL;
    size_t len = text == NULL ? 0 : strlen(text) - 1; /* without its brace */

    json_free(object);
    while (len > 0 && text[len - 1] == '\n')
        len--;
    if (text != NULL)
        whole = realloc(text, len + CHECKED_JSON_TAIL_BYTES + 1);
    if (whole == NULL)
        free(text);
    else
        put_tail(whole + len, whole, len);
    return whole;
}

static bool has_tail(const struct file_text *text, struct status *st)
{
    char tail[CHECKED_JSON_TAIL_BYTES + 1];
    size_t len = text->len < CHECKED_JSON_TAIL_BYTES ? 0 : text->len - CHECKED_JSON_TAIL_BYTES;

    put_tail(tail, text->data, len);
    return (len > 0 && memcmp(text->data + len, tail, CHECKED_JSON_TAIL_BYTES) == 0) ||
           status_fail(st, STATUS_DATA_LOSS, "its checksum does not fit: it is damaged");
}

static bool is_end_of(const char *path, const char *file)
{
    size_t path_len = strlen(path), len = strlen(file);

    return len > 0 && len <= path_len && strcmp(path + path_len - len, file) == 0 &&
           (len == path_len || path[path_len - len - 1] == '/');
}

static bool check(const struct file_text *text, const char *path, const struct json *object,
                  struct status *st)
{
    const char *file;
    uint64_t format;

    if (!has_tail(text, st))
        return false;
    if (!json_read_u64(object, "format", &format, st) || !json_read_str(object, "file", &file, st))
        return status_fail(st, STATUS_DATA_LOSS, "it does not say what it is");
    if (format != CHECKED_JSON_FORMAT)
        return status_fail(st, STATUS_PRECONDITION, "its format is %llu, this version reads up to %d",
                           (unsigned long long)format, CHECKED_JSON_FORMAT);
    return is_end_of(path, file) || status_fail(st, STATUS_DATA_LOSS, "it is %s", file);
}

static bool begins_with(const struct json *object, const char *member)
{
    void *first = json_is_object(object) ? json_first(object) : NULL;

    return first != NULL && strcmp(json_key(first), member) == 0;
}

struct json *checked_json_read(const struct file_ops *disk, const char *path, size_t limit_bytes,
                               const char *first_of_old, struct status *st)
{
    struct json *object = NULL;
    struct file_text text;
    bool ok;

    if (!file_read_all_on(disk, path, limit_bytes, &text, st)) {
        st->code = st->code == STATUS_INVALID ? STATUS_DATA_LOSS : st->code;
        return NULL;
    }
    object = json_parse((struct bytes){ (const uint8_t *)text.data, text.len }, st);
    if (object == NULL && st->code == STATUS_INVALID)
        st->code = STATUS_DATA_LOSS;
    if (begins_with(object, "format"))
        ok = check(&text, path, object, st);
    else
        ok = object != NULL && (begins_with(object, first_of_old) ||
                                status_fail(st, STATUS_DATA_LOSS, "it begins with no member that it may"));
    free(text.data);
    if (ok)
        return object;
    status_wrap(st, "%s", path);
    json_free(object);
    return NULL;
}
