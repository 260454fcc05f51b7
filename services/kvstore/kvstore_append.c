/* Append: a writer's blocks, gaps and end; acks back.
 *
 *   Begin -> (Block -> room in RAM -> copied and checked -> stored -> next message) ... -> half-close -> durable -> OK
 *
 * One block at a time for each call: while it waits for room nothing more is read, and with the transport's own
 * windows the writer stalls. Acks are sent when they move and the call takes them; several moves make one ack. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kv/kv_crc.h"
#include "kvstore/kvstore.h"
#include "kvstore/kvstore_directory.h"
#include "kvstore/kvstore_shm.h"

enum { RETRY_AFTER_MS = 1000 };

struct append {
    struct kvstore *kvstore;
    struct rpc_call *call; /* NULL: over */
    struct stream *stream; /* NULL: not attached, or fenced */
    struct stream_writer writer;
    struct shm_pool *pool;
    struct ram_waiter waiter;
    struct loop_timer wait_timer;
    bool ack_wanted, has_half_closed;
    /* the block at hand */
    struct kv_record record;
    struct ram_slot *slot; /* NULL: none at hand */
    uint32_t payload_crc;
    struct kv_place place; /* in the writer's pool; length 0: in chunks */
    uint64_t received_bytes, skip_bytes;
    bool is_checked;                /* only its storing is left */
    const Reelkv__V1__Block *block; /* its message, which lives until the next is read */
    /* copying and checking it, on a reading thread */
    struct work work;
    bool is_working;
    uint32_t found_crc;
};

static void read_next(struct append *append);

static void append_free(struct append *append)
{
    if (append->call != NULL || append->is_working)
        return;
    ram_unref(append->kvstore->store->arena, append->slot);
    if (append->slot != NULL)
        store_ram_freed(append->kvstore->store);
    shm_pool_unref(append->pool);
    free(append);
}

static void finish(struct append *append, const struct status *status)
{
    rpc_call_finish(append->call, status);
}

/* --- acks --- */

static uint64_t credit(const struct append *append)
{
    const struct store *store = append->kvstore->store;
    uint64_t room = ram_room_bytes(store->arena, RAM_IMAGES);

    return room / (store->writer_count == 0 ? 1 : store->writer_count);
}

static void send_ack(struct append *append)
{
    Reelkv__V1__AppendReply reply = REELKV__V1__APPEND_REPLY__INIT;

    if (append->call == NULL || append->stream == NULL)
        return;
    if (!rpc_call_can_write(append->call)) {
        append->ack_wanted = true;
        return;
    }
    append->ack_wanted = false;
    reply.stored_seq = append->stream->next_seq;
    reply.durable_seq = stream_durable_seq(append->stream);
    reply.credit_bytes = credit(append);
    rpc_call_write(append->call, &reply.base, NULL);
}

static void on_writable(struct rpc_call *call, void *user)
{
    struct append *append = user;

    if (append->ack_wanted)
        send_ack(append);
}

/* The writer has said everything: the call ends when all of it is on the disk. */
static void finish_when_durable(struct append *append)
{
    if (!append->has_half_closed || append->call == NULL || append->stream == NULL)
        return;
    if (stream_is_durable(append->stream)) {
        send_ack(append);
        finish(append, NULL);
    } else {
        stream_commit(append->stream);
    }
}

static void moved(struct stream_writer *writer)
{
    struct append *append = container_of(writer, struct append, writer);

    send_ack(append);
    finish_when_durable(append);
}

static void fenced(struct stream_writer *writer, const struct status *why)
{
    struct append *append = container_of(writer, struct append, writer);

    append->stream = NULL;
    finish(append, why);
}

/* --- waiting for room --- */

static void room_is_late(struct loop_timer *timer)
{
    struct append *append = container_of(timer, struct append, wait_timer);
    struct status st = { .retry_after_ms = RETRY_AFTER_MS };

    store_stop_waiting(append->kvstore->store, &append->waiter);
    status_fail(&st, STATUS_EXHAUSTED, "store %s has no room for a block now: its disk is behind, or full",
                append->kvstore->options->name);
    st.retry_after_ms = RETRY_AFTER_MS;
    finish(append, &st);
}

