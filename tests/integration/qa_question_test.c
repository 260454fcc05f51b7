/* Questions at a qa whose kvstore is made up here and answers when the test lets it: how many are taken, what a
 * cancelled one leaves, what an answer says it could not know. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "kv/kv_crc.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "reelkv/v1/qa.pb-c.h"
#include "rpc/api.h"
#include "rpc/sync.h"
#include "support/cluster.h"
#include "support/store_double.h"
#include "support/test.h"

/* tiny-a in f32: 3 layers, 2 key heads of 16, a system prompt of 29 tokens. */
enum { TOKEN_BYTES = 2 * 2 * 16 * sizeof(float), INIT_TOKENS = 29, N_LOCAL = 60, BLOCK_TOKENS = 20 };
enum { BLOCKS_MAX = 8, HELD_MAX = 8, NOTES_MAX = 10, TRIES = 4000 };

/* ---------------------------------------------------------------------------------------- the store */

struct store;

/* A call that waits, and what it gets once it is released. */
struct held {
    struct rpc_call *call;
    void (*answer)(struct rpc_call *call, struct store *store);
};

struct store {
    uint32_t blocks;                       /* that every layer chooses */
    uint32_t damaged;                      /* besides, by what the store says of the view */
    bool finds_damage;                     /* in every block it is to send */
    const Reelkv__V1__FrameResult *found;  /* of each frame named, in the order of their numbers */
    atomic_bool holds_info, holds_queries; /* until released() */
    atomic_uint infos, retrieves;          /* calls that came */
    struct held held[HELD_MAX];            /* the store's thread only */
    struct letter release;
    atomic_uint released; /* how often */
    struct store_double made_up;
};

static void hold(struct store *store, struct rpc_call *call,
                 void (*answer)(struct rpc_call *call, struct store *store))
{
    uint32_t at = 0;

    while (store->held[at].call != NULL)
        REQUIRE(++at < HELD_MAX);
    store->held[at] = (struct held){ call, answer };
}

static void let_go(struct rpc_call *call, void *user)
{
    struct store *store = user;

    for (uint32_t i = 0; i < HELD_MAX; i++)
        if (store->held[i].call == call)
            store->held[i].call = NULL;
}

static void write_reply(struct rpc_call *call, Reelkv__V1__RetrieveReply *reply,
                        const struct rpc_attachment *payload)
{
    CHECK(rpc_call_write(call, &reply->base, payload));
}

static void write_hits(struct rpc_call *call, uint32_t layer, uint32_t count)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveHits hits = REELKV__V1__RETRIEVE_HITS__INIT;
    Reelkv__V1__Hit hit[BLOCKS_MAX], *list[BLOCKS_MAX];
    Reelkv__V1__FrameRef ref[BLOCKS_MAX];

    REQUIRE(count <= BLOCKS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        ref[i] = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
        ref[i].seq = i;
        hit[i] = (Reelkv__V1__Hit)REELKV__V1__HIT__INIT;
        hit[i].frame = &ref[i];
        hit[i].tokens = BLOCK_TOKENS;
        hit[i].pts_ns = 1000 + i;
        list[i] = &hit[i];
    }
    hits.layer = layer;
    hits.n_hits = count;
    hits.hits = list;
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_HITS;
    reply.hits = &hits;
    write_reply(call, &reply, NULL);
}

/* Keys and values of zeros. */
static void fill_head(Reelkv__V1__SliceHead *head, uint32_t index, uint32_t layer,
                      struct rpc_attachment *payload)
{
    static const uint8_t zeros[BLOCK_TOKENS * TOKEN_BYTES];

    *head = (Reelkv__V1__SliceHead)REELKV__V1__SLICE_HEAD__INIT;
    head->index = index;
    head->layer = layer;
    head->result = REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK;
    head->tokens = BLOCK_TOKENS;
    head->pts_ns = 1000 + index;
    head->length = sizeof zeros;
    head->crc32c = kv_crc(0, zeros, sizeof zeros);
    *payload = (struct rpc_attachment){ zeros, sizeof zeros, NULL, NULL };
}

