#include "store_scene.h"

#include "sim_disk.h"
#include "sim_loop.h"
#include "sim_memory.h"

/* Of a layer, as fixture_geometry has them: in records and in columns they begin at multiples of it. */
enum { KEY_BYTES = 64 };

struct stream *scene_find(struct scene *scene, const struct scene_cast *cast)
{
    return store_find(scene->fixture.store, "default", cast->name);
}

void scene_forget(struct scene_cast *cast)
{
    char name[sizeof cast->name];

    memcpy(name, cast->name, sizeof name);
    *cast = (struct scene_cast){ 0 };
    memcpy(cast->name, name, sizeof name);
}

/* --- what is acked --- */

/* In this life. */
bool scene_has_failures(void)
{
    return sim_disk_failed() > 0 || sim_memory_failed() > 0 || sim_disk_kept() > 0;
}

bool scene_is_unread(void)
{
    return sim_disk_failed() > 0 || sim_memory_failed() > 0;
}

/* Only a call that failed may make anything fail. */
static void check_answer(const struct fixture_answer *answer)
{
    if (!answer->ok && !scene_has_failures())
        test_fail(__FILE__, __LINE__, "without a failed call: %s", answer->st.text);
}

/* Of what the store was asked to begin. */
static bool check_begun(const struct scene *scene, bool has_begun)
{
    bool may_be_short = sim_memory_failed() > 0 && scene->fixture.st.code == STATUS_EXHAUSTED;
    bool may_be_unsynced = sim_disk_failed() > 0 && scene->fixture.st.code == STATUS_UNAVAILABLE;

    if (!has_begun && !may_be_short && !may_be_unsynced)
        test_fail(__FILE__, __LINE__, "with memory enough, and a sound disk: %s", scene->fixture.st.text);
    return has_begun;
}

/* What is there of the hold's range when it is acked stays, until somebody asks to release it. */
static void note_held(struct scene_cast *cast, const struct stream *stream)
{
    for (uint64_t seq = 0; stream != NULL && seq < cast->durable_seq; seq++) {
        const struct index_frame *frame = stream_find(stream, seq);

        /* What leaves answers so already, whoever holds it by now. */
        if (frame == NULL || frame->chunk->segment->is_leaving || frame->is_forgotten || !frame->has_slices ||
            frame->pts_ns < cast->hold.from_ns || frame->pts_ns >= cast->hold.to_ns)
            continue;
        cast->fates[seq] |= FATE_IS_HELD;
        if (frame->encoding.bits == 0)
            cast->fates[seq] |= FATE_IS_HELD_WHOLE;
    }
}

void scene_check_nowhere(const struct scene_cast *cast, uint64_t seq)
{
    uint8_t key[KEY_BYTES];

    fixture_fill(cast->name, seq, 0, key, sizeof key);
    if (sim_disk_has(key, sizeof key))
        test_fail(__FILE__, __LINE__, "%s: there is a receipt for number %llu, and a file has it", cast->name,
                  (unsigned long long)seq);
}

/* What was forgotten does not come back; what was held is, until it is released. */
void scene_hear_retention(struct scene_cast *cast, const struct stream *stream)
{
    if (cast->is_forgetting && cast->forgotten.came) {
        cast->is_forgetting = false;
        if (cast->forgotten.ok)
            cast->receipt_number = cast->forget_number;
        for (uint64_t seq = cast->forget_from; cast->forgotten.ok && seq < cast->forget_to; seq++)
            if (cast->offers[seq] == OFFER_FRAME) {
                cast->fates[seq] |= FATE_WENT;
                scene_check_nowhere(cast, seq);
            }
    }
    if (cast->is_holding && cast->held.came) {
        check_answer(&cast->held);
        cast->is_holding = false;
        if (cast->held.ok) {
            cast->hold_number = cast->hold.number;
            note_held(cast, stream);
        }
        cast->may_be_held |= !cast->held.ok;
    }
    if (cast->is_releasing && cast->released.came) {
        check_answer(&cast->released);
        cast->is_releasing = false;
        if (cast->released.ok)
            cast->hold_number = 0;
        cast->may_be_held |= !cast->released.ok;
    }
}

