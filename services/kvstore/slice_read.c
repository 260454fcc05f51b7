#include "kvstore/slice_read.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "kvstore/read_ahead.h"
#include "kvstore/slice_waiters.h"

enum frame_result frame_result_of_absence(enum stream_absence absence)
{
    switch (absence) {
    case STREAM_ABSENT_EVICTED:
        return FRAME_EVICTED;
    case STREAM_ABSENT_GAP:
        return FRAME_GAP;
    case STREAM_ABSENT_DAMAGED:
        return FRAME_QUARANTINED;
    case STREAM_ABSENT_NOT_FOUND:
        break;
    }
    return FRAME_NOT_FOUND;
}

static uint64_t slice_bytes(const struct slice_read *read)
{
    return kv_slice_bytes(&read->chunk->geometry, read->frame->tokens);
}

/* In a slot a decoded layer stands at its beginning, with the CRCs of K and V behind it; one that is as it was written
 * stands where it stood in its page. */
enum { DECODED_CRC_BYTES = 2 * sizeof(uint32_t) };

static bool is_decoded(const struct slice_read *read)
{
    return read->layer != SLICE_THUMBNAIL && read->frame->encoding.bits != 0;
}

static uint64_t written_bytes(const struct slice_read *read)
{
    return kv_encoding_bytes(&read->chunk->geometry, read->frame->encoding, read->frame->tokens);
}

/* What stands before the part asked for in a layer's pair. */
static uint64_t part_at(const struct slice_read *read)
{
    return read->parts == SLICE_V ? slice_bytes(read) : 0;
}

/* Only the part is read from the disk; it is not kept, so its place is not told either. What is to be decoded is a pair. */
static bool is_half(const struct slice_read *read)
{
    return read->layer != SLICE_THUMBNAIL && read->parts != SLICE_BOTH && !is_decoded(read);
}

/* Of the layer's pair or the thumbnail, from the record's start. */
static uint64_t offset_in_record(const struct slice_read *read)
{
    uint64_t pair = 2 * written_bytes(read);

    if (read->layer == SLICE_THUMBNAIL)
        return read->frame->thumbnail_at;
    return read->frame->slices_at + read->layer * round_up(pair, KV_PART_ALIGN);
}

static uint64_t offset_in_slot(const struct slice_read *read)
{
    return is_decoded(read) ? 0 : offset_in_record(read) % KV_PAGE_BYTES;
}

/* What the frame's K (0) or V (1) must hash to, as written. */
static uint32_t written_crc(const struct slice_read *read, uint32_t which)
{
    uint32_t slice = 2 * read->layer + which;

    return kv_slice_crc_plain(&read->segment->super, read->frame->seq, slice,
                              index_frame_sums(read->frame)[slice], written_bytes(read));
}

/* The same of the layer in its slot. */
static uint32_t expected_crc(const struct slice_read *read, uint32_t which)
{
    if (is_decoded(read))
        return get_u32(read->bytes - part_at(read) + 2 * slice_bytes(read) + which * sizeof(uint32_t));
    return written_crc(read, which);
}

/* And of what was asked for of it. */
static uint32_t layer_crc(const struct slice_read *read)
{
    if (read->parts != SLICE_BOTH)
        return expected_crc(read, read->parts == SLICE_V);
    return kv_crc_join(expected_crc(read, 0), expected_crc(read, 1), slice_bytes(read));
}

/* --- on a thread --- */

/* The zeros between a part, which ends there, and the next one were read with it: where they are none, the disk is not to
 * be trusted. */
static bool check_zeros(struct slice_read *read, const uint8_t *end, uint64_t end_at, uint64_t next_at)
{
    return bytes_are_zero(end, next_at - end_at) ||
           status_fail(&read->fetch.st, STATUS_DATA_LOSS, "the bytes behind a part are not zero");
}

/* Behind V as it is written. */
static bool check_layer_end(struct slice_read *read, const uint8_t *end)
{
    uint64_t end_at = offset_in_record(read) + 2 * written_bytes(read);
    bool is_last = read->layer + 1 == read->chunk->geometry.layers;

    return check_zeros(read, end, end_at,
                       is_last ? read->frame->record_bytes : round_up(end_at, KV_PART_ALIGN));
}

static bool check_layer(struct slice_read *read)
{
    read->crc = kv_crc(0, read->bytes, read->length);
    if (read->crc != layer_crc(read))
        return status_fail(&read->fetch.st, STATUS_DATA_LOSS, "checksum of layer %u does not fit",
                           read->layer);
    return true;
}