static void wait_for_room(struct append *append)
{
    store_wait_for_ram(append->kvstore->store, &append->waiter);
    if (!loop_timer_is_running(&append->wait_timer))
        loop_timer_start(append->kvstore->loop, &append->wait_timer, append->kvstore->options->append_wait_ms,
                         room_is_late);
}

/* --- a block --- */

static void store_block(struct append *append)
{
    struct stream *stream = append->stream;
    struct status st = { 0 };

    if (!stream_append(stream, &append->record, append->slot, &st)) {
        if (st.code == STATUS_EXHAUSTED)
            wait_for_room(append);
        else
            finish(append, &st);
        return;
    }
    loop_timer_stop(&append->wait_timer);
    ram_unref(append->kvstore->store->arena, append->slot);
    append->slot = NULL;
    send_ack(append);
    read_next(append);
}

/* On a reading thread: from here on only the store's own copy counts. */
static void work_run(struct work *work)
{
    struct append *append = container_of(work, struct append, work);
    uint8_t *image = ram_bytes(append->kvstore->store->arena, append->slot);

    if (append->place.length > 0)
        kv_record_scatter(&append->record, 0,
                          kv_pool_reader_at(shm_pool_reader(append->pool), &append->place),
                          append->place.length, image);
    append->found_crc = kv_record_checksum(&append->record, image);
}

static void work_done(struct work *work)
{
    struct append *append = container_of(work, struct append, work);
    struct status st = { 0 };

    append->is_working = false;
    if (append->call == NULL) {
        append_free(append);
        return;
    }
    if (append->stream == NULL)
        return; /* fenced: on_end comes */
    if (append->found_crc != append->payload_crc) {
        status_fail(&st, STATUS_DATA_LOSS, "block %llu: its checksum is %08x, the writer said %08x",
                    (unsigned long long)append->record.seq, append->found_crc, append->payload_crc);
        finish(append, &st);
        return;
    }
    append->is_checked = true;
    store_block(append);
}

static void check_block(struct append *append)
{
    append->work = (struct work){ .run = work_run, .done = work_done };
    append->is_working = work_pool_submit(append->kvstore->store->reading, &append->work);
    if (!append->is_working)
        wait_for_room(append);
}

/* The slot is there: the thumbnail goes in now, while its message lives. */
static void receive_block(struct append *append, const Reelkv__V1__Block *block)
{
    struct kv_layout layout;

    kv_record_layout(&append->record, &layout);
    if (block->thumbnail.len > 0)
        memcpy(ram_bytes(append->kvstore->store->arena, append->slot) + layout.thumbnail,
               block->thumbnail.data, block->thumbnail.len);
    if (append->place.length > 0)
        check_block(append);
    else
        read_next(append);
}

/* Takes up what waited: a slot, a thread, room in the index. */
static bool retry(struct ram_waiter *waiter)
{
    struct append *append = container_of(waiter, struct append, waiter);
    struct kv_layout layout;

    if (append->slot == NULL) {
        kv_record_layout(&append->record, &layout);
        append->slot = ram_take(append->kvstore->store->arena, RAM_IMAGES, layout.record_bytes);
        if (append->slot == NULL)
            return false;
        loop_timer_stop(&append->wait_timer);
        receive_block(append, append->block);
    } else if (append->is_checked) {
        store_block(append);
    } else {
        check_block(append);
    }
    if (!waiter->is_waiting)
        return true;
    store_stop_waiting(append->kvstore->store, waiter);
    return false;
}

static bool find_place(struct append *append, const Reelkv__V1__Block *block, struct status *st)
{
    append->place = (struct kv_place){ 0 };
    if (append->pool == NULL)
        return true;
    append->place = (struct kv_place){ .offset = block->shm_offset, .length = block->payload_bytes };
    return kv_pool_reader_check(shm_pool_reader(append->pool), &append->place, st);
}

