/* A question's conversation with a store that is made up here: what is believed of its bytes, and when it ends. */
#include "qa/retriever.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "kv/kv_crc.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "rpc/api.h"
#include "support/process.h"
#include "support/served.h"
#include "support/test.h"

enum { TOKENS = 3, SLICE_BYTES = 2 * 2 * TOKENS * sizeof(float), HITS = 2 };

/* What the store says of its second block. */
enum second { SECOND_OK, SECOND_DERIVED, SECOND_EVICTED, SECOND_LEFT_OUT, SECOND_BEFORE_FIRST_IS_WHOLE };

static enum second second;
static atomic_uint ended; /* Retrieve calls */

/* ---------------------------------------------------------------------------------------- the store */

static void write_slice(struct rpc_call *call, uint32_t index, Reelkv__V1__FrameResult result, size_t bytes)
{
    static const uint8_t zeros[SLICE_BYTES];
    struct rpc_attachment attachment = { zeros, bytes, NULL, NULL };
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__SliceReply slice = REELKV__V1__SLICE_REPLY__INIT;
    Reelkv__V1__SliceHead head = REELKV__V1__SLICE_HEAD__INIT;

    head.index = index;
    head.result = result;
    head.tokens = TOKENS;
    if (bytes > 0) {
        head.length = SLICE_BYTES;
        head.crc32c = kv_crc(0, zeros, SLICE_BYTES);
    }
    slice.head = &head;
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE;
    reply.slice = &slice;
    CHECK(rpc_call_write(call, &reply.base, bytes > 0 ? &attachment : NULL));
}

static void write_hits(struct rpc_call *call)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveHits hits = REELKV__V1__RETRIEVE_HITS__INIT;
    Reelkv__V1__Hit hit[HITS], *list[HITS];
    Reelkv__V1__FrameRef ref[HITS];

    for (uint32_t i = 0; i < HITS; i++) {
        ref[i] = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
        ref[i].seq = 10 + i;
        hit[i] = (Reelkv__V1__Hit)REELKV__V1__HIT__INIT;
        hit[i].frame = &ref[i];
        hit[i].tokens = TOKENS;
        hit[i].pts_ns = 1000 + i;
        list[i] = &hit[i];
    }
    hits.n_hits = HITS;
    hits.hits = list;
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_HITS;
    reply.hits = &hits;
    CHECK(rpc_call_write(call, &reply.base, NULL));
}

static void answer_layer(struct rpc_call *call)
{
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveLayerEnd end = REELKV__V1__RETRIEVE_LAYER_END__INIT;
    bool cut = second == SECOND_BEFORE_FIRST_IS_WHOLE;

    write_hits(call);
    write_slice(call, 0, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK, cut ? SLICE_BYTES / 2 : SLICE_BYTES);
    if (second == SECOND_OK || cut)
        write_slice(call, 1, REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK, SLICE_BYTES);
    if (second == SECOND_DERIVED)
        write_slice(call, 1, REELKV__V1__FRAME_RESULT__FRAME_RESULT_DERIVED, SLICE_BYTES);
    if (second == SECOND_EVICTED)
        write_slice(call, 1, REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED, 0);
    reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END;
    reply.layer_end = &end;
    CHECK(rpc_call_write(call, &reply.base, NULL));
}

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    const Reelkv__V1__RetrieveRequest *request =
        message != NULL ? (const Reelkv__V1__RetrieveRequest *)message->body : NULL;
    Reelkv__V1__RetrieveReply reply = REELKV__V1__RETRIEVE_REPLY__INIT;
    Reelkv__V1__RetrieveOpened opened = REELKV__V1__RETRIEVE_OPENED__INIT;

    if (request == NULL) {
        rpc_call_finish(call, NULL);
        return;
    }
    if (request->item_case == REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN) {
        opened.frames = HITS;
        reply.item_case = REELKV__V1__RETRIEVE_REPLY__ITEM_OPENED;
        reply.opened = &opened;
        CHECK(rpc_call_write(call, &reply.base, NULL));
    } else {
        answer_layer(call);
    }
    rpc_call_read(call, on_message);
}

