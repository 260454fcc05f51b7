#include "kvstore/block_read.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/require.h"
#include "kvstore/read_ahead.h"

static bool answer(struct block_read *read, enum frame_result result)
{
    read->result = result;
    return true;
}

/* --- on a thread --- */

/* An image that is in RAM gets another header when its file fails (stream_rewrite.c), on the loop. So the header of such
 * a one is read there too, when the read starts; what stands behind it never changes. */
static bool take_header(struct block_read *read)
{
    struct kv_layout layout;
    uint32_t crc;

    if (!kv_record_get(&read->record, &crc, &read->segment->super, read->image, &read->fetch.st))
        return false;
    kv_record_layout(&read->record, &layout);
    if (layout.record_bytes != read->bytes || (read->frame != NULL && read->record.seq != read->frame->seq))
        return status_fail(&read->fetch.st, STATUS_DATA_LOSS, "another record stands there");
    return true;
}

static void move_part(struct block_read *read, uint64_t to, uint64_t from, uint64_t bytes)
{
    memcpy(read->buffer + to, read->image + from, bytes);
}

/* The block as if it had come with the numbers that are read from it now. */
static void decode(struct block_read *read)
{
    const struct kv_geometry *geometry = &read->chunk->geometry;
    struct kv_record_part part = { 0 }, plain_part = { 0 };
    struct kv_record plain = read->record;
    struct kv_layout from, to;

    kv_record_encode(&plain, geometry, (struct kv_encoding){ 0 });
    kv_record_layout(&read->record, &from);
    kv_record_layout(&plain, &to);
    move_part(read, to.note, from.note, plain.note_bytes);
    move_part(read, to.thumbnail, from.thumbnail, plain.thumbnail_bytes);
    move_part(read, to.embedding, from.embedding, plain.embedding_bytes);
    move_part(read, to.keys, from.keys, plain.keys_bytes);
    while (kv_record_next_part(&read->record, &part) && kv_record_next_part(&plain, &plain_part))
        if (part.slice >= 0)
            kv_quant_decode(geometry, read->frame->encoding, plain.tokens, read->image + part.at,
                            read->buffer + plain_part.at);
    kv_record_checksum(&plain, read->buffer);
    read->record = plain;
    read->image = read->buffer;
}

static bool check(struct segment_fetch *fetch)
{
    struct block_read *read = container_of(fetch, struct block_read, fetch);

    if ((read->is_from_disk && !take_header(read)) ||
        !kv_record_verify(&read->record, read->image, &fetch->st))
        return false;
    if (read->is_reduced)
        decode(read);
    return true;
}

/* --- on the loop --- */

static void fail(struct block_read *read)
{
    const struct log_context context = { .stream = read->segment->super.stream };
    bool has_moved =
        read->frame != NULL && read->frame->is_moved; /* written again: asked again, it is found */
    bool is_damage = read->fetch.st.code == STATUS_DATA_LOSS && !has_moved;

    log_error(&context, is_damage ? "block_quarantined" : "block_unavailable", "%s in %s",
              read->fetch.st.text, read->segment->base);
    if (is_damage && read->frame != NULL)
        stream_quarantine(read->segment, read->frame);
    answer(read, is_damage ? FRAME_QUARANTINED : FRAME_UNAVAILABLE);
}

static void fetched(struct segment_fetch *fetch)
{
    struct block_read *read = container_of(fetch, struct block_read, fetch);
    struct index_frame *frame = read->frame;
    struct stream *stream = read->segment->stream;
    struct store *store = read->store;

    read->is_running = false;
    if (!fetch->ok) {
        fail(read);
    } else {
        answer(read, read->is_reduced ? FRAME_DERIVED : FRAME_OK);
        if (!read->is_reduced && read->is_from_disk && frame != NULL && frame->image == NULL &&
            read->chunk->segment != NULL && !read->segment->is_leaving && !frame->is_moved)
            ram_publish(read->store->arena, read->slot, &frame->image, NULL);
    }
    stream_progress(stream);
    read->done(read);
    read_ahead_pump(store);
}

/* False: the threads' queue is full. */
static bool submit(struct block_read *read)
{
    read->fetch = (struct segment_fetch){ .segment = read->segment, .check = check, .done = fetched };
    if (read->is_from_disk) {
        read->fetch.to = (uint8_t *)(uintptr_t)read->image;
        read->fetch.offset = read->offset;
        read->fetch.bytes = read->bytes;
    }
    read->is_running = segment_fetch_start(&read->fetch);
    return read->is_running;
}

static bool retry(struct ram_waiter *waiter)
{
    struct block_read *read = container_of(waiter, struct block_read, waiter);

    if (block_read_start(read)) {
        read->done(read);
        return true;
    }
    if (!waiter->is_waiting)
        return true;
    store_stop_waiting(read->store, waiter); /* it has put itself to the end; it is the first */
    return false;
}

