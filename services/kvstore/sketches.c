#include "kvstore/sketches.h"

#include <string.h>

#include "base/large.h"
#include "base/require.h"
#include "kv/kv_sketch.h"
#include "kvstore/store.h"

enum { SPARE_SHARE = 8 }; /* of the index's limit stays free */

/* Stands behind the sketch in its memory, so that chunks without one do not grow. */
struct place {
    struct large_region *region;
    struct index_chunk *before, *next; /* in the order of making */
};

/* 0: such keys have none. */
static uint64_t layers_bytes(const struct index_chunk *chunk)
{
    return chunk->geometry.layers * kv_sketch_bytes(&chunk->geometry);
}

static uint64_t sketch_bytes(const struct index_chunk *chunk)
{
    return layers_bytes(chunk) + sizeof(struct place);
}

static struct place *place_of(const struct index_chunk *chunk)
{
    return (struct place *)(void *)(chunk->sketch + layers_bytes(chunk));
}

/* --- there --- */

static void give_back(struct index_memory *memory, uint8_t *sketch, struct large_region *region,
                      uint64_t bytes)
{
    explicit_bzero(sketch, bytes);
    large_free(region, sketch, bytes);
    memory->sketch_bytes -= large_bytes(bytes);
}

static void keep(struct index_chunk *chunk, uint8_t *sketch, struct large_region *region)
{
    struct index_memory *memory = chunk->memory;

    chunk->sketch = sketch;
    *place_of(chunk) = (struct place){ .region = region, .before = memory->sketched_last };
    if (memory->sketched_last != NULL)
        place_of(memory->sketched_last)->next = chunk;
    else
        memory->sketched_first = chunk;
    memory->sketched_last = chunk;
}

static void take_out(struct index_chunk *chunk)
{
    const struct place *place = place_of(chunk);
    struct index_memory *memory = chunk->memory;

    if (place->before != NULL)
        place_of(place->before)->next = place->next;
    else
        memory->sketched_first = place->next;
    if (place->next != NULL)
        place_of(place->next)->before = place->before;
    else
        memory->sketched_last = place->before;
}

void sketch_drop(struct index_chunk *chunk)
{
    if (chunk->sketch == NULL)
        return;
    REQUIRE(chunk->sketch_readers == 0);
    if (!chunk->is_sketch_leaving)
        take_out(chunk);
    give_back(chunk->memory, chunk->sketch, place_of(chunk)->region, sketch_bytes(chunk));
    chunk->sketch = NULL;
    chunk->is_sketch_leaving = false;
}

static bool is_over(const struct index_memory *memory)
{
    return memory->used_bytes + memory->sketch_bytes > memory->limit_bytes;
}

void sketches_trim(struct index_memory *memory)
{
    while (memory->sketched_first != NULL && is_over(memory)) {
        struct index_chunk *chunk = memory->sketched_first;

        if (chunk->sketch_readers == 0) {
            sketch_drop(chunk);
            continue;
        }
        take_out(chunk);
        chunk->is_sketch_leaving = true;
    }
}

const uint8_t *sketch_hold(struct index_chunk *chunk)
{
    if (chunk->sketch == NULL || chunk->is_sketch_leaving)
        return NULL;
    chunk->sketch_readers++;
    return chunk->sketch;
}

void sketch_let_go(struct index_chunk *chunk)
{
    REQUIRE(chunk->sketch_readers > 0);
    if (--chunk->sketch_readers == 0 && chunk->is_sketch_leaving)
        sketch_drop(chunk);
}

/* --- being made --- */

static bool has_room(const struct index_memory *memory, uint64_t bytes)
{
    return memory->used_bytes + memory->sketch_bytes + bytes + memory->limit_bytes / SPARE_SHARE <=
           memory->limit_bytes;
}

static void make_run(struct work *work)
{
    struct sketches *sketches = container_of(work, struct sketches, work);

    for (uint32_t i = 0; i < sketches->making_count; i++) {
        struct sketch_making *making = &sketches->making[i];
        const struct kv_geometry *geometry = &making->chunk->geometry;
        uint64_t keys_bytes = (uint64_t)INDEX_CHUNK_FRAMES * kv_key_bytes(geometry);

        making->ok = true;
        for (uint32_t layer = 0; layer < geometry->layers && making->ok; layer++)
            making->ok = kv_sketch_make(geometry, making->chunk->keys + layer * keys_bytes, making->count,
                                        making->sketch + layer * kv_sketch_bytes(geometry));
    }
}