static void answer_layer(struct rpc_call *call, uint32_t layer, const struct store *store)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveLayerEnd end = REELKV__V1__RETRIEVE_LAYER_END__INIT;
    Reelkv__V1__SliceReply slice = REELKV__V1__SLICE_REPLY__INIT;
    Reelkv__V1__SliceHead head;
    struct rpc_attachment payload;

    write_hits(call, layer, store->blocks);
    slice.head = &head;
    for (uint32_t i = 0; i < store->blocks; i++) {
        fill_head(&head, i, layer, &payload);
        if (store->finds_damage)
            head.result = REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED;
        reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE;
        reply.slice = &slice;
        write_reply(call, &reply, store->finds_damage ? NULL : &payload);
    }
    end.layer = layer;
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END;
    reply.layer_end = &end;
    write_reply(call, &reply, NULL);
}

static void on_request(struct rpc_call *call, const struct rpc_message *message, void *user);

static void answer_held_query(struct rpc_call *call, struct store *store)
{
    answer_layer(call, 0, store);
    rpc_call_read(call, on_request);
}

static void on_request(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    const Reelkv__V1__RetrieveRequest *request =
        message != NULL ? (const Reelkv__V1__RetrieveRequest *)message->body : NULL;
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveOpened opened = REELKV__V1__RETRIEVE_OPENED__INIT;
    struct store *store = user;

    if (request == NULL) {
        rpc_call_finish(call, NULL);
        return;
    }
    if (request->item_case == REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN) {
        opened.frames = store->blocks;
        opened.damaged_frames = store->damaged;
        reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED;
        reply.opened = &opened;
        write_reply(call, &reply, NULL);
        atomic_fetch_add(&store->retrieves, 1);
    } else if (request->query->layer == 0 && atomic_load(&store->holds_queries)) {
        hold(store, call, answer_held_query);
        return; /* asks for no more until it is released */
    } else {
        answer_layer(call, request->query->layer, store);
    }
    rpc_call_read(call, on_request);
}

static void retrieve(struct rpc_call *call, void *state)
{
    rpc_call_on_end(call, let_go);
    rpc_call_read(call, on_request);
}

/* Sizes of the frames that are named, then each layer's slices of those that are there. */
static void fetch(struct rpc_call *call, void *state)
{
    const Reelkv__V1__FetchRequest *request = (const Reelkv__V1__FetchRequest *)rpc_call_request(call)->body;
    const struct store *store = state;

    for (uint32_t i = 0; i < request->n_frames; i++) {
        Reelkv__V1__SliceReply reply = REELKV__V1__SLICE_REPLY__INIT;
        Reelkv__V1__SliceHead head;
        struct rpc_attachment payload;

        fill_head(&head, i, request->first_layer, &payload);
        head.result = store->found[request->frames[i]->seq];
        reply.head = &head;
        CHECK(rpc_call_write(call, &reply.base, request->layers > 0 ? &payload : NULL));
    }
    rpc_call_finish(call, NULL);
}

static void answer_held_info(struct rpc_call *call, struct store *store)
{
    store_double_info(call, store);
}

static void get_server_info(struct rpc_call *call, void *state)
{
    struct store *store = state;

    atomic_fetch_add(&store->infos, 1);
    rpc_call_on_end(call, let_go);
    if (atomic_load(&store->holds_info))
        hold(store, call, answer_held_info);
    else
        store_double_info(call, state);
}

static void release_all(struct letter *letter)
{
    struct store *store = container_of(letter, struct store, release);

    for (uint32_t i = 0; i < HELD_MAX; i++) {
        struct held held = store->held[i];

        store->held[i].call = NULL;
        if (held.call != NULL)
            held.answer(held.call, store);
    }
    atomic_fetch_add(&store->released, 1);
}

/* From here on nothing is held. */
static void store_release(struct store *store)
{
    unsigned before = atomic_load(&store->released);

    atomic_store(&store->holds_info, false);
    atomic_store(&store->holds_queries, false);
    store->release.open = release_all;
    loop_post(store->made_up.served.loop, &store->release);
    while (atomic_load(&store->released) == before)
        test_pause_ms(1);
}

static const struct rpc_handler handlers[] = {
    { &api_get_server_info, get_server_info },
    { &api_retrieve, retrieve },
    { &api_fetch, fetch },
};

/* ------------------------------------------------------------------------------------------ the asker */

struct world {
    struct store store;
    struct cluster cluster;
    struct rpc_sync *qa;
};

