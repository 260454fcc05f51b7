/* What a question may see, and whose camera a name means: time ranges hold for every frame of the evidence, and one name
 * in two namespaces is two cameras to every call. */
#include "reelkv/v1/catalog.pb-c.h"
#include "rpc/api.h"
#include "stage.h"

enum { FRAMES = 40, CALL_MS = 60000 };

#define SECOND_NS 1000000000ll
static const int64_t start_ns = 1767225600 * SECOND_NS; /* as add_camera() has it */

/* ---------------------------------------------------------------------------------------------- time */

/* Frames [first, last] and no others: each is evidence, and of each layer's choice none is another. */
static void check_only(const struct asked *asked, uint32_t layers, uint64_t first, uint64_t last)
{
    CHECK_EQ(asked->evidence_count, last - first + 1);
    for (size_t i = 0; i < asked->evidence_count; i++) {
        uint64_t seq = asked->evidence[i].seq;

        CHECK(seq >= first && seq <= last);
        CHECK_EQ(asked->evidence[i].pts_ns, start_ns + (int64_t)seq * SECOND_NS / CLIP_FPS);
        for (size_t other = 0; other < i; other++)
            CHECK(asked->evidence[other].seq != seq);
    }
    for (uint32_t layer = 0; layer < layers; layer++) {
        CHECK(asked->chosen_count[layer] > 0);
        for (size_t i = 0; i < asked->chosen_count[layer]; i++)
            CHECK(asked->chosen[layer][i] >= first && asked->chosen[layer][i] <= last);
    }
}

/* A question that may read every frame reads those of its range, all of them: from the first moment, without the last. */
TEST(evidence_lies_inside_the_range_asked_for)
{
    static const struct {
        int64_t from_ns, to_ns; /* after the film's start */
        uint64_t first, last;
    } cases[] = {
        { 5 * SECOND_NS, 10 * SECOND_NS, 10, 19 },
        { 5 * SECOND_NS + 1, 10 * SECOND_NS + 1, 11, 20 },
        { -60 * SECOND_NS, 2 * SECOND_NS, 0, 3 },
        { 18 * SECOND_NS, 3600 * SECOND_NS, 36, FRAMES - 1 },
    };
    struct stage stage = { 0 };
    struct asked asked;

    stage_open(&stage);
    add_camera(stage.store, "dock", stage_film(FRAMES));
    wait_ended(stage.store, "dock", FRAMES);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        stage_ask(&stage,
                  &(struct question){ .camera = "dock",
                                      .words = "what is there?",
                                      .from_ns = start_ns + cases[i].from_ns,
                                      .to_ns = start_ns + cases[i].to_ns,
                                      .top_r = FRAMES,
                                      .max_tokens = 1 },
                  &asked);
        check_only(&asked, model_geometry(stage.model)->layers, cases[i].first, cases[i].last);
    }
    stage_close(&stage);
}

/* ---------------------------------------------------------------------------------------------- namespaces */

enum { PAIR = 2 };

/* The one name in both, and what tells them apart. */
struct tenant {
    const char *ns;
    uint32_t frames;
    int64_t start_ns;
};

static const struct tenant tenants[PAIR] = { { "north", 12, 1767225600 * SECOND_NS },
                                             { "south", 20, 1777225600 * SECOND_NS } };

static Reelkv__V1__StreamId door_of(const struct tenant *tenant)
{
    Reelkv__V1__StreamId id = REELKV__V1__STREAM_ID__INIT;

    id.namespace_ = (char *)(uintptr_t)tenant->ns;
    id.name = (char *)"door";
    return id;
}

/* A call of the catalog; the reply is valid until the call is destroyed. False: *st says why. */
static bool catalog(const struct stage *stage, const struct rpc_method *method,
                    const ProtobufCMessage *request, struct rpc_sync_stream **call_p, const void **reply_p,
                    struct status *st)
{
    const struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    const struct rpc_message *message;

    if (!rpc_sync_unary(call_p, stage->store, method, &options, request, &message, st))
        return false;
    *reply_p = message->body;
    return true;
}

static void add_door(const struct stage *stage, const struct tenant *tenant)
{
    Reelkv__V1__CreateStreamRequest request = REELKV__V1__CREATE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamDefinition definition = REELKV__V1__STREAM_DEFINITION__INIT;
    Reelkv__V1__StreamId id = door_of(tenant);
    struct rpc_sync_stream *call;
    const void *reply;
    struct status st = { 0 };

    definition.id = &id;
    definition.source = (char *)(uintptr_t)stage_film(tenant->frames);
    definition.kind = REELKV__V1__SOURCE_KIND__SOURCE_KIND_FILE;
    definition.sample_fps = CLIP_FPS;
    definition.start_time_ns = tenant->start_ns;
    request.definition = &definition;
    CHECK_OK(catalog(stage, &api_create_stream, &request.base, &call, &reply, &st), st);
    rpc_sync_stream_destroy(call);
}

