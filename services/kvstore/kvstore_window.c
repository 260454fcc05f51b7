/* LoadWindow: INIT, then the newest blocks, oldest first, for a writer that fills its window again. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kvstore/block_read.h"
#include "kvstore/kvstore.h"

enum { RETRY_AFTER_MS = 100 };

/* A block being sent; attachments on their way hold it too. */
struct window_block {
    struct block_read read;
    struct window *window; /* NULL: the call is over */
    uint32_t refs;
};

struct window {
    struct kvstore *kvstore;
    struct rpc_call *call;
    struct view *view; /* holds the index's chunks */
    struct stream *stream;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    struct index_frame **frames; /* in the call's memory; oldest first */
    uint32_t count, next;
    bool is_init_done;
    struct window_block *block; /* NULL: none at hand */
    bool is_head_sent;
    uint64_t sent_bytes;
};

static void go_on(struct window *window);

static void block_unref(struct window_block *block)
{
    if (--block->refs > 0)
        return;
    block_read_release(&block->read);
    free(block);
}

static void attachment_released(void *arg)
{
    block_unref(arg);
}

static void block_done(struct block_read *read)
{
    struct window_block *block = container_of(read, struct window_block, read);
    struct window *window = block->window;

    if (window != NULL)
        go_on(window);
    block_unref(block); /* the read's own */
}

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

/* False: wait for it, or there is no next. */
static bool start_block(struct window *window)
{
    struct window_block *block;

    if (window->is_init_done && window->next == window->count) {
        rpc_call_finish(window->call, NULL);
        return false;
    }
    if (!is_still_there(window)) {
        fail(window, STATUS_NOT_FOUND, "it was removed");
        return false;
    }
    block = calloc(1, sizeof *block);
    if (block == NULL) {
        fail(window, STATUS_EXHAUSTED, "no memory for a block");
        return false;
    }
    block->window = window;
    block->refs = 2; /* the window's and the read's */
    block->read.store = window->kvstore->store;
    block->read.stream = window->stream;
    block->read.frame = window->is_init_done ? window->frames[window->next] : NULL;
    block->read.done = block_done;
    window->block = block;
    window->is_head_sent = false;
    window->sent_bytes = 0;
    if (!block_read_start(&block->read))
        return false;
    block->refs--;
    return true;
}

static void end_block(struct window *window)
{
    block_unref(window->block);
    window->block = NULL;
    if (window->is_init_done)
        window->next++;
    window->is_init_done = true;
}

static bool send_head(struct window *window)
{
    const struct kv_record *record = &window->block->read.record;
    Reelkv__V1__LoadWindowReply reply = REELKV__V1__LOAD_WINDOW_REPLY__INIT;
    Reelkv__V1__Block block = REELKV__V1__BLOCK__INIT;

    block.kind = record->type == KV_RECORD_INIT ? REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT
                                                : REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME;
    block.seq = record->seq;
    block.pts_ns = record->pts_ns;
    block.token_index = record->token_index;
    block.tokens = record->tokens;
    block.payload_bytes = kv_record_payload_bytes(record);
    block.payload_crc32c = kv_record_payload_crc(record);
    reply.item_case = REELKV__V1__LOAD_WINDOW_REPLY__ITEM_BLOCK;
    reply.block = &block;
    window->is_head_sent = rpc_call_write(window->call, &reply.base, NULL);
    return window->is_head_sent;
}

static bool send_chunk(struct window *window)
{
    struct window_block *block = window->block;
    struct kv_run run = kv_record_run(&block->read.record, window->sent_bytes);
    Reelkv__V1__LoadWindowReply reply = REELKV__V1__LOAD_WINDOW_REPLY__INIT;
    Reelkv__V1__Chunk chunk = REELKV__V1__CHUNK__INIT;
    struct rpc_attachment attachment = { .data = block->read.image + run.image,
                                         .len = run.bytes < LIMIT_CHUNK_BYTES ? run.bytes : LIMIT_CHUNK_BYTES,
                                         .release = attachment_released,
                                         .arg = block };

    reply.item_case = REELKV__V1__LOAD_WINDOW_REPLY__ITEM_CHUNK;
    reply.chunk = &chunk;
    block->refs++;
    if (!rpc_call_write(window->call, &reply.base, &attachment)) {
        block->refs--;
        return false;
    }
    window->sent_bytes += attachment.len;
    return true;
}

/* False: the call takes nothing now. */
static bool send_block(struct window *window)
{
    uint64_t bytes = kv_record_payload_bytes(&window->block->read.record);

    if (!window->is_head_sent && !send_head(window))
        return false;
    while (window->sent_bytes < bytes)
        if (!send_chunk(window))
            return false;
    return true;
}

static void go_on(struct window *window)
{
    for (;;) {
        enum frame_result result;

        if (window->block == NULL && !start_block(window))
            return;
        result = window->block->read.result;
        if (result == 0)
            return; /* on its way */
        if (result == FRAME_OK) {
            if (!send_block(window))
                return;
        } else if (window->is_init_done || result != FRAME_NOT_FOUND) {
            /* A window with a hole would not be the window. Asked again, it begins behind the damage. */
            fail(window, STATUS_ABORTED, "a block could not be read; ask again");
            return;
        }
        end_block(window);
    }
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
    if (window->block != NULL) {
        window->block->window = NULL;
        block_unref(window->block);
    }
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
    rpc_call_set_user(call, window);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    if (start(window, (const Reelkv__V1__LoadWindowRequest *)rpc_call_request(call)->body, &st))
        go_on(window);
    else
        rpc_call_finish(call, &st);
}