static void begin(struct world *world, const char *const *flags)
{
    struct cluster_service *service;
    struct status st = { 0 };

    cluster_start(&world->cluster, REELKV_SOURCE_DIR "/tests/data/parity/tiny-a", "f32", N_LOCAL);
    world->store.made_up.handlers = handlers;
    world->store.made_up.handler_count = ARRAY_LEN(handlers);
    world->store.made_up.state = &world->store;
    world->store.made_up.stream = "cam";
    store_double_start(&world->store.made_up);
    service = cluster_service_start(&world->cluster, "qa", 0, flags);
    CHECK_OK(rpc_sync_create(&world->qa, service->address, NULL, &st), st);
}

static void end(struct world *world)
{
    rpc_sync_destroy(world->qa);
    cluster_stop(&world->cluster);
    store_double_stop(&world->store.made_up);
}

/* A question and what came of it. */
struct asking {
    struct world *world;
    uint32_t named; /* frames 0 to this are named; 0: the layers choose */
    pthread_t thread;
    atomic_bool over;
    bool ok;
    struct status st;
    char notes[NOTES_MAX][256];
    size_t note_count;
};

static struct rpc_sync_stream *ask_open(struct world *world, uint32_t named)
{
    static const struct rpc_stream_options patient = { .timeout_ms = 120000 };
    static char cam[] = "cam", *streams[] = { cam };
    Reelkv__V1__AskRequest request = REELKV__V1__ASK_REQUEST__INIT;
    Reelkv__V1__Count tokens = REELKV__V1__COUNT__INIT;
    Reelkv__V1__FrameRef refs[BLOCKS_MAX], *list[BLOCKS_MAX];
    struct rpc_sync_stream *call;
    struct status st = { 0 };

    for (uint32_t i = 0; i < named; i++) {
        refs[i] = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
        refs[i].seq = i;
        list[i] = &refs[i];
    }
    tokens.value = 2;
    request.namespace_ = (char *)(uintptr_t) "default";
    request.streams = streams;
    request.n_streams = 1;
    request.question = (char *)(uintptr_t) "What was there?";
    request.max_tokens = &tokens;
    request.n_frames = named;
    request.frames = list;
    request.selector = named > 0 ? REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_EXTERNAL : 0;
    CHECK_OK(rpc_sync_open(&call, world->qa, &api_ask, &patient, &st), st);
    if (rpc_sync_write(call, &request.base, NULL, &st))
        rpc_sync_half_close(call, &st);
    return call; /* a call that is over already says so when it is read */
}

static void take_notes(struct asking *asking, const Reelkv__V1__Evidence *evidence)
{
    CHECK(evidence->n_notes <= NOTES_MAX);
    asking->note_count = evidence->n_notes;
    for (size_t i = 0; i < evidence->n_notes; i++)
        snprintf(asking->notes[i], sizeof asking->notes[i], "%s", evidence->notes[i]);
}

/* Asks again while the qa has not read the directory. */
static void ask(struct asking *asking)
{
    for (int i = 0; i < TRIES; i++) {
        struct rpc_sync_stream *call = ask_open(asking->world, asking->named);
        const struct rpc_message *message;

        asking->st = (struct status){ 0 };
        while ((asking->ok = rpc_sync_read(call, &message, &asking->st)) && message != NULL) {
            const Reelkv__V1__AskReply *reply = (const Reelkv__V1__AskReply *)message->body;

            if (reply->item_case == REELKV__V1__ASK_REPLY__ITEM_EVIDENCE)
                take_notes(asking, reply->evidence);
        }
        rpc_sync_stream_destroy(call);
        if (asking->ok || (asking->st.code != STATUS_UNAVAILABLE && asking->st.code != STATUS_NOT_FOUND))
            return;
        test_pause_ms(20);
    }
}

static void *ask_thread(void *arg)
{
    struct asking *asking = arg;

    ask(asking);
    atomic_store(&asking->over, true);
    return NULL;
}

static void ask_named(struct asking *asking, struct world *world, uint32_t named)
{
    *asking = (struct asking){ .world = world, .named = named };
    REQUIRE(pthread_create(&asking->thread, NULL, ask_thread, asking) == 0);
}

static void ask_start(struct asking *asking, struct world *world)
{
    ask_named(asking, world, 0);
}

static void wait_for(const atomic_uint *counter, unsigned want)
{
    for (int i = 0; i < TRIES && atomic_load(counter) < want; i++)
        test_pause_ms(5);
    CHECK_EQ(atomic_load(counter), want);
}

