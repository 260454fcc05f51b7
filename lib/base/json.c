#include "base/json.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/name.h"
#include "base/require.h"

static json_t *raw(const struct json *value)
{
    return (json_t *)(uintptr_t)value; /* jansson's readers take non-const pointers and do not write */
}

static struct json *cooked(json_t *value)
{
    return (struct json *)value;
}

/* Whether this thread had no memory for something since it last asked. jansson does not always notice: of a number it would
 * go on with the first half. */
static _Thread_local bool is_short_of_memory;

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);

    is_short_of_memory |= memory == NULL;
    return memory;
}

__attribute__((constructor)) static void watch_memory(void)
{
    json_set_alloc_funcs(allocate, free);
}

static bool was_short_of_memory(void)
{
    bool was_short = is_short_of_memory;

    is_short_of_memory = false;
    return was_short;
}

struct json *json_parse(struct bytes text, struct status *st)
{
    json_error_t error;
    json_t *value;

    is_short_of_memory = false;
    value = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &error);
    if (was_short_of_memory()) {
        json_decref(value);
        status_fail(st, STATUS_EXHAUSTED, "no memory for JSON of %zu bytes", text.len);
        return NULL;
    }
    if (value == NULL)
        status_fail(st, STATUS_INVALID, "malformed JSON at line %d column %d: %s", error.line, error.column,
                    error.text);
    return cooked(value);
}

struct json *json_parse_file_on(const struct file_ops *ops, const char *path, size_t limit_bytes,
                                struct status *st)
{
    struct file_text text;
    struct json *value;

    if (!file_read_all_on(ops, path, limit_bytes, &text, st))
        return NULL;
    value = json_parse((struct bytes){ (const uint8_t *)text.data, text.len }, st);
    if (value == NULL)
        status_wrap(st, "%s", path);
    free(text.data);
    return value;
}

struct json *json_parse_file(const char *path, size_t limit_bytes, struct status *st)
{
    return json_parse_file_on(&file_system, path, limit_bytes, st);
}

void json_free(struct json *value)
{
    json_decref(raw(value));
}

const struct json *json_get(const struct json *object, const char *key)
{
    json_t *value = json_object_get(raw(object), key);

    return json_is_null(value) ? NULL : cooked(value);
}

const struct json *json_at(const struct json *array, size_t index)
{
    return cooked(json_array_get(raw(array), index));
}

size_t json_len(const struct json *value)
{
    switch (value == NULL ? JSON_NULL : json_typeof(raw(value))) {
    case JSON_ARRAY:
        return json_array_size(raw(value));
    case JSON_OBJECT:
        return json_object_size(raw(value));
    case JSON_STRING:
        return json_string_length(raw(value));
    default:
        return 0;
    }
}

static bool has_type(const struct json *value, json_type type)
{
    return value != NULL && json_typeof(raw(value)) == type;
}

/* jansson has macros of these names; inside this file they are ours. */
#undef json_is_object
#undef json_is_array
#undef json_is_string
#undef json_is_number

bool json_is_object(const struct json *value)
{
    return has_type(value, JSON_OBJECT);
}

bool json_is_array(const struct json *value)
{
    return has_type(value, JSON_ARRAY);
}

bool json_is_string(const struct json *value)
{
    return has_type(value, JSON_STRING);
}

bool json_is_number(const struct json *value)
{
    return has_type(value, JSON_INTEGER) || has_type(value, JSON_REAL);
}

bool json_is_bool(const struct json *value)
{
    return has_type(value, JSON_TRUE) || has_type(value, JSON_FALSE);
}

const char *json_str(const struct json *value)
{
    return json_string_value(raw(value));
}

double json_number(const struct json *value)
{
    return json_number_value(raw(value));
}

bool json_bool(const struct json *value)
{
    return has_type(value, JSON_TRUE);
}

void *json_first(const struct json *object)
{
    return json_object_iter(raw(object));
}

void *json_next(const struct json *object, void *at)
{
    return json_object_iter_next(raw(object), at);
}

const char *json_key(void *at)
{
    return json_object_iter_key(at);
}

const struct json *json_value(void *at)
{
    return cooked(json_object_iter_value(at));
}

static bool refuse(const struct json *found, const char *key, const char *wanted, struct status *st)
{
    return status_fail(st, STATUS_INVALID, "field '%s' %s; expected %s", key,
                       found == NULL ? "is missing" : "has the wrong type or range", wanted);
}

