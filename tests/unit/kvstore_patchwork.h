/* kvstore_patchwork.h - a stream with one of everything that may become of a block, a segment each of PATCH frames: in
 * 8 bits, in 4 bits, keys only, thinned, partly forgotten, whole with a gap behind it, lost with its file, whole. */
#ifndef REELKV_TEST_KVSTORE_PATCHWORK_H
#define REELKV_TEST_KVSTORE_PATCHWORK_H

#include "base/file.h"
#include "kvstore/segment_age.h"
#include "kvstore/stream_forget.h"
#include "kvstore_calls.h"

enum { PATCH = 6, PATCH_GAP = 2, PATCHES = 8, PATCH_END = PATCHES * PATCH + PATCH_GAP };

struct patch_age {
    struct segment_age age;
    bool came;
};

static void patch_aged(struct segment_age *age)
{
    container_of(age, struct patch_age, age)->came = true;
}

static inline void patch_age(struct fixture *fixture, struct segment *segment, struct kv_aged aged)
{
    struct patch_age ageing = {
        .age = { .segment = segment, .transform = { .aged = aged }, .makes_room = true, .done = patch_aged }
    };

    segment_age_submit(fixture->store, &ageing.age);
    FIXTURE_TURN_UNTIL(fixture, ageing.came);
    CHECK_OK(ageing.age.ok, ageing.age.st);
}

/* Its own epoch, and so its own file. */
static inline void patch_write(struct fixture *fixture, struct stream *stream, bool with_gap)
{
    struct fixture_writer writer;

    fixture_attach(fixture, stream, &writer);
    fixture_append_init(fixture, stream);
    fixture_append(fixture, stream, PATCH);
    if (with_gap)
        CHECK_OK(fixture_append_gap(stream, PATCH_GAP, "away", &fixture->st), fixture->st);
    fixture_wait_durable(fixture, stream);
    stream_detach(stream, &writer.base);
    fixture_wait_sealed(fixture, stream);
}

static inline void patch_forget(struct fixture *fixture, struct stream *stream, uint64_t from, uint64_t to)
{
    struct fixture_answer answer = { 0 };

    CHECK_OK(stream_forget(stream, fixture_pts(from), fixture_pts(to), fixture_done, &answer, &fixture->st),
             fixture->st);
    FIXTURE_TURN_UNTIL(fixture, answer.came);
    CHECK_OK(answer.ok, answer.st);
}

static inline struct stream *patch_restart(struct calls *calls)
{
    struct stream *stream;

    calls_close_store(calls);
    calls_open_store(calls);
    fixture_wait_keys(&calls->fixture);
    stream = store_find(calls->fixture.store, "default", "cam-1");
    CHECK(stream != NULL);
    return stream;
}

static inline struct stream *patch_make(struct calls *calls)
{
    static const struct kv_aged aged[] = {
        { .bits = 8 }, { .bits = 4 }, { .keys_only = true }, { .thin = 2 }
    };
    struct fixture *fixture = &calls->fixture;
    struct stream *stream = fixture_define(fixture, "cam-1");
    char path[PATH_MAX + 8];

    for (uint32_t i = 0; i < PATCHES; i++)
        patch_write(fixture, stream, i == 5);
    for (uint32_t i = 0; i < ARRAY_LEN(aged); i++)
        patch_age(fixture, stream->segments[i], aged[i]);
    patch_forget(fixture, stream, 4 * PATCH + 1, 4 * PATCH + 4);
    snprintf(path, sizeof path, "%s.seg", stream->segments[6]->base);
    CHECK_EQ(unlink(path), 0);
    return patch_restart(calls);
}

#endif