/* Questions that the qa has now, as it tells the directory. */
static void wait_questions(uint32_t want)
{
    struct directory_view view = { 0 };
    struct status st = { 0 };
    uint32_t got = UINT32_MAX;

    for (int i = 0; i < TRIES && got != want; i++) {
        const struct worker_record *record;

        test_pause_ms(20);
        CHECK_OK(directory_read_once(redis_address(), 5000, &view, &st), st);
        record = directory_view_worker(&view, WORKER_QA, "qa-0");
        got = record != NULL ? record->streams : UINT32_MAX;
    }
    directory_view_deinit(&view);
    CHECK_EQ(got, want);
}

static unsigned over_count(const struct asking *asking, size_t count)
{
    unsigned over = 0;

    for (size_t i = 0; i < count; i++)
        over += atomic_load(&asking[i].over);
    return over;
}

/* ------------------------------------------------------------------------------------------- the claims */

/* max_waiting counted what idle threads had not picked up yet; with 0 the qa did not even start. */
TEST(max_questions_are_answered_and_max_waiting_more_wait)
{
    static const struct {
        const char *questions, *waiting;
        unsigned answering, taken;
    } rows[] = { { "1", "0", 1, 1 }, { "4", "1", 4, 5 } };
    static struct asking asking[6];
    static struct world world;

    for (size_t row = 0; row < ARRAY_LEN(rows); row++) {
        unsigned refused = 0, asked = rows[row].taken + 1;

        world = (struct world){ .store = { .blocks = 1 } };
        begin(&world,
              PROCESS_ARGS("--max-questions", rows[row].questions, "--max-waiting", rows[row].waiting));
        ask_start(&asking[0], &world); /* once it is answered, the directory and the store are known */
        pthread_join(asking[0].thread, NULL);
        CHECK_OK(asking[0].ok, asking[0].st);
        atomic_store(&world.store.holds_queries, true);
        for (unsigned i = 0; i < asked; i++)
            ask_start(&asking[i], &world);
        for (int i = 0; i < TRIES && over_count(asking, asked) == 0; i++)
            test_pause_ms(5);
        wait_for(&world.store.retrieves, 1 + rows[row].answering);
        CHECK_EQ(over_count(asking, asked), 1);
        store_release(&world.store);
        for (unsigned i = 0; i < asked; i++) {
            pthread_join(asking[i].thread, NULL);
            refused += !asking[i].ok && asking[i].st.code == STATUS_EXHAUSTED;
            if (!asking[i].ok)
                CHECK_HAS(asking[i].st.text, "are being answered");
        }
        CHECK_EQ(refused, 1);
        CHECK_EQ(atomic_load(&world.store.retrieves), 1 + rows[row].taken);
        end(&world);
    }
}

TEST(a_question_cancelled_in_the_queue_goes_at_once_and_asks_no_store)
{
    static struct world world;
    static struct asking first;
    struct rpc_sync_stream *second;

    world = (struct world){ .store = { .blocks = 1 } };
    begin(&world, PROCESS_ARGS("--max-questions", "1"));
    atomic_store(&world.store.holds_queries, true);
    ask_start(&first, &world);
    wait_for(&world.store.retrieves, 1);
    second = ask_open(&world, 0);
    wait_questions(2);
    rpc_sync_stream_destroy(second);
    wait_questions(1);
    store_release(&world.store);
    pthread_join(first.thread, NULL);
    CHECK_OK(first.ok, first.st);
    wait_questions(0);
    CHECK_EQ(atomic_load(&world.store.retrieves), 1);
    end(&world);
}

/* The store has not said yet whether it shares memory; the next question asks it, and is answered. */
TEST(a_question_cancelled_during_the_handshake_leaves_the_link_to_the_next)
{
    static struct world world;
    static struct asking next;
    struct rpc_sync_stream *call = NULL;

    world = (struct world){ .store = { .blocks = 1 } };
    begin(&world, NULL);
    atomic_store(&world.store.holds_info, true);
    for (int i = 0; i < TRIES && atomic_load(&world.store.infos) == 0; i++) {
        rpc_sync_stream_destroy(call); /* refused: the qa had not read the directory */
        call = ask_open(&world, 0);
        test_pause_ms(50);
    }
    CHECK(atomic_load(&world.store.infos) > 0);
    rpc_sync_stream_destroy(call);
    wait_questions(0);
    store_release(&world.store);
    ask_start(&next, &world);
    pthread_join(next.thread, NULL);
    CHECK_OK(next.ok, next.st);
    end(&world);
}

