#include "kv_read.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv/kv_crc.h"
#include "kv_figures.h"
#include "kv_limits.h"
#include "kv_write.h"
#include "rpc/api.h"

enum { QUESTIONS_MAX = 64, CALL_MS = 600000 };

struct question {
    struct kv_reading *reading;
    struct rpc_sync *client;
    struct kv_shm_peer *peer;
    struct rpc_sync_stream *call;
    uint8_t *room; /* a layer's slices */
    float *query;
    uint64_t number;
    double bytes;
    /* the slice that comes in pieces */
    uint8_t *to;
    uint64_t left, length;
    uint32_t crc, found; /* as the store said, and of what has come */
    uint64_t inlined;
};

static struct question questions[QUESTIONS_MAX];

static uint64_t slice_bytes(const struct kv_reading *reading)
{
    return 2 * kv_slice_bytes(reading->geometry, reading->tokens);
}

static void make_query(const struct question *question, uint32_t layer)
{
    uint32_t dims = kv_key_dims(question->reading->geometry), alike = question->reading->alike;

    for (uint32_t i = 0; i < dims; i++)
        question->query[i] =
            (float)alike / 100 * kv_number(question->number, i) +
            (float)(100 - alike) / 100 * kv_number(question->number + 1000003ull * (layer + 1), i);
}

static void send(struct question *question, const Reelkv__V1__RetrieveRequest *request)
{
    struct status st = { 0 };

    if (!rpc_sync_write(question->call, &request->base, NULL, &st))
        kv_die("retrieve: %s", st.text);
}

static const Reelkv__V1__RetrieveReply *receive(struct question *question,
                                                const struct rpc_payload **payload_p)
{
    const struct rpc_message *message;
    struct status st = { 0 };

    if (!rpc_sync_read(question->call, &message, &st) || message == NULL)
        kv_die("retrieve: %s", st.text);
    *payload_p = &message->payload;
    return (const Reelkv__V1__RetrieveReply *)message->body;
}

static void open_question(struct question *question)
{
    const struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveOpen open = REELKV__V1__RETRIEVE_OPEN__INIT;
    Reelkv__V1__Selection selection = REELKV__V1__SELECTION__INIT;
    const struct rpc_payload *payload;
    struct kv_view view;
    struct status st = { 0 };

    if (!rpc_sync_open(&question->call, question->client, &api_retrieve, &options, &st))
        kv_die("%s", st.text);
    kv_view_fill(&view, question->reading->stream, 0);
    selection.kind = REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_REKV;
    selection.top_r = question->reading->top;
    open.view = &view.view;
    open.selection = &selection;
    open.shm_session = question->peer == NULL ? 0 : kv_shm_peer_session(question->peer);
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_OPEN;
    request.open = &open;
    send(question, &request);
    receive(question, &payload);
}

static void take_pieces(struct question *question, const struct rpc_payload *payload)
{
    if (payload->len > question->left)
        kv_die("a slice is longer than it said");
    for (uint32_t i = 0; i < payload->piece_count; i++) {
        const struct bytes *piece = &payload->pieces[i];

        question->found = kv_crc_copy(question->found, question->to + (question->length - question->left),
                                      piece->data, piece->len);
        question->left -= piece->len;
    }
    if (payload->len == 0 || question->left > 0)
        return;
    if (question->found != question->crc)
        kv_die("a slice does not fit its checksum");
    question->bytes += (double)question->length;
}

static void take_head(struct question *question, const Reelkv__V1__SliceHead *head)
{
    struct kv_place place;
    struct status st = { 0 };

    if (head->result != REELKV__V1__FRAME_RESULT__FRAME_RESULT_OK ||
        head->length != slice_bytes(question->reading) || head->index >= question->reading->top)
        kv_die("a slice did not come: result %d, %llu bytes", (int)head->result,
               (unsigned long long)head->length);
    question->to = question->room + head->index * slice_bytes(question->reading);
    question->length = question->left = head->length;
    question->crc = head->crc32c;
    question->found = 0;
    question->inlined += head->place == NULL;
    if (head->place == NULL)
        return;
    place = (struct kv_place){ head->place->offset, head->place->length, head->place->generation };
    if (!kv_pool_reader_copy(kv_shm_peer_arena(question->peer), &place, head->crc32c, question->to, &st))
        kv_die("%s", st.text);
    question->left = 0;
    question->bytes += (double)place.length;
}

static void take_slice(struct question *question, const Reelkv__V1__SliceReply *slice,
                       const struct rpc_payload *payload)
{
    if (slice->head != NULL)
        take_head(question, slice->head);
    for (size_t i = 0; i < slice->n_more; i++)
        take_head(question, slice->more[i]);
    take_pieces(question, payload);
}

