/* name.h - the names people give (namespaces, streams, workers) and small text helpers. */
#ifndef REELKV_BASE_NAME_H
#define REELKV_BASE_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* [a-z0-9][a-z0-9._-]{0,62}: safe as a folder, a Redis key and a label. `what` opens the sentence ("stream"), which has
 * the password masked of a URL that came in place of a name. */
bool name_check(const char *what, const char *name, struct status *st);

/* The URL with everything between "//" and the last '@', and everything after '?', replaced by "***", for logs and
 * replies: many cameras take ?user=...&password=... So, too, "user:password@host" without a scheme; a path stays as it is.
 * `out` is always terminated; a URL longer than the room is cut. */
void url_mask(const char *url, char *out, size_t out_bytes);

/* What somebody typed, for a sentence about it: as url_mask() has it, without what moves a terminal's cursor or begins a
 * line. */
void text_show(const char *text, char *out, size_t out_bytes);

/* A size as people read it: "512 B", "1.5 GiB". */
enum { SIZE_TEXT_BYTES = 16 };
void size_text(uint64_t bytes, char out[SIZE_TEXT_BYTES]);

/* Copies text with its NUL; false when it does not fit (out is then ""). */
bool text_copy(char *out, size_t out_bytes, const char *text);

/* Lower-case hex of `len` bytes into 2 * len + 1 characters, and back (false on anything else). */
void hex_write(const void *bytes, size_t len, char *out);
bool hex_read(const char *text, void *bytes, size_t len);

/* True when the bytes are well-formed UTF-8 without NUL. */
bool utf8_is_valid(const char *text, size_t len);

/* Puts '?' in place of each byte that belongs to no well-formed sequence. */
void utf8_repair(char *text);

#endif
