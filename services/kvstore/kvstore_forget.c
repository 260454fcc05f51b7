/* Retention: forgetting, and its receipts. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kvstore/kvstore.h"
#include "kvstore/stream_forget.h"

/* A receipt with all it points to; texts stay the receipt's. */
struct receipt_message {
    Reelkv__V1__Receipt receipt;
    Reelkv__V1__StreamId id;
    Reelkv__V1__TimeRange range;
};

static void fill(struct receipt_message *message, const struct stream *stream,
                 const struct forget_receipt *receipt)
{
    reelkv__v1__receipt__init(&message->receipt);
    reelkv__v1__stream_id__init(&message->id);
    reelkv__v1__time_range__init(&message->range);
    message->id.namespace_ = (char *)(uintptr_t)stream->ns;
    message->id.name = (char *)(uintptr_t)stream->name;
    message->range.from_ns = receipt->from_ns;
    message->range.to_ns = receipt->to_ns;
    message->receipt.id = &message->id;
    message->receipt.range = &message->range;
    message->receipt.number = receipt->number;
    message->receipt.asked_ns = receipt->asked_ns;
    message->receipt.done_ns = receipt->done_ns;
    message->receipt.frames = receipt->frames;
    message->receipt.bytes = receipt->bytes;
    message->receipt.files = receipt->files;
    message->receipt.store = (char *)(uintptr_t)receipt->store;
    message->receipt.version = (char *)(uintptr_t)receipt->version;
    if (receipt->done_ns == 0)
        message->receipt.waits_because = (char *)(uintptr_t)stream_forget_waits_because(stream);
}

static uint32_t receipt_count(const struct stream *stream)
{
    uint32_t count = 0;

    while (stream_receipt_at(stream, count) != NULL)
        count++;
    return count;
}

static void forgotten(void *user, struct stream *stream, const struct status *failure)
{
    struct rpc_call *call = user;
    struct receipt_message message;

    if (failure != NULL) {
        rpc_call_finish(call, failure);
    } else {
        fill(&message, stream, stream_receipt_at(stream, receipt_count(stream) - 1));
        rpc_call_reply(call, &message.receipt.base, NULL);
    }
    rpc_call_unref(call);
}

void kvstore_forget(struct rpc_call *call, void *state)
{
    const Reelkv__V1__ForgetRequest *request =
        (const Reelkv__V1__ForgetRequest *)rpc_call_request(call)->body;
    struct status st = { 0 };
    struct stream *stream = kvstore_stream_of(state, request->id, &st);
    int64_t to_ns;

    if (stream != NULL && request->range == NULL) {
        status_fail(&st, STATUS_INVALID, "the request has no range");
        stream = NULL;
    }
    if (stream != NULL) {
        to_ns = request->range->to_ns == 0 ? clock_utc_ns() : request->range->to_ns;
        rpc_call_ref(call);
        if (stream_forget(stream, request->range->from_ns, to_ns, forgotten, call, &st)) {
            kvstore_end_forgotten_prefetches(state);
            return;
        }
        rpc_call_finish(call, &st);
        rpc_call_unref(call);
        return;
    }
    rpc_call_finish(call, &st);
}

void kvstore_list_receipts(struct rpc_call *call, void *state)
{
    const Reelkv__V1__ListReceiptsRequest *request =
        (const Reelkv__V1__ListReceiptsRequest *)rpc_call_request(call)->body;
    Reelkv__V1__ListReceiptsReply reply = REELKV__V1__LIST_RECEIPTS_REPLY__INIT;
    struct receipt_message messages[FORGET_RECEIPTS_MAX];
    Reelkv__V1__Receipt *list[FORGET_RECEIPTS_MAX];
    struct status st = { 0 };
    const struct stream *stream = kvstore_stream_of(state, request->id, &st);

    if (stream == NULL) {
        rpc_call_finish(call, &st);
        return;
    }
    reply.n_receipts = receipt_count(stream);
    for (uint32_t n = 0; n < reply.n_receipts; n++) {
        fill(&messages[n], stream, stream_receipt_at(stream, n));
        list[n] = &messages[n].receipt;
    }
    reply.receipts = list;
    rpc_call_reply(call, &reply.base, NULL);
}
