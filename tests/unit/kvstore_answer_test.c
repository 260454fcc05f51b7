/* What questions are answered when there is little to say: nothing stored yet, frames that have aged or gone, a caller who
 * does not keep to the order, tickets and watches up to their limits. */
#include "kvstore_patchwork.h"

static struct calls calls;
static Reelkv__V1__FrameRef ref, *refs[] = { &ref };

static struct stream *start(bool is_empty)
{
    calls_start(&calls);
    calls_messages();
    ref = (Reelkv__V1__FrameRef)REELKV__V1__FRAME_REF__INIT;
    return is_empty ? fixture_define(&calls.fixture, "cam-1") : patch_make(&calls);
}

/* Nothing is stored: no hits, one answer a frame whatever the layers, nothing to read ahead. */
TEST(answer_about_a_stream_that_has_nothing)
{
    Reelkv__V1__ScoreRequest score = REELKV__V1__SCORE_REQUEST__INIT;
    Reelkv__V1__FetchRequest fetch = REELKV__V1__FETCH_REQUEST__INIT;
    Reelkv__V1__PrefetchRequest prefetch = REELKV__V1__PREFETCH_REQUEST__INIT;
    const Reelkv__V1__SliceReply *slice;
    const Reelkv__V1__PrefetchReply *ticket;

    start(true);
    score.view = fetch.view = prefetch.view = &calls_view;
    score.selection = &calls_selection;
    score.layer = 100; /* no model has said how many there are */
    CALLS_OK(&calls, score, &score);
    CHECK_EQ(((const Reelkv__V1__ScoreReply *)said.replies[0])->n_hits, 0);
    fetch.frames = prefetch.frames = refs;
    fetch.n_frames = prefetch.n_frames = 1;
    fetch.layers = 100;
    CALLS_OK(&calls, fetch, &fetch);
    CHECK_EQ(said.count, 1);
    slice = (const Reelkv__V1__SliceReply *)said.replies[0];
    CHECK_EQ(slice->head->result, REELKV__V1__FRAME_RESULT__FRAME_RESULT_NOT_FOUND);
    prefetch.deadline_ms = 1;
    CALLS_OK(&calls, prefetch, &prefetch);
    ticket = (const Reelkv__V1__PrefetchReply *)said.replies[0];
    CHECK_EQ(ticket->wanted, 0);
    CHECK(ticket->done);
    calls_close_store(&calls);
}

/* --- retrieve --- */

static Reelkv__V1__RetrieveRequest message;
static Reelkv__V1__RetrieveOpen retrieve_open;
static Reelkv__V1__RetrieveQuery query;
static Reelkv__V1__RetrievePick pick;

static struct rpc_call *open_retrieve(bool picks)
{
    struct rpc_call *call = calls_begin(&calls, CALLS_HANDLER(retrieve), NULL);

    message = (Reelkv__V1__RetrieveRequest)REELKV__V1__RETRIEVE_REQUEST__INIT;
    retrieve_open = (Reelkv__V1__RetrieveOpen)REELKV__V1__RETRIEVE_OPEN__INIT;
    query = (Reelkv__V1__RetrieveQuery)REELKV__V1__RETRIEVE_QUERY__INIT;
    pick = (Reelkv__V1__RetrievePick)REELKV__V1__RETRIEVE_PICK__INIT;
    retrieve_open.view = &calls_view;
    retrieve_open.selection = &calls_selection;
    retrieve_open.pick = picks;
    query.query = calls_query();
    message.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    message.open = &retrieve_open;
    return call;
}

static void send_query(struct rpc_call *call, uint32_t layer)
{
    query.layer = layer;
    message.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    message.query = &query;
    calls_send(&calls, call, &message.base);
}

static void send_pick(struct rpc_call *call)
{
    message.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_PICK;
    message.pick = &pick;
    calls_send(&calls, call, &message.base);
}

static void ended(struct rpc_call *call, const char *words)
{
    CHECK_EQ(calls_end(&calls, call), STATUS_INVALID);
    CHECK_HAS(said.end.text, words);
}