/* `from` is the layer as it is written. */
static bool decode_layer(struct slice_read *read, const uint8_t *from)
{
    uint64_t bytes = slice_bytes(read), stored = written_bytes(read);
    uint8_t *to = ram_bytes(read->store->arena, read->slot);

    for (uint32_t which = 0; which < 2; which++) {
        if (kv_crc(0, from + which * stored, stored) != written_crc(read, which))
            return status_fail(&read->fetch.st, STATUS_DATA_LOSS, "checksum of layer %u does not fit",
                               read->layer);
        kv_quant_decode(&read->chunk->geometry, read->frame->encoding, read->frame->tokens,
                        from + which * stored, to + which * bytes);
        put_u32(to + 2 * bytes + which * sizeof(uint32_t), kv_crc(0, to + which * bytes, bytes));
    }
    memset(to + 2 * bytes + DECODED_CRC_BYTES, 0, read->slot->bytes - 2 * bytes - DECODED_CRC_BYTES);
    read->bytes = to + part_at(read);
    read->crc = layer_crc(read);
    return check_layer_end(read, from + 2 * stored);
}

/* `image` begins with the record's header. One in RAM gets another header when its file fails (stream_rewrite.c), on
 * the loop: there it is read too. */
static bool take_header(struct slice_read *read, const uint8_t *image)
{
    uint32_t header_crc;

    if (!kv_record_get(read->header, &header_crc, &read->segment->super, image, &read->fetch.st))
        return false;
    if (read->header->seq != read->frame->seq || read->header->thumbnail_bytes != read->length)
        return status_fail(&read->fetch.st, STATUS_DATA_LOSS, "another record stands there");
    return true;
}

static bool check_thumbnail(struct slice_read *read)
{
    uint64_t end = offset_in_record(read) + read->length;

    read->crc = kv_crc(0, read->bytes, read->length);
    if (read->crc != read->header->thumbnail_crc)
        return status_fail(&read->fetch.st, STATUS_DATA_LOSS, "checksum of the thumbnail does not fit");
    return check_zeros(read, read->bytes + read->length, end, round_up(end, KV_PART_ALIGN));
}

static bool check(struct segment_fetch *fetch)
{
    struct slice_read *read = container_of(fetch, struct slice_read, fetch);
    uint64_t at = offset_in_record(read) + (is_half(read) ? part_at(read) : 0);

    if (read->layer == SLICE_THUMBNAIL) {
        if (read->is_from_disk) {
            read->bytes = read->buffer + at;
            read->has_header = take_header(read, read->buffer);
        }
        return read->has_header && check_thumbnail(read);
    }
    if (!read->is_from_disk)
        return check_layer(read);
    if (is_decoded(read))
        return decode_layer(read, read->buffer + at % KV_PAGE_BYTES);
    read->bytes = fetch->to + at % KV_PAGE_BYTES;
    return check_layer(read) && (read->parts == SLICE_K || check_layer_end(read, read->bytes + read->length));
}

/* --- on the loop --- */

static bool answer(struct slice_read *read, enum frame_result result)
{
    read->result = result;
    if (!frame_result_has_bytes(result))
        read->length = 0;
    return true;
}

static bool answer_bytes(struct slice_read *read)
{
    return answer(read, is_decoded(read) ? FRAME_DERIVED : FRAME_OK);
}

static void quarantine(struct slice_read *read)
{
    const struct log_context context = { .stream = read->segment->super.stream };

    log_error(&context, "frame_quarantined", "frame %llu in %s: %s", (unsigned long long)read->frame->seq,
              read->segment->base, read->fetch.st.text);
    stream_quarantine(read->segment, read->frame);
    answer(read, FRAME_QUARANTINED);
}

/* Damaged in RAM only: the disk has it still, if it is there yet. */
static bool can_try_disk(const struct slice_read *read)
{
    return !read->is_from_disk && read->fetch.st.code == STATUS_DATA_LOSS && read->slot != NULL &&
           read->slot->pins == 0 && read->chunk->segment != NULL && !read->segment->is_leaving;
}

/* A moved frame is judged where it is now. */
static void let_go_of_copy(struct slice_read *read)
{
    struct ram_arena *arena = read->store->arena;
    const struct log_context context = { .stream = read->segment->super.stream };

    if (!read->frame->is_moved) {
        log_error(&context, "ram_copy_damaged", "frame %llu: %s; reading it from the disk",
                  (unsigned long long)read->frame->seq, read->fetch.st.text);
        if (read->slot->owner != NULL)
            ram_drop(arena, read->slot->owner);
    }
    ram_unref(arena, read->slot);
    read->slot = NULL;
}

