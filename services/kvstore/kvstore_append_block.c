/* The block a writer is sending: room for it, its bytes, their check, and its storing. */
#include <string.h>

#include "base/require.h"
#include "kv/kv_crc.h"
#include "kvstore/kvstore_append.h"

enum { RETRY_AFTER_MS = 1000 };

/* --- waiting for room --- */

static void room_is_late(struct loop_timer *timer)
{
    struct append *append = container_of(timer, struct append, wait_timer);
    const char *why = append->stream->waits_because;
    struct status st = { 0 };

    status_fail(&st, STATUS_EXHAUSTED, "store %s has no room for a %s now: %s",
                append->kvstore->options->name, append->note != NULL ? "gap" : "block",
                why[0] != '\0' ? why : "its disk is behind");
    st.retry_after_ms = RETRY_AFTER_MS;
    append_stop_waiting(append);
    append_finish(append, &st);
}

void append_limit_wait(struct append *append)
{
    if (!loop_timer_is_running(&append->wait_timer))
        loop_timer_start(append->kvstore->loop, &append->wait_timer, append->kvstore->options->append_wait_ms,
                         room_is_late);
}

static void wait_for_room(struct append *append)
{
    store_wait_for_ram(append->kvstore->store, &append->waiter);
    append_limit_wait(append);
}

void append_stop_waiting(struct append *append)
{
    append->note = NULL;
    loop_timer_stop(&append->wait_timer);
    store_stop_waiting(append->kvstore->store, &append->waiter);
}

bool append_wants_chunk(const struct append *append)
{
    return append->slot != NULL || append->left_bytes > 0;
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
            append_finish(append, &st);
        return;
    }
    loop_timer_stop(&append->wait_timer);
    ram_unref(append->kvstore->store->arena, append->slot);
    append->slot = NULL;
    append_send_ack(append);
    append_read_next(append);
}

/* On a computing thread: from here on only the store's own copy counts. */
static void work_run(struct work *work)
{
    struct append *append = container_of(work, struct append, work);
    uint8_t *image = ram_bytes(append->kvstore->store->arena, append->slot);

    append->found_crc =
        kv_record_take(&append->record, kv_pool_reader_at(shm_pool_reader(append->pool), &append->place),
                       image);
}

/* All of it is in its slot. */
static void block_arrived(struct append *append)
{
    struct status st = { 0 };

    if (append->found_crc != append->payload_crc) {
        status_fail(&st, STATUS_DATA_LOSS, "block %llu: its checksum is %08x, the writer said %08x",
                    (unsigned long long)append->record.seq, append->found_crc, append->payload_crc);
        append_finish(append, &st);
        return;
    }
    append->is_checked = true;
    store_block(append);
}

static void work_done(struct work *work)
{
    struct append *append = container_of(work, struct append, work);

    append->is_working = false;
    if (append->call == NULL)
        append_free(append);
    else if (append->stream != NULL) /* else it is fenced, and on_end comes */
        block_arrived(append);
}

static void take_block(struct append *append)
{
    append->work = (struct work){ .run = work_run, .done = work_done };
    append->is_working = work_pool_submit(append->kvstore->store->computing, &append->work);
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
    if (append->place.length > 0) {
        take_block(append);
        return;
    }
    kv_record_intake_begin(&append->record, &append->intake);
    append_read_next(append);
}

bool append_retry(struct ram_waiter *waiter)
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
        take_block(append);
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

void append_on_block(struct append *append, const Reelkv__V1__Block *block)
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
        append_finish(append, &st);
        return;
    }
    kv_record_layout(&append->record, &layout);
    if (layout.record_bytes > ram_slot_bytes_max(arena, RAM_IMAGES)) {
        status_fail(&st, STATUS_PRECONDITION, "block of %llu bytes; ram_budget_bytes takes blocks up to %llu",
                    (unsigned long long)layout.record_bytes,
                    (unsigned long long)ram_slot_bytes_max(arena, RAM_IMAGES));
        append_finish(append, &st);
        return;
    }
    append->left_bytes = append->place.length > 0 ? 0 : block->payload_bytes;
    append->is_checked = false;
    append->payload_crc = block->payload_crc32c;
    if (is_known) {
        append_send_ack(append);
        append_read_next(append);
        return;
    }
    append->slot = ram_take(arena, RAM_IMAGES, layout.record_bytes);
    append->block = block;
    if (append->slot == NULL)
        wait_for_room(append);
    else
        receive_block(append, block);
}

/* Copied and checked in one pass, on the loop: what has just come is in a cache. */
void append_on_chunk(struct append *append, const struct rpc_payload *payload)
{
    struct status st = { 0 };

    if (payload->len == 0 || payload->len > append->left_bytes) {
        status_fail(&st, STATUS_INVALID, "a chunk of %zu bytes, %llu were to come", payload->len,
                    (unsigned long long)append->left_bytes);
        append_finish(append, &st);
        return;
    }
    append->left_bytes -= payload->len;
    if (append->slot != NULL) {
        uint8_t *image = ram_bytes(append->kvstore->store->arena, append->slot);

        for (uint32_t i = 0; i < payload->piece_count; i++)
            kv_record_intake_add(&append->record, &append->intake, payload->pieces[i].data,
                                 payload->pieces[i].len, image);
        if (append->left_bytes == 0) {
            append->found_crc = kv_record_intake_end(&append->record, &append->intake, image);
            block_arrived(append);
            return;
        }
    }
    append_read_next(append);
}
