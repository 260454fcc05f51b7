#include "kvstore/kvstore_watch.h"

#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "base/require.h"

enum { WATCHES_MAX = 256, LOOK_MS = 100, RETRY_MS = 1000 };

struct watch {
    struct watch *next, **link;
    struct kvstore_watches *watches;
    struct rpc_call *call;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    bool with_secret;
    uint8_t *told; /* the message it was sent last; malloc */
    size_t told_bytes;
};

struct kvstore_watches {
    struct kvstore *kvstore;
    struct loop_timer timer;
    struct watch *first;
    uint32_t count;
    struct status ending; /* OK: not yet */
};

/* The message, when it is another than the last. NULL: it is not, or there is no memory to tell. */
static uint8_t *news_of(const struct watch *watch, const Reelkv__V1__StreamStatus *status, size_t *bytes_p)
{
    size_t bytes = reelkv__v1__stream_status__get_packed_size(status);
    uint8_t *packed = malloc(bytes);

    if (packed == NULL)
        return NULL;
    reelkv__v1__stream_status__pack(status, packed);
    if (bytes == watch->told_bytes && memcmp(packed, watch->told, bytes) == 0) {
        free(packed);
        return NULL;
    }
    *bytes_p = bytes;
    return packed;
}

static void tell(struct watch *watch)
{
    const struct stream *stream = store_find(watch->watches->kvstore->store, watch->ns, watch->name);
    struct kvstore_status message;
    struct status st = { 0 };
    size_t bytes = 0;
    uint8_t *news;

    if (stream == NULL) {
        status_fail(&st, STATUS_NOT_FOUND, "stream %s/%s was removed", watch->ns, watch->name);
        rpc_call_finish(watch->call, &st);
        return;
    }
    if (!rpc_call_can_write(watch->call))
        return;
    kvstore_fill_status(&message, stream, watch->with_secret);
    news = news_of(watch, &message.status, &bytes);
    if (news == NULL || !rpc_call_write(watch->call, &message.status.base, NULL)) {
        free(news);
        return;
    }
    free(watch->told);
    watch->told = news;
    watch->told_bytes = bytes;
}

static void look(struct loop_timer *timer)
{
    struct kvstore_watches *watches = container_of(timer, struct kvstore_watches, timer);
    struct watch *next;

    for (struct watch *watch = watches->first; watch != NULL; watch = next) {
        next = watch->next; /* a call that is finished ends later, with on_end */
        tell(watch);
    }
    if (watches->count > 0)
        loop_timer_start(watches->kvstore->loop, timer, LOOK_MS, look);
}

static void ended(struct rpc_call *call, void *user)
{
    struct watch *watch = user;
    struct kvstore_watches *watches = watch->watches;

    *watch->link = watch->next;
    if (watch->next != NULL)
        watch->next->link = watch->link;
    watches->count--;
    if (watches->count == 0)
        loop_timer_stop(&watches->timer);
    free(watch->told);
    free(watch);
}

static bool may_watch(const struct kvstore_watches *watches, struct status *st)
{
    if (watches->ending.code != STATUS_OK) {
        *st = watches->ending;
        return false;
    }
    if (watches->count < WATCHES_MAX)
        return true;
    status_fail(st, STATUS_EXHAUSTED, "%d streams are watched, which is the limit; try again later",
                WATCHES_MAX);
    st->retry_after_ms = RETRY_MS;
    return false;
}

void kvstore_watch_stream(struct rpc_call *call, void *state)
{
    struct kvstore *kvstore = state;
    struct kvstore_watches *watches = kvstore->watches;
    const Reelkv__V1__WatchStreamRequest *request =
        (const Reelkv__V1__WatchStreamRequest *)rpc_call_request(call)->body;
    const struct stream *stream;
    struct watch *watch;
    struct status st = { 0 };

    stream = may_watch(watches, &st) ? kvstore_stream_of(kvstore, request->id, &st) : NULL;
    watch = stream != NULL ? calloc(1, sizeof *watch) : NULL;
    if (stream != NULL && watch == NULL)
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more watch");
    if (watch == NULL) {
        rpc_call_finish(call, &st);
        return;
    }
    watch->watches = watches;
    watch->call = call;
    watch->with_secret = request->with_secret;
    text_copy(watch->ns, sizeof watch->ns, stream->ns);
    text_copy(watch->name, sizeof watch->name, stream->name);
    watch->next = watches->first;
    watch->link = &watches->first;
    if (watch->next != NULL)
        watch->next->link = &watch->next;
    watches->first = watch;
    if (watches->count++ == 0)
        loop_timer_start(kvstore->loop, &watches->timer, LOOK_MS, look);
    rpc_call_set_user(call, watch);
    rpc_call_on_end(call, ended);
    tell(watch);
}

bool kvstore_watches_create(struct kvstore_watches **watches_p, struct kvstore *kvstore, struct status *st)
{
    struct kvstore_watches *watches = calloc(1, sizeof *watches);

    if (watches == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for watches");
    watches->kvstore = kvstore;
    *watches_p = watches;
    return true;
}

void kvstore_watches_destroy(struct kvstore_watches *watches)
{
    REQUIRE(watches == NULL || watches->first == NULL);
    free(watches);
}

void kvstore_watches_end(struct kvstore_watches *watches, const struct status *why)
{
    struct watch *next;

    watches->ending = *why;
    for (struct watch *watch = watches->first; watch != NULL; watch = next) {
        next = watch->next;
        rpc_call_finish(watch->call, why);
    }
}