static void cut_sometimes(const struct scene *scene)
{
    if (scene->is_cut && sim_chance(sim_random(), 25))
        sim_disk_crash_at(1);
}

/* Takes note of what the store said while the power was on. */
static void hear(struct scene *scene)
{
    if (sim_disk_is_off())
        return;
    for (uint32_t i = 0; i < SCENE_STREAMS; i++) {
        struct scene_cast *cast = &scene->cast[i];
        const struct stream *stream;

        if (cast->is_defining && cast->defined.came) {
            check_answer(&cast->defined);
            cast->is_defining = false;
            cast->is_defined = cast->defined.ok;
            cast->may_be_there |= !cast->defined.ok;
        }
        if (cast->is_removing && cast->removed.came) {
            check_answer(&cast->removed);
            cut_sometimes(scene);
            if (cast->removed.ok)
                scene_forget(cast); /* else it stays as it is until the store starts again */
        }
        stream = scene_find(scene, cast);
        if (stream == NULL)
            continue;
        if (cast->is_opening && cast->opened.came) {
            check_answer(&cast->opened);
            cast->is_opening = false;
            if (cast->opened.ok)
                cast->epoch = stream->epoch;
        }
        if ((cast->is_holding && cast->held.came) ||
            (scene->is_mixed && cast->is_forgetting && cast->forgotten.came))
            cut_sometimes(scene); /* what was acked just now is there all the same */
        scene_hear_retention(cast, stream);
        if (!scene->is_unread) /* else it counts what is taken, and may not be there */
            cast->durable_seq = stream_durable_seq(stream);
    }
}

/* The old file is about to go: the moment at which most could be lost. */
static void cut_at_unlinking(struct scene *scene)
{
    struct scene_ageing *ageing = &scene->ageing;

    if (!scene->is_cut || !ageing->is_running || ageing->was_watched || ageing->age.step != AGE_UNLINKING)
        return;
    ageing->was_watched = true;
    if (sim_chance(sim_random(), 30))
        sim_disk_crash_at(1 + sim_pick(sim_random(), 6));
}

void scene_turn(struct scene *scene, uint32_t times)
{
    struct loop_timer tick = { 0 };

    loop_timer_start(scene->fixture.loop, &tick, 50, fixture_tick);
    for (uint32_t i = 0; i < times && !sim_disk_is_off(); i++) {
        if (!loop_timer_is_running(&tick))
            loop_timer_start(scene->fixture.loop, &tick, 50, fixture_tick);
        loop_run_once(scene->fixture.loop);
        if (scene->fixture.store->disk_used_bytes > scene->used_bytes_max)
            scene->used_bytes_max = scene->fixture.store->disk_used_bytes;
        hear(scene);
        cut_at_unlinking(scene);
    }
    loop_timer_stop(&tick);
}

/* --- what is done --- */

static void define(struct scene *scene, struct scene_cast *cast)
{
    const struct stream_definition definition = { .source = "rtsp://cam/1",
                                                  .kind = STREAM_LIVE,
                                                  .sample_fps = 0.5 };

    cast->defined = (struct fixture_answer){ 0 };
    cast->is_defining = stream_define(scene->fixture.store, "default", cast->name, &definition, fixture_done,
                                      &cast->defined, &scene->fixture.st);
    if (!cast->is_defining && scene->fixture.st.code != STATUS_EXHAUSTED)
        CHECK(cast->may_be_there && scene->fixture.st.code == STATUS_EXISTS);
}

void scene_remove(struct scene *scene, struct scene_cast *cast, struct stream *stream)
{
    struct stream_removed removed;

    cast->removed = (struct fixture_answer){ 0 };
    cast->is_removing = stream_delete(stream, &removed, fixture_done, &cast->removed, &scene->fixture.st);
    if (!cast->is_removing && scene->fixture.st.code == STATUS_PRECONDITION)
        CHECK(cast->is_holding || cast->is_releasing || cast->may_be_held || cast->hold_number != 0);
    else
        check_begun(scene, cast->is_removing);
    if (scene->is_cut && sim_chance(sim_random(), 25))
        sim_disk_crash_at(1 + sim_pick(sim_random(), 64)); /* in the midst of it */
}

