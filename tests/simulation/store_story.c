#include "store_story.h"

#include <errno.h>

#include "kvstore/segment_age.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"
#include "sim_disk.h"
#include "sim_loop.h"
#include "unit/kvstore_fixture.h"

enum { STREAMS = 3, SEQ_MAX = 2048, LIVES = 3, SWAP_ACTS = 60 };

enum offer { OFFER_NONE, OFFER_FRAME, OFFER_GAP };

/* What may have become of a number since it was offered, and what has for sure. */
enum fate { FATE_MAY_GO = 1, FATE_MAY_BE_DERIVED = 2, FATE_WENT = 4, FATE_IS_DERIVED = 8 };

/* The segment being rewritten. */
struct ageing {
    struct segment_age age;
    struct cast *cast;
    uint64_t from_seq, to_seq;
    bool is_running, was_watched;
};

/* What the store was told of a stream, and what it acked. */
struct cast {
    char name[8];
    bool is_defining, is_defined, is_removing;
    bool may_be_there; /* its definition failed: what is on the disk nobody knows */
    struct fixture_answer defined, removed, opened;
    bool is_opening;
    bool is_forgetting, is_holding, is_releasing;
    struct fixture_answer forgotten, held, released;
    uint64_t forget_from, forget_to;
    struct stream_hold hold; /* asked for */
    uint64_t hold_number;    /* acked; 0: none */
    bool may_be_held;        /* a change failed: what is on the disk nobody knows */
    struct fixture_writer writer;
    uint64_t epoch;               /* acked */
    uint64_t durable_seq;         /* acked */
    uint64_t next_seq;            /* in this life */
    uint64_t offered_seq;         /* ever, and not known to be gone */
    uint8_t offers[SEQ_MAX];      /* the last one of each number */
    uint8_t was_offered[SEQ_MAX]; /* all of them, as bits */
    uint8_t fates[SEQ_MAX];       /* of enum fate */
};

struct scene {
    struct fixture fixture;
    struct cast cast[STREAMS];
    struct ageing ageing;
    bool keeps;  /* ranges are held and forgotten; then no call fails */
    bool ages;   /* segments are rewritten: one that is does not go, others go before it */
    bool only_cuts;
    bool is_long;           /* enough is written for old segments to go */
    uint32_t gone_percent;  /* of what is done to a stream: it is removed */
    uint32_t taken_percent; /* of what is done to one that is written: another analyzer takes it */
    bool is_cut;            /* in this life the power goes, no call fails */
    bool is_cut_last;       /* when all is played, if not before */
    /* A call failed in some life: a segment that could not be removed stays, others go before it. */
    bool has_failed;
    /* A file was not read, in this life or in some: its numbers are taken; what was never durable of it may be back. */
    bool is_unread, was_unread;
    struct store_story *story;
};

static struct stream *find(struct scene *scene, const struct cast *cast)
{
    return store_find(scene->fixture.store, "default", cast->name);
}

static void forget(struct cast *cast)
{
    char name[sizeof cast->name];

    memcpy(name, cast->name, sizeof name);
    *cast = (struct cast){ 0 };
    memcpy(cast->name, name, sizeof name);
}

/* --- what is acked --- */

/* Only a disk that fails may make anything fail. */
static void check_answer(const struct fixture_answer *answer)
{
    if (!answer->ok && sim_disk_failed() == 0)
        test_fail(__FILE__, __LINE__, "without a failed call: %s", answer->st.text);
}

