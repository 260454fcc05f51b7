/* status.h - failure as a value: a code from one table and a sentence for a person.
 *
 * Every function that can fail returns bool (or a pointer) and takes `struct status *st` last.
 * On failure it fills *st by status_fail(), callers add their context once by status_wrap().
 * On success *st is left alone. `st` may be NULL where a caller does not care.
 *
 * Owner:  the caller's stack; a status owns no memory.
 * Bounds: the sentence is cut at STATUS_TEXT_BYTES. */
#ifndef REELKV_BASE_STATUS_H
#define REELKV_BASE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/*  name                 words                  gRPC  worth a retry */
#define STATUS_TABLE(X)                              \
    X(OK, "ok", 0, false)                            \
    X(CANCELLED, "cancelled", 1, false)              \
    X(UNKNOWN, "unknown", 2, false)                  \
    X(INVALID, "invalid argument", 3, false)         \
    X(DEADLINE, "deadline exceeded", 4, true)        \
    X(NOT_FOUND, "not found", 5, false)              \
    X(EXISTS, "already exists", 6, false)            \
    X(DENIED, "permission denied", 7, false)         \
    X(EXHAUSTED, "resource exhausted", 8, true)      \
    X(PRECONDITION, "failed precondition", 9, false) \
    X(ABORTED, "aborted", 10, true)                  \
    X(OUT_OF_RANGE, "out of range", 11, false)       \
    X(UNIMPLEMENTED, "unimplemented", 12, false)     \
    X(INTERNAL, "internal", 13, false)               \
    X(UNAVAILABLE, "unavailable", 14, true)          \
    X(DATA_LOSS, "data loss", 15, false)             \
    X(UNAUTHENTICATED, "unauthenticated", 16, false)

enum status_code {
#define STATUS_ENUM(name, words, grpc, retry) STATUS_##name = grpc,
    STATUS_TABLE(STATUS_ENUM)
#undef STATUS_ENUM
};

enum {
    STATUS_TEXT_BYTES = 512,
    STATUS_EXIT_USAGE = 2, /* exit code of a program that was started with what it does not understand */
    STATUS_EXIT_DATA_LOSS =
        8, /* exit code of a program that what is stored keeps from its work, for it is damaged */
};

struct status {
    enum status_code code;
    uint32_t retry_after_ms; /* 0: no advice */
    char text[STATUS_TEXT_BYTES];
};

/* Fills *st and returns false, so that failing is one line. %m works. */
bool status_fail(struct status *st, enum status_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<context>: " before the sentence and returns false; the code stays. */
bool status_wrap(struct status *st, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The code for an errno: ENOENT is NOT_FOUND, ENOSPC is EXHAUSTED, ... */
enum status_code status_code_of_errno(int error);

/* "not found", and whether trying again can help. Unknown numbers read as UNKNOWN. */
const char *status_code_words(enum status_code code);
bool status_code_is_retryable(enum status_code code);

#endif
