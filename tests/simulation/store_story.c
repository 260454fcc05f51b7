#include "store_story.h"

#include <errno.h>

#include "sim_disk.h"
#include "sim_loop.h"
#include "sim_memory.h"
#include "store_scene.h"

enum { LIVES = 3, SWAP_ACTS = 60 };

/* --- what must hold --- */

static void check_held(const struct scene_cast *cast, uint64_t seq, enum frame_result result)
{
    bool is_held = (cast->fates[seq] & FATE_IS_HELD) != 0,
         is_whole = (cast->fates[seq] & FATE_IS_HELD_WHOLE) != 0;

    if ((is_held && result == FRAME_EVICTED) || (is_whole && result == FRAME_DERIVED))
        test_fail(__FILE__, __LINE__, "%s: number %llu is held, and answers %d", cast->name,
                  (unsigned long long)seq, (int)result);
}

/* Whether it may lie before a number that was evicted: the oldest go first. */
static bool check_number(struct scene *scene, struct scene_cast *cast, struct stream *stream, uint64_t seq,
                         bool has_begun)
{
    enum frame_result result = scene_read(scene, stream, seq);
    unsigned offered = cast->was_offered[seq];
    bool is_fixed = seq < cast->durable_seq && !scene->was_unread;

    if (sim_disk_is_off() || (result == FRAME_UNAVAILABLE && scene_has_failures()))
        return true;
    if (result == FRAME_QUARANTINED && ((cast->fates[seq] & FATE_ROTTEN) != 0 || cast->was_unread[seq]))
        return false;
    check_held(cast, seq, result);
    if (result == FRAME_EVICTED && (cast->fates[seq] & (FATE_MAY_GO | FATE_WENT)) != 0) {
        cast->fates[seq] |= FATE_WENT; /* now somebody was told */
        return true;
    }
    if (result == FRAME_EVICTED && (cast->fates[seq] & FATE_MAY_MAKE_ROOM) != 0)
        return true;
    if (result == FRAME_EVICTED &&
        (!has_begun || scene->has_failed || (scene->ages && history_find(&stream->history, seq) != NULL))) {
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
        (result == FRAME_GAP && (offered & (1 << OFFER_GAP)) != 0)) {
        cast->was_unread[seq] = false;
        return result == FRAME_GAP;
    }
    test_fail(__FILE__, __LINE__, "%s: number %llu of %llu (durable below %llu, offered as %u) answers %d",
              cast->name, (unsigned long long)seq, (unsigned long long)stream->next_seq,
              (unsigned long long)cast->durable_seq, offered, (int)result);
}

/* One that was asked for, or to be released, may be there or not; nobody was told. */
static void check_hold(struct scene_cast *cast, const struct stream *stream)
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

/* What a receipt was given for, also one that nobody heard of, has gone. */
static void note_receipts(struct scene_cast *cast, const struct stream *stream)
{
    const struct forget_receipt *receipt;

    for (uint32_t n = 0; (receipt = stream_receipt_at(stream, n)) != NULL; n++)
        for (uint64_t seq = 0; receipt->done_ns != 0 && seq < receipt->next_seq; seq++)
            if (cast->offers[seq] == OFFER_FRAME && fixture_pts(seq) >= receipt->from_ns &&
                fixture_pts(seq) < receipt->to_ns) {
                cast->fates[seq] |= FATE_WENT;
                scene_check_nowhere(cast, seq);
            }
}

static void check_receipt(const struct scene_cast *cast, const struct stream *stream)
{
    for (uint32_t n = 0; cast->receipt_number != 0; n++) {
        const struct forget_receipt *receipt = stream_receipt_at(stream, n);

        if (receipt == NULL || (receipt->number == cast->receipt_number && receipt->done_ns == 0))
            test_fail(__FILE__, __LINE__, "%s: receipt %llu is lost", cast->name,
                      (unsigned long long)cast->receipt_number);
        if (receipt->number == cast->receipt_number)
            break;
    }
}

static uint64_t frames_that_may_be_damaged(const struct scene_cast *cast)
{
    uint64_t count = 0;

    for (uint64_t seq = 0; seq < SCENE_SEQ_MAX; seq++)
        count += (cast->fates[seq] & FATE_ROTTEN) != 0 || cast->was_unread[seq];
    return count;
}