TEST(answer_to_a_caller_who_does_not_keep_to_the_order)
{
    static Reelkv__V1__FrameRef *many[LIMIT_TOP_BLOCKS + 1];
    struct rpc_call *call;

    start(false);
    call = open_retrieve(true);
    send_query(call, 0);
    ended(call, "expected Open");
    call = open_retrieve(true);
    calls_send(&calls, call, &message.base);
    calls_send(&calls, call, &message.base);
    ended(call, "expected Query");
    call = open_retrieve(true);
    calls_send(&calls, call, &message.base);
    send_query(call, 1);
    send_query(call, 2);
    ended(call, "expected Pick");
    call = open_retrieve(false);
    calls_send(&calls, call, &message.base);
    send_query(call, 1);
    send_query(call, 1);
    ended(call, "query for layer 1 after that for layer 1");
    call = open_retrieve(true);
    calls_send(&calls, call, &message.base);
    send_query(call, 1);
    pick.layer = 2;
    send_pick(call);
    ended(call, "layer 1 was scored");
    call = open_retrieve(true);
    calls_send(&calls, call, &message.base);
    send_query(call, 1);
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = &ref;
    pick.layer = 1;
    pick.frames = many;
    pick.n_frames = ARRAY_LEN(many);
    send_pick(call);
    ended(call, "pick of 4097 frames");
    call = open_retrieve(true);
    retrieve_open.selection = NULL;
    calls_send(&calls, call, &message.base);
    ended(call, "no selection");
    call = open_retrieve(true);
    retrieve_open.view = NULL;
    calls_send(&calls, call, &message.base);
    ended(call, "no view");
    call = open_retrieve(true);
    calls_send(&calls, call, &message.base);
    query.query.len = 4;
    send_query(call, 0);
    ended(call, "query");
    calls_close_store(&calls);
}

/* Frames without K and V are not chosen, and are told as gone; what was picked of them answers so. */
TEST(answer_about_frames_that_have_aged)
{
    const Reelkv__V1__RetrieveOpened *opened;
    struct rpc_call *call;
    uint32_t evicted = 0;

    start(false);
    call = open_retrieve(true);
    calls_send(&calls, call, &message.base);
    opened = ((const Reelkv__V1__RetrieveReply *)said.replies[0])->opened;
    CHECK_EQ(opened->frames, 30);
    CHECK_EQ(opened->evicted_frames, 6 + 3 + 3);
    CHECK_EQ(opened->gap_frames, 2);
    CHECK_EQ(opened->damaged_frames, 6);
    send_query(call, 0);
    ref.seq = 13; /* keys alone */
    pick.frames = refs;
    pick.n_frames = 1;
    send_pick(call);
    CHECK_EQ(calls_finish(&calls, call), STATUS_OK);
    for (uint32_t i = 0; i < said.count; i++) {
        const Reelkv__V1__RetrieveReply *reply = (const Reelkv__V1__RetrieveReply *)said.replies[i];

        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE)
            evicted += reply->slice->head->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_EVICTED;
    }
    CHECK_EQ(evicted, 1);
    calls_close_store(&calls);
}

/* Its caller leaves while the threads work for it: what they read goes with it. */
TEST(answer_to_a_caller_who_leaves)
{
    struct fixture_jam jam = { 0 };
    struct rpc_call *call;

    start(false);
    call = open_retrieve(false);
    calls_send(&calls, call, &message.base);
    fixture_jam(&jam, calls.fixture.store->computing, 2);
    message.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    message.query = &query;
    calls_post(call, &message.base); /* the threads' line is full: it waits for a place */
    for (unsigned i = 0; i < 5; i++)
        loop_run_once(calls.fixture.loop);
    CHECK(!fuzz_call_is_idle(call));
    jam.is_let_go = true;
    FIXTURE_TURN_UNTIL(&calls.fixture, fuzz_call_is_idle(call));
    CHECK(!fuzz_call_is_over(call)); /* and was answered */
    query.layer = 1;
    calls_post(call, &message.base);
    calls_let_go(&calls, call);
    FIXTURE_TURN_UNTIL(&calls.fixture, jam.done == jam.submitted);
    calls_close_store(&calls);
}

/* --- tickets and watches --- */

TEST(answer_to_one_ticket_too_many)
{
    enum { TICKETS = 64 };
    Reelkv__V1__PrefetchRequest request = REELKV__V1__PREFETCH_REQUEST__INIT;
    Reelkv__V1__CancelPrefetchRequest cancel = REELKV__V1__CANCEL_PREFETCH_REQUEST__INIT;
    struct rpc_call *tickets[TICKETS];

    start(false);
    request.view = &calls_view;
    request.frames = refs;
    request.n_frames = 1;
    ref.seq = 45;
    for (uint32_t i = 0; i < TICKETS; i++)
        tickets[i] = calls_begin(&calls, CALLS_HANDLER(prefetch), &request.base);
    FIXTURE_TURN_UNTIL(&calls.fixture,
                       ((const Reelkv__V1__PrefetchReply *)said.replies[said.count - 1])->done);
    cancel.ticket = ((const Reelkv__V1__PrefetchReply *)said.replies[0])->ticket;
    CHECK_EQ(((const Reelkv__V1__PrefetchReply *)said.replies[said.count - 1])->wanted,
             fixture_geometry.layers);
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(prefetch), &request.base), STATUS_EXHAUSTED);
    CHECK_HAS(said.end.text, "has given 64 tickets, its limit");
    calls_let_go(&calls, tickets[10]); /* from the middle */
    CHECK_EQ(calls.kvstore.prefetch_count, TICKETS - 1);
    CALLS_OK(&calls, cancel_prefetch, &cancel);
    CHECK_EQ(calls_end(&calls, tickets[TICKETS - 1]), STATUS_OK);
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(cancel_prefetch), &cancel.base), STATUS_NOT_FOUND);
    CHECK_HAS(said.end.text, "it may have ended");
    kvstore_end_prefetches(&calls.kvstore);
    for (uint32_t i = 0; i < TICKETS - 1; i++)
        if (i != 10)
            CHECK_EQ(calls_end(&calls, tickets[i]), STATUS_OK);
    CHECK_EQ(calls.kvstore.prefetch_count, 0);
    calls_close_store(&calls);
}

