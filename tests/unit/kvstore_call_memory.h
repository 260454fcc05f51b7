/* kvstore_call_memory.h - calls of kvstore_calls.h while allocations are refused, and some of them: those of what reads.
 *
 * Who includes this wraps malloc and its kin; its own allocations ask the real ones (CMakeLists.txt). */
#ifndef REELKV_TEST_KVSTORE_CALL_MEMORY_H
#define REELKV_TEST_KVSTORE_CALL_MEMORY_H

#include <pthread.h>

#include "kvstore_calls.h"

enum { FRAMES = 12 };

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t each);
void *__wrap_realloc(void *before, size_t bytes);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t len);
int __wrap_posix_memalign(void **memory_p, size_t align, size_t bytes);

static struct {
    pthread_t thread;
    atomic_bool is_armed, has_refused, on_any_thread;
    atomic_uint left; /* allocations until one is refused */
} memory;

static bool refuses(void)
{
    if (!memory.is_armed || (!memory.on_any_thread && !pthread_equal(pthread_self(), memory.thread)) ||
        atomic_fetch_sub(&memory.left, 1) != 1)
        return false;
    memory.is_armed = false;
    return memory.has_refused = true;
}

void *__wrap_malloc(size_t bytes)
{
    return refuses() ? NULL : malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t each)
{
    return refuses() ? NULL : calloc(count, each);
}

void *__wrap_realloc(void *before, size_t bytes)
{
    return refuses() ? NULL : realloc(before, bytes);
}

char *__wrap_strdup(const char *text)
{
    return refuses() ? NULL : strdup(text);
}

char *__wrap_strndup(const char *text, size_t len)
{
    return refuses() ? NULL : strndup(text, len);
}

int __wrap_posix_memalign(void **memory_p, size_t align, size_t bytes)
{
    return refuses() ? ENOMEM : posix_memalign(memory_p, align, bytes);
}

static struct calls calls;
static struct stream *stream;

/* --- the store --- */

/* So many of the first frames are read from the disk from now on. */
static inline void drop_copies(uint64_t count)
{
    for (uint64_t n = 0; n < count; n++)
        index_frame_drop_copies(index_part_at(&stream->segments[0]->index, n), calls.fixture.store->arena);
}

static inline void start(void)
{
    struct fixture_writer writer;

    calls_start(&calls);
    calls_messages();
    stream = fixture_write(&calls.fixture, "cam-1", &writer, FRAMES);
    CHECK_OK(fixture_append_gap(stream, 2, "away", &calls.fixture.st), calls.fixture.st);
    fixture_wait_durable(&calls.fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(&calls.fixture, stream);
    drop_copies(FRAMES / 2);
    memory.thread = pthread_self();
    memory.on_any_thread = false;
}

/* --- calls --- */

static const struct rpc_handler *asked;

static void open_armed(struct rpc_call *call, void *user)
{
    memory.is_armed = memory.left > 0;
    asked->open(call, user);
}

static inline struct rpc_call *begin(const struct rpc_handler *handler, const ProtobufCMessage *request)
{
    const struct rpc_handler armed = { handler->method, open_armed };

    asked = handler;
    return calls_begin(&calls, &armed, request);
}

typedef enum status_code deed_fn(void);

#define ASKS(name, request)                                                     \
    do {                                                                        \
        return calls_end(&calls, begin(CALLS_HANDLER(name), &(request)->base)); \
    } while (0)

/* --- what reads --- */

static Reelkv__V1__FrameRef refs[2], *ref_list[] = { &refs[0], &refs[1] };

static inline void fill_refs(void)
{
    for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
        refs[i] = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
        refs[i].seq = i * (FRAMES - 1); /* the first from the disk, the last from memory */
    }
}

static inline enum status_code score(void)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;

    request.view = &calls_view;
    request.selection = &calls_selection;
    request.query = calls_query();
    ASKS(score, &request);
}

static inline enum status_code fetch(void)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;

    fill_refs();
    request.view = &calls_view;
    request.frames = ref_list;
    request.n_frames = ARRAY_LEN(refs);
    request.layers = 2;
    request.thumbnails = true;
    ASKS(fetch, &request);
}

/* Each message that it takes counts too. */
static inline bool send_if_asked(struct rpc_call *call, const ProtobufCMessage *message)
{
    if (!fuzz_call_is_over(call))
        calls_send(&calls, call, message);
    return !fuzz_call_is_over(call);
}

static inline enum status_code retrieve(void)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    Reelkv__V1__RetrieveQuery query = REELKV__V1__RETRIEVE_QUERY__INIT;
    struct rpc_call *call = begin(CALLS_HANDLER(retrieve), NULL);

    open.view = &calls_view;
    open.selection = &calls_selection;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    if (send_if_asked(call, &request.base)) {
        request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
        request.query = &query;
        query.query = calls_query();
        if (send_if_asked(call, &request.base)) {
            query.layer = 2;
            send_if_asked(call, &request.base);
        }
    }
    return calls_finish(&calls, call);
}

static inline enum status_code timeline(void)
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;

    request.id = &calls_id;
    ASKS(timeline, &request);
}

static inline enum status_code export(void) {
    Reelkv__V1__ExportRequest request = REELKV__V1__EXPORT_REQUEST__INIT;

    request.id = &calls_id;
    ASKS(export, &request);
}

static inline enum status_code window(void)
{
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;

    request.id = &calls_id;
    request.fingerprint = calls_fingerprint();
    request.epoch = stream->epoch;
    request.tokens = 3 * FIXTURE_TOKENS;
    ASKS(load_window, &request);
}

#endif