static void on_end(struct rpc_call *call, void *user)
{
    atomic_fetch_add(&ended, 1);
}

static void retrieve(struct rpc_call *call, void *state)
{
    rpc_call_on_end(call, on_end);
    rpc_call_read(call, on_message);
}

/* Fetch of sizes (selector external): every frame is there. */
static void fetch(struct rpc_call *call, void *state)
{
    const Reelkv__V1__FetchRequest *request = (const Reelkv__V1__FetchRequest *)rpc_call_request(call)->body;

    for (uint32_t i = 0; i < request->n_frames; i++) {
        Reelkv__V1__SliceReply reply = REELKV__V1__SLICE_REPLY__INIT;
        Reelkv__V1__SliceHead head = REELKV__V1__SLICE_HEAD__INIT;

        head.index = i;
        head.result = REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK;
        head.tokens = TOKENS;
        reply.head = &head;
        CHECK(rpc_call_write(call, &reply.base, NULL));
    }
    rpc_call_finish(call, NULL);
}

static const struct rpc_handler handlers[] = { { &api_retrieve, retrieve }, { &api_fetch, fetch } };

/* ------------------------------------------------------------------------------------------ the question */

struct world {
    struct rpc_service service;
    struct served served;
    struct loop *loop;
    struct rpc *rpc;
    struct store_links links;
    struct store_calls calls;
    struct retriever_stream stream;
    struct retriever_options options;
    struct retriever *retriever;
    struct retriever_view view;
};

static void begin(struct world *world, enum second says)
{
    static const uint8_t fingerprint[MODEL_FINGERPRINT_BYTES];
    struct worker_record worker = { .kind = WORKER_KVSTORE, .name = "store-0" };
    struct directory_view view = { .workers = &worker, .worker_count = 1 };
    struct status st = { 0 };

    *world = (struct world){ .service = { "reelkv.v1.KvStore", handlers, ARRAY_LEN(handlers), NULL } };
    second = says;
    atomic_store(&ended, 0);
    world->served.services = &world->service;
    world->served.service_count = 1;
    served_start(&world->served);
    snprintf(worker.address, sizeof worker.address, "%s", served_address(&world->served));
    CHECK_OK(loop_create(&world->loop, &st) && rpc_create(&world->rpc, world->loop, &st), st);
    world->links.rpc = world->rpc;
    store_calls_init(&world->calls);
    world->stream.name = "cam";
    world->stream.link = store_link_get(&world->links, &view, "store-0", &st);
    CHECK_OK(world->stream.link != NULL, st);
    world->options = (struct retriever_options){
        .ns = "default",
        .streams = &world->stream,
        .stream_count = 1,
        .fingerprint = fingerprint,
        .geometry = { 1, 1, 2, KV_DTYPE_F32 },
        .selection = { .kind = KV_SELECT_REKV, .top_r = HITS },
        .tokens_max = 100,
        .timeout_ms = 60000,
        .calls = &world->calls,
    };
}

static bool open_and_retrieve(struct world *world, size_t *count_p, struct status *st)
{
    static const float query[2];
    const struct model_chosen *chosen;

    *st = (struct status){ 0 };
    CHECK_OK(retriever_open(&world->retriever, &world->options, &world->view, st), *st);
    return retriever_layer(world->retriever, 0, query, &chosen, count_p, st);
}

static void end(struct world *world)
{
    retriever_close(world->retriever);
    store_calls_deinit(&world->calls);
    store_link_unref(world->stream.link);
    rpc_destroy(world->rpc);
    loop_destroy(world->loop);
    served_stop(&world->served);
}

/* ------------------------------------------------------------------------------------------- the claims */

TEST(a_block_that_could_not_be_read_is_not_among_the_evidence)
{
    static struct world world;
    const struct kv_hit *hits;
    struct status st;
    uint32_t hit_count;
    size_t count;

    begin(&world, SECOND_EVICTED);
    CHECK_OK(open_and_retrieve(&world, &count, &st), st);
    CHECK_EQ(count, 1);
    hits = retriever_hits(world.retriever, &hit_count);
    CHECK_EQ(hit_count, 1);
    CHECK_EQ(hits[0].seq, 10);
    CHECK_EQ(retriever_totals(world.retriever)->missing[REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED], 1);
    end(&world);
}