TEST(answer_to_one_watch_too_many)
{
    enum { WATCHES = 256 };
    const struct status ending = { .code = STATUS_UNAVAILABLE, .text = "the store is going" };
    Reelkv__V1__WatchStreamRequest request = REELKV__V1__WATCH_STREAM_REQUEST__INIT;
    static struct rpc_call *watches[WATCHES];
    struct stream *stream = start(true);

    request.id = &calls_id;
    for (uint32_t i = 0; i < WATCHES; i++)
        watches[i] = calls_begin(&calls, CALLS_HANDLER(watch_stream), &request.base);
    CHECK_EQ(calls_ask(&calls, CALLS_HANDLER(watch_stream), &request.base), STATUS_EXHAUSTED);
    CHECK_HAS(said.end.text, "256 streams are watched");
    calls_let_go(&calls, watches[1]); /* from the middle */
    watches[1] = calls_begin(&calls, CALLS_HANDLER(watch_stream), &request.base);
    CHECK_EQ(said.count, 1);
    CHECK_OK(fixture_take(&calls.fixture, stream, &calls.fixture.st), calls.fixture.st); /* news */
    FIXTURE_TURN_UNTIL(&calls.fixture, said.count == 1 + WATCHES);
    fixture_remove(&calls.fixture, stream);
    for (uint32_t i = 0; i < WATCHES; i++) {
        CHECK_EQ(calls_end(&calls, watches[i]), STATUS_NOT_FOUND);
        CHECK_HAS(said.end.text, "was removed");
    }
    fixture_define(&calls.fixture, "cam-1");
    watches[0] = calls_begin(&calls, CALLS_HANDLER(watch_stream), &request.base);
    kvstore_watches_end(calls.kvstore.watches, &ending);
    CHECK_EQ(calls_end(&calls, watches[0]), STATUS_UNAVAILABLE);
    CALLS_REFUSED(&calls, watch_stream, &request, STATUS_UNAVAILABLE, "the store is going");
    calls_close_store(&calls);
}

/* --- the catalog --- */

TEST(answer_in_pages)
{
    Reelkv__V1__ListStreamsRequest request = REELKV__V1__LIST_STREAMS_REQUEST__INIT;
    char name[16];

    start(true);
    for (unsigned i = 2; i < 6; i++) {
        snprintf(name, sizeof name, "cam-%u", i);
        fixture_define(&calls.fixture, name);
    }
    request.page_size = UINT32_MAX;
    CALLS_OK(&calls, list_streams, &request);
    CHECK_EQ(((const Reelkv__V1__ListStreamsReply *)said.replies[0])->n_streams, 5);
    request.page_size = 2;
    for (unsigned i = 1; i < 6; i += 2) {
        const Reelkv__V1__ListStreamsReply *reply;
        static char token[64];

        CALLS_OK(&calls, list_streams, &request);
        reply = (const Reelkv__V1__ListStreamsReply *)said.replies[0];
        CHECK_EQ(reply->n_streams, i == 5 ? 1 : 2);
        snprintf(name, sizeof name, "cam-%u", i);
        CHECK_STR(reply->streams[0]->definition->id->name, name);
        snprintf(token, sizeof token, "%s", reply->next_page_token);
        CHECK_EQ(token[0] == '\0', i == 5);
        request.page_token = token;
    }
    request.page_token = (char *)"";
    request.namespace_ = (char *)"other";
    CALLS_OK(&calls, list_streams, &request);
    CHECK_EQ(((const Reelkv__V1__ListStreamsReply *)said.replies[0])->n_streams, 0);
    calls_close_store(&calls);
}

TEST_MAIN()