/* What was forgotten does not come back; what was held is, until it is released. */
static void hear_retention(struct cast *cast)
{
    if (cast->is_forgetting && cast->forgotten.came) {
        cast->is_forgetting = false;
        for (uint64_t seq = cast->forget_from; cast->forgotten.ok && seq < cast->forget_to; seq++)
            if (cast->offers[seq] == OFFER_FRAME)
                cast->fates[seq] |= FATE_WENT;
    }
    if (cast->is_holding && cast->held.came) {
        check_answer(&cast->held);
        cast->is_holding = false;
        if (cast->held.ok)
            cast->hold_number = cast->hold.number;
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

/* Takes note of what the store said while the power was on. */
static void hear(struct scene *scene)
{
    if (sim_disk_is_off())
        return;
    for (uint32_t i = 0; i < STREAMS; i++) {
        struct cast *cast = &scene->cast[i];
        const struct stream *stream;

        if (cast->is_defining && cast->defined.came) {
            check_answer(&cast->defined);
            cast->is_defining = false;
            cast->is_defined = cast->defined.ok;
            cast->may_be_there |= !cast->defined.ok;
        }
        if (cast->is_removing && cast->removed.came) {
            check_answer(&cast->removed);
            if (cast->removed.ok)
                forget(cast); /* else it stays as it is until the store starts again */
        }
        stream = find(scene, cast);
        if (stream == NULL)
            continue;
        if (cast->is_opening && cast->opened.came) {
            check_answer(&cast->opened);
            cast->is_opening = false;
            if (cast->opened.ok)
                cast->epoch = stream->epoch;
        }
        hear_retention(cast);
        if (!scene->is_unread) /* else it counts what is taken, and may not be there */
            cast->durable_seq = stream_durable_seq(stream);
    }
}

/* The old file is about to go: the moment at which most could be lost. */
static void cut_at_unlinking(struct scene *scene)
{
    struct ageing *ageing = &scene->ageing;

    if (!scene->is_cut || !ageing->is_running || ageing->was_watched || ageing->age.step != AGE_UNLINKING)
        return;
    ageing->was_watched = true;
    if (sim_chance(sim_random(), 30))
        sim_disk_crash_at(1 + sim_pick(sim_random(), 6));
}

static void turn(struct scene *scene, uint32_t times)
{
    struct loop_timer tick = { 0 };

    loop_timer_start(scene->fixture.loop, &tick, 50, fixture_tick);
    for (uint32_t i = 0; i < times && !sim_disk_is_off(); i++) {
        if (!loop_timer_is_running(&tick))
            loop_timer_start(scene->fixture.loop, &tick, 50, fixture_tick);
        loop_run_once(scene->fixture.loop);
        cut_at_unlinking(scene);
        hear(scene);
    }
    loop_timer_stop(&tick);
}

/* --- what is done --- */

static void define(struct scene *scene, struct cast *cast)
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

static void remove_stream(struct scene *scene, struct cast *cast, struct stream *stream)
{
    struct stream_removed removed;

    cast->removed = (struct fixture_answer){ 0 };
    cast->is_removing = stream_delete(stream, &removed, fixture_done, &cast->removed, &scene->fixture.st);
    if (!cast->is_removing) {
        CHECK_EQ(scene->fixture.st.code, STATUS_PRECONDITION);
        CHECK(cast->is_holding || cast->is_releasing || cast->may_be_held || cast->hold_number != 0);
    }
    if (scene->is_cut && sim_chance(sim_random(), 25))
        sim_disk_crash_at(1 + sim_pick(sim_random(), 64)); /* in the midst of it */
}

static void open_stream(struct scene *scene, struct cast *cast, struct stream *stream)
{
    struct stream_open_request request = { .geometry = fixture_geometry, .writer = "analyzer-1" };

    memset(request.fingerprint, 7, sizeof request.fingerprint);
    cast->opened = (struct fixture_answer){ 0 };
    cast->is_opening = true;
    CHECK_OK(stream_open(stream, &request, fixture_done, &cast->opened, &scene->fixture.st),
             scene->fixture.st);
}

static void attach(struct scene *scene, struct cast *cast, struct stream *stream)
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
    bool is_forgotten =
        transform->forgets && fixture_pts(seq) >= transform->from_ns && fixture_pts(seq) < transform->to_ns;

    if (is_forgotten || transform->aged.keys_only ||
        (transform->aged.thin > 1 && seq % transform->aged.thin != 0))
        return FATE_WENT;
    return transform->aged.bits != 0 ? FATE_IS_DERIVED : 0;
}

/* One that went does so for ever; nobody was told of one whose power went. */
static void aged(struct segment_age *age)
{
    struct ageing *ageing = container_of(age, struct ageing, age);

    ageing->is_running = false;
    if (!age->ok || sim_disk_is_off())
        return;
    for (uint64_t seq = ageing->from_seq; seq < ageing->to_seq; seq++)
        if (ageing->cast->offers[seq] == OFFER_FRAME)
            ageing->cast->fates[seq] |= (uint8_t)fate_of(&age->transform, seq);
}

static struct segment_transform some_transform(const struct segment *segment)
{
    struct sim_random *random = sim_random();
    struct segment_transform transform = { 0 };

    if (sim_chance(random, 40))
        transform.aged.thin = 2 + 2 * sim_pick(random, 2);
    if (sim_chance(random, 40))
        transform.aged.bits = 8;
    if (sim_chance(random, 20))
        transform.aged.keys_only = true;
    if (sim_chance(random, 30)) {
        uint64_t from = segment->super.first_seq + sim_pick(random, 8);

        transform.forgets = true;
        transform.from_ns = fixture_pts(from);
        transform.to_ns = fixture_pts(from + sim_pick(random, 12));
    }
    return transform;
}

static void age(struct scene *scene, struct cast *cast, const struct stream *stream)
{
    struct ageing *ageing = &scene->ageing;
    struct segment *segment;

    if (ageing->is_running || stream->segment_count == 0)
        return;
    segment = stream->segments[sim_pick(sim_random(), stream->segment_count)];
    if (segment->writer != NULL || segment->is_leaving)
        return;
    *ageing = (struct ageing){ .age = { .segment = segment,
                                        .transform = some_transform(segment),
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

/* --- holding and forgetting --- */

static void forget_some(struct scene *scene, struct cast *cast, struct stream *stream)
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
    cast->forget_from = from;
    cast->forget_to = to < stream->next_seq ? to : stream->next_seq;
    for (uint64_t seq = cast->forget_from; seq < cast->forget_to; seq++)
        cast->fates[seq] |= FATE_MAY_GO;
    scene->story->forgotten++;
}

static void hold_some(struct scene *scene, struct cast *cast, struct stream *stream)
{
    uint64_t from = sim_pick(sim_random(), (uint32_t)stream->next_seq + 1);

    if (cast->is_holding || cast->is_releasing || cast->may_be_held)
        return;
    if (cast->hold_number != 0) {
        cast->released = (struct fixture_answer){ 0 };
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

static void offer(struct cast *cast, uint64_t from, uint64_t to, enum offer what)
{
    for (uint64_t seq = from; seq < to; seq++) {
        cast->fates[seq] = 0; /* nothing durable stands there */
        cast->offers[seq] = (uint8_t)what;
        cast->was_offered[seq] |= (uint8_t)(1 << what);
    }
    cast->next_seq = to > cast->next_seq ? to : cast->next_seq;
    cast->offered_seq = to > cast->offered_seq ? to : cast->offered_seq;
}

/* Frames as far as RAM takes them; now and then a gap. */
static void append(struct scene *scene, struct cast *cast, struct stream *stream)
{
    struct sim_random *random = sim_random();
    bool is_burst = scene->is_long || sim_chance(random, 20);
    uint32_t count = 1 + sim_pick(random, is_burst ? 60 : 6);

    for (uint32_t i = 0; i < count && stream->next_seq + 8 < SEQ_MAX; i++) {
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

static void act_on(struct scene *scene, struct cast *cast, struct stream *stream)
{
    uint32_t dice = sim_pick(sim_random(), 100);

    if (scene->ages && sim_chance(sim_random(), 20))
        age(scene, cast, stream);
    if (scene->keeps && sim_chance(sim_random(), 10))
        forget_some(scene, cast, stream);
    if (scene->keeps && sim_chance(sim_random(), 10))
        hold_some(scene, cast, stream);
    if (sim_chance(sim_random(), scene->gone_percent)) {
        remove_stream(scene, cast, stream);
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
    } else if (!cast->is_opening && cast->epoch == stream->epoch && cast->epoch > 0 && dice < 60) {
        attach(scene, cast, stream);
    } else if (!cast->is_opening && dice < 80) {
        open_stream(scene, cast, stream);
    }
}

static void act(struct scene *scene)
{
    struct cast *cast = &scene->cast[sim_pick(sim_random(), STREAMS)];
    struct stream *stream = find(scene, cast);

    if (stream != NULL && !cast->is_removing)
        act_on(scene, cast, stream);
    else if (stream == NULL && !cast->is_defining && !cast->is_removing && !cast->is_defined)
        define(scene, cast);
    turn(scene, sim_pick(sim_random(), 12));
}

/* --- what must hold --- */

/* Whether it may lie before a number that was evicted: the oldest go first. */
static bool check_number(struct scene *scene, const struct cast *cast, struct stream *stream, uint64_t seq,
                         bool has_begun)
{
    enum frame_result result = fixture_read_layer(&scene->fixture, stream, seq, (uint32_t)(seq % 3));
    unsigned offered = cast->was_offered[seq];
    bool is_fixed = seq < cast->durable_seq && !scene->was_unread;

    if (sim_disk_is_off() || (result == FRAME_UNAVAILABLE && sim_disk_failed() > 0))
        return true;
    if (result == FRAME_EVICTED && (cast->fates[seq] & (FATE_MAY_GO | FATE_WENT)) != 0)
        return true;
    if (result == FRAME_EVICTED && (!has_begun || scene->has_failed || scene->ages)) {
        scene->story->evicted++;
        return true;
    }
    if (is_fixed)
        offered = 1u << cast->offers[seq];
    if (frame_result_has_bytes(result) && (cast->fates[seq] & FATE_WENT) != 0)
        test_fail(__FILE__, __LINE__, "%s: number %llu has come back", cast->name, (unsigned long long)seq);
    if (result == FRAME_OK && (cast->fates[seq] & FATE_IS_DERIVED) != 0)
        test_fail(__FILE__, __LINE__, "%s: number %llu is whole again", cast->name, (unsigned long long)seq);
    if (result == FRAME_DERIVED && (cast->fates[seq] & (FATE_MAY_BE_DERIVED | FATE_IS_DERIVED)) != 0)
        return false;
    if ((result == FRAME_OK && (offered & (1 << OFFER_FRAME)) != 0) ||
        (result == FRAME_GAP && (offered & (1 << OFFER_GAP)) != 0))
        return result == FRAME_GAP;
    test_fail(__FILE__, __LINE__, "%s: number %llu of %llu (durable below %llu, offered as %u) answers %d",
              cast->name, (unsigned long long)seq, (unsigned long long)stream->next_seq,
              (unsigned long long)cast->durable_seq, offered, (int)result);
}

/* One that was asked for, or to be released, may be there or not; nobody was told. */
static void check_hold(struct cast *cast, const struct stream *stream)
{
    bool is_known = !cast->is_holding && !cast->is_releasing && !cast->may_be_held;
    const struct stream_hold *hold = stream_hold_at(stream, 0);

    if (is_known && cast->hold_number != 0 && (hold == NULL || hold->number != cast->hold_number))
        test_fail(__FILE__, __LINE__, "%s: hold %llu is lost", cast->name,
                  (unsigned long long)cast->hold_number);
    if (is_known && cast->hold_number == 0 && hold != NULL)
        test_fail(__FILE__, __LINE__, "%s: hold %llu is back", cast->name, (unsigned long long)hold->number);
    cast->hold_number = hold == NULL ? 0 : hold->number;
    cast->is_forgetting = cast->is_holding = cast->is_releasing = cast->may_be_held = false;
}

static void check_stream(struct scene *scene, struct cast *cast)
{
    struct stream *stream = find(scene, cast);
    bool has_begun = false;

    if (stream == NULL) {
        CHECK(!cast->is_defined || cast->is_removing);
        forget(cast);
        return;
    }
    CHECK(cast->is_defined || cast->is_defining || cast->may_be_there);
    cast->is_defining = cast->is_removing = cast->may_be_there =
        false; /* nobody was told; it is there as it was */
    cast->is_defined = true;
    CHECK(stream->epoch >= cast->epoch);
    CHECK(stream->next_seq >= cast->durable_seq);
    CHECK(stream->next_seq <= cast->offered_seq);
    CHECK_EQ(stream->damaged_frames, 0);
    check_hold(cast, stream);
    for (uint64_t seq = 0; seq < stream->next_seq; seq++)
        has_begun |= !check_number(scene, cast, stream, seq, has_begun);
    if (sim_disk_is_off())
        return; /* and the next life looks again */
    cast->is_opening = false;
    cast->next_seq = cast->offered_seq = cast->durable_seq = stream->next_seq;
    cast->epoch = stream->epoch;
}

static void check_all(struct scene *scene)
{
    CHECK_EQ(scene->fixture.store->quarantined_frames, 0);
    for (uint32_t i = 0; i < STREAMS; i++)
        check_stream(scene, &scene->cast[i]);
}

/* --- the story --- */

static void leave_writers(struct scene *scene)
{
    for (uint32_t i = 0; i < STREAMS; i++) {
        struct stream *stream = find(scene, &scene->cast[i]);

        if (stream != NULL && stream->writer != NULL)
            stream_detach(stream, &scene->cast[i].writer.base);
    }
}

/* The store ended in order: what it was told is durable (but of a stream that was to go), what it was asked is done. */
static void hear_the_end(struct cast *cast, bool is_unread)
{
    if (!cast->is_removing && !is_unread)
        cast->durable_seq = cast->next_seq;
    cast->is_defined |= cast->is_defining && cast->defined.ok;
    cast->may_be_there |= cast->is_defining && !cast->defined.ok;
    cast->is_defining = false;
    hear_retention(cast);
    if (cast->is_removing && cast->removed.ok)
        forget(cast);
}

static struct cast *largest(struct scene *scene)
{
    struct cast *largest = NULL;
    uint64_t most = 0;

    for (uint32_t i = 0; i < STREAMS; i++) {
        const struct stream *stream = find(scene, &scene->cast[i]);

        if (stream != NULL && !scene->cast[i].is_removing && stream_disk_bytes(stream) > most) {
            largest = &scene->cast[i];
            most = stream_disk_bytes(stream);
        }
    }
    return largest;
}

/* The largest stream goes, and the others take its room: if the power brought it back, there would be too much. */
static void swap(struct scene *scene)
{
    struct cast *goes = largest(scene);

    if (goes == NULL)
        return;
    remove_stream(scene, goes, find(scene, goes));
    for (uint32_t i = 0; i < SWAP_ACTS && !sim_disk_is_off(); i++) {
        struct cast *cast = &scene->cast[sim_pick(sim_random(), STREAMS)];
        struct stream *stream = find(scene, cast);

        if (stream != NULL && !cast->is_removing)
            act_on(scene, cast, stream);
        turn(scene, sim_pick(sim_random(), 12));
    }
}

/* Until the power goes, or the scene is played. */
static void play(struct scene *scene)
{
    uint32_t acts = (5 + sim_pick(sim_random(), 60)) * (scene->is_long ? 4 : 1);

    for (uint32_t i = 0; i < acts && !sim_disk_is_off(); i++)
        act(scene);
    if (scene->is_long && scene->is_cut_last)
        swap(scene);
    if (scene->is_cut_last)
        sim_disk_crash_at(1);
    leave_writers(scene);
    fixture_stop(&scene->fixture);
    for (uint32_t i = 0; i < STREAMS && !sim_disk_is_off(); i++)
        hear_the_end(&scene->cast[i], scene->is_unread);
}

/* Starting is the store's work too, and may be cut short. */
static bool open_store(struct scene *scene)
{
    struct fixture *fixture = &scene->fixture;
    bool is_open;

    CHECK_OK(loop_create(&fixture->loop, &fixture->st), fixture->st);
    is_open = store_open(&fixture->store, fixture->loop, &fixture->options, &fixture->st);
    if (is_open)
        return true;
    if (!sim_disk_is_off() && sim_disk_failed() == 0)
        test_fail(__FILE__, __LINE__, "the store does not start: %s", fixture->st.text);
    loop_destroy(fixture->loop);
    return false;
}

/* Up to 2^12, the small ones as often as the large ones. */
static uint64_t some_call(void)
{
    return 1 + sim_pick(sim_random(), 1u << (4 + sim_pick(sim_random(), 9)));
}

static void let_calls_fail(void)
{
    static const int errors[] = { EIO, ENOSPC, EMFILE, ENOMEM };

    sim_disk_fail_at(some_call(), 1 + sim_pick(sim_random(), 3), errors[sim_pick(sim_random(), 4)]);
}

/* What could not be read at this start is not served until the next one; its numbers are not given again. */
static void go_on_unchecked(struct scene *scene)
{
    scene->is_unread = scene->was_unread = true;
    for (uint32_t i = 0; i < STREAMS; i++) {
        const struct stream *stream = find(scene, &scene->cast[i]);

        if (stream != NULL)
            scene->cast[i].next_seq = stream->next_seq;
    }
}

static void live(struct scene *scene)
{
    bool calls_fail = !scene->only_cuts && !scene->keeps && sim_chance(sim_random(), 30);
    bool at_start = sim_chance(sim_random(), 30);
    bool is_open;

    if (calls_fail && at_start)
        let_calls_fail();
    else if (!calls_fail)
        sim_disk_crash_at(some_call());
    scene->is_unread = false;
    scene->is_cut = !calls_fail;
    scene->is_cut_last = scene->is_cut && sim_chance(sim_random(), 30);
    is_open = open_store(scene);
    if (is_open && sim_disk_failed() == 0)
        check_all(scene);
    else if (is_open)
        go_on_unchecked(scene);
    if (calls_fail && !at_start)
        let_calls_fail();
    if (is_open)
        play(scene);
    scene->story->crashes += sim_disk_is_off();
    scene->story->failed_calls += sim_disk_failed();
    scene->has_failed |= sim_disk_failed() > 0;
    sim_disk_boot();
}

void store_story_run(uint64_t seed, bool only_cuts, struct store_story *story)
{
    static struct scene scene;

    sim_start(seed);
    sim_disk_start(sim_random());
    scene = (struct scene){ .only_cuts = only_cuts, .is_long = sim_chance(sim_random(), 10), .story = story };
    scene.ages = sim_chance(sim_random(), 50);
    scene.keeps = scene.ages && sim_chance(sim_random(), 40);
    scene.gone_percent = !scene.is_long && sim_chance(sim_random(), 20) ? 10 : 1;
    scene.taken_percent = sim_chance(sim_random(), 30) ? 8 : 2;
    scene.fixture.options = (struct store_options){ .name = "kv-a",
                                                    .root = "/data",
                                                    .ram_bytes = 8 << 20,
                                                    .disk_bytes = 8 << 20,
                                                    .segment_bytes_max = 1 << 20,
                                                    .commit_ms = 5,
                                                    .reading_threads = 2,
                                                    .computing_threads = 2,
                                                    .writing_threads = 2,
                                                    .disk = &sim_disk };
    for (uint32_t i = 0; i < STREAMS; i++)
        snprintf(scene.cast[i].name, sizeof scene.cast[i].name, "cam-%u", i);
    for (uint32_t life = 0; life < LIVES; life++)
        live(&scene);
    REQUIRE(open_store(&scene));
    check_all(&scene);
    if (sim_disk_bytes_max() > scene.fixture.options.disk_bytes)
        test_fail(__FILE__, __LINE__, "the disk held %llu bytes of %llu",
                  (unsigned long long)sim_disk_bytes_max(),
                  (unsigned long long)scene.fixture.options.disk_bytes);
    fixture_stop(&scene.fixture);
    sim_disk_stop();
    sim_stop();
}