static void open_stream(struct scene *scene, struct scene_cast *cast, struct stream *stream)
{
    struct stream_open_request request = { .geometry = fixture_geometry, .writer = "analyzer-1" };

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    cast->opened = (struct fixture_answer){ 0 };
    cast->is_opening =
        check_begun(scene, stream_open(stream, &request, fixture_done, &cast->opened, &scene->fixture.st));
}

static void attach(struct scene *scene, struct scene_cast *cast, struct stream *stream)
{
    struct stream_block init = { .is_init = true,
                                 .tokens = FIXTURE_INIT_TOKENS,
                                 .payload_bytes = kv_payload_bytes(&fixture_geometry, FIXTURE_INIT_TOKENS) };

    cast->writer = (struct fixture_writer){ .base = { fixture_moved, fixture_fenced } };
    CHECK_OK(stream_attach(stream, stream->epoch, &cast->writer.base, &scene->fixture.st), scene->fixture.st);
    if (!fixture_append_block(&scene->fixture, stream, &init, &scene->fixture.st))
        stream_detach(stream, &cast->writer.base);
}

/* --- ageing --- */

static enum fate fate_of(const struct segment_transform *transform, uint64_t seq)
{
    bool is_forgotten = transform->forgets && seq < transform->below_seq &&
                        fixture_pts(seq) >= transform->from_ns && fixture_pts(seq) < transform->to_ns;

    if (is_forgotten || transform->aged.keys_only ||
        (transform->aged.thin > 1 && seq % transform->aged.thin != 0))
        return FATE_WENT;
    return transform->aged.bits != 0 ? FATE_IS_DERIVED : 0;
}

/* One that went does so for ever; nobody was told of one whose power went. */
static void aged(struct segment_age *age)
{
    struct scene_ageing *ageing = container_of(age, struct scene_ageing, age);

    ageing->is_running = false;
    if (!age->ok || sim_disk_is_off())
        return;
    for (uint64_t seq = ageing->from_seq; seq < ageing->to_seq; seq++)
        if (ageing->cast->offers[seq] == OFFER_FRAME)
            ageing->cast->fates[seq] |= (uint8_t)fate_of(&age->transform, seq);
}

/* Where ranges are held nothing is forgotten past stream_forget(), which looks at them. */
static struct segment_transform some_transform(const struct scene *scene, const struct segment *segment)
{
    struct sim_random *random = sim_random();
    struct segment_transform transform = { 0 };

    if (sim_chance(random, 40))
        transform.aged.thin = 2 + 2 * sim_pick(random, 2);
    if (sim_chance(random, 40))
        transform.aged.bits = 8;
    if (sim_chance(random, 20))
        transform.aged.keys_only = true;
    if (!scene->keeps && sim_chance(random, 30)) {
        uint64_t from = segment->super.first_seq + sim_pick(random, 8);

        transform.forgets = true;
        transform.from_ns = fixture_pts(from);
        transform.to_ns = fixture_pts(from + sim_pick(random, 12));
        transform.below_seq = sim_chance(random, 50) ? UINT64_MAX : from + sim_pick(random, 12);
    }
    return transform;
}

static void age(struct scene *scene, struct scene_cast *cast, const struct stream *stream)
{
    struct scene_ageing *ageing = &scene->ageing;
    struct segment *segment;

    if (ageing->is_running || stream->segment_count == 0)
        return;
    segment = stream->segments[sim_pick(sim_random(), stream->segment_count)];
    if (segment->writer != NULL || segment->is_leaving)
        return;
    *ageing = (struct scene_ageing){ .age = { .segment = segment,
                                              .transform = some_transform(scene, segment),
                                              .makes_room = sim_chance(sim_random(), 30),
                                              .done = aged },
                                     .cast = cast,
                                     .from_seq = segment->super.first_seq,
                                     .to_seq = segment->end_seq,
                                     .is_running = true };
    for (uint64_t seq = ageing->from_seq; seq < ageing->to_seq; seq++) {
        enum fate fate = fate_of(&ageing->age.transform, seq);

        cast->fates[seq] |= (uint8_t)(fate == FATE_WENT         ? FATE_MAY_GO
                                      : fate == FATE_IS_DERIVED ? FATE_MAY_BE_DERIVED
                                                                : 0);
    }
    scene->story->rewritten++;
    segment_age_submit(scene->fixture.store, &ageing->age);
}