static void on_block(struct append *append, const Reelkv__V1__Block *block)
{
    const struct stream_block said = { .is_init = block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_INIT,
                                       .seq = block->seq,
                                       .pts_ns = block->pts_ns,
                                       .token_index = block->token_index,
                                       .tokens = block->tokens,
                                       .thumbnail_bytes = block->thumbnail.len > UINT32_MAX
                                                              ? UINT32_MAX
                                                              : (uint32_t)block->thumbnail.len,
                                       .payload_bytes = block->payload_bytes };
    struct ram_arena *arena = append->kvstore->store->arena;
    struct kv_layout layout;
    struct status st = { 0 };
    bool is_known;

    if (!stream_check_block(append->stream, &said, &is_known, &append->record, &st) ||
        !find_place(append, block, &st)) {
        finish(append, &st);
        return;
    }
    kv_record_layout(&append->record, &layout);
    if (layout.record_bytes > ram_slot_bytes_max(arena, RAM_IMAGES)) {
        status_fail(&st, STATUS_PRECONDITION, "block of %llu bytes; ram_budget_bytes takes blocks up to %llu",
                    (unsigned long long)layout.record_bytes,
                    (unsigned long long)ram_slot_bytes_max(arena, RAM_IMAGES));
        finish(append, &st);
        return;
    }
    append->received_bytes = 0;
    append->is_checked = false;
    append->payload_crc = block->payload_crc32c;
    if (is_known) {
        append->skip_bytes = append->place.length > 0 ? 0 : block->payload_bytes;
        send_ack(append);
        read_next(append);
        return;
    }
    append->slot = ram_take(arena, RAM_IMAGES, layout.record_bytes);
    append->block = block;
    if (append->slot == NULL)
        wait_for_room(append);
    else
        receive_block(append, block);
}

static void on_chunk(struct append *append, const struct rpc_payload *payload)
{
    uint64_t left =
        append->slot == NULL
            ? append->skip_bytes
            : kv_payload_bytes(&append->stream->geometry, append->record.tokens) - append->received_bytes;
    size_t done = 0;
    struct status st = { 0 };

    if (payload->len == 0 || payload->len > left || append->place.length > 0) {
        status_fail(&st, STATUS_INVALID, "a chunk of %zu bytes, %llu were to come", payload->len,
                    (unsigned long long)left);
        finish(append, &st);
        return;
    }
    if (append->slot == NULL) {
        append->skip_bytes -= payload->len;
        read_next(append);
        return;
    }
    while (done < payload->len) {
        struct kv_run run = kv_record_run(&append->record, append->received_bytes);
        size_t part = run.bytes < payload->len - done ? run.bytes : payload->len - done;

        rpc_payload_copy(payload, done, ram_bytes(append->kvstore->store->arena, append->slot) + run.image,
                         part);
        done += part;
        append->received_bytes += part;
    }
    if (payload->len == left)
        check_block(append);
    else
        read_next(append);
}

/* --- other messages --- */

static void on_gap(struct append *append, const Reelkv__V1__AppendGap *message)
{
    const struct stream_gap gap = { .from_seq = message->from_seq,
                                    .to_seq = message->to_seq,
                                    .from_pts_ns = message->from_pts_ns,
                                    .to_pts_ns = message->to_pts_ns,
                                    .reason = message->reason };
    struct status st = { 0 };

    if (!stream_append_gap(append->stream, &gap, &st)) {
        finish(append, &st);
        return;
    }
    send_ack(append);
    read_next(append);
}

static void on_stream_end(struct append *append, const Reelkv__V1__AppendEnd *message)
{
    struct status st = { 0 };

    if (!stream_end(append->stream, message->trouble, &st)) {
        finish(append, &st);
        return;
    }
    kvstore_directory_changed(append->kvstore->directory, append->stream);
    send_ack(append);
    read_next(append);
}

