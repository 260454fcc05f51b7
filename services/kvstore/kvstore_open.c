/* OpenStream: a writer takes a stream, and with it a new epoch. */
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "kvstore/kvstore.h"

/* Another may take the stream while this epoch is being saved: each is told its own. */
struct opening {
    struct rpc_call *call;
    uint64_t epoch;
};

static void opened(void *user, struct stream *stream, const struct status *failure)
{
    struct opening *opening = user;
    struct rpc_call *call = opening->call;
    Reelkv__V1__OpenStreamReply reply = REELKV__V1__OPEN_STREAM_REPLY__INIT;

    if (failure != NULL) {
        rpc_call_finish(call, failure);
    } else {
        reply.epoch = opening->epoch;
        reply.next_seq = stream->next_seq;
        reply.next_token_index = stream->next_token_index;
        reply.durable_seq = stream_durable_seq(stream);
        rpc_call_reply(call, &reply.base, NULL);
    }
    rpc_call_unref(call);
    free(opening);
}

void kvstore_open_stream(struct rpc_call *call, void *state)
{
    const Reelkv__V1__OpenStreamRequest *request =
        (const Reelkv__V1__OpenStreamRequest *)rpc_call_request(call)->body;
    struct stream_open_request open = { .writer = request->writer,
                                        .expected_frames = request->expected_frames };
    struct opening *opening;
    struct stream *stream;
    struct status st = { 0 };

    stream = kvstore_stream_of(state, request->id, &st);
    if (stream != NULL && request->geometry == NULL) {
        status_fail(&st, STATUS_INVALID, "the request has no geometry");
        stream = NULL;
    }
    if (stream != NULL && (strlen(request->writer) >= STREAM_WRITER_BYTES ||
                           !utf8_is_valid(request->writer, strlen(request->writer)))) {
        status_fail(&st, STATUS_INVALID, "writer must be a name of at most %d bytes of UTF-8",
                    STREAM_WRITER_BYTES - 1);
        stream = NULL;
    }
    if (stream == NULL || !kvstore_read_fingerprint(&request->fingerprint, open.fingerprint, &st)) {
        rpc_call_finish(call, &st);
        return;
    }
    open.geometry = (struct kv_geometry){ .layers = request->geometry->layers,
                                          .kv_heads = request->geometry->kv_heads,
                                          .head_dim = request->geometry->head_dim,
                                          .dtype = (enum kv_dtype)request->geometry->dtype };
    opening = calloc(1, sizeof *opening);
    if (opening == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for one more call");
        rpc_call_finish(call, &st);
        return;
    }
    opening->call = call;
    rpc_call_ref(call);
    if (stream_open(stream, &open, opened, opening, &st)) {
        opening->epoch = stream->epoch;
        return;
    }
    rpc_call_finish(call, &st);
    rpc_call_unref(call);
    free(opening);
}
