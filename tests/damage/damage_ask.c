#include "damage_ask.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "rpc/api.h"
#include "support/payload.h"

enum {
    TIMEOUT_MS = 60000,
    FRAMES_ALL = DAMAGE_STREAMS * DAMAGE_FRAMES_MAX,
    WINDOW_TOKENS = 1 << 16,
    EPOCH = 3
};

const char *const asker_words[ASKER_COUNT] = { "Fetch", "Retrieve", "LoadWindow" };

struct expected {
    struct damage_frame frame;
    uint8_t *bytes; /* the payload, and the thumbnail behind it */
    uint32_t at;    /* among its stream's */
};

struct client {
    struct rpc_sync *rpc;
    struct expected list[FRAMES_ALL];
    uint32_t count;
    Reelkv__V1__FrameRef refs[FRAMES_ALL], *ref_list[FRAMES_ALL];
    Reelkv__V1__StreamId ids[DAMAGE_STREAMS], *id_list[DAMAGE_STREAMS];
    char names[DAMAGE_STREAMS][16];
    uint32_t first[DAMAGE_STREAMS + 1]; /* of each stream in the list */
    struct status st;
};

static const struct rpc_stream_options patient = { .timeout_ms = TIMEOUT_MS };

static void check(struct client *client, bool ok, const char *call)
{
    if (!ok)
        damage_fail("%s: %s", call, client->st.text);
}

static void expect(struct client *client, const struct damage_frame *frame, uint32_t at)
{
    struct expected *expected = &client->list[client->count];
    uint64_t len = kv_payload_bytes(&damage_geometry, frame->tokens) + frame->thumbnail_bytes;
    Reelkv__V1__FrameRef *ref = &client->refs[client->count];

    *expected = (struct expected){ .frame = *frame, .bytes = malloc(len), .at = at };
    REQUIRE(expected->bytes != NULL);
    for (uint64_t i = 0; i < len; i++)
        expected->bytes[i] = damage_byte(frame->stream, frame->seq, i, 1);
    reelkv__v1__frame_ref__init(ref);
    ref->stream = frame->stream;
    ref->seq = frame->seq;
    client->ref_list[client->count++] = ref;
}

struct client *client_create(const struct host *host)
{
    struct client *client = calloc(1, sizeof *client);

    REQUIRE(client != NULL);
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++) {
        client->first[i] = client->count;
        for (uint32_t n = 0; n < host->frame_count[i]; n++)
            expect(client, &host->frames[i][n], n);
        damage_stream_name(i, client->names[i]);
        reelkv__v1__stream_id__init(&client->ids[i]);
        client->ids[i].namespace_ = (char *)"default";
        client->ids[i].name = client->names[i];
        client->id_list[i] = &client->ids[i];
    }
    client->first[DAMAGE_STREAMS] = client->count;
    check(client, rpc_sync_create(&client->rpc, host->address, NULL, &client->st), "connect");
    return client;
}

void client_destroy(struct client *client)
{
    for (uint32_t i = 0; i < client->count; i++)
        free(client->list[i].bytes);
    rpc_sync_destroy(client->rpc);
    free(client);
}

static const struct expected *find(const struct client *client, uint32_t stream, uint64_t seq)
{
    for (uint32_t i = client->first[stream]; i < client->first[stream + 1]; i++)
        if (client->list[i].frame.seq == seq)
            return &client->list[i];
    damage_fail("%s: frame %llu was never written", client->names[stream], (unsigned long long)seq);
}

/* --- what was said --- */

static void hear(struct asked *asked, const struct expected *expected, enum said said)
{
    enum said *at = &asked->said[expected->frame.stream][expected->at];

    if (said > *at)
        *at = said;
}

static void compare(const struct client *client, const struct expected *expected, uint64_t from,
                    const struct rpc_payload *payload)
{
    uint64_t at = from;

    for (uint32_t i = 0; i < payload->piece_count; i++) {
        if (memcmp(payload->pieces[i].data, expected->bytes + at, payload->pieces[i].len) != 0)
            damage_fail("%s frame %llu: wrong bytes were served", client->names[expected->frame.stream],
                        (unsigned long long)expected->frame.seq);
        at += payload->pieces[i].len;
    }
}