TEST(a_question_whose_store_says_nothing_holds_up_no_other)
{
    static struct asking held, other;
    static struct world world;

    world = (struct world){ .store = { .blocks = 1 } };
    begin(&world, PROCESS_ARGS("--max-questions", "2"));
    atomic_store(&world.store.holds_queries, true);
    ask_start(&held, &world);
    wait_for(&world.store.retrieves, 1);
    wait_questions(1);
    atomic_store(&world.store.holds_queries, false);
    ask_start(&other, &world);
    pthread_join(other.thread, NULL);
    CHECK_OK(other.ok, other.st);
    CHECK(!atomic_load(&held.over));
    store_release(&world.store);
    pthread_join(held.thread, NULL);
    CHECK_OK(held.ok, held.st);
    end(&world);
}

/* 29 tokens of system prompt and 6 blocks of 20 in a context whose end sees the newest 60 tokens: three blocks end too far
 * before it. They were listed as evidence without a word. */
TEST(chosen_frames_beyond_the_window_are_told_of)
{
    static struct asking asking;
    static struct world world;

    world = (struct world){ .store = { .blocks = 6 } };
    begin(&world, NULL);
    ask_start(&asking, &world);
    pthread_join(asking.thread, NULL);
    CHECK_OK(asking.ok, asking.st);
    CHECK_EQ(asking.note_count, 1);
    CHECK_HAS(asking.notes[0], "60 tokens (n_local) and saw nothing of the oldest 3 frames of a layer");
    CHECK_HAS(asking.notes[0], "smaller top_r");
    end(&world);
}

/* What could not be read of the frames that the asker named was left out without a word. */
TEST(named_frames_that_are_not_there_are_told_of)
{
    static const Reelkv__V1__FrameResult found[] = {
        REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK,
        REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP,
        REELKV__V1__FRAME_RESULT__FRAME_RESULT_NOT_FOUND,
        REELKV__V1__FRAME_RESULT__FRAME_RESULT_GAP,
    };
    static struct asking asking;
    static struct world world;

    world = (struct world){ .store = { .found = found } };
    begin(&world, NULL);
    ask_named(&asking, &world, ARRAY_LEN(found));
    pthread_join(asking.thread, NULL);
    CHECK_OK(asking.ok, asking.st);
    CHECK_EQ(asking.note_count, 2);
    CHECK_HAS(asking.notes[0], "2 chosen blocks were never stored");
    CHECK_HAS(asking.notes[1], "1 chosen blocks are not in their streams");
    end(&world);
}

/* An answer from what the disk has left said nothing of the rest; where nothing was left, that nothing had been stored; and
 * where the damage was found by the question itself, it was answered from no frame at all. */
TEST(damaged_frames_are_told_of_and_are_no_answer_alone)
{
    static const struct {
        uint32_t blocks, damaged;
        bool finds_damage;
        const char *says;
    } rows[] = { { 2, 60, false, "60 frames of this time are damaged on disk and cannot be read" },
                 { 0, 60, false, "what is stored for that time is damaged on disk, all of it (60 frames)" },
                 { 2, 0, true, "every frame that was chosen is damaged on disk" } };
    static struct asking asking;
    static struct world world;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        world = (struct world){ .store = { .blocks = rows[i].blocks,
                                           .damaged = rows[i].damaged,
                                           .finds_damage = rows[i].finds_damage } };
        begin(&world, NULL);
        ask_start(&asking, &world);
        pthread_join(asking.thread, NULL);
        CHECK_EQ(asking.ok ? STATUS_OK : asking.st.code, i == 0 ? STATUS_OK : STATUS_DATA_LOSS);
        CHECK_EQ(asking.note_count, i == 0);
        CHECK_HAS(asking.ok ? asking.notes[0] : asking.st.text, rows[i].says);
        end(&world);
    }
}

/* Whoever asks about a time without frames is told so; for the operator that is no event. */
TEST(a_view_with_nothing_in_it_is_no_trouble_of_the_qas)
{
    static struct asking asking;
    static struct world world;

    world = (struct world){ .store = { .blocks = 0 } };
    begin(&world, NULL);
    ask_start(&asking, &world);
    pthread_join(asking.thread, NULL);
    CHECK(!asking.ok);
    CHECK_EQ(asking.st.code, STATUS_OUT_OF_RANGE);
    CHECK_HAS(asking.st.text, "nothing is stored for that time");
    CHECK(strstr(process_log(&world.cluster.services[0].process), "question_failed") == NULL);
    end(&world);
}

TEST_MAIN()