/* Kept for the next question; when another read was faster, its copy is the one that stays. */
static void keep_slice(struct slice_read *read)
{
    struct index_frame *frame = read->frame;
    struct ram_arena *arena = read->store->arena;

    if (is_half(read) || read->layer == SLICE_THUMBNAIL || read->chunk->segment == NULL ||
        read->segment->is_leaving || frame->is_moved)
        return;
    if (frame->slices == NULL || frame->slices[read->layer] == NULL) {
        index_frame_keep_slice(frame, read->layer, arena, read->slot);
        return;
    }
    ram_unref(arena, read->slot);
    read->slot = frame->slices[read->layer];
    ram_ref(arena, read->slot);
    read->bytes = ram_bytes(arena, read->slot) + offset_in_slot(read) + part_at(read);
}

static void fetched(struct segment_fetch *fetch)
{
    struct slice_read *read = container_of(fetch, struct slice_read, fetch);
    struct stream *stream = read->segment->stream;
    struct store *store = read->store;

    read->is_running = false;
    if (fetch->ok) {
        answer_bytes(read);
        if (read->is_from_disk)
            keep_slice(read);
    } else if (read->frame->is_moved || can_try_disk(read)) {
        let_go_of_copy(read);
        if (!slice_read_start(read))
            return;
    } else if (read->fetch.st.code == STATUS_DATA_LOSS) {
        quarantine(read);
    } else {
        const struct log_context context = { .stream = read->segment->super.stream };

        log_warn(&context, "frame_unavailable", "frame %llu: %s", (unsigned long long)read->frame->seq,
                 read->fetch.st.text);
        answer(read, FRAME_UNAVAILABLE);
    }
    stream_progress(stream);
    read->done(read);
    read_ahead_pump(store); /* those that done() has started go first */
}

/* What was taken is given back: by its turn the frame may have moved, or its RAM copy been dropped. */
static bool wait_for_room(struct slice_read *read)
{
    ram_unref(read->store->arena, read->slot);
    read->slot = NULL;
    if (read->is_ahead)
        return answer(read, FRAME_UNAVAILABLE);
    slice_wait(read);
    return false;
}

/* The pages of the record that are read: those that hold the layer, or the half of it, as it is written; or the
 * thumbnail's, from the header on. */
static void place_fetch(struct slice_read *read)
{
    struct segment_fetch *fetch = &read->fetch;
    uint64_t at = offset_in_record(read) + (is_half(read) ? part_at(read) : 0), from = 0,
             bytes = read->length;

    fetch->to = read->buffer;
    if (read->layer != SLICE_THUMBNAIL) {
        from = round_down(at, KV_PAGE_BYTES);
        bytes = (is_half(read) ? 1 : 2) * written_bytes(read);
        if (!is_decoded(read))
            fetch->to = ram_bytes(read->store->arena, read->slot);
    }
    fetch->offset = read->frame->offset + from;
    fetch->bytes = round_up(at + bytes, KV_PAGE_BYTES) - from;
}

static bool submit(struct slice_read *read)
{
    read->segment = read->chunk->segment;
    read->fetch = (struct segment_fetch){
        .segment = read->segment, .is_ahead = read->is_ahead, .check = check, .done = fetched
    };
    if (read->is_from_disk)
        place_fetch(read);
    read->is_running = segment_fetch_start(&read->fetch);
    return read->is_running ? false : wait_for_room(read);
}

static void use_slot(struct slice_read *read, struct ram_slot *slot, uint64_t at)
{
    REQUIRE(read->slot == NULL);
    ram_ref(read->store->arena, slot);
    ram_touch(slot);
    read->slot = slot;
    read->bytes = ram_bytes(read->store->arena, slot) + at;
}

static bool take_buffer(struct slice_read *read, uint64_t bytes)
{
    read->buffer = disk_buffer(bytes);
    read->buffer_bytes = bytes;
    return read->buffer != NULL;
}

static bool start_thumbnail(struct slice_read *read)
{
    struct index_frame *frame = read->frame;

    read->length = frame->thumbnail_bytes;
    if (read->length == 0)
        return answer(read, FRAME_OK);
    if (read->header == NULL)
        read->header = malloc(sizeof *read->header);
    if (read->header == NULL)
        return answer(read, FRAME_UNAVAILABLE);
    read->segment = read->chunk->segment;
    read->is_from_disk = frame->image == NULL;
    if (!read->is_from_disk) {
        use_slot(read, frame->image, frame->thumbnail_at);
        read->has_header = take_header(read, ram_bytes(read->store->arena, read->slot));
    } else if (read->buffer == NULL) {
        take_buffer(read, round_up(frame->thumbnail_at + read->length, KV_PAGE_BYTES));
    }
    if (read->is_from_disk && read->buffer == NULL)
        return answer(read, FRAME_UNAVAILABLE);
    return submit(read);
}