/* As a policy asks for that has nothing left for it to become. */
static void make_room(struct scene *scene, struct scene_cast *cast, const struct stream *stream)
{
    struct segment *segment;

    if (stream->segment_count == 0)
        return;
    segment = stream->segments[sim_pick(sim_random(), stream->segment_count)];
    if (segment->writer != NULL || segment_held(segment) != NULL ||
        !store_remove_segment(scene->fixture.store, segment))
        return;
    for (uint64_t seq = segment->super.first_seq; seq < segment->end_seq; seq++)
        cast->fates[seq] |= FATE_MAY_MAKE_ROOM;
}

static void offer(struct scene_cast *cast, uint64_t from, uint64_t to, enum offer what)
{
    for (uint64_t seq = from; seq < to; seq++) {
        if ((cast->fates[seq] & FATE_WENT) != 0)
            test_fail(__FILE__, __LINE__, "%s: number %llu is written again", cast->name,
                      (unsigned long long)seq);
        cast->fates[seq] = 0; /* nothing durable stands there */
        cast->was_unread[seq] = false;
        cast->offers[seq] = (uint8_t)what;
        cast->was_offered[seq] |= (uint8_t)(1 << what);
    }
    cast->next_seq = to > cast->next_seq ? to : cast->next_seq;
    cast->offered_seq = to > cast->offered_seq ? to : cast->offered_seq;
}

/* Frames as far as RAM takes them; now and then a gap. */
static void append(struct scene *scene, struct scene_cast *cast, struct stream *stream)
{
    struct sim_random *random = sim_random();
    bool is_burst = scene->is_long || sim_chance(random, 20);
    uint32_t count = 1 + sim_pick(random, is_burst ? 60 : 6);

    for (uint32_t i = 0; i < count && stream->next_seq + 8 < SCENE_SEQ_MAX; i++) {
        struct stream_block block = fixture_block(stream, stream->next_seq);
        uint64_t frames = 1 + sim_pick(random, 3);

        if (sim_chance(random, 4)) {
            if (fixture_append_gap(stream, frames, sim_chance(random, 50) ? "late" : "away",
                                   &scene->fixture.st))
                offer(cast, stream->next_seq - frames, stream->next_seq, OFFER_GAP);
        } else if (fixture_append_block(&scene->fixture, stream, &block, &scene->fixture.st)) {
            offer(cast, block.seq, block.seq + 1, OFFER_FRAME);
            scene->story->frames++;
        } else {
            CHECK_EQ(scene->fixture.st.code, STATUS_EXHAUSTED);
            break;
        }
    }
}

/* --- holding and forgetting --- */

static const struct forget_receipt *newest_receipt(const struct stream *stream)
{
    const struct forget_receipt *newest = NULL;

    for (uint32_t n = 0; stream_receipt_at(stream, n) != NULL; n++)
        newest = stream_receipt_at(stream, n);
    return newest;
}

static void forget_some(struct scene *scene, struct scene_cast *cast, struct stream *stream)
{
    uint64_t from, to;

    if (cast->is_forgetting || stream->next_seq == 0)
        return;
    from = sim_pick(sim_random(), (uint32_t)stream->next_seq);
    to = from + 1 + sim_pick(sim_random(), 20);
    cast->forgotten = (struct fixture_answer){ 0 };
    if (!stream_forget(stream, fixture_pts(from), fixture_pts(to), fixture_done, &cast->forgotten,
                       &scene->fixture.st))
        return;
    cast->is_forgetting = true;
    if (!cast->forgotten.came)
        cast->forget_number = newest_receipt(stream)->number;
    cast->forget_from = from;
    cast->forget_to = to < stream->next_seq ? to : stream->next_seq;
    for (uint64_t seq = cast->forget_from; seq < cast->forget_to; seq++)
        cast->fates[seq] |= FATE_MAY_GO;
    scene->story->forgotten++;
}