static void check_stream(struct scene *scene, struct scene_cast *cast)
{
    struct stream *stream = scene_find(scene, cast);
    bool has_begun = false;

    if (stream == NULL) {
        CHECK(!cast->is_defined || cast->is_removing);
        scene_forget(cast);
        return;
    }
    CHECK(cast->is_defined || cast->is_defining || cast->may_be_there);
    cast->is_defining = cast->is_removing = cast->may_be_there =
        false; /* nobody was told; it is there as it was */
    cast->is_defined = true;
    CHECK(stream->epoch >= cast->epoch);
    CHECK(stream->next_seq >= cast->durable_seq);
    CHECK(stream->next_seq <= cast->offered_seq);
    CHECK(stream->damaged_frames <= frames_that_may_be_damaged(cast));
    check_hold(cast, stream);
    check_receipt(cast, stream);
    note_receipts(cast, stream);
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
    for (uint32_t i = 0; i < SCENE_STREAMS; i++)
        check_stream(scene, &scene->cast[i]);
}

/* --- the story --- */

static void leave_writers(struct scene *scene)
{
    for (uint32_t i = 0; i < SCENE_STREAMS; i++) {
        struct stream *stream = scene_find(scene, &scene->cast[i]);

        if (stream != NULL && stream->writer != NULL)
            stream_detach(stream, &scene->cast[i].writer.base);
    }
}

/* The store ended in order: what it was told is durable (but of a stream that was to go, and where a call failed: then the disk
 * may have taken nothing any more), what it was asked is done. */
static void hear_the_end(struct scene_cast *cast, bool is_unread)
{
    if (!cast->is_removing && !is_unread && !scene_has_failures())
        cast->durable_seq = cast->next_seq;
    cast->is_defined |= cast->is_defining && cast->defined.ok;
    cast->may_be_there |= cast->is_defining && !cast->defined.ok;
    cast->is_defining = false;
    scene_hear_retention(cast, NULL); /* what was held at the end is there at the next start */
    if (cast->is_removing && cast->removed.ok)
        scene_forget(cast);
}

static struct scene_cast *largest(struct scene *scene)
{
    struct scene_cast *largest = NULL;
    uint64_t most = 0;