bool json_read_str(const struct json *object, const char *key, const char **value_p, struct status *st)
{
    const struct json *value = json_get(object, key);

    if (json_str(value) == NULL)
        return refuse(value, key, "a string", st);
    *value_p = json_str(value);
    return true;
}

bool json_read_u64(const struct json *object, const char *key, uint64_t *value_p, struct status *st)
{
    const struct json *value = json_get(object, key);

    if (!has_type(value, JSON_INTEGER) || json_integer_value(raw(value)) < 0)
        return refuse(value, key, "a whole number from 0", st);
    *value_p = (uint64_t)json_integer_value(raw(value));
    return true;
}

bool json_read_u32(const struct json *object, const char *key, uint32_t *value_p, struct status *st)
{
    uint64_t wide;

    if (!json_read_u64(object, key, &wide, st))
        return false;
    if (wide > UINT32_MAX)
        return refuse(json_get(object, key), key, "a whole number below 2^32", st);
    *value_p = (uint32_t)wide;
    return true;
}

bool json_read_i64(const struct json *object, const char *key, int64_t *value_p, struct status *st)
{
    const struct json *value = json_get(object, key);

    if (!has_type(value, JSON_INTEGER))
        return refuse(value, key, "a whole number", st);
    *value_p = (int64_t)json_integer_value(raw(value));
    return true;
}

bool json_read_f64(const struct json *object, const char *key, double *value_p, struct status *st)
{
    const struct json *value = json_get(object, key);

    if (!json_is_number(value))
        return refuse(value, key, "a number", st);
    *value_p = json_number(value);
    return true;
}

/* What there is no memory for is left out; whoever asks for the text is told. */
static json_t *made(json_t *value)
{
    REQUIRE(value != NULL || is_short_of_memory);
    return value;
}

struct json *json_make_object(void)
{
    return cooked(made(json_object()));
}

struct json *json_make_array(void)
{
    return cooked(made(json_array()));
}

void json_set(struct json *object, const char *key, struct json *child)
{
    REQUIRE(json_object_set_new(raw(object), key, raw(child)) == 0 || is_short_of_memory);
}

/* Text that is not UTF-8 (a file name, say) is shown with '?' rather than lost. */
static json_t *string_value(const char *text)
{
    json_t *value;
    char *copy;

    if (text == NULL)
        return made(json_null());
    value = json_string(text);
    if (value != NULL)
        return value;
    copy = strdup(text);
    is_short_of_memory |= copy == NULL;
    if (copy != NULL)
        utf8_repair(copy);
    value = json_string(copy);
    free(copy);
    return made(value);
}

void json_set_str(struct json *object, const char *key, const char *text)
{
    json_set(object, key, cooked(string_value(text)));
}

void json_set_u64(struct json *object, const char *key, uint64_t value)
{
    json_set(object, key, cooked(made(json_integer((json_int_t)value))));
}

void json_set_i64(struct json *object, const char *key, int64_t value)
{
    json_set(object, key, cooked(made(json_integer((json_int_t)value))));
}

void json_set_f64(struct json *object, const char *key, double value)
{
    json_set(object, key, cooked(made(isfinite(value) ? json_real(value) : json_null())));
}

void json_set_bool(struct json *object, const char *key, bool value)
{
    json_set(object, key, cooked(made(json_boolean(value))));
}

void json_append(struct json *array, struct json *child)
{
    REQUIRE(json_array_append_new(raw(array), raw(child)) == 0 || is_short_of_memory);
}

void json_append_str(struct json *array, const char *text)
{
    json_append(array, cooked(string_value(text)));
}

void json_append_u64(struct json *array, uint64_t value)
{
    json_append(array, cooked(made(json_integer((json_int_t)value))));
}

void json_append_f64(struct json *array, double value)
{
    json_append(array, cooked(made(isfinite(value) ? json_real(value) : json_null())));
}

char *json_try_text(const struct json *value, unsigned indent)
{
    char *text = NULL;

    if (!is_short_of_memory)
        text = json_dumps(raw(value), JSON_PRESERVE_ORDER | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) |
                                          (indent > 0 ? JSON_INDENT(indent > 8 ? 8 : indent) : JSON_COMPACT));
    if (!was_short_of_memory())
        return text;
    free(text);
    return NULL;
}

char *json_text(const struct json *value, unsigned indent)
{
    char *text = json_try_text(value, indent);

    REQUIRE(text != NULL);
    return text;
}