/* GetStream: true when there is one, with the tenant's own beginning; *frames_p is what it has when it has ended, else 0. */
static bool look(const struct stage *stage, const struct tenant *tenant, uint64_t *frames_p)
{
    Reelkv__V1__GetStreamRequest request = REELKV__V1__GET_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = door_of(tenant);
    const Reelkv__V1__StreamStatus *status;
    struct rpc_sync_stream *call;
    const void *reply;
    struct status st = { 0 };
    bool ok;

    request.id = &id;
    ok = catalog(stage, &api_get_stream, &request.base, &call, &reply, &st);
    if (ok) {
        status = reply;
        CHECK_STR(status->definition->id->namespace_, tenant->ns);
        CHECK_EQ(status->definition->start_time_ns, tenant->start_ns);
        *frames_p = status->state == REELKV__V1__STREAM_STATE__STREAM_STATE_ENDED ? status->stored_frames : 0;
    } else {
        CHECK_EQ(st.code, STATUS_NOT_FOUND);
    }
    rpc_sync_stream_destroy(call);
    return ok;
}

static void wait_door(const struct stage *stage, const struct tenant *tenant)
{
    uint64_t frames = 0;

    for (int tries = 0; frames == 0 && tries < CALL_MS / 50; tries++) {
        CHECK(look(stage, tenant, &frames));
        test_pause_ms(50);
    }
    CHECK_EQ(frames, tenant->frames);
}

/* ListStreams of a namespace ("": all) gives `count` doors, the first of namespace `first`. */
static void check_list(const struct stage *stage, const char *ns, size_t count, const char *first)
{
    Reelkv__V1__ListStreamsRequest request = REELKV__V1__LIST_STREAMS_REQUEST__INIT;
    const Reelkv__V1__ListStreamsReply *list;
    struct rpc_sync_stream *call;
    const void *reply;
    struct status st = { 0 };

    request.namespace_ = (char *)(uintptr_t)ns;
    CHECK_OK(catalog(stage, &api_list_streams, &request.base, &call, &reply, &st), st);
    list = reply;
    CHECK_EQ(list->n_streams, count);
    for (size_t i = 0; i < count; i++)
        CHECK_STR(list->streams[i]->definition->id->name, "door");
    if (count > 0)
        CHECK_STR(list->streams[0]->definition->id->namespace_, first);
    rpc_sync_stream_destroy(call);
}

static struct question about(const struct tenant *tenant)
{
    return (struct question){
        .ns = tenant->ns, .camera = "door", .words = "what is there?", .top_r = FRAMES, .max_tokens = 1
    };
}

/* A question that may read every frame reads those of its own namespace's camera. */
static void check_answer(struct stage *stage, const struct tenant *tenant)
{
    const struct question question = about(tenant);
    struct asked asked;

    stage_ask(stage, &question, &asked);
    CHECK_EQ(asked.evidence_count, tenant->frames);
    for (size_t i = 0; i < asked.evidence_count; i++)
        CHECK_EQ(asked.evidence[i].pts_ns,
                 tenant->start_ns + (int64_t)asked.evidence[i].seq * SECOND_NS / CLIP_FPS);
}

static void check_no_answer(struct stage *stage, const struct tenant *tenant)
{
    const struct question question = about(tenant);
    struct asked asked;
    struct status st = { 0 };

    CHECK(!ask_read(stage_ask_open(stage, &question), &asked, &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
}

static void remove_door(const struct stage *stage, const struct tenant *tenant)
{
    Reelkv__V1__DeleteStreamRequest request = REELKV__V1__DELETE_STREAM_REQUEST__INIT;
    Reelkv__V1__StreamId id = door_of(tenant);
    struct rpc_sync_stream *call;
    const void *reply;
    struct status st = { 0 };

    request.id = &id;
    CHECK_OK(catalog(stage, &api_delete_stream, &request.base, &call, &reply, &st), st);
    CHECK_EQ(((const Reelkv__V1__DeleteStreamReply *)reply)->frames, tenant->frames);
    rpc_sync_stream_destroy(call);
}

TEST(one_name_in_two_namespaces_is_two_cameras)
{
    static const struct tenant stranger = { .ns = "default" };
    struct stage stage = { 0 };
    uint64_t frames;

    stage_open(&stage);
    for (int i = 0; i < PAIR; i++) {
        add_door(&stage, &tenants[i]);
        wait_door(&stage, &tenants[i]);
    }
    for (int i = 0; i < PAIR; i++) {
        check_list(&stage, tenants[i].ns, 1, tenants[i].ns);
        check_answer(&stage, &tenants[i]);
    }
    check_list(&stage, "", PAIR, tenants[0].ns);
    check_list(&stage, stranger.ns, 0, NULL);
    CHECK(!look(&stage, &stranger, &frames));
    check_no_answer(&stage, &stranger);

    remove_door(&stage, &tenants[0]);
    CHECK(!look(&stage, &tenants[0], &frames));
    check_list(&stage, tenants[0].ns, 0, NULL);
    check_list(&stage, "", 1, tenants[1].ns);
    check_no_answer(&stage, &tenants[0]);
    wait_door(&stage, &tenants[1]);
    check_answer(&stage, &tenants[1]);
    stage_close(&stage);
}

TEST_MAIN()