static void start(struct sketches *sketches);

/* One that could not be made stays wanted, and so is not tried again. */
static void made(struct sketch_making *making)
{
    struct index_chunk *chunk = making->chunk;

    if (making->ok)
        chunk->is_sketch_wanted = false;
    if (making->ok && chunk->segment != NULL && chunk->gone_link == NULL)
        keep(chunk, making->sketch, making->region);
    else
        give_back(chunk->memory, making->sketch, making->region, sketch_bytes(chunk));
    index_chunk_unref(chunk);
}

static void make_done(struct work *work)
{
    struct sketches *sketches = container_of(work, struct sketches, work);
    struct index_memory *memory = sketches->making[0].chunk->memory;

    sketches->is_running = false;
    for (uint32_t i = 0; i < sketches->making_count; i++)
        made(&sketches->making[i]);
    sketches->made += sketches->making_count;
    sketches->making_count = 0;
    sketches_trim(memory); /* frames may have come meanwhile */
    start(sketches);
}

static struct index_chunk *take_wanted(struct sketches *sketches)
{
    struct index_chunk *chunk = sketches->wanted[sketches->first];

    sketches->first = (sketches->first + 1) % SKETCHES_WANTED;
    sketches->count--;
    return chunk;
}

static void pass_over(struct index_chunk *chunk)
{
    chunk->is_sketch_wanted = false;
    index_chunk_unref(chunk);
}

static void drop_wanted(struct sketches *sketches)
{
    while (sketches->count > 0)
        pass_over(take_wanted(sketches));
}

/* No frame is added to it any more, and its segment has it still. */
static bool is_final(const struct index_chunk *chunk)
{
    if (chunk->segment == NULL || chunk->gone_link != NULL)
        return false;
    return chunk->count == INDEX_CHUNK_FRAMES ||
           (chunk->count > 0 && chunk->segment->state == SEGMENT_SEALED);
}

/* Its frames may have gone while it waited: to another file, when theirs failed. */
static void take_room(struct sketches *sketches, struct index_chunk *chunk)
{
    struct sketch_making *making = &sketches->making[sketches->making_count];
    struct index_memory *memory = chunk->memory;
    uint64_t bytes = sketch_bytes(chunk);

    *making = (struct sketch_making){ .chunk = chunk, .count = chunk->count };
    if (is_final(chunk) && has_room(memory, large_bytes(bytes)))
        making->sketch = large_alloc(bytes, &making->region);
    if (making->sketch == NULL) {
        pass_over(chunk);
        return;
    }
    memory->sketch_bytes += large_bytes(bytes);
    sketches->making_count++;
}

/* The threads' queue is full: the next question wants them again. Nothing was written yet. */
static void give_up(struct sketches *sketches)
{
    while (sketches->making_count > 0) {
        struct sketch_making *making = &sketches->making[--sketches->making_count];
        uint64_t bytes = sketch_bytes(making->chunk);

        large_free(making->region, making->sketch, bytes);
        making->chunk->memory->sketch_bytes -= large_bytes(bytes);
        pass_over(making->chunk);
    }
    drop_wanted(sketches);
}

static void start(struct sketches *sketches)
{
    struct store *store = container_of(sketches, struct store, sketches);

    if (sketches->is_running)
        return;
    while (sketches->count > 0 && sketches->making_count < SKETCHES_AT_ONCE)
        take_room(sketches, take_wanted(sketches));
    if (sketches->making_count == 0)
        return;
    sketches->work = (struct work){ .run = make_run, .done = make_done };
    sketches->is_running = work_pool_submit(store->computing, &sketches->work);
    if (!sketches->is_running)
        give_up(sketches);
}

bool sketches_want(struct store *store, struct index_chunk *chunk)
{
    struct sketches *sketches = &store->sketches;

    if (chunk->is_sketch_wanted || chunk->sketch != NULL || chunk->is_blank || !is_final(chunk) ||
        layers_bytes(chunk) == 0)
        return false;
    if (store->is_closing || sketches->count == SKETCHES_WANTED ||
        !has_room(chunk->memory, large_bytes(sketch_bytes(chunk))))
        return true;
    chunk->is_sketch_wanted = true;
    index_chunk_ref(chunk);
    sketches->wanted[(sketches->first + sketches->count++) % SKETCHES_WANTED] = chunk;
    start(sketches);
    return false;
}

void sketches_stop(struct store *store)
{
    drop_wanted(&store->sketches);
}