    for (uint32_t i = 0; i < SCENE_STREAMS; i++) {
        const struct stream *stream = scene_find(scene, &scene->cast[i]);

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
    struct scene_cast *goes = largest(scene);

    if (goes == NULL)
        return;
    scene_remove(scene, goes, scene_find(scene, goes));
    for (uint32_t i = 0; i < SWAP_ACTS && !sim_disk_is_off(); i++) {
        struct scene_cast *cast = &scene->cast[sim_pick(sim_random(), SCENE_STREAMS)];
        struct stream *stream = scene_find(scene, cast);

        if (stream != NULL && !cast->is_removing)
            scene_act_on(scene, cast, stream);
        scene_turn(scene, sim_pick(sim_random(), 12));
    }
}

/* Until the power goes, or the scene is played. */
static void play(struct scene *scene)
{
    uint32_t most = scene->plan->trouble <= STORE_TROUBLE_CUTS ? 60 : 20;
    uint32_t acts = (5 + sim_pick(sim_random(), most)) * (scene->is_long ? 4 : 1);

    for (uint32_t i = 0; i < acts && !sim_disk_is_off(); i++)
        scene_act(scene);
    if (scene->is_long && scene->is_cut_last && sim_chance(sim_random(), 40))
        swap(scene);
    if (scene->scrubs && !sim_disk_is_off() && sim_chance(sim_random(), 50))
        scene_scrub(scene);
    if (scene->is_cut_last)
        sim_disk_crash_at(1);
    leave_writers(scene);
    fixture_stop(&scene->fixture);
    for (uint32_t i = 0; i < SCENE_STREAMS && !sim_disk_is_off(); i++)
        hear_the_end(&scene->cast[i], scene->is_unread);
}

/* Whatever went wrong while one was replaced: it is as it was or as it was to be, and believed. */
static void check_small_files(const struct store *store)
{
    for (const struct stream *stream = store_next(store, NULL, NULL); stream != NULL;
         stream = store_after(stream))
        if (stream->is_set_aside)
            test_fail(__FILE__, __LINE__, "%s is set aside: %s", stream->name, stream->trouble);
}

/* Starting is the store's work too, and may be cut short. */
static bool open_store(struct scene *scene)
{
    struct fixture *fixture = &scene->fixture;
    bool is_open;

    CHECK_OK(loop_create(&fixture->loop, &fixture->st), fixture->st);
    is_open = store_open(&fixture->store, fixture->loop, &fixture->options, &fixture->st);
    scene->opened_ns = clock_mono_ns();
    if (is_open && !scene_has_failures())
        check_small_files(fixture->store);
    if (is_open)
        return true;
    if (!sim_disk_is_off() && !scene_has_failures())
        test_fail(__FILE__, __LINE__, "the store does not start: %s", fixture->st.text);
    loop_destroy(fixture->loop);
    return false;
}

/* Up to 2^12, the small ones as often as the large ones. */
static uint64_t some_call(void)
{
    return 1 + sim_pick(sim_random(), 1u << (4 + sim_pick(sim_random(), 9)));
}

static void let_something_fail(void)
{
    static const int errors[] = { EIO, ENOSPC, EMFILE, ENOMEM };

    if (sim_chance(sim_random(), 50))
        sim_disk_fail_at(some_call(), 1 + sim_pick(sim_random(), 3), errors[sim_pick(sim_random(), 4)]);
    else
        sim_memory_fail_at(some_call(), 1 + sim_pick(sim_random(), 3));
}

/* Few, of one kind or of all, each for itself. */
static void let_some_fail(void)
{
    static const struct {
        unsigned calls;
        uint32_t of_10000;
    } ways[] = {
        { SIM_CALL_ALL, 10 },
        { SIM_CALL_ALL, 60 },
        { SIM_CALL_FILE_SYNC, 400 },
        { SIM_CALL_FILE_SYNC | SIM_CALL_FOLDER_SYNC, 1000 },
        { SIM_CALL_FOLDER_SYNC, 2500 },
        { SIM_CALL_REMOVAL, 2500 },
        { SIM_CALL_FOLDER_SYNC | SIM_CALL_REMOVAL, 2500 },
    };
    uint32_t way = sim_pick(sim_random(), ARRAY_LEN(ways));

    sim_disk_fail_some(ways[way].calls, ways[way].of_10000);
}

/* What could not be read at this start is not served until the next one; its numbers are not given again. */
static void go_on_unchecked(struct scene *scene)
{
    scene->is_unread = scene->was_unread = true;
    for (uint32_t i = 0; i < SCENE_STREAMS; i++) {
        const struct stream *stream = scene_find(scene, &scene->cast[i]);

        for (uint64_t seq = scene->cast[i].durable_seq; stream != NULL && seq < stream->next_seq; seq++)
            scene->cast[i].was_unread[seq] = true;
        if (stream != NULL)
            scene->cast[i].next_seq = stream->next_seq;
    }
}

/* The power goes, or the process; few calls fail before. Returns whether they do so from later on. */
static bool prepare_mixed(struct scene *scene)
{
    bool calls_fail = sim_chance(sim_random(), 75), at_start = sim_chance(sim_random(), 20);

    scene->is_cut = true;
    scene->is_cut_last = sim_chance(sim_random(), 60);
    if (sim_chance(sim_random(), 30))
        sim_disk_kill_at(some_call());
    else
        sim_disk_crash_at(some_call());
    if (calls_fail && at_start)
        let_some_fail();
    return calls_fail && !at_start;
}

/* What goes wrong from the start of a life on. Returns whether something fails later. */
static bool prepare(struct scene *scene, uint32_t life)
{
    const struct store_plan *plan = scene->plan;
    bool calls_fail = plan->trouble == STORE_TROUBLE_ANY && sim_chance(sim_random(), 40);
    bool at_start = sim_chance(sim_random(), 30);

    scene->is_cut = !calls_fail && plan->trouble <= STORE_TROUBLE_CUTS;
    scene->is_cut_last = scene->is_cut && sim_chance(sim_random(), scene->is_long ? 60 : 30);
    if (scene->is_cut)
        sim_disk_crash_at(some_call());
    if (calls_fail && at_start)
        let_something_fail();
    else if (plan->trouble == STORE_TROUBLE_ANY && sim_chance(sim_random(), 30))
        sim_disk_keep_sealed(1 + sim_pick(sim_random(), 8));
    if (plan->trouble == STORE_TROUBLE_DISK && life == 1)
        sim_disk_fail_at(plan->n, 1, plan->error);
    if (plan->trouble == STORE_TROUBLE_MEMORY && life == 1)
        sim_memory_fail_at(plan->n, 1);
    return calls_fail && !at_start;
}

static void count(struct scene *scene, uint32_t life)
{
    struct store_story *story = scene->story;

    story->crashes += sim_disk_is_off();
    story->failed_calls += sim_disk_failed();
    story->kept += sim_disk_kept();
    story->refused += sim_memory_failed();
    scene->has_failed |= scene_has_failures();
    if (life == 1) {
        story->calls = sim_disk_calls();
        story->asked = sim_memory_asked();
    }
}

static void live(struct scene *scene, uint32_t life)
{
    bool fails_later;
    bool is_open;

    sim_memory_start();
    fails_later = scene->is_mixed ? prepare_mixed(scene) : prepare(scene, life);
    scene->is_unread = false;
    is_open = open_store(scene);
    if (is_open && !scene_is_unread())
        check_all(scene);
    else if (is_open)
        go_on_unchecked(scene);
    if (fails_later && scene->is_mixed)
        let_some_fail();
    else if (fails_later)
        let_something_fail();
    if (scene->plan->trouble == STORE_TROUBLE_ANY && !scene->is_mixed && sim_chance(sim_random(), 50))
        sim_disk_keep_sealed(0);
    if (is_open)
        play(scene);
    count(scene, life);
    CHECK_EQ(sim_memory_live(), 0);
    if (scene->is_mixed && !sim_disk_was_cut())
        sim_disk_go_on();
    else
        sim_disk_boot();
}

void store_story_run(uint64_t seed, const struct store_plan *plan, struct store_story *story)
{
    static struct scene scene;
    struct sim_random apart = { .state = ~seed }; /* what the others tell does not change */

    sim_start(seed);
    sim_disk_start(sim_random());
    scene = (struct scene){ .plan = plan, .is_long = sim_chance(sim_random(), 10), .story = story };
    scene.ages = sim_chance(sim_random(), 50);
    scene.is_mixed = plan->trouble == STORE_TROUBLE_ANY && sim_chance(&apart, 25);
    scene.keeps = plan->trouble <= STORE_TROUBLE_CUTS && scene.ages && sim_chance(sim_random(), 40);
    scene.scrubs = plan->trouble == STORE_TROUBLE_ANY && sim_chance(sim_random(), 40);
    scene.gone_percent = !scene.is_long && sim_chance(sim_random(), 20) ? 10 : 1;
    scene.taken_percent = scene.is_long || sim_chance(sim_random(), 30) ? 8 : 2;
    scene.fixture.options =
        (struct store_options){ .name = "kv-a",
                                .root = "/data",
                                .ram_bytes = 8 << 20,
                                .disk_bytes = 8 << 20,
                                .segment_bytes_max = 1 << 20,
                                .commit_ms = 5,
                                .reads = sim_chance(sim_random(), 50) ? STORE_READS_BY_RING
                                                                      : STORE_READS_BY_THREADS,
                                .reading_threads = 2,
                                .computing_threads = 2,
                                .writing_threads = 2,
                                .disk = &sim_disk };
    if (scene.scrubs)
        scene.fixture.options.scrub_bytes_per_second = 1ull << (18 + sim_pick(sim_random(), 10));
    for (uint32_t i = 0; i < SCENE_STREAMS; i++)
        snprintf(scene.cast[i].name, sizeof scene.cast[i].name, "cam-%u", i);
    if (plan->trouble <= STORE_TROUBLE_CUTS && sim_chance(sim_random(), 10))
        sim_disk_move_parts(20);
    for (uint32_t life = 0; life < LIVES; life++)
        live(&scene, life);
    sim_memory_start();
    REQUIRE(open_store(&scene));
    check_all(&scene);
    if (sim_disk_bytes_max() > scene.fixture.options.disk_bytes)
        test_fail(__FILE__, __LINE__, "the disk held %llu bytes of %llu",
                  (unsigned long long)sim_disk_bytes_max(),
                  (unsigned long long)scene.fixture.options.disk_bytes);
    story->had_room = scene.used_bytes_max + 2 * scene.fixture.options.segment_bytes_max <=
                      scene.fixture.options.disk_bytes;
    fixture_stop(&scene.fixture);
    CHECK_EQ(sim_memory_live(), 0);
    sim_disk_stop();
    sim_stop();
}