static void hear_thumbnail(struct asked *asked, const struct expected *expected,
                           const ProtobufCBinaryData *thumbnail)
{
    const struct damage_frame *frame = &expected->frame;

    if (frame->thumbnail_bytes == 0)
        return;
    if (thumbnail->len == 0)
        hear(asked, expected, SAID_QUARANTINED);
    else if (thumbnail->len != frame->thumbnail_bytes ||
             memcmp(thumbnail->data, expected->bytes + kv_payload_bytes(&damage_geometry, frame->tokens),
                    thumbnail->len) != 0)
        damage_fail("frame %llu: a wrong thumbnail was served", (unsigned long long)frame->seq);
}

/* One layer of one frame, which fits one message. */
static void hear_slice(const struct client *client, struct asked *asked, const struct expected *expected,
                       const Reelkv__V1__SliceHead *head, const struct rpc_payload *payload)
{
    uint64_t length = 2 * kv_slice_bytes(&damage_geometry, expected->frame.tokens);

    if (head->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED) {
        hear(asked, expected, SAID_QUARANTINED);
    } else if (head->result != REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK) {
        hear(asked, expected, SAID_OTHER);
    } else if (head->length != length || payload->len != length || head->tokens != expected->frame.tokens) {
        damage_fail("frame %llu: a layer of %zu bytes", (unsigned long long)expected->frame.seq,
                    payload->len);
    } else {
        compare(client, expected, payload_layer_offset(&damage_geometry, expected->frame.tokens, head->layer),
                payload);
        hear(asked, expected, SAID_RIGHT);
    }
}

/* --- the calls --- */

struct view_message {
    Reelkv__V1__View view;
    Reelkv__V1__TimeRange range;
};

static void make_view(struct client *client, struct view_message *made, uint32_t first, uint32_t count)
{
    reelkv__v1__view__init(&made->view);
    reelkv__v1__time_range__init(&made->range);
    made->view.streams = client->id_list + first;
    made->view.n_streams = count;
    made->view.fingerprint =
        (ProtobufCBinaryData){ KV_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)damage_fingerprint };
    made->view.range = &made->range;
}

static struct rpc_sync_stream *open_call(struct client *client, const struct rpc_method *method,
                                         const ProtobufCMessage *request)
{
    struct rpc_sync_stream *call = NULL;

    check(client,
          rpc_sync_open(&call, client->rpc, method, &patient, &client->st) &&
              rpc_sync_write(call, request, NULL, &client->st),
          method->path);
    return call;
}

static const void *read_reply(struct client *client, struct rpc_sync_stream *call,
                              struct rpc_payload *payload)
{
    const struct rpc_message *message;

    check(client, rpc_sync_read(call, &message, &client->st), "read");
    if (message == NULL)
        return NULL;
    *payload = message->payload;
    return message->body;
}

static void fetch(struct client *client, struct asked *asked)
{
    Reelkv__V1__FetchRequest request = REELKV__V1__FETCH_REQUEST__INIT;
    const Reelkv__V1__SliceReply *reply;
    struct rpc_sync_stream *call;
    struct rpc_payload payload;
    struct view_message view;

    make_view(client, &view, 0, DAMAGE_STREAMS);
    request.view = &view.view;
    request.frames = client->ref_list;
    request.n_frames = client->count;
    request.layers = damage_geometry.layers;
    request.thumbnails = true;
    call = open_call(client, &api_fetch, &request.base);
    while ((reply = read_reply(client, call, &payload)) != NULL) {
        const struct expected *expected;

        if (reply->head == NULL || reply->head->index >= client->count)
            damage_fail("Fetch: a reply of no frame");
        expected = &client->list[reply->head->index];
        hear_slice(client, asked, expected, reply->head, &payload);
        if (reply->head->layer == 0)
            hear_thumbnail(asked, expected, &reply->head->thumbnail);
    }
    rpc_sync_stream_destroy(call);
}

