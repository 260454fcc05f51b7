/* Prefetch: layers of frames that somebody will ask for. The call is the ticket, and what it has read is in RAM as long as
 * the call lasts.
 *
 *   request -> line -> first reply -> (read) -> last reply ... deadline, CancelPrefetch, the caller's end, or what it keeps is
 *   forgotten or removed */
#include <stdlib.h>

#include "base/random.h"
#include "base/require.h"
#include "kvstore/kvstore.h"
#include "kvstore/read_ahead.h"

enum { TICKETS_MAX = 64, DEADLINE_MS = 10000, DEADLINE_MAX_MS = 600000, RETRY_AFTER_MS = 1000 };

struct prefetch {
    struct kvstore *kvstore;
    struct rpc_call *call;
    struct prefetch *next;
    uint64_t ticket;
    struct read_ahead ahead;
    struct loop_timer deadline_timer;
    uint64_t wanted, there, refused;
    bool is_told; /* the first reply has gone */
    bool has_news;
};

static void tell(struct prefetch *prefetch)
{
    Reelkv__V1__PrefetchReply reply = REELKV__V1__PREFETCH_REPLY__INIT;
    const struct read_ahead *ahead = &prefetch->ahead;

    reply.ticket = prefetch->ticket;
    reply.wanted = prefetch->wanted;
    reply.ready = prefetch->there + ahead->read;
    reply.refused = prefetch->refused;
    reply.failed = ahead->failed;
    reply.done = ahead->waiting == 0;
    prefetch->has_news = !rpc_call_write(prefetch->call, &reply.base, NULL);
}

static void settled(struct read_ahead *ahead)
{
    struct prefetch *prefetch = container_of(ahead, struct prefetch, ahead);

    if (prefetch->is_told)
        tell(prefetch);
}

static void on_writable(struct rpc_call *call, void *user)
{
    struct prefetch *prefetch = user;

    (void)call;
    if (prefetch->has_news)
        tell(prefetch);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct prefetch *prefetch = user;
    struct prefetch **link = &prefetch->kvstore->prefetches;

    (void)call;
    while (*link != NULL && *link != prefetch)
        link = &(*link)->next;
    if (*link != NULL) {
        *link = prefetch->next;
        prefetch->kvstore->prefetch_count--;
    }
    loop_timer_stop(&prefetch->deadline_timer);
    read_ahead_drop(&prefetch->ahead);
    free(prefetch);
}

static void deadline_passed(struct loop_timer *timer)
{
    rpc_call_finish(container_of(timer, struct prefetch, deadline_timer)->call, NULL);
}

static void add_frame(struct prefetch *prefetch, const struct view *view, const Reelkv__V1__FrameRef *ref,
                      uint32_t first, uint32_t end)
{
    enum stream_absence absence;
    struct index_frame *frame = view_find(view, ref->stream, ref->seq, &absence);

    for (uint32_t layer = first; frame != NULL && layer < end; layer++) {
        enum read_ahead_answer answer = read_ahead_add(&prefetch->ahead, frame, layer);

        prefetch->wanted++;
        prefetch->there += answer == READ_AHEAD_IS_THERE;
        prefetch->refused += answer == READ_AHEAD_REFUSED;
    }
}

static bool add_frames(struct prefetch *prefetch, const struct view *view,
                       const Reelkv__V1__PrefetchRequest *request, struct status *st)
{
    uint32_t layers = view->has_shape ? view->geometry.layers : 0, end;

    if (view->has_shape &&
        (request->first_layer >= layers || request->layers > layers - request->first_layer))
        return status_fail(st, STATUS_INVALID, "layers %u + %u; the model has %u", request->first_layer,
                           request->layers, layers);
    end = request->layers == 0 ? layers : request->first_layer + request->layers;
    for (size_t i = 0; i < request->n_frames; i++)
        add_frame(prefetch, view, request->frames[i], request->first_layer, end);
    return true;
}