/* The pages of a layer that is to be decoded. */
static bool make_buffer(struct slice_read *read)
{
    uint64_t at = offset_in_record(read) % KV_PAGE_BYTES;

    disk_buffer_free(read->buffer, read->buffer_bytes); /* a moved frame may be written otherwise */
    return take_buffer(read, round_up(at + 2 * written_bytes(read), KV_PAGE_BYTES));
}

static bool start_layer(struct slice_read *read)
{
    struct index_frame *frame = read->frame;
    struct ram_slot *slice = frame->slices == NULL ? NULL : frame->slices[read->layer];
    uint64_t bytes =
        offset_in_slot(read) + 2 * slice_bytes(read) + (is_decoded(read) ? DECODED_CRC_BYTES : 0);

    if (is_half(read))
        bytes = (offset_in_record(read) + part_at(read)) % KV_PAGE_BYTES + slice_bytes(read);
    read->length = (read->parts == SLICE_BOTH ? 2 : 1) * slice_bytes(read);
    read->segment = read->chunk->segment;
    read->is_from_disk = frame->image == NULL && slice == NULL;
    if (!read->is_from_disk) {
        if (frame->image != NULL)
            use_slot(read, frame->image, offset_in_record(read) + part_at(read));
        else
            use_slot(read, slice, offset_in_slot(read) + part_at(read));
        if (!read->is_shared)
            return submit(read);
        read->crc = layer_crc(read);
        return answer_bytes(read);
    }
    bytes = round_up(bytes, KV_PAGE_BYTES);
    if (bytes > ram_slot_bytes_max(read->store->arena, RAM_SLICES) ||
        (is_decoded(read) && !make_buffer(read)))
        return answer(read, FRAME_UNAVAILABLE);
    if (!read->is_ahead && read_ahead_is_reading(read->store, frame, read->layer))
        return wait_for_room(read); /* until that one has come */
    REQUIRE(read->slot == NULL);
    read->slot = ram_take(read->store->arena, RAM_SLICES, bytes);
    return read->slot == NULL ? wait_for_room(read) : submit(read);
}

/* A frame whose file failed, or was rewritten, has moved on; or it has gone. */
static bool find_again(struct slice_read *read, enum frame_result *result_p)
{
    const struct segment *segment = read->frame->chunk->segment;
    struct index_frame *frame;

    *result_p = FRAME_EVICTED;
    if (segment == NULL)
        return false;
    frame = stream_find(segment->stream, read->frame->seq);
    if (frame == NULL)
        *result_p = frame_result_of_absence(stream_absence_of(segment->stream, read->frame->seq));
    else
        read->frame = frame;
    return frame != NULL;
}

static void hold_chunk(struct slice_read *read)
{
    struct index_chunk *held = read->chunk;

    if (held == read->frame->chunk)
        return;
    read->chunk = read->frame->chunk;
    index_chunk_ref(read->chunk);
    if (held != NULL)
        index_chunk_unref(held);
}

bool slice_read_start(struct slice_read *read)
{
    enum frame_result result;

    if (read->frame->is_moved && !find_again(read, &result))
        return answer(read, result);
    hold_chunk(read);
    if (read->chunk->segment == NULL || read->chunk->segment->is_leaving || read->frame->is_forgotten)
        return answer(read, FRAME_EVICTED);
    if (read->frame->is_quarantined)
        return answer(read, FRAME_QUARANTINED);
    if (read->layer != SLICE_THUMBNAIL && !read->frame->has_slices)
        return answer(read, FRAME_EVICTED);
    if (read->chunk->is_blank && read->layer != SLICE_THUMBNAIL)
        return keys_want(read->chunk->segment) ? wait_for_room(read) : answer(read, FRAME_UNAVAILABLE);
    return read->layer == SLICE_THUMBNAIL ? start_thumbnail(read) : start_layer(read);
}

void slice_read_release(struct slice_read *read)
{
    struct store *store = read->store;

    REQUIRE(!read->is_running);
    if (read->is_waiting)
        slice_stop_waiting(read);
    if (read->frame->is_forgotten)
        ram_make_secret(store->arena, read->slot);
    ram_unref(store->arena, read->slot);
    disk_buffer_free(read->buffer, read->buffer_bytes);
    free(read->header);
    if (read->chunk != NULL)
        index_chunk_unref(read->chunk);
    read->slot = NULL;
    read->buffer = NULL;
    read->header = NULL;
    read->chunk = NULL;
    read->segment = NULL;
    if (store->read_waiters != NULL)
        store_reads_retry(store);
}