TEST(a_block_read_from_a_reduced_copy_is_evidence_and_counted)
{
    static struct world world;
    struct status st;
    size_t count;

    begin(&world, SECOND_DERIVED);
    CHECK_OK(open_and_retrieve(&world, &count, &st), st);
    CHECK_EQ(count, 2);
    CHECK_EQ(retriever_totals(world.retriever)->derived, 1);
    end(&world);
}

TEST(a_layer_with_a_block_missing_or_cut_is_damage)
{
    static const struct {
        enum second says;
        const char *why;
    } rows[] = { { SECOND_LEFT_OUT, "1 of 2 blocks" },
                 { SECOND_BEFORE_FIRST_IS_WHOLE, "in the middle of another" } };
    static struct world world;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct status st;
        size_t count;

        begin(&world, rows[i].says);
        CHECK(!open_and_retrieve(&world, &count, &st));
        CHECK_EQ(st.code, STATUS_DATA_LOSS);
        CHECK_HAS(st.text, rows[i].why);
        end(&world);
    }
}

/* A checkpoint of NaNs answered that its asker's query was invalid. */
TEST(a_model_whose_numbers_are_not_finite_is_named)
{
    static const float query[2] = { 0, NAN };
    const struct model_chosen *chosen;
    static struct world world;
    struct status st = { 0 };
    size_t count;

    begin(&world, SECOND_OK);
    CHECK_OK(retriever_open(&world.retriever, &world.options, &world.view, &st), st);
    CHECK(!retriever_layer(world.retriever, 0, query, &chosen, &count, &st));
    CHECK_EQ(st.code, STATUS_INTERNAL);
    CHECK_HAS(st.text, "the model's numbers are not finite in layer 0");
    end(&world);
}

/* Before memory is taken for them. */
TEST(more_blocks_than_the_context_holds_are_refused)
{
    static struct world world;
    struct status st;
    size_t count;

    begin(&world, SECOND_OK);
    world.options.tokens_max = HITS * TOKENS - 1;
    CHECK(!open_and_retrieve(&world, &count, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, "choose fewer");
    end(&world);
}

/* While the answer is decoded the store must not keep the blocks leased. */
TEST(after_the_last_layer_the_stores_call_is_over)
{
    static struct world world;
    struct status st;
    size_t count;

    begin(&world, SECOND_OK);
    CHECK_OK(open_and_retrieve(&world, &count, &st), st);
    CHECK_EQ(count, HITS);
    CHECK_EQ(atomic_load(&ended), 0);
    retriever_let_go(world.retriever);
    for (int i = 0; i < 2000 && atomic_load(&ended) == 0; i++)
        test_pause_ms(10);
    CHECK_EQ(atomic_load(&ended), 1);
    end(&world);
}

/* Chosen or named by the asker: all layers and what is computed between them have timeout_ms together, not each. */
TEST(one_time_limit_holds_for_all_layers)
{
    static const struct retriever_frame frames[] = { { 0, 10 } };
    static const float query[2];
    static struct world world;

    for (int named = 0; named < 2; named++) {
        const struct model_chosen *chosen;
        struct status st = { 0 };
        size_t count;

        begin(&world, SECOND_OK);
        world.options.external = named;
        world.options.frames = frames;
        world.options.frame_count = ARRAY_LEN(frames);
        world.options.timeout_ms = 2000;
        CHECK_OK(retriever_open(&world.retriever, &world.options, &world.view, &st), st);
        CHECK_EQ(world.view.frames, named ? 1 : HITS);
        test_pause_ms(2100);
        CHECK(!retriever_layer(world.retriever, 0, query, &chosen, &count, &st));
        CHECK_EQ(st.code, STATUS_DEADLINE);
        CHECK_HAS(st.text, "retrieve_ms");
        end(&world);
    }
}

TEST_MAIN()
