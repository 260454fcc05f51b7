/* json.h - JSON read with limits and typed, required fields; JSON written for people and programs.
 *
 * Owner:  json_parse*, json_make_* and json_text return what the caller frees with json_free()
 *         (json_text: free()). json_get() and json_at() borrow from their parent. json_set() and
 *         json_append() take the child.
 * Thread: a value belongs to one thread at a time.
 * Fails:  malformed text is INVALID with line and column; a missing or wrong field is INVALID with its name; EXHAUSTED
 *         without memory.
 * Bounds: the caller's byte limit; nesting at most 2048 (the parser's own). */
#ifndef REELKV_BASE_JSON_H
#define REELKV_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/file_ops.h"
#include "base/status.h"

struct json;

struct json *json_parse(struct bytes text, struct status *st);
struct json *json_parse_file(const char *path, size_t limit_bytes, struct status *st);
struct json *json_parse_file_on(const struct file_ops *ops, const char *path, size_t limit_bytes,
                                struct status *st);
void json_free(struct json *value); /* NULL is fine */

/* Reading. NULL values are allowed everywhere and read as "missing". */
const struct json *json_get(const struct json *object, const char *key); /* NULL when absent or null */
const struct json *json_at(const struct json *array, size_t index);
size_t json_len(const struct json *value); /* of an array, object or string; else 0 */
bool json_is_object(const struct json *value);
bool json_is_array(const struct json *value);
bool json_is_string(const struct json *value);
bool json_is_number(const struct json *value);
bool json_is_bool(const struct json *value);
const char *json_str(const struct json *value); /* NULL when not a string; no embedded NUL */
double json_number(const struct json *value);   /* 0 when not a number */
bool json_bool(const struct json *value);       /* false when not true */

/* Walks an object in file order: for (it = json_first(o); it != NULL; it = json_next(o, it)). */
void *json_first(const struct json *object);
void *json_next(const struct json *object, void *at);
const char *json_key(void *at);
const struct json *json_value(void *at);

/* Required fields, checked. */
bool json_read_str(const struct json *object, const char *key, const char **value_p, struct status *st);
bool json_read_u32(const struct json *object, const char *key, uint32_t *value_p, struct status *st);
bool json_read_u64(const struct json *object, const char *key, uint64_t *value_p, struct status *st);
bool json_read_i64(const struct json *object, const char *key, int64_t *value_p, struct status *st);
bool json_read_f64(const struct json *object, const char *key, double *value_p, struct status *st);

/* Writing: what there is no memory for is left out, and the thread's next text is not given. */
struct json *json_make_object(void);
struct json *json_make_array(void);
void json_set(struct json *object, const char *key, struct json *child);
void json_set_str(struct json *object, const char *key, const char *text); /* NULL text writes null */
void json_set_u64(struct json *object, const char *key, uint64_t value);
void json_set_i64(struct json *object, const char *key, int64_t value);
void json_set_f64(struct json *object, const char *key, double value);
void json_set_bool(struct json *object, const char *key, bool value);
void json_append(struct json *array, struct json *child);
void json_append_str(struct json *array, const char *text);
void json_append_u64(struct json *array, uint64_t value);
void json_append_f64(struct json *array, double value);

/* malloc'd text; indent 0 is one line. Keys keep the order they were set in. json_try_text(): NULL without memory for all
 * of it; json_text(): then the process ends. */
char *json_try_text(const struct json *value, unsigned indent);
char *json_text(const struct json *value, unsigned indent);

#endif