static ProtobufCBinaryData a_query(void)
{
    static float query[64];

    for (uint32_t i = 0; i < kv_key_dims(&damage_geometry); i++)
        query[i] = 1.0f + (float)i;
    return (ProtobufCBinaryData){ kv_key_dims(&damage_geometry) * sizeof *query, (uint8_t *)query };
}

static void select_all(Reelkv__V1__Selection *selection)
{
    reelkv__v1__selection__init(selection);
    selection->kind = REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_ALL;
}

/* Hits name frames that their slices only number; then the slices, and the layer's end. */
static void retrieve_layer(struct client *client, struct rpc_sync_stream *call, struct asked *asked,
                           uint32_t layer)
{
    const struct expected *hits[FRAMES_ALL];
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery query = REELKV__V1__RETRIEVE_QUERY__INIT;
    const Reelkv__V1__RetrieveReply *reply;
    struct rpc_payload payload;
    size_t count = 0;

    query.layer = layer;
    query.query = a_query();
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &query;
    check(client, rpc_sync_write(call, &request.base, NULL, &client->st), "Retrieve");
    while ((reply = read_reply(client, call, &payload)) != NULL &&
           reply->item_case != REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END) {
        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_HITS) {
            for (count = 0; count < reply->hits->n_hits; count++)
                hits[count] = find(client, reply->hits->hits[count]->frame->stream,
                                   reply->hits->hits[count]->frame->seq);
        } else if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE && reply->slice->head != NULL &&
                   reply->slice->head->index < count) {
            hear_slice(client, asked, hits[reply->slice->head->index], reply->slice->head, &payload);
        } else {
            damage_fail("Retrieve: an unexpected reply");
        }
    }
    if (reply == NULL)
        damage_fail("Retrieve: it ended early");
}

static void retrieve(struct client *client, struct asked *asked)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    Reelkv__V1__Selection selection;
    struct rpc_sync_stream *call;
    struct rpc_payload payload;
    struct view_message view;

    make_view(client, &view, 0, DAMAGE_STREAMS);
    select_all(&selection);
    open.view = &view.view;
    open.selection = &selection;
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    call = open_call(client, &api_retrieve, &request.base);
    if (read_reply(client, call, &payload) == NULL)
        damage_fail("Retrieve: it did not open");
    for (uint32_t layer = 0; layer < damage_geometry.layers; layer++)
        retrieve_layer(client, call, asked, layer);
    check(client, rpc_sync_finish(call, &client->st), "Retrieve");
    rpc_sync_stream_destroy(call);
}

/* True: to its end. False: it met a block that is damaged, or there is none left. */
static bool load_window(struct client *client, uint32_t stream, struct asked *asked)
{
    Reelkv__V1__LoadWindowRequest request = REELKV__V1__LOAD_WINDOW_REQUEST__INIT;
    const struct expected *expected = NULL;
    const struct rpc_message *message;
    struct rpc_sync_stream *call;
    uint64_t at = 0;
    bool ok;

    request.id = &client->ids[stream];
    request.fingerprint =
        (ProtobufCBinaryData){ KV_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)damage_fingerprint };
    request.epoch = EPOCH;
    request.tokens = WINDOW_TOKENS;
    call = open_call(client, &api_load_window, &request.base);
    while ((ok = rpc_sync_read(call, &message, &client->st)) && message != NULL) {
        const Reelkv__V1__LoadWindowReply *reply = (const Reelkv__V1__LoadWindowReply *)message->body;

        if (reply->item_case == REELKV__V1__LOAD_WINDOW_REPLY__ITEM_BLOCK) {
            expected = reply->block->kind == REELKV__V1__BLOCK_KIND__BLOCK_KIND_FRAME
                           ? find(client, stream, reply->block->seq)
                           : NULL;
            at = 0;
        } else if (expected != NULL) {
            compare(client, expected, at, &message->payload);
            at += message->payload.len;
            if (at == kv_payload_bytes(&damage_geometry, expected->frame.tokens))
                hear(asked, expected, SAID_RIGHT);
        }
    }
    rpc_sync_stream_destroy(call);
    if (!ok && client->st.code != STATUS_ABORTED)
        damage_fail("LoadWindow: %s", client->st.text);
    return ok;
}