static bool take_buffer(struct block_read *read, uint64_t bytes)
{
    read->buffer = disk_buffer(bytes);
    read->buffer_bytes = bytes;
    return read->buffer != NULL;
}

static bool make_buffer(struct block_read *read)
{
    struct kv_record plain;
    struct kv_layout layout;

    if (read->buffer != NULL)
        return true;
    kv_record_init_block(&plain, KV_RECORD_FRAME, &read->chunk->geometry, read->frame->tokens);
    plain.note_bytes = KV_NOTE_BYTES_MAX; /* these are not known yet */
    plain.embedding_bytes = KV_EMBEDDING_BYTES_MAX;
    plain.thumbnail_bytes = read->frame->thumbnail_bytes;
    kv_record_layout(&plain, &layout);
    return take_buffer(read, layout.record_bytes);
}

static bool start_frame(struct block_read *read)
{
    struct index_frame *frame = read->frame;

    if (frame->is_moved) /* asked again, it is found */
        return answer(read, FRAME_UNAVAILABLE);
    if (read->chunk == NULL) {
        read->chunk = frame->chunk;
        index_chunk_ref(read->chunk);
    }
    read->segment = read->chunk->segment;
    if (read->segment == NULL || read->segment->is_leaving || frame->is_forgotten)
        return answer(read, FRAME_EVICTED);
    if (frame->is_quarantined)
        return answer(read, FRAME_QUARANTINED);
    read->is_reduced = frame->encoding.bits != 0;
    if (!frame->has_slices || (read->is_reduced && !read->takes_reduced)) /* it is no more what came */
        return answer(read, FRAME_EVICTED);
    if (read->is_reduced && !make_buffer(read))
        return answer(read, FRAME_UNAVAILABLE);
    read->offset = frame->offset;
    read->bytes = frame->record_bytes;
    if (read->slot == NULL && frame->image != NULL) {
        read->slot = frame->image;
        ram_ref(read->store->arena, read->slot);
        read->image = ram_bytes(read->store->arena, read->slot);
        read->is_from_disk = false;
        if (!take_header(read)) {
            fail(read);
            return true;
        }
    } else if (read->slot == NULL) {
        read->slot = ram_take(read->store->arena, RAM_IMAGES, read->bytes);
        read->is_from_disk = true;
    }
    if (read->slot != NULL)
        read->image = ram_bytes(read->store->arena, read->slot);
    if (read->slot == NULL || !submit(read))
        store_wait_for_ram(read->store, &read->waiter);
    return false;
}

/* The newest segment with an INIT of the stream's model, which may have been another while there was no frame. */
static struct segment *segment_with_init(const struct stream *stream)
{
    for (uint32_t i = stream->segment_count; i > 0; i--) {
        struct segment *segment = stream->segments[i - 1];

        if (segment->init_offset != 0 && !segment->is_leaving &&
            memcmp(segment->super.fingerprint, stream->fingerprint, KV_FINGERPRINT_BYTES) == 0)
            return segment;
    }
    return NULL;
}

/* Where there is no copy in memory, that of every segment is on the disk. Nothing holds the stream here, so this does not
 * wait. */
static bool start_init(struct block_read *read)
{
    const struct stream *stream = read->stream;

    if (stream->init_record.layers != 0) {
        struct kv_layout layout;

        read->record = stream->init_record;
        kv_record_layout(&read->record, &layout);
        if (!take_buffer(read, layout.record_bytes))
            return answer(read, FRAME_UNAVAILABLE);
        memcpy(read->buffer, stream->init_image, layout.record_bytes);
        read->image = read->buffer;
        return answer(read, FRAME_OK);
    }
    read->segment = segment_with_init(stream);
    if (read->segment == NULL)
        return answer(read, FRAME_NOT_FOUND);
    read->offset = read->segment->init_offset;
    read->bytes = read->segment->init_bytes;
    read->is_from_disk = true;
    take_buffer(read, read->bytes);
    read->image = read->buffer;
    if (read->buffer == NULL || !submit(read))
        return answer(read, FRAME_UNAVAILABLE);
    return false;
}

bool block_read_start(struct block_read *read)
{
    read->waiter.retry = retry;
    return read->frame == NULL ? start_init(read) : start_frame(read);
}

void block_read_release(struct block_read *read)
{
    REQUIRE(!read->is_running);
    store_stop_waiting(read->store, &read->waiter);
    if (read->frame != NULL && read->frame->is_forgotten)
        ram_make_secret(read->store->arena, read->slot);
    ram_unref(read->store->arena, read->slot);
    disk_buffer_free(read->buffer, read->buffer_bytes);
    if (read->chunk != NULL)
        index_chunk_unref(read->chunk);
    read->slot = NULL;
    read->buffer = NULL;
    read->chunk = NULL;
    read->segment = NULL;
    store_ram_freed(read->store);
}
