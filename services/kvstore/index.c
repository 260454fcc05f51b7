#include "kvstore/index.h"

#include <stdlib.h>
#include <string.h>

#include "base/large.h"
#include "base/require.h"
#include "kvstore/sketches.h"

enum { LARGE_KEYS_BYTES = 64 << 10 }; /* from here on the keys of a chunk stand in large pages */

static uint64_t keys_bytes(const struct kv_geometry *geometry)
{
    return INDEX_CHUNK_FRAMES * kv_keys_bytes(geometry);
}

static uint64_t sums_bytes(const struct kv_geometry *geometry)
{
    return (uint64_t)INDEX_CHUNK_FRAMES * 2 * geometry->layers * sizeof(uint32_t);
}

/* Of a chunk but for keys in large pages. */
static uint64_t small_bytes(const struct kv_geometry *geometry)
{
    uint64_t keys = keys_bytes(geometry);

    return sizeof(struct index_chunk) + sums_bytes(geometry) + (keys < LARGE_KEYS_BYTES ? keys : 0);
}

uint64_t index_chunk_bytes(const struct kv_geometry *geometry)
{
    uint64_t keys = keys_bytes(geometry);

    return small_bytes(geometry) + (keys < LARGE_KEYS_BYTES ? 0 : large_bytes(keys));
}

uint64_t index_part_growth(const struct index_part *part, const struct kv_geometry *geometry)
{
    return part->frame_count % INDEX_CHUNK_FRAMES == 0 ? index_chunk_bytes(geometry) : 0;
}

static bool place_keys(struct index_chunk *chunk)
{
    uint64_t bytes = keys_bytes(&chunk->geometry);

    chunk->keys = (uint8_t *)chunk->sums + sums_bytes(&chunk->geometry);
    if (bytes >= LARGE_KEYS_BYTES)
        chunk->keys = large_alloc(bytes, &chunk->region);
    return chunk->keys != NULL;
}

static struct index_chunk *chunk_create(struct segment *segment, struct index_memory *memory,
                                        const struct kv_geometry *geometry)
{
    struct index_chunk *chunk = malloc(small_bytes(geometry));

    if (chunk == NULL)
        return NULL;
    memset(chunk, 0, sizeof *chunk);
    chunk->segment = segment;
    chunk->refs = 1;
    chunk->is_plain = true;
    chunk->memory = memory;
    chunk->geometry = *geometry;
    chunk->sums = (uint32_t *)(void *)(chunk + 1);
    if (!place_keys(chunk)) {
        free(chunk);
        return NULL;
    }
    memory->used_bytes += index_chunk_bytes(&chunk->geometry);
    return chunk;
}

void index_chunk_ref(struct index_chunk *chunk)
{
    chunk->refs++;
}

static void gone_add(struct index_part *part, struct index_chunk *chunk)
{
    chunk->gone_next = part->gone;
    chunk->gone_link = &part->gone;
    if (part->gone != NULL)
        part->gone->gone_link = &chunk->gone_next;
    part->gone = chunk;
}

static void gone_remove(struct index_chunk *chunk)
{
    if (chunk->gone_link == NULL)
        return;
    *chunk->gone_link = chunk->gone_next;
    if (chunk->gone_next != NULL)
        chunk->gone_next->gone_link = chunk->gone_link;
    chunk->gone_link = NULL;
}

static bool has_forgotten(const struct index_chunk *chunk)
{
    for (uint32_t i = 0; i < chunk->count; i++)
        if (chunk->frames[i].is_forgotten)
            return true;
    return false;
}

void index_chunk_judge(struct index_chunk *chunk)
{
    bool is_secret = has_forgotten(chunk);

    if (is_secret == chunk->is_secret)
        return;
    chunk->memory->secret_chunks += is_secret ? 1 : UINT32_MAX;
    chunk->is_secret = is_secret;
}

void index_chunk_unref(struct index_chunk *chunk)
{
    REQUIRE(chunk->refs > 0);
    if (--chunk->refs > 0)
        return;
    sketch_drop(chunk);
    chunk->memory->used_bytes -= index_chunk_bytes(&chunk->geometry);
    if (chunk->segment == NULL || chunk->gone_link != NULL)
        chunk->memory->gone_bytes -= index_chunk_bytes(&chunk->geometry);
    gone_remove(chunk);
    chunk->memory->secret_chunks -= chunk->is_secret;
    explicit_bzero(chunk->keys, keys_bytes(&chunk->geometry));
    if (chunk->region != NULL)
        large_free(chunk->region, chunk->keys, keys_bytes(&chunk->geometry));
    free(chunk);
}