static bool start(struct prefetch *prefetch, const Reelkv__V1__PrefetchRequest *request, struct status *st)
{
    uint32_t deadline_ms = request->deadline_ms == 0 ? DEADLINE_MS : request->deadline_ms;
    struct view *view;
    bool ok;

    if (request->n_frames > LIMIT_TOP_BLOCKS || deadline_ms > DEADLINE_MAX_MS)
        return status_fail(st, STATUS_INVALID, "%zu frames for %u ms; at most %d for %d ms",
                           request->n_frames, deadline_ms, LIMIT_TOP_BLOCKS, DEADLINE_MAX_MS);
    if (prefetch->kvstore->prefetch_count >= TICKETS_MAX) {
        status_fail(st, STATUS_EXHAUSTED, "store %s has given %d tickets, its limit; try again",
                    prefetch->kvstore->options->name, TICKETS_MAX);
        st->retry_after_ms = RETRY_AFTER_MS;
        return false;
    }
    if (!kvstore_make_view(prefetch->kvstore, request->view, false, &view, st))
        return false;
    ok = add_frames(prefetch, view, request, st);
    view_unref(view); /* what is to be read holds its own */
    if (!ok)
        return false;
    loop_timer_start(prefetch->kvstore->loop, &prefetch->deadline_timer, deadline_ms, deadline_passed);
    return true;
}

void kvstore_prefetch(struct rpc_call *call, void *state)
{
    struct prefetch *prefetch = calloc(1, sizeof *prefetch);
    struct status st = { 0 };

    if (prefetch == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more call");
        rpc_call_finish(call, &st);
        return;
    }
    prefetch->kvstore = state;
    prefetch->call = call;
    prefetch->ahead = (struct read_ahead){ .store = prefetch->kvstore->store,
                                           .kind = READ_AHEAD_TICKETS,
                                           .settled = settled };
    rpc_call_set_user(call, prefetch);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    if (!start(prefetch, (const Reelkv__V1__PrefetchRequest *)rpc_call_request(call)->body, &st)) {
        rpc_call_finish(call, &st);
        return;
    }
    prefetch->ticket = random_u64() | 1;
    prefetch->next = prefetch->kvstore->prefetches;
    prefetch->kvstore->prefetches = prefetch;
    prefetch->kvstore->prefetch_count++;
    tell(prefetch);
    prefetch->is_told = true;
    read_ahead_pump(prefetch->kvstore->store);
}

void kvstore_cancel_prefetch(struct rpc_call *call, void *state)
{
    const Reelkv__V1__CancelPrefetchRequest *request =
        (const Reelkv__V1__CancelPrefetchRequest *)rpc_call_request(call)->body;
    Reelkv__V1__CancelPrefetchReply reply = REELKV__V1__CANCEL_PREFETCH_REPLY__INIT;
    struct prefetch *prefetch = ((struct kvstore *)state)->prefetches;
    struct status st = { 0 };

    while (prefetch != NULL && prefetch->ticket != request->ticket)
        prefetch = prefetch->next;
    if (prefetch == NULL) {
        status_fail(&st, STATUS_NOT_FOUND, "no ticket %llx; it may have ended",
                    (unsigned long long)request->ticket);
        rpc_call_finish(call, &st);
        return;
    }
    rpc_call_finish(prefetch->call, NULL);
    rpc_call_reply(call, &reply.base, NULL);
}

void kvstore_end_prefetches(struct kvstore *kvstore)
{
    for (struct prefetch *prefetch = kvstore->prefetches, *next; prefetch != NULL; prefetch = next) {
        next = prefetch->next;
        rpc_call_finish(prefetch->call, NULL);
    }
}

void kvstore_end_forgotten_prefetches(struct kvstore *kvstore)
{
    struct status why;

    status_fail(&why, STATUS_NOT_FOUND, "what was asked for is being forgotten");
    for (struct prefetch *prefetch = kvstore->prefetches, *next; prefetch != NULL; prefetch = next) {
        next = prefetch->next;
        if (read_ahead_has_forgotten(&prefetch->ahead))
            rpc_call_finish(prefetch->call, &why);
    }
}