static void hold_some(struct scene *scene, struct scene_cast *cast, struct stream *stream)
{
    uint64_t from = sim_pick(sim_random(), (uint32_t)stream->next_seq + 1);

    if (cast->is_holding || cast->is_releasing || cast->may_be_held)
        return;
    if (cast->hold_number != 0) {
        cast->released = (struct fixture_answer){ 0 };
        for (uint64_t seq = 0; seq < SCENE_SEQ_MAX; seq++)
            cast->fates[seq] &= (uint8_t) ~(FATE_IS_HELD | FATE_IS_HELD_WHOLE);
        cast->is_releasing =
            stream_hold_release(stream, cast->hold_number, fixture_done, &cast->released, &scene->fixture.st);
        return;
    }
    cast->held = (struct fixture_answer){ 0 };
    cast->hold = (struct stream_hold){ .from_ns = fixture_pts(from),
                                       .to_ns = fixture_pts(from + 1 + sim_pick(sim_random(), 8)),
                                       .owner = "police",
                                       .reason = "case 17" };
    cast->is_holding = stream_hold_add(stream, &cast->hold, fixture_done, &cast->held, &scene->fixture.st);
}

/* Of a frame that was rewritten a thumbnail may be there that says nothing of its layers. */
enum frame_result scene_read(struct scene *scene, struct stream *stream, uint64_t seq)
{
    struct index_frame *frame = stream_find(stream, seq);
    bool is_thumbnail = seq % 7 == 2 && !scene->ages;

    if (frame != NULL && seq % 5 == 1 && !scene->ages)
        return fixture_read_block(&scene->fixture, stream, frame);
    return fixture_read_layer(&scene->fixture, stream, seq,
                              is_thumbnail ? SLICE_THUMBNAIL : (uint32_t)(seq % 3));
}

/* --- rot --- */

static void rot(struct scene_cast *cast, const struct stream *stream, struct store_story *story)
{
    const struct segment *segment;
    const struct index_frame *frame;
    char path[PATH_MAX + 8];

    if (stream->segment_count == 0)
        return;
    segment = stream->segments[sim_pick(sim_random(), stream->segment_count)];
    if (segment->state != SEGMENT_SEALED || segment->is_leaving || segment->index.frame_count == 0)
        return;
    frame = index_part_at(&segment->index, sim_pick(sim_random(), (uint32_t)segment->index.frame_count));
    if (!frame->has_slices || (cast->fates[frame->seq] & FATE_ROTTEN) != 0)
        return;
    snprintf(path, sizeof path, "%s.seg", segment->base);
    if (!sim_disk_rot(path, frame->offset + frame->slices_at + sim_pick(sim_random(), 4096),
                      (uint8_t)(1u << sim_pick(sim_random(), 8))))
        return;
    cast->fates[frame->seq] |= FATE_ROTTEN;
    cast->rotten_in[frame->seq] = segment->super.salt;
    story->rotten++;
}

static bool is_scrubbing(const struct scene *scene)
{
    const struct scrub *scrub = &scene->fixture.store->scrub;

    return scrub->pass_ns != 0 || scrub->job != NULL;
}

static void check_found(struct scene *scene, const struct scene_cast *cast)
{
    const struct stream *stream = scene_find(scene, cast);

    for (uint64_t seq = 0; stream != NULL && seq < stream->next_seq; seq++) {
        const struct index_frame *frame =
            (cast->fates[seq] & FATE_ROTTEN) != 0 ? stream_find(stream, seq) : NULL;

        /* A file that was being made from the one that rotted may have read it before. */
        if (frame == NULL || frame->chunk->segment->super.salt != cast->rotten_in[seq] ||
            frame->chunk->segment->is_leaving)
            continue;
        if (!frame->is_forgotten && !frame->is_quarantined)
            test_fail(__FILE__, __LINE__, "%s: the scrub has not found that %llu rotted", cast->name,
                      (unsigned long long)seq);
        scene->story->scrubbed++;
    }
}