void client_timeline(struct client *client, uint32_t stream, enum said said[DAMAGE_FRAMES_MAX])
{
    Reelkv__V1__TimelineRequest request = REELKV__V1__TIMELINE_REQUEST__INIT;
    const struct rpc_message *message;
    const Reelkv__V1__TimelineReply *reply;
    struct rpc_sync_stream *call = NULL;
    size_t span = 0;

    request.id = &client->ids[stream];
    check(client,
          rpc_sync_unary(&call, client->rpc, &api_timeline, &patient, &request.base, &message, &client->st),
          "Timeline");
    reply = (const Reelkv__V1__TimelineReply *)message->body;
    for (uint32_t i = client->first[stream]; i < client->first[stream + 1]; i++) {
        uint64_t seq = client->list[i].frame.seq;
        enum said *at = &said[client->list[i].at];

        while (span < reply->n_spans && reply->spans[span]->to_seq <= seq)
            span++;
        if (span == reply->n_spans || reply->spans[span]->from_seq > seq)
            *at = SAID_NOTHING;
        else if (reply->spans[span]->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK)
            *at = SAID_RIGHT;
        else
            *at = reply->spans[span]->result == REELKV__V1__FRAME_RESULT__FRAME_RESULT_QUARANTINED
                      ? SAID_QUARANTINED
                      : SAID_OTHER;
    }
    rpc_sync_stream_destroy(call);
}

void client_score(struct client *client, uint32_t stream, const enum said said[DAMAGE_FRAMES_MAX])
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    const struct rpc_message *message;
    const Reelkv__V1__ScoreReply *reply;
    struct rpc_sync_stream *call = NULL;
    Reelkv__V1__Selection selection;
    struct view_message view;

    make_view(client, &view, stream, 1);
    select_all(&selection);
    request.view = &view.view;
    request.selection = &selection;
    request.query = a_query();
    check(client,
          rpc_sync_unary(&call, client->rpc, &api_score, &patient, &request.base, &message, &client->st),
          "Score");
    reply = (const Reelkv__V1__ScoreReply *)message->body;
    for (size_t i = 0; i < reply->n_hits; i++)
        if (said[find(client, stream, reply->hits[i]->frame->seq)->at] != SAID_RIGHT)
            damage_fail("Score chose frame %llu, which is damaged",
                        (unsigned long long)reply->hits[i]->frame->seq);
    rpc_sync_stream_destroy(call);
}

/* A window has no answer for a frame that it cannot be made with: what became of that one, Timeline says. */
static void ask_windows(struct client *client, struct asked *asked)
{
    for (uint32_t i = 0; i < DAMAGE_STREAMS; i++) {
        enum said said[DAMAGE_FRAMES_MAX];
        uint32_t calls = 0;

        while (!load_window(client, i, asked))
            if (++calls > DAMAGE_FRAMES_MAX)
                break; /* the system prompt's block: it stays damaged */
        client_timeline(client, i, said);
        for (uint32_t n = 0; n < client->first[i + 1] - client->first[i]; n++)
            if (said[n] > SAID_RIGHT)
                asked->said[i][n] = said[n];
    }
}

void client_ask(struct client *client, enum asker asker, struct asked *asked)
{
    memset(asked, 0, sizeof *asked);
    if (asker == ASK_FETCH)
        fetch(client, asked);
    else if (asker == ASK_RETRIEVE)
        retrieve(client, asked);
    else
        ask_windows(client, asked);
}
