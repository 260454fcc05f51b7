/* LoadWindow: INIT, then the newest blocks, oldest first, for a writer that fills its window again. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kvstore/block_sender.h"
#include "kvstore/kvstore.h"

enum { RETRY_AFTER_MS = 100 };

struct window {
    struct block_sender sender;
    struct kvstore *kvstore;
    struct rpc_call *call;
    struct view *view; /* holds the index's chunks */
    struct stream *stream;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    struct index_frame **frames; /* in the call's memory; oldest first */
    uint32_t count, next;
    bool is_init_done;
};

static void fail(struct window *window, enum status_code code, const char *why)
{
    struct status st;

    status_fail(&st, code, "stream %s: %s", window->name, why);
    st.retry_after_ms = status_code_is_retryable(code) ? RETRY_AFTER_MS : 0;
    rpc_call_finish(window->call, &st);
}

/* The stream may be removed while its blocks are being sent. */
static bool is_still_there(struct window *window)
{
    return store_find(window->kvstore->store, window->ns, window->name) == window->stream;
}

/* False: there is no next. */
static bool start_block(struct window *window)
{
    if (window->is_init_done && window->next == window->count) {
        rpc_call_finish(window->call, NULL);
        return false;
    }
    if (!is_still_there(window)) {
        fail(window, STATUS_NOT_FOUND, "it was removed");
        return false;
    }
    if (!block_sender_begin(&window->sender, window->stream,
                            window->is_init_done ? window->frames[window->next] : NULL)) {
        fail(window, STATUS_EXHAUSTED, "no memory for a block");
        return false;
    }
    return true;
}

static void end_block(struct window *window)
{
    block_sender_end(&window->sender);
    if (window->is_init_done)
        window->next++;
    window->is_init_done = true;
}

static bool write_block(struct rpc_call *call, Reelkv__V1__Block *block)
{
    Reelkv__V1__LoadWindowReply reply = REELKV__V1__LOAD_WINDOW_REPLY__INIT;

    reply.item_case = REELKV__V1__LOAD_WINDOW_REPLY__ITEM_BLOCK;
    reply.block = block;
    return rpc_call_write(call, &reply.base, NULL);
}

static bool write_chunk(struct rpc_call *call, Reelkv__V1__Chunk *chunk, const struct rpc_attachment *bytes)
{
    Reelkv__V1__LoadWindowReply reply = REELKV__V1__LOAD_WINDOW_REPLY__INIT;

    reply.item_case = REELKV__V1__LOAD_WINDOW_REPLY__ITEM_CHUNK;
    reply.chunk = chunk;
    return rpc_call_write(call, &reply.base, bytes);
}

static void go_on(struct window *window)
{
    for (;;) {
        enum frame_result result;

        if (window->sender.block == NULL && !start_block(window))
            return;
        result = block_sender_result(&window->sender);
        if (result == 0)
            return; /* on its way */
        if (result == FRAME_OK) {
            if (!block_sender_send(&window->sender))
                return;
        } else if (window->is_init_done || result != FRAME_NOT_FOUND) {
            /* A window with a hole would not be the window. Asked again, it begins behind the damage. */
            fail(window, STATUS_ABORTED, "a block could not be read; ask again");
            return;
        }
        end_block(window);
    }
}

static void block_came(struct block_sender *sender)
{
    go_on(container_of(sender, struct window, sender));
}

/* --- the call --- */

/* Back from the newest, until there are enough tokens, or something is missing in between. Returns how many; with `end`
 * they are put in front of it. */
static uint32_t newest(const struct view *view, uint32_t tokens, struct index_frame **end)
{
    uint64_t found = 0, next_token = UINT64_MAX;
    uint32_t count = 0;

    for (uint32_t e = view->entry_count; e > 0 && found < tokens; e--) {
        const struct view_entry *entry = &view->entries[e - 1];

        for (uint32_t i = INDEX_CHUNK_FRAMES; i > 0 && found < tokens; i--) {
            struct index_frame *frame = &entry->chunk->frames[i - 1];

            if ((entry->mask >> (i - 1) & 1) == 0)
                continue;
            if (frame->encoding.bits != 0 || !frame->has_slices)
                return count; /* it is no more what its writer had */
            if (next_token != UINT64_MAX && frame->token_index + frame->tokens != next_token)
                return count;
            count++;
            if (end != NULL)
                *(end - count) = frame;
            next_token = frame->token_index;
            found += frame->tokens;
        }
    }
    return count;
}

/* A window of which the beginning is removed before its end comes could never be filled again. */
static bool check_budget(const struct window *window, uint32_t tokens, struct status *st)
{
    uint64_t bytes = kv_payload_bytes(&window->stream->geometry, tokens);
    uint64_t disk_bytes = window->kvstore->options->disk_budget_bytes;

    if (bytes <= disk_bytes)
        return true;
    return status_fail(st, STATUS_PRECONDITION,
                       "disk_budget_bytes of store %s is %llu, smaller than one window, %llu for %u tokens: "
                       "raise it, or take a smaller n_local",
                       window->kvstore->options->name, (unsigned long long)disk_bytes,
                       (unsigned long long)bytes, tokens);
}

static bool start(struct window *window, const Reelkv__V1__LoadWindowRequest *request, struct status *st)
{
    struct view_stream_name name;
    struct view_request view = { .streams = &name, .stream_count = 1, .from_ns = INT64_MIN };

    window->stream = kvstore_stream_of(window->kvstore, request->id, st);
    if (window->stream == NULL || !kvstore_read_fingerprint(&request->fingerprint, view.fingerprint, st))
        return false;
    memcpy(window->ns, window->stream->ns, sizeof window->ns);
    memcpy(window->name, window->stream->name, sizeof window->name);
    if (request->epoch != window->stream->epoch)
        return status_fail(st, STATUS_ABORTED, "stream %s: epoch %llu was fenced by %llu", window->name,
                           (unsigned long long)request->epoch, (unsigned long long)window->stream->epoch);
    name = (struct view_stream_name){ window->ns, window->name };
    if (!check_budget(window, request->tokens, st) ||
        !view_create(&window->view, window->kvstore->store, &view, st))
        return false;
    window->count = newest(window->view, request->tokens, NULL);
    window->frames =
        arena_alloc(rpc_call_arena(window->call), ((size_t)window->count + 1) * sizeof *window->frames);
    if (window->frames == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "stream %s: too many blocks for one call", window->name);
    newest(window->view, request->tokens, window->frames + window->count);
    return true;
}

static void on_writable(struct rpc_call *call, void *user)
{
    (void)call;
    go_on(user);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct window *window = user;

    (void)call;
    block_sender_deinit(&window->sender);
    view_unref(window->view);
    free(window);
}

void kvstore_load_window(struct rpc_call *call, void *state)
{
    struct window *window = calloc(1, sizeof *window);
    struct status st = { 0 };

    if (window == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more call");
        rpc_call_finish(call, &st);
        return;
    }
    window->kvstore = state;
    window->call = call;
    window->sender = (struct block_sender){ .kvstore = window->kvstore,
                                            .call = call,
                                            .write_block = write_block,
                                            .write_chunk = write_chunk,
                                            .go_on = block_came };
    rpc_call_set_user(call, window);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    if (start(window, (const Reelkv__V1__LoadWindowRequest *)rpc_call_request(call)->body, &st))
        go_on(window);
    else
        rpc_call_finish(call, &st);
}