void scene_scrub(struct scene *scene)
{
    struct store *store = scene->fixture.store;
    uint64_t allowed;

    for (uint32_t pass = 0; pass < 2 && !sim_disk_is_off(); pass++) {
        scrub_begin(store);
        for (uint32_t i = 0; i < 20000 && is_scrubbing(scene) && !sim_disk_is_off(); i++)
            scene_turn(scene, 1);
    }
    allowed = (uint64_t)((double)(clock_mono_ns() - scene->opened_ns) / 1e9 *
                         (double)store->options.scrub_bytes_per_second);
    if (store->scrub.read_bytes > allowed + store->options.segment_bytes_max)
        test_fail(__FILE__, __LINE__, "the scrub has read %llu bytes, %llu were allowed",
                  (unsigned long long)store->scrub.read_bytes, (unsigned long long)allowed);
    for (uint32_t i = 0; i < SCENE_STREAMS; i++)
        if (!sim_disk_is_off() && !scene_has_failures() && !is_scrubbing(scene))
            check_found(scene, &scene->cast[i]);
}

/* While it is written: right, or for a reason not there. */
static void look(struct scene *scene, const struct scene_cast *cast, struct stream *stream)
{
    enum frame_result result;
    uint64_t seq;

    if (stream->next_seq == 0)
        return;
    seq = sim_pick(sim_random(), (uint32_t)stream->next_seq);
    result = scene_read(scene, stream, seq);
    if (frame_result_has_bytes(result) && (cast->fates[seq] & FATE_WENT) != 0)
        test_fail(__FILE__, __LINE__, "%s: number %llu has come back", cast->name, (unsigned long long)seq);
    if (result == FRAME_QUARANTINED && (cast->fates[seq] & FATE_ROTTEN) != 0)
        return;
    if (frame_result_has_bytes(result) || result == FRAME_GAP || result == FRAME_EVICTED ||
        sim_disk_is_off() || scene->is_unread || (result == FRAME_UNAVAILABLE && scene_has_failures()))
        return;
    test_fail(__FILE__, __LINE__, "a number of %s answers %d", stream->name, (int)result);
}

void scene_act_on(struct scene *scene, struct scene_cast *cast, struct stream *stream)
{
    uint32_t dice = sim_pick(sim_random(), 100);

    if (scene->ages && sim_chance(sim_random(), 20))
        age(scene, cast, stream);
    if (scene->scrubs && sim_chance(sim_random(), 20))
        rot(cast, stream, scene->story);
    if (scene->scrubs && sim_chance(sim_random(), 10))
        scrub_begin(scene->fixture.store);
    if (scene->keeps && sim_chance(sim_random(), 10))
        forget_some(scene, cast, stream);
    if (scene->keeps && sim_chance(sim_random(), 10))
        hold_some(scene, cast, stream);
    if (scene->is_mixed && sim_chance(sim_random(), 5))
        make_room(scene, cast, stream);
    if (sim_chance(sim_random(), scene->gone_percent)) {
        scene_remove(scene, cast, stream);
    } else if (stream->writer != NULL) {
        if (dice < 75)
            append(scene, cast, stream);
        else if (dice < 80)
            stream_commit(stream);
        else if (dice < 88)
            stream_detach(stream, &cast->writer.base);
        else if (dice < 92 && stream_end(stream, "", &scene->fixture.st))
            stream_detach(stream, &cast->writer.base);
        else if (dice < 92 + scene->taken_percent)
            open_stream(scene, cast, stream); /* another analyzer takes it */
        else
            look(scene, cast, stream);
    } else if (!cast->is_opening && cast->epoch == stream->epoch && cast->epoch > 0 && dice < 60) {
        attach(scene, cast, stream);
    } else if (!cast->is_opening && dice < 80) {
        open_stream(scene, cast, stream);
    }
}

void scene_act(struct scene *scene)
{
    struct scene_cast *cast = &scene->cast[sim_pick(sim_random(), SCENE_STREAMS)];
    struct stream *stream = scene_find(scene, cast);

    if (stream != NULL && !cast->is_removing)
        scene_act_on(scene, cast, stream);
    else if (stream == NULL && !cast->is_defining && !cast->is_removing && !cast->is_defined)
        define(scene, cast);
    scene_turn(scene, sim_pick(sim_random(), 12));
}