static bool grow(struct index_part *part, struct index_chunk *chunk)
{
    uint32_t room = part->chunk_room == 0 ? 8 : part->chunk_room * 2;
    struct index_chunk **chunks;

    if (part->chunk_count == part->chunk_room) {
        chunks = realloc(part->chunks, room * sizeof *chunks);
        if (chunks == NULL)
            return false;
        part->chunks = chunks;
        part->chunk_room = room;
    }
    part->chunks[part->chunk_count++] = chunk;
    return true;
}

static void span_frame(struct index_chunk *chunk, uint32_t at)
{
    int64_t pts_ns = chunk->frames[at].pts_ns;

    if (at == 0 || pts_ns < chunk->first_pts_ns)
        chunk->first_pts_ns = pts_ns;
    if (at == 0 || pts_ns > chunk->last_pts_ns)
        chunk->last_pts_ns = pts_ns;
}

struct index_frame *index_part_add(struct index_part *part, struct segment *segment,
                                   struct index_memory *memory, const struct kv_geometry *geometry,
                                   const struct index_frame *frame)
{
    struct index_chunk *chunk;
    struct index_frame *added;

    if (part->frame_count % INDEX_CHUNK_FRAMES == 0) {
        chunk = chunk_create(segment, memory, geometry);
        if (chunk == NULL)
            return NULL;
        if (!grow(part, chunk)) {
            index_chunk_unref(chunk);
            return NULL;
        }
    }
    chunk = part->chunks[part->chunk_count - 1];
    added = &chunk->frames[chunk->count];
    *added = *frame;
    added->chunk = chunk;
    span_frame(chunk, chunk->count++);
    chunk->is_plain &= added->has_slices && !added->is_quarantined && !added->is_forgotten;
    added->image = NULL;
    added->slices = NULL;
    part->frame_count++;
    return added;
}

void index_frame_quarantine(struct index_frame *frame)
{
    frame->is_quarantined = true;
    frame->chunk->is_plain = false;
}

void index_frame_forget(struct index_frame *frame)
{
    frame->is_forgotten = true;
    frame->chunk->is_plain = false;
}

static uint32_t place_of(const struct index_frame *frame)
{
    return (uint32_t)(frame - frame->chunk->frames);
}

uint8_t *index_frame_key(const struct index_frame *frame, uint32_t layer)
{
    const struct index_chunk *chunk = frame->chunk;

    return chunk->keys +
           ((uint64_t)layer * INDEX_CHUNK_FRAMES + place_of(frame)) * kv_key_bytes(&chunk->geometry);
}

uint32_t *index_frame_sums(const struct index_frame *frame)
{
    return frame->chunk->sums + (uint64_t)place_of(frame) * 2 * frame->chunk->geometry.layers;
}

void index_frame_fill(const struct index_frame *frame, const struct kv_super *super,
                      const struct kv_record *record, const uint8_t *image)
{
    uint32_t key_bytes = kv_key_bytes(&super->geometry), *sums = index_frame_sums(frame);
    struct kv_layout layout;

    kv_record_layout(record, &layout);
    memset(sums, 0, 2 * super->geometry.layers * sizeof *sums);
    for (uint32_t i = 0; i < 2 * record->layers; i++)
        sums[i] = kv_slice_crc_written(super, record->seq, i, record->slices[i].crc, record->slices[i].bytes);
    for (uint32_t layer = 0; layer < super->geometry.layers; layer++)
        memcpy(index_frame_key(frame, layer), image + layout.keys + (uint64_t)layer * key_bytes, key_bytes);
}

struct index_frame *index_part_at(const struct index_part *part, uint64_t n)
{
    REQUIRE(n < part->frame_count);
    return &part->chunks[n / INDEX_CHUNK_FRAMES]->frames[n % INDEX_CHUNK_FRAMES];
}