static bool begin(struct append *append, const Reelkv__V1__AppendBegin *message, struct status *st)
{
    struct stream *stream = kvstore_stream_of(append->kvstore, message->id, st);

    if (stream == NULL)
        return false;
    if (message->shm_pool != 0) {
        if (append->kvstore->shm != NULL)
            append->pool = kvstore_shm_pool(append->kvstore->shm, message->shm_pool);
        if (append->pool == NULL)
            return status_fail(st, STATUS_PRECONDITION,
                               "shared memory pool %llx is not known here; shake hands again",
                               (unsigned long long)message->shm_pool);
    }
    if (!stream_attach(stream, message->epoch, &append->writer, st))
        return false;
    append->stream = stream;
    return true;
}

static void on_begin(struct append *append, const Reelkv__V1__AppendBegin *message)
{
    struct status st = { 0 };

    if (!begin(append, message, &st)) {
        finish(append, &st);
        return;
    }
    kvstore_directory_changed(append->kvstore->directory, append->stream);
    send_ack(append);
    read_next(append);
}

static bool is_expected(const struct append *append, const Reelkv__V1__AppendRequest *request,
                        struct status *st)
{
    bool is_begin = request->item_case == REELKV__V1__APPEND_REQUEST__ITEM_BEGIN;
    bool is_chunk = request->item_case == REELKV__V1__APPEND_REQUEST__ITEM_CHUNK;
    bool wants_chunk = append->slot != NULL || append->skip_bytes > 0;

    if (is_begin != (append->stream == NULL))
        return status_fail(st, STATUS_INVALID, "Begin comes first, and once");
    if (!is_begin && is_chunk != wants_chunk)
        return status_fail(st, STATUS_INVALID,
                           wants_chunk ? "chunks of the block before are missing"
                                       : "a chunk without a block");
    return true;
}

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct append *append = user;
    const Reelkv__V1__AppendRequest *request;
    struct status st = { 0 };

    if (message == NULL && (append->slot != NULL || append->skip_bytes > 0)) {
        status_fail(&st, STATUS_INVALID, "the writer ended in the middle of a block");
        finish(append, &st);
        return;
    }
    if (message == NULL) {
        append->has_half_closed = true;
        if (append->stream == NULL)
            finish(append, NULL);
        finish_when_durable(append);
        return;
    }
    request = (const Reelkv__V1__AppendRequest *)message->body;
    if (!is_expected(append, request, &st)) {
        finish(append, &st);
        return;
    }
    switch (request->item_case) {
    case REELKV__V1__APPEND_REQUEST__ITEM_BEGIN:
        on_begin(append, request->begin);
        return;
    case REELKV__V1__APPEND_REQUEST__ITEM_BLOCK:
        on_block(append, request->block);
        return;
    case REELKV__V1__APPEND_REQUEST__ITEM_GAP:
        on_gap(append, request->gap);
        return;
    case REELKV__V1__APPEND_REQUEST__ITEM_END:
        on_stream_end(append, request->end);
        return;
    case REELKV__V1__APPEND_REQUEST__ITEM_CHUNK:
        on_chunk(append, &message->payload);
        return;
    default:
        status_fail(&st, STATUS_INVALID, "an item that this version does not know");
        finish(append, &st);
    }
}

static void read_next(struct append *append)
{
    if (append->call != NULL && append->stream != NULL)
        rpc_call_read(append->call, on_message);
}

static void on_end(struct rpc_call *call, void *user)
{
    struct append *append = user;
    struct stream *stream = append->stream;

    append->call = NULL;
    append->stream = NULL;
    loop_timer_stop(&append->wait_timer);
    store_stop_waiting(append->kvstore->store, &append->waiter);
    if (stream != NULL) {
        stream_detach(stream, &append->writer);
        kvstore_directory_changed(append->kvstore->directory, stream);
    }
    append_free(append);
}

void kvstore_append(struct rpc_call *call, void *state)
{
    struct append *append = calloc(1, sizeof *append);
    struct status st = { 0 };

    if (append == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more writer");
        rpc_call_finish(call, &st);
        return;
    }
    append->kvstore = state;
    append->call = call;
    append->writer = (struct stream_writer){ .moved = moved, .fenced = fenced };
    append->waiter.retry = retry;
    rpc_call_set_user(call, append);
    rpc_call_on_end(call, on_end);
    rpc_call_on_writable(call, on_writable);
    rpc_call_read(call, on_message);
}
