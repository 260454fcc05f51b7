/* fuzz_calls.h - what the steps of an input of fuzz_calls.c are, for it and its seeds. */
#ifndef REELKV_TEST_FUZZ_CALLS_H
#define REELKV_TEST_FUZZ_CALLS_H

/* In the order of their numbers; others come at the end. */
#define FUZZ_CALLS(X)                   \
    X(CREATE_STREAM, create_stream)     \
    X(GET_STREAM, get_stream)           \
    X(LIST_STREAMS, list_streams)       \
    X(DELETE_STREAM, delete_stream)     \
    X(REPORT_TROUBLE, report_trouble)   \
    X(OPEN_STREAM, open_stream)         \
    X(APPEND, append)                   \
    X(LOAD_WINDOW, load_window)         \
    X(SCORE, score)                     \
    X(FETCH, fetch)                     \
    X(RETRIEVE, retrieve)               \
    X(TIMELINE, timeline)               \
    X(WATCH_STREAM, watch_stream)       \
    X(EXPORT, export)                   \
    X(LIST_HOLDS, list_holds)           \
    X(LIST_RECEIPTS, list_receipts)     \
    X(PREFETCH, prefetch)               \
    X(CANCEL_PREFETCH, cancel_prefetch) \
    X(HOLD, hold)                       \
    X(RELEASE_HOLD, release_hold)       \
    X(FORGET, forget)

enum {
#define NUMBER(constant, name) FUZZ_CALL_##constant,
    FUZZ_CALLS(NUMBER)
#undef NUMBER
};

enum { FUZZ_STEP_MESSAGE = 64, FUZZ_STEP_END = 192, FUZZ_STEP_CANCEL = 224 };

#endif