uint64_t index_part_place(const struct index_part *part, uint64_t seq)
{
    uint64_t low = 0, high = part->frame_count;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (index_part_at(part, middle)->seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct index_frame *index_part_find(const struct index_part *part, uint64_t seq)
{
    uint64_t place = index_part_place(part, seq);

    if (place == part->frame_count || index_part_at(part, place)->seq != seq)
        return NULL;
    return index_part_at(part, place);
}

static void drop_copy(const struct index_frame *frame, struct ram_slot **owner, struct ram_arena *arena)
{
    if (frame->is_forgotten)
        ram_make_secret(arena, *owner);
    ram_drop(arena, owner);
}

void index_frame_drop_copies(struct index_frame *frame, struct ram_arena *arena)
{
    drop_copy(frame, &frame->image, arena);
    for (uint32_t layer = 0; frame->slices != NULL && layer < frame->chunk->geometry.layers; layer++)
        drop_copy(frame, &frame->slices[layer], arena);
    free(frame->slices);
    frame->slices = NULL;
}

static void chunk_drop(struct index_chunk *chunk, struct ram_arena *arena)
{
    for (uint32_t i = 0; i < chunk->count; i++)
        index_frame_drop_copies(&chunk->frames[i], arena);
    chunk->segment = NULL;
    chunk->memory->gone_bytes += index_chunk_bytes(&chunk->geometry);
    index_chunk_judge(chunk);
    index_chunk_unref(chunk);
}

void index_part_cut(struct index_part *part, uint64_t count)
{
    /* Chunks stay, though empty: questions may hold them, and find is_moved. */
    while (part->frame_count > count) {
        struct index_frame *last = index_part_at(part, part->frame_count - 1);

        REQUIRE(last->image == NULL);
        REQUIRE(last->slices == NULL);
        last->is_moved = true;
        last->chunk->count--;
        for (uint32_t i = 0; i < last->chunk->count; i++)
            span_frame(last->chunk, i);
        part->frame_count--;
    }
}

static void frame_move(struct index_frame *from, struct index_frame *to, struct ram_arena *arena)
{
    from->is_moved = true;
    if (to != NULL && from->is_quarantined)
        index_frame_quarantine(to);
    if (to != NULL && from->is_forgotten)
        index_frame_forget(to);
    if (to != NULL && to->has_slices && to->encoding.bits == from->encoding.bits) {
        to->slices = from->slices;
        from->slices = NULL;
    }
    index_frame_drop_copies(from, arena); /* an image has the old file's header */
}

/* Both parts are in the order of numbers. */
static void chunk_move(struct index_chunk *chunk, struct index_part *part, uint64_t *at,
                       struct ram_arena *arena)
{
    for (uint32_t i = 0; i < chunk->count; i++) {
        struct index_frame *frame = &chunk->frames[i], *to = NULL;

        while (*at < part->frame_count && index_part_at(part, *at)->seq < frame->seq)
            ++*at;
        if (*at < part->frame_count && index_part_at(part, *at)->seq == frame->seq)
            to = index_part_at(part, *at);
        frame_move(frame, to, arena);
    }
}

void index_part_replace(struct index_part *old, struct index_part *part, struct segment *segment,
                        struct index_memory *memory, struct ram_arena *arena)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < part->chunk_count; i++) {
        part->chunks[i]->memory = memory;
        part->chunks[i]->segment = segment;
        memory->used_bytes += index_chunk_bytes(&part->chunks[i]->geometry);
    }
    while (old->gone != NULL) {
        struct index_chunk *chunk = old->gone;

        gone_remove(chunk);
        chunk->segment = segment;
        gone_add(part, chunk);
    }
    for (uint32_t i = 0; i < old->chunk_count; i++) {
        struct index_chunk *chunk = old->chunks[i];

        chunk_move(chunk, part, &at, arena);
        chunk->segment = segment;
        memory->gone_bytes += index_chunk_bytes(&chunk->geometry);
        gone_add(part, chunk);
        index_chunk_judge(chunk);
        index_chunk_unref(chunk);
    }
    free(old->chunks);
    *old = (struct index_part){ 0 };
}

void index_part_drop(struct index_part *part, struct ram_arena *arena)
{
    while (part->gone != NULL) {
        part->gone->segment = NULL;
        gone_remove(part->gone);
    }
    for (uint32_t i = 0; i < part->chunk_count; i++)
        chunk_drop(part->chunks[i], arena);
    free(part->chunks);
    *part = (struct index_part){ 0 };
}

bool index_frame_keep_slice(struct index_frame *frame, uint32_t layer, struct ram_arena *arena,
                            struct ram_slot *slot)
{
    if (frame->slices == NULL)
        frame->slices = calloc(frame->chunk->geometry.layers, sizeof *frame->slices);
    if (frame->slices == NULL)
        return false;
    ram_publish(arena, slot, &frame->slices[layer], NULL);
    return true;
}

bool index_frame_is_in_ram(const struct index_frame *frame)
{
    bool is_in_ram = frame->image != NULL;

    for (uint32_t layer = 0; frame->slices != NULL && layer < frame->chunk->geometry.layers; layer++)
        is_in_ram |= frame->slices[layer] != NULL;
    return is_in_ram;
}