static void ask_layer(struct question *question, uint32_t layer)
{
    Reelkv__V1__RetrieveRequest request = REELKV__V1__RETRIEVE_REQUEST__INIT;
    Reelkv__V1__RetrieveQuery query = REELKV__V1__RETRIEVE_QUERY__INIT;
    const struct rpc_payload *payload;

    make_query(question, layer);
    query.layer = layer;
    query.query = (ProtobufCBinaryData){ kv_key_dims(question->reading->geometry) * sizeof(float),
                                         (uint8_t *)question->query };
    request.item_case = REELKV__V1__RETRIEVE_REQUEST__ITEM_QUERY;
    request.query = &query;
    send(question, &request);
    for (;;) {
        const Reelkv__V1__RetrieveReply *reply = receive(question, &payload);

        if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_SLICE)
            take_slice(question, reply->slice, payload);
        else if (reply->item_case == REELKV__V1__RETRIEVE_REPLY__ITEM_LAYER_END)
            return;
    }
}

static void ask(unsigned number, void *arg)
{
    struct question *question = &questions[number];
    struct status st = { 0 };

    open_question(question);
    for (uint32_t layer = 0; layer < question->reading->geometry->layers; layer++) {
        ask_layer(question, layer);
        if (question->reading->pause_us > 0)
            usleep(question->reading->pause_us);
    }
    if (!rpc_sync_finish(question->call, &st))
        kv_die("retrieve: %s", st.text);
    rpc_sync_stream_destroy(question->call);
}

static void question_init(struct question *question, struct kv_reading *reading, uint64_t number)
{
    uint64_t room = reading->top * slice_bytes(reading);

    *question = (struct question){ .reading = reading, .number = number };
    question->client = kv_server_connect(reading->server);
    if (!reading->is_inline)
        question->peer = kv_server_share(reading->server, NULL);
    question->query = malloc(kv_key_dims(reading->geometry) * sizeof *question->query);
    question->room = aligned_alloc(4096, (room + 4095) / 4096 * 4096);
    if (question->query == NULL || question->room == NULL)
        kv_die("no memory for a question");
    memset(question->room, 1, room);
}

static void question_deinit(struct question *question)
{
    free(question->query);
    free(question->room);
    kv_shm_peer_destroy(question->peer);
    rpc_sync_destroy(question->client);
}

void kv_read(struct kv_reading *reading)
{
    if (reading->questions > QUESTIONS_MAX)
        kv_die("%u questions; at most %d", reading->questions, QUESTIONS_MAX);
    for (uint32_t i = 0; i < reading->questions; i++)
        question_init(&questions[i], reading, reading->seed * 1000 + i);
    reading->bytes = 0;
    reading->own_cpu_s = -kv_own_cpu();
    reading->store_cpu_s = -kv_cpu_of(reading->server->pid);
    reading->seconds = kv_threads(reading->questions, ask, NULL);
    reading->own_cpu_s += kv_own_cpu();
    reading->store_cpu_s += kv_cpu_of(reading->server->pid);
    for (uint32_t i = 0; i < reading->questions; i++) {
        reading->bytes += questions[i].bytes;
        if (!reading->is_inline && questions[i].inlined > 0)
            kv_die("%llu slices came inline, not in shared memory: give the store more memory",
                   (unsigned long long)questions[i].inlined);
        question_deinit(&questions[i]);
    }
}

/* --- scores --- */

static void score_layer(struct rpc_sync *client, Reelkv__V1__ScoreRequest *request, uint64_t frames)
{
    const struct rpc_stream_options options = { .timeout_ms = CALL_MS };
    struct rpc_sync_stream *stream = NULL;
    const struct rpc_message *reply;
    struct status st = { 0 };

    if (!rpc_sync_unary(&stream, client, &api_score, &options, &request->base, &reply, &st))
        kv_die("score: %s", st.text);
    if (((const Reelkv__V1__ScoreReply *)reply->body)->scored != frames)
        kv_die("%llu frames were scored, not %llu",
               (unsigned long long)((const Reelkv__V1__ScoreReply *)reply->body)->scored,
               (unsigned long long)frames);
    rpc_sync_stream_destroy(stream);
}

struct kv_scored kv_score_all(struct kv_server *server, const struct kv_geometry *geometry,
                              const char *stream, uint64_t frames)
{
    Reelkv__V1__ScoreRequest request = REELKV__V1__SCORE_REQUEST__INIT;
    Reelkv__V1__Selection selection = REELKV__V1__SELECTION__INIT;
    uint32_t dims = kv_key_dims(geometry);
    float *query = malloc(dims * sizeof *query);
    struct kv_view view;
    struct kv_scored used;

    if (query == NULL)
        kv_die("no memory for a query");
    for (uint32_t i = 0; i < dims; i++)
        query[i] = kv_number(77, i);
    kv_view_fill(&view, stream, frames);
    selection.kind = REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_REKV;
    selection.top_r = 64;
    request.view = &view.view;
    request.selection = &selection;
    request.query = (ProtobufCBinaryData){ dims * sizeof *query, (uint8_t *)query };
    used = (struct kv_scored){ -kv_cpu_of_threads(server->pid, "kv-computing"), -kv_cpu_of(server->pid) };
    for (request.layer = 0; request.layer < geometry->layers; request.layer++)
        score_layer(server->client, &request, frames);
    used.scoring_s += kv_cpu_of_threads(server->pid, "kv-computing");
    used.all_s += kv_cpu_of(server->pid);
    free(query);
    return used;
}
